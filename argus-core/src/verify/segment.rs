//! The head of a JSONL segment (`docs/record-format.md`, section 6): what its `audit_segment` must say.

use serde_json::Value;

use super::report::{Code, VerifyReport};
use super::writers::Writers;
use crate::canonical::Fields;
use crate::id::{Checksum, is_uuid};

/// What the head of a segment tells the walk.
pub(super) struct Segment {
    /// The log begins here: no record stands before.
    pub(super) first: bool,
    /// Checksum of the last record of the segment before.
    pub(super) last_checksum: Option<String>,
}

pub(super) fn check(f: &Fields<'_>, writers: &mut Writers, report: &mut VerifyReport) -> Segment {
    let mut wrong = |detail: &str| {
        report.find(Some(f.seq..=f.seq), Code::Format, Some(f.record_id), format!("audit_segment: {detail}"))
    };
    let context: Value = serde_json::from_str(f.context).unwrap_or_default();
    if f.event != "audit_segment" || f.component != "argus" {
        wrong("the file does not begin with it");
        return Segment { first: f.seq == 1, last_checksum: None };
    }
    if f.level != "INFO" {
        wrong("the level is not INFO");
    }
    if context.get("canonical").and_then(Value::as_u64) != Some(1) {
        wrong("`canonical` is not 1");
    }
    match context.get("log_id").and_then(Value::as_str).filter(|id| is_uuid(id, 4) && *id == f.writer) {
        Some(id) => writers.set_log(id),
        None => wrong("`log_id` is not the UUID of its writer"),
    }
    let number = context.get("segment").and_then(Value::as_u64).filter(|n| *n >= 1);
    if number.is_none() {
        wrong("`segment` is no number from 1");
    }
    let first = number.map_or(f.seq == 1, |n| n == 1);
    let open: Option<Vec<(&String, u64)>> = context
        .get("writers")
        .and_then(Value::as_object)
        .and_then(|w| w.iter().map(|(id, n)| n.as_u64().filter(|_| is_uuid(id, 4)).map(|n| (id, n))).collect());
    let Some(open) = open else {
        wrong("`writers` is no object of UUIDs and numbers");
        return Segment { first, last_checksum: None };
    };
    let last = context.get("last_checksum").and_then(Value::as_str);
    if first {
        if f.seq != 1 {
            wrong("segment 1 does not begin with record 1");
        }
        if !open.is_empty() {
            wrong("`writers` names some before segment 1");
        }
        if context.get("last_checksum").is_some() {
            wrong("`last_checksum` in segment 1");
        }
        return Segment { first, last_checksum: None };
    }
    for (id, number) in &open {
        writers.earlier(id, Some(*number));
    }
    if let Some(log) = writers.log_id().map(str::to_owned).filter(|log| !open.iter().any(|(id, _)| *id == log)) {
        writers.earlier(&log, None);
    }
    let last_checksum = last.filter(|c| Checksum::parse_exact(c).is_some()).map(str::to_owned);
    if last_checksum.is_none() {
        wrong("`last_checksum` is missing or no checksum");
    }
    Segment { first, last_checksum }
}
