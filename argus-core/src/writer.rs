//! The one writer thread of a logger: drain, chain, store, commit, acknowledge. Only it assigns `seq` and calls `Store`. A failed transaction is never believed:
//! the batch is kept and tried again, and the store itself tells what is in already.

mod backlog;
mod finish;
mod group;
mod merge;
mod seal;
mod stats;
mod tell;
mod wait;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::adopt;
use crate::canonical::Fields;
use crate::core::{Core, State, own_entry, queue_own};
use crate::entry::entries;
use crate::error::{AuditError, ErrorKind, TrailError};
use crate::event::AuditEvent;
use crate::health::Gap;
use crate::id::{Checksum, RecordId};
use crate::level::Level;
use crate::queue::files::WriterLock;
use crate::queue::{Chunk, room_for_own};
use crate::sink::LossReason;
use crate::spill::{Batch, Cause};
use crate::stack::Names;
use crate::store::{Closed, Ends, ForeignRow, Head, Store, late};
use crate::sync::MutexGuard;
use crate::thread;
use crate::time;
use crate::value::Value;
pub(crate) use seal::{Identity, LogWriter, Stamp, context_of, seal_entry, seal_log_record, sha256_hex};
use seal::{new_id, seal};

/// Bytes of entries after which a transaction takes no more.
pub(super) const BATCH: usize = 4 << 20;
/// A store that fails no longer than this is worth no pending file.
const GRACE: Duration = Duration::from_millis(200);
/// Most adopted rows in one transaction.
const FOREIGN: usize = 500;
/// Pauses after a failed transaction: doubled each time between these.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// After somebody waited for a commit, so long others are expected to.
const WAITED: Duration = Duration::from_secs(1);
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
    group: group::Group,
    /// When somebody last waited for a commit.
    waited: Option<Instant>,
    /// The last transaction had more than one record: others are expected soon.
    several: bool,
    /// So long it waits for them.
    nap: Duration,
    /// Nobody waits: it makes room for those who do not notice it.
    aside: bool,
    piled: backlog::Piled,
    /// That one failed: tried again, its batch gets the same bytes.
    again: bool,
    /// The last number of that batch.
    again_to: Option<u64>,
    stamps: seal::Stamps,
}

/// What `gather` found.
enum Gathered {
    Batch(Arc<Vec<Chunk>>),
    /// The last batch, and until when it may take.
    Closing(Arc<Vec<Chunk>>, Instant),
    /// The spill thread has the queue.
    Spilled,
    /// The spill thread is gone, with records that were before what is queued.
    Broken,
}

/// What a transaction says beside its entries.
#[derive(Clone, Copy, Default)]
struct Also<'a> {
    /// The first and the last of the numbers before the first entry that are in no file.
    gap: Option<(u64, u64)>,
    /// The context of an `audit_recovered`.
    recovered: Option<&'a str>,
    /// It is the writer's last.
    closed: bool,
}

/// What became of a batch.
enum Outcome {
    Committed,
    /// The pending file has it.
    Spilled,
    Failed(Arc<TrailError>),
}

/// A store that fails again and again.
#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    told: Option<Instant>,
    pause: Duration,
}

impl Trouble {
    /// The next pause.
    fn pause(&mut self) -> Duration {
        self.pause = (self.pause * 2).clamp(PAUSE.0, PAUSE.1);
        self.pause
    }
}

/// Takes away what a writer has beside its trail, once it says nothing any more.
fn remove_files(mut state: MutexGuard<'_, State>) {
    let mut files = state.queue.paths();
    files.extend(state.spill.file.take());
    let lock = state.spill.lock.take();
    drop(state);
    files.iter().for_each(|f| drop(std::fs::remove_file(f)));
    // Last: by it others know whose the files are.
    lock.into_iter().for_each(WriterLock::remove);
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
            again_to: None,
            stamps: Default::default(),
            high_water: None,
            stats,
            group: Default::default(),
            waited: None,
            several: false,
            nap: wait::NAP,
            aside: false,
            piled: Default::default(),
        }
    }

    /// Commits `audit_open` and what the opening of the store found: the proof that the trail works. If it cannot for now, because of this `trouble` or of what
    /// the transaction says, `audit_open` is the first record of the pending file.
    pub(crate) fn open(&mut self, event: &AuditEvent<'_>, trouble: Option<TrailError>) -> Result<(), TrailError> {
        let core = self.core.clone();
        if core.config.include_stack {
            self.names.prepare();
        }
        let (now, mut own) = (core.config.clock.now(), Vec::new());
        own_entry(&core, &mut core.lock(), event, now, &mut own)
            .map_err(|e| TrailError::new(ErrorKind::Config, "the audit_open record cannot be made").because(e))?;
        let e = match trouble {
            Some(e) => e,
            None => {
                let mut chunks = vec![Chunk::Own(own.clone())];
                self.withhold(&mut chunks);
                let Err(e) = self.transact(&[chunks[0].bytes()], Also::default()) else {
                    self.acknowledge(Arc::new(chunks));
                    return Ok(());
                };
                self.store.rollback();
                // It may be in, in spite of the error.
                (self.again, self.again_to) = (!self.created_at.is_empty(), Some(1));
                e
            }
        };
        let result = if late::may_pass(&e) { self.open_later(&own, e) } else { Err(e) };
        result.inspect_err(|_| self.forget())
    }

    /// Nothing was accepted: the files say nothing.
    fn forget(&self) {
        let mut state = self.core.lock();
        state.closed = true;
        remove_files(state);
        self.core.spill.notify_all();
    }

    /// Waits until the pending file has the first record.
    fn open_later(&mut self, own: &[u8], e: TrailError) -> Result<(), TrailError> {
        let core = self.core.clone();
        let mut state = core.lock();
        if room_for_own(&mut state, own.len()) {
            state.queue.push_own(own);
            core.request_spill(&mut state, || Cause::StoreFailed(e.to_string()));
            while state.spill.on && !state.spill.failed && !state.spill.holds(1) {
                state = core.work.wait_timeout(state, GRACE).unwrap_or_else(|e| e.into_inner()).0;
            }
            if state.spill.holds(1) {
                state.ledger.health.degraded = Some(e.to_string());
                drop(state);
                core.observers.error(AuditError::Store(Arc::new(e)));
                return Ok(());
            }
        }
        Err(e)
    }

    /// The body of the thread. Nothing here should panic; if something does, nobody is left waiting.
    pub(crate) fn run(self) {
        let core = self.core.clone();
        if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            core.thread_died("writer");
        }
    }

    fn work(mut self) {
        loop {
            match self.gather() {
                Gathered::Closing(batch, deadline) => return self.finish(batch, deadline, None),
                Gathered::Broken => return self.break_off(),
                Gathered::Spilled => {
                    if let Err(e) = self.merge(None) {
                        // Closing came while the store failed.
                        return self.finish_failed(Arc::default(), e);
                    }
                }
                Gathered::Batch(batch) => {
                    let committing = !batch.is_empty() || self.store.foreign_waiting();
                    self.several = false;
                    if committing {
                        let began = Instant::now();
                        match self.commit(&batch, None, false) {
                            Outcome::Committed => {
                                let took = began.elapsed();
                                self.several = self.sealed.len() > 1;
                                self.step_aside();
                                self.acknowledge(batch);
                                self.group.told(Instant::now(), took);
                            }
                            // The merge commits it.
                            Outcome::Spilled => self.release(batch),
                            Outcome::Failed(e) => {
                                // Closing came while the store failed.
                                self.core.observers.error(AuditError::Store(e.clone()));
                                return self.finish_failed(batch, e);
                            }
                        }
                    }
                    self.look_at_backlog(committing);
                }
            }
        }
    }

    fn step_aside(&self) {
        if self.aside {
            self.core.callers.step_aside();
        }
    }

    /// Waits for work and takes it: chunks from the queue, then gap records that are due.
    fn gather(&mut self) -> Gathered {
        // Whoever waits for it wants it at once; nobody else should notice that it works.
        let background = self.waited.is_none_or(|t| t.elapsed() > WAITED);
        thread::background(background);
        let core = self.core.clone();
        let config = &core.config;
        let now = config.clock.now();
        let mut state = core.lock();
        state = self.wait(&core, state);
        if !state.spill.active && self.stats.is_due() {
            drop(state);
            let rss = stats::resident();
            state = core.lock();
            if !state.spill.active {
                self.queue_stats(&core, &mut state, now, rss);
            }
        }
        if state.spill.active {
            return Gathered::Spilled;
        }
        if state.spill.broken {
            return Gathered::Broken;
        }
        if state.queue.is_empty() && state.ledger.has_gaps() {
            self.queue_gaps(&core, &mut state, now);
        }
        self.queue_high_water(&core, &mut state, now);
        // What the spill thread could not write comes first.
        let mut chunks = std::mem::take(&mut state.spill.returned);
        let mut bytes: usize = chunks.iter().map(|c| c.bytes().len()).sum();
        // A bound on what one transaction holds back; the rest stays queued.
        let most = BATCH.min(state.queue.limit() / 2);
        while chunks.is_empty() || bytes < most {
            let Some(chunk) = state.queue.take() else { break };
            bytes += chunk.bytes().len();
            chunks.push(chunk);
        }
        core.bells.turn();
        let closing = state.closing.filter(|_| state.queue.is_empty());
        if !chunks.is_empty() {
            state.spill.batch = Batch::Preparing;
        }
        self.aside = background && state.waiting == 0;
        drop(state);
        core.callers.turn();
        self.step_aside();
        let batch = self.hold(chunks);
        match closing {
            Some(deadline) => Gathered::Closing(batch, deadline),
            None => Gathered::Batch(batch),
        }
    }

    /// Makes chunks ready that were taken under `Batch::Preparing`, and lets the spill thread see them.
    fn hold(&self, mut chunks: Vec<Chunk>) -> Arc<Vec<Chunk>> {
        if chunks.is_empty() {
            return Arc::default();
        }
        self.withhold(&mut chunks);
        let batch = Arc::new(chunks);
        let mut state = self.core.lock();
        state.spill.batch = Batch::Held(batch.clone());
        if state.spill.asked() {
            self.core.spill.notify_one();
        }
        batch
    }

    /// Gap records go through the queue like any other, so that their numbers stand in a journal, too. Without room they wait for the next time.
    fn queue_gaps(&self, core: &Arc<Core>, state: &mut State, now: SystemTime) {
        while let Some((reason, gap)) = state.ledger.gap() {
            if !self.with_gap(reason, gap, |event| queue_own(core, state, event, now)) {
                break;
            }
            state.ledger.told(reason);
        }
    }

    /// A queue that is nearly full is told of, at most once a minute: whoever watches the trail can act before callers wait.
    fn queue_high_water(&mut self, core: &Arc<Core>, state: &mut State, now: SystemTime) {
        let (queued, limit) = (state.high_water, state.queue.limit());
        // It goes behind what is queued, like any other; without room it waits.
        if queued == 0 {
            return;
        }
        if self.high_water.is_some_and(|t| t.elapsed() < HIGH_WATER_PAUSE) {
            state.high_water = 0;
            return;
        }
        let event = AuditEvent::warn("queue_high_water").component("argus");
        let event = event.with("queued_bytes", queued).with("limit_bytes", limit);
        if queue_own(core, state, &event, now) {
            (self.high_water, state.high_water) = (Some(Instant::now()), 0);
        }
    }

    /// Opens what was taken from the queue, and takes secrets out by their shape: from here on nobody sees them.
    fn withhold(&self, chunks: &mut [Chunk]) {
        crate::queue::open(chunks, &self.core.rules.redaction);
    }

    /// The gap record of losses that never got a number.
    fn with_gap<T>(&self, reason: LossReason, gap: Gap, then: impl FnOnce(&AuditEvent<'_>) -> T) -> T {
        let (first, last) = (time::format_timestamp(gap.first), time::format_timestamp(gap.last));
        let event = AuditEvent::security("audit_gap").component("argus").with("writer", self.writer.as_str());
        let event = event.with("reason", reason.as_str()).with("count", gap.count);
        let event = event.with("first_time", first.as_str()).with("last_time", last.as_str());
        then(&event)
    }

    /// Commits until it succeeds, or until the pending file has the batch; gives up only when the trail is closing and its deadline is over.
    fn commit(&mut self, chunks: &[Chunk], deadline: Option<Instant>, closed: bool) -> Outcome {
        let slices: Vec<&[u8]> = chunks.iter().map(Chunk::bytes).collect();
        let last = slices.iter().flat_map(|c| entries(c)).last().map(|e| e.writer_seq());
        let mut trouble = Trouble::default();
        loop {
            let result = self.transact(&slices, Also { closed, ..Also::default() });
            self.again = result.is_err() && !self.created_at.is_empty();
            let Err(e) = result else {
                self.core.lock().spill.unwanted();
                return Outcome::Committed;
            };
            self.again_to = last;
            let e = self.trouble(&mut trouble, e);
            let mut state = self.core.lock();
            let until = deadline.or(state.closing);
            // A short trouble is worth no file; whoever waits for durability, or for room, or closes, waits for it no longer.
            let urgent = until.is_some() || !state.acks.is_empty() || state.queue.bytes() > state.queue.limit() / 2;
            if urgent || trouble.since.is_none_or(|t| t.elapsed() > GRACE) {
                let told = e.to_string();
                self.core.request_spill(&mut state, || Cause::StoreFailed(told));
            }
            state = self.wait_for_retry(state, trouble.pause(), until, last);
            if last.is_some_and(|l| state.spill.active && state.spill.holds(l)) {
                return Outcome::Spilled;
            }
            if state.closing.is_some() || deadline.is_some() {
                let until = deadline.or(state.closing);
                if until.is_some_and(|d| Instant::now() >= d) {
                    return Outcome::Failed(e);
                }
            }
        }
    }

    /// The pause after a failure: over when the time is, the trail closes, or the spill thread has the batch.
    fn wait_for_retry<'c>(
        &'c self,
        mut state: MutexGuard<'c, State>,
        pause: Duration,
        until: Option<Instant>,
        last: Option<u64>,
    ) -> MutexGuard<'c, State> {
        let end = Instant::now() + pause;
        let end = until.map_or(end, |u| u.min(end));
        let was_closing = state.closing.is_some();
        loop {
            let taken = last.is_some_and(|l| state.spill.active && state.spill.holds(l));
            let left = end.checked_duration_since(Instant::now()).filter(|d| !d.is_zero());
            let Some(left) = left.filter(|_| !taken && (was_closing || state.closing.is_none())) else { return state };
            // Not `sleeping`: callers need not wake us.
            state = self.core.work.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// After a failed transaction: it is dropped, and told of.
    fn trouble(&mut self, trouble: &mut Trouble, e: TrailError) -> Arc<TrailError> {
        self.store.rollback();
        let e = Arc::new(e);
        trouble.since.get_or_insert_with(Instant::now);
        let mut state = self.core.lock();
        let both = if state.spill.failed { "neither the store nor the pending file works: " } else { "" };
        state.ledger.health.degraded = Some(format!("{both}{e}"));
        drop(state);
        if trouble.told.is_none_or(|t: Instant| t.elapsed() > Duration::from_secs(60)) {
            trouble.told = Some(Instant::now());
            self.core.observers.error(AuditError::Store(e.clone()));
        }
        e
    }

    /// A call of the store: whoever waits for room sees how long it lasts.
    fn at_store<T>(&mut self, call: impl FnOnce(&mut Self) -> T) -> T {
        self.core.lock().spill.store_since = Some(Instant::now());
        let result = call(self);
        self.core.lock().spill.store_since = None;
        result
    }

    fn transact(&mut self, chunks: &[&[u8]], also: Also<'_>) -> Result<(), TrailError> {
        self.at_store(|w| w.transaction(chunks, also))
    }

    /// One transaction: head, adopted rows, findings, the entries that are not in yet, and what else is to be said in it.
    fn transaction(&mut self, chunks: &[&[u8]], also: Also<'_>) -> Result<(), TrailError> {
        self.sealed.clear();
        if !self.again {
            // That of another transaction.
            self.created_at.clear();
        }
        let mut head = self.store.begin()?;
        if head.closed == Closed::Recovered {
            return Err(TrailError::new(
                ErrorKind::InUse,
                "another program took this logger for dead and has recovered it: nothing is committed behind that",
            )
            .help("open the trail anew; what this logger accepted since is in its pending file"));
        }
        self.stamps.begin(self.again, head.next_seq);
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
        // (Else it is in already.)
        if let Some((first, last)) = also.gap.filter(|(_, last)| *last > done) {
            let context = context_of(&[
                ("first", first.max(done + 1).into()),
                ("last", last.into()),
                ("reason", Value::from(LossReason::StoreFailed.as_str())),
                ("writer", Value::from(self.writer.as_str())),
            ]);
            self.log_record(&mut head, &mut log_writer, &created_at, "audit_gap", Level::Security, &context)?;
            writer_last = last;
        }
        let (mut seen_first, mut there) = (None, Vec::new());
        let Self { store, canonical, sealed, identity, writer, names, .. } = self;
        store.insert_all(&mut |insert| {
            for entry in chunks.iter().flat_map(|c| entries(c)) {
                seen_first.get_or_insert(entry.writer_seq());
                if entry.writer_seq() > done {
                    let stack = entry.addresses().and_then(|a| names.text(a));
                    let about = (&*identity, writer.as_str(), stack.as_deref().or(entry.named_stack()));
                    seal_entry(insert, canonical, sealed, &mut head, &entry, &created_at, about)?;
                    writer_last = entry.writer_seq();
                } else {
                    there.push((entry.writer_seq(), entry.record_id()));
                }
            }
            Ok(())
        })?;
        self.are_there(&there, done)?;
        if let Some(context) = also.recovered {
            self.log_record(&mut head, &mut log_writer, &created_at, "audit_recovered", Level::Security, context)?;
        }
        let closed = if also.closed { Closed::Yes } else { Closed::No };
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

    /// Whether what is in already by the log's count is. That alone lets nothing go.
    fn are_there(&mut self, there: &[(u64, RecordId)], done: u64) -> Result<(), TrailError> {
        if there.is_empty() {
            return Ok(());
        }
        let mut ids: BTreeSet<RecordId> = there.iter().map(|t| t.1).collect();
        self.store.take_known(&mut ids)?;
        let Some(first) = there.iter().find(|t| ids.contains(&t.1)).map(|t| t.0) else { return Ok(()) };
        // Under another id: then it is the pending file that was changed since.
        let found: BTreeSet<u64> = self.store.find(first, done)?.into_iter().map(|f| f.0).collect();
        match there.iter().find(|t| ids.contains(&t.1) && !found.contains(&t.0)) {
            None => Ok(()),
            Some((number, id)) => Err(TrailError::new(
                ErrorKind::Damaged,
                format!("the log counts records of this logger that are not in it, as number {number}, {id}"),
            )
            .help("run `argus verify`; what is queued is kept, and written when the log's count is mended")),
        }
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
        let Self { store, canonical, identity, core, stamps, .. } = self;
        let insert = &mut |f: &Fields<'_>, sum: &str| store.insert(f, sum);
        let stamp = stamps.next(core);
        seal_log_record(&stamp, insert, canonical, head, lw, created_at, (event, level, context), identity)
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

    /// The pending file has the batch: its space is given back.
    fn release(&self, batch: Arc<Vec<Chunk>>) {
        let mut state = self.core.lock();
        state.spill.batch = Batch::None;
        self.core.release(&mut state, batch);
    }
}
