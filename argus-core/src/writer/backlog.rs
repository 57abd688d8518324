//! A store that works and yet piles something up, as SQLite's write-ahead log under a reader that does not end. Said loudly, never waited for. On the writer's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Writer, room_for_own};
use crate::core::own_entry;
use crate::error::AuditError;
use crate::event::AuditEvent;

/// Between two records and two calls of `on_error` about it.
const PAUSE: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Piled {
    told: Option<Instant>,
    /// `health().degraded` speaks of it.
    now: bool,
}

impl Writer {
    /// After a commit, and each time the writer wakes up while something is piled up.
    pub(super) fn look_at_backlog(&mut self, committed: bool) {
        if !committed && !self.piled.now {
            return;
        }
        let core = self.core.clone();
        let backlog = self.store.backlog();
        let now = core.config.clock.now();
        let mut state = core.lock();
        state.ledger.health.wal_bytes = backlog.bytes;
        let was = std::mem::replace(&mut self.piled.now, backlog.stuck.is_some());
        let Some(stuck) = backlog.stuck else {
            if was && state.ledger.health.pending == 0 {
                state.ledger.health.degraded = None;
            }
            return;
        };
        state.ledger.health.degraded = Some(stuck.to_string());
        // While the queue is the spill thread's, nothing is added to it from here: it would not be woken.
        let busy = state.spill.active || !room_for_own(&mut state);
        if busy || self.piled.told.is_some_and(|t| t.elapsed() < PAUSE) {
            return;
        }
        self.piled.told = Some(Instant::now());
        let event = AuditEvent::warn("wal_high_water").component("argus").with("wal_bytes", backlog.bytes);
        let mut own = Vec::new();
        if own_entry(&core, &mut state, &event, now, &mut own).is_ok() {
            state.queue.push_own(&own);
        }
        drop(state);
        core.observers.error(AuditError::Store(Arc::new(stuck)));
    }
}
