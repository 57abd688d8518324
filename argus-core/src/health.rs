//! The account of a logger: the only place that counts loss. The ledger lives inside the queue's lock, so that
//! submitted = committed + rejected + lost + queued + pending holds whenever anybody looks.

use std::time::SystemTime;

use crate::queue::QueueKind;
use crate::sink::LossReason;

/// How a logger is doing.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Health {
    /// Events handed over by callers at or above `min_level`. Always `committed + rejected + lost + queued + pending`.
    pub submitted: u64,
    /// Of these, committed.
    pub committed: u64,
    /// Refused with an error to a direct caller.
    pub rejected: u64,
    /// Lost: refused to a relay, reported by one, or accepted and then lost with the store.
    pub lost: u64,
    /// Accepted and on their way.
    pub queued: u64,
    /// Synced to a pending file.
    pub pending: u64,
    /// Calls below `min_level`; no part of `submitted`.
    pub filtered: u64,
    /// Committed records that Argus made of itself; no part of `submitted`.
    pub own: u64,
    /// Rows of other programs that were adopted as records.
    pub adopted: u64,
    /// Records of relays that were accepted though their level asks for a commit.
    pub relay_not_waited: u64,
    /// Observations that were dropped since an observer was too slow, and panics of observers.
    pub observer_missed: u64,
    /// What accepted records wait in.
    pub queue: QueueKind,
    /// Bytes in the queue.
    pub queue_bytes: usize,
    /// Bytes of SQLite's write-ahead log after the last commit; 0 for other stores.
    pub wal_bytes: u64,
    /// What keeps the store from committing or the queue from growing, or what piles up while they do, if anything.
    pub degraded: Option<String>,
    /// When the last commit was.
    pub last_commit: Option<SystemTime>,
    /// Closed.
    pub closed: bool,
    /// Spans that a wrapper could not make or send; a bare logger has none.
    pub tracing_errors: u64,
    /// Why the last of them could not.
    pub tracing_error: Option<String>,
    pub(crate) lost_by: [u64; LossReason::ALL.len()],
}

impl Health {
    /// Whether nothing is lost and nothing hinders the store.
    pub fn is_ok(&self) -> bool {
        self.lost == 0 && self.degraded.is_none()
    }

    /// How many of [`lost`](Self::lost) are due to this reason; the reasons together make all of them.
    pub fn lost_by(&self, reason: LossReason) -> u64 {
        self.lost_by[reason as usize]
    }
}

/// Losses that no gap record tells of yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    pub(crate) count: u64,
    pub(crate) first: SystemTime,
    pub(crate) last: SystemTime,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) health: Health,
    gaps: [Option<Gap>; LossReason::ALL.len()],
}

impl Health {
    /// What is accepted and not committed yet.
    pub(crate) fn left(&self) -> u64 {
        self.queued + self.pending
    }
}

impl Ledger {
    pub(crate) fn accepted(&mut self) {
        self.health.submitted += 1;
        self.health.queued += 1;
    }

    pub(crate) fn rejected(&mut self) {
        self.health.submitted += 1;
        self.health.rejected += 1;
    }

    pub(crate) fn committed(&mut self, n: u64, at: SystemTime) {
        self.health.queued -= n;
        self.health.committed += n;
        self.health.last_commit = Some(at);
        // What stands in the pending file keeps the trail degraded, though its store works again.
        if self.health.pending == 0 {
            self.health.degraded = None;
        }
    }

    /// Synced to the pending file.
    pub(crate) fn spilled(&mut self, n: u64) {
        self.health.queued -= n;
        self.health.pending += n;
    }

    /// Of the pending file, and to be committed now. The file said whose they are, and may have been changed: no more than it had is counted.
    pub(crate) fn unspilled(&mut self, n: u64) -> u64 {
        let n = n.min(self.health.pending);
        self.health.pending -= n;
        self.health.queued += n;
        n
    }

    /// The pending file is in, but for `lost` numbers. Some of them may be Argus's own, which nobody counted as pending; and what the file said of whose its
    /// records are may have been changed.
    pub(crate) fn merged(&mut self, lost: u64) {
        let pending = std::mem::take(&mut self.health.pending);
        let lost = lost.min(pending);
        self.health.lost += lost;
        self.health.lost_by[LossReason::StoreFailed as usize] += lost;
        self.health.committed += pending - lost;
        self.health.degraded = None;
    }

    /// Events that never got a number.
    pub(crate) fn lost(&mut self, reason: LossReason, count: u64, at: SystemTime) {
        self.health.submitted += count;
        self.health.lost += count;
        self.health.lost_by[reason as usize] += count;
        let gap = self.gaps[reason as usize].get_or_insert(Gap { count: 0, first: at, last: at });
        gap.count += count;
        gap.last = at;
    }

    /// Accepted records that will never be committed.
    pub(crate) fn abandoned(&mut self, n: u64) {
        self.health.queued -= n;
        self.health.lost += n;
        self.health.lost_by[LossReason::StoreFailed as usize] += n;
    }

    pub(crate) fn has_gaps(&self) -> bool {
        self.gaps.iter().any(Option::is_some)
    }

    pub(crate) fn gap(&self) -> Option<(LossReason, Gap)> {
        LossReason::ALL.iter().find_map(|r| self.gaps[*r as usize].map(|g| (*r, g)))
    }

    /// There is a record of it now.
    pub(crate) fn told(&mut self, reason: LossReason) {
        self.gaps[reason as usize] = None;
    }
}
