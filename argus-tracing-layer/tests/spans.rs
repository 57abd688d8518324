//! What events inherit from their spans: tagged or allowed fields only, the innermost first, also those recorded later and through explicit parents.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::fmt;

use argus_core::AuditSink;
use serde_json::json;
use support::{Trail, record};
use tracing::field::Empty;
use tracing::subscriber::with_default;
use tracing::{info, info_span};
use tracing_subscriber::prelude::*;

#[tracing::instrument(fields(audit.component = "gate"))]
fn login(user: &str, password: &str) {
    info!(audit.event = "login", n = user.len() + password.len());
}

#[test]
fn arguments_of_instrumented_functions_stay_out() {
    let line = record(|| login("jane", "hunter2"));
    assert_eq!((&line["component"], &line["context"]), (&json!("gate"), &json!({"n": 11})));
    assert!(!line.to_string().contains("jane") && !line.to_string().contains("hunter2"));
}

#[test]
fn allowed_fields_are_inherited_with_their_type() {
    let trail = Trail::new();
    let layer = trail.layer().with_span_fields(["tenant", "attempt"]).with_span_fields(vec![String::from("ratio")]);
    with_default(tracing_subscriber::registry().with(layer), || {
        let _span =
            info_span!("request", tenant = "t1", attempt = 3, ratio = 0.5, audit.ticket = true, other = 1).entered();
        info!(audit.event = "e", own = 1);
    });
    assert_eq!(
        trail.one("e")["context"],
        json!({"own": 1, "tenant": "t1", "attempt": 3, "ratio": 0.5, "audit.ticket": true})
    );
}

#[test]
fn the_event_goes_before_its_span_and_the_inner_span_before_the_outer() {
    let line = record(|| {
        let _outer =
            info_span!("outer", audit.actor = "outer", audit.component = "outer", audit.action = "outer").entered();
        let _plain = info_span!("plain", actor = "nobody").entered();
        let _inner = info_span!("inner", audit.actor = "inner", audit.component = "inner").entered();
        info!(audit.actor = "event");
    });
    assert_eq!(
        (&line["actor_id"], &line["component"], &line["action"]),
        (&json!("event"), &json!("inner"), &json!("outer"))
    );
}

#[test]
fn a_span_can_name_and_raise_but_not_mark_or_veto() {
    let trail = Trail::new();
    let layer = trail.layer().with_span_fields(["audit"]);
    with_default(tracing_subscriber::registry().with(layer), || {
        let _span = info_span!("span", audit = false, audit.event = "named", audit.level = "SECURITY").entered();
        info!("no event of the trail");
        info!(audit = true);
    });
    let line = trail.one("named");
    assert_eq!((&line["level"], &line["context"]), (&json!("SECURITY"), &json!({})));
    assert_eq!(trail.records().len(), 1);
}

#[test]
fn only_the_spans_that_are_entered_count() {
    let line = record(|| {
        let before = info_span!("before", audit.actor = "before");
        before.in_scope(|| {});
        let _sibling = info_span!("sibling", audit.action = "sibling");
        drop(before);
        info!(audit = true);
    });
    assert_eq!((line.get("actor_id"), line.get("action")), (None, None));
}

#[test]
fn fields_recorded_later_count_from_then_on() {
    let trail = Trail::new();
    trail.run(|| {
        let span =
            info_span!("request", audit.actor = Empty, audit.action = "asked", audit.new_value = Empty).entered();
        info!(audit.event = "before");
        span.record("audit.actor", "jane");
        info!(audit.event = "after");
        span.record("audit.action", "done");
        span.record("audit.new_value", 7);
        // A field the span does not have is none.
        span.record("audit.component", "none");
        info!(audit.event = "again");
        span.record("audit.actor", "joe");
        info!(audit.event = "changed");
    });
    let seen = |event: &str| {
        let r = trail.one(event);
        [&r["actor_id"], &r["action"], &r["new_value"], &r["component"]]
            .map(|v| v.as_str().map_or(v.to_string(), Into::into))
    };
    assert_eq!(seen("before"), ["null", "asked", "null", "argus"]);
    assert_eq!(seen("after"), ["jane", "asked", "null", "argus"]);
    assert_eq!(seen("again"), ["jane", "done", "7", "argus"]);
    assert_eq!(seen("changed"), ["joe", "done", "7", "argus"]);
}

#[test]
fn explicit_parents_are_followed_and_roots_have_none() {
    let trail = Trail::new();
    trail.run(|| {
        let other = info_span!("other", audit.actor = "other");
        let child = info_span!(parent: &other, "child", audit.action = "child");
        let _current = info_span!("current", audit.actor = "current").entered();
        info!(parent: &other, audit.event = "of_other");
        info!(parent: &child, audit.event = "of_child");
        info!(parent: child.id(), audit.event = "of_id");
        info!(parent: None, audit.event = "root");
        info!(audit.event = "contextual");
    });
    let actor = |event: &str| trail.one(event).get("actor_id").map(|a| a.as_str().unwrap().to_owned());
    assert_eq!(actor("of_other").as_deref(), Some("other"));
    assert_eq!(actor("of_child").as_deref(), Some("other"), "through the parent's parent");
    assert_eq!(trail.one("of_child")["action"], "child");
    assert_eq!(actor("of_id").as_deref(), Some("other"));
    assert_eq!(actor("root"), None);
    assert_eq!(actor("contextual").as_deref(), Some("current"));
}

struct Panics;
impl fmt::Debug for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a Debug that panics, on purpose")
    }
}

#[test]
fn a_span_field_that_panics_costs_itself_only() {
    let trail = Trail::new();
    trail.run(|| {
        let span = info_span!("span", audit.actor = ?Panics, audit.action = Empty).entered();
        info!(audit.event = "first");
        span.record("audit.action", "later");
        info!(audit.event = "second");
        span.record("audit.action", tracing::field::debug(Panics));
        info!(audit.event = "third");
    });
    assert_eq!(trail.names(), ["first", "second", "third"]);
    assert_eq!((trail.one("first").get("actor_id"), &trail.one("second")["action"]), (None, &json!("later")));
    assert_eq!(trail.one("third")["action"], "later");
    assert!(trail.logger.health().is_ok());
}

#[test]
fn spans_of_other_threads_are_known() {
    let trail = Trail::new();
    let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(trail.layer()));
    tracing::dispatcher::with_default(&dispatch, || {
        let span = info_span!("job", audit.actor = "scheduler");
        let dispatch = dispatch.clone();
        std::thread::spawn(move || {
            tracing::dispatcher::with_default(&dispatch, || span.in_scope(|| info!(audit.event = "ran")));
        })
        .join()
        .unwrap();
    });
    assert_eq!(trail.one("ran")["actor_id"], "scheduler");
}
