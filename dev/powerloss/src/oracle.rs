//! Opens what a crash left, and says what is wrong with it:
//!
//! - Once a logger was open, the trail opens for reading and verifies. Before that it may be missing or empty.
//! - Each logger's records, in the trail and then in its pending file, are `audit_open`, then the caller's 1, 2, 3, ... without a hole, then perhaps `audit_close`: what
//!   was only accepted may be lost, but from the end, or (of a pending file) with an `audit_gap`; nothing that was acknowledged is; nothing is there that was not submitted.
//!   Receipts agree with the records.
//! - Whoever opens it next says of each logger that did not close that it died, and, unless it had saved all to its pending file, that something may be lost.
//! - Opening it for writing works, and what was there stays as it was; a second opening finds nothing to mend.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Filter, Record, WriterId,
};

use crate::recorder::Note;
use crate::workload::EVENT;

/// What must, and what may, be in the trail of one logger.
#[derive(Clone, Debug, Default)]
struct Promise {
    submitted: u64,
    acknowledged: u64,
    /// Number of the caller, position, checksum.
    receipts: Vec<(u64, u64, String)>,
    closing: bool,
    closed: bool,
}

/// What the application knew when the power went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectation {
    opening: bool,
    loggers: BTreeMap<WriterId, Promise>,
}

impl Expectation {
    pub(crate) fn add(&mut self, note: &Note) {
        fn of<'a>(loggers: &'a mut BTreeMap<WriterId, Promise>, id: &WriterId) -> &'a mut Promise {
            loggers.entry(*id).or_default()
        }
        let loggers = &mut self.loggers;
        match note {
            Note::Opening => self.opening = true,
            Note::Opened(id) => {
                of(loggers, id);
                self.opening = false;
            }
            Note::Submitted(id, n) => of(loggers, id).submitted = *n,
            Note::Acknowledged(id, n, receipt) => {
                let promise = of(loggers, id);
                promise.acknowledged = promise.acknowledged.max(*n);
                if let Some((seq, sum)) = receipt.as_ref().and_then(|r| r.seq.zip(r.checksum)) {
                    promise.receipts.push((*n, seq, sum.to_string()));
                }
            }
            Note::Closing(id) => of(loggers, id).closing = true,
            Note::Closed(id) => of(loggers, id).closed = true,
        }
    }

    /// What is wrong with the trail that a crash left.
    pub(crate) fn check(&self, trail: &Path) -> Result<(), String> {
        let before = match self.loggers.is_empty() {
            true => Vec::new(),
            false => {
                let records = read("after the crash", trail)?;
                let mut all = records.clone();
                all.extend(pending(trail)?);
                self.check_records(&all, 0)?;
                records
            }
        };
        let first = reopen("the first opening", trail)?;
        // Before the first acknowledgement nobody has read what was there.
        same_beginning(&before, &first)?;
        self.check_records(&first, 1)?;
        self.check_told(&first)?;
        let second = reopen("the second opening", trail)?;
        same_beginning(&first, &second)?;
        let new: Vec<&str> = second[first.len()..].iter().map(|r| r.event.as_str()).collect();
        if new != ["audit_open", "after", "audit_close"] {
            return Err(format!("the second opening mended again: {new:?}"));
        }
        Ok(())
    }

    /// Of each logger that did not close, one record says that it died, and, if it was not closing, another one that something may be lost.
    fn check_told(&self, records: &[Record]) -> Result<(), String> {
        let closed: Vec<WriterId> = records.iter().filter(|r| r.event == "audit_close").map(|r| r.writer).collect();
        let told: Vec<String> = records.iter().filter_map(dead).collect();
        let of_a_death = |r: &&Record| text(r, "cause").as_deref() == Some("dead");
        let recovered: Vec<String> = records.iter().filter(of_a_death).filter_map(|r| text(r, "writer")).collect();
        for (id, promise) in &self.loggers {
            let [told, recovered] = [&told, &recovered].map(|all| all.contains(&id.to_string()));
            let closed = closed.contains(id);
            if closed == recovered || (closed && told) || !(closed || told || promise.closing) {
                let what = "nothing says that it died, or something does though it closed";
                return Err(format!("writer {id}: {what} (closed {closed}, recovered {recovered}, told {told})"));
            }
        }
        Ok(())
    }

    /// All but `recovered` loggers, which opened the trail after the crash.
    fn check_records(&self, records: &[Record], recovered: usize) -> Result<(), String> {
        let mut by_writer: BTreeMap<WriterId, Vec<&Record>> = BTreeMap::new();
        // (A gap record of the log speaks of another writer.)
        let of_another =
            |r: &Record| r.event == "audit_gap" && text(r, "writer").is_some_and(|w| w != r.writer.to_string());
        let of_the_log = |r: &&Record| ["audit_segment", "audit_recovered"].contains(&&*r.event) || of_another(r);
        for r in records.iter().filter(|r| !of_the_log(r)) {
            by_writer.entry(r.writer).or_default().push(r);
        }
        for (id, promise) in &self.loggers {
            promise.check(&by_writer.remove(id).unwrap_or_default()).map_err(|e| format!("writer {id}: {e}"))?;
        }
        // The one that was being opened may be in already.
        if by_writer.len() > recovered + usize::from(self.opening) {
            return Err(format!("records of {} loggers that nobody opened", by_writer.len()));
        }
        Ok(())
    }
}

fn text(r: &Record, key: &str) -> Option<String> {
    r.context_value(key)?.as_str().map(str::to_owned)
}

/// The how manieth of the caller's it is.
fn number(r: &Record) -> Option<u64> {
    r.context_value("n")?.as_u64()
}

/// The writer of whose death a gap record tells.
fn dead(r: &Record) -> Option<String> {
    (r.event == "audit_gap" && text(r, "reason")? == "process_died").then(|| text(r, "writer"))?
}

impl Promise {
    fn check(&self, records: &[&Record]) -> Result<(), String> {
        let (mut n, mut closed, mut last) = (0, false, 0);
        for (i, r) in records.iter().enumerate() {
            // An `audit_gap` may explain a hole (else `verify` has found it), but not one in what was acknowledged.
            let hole = r.writer_seq > last + 1 && n >= self.acknowledged && i > 0;
            if r.writer_seq != last + 1 && !hole {
                return Err(format!(
                    "record {} stands where {} should: what is between is lost",
                    r.writer_seq,
                    last + 1
                ));
            }
            last = r.writer_seq;
            let number = number(r).unwrap_or(0);
            match r.event.as_str() {
                "audit_open" if i == 0 => {}
                "audit_fallback" if i > 0 => {}
                "audit_close" if i + 1 == records.len() && self.closing => closed = true,
                EVENT if i > 0 && (number == n + 1 || (hole && number > n)) => n = number,
                other => return Err(format!("`{other}` as record {} of its logger", i + 1)),
            }
        }
        if records.is_empty() {
            return Err("audit_open is lost".into());
        }
        if n < self.acknowledged {
            return Err(format!("{} of {} acknowledged records are lost", self.acknowledged - n, self.acknowledged));
        }
        if n > self.submitted {
            return Err(format!("{n} records, but only {} were submitted", self.submitted));
        }
        if self.closed && !closed {
            return Err("audit_close is lost".into());
        }
        for (n, seq, sum) in &self.receipts {
            let is = |r: &&&Record| r.event == EVENT && number(r) == Some(*n);
            let Some(r) = records.iter().find(is) else { return Err(format!("record {n} is lost")) };
            if r.seq != Some(*seq) || r.checksum.map(|c| c.to_string()).as_ref() != Some(sum) {
                return Err(format!("record {n} is not the one of its receipt"));
            }
        }
        Ok(())
    }
}

fn read(when: &str, trail: &Path) -> Result<Vec<Record>, String> {
    let reader = AuditReader::open(trail).map_err(|e| format!("{when} the trail cannot be read: {e}"))?;
    let report = reader.verify().map_err(|e| format!("{when} it cannot be verified: {e}"))?;
    if !report.is_ok() {
        return Err(format!("{when} it does not verify: {report}"));
    }
    let records: Result<Vec<_>, _> = reader.query(Filter::new()).map_err(|e| format!("{when}: {e}"))?.collect();
    records.map_err(|e| format!("{when} a query fails: {e}"))
}

/// What stands in pending files, as a reader shows it.
fn pending(trail: &Path) -> Result<Vec<Record>, String> {
    let pending = AuditReader::open(trail).and_then(|r| r.pending()).map_err(|e| format!("pending records: {e}"))?;
    pending.collect::<Result<_, _>>().map_err(|e| format!("a pending record cannot be read: {e}"))
}

/// Opens the trail for writing, appends a record, closes it.
fn reopen(when: &str, trail: &Path) -> Result<Vec<Record>, String> {
    let logger = AuditLogger::open(AuditConfig::new(trail)).map_err(|e| format!("{when} for writing fails: {e}"))?;
    let logged = logger.log_durable(AuditEvent::info("after"));
    let report = logger.close(Duration::from_secs(60));
    logged.map_err(|e| format!("{when}: a new record fails: {e}"))?;
    match report.error {
        Some(e) => Err(format!("{when}: close fails: {e}")),
        None => read(when, trail),
    }
}

fn same_beginning(before: &[Record], after: &[Record]) -> Result<(), String> {
    let changed = before.iter().zip(after).any(|(a, b)| a.checksum != b.checksum || a.record_id != b.record_id);
    match changed || after.len() < before.len() {
        true => Err("opening it for writing changed what was there".into()),
        false => Ok(()),
    }
}
