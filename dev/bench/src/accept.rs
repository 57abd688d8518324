//! What a call costs its caller. The floor of a call: the clock, and a copy of the same bytes under a mutex.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use argus_core::{AuditConfig, AuditLogger, AuditSink, AuditSinkExt, Level, audit};
use serde_json::json;

use crate::row::{Row, interleaved};

const CALLS: usize = 100_000;
/// Calls timed together: one reading of the clock costs about as much as a call.
const GROUP: usize = 16;

/// Median cost of a call, in nanoseconds, from groups of calls.
fn p50(mut call: impl FnMut()) -> f64 {
    let mut groups = Vec::with_capacity(CALLS / GROUP);
    for _ in 0..CALLS / GROUP {
        let t = Instant::now();
        for _ in 0..GROUP {
            call();
        }
        groups.push(t.elapsed().as_nanos() as f64 / GROUP as f64);
    }
    crate::row::median(groups)
}

fn logger(dir: &tempfile::TempDir, level: Level) -> AuditLogger {
    // The queue holds a whole run: the caller's side alone is measured, while the writer works beside it.
    AuditLogger::open(AuditConfig::new(dir.path().join("bench.db")).min_level(level).queue_bytes(512 << 20)).unwrap()
}

/// The floor: the clock, and `bytes` appended under a mutex.
fn append(bytes: usize) -> f64 {
    let queue = Mutex::new(Vec::with_capacity((CALLS + GROUP) * bytes));
    let record = vec![7u8; bytes];
    p50(|| {
        black_box(SystemTime::now());
        queue.lock().unwrap().extend_from_slice(black_box(&record));
    })
}

pub(crate) fn filtered(wanted: &dyn Fn(&str) -> bool) -> Option<Row> {
    const NAME: &str = "filtered_call";
    if !wanted(NAME) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, Level::Security);
    let level = std::sync::atomic::AtomicU8::new(3);
    let (ours, floor) = interleaved(
        || {
            p50(|| {
                black_box(audit!(black_box(&logger), Info, "filtered", n = 1).is_ok());
            })
        },
        || {
            p50(|| {
                black_box(black_box(&level).load(std::sync::atomic::Ordering::Relaxed) <= black_box(0));
            })
        },
    );
    Some(Row {
        name: NAME,
        what: "`audit!` below min_level; floor: one atomic load and compare",
        unit: "ns",
        ours,
        floor,
        aim: "<= 2 ns",
    })
}

pub(crate) fn log(wanted: &dyn Fn(&str) -> bool) -> Option<Row> {
    const NAME: &str = "log_accept_p50";
    if !wanted(NAME) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, Level::Info);
    let (ours, floor) = interleaved(
        || {
            let t = p50(|| {
                let _ = black_box(audit!(logger, Info, "request", user = "jane", status = 200, path = "/orders"));
            });
            logger.flush(Duration::from_secs(60)).unwrap();
            t
        },
        || append(200),
    );
    Some(Row {
        name: NAME,
        what: "`log` with 3 context members; floor: clock and a 200 byte append under a mutex",
        unit: "ns",
        ours,
        floor,
        aim: "<= 200 ns",
    })
}

pub(crate) fn config_change(wanted: &dyn Fn(&str) -> bool) -> Option<Row> {
    const NAME: &str = "config_change_accept_p50";
    if !wanted(NAME) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, Level::Info);
    let old = json!({"host": "db-1", "port": 5432, "tls": false});
    let new = json!({"host": "db-2", "port": 5432, "tls": true});
    let (ours, floor) = interleaved(
        || {
            let t = p50(|| {
                let _ = black_box(logger.log_config_change("/etc/shop/db.yaml", &old, &new));
            });
            logger.flush(Duration::from_secs(60)).unwrap();
            t
        },
        || append(290),
    );
    Some(Row {
        name: NAME,
        what: "`log_config_change`, two 3-member maps; floor: clock and a 290 byte append",
        unit: "ns",
        ours,
        floor,
        aim: "(300 ns with the journal)",
    })
}
