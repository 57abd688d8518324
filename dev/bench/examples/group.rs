//! How large the groups are that concurrent `log_durable` calls form, and how long each call takes. `cargo run --release -p argus-bench --example group`
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt};

const RUN: Duration = Duration::from_millis(500);

fn main() {
    println!(
        "| callers | calls a second | commits a second | records a commit | call p50, us | p99, us |\n|---|---|---|---|---|---|"
    );
    let dir = tempfile::tempdir().unwrap();
    let logger = AuditLogger::open(AuditConfig::new(dir.path().join("t.db"))).unwrap();
    for callers in [1, 2, 8, 64] {
        let (over, t) = (AtomicBool::new(false), Instant::now());
        let call = |_| {
            let (mut commits, mut times) = (BTreeSet::new(), Vec::new());
            while !over.load(Ordering::Relaxed) {
                let t = Instant::now();
                let e = AuditEvent::info("request").component("shop").with("user", "jane").with("status", 200);
                commits.extend(logger.log_durable(e).unwrap().committed_at);
                times.push(t.elapsed().as_nanos() as f64 / 1000.0);
            }
            (commits, times)
        };
        let (mut commits, mut times) = (BTreeSet::new(), Vec::new());
        std::thread::scope(|s| {
            let call = &call;
            let threads: Vec<_> = (0..callers).map(|n| s.spawn(move || call(n))).collect();
            std::thread::sleep(RUN);
            over.store(true, Ordering::Relaxed);
            for thread in threads {
                let (c, t) = thread.join().unwrap();
                commits.extend(c);
                times.extend(t);
            }
        });
        let seconds = t.elapsed().as_secs_f64();
        times.sort_by(f64::total_cmp);
        let (calls, commits) = (times.len(), commits.len());
        println!(
            "| {callers} | {:.0} | {:.0} | {:.1} | {:.0} | {:.0} |",
            calls as f64 / seconds,
            commits as f64 / seconds,
            calls as f64 / commits as f64,
            times[calls / 2],
            times[calls * 99 / 100],
        );
    }
    logger.close(Duration::from_secs(10));
}
