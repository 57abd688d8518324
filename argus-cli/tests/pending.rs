//! What the command shows of records that are accepted and not committed yet.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;
use std::time::Duration;

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, QueueKind};
use common::{Running, Signal, argus, both, close, fill, json, records, run};
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);

/// A logger with three records that wait; none where there is no journal.
fn waiting(path: &Path) -> Option<AuditLogger> {
    let config = AuditConfig::new(path).service("patient", "1").commit_delay(HOUR).flush_interval(HOUR);
    let logger = AuditLogger::open(config.buffer_size(1_000_000)).unwrap();
    if logger.health().queue != QueueKind::Journal {
        println!("SKIPPED: the file system reserves no space, so there are no journals");
        close(&logger);
        return None;
    }
    for (n, event) in
        [AuditEvent::info("waits"), AuditEvent::warn("waits"), AuditEvent::info("rests")].into_iter().enumerate()
    {
        logger.log(event.component("later").with("n", n)).unwrap();
    }
    Some(logger)
}

/// `seq`, or the number of a pending record as text.
fn order(lines: &[Value]) -> Vec<Value> {
    let one = |v: &Value| match &v["seq"] {
        Value::Null => json!(format!("pending {}", v["context"]["n"])),
        seq => seq.clone(),
    };
    lines.iter().map(one).collect()
}

#[test]
fn query_shows_them_after_the_committed_ones() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        let Some(logger) = waiting(path) else { return };
        let end = records(path).len() as u64;
        let (p0, p1, p2) = ("pending 0", "pending 1", "pending 2");
        let query = |args: &[&str]| order(&json(path, &[&["query"], args].concat()));
        let oldest = query(&["--oldest-first"]);
        assert_eq!(oldest[end as usize - 1..], [json!(end), json!(p0), json!(p1), json!(p2)]);
        let newest: Vec<Value> = oldest.into_iter().rev().collect();
        assert_eq!(query(&[]), newest, "newest first, they are the newest");
        assert_eq!(query(&["-n", "2"]), [json!(p2), json!(p1)]);
        assert_eq!(query(&["-n", "4"]), newest[..4]);
        assert_eq!(query(&["--oldest-first", "-n", "3"]), [json!(1), json!(2), json!(3)]);
        assert_eq!(
            query(&["--oldest-first", "--cursor", &(end - 1).to_string(), "-n", "3"]),
            [json!(end), json!(p0), json!(p1)]
        );
        assert_eq!(query(&["--cursor", "3"]), [json!(2), json!(1)], "a page of committed ones");
        assert_eq!(query(&["--event", "waits", "--component", "later"]), [json!(p1), json!(p0)]);
        assert_eq!(query(&["--level", "warn", "--context", "n=1"]), [json!(p1)]);
        assert_eq!(query(&["--app", "patient", "--event", "rests"]), [json!(p2)]);
        assert_eq!(query(&["--no-pending"]), newest[3..]);
        // The page after one that pending records fill begins with the newest committed one.
        let text = run(path, &["query", "-n", "3"]).ok();
        assert!(text.lines().take(3).all(|l| l.starts_with("pending  ")), "{text}");
        let cursor = text.lines().last().unwrap().rsplit_once("--cursor ").unwrap().1;
        assert_eq!(query(&["--cursor", cursor]), newest[3..]);
        let line = &json(path, &["query", "-n", "1"])[0];
        assert!(["seq", "created_at", "prev_hash", "checksum"].iter().all(|m| line.get(m).is_none()), "{line}");
        assert!(line["record_id"].is_string() && line["writer_seq"].is_u64());
        close(&logger);
        assert!(query(&["--event", "waits"]).iter().all(Value::is_u64));
    }
}

#[test]
fn tail_ends_with_them_and_follow_waits_for_their_commit() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        let Some(logger) = waiting(path) else { return };
        let end = records(path).len() as u64;
        let tail = |args: &[&str]| order(&json(path, &[&["tail"], args].concat()));
        assert_eq!(tail(&["-n", "4"]), [json!(end), json!("pending 0"), json!("pending 1"), json!("pending 2")]);
        assert_eq!(tail(&["-n", "1"]), [json!("pending 2")]);
        assert_eq!(tail(&["-n", "2", "--no-pending"]), [json!(end - 1), json!(end)]);
        let mut c = argus(&["tail", "-f", "-n", "1", "--json"]);
        c.arg("--db").arg(path);
        let follow = Running::start(c);
        let seq = |line: String| serde_json::from_str::<Value>(&line).unwrap()["seq"].as_u64();
        assert_eq!(seq(follow.line()), Some(end));
        close(&logger);
        for n in 1..=4 {
            assert_eq!(seq(follow.line()), Some(end + n), "each once, when it is committed");
        }
        follow.signal(Signal::TERM);
        assert_eq!(follow.end().ok(), "");
    }
}

#[test]
fn verify_stats_and_where_tell_of_them() {
    let (t, paths) = both();
    for path in &paths {
        fill(path);
        let Some(logger) = waiting(path) else { return };
        let n = records(path).len();
        let verdict = run(path, &["verify"]).ok();
        assert!(verdict.starts_with(&format!("ok: {n} records")) && verdict.contains("\npending: 3 "), "{verdict}");
        let v = &json(path, &["verify"])[0];
        assert_eq!((&v["verdict"], &v["pending"], &v["pending_unreadable"]), (&json!("ok"), &json!(3), &json!(0)));
        assert!(run(path, &["stats"]).ok().contains("\n3 pending"));
        let v = &json(path, &["stats"])[0];
        assert_eq!((&v["records"], &v["pending"], &v["by_event"]["waits"]), (&json!(n), &json!(3), &Value::Null));
        let text = run(path, &["where"]).ok();
        let me = std::process::id();
        assert!(text.contains(&format!(" of patient, process {me} (")) && text.contains("): alive\n"), "{text}");
        assert!(text.contains(".lock\n") && text.contains(".journal\n"), "{text}");
        close(&logger);
        assert!(json(path, &["where"])[0]["writers"].as_array().unwrap().is_empty());
        let mut aside = path.as_os_str().to_owned();
        aside.push(".00000000-0000-4000-8000-000000000000.1.journal.orphan");
        std::fs::write(&aside, "").unwrap();
        assert!(run(path, &["where"]).ok().contains("\n  put aside: "));
        assert_eq!(json(path, &["where"])[0]["put_aside"], json!([aside.to_str().unwrap()]));
    }
    drop(t);
}

#[test]
fn a_journal_that_cannot_be_read_is_told_and_no_failure() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        let mut journal = path.as_os_str().to_owned();
        journal.push(".00000000-0000-4000-8000-000000000000.1.journal");
        std::os::unix::fs::symlink("/dev/null", &journal).unwrap();
        for args in [&["query"][..], &["query", "--json", "--oldest-first"], &["tail"], &["stats"]] {
            let ran = run(path, args);
            assert_eq!(ran.code, 0);
            assert!(
                ran.err.starts_with("argus: pending records may be missing: ") && ran.err.lines().count() == 1,
                "{}",
                ran.err
            );
            assert!(!ran.out.is_empty());
        }
        assert!(run(path, &["verify"]).ok().contains("\npending: 1 unreadable journals\n"));
        assert_eq!(json(path, &["query", "--no-pending"]).len(), records(path).len());
    }
}
