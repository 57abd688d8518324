//! What a call costs its caller. The floor of a call: the clock, and a copy of the same bytes under a mutex.

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Level, audit};
use serde_json::json;

use crate::alloc;
use crate::row::{CALLS, GROUP, RUNS, Row, interleaved, p50};

/// The queue holds a whole run: the caller's side alone is measured, while the writer works beside it.
pub(crate) fn logger(dir: &tempfile::TempDir, journal: bool) -> AuditLogger {
    let config = AuditConfig::new(dir.path().join("bench.db")).queue_bytes(512 << 20).journal(journal);
    let logger = AuditLogger::open(config).unwrap();
    assert_eq!(logger.health().queue.as_str(), if journal { "journal" } else { "memory" }, "not on this file system");
    logger
}

/// The record of most rows: three scalar members.
#[inline(always)]
pub(crate) fn request(logger: &AuditLogger) {
    let _ = black_box(audit!(logger, Info, "request", user = "jane", status = 200, path = "/orders"));
}

/// Bytes that such a record has in the queue.
pub(crate) const REQUEST: usize = 192;

/// The floor: the clock, and `bytes` appended under a mutex.
fn append(bytes: usize) -> f64 {
    let queue = Mutex::new(Vec::with_capacity((CALLS + GROUP) * bytes));
    let record = vec![7u8; bytes];
    p50(|| {
        black_box(SystemTime::now());
        queue.lock().unwrap().extend_from_slice(black_box(&record));
    })
}

/// Median cost of `call` on a logger of its own, which is flushed between the runs.
fn accepted(journal: bool, bytes: usize, call: impl Fn(&AuditLogger)) -> (f64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, journal);
    let ours = || {
        let t = p50(|| call(&logger));
        logger.flush(Duration::from_secs(60)).unwrap();
        t
    };
    interleaved(RUNS, ours, || append(bytes))
}

fn row(what: &'static str, aim: &'static str, (ours, floor): (f64, f64)) -> Row {
    Row { name: "", what, unit: "ns", ours, floor, aim, runs: RUNS }
}

fn compare() -> f64 {
    let level = AtomicU8::new(3);
    p50(|| {
        black_box(black_box(&level).load(Ordering::Relaxed) <= black_box(0));
    })
}

fn nothing(config: AuditConfig) -> (f64, f64) {
    let logger = AuditLogger::open(config).unwrap();
    let ours = || {
        p50(|| {
            black_box(audit!(black_box(&logger), Info, "filtered", n = 1).is_ok());
        })
    };
    interleaved(RUNS, ours, compare)
}

pub(crate) fn filtered() -> Row {
    let dir = tempfile::tempdir().unwrap();
    let config = AuditConfig::new(dir.path().join("bench.db")).min_level(Level::Security);
    row("`audit!` below min_level; floor: one atomic load and compare", "<= 2 ns", nothing(config))
}

pub(crate) fn disabled() -> Row {
    row(
        "`audit!` on a logger that is switched off; floor: the same",
        "<= 2 ns",
        nothing(AuditConfig::new("off.db").enabled(false)),
    )
}

pub(crate) fn log_memory() -> Row {
    row(
        "`log`, 3 scalar members, memory queue; floor: clock and a 192 byte append under a mutex",
        "<= 120 ns",
        accepted(false, REQUEST, request),
    )
}

pub(crate) fn log_journal() -> Row {
    row("the same, journal", "<= 150 ns", accepted(true, REQUEST, request))
}

pub(crate) fn file_watch() -> Row {
    let call = |l: &AuditLogger| {
        let _ = black_box(l.log_file_watch("file_watch_start", "/etc/shop/db.yaml"));
    };
    row("`log_file_watch`, journal; floor: clock and a 176 byte append", "<= 120 ns", accepted(true, 176, call))
}

pub(crate) fn config_change() -> Row {
    let old = json!({"host": "db-1", "port": 5432, "tls": false});
    let new = json!({"host": "db-2", "port": 5432, "tls": true});
    let call = |l: &AuditLogger| {
        let event = AuditEvent::critical("config_change").file_path("/etc/shop/db.yaml");
        let event = event.old_value(&old).new_value(&new);
        let _ = black_box(l.log(event.with("user", "jane").with("attempt", 1).with("dry_run", false)));
    };
    row(
        "config change, two 3-member maps and 3 context members, journal; floor: clock and a 312 byte append",
        "<= 300 ns",
        accepted(true, 312, call),
    )
}

/// Allocations that a warm thread makes in so many calls; floor: in none.
fn allocations(journal: bool, what: &'static str) -> Row {
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, journal);
    let ours = || {
        let before = alloc::calls();
        for _ in 0..CALLS {
            request(&logger);
        }
        let made = alloc::calls() - before;
        logger.flush(Duration::from_secs(60)).unwrap();
        made as f64 / (CALLS / 1000) as f64
    };
    let (ours, floor) = interleaved(RUNS, ours, || 0.0);
    Row { name: "", what, unit: "per 1000", ours, floor, aim: "0", runs: RUNS }
}

pub(crate) fn allocations_memory() -> Row {
    allocations(false, "allocations of the caller in 1000 `log`, memory queue that grows (its chunks of 64 KiB)")
}

pub(crate) fn allocations_journal() -> Row {
    allocations(true, "the same, journal")
}
