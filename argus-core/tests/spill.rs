//! The pending file: what happens to accepted records while the store fails or the queue overflows, and that each is committed once, in order, when it can be.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Carrier, CommitObserver,
    ErrorKind, Faults, Filter, Level, Overflow, Receipt, Record, State, StoreFault, Trace, TraceContext,
};
use common::{Dir, WAIT, assert_ok, close, open, records};

fn config(path: &Path, faults: &Faults) -> AuditConfig {
    AuditConfig::new(path).service("tests", "1").faults(faults)
}

/// Waits for something that comes by itself.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !is() {
        assert!(Instant::now() < end, "{what} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn pending_file(dir: &Path) -> Option<PathBuf> {
    let all = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    all.into_iter().find(|p| p.to_string_lossy().contains(".pending.") && p.to_string_lossy().ends_with(".jsonl"))
}

/// The numbers of the events `n`, in the order of the trail.
fn numbers(path: &Path) -> Vec<u64> {
    let all = records(path);
    all.iter().filter(|r| r.event == "n").map(|r| r.context_value("i").unwrap().as_u64().unwrap()).collect()
}

fn events(path: &Path) -> Vec<String> {
    records(path).into_iter().map(|r| r.event).collect()
}

fn log(logger: &AuditLogger, numbers: std::ops::Range<u64>) {
    for i in numbers {
        logger.log(AuditEvent::info("n").with("i", i)).unwrap();
    }
}

/// The account holds, whenever anybody looks.
fn assert_account(logger: &AuditLogger) {
    let h = logger.health();
    assert_eq!(h.submitted, h.committed + h.rejected + h.lost + h.queued + h.pending, "{h:?}");
}

#[test]
fn a_failing_store_loses_nothing_and_the_pending_file_is_merged_in_order() {
    let dir = Dir::new();
    for path in dir.both() {
        for (fault, journal) in [
            (StoreFault::Begin, true),
            (StoreFault::Insert, false),
            (StoreFault::Commit, true),
            (StoreFault::AfterCommit, false),
        ] {
            let path =
                path.with_file_name(format!("{fault:?}{journal}{}", path.file_name().unwrap().to_string_lossy()));
            let faults = Faults::new();
            let (tell, told) = mpsc::channel();
            let config = config(&path, &faults).journal(journal).on_error(move |e| drop(tell.send(e.clone())));
            let logger = AuditLogger::open(config).unwrap();
            log(&logger, 0..10);
            logger.flush(WAIT).unwrap();
            faults.store(fault, ErrorKind::DiskFull, u32::MAX);
            log(&logger, 10..20);
            // Who waits for durability gets it, of the pending file.
            let receipt = logger.log_durable(AuditEvent::info("n").with("i", 20)).unwrap();
            assert_eq!((receipt.state, receipt.seq), (State::Spilled, None), "{fault:?}");
            log(&logger, 21..30);
            until("the spill", || logger.health().pending == 20);
            assert_account(&logger);
            assert!(logger.health().degraded.is_some() && !logger.health().is_ok());
            let file = pending_file(dir.0.path()).unwrap();
            let all: Vec<AuditError> = told.try_iter().collect();
            assert!(all.iter().any(|e| matches!(e, AuditError::Spilling { file: f, .. } if **f == *file)), "{all:?}");
            // Readers see them, once. (A commit that only says that it failed makes some of them records.)
            let seen = AuditReader::open(&path).unwrap().pending().unwrap();
            let seen = seen.filter(|r| r.as_ref().unwrap().event == "n").count();
            assert!(seen == 20 || fault == StoreFault::AfterCommit, "{seen}");

            faults.heal();
            logger.flush(WAIT).unwrap();
            until("the merge's end", || pending_file(dir.0.path()).is_none());
            let h = logger.health();
            assert_eq!((h.committed, h.pending, h.queued, h.lost, h.degraded), (30, 0, 0, 0, None));
            log(&logger, 30..40);
            close(&logger);
            assert_eq!(numbers(&path), (0..40).collect::<Vec<_>>(), "{fault:?}");
            let events = events(&path);
            assert_eq!(events.iter().filter(|e| *e == "audit_fallback").count(), 1);
            assert_eq!(events.iter().filter(|e| *e == "audit_recovered").count(), 1);
            assert_ok(&path);
        }
    }
}
