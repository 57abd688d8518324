//! The heap of one logger, beside what SQLite takes for itself.

use std::time::Duration;

use argus_core::{AuditConfig, AuditError, AuditLogger, AuditSink, MemoryTrail, Overflow, audit};

use crate::accept::request;
use crate::alloc;
use crate::row::{RUNS, Row, median};

const QUEUE: usize = 64 << 20;
const MIB: f64 = 1_048_576.0;

/// What is in use once nothing changes any more: threads give back their memory a moment after they told that they are done.
fn settled() -> f64 {
    let mut before = alloc::in_use();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = alloc::in_use();
        if now == before {
            return now;
        }
        before = now;
    }
}

/// Defaults, after 10,000 records, flushed. Floor: SQLite's own, which is not in ours.
pub(crate) fn at_rest() -> Row {
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let dir = tempfile::tempdir().unwrap();
        let before = (settled(), alloc::sqlite_in_use());
        let logger = AuditLogger::open(AuditConfig::new(dir.path().join("bench.db"))).unwrap();
        for _ in 0..10_000 {
            request(&logger);
        }
        logger.flush(Duration::from_secs(60)).unwrap();
        ours.push((settled() - before.0) / MIB);
        floor.push((alloc::sqlite_in_use() - before.1) / MIB);
        logger.close(Duration::from_secs(10));
    }
    Row {
        name: "",
        what: "heap of one logger after 10,000 records, without SQLite's; floor column: SQLite's own, beside it",
        unit: "MiB",
        ours: median(ours),
        floor: median(floor),
        aim: "<= 1 MiB",
        runs: RUNS,
    }
}

/// The memory queue full to its bound, its store failing. (A full journal is on disk, not on the heap.)
pub(crate) fn stalled() -> Row {
    let mut ours = Vec::new();
    for _ in 0..RUNS {
        let before = settled();
        let trail = MemoryTrail::new();
        let config = AuditConfig::new("memory.db").queue_bytes(QUEUE).overflow(Overflow::Reject);
        let logger = AuditLogger::open_in_memory(config, &trail).unwrap();
        trail.fail(u32::MAX);
        while !matches!(audit!(logger, Info, "request", user = "jane", status = 200), Err(AuditError::Full { .. })) {}
        // The writer holds a batch of it.
        ours.push((settled() - before) / MIB);
        logger.close(Duration::ZERO);
    }
    Row {
        name: "",
        what: "the same with a store that fails and the queue of 64 MiB full; floor: queue_bytes",
        unit: "MiB",
        ours: median(ours),
        floor: QUEUE as f64 / MIB,
        aim: "<= 80 MiB",
        runs: RUNS,
    }
}
