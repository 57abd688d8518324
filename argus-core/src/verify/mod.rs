//! `verify`: walks a trail once, in memory that does not grow with the records, and reports what is wrong as data. Uses nothing of the write side.
//! This file has the walk and the chain; `writers` the rules of writers, `segment` those of a JSONL file's head, `report` the verdict.

mod report;
mod segment;
mod writers;

pub use report::{Assurance, Code, Finding, VerifyReport};

use crate::canonical::Fields;
use crate::chain;
use crate::error::{ErrorKind, TrailError};
use crate::form::form_error;
use crate::id::WriterId;
use crate::json::Scratch;
use crate::reader::{Copied, Damage, Item, Links, Source};
use writers::Writers;

/// Walks that are begun again because the file was changed under them.
const ATTEMPTS: usize = 20;

struct Walk {
    report: VerifyReport,
    links: Links,
    /// The position that the next record must have, where one is known.
    next: Option<u64>,
    /// Checksum of the record before, where one is known.
    prev: Option<String>,
    created_at: String,
    writers: Writers,
    buf: Vec<u8>,
    form: Vec<u8>,
    scratch: Scratch,
}

impl Walk {
    fn item(&mut self, item: Item<'_>) {
        match item {
            Item::Row(f, sum) => self.record(f, sum),
            Item::Damage(d) => self.damage(d),
        }
    }

    /// What is still known of a damaged row keeps one damage from showing as three.
    fn damage(&mut self, d: Damage) {
        let code = if self.links == Links::InRecord { Code::Format } else { Code::Column };
        let seq = d.seq.or(self.next).unwrap_or(1);
        self.order(seq, None);
        self.report.find(Some(seq..=seq), code, None, d.why);
        self.report.records += 1;
        if let Some((writer, number)) = d.writer {
            self.writers.number_only(&writer, number);
        }
        self.prev = d.checksum;
        self.next = Some(seq.saturating_add(1));
        self.report.reached(seq);
    }

    /// Whether the record stands right after the one before.
    fn order(&mut self, seq: u64, id: Option<&str>) -> bool {
        let Some(expected) = self.next.filter(|n| *n != seq) else { return true };
        if seq > expected {
            self.report.find(Some(expected..=seq - 1), Code::Gap, id, "records are missing");
        } else {
            self.report.find(Some(seq..=seq), Code::Gap, id, "the record stands out of order, or twice");
        }
        false
    }

    fn record(&mut self, f: &Fields<'_>, sum: &str) {
        let (seq, id) = (f.seq, Some(f.record_id));
        let here = || Some(seq..=seq);
        let head = self.report.records == 0;
        self.report.records += 1;
        let in_order = self.order(seq, id);
        if let Some(why) = form_error(f, &mut self.form, &mut self.scratch) {
            self.report.find(here(), Code::Column, id, why);
        }
        let right = chain::checksum(f, &mut self.buf).is(sum);
        if self.buf.len() > crate::accept::MAX_RECORD + 1 {
            self.report.find(here(), Code::Column, id, "the canonical form is longer than 262,144 bytes");
        }
        let link = || {
            format!("record {seq} does not follow from record {}: one of the two was changed", seq.saturating_sub(1))
        };
        match self.links {
            Links::Above if f.prev_hash.is_some() => {
                if !right && in_order {
                    self.report.find(Some(seq.saturating_sub(1)..=seq), Code::Link, id, link());
                }
            }
            Links::Above => {
                // The first record; any other without a row above was reported as a gap.
                if !right && in_order && head {
                    self.report.find(here(), Code::Link, id, "the first record is not what its checksum was made of");
                }
            }
            Links::InRecord => {
                if !right {
                    self.report.find(here(), Code::Content, id, "the record is not what its checksum was made of");
                }
                let mut first = false;
                if head {
                    let segment = segment::check(f, &mut self.writers, &mut self.report);
                    (first, self.prev) = (segment.first, segment.last_checksum);
                } else if f.event == "audit_segment"
                    && f.component == "argus"
                    && self.writers.log_id() == Some(f.writer)
                {
                    self.report.find(here(), Code::Format, id, "audit_segment inside a segment");
                }
                match f.prev_hash {
                    Some(_) if first => {
                        self.report.find(here(), Code::Column, id, "the first record has a `prev_hash`")
                    }
                    None if !first => self.report.find(here(), Code::Column, id, "`prev_hash` is missing"),
                    Some(p) if in_order && self.prev.as_deref().is_some_and(|prev| prev != p) => {
                        self.report.find(Some(seq.saturating_sub(1)..=seq), Code::Link, id, link());
                    }
                    _ => {}
                }
            }
        }
        if f.created_at < self.created_at.as_str() {
            self.report.find(here(), Code::Time, id, "created_at goes back");
        }
        self.created_at.clear();
        self.created_at.push_str(f.created_at);
        self.writers.record(f, &mut self.report);
        self.report.reached(seq);
        self.report.saw(f.timestamp);
        let prev = self.prev.get_or_insert_default();
        prev.clear();
        prev.push_str(sum);
        self.next = Some(seq.saturating_add(1));
    }
}

/// `journals` were copied before: what of them this walk does not meet is pending.
pub(crate) fn verify(source: &dyn Source, mut journals: Option<Copied>) -> Result<VerifyReport, TrailError> {
    for _ in 0..ATTEMPTS {
        if let Some(report) = attempt(source, &mut journals)? {
            return Ok(report);
        }
    }
    Err(TrailError::new(ErrorKind::Busy, "the trail kept changing while it was verified").help("try again"))
}

/// What the store itself cannot read is a verdict; so is whatever follows from what was found already. Any other error is one of the reader.
fn judge<T>(report: &mut VerifyReport, read: Result<T, TrailError>) -> Result<Option<T>, TrailError> {
    match read {
        Err(e) if e.kind() == ErrorKind::Damaged || (e.kind() != ErrorKind::Busy && !report.is_ok()) => {
            report.find(None, Code::Integrity, None, e.to_string());
            Ok(None)
        }
        read => read.map(Some),
    }
}

/// One walk; `None` if the file was changed in a way that makes what was seen worthless.
fn attempt(source: &dyn Source, journals: &mut Option<Copied>) -> Result<Option<VerifyReport>, TrailError> {
    let mut report = VerifyReport::default();
    for (code, detail) in judge(&mut report, source.check_structure())?.unwrap_or_default() {
        report.find(None, code, None, detail);
    }
    let Some(origin) = judge(&mut report, source.origin())? else { return Ok(Some(report)) };
    let mut walk = Walk {
        report,
        links: origin.links,
        next: origin.first_seq,
        prev: None,
        created_at: String::new(),
        writers: Writers::of_log(origin.log_id),
        buf: Vec::new(),
        form: Vec::new(),
        scratch: Scratch::default(),
    };
    // Whether the store said that there are records beyond the last that a walk gave.
    let mut told_of_more = false;
    loop {
        let (before, last) = (walk.report.records, walk.report.seq.map_or(0, |s| s.1));
        let walked = source.walk(last, &mut |item| {
            walk.item(item);
            true
        });
        let Some(walked) = judge(&mut walk.report, walked)? else { return Ok(Some(walk.report)) };
        if walked.changed {
            return Ok(None);
        }
        // Writers go on while we look: what the store says of itself is compared only with a walk that reached its end. One that gives none of the records that
        // were there before it began cannot reach them.
        let last = walk.report.seq.map_or(0, |s| s.1);
        let stuck = told_of_more && walk.report.records == before;
        let about = source.about(if stuck { u64::MAX } else { last });
        let Some(about) = judge(&mut walk.report, about)? else { return Ok(Some(walk.report)) };
        let Some(about) = about else {
            told_of_more = true;
            continue;
        };
        if walk.links == Links::InRecord && walk.report.records == 0 {
            walk.report.find(None, Code::Format, None, "no complete record: a segment begins with audit_segment");
        }
        if stuck && about.last_seq > last {
            walk.report.find(None, Code::Gap, None, "the store holds records that cannot be reached in order");
        }
        let Walk { mut report, writers, prev, .. } = walk;
        if let Some(journals) = journals.take() {
            let log_id = writers.log_id().and_then(WriterId::parse_exact);
            let pending = journals.settle(last, log_id, |w| writers.standing(&w.to_string()))?;
            (report.pending, report.pending_unreadable) = (pending.total(), pending.unreadable().len() as u64);
        }
        writers.end(about.writers.as_deref(), &mut report);
        report.head = prev;
        report.foreign_waiting = about.foreign_waiting;
        report.unfinished_tail = walked.unfinished;
        return Ok(Some(report));
    }
}

#[cfg(test)]
mod tests;
