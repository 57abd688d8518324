//! The two text forms of time in a record. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};

/// Civil time throughout: an instant of `jiff` ends a day before the year 9999 does.
const NANOS: DateTimePrinter = DateTimePrinter::new().precision(Some(9));
const SECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(0)).separator(b' ');
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

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
    (-62_167_219_200..=253_402_300_799).contains(&secs).then_some((secs, nanos))
}

/// Whole milliseconds since the Unix epoch; 0 before it, and where `split` gives nothing.
pub(crate) fn millis(split: Option<(i64, u32)>) -> u64 {
    split.map_or(0, |(secs, nanos)| u64::try_from(secs * 1000 + i64::from(nanos / 1_000_000)).unwrap_or(0))
}

fn civil(secs: i64, nanos: u32) -> Option<DateTime> {
    EPOCH.checked_add(SignedDuration::new(secs, i32::try_from(nanos).ok()?)).ok()
}

/// Appends `2026-11-23T12:00:00.000000000Z`.
pub(crate) fn write_rfc3339(secs: i64, nanos: u32, out: &mut String) {
    // `split` has checked the range, so neither step fails.
    if let Some(t) = civil(secs, nanos) {
        let _ = NANOS.print_datetime(&t, &mut *out);
        out.push('Z');
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

/// Whether `s` has digits where `form` has `0`, any second but a leap second, and the same bytes elsewhere.
fn has_form(s: &str, form: &str) -> bool {
    s.len() == form.len()
        && s.bytes().zip(form.bytes()).all(|(b, f)| if f == b'0' { b.is_ascii_digit() } else { b == f })
        && s.as_bytes().get(17) < Some(&b'6')
}

/// Reads exactly the form of a record's `timestamp`.
pub(crate) fn parse_exact(s: &str) -> Option<SystemTime> {
    if !has_form(s, "0000-00-00T00:00:00.000000000Z") {
        return None;
    }
    let t: DateTime = s.strip_suffix('Z')?.parse().ok()?;
    let since = t.duration_since(EPOCH);
    if since.is_negative() {
        UNIX_EPOCH.checked_sub(since.unsigned_abs())
    } else {
        UNIX_EPOCH.checked_add(since.unsigned_abs())
    }
}

/// Reads any RFC 3339 time.
pub(crate) fn parse_any(s: &str) -> Option<SystemTime> {
    let t: Timestamp = s.parse().ok()?;
    SystemTime::try_from(t).ok().filter(|t| split(*t).is_some())
}

/// `YYYY-MM-DD HH:MM:SS` UTC.
pub(crate) fn created_at(t: SystemTime) -> String {
    let mut out = String::with_capacity(19);
    let t = split(t).and_then(|(secs, _)| civil(secs, 0)).unwrap_or(EPOCH);
    let _ = SECONDS.print_datetime(&t, &mut out);
    out
}

/// Whether `s` has the form of `created_at` and names a real instant.
pub(crate) fn is_created_at(s: &str) -> bool {
    has_form(s, "0000-00-00 00:00:00") && s.parse::<DateTime>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn forms_are_exact() {
        let t = UNIX_EPOCH + Duration::new(1_795_000_000, 120_000_000);
        let s = format_timestamp(t);
        assert_eq!(s, "2026-11-18T11:06:40.120000000Z");
        assert_eq!(parse_exact(&s), Some(t));
        assert_eq!(parse_exact("2026-11-18T11:06:40.12Z"), None);
        assert_eq!(millis(split(t)), 1_795_000_000_120);
        assert_eq!(parse_any("2026-11-18T12:06:40.12+01:00"), Some(t));
        let old = UNIX_EPOCH - Duration::new(1, 1);
        assert_eq!(millis(split(old)), 0);
        assert_eq!(format_timestamp(old), "1969-12-31T23:59:58.999999999Z");
        assert_eq!(parse_exact("1969-12-31T23:59:58.999999999Z"), Some(old));
        for edge in ["0000-01-01T00:00:00.000000000Z", "9999-12-31T23:59:59.999999999Z"] {
            assert_eq!(format_timestamp(parse_exact(edge).unwrap()), edge);
        }
        assert_eq!(format_timestamp(UNIX_EPOCH + Duration::from_secs(253_402_300_800)), "");
        for wrong in
            ["2026-02-29T00:00:00.000000000Z", "2026-11-18T11:06:60.000000000Z", "2026-11-18T24:00:00.000000000Z"]
        {
            assert_eq!(parse_exact(wrong), None, "{wrong}");
        }
        assert!(
            is_created_at(&created_at(t))
                && !is_created_at("2026-13-01 00:00:00")
                && !is_created_at("2026-11-18T11:06:40")
        );
    }
}
