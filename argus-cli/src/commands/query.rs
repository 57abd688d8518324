//! `query` and `tail`.

use std::io::Write;
use std::time::{Duration, SystemTime};

use argus_core::Record;

use super::signals::Stop;
use crate::args::{Args, FilterArgs};
use crate::{Exit, Failure, output, plan};

/// How often `tail -f` looks.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn query(
    args: &Args,
    filter: &FilterArgs,
    limit: usize,
    oldest_first: bool,
    cursor: Option<u64>,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let mut f = plan::filter(filter, SystemTime::now())?.limit(limit);
    if !oldest_first {
        f = f.newest_first();
    }
    if let Some(c) = cursor {
        f = f.after(c);
    }
    let reader = plan::reader(args)?;
    let (mut n, mut last) = (0, None);
    let mut records = reader.query(f)?;
    for r in records.by_ref() {
        let r = r?;
        output::record(out, &r, args.json)?;
        n += 1;
        last = r.seq;
    }
    tell_damaged(records.damaged());
    if let (Some(last), true) = (last, n == limit && !args.json) {
        // Never a silent cut.
        writeln!(out, "... there may be more: --cursor {last}")?;
    }
    Ok(Exit::Ok)
}

pub(crate) fn tail(
    args: &Args,
    filter: &FilterArgs,
    limit: usize,
    follow: bool,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let f = plan::filter(filter, SystemTime::now())?;
    let stop = follow.then(Stop::install).transpose()?;
    let reader = plan::reader(args)?;
    // The end is fixed first, so that a record is neither shown twice nor missed between the two reads.
    let end = reader
        .query(argus_core::Filter::new().newest_first().limit(1))?
        .next()
        .transpose()?
        .and_then(|r| r.seq)
        .unwrap_or(0);
    let mut records = reader.query(f.clone().newest_first().after(end + 1).limit(limit))?;
    let before: Vec<Record> = records.by_ref().collect::<Result<_, _>>()?;
    for r in before.iter().rev() {
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
