//! `Core`: what the handles of a logger and its writer thread share. One short lock guards the queue, the numbers and the ledger together. No I/O and no allocation of a caller
//! happens under it, and no user code but a configured clock, for Argus's own records.

mod own;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub(crate) use self::own::{own_entry, queue_own};
use crate::accept::{self, Call, Rules};
use crate::config::{AuditConfig, Overflow};
use crate::entry;
use crate::error::AuditError;
use crate::event::AuditEvent;
use crate::health::{Health, Ledger};
use crate::id::{RecordId, WriterId};
use crate::level::Level;
use crate::observers::Observers;
use crate::pending::{Bells, Completer, Completion, Pending, Waiter};
use crate::queue::segment::ForkMark;
use crate::queue::{Queue, QueueKind, Room};
use crate::sink::{Caller, Carrier, CloseReport, LossReason, Trace};
use crate::spill::{Cause, Spilling};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::thread::{self, Callers, FAST, NOTED};
use crate::time;

/// The longest wait for a segment of the journal under `Reject`.
const MAKING: Duration = Duration::from_millis(500);
/// How long a direct caller waits for space under `Spill`.
const SPILL_WAIT: Duration = Duration::from_secs(5);
/// A transaction that takes longer makes a full queue go to the pending file, whatever the policy.
const STUCK: Duration = Duration::from_secs(1);
/// A level above all: nothing passes.
const SHUT: u8 = 4;

/// Who waits for a record: its number, its id, and the end to be told.
pub(crate) type Ack = (u64, RecordId, Completer);

pub(crate) struct State {
    pub(crate) queue: Queue,
    pub(crate) ledger: Ledger,
    /// Last number given.
    pub(crate) last_seq: u64,
    /// Last number that is committed or abandoned.
    pub(crate) done_seq: u64,
    /// First number that was abandoned: from there on nothing is committed.
    pub(crate) lost_from: Option<u64>,
    /// Those who wait for a record, in order of its number.
    pub(crate) acks: VecDeque<Ack>,
    pub(crate) closing: Option<Instant>,
    pub(crate) closed: bool,
    pub(crate) report: CloseReport,
    /// Whoever takes from the queue (the writer, or the spill thread) waits for work.
    pub(crate) sleeping: bool,
    /// The writer lets a group of records grow (`commit_delay`).
    pub(crate) delaying: bool,
    /// So many who wait for a commit end that; none: the first does.
    pub(crate) callers: usize,
    /// Callers wait for space.
    pub(crate) waiting: u32,
    /// Most bytes that were queued since the writer last looked, if they were over four fifths of the bound.
    pub(crate) high_water: usize,
    /// The journal's keeper waits for work.
    pub(crate) keeper_idle: bool,
    /// It is at a file that the queue does not know.
    pub(crate) keeper_busy: bool,
    /// When a call last noted where it runs (see `Callers`), in milliseconds.
    noted: u64,
    /// Somebody waits for a flush: no commit delay now.
    pub(crate) hurry: u32,
    pub(crate) spill: Spilling,
}

impl State {
    /// The pending file has something that is not committed, or may get it.
    pub(crate) fn file_waits(&self) -> bool {
        self.spill.active || self.spill.synced > self.done_seq
    }
}

/// What an accepted event comes to.
pub(crate) struct Accepted {
    pub(crate) id: RecordId,
    /// Of one that is waited for.
    pub(crate) pending: Option<Pending>,
}

impl Default for Accepted {
    fn default() -> Self {
        Self { id: RecordId([0; 16]), pending: None }
    }
}

pub(crate) struct Core {
    state: Mutex<State>,
    /// The writer waits here for work.
    pub(crate) work: Condvar,
    /// Callers wait here for space.
    pub(crate) space: Condvar,
    /// The spill thread waits here.
    pub(crate) spill: Condvar,
    /// The journal's keeper waits here.
    pub(crate) keep: Condvar,
    /// `flush` and `close` wait here for progress.
    pub(crate) progress: Condvar,
    min_level: AtomicU8,
    filtered: AtomicU64,
    relay_not_waited: AtomicU64,
    /// Entries get a check value.
    journal: AtomicBool,
    pub(crate) rules: Rules,
    pub(crate) config: AuditConfig,
    pub(crate) observers: Observers,
    pub(crate) writer: WriterId,
    /// Random part of this writer's record ids.
    id_seed: u128,
    mark: Option<Arc<ForkMark>>,
    /// The process that made this.
    process: u32,
    /// Callers wait here for their records.
    pub(crate) bells: Bells,
    /// Where those run who log at full speed.
    pub(crate) callers: Callers,
}

impl Core {
    pub(crate) fn new(config: AuditConfig, rules: Rules, writer: WriterId) -> Self {
        Self {
            state: Mutex::new(State {
                queue: Queue::memory(config.queue_bytes),
                ledger: Ledger::default(),
                last_seq: 0,
                done_seq: 0,
                lost_from: None,
                acks: VecDeque::new(),
                closing: None,
                closed: false,
                report: CloseReport::default(),
                sleeping: false,
                delaying: false,
                callers: 0,
                waiting: 0,
                high_water: 0,
                keeper_idle: false,
                keeper_busy: false,
                noted: 0,
                hurry: 0,
                spill: Spilling::default(),
            }),
            work: Condvar::new(),
            space: Condvar::new(),
            spill: Condvar::new(),
            keep: Condvar::new(),
            progress: Condvar::new(),
            min_level: AtomicU8::new(if config.enabled { config.min_level as u8 } else { SHUT }),
            filtered: AtomicU64::new(0),
            relay_not_waited: AtomicU64::new(0),
            journal: AtomicBool::new(false),
            observers: Observers::new(config.on_error.clone()),
            id_seed: u128::from_be_bytes(WriterId::random().0),
            mark: ForkMark::new().map(Arc::new),
            process: std::process::id(),
            bells: Bells::default(),
            callers: Callers::default(),
            rules,
            config,
            writer,
        }
    }

    /// A forked child has no writer thread, and whoever held the lock at the fork holds it there for ever: nothing below may be touched.
    #[inline]
    pub(crate) fn forked(&self) -> bool {
        match &self.mark {
            Some(mark) => mark.in_a_child(),
            // A kernel that cannot wipe a page: asking for the number is slower, and right.
            None => std::process::id() != self.process,
        }
    }

    /// A panic under the lock is impossible by construction; if it happened all the same, the counters are still numbers.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    #[inline]
    pub(crate) fn enabled(&self, level: Level) -> bool {
        level as u8 >= self.min_level.load(Ordering::Relaxed)
    }

    /// RFC 9562, version 7: milliseconds, then this writer's random bits plus the record's number. Unique in the writer by the number, between writers by 74 random bits.
    fn mint(&self, ms: u64, writer_seq: u64) -> RecordId {
        let ms = u128::from(ms);
        let random = self.id_seed.wrapping_add(u128::from(writer_seq));
        let id = (ms & 0xffff_ffff_ffff) << 80
            | 7 << 76
            | (random >> 64 & 0xfff) << 64
            | 2 << 62
            | (random & 0x3fff_ffff_ffff_ffff);
        RecordId(id.to_be_bytes())
    }

    /// An id for a record of the log writer: version 7, wholly random but for the time.
    pub(crate) fn fresh_id(&self) -> RecordId {
        let random = u128::from_be_bytes(WriterId::random().0);
        let id = self.mint(time::millis(time::split(self.config.clock.now())), 0).0;
        let time = u128::from_be_bytes(id) >> 64 << 64;
        RecordId((time | 2 << 62 | (random & 0x3fff_ffff_ffff_ffff)).to_be_bytes())
    }

    pub(crate) fn health_filtered(&self) -> u64 {
        self.filtered.load(Ordering::Relaxed)
    }

    /// False if the event is filtered. (What it gives goes through `accepted` and its error through a box: to move larger results from call to call costs more than
    /// to make them.)
    pub(crate) fn submit(
        &self,
        event: &AuditEvent<'_>,
        carrier: &Carrier<'_>,
        ack: bool,
        accepted: &mut Accepted,
    ) -> Result<bool, Box<AuditError>> {
        if !self.enabled(event.level) {
            self.filtered.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        let committed = self.config.committed_from.is_some_and(|l| event.level >= l);
        let relay = matches!(carrier.caller, Caller::Relay { .. });
        // Nobody waits for the thread he runs on: then the record is accepted as a relay's is.
        let wait = committed && !ack && !relay && !thread::is_argus();
        if committed && !wait && !ack {
            self.relay_not_waited.fetch_add(1, Ordering::Relaxed);
        }
        self.accept(event, carrier, ack || wait, accepted)?;
        if wait && let Some(pending) = accepted.pending.take() {
            pending.wait(Duration::MAX)?;
        }
        Ok(true)
    }

    fn accept(
        &self,
        event: &AuditEvent<'_>,
        carrier: &Carrier<'_>,
        ack: bool,
        accepted: &mut Accepted,
    ) -> Result<(), Box<AuditError>> {
        if self.forked() {
            return Err(AuditError::Forked.into());
        }
        let split = self.config.clock.parts();
        let hook;
        let trace = match (event.trace, carrier.trace) {
            (Trace::Unset, Trace::Unset) => match &self.config.trace_context {
                Some(f) => {
                    // Foreign code; without its answer the record has no trace, but there is a record.
                    hook = catch_unwind(AssertUnwindSafe(|| f())).unwrap_or_else(|_| {
                        self.observers.error(AuditError::Panicked { field: "trace_context".into() });
                        None
                    });
                    hook.as_ref().map(|t| t.as_context())
                }
                None => None,
            },
            (Trace::Unset, t) | (t, _) => match t {
                Trace::Parent(c) => Some(c),
                _ => None,
            },
        };
        let trace = trace.filter(|t| t.trace_id != [0; 16] && t.span_id != [0; 8]);
        let call = Call {
            now: &split,
            trace: trace.as_ref(),
            observers: carrier.observers,
            own: false,
            stack: self.config.include_stack,
        };
        let result = accept::with_buffers(|buffers| {
            let len = accept::encode(event, &self.rules, &call, buffers)?;
            let entry = buffers.entry.get(..len).unwrap_or_default();
            self.enqueue(entry, time::millis(split), carrier.caller, ack, accepted)
        });
        if let Err(e) = &result {
            self.refuse(e, carrier.caller);
        }
        result
    }

    /// Gets memory for the queue, or waits for room in it; until `deadline`, which the first call sets.
    #[cold]
    fn make_room<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        room: Room,
        caller: Caller,
        deadline: &mut Option<Instant>,
    ) -> Result<MutexGuard<'s, State>, Box<AuditError>> {
        match room {
            Room::Ok => {
                let more = 2 * state.acks.len() + 64;
                drop(state);
                let mut larger = VecDeque::with_capacity(more);
                state = self.lock();
                if larger.capacity() > state.acks.capacity() {
                    larger.append(&mut state.acks);
                    std::mem::swap(&mut larger, &mut state.acks);
                }
                // What it was is freed without the lock.
                drop(state);
                drop(larger);
                return Ok(self.lock());
            }
            Room::Chunk(n) => {
                drop(state);
                let chunk = Vec::with_capacity(n);
                state = self.lock();
                state.queue.supply(chunk);
                return Ok(state);
            }
            Room::Full | Room::Segment => {}
        }
        let full = AuditError::Full { queued: state.queue.bytes(), limit: state.queue.limit() };
        self.wake_keeper(&mut state);
        let stuck = state.spill.store_since.is_some_and(|t| t.elapsed() > STUCK);
        if room == Room::Full && (stuck || self.config.overflow == Overflow::Spill) {
            self.request_spill(&mut state, || Cause::QueueFull);
        }
        let patience = match (self.config.overflow, caller) {
            _ if thread::is_argus() => Duration::ZERO,
            // There is room, as soon as it is made.
            (Overflow::Reject, Caller::Direct) if room == Room::Segment => MAKING,
            (Overflow::Reject, Caller::Relay { max_wait }) if room == Room::Segment => MAKING.min(max_wait),
            (Overflow::Reject, _) => Duration::ZERO,
            (Overflow::Block { timeout }, Caller::Direct) => timeout,
            (Overflow::Block { timeout }, Caller::Relay { max_wait }) => timeout.min(max_wait),
            (Overflow::Spill, Caller::Direct) => SPILL_WAIT,
            (Overflow::Spill, Caller::Relay { max_wait }) => SPILL_WAIT.min(max_wait),
        };
        let until = *deadline.get_or_insert_with(|| Instant::now() + patience.min(Duration::from_secs(86_400)));
        let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else {
            return Err(full.into());
        };
        // A store gets stuck while we wait, too.
        let left = if state.spill.on && !state.spill.active { left.min(STUCK) } else { left };
        state.waiting += 1;
        if std::mem::take(&mut state.delaying) {
            self.work.notify_one();
        }
        state = self.space.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        state.waiting -= 1;
        Ok(state)
    }

    /// The critical section: room, number, copy, publish.
    fn enqueue(
        &self,
        bytes: &[u8],
        ms: u64,
        caller: Caller,
        ack: bool,
        accepted: &mut Accepted,
    ) -> Result<(), Box<AuditError>> {
        // Made before the lock, since making it allocates; its id follows.
        let waiter = ack.then(|| Waiter::new(self.mark.clone(), self.bells.now()));
        let check = if self.journal.load(Ordering::Relaxed) { entry::check(bytes) } else { 0 };
        let mut deadline = None;
        let mut state = self.lock();
        loop {
            if state.closing.is_some() || state.closed {
                return Err(AuditError::Closed.into());
            }
            let room = state.queue.room(bytes.len());
            if room == Room::Ok && !(ack && state.acks.len() == state.acks.capacity()) {
                break;
            }
            state = self.make_room(state, room, caller, &mut deadline)?;
        }
        state.last_seq += 1;
        let seq = state.last_seq;
        let id = self.mint(ms, seq);
        let keep = state.queue.push(entry::front(bytes.len(), check, seq, id), bytes);
        let queued = state.queue.bytes();
        if queued / 4 > state.queue.limit() / 5 {
            state.high_water = state.high_water.max(queued);
            if self.config.overflow == Overflow::Spill {
                self.request_spill(&mut state, || Cause::QueueFull);
            }
        }
        state.ledger.accepted();
        if let Some(waiter) = waiter {
            let (pending, completer) = waiter.name(id);
            state.acks.push_back((seq, id, completer));
            accepted.pending = Some(pending);
        }
        let enough = if ack {
            state.acks.len() >= state.callers
        } else {
            state.acks.is_empty() && seq - state.done_seq >= self.config.buffer_size as u64
        };
        if seq.is_multiple_of(NOTED) && ms.saturating_sub(std::mem::replace(&mut state.noted, ms)) <= FAST {
            self.callers.note();
        }
        let wake = std::mem::take(&mut state.sleeping) || (enough && std::mem::take(&mut state.delaying));
        let wake = wake.then_some(state.spill.active);
        if keep {
            self.wake_keeper(&mut state);
        }
        drop(state);
        match wake {
            None => {}
            Some(false) => self.work.notify_one(),
            Some(true) => self.spill.notify_one(),
        }
        accepted.id = id;
        Ok(())
    }

    /// Counts a refusal: an `Err` that a direct caller sees is rejected, one that nobody sees is lost.
    #[cold]
    fn refuse(&self, error: &AuditError, caller: Caller) {
        match caller {
            Caller::Direct => self.lock().ledger.rejected(),
            Caller::Relay { .. } => {
                let reason = match error {
                    AuditError::Full { .. } => LossReason::QueueFull,
                    AuditError::Closed => LossReason::Closed,
                    AuditError::Panicked { .. } => LossReason::Panicked,
                    _ => LossReason::Invalid,
                };
                self.lose(reason, 1, self.config.clock.now());
                self.observers.error(error.clone());
            }
        }
    }

    pub(crate) fn lose(&self, reason: LossReason, count: u64, now: SystemTime) {
        if self.forked() {
            return;
        }
        let mut state = self.lock();
        state.ledger.lost(reason, count, now);
        // A gap record is due: the writer makes it.
        if !state.spill.active && std::mem::take(&mut state.sleeping) {
            self.work.notify_one();
        }
    }

    /// Wakes the keeper of the journal if it sleeps and has something to do.
    pub(crate) fn wake_keeper(&self, state: &mut State) {
        if state.keeper_idle && state.queue.has_task() {
            state.keeper_idle = false;
            self.keep.notify_one();
        }
    }

    /// Tells callers that wait for space that there is some.
    pub(crate) fn made_space(&self, state: &State) {
        if state.waiting > 0 {
            self.space.notify_all();
        }
    }

    pub(crate) fn flush(&self, timeout: Duration) -> Result<(), AuditError> {
        if self.forked() {
            return Err(AuditError::Forked);
        }
        let until = Instant::now() + timeout.min(Duration::from_secs(86_400 * 365));
        let mut state = self.lock();
        let target = state.last_seq;
        if state.done_seq < target && thread::is_argus() {
            return Err(AuditError::OnArgusThread);
        }
        state.hurry += 1;
        self.work.notify_all();
        let result = loop {
            if let Some(error) = state.lost_from.filter(|l| *l <= target).map(|_| state.report.error.clone()) {
                break Err(error.unwrap_or(AuditError::Lost));
            }
            if state.done_seq >= target {
                break Ok(());
            }
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else {
                break Err(AuditError::Timeout);
            };
            state = self.progress.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        };
        state.hurry -= 1;
        result
    }

    pub(crate) fn unsubscribe(&self, id: crate::sink::ObserverId) {
        if self.forked() {
            return;
        }
        let (last, done) = {
            let state = self.lock();
            (state.last_seq, state.done_seq)
        };
        self.observers.unsubscribe(id, last, done);
        // The writer may have been faster than the line above.
        let done = self.lock().done_seq;
        self.observers.done(done);
    }

    /// The writer's or the spill thread is gone with a panic: nothing more will be committed, and nobody must wait for it.
    pub(crate) fn thread_died(&self, which: &'static str) {
        let error = AuditError::Panicked { field: which.into() };
        let mut state = self.lock();
        if state.closed {
            return;
        }
        // What a journal holds is not lost: the next open of the trail commits it.
        let n = state.ledger.health.queued;
        if state.queue.kind() == QueueKind::Memory {
            state.ledger.abandoned(n);
        }
        state.ledger.health.degraded = Some(error.to_string());
        state.lost_from = (state.done_seq < state.last_seq).then_some(state.done_seq + 1);
        state.done_seq = state.last_seq;
        if !state.spill.busy {
            // Before anybody is told that it is closed. (A spill thread that still writes lets it go.)
            drop(state.spill.lock.take());
        }
        state.closed = true;
        state.report = CloseReport {
            committed: state.ledger.health.committed,
            left: n + state.ledger.health.pending,
            error: Some(error.clone()),
            ..CloseReport::default()
        };
        let acks = std::mem::take(&mut state.acks);
        drop(state);
        let mut all = Completion::default();
        acks.into_iter().for_each(|(.., completer)| all.add(completer, Err(error.clone())));
        all.wake();
        self.progress.notify_all();
        self.space.notify_all();
        self.spill.notify_all();
        self.work.notify_all();
        self.observers.error(error);
        self.observers.close();
    }

    pub(crate) fn close(&self, timeout: Duration) -> CloseReport {
        if self.forked() {
            return CloseReport { error: Some(AuditError::Forked), ..CloseReport::default() };
        }
        let until = Instant::now() + timeout.min(Duration::from_secs(86_400 * 365));
        let mut state = self.lock();
        let already_closed = state.closing.is_some() || state.closed;
        if !already_closed {
            state.closing = Some(until);
            self.work.notify_all();
            self.space.notify_all();
            self.keep.notify_all();
            self.spill.notify_all();
        }
        if thread::is_argus() {
            // Waiting here would be waiting for ourselves; the writer closes by itself.
            return CloseReport {
                already_closed,
                error: (!state.closed).then_some(AuditError::OnArgusThread),
                ..state.report.clone()
            };
        }
        while !state.closed {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else { break };
            state = self.progress.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        let mut report = state.report.clone();
        report.already_closed = already_closed;
        if !state.closed {
            report.error = Some(AuditError::Timeout);
            report.committed = state.ledger.health.committed;
            report.left = state.ledger.health.left();
        }
        drop(state);
        self.observers.drain(until);
        report
    }

    pub(crate) fn health(&self) -> Health {
        if self.forked() {
            return Health { closed: true, degraded: Some(AuditError::Forked.to_string()), ..Health::default() };
        }
        let mut health = {
            let state = self.lock();
            let mut h = state.ledger.health.clone();
            h.queue_bytes = state.queue.bytes();
            h.closed = state.closed;
            h.queue = state.queue.kind();
            if !state.closed && h.degraded.is_none() {
                h.degraded = state.queue.trouble().map(|why| format!("the queue cannot grow: {why}"));
            }
            h
        };
        health.filtered = self.filtered.load(Ordering::Relaxed);
        health.relay_not_waited = self.relay_not_waited.load(Ordering::Relaxed);
        health.observer_missed = self.observers.missed();
        health
    }
}

impl Core {
    /// Exchanges the empty queue for a journal. Before anything is accepted.
    pub(crate) fn use_journal(&self, queue: Queue) {
        self.journal.store(true, Ordering::Relaxed);
        self.lock().queue = queue;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_known_without_the_kernels_mark() {
        let mut core = Core::new(AuditConfig::new("t.jsonl"), Rules::empty(), WriterId::random());
        core.mark = None;
        assert!(!core.forked());
        // As in a child.
        core.process = std::process::id() + 1;
        assert!(core.forked() && core.health().closed);
    }
}
