//! What a `commit_delay` costs and saves: sustained writing, then a caller of 1,000 records a second. `cargo run --release -p argus-bench --example delay`
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use argus_core::{
    AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Carrier, CommitObserver, Interest, Receipt, Record,
};

const ROUNDS: usize = 5;
const SUSTAINED: u64 = 100_000;
const PACED: u64 = 2_000;

fn log(logger: &AuditLogger, n: u64) {
    logger
        .log(AuditEvent::info("request").component("shop").with("user", "jane").with("status", 200).with("n", n))
        .unwrap();
}

/// The moments of commits.
#[derive(Default)]
struct Commits(Mutex<BTreeSet<SystemTime>>);

impl CommitObserver for Commits {
    fn interest(&self) -> Interest {
        Interest::All
    }
    fn committed(&self, _: &Record, receipt: &Receipt, _: &Carrier<'_>) {
        self.0.lock().unwrap().extend(receipt.committed_at);
    }
}

/// Processor time of this process, in milliseconds.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let mut words = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11);
    let mut ticks = || words.next().unwrap().parse::<u64>().unwrap();
    (ticks() + ticks()) * 10
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() {
    let delays = [Duration::ZERO, Duration::from_millis(2)];
    let mut all: [[Vec<f64>; 6]; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (delay, found) in delays.iter().zip(&mut all) {
            let dir = tempfile::tempdir().unwrap();
            let open = |name: &str| {
                let path = dir.path().join(name);
                let config = AuditConfig::new(&path).queue_bytes(256 << 20).commit_delay(*delay);
                (AuditLogger::open(config).unwrap(), path)
            };
            let (logger, _) = open("sustained.db");
            let t = Instant::now();
            (0..SUSTAINED).for_each(|n| log(&logger, n));
            logger.flush(Duration::from_secs(60)).unwrap();
            found[0].push(SUSTAINED as f64 / t.elapsed().as_secs_f64());
            logger.close(Duration::from_secs(60));

            let (logger, _) = open("paced.db");
            let commits = Arc::new(Commits::default());
            logger.subscribe(commits.clone()).unwrap();
            let (cpu, began, mut calls) = (cpu_ms(), Instant::now(), Vec::new());
            for n in 0..PACED {
                std::thread::sleep((began + Duration::from_millis(n)).saturating_duration_since(Instant::now()));
                let t = Instant::now();
                log(&logger, n);
                calls.push(t.elapsed().as_nanos() as f64 / 1000.0);
            }
            let seconds = began.elapsed().as_secs_f64();
            found[1].push((cpu_ms() - cpu) as f64 / seconds / 10.0);
            logger.flush(Duration::from_secs(60)).unwrap();
            found[5].push(commits.0.lock().unwrap().len() as f64 / seconds);
            calls.sort_by(f64::total_cmp);
            found[2].push(calls[calls.len() / 2]);
            found[3].push(calls[calls.len() * 99 / 100]);
            // After idling, as a caller of one durable record a second.
            let mut durable = Vec::new();
            for _ in 0..40 {
                std::thread::sleep(Duration::from_millis(5));
                let t = Instant::now();
                logger.log_durable(AuditEvent::info("durable")).unwrap();
                durable.push(t.elapsed().as_secs_f64() * 1000.0);
            }
            found[4].push(median(durable));
            logger.close(Duration::from_secs(60));
        }
    }
    println!(
        "| commit_delay | sustained, records/s | at 1,000 records/s: processor, % | call p50, us | p99, us | log_durable p50, ms | commits/s |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (delay, found) in delays.iter().zip(all) {
        let cells: Vec<_> = found.into_iter().map(|f| format!("{:.1}", median(f))).collect();
        println!("| {delay:?} | {} |", cells.join(" | "));
    }
}
