//! Calls that wait for the disk, against raw inserts in batches as large as there are callers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt};

use crate::row::{Row, interleaved, rate};
use crate::store::{RawStore, write_ours};

/// Short, and many of them: what a sync takes changes tenfold within seconds where others use the disk.
const RUN: Duration = Duration::from_millis(50);
const TIMES: usize = 41;

fn durable(threads: usize, what: &'static str) -> Row {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from.db");
    write_ours(&from, 5_000);
    let mut raw = RawStore::like(&from, &dir.path().join("raw.db"));
    let logger = AuditLogger::open(AuditConfig::new(dir.path().join("ours.db"))).unwrap();
    let ours = || {
        let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
        let t = Instant::now();
        std::thread::scope(|s| {
            for _ in 0..threads {
                s.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let n = calls.fetch_add(1, Ordering::Relaxed);
                        let e = AuditEvent::info("request").component("shop").file_path("/etc/shop.yaml");
                        logger.log_durable(e.with("user", "jane").with("status", 200).with("n", n)).unwrap();
                    }
                });
            }
            std::thread::sleep(RUN);
            over.store(true, Ordering::Relaxed);
        });
        calls.load(Ordering::Relaxed) as f64 / t.elapsed().as_secs_f64()
    };
    let (ours, floor) = interleaved(TIMES, ours, || rate(RUN, || raw.insert(threads)));
    logger.close(Duration::from_secs(10));
    Row { name: "", what, unit: "records/s", ours, floor, aim: ">= 0.60", runs: TIMES }
}

pub(crate) fn one() -> Row {
    durable(1, "`log_durable`, 1 thread; floor: raw inserts, each its own transaction")
}

pub(crate) fn eight() -> Row {
    durable(8, "the same, 8 threads; floor: 8 rows a transaction")
}

pub(crate) fn sixty_four() -> Row {
    durable(64, "the same, 64 threads; floor: 64 rows a transaction")
}
