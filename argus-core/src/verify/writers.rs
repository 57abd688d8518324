//! The rules of writers (`docs/record-format.md`, section 4): each one's numbers run from 1 without a hole that no `audit_gap` of a writer explains, from its
//! `audit_open` to its `audit_close`; and the `writers` table says the same as the records. Memory grows with the writers, not with their records.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use super::report::{Code, VerifyReport};
use crate::canonical::Fields;
use crate::id::is_uuid;
use crate::reader::{End, WriterRow, service_of};

/// Most holes and gap records of one writer that are remembered, once those that explain each other are forgotten.
const REMEMBERED: usize = 4096;
/// Names a component reserves for Argus's own records.
const ARGUS: &str = "argus";

struct Cover {
    numbers: (u64, u64),
    seq: u64,
    /// The writer itself wrote it.
    own: bool,
}

#[derive(Default)]
struct Writer {
    id: String,
    /// Numbers up to this one stand in earlier segments.
    start: u64,
    last: u64,
    /// The log writer of a later segment: its last number is not told.
    unknown_start: bool,
    records: u64,
    closed: bool,
    /// Dead, and an `audit_recovered` of the log writer says so.
    recovered: bool,
    service: Option<String>,
    /// Missing numbers, and the record that shows them.
    holes: Vec<(u64, u64, u64)>,
    covers: Vec<Cover>,
    /// Holes and covers that came since the last `settle`.
    unsettled: usize,
}

/// All writers of a walk.
#[derive(Default)]
pub(super) struct Writers {
    log_id: Option<String>,
    all: Vec<Writer>,
    by_id: HashMap<String, usize>,
    /// Most records have the writer of the one before.
    recent: usize,
}

impl Writers {
    pub(super) fn of_log(log_id: Option<String>) -> Self {
        Self { log_id, ..Self::default() }
    }

    pub(super) fn log_id(&self) -> Option<&str> {
        self.log_id.as_deref()
    }

    pub(super) fn set_log(&mut self, log_id: &str) {
        self.log_id = Some(log_id.into());
    }

    /// Names a writer of earlier segments and the last number it had there; for the log writer that number is not told.
    pub(super) fn earlier(&mut self, id: &str, last: Option<u64>) {
        let w = self.get(id);
        if let Some(w) = self.all.get_mut(w) {
            (w.start, w.last) = (last.unwrap_or(0), last.unwrap_or(0));
            w.unknown_start = last.is_none();
        }
    }

    /// How far a writer's records are in.
    pub(super) fn standing(&self, id: &str) -> Option<End> {
        let w = self.all.get(*self.by_id.get(id)?)?;
        Some(End { last: w.last, over: w.closed || w.recovered })
    }

    fn get(&mut self, id: &str) -> usize {
        if self.all.get(self.recent).is_none_or(|w| w.id != id) {
            self.recent = self.by_id.get(id).copied().unwrap_or_else(|| {
                self.all.push(Writer { id: id.into(), ..Writer::default() });
                self.by_id.insert(id.into(), self.all.len() - 1);
                self.all.len() - 1
            });
        }
        self.recent
    }

    /// The number of a record whose other fields are damaged.
    pub(super) fn number_only(&mut self, id: &str, number: u64) {
        let index = self.get(id);
        if let Some(w) = self.all.get_mut(index) {
            w.last = w.last.max(number);
            w.records += 1;
        }
    }

    pub(super) fn record(&mut self, f: &Fields<'_>, report: &mut VerifyReport) {
        let index = self.get(f.writer);
        let is_log = self.log_id.as_deref() == Some(f.writer);
        let Some(w) = self.all.get_mut(index) else { return };
        let (number, own) = (f.writer_seq, !is_log && f.component == ARGUS);
        let opens = own && f.event == "audit_open";
        let mut wrong = |detail: String| report.find(at(f.seq), Code::WriterGap, Some(f.record_id), detail);
        if std::mem::take(&mut w.unknown_start) {
            w.start = number.saturating_sub(1);
            w.last = w.start;
        }
        if w.closed || w.recovered {
            wrong(format!("a record follows its writer's audit_{}", if w.closed { "close" } else { "recovered" }));
        }
        if number <= w.last {
            wrong(format!("the writer's number {number} is not above {}, the one before", w.last));
        } else if number > w.last + 1 {
            if w.has_room(is_log) {
                w.holes.push((w.last + 1, number - 1, f.seq));
            } else {
                wrong("more holes in the writer's numbers than can be remembered".into());
            }
        }
        if number == 1 && !is_log && !opens {
            wrong("the writer's first record is not its audit_open".into());
        }
        if opens {
            if number != 1 {
                wrong(format!("audit_open has the writer's number {number}"));
            }
            w.service = service_of(f.context);
        }
        w.last = w.last.max(number);
        w.records += 1;
        w.closed |= own && f.event == "audit_close";
        if own && f.event == "audit_gap" {
            self.gap(f, report);
        }
        if is_log && f.component == ARGUS && matches!(f.event, "audit_recovered" | "audit_gap") {
            self.dead(f, report);
        }
    }

    /// What the log writer says of a writer that died: its records end here, and what it may have lost behind them.
    fn dead(&mut self, f: &Fields<'_>, report: &mut VerifyReport) {
        let context: serde_json::Value = serde_json::from_str(f.context).unwrap_or_default();
        // Rows of other programs carry `argus.foreign`, whatever they call themselves; a torn line has no writer.
        let recovery = f.event == "audit_recovered";
        if context.get("argus.foreign").is_some() || (recovery && context.get("writer").is_none()) {
            return;
        }
        let number = |k: &str| context.get(k).and_then(serde_json::Value::as_u64);
        let id = context.get("writer").and_then(|w| w.as_str());
        // Of one that began in a pending file, the first numbers may be those that are missing.
        let begins = !recovery && number("first") == Some(1) && context.get("last").is_some();
        let index = match id.filter(|id| begins && is_uuid(id, 4)) {
            Some(id) => Some(self.get(id)),
            None => id.and_then(|w| self.by_id.get(w).copied()),
        };
        let writer = index.and_then(|i| self.all.get_mut(i));
        // The merge of a live writer's pending file: told when the last of it was in, and no end of the writer.
        let spill = context.get("cause").and_then(|c| c.as_str()) == Some("spill");
        let right = writer.is_some_and(|w| match recovery {
            true if spill => !w.closed && !w.recovered && number("last").is_some_and(|n| n >= 1 && n <= w.last),
            true => number("last") == Some(w.last) && !w.closed && !std::mem::replace(&mut w.recovered, true),
            // Numbers of a dead writer that recovery did not find and went on behind; or what may be lost at its end.
            false => match context.get("last") {
                Some(_) => {
                    let lost = number("first").zip(number("last"));
                    let right = lost.is_some_and(|(a, b)| Some(a) == w.last.checked_add(1) && a <= b);
                    right && !w.closed && !w.recovered && {
                        w.last = lost.map_or(w.last, |l| l.1);
                        true
                    }
                }
                None => w.recovered && number("first") == w.last.checked_add(1),
            },
        });
        if !right {
            let what = match recovery {
                true if spill => "audit_recovered of a pending file names no live writer's number",
                true => "audit_recovered does not end an unclosed writer at its last number",
                false => "audit_gap of the log writer does not stand at the end of a dead writer's numbers",
            };
            report.find(at(f.seq), Code::WriterGap, Some(f.record_id), what);
        }
    }

    fn gap(&mut self, f: &Fields<'_>, report: &mut VerifyReport) {
        let context: serde_json::Value = serde_json::from_str(f.context).unwrap_or_default();
        if context.get("first").is_none() {
            // Losses before acceptance have no numbers.
            return;
        }
        let number = |k: &str| context.get(k).and_then(serde_json::Value::as_u64).filter(|n| *n >= 1);
        let of = context.get("writer").and_then(|w| w.as_str()).filter(|w| is_uuid(w, 4));
        match (of, number("first"), number("last")) {
            (Some(of), Some(first), Some(last)) if first <= last => {
                let own = of == f.writer;
                let (index, is_log) = (self.get(of), self.log_id.as_deref() == Some(of));
                let Some(w) = self.all.get_mut(index) else { return };
                if w.has_room(is_log) {
                    w.covers.push(Cover { numbers: (first, last), seq: f.seq, own });
                } else {
                    let detail = format!("more audit_gap records of writer {of} than can be remembered");
                    report.find(at(f.seq), Code::WriterGap, Some(f.record_id), detail);
                }
            }
            _ => report.find(
                at(f.seq),
                Code::WriterGap,
                Some(f.record_id),
                "audit_gap has no proper `writer`, `first` and `last`",
            ),
        }
    }

    /// Judges the holes and the table, once the walk is over.
    pub(super) fn end(mut self, rows: Option<&[WriterRow]>, report: &mut VerifyReport) {
        self.all.sort_by(|a, b| a.id.cmp(&b.id));
        for w in &self.all {
            let is_log = self.log_id.as_deref() == Some(&w.id);
            if !w.unknown_start {
                w.judge(is_log, report);
            }
            if !is_log && (w.records > 0 || w.last > w.start) && !w.closed && !w.recovered {
                report.unclosed_writers.push(w.id.clone());
            }
        }
        if let Some(rows) = rows {
            self.compare(rows, report);
        }
    }

    fn compare(&self, rows: &[WriterRow], report: &mut VerifyReport) {
        let mut wrong = |detail: String| report.find(None, Code::Writers, None, detail);
        let seen: HashMap<&str, &Writer> =
            self.all.iter().filter(|w| w.records > 0 || w.last > 0).map(|w| (w.id.as_str(), w)).collect();
        let told: HashSet<&str> = rows.iter().map(|r| r.writer.as_str()).collect();
        for row in rows {
            let id = &row.writer;
            if !is_uuid(id, 4) {
                wrong(format!("row {}: `writer` is no UUID of version 4", row.id));
                continue;
            }
            let is_log = self.log_id.as_deref() == Some(id);
            if (row.id == 0) != is_log {
                wrong(format!("row {}: row 0, and only row 0, belongs to the log writer", row.id));
            }
            let (Some(last), Some(closed @ 0..=2), Some(service)) = (row.last_seq, row.closed, &row.service_name)
            else {
                wrong(format!("writer {id}: last_seq, closed or service_name is not of its type"));
                continue;
            };
            let seen = seen.get(id.as_str());
            if seen.is_none() && !is_log {
                wrong(format!("writer {id} has a row and no records"));
                continue;
            }
            let over = |w: &&Writer| i64::from(w.closed) + if w.recovered && !w.closed { 2 } else { 0 };
            let (seen_last, seen_closed) = seen.map_or((0, 0), |w| (w.last, over(w)));
            if last != i64::try_from(seen_last).unwrap_or(-1) {
                wrong(format!(
                    "writer {id}: last_seq is {last}, the records end at {seen_last}: records were removed, or the table was changed"
                ));
            }
            if closed != seen_closed {
                wrong(format!("writer {id}: closed is {closed}, the records say {seen_closed}"));
            }
            if seen.and_then(|w| w.service.as_ref()).is_some_and(|s| s != service) {
                wrong(format!("writer {id}: service_name is not the one of its audit_open"));
            }
        }
        for w in self.all.iter().filter(|w| (w.records > 0 || w.last > 0) && !told.contains(w.id.as_str())) {
            wrong(format!("writer {} has records and no row in `writers`", w.id));
        }
        if !rows.iter().any(|r| r.id == 0) {
            wrong("the log writer's row is missing".into());
        }
    }
}

impl Writer {
    /// Whether one more hole or cover can be remembered. Of the log writer, no cover explains a hole.
    fn has_room(&mut self, is_log: bool) -> bool {
        self.unsettled += 1;
        let full = |w: &Self| w.holes.len().max(w.covers.len()) >= REMEMBERED;
        // Not at each of the records of a writer that stays full.
        if full(self) && !is_log && self.unsettled >= REMEMBERED / 4 {
            self.settle();
        }
        !full(self)
    }

    /// Forgets each hole that one gap record covers exactly, with that record. A second one that covers it will be found to cover what is not missing.
    fn settle(&mut self) {
        self.unsettled = 0;
        let mut covered: HashMap<(u64, u64), usize> = HashMap::new();
        for c in &self.covers {
            *covered.entry(c.numbers).or_default() += 1;
        }
        let mut explained: HashSet<(u64, u64)> = self.holes.iter().map(|(a, b, _)| (*a, *b)).collect();
        explained.retain(|numbers| covered.get(numbers) == Some(&1));
        self.holes.retain(|(a, b, _)| !explained.contains(&(*a, *b)));
        self.covers.retain(|c| !explained.contains(&c.numbers));
    }

    /// Each missing number in exactly one gap record, and each number of a gap record missing.
    fn judge(&self, is_log: bool, report: &mut VerifyReport) {
        let mut wrong = |seq, detail: String| report.find(seq, Code::WriterGap, None, detail);
        let mut ordered: Vec<(u64, u64)> = self.covers.iter().map(|c| c.numbers).collect();
        ordered.sort_unstable();
        for pair in ordered.windows(2) {
            if pair[1].0 <= pair[0].1 {
                wrong(None, format!("number {} of writer {} is in two audit_gap records", pair[1].0, self.id));
            }
        }
        // The log writer loses nothing after acceptance: nobody can explain a hole of its.
        let covered = if is_log { Vec::new() } else { merge(ordered) };
        for (a, b, seq) in &self.holes {
            for (a, b) in without((*a, *b), &covered) {
                wrong(
                    at(*seq),
                    format!("numbers {a}..={b} of writer {} are missing, and no audit_gap record covers them", self.id),
                );
            }
        }
        let holes = merge(self.holes.iter().map(|(a, b, _)| (*a, *b)).collect());
        for c in &self.covers {
            // Numbers before this segment cannot be judged here; and another writer may tell what a dead one lost at its end.
            let (a, b) = c.numbers;
            let low = a.max(self.start + 1);
            let high = if c.own || self.closed || self.recovered { b } else { b.min(self.last) };
            if is_log || (low <= high && !without((low, high), &holes).is_empty()) {
                wrong(
                    at(c.seq),
                    format!("audit_gap {a}..={b} of writer {} covers numbers that are not missing", self.id),
                );
            }
        }
    }
}

fn at(seq: u64) -> Option<RangeInclusive<u64>> {
    Some(seq..=seq)
}

/// Sorted ranges, those that touch made one.
fn merge(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (a, b) in ranges {
        match out.last_mut() {
            Some(last) if a <= last.1.saturating_add(1) => last.1 = last.1.max(b),
            _ => out.push((a, b)),
        }
    }
    out
}

/// What of a range no merged range has.
fn without(range: (u64, u64), others: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let (mut a, b) = range;
    let mut out = Vec::new();
    let first = others.partition_point(|(_, d)| *d < a);
    for (c, d) in others.iter().skip(first).take_while(|(c, _)| *c <= b) {
        if *c > a {
            out.push((a, c - 1));
        }
        a = a.max(d.saturating_add(1));
    }
    if a <= b {
        out.push((a, b));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(merge(vec![(5, 6), (1, 2), (3, 3), (9, 9)]), [(1, 3), (5, 6), (9, 9)]);
        let merged = [(1, 3), (5, 6), (9, 9)];
        assert_eq!(without((2, 10), &merged), [(4, 4), (7, 8), (10, 10)]);
        assert!(without((5, 6), &merged).is_empty());
        assert_eq!(without((4, 4), &merged), [(4, 4)]);
    }
}
