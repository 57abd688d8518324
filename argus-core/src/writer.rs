//! The one writer thread of a logger: drain, chain, store, commit, acknowledge. Only it assigns `seq` and calls `Store`. A failed transaction is never believed:
//! the batch is kept and tried again, and the store itself tells what is in already.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::adopt;
use crate::canonical::Fields;
use crate::chain;
use crate::core::{Core, State, own_entry};
use crate::entry::{Entry, Part, entries};
use crate::error::{AuditError, TrailError};
use crate::event::AuditEvent;
use crate::id::{Checksum, RecordId, WriterId, hex};
use crate::level::Level;
use crate::observers::Observation;
use crate::queue::files::WriterLock;
use crate::queue::{Chunk, Queue, QueueKind, Room};
use crate::record::{Json, Record};
use crate::sink::{OwnedTraceContext, Receipt, State as Fate, Trace};
use crate::stack::Names;
use crate::store::{Closed, Ends, ForeignRow, Head, Insert, Store};
use crate::time;
use crate::value::Value;

/// Most adopted rows in one transaction.
const FOREIGN: usize = 500;
/// Pauses after a failed transaction: doubled each time between these.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What every record of this process says.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) original_output_file: String,
    pub(crate) process_id: u64,
    pub(crate) process_name: String,
}

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
    /// That one failed: tried again, its batch gets the same bytes.
    again: bool,
    /// Held while this writer lives; its file goes when it is closed.
    lock: Option<WriterLock>,
}

impl Writer {
    pub(crate) fn new(core: Arc<Core>, store: Box<dyn Store>, identity: Identity) -> Self {
        let writer = core.writer.to_string();
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
        self.transact(&[chunk.as_slice()], false)?;
        self.acknowledge(&[Chunk::Own(chunk)]);
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
            if !chunks.is_empty() || self.store.foreign_waiting() {
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
            let (s, timeout) = core.work.wait_timeout(state, config.flush_interval).unwrap_or_else(|e| e.into_inner());
            state = s;
            state.sleeping = false;
            if timeout.timed_out() {
                // Time to look after rows of other programs.
                break;
            }
        }
        if config.commit_delay > Duration::ZERO {
            let until = Instant::now() + config.commit_delay;
            while state.closing.is_none()
                && state.hurry == 0
                && (state.last_seq - state.done_seq) < config.buffer_size as u64
            {
                let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else { break };
                state.sleeping = state.queue.is_empty();
                state = core.work.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
            }
            state.sleeping = false;
        }
        if state.queue.is_empty() && state.ledger.has_gaps() {
            self.queue_gaps(&core, &mut state, now);
        }
        let mut chunks = Vec::new();
        let mut bytes = 0;
        // A bound on what one transaction holds back; the rest stays queued.
        while bytes < 4 << 20 {
            let Some(chunk) = state.queue.take() else { break };
            bytes += chunk.bytes().len();
            chunks.push(chunk);
        }
        let closing = state.closing.filter(|_| state.queue.is_empty());
        (chunks, closing)
    }

    /// Gap records go through the queue like any other, so that their numbers stand in a journal, too. Without room they wait for the next time.
    fn queue_gaps(&self, core: &Arc<Core>, state: &mut State, now: SystemTime) {
        const ENOUGH: usize = 4096;
        match state.queue.room(ENOUGH) {
            Room::Ok => {}
            Room::Chunk(n) => state.queue.supply(Vec::with_capacity(n)),
            Room::Full | Room::Segment => return,
        }
        let mut own = Vec::new();
        self.gap_records(core, state, now, &mut own);
        for entry in entries(&own) {
            state.queue.push(entry.bytes());
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

    /// After a commit: the account, those who wait, observers.
    fn acknowledge(&mut self, chunks: &[Chunk]) {
        let core = self.core.clone();
        let now = core.config.clock.now();
        let mut acks = Vec::new();
        // Before the lock: callers must not wait while thousands are counted.
        let (mut own, mut callers, mut reached) = (0, 0, None);
        for e in chunks.iter().flat_map(|c| entries(c.bytes())) {
            if e.is_own() {
                own += 1
            } else {
                callers += 1
            }
            reached = Some(e.writer_seq());
        }
        let last;
        {
            let mut state = core.lock();
            last = reached.unwrap_or(state.done_seq);
            state.ledger.health.own += own;
            state.ledger.committed(callers, now);
            state.done_seq = last;
            while state.acks.front().is_some_and(|(seq, _)| *seq <= last) {
                acks.extend(state.acks.pop_front());
            }
        }
        core.progress.notify_all();
        let receipt_of = |seq: u64, id: RecordId| {
            let mut r = Receipt::new(id, Fate::Committed);
            r.committed_at = Some(now);
            if let Ok(i) = self.sealed.binary_search_by_key(&seq, |s| s.0) {
                r.seq = Some(self.sealed[i].1);
                r.checksum = Some(self.sealed[i].2);
            }
            r
        };
        let mut acks = acks.into_iter().peekable();
        let observed = core.observers.any();
        if acks.peek().is_none() && !observed {
            return;
        }
        for e in chunks.iter().flat_map(|c| entries(c.bytes())) {
            let seq = e.writer_seq();
            if acks.peek().is_some_and(|(s, _)| *s == seq)
                && let Some((_, completer)) = acks.next()
            {
                completer.complete(Ok(receipt_of(seq, e.record_id())));
            }
            if observed && core.observers.wanted(e.observers()) {
                let receipt = receipt_of(seq, e.record_id());
                self.observe(&e, Ok(receipt));
            }
        }
        core.observers.done(last);
    }

    fn observe(&self, e: &Entry<'_>, fate: Result<Receipt, AuditError>) {
        let trace = match e.trace() {
            Trace::Parent(t) => Some(OwnedTraceContext {
                trace_id: t.trace_id,
                span_id: t.span_id,
                flags: t.flags,
                remote: t.remote,
                trace_state: t.trace_state.into(),
            }),
            _ => None,
        };
        let record = self.record(e, fate.as_ref().ok());
        self.core.observers.observe(Observation { record, fate, trace, observers: e.observers() });
    }

    fn record(&self, e: &Entry<'_>, receipt: Option<&Receipt>) -> Record {
        let text = |p| e.text(p).map(str::to_owned);
        let json = |p| e.text(p).map(|t| Json(t.into()));
        let ids = match e.trace() {
            Trace::Parent(t) => Some((t.trace_id, t.span_id)),
            _ => None,
        };
        Record {
            timestamp: e.system_time(),
            level: e.level(),
            event: text(Part::Event).unwrap_or_default(),
            component: text(Part::Component).unwrap_or_default(),
            original_output_file: self.identity.original_output_file.clone(),
            context: json(Part::Context).unwrap_or(Json("{}".into())),
            file_path: text(Part::FilePath),
            user_agent: text(Part::UserAgent),
            old_value: json(Part::OldValue),
            new_value: json(Part::NewValue),
            process_id: self.identity.process_id,
            process_name: self.identity.process_name.clone(),
            actor_id: text(Part::ActorId),
            actor_type: e.actor_type(),
            action: text(Part::Action),
            outcome: e.outcome(),
            trace_id: ids.map(|i| i.0),
            span_id: ids.map(|i| i.1),
            stack: e.addresses().and_then(|a| self.names.text(a)),
            record_id: e.record_id(),
            writer: self.core.writer,
            writer_seq: e.writer_seq(),
            created_at: receipt.map(|_| self.created_at.clone()),
            seq: receipt.and_then(|r| r.seq),
            prev_hash: None,
            checksum: receipt.and_then(|r| r.checksum),
        }
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

    /// Records that will never be committed: counted, told to those who wait and to observers.
    fn abandon(&self, chunks: &[Chunk], error: Option<&AuditError>) {
        let error = error.cloned().unwrap_or(AuditError::Lost);
        let (mut n, mut acks) = (0, Vec::new());
        {
            let mut state = self.core.lock();
            n += chunks.iter().flat_map(|c| entries(c.bytes())).filter(|e| !e.is_own()).count() as u64;
            // What stands in a journal is not lost: the next open of the trail commits it.
            if state.queue.kind() == QueueKind::Memory {
                state.ledger.abandoned(n);
            }
            state.report.left = n;
            acks.extend(state.acks.drain(..));
        }
        for (_, completer) in acks {
            completer.complete(Err(error.clone()));
        }
        for e in chunks.iter().flat_map(|c| entries(c.bytes())).filter(|e| self.core.observers.wanted(e.observers())) {
            self.observe(&e, Err(error.clone()));
        }
        self.core.observers.done(u64::MAX);
    }
}

/// The log writer's numbers within a transaction.
pub(crate) struct LogWriter {
    pub(crate) id: WriterId,
    pub(crate) last: u64,
}

impl LogWriter {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

/// Seals one entry as a record of `writer`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn seal_entry(
    insert: &mut Insert<'_>,
    canonical: &mut Vec<u8>,
    sealed: &mut Vec<(u64, u64, Checksum)>,
    head: &mut Head,
    entry: &Entry<'_>,
    created_at: &str,
    (identity, writer, stack): (&Identity, &str, Option<&str>),
) -> Result<(), TrailError> {
    let (mut id, mut trace, mut span) = ([0; 36], [0; 32], [0; 16]);
    let (secs, nanos) = entry.time();
    let mut timestamp = String::with_capacity(30);
    time::write_rfc3339(secs, nanos, &mut timestamp);
    let (trace_id, span_id) = match entry.trace() {
        Trace::Parent(t) => {
            (Some(crate::id::hex_into(&t.trace_id, &mut trace)), Some(crate::id::hex_into(&t.span_id, &mut span)))
        }
        _ => (None, None),
    };
    let [event, component, context, file_path, user_agent, old_value, new_value, actor_id, action, _] = entry.texts();
    let fields = Fields {
        timestamp: &timestamp,
        level: entry.level().as_str(),
        event: event.unwrap_or_default(),
        component: component.unwrap_or_default(),
        original_output_file: &identity.original_output_file,
        context: context.unwrap_or("{}"),
        file_path,
        user_agent,
        old_value,
        new_value,
        process_id: identity.process_id,
        process_name: &identity.process_name,
        actor_id,
        actor_type: entry.actor_type().map(|a| a.as_str()),
        action,
        outcome: entry.outcome().map(|o| o.as_str()),
        trace_id,
        span_id,
        stack,
        record_id: entry.record_id().encode(&mut id),
        writer,
        writer_seq: entry.writer_seq(),
        created_at,
        ..Fields::default()
    };
    seal(insert, canonical, sealed, head, fields)
}

/// Seals a record of the log writer with nothing but a context.
#[allow(clippy::too_many_arguments)]
pub(crate) fn seal_log_record(
    core: &Core,
    store: &mut dyn Store,
    canonical: &mut Vec<u8>,
    head: &mut Head,
    lw: &mut LogWriter,
    created_at: &str,
    (event, level, context): (&str, Level, &str),
    identity: &Identity,
) -> Result<(), TrailError> {
    let timestamp = time::format_timestamp(core.config.clock.now());
    let (id, writer) = (new_id(core), lw.id.to_string());
    let fields = Fields {
        timestamp: &timestamp,
        level: level.as_str(),
        event,
        component: "argus",
        original_output_file: &identity.original_output_file,
        context,
        process_id: identity.process_id,
        process_name: &identity.process_name,
        record_id: &id,
        writer: &writer,
        writer_seq: lw.next(),
        created_at,
        ..Fields::default()
    };
    seal(&mut |f, sum| store.insert(f, sum), canonical, &mut Vec::new(), head, fields)
}

/// The chain step: position, link, checksum, insert.
fn seal(
    insert: &mut Insert<'_>,
    buf: &mut Vec<u8>,
    sealed: &mut Vec<(u64, u64, Checksum)>,
    head: &mut Head,
    fields: Fields<'_>,
) -> Result<(), TrailError> {
    let (mut prev, mut sum) = ([0; 64], [0; 64]);
    let fields = Fields { seq: head.next_seq, prev_hash: head.prev.map(|p| p.encode(&mut prev) as &str), ..fields };
    let checksum = chain::checksum(&fields, buf);
    insert(&fields, checksum.encode(&mut sum))?;
    sealed.push((fields.writer_seq, head.next_seq, checksum));
    head.next_seq += 1;
    head.prev = Some(checksum);
    Ok(())
}

fn new_id(core: &Core) -> String {
    core.fresh_id().to_string()
}

/// Canonical JSON of a list of members, for records of the log writer.
pub(crate) fn context_of(members: &[(&str, Value<'_>)]) -> String {
    let (mut out, mut scratch) = (Vec::new(), crate::json::Scratch::default());
    let redaction = crate::redaction::Redaction::none();
    let mut w = crate::json::JsonWriter::new(&mut out, &mut scratch, &redaction, crate::json::Source::Stored);
    let ok = (|| {
        let mut open = w.open_object()?;
        for (key, value) in members {
            w.key(&mut open, key)?;
            value.encode(&mut w)?;
            w.end_member(key);
        }
        w.close_object(open)
    })();
    match ok {
        Ok(()) => String::from_utf8(out).unwrap_or_default(),
        Err(_) => "{}".into(),
    }
}

/// SHA-256 in hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(bytes))
}
