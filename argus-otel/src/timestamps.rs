//! The text of event times. Records come in the order of time, many in a second: what is before the fraction is made once a second.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use argus_core::format_timestamp;

/// Where the fraction stands in `2026-11-18T11:06:40.123456789Z`.
const FRACTION: std::ops::Range<usize> = 20..29;

/// As [`format_timestamp`], which a span would spend a fifth of its time in.
#[derive(Default)]
pub(crate) struct Timestamps(Mutex<(u64, String)>);

impl Timestamps {
    pub(crate) fn text(&self, t: SystemTime) -> String {
        let Ok(since) = t.duration_since(UNIX_EPOCH) else { return format_timestamp(t) };
        let mut last = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if last.0 != since.as_secs() || last.1.is_empty() {
            *last = (since.as_secs(), format_timestamp(t));
            return last.1.clone();
        }
        let mut text = last.1.clone().into_bytes();
        let mut left = since.subsec_nanos();
        for digit in text.get_mut(FRACTION).into_iter().flatten().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        String::from_utf8(text).unwrap_or_else(|_| format_timestamp(t))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_text_is_that_of_the_record() {
        let timestamps = Timestamps::default();
        let at = |secs, nanos| UNIX_EPOCH + Duration::new(secs, nanos);
        let times = [
            at(0, 0),
            at(0, 1),
            at(1_795_000_000, 999_999_999),
            at(1_795_000_000, 0),
            at(1_795_000_000, 1_234_567),
            at(1_795_000_001, 1_234_567),
            at(1_795_000_000, 120_000_000),
            UNIX_EPOCH - Duration::from_nanos(1),
            at(253_402_300_799, 5),
            // Beyond what a record can have.
            at(253_402_300_800, 5),
            at(253_402_300_800, 6),
            at(253_402_300_799, 6),
        ];
        for t in times {
            assert_eq!(timestamps.text(t), format_timestamp(t), "{t:?}");
        }
    }
}
