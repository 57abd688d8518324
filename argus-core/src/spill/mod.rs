//! Spilling: when the store fails, or the queue overflows under `Overflow::Spill`, a second thread empties the queue into the pending file, from which the writer's
//! merge (`writer/merge.rs`) commits later. The file holds the batch that the writer has in its hands and then all that was queued, in order and without a hole;
//! it is synced before the queue lets go of anything. While `active`, only this thread takes from the queue; so each writer's order holds.

pub(crate) mod file;
pub(crate) mod line;
pub(crate) mod records;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::{Core, State, queue_own};
use crate::entry::entries;
use crate::error::{AuditError, ErrorKind, TrailError};
use crate::event::AuditEvent;
use crate::id::WriterId;
use crate::pending::{Completer, Completion};
use crate::queue::Chunk;
use crate::queue::files::{Beside, Owner, WriterLock};
use crate::sink::{Receipt, State as Fate};
use crate::stack::Names;
use crate::store::place;
use crate::writer::Identity;
use file::PendingFile;
use line::Head;

/// What one write takes from the queue.
const WRITE: usize = 1 << 20;
/// What a writer's lock says of its queue once the pending file has all of it.
pub(crate) const SPILLED: &str = "spilled";
/// The pause after the pending file failed.
const RETRY: Duration = Duration::from_secs(1);
/// How often a failure that lasts is told of.
const TELL: Duration = Duration::from_secs(60);

/// What the writer has in its hands.
#[derive(Default)]
pub(crate) enum Batch {
    #[default]
    None,
    /// Taken from the queue and being made ready.
    Preparing,
    Held(Arc<Vec<Chunk>>),
}

/// Why records go to the pending file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cause {
    StoreFailed(String),
    QueueFull,
}

/// The part of a logger's state that the writer and the spill thread share.
#[derive(Default)]
pub(crate) struct Spilling {
    /// There is a thread and a place for the file.
    pub(crate) on: bool,
    /// Somebody asked for it.
    wanted: Option<Cause>,
    /// The spill thread takes from the queue, and the writer does not.
    pub(crate) active: bool,
    /// The writer wants the queue back.
    pub(crate) give_back: bool,
    /// What the spill thread had taken and could not write.
    pub(crate) returned: Vec<Chunk>,
    pub(crate) batch: Batch,
    /// When the writer's present call of the store began.
    pub(crate) store_since: Option<Instant>,
    /// Batches that the writer is done with and the spill thread was still reading.
    leftover: Vec<Arc<Vec<Chunk>>>,
    /// The highest number that is synced to the pending file, now or ever.
    pub(crate) synced: u64,
    /// The file, while there is one.
    pub(crate) file: Option<PathBuf>,
    /// The file has served: the next spill makes another.
    pub(crate) merged: bool,
    /// The writer takes the merged file away: no spill begins until it is gone.
    pub(crate) ending: bool,
    /// The file cannot be made or written.
    pub(crate) failed: bool,
    /// `audit_fallback` has no place in the queue yet.
    pub(crate) telling: bool,
    /// The spill thread is at the file: it makes it, or has chunks in its hands.
    pub(crate) busy: bool,
    /// It is gone with a panic, and what it had in its hands with it.
    pub(crate) broken: bool,
    /// Held while the writer lives, or this thread is still at the file: until then nobody else takes what they left. Its file goes when all is committed.
    pub(crate) lock: Option<WriterLock>,
}

impl Spilling {
    /// Whether a record with this number is in the pending file.
    pub(crate) fn holds(&self, writer_seq: u64) -> bool {
        writer_seq <= self.synced
    }

    /// Whether somebody asked for a file that there is not yet.
    pub(crate) fn asked(&self) -> bool {
        self.wanted.is_some()
    }

    /// No further spill begins.
    pub(crate) fn end(&mut self) {
        self.on = false;
        self.wanted = None;
    }

    /// Nobody needs it any more.
    pub(crate) fn unwanted(&mut self) {
        if !self.active {
            // What was wrong with the file may have passed, too.
            (self.wanted, self.failed) = (None, false);
        }
    }
}

impl Core {
    /// Asks the spill thread to take the queue over.
    pub(crate) fn request_spill(&self, state: &mut State, cause: impl FnOnce() -> Cause) {
        let spill = &mut state.spill;
        if spill.on && !spill.active && spill.wanted.is_none() {
            spill.wanted = Some(cause());
            self.spill.notify_one();
        }
    }

    /// The spill thread is gone with a panic: the writer closes the trail, and leaves the files to the next open.
    fn spill_died(&self) {
        let mut state = self.lock();
        state.spill.end();
        (state.spill.active, state.spill.busy, state.spill.broken) = (false, false, true);
        state.closing.get_or_insert_with(Instant::now);
        if state.closed {
            drop(state.spill.lock.take());
        }
        drop(state);
        self.work.notify_all();
        self.space.notify_all();
    }

    /// Gives a batch back to the queue, once nobody reads it.
    pub(crate) fn release(&self, state: &mut State, batch: Arc<Vec<Chunk>>) {
        match Arc::try_unwrap(batch) {
            Ok(chunks) => chunks.into_iter().for_each(|c| state.queue.release(c)),
            Err(shared) => state.spill.leftover.push(shared),
        }
        self.wake_keeper(state);
        self.made_space(state);
    }
}

/// The spill thread.
pub(crate) struct Spiller {
    core: Arc<Core>,
    beside: Beside,
    head: Head,
    identity: Identity,
    writer: String,
    names: Names,
    file: Option<PendingFile>,
    /// Nothing was told of it yet.
    fresh: bool,
    lines: Vec<u8>,
    /// `audit_fallback`, until the queue has room for it.
    untold: Option<Cause>,
    /// When the file's failure was last told of.
    told: Option<Instant>,
}

enum Work {
    Begin,
    /// What the writer holds, if anything.
    Batch(Arc<Vec<Chunk>>),
    Chunks(Vec<Chunk>),
    /// The file that was made in vain.
    Forget,
    End,
}

impl Spiller {
    pub(crate) fn new(
        core: Arc<Core>,
        beside: Beside,
        log_id: Option<WriterId>,
        owner: &Owner,
        identity: Identity,
    ) -> Self {
        let writer = core.writer;
        Self {
            head: Head::new(log_id, writer, &beside.trail, owner),
            writer: writer.to_string(),
            core,
            beside,
            identity,
            names: Names::default(),
            file: None,
            fresh: false,
            lines: Vec::new(),
            untold: None,
            told: None,
        }
    }

    /// Starts the thread; without one there is no pending file, and records wait in the queue.
    pub(crate) fn start(self) -> Result<(), TrailError> {
        let core = self.core.clone();
        core.lock().spill.on = true;
        let started = std::thread::Builder::new().name("argus-spill".into()).spawn(move || self.run());
        started.map(drop).map_err(|e| {
            core.lock().spill.on = false;
            TrailError::new(ErrorKind::Io, "cannot start the trail's spill thread").because(e)
        })
    }

    /// The body of the thread. Nothing here should panic; if something does, nobody is left waiting.
    pub(crate) fn run(mut self) {
        crate::thread::mark_argus();
        let core = self.core.clone();
        if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            core.spill_died();
        }
    }

    fn work(&mut self) {
        loop {
            match self.next() {
                Work::End => return,
                Work::Begin => self.begin(),
                Work::Forget => self.forget(),
                Work::Batch(batch) => self.write_batch(batch),
                Work::Chunks(chunks) => self.write_chunks(chunks),
            }
        }
    }

    fn next(&mut self) -> Work {
        let core = self.core.clone();
        let mut state = core.lock();
        loop {
            if state.closed {
                let last = state.last_seq;
                if let Some(mut lock) = state.spill.lock.take()
                    && state.spill.holds(last)
                {
                    // Whoever recovers it need not suppose a loss.
                    let _ = lock.spilled(last, self.head.log_id());
                }
                return Work::End;
            }
            if std::mem::take(&mut state.spill.merged) {
                self.file = None;
            }
            if state.spill.active {
                self.tell_fallback(&mut state);
                state.spill.telling = self.untold.is_some();
                if std::mem::take(&mut state.spill.give_back) {
                    state.spill.active = false;
                    core.work.notify_all();
                    continue;
                }
                let mut chunks = std::mem::take(&mut state.spill.returned);
                let mut bytes: usize = chunks.iter().map(|c| c.bytes().len()).sum();
                while bytes < WRITE
                    && let Some(chunk) = state.queue.take()
                {
                    bytes += chunk.bytes().len();
                    chunks.push(chunk);
                }
                if !chunks.is_empty() {
                    state.spill.busy = true;
                    return Work::Chunks(chunks);
                }
                // Callers wake whoever takes from the queue.
                state.sleeping = true;
                state = core.spill.wait(state).unwrap_or_else(|e| e.into_inner());
                state.sleeping = false;
            } else {
                if state.spill.wanted.is_some() && !state.spill.ending && !matches!(state.spill.batch, Batch::Preparing)
                {
                    if self.file.is_none() {
                        state.spill.busy = true;
                        return Work::Begin;
                    }
                    let cause = state.spill.wanted.take();
                    // Once for each file.
                    if std::mem::take(&mut self.fresh) {
                        self.untold = cause;
                    }
                    state.spill.active = true;
                    state.sleeping = false;
                    state.spill.telling = self.untold.is_some();
                    state.ledger.health.degraded.get_or_insert_with(|| "records go to the pending file".into());
                    core.work.notify_all();
                    if let Batch::Held(batch) = &state.spill.batch {
                        let batch = batch.clone();
                        state.spill.busy = true;
                        return Work::Batch(batch);
                    }
                    continue;
                }
                if state.spill.wanted.is_none() && self.fresh && self.file.is_some() {
                    // Nobody needs it any more, and nothing was written to it.
                    (state.spill.busy, state.spill.file) = (true, None);
                    return Work::Forget;
                }
                state = core.spill.wait(state).unwrap_or_else(|e| e.into_inner());
            }
        }
    }

    fn create(&self) -> Result<PendingFile, TrailError> {
        if let Some(dir) = &self.beside.spill_dir {
            place::own_directory(dir, self.beside.access)?;
        }
        PendingFile::create(
            &self.beside.pending(self.core.writer),
            self.beside.access,
            &self.head,
            #[cfg(any(test, feature = "test-util"))]
            &self.core.config.faults,
        )
    }

    /// Makes the file. While it cannot be made, the queue stays the writer's.
    fn begin(&mut self) {
        let core = self.core.clone();
        let path = self.beside.pending(core.writer);
        match self.create() {
            Ok(file) => {
                self.file = Some(file);
                self.fresh = true;
                let mut state = core.lock();
                state.spill.failed = false;
                if state.spill.wanted.is_none() || state.closed {
                    // The store was faster.
                    drop(state);
                    return self.forget();
                }
                state.spill.file = Some(path);
                state.spill.busy = false;
                core.work.notify_all();
            }
            Err(e) => {
                let mut state = core.lock();
                (state.spill.failed, state.spill.busy) = (true, false);
                // Whoever closes does not wait for a file that there is not.
                core.work.notify_all();
                drop(state);
                self.tell(e);
                self.pause();
            }
        }
    }

    fn forget(&mut self) {
        if let Some(file) = self.file.take() {
            let _ = std::fs::remove_file(file.path());
        }
        self.core.lock().spill.busy = false;
        self.core.work.notify_all();
    }

    /// Waits a little, or until somebody wants something.
    fn pause(&self) {
        let state = self.core.lock();
        if !state.closed && !state.spill.give_back {
            drop(self.core.spill.wait_timeout(state, RETRY).unwrap_or_else(|e| e.into_inner()));
        }
    }

    fn tell(&mut self, e: TrailError) {
        if self.told.is_none_or(|t| t.elapsed() > TELL) {
            self.told = Some(Instant::now());
            self.core.observers.error(AuditError::Store(Arc::new(e)));
        }
    }

    /// The record that says so, as soon as there is room for it, and the same to `on_error`.
    fn tell_fallback(&mut self, state: &mut State) {
        let Some(cause) = self.untold.clone() else { return };
        let file = self.file.as_ref().map(|f| f.path().to_string_lossy().into_owned()).unwrap_or_default();
        let (word, error) = match &cause {
            Cause::StoreFailed(e) => ("store_failed", Some(e.as_str())),
            Cause::QueueFull => ("queue_full", None),
        };
        let event = AuditEvent::security("audit_fallback").component("argus").with("cause", word);
        let event = event.with("error", &error).with("file", file.as_str());
        if !queue_own(&self.core, state, &event, self.core.config.clock.now()) {
            return;
        }
        self.untold = None;
        let reason = error.unwrap_or("the queue is full").to_owned();
        self.core.observers.error(AuditError::Spilling { file: Path::new(&file).into(), reason: reason.into() });
    }

    /// The lines of entries, ready to be written.
    fn prepare(&mut self, chunks: &[Chunk]) {
        self.lines.clear();
        for e in chunks.iter().flat_map(|c| entries(c.bytes())) {
            let stack = e.addresses().and_then(|a| self.names.text(a));
            line::write(&e, &self.identity, &self.writer, stack.as_deref(), &mut self.lines);
        }
    }

    /// Writes and syncs what is prepared, however long it takes. False: it is not written, and nobody waits for it any more.
    fn append(&mut self) -> bool {
        loop {
            let result = match &mut self.file {
                Some(file) => file.append(&self.lines),
                None => return false,
            };
            let Err(mut e) = result else {
                self.core.lock().spill.failed = false;
                self.told = None;
                return true;
            };
            if e.kind() == ErrorKind::Replaced && !self.core.lock().closed {
                // Nobody finds what stands there: these lines go into another. What stood there before is missed by the merge, which says so.
                match self.create() {
                    Ok(file) => {
                        self.tell(e);
                        self.file = Some(file);
                        let state = self.core.lock();
                        if state.closed || state.spill.give_back {
                            return false;
                        }
                        continue;
                    }
                    Err(other) => e = other,
                }
            }
            let mut state = self.core.lock();
            if !std::mem::replace(&mut state.spill.failed, true) {
                state.ledger.health.degraded = Some(format!("neither the store nor the pending file works: {e}"));
                self.core.work.notify_all();
            }
            if state.closed || state.spill.give_back {
                return false;
            }
            drop(state);
            self.tell(e);
            self.pause();
            if self.core.lock().closed {
                return false;
            }
        }
    }

    fn write_batch(&mut self, batch: Arc<Vec<Chunk>>) {
        self.prepare(&batch);
        let written = self.append();
        let core = self.core.clone();
        let acks = {
            let mut state = core.lock();
            state.spill.busy = false;
            let acks = if written { self.account(&mut state, &batch) } else { Vec::new() };
            drop(batch);
            let leftover = std::mem::take(&mut state.spill.leftover);
            leftover.into_iter().for_each(|b| core.release(&mut state, b));
            core.work.notify_all();
            acks
        };
        acknowledge(acks);
    }

    fn write_chunks(&mut self, mut chunks: Vec<Chunk>) {
        crate::queue::open(&mut chunks, &self.core.rules.redaction);
        self.prepare(&chunks);
        let written = self.append();
        let core = self.core.clone();
        let acks = {
            let mut state = core.lock();
            state.spill.busy = false;
            let acks = match written {
                true => {
                    let acks = self.account(&mut state, &chunks);
                    crate::fault::step("spill_synced");
                    core.release(&mut state, Arc::new(chunks));
                    acks
                }
                false => {
                    state.spill.returned.append(&mut chunks);
                    Vec::new()
                }
            };
            core.work.notify_all();
            acks
        };
        acknowledge(acks);
    }

    /// After a sync: the account, and those who wait.
    fn account(&self, state: &mut State, chunks: &[Chunk]) -> Vec<(Completer, Receipt)> {
        let (mut callers, mut last, mut acks) = (0, state.spill.synced, Vec::new());
        for e in chunks.iter().flat_map(|c| entries(c.bytes())) {
            callers += u64::from(!e.is_own());
            last = e.writer_seq();
            if state.acks.front().is_some_and(|(seq, ..)| *seq == last)
                && let Some((_, id, completer)) = state.acks.pop_front()
            {
                acks.push((completer, Receipt::new(id, Fate::Spilled)));
            }
        }
        // A batch that was committed meanwhile is accounted for.
        if last > state.done_seq {
            state.ledger.spilled(callers);
        }
        state.spill.synced = last;
        acks
    }
}

fn acknowledge(acks: Vec<(Completer, Receipt)>) {
    let mut all = Completion::default();
    acks.into_iter().for_each(|(completer, receipt)| all.add(completer, Ok(receipt)));
    all.wake();
}
