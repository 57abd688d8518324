//! `tail`: the last records, oldest first; `tail -f` shows each record that comes once, and ends well when it is told to.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use argus_core::{AuditEvent, AuditSinkExt};
use common::{Running, Signal, argus, both, close, fill, json, logger, records, run};
use serde_json::Value;

#[test]
fn the_last_records_oldest_first() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        let all: Vec<u64> = records(path).iter().filter_map(|r| r.seq).collect();
        let seqs = |args: &[&str]| json(path, args).iter().map(|v| v["seq"].as_u64().unwrap()).collect::<Vec<_>>();
        assert_eq!(seqs(&["tail", "-n", "3"]), all[all.len() - 3..]);
        assert_eq!(seqs(&["tail"]), all[all.len() - 10..], "the default is ten");
        assert_eq!(seqs(&["tail", "-n", "1000"]), all);
        assert_eq!(run(path, &["tail", "-n", "0"]).ok(), "");
    }
}

fn follow(path: &std::path::Path, args: &[&str]) -> Running {
    let mut c = argus(args);
    c.arg("--db").arg(path);
    Running::start(c)
}

#[test]
fn follow_shows_what_comes_once_and_ends_on_either_signal() {
    let (_t, paths) = both();
    for (path, signal) in paths.iter().zip([Signal::TERM, Signal::INT]) {
        fill(path);
        let known = records(path);
        let tail = follow(path, &["tail", "-f", "-n", "2", "--json"]);
        for r in &known[known.len() - 2..] {
            assert_eq!(tail.line(), r.to_jsonl());
        }
        // The writer comes and goes beside it.
        let mut shown = Vec::new();
        for round in ["first", "second"] {
            let log = logger(path, round);
            for i in 0..3 {
                log.log_durable(AuditEvent::info("came").with("i", i)).unwrap();
            }
            // While the trail is open, and when it is closed.
            shown.extend((0..4).map(|_| tail.line()));
            close(&log);
            shown.push(tail.line());
        }
        tail.signal(signal);
        assert_eq!(tail.end().ok(), "");
        let came: Vec<String> = records(path)[known.len()..].iter().map(|r| r.to_jsonl()).collect();
        assert_eq!(shown, came);
    }
}

#[test]
fn follow_filters() {
    let (_t, paths) = both();
    for path in &paths {
        fill(path);
        let tail = follow(path, &["tail", "-f", "--level", "security", "--json"]);
        let event = |line: String| serde_json::from_str::<Value>(&line).unwrap()["event"].as_str().unwrap().to_owned();
        assert_eq!(event(tail.line()), "login_denied");
        let log = logger(path, "more");
        for e in [AuditEvent::info("a"), AuditEvent::security("b"), AuditEvent::warn("c"), AuditEvent::security("d")] {
            log.log(e).unwrap();
        }
        assert_eq!((event(tail.line()), event(tail.line())), ("b".into(), "d".into()));
        close(&log);
        tail.signal(Signal::TERM);
        assert_eq!(tail.end().ok(), "");
    }
}
