//! `system_stats`: how the logger is doing, said in its own trail from time to time. Off unless configured. On the writer's thread.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Writer;
use crate::core::{Core, State, queue_own};
use crate::event::AuditEvent;
use crate::level::Level;

/// When the next one is due; `None`: never.
pub(super) struct Stats {
    interval: Duration,
    due: Option<Instant>,
    begun: Instant,
}

impl Stats {
    pub(super) fn new(core: &Core) -> Self {
        let interval = core.config.stats_interval.unwrap_or_default();
        let begun = Instant::now();
        // It is INFO like any other.
        let on = !interval.is_zero() && core.enabled(Level::Info);
        Self { interval, due: on.then(|| begun.checked_add(interval)).flatten(), begun }
    }

    /// How long the writer may sleep that otherwise would for `most`.
    pub(super) fn sleep(&self, most: Duration) -> Duration {
        self.due.map_or(most, |d| d.saturating_duration_since(Instant::now()).min(most))
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|d| Instant::now() >= d)
    }
}

impl Writer {
    /// Goes through the queue like any other record; without room it waits.
    pub(super) fn queue_stats(&mut self, core: &Arc<Core>, state: &mut State, now: SystemTime, rss: Option<u64>) {
        let h = state.ledger.health.clone();
        let event = AuditEvent::info("system_stats")
            .component("argus")
            .with("uptime_s", self.stats.begun.elapsed().as_secs())
            .with("queued", h.queued)
            .with("queued_bytes", state.queue.bytes())
            .with("limit_bytes", state.queue.limit())
            .with("submitted", h.submitted)
            .with("committed", h.committed)
            .with("rejected", h.rejected)
            .with("lost", h.lost)
            .with("filtered", core.health_filtered())
            .with("rss_bytes", &rss);
        if queue_own(core, state, &event, now) {
            self.stats.due = Instant::now().checked_add(self.stats.interval);
        }
    }
}

/// The memory of this process that is in RAM, where the kernel tells.
pub(super) fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}
