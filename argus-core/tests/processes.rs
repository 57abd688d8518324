//! Several threads and several processes on one trail: nothing is lost, nothing forks, the account holds at every moment.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Carrier, Health, MemoryTrail, Overflow,
};
use common::{Dir, WAIT, assert_ok, child, close, open, part, records};

fn conserved(h: &Health) {
    assert_eq!(h.submitted, h.committed + h.rejected + h.lost + h.queued + h.pending, "{h:?}");
}

#[test]
fn the_account_holds_at_every_moment_while_eight_threads_race_close() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger =
            AuditLogger::open(AuditConfig::new(&path).queue_bytes(32 << 10).overflow(Overflow::Reject)).unwrap();
        let (accepted, refused, calls, stop) =
            (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|s| {
            for t in 0..8 {
                let (logger, accepted, refused, calls, stop) = (logger.clone(), &accepted, &refused, &calls, &stop);
                s.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let relay = Carrier::relay(Duration::ZERO);
                        let e = AuditEvent::info("race").with("thread", t);
                        let result = if t % 2 == 0 { logger.log(e) } else { logger.submit(&e, &relay) };
                        match result {
                            Ok(Some(_)) => accepted.fetch_add(1, Ordering::Relaxed),
                            Ok(None) => unreachable!(),
                            Err(AuditError::Full { .. } | AuditError::Closed) => {
                                refused.fetch_add(1, Ordering::Relaxed)
                            }
                            Err(e) => panic!("{e}"),
                        };
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let (watch, stop_ref, calls) = (logger.clone(), &stop, &calls);
            s.spawn(move || {
                while !stop_ref.load(Ordering::Relaxed) {
                    conserved(&watch.health());
                }
            });
            while calls.load(Ordering::Relaxed) < 20_000 {
                std::thread::yield_now();
            }
            let report = logger.close(WAIT);
            assert_eq!((report.error, report.left), (None, 0));
            // A while after the close the threads still call.
            let then = calls.load(Ordering::Relaxed);
            while calls.load(Ordering::Relaxed) < then + 1000 {
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
        });
        let h = logger.health();
        conserved(&h);
        let (accepted, refused) = (accepted.into_inner(), refused.into_inner());
        assert_eq!((h.committed, h.queued, h.rejected + h.lost), (accepted, 0, refused));
        let all = records(&path);
        assert_eq!(all.iter().filter(|r| r.event == "race").count() as u64, accepted);
        // What relays lost before the close is told by gap records.
        let told: u64 = all
            .iter()
            .filter(|r| r.event == "audit_gap")
            .map(|r| r.context_value("count").unwrap().as_u64().unwrap())
            .sum();
        let closing = all.iter().find(|r| r.event == "audit_close").unwrap();
        assert_eq!(closing.context_value("lost").unwrap().as_u64().unwrap(), told);
        assert_ok(&path);
    }
}

#[test]
fn four_processes_write_one_database() {
    if let Some(path) = part() {
        let logger = open(path.as_ref());
        for i in 0..250 {
            logger.log(AuditEvent::info("work").with("i", i)).unwrap();
            if i % 25 == 0 {
                logger.flush(WAIT).unwrap();
            }
        }
        close(&logger);
        return;
    }
    let dir = Dir::new();
    let path = dir.path("shared.db");
    let children: Vec<_> = (0..4)
        .map(|_| {
            child("four_processes_write_one_database", path.to_str().unwrap())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut c in children {
        assert!(c.wait().unwrap().success());
    }
    let all = records(&path);
    assert_eq!(all.len(), 4 * 252);
    assert!(all.iter().zip(1..).all(|(r, n)| r.seq == Some(n)));
    let mut by_writer: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for r in &all {
        by_writer.entry(r.writer).or_default().push(r.writer_seq);
    }
    assert_eq!(by_writer.len(), 4);
    assert!(by_writer.values().all(|s| s.iter().copied().eq(1..=252)));
    assert_ok(&path);
}

#[test]
fn a_killed_writer_leaves_a_trail_that_verifies_and_names_it() {
    if let Some(path) = part() {
        let logger = open(path.as_ref());
        loop {
            logger.log_durable(AuditEvent::info("until_killed")).unwrap();
            println!("committed");
        }
    }
    let dir = Dir::new();
    for path in dir.both() {
        let mut c = child("a_killed_writer_leaves_a_trail_that_verifies_and_names_it", path.to_str().unwrap())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(c.stdout.take().unwrap()));
        let mut seen = 0;
        while seen < 20 {
            seen += usize::from(lines.next().unwrap().unwrap().contains("committed"));
        }
        c.kill().unwrap();
        c.wait().unwrap();
        seen += lines.map_while(Result::ok).filter(|l| l.contains("committed")).count();
        let report = argus_core::AuditReader::open(&path).unwrap().verify().unwrap();
        assert!(report.is_ok(), "{report}");
        assert_eq!(report.unclosed_writers.len(), 1);
        let logger = open(&path);
        close(&logger);
        assert!(
            records(&path).iter().filter(|r| r.event == "until_killed").count() >= seen,
            "what was acknowledged is there"
        );
        assert_ok(&path);
    }
}

#[test]
fn a_failing_store_loses_nothing_and_says_so() {
    let trail = MemoryTrail::new();
    let told = std::sync::Arc::new(AtomicU64::new(0));
    let count = told.clone();
    let logger = AuditLogger::open_in_memory(
        AuditConfig::default().on_error(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        }),
        &trail,
    )
    .unwrap();
    trail.fail(3);
    let pending = logger.log_pending(AuditEvent::info("kept")).unwrap();
    assert!(pending.wait(WAIT).is_ok());
    trail.fail_after_commit();
    let receipt = logger.log_durable(AuditEvent::info("unknown_outcome")).unwrap();
    assert_eq!(receipt.seq, Some(3), "committed once, though the commit reported a failure");
    trail.fail(u32::MAX);
    let lost = logger.log_pending(AuditEvent::info("lost")).unwrap();
    let report = logger.close(Duration::from_millis(50));
    // The writer gives up once the deadline is over; nobody waits for ever.
    assert!(matches!(lost.wait(WAIT), Err(AuditError::Store(_))));
    assert!(report.error.is_some());
    let h = logger.health();
    conserved(&h);
    assert_eq!((h.committed, h.lost), (2, 1));
    assert!(told.load(Ordering::Relaxed) >= 1 || logger.close(WAIT).already_closed);
    let events: Vec<String> = trail
        .lines()
        .iter()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["event"].as_str().unwrap().into())
        .collect();
    assert_eq!(events, ["audit_open", "kept", "unknown_outcome"]);
}

#[test]
fn block_waits_for_space_and_then_names_the_reason() {
    let trail = MemoryTrail::new();
    let config = AuditConfig::default().queue_bytes(1).overflow(Overflow::Block { timeout: Duration::from_millis(20) });
    let logger = AuditLogger::open_in_memory(config, &trail).unwrap();
    trail.fail(u32::MAX);
    // An empty queue takes any record, a second one waits in vain.
    let _first = logger.log_pending(AuditEvent::info("first")).unwrap();
    assert!(matches!(logger.log(AuditEvent::info("second")), Err(AuditError::Full { .. })));
    assert!(logger.submit(&AuditEvent::info("third"), &Carrier::relay(Duration::from_millis(1))).is_err());
    let h = logger.health();
    conserved(&h);
    assert_eq!((h.rejected, h.lost, h.queued), (1, 1, 1));
    trail.fail(0);
    logger.flush(WAIT).unwrap();
    logger.log(AuditEvent::info("fourth")).unwrap();
    close(&logger);
    let text = trail.lines().join("\n");
    assert!(text.contains(r#""reason":"queue_full""#) && text.contains("fourth") && !text.contains("second"));
}

#[test]
fn a_queue_that_is_nearly_full_is_told_of_once() {
    let trail = MemoryTrail::new();
    let logger = AuditLogger::open_in_memory(AuditConfig::default().queue_bytes(64 << 10), &trail).unwrap();
    for _ in 0..2 {
        // The writer is at the first record while the others pile up.
        trail.fail(u32::MAX);
        let filling = "x".repeat(1000);
        let mut n = 0;
        while logger.health().queue_bytes < 54 << 10 {
            logger.log(AuditEvent::info("filling").with("text", filling.as_str())).unwrap();
            n += 1;
        }
        assert!(n > 40);
        trail.fail(0);
        logger.flush(WAIT).unwrap();
        // Its space is given back a moment after the commit.
        let began = std::time::Instant::now();
        while logger.health().queue_bytes > 0 && began.elapsed() < WAIT {
            std::thread::yield_now();
        }
    }
    close(&logger);
    let told: Vec<String> = trail.lines().into_iter().filter(|l| l.contains("queue_high_water")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(r#""level":"WARN""#) && told[0].contains(r#""limit_bytes":65536"#));
    conserved(&logger.health());
}

#[test]
fn nobody_is_taken_for_dead_while_many_open_and_close() {
    let dir = Dir::new();
    let path = dir.path("t.db");
    close(&open(&path));
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| {
                for _ in 0..15 {
                    let logger = open(&path);
                    logger.log(AuditEvent::info("here")).unwrap();
                    close(&logger);
                }
            });
        }
    });
    let all = records(&path);
    assert_eq!(all.iter().filter(|r| r.event == "here").count(), 120);
    assert!(all.iter().all(|r| r.event != "audit_recovered"));
    assert_ok(&path);
    let left: Vec<_> = std::fs::read_dir(dir.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn two_loggers_of_one_process_share_a_database_but_not_a_jsonl_trail() {
    let dir = Dir::new();
    let (a, b) = (open(&dir.path("t.db")), open(&dir.path("t.db")));
    a.log(AuditEvent::info("a")).unwrap();
    b.log(AuditEvent::info("b")).unwrap();
    close(&a);
    close(&b);
    assert_ok(&dir.path("t.db"));
    let first = open(&dir.path("t.jsonl"));
    let refused = AuditLogger::open(AuditConfig::new(dir.path("t.jsonl"))).unwrap_err();
    assert_eq!(refused.kind(), argus_core::ErrorKind::InUse);
    close(&first);
}
