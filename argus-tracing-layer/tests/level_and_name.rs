//! Level and name of a record, and in which order their sources count.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use argus_core::{AuditConfig, AuditSink};
use serde_json::json;
use support::{Trail, record};
use tracing::{Level, debug, error, event, info, trace, warn};

#[test]
fn the_level_of_the_event_decides() {
    assert_eq!(record(|| trace!(audit = true))["level"], "INFO");
    assert_eq!(record(|| debug!(audit = true))["level"], "INFO");
    assert_eq!(record(|| info!(audit = true))["level"], "INFO");
    assert_eq!(record(|| warn!(audit = true))["level"], "WARN");
    assert_eq!(record(|| error!(audit = true))["level"], "CRITICAL");
}

#[test]
fn the_level_field_goes_before_it() {
    assert_eq!(record(|| trace!(audit.level = "SECURITY"))["level"], "SECURITY");
    assert_eq!(record(|| error!(audit.level = "INFO"))["level"], "INFO");
    assert_eq!(record(|| info!(audit.level = "critical"))["level"], "CRITICAL");
    assert_eq!(record(|| info!(audit.level = %argus_core::Level::Warn))["level"], "WARN");
    assert_eq!(record(|| info!(audit.level = "Warn"))["context"], json!({}));
}

#[test]
fn a_level_that_is_none_is_kept_as_text() {
    let line = record(|| warn!(audit.level = "fatal"));
    assert_eq!((&line["level"], &line["context"]), (&json!("WARN"), &json!({"audit.level": "fatal"})));
    let line = record(|| warn!(audit.level = 3));
    assert_eq!((&line["level"], &line["context"]), (&json!("WARN"), &json!({"audit.level": "3"})));
}

#[test]
fn an_event_below_the_trails_level_is_filtered_not_lost() {
    let trail = Trail::with(AuditConfig::default().min_level(argus_core::Level::Critical));
    trail.run(|| {
        warn!(audit.event = "low");
        error!(audit.event = "high");
        // The level of the record counts, not that of the event.
        info!(audit.event = "raised", audit.level = "SECURITY");
        error!(audit.event = "lowered", audit.level = "INFO");
    });
    assert_eq!(trail.names(), ["high", "raised"]);
    assert!(trail.logger.health().is_ok() && trail.gaps().is_empty());
}

#[test]
fn the_name_field_then_the_explicit_name_then_the_target() {
    let name = |f: fn()| record(f)["event"].as_str().unwrap().to_owned();
    assert_eq!(name(|| event!(name: "explicit", target: "audit::target", Level::INFO, audit.event = "field")), "field");
    assert_eq!(name(|| info!(name: "explicit", target: "audit::target", "message")), "explicit");
    assert_eq!(name(|| info!(target: "audit::target", "message")), "target");
    assert_eq!(name(|| info!(target: "audit", "message")), "event");
    assert_eq!(name(|| info!(audit = true, "message")), "event");
    // An own target names nothing.
    assert_eq!(name(|| info!(target: "shop::audit::x", audit = true)), "event");
}

#[test]
fn the_name_field_is_text_of_any_type() {
    assert_eq!(record(|| info!(audit.event = %format_args!("a{}", 1)))["event"], "a1");
    assert_eq!(record(|| info!(audit.event = 7))["event"], "7");
    assert_eq!(record(|| info!(audit.event = String::from("owned")))["event"], "owned");
    // An empty one names nothing, and is not swallowed.
    let line = record(|| event!(name: "explicit", Level::INFO, audit.event = ""));
    assert_eq!((&line["event"], &line["context"]), (&json!("explicit"), &json!({"audit.event": ""})));
}

/// With `include_stack`, the layer and `tracing` are no part of the stack.
#[test]
fn the_stack_begins_where_the_event_is() {
    let trail = Trail::with(AuditConfig::default().include_stack(true));
    trail.run(|| info!(audit = true));
    let record = trail.one("event");
    let stack = record["stack"].as_str().unwrap();
    let first = stack.lines().next().unwrap();
    assert!(first.contains("level_and_name.rs:") && stack.contains("the_stack_begins_where_the_event_is"), "{stack}");
}
