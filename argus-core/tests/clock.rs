//! A clock that steps back: `timestamp` says what the clock said, `created_at` never goes back, and order is that of acceptance.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSinkExt, ManualClock};
use common::{Dir, assert_ok, close, records};

#[test]
fn created_at_never_goes_back_within_a_logger_nor_over_an_opening() {
    let dir = Dir::new();
    let noon = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let hour = Duration::from_secs(3600);
    for path in dir.both() {
        let clock = Arc::new(ManualClock::new(noon));
        for (n, times) in
            [[noon, noon - hour, noon + hour], [noon - 5 * hour, noon, noon + 2 * hour]].iter().enumerate()
        {
            clock.set(times[0]);
            let logger = AuditLogger::open(AuditConfig::new(&path).clock(clock.clone())).unwrap();
            for time in times {
                clock.set(*time);
                logger.log_durable(AuditEvent::info("e").with("n", n)).unwrap();
            }
            close(&logger);
        }
        let all = records(&path);
        let created: Vec<_> = all.iter().map(|r| r.created_at.clone().unwrap()).collect();
        assert!(created.is_sorted(), "{created:?}");
        let told: Vec<_> = all.iter().filter(|r| r.event == "e").map(|r| r.timestamp).collect();
        let expected = [noon, noon - hour, noon + hour, noon - 5 * hour, noon, noon + 2 * hour];
        assert_eq!(told, expected, "in the order of acceptance, as the clock said");
        let mut last = all.iter().rev().filter(|r| r.event == "e");
        assert!(last.next().unwrap().created_at > last.next().unwrap().created_at, "and goes on with the clock");
        assert_ok(&path);
    }
}
