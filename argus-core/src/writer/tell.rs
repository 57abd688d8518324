//! After a transaction: the account is kept, those who wait are told, observers hear of it. On the writer's thread.

use std::sync::Arc;
use std::time::Instant;

use super::Writer;
use crate::entry::{Entry, Part, entries};
use crate::error::AuditError;
use crate::id::RecordId;
use crate::observers::Observation;
use crate::pending::Completion;
use crate::queue::{Chunk, QueueKind};
use crate::record::{Json, Record};
use crate::sink::{OwnedTraceContext, Receipt, State as Fate, Trace};
use crate::spill::Batch;

impl Writer {
    /// After a commit: the account, those who wait, observers. The space is given back before anybody learns of the commit: who flushed finds room.
    pub(super) fn acknowledge(&mut self, batch: Arc<Vec<Chunk>>) {
        let core = self.core.clone();
        let now = core.config.clock.now();
        let receipt_of = |seq: u64, id: RecordId| {
            let mut r = Receipt::new(id, Fate::Committed);
            r.committed_at = Some(now);
            if let Ok(i) = self.sealed.binary_search_by_key(&seq, |s| s.0) {
                r.seq = Some(self.sealed[i].1);
                r.checksum = Some(self.sealed[i].2);
            }
            r
        };
        let (mut acks, mut observations) = (Vec::new(), Vec::new());
        // Before the lock: callers must not wait while thousands are counted.
        let (mut own, mut callers, mut reached) = (0, 0, None);
        let observed = core.observers.any();
        for e in batch.iter().flat_map(|c| entries(c.bytes())) {
            if e.is_own() {
                own += 1
            } else {
                callers += 1
            }
            reached = Some(e.writer_seq());
            if observed && core.observers.wanted(e.observers()) {
                observations.push(self.observation(&e, Ok(receipt_of(e.writer_seq(), e.record_id()))));
            }
        }
        let (last, waited_for, others);
        {
            let mut state = core.lock();
            last = reached.unwrap_or(state.done_seq);
            if state.spill.holds(last) {
                callers = state.ledger.unspilled(callers);
            }
            state.ledger.health.own += own;
            state.ledger.committed(callers, now);
            state.done_seq = state.done_seq.max(last);
            while state.acks.front().is_some_and(|(seq, ..)| *seq <= last) {
                acks.extend(state.acks.pop_front());
            }
            others = state.acks.len();
            waited_for = state.hurry > 0 || state.closing.is_some();
            state.spill.batch = Batch::None;
            core.release(&mut state, batch);
        }
        if waited_for {
            core.progress.notify_all();
        }
        let told = acks.len();
        if waited_for || told > 0 {
            self.waited = Some(Instant::now());
        }
        let mut all = Completion::default();
        acks.into_iter().for_each(|(seq, id, completer)| all.add(completer, Ok(receipt_of(seq, id))));
        all.wake();
        self.group.committed(told, others);
        observations.into_iter().for_each(|o| core.observers.observe(o));
        core.observers.done(last);
    }

    fn observation(&self, e: &Entry<'_>, fate: Result<Receipt, AuditError>) -> Observation {
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
        Observation { record, fate, trace, observers: e.observers() }
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

    /// Records that will never be committed: counted, told to those who wait and to observers.
    pub(super) fn abandon(&self, chunks: &[Chunk], error: Option<&AuditError>) {
        let error = error.cloned().unwrap_or(AuditError::Lost);
        let (mut n, mut acks) = (0, Vec::new());
        {
            let mut state = self.core.lock();
            state.report.left = state.ledger.health.left();
            n += chunks.iter().flat_map(|c| entries(c.bytes())).filter(|e| !e.is_own()).count() as u64;
            // What stands in a journal is not lost: the next open of the trail commits it.
            if state.queue.kind() == QueueKind::Memory {
                state.ledger.abandoned(n);
            }
            acks.extend(state.acks.drain(..));
        }
        let mut all = Completion::default();
        acks.into_iter().for_each(|(.., completer)| all.add(completer, Err(error.clone())));
        all.wake();
        for e in chunks.iter().flat_map(|c| entries(c.bytes())).filter(|e| self.core.observers.wanted(e.observers())) {
            self.core.observers.observe(self.observation(&e, Err(error.clone())));
        }
        self.core.observers.done(u64::MAX);
    }
}
