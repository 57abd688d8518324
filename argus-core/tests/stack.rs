//! `include_stack` on both stores: the caller is named, Argus is not, and both verifiers accept the record.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use argus_core::AuditSink;
use argus_core::{
    AuditConfig, AuditEvent, AuditLogger, AuditSinkExt, Carrier, CommitObserver, Interest, MemoryTrail, Receipt, Record,
};
use common::{Dir, WAIT, assert_ok, close, records};

#[inline(never)]
fn the_innermost_caller(logger: &AuditLogger, text: &str) {
    logger.log(AuditEvent::info("asked").with("text", text)).unwrap();
    std::hint::black_box(());
}

#[inline(never)]
fn the_outer_caller(logger: &AuditLogger, text: &str) {
    ["once"].iter().for_each(|_| the_innermost_caller(logger, text));
    std::hint::black_box(());
}

#[inline(never)]
fn deep(logger: &AuditLogger, n: usize) {
    match n {
        0 => the_innermost_caller(logger, ""),
        n => deep(logger, n - 1),
    }
    std::hint::black_box(());
}

fn asked(records: Vec<Record>) -> Vec<Record> {
    records.into_iter().filter(|r| r.event == "asked").collect()
}

#[test]
fn the_caller_is_named_and_both_verifiers_agree() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = AuditLogger::open(AuditConfig::new(&path).include_stack(true)).unwrap();
        the_outer_caller(&logger, "");
        the_outer_caller(&logger, "again");
        deep(&logger, 200);
        close(&logger);
        let (all, asked) = (records(&path), asked(records(&path)));
        let stack = asked[0].stack.as_deref().unwrap();
        let lines: Vec<_> = stack.lines().collect();
        assert!(lines[0].contains("the_innermost_caller") && lines[0].contains("stack.rs:"), "{stack}");
        assert!(
            lines.iter().any(|l| l.strip_prefix("stack::").unwrap_or(l).starts_with("the_outer_caller (")),
            "{stack}"
        );
        for theirs in ["argus_core::", "backtrace", "__rust_begin_short_backtrace", "_start"] {
            assert!(!stack.contains(theirs), "{theirs}: {stack}");
        }
        // The same way by other lines.
        assert_eq!(asked[1].stack.as_deref().unwrap().lines().next(), Some(lines[0]));
        // Cut, and the innermost stay.
        let deep = asked[2].stack.as_deref().unwrap();
        assert!(
            deep.lines().count() <= 32 && deep.lines().next().is_some_and(|l| l.contains("the_innermost_caller")),
            "{deep}"
        );
        // Argus's own records have none.
        assert!(all.iter().filter(|r| r.event != "asked").all(|r| r.stack.is_none()));
        assert_ok(&path);
        if let Some((code, said)) = argus_testkit::verify_with_python(&path) {
            assert_eq!(code, 0, "{said}");
        }
    }
}

#[test]
fn without_the_setting_there_is_no_stack() {
    let dir = Dir::new();
    let path = dir.path("t.jsonl");
    let logger = common::open(&path);
    the_outer_caller(&logger, "");
    close(&logger);
    assert_eq!(asked(records(&path))[0].stack, None);
}

/// What fits without a stack is recorded, and what fits with one has it.
#[test]
fn a_stack_makes_no_record_too_large() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = AuditLogger::open(AuditConfig::new(&path).include_stack(true)).unwrap();
        the_outer_caller(&logger, &"x".repeat(253 << 10));
        the_outer_caller(&logger, &"x".repeat(240 << 10));
        close(&logger);
        let asked = asked(records(&path));
        assert_eq!(asked.iter().map(|r| r.stack.is_some()).collect::<Vec<_>>(), [false, true]);
        assert_ok(&path);
    }
}

/// An observer hears the stack that is stored.
#[test]
fn an_observer_gets_the_same_stack() {
    struct Hear(std::sync::mpsc::Sender<Option<String>>);
    impl CommitObserver for Hear {
        fn interest(&self) -> Interest {
            Interest::All
        }
        fn committed(&self, record: &Record, _: &Receipt, _: &Carrier<'_>) {
            if record.event == "asked" {
                let _ = self.0.send(record.stack.clone());
            }
        }
    }
    let trail = MemoryTrail::new();
    let logger = AuditLogger::open_in_memory(AuditConfig::default().include_stack(true), &trail).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    logger.subscribe(std::sync::Arc::new(Hear(tell))).unwrap();
    the_outer_caller(&logger, "");
    let heard = told.recv_timeout(WAIT).unwrap();
    assert!(heard.is_some());
    close(&logger);
    let line = trail.lines().into_iter().find(|l| l.contains("asked")).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["stack"].as_str(), heard.as_deref());
}
