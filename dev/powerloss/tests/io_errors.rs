//! The real stores over system calls that fail: each write, sync and cut of a short life of a trail, one after the other, once, several times in a row, and half written. Whatever fails,
//! each record is in the trail once, in order, and it verifies. `ARGUS_IO_ERRORS=all` does each call; the normal tests do every nineteenth write and every fourth sync.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::panic::{catch_unwind, resume_unwind};
use std::path::Path;
use std::time::Duration;

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Filter};
use argus_powerloss::{Call, Failure, Store, failing};

const WAIT: Duration = Duration::from_secs(60);

/// Each so manieth call.
fn step(call: Call) -> usize {
    match std::env::var("ARGUS_IO_ERRORS").as_deref() {
        Ok("all") => 1,
        _ if call == Call::Sync => 4,
        _ => 19,
    }
}

/// Two lives of a logger. What was accepted in them is what must be there.
fn live(path: &Path, journal: bool) -> Vec<u64> {
    let mut accepted = Vec::new();
    for life in 0..2u64 {
        // The pending file works: so does an opening.
        let opened = AuditLogger::open(AuditConfig::new(path).service("io", "1").journal(journal));
        let logger = opened.unwrap_or_else(|e| panic!("life {life}: {e:?}"));
        for i in 0..12 {
            let n = life * 100 + i;
            let filler = "x".repeat(if i == 5 { 9_000 } else { 50 });
            let event = AuditEvent::info("n").with("n", n).with("filler", filler.as_str());
            match i % 4 {
                3 => logger.log_durable(event).map(drop).unwrap(),
                _ => logger.log(event).map(drop).unwrap(),
            }
            accepted.push(n);
        }
        logger.flush(WAIT).unwrap();
        let report = logger.close(WAIT);
        if report.error.is_none() {
            assert_eq!(report.left, 0, "{report:?}");
        }
    }
    accepted
}

fn assert_there(path: &Path, accepted: &[u64], context: &str) {
    // Recovers what a close that failed left.
    let logger = AuditLogger::open(AuditConfig::new(path)).unwrap();
    assert_eq!(logger.close(WAIT).error, None, "{context}");
    let reader = AuditReader::open(path).unwrap();
    let report = reader.verify().unwrap();
    assert!(report.is_ok(), "{context}: {:?}", report.findings);
    let all = reader.query(Filter::new()).unwrap().map(Result::unwrap);
    let numbers: Vec<u64> =
        all.filter(|r| r.event == "n").map(|r| r.context_value("n").unwrap().as_u64().unwrap()).collect();
    assert_eq!(numbers, accepted, "{context}");
    let name = path.file_name().unwrap().to_str().unwrap();
    let left =
        std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = left.filter(|n| n.starts_with(&format!("{name}."))).collect();
    assert!(left.is_empty(), "{context}: {left:?}");
}

/// Every call of this kind fails once, and one of many, until there are no more of them.
fn each(store: Store, call: Call, errno: i32) {
    for journal in [true, false] {
        for times in if call == Call::Half { [2, 4] } else { [1, 3] } {
            let (mut after, mut done) = (0, 0);
            loop {
                let dir = tempfile::tempdir().unwrap();
                let path = store.trail(dir.path());
                let failure = Failure { call, after, times, errno, pending: false, folders: times == 1 };
                let (lived, failed) = failing(dir.path(), failure, || catch_unwind(|| live(&path, journal)));
                let accepted = lived.unwrap_or_else(|e| {
                    println!("{failure:?} of {failed:?}, journal {journal}");
                    resume_unwind(e)
                });
                if failed.is_empty() {
                    break;
                }
                done += 1;
                assert_there(&path, &accepted, &format!("{failure:?} of {failed:?}, journal {journal}"));
                after += step(call);
            }
            assert!(done > 0, "no call of this kind was seen");
            println!("{store:?} {call:?} {errno}, journal {journal}, {times} times: {done} lives");
        }
    }
}

#[test]
fn writes_of_the_trail_that_fail_lose_nothing() {
    for store in [Store::Sqlite, Store::Jsonl] {
        each(store, Call::Write, libc::EIO);
        each(store, Call::Write, libc::ENOSPC);
        each(store, Call::Half, libc::ENOSPC);
    }
}

#[test]
fn syncs_of_the_trail_that_fail_lose_nothing() {
    for store in [Store::Sqlite, Store::Jsonl] {
        each(store, Call::Sync, libc::EIO);
    }
}
