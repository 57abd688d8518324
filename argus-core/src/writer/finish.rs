//! The end of a writer: the last batch, `audit_close`, the files. What the store does not take until the deadline goes to the pending file, for the next open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Outcome, Writer, remove_files};
use crate::core::{State, own_entry};
use crate::error::{AuditError, TrailError};
use crate::event::AuditEvent;
use crate::queue::Chunk;
use crate::spill::{Batch, Cause};

/// How long, after the deadline, the pending file may take to be made, and for each MiB of what would be lost else. (One that is slow and works gets all of it.)
const SAVING: Duration = Duration::from_secs(5);

impl Writer {
    /// As `finish`, where the deadline of the close was over while the store failed.
    pub(super) fn finish_failed(self, batch: Arc<Vec<Chunk>>, e: Arc<TrailError>) {
        let deadline = self.core.lock().closing.unwrap_or_else(Instant::now);
        self.finish(batch, deadline, Some(e));
    }

    /// The last batches, `audit_close`, and the end of the store, unless it failed.
    pub(super) fn finish(mut self, mut batch: Arc<Vec<Chunk>>, deadline: Instant, mut error: Option<Arc<TrailError>>) {
        while error.is_none() {
            if !batch.is_empty() {
                match self.commit(&batch, Some(deadline), false) {
                    Outcome::Committed => self.acknowledge(std::mem::take(&mut batch)),
                    Outcome::Spilled => self.release(std::mem::take(&mut batch)),
                    Outcome::Failed(e) => {
                        error = Some(e);
                        break;
                    }
                }
            }
            if self.core.lock().file_waits()
                && let Err(e) = self.merge(Some(deadline))
            {
                error = Some(e);
                break;
            }
            batch = self.take_all();
            let mut state = self.core.lock();
            if batch.is_empty() && !state.file_waits() {
                // What follows never was in the queue, and behind it nothing is numbered: the spill thread has no part in it.
                state.spill.end();
                break;
            }
        }
        if self.core.lock().spill.broken {
            return self.break_off();
        }
        let mut left = Vec::new();
        let error = match error {
            None => self.say_close(deadline).err(),
            Some(e) => {
                left = self.save(batch, &e, deadline);
                Some(AuditError::Store(e))
            }
        };
        self.end(&left, error, deadline);
    }

    /// The spill thread died with records in its hands: what is behind them is not committed. A journal has all of them, for the next open.
    pub(super) fn break_off(mut self) {
        let _ = self.store.close();
        self.core.thread_died("spill");
    }

    /// All that the queue holds, unless it is the spill thread's.
    fn take_all(&mut self) -> Arc<Vec<Chunk>> {
        let now = self.core.config.clock.now();
        let core = self.core.clone();
        let mut state = core.lock();
        if state.spill.active || state.spill.broken {
            return Arc::default();
        }
        // A journal, or the pending file, has them if the next commit fails.
        self.queue_gaps(&core, &mut state, now);
        let mut chunks = std::mem::take(&mut state.spill.returned);
        while let Some(c) = state.queue.take() {
            chunks.push(c);
        }
        if !chunks.is_empty() {
            state.spill.batch = Batch::Preparing;
        }
        drop(state);
        self.hold(chunks)
    }

    fn say_close(&mut self, deadline: Instant) -> Result<(), AuditError> {
        let core = self.core.clone();
        let mut own = Vec::new();
        let now = core.config.clock.now();
        let mut state = core.lock();
        while let Some((reason, gap)) = state.ledger.gap() {
            self.with_gap(reason, gap, |event| own_entry(&core, &mut state, event, now, &mut own))?;
            state.ledger.told(reason);
        }
        let h = state.ledger.health.clone();
        let filtered = core.health_filtered();
        let event = AuditEvent::info("audit_close")
            .component("argus")
            .with("submitted", h.submitted)
            .with("committed", h.committed);
        let event = event.with("rejected", h.rejected).with("lost", h.lost).with("filtered", filtered);
        own_entry(&core, &mut state, &event, now, &mut own)?;
        drop(state);
        let own = Arc::new(vec![Chunk::Own(own)]);
        match self.commit(&own, Some(deadline), true) {
            Outcome::Committed => {
                self.acknowledge(own);
                Ok(())
            }
            Outcome::Spilled => Ok(()),
            Outcome::Failed(e) => Err(AuditError::Store(e)),
        }
    }

    /// Gives what is left to the pending file, if it can be written; what it does not take comes back.
    fn save(&mut self, batch: Arc<Vec<Chunk>>, e: &Arc<TrailError>, deadline: Instant) -> Vec<Chunk> {
        let core = self.core.clone();
        // A batch is written in one go.
        let batch_mib = batch.iter().map(|c| c.bytes().len()).sum::<usize>() >> 20;
        let patience = SAVING * u32::try_from(1 + batch_mib).unwrap_or(u32::MAX);
        let mut until = deadline.max(Instant::now()) + patience;
        let now = core.config.clock.now();
        let mut state = core.lock();
        let progress = |state: &State| (state.spill.file.is_some(), state.spill.synced);
        let mut before = progress(&state);
        // Nothing is given back any more, and the file gets another chance.
        (state.spill.give_back, state.spill.failed) = (false, false);
        // What was lost is to be told by the next open, since this one cannot.
        self.queue_gaps(&core, &mut state, now);
        core.spill.notify_one();
        while state.spill.on && !state.spill.failed {
            if std::mem::replace(&mut before, progress(&state)) != before {
                until = until.max(Instant::now() + patience);
            }
            if Instant::now() >= until {
                break;
            }
            // (The queue may just have been given back.)
            core.request_spill(&mut state, || Cause::StoreFailed(e.to_string()));
            let saved = state.spill.active && state.queue.is_empty() && state.spill.holds(state.last_seq);
            if saved && !state.spill.busy && !state.spill.telling {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            state = core.work.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        // From here on it writes nothing more.
        if state.spill.active {
            state.spill.give_back = true;
            core.spill.notify_one();
            while state.spill.active && Instant::now() < until {
                let left = until.saturating_duration_since(Instant::now());
                state = core.work.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
            }
        }
        state.spill.batch = Batch::None;
        let held = batch.iter().flat_map(|c| crate::entry::entries(c.bytes())).last().map(|e| e.writer_seq());
        if held.is_some_and(|last| state.spill.holds(last)) {
            core.release(&mut state, batch);
        } else {
            // The spill thread may still read it; then it is kept by both.
            state.spill.returned.splice(0..0, Arc::try_unwrap(batch).unwrap_or_default());
        }
        let mut left = std::mem::take(&mut state.spill.returned);
        while let Some(c) = state.queue.take() {
            left.push(c);
        }
        let (last, saved) = (state.last_seq, state.spill.holds(state.last_seq));
        // (While the spill thread is at the file, the lock is its.)
        let busy = state.spill.busy;
        let lock = state.spill.lock.take_if(|_| !busy);
        drop(state);
        // Observers hear of them.
        self.withhold(&mut left);
        if let Some(mut lock) = lock {
            if saved {
                // Whoever recovers it need not suppose a loss.
                let _ = lock.spilled(last, Some(self.store.log_id()).filter(|id| id.to_bytes() != [0; 16]));
            }
            core.lock().spill.lock = Some(lock);
        }
        left
    }

    fn end(mut self, left: &[Chunk], mut error: Option<AuditError>, deadline: Instant) {
        let core = self.core.clone();
        if let Err(e) = self.store.close() {
            error.get_or_insert(AuditError::Store(Arc::new(e)));
        }
        self.abandon(left, error.as_ref());
        if error.is_none() {
            // All that the journal held is committed, and nobody is at a file any more. With an error the files stay, for the next open to recover.
            let mut state = core.lock();
            while state.keeper_busy
                && let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|d| !d.is_zero())
            {
                state = core.progress.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
            }
            while state.spill.busy
                && let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|d| !d.is_zero())
            {
                state = core.work.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
            }
            remove_files(state);
        }
        let mut state = core.lock();
        if !state.spill.busy {
            // Before anybody is told that it is closed. (A spill thread that still writes lets it go.)
            drop(state.spill.lock.take());
        }
        state.closed = true;
        state.report.committed = state.ledger.health.committed;
        state.report.error = error;
        state.lost_from = (state.done_seq < state.last_seq).then_some(state.done_seq + 1);
        state.done_seq = state.last_seq;
        drop(state);
        core.progress.notify_all();
        core.space.notify_all();
        core.spill.notify_all();
        core.observers.close();
    }
}
