//! Single calls: the one that wakes the writer, and the slowest of many. The clock's own cost is subtracted.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditLogger, AuditSink};

use crate::accept::{REQUEST, logger, request};
use crate::row::{LONG_RUNS, RUNS, Row, clock_cost, interleaved, median, quantile, timed};

/// How long a thread that has nothing to do needs to be asleep.
const ASLEEP: Duration = Duration::from_micros(300);

/// Floor: what it takes to wake a thread that waits on a condition.
pub(crate) fn wake() -> Row {
    const TIMES: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, true);
    let clock = clock_cost();
    let ours = || {
        let mut all = Vec::new();
        for _ in 0..TIMES {
            logger.flush(Duration::from_secs(10)).unwrap();
            std::thread::sleep(ASLEEP);
            all.push(timed(clock, || request(&logger)));
        }
        median(all)
    };
    let pair = (Mutex::new(false), Condvar::new());
    let over = AtomicBool::new(false);
    let notify = || {
        let mut all = Vec::new();
        for _ in 0..TIMES {
            std::thread::sleep(ASLEEP);
            all.push(timed(clock, || {
                *pair.0.lock().unwrap() = true;
                pair.1.notify_one();
            }));
        }
        median(all)
    };
    let (ours, floor) = std::thread::scope(|s| {
        s.spawn(|| {
            let mut told = pair.0.lock().unwrap();
            while !over.load(Ordering::Relaxed) {
                told = pair.1.wait(told).unwrap();
                *told = false;
            }
        });
        let result = interleaved(RUNS, ours, notify);
        let _told = pair.0.lock().unwrap();
        over.store(true, Ordering::Relaxed);
        pair.1.notify_one();
        result
    });
    Row {
        name: "",
        what: "`log` that wakes the sleeping writer, single calls; floor: lock and notify a sleeping thread",
        unit: "ns",
        ours,
        floor,
        aim: "(reported)",
        runs: RUNS,
    }
}

/// Every thread wakes each millisecond and makes one call of ours and one append to a common buffer, so both meet the same load.
pub(crate) fn paced() -> Row {
    const CALLS: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, true);
    let clock = clock_cost();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let buffer = Mutex::new(Vec::with_capacity(8 * CALLS * REQUEST));
        let record = [7u8; REQUEST];
        let one = |i: usize| {
            let (mut ours, mut theirs) = (Vec::with_capacity(CALLS), Vec::with_capacity(CALLS));
            for n in 0..CALLS {
                std::thread::sleep(Duration::from_millis(1));
                let log = |t: &mut Vec<f64>| t.push(timed(clock, || request(&logger)));
                let append = |t: &mut Vec<f64>| {
                    t.push(timed(clock, || buffer.lock().unwrap().extend_from_slice(black_box(&record))))
                };
                // The first after the sleep finds cold caches: each side in turn.
                if (n + i).is_multiple_of(2) {
                    log(&mut ours);
                    append(&mut theirs);
                } else {
                    append(&mut theirs);
                    log(&mut ours);
                }
            }
            (ours, theirs)
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let one = &one;
        std::thread::scope(|s| {
            let threads: Vec<_> = (0..8).map(|i| s.spawn(move || one(i))).collect();
            for t in threads {
                let (x, y) = t.join().unwrap();
                ours.extend(x);
                theirs.extend(y);
            }
        });
        a.push(quantile(ours, 0.99));
        b.push(quantile(theirs, 0.99));
    }
    Row {
        name: "",
        what: "8 threads, a call each millisecond, while the writer commits: p99; floor: an append under a common mutex by the same threads",
        unit: "ns",
        ours: median(a),
        floor: median(b),
        aim: "<= 2000 ns",
        runs: RUNS,
    }
}

const FULL_SPEED: usize = 200_000;

/// The worst and the 999th of 1000 single calls at full speed; and of an empty loop of as many rounds while the writer works off a queue as full.
fn full_speed() -> ((f64, f64), (f64, f64)) {
    let clock = clock_cost();
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    let both = |all: Vec<f64>| (quantile(all.clone(), 1.0), quantile(all, 0.999));
    for _ in 0..LONG_RUNS {
        let dir = tempfile::tempdir().unwrap();
        let config = AuditConfig::new(dir.path().join("bench.db")).queue_bytes(256 << 20);
        let logger = AuditLogger::open(config).unwrap();
        let mut all = Vec::with_capacity(FULL_SPEED);
        let begun = Instant::now();
        for _ in 0..FULL_SPEED {
            all.push(timed(clock, || request(&logger)));
        }
        let lasted = begun.elapsed();
        ours.push(both(all));
        // The queue is full of these; the writer has work for a while.
        let (begun, mut all, mut last) = (Instant::now(), Vec::with_capacity(4 * FULL_SPEED), Instant::now());
        while begun.elapsed() < lasted {
            let now = Instant::now();
            all.push((now.duration_since(last).as_nanos() as f64 - clock).max(0.0));
            last = now;
        }
        assert!(logger.health().queued > 0, "the writer was idle beside the loop");
        floor.push(both(all));
        logger.close(Duration::from_secs(60));
    }
    let medians = |v: &[(f64, f64)]| (median(v.iter().map(|x| x.0).collect()), median(v.iter().map(|x| x.1).collect()));
    (medians(&ours), medians(&floor))
}

pub(crate) fn worst() -> Row {
    let (ours, floor) = full_speed();
    Row {
        name: "",
        what: "worst of 200,000 calls at full speed, journal, 256 MiB; floor: the longest gap of an empty loop beside the same writer",
        unit: "us",
        ours: ours.0 / 1000.0,
        floor: floor.0 / 1000.0,
        aim: "<= 5 x",
        runs: LONG_RUNS,
    }
}

pub(crate) fn p999() -> Row {
    let (ours, floor) = full_speed();
    Row {
        name: "",
        what: "p99.9 of the same; floor: of that loop's rounds",
        unit: "us",
        ours: ours.1 / 1000.0,
        floor: floor.1 / 1000.0,
        aim: "<= 20 us",
        runs: LONG_RUNS,
    }
}
