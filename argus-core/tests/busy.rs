//! Another program that locks our database.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::mpsc;
use std::time::Duration;

use argus_core::{AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, ErrorKind};
use common::{Dir, WAIT, assert_ok, close, records, sql};

#[test]
fn a_program_that_locks_the_database_delays_and_loses_nothing() {
    let dir = Dir::new();
    let path = dir.path("t.db");
    let logger = common::open(&path);
    let locker = sql(&path);
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    for n in 0..100 {
        logger.log(AuditEvent::info("while_locked").with("n", n)).unwrap();
    }
    assert_eq!(logger.flush(Duration::from_millis(100)), Err(AuditError::Timeout));
    assert_eq!(logger.health().queued, 100);
    locker.execute_batch("ROLLBACK").unwrap();
    logger.flush(WAIT).unwrap();
    assert!(logger.health().is_ok());
    close(&logger);
    assert_eq!(records(&path).iter().filter(|r| r.event == "while_locked").count(), 100);
    assert_ok(&path);
}

/// Longer than SQLite's own wait (10 s): the store fails, says so, and goes on by itself. `ARGUS_LONG_LOCK=30` is the whole case.
#[test]
fn a_lock_that_outlasts_the_wait_is_a_failing_store() {
    let Some(seconds) = std::env::var("ARGUS_LONG_LOCK").ok().and_then(|s| s.parse().ok()) else {
        println!("SKIPPED: ARGUS_LONG_LOCK gives no seconds");
        return;
    };
    let dir = Dir::new();
    let path = dir.path("t.db");
    let (tell, told) = mpsc::channel();
    let logger = AuditLogger::open(AuditConfig::new(&path).on_error(move |e| drop(tell.send(e.clone())))).unwrap();
    let locker = sql(&path);
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    logger.log(AuditEvent::info("while_locked")).unwrap();
    match told.recv_timeout(Duration::from_secs(seconds)).unwrap() {
        AuditError::Store(e) => assert_eq!(e.kind(), ErrorKind::Busy),
        other => panic!("{other}"),
    }
    assert!(!logger.health().is_ok());
    std::thread::sleep(Duration::from_secs(seconds));
    let health = logger.health();
    assert_eq!((health.queued, health.pending, health.lost), (0, 1, 0), "the pending file has it: {health:?}");
    locker.execute_batch("ROLLBACK").unwrap();
    logger.flush(WAIT).unwrap();
    assert!(logger.health().is_ok());
    close(&logger);
    let count = |event| records(&path).iter().filter(|r| r.event == event).count();
    assert_eq!((count("while_locked"), count("audit_fallback")), (1, 1));
    assert_ok(&path);
}

/// A reader that does not end, and 300 MiB of records: SQLite's write-ahead log stops at its bound, the rest waits in the pending file. `ARGUS_STUCK_READER=1`; the
/// normal tests have it small (`a_log_at_its_bound_is_not_added_to_until_the_reader_ends`).
#[test]
fn a_reader_that_does_not_end_bounds_the_log() {
    if std::env::var_os("ARGUS_STUCK_READER").is_none() {
        println!("SKIPPED: ARGUS_STUCK_READER is not set");
        return;
    }
    let dir = Dir::new();
    let path = dir.path("t.db");
    let logger = common::open(&path);
    let reader = sql(&path);
    reader.execute_batch("BEGIN; SELECT count(*) FROM audit_events;").unwrap();
    let text = "x".repeat(100 << 10);
    for _ in 0..3_000 {
        logger.log(AuditEvent::info("large").with("text", text.as_str())).unwrap();
    }
    let end = std::time::Instant::now() + 3 * WAIT;
    while logger.health().queued > 0 {
        assert!(std::time::Instant::now() < end, "{:?}", logger.health());
        std::thread::sleep(Duration::from_millis(10));
    }
    let health = logger.health();
    let wal = std::fs::metadata(dir.path("t.db-wal")).unwrap().len();
    println!("{} committed, {} pending, a log of {} MiB", health.committed, health.pending, wal >> 20);
    assert!(health.pending > 0 && health.lost == 0 && health.degraded.is_some(), "{health:?}");
    assert!(wal > 256 << 20 && wal < 264 << 20, "{wal}");
    drop(reader);
    logger.flush(3 * WAIT).unwrap();
    assert!(std::fs::metadata(dir.path("t.db-wal")).unwrap().len() < 64 << 20);
    close(&logger);
    assert_eq!(records(&path).iter().filter(|r| r.event == "large").count(), 3_000);
    assert_ok(&path);
}
