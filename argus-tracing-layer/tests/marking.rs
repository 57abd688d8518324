//! Which events become records, and which never do.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use serde_json::json;
use support::{Trail, record};
use tracing::{Level, debug, error, event, info, info_span, trace, warn};

/// The names of the records that `f` makes.
fn names(f: impl FnOnce()) -> Vec<String> {
    let trail = Trail::new();
    trail.run(f);
    trail.names()
}

#[test]
fn ordinary_events_and_spans_are_no_records() {
    let made = names(|| {
        trace!("fine");
        debug!(target: "auditor", "a target that only begins alike");
        info!(target: "audit_log", "another");
        info!(target: "audit:x", "another");
        info!(target: "my::audit", "another");
        warn!(auditor = true, audited = 1, "fields that only begin alike");
        error!(message = "audit", kind = "audit.event");
        // A span is no event, whatever its fields.
        let _span = info_span!(target: "audit", "span", audit = true, audit.event = "span").entered();
        info!("inside it");
    });
    assert!(made.is_empty(), "{made:?}");
}

#[test]
fn a_field_marks() {
    let made = names(|| {
        info!(audit = true, "by `audit`");
        info!(audit = 1, "whatever its value");
        info!(audit = "yes", "whatever its value");
        info!(audit = tracing::field::Empty, "or none at all");
        info!(audit.actor = "jane", "by a reserved field");
        trace!(audit.anything = 3, "by any other that begins so");
        debug!(audit.event = "named");
    });
    assert_eq!(made, ["event", "event", "event", "event", "event", "event", "named"]);
}

#[test]
fn a_target_marks() {
    let made = names(|| {
        info!(target: "audit", "plain");
        trace!(target: "audit::", "nothing after");
        info!(target: "audit::login", "named by its target");
        info!(target: "audit::db::drop", "as deep as it is");
    });
    assert_eq!(made, ["event", "event", "login", "db::drop"]);
}

#[test]
fn false_takes_an_event_out() {
    fn ask(audit: bool) {
        info!(audit, audit.event = "asked");
    }
    let made = names(|| {
        info!(audit = false, audit.event = "vetoed");
        info!(target: "audit", audit = false, "vetoed");
        // The value of each event decides, not the callsite.
        ask(true);
        ask(false);
        ask(true);
        // Only the boolean: a text is no veto.
        info!(audit = "false", audit.event = "text");
        info!(audit = 0, audit.event = "number");
    });
    assert_eq!(made, ["asked", "asked", "text", "number"]);
}

#[test]
fn the_mark_itself_is_no_context() {
    assert_eq!(record(|| info!(audit = true, a = 1))["context"], json!({"a": 1}));
    // A value that says something is kept.
    assert_eq!(record(|| info!(audit = "login"))["context"], json!({"audit": "login"}));
}

#[test]
fn many_callsites_keep_their_own_verdict() {
    // More callsites than the table of verdicts has places, so that they push each other out.
    macro_rules! both {
        ($($n:literal)*) => {{ $(info!(audit.event = concat!("e", $n)); info!(n = $n, "foreign");)* }};
    }
    macro_rules! tens {
        ($($n:literal)*) => {{ $(both!($n "0" "1" "2" "3" "4" "5" "6" "7" "8" "9");)* }};
    }
    let trail = Trail::new();
    let load = || tens!("a" "b" "c" "d" "e" "f" "g" "h" "i" "j" "k" "l" "m" "n" "o" "p" "q" "r" "s" "t" "u" "v" "w");
    trail.run(|| {
        load();
        load();
        std::thread::scope(|s| s.spawn(load).join().unwrap());
    });
    // The other thread has no subscriber.
    assert_eq!(trail.records().len(), 2 * 23 * 11);
}

#[test]
fn a_bridged_log_record_is_judged_by_its_own_target() {
    // What `tracing-log` makes of a record of the `log` crate.
    macro_rules! bridged {
        ($target:expr) => {
            event!(
                name: "log event",
                target: "log",
                Level::WARN,
                message = "hello",
                log.target = $target,
                log.module_path = "shop::login",
                log.file = "src/login.rs",
                log.line = 7
            )
        };
    }
    let made = names(|| {
        bridged!("shop::login");
        bridged!("auditor");
        bridged!("audit");
        bridged!("audit::login");
    });
    assert_eq!(made, ["event", "login"]);
    let line = record(|| bridged!("audit::login"));
    assert_eq!((&line["level"], &line["context"]), (&"WARN".into(), &json!({"message": "hello"})));
    // Not the bridge, only a target of that name.
    assert!(names(|| info!(target: "log", "audit")).is_empty());
}
