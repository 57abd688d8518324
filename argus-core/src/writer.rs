//! The one writer thread of a logger: drain, chain, store, commit, acknowledge. Only it assigns `seq` and calls `Store`. A failed transaction is never believed:
//! the batch is kept and tried again, and the store itself tells what is in already.

mod backlog;
mod seal;
mod stats;
mod tell;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::adopt;
use crate::canonical::Fields;
use crate::core::{Core, State, own_entry};
use crate::entry::entries;
use crate::error::{AuditError, TrailError};
use crate::event::AuditEvent;
use crate::id::Checksum;
use crate::level::Level;
use crate::queue::files::WriterLock;
use crate::queue::{Chunk, Queue, QueueKind, Room};
use crate::stack::Names;
use crate::store::{Closed, Ends, ForeignRow, Head, Store};
use crate::time;
pub(crate) use seal::{Identity, LogWriter, context_of, seal_entry, seal_log_record, sha256_hex};
use seal::{new_id, seal};

/// Most adopted rows in one transaction.
const FOREIGN: usize = 500;
/// Pauses after a failed transaction: doubled each time between these.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How long a group grows where a killed process loses nothing by it.
const JOURNAL_DELAY: Duration = Duration::from_millis(2);
/// Between two records that the queue is nearly full.
const HIGH_WATER_PAUSE: Duration = Duration::from_secs(60);

pub(crate) struct Writer {
    core: Arc<Core>,
    store: Box<dyn Store>,
    identity: Identity,
    /// Text of the writer's id.
    writer: String,
    canonical: Vec<u8>,
    names: Names,
    /// Number, position and checksum of what the last transaction appended.
    sealed: Vec<(u64, u64, Checksum)>,
    /// `created_at` of the last transaction.
    created_at: String,
    /// When `queue_high_water` was last said.
    high_water: Option<Instant>,
    stats: stats::Stats,
    piled: backlog::Piled,
    /// That one failed: tried again, its batch gets the same bytes.
    again: bool,
    /// Held while this writer lives; its file goes when it is closed.
    lock: Option<WriterLock>,
}

impl Writer {
    pub(crate) fn new(core: Arc<Core>, store: Box<dyn Store>, identity: Identity) -> Self {
        let (writer, stats) = (core.writer.to_string(), stats::Stats::new(&core));
        Self {
            core,
            store,
            identity,
            writer,
            canonical: Vec::new(),
            names: Names::default(),
            sealed: Vec::new(),
            created_at: String::new(),
            again: false,
            high_water: None,
            stats,
            piled: Default::default(),
            lock: None,
        }
    }

    pub(crate) fn holding(mut self, lock: WriterLock) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Commits `audit_open` and what the opening of the store found: the proof that the trail works.
    pub(crate) fn open(&mut self, event: &AuditEvent<'_>) -> Result<(), TrailError> {
        let mut chunk = Vec::new();
        let core = self.core.clone();
        if core.config.include_stack {
            self.names.prepare();
        }
        let now = core.config.clock.now();
        own_entry(&core, &mut core.lock(), event, now, &mut chunk).map_err(|e| {
            TrailError::new(crate::error::ErrorKind::Config, "the audit_open record cannot be made").because(e)
        })?;
        let mut chunks = [Chunk::Own(chunk)];
        self.withhold(&mut chunks);
        self.transact(&[chunks[0].bytes()], false)?;
        self.acknowledge(&chunks);
        Ok(())
    }

    /// The body of the thread. Nothing here should panic; if something does, nobody is left waiting.
    pub(crate) fn run(self) {
        let core = self.core.clone();
        if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            core.writer_died();
        }
    }

    fn work(mut self) {
        loop {
            let (mut chunks, closing) = self.gather();
            if let Some(deadline) = closing {
                self.finish(chunks, deadline);
                return;
            }
            let committing = !chunks.is_empty() || self.store.foreign_waiting();
            if committing {
                if let Err(e) = self.commit(&chunks, None, false) {
                    // Closing came while the store failed.
                    let deadline = self.core.lock().closing.unwrap_or_else(Instant::now);
                    self.core.observers.error(AuditError::Store(Arc::new(e)));
                    self.finish(std::mem::take(&mut chunks), deadline);
                    return;
                }
                self.acknowledge(&chunks);
            }
            self.release(chunks);
            self.look_at_backlog(committing);
        }
    }

    /// Waits for work and takes it: chunks from the queue, then gap records that are due.
    fn gather(&mut self) -> (Vec<Chunk>, Option<Instant>) {
        let core = self.core.clone();
        let config = &core.config;
        let now = config.clock.now();
        let mut state = core.lock();
        while state.queue.is_empty() && !state.ledger.has_gaps() && state.closing.is_none() {
            state.sleeping = true;
            let (s, timeout) = core
                .work
                .wait_timeout(state, self.stats.sleep(config.flush_interval))
                .unwrap_or_else(|e| e.into_inner());
            state = s;
            state.sleeping = false;
            if timeout.timed_out() {
                // Time to look after rows of other programs.
                break;
            }
        }
        let delay = config.commit_delay.unwrap_or(match state.queue.kind() {
            QueueKind::Journal => JOURNAL_DELAY,
            QueueKind::Memory => Duration::ZERO,
        });
        if delay > Duration::ZERO {
            let until = Instant::now() + delay;
            // Nobody who waits for a commit or for space waits for it.
            while state.closing.is_none()
                && state.hurry == 0
                && state.waiting == 0
                && state.acks.is_empty()
                && (state.last_seq - state.done_seq) < config.buffer_size as u64
            {
                let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else { break };
                state.delaying = true;
                state = core.work.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
                state.delaying = false;
            }
        }
        if self.stats.is_due() {
            drop(state);
            let rss = stats::resident();
            state = core.lock();
            self.queue_stats(&core, &mut state, now, rss);
        }
        if state.queue.is_empty() && state.ledger.has_gaps() {
            self.queue_gaps(&core, &mut state, now);
        }
        self.queue_high_water(&core, &mut state, now);
        let mut chunks = Vec::new();
        let mut bytes = 0;
        // A bound on what one transaction holds back; the rest stays queued.
        while bytes < 4 << 20 {
            let Some(chunk) = state.queue.take() else { break };
            bytes += chunk.bytes().len();
            chunks.push(chunk);
        }
        let closing = state.closing.filter(|_| state.queue.is_empty());
        drop(state);
        self.withhold(&mut chunks);
        (chunks, closing)
    }

    /// Gap records go through the queue like any other, so that their numbers stand in a journal, too. Without room they wait for the next time.
    fn queue_gaps(&self, core: &Arc<Core>, state: &mut State, now: SystemTime) {
        if !room_for_own(state) {
            return;
        }
        let mut own = Vec::new();
        self.gap_records(core, state, now, &mut own);
        for entry in entries(&own) {
            state.queue.push(entry.bytes());
        }
    }

    /// A queue that is nearly full is told of, at most once a minute: whoever watches the trail can act before callers wait.
    fn queue_high_water(&mut self, core: &Arc<Core>, state: &mut State, now: SystemTime) {
        let (queued, limit) = (state.high_water, state.queue.limit());
        // It goes behind what is queued, like any other; without room it waits.
        if queued == 0 || !room_for_own(state) {
            return;
        }
        state.high_water = 0;
        if self.high_water.is_some_and(|t| t.elapsed() < HIGH_WATER_PAUSE) {
            return;
        }
        self.high_water = Some(Instant::now());
        let event = AuditEvent::warn("queue_high_water").component("argus");
        let event = event.with("queued_bytes", queued).with("limit_bytes", limit);
        let mut own = Vec::new();
        if own_entry(core, state, &event, now, &mut own).is_ok() {
            state.queue.push(&own);
        }
    }

    /// Takes secrets out by their shape: from here on nobody sees them.
    fn withhold(&self, chunks: &mut [Chunk]) {
        if let Ok(shapes) = self.core.rules.redaction.compiled() {
            chunks.iter_mut().for_each(|c| shapes.chunk(c.bytes_mut()));
        }
    }

    fn gap_records(&self, core: &Arc<Core>, state: &mut State, now: SystemTime, out: &mut Vec<u8>) {
        for (reason, gap) in state.ledger.take_gaps() {
            let (first, last) = (time::format_timestamp(gap.first), time::format_timestamp(gap.last));
            let event = AuditEvent::security("audit_gap")
                .component("argus")
                .with("reason", reason.as_str())
                .with("writer", self.writer.as_str())
                .with("count", gap.count);
            let event = event.with("first_time", first.as_str()).with("last_time", last.as_str());
            if own_entry(core, state, &event, now, out).is_err() {
                // Fixed short fields: it cannot fail, and the count stays in health() all the same.
                continue;
            }
        }
    }

    /// Commits until it succeeds; gives up only when the trail is closing and its deadline is over.
    fn commit(&mut self, chunks: &[Chunk], deadline: Option<Instant>, closed: bool) -> Result<(), TrailError> {
        let mut pause = PAUSE.0;
        let mut last_told = None;
        let slices: Vec<&[u8]> = chunks.iter().map(Chunk::bytes).collect();
        loop {
            let result = self.transact(&slices, closed);
            self.again = result.is_err() && !self.created_at.is_empty();
            let Err(e) = result else { return Ok(()) };
            self.store.rollback();
            let until = deadline.or(self.core.lock().closing);
            if until.is_some_and(|d| Instant::now() >= d) {
                return Err(e);
            }
            let mut state = self.core.lock();
            state.ledger.health.degraded = Some(e.to_string());
            drop(state);
            if last_told.is_none_or(|t: Instant| t.elapsed() > Duration::from_secs(60)) {
                last_told = Some(Instant::now());
                self.core.observers.error(AuditError::Store(Arc::new(e)));
            }
            let state = self.core.lock();
            let limit = until.map_or(pause, |d| d.saturating_duration_since(Instant::now()).min(pause));
            // Not `sleeping`: callers need not wake us, only a close does.
            drop(self.core.work.wait_timeout(state, limit).unwrap_or_else(|e| e.into_inner()));
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// One transaction: head, adopted rows, findings, the entries that are not in yet.
    fn transact(&mut self, chunks: &[&[u8]], closed: bool) -> Result<(), TrailError> {
        self.sealed.clear();
        let mut head = self.store.begin()?;
        let now = match self.again {
            true => std::mem::take(&mut self.created_at),
            false => time::created_at(self.core.config.clock.now()),
        };
        let created_at = match head.created_at.take() {
            // Only a true one counts: what was tampered with must not live on in what follows.
            Some(before) if before > now && time::is_created_at(&before) => before,
            _ => now,
        };
        self.created_at.clone_from(&created_at);
        let done = head.writer_last;
        let mut log_writer = LogWriter { id: head.log_id, last: head.log_writer_last };
        for f in self.store.findings() {
            let context = f.context.clone();
            self.log_record(&mut head, &mut log_writer, &created_at, f.event, f.level, &context)?;
        }
        let rows = self.store.foreign(FOREIGN)?;
        for row in &rows {
            self.adopt(&mut head, &mut log_writer, &created_at, row)?;
        }
        if let Some(last) = rows.last() {
            self.store.forget_foreign(last.id)?;
        }
        let mut writer_last = done;
        let mut seen_first = None;
        let Self { store, canonical, sealed, identity, writer, names, .. } = self;
        store.insert_all(&mut |insert| {
            for entry in chunks.iter().flat_map(|c| entries(c)) {
                seen_first.get_or_insert(entry.writer_seq());
                if entry.writer_seq() > done {
                    let stack = entry.addresses().and_then(|a| names.text(a));
                    let about = (&*identity, writer.as_str(), stack.as_deref());
                    seal_entry(insert, canonical, sealed, &mut head, &entry, &created_at, about)?;
                    writer_last = entry.writer_seq();
                }
            }
            Ok(())
        })?;
        let closed = if closed { Closed::Yes } else { Closed::No };
        self.store.commit(&Ends { writer_last, log_writer_last: log_writer.last, closed })?;
        if let Some(first) = seen_first.filter(|f| *f <= done) {
            // Committed by a transaction whose outcome was unknown: the store knows where.
            let mut found = self.store.find(first, done)?;
            found.append(&mut self.sealed);
            self.sealed = found;
        }
        self.core.lock().ledger.health.adopted += rows.len() as u64;
        Ok(())
    }

    /// A record of the log writer with nothing but a context.
    fn log_record(
        &mut self,
        head: &mut Head,
        lw: &mut LogWriter,
        created_at: &str,
        event: &str,
        level: Level,
        context: &str,
    ) -> Result<(), TrailError> {
        let Self { store, canonical, identity, core, .. } = self;
        seal_log_record(core, &mut **store, canonical, head, lw, created_at, (event, level, context), identity)
    }

    fn adopt(
        &mut self,
        head: &mut Head,
        lw: &mut LogWriter,
        created_at: &str,
        row: &ForeignRow,
    ) -> Result<(), TrailError> {
        let adopted = adopt::adopt(row, self.core.config.clock.now(), &self.core.rules.redaction);
        let (id, writer) = (new_id(&self.core), lw.id.to_string());
        let fields = Fields { record_id: &id, writer: &writer, writer_seq: lw.next(), created_at, ..adopted.fields() };
        seal(&mut |f, sum| self.store.insert(f, sum), &mut self.canonical, &mut Vec::new(), head, fields)
    }

    fn release(&self, chunks: Vec<Chunk>) {
        let mut state = self.core.lock();
        for chunk in chunks {
            state.queue.release(chunk);
        }
        self.core.wake_keeper(&mut state);
        self.core.made_space(&state);
    }

    /// The last batch, `audit_close`, and the end of the store.
    fn finish(mut self, mut chunks: Vec<Chunk>, deadline: Instant) {
        let core = self.core.clone();
        let mut error = None;
        loop {
            // What the queue still held behind the batch.
            let mut state = core.lock();
            while let Some(c) = state.queue.take() {
                chunks.push(c);
            }
            drop(state);
            self.withhold(&mut chunks);
            if let Err(e) = self.commit(&chunks, Some(deadline), false) {
                error = Some(AuditError::Store(Arc::new(e)));
                break;
            }
            self.acknowledge(&chunks);
            self.release(std::mem::take(&mut chunks));
            if core.lock().queue.is_empty() {
                break;
            }
        }
        if error.is_none() {
            let mut own = Vec::new();
            let now = core.config.clock.now();
            let mut state = core.lock();
            self.gap_records(&core, &mut state, now, &mut own);
            let h = state.ledger.health.clone();
            let filtered = core.health_filtered();
            let event = AuditEvent::info("audit_close")
                .component("argus")
                .with("submitted", h.submitted)
                .with("committed", h.committed);
            let event = event.with("rejected", h.rejected).with("lost", h.lost).with("filtered", filtered);
            let made = own_entry(&core, &mut state, &event, now, &mut own);
            drop(state);
            let own = vec![Chunk::Own(own)];
            match made.map_err(Some).and_then(|()| {
                self.commit(&own, Some(deadline), true).map_err(|e| Some(AuditError::Store(Arc::new(e))))
            }) {
                Ok(()) => self.acknowledge(&own),
                Err(e) => error = e,
            }
        }
        if let Err(e) = self.store.close() {
            error.get_or_insert(AuditError::Store(Arc::new(e)));
        }
        self.abandon(&chunks, error.as_ref());
        if error.is_none() {
            // All that the journal held is committed. With an error the files stay, for the next open to recover.
            let mut state = core.lock();
            while state.keeper_busy
                && let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|d| !d.is_zero())
            {
                state = core.progress.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
            }
            let paths = match &state.queue {
                Queue::Journal(q) => q.paths(),
                Queue::Memory(_) => Vec::new(),
            };
            drop(state);
            paths.iter().for_each(|p| drop(std::fs::remove_file(p)));
            self.lock.take().into_iter().for_each(WriterLock::remove);
        }
        // Before anybody is told that it is closed.
        drop(self.lock.take());
        let mut state = core.lock();
        state.closed = true;
        state.report.committed = state.ledger.health.committed;
        state.report.error = error;
        state.lost_from = (state.done_seq < state.last_seq).then_some(state.done_seq + 1);
        state.done_seq = state.last_seq;
        drop(state);
        core.progress.notify_all();
        core.space.notify_all();
        core.observers.close();
    }
}

/// Whether the queue has room for a few short records of Argus itself.
fn room_for_own(state: &mut State) -> bool {
    match state.queue.room(4096) {
        Room::Ok => true,
        Room::Chunk(n) => {
            state.queue.supply(Vec::with_capacity(n));
            true
        }
        Room::Full | Room::Segment => false,
    }
}
