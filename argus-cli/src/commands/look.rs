//! `show`, `verify`, `stats`.

use std::io::{self, ErrorKind, Write};

use argus_core::{Filter, RecordId, VerifyReport};
use serde_json::json;

use super::query;
use crate::args::Args;
use crate::{Exit, Failure, output, plan};

pub(crate) fn show(args: &Args, record: &str, out: &mut dyn Write) -> Result<Exit, Failure> {
    let (seq, id) = (record.parse::<u64>().ok(), record.parse::<RecordId>().ok());
    if seq.is_none() && id.is_none() {
        return Err(Failure::Usage(format!(
            "`{record}` is neither a position such as 42 nor a record id (a UUID, as `argus query --json` prints)"
        )));
    }
    let reader = plan::reader(args)?;
    let found = match (seq, id) {
        (Some(seq), _) => reader.by_seq(seq)?,
        (_, Some(id)) => reader.by_id(id)?,
        _ => None,
    };
    match found {
        Some(r) if args.json => output::record(out, &r, true)?,
        Some(r) => output::whole(out, &r)?,
        None => {
            let newest = reader.query(Filter::new().newest_first().limit(1))?.next().transpose()?.and_then(|r| r.seq);
            // Positions have no holes: one that is not there was removed, or is no record any more.
            let inside = seq.zip(newest).is_some_and(|(s, n)| s > 0 && s < n);
            let hint = if inside { "; there should be one, so run `argus verify`" } else { "" };
            output::complain(&format!("no record {record} in {}{hint}", reader.path().display()));
            return Ok(Exit::Tampered);
        }
    }
    Ok(Exit::Ok)
}

pub(crate) fn verify(args: &Args, out: &mut dyn Write) -> Result<Exit, Failure> {
    let report = plan::reader(args)?.verify()?;
    let exit = if report.is_ok() { Exit::Ok } else { Exit::Tampered };
    match print(&report, args.json, out).and_then(|()| out.flush()) {
        // The verdict is the exit code, whether or not somebody reads the words.
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(exit),
    }
}

fn print(report: &VerifyReport, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        let findings: Vec<_> = report
            .findings
            .iter()
            .map(|f| json!({"seq": f.seq.as_ref().map(|r| [r.start(), r.end()]), "code": f.code.as_str(), "record_id": f.record_id, "detail": f.detail}))
            .collect();
        let value = json!({
            "verdict": if report.is_ok() { "ok" } else { "tampered" }, "records": report.records, "seq": report.seq.map(|(a, b)| [a, b]), "head": report.head,
            "time": report.time.as_ref().map(|(a, b)| [a, b]), "assurance": report.assurance.as_str(), "findings": findings,
            "findings_total": report.findings_total, "unclosed_writers": report.unclosed_writers, "foreign_waiting": report.foreign_waiting,
            "unfinished_tail": report.unfinished_tail, "pending": report.pending, "pending_unreadable": report.pending_unreadable,
        });
        writeln!(out, "{value}")?;
    } else {
        // A finding may quote what a tamperer wrote: cleaned apart, so that none makes a line of its own.
        let mut report = report.clone();
        for f in &mut report.findings {
            f.detail = output::clean(&f.detail);
            f.record_id = f.record_id.as_deref().map(output::clean);
        }
        for line in report.to_string().lines() {
            writeln!(out, "{}", output::clean(line))?;
        }
    }
    Ok(())
}

pub(crate) fn stats(args: &Args, out: &mut dyn Write) -> Result<Exit, Failure> {
    let reader = plan::reader(args)?;
    let waiting = reader.pending()?;
    let s = reader.stats()?;
    if args.json {
        let value = json!({
            "records": s.records, "by_level": s.by_level, "by_event": s.by_event, "by_component": s.by_component, "writers": s.writers, "oldest": s.oldest,
            "newest": s.newest, "damaged": s.damaged, "pending": waiting.total(), "pending_unreadable": waiting.unreadable().len(),
        });
        writeln!(out, "{value}")?;
        return Ok(Exit::Ok);
    }
    writeln!(out, "{} records of {} writers", s.records, s.writers)?;
    if let (Some(a), Some(b)) = (&s.oldest, &s.newest) {
        // Nothing has checked these texts.
        writeln!(out, "{} to {}", output::clean(a), output::clean(b))?;
    }
    writeln!(out, "{} pending: accepted, not committed yet", waiting.total())?;
    query::tell_unreadable(&waiting);
    if s.damaged > 0 {
        writeln!(out, "{} rows are no records: run `argus verify`", s.damaged)?;
    }
    for (title, map) in [("level", &s.by_level), ("event", &s.by_event), ("component", &s.by_component)] {
        writeln!(out, "\nby {title}")?;
        let mut rows: Vec<_> = map.iter().collect();
        rows.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        for (name, n) in rows {
            writeln!(out, "{n:>10}  {}", output::clean(name))?;
        }
    }
    Ok(Exit::Ok)
}
