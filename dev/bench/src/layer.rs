//! What the layer costs an event: one that is not for the trail, one that nobody wants, and one that becomes a record.

use std::hint::black_box;
use std::time::Duration;

use argus_core::{AuditLogger, AuditSink, audit};
use argus_tracing_layer::AuditLayer;
use tracing::subscriber::with_default;
use tracing::{Dispatch, Subscriber, dispatcher};
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::accept::logger;
use crate::row::{CALLS, RUNS, Row, interleaved, p50};

/// Hears everything and does nothing.
struct Empty;
impl<S: Subscriber> Layer<S> for Empty {}

/// `fmt` as services have it: of all that happens it prints warnings.
fn printed<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    fmt::layer().with_writer(std::io::sink).with_filter(LevelFilter::WARN)
}

fn foreign() {
    tracing::info!(user = black_box("jane"), status = 200, path = "/orders", "request");
}

fn disabled_event() {
    tracing::debug!(user = black_box("jane"), status = 200, path = "/orders", "request");
}

fn disabled_span() {
    let _span = tracing::debug_span!("request", user = black_box("jane"), status = 200).entered();
}

/// Median of `call` in the stack that `ours` makes around a layer, and in that of `floor`. Each run has its own subscriber: while two live, `tracing` keeps one answer
/// for both.
fn stacks(call: fn(), ours: impl Fn(AuditLayer<AuditLogger>) -> Dispatch, floor: impl Fn() -> Dispatch) -> (f64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, true);
    let run = |d: Dispatch| dispatcher::with_default(&d, || p50(call));
    interleaved(RUNS, || run(ours(AuditLayer::new(logger.clone()))), || run(floor()))
}

fn row(what: &'static str, aim: &'static str, (ours, floor): (f64, f64)) -> Row {
    Row { name: "", what, unit: "ns", ours, floor, aim, runs: RUNS }
}

fn over_registry(audit: AuditLayer<AuditLogger>) -> Dispatch {
    Dispatch::new(Registry::default().with(audit))
}

fn over_printed(audit: AuditLayer<AuditLogger>) -> Dispatch {
    Dispatch::new(Registry::default().with(printed()).with(audit))
}

fn filtered_over_printed(audit: AuditLayer<AuditLogger>) -> Dispatch {
    Dispatch::new(Registry::default().with(printed()).with(audit.filtered()))
}

fn only_printed() -> Dispatch {
    Dispatch::new(Registry::default().with(printed()))
}

pub(crate) fn foreign_event() -> Row {
    row(
        "an event that is not for the trail, the layer over a bare registry; floor: an empty layer",
        "<= 1.2 x",
        stacks(foreign, over_registry, || Dispatch::new(Registry::default().with(Empty))),
    )
}

/// What nobody wants, beside `fmt` with a WARN filter of its own.
fn unwanted(what: &'static str, call: fn(), ours: fn(AuditLayer<AuditLogger>) -> Dispatch) -> Row {
    row(what, "reported", stacks(call, ours, only_printed))
}

pub(crate) fn disabled() -> Row {
    let what =
        "an event that nobody wants, the layer over `fmt` with a WARN filter of its own; floor: without the layer";
    unwanted(what, disabled_event, over_printed)
}

pub(crate) fn disabled_filtered() -> Row {
    unwanted("the same, `filtered()`", disabled_event, filtered_over_printed)
}

pub(crate) fn span() -> Row {
    unwanted("a span that nobody wants, made, entered and closed, likewise", disabled_span, over_printed)
}

pub(crate) fn span_filtered() -> Row {
    unwanted("the same, `filtered()`", disabled_span, filtered_over_printed)
}

fn audit_event() {
    tracing::info!(
        audit.event = "request",
        user = black_box("jane"),
        status = 200,
        path = "/orders",
        attempt = 1,
        cached = false
    );
}

/// Median of an audit event of 5 fields through the layer, and of `other`.
fn audited(other: impl Fn(&AuditLogger) -> f64) -> (f64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, true);
    let flushed = |t: f64| {
        logger.flush(Duration::from_secs(60)).unwrap();
        t
    };
    let ours = || flushed(with_default(Registry::default().with(AuditLayer::new(logger.clone())), || p50(audit_event)));
    interleaved(RUNS, ours, || flushed(other(&logger)))
}

pub(crate) fn audit_over_log() -> Row {
    let log = |l: &AuditLogger| {
        p50(|| {
            let user = black_box("jane");
            let _ = black_box(audit!(
                l,
                Info,
                "request",
                user = user,
                status = 200,
                path = "/orders",
                attempt = 1,
                cached = false
            ));
        })
    };
    row(
        "an audit event of 5 fields through the layer, journal; floor column: `log` of the same record",
        "<= 3 x",
        audited(log),
    )
}

pub(crate) fn audit_beside_json() -> Row {
    let dir = tempfile::tempdir().unwrap();
    let json = |_: &AuditLogger| {
        let file = std::fs::File::create(dir.path().join("lines.json")).unwrap();
        // Its drop waits until all is written.
        let (writer, _guard) = NonBlockingBuilder::default().buffered_lines_limit(2 * CALLS).finish(file);
        let subscriber = fmt().json().with_writer(writer).finish();
        with_default(subscriber, || p50(audit_event))
    };
    row(
        "the same event; floor column: `tracing` with JSON `fmt` to tracing-appender's non-blocking writer",
        "(beside)",
        audited(json),
    )
}
