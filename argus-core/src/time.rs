//! The two text forms of time in a record. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;

/// Civil time throughout: an instant of `jiff` ends a day before the year 9999 does.
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
/// The first and the last second of the years 0000 to 9999.
const FIRST: i64 = -62_167_219_200;
const LAST: i64 = 253_402_300_799;

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
    in_range(secs, nanos)
}

/// The parts of a time, if a record can have it.
#[inline(always)]
pub(crate) fn in_range(secs: i64, nanos: u32) -> Option<(i64, u32)> {
    (FIRST..=LAST).contains(&secs).then_some((secs, nanos))
}

/// Whole milliseconds since the Unix epoch; 0 before it, and where `split` gives nothing.
pub(crate) fn millis(split: Option<(i64, u32)>) -> u64 {
    split.map_or(0, |(secs, nanos)| u64::try_from(secs * 1000 + i64::from(nanos / 1_000_000)).unwrap_or(0))
}

/// `2026-11-23T12:00:00.000000000Z`, digit by digit: each record and each span has one.
fn text(secs: i64, nanos: u32) -> [u8; 30] {
    let secs = secs.abs_diff(FIRST);
    let (days, second) = ((secs / 86_400) as u32, (secs % 86_400) as u32);
    // Years from March to February, so that a leap day is the last one; counted from -0400-03-01. (Howard Hinnant's `civil_from_days`.)
    let days = days + 146_097 - 60;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next - 400;
    let [y0, y1, y2, y3, m0, m1, d0, d1] = eight(year * 10_000 + month * 100 + day);
    let [_, _, h0, h1, n0, n1, s0, s1] = eight(second / 3600 * 10_000 + second / 60 % 60 * 100 + second % 60);
    let date_and_time = [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':', s0, s1, b'.'];
    let mut out = [b'Z'; 30];
    out[..20].copy_from_slice(&date_and_time);
    out[20..28].copy_from_slice(&eight(nanos / 10));
    out[28] = b'0' + (nanos % 10) as u8;
    out
}

/// The digits of a number below 10^8, all at once in one word: two parts of four, four of two, eight of one.
fn eight(n: u32) -> [u8; 8] {
    let n = u64::from(n);
    let fours = (n / 10_000) | (n % 10_000) << 32;
    let hundreds = ((fours * 5243) >> 19) & 0x0000_007f_0000_007f;
    let twos = hundreds | (fours - hundreds * 100) << 16;
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = tens | (twos - tens * 10) << 8;
    (ones | u64::from_le_bytes([b'0'; 8])).to_le_bytes()
}

/// Appends `2026-11-23T12:00:00.000000000Z`; nothing for a time that `split` does not give, as a forged entry may have one.
pub(crate) fn write_rfc3339(secs: i64, nanos: u32, out: &mut String) {
    if !(FIRST..=LAST).contains(&secs) || nanos >= 1_000_000_000 {
        return;
    }
    out.push_str(str::from_utf8(&text(secs, nanos)).unwrap_or_default());
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
    let mut text = text(split(t).map_or(0, |(secs, _)| secs), 0);
    text[10] = b' ';
    str::from_utf8(&text[..19]).unwrap_or_default().into()
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

    /// Against `jiff`, which had no part in it: each day of the calendar's 400 years, days of 10,000 years, each second of a day, and nanoseconds.
    #[test]
    fn the_digits_are_those_of_a_calendar() {
        let check = |secs: i64, nanos: u32| {
            let civil = EPOCH + jiff::SignedDuration::new(secs, nanos as i32);
            let mut out = String::new();
            write_rfc3339(secs, nanos, &mut out);
            assert_eq!(out, format!("{civil:.9}Z"), "{secs} {nanos}");
        };
        let days = FIRST / 86_400..=LAST / 86_400;
        for day in days.clone().step_by(97).chain(days.take(146_097)).chain([LAST / 86_400]) {
            check(day * 86_400 + day.rem_euclid(86_400), 0);
        }
        (0..86_400).for_each(|second| check(1_795_000_000 / 86_400 * 86_400 + second, 999_999_999));
        (0..1_000_000_000).step_by(99_991).for_each(|nanos| check(-1, nanos));
        for n in (0..100_000_000).step_by(9999).chain([99_999_999]) {
            assert_eq!(str::from_utf8(&eight(n)), Ok(format!("{n:08}").as_str()));
        }
        let mut out = String::new();
        for (secs, nanos) in [(FIRST - 1, 0), (LAST + 1, 0), (i64::MIN, 0), (i64::MAX, 0), (0, 1_000_000_000)] {
            write_rfc3339(secs, nanos, &mut out);
        }
        assert_eq!(out, "", "no time of a record");
        assert_eq!(created_at(UNIX_EPOCH + Duration::from_nanos(1_795_000_000_999_999_999)), "2026-11-18 11:06:40");
        assert_eq!(created_at(UNIX_EPOCH + Duration::from_secs(253_402_300_800)), "1970-01-01 00:00:00");
    }
}
