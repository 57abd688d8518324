//! The two text forms of time in a record. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

const RFC3339_9: DateTimePrinter = DateTimePrinter::new().precision(Some(9));

/// Whole seconds since the Unix epoch, rounded down, and the nanoseconds beyond; `None` outside the years 0000 to 9999.
pub(crate) fn split(t: SystemTime) -> Option<(i64, u32)> {
    let (secs, nanos) = match t.duration_since(UNIX_EPOCH) {
        Ok(d) => (i64::try_from(d.as_secs()).ok()?, d.subsec_nanos()),
        Err(e) => {
            let d = e.duration();
            let secs = i64::try_from(d.as_secs()).ok()?;
            if d.subsec_nanos() == 0 { (-secs, 0) } else { (-secs - 1, 1_000_000_000 - d.subsec_nanos()) }
        }
    };
    // 0000-01-01 to the last second that jiff knows, 9999-12-30T22:00:00.
    (-62_167_219_200..=253_402_207_199).contains(&secs).then_some((secs, nanos))
}

/// Appends `2026-11-23T12:00:00.000000000Z`.
pub(crate) fn write_rfc3339(secs: i64, nanos: u32, out: &mut String) {
    // `split` has checked the range, so neither step fails.
    if let Ok(t) = Timestamp::new(secs, i32::try_from(nanos).unwrap_or(0)) {
        let _ = RFC3339_9.print_timestamp(&t, out);
    }
}

/// `t` in the form of a record's `timestamp`; empty outside the years 0000 to 9999.
pub fn format_timestamp(t: SystemTime) -> String {
    let mut out = String::with_capacity(30);
    if let Some((secs, nanos)) = split(t) {
        write_rfc3339(secs, nanos, &mut out);
    }
    out
}

/// Reads exactly the form of a record's `timestamp`.
pub(crate) fn parse_exact(s: &str) -> Option<SystemTime> {
    let t = parse_any(s)?;
    (format_timestamp(t) == s).then_some(t)
}

/// Reads any RFC 3339 time.
pub(crate) fn parse_any(s: &str) -> Option<SystemTime> {
    let t: Timestamp = s.parse().ok()?;
    SystemTime::try_from(t).ok().filter(|t| split(*t).is_some())
}

/// `YYYY-MM-DD HH:MM:SS` UTC.
pub(crate) fn created_at(t: SystemTime) -> String {
    match split(t).and_then(|(secs, _)| Timestamp::from_second(secs).ok()) {
        Some(t) => t.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        None => "1970-01-01 00:00:00".into(),
    }
}

/// Whether `s` has the form of `created_at` and names a real instant.
pub(crate) fn is_created_at(s: &str) -> bool {
    s.len() == 19
        && s.as_bytes().get(10) == Some(&b' ')
        && format!("{}Z", s.replacen(' ', "T", 1))
            .parse::<Timestamp>()
            .is_ok_and(|t| created_at(UNIX_EPOCH + Duration::from_secs(u64::try_from(t.as_second()).unwrap_or(0))) == s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_exact() {
        let t = UNIX_EPOCH + Duration::new(1_795_000_000, 120_000_000);
        let s = format_timestamp(t);
        assert_eq!(s, "2026-11-18T11:06:40.120000000Z");
        assert_eq!(parse_exact(&s), Some(t));
        assert_eq!(parse_exact("2026-11-18T11:06:40.12Z"), None);
        assert_eq!(parse_any("2026-11-18T12:06:40.12+01:00"), Some(t));
        let old = UNIX_EPOCH - Duration::new(1, 1);
        assert_eq!(format_timestamp(old), "1969-12-31T23:59:58.999999999Z");
        assert_eq!(parse_exact("1969-12-31T23:59:58.999999999Z"), Some(old));
        assert!(
            is_created_at(&created_at(t))
                && !is_created_at("2026-13-01 00:00:00")
                && !is_created_at("2026-11-18T11:06:40")
        );
    }
}
