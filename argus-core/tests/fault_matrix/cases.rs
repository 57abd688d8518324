//! What fails, under which settings, and what comes next; which combinations make sense, and which of them a normal test run has.

use std::time::Duration;

use argus_core::{ErrorKind, Overflow, StoreFault};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Failure {
    Told(StoreFault, ErrorKind),
    /// The pending file fails, too.
    BothFull,
    /// A real disk of 1 MiB (more with a journal, which has no place there), filled up; the pending file stands elsewhere.
    FullDisk,
    /// As `BothFull`, with a real disk of 1 MiB for the pending file; it is filled up before that is begun, or while it is written.
    FullSpillDisk {
        begun: bool,
    },
    /// The disk of the trail is mounted read-only: the opening is refused, and works when that is mended. (The kernel mounts nothing read-only under an open writer;
    /// a file system that turns so by itself is `Told(_, ReadOnly)`.)
    ReadOnlyDisk,
    MovedAway,
    /// Another log stands in its place for a while.
    Replaced,
    /// Deleted, and it never comes back.
    Deleted,
    /// Cut while it is written.
    Cut,
    /// Damaged before it is opened: another's bytes in its first page, or in its last line.
    Damaged,
    /// The pages of a database are damaged while it is written (SQLite). (Nobody reads the lines of a JSONL trail that is open.)
    DamagedPages,
    /// The clock steps back by a day, and no transaction begins.
    ClockBack,
    /// Another program holds the database (SQLite). The writer waits ten seconds.
    Locked,
    /// A reader holds an old snapshot (SQLite): nothing fails.
    StuckReader,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Then {
    Heals,
    Closes,
    Killed(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Case {
    pub(crate) failure: Failure,
    pub(crate) ending: &'static str,
    pub(crate) overflow: &'static str,
    pub(crate) journal: bool,
    pub(crate) then: Then,
}

use ErrorKind as K;
use Failure as F;
use StoreFault as S;

const FAILURES: &[Failure] = &[
    F::Told(S::Begin, K::Busy),
    F::Told(S::Insert, K::Io),
    F::Told(S::Commit, K::DiskFull),
    F::Told(S::AfterCommit, K::Io),
    F::Told(S::Stuck, K::Io),
    F::Told(S::Open, K::Damaged),
    F::BothFull,
    F::FullDisk,
    F::FullSpillDisk { begun: false },
    F::FullSpillDisk { begun: true },
    F::ReadOnlyDisk,
    F::MovedAway,
    F::Replaced,
    F::Deleted,
    F::Cut,
    F::Damaged,
    F::DamagedPages,
    F::ClockBack,
    F::Locked,
    F::StuckReader,
];
const STEPS: [&str; 5] = ["spill_synced", "merge_begin", "merge_transact", "merge_committed", "merge_end"];

/// The other kinds of error that a store may give there. In the whole matrix only, and not with a kill, which knows nothing of kinds.
fn other_kinds() -> Vec<Failure> {
    let kinds = [K::Busy, K::Io, K::DiskFull, K::ReadOnly, K::Damaged];
    // Opening a read-only trail is a mistake that the opening tells.
    let fits = |fault, kind| fault != S::Open || kind != K::ReadOnly;
    let faults = [S::Begin, S::Insert, S::Commit, S::AfterCommit, S::Open];
    let all =
        faults.into_iter().flat_map(|f| kinds.into_iter().filter(move |k| fits(f, *k)).map(move |k| F::Told(f, k)));
    all.filter(|f| !FAILURES.contains(f)).collect()
}

impl Case {
    /// The disk is a real one, of which all that there is goes with this process.
    pub(crate) fn real(&self) -> bool {
        matches!(self.failure, F::FullDisk | F::FullSpillDisk { .. } | F::ReadOnlyDisk)
    }

    pub(crate) fn killed(&self) -> bool {
        matches!(self.then, Then::Killed(_))
    }

    /// Neither the store nor the pending file takes anything.
    pub(crate) fn nowhere(&self) -> bool {
        matches!(self.failure, F::BothFull | F::FullSpillDisk { .. })
    }

    /// It fails already when the logger is opened, which therefore has no journal.
    pub(crate) fn at_open(&self) -> bool {
        matches!(self.failure, F::Told(S::Open, _) | F::Damaged)
    }

    /// And the queue is filled up; the other cases show what happens while it has room.
    pub(crate) fn fills_queue(&self) -> bool {
        match self.failure {
            F::BothFull => self.then != Then::Closes,
            F::FullSpillDisk { begun } => !begun,
            _ => false,
        }
    }

    /// Records go to the pending file.
    pub(crate) fn spills(&self) -> bool {
        !matches!(
            self.failure,
            F::Told(S::Stuck, _) | F::BothFull | F::FullSpillDisk { begun: false } | F::ReadOnlyDisk | F::StuckReader
        )
    }

    pub(crate) fn overflow(&self) -> Overflow {
        match self.overflow {
            "block" => Overflow::Block { timeout: Duration::from_millis(50) },
            "reject" => Overflow::Reject,
            _ => Overflow::Spill,
        }
    }

    fn makes_sense(&self) -> bool {
        match self.failure {
            // (Ten seconds each.)
            F::Locked => self.ending == "db" && self.journal && self.overflow == "block" && !self.killed(),
            F::DamagedPages => self.ending == "db",
            F::StuckReader => self.ending == "db" && !self.killed(),
            // It never heals, and so no merge commits anything.
            F::Deleted => !matches!(self.then, Then::Heals | Then::Killed("merge_committed" | "merge_end")),
            // Such a logger cannot close before its store comes back.
            F::Told(S::Stuck, _) => self.then == Then::Heals,
            // Nothing is merged before it heals, and then nothing went to a file.
            F::BothFull => !self.killed(),
            // The mount goes with this process.
            _ => !(self.real() && self.killed()),
        }
    }

    fn of(failure: Failure) -> Vec<Case> {
        let mut all = Vec::new();
        for ending in ["db", "jsonl"] {
            for overflow in ["block", "reject", "spill"] {
                for journal in [true, false] {
                    let thens = [Then::Heals, Then::Closes].into_iter().chain(STEPS.map(Then::Killed));
                    all.extend(thens.map(|then| Case { failure, ending, overflow, journal, then }));
                }
            }
        }
        all.retain(Case::makes_sense);
        all
    }

    pub(crate) fn all() -> Vec<Case> {
        let others = other_kinds().into_iter().flat_map(Case::of).filter(|c| !c.killed());
        FAILURES.iter().copied().flat_map(Case::of).chain(others).collect()
    }

    /// Each failure once on each store, with the policies and what comes next in turn.
    pub(crate) fn sample() -> Vec<Case> {
        let mut some = Vec::new();
        let mut turn = 0;
        for &failure in FAILURES.iter().filter(|f| **f != F::Locked) {
            let all = Case::of(failure);
            for ending in ["db", "jsonl"] {
                let of: Vec<_> = all.iter().filter(|c| c.ending == ending).collect();
                // A step that walks through all of them, failure by failure.
                some.extend(of.get((turn * 17) % of.len().max(1)).copied().copied());
                turn += 1;
            }
        }
        some
    }
}
