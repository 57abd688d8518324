//! How long the calls of 8 threads take that make one each millisecond: quantiles of ours and of an append under a common mutex, each after its own sleep. `paced [memory]`.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditLogger, AuditSink, audit};

const CALLS: usize = 2_000;

fn main() {
    let memory = std::env::args().nth(1).is_some_and(|a| a == "memory");
    let dir = tempfile::tempdir().unwrap();
    let logger = AuditLogger::open(AuditConfig::new(dir.path().join("paced.db")).journal(!memory)).unwrap();
    // Its pages are there before the first append: one call of twenty would meet a page fault.
    let mut buffer = vec![7u8; 8 * CALLS * 192];
    buffer.clear();
    let buffer = Mutex::new(buffer);
    let record = [7u8; 192];
    let one = || {
        let (mut ours, mut floor) = (Vec::with_capacity(CALLS), Vec::with_capacity(CALLS));
        for _ in 0..CALLS {
            std::thread::sleep(Duration::from_millis(1));
            let begun = Instant::now();
            let _ = black_box(audit!(logger, Info, "request", user = "jane", status = 200, path = "/orders"));
            ours.push(begun.elapsed().as_nanos());
            std::thread::sleep(Duration::from_millis(1));
            let begun = Instant::now();
            buffer.lock().unwrap().extend_from_slice(black_box(&record));
            floor.push(begun.elapsed().as_nanos());
        }
        (ours, floor)
    };
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    std::thread::scope(|s| {
        let threads: Vec<_> = (0..8).map(|_| s.spawn(one)).collect();
        for t in threads {
            let (o, f) = t.join().unwrap();
            ours.extend(o);
            floor.extend(f);
        }
    });
    for (what, all) in [("ours", &mut ours), ("floor", &mut floor)] {
        all.sort_unstable();
        let at = |q: f64| all[((all.len() - 1) as f64 * q) as usize];
        let quantiles = [0.5, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999].map(|q| format!("p{} {}", q * 100.0, at(q)));
        println!("{what:5} {}", quantiles.join("  "));
    }
    logger.close(Duration::from_secs(60));
}
