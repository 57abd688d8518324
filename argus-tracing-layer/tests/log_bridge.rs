//! Records of the `log` crate through the real bridge (`tracing-log`), and its question `enabled`, which no callsite keeps. The bridge is one for the process.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use argus_core::AuditSink;
use serde_json::json;
use support::Trail;
use tracing::info;
use tracing::subscriber::with_default;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// Callsites and the greatest level are shared: one subscriber at a time.
fn bridge() -> MutexGuard<'static, ()> {
    static BRIDGE: Mutex<bool> = Mutex::new(false);
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut is_there = BRIDGE.lock().unwrap_or_else(PoisonError::into_inner);
    if !std::mem::replace(&mut *is_there, true) {
        tracing_log::LogTracer::init().unwrap();
    }
    alone
}

fn records_of_log() {
    log::info!("ordinary");
    log::error!(target: "auditor", "a target that only begins alike");
    log::info!(target: "audit", "plain");
    log::warn!(target: "audit::login", "user {} came", "jane");
    log::error!(target: "audit::db::drop", "gone");
    log::trace!(target: "audit::fine", "as fine as it is");
}

#[test]
fn a_target_marks_and_nothing_else_of_the_bridge_is_kept() {
    let _alone = bridge();
    for filtered in [false, true] {
        let trail = Trail::new();
        let registry = Registry::default();
        if filtered {
            with_default(registry.with(trail.layer().filtered()), records_of_log);
        } else {
            with_default(registry.with(trail.layer()), records_of_log);
        }
        assert_eq!(trail.names(), ["event", "login", "db::drop", "fine"], "filtered: {filtered}");
        let line = trail.one("login");
        assert_eq!((&line["level"], &line["context"]), (&json!("WARN"), &json!({"message": "user jane came"})));
        assert_eq!(
            (&trail.one("db::drop")["level"], &trail.one("fine")["level"]),
            (&json!("CRITICAL"), &json!("INFO"))
        );
    }
}

#[test]
fn they_inherit_from_their_span_and_keep_to_filters_by_their_own_target() {
    let _alone = bridge();
    let trail = Trail::new();
    let filter = EnvFilter::new("off,audit=warn,log_bridge=info");
    with_default(Registry::default().with(trail.layer()).with(filter), || {
        let _span = tracing::info_span!("span", audit.actor = "jane").entered();
        records_of_log();
    });
    assert_eq!(trail.names(), ["login", "db::drop"]);
    assert_eq!(trail.one("login")["actor_id"], "jane");
}

const FILTER: &str = "db=debug,info";

fn printed() -> impl Layer<Registry> {
    fmt::layer().with_writer(std::io::sink).with_filter(EnvFilter::new(FILTER))
}

/// Asks as `log_enabled!` does, for a level that no filter here wants.
fn ask() -> bool {
    log::log_enabled!(target: "elsewhere", log::Level::Debug)
}

fn events_around_a_question() {
    info!(audit.event = "first");
    ask();
    info!(audit.event = "second");
    info!(audit.event = "third", asked = ask());
    info!(audit.event = "fourth");
    ask();
    let _span = tracing::info_span!("span", audit.actor = "jane").entered();
    info!(audit.event = "fifth");
}

/// tracing#2519, hazard B1: a question of the `log` crate leaves a refusal in the filters of single layers, and the next event finds it.
#[test]
fn a_question_of_log_swallows_no_audit_event() {
    let _alone = bridge();
    let all = ["first", "second", "third", "fourth", "fifth"];
    let check = |trail: &Trail, form: &str| {
        assert_eq!(trail.names(), all, "{form}");
        assert_eq!(trail.one("fifth")["actor_id"], "jane", "{form}: nor its span");
        assert!(trail.logger.health().is_ok());
    };
    let trail = Trail::new();
    with_default(Registry::default().with(printed()).with(trail.layer()), events_around_a_question);
    check(&trail, "plain");
    let trail = Trail::new();
    with_default(Registry::default().with(printed()).with(trail.layer().filtered()), events_around_a_question);
    check(&trail, "filtered");
    let trail = Trail::new();
    with_default(Registry::default().with(trail.layer().filtered()), events_around_a_question);
    check(&trail, "filtered, alone");

    // The control: any other filter on the layer does lose them, so the load is the one of the issue.
    let trail = Trail::new();
    let audit = trail.layer().with_filter(EnvFilter::new(FILTER));
    with_default(Registry::default().with(printed()).with(audit), events_around_a_question);
    assert_eq!(trail.names(), ["first", "fourth", "fifth"]);
}
