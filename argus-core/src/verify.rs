//! `verify`: walks a trail once, in memory that does not grow with the records, and reports what is wrong as data. Uses nothing of the write side.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;

use crate::chain;
use crate::error::TrailError;
use crate::json::Scratch;
use crate::reader::{About, Item, Source, form_error};

/// Most findings that a report lists; all are counted.
const LISTED: usize = 100;
/// Most holes and gap records of one writer that are remembered.
const HOLES: usize = 4096;

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
    /// Numbers of a writer are missing, and no gap record says why.
    WriterGap,
    /// The `writers` table does not agree with the records.
    Writers,
    /// `created_at` goes back.
    Time,
    /// The log does not begin as a log does.
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

#[derive(Default)]
struct WriterState {
    last: u64,
    closed: bool,
    service: String,
    /// Missing numbers, and those that gap records claim.
    holes: Vec<(u64, u64, u64)>,
    gaps: Vec<(u64, u64)>,
}

struct Walk {
    report: VerifyReport,
    next: Option<u64>,
    prev: Option<String>,
    created_at: String,
    writers: HashMap<String, WriterState>,
    log_id: Option<String>,
    buf: Vec<u8>,
    form: Vec<u8>,
    scratch: Scratch,
    /// SQLite keeps no `prev_hash` of its own, JSONL does.
    own_prev: bool,
}

impl Walk {
    fn find(
        &mut self,
        seq: Option<RangeInclusive<u64>>,
        code: Code,
        record_id: Option<&str>,
        detail: impl Into<String>,
    ) {
        self.report.findings_total += 1;
        if self.report.findings.len() < LISTED {
            self.report.findings.push(Finding {
                seq,
                code,
                record_id: record_id.map(Into::into),
                detail: detail.into(),
            });
        }
    }

    fn item(&mut self, item: Item<'_>) {
        let (f, sum) = match item {
            Item::Row(f, sum) => (f, sum),
            Item::Damage(seq, why) => {
                self.find(Some(seq..=seq), Code::Column, None, why);
                self.report.records += 1;
                // Its checksum is not known; the next record is checked against what it says itself.
                self.prev = None;
                self.next = Some(seq + 1);
                return;
            }
        };
        let first = self.report.records == 0;
        self.report.records += 1;
        let seq = f.seq;
        let id = Some(f.record_id);
        let expected = self.next.unwrap_or(seq);
        let in_order = seq == expected;
        if !in_order {
            let range = if seq > expected { expected..=seq - 1 } else { seq..=seq };
            let what = if seq > expected { "records are missing" } else { "the record stands out of order, or twice" };
            self.find(Some(range), Code::Gap, id, what);
        }
        if let Some(why) = form_error(f, &mut self.form, &mut self.scratch) {
            self.find(Some(seq..=seq), Code::Column, id, why);
        }
        let computed = chain::checksum(f, &mut self.buf).to_string();
        let before = seq.saturating_sub(1).max(self.report.seq.map_or(1, |s| s.0));
        if self.own_prev {
            if computed != sum {
                self.find(Some(seq..=seq), Code::Content, id, "the record is not what its checksum was made of");
            }
            let follows =
                if first { f.prev_hash.is_none() } else { self.prev.is_none() || f.prev_hash == self.prev.as_deref() };
            if in_order && !follows {
                self.find(
                    Some(before..=seq),
                    Code::Link,
                    id,
                    format!(
                        "record {seq} does not follow from record {}: one of the two was changed",
                        seq.saturating_sub(1)
                    ),
                );
            }
        } else if computed != sum && in_order {
            let detail = if first {
                "the first record is not what its checksum was made of".to_owned()
            } else {
                format!("record {seq} does not follow from record {}: one of the two was changed", seq - 1)
            };
            self.find(Some(before..=seq), Code::Link, id, detail);
        }
        if f.created_at < self.created_at.as_str() {
            self.find(Some(seq..=seq), Code::Time, id, "created_at goes back");
        }
        self.created_at.clear();
        self.created_at.push_str(f.created_at);
        self.writer(f);
        let r = &mut self.report;
        r.seq = Some((r.seq.map_or(seq, |s| s.0), seq));
        match &mut r.time {
            None => r.time = Some((f.timestamp.into(), f.timestamp.into())),
            Some((a, b)) => {
                if f.timestamp < a.as_str() {
                    *a = f.timestamp.into();
                }
                if f.timestamp > b.as_str() {
                    *b = f.timestamp.into();
                }
            }
        }
        let prev = self.prev.get_or_insert_default();
        prev.clear();
        prev.push_str(sum);
        self.next = Some(seq + 1);
    }

    fn writer(&mut self, f: &crate::canonical::Fields<'_>) {
        let (seq, id) = (f.seq, Some(f.record_id));
        if !self.writers.contains_key(f.writer) {
            self.writers.insert(f.writer.into(), WriterState::default());
        }
        let mut wrong: Vec<(Code, &str)> = Vec::new();
        if let Some(w) = self.writers.get_mut(f.writer) {
            if w.closed {
                wrong.push((Code::Writers, "a record follows its writer's audit_close"));
            }
            if f.writer_seq <= w.last {
                wrong.push((Code::WriterGap, "the writer's number is not above the one before"));
            } else if f.writer_seq > w.last + 1 {
                if w.holes.len() < HOLES {
                    w.holes.push((w.last + 1, f.writer_seq - 1, seq));
                } else {
                    wrong.push((Code::WriterGap, "more holes in the writer's numbers than can be remembered"));
                }
            }
            let is_log = self.log_id.as_deref() == Some(f.writer);
            if w.last == 0 && f.writer_seq == 1 && !is_log && f.event != "audit_open" {
                wrong.push((Code::Writers, "the writer's first record is not its audit_open"));
            }
            w.last = w.last.max(f.writer_seq);
            w.closed |= f.event == "audit_close" && f.component == "argus";
            if f.event == "audit_open" && f.writer_seq == 1 {
                w.service = crate::reader::service_of(f.context);
            }
        }
        if f.event == "audit_gap" && f.component == "argus" {
            let v: serde_json::Value = serde_json::from_str(f.context).unwrap_or_default();
            let number = |k: &str| v.get(k).and_then(serde_json::Value::as_u64);
            if let (Some(writer), Some(a), Some(b)) =
                (v.get("writer").and_then(|w| w.as_str()), number("first"), number("last"))
            {
                let gaps = &mut self.writers.entry(writer.into()).or_default().gaps;
                if gaps.len() < HOLES {
                    gaps.push((a, b));
                }
            }
        }
        for (code, detail) in wrong {
            self.find(Some(seq..=seq), code, id, detail);
        }
    }

    fn end(&mut self, about: About) {
        let mut writers: Vec<(String, WriterState)> = std::mem::take(&mut self.writers).into_iter().collect();
        writers.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, w) in &writers {
            for (a, b, seq) in &w.holes {
                if !w.gaps.contains(&(*a, *b)) {
                    self.find(
                        Some(*seq..=*seq),
                        Code::WriterGap,
                        None,
                        format!("numbers {a}..={b} of writer {name} are missing, and no audit_gap record covers them"),
                    );
                }
            }
            if !w.closed && about.log_id.as_deref() != Some(name) && w.last > 0 {
                self.report.unclosed_writers.push(name.clone());
            }
        }
        if let Some(rows) = &about.writers {
            for row in rows {
                let seen = writers.iter().find(|(n, _)| *n == row.writer).map(|(_, w)| w);
                let (last, closed) = seen.map_or((0, false), |w| (w.last, w.closed));
                let mut differs = String::new();
                if row.last_seq != last {
                    differs = format!(
                        "last_seq is {}, the records end at {last}: records were removed, or the table was changed",
                        row.last_seq
                    );
                } else if !row.is_log && row.closed != closed {
                    differs = format!("closed is {}, the records say {closed}", row.closed);
                } else if !row.is_log && seen.is_some_and(|w| w.last > 0 && w.service != row.service_name) {
                    differs = "service_name is not the one of its audit_open".into();
                }
                if !differs.is_empty() {
                    self.find(None, Code::Writers, None, format!("writer {}: {differs}", row.writer));
                }
            }
            for (name, _) in writers.iter().filter(|(n, w)| w.last > 0 && !rows.iter().any(|r| r.writer == *n)) {
                self.find(None, Code::Writers, None, format!("writer {name} has records and no row in `writers`"));
            }
        }
        if let Some((first, _)) = self.report.seq
            && first != about.first_seq
        {
            self.find(
                Some(about.first_seq..=first.saturating_sub(1).max(about.first_seq)),
                Code::Gap,
                None,
                "the log's first records are missing",
            );
        }
        self.report.head = self.prev.clone();
        self.report.foreign_waiting = about.foreign_waiting;
        self.report.unfinished_tail = about.unfinished;
    }
}

pub(crate) fn verify(source: &dyn Source) -> Result<VerifyReport, TrailError> {
    let log_id = source.about(u64::MAX)?.unwrap_or_default();
    let mut walk = Walk {
        report: VerifyReport::default(),
        next: None,
        prev: None,
        created_at: String::new(),
        writers: HashMap::new(),
        own_prev: log_id.writers.is_none(),
        log_id: log_id.log_id,
        buf: Vec::new(),
        form: Vec::new(),
        scratch: Scratch::default(),
    };
    for (code, detail) in source.check_structure()? {
        walk.find(None, if code == "schema" { Code::Schema } else { Code::Integrity }, None, detail);
    }
    loop {
        let last = walk.report.seq.map_or(0, |s| s.1);
        let before = walk.report.records;
        source.walk(last, &mut |item| {
            if before == 0
                && walk.report.records == 0
                && walk.own_prev
                && let Item::Row(f, _) = &item
                && (f.event != "audit_segment" || f.seq != 1)
            {
                let seq = f.seq;
                walk.find(Some(seq..=seq), Code::Format, None, "the log does not begin with audit_segment, seq 1");
            }
            walk.item(item);
            true
        })?;
        // Writers go on while we look: what the store says of itself is compared only with a walk that reached its end.
        let last = walk.report.seq.map_or(0, |s| s.1).max(walk.next.map_or(0, |n| n - 1));
        if let Some(about) = source.about(last)? {
            walk.end(about);
            return Ok(walk.report);
        }
        if walk.report.records == before {
            // Nothing more can be walked though the store says so: rows whose ids are out of reach.
            walk.find(None, Code::Gap, None, "the store holds records that cannot be reached in order");
            walk.end(source.about(u64::MAX)?.unwrap_or_default());
            return Ok(walk.report);
        }
    }
}
