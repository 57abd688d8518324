//! Pending records: what stands in journals and pending files and not in the store. [`journals`] copies them before the store is looked at, [`spool`] keeps the copy; here is what
//! of it counts, and in which order it is shown.

mod journals;
mod spilled;
mod spool;

use std::collections::BinaryHeap;
use std::path::PathBuf;

use crate::entry::{Entry, entries};
use crate::error::{ErrorKind, ReadError, TrailError};
use crate::fields::Spelled;
use crate::filter::Filter;
use crate::form::pending_record_of;
use crate::id::WriterId;
use crate::json::Scratch;
use crate::reader::End;
use crate::record::Record;
use crate::redaction::Redaction;
use crate::writer::Identity;
pub(crate) use journals::Copied;
use journals::{Journal, damaged};
use spool::Spool;

/// A journal or pending file that does not check, wholly, from some entry on, or in some lines. Of what it may hold, only what recovery would commit is among the records shown.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub struct Unreadable {
    /// The file; the trail itself where its folder cannot be looked through.
    pub path: PathBuf,
    /// Whose file it is, by its name.
    pub writer: Option<WriterId>,
    /// Why; of several reasons the first.
    pub error: TrailError,
}

/// Records that are accepted and not committed yet, by [`AuditReader::pending`](crate::AuditReader::pending): oldest first, each writer's in its order. They are a
/// copy, in memory up to 8 MiB and else in a temporary file without a name, and stay what they are while the writers go on. [`Record::seq`], `created_at`,
/// `prev_hash` and `checksum` are `None`; so is `stack`, of what stands in a journal.
pub struct PendingRecords {
    spool: Spool,
    runs: Vec<Run>,
    total: u64,
    committed: u64,
    unreadable: Vec<Unreadable>,
    filter: Filter,
    redaction: Redaction,
    left: usize,
    /// The next entry of each writer; made by the first `next`.
    heads: Option<BinaryHeap<Head>>,
    buf: Vec<u8>,
    scratch: Scratch,
}

/// Pending entries of one writer: parts of the spool, in order.
struct Run {
    writer: WriterId,
    service: String,
    identity: Identity,
    spans: Vec<(u64, u64)>,
}

/// The heap gives the greatest `rank` first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    rank: [u8; 16],
    run: usize,
    entry: Vec<u8>,
}

/// The last step before a pending record is shown or compared with a filter. Committed records were looked at before they were stored; what has the shape of a secret
/// is withheld from these here, by the default rules: a reader does not know those of the writer.
fn withhold(redaction: &Redaction, entry: &mut [u8]) {
    if let Ok(shapes) = redaction.compiled() {
        shapes.chunk(entry);
    }
}

impl Copied {
    /// What of the copy the store does not have. `end` tells how far a writer's records are in, `committed` and `log_id` are of the same moment, later than the copy.
    pub(crate) fn settle(
        self,
        committed: u64,
        log_id: Option<WriterId>,
        end: impl Fn(WriterId) -> Option<End>,
    ) -> Result<PendingRecords, TrailError> {
        let mut pending = PendingRecords {
            spool: self.spool,
            runs: Vec::new(),
            total: 0,
            committed,
            unreadable: self.unreadable,
            filter: Filter::new(),
            redaction: Redaction::default(),
            left: usize::MAX,
            heads: None,
            buf: Vec::new(),
            scratch: Scratch::default(),
        };
        for journal in self.journals {
            let end = end(journal.writer).unwrap_or_default();
            // What is left of a writer that is closed or recovered, nobody commits any more.
            if !end.over {
                pending.add(journal, log_id, end.last)?;
            }
        }
        Ok(pending)
    }
}

impl PendingRecords {
    /// Only records that meet the filter, in its order and no more than its limit; its cursor says nothing here, for they have no position.
    pub fn matching(mut self, filter: Filter) -> Self {
        self.left = filter.limit.unwrap_or(usize::MAX);
        self.filter = filter;
        self
    }

    /// How many there are, whatever the filter.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The last position in the trail at the moment that these records are of. Those up to it are committed; what came behind it may be among these, too.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Journals and pending files of which not all could be read.
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }

    /// The entries of a writer behind the number `last`, each from the first that has it. What no file has is told, and what follows is shown: recovery does so.
    fn add(&mut self, journal: Journal, log_id: Option<WriterId>, last: u64) -> Result<(), TrailError> {
        let Journal { writer, segments, unreadable } = journal;
        let mut told = !unreadable.is_empty();
        self.unreadable.extend(unreadable);
        let mut run = Run { writer, service: String::new(), identity: Identity::default(), spans: Vec::new() };
        let mut next = last.saturating_add(1);
        for s in segments {
            let about = &*s.about;
            // Of a log that has no record yet, no file lacks a writer's first ones.
            let of_another = |id| log_id.map_or(s.numbers.0 > next, |ours| ours != id);
            if about.log_id.is_some_and(of_another) {
                let what = "the journal belongs to a log that was replaced; its records are not of this one";
                if !about.apart && self.unreadable.iter().all(|u| u.path != about.path) {
                    self.amiss(writer, TrailError::new(ErrorKind::Replaced, what).at(&about.path));
                }
                continue;
            }
            if s.numbers.1 <= next {
                continue;
            }
            // A part that cannot be read explains it.
            if s.numbers.0 > next && !std::mem::replace(&mut told, true) {
                self.amiss(writer, damaged("records are missing before those of the file", &about.path));
            }
            if run.spans.is_empty() {
                (run.identity, run.service) = (about.owner.identity(), about.owner.service_name.clone());
            }
            let (from, to, why) = self.sound(&run, s.span, next)?;
            match run.spans.last_mut() {
                Some(span) if span.1 == from => span.1 = to,
                _ if to > from => run.spans.push((from, to)),
                _ => {}
            }
            next = s.numbers.1;
            if let Some(why) = why {
                let what = format!("an entry of the journal is no record: {why}");
                self.amiss(writer, damaged(&what, &about.path));
                break;
            }
        }
        if !run.spans.is_empty() {
            self.runs.push(run);
        }
        Ok(())
    }

    fn amiss(&mut self, writer: WriterId, error: TrailError) {
        let path = error.path().map(PathBuf::from).unwrap_or_default();
        self.unreadable.push(Unreadable { path, writer: Some(writer), error });
    }

    /// The part of a span from the number `next` on whose entries are records, and why it ends early.
    fn sound(
        &mut self,
        run: &Run,
        (begin, end): (u64, u64),
        next: u64,
    ) -> Result<(u64, u64, Option<String>), TrailError> {
        let (mut from, mut at, mut bytes) = (begin, begin, Vec::new());
        while at < end {
            let then = self.spool.after(at, &mut bytes).map_err(copy_error)?;
            if let Some(e) = entries(&bytes).next() {
                if e.writer_seq() < next {
                    from = then;
                } else if let Err(why) = record(&e, run, &mut self.buf, &mut self.scratch) {
                    return Ok((from, at, Some(why)));
                } else {
                    self.total += 1;
                }
            }
            at = then;
        }
        Ok((from, end, None))
    }

    /// Takes the next entry of a writer out of its spans.
    fn head(&mut self, run: usize) -> Result<Option<Head>, TrailError> {
        let down = self.filter.newest_first;
        let Some(spans) = self.runs.get_mut(run).map(|r| &mut r.spans) else { return Ok(None) };
        let Some(span) = (if down { spans.last_mut() } else { spans.first_mut() }) else { return Ok(None) };
        let mut entry = Vec::new();
        if down {
            span.1 = self.spool.before(span.1, &mut entry).map_err(copy_error)?;
        } else {
            span.0 = self.spool.after(span.0, &mut entry).map_err(copy_error)?;
        }
        spans.retain(|s| s.0 < s.1);
        let mut rank = entries(&entry).next().map_or([0; 16], |e| e.record_id().to_bytes());
        if !down {
            rank = rank.map(|b| !b);
        }
        Ok(Some(Head { rank, run, entry }))
    }

    fn step(&mut self) -> Result<Option<Record>, TrailError> {
        if self.heads.is_none() {
            let heads = (0..self.runs.len()).filter_map(|run| self.head(run).transpose()).collect::<Result<_, _>>()?;
            self.heads = Some(heads);
        }
        while self.left > 0 {
            let Some(mut head) = self.heads.as_mut().and_then(BinaryHeap::pop) else { return Ok(None) };
            withhold(&self.redaction, &mut head.entry);
            let next = self.head(head.run)?;
            self.heads.get_or_insert_default().extend(next);
            let Some((run, entry)) = self.runs.get(head.run).zip(entries(&head.entry).next()) else { continue };
            // All were looked at before.
            let Ok(record) = record(&entry, run, &mut self.buf, &mut self.scratch) else { continue };
            if self.filter.matches(&record, &run.service) {
                self.left -= 1;
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

impl Iterator for PendingRecords {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.left = 0;
        }
        step.transpose()
    }
}

impl std::fmt::Debug for PendingRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut f = f.debug_struct("PendingRecords");
        f.field("total", &self.total).field("committed", &self.committed).field("unreadable", &self.unreadable);
        f.finish_non_exhaustive()
    }
}

fn copy_error(e: std::io::Error) -> TrailError {
    TrailError::io("cannot read the copy of a journal", std::env::temp_dir(), e)
}

/// The record that recovery would make of an entry.
fn record(e: &Entry<'_>, run: &Run, buf: &mut Vec<u8>, scratch: &mut Scratch) -> Result<Record, String> {
    let (mut spelled, writer) = (Spelled::new(), run.writer.to_string());
    pending_record_of(&spelled.fields(e, &run.identity, &writer, e.named_stack()), buf, scratch)
}
