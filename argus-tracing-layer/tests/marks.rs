//! What filters of single layers leave behind between two calls costs no audit event: nested events (tracing#3364) and questions inside field expressions.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use support::Trail;
use tracing::subscriber::with_default;
use tracing::{Level, debug, enabled, info, trace};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn printed() -> impl Layer<Registry> {
    fmt::layer().with_writer(std::io::sink).with_filter(LevelFilter::INFO)
}

fn foreign() -> u8 {
    debug!("fine");
    info!("coarse");
    1
}

fn nested() {
    info!(audit.event = "outer", n = foreign());
    debug!(audit.event = "outer_debug", n = foreign());
    info!(
        audit.event = "outer_of_audit",
        n = {
            debug!(audit.event = "inner_debug");
            info!(audit.event = "inner");
            1
        }
    );
    info!(audit.event = "asked", on = enabled!(Level::DEBUG), off = enabled!(target: "db", Level::TRACE));
    debug!(audit.event = "asked_debug", on = tracing::event_enabled!(Level::TRACE));
    // The other way round: what is around them is not for the trail.
    info!(
        n = {
            info!(audit.event = "within_foreign");
            1
        }
    );
    trace!(n = tracing::debug_span!("span", audit.actor = "jane").in_scope(foreign), "with a span inside");
    info!(audit.event = "last");
}

const ALL: [&str; 8] =
    ["outer", "outer_debug", "inner_debug", "inner", "outer_of_audit", "asked", "asked_debug", "within_foreign"];

fn all_and_last() -> Vec<&'static str> {
    ALL.into_iter().chain(["last"]).collect()
}

/// tracing#3364, hazard B1: an event inside another's field expression overwrites what a filter decided for the outer one.
#[test]
fn nested_events_and_questions_in_field_expressions() {
    let _alone = alone();
    let trail = Trail::new();
    with_default(Registry::default().with(printed()).with(trail.layer()), nested);
    assert_eq!(trail.names(), all_and_last(), "plain");
    let trail = Trail::new();
    with_default(Registry::default().with(printed()).with(trail.layer().filtered()), nested);
    assert_eq!(trail.names(), all_and_last(), "filtered");
    let trail = Trail::new();
    with_default(Registry::default().with(trail.layer().filtered()), nested);
    // Nobody wants what is around `within_foreign`, so its fields are not even computed.
    let but_one: Vec<_> = all_and_last().into_iter().filter(|e| *e != "within_foreign").collect();
    assert_eq!(trail.names(), but_one, "filtered, alone");
    let trail = Trail::new();
    let fmt = fmt::layer().with_writer(std::io::sink).with_filter(EnvFilter::new("warn,[span]=debug"));
    with_default(Registry::default().with(trail.layer().filtered()).with(fmt), nested);
    assert_eq!(trail.names(), all_and_last(), "filtered, beside a filter that asks");
}

/// The control: with a filter of the usual kind the outer event gets the verdict of the inner one.
#[test]
fn a_usual_filter_confuses_them() {
    let _alone = alone();
    let trail = Trail::new();
    let audit = trail.layer().with_filter(LevelFilter::INFO);
    with_default(Registry::default().with(audit).with(fmt::layer().with_writer(std::io::sink)), nested);
    let names = trail.names();
    assert_ne!(
        names,
        ["outer", "inner", "outer_of_audit", "asked", "within_foreign", "last"],
        "what INFO should let pass"
    );
}

/// Metadata decide, not what was decided before: an event that is not for the trail never gets in by a mark of another.
#[test]
fn nothing_foreign_gets_in() {
    let _alone = alone();
    for filtered in [false, true] {
        let trail = Trail::new();
        let load = || {
            for _ in 0..3 {
                info!(audit.event = "e", n = foreign());
                info!(n = foreign(), "foreign around foreign");
            }
        };
        if filtered {
            with_default(Registry::default().with(printed()).with(trail.layer().filtered()), load);
        } else {
            with_default(Registry::default().with(printed()).with(trail.layer()), load);
        }
        assert_eq!(trail.names(), ["e", "e", "e"]);
    }
}
