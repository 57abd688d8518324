//! `abort` inside a `tracing` callback while audit events flow: every event whose macro returned is in the trail after the next open, once and in order.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use argus_core::{AuditConfig, AuditLogger, AuditReader, AuditSink, Filter, QueueKind};
use argus_tracing_layer::AuditLayer;
use tracing::{Event, Subscriber, info};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;

const SOON: Duration = Duration::from_secs(20);
const THREADS: u64 = 3;
/// The event, counted over all threads, at which the process ends.
const LAST: u64 = 2_000;

static EVENTS: AtomicU64 = AtomicU64::new(0);

/// Counts events and aborts at the last: in `on_event` of a layer before or after ours, on the thread of the event.
struct Aborts;
impl<S: Subscriber> Layer<S> for Aborts {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        if EVENTS.fetch_add(1, Ordering::Relaxed) == LAST {
            std::process::abort();
        }
    }
}

/// The same, in the `Debug` of a field.
struct AbortsInDebug;
impl fmt::Debug for AbortsInDebug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if EVENTS.fetch_add(1, Ordering::Relaxed) == LAST {
            std::process::abort();
        }
        f.write_str("fine")
    }
}

/// Logs on several threads, and tells each number once its macro has returned.
fn logs_until_it_aborts(how: &str, path: &Path) -> ! {
    let logger = AuditLogger::open(AuditConfig::new(path)).unwrap();
    let registry = tracing_subscriber::registry();
    match how {
        "before" => registry.with(Aborts).with(AuditLayer::new(logger)).init(),
        "after" => registry.with(AuditLayer::new(logger)).with(Aborts).init(),
        _ => registry.with(AuditLayer::new(logger)).init(),
    }
    let in_debug = how == "debug";
    std::thread::scope(|s| {
        for thread in 0..THREADS {
            s.spawn(move || {
                let mut out =
                    std::fs::File::from(std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned().unwrap());
                for n in 0u64.. {
                    if in_debug {
                        info!(audit.event = "counted", thread, n, value = ?AbortsInDebug);
                    } else {
                        info!(audit.event = "counted", thread, n);
                    }
                    // One write is one line, whatever the other threads do.
                    out.write_all(format!("#{thread}:{n}\n").as_bytes()).unwrap();
                }
            });
        }
    });
    unreachable!()
}

/// The part that a child plays; alone it does nothing.
#[test]
fn the_child() {
    let Ok(part) = std::env::var("ARGUS_CHILD") else { return };
    let (how, path) = part.split_once(':').unwrap();
    logs_until_it_aborts(how, Path::new(path));
}

#[test]
fn every_event_that_returned_is_in_the_trail() {
    let dir = tempfile::tempdir().unwrap();
    for how in ["before", "after", "debug"] {
        for name in ["trail.db", "trail.jsonl"] {
            let path = dir.path().join(format!("{how}-{name}"));
            let logger = AuditLogger::open(AuditConfig::new(&path)).unwrap();
            let queue = logger.health().queue;
            logger.close(SOON);
            if queue != QueueKind::Journal {
                println!("SKIPPED: no journal on this file system");
                return;
            }
            let out = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "the_child", "--nocapture", "--test-threads=1"])
                .env("ARGUS_CHILD", format!("{how}:{}", path.display()))
                .stderr(Stdio::null())
                .output()
                .unwrap();
            assert!(!out.status.success(), "it aborts");
            let mut told = BTreeMap::new();
            for line in String::from_utf8_lossy(&out.stdout).lines().filter_map(|l| l.strip_prefix('#')) {
                let (thread, n) = line.split_once(':').unwrap();
                told.insert(thread.parse::<u64>().unwrap(), n.parse::<u64>().unwrap());
            }
            assert!(told.values().map(|n| n + 1).sum::<u64>() + THREADS >= LAST, "{how}: events flowed: {told:?}");

            AuditLogger::open(AuditConfig::new(&path)).unwrap().close(SOON);
            let reader = AuditReader::open(&path).unwrap();
            let report = reader.verify().unwrap();
            assert!(report.is_ok(), "{report}");
            let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for record in reader.query(Filter::new().event("counted")).unwrap().map(Result::unwrap) {
                let number = |k: &str| record.context_value(k).unwrap().as_u64().unwrap();
                found.entry(number("thread")).or_default().push(number("n"));
            }
            for (thread, last) in told {
                let numbers = &found[&thread];
                assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{how} {name}: each once, in order");
                assert!(numbers.len() as u64 > last, "{how} {name}: told {last}, found {}", numbers.len());
            }
        }
    }
}
