//! What happens to a trail's files behind a live logger's back, and files that others planted beside them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use argus_core::{AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, ErrorKind, State};
use common::{Dir, WAIT, assert_ok, close, open, records, sql};

/// A logger that tells of the first trouble of its store.
fn told(path: &std::path::Path) -> (AuditLogger, mpsc::Receiver<ErrorKind>) {
    let (tell, told) = mpsc::channel();
    let config = AuditConfig::new(path).on_error(move |e| {
        if let AuditError::Store(e) = e {
            let _ = tell.send(e.kind());
        }
    });
    (AuditLogger::open(config).unwrap(), told)
}

#[test]
fn a_file_that_is_moved_away_is_noticed_and_nothing_is_lost_when_it_comes_back() {
    let dir = Dir::new();
    for path in dir.both() {
        let (logger, trouble) = told(&path);
        logger.log_durable(AuditEvent::info("before")).unwrap();
        let away = path.with_extension("away");
        fs::rename(&path, &away).unwrap();
        let pending = logger.log_pending(AuditEvent::info("meanwhile")).unwrap();
        assert_eq!(trouble.recv_timeout(WAIT).unwrap(), ErrorKind::Replaced);
        assert!(logger.health().degraded.unwrap().contains("replaced"));
        let receipt = pending.wait(WAIT).unwrap();
        assert_eq!((receipt.state, receipt.seq), (State::Spilled, None), "not committed to a file that nobody finds");
        fs::rename(&away, &path).unwrap();
        logger.flush(WAIT).unwrap();
        close(&logger);
        assert_eq!(logger.health().degraded, None);
        let events: Vec<String> =
            records(&path).into_iter().map(|r| r.event).filter(|e| !e.starts_with("audit_")).collect();
        assert_eq!(events, ["before", "meanwhile"]);
        assert_ok(&path);
    }
}

#[test]
fn another_log_in_its_place_gets_none_of_its_records() {
    let dir = Dir::new();
    for path in dir.both() {
        let other = path.with_file_name(format!("other.{}", path.extension().unwrap().to_str().unwrap()));
        close(&open(&other));
        let (logger, trouble) = told(&path);
        for ending in ["", "-wal", "-shm"] {
            let beside = |p: &std::path::Path| std::path::PathBuf::from(format!("{}{ending}", p.display()));
            let _ = fs::remove_file(beside(&path));
        }
        fs::rename(&other, &path).unwrap();
        logger.log(AuditEvent::info("lost")).unwrap();
        assert_eq!(trouble.recv_timeout(WAIT).unwrap(), ErrorKind::Replaced);
        let report = logger.close(Duration::from_millis(20));
        assert!(matches!(report.error, Some(AuditError::Store(_)) | Some(AuditError::Timeout)), "{report:?}");
        assert!(matches!(logger.close(WAIT).error, Some(AuditError::Store(_))));
        assert!(matches!(logger.flush(WAIT), Err(AuditError::Store(_))), "what was accepted is not committed");
        // Not lost: it waits in the pending file for the log that it belongs to.
        let h = logger.health();
        assert_eq!((h.committed, h.lost, h.queued, h.pending), (0, 0, 0, 1));
        let (tell, told) = mpsc::channel();
        let config = AuditConfig::new(&path).on_error(move |e| drop(tell.send(e.to_string())));
        close(&AuditLogger::open(config).unwrap());
        let said = told.recv_timeout(WAIT).unwrap();
        assert!(said.contains(".orphan"), "{said}");
        assert!(
            fs::read_dir(dir.0.path()).unwrap().any(|e| e.unwrap().path().to_string_lossy().ends_with(".jsonl.orphan"))
        );
        assert!(records(&path).iter().all(|r| r.event != "lost"));
        assert_ok(&path);
    }
}

#[test]
fn a_truncated_jsonl_trail_is_not_written_to() {
    let dir = Dir::new();
    let path = dir.path("t.jsonl");
    let (logger, trouble) = told(&path);
    logger.log_durable(AuditEvent::info("before")).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
    logger.log(AuditEvent::info("meanwhile")).unwrap();
    assert_eq!(trouble.recv_timeout(WAIT).unwrap(), ErrorKind::Replaced);
    fs::write(&path, bytes).unwrap();
    logger.flush(WAIT).unwrap();
    close(&logger);
    assert_ok(&path);
}

#[test]
fn planted_files_beside_the_trail_are_refused() {
    let dir = Dir::new();
    let target = dir.path("target");
    fs::write(&target, "").unwrap();
    for (trail, ending) in [("t.db", "-wal"), ("t.db", "-shm"), ("t.db", "-journal"), ("t.jsonl", ".torn")] {
        close(&open(&dir.path(trail)));
        let planted = dir.path(&format!("{trail}{ending}"));
        let _ = fs::remove_file(&planted);
        std::os::unix::fs::symlink(&target, &planted).unwrap();
        let e = AuditLogger::open(AuditConfig::new(dir.path(trail))).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsafe, "{e}");
        assert!(e.to_string().contains(ending), "{e}");
        fs::remove_file(&planted).unwrap();
    }
    assert_eq!(fs::read(&target).unwrap(), b"");
}

#[test]
fn a_torn_first_line_is_moved_aside_and_told_of() {
    let dir = Dir::new();
    let path = dir.path("t.jsonl");
    close(&open(&path));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..40]).unwrap();
    close(&open(&path));
    let all = records(&path);
    assert_eq!(
        all.iter().map(|r| r.event.as_str()).collect::<Vec<_>>(),
        ["audit_segment", "audit_recovered", "audit_open", "audit_close"]
    );
    assert_eq!(fs::read(dir.path("t.jsonl.torn")).unwrap(), [&whole[..40], b"\n"].concat());
    assert_ok(&path);
    if let Some((code, text)) = argus_testkit::verify_with_python(&path) {
        assert_eq!(code, 0, "{text}");
    }
}

#[test]
fn a_tampered_created_at_does_not_live_on() {
    let dir = Dir::new();
    let path = dir.path("t.db");
    close(&open(&path));
    common::tamper(&path, "UPDATE audit_events SET created_at = 'zzzz' WHERE id = (SELECT max(id) FROM audit_events)");
    close(&open(&path));
    let wrong: i64 =
        sql(&path).query_row("SELECT count(*) FROM audit_events WHERE created_at = 'zzzz'", [], |r| r.get(0)).unwrap();
    assert_eq!(wrong, 1);
}

#[test]
fn a_copy_with_an_empty_wal_is_read() {
    // Left behind by a power cut between the last checkpoint and the removal of the -wal.
    let dir = Dir::new();
    let path = dir.path("t.db");
    close(&open(&path));
    std::fs::write(dir.path("t.db-wal"), "").unwrap();
    assert_ok(&path);
    assert_eq!(records(&path).len(), 2);
}

#[test]
fn zeros_alone_are_nobodys_jsonl_file() {
    // A length that reached the disk before its bytes.
    let dir = Dir::new();
    let path = dir.path("t.jsonl");
    std::fs::write(&path, [0; 700]).unwrap();
    close(&open(&path));
    assert_ok(&path);
    assert_eq!(std::fs::read(dir.path("t.jsonl.torn")).unwrap().len(), 701);
}
