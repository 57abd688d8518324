//! The verdict as data: findings, the report, and the words they are printed in.

use std::fmt;
use std::ops::RangeInclusive;

/// Most findings that a report lists; all are counted.
const LISTED: usize = 100;

/// What a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// A record does not follow from the one before: one of the two was changed.
    Link,
    /// A line's own checksum is wrong.
    Content,
    /// A cell or member breaks the record format.
    Column,
    /// Positions are missing, doubled or out of order.
    Gap,
    /// The schema is not the one that Argus makes.
    Schema,
    /// SQLite's own integrity check complains.
    Integrity,
    /// A writer's numbers break its rules: missing without a gap record, doubled, or after its `audit_close`.
    WriterGap,
    /// The `writers` table does not agree with the records.
    Writers,
    /// `created_at` goes back.
    Time,
    /// A JSONL line is no record, or the file does not begin as a segment does.
    Format,
}

impl Code {
    /// The word that reports carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::Link => "link",
            Code::Content => "content",
            Code::Column => "column",
            Code::Gap => "gap",
            Code::Schema => "schema",
            Code::Integrity => "integrity",
            Code::WriterGap => "writer_gap",
            Code::Writers => "writers",
            Code::Time => "time",
            Code::Format => "format",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// The positions concerned, if any.
    pub seq: Option<RangeInclusive<u64>>,
    /// What it is.
    pub code: Code,
    /// The record concerned, if it is known.
    pub record_id: Option<String>,
    /// In words.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.seq {
            Some(r) if r.start() == r.end() => write!(f, "seq {}, ", r.start())?,
            Some(r) => write!(f, "seq {}..={}, ", r.start(), r.end())?,
            None => {}
        }
        write!(f, "{}", self.code.as_str())?;
        if let Some(id) = &self.record_id {
            write!(f, ", record {id}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// How much a clean verdict proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Assurance {
    /// The chain holds. Whoever can write the file could have made all of it anew; nothing else was changed unnoticed.
    #[default]
    Linked,
}

impl Assurance {
    /// The word that reports carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Assurance::Linked => "linked",
        }
    }
}

/// The verdict of a verification.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Records seen.
    pub records: u64,
    /// First and last position.
    pub seq: Option<(u64, u64)>,
    /// Checksum of the last record.
    pub head: Option<String>,
    /// Earliest and latest timestamp.
    pub time: Option<(String, String)>,
    /// How much a clean verdict proves.
    pub assurance: Assurance,
    /// What is wrong: the first hundred.
    pub findings: Vec<Finding>,
    /// How much is wrong in all.
    pub findings_total: u64,
    /// Writers without `audit_close`: alive, or dead without a word.
    pub unclosed_writers: Vec<String>,
    /// Records that were accepted and are not in the trail yet: they stand in journals beside it. No part of the verdict.
    pub pending: u64,
    /// Journals that cannot be read, wholly or from some entry on; [`AuditReader::pending`](crate::AuditReader::pending) names them.
    pub pending_unreadable: u64,
    /// Rows of other programs that wait for adoption.
    pub foreign_waiting: u64,
    /// Bytes of a last line that is being written or torn.
    pub unfinished_tail: u64,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.findings_total == 0
    }

    pub(super) fn find(
        &mut self,
        seq: Option<RangeInclusive<u64>>,
        code: Code,
        record_id: Option<&str>,
        detail: impl Into<String>,
    ) {
        self.findings_total += 1;
        if self.findings.len() < LISTED {
            let (record_id, detail) = (record_id.map(Into::into), detail.into());
            self.findings.push(Finding { seq, code, record_id, detail });
        }
    }

    pub(super) fn reached(&mut self, seq: u64) {
        self.seq = Some((self.seq.map_or(seq, |s| s.0), seq));
    }

    pub(super) fn saw(&mut self, timestamp: &str) {
        let (earliest, latest) = self.time.get_or_insert_with(|| (timestamp.into(), timestamp.into()));
        if timestamp < earliest.as_str() {
            *earliest = timestamp.into();
        }
        if timestamp > latest.as_str() {
            latest.clear();
            latest.push_str(timestamp);
        }
    }
}

impl fmt::Display for VerifyReport {
    /// The verdict line, and a line for each finding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ok() {
            write!(f, "ok: {} records", self.records)?;
            if let Some((a, b)) = self.seq {
                write!(f, ", seq {a}..={b}")?;
            }
            if let Some(head) = &self.head {
                write!(f, ", head {head}")?;
            }
            if let Some((a, b)) = &self.time {
                write!(f, ", {a} to {b}")?;
            }
            write!(f, ", assurance {}", self.assurance.as_str())?;
        } else {
            write!(
                f,
                "tampered: {} finding{} in {} records",
                self.findings_total,
                if self.findings_total == 1 { "" } else { "s" },
                self.records
            )?;
            for finding in &self.findings {
                write!(f, "\ntampered: {finding}")?;
            }
        }
        if self.pending > 0 {
            write!(f, "\npending: {} accepted, not committed yet", self.pending)?;
        }
        if self.pending_unreadable > 0 {
            write!(f, "\npending: {} unreadable journals", self.pending_unreadable)?;
        }
        if !self.unclosed_writers.is_empty() {
            write!(f, "\nunclosed writers: {}", self.unclosed_writers.len())?;
        }
        if self.foreign_waiting > 0 {
            write!(f, "\nforeign rows waiting: {}", self.foreign_waiting)?;
        }
        if self.unfinished_tail > 0 {
            write!(f, "\nunfinished last line: {} bytes", self.unfinished_tail)?;
        }
        Ok(())
    }
}
