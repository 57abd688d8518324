//! What somebody does to the files of a live SQLite trail that SQLite does not notice: its write-ahead log loses its name, or the database is cut.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditError, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, ErrorKind};
use argus_core::{Filter, State, TrailError};
use common::{Dir, WAIT, assert_ok, close, open, records, sql};

/// A logger that tells of each trouble of its store, and looks after its files soon.
fn told(path: &Path) -> (AuditLogger, mpsc::Receiver<std::sync::Arc<TrailError>>) {
    let (tell, told) = mpsc::channel();
    let config = AuditConfig::new(path).flush_interval(Duration::from_millis(20)).on_error(move |e| {
        if let AuditError::Store(e) = e {
            let _ = tell.send(e.clone());
        }
    });
    (AuditLogger::open(config).unwrap(), told)
}

fn log(path: &Path) -> PathBuf {
    format!("{}-wal", path.display()).into()
}

/// Not in this process: closing a database's file drops SQLite's locks on it.
fn shell(script: &str, path: &Path, other: &Path) {
    let status = std::process::Command::new("sh").args(["-ec", script, "sh"]).args([path, other]).status();
    assert!(status.unwrap().success(), "{script}");
}

/// The records of callers, in order.
fn events(path: &Path) -> Vec<String> {
    records(path).into_iter().map(|r| r.event).filter(|e| !e.starts_with("audit_")).collect()
}

/// What is found by the next open if every process is killed now.
fn after_a_kill(path: &Path) -> Vec<String> {
    let dir = Dir::new();
    // (Segments and a merged pending file go meanwhile.)
    let copy = "cp \"$1\"/trail.db \"$2\"; cp \"$1\"/trail.db?* \"$2\" 2>/dev/null || true; rm -f \"$2\"/*-shm";
    shell(copy, path.parent().unwrap(), dir.0.path());
    let copy = dir.path("trail.db");
    close(&open(&copy));
    assert_ok(&copy);
    events(&copy)
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < WAIT, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nothing_is_acknowledged_in_a_log_that_was_removed() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    // (No look in between: the commit itself notices.)
    let (tell, trouble) = mpsc::channel();
    let config = AuditConfig::new(&path).flush_interval(Duration::from_secs(3600));
    let config = config.on_error(move |e| drop(tell.send(e.to_string())));
    let logger = AuditLogger::open(config).unwrap();
    logger.log_durable(AuditEvent::info("before")).unwrap();
    for n in 1..=2 {
        fs::remove_file(log(&path)).unwrap();
        logger.log_durable(AuditEvent::info("meanwhile")).unwrap();
        logger.flush(WAIT).unwrap();
        assert_eq!(after_a_kill(&path).len(), n + 1);
        let said: String = trouble.try_iter().collect();
        assert!(said.contains("what stood in it is saved"), "{said}");
    }
    logger.log_durable(AuditEvent::info("after")).unwrap();
    assert_eq!(after_a_kill(&path).last().unwrap(), "after");
    assert_eq!(logger.health().degraded, None);
    close(&logger);
    assert_eq!(events(&path), ["before", "meanwhile", "meanwhile", "after"]);
    assert_ok(&path);
}

#[test]
fn a_logger_with_nothing_to_say_saves_what_stands_in_a_removed_log() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let (logger, trouble) = told(&path);
    logger.log_durable(AuditEvent::info("before")).unwrap();
    fs::remove_file(log(&path)).unwrap();
    assert_eq!(trouble.recv_timeout(WAIT).unwrap().kind(), ErrorKind::Replaced);
    until("it goes on", || logger.health().is_ok());
    assert_eq!(after_a_kill(&path), ["before"]);
    close(&logger);
    assert_ok(&path);
}

#[test]
fn a_removed_log_that_is_closed_at_once_is_saved() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let logger = open(&path);
    logger.log_durable(AuditEvent::info("before")).unwrap();
    fs::remove_file(log(&path)).unwrap();
    close(&logger);
    assert_eq!(events(&path), ["before"]);
    assert_ok(&path);
}

#[test]
fn no_log_is_begun_while_another_program_uses_the_removed_one() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let (logger, trouble) = told(&path);
    logger.log_durable(AuditEvent::info("before")).unwrap();
    let other = sql(&path);
    other.query_row("SELECT count(*) FROM audit_events", [], |_| Ok(())).unwrap();
    fs::remove_file(log(&path)).unwrap();
    let receipt = logger.log_durable(AuditEvent::info("meanwhile")).unwrap();
    assert_eq!(receipt.state, State::Spilled);
    assert_eq!(trouble.recv_timeout(WAIT).unwrap().kind(), ErrorKind::Replaced);
    until("it says what to do", || logger.health().degraded.is_some_and(|d| d.contains("end the other programs")));
    assert!(!log(&path).exists());
    // What was committed is saved all the same; and nobody reads, or begins, what is not there.
    assert_eq!(after_a_kill(&path), ["before", "meanwhile"]);
    let e = AuditReader::open(&path).and_then(|r| r.query(Filter::new()).map(drop)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Busy, "{e}");
    drop(other);
    logger.flush(WAIT).unwrap();
    assert!(after_a_kill(&path).len() == 2 && logger.health().is_ok());
    close(&logger);
    assert_eq!(events(&path), ["before", "meanwhile"]);
    assert_ok(&path);
}

#[test]
fn a_reader_that_keeps_a_removed_log_from_being_saved_is_told_of() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let (logger, _trouble) = told(&path);
    let reader = sql(&path);
    reader.execute_batch("BEGIN; SELECT count(*) FROM audit_events;").unwrap();
    logger.log_durable(AuditEvent::info("before")).unwrap();
    fs::remove_file(log(&path)).unwrap();
    logger.log_durable(AuditEvent::info("meanwhile")).unwrap();
    until("it is told", || logger.health().degraded.is_some_and(|d| d.contains("end the reader")));
    drop(reader);
    logger.flush(WAIT).unwrap();
    assert_eq!(after_a_kill(&path), ["before", "meanwhile"]);
    close(&logger);
    assert_ok(&path);
}

#[test]
fn loggers_that_share_a_removed_log_leave_it_and_meet_in_a_new_one() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let loggers = [told(&path), told(&path), told(&path)];
    let say = |event: &str| {
        for (logger, _) in &loggers {
            logger.log_durable(AuditEvent::info(event)).unwrap();
        }
    };
    say("before");
    fs::remove_file(log(&path)).unwrap();
    say("meanwhile");
    loggers.iter().for_each(|l| l.0.flush(WAIT).unwrap());
    say("after");
    loggers.iter().for_each(|l| l.0.flush(WAIT).unwrap());
    assert_eq!(after_a_kill(&path).len(), 9);
    loggers.iter().for_each(|l| close(&l.0));
    assert_eq!(events(&path).len(), 9);
    assert_ok(&path);
}

#[test]
fn from_a_log_that_another_one_replaced_nothing_is_copied() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let (logger, trouble) = told(&path);
    sql(&path).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    logger.log_durable(AuditEvent::info("lost")).unwrap();
    let other = dir.path("other");
    fs::write(&other, [7; 5000]).unwrap();
    fs::rename(&other, log(&path)).unwrap();
    logger.log_durable(AuditEvent::info("kept")).unwrap();
    let e = trouble.recv_timeout(WAIT).unwrap();
    assert!(e.kind() == ErrorKind::Replaced && e.to_string().contains("may be lost"), "{e}");
    logger.flush(WAIT).unwrap();
    close(&logger);
    assert_eq!(events(&path), ["kept"]);
    // Not silent afterwards, either.
    assert!(!common::findings(&path).is_empty());
}

#[test]
fn a_database_that_was_cut_is_noticed_and_goes_on_when_its_bytes_are_back() {
    for cut in ["10", "8192", "0"] {
        let dir = Dir::new();
        let path = dir.path("trail.db");
        let whole = dir.path("whole");
        let (logger, trouble) = told(&path);
        logger.log_durable(AuditEvent::info("before")).unwrap();
        sql(&path).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        logger.log_durable(AuditEvent::info("before")).unwrap();
        shell(&format!("cp \"$1\" \"$2\" && truncate -s {cut} \"$1\""), &path, &whole);
        let receipt = logger.log_durable(AuditEvent::info("meanwhile")).unwrap();
        assert_eq!(receipt.state, State::Spilled, "{cut}");
        assert_eq!(trouble.recv_timeout(WAIT).unwrap().kind(), ErrorKind::Damaged, "{cut}");
        assert!(logger.health().degraded.unwrap().contains("was cut"), "{cut}");
        shell("dd if=\"$2\" of=\"$1\" conv=notrunc status=none", &path, &whole);
        logger.flush(WAIT).unwrap();
        assert!(logger.health().is_ok());
        close(&logger);
        assert_eq!(events(&path), ["before", "before", "meanwhile"], "{cut}");
        assert_ok(&path);
    }
}

#[test]
fn a_vacuum_of_another_program_is_no_cut() {
    let dir = Dir::new();
    let path = dir.path("trail.db");
    let (logger, trouble) = told(&path);
    let other = sql(&path);
    let shorten = |reads: bool| {
        other.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(1000000)); DROP TABLE t").unwrap();
        other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        logger.log_durable(AuditEvent::info("long")).unwrap();
        let long = fs::metadata(&path).unwrap().len();
        other.execute_batch("VACUUM").unwrap();
        other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        if reads {
            // And it grew again, in the log.
            let text = "x".repeat(50_000);
            other
                .execute(
                    "INSERT INTO foreign_events (timestamp, level, event, component, context) VALUES ('', 'INFO', 'e', 'c', ?1)",
                    [&text],
                )
                .unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() < long);
        logger.log_durable(AuditEvent::info("short")).unwrap();
    };
    shorten(false);
    shorten(true);
    logger.flush(WAIT).unwrap();
    assert!(trouble.try_recv().is_err() && logger.health().is_ok());
    close(&logger);
    assert_ok(&path);
}
