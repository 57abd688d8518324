//! The entries that a dead writer left, in order, each number from whichever file has it; and what of its files does not check. Reads only.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::left::{Files, Segment};
use crate::entry::{Entry, Next, Queued, has_beyond, next_checked};
use crate::error::TrailError;
use crate::id::{RecordId, WriterId};
use crate::members;
use crate::queue::files::HEADER;
use crate::spill::records::{Numbered, Records};
use crate::store::Store;

/// All entries of the segments, as long as they check and follow each other.
struct Journal<'a> {
    segments: &'a [Segment],
    /// How many segments were begun.
    begun: usize,
    rest: &'a [u8],
    /// The number that must come next; 0 before the first.
    next: u64,
    /// A segment was just begun: the spill may have let whole segments before it go.
    fresh: bool,
    torn: bool,
    /// Those of the segments with entries behind a place where none stands.
    holed: Vec<usize>,
}

impl Journal<'_> {
    /// The next entry, where all is in up to the number `last`.
    fn next(&mut self, last: u64) -> Option<Numbered> {
        while !self.torn {
            match next_checked(self.rest) {
                Next::Entry(e, rest) if self.follows(e) => {
                    self.fresh = false;
                    self.rest = rest;
                    self.next = e.writer_seq().saturating_add(1);
                    let mut opened = Vec::with_capacity(e.len() + 64);
                    members::open_into(e, &mut opened);
                    return Some((e.writer_seq(), opened));
                }
                Next::End => {
                    // (Once for each: the last one has no next.)
                    if has_beyond(std::mem::take(&mut self.rest), self.next.max(last.saturating_add(1))) {
                        self.holed.extend(self.begun.checked_sub(1));
                    }
                    self.rest = self.segments.get(self.begun)?.bytes.get(HEADER..).unwrap_or_default();
                    self.begun += 1;
                    self.fresh = true;
                }
                Next::Entry(..) | Next::Torn => self.torn = true,
            }
        }
        None
    }

    fn follows(&self, e: Queued<'_>) -> bool {
        self.next == 0 || e.writer_seq() == self.next || (self.fresh && e.writer_seq() > self.next)
    }
}

/// A pending file.
struct Pending<'a> {
    records: Records<'a>,
    /// Numbers are missing that it should have had.
    torn: bool,
    /// How far everything was in when it ended.
    ended: Option<u64>,
}

impl Pending<'_> {
    fn torn(&self) -> bool {
        self.torn || self.records.damaged()
    }

    /// Whether a line without an end stands there that no file has whole, when all is in up to `last`.
    fn cut(&self, last: u64) -> bool {
        let Some(ended) = self.ended else { return false };
        let behind = if self.records.last() > 0 { self.records.last() } else { ended };
        let (file, mut end) = (self.records.lines().file(), [b'\n']);
        let at = file.metadata().map_or(0, |m| m.len()).saturating_sub(1);
        last <= behind && file.read_exact_at(&mut end, at).is_ok() && end != [b'\n']
    }
}

/// A file of those.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Segment(usize),
    Pending(usize),
}

/// Everything that a dead writer left.
pub(super) struct Sources<'a> {
    journal: Journal<'a>,
    in_journal: Option<Numbered>,
    pending: Vec<(Pending<'a>, Option<Numbered>)>,
    /// What was left behind as being in already.
    behind: Vec<(RecordId, Place)>,
}

impl<'a> Sources<'a> {
    pub(super) fn of(files: &'a mut Files, writer: WriterId) -> Self {
        let segments = &files.segments;
        let pending = files
            .pending
            .iter_mut()
            .map(|lines| (Pending { records: Records::of(lines, writer), torn: false, ended: None }, None));
        Self {
            journal: Journal { segments, begun: 0, rest: &[], next: 0, fresh: false, torn: false, holed: Vec::new() },
            in_journal: None,
            pending: pending.collect(),
            behind: Vec::new(),
        }
    }

    /// The first entry behind the number `last`. What it says of numbers in between is that no file has them.
    pub(super) fn next(&mut self, last: u64) -> Result<Option<Numbered>, TrailError> {
        self.skip(last)?;
        let all = self.pending.iter_mut().map(|p| &mut p.1).chain([&mut self.in_journal]);
        let first = all.filter(|e| e.is_some()).min_by_key(|e| e.as_ref().map(|e| e.0)).and_then(Option::take);
        if first.as_ref().is_some_and(|e| e.0 > last + 1) {
            // One of these should have had them.
            self.pending.iter_mut().for_each(|p| p.0.torn = true);
        }
        Ok(first)
    }

    /// Leaves what is in already behind.
    pub(super) fn skip(&mut self, last: u64) -> Result<(), TrailError> {
        let Self { behind, .. } = self;
        let mut leave = |entry: Option<&Numbered>, place| {
            behind.extend(entry.and_then(|e| Entry::of(&e.1)).map(|e| (e.record_id(), place)));
        };
        while self.in_journal.as_ref().is_none_or(|e| e.0 <= last) {
            leave(self.in_journal.as_ref(), Place::Segment(self.journal.begun.saturating_sub(1)));
            self.in_journal = self.journal.next(last);
            if self.in_journal.is_none() {
                break;
            }
        }
        for (at, (entries, next)) in self.pending.iter_mut().enumerate() {
            while next.as_ref().is_none_or(|e| e.0 <= last) {
                leave(next.as_ref(), Place::Pending(at));
                *next = entries.records.next()?;
                if next.is_none() {
                    entries.ended.get_or_insert(last);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Files with entries that were left behind as being in already, and that the log does not have.
    pub(super) fn unknown(&self, store: &mut dyn Store) -> Result<Vec<PathBuf>, TrailError> {
        let mut ids: BTreeSet<RecordId> = self.behind.iter().map(|b| b.0).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        store.take_known(&mut ids)?;
        let mut places: Vec<Place> = self.behind.iter().filter(|b| ids.contains(&b.0)).map(|b| b.1).collect();
        places.dedup();
        let path = |place| match place {
            Place::Segment(at) => self.journal.segments.get(at).map(|s| s.path.as_path()),
            Place::Pending(at) => self.pending.get(at).map(|(p, _)| p.records.lines().path()),
        };
        Ok(places.into_iter().filter_map(path).map(Path::to_owned).collect())
    }

    /// Whether the last line of a pending file is cut, although it was written to its end.
    pub(super) fn cut(&self, last: u64) -> bool {
        self.pending.iter().any(|(p, _)| p.cut(last))
    }

    /// Whether the journal has more behind the place where it ends, and nobody knows how much.
    pub(super) fn breaks_off(&self, last: u64) -> bool {
        let j = &self.journal;
        j.torn
            || self.in_journal.as_ref().is_some_and(|e| e.0 > last)
            || j.segments.len().checked_sub(1).is_some_and(|at| j.holed.contains(&at))
    }

    /// Files with something that does not check, or with entries behind `last`, the last that was found; of a journal all from the first such segment on.
    /// `whole`: the writer came to an end at which all its lines stood there.
    pub(super) fn torn(&self, last: u64, whole: bool) -> Vec<PathBuf> {
        let beyond = |e: &Option<Numbered>| e.as_ref().is_some_and(|e| e.0 > last);
        let torn = self.journal.torn || beyond(&self.in_journal);
        let from = if torn { self.journal.begun.saturating_sub(1) } else { self.journal.segments.len() };
        let holed = self.journal.holed.iter().filter(|at| **at < from).filter_map(|at| self.journal.segments.get(*at));
        let segments = holed.chain(self.journal.segments.iter().skip(from)).map(|s| s.path.as_path());
        let pending = self.pending.iter().filter(|(p, next)| p.torn() || beyond(next) || (whole && p.cut(last)));
        segments.chain(pending.map(|(p, _)| p.records.lines().path())).map(Path::to_owned).collect()
    }
}
