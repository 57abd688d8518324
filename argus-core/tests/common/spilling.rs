//! Helpers of the tests of the pending file.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, CloseReport, Faults};

use crate::common::{WAIT, records};

pub fn config(path: &Path, faults: &Faults) -> AuditConfig {
    AuditConfig::new(path).service("tests", "1").faults(faults)
}

/// Waits for something that comes by itself.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !is() {
        assert!(Instant::now() < end, "{what} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn pending_file(dir: &Path) -> Option<PathBuf> {
    let all = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    all.into_iter().find(|p| p.to_string_lossy().contains(".pending.") && p.to_string_lossy().ends_with(".jsonl"))
}

/// The numbers of the events `n`, in the order of the trail.
pub fn numbers(path: &Path) -> Vec<u64> {
    let all = records(path);
    all.iter().filter(|r| r.event == "n").map(|r| r.context_value("i").unwrap().as_u64().unwrap()).collect()
}

pub fn events(path: &Path) -> Vec<String> {
    records(path).into_iter().map(|r| r.event).collect()
}

pub fn log(logger: &AuditLogger, numbers: std::ops::Range<u64>) {
    for i in numbers {
        logger.log(AuditEvent::info("n").with("i", i)).unwrap_or_else(|e| panic!("{i}: {e:?}, {:?}", logger.health()));
    }
}

/// A close whose deadline is over at once, and how it ended.
pub fn close_now(logger: &AuditLogger) -> CloseReport {
    let report = logger.close(Duration::ZERO);
    if report.error == Some(AuditError::Timeout) { logger.close(WAIT) } else { report }
}
