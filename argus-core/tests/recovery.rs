//! What a journal holds when its logger could not commit it, and what recovery does with journals that are torn, newer, planted, or of nobody.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, ErrorKind, Faults, QueueKind,
};
use common::{Dir, WAIT, assert_ok, close, open, records};

/// Bytes before the first entry of a segment: `docs/record-format.md`, section 8.
const HEADER: usize = 8192;

/// Logs `n` records that cannot be committed, since the trail is moved away, and closes. `None` where there is no journal.
fn strand(path: &Path, n: u64) -> Option<Vec<PathBuf>> {
    // Nor can they go to a pending file.
    let faults = Faults::new();
    faults.spill(ErrorKind::DiskFull);
    let logger = AuditLogger::open(AuditConfig::new(path).service("tests", "1").faults(&faults)).unwrap();
    if logger.health().queue == QueueKind::Memory {
        println!("SKIPPED: no journal on this file system");
        return None;
    }
    logger.flush(WAIT).unwrap();
    let away = path.with_extension("away");
    fs::rename(path, &away).unwrap();
    for i in 0..n {
        logger.log(AuditEvent::info("stranded").with("n", i)).unwrap();
    }
    let report = logger.close(Duration::from_millis(1));
    let report = if report.error == Some(AuditError::Timeout) { logger.close(WAIT) } else { report };
    assert!(matches!(report.error, Some(AuditError::Store(_))), "{report:?}");
    assert_eq!((report.left, logger.health().lost, logger.health().queued), (n, 0, n));
    fs::rename(&away, path).unwrap();
    Some(files(path, ".journal"))
}

fn files(path: &Path, ending: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().path());
    let mut all: Vec<PathBuf> = all
        .filter(|p| p.to_string_lossy().ends_with(ending) && p.to_string_lossy().starts_with(&*path.to_string_lossy()))
        .collect();
    all.sort();
    all
}

/// The first segment in use.
fn first_segment(files: &[PathBuf]) -> PathBuf {
    files.iter().find(|f| fs::read(f).unwrap()[16..24] == 1u64.to_le_bytes()).unwrap().clone()
}

fn stranded(path: &Path) -> Vec<u64> {
    let all = records(path);
    all.iter().filter(|r| r.event == "stranded").map(|r| r.context_value("n").unwrap().as_u64().unwrap()).collect()
}

/// Opens the trail, closes it again, and gives what it was told meanwhile.
fn reopen(path: &Path) -> Vec<String> {
    let (tell, told) = mpsc::channel();
    let config = AuditConfig::new(path).on_error(move |e| drop(tell.send(e.to_string())));
    close(&AuditLogger::open(config).unwrap());
    told.try_iter().collect()
}

#[test]
fn what_could_not_be_committed_before_close_is_committed_by_the_next_open() {
    let dir = Dir::new();
    for path in dir.both() {
        // More than one transaction of recovery, and more than one segment.
        let Some(journal) = strand(&path, 30_000) else { return };
        assert!(journal.len() > 1, "{journal:?}");
        assert!(stranded(&path).is_empty());
        assert_eq!(reopen(&path), Vec::<String>::new());
        assert!(stranded(&path).into_iter().eq(0..30_000));
        assert_ok(&path);
        let recovered = records(&path).into_iter().find(|r| r.event == "audit_recovered").unwrap();
        assert_eq!(recovered.context_value("count").unwrap(), 30_000);
        assert_eq!(recovered.context_value("last").unwrap(), 30_001);
        assert!(files(&path, ".journal").is_empty() && files(&path, ".lock").is_empty());
    }
}

#[test]
fn recovery_stops_where_a_journal_does_not_check_and_keeps_the_evidence() {
    let dir = Dir::new();
    for path in dir.both() {
        let Some(journal) = strand(&path, 100) else { return };
        let segment = first_segment(&journal);
        let mut bytes = fs::read(&segment).unwrap();
        let mut at = HEADER;
        for _ in 0..60 {
            at += u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        }
        bytes[at + 130] ^= 1;
        fs::write(&segment, bytes).unwrap();
        let told = reopen(&path);
        assert!(told.iter().any(|t| t.contains(".torn") && t.contains("does not check")), "{told:?}");
        assert!(stranded(&path).into_iter().eq(0..60));
        assert_ok(&path);
        let recovered = records(&path).into_iter().find(|r| r.event == "audit_recovered").unwrap();
        let torn = recovered.context_value("journal_torn").unwrap();
        assert!(Path::new(torn.as_str().unwrap()).exists());
        assert_eq!(reopen(&path), Vec::<String>::new(), "once");
        assert_eq!(files(&path, ".torn").len(), 1);
        if let Some((code, text)) = argus_testkit::verify_with_python(&path) {
            assert_eq!(code, 0, "{text}");
        }
    }
}

#[test]
fn secrets_of_a_known_shape_are_withheld_from_what_is_recovered() {
    let dir = Dir::new();
    for path in dir.both() {
        let secret = format!("{}{}", "AKIA", "IOSFODNN7EXAMPLE");
        let logger = open(&path);
        logger.flush(WAIT).unwrap();
        let away = path.with_extension("away");
        fs::rename(&path, &away).unwrap();
        logger.log(AuditEvent::info("stranded").with("n", 0).with("note", secret.as_str())).unwrap();
        logger.close(Duration::from_millis(1));
        logger.close(WAIT);
        fs::rename(&away, &path).unwrap();
        // A reader shows it before anybody recovers it, without the secret.
        let pending = argus_core::AuditReader::open(&path).unwrap().pending().unwrap();
        for r in pending {
            assert!(!r.unwrap().to_jsonl().contains(&secret));
        }
        reopen(&path);
        if logger.health().queue == QueueKind::Journal {
            assert_eq!(stranded(&path), [0]);
        }
        for file in fs::read_dir(dir.0.path()).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()));
        }
        assert_ok(&path);
    }
}

#[test]
fn a_newer_journal_waits_for_a_newer_argus() {
    let dir = Dir::new();
    for path in dir.both() {
        let Some(journal) = strand(&path, 5) else { return };
        let segment = first_segment(&journal);
        let right = fs::read(&segment).unwrap();
        let mut newer = right.clone();
        newer[8] += 1;
        fs::write(&segment, &newer).unwrap();
        let told = reopen(&path);
        let version = format!("version {}", newer[8]);
        assert!(told.iter().any(|t| t.contains(&version) && t.contains(&*segment.to_string_lossy())), "{told:?}");
        assert!(stranded(&path).is_empty() && fs::read(&segment).unwrap() == newer);
        assert_ok(&path);
        fs::write(&segment, right).unwrap();
        assert_eq!(reopen(&path), Vec::<String>::new());
        assert_eq!(stranded(&path), [0, 1, 2, 3, 4]);
        assert_ok(&path);
    }
}

#[test]
fn planted_journals_and_locks_are_not_followed() {
    let dir = Dir::new();
    let path = dir.path("t.db");
    close(&open(&path));
    let target = dir.path("target");
    fs::write(&target, "precious").unwrap();
    let writer = "8ed3f6ad-685b-459e-ad70-22518e1af76c";
    for ending in ["1.journal", "lock"] {
        let planted = PathBuf::from(format!("{}.{writer}.{ending}", path.display()));
        std::os::unix::fs::symlink(&target, &planted).unwrap();
        let told = reopen(&path);
        assert!(told.iter().any(|t| t.contains("symbolic link") && t.contains(ending)), "{told:?}");
        fs::remove_file(&planted).unwrap();
    }
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    // Files of a writer that this log never had, and that hold nothing.
    fs::write(format!("{}.{writer}.1.journal", path.display()), "").unwrap();
    fs::write(format!("{}.{writer}.lock", path.display()), "").unwrap();
    reopen(&path);
    assert!(files(&path, ".journal").is_empty() && files(&path, ".lock").is_empty());
    assert_ok(&path);
}

#[test]
fn a_live_writer_is_left_alone() {
    let dir = Dir::new();
    let path = dir.path("t.db");
    let alive = open(&path);
    alive.log_durable(AuditEvent::info("before")).unwrap();
    assert_eq!(reopen(&path), Vec::<String>::new());
    alive.log_durable(AuditEvent::info("after")).unwrap();
    close(&alive);
    assert!(records(&path).iter().all(|r| r.event != "audit_recovered"));
    assert_ok(&path);
}

#[test]
fn audit_open_says_what_the_queue_is_and_why() {
    let dir = Dir::new();
    let path = dir.path("t.db");
    let config = AuditConfig::new(&path).journal(false);
    let logger = AuditLogger::open(config).unwrap();
    assert_eq!(logger.health().queue, QueueKind::Memory);
    close(&logger);
    let opened = records(&path).into_iter().rfind(|r| r.event == "audit_open").unwrap();
    assert_eq!(opened.context_value("queue").unwrap(), "memory");
    assert_eq!(opened.context_value("queue_reason").unwrap(), "the configuration says so");
}

#[test]
fn without_a_thread_for_the_journal_there_is_none_and_it_is_told() {
    let dir = Dir::new();
    let path = dir.path("t.db");
    let (faults, (tell, told)) = (Faults::new(), mpsc::channel());
    faults.no_thread();
    let config = AuditConfig::new(&path).faults(&faults).on_error(move |e| drop(tell.send(e.to_string())));
    let logger = AuditLogger::open(config).unwrap();
    assert_eq!(logger.health().queue, QueueKind::Memory);
    logger.log(AuditEvent::info("e")).unwrap();
    close(&logger);
    let opened = records(&path).into_iter().rfind(|r| r.event == "audit_open").unwrap();
    assert_eq!(opened.context_value("queue").unwrap(), "memory");
    let why = opened.context_value("queue_reason").unwrap().to_string();
    assert!(why.contains("thread cannot be started"), "{why}");
    assert!(told.try_iter().any(|t| t.contains("thread cannot be started")));
    assert_ok(&path);
}
