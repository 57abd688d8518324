//! When a file is to be looked at, and what puts a look off: somebody writes to it right now. Time is an argument.

use std::path::Path;
use std::time::{Duration, Instant};

use super::config::WatcherConfig;
use super::disk::Stamp;
use super::emit::SeenBy;

/// What must hold at the time, or the file is written to right now and the look is put off.
#[derive(Clone, Copy)]
pub(super) enum Quiet {
    /// Hints would have put it off already.
    Told,
    /// The stamp is still this one.
    Since(Stamp),
    /// Nothing was seen of it yet: its last write is long enough ago by the clock.
    ByClock,
}

/// A file that is to be looked at.
#[derive(Clone, Copy)]
pub(super) struct Due {
    pub(super) first: Instant,
    pub(super) at: Instant,
    pub(super) by: SeenBy,
    pub(super) quiet: Quiet,
    /// It was looked at, and undecided.
    pub(super) again: bool,
}

impl Due {
    /// A later look, if the file is written to right now and `max_wait` is not over.
    pub(super) fn put_off(self, path: &Path, config: &WatcherConfig, now: Instant) -> Option<Due> {
        let limit = deadline(self.first, config.max_wait);
        let stamp = Stamp::of(path);
        let written = match self.quiet {
            Quiet::Told => false,
            Quiet::Since(before) => before != stamp,
            Quiet::ByClock => stamp.fresh(config.audit.clock.now(), config.debounce),
        };
        let at = deadline(now, config.debounce).min(limit);
        (written && now < limit).then_some(Due { at, quiet: Quiet::Since(stamp), ..self })
    }
}

/// `at + after`, or far away.
pub(super) fn deadline(at: Instant, after: Duration) -> Instant {
    at.checked_add(after).or_else(|| at.checked_add(Duration::from_secs(86_400 * 365))).unwrap_or(at)
}
