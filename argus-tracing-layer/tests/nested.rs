//! Events inside the fields of other events. Only under a global default does `tracing` hand over those that a `Debug` logs, so this file has no other subscriber.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::fmt;
use std::sync::OnceLock;
use std::time::Instant;

use argus_core::AuditSink;
use serde_json::{Value, json};
use support::{SOON, Trail};
use tracing::{info, info_span};
use tracing_subscriber::prelude::*;

/// The trail under the global subscriber.
fn trail() -> &'static Trail {
    static TRAIL: OnceLock<Trail> = OnceLock::new();
    TRAIL.get_or_init(|| {
        let trail = Trail::new();
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(trail.layer())).unwrap();
        trail
    })
}

/// The records so far whose context has this member `test`.
fn records(test: &str) -> Vec<Value> {
    trail().logger.flush(SOON).unwrap();
    let lines = trail().memory.lines().into_iter().map(|l| serde_json::from_str::<Value>(&l).unwrap());
    lines.filter(|r| r["context"]["test"] == test).collect()
}

fn names(test: &str) -> Vec<String> {
    records(test).iter().map(|r| r["event"].as_str().unwrap().to_owned()).collect()
}

/// How many losses of that reason the gap records tell of, once they tell of `at_least`.
fn lost(reason: &str, at_least: u64) -> u64 {
    let until = Instant::now() + SOON;
    loop {
        let lines = trail().memory.lines().into_iter().map(|l| serde_json::from_str::<Value>(&l).unwrap());
        let gaps = lines.filter(|r| r["event"] == "audit_gap" && r["context"]["reason"] == reason);
        let count = gaps.map(|r| r["context"]["count"].as_u64().unwrap()).sum();
        if count >= at_least || Instant::now() > until {
            return count;
        }
        std::thread::yield_now();
    }
}

#[test]
fn in_a_field_expression() {
    trail();
    info!(
        audit.event = "outer",
        test = "expression",
        n = {
            info!(audit.event = "inner", test = "expression");
            1
        }
    );
    assert_eq!(names("expression"), ["inner", "outer"]);
}

struct Logs(&'static str);
impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        info!("an ordinary event");
        info!(audit.event = "inner", test = self.0, inner = 1);
        f.write_str("formatted")
    }
}

#[test]
fn in_the_debug_of_a_field() {
    trail();
    info!(audit.event = "outer", test = "debug", before = 1, value = ?Logs("debug"), after = 2);
    let records = records("debug");
    // Neither takes the other's fields.
    assert_eq!(records[0]["context"], json!({"test": "debug", "inner": 1}));
    assert_eq!(records[1]["context"], json!({"test": "debug", "before": 1, "value": "formatted", "after": 2}));
    assert_eq!(records.len(), 2);
}

#[test]
fn in_the_debug_of_a_spans_field() {
    trail();
    let span = info_span!("span", audit.actor = ?Logs("span"), audit.action = tracing::field::Empty).entered();
    span.record("audit.action", tracing::field::debug(Logs("span")));
    info!(audit.event = "outer", test = "span");
    let records = records("span");
    let inherited =
        |r: &Value| [&r["event"], &r["actor_id"], &r["action"]].map(|v| v.as_str().unwrap_or("-").to_owned());
    assert_eq!(inherited(&records[0]), ["inner", "-", "-"], "the span is only being made");
    assert_eq!(inherited(&records[1]), ["inner", "formatted", "-"]);
    assert_eq!(inherited(&records[2]), ["outer", "formatted", "formatted"]);
}

struct Endless;
impl fmt::Debug for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        info!(audit.event = "endless", test = "endless", value = ?Endless);
        f.write_str("formatted")
    }
}

#[test]
fn without_end() {
    trail();
    for round in 1..=3 {
        info!(audit.event = "endless", test = "endless", value = ?Endless);
        // Four deep; the fifth is not looked into, and counted.
        assert_eq!(names("endless").len(), 4 * round);
        assert_eq!(lost("encode_failed", round as u64), round as u64);
    }
}

struct LogsAndPanics;
impl fmt::Debug for LogsAndPanics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        info!(audit.event = "inner", test = "panic");
        panic!("a Debug that panics, on purpose")
    }
}

#[test]
fn in_a_debug_that_panics() {
    trail();
    for _ in 0..5 {
        info!(audit.event = "outer", test = "panic", value = ?LogsAndPanics);
    }
    info!(audit.event = "outer", test = "panic");
    assert_eq!(names("panic"), ["inner", "inner", "inner", "inner", "inner", "outer"]);
    assert_eq!(lost("panicked", 5), 5);
}
