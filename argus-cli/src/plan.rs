//! What the arguments mean: which trail, which filter.

use std::path::Path;
use std::time::SystemTime;

use argus_core::{AuditReader, Filter, Level, Location, locate};

use crate::Failure;
use crate::args::{Args, FilterArgs};

/// The trail that the arguments and the environment name.
pub(crate) fn location(args: &Args) -> Result<Location, Failure> {
    let Some(path) = &args.db else { return Ok(locate(Path::new(""))?) };
    if path.is_dir() {
        return Err(Failure::Other(format!("--db {} is a directory; name the trail's file in it", path.display())));
    }
    // Any other ending leads to the unified database, which nobody asked for here, or to nowhere.
    let mut found = locate(path).ok().filter(|l| !l.redirected).ok_or_else(|| {
        Failure::Usage(format!(
            "--db {}: the ending tells the store; name a .db, .sqlite, .sqlite3 or .jsonl file",
            path.display()
        ))
    })?;
    found.reason = "--db names it".into();
    Ok(found)
}

pub(crate) fn reader(args: &Args) -> Result<AuditReader, Failure> {
    Ok(AuditReader::open(location(args)?.path)?)
}

pub(crate) fn filter(a: &FilterArgs, now: SystemTime) -> Result<Filter, Failure> {
    let mut f = Filter::new();
    let since = a.since.as_ref().map(|t| time("--since", t, now)).transpose()?;
    let until = a.until.as_ref().map(|t| time("--until", t, now)).transpose()?;
    if since.zip(until).is_some_and(|(s, u)| s >= u) {
        return Err(Failure::Usage("--since is not before --until, so no record can match".into()));
    }
    if let Some(t) = since {
        f = f.since(t);
    }
    if let Some(t) = until {
        f = f.until(t);
    }
    if let Some(l) = &a.level {
        f = f.min_level(l.parse::<Level>().map_err(|e| Failure::Usage(format!("--level: {e}")))?);
    }
    if let Some(v) = &a.event {
        f = f.event(v);
    }
    if let Some(v) = &a.component {
        f = f.component(v);
    }
    if let Some(v) = &a.app {
        f = f.app(v);
    }
    match &a.file {
        Some(v) if v.ends_with('*') => f = f.file_prefix(v.trim_end_matches('*')),
        Some(v) => f = f.file(v),
        None => {}
    }
    if let Some(v) = &a.actor {
        f = f.actor(v);
    }
    if let Some(v) = &a.trace {
        if v.len() != 32 || !v.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Failure::Usage(format!("--trace {v}: a trace id is 32 hex digits")));
        }
        f = f.trace(v);
    }
    if let Some(v) = a.pid {
        f = f.pid(v);
    }
    for kv in &a.context {
        let (k, v) = kv
            .split_once('=')
            .filter(|(k, _)| !k.is_empty())
            .ok_or_else(|| Failure::Usage(format!("--context {kv}: write KEY=VALUE, e.g. port=8080")))?;
        f = f.context(k, v);
    }
    Ok(f)
}

/// An age (`1h`, `7d`, `1h 30m`) before `now`, or a time.
fn time(flag: &str, text: &str, now: SystemTime) -> Result<SystemTime, Failure> {
    if let Ok(t) = text.parse::<jiff::Timestamp>() {
        return SystemTime::try_from(t).map_err(|_| Failure::Usage(format!("{flag} {text}: beyond the clock's range")));
    }
    let bad = || {
        Failure::Usage(format!(
            "{flag} {text}: neither an age such as 90s, 15m, 1h, 7d nor an RFC 3339 time such as 2026-11-23T12:00:00Z"
        ))
    };
    let span: jiff::Span = text.parse().map_err(|_| bad())?;
    // A day is 24 hours here: an age has no time zone.
    let age = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| bad())?;
    now.checked_sub(age.unsigned_abs()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ages_and_times_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (text, age) in
            [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("1h 30m", 5400), ("2w", 1_209_600)]
        {
            let want = now.checked_sub(Duration::from_secs(age)).unwrap();
            assert_eq!(time("--since", text, now).unwrap(), want, "{text}");
        }
        assert_eq!(time("--since", "1970-01-01T01:00:00+01:00", now).unwrap(), SystemTime::UNIX_EPOCH);
        for bad in ["", "soon", "12", "yesterday"] {
            assert!(matches!(time("--since", bad, now), Err(Failure::Usage(_))), "{bad}");
        }
    }
}
