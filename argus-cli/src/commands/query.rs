//! `query` and `tail`.

use std::io::Write;
use std::time::{Duration, SystemTime};

use argus_core::{AuditReader, Filter, PendingRecords, Record};

use super::signals::Stop;
use crate::args::{Args, FilterArgs};
use crate::{Exit, Failure, output, plan};

/// How often `tail -f` looks.
const LOOK: Duration = Duration::from_millis(200);

/// Which records of the trail, and in which order.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    pub(crate) oldest_first: bool,
    pub(crate) cursor: Option<u64>,
}

pub(crate) fn query(
    args: &Args,
    filter: &FilterArgs,
    limit: usize,
    Order { oldest_first, cursor }: Order,
    pending: bool,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let mut f = plan::filter(filter, SystemTime::now())?.limit(limit);
    if !oldest_first {
        f = f.newest_first();
    }
    let reader = plan::reader(args)?;
    // Before the committed ones are read: each record is one or the other.
    let mut pending = if pending && (oldest_first || cursor.is_none()) { Some(waiting(&reader, &f)?) } else { None };
    let end = pending.as_ref().filter(|p| p.total() > 0).map(PendingRecords::committed);
    let mut n = 0;
    // Where the next page of committed records goes on.
    let mut last = cursor;
    if let Some(pending) = pending.as_mut().filter(|_| !oldest_first) {
        n += print(pending, limit, args.json, out)?;
        last = end.map(|e| e + 1).or(last);
    }
    if let Some(after) = last {
        f = f.after(after);
    }
    let mut records = reader.query(f)?;
    let most = end.filter(|_| oldest_first);
    while n < limit {
        let Some(r) = records.next().transpose()? else { break };
        if most.is_some_and(|end| r.seq > Some(end)) {
            break;
        }
        output::record(out, &r, args.json)?;
        n += 1;
        last = r.seq;
    }
    tell_damaged(records.damaged());
    if let (Some(last), true) = (last, n == limit && n > 0 && !args.json) {
        // Never a silent cut.
        writeln!(out, "... there may be more: --cursor {last}")?;
    }
    if let Some(pending) = pending.as_mut().filter(|_| oldest_first) {
        print(pending, limit - n, args.json, out)?;
    }
    Ok(Exit::Ok)
}

/// The pending records that meet the filter; what of them cannot be read is told.
fn waiting(reader: &AuditReader, f: &Filter) -> Result<PendingRecords, Failure> {
    let pending = reader.pending()?;
    tell_unreadable(&pending);
    Ok(pending.matching(f.clone()))
}

pub(super) fn tell_unreadable(pending: &PendingRecords) {
    for u in pending.unreadable() {
        output::complain(&format!("pending records may be missing: {}", u.error));
    }
}

/// How many there were.
fn print(pending: &mut PendingRecords, limit: usize, json: bool, out: &mut dyn Write) -> Result<usize, Failure> {
    let mut n = 0;
    for r in pending.take(limit) {
        output::record(out, &r?, json)?;
        n += 1;
    }
    Ok(n)
}

pub(crate) fn tail(
    args: &Args,
    filter: &FilterArgs,
    limit: usize,
    follow: bool,
    pending: bool,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let f = plan::filter(filter, SystemTime::now())?;
    let stop = follow.then(Stop::install).transpose()?;
    let reader = plan::reader(args)?;
    let newest = f.clone().newest_first();
    // The end is fixed first, so that a record is neither shown twice nor missed between the two reads.
    let (end, waiting) = if pending && !follow {
        let pending = waiting(&reader, &newest.clone().limit(limit))?;
        (pending.committed(), pending.collect::<Result<Vec<Record>, _>>()?)
    } else {
        let last = reader.query(Filter::new().newest_first().limit(1))?.next().transpose()?;
        (last.and_then(|r| r.seq).unwrap_or(0), Vec::new())
    };
    let mut records = reader.query(newest.after(end + 1).limit(limit - waiting.len()))?;
    let before: Vec<Record> = records.by_ref().collect::<Result<_, _>>()?;
    for r in before.iter().rev().chain(waiting.iter().rev()) {
        output::record(out, r, args.json)?;
    }
    tell_damaged(records.damaged());
    out.flush()?;
    let Some(stop) = stop else { return Ok(Exit::Ok) };
    let mut tail = reader.tail(f.after(end));
    let mut told = 0;
    loop {
        // A poll gives a bounded batch; nothing left is told by an empty one.
        loop {
            let batch = tail.poll()?;
            for r in &batch {
                output::record(out, r, args.json)?;
            }
            if batch.is_empty() {
                break;
            }
        }
        out.flush()?;
        tell_damaged(tail.damaged() - told);
        told = tail.damaged();
        if stop.wait(LOOK) {
            return Ok(Exit::Ok);
        }
    }
}

/// Rows that are no records are passed over, and never in silence.
fn tell_damaged(n: u64) {
    if n > 0 {
        output::complain(&format!(
            "{n} row{} passed over that {} no record: run `argus verify`",
            plural(n),
            if n == 1 { "is" } else { "are" }
        ));
    }
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}
