//! What a call takes at the machine's faster speed, and at its slower one: short bursts of each kind of call in turns, and of each kind the 2 %, 10 % and 50 % quantile of
//! the bursts' medians, in nanoseconds. For old and new binaries in turns: a gain of 3 % shows in the first number where the medians of whole runs differ by 10.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, audit};
use serde_json::json;

fn burst(mut call: impl FnMut()) -> f64 {
    let mut groups: Vec<f64> = (0..60)
        .map(|_| {
            let t = Instant::now();
            (0..16).for_each(|_| call());
            t.elapsed().as_nanos() as f64 / 16.0
        })
        .collect();
    groups.sort_by(f64::total_cmp);
    groups[groups.len() / 2]
}

fn main() {
    let queue = Mutex::new(Vec::<u8>::with_capacity(64 << 20));
    let record = vec![7u8; 192];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let logger = AuditLogger::open(AuditConfig::new(&path).queue_bytes(1 << 30)).unwrap();
    let memory = AuditConfig::new(dir.path().join("b.db")).queue_bytes(1 << 30).journal(false);
    let memory = AuditLogger::open(memory).unwrap();
    let old = json!({"host": "db-1", "port": 5432, "tls": false});
    let new = json!({"host": "db-2", "port": 5432, "tls": true});
    let mut all: [Vec<f64>; 5] = Default::default();
    for round in 0..600 {
        let t = [
            burst(|| {
                let _ = black_box(audit!(memory, Info, "request", user = "jane", status = 200, path = "/orders"));
            }),
            burst(|| {
                let _ = black_box(audit!(logger, Info, "request", user = "jane", status = 200, path = "/orders"));
            }),
            burst(|| {
                let _ = black_box(logger.log_file_watch("file_watch_start", "/etc/shop/db.yaml"));
            }),
            burst(|| {
                let event = AuditEvent::critical("config_change").file_path("/etc/shop/db.yaml");
                let event = event.old_value(&old).new_value(&new);
                let _ = black_box(logger.log(event.with("user", "jane").with("attempt", 1).with("dry_run", false)));
            }),
            burst(|| {
                black_box(SystemTime::now());
                queue.lock().unwrap().extend_from_slice(black_box(&record));
            }),
        ];
        queue.lock().unwrap().clear();
        if round > 20 {
            all.iter_mut().zip(t).for_each(|(a, t)| a.push(t));
        }
        if round % 50 == 0 {
            logger.flush(Duration::from_secs(60)).unwrap();
            memory.flush(Duration::from_secs(60)).unwrap();
        }
    }
    for (name, mut v) in ["memory", "journal", "watch", "change", "floor"].iter().zip(all) {
        v.sort_by(f64::total_cmp);
        let q = |f: f64| v[(v.len() as f64 * f) as usize];
        print!("{name} {:.0} {:.0} {:.0}  ", q(0.02), q(0.1), q(0.5));
    }
    println!();
}
