//! `system_stats`: the trail says from time to time how its logger is doing, if it is asked to.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Level, MemoryTrail};
use common::{Dir, WAIT, assert_ok, close, records};

#[test]
fn an_idle_logger_says_how_it_is_doing() {
    let dir = Dir::new();
    for path in dir.both() {
        let config = AuditConfig::new(&path).stats_interval(Duration::from_millis(1));
        let logger = AuditLogger::open(config.flush_interval(Duration::from_secs(3600))).unwrap();
        logger.log_durable(AuditEvent::info("one")).unwrap();
        logger.log(AuditEvent::info("")).unwrap_err();
        // `audit_open`, and two that the logger makes with nobody calling.
        let began = Instant::now();
        while logger.health().own < 3 && began.elapsed() < WAIT {
            std::thread::yield_now();
        }
        close(&logger);
        let all = records(&path);
        let said: Vec<_> = all.iter().filter(|r| r.event == "system_stats").collect();
        assert!(said.len() >= 2);
        let last = said[said.len() - 1];
        assert_eq!((last.level, last.component.as_str()), (Level::Info, "argus"));
        let context: serde_json::Value = serde_json::from_str(last.context.as_str()).unwrap();
        let number = |key: &str| context[key].as_u64();
        let account = ["submitted", "committed", "rejected", "lost", "filtered", "queued"].map(number);
        assert_eq!(account, [2, 1, 1, 0, 0, 0].map(Some), "{context}");
        assert_eq!(number("limit_bytes"), Some(64 << 20));
        if cfg!(target_os = "linux") {
            assert!(number("rss_bytes").unwrap() > 1 << 20, "{context}");
        }
        assert_ok(&path);
    }
}

#[test]
fn it_is_off_by_default_and_is_info_like_any_other() {
    for config in [
        AuditConfig::default(),
        AuditConfig::default().stats_interval(Duration::from_millis(1)).stats_interval(Duration::ZERO),
        AuditConfig::default().stats_interval(Duration::from_millis(1)).min_level(Level::Warn),
    ] {
        let trail = MemoryTrail::new();
        let logger = AuditLogger::open_in_memory(config, &trail).unwrap();
        let began = Instant::now();
        // Far more than an interval, with the writer awake all the time.
        while began.elapsed() < Duration::from_millis(20) {
            logger.log_durable(AuditEvent::warn("w")).unwrap();
        }
        close(&logger);
        assert!(!trail.lines().iter().any(|l| l.contains("system_stats")));
    }
}
