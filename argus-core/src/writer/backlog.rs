//! A store that works and yet piles something up, as SQLite's write-ahead log under a reader that does not end. Said loudly, never waited for. On the writer's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Writer;
use crate::core::queue_own;
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
        let backlog = self.at_store(|w| w.store.backlog());
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
        if state.spill.active || self.piled.told.is_some_and(|t| t.elapsed() < PAUSE) {
            return;
        }
        let event = AuditEvent::warn("wal_high_water").component("argus").with("wal_bytes", backlog.bytes);
        if !queue_own(&core, &mut state, &event, now) {
            return;
        }
        drop(state);
        self.piled.told = Some(Instant::now());
        core.observers.error(AuditError::Store(Arc::new(stuck)));
    }
}
