//! `filtered()`: the same records as the plain layer, callsites that rest, and each caveat of its documentation.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use argus_core::AuditSink;
use argus_tracing_layer::audit_security;
use serde_json::{Value, json};
use support::Trail;
use tracing::subscriber::with_default;
use tracing::{Level, Span, debug, debug_span, info, info_span, trace};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Callsites are shared: one subscriber at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn printed() -> impl Layer<Registry> {
    fmt::layer().with_writer(std::io::sink).with_filter(LevelFilter::WARN)
}

fn load() {
    let outer = info_span!("outer", audit.actor = "jane", tenant = "t1", other = 1).entered();
    debug!(audit.event = "debug", n = 1);
    info!("foreign");
    let plain = debug_span!("plain").entered();
    trace!(target: "audit::by_target", "said");
    info!(audit.event = "vetoed", audit = false);
    drop(plain);
    outer.record("tenant", "t2");
    info!(parent: &*outer, audit.event = "explicit");
    info!(parent: None, audit.event = "root");
    let allowed = debug_span!("allowed", tenant = "t3");
    info!(parent: &allowed, audit.event = "by_allowed");
    audit_security!("macro", audit.outcome = "failure");
}

/// What a record says, without what differs between two trails.
fn said(trail: &Trail) -> Vec<[Value; 5]> {
    let fields = ["event", "level", "actor_id", "outcome", "context"];
    trail.records().iter().map(|r| fields.map(|f| r.get(f).cloned().unwrap_or_default())).collect()
}

#[test]
fn the_records_are_those_of_the_plain_layer() {
    let _alone = alone();
    let plain = Trail::new();
    with_default(Registry::default().with(printed()).with(plain.layer().with_span_fields(["tenant"])), load);
    let plain = said(&plain);
    assert_eq!(plain.len(), 6);
    let trail = Trail::new();
    with_default(Registry::default().with(printed()).with(trail.layer().with_span_fields(["tenant"]).filtered()), load);
    assert_eq!(said(&trail), plain);
    let trail = Trail::new();
    with_default(Registry::default().with(trail.layer().with_span_fields(["tenant"]).filtered().boxed()), load);
    assert_eq!(said(&trail), plain);
    let trail = Trail::new();
    let audit = trail.layer().with_span_fields(["tenant"]).filtered();
    with_default(Registry::default().with(audit).with(printed_on_top()).with(EnvFilter::new("trace")), load);
    assert_eq!(said(&trail), plain);
}

#[test]
fn optional_and_in_a_list() {
    let _alone = alone();
    let trail = Trail::new();
    let layer = Some(trail.layer().with_span_fields(["tenant"]).filtered());
    with_default(Registry::default().with(printed()).with(layer), load);
    let list = Trail::new();
    let layers = vec![printed().boxed(), list.layer().with_span_fields(["tenant"]).filtered().boxed()];
    with_default(Registry::default().with(layers), load);
    assert_eq!(said(&trail).len(), 6);
    assert_eq!(said(&trail), said(&list));
}

fn printed_on_top<S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>>() -> impl Layer<S> {
    fmt::layer().with_writer(std::io::sink)
}

#[test]
fn what_nobody_wants_rests() {
    let _alone = alone();
    let trail = Trail::new();
    // Only formatted if somebody wants the event.
    let costly = || -> u8 { panic!("not asked for") };
    with_default(Registry::default().with(printed()).with(trail.layer().filtered()), || {
        debug!(n = costly(), "a field expression of an event that nobody wants");
        let span = debug_span!("plain", n = costly());
        assert!(span.is_disabled());
        assert!(!tracing::enabled!(Level::DEBUG));
        // What the trail may want is alive.
        assert!(!debug_span!("tagged", audit.actor = "jane").is_disabled());
        assert!(tracing::enabled!(target: "audit", Level::DEBUG));
    });
    // The plain layer keeps them alive.
    with_default(Registry::default().with(printed()).with(trail.layer()), || {
        assert!(!debug_span!("plain").is_disabled());
        assert!(tracing::enabled!(Level::DEBUG));
    });
    assert!(trail.logger.health().is_ok());
}

/// Caveat: what is set after `filtered()` is unknown to the filter, so `with_span_fields` cannot be: it is no method of what `filtered()` gives.
#[test]
fn span_fields_that_are_allowed_before_keep_their_span() {
    let _alone = alone();
    let trail = Trail::new();
    with_default(Registry::default().with(trail.layer().with_span_fields(["tenant"]).filtered()), || {
        assert!(!debug_span!("allowed", tenant = "t1").is_disabled());
        assert!(debug_span!("not_allowed", other = 1).is_disabled());
        debug_span!("allowed", tenant = "t1").in_scope(|| info!(audit.event = "e"));
    });
    assert_eq!(trail.one("e")["context"], json!({"tenant": "t1"}));
}

/// Caveat: spans that nobody wants do not exist, so they are nobody's parent; their tagged parents are found all the same.
#[test]
fn through_spans_that_do_not_exist() {
    let _alone = alone();
    let trail = Trail::new();
    with_default(Registry::default().with(printed()).with(trail.layer().filtered()), || {
        let _outer = info_span!("outer", audit.actor = "jane").entered();
        let _plain = debug_span!("plain").entered();
        info!(audit.event = "inside");
        info!(parent: Span::current(), audit.event = "of_current");
    });
    assert_eq!(trail.one("inside")["actor_id"], "jane");
    assert_eq!(trail.one("of_current")["actor_id"], "jane");
}

/// Caveat: an `EnvFilter` keeps to a span directive that is quieter than its span only while nobody has it asked anew, and filters of single layers do.
#[test]
fn a_span_directive_that_is_quieter_than_its_span() {
    let _alone = alone();
    let made = |audit: Option<Box<dyn Layer<Registry> + Send + Sync>>| {
        let filter = EnvFilter::new("error,db=trace,[request]=warn");
        with_default(Registry::default().with(audit).with(filter), || !info_span!("request").is_disabled())
    };
    let trail = Trail::new();
    assert!(made(None));
    assert!(!made(Some(trail.layer().filtered().boxed())), "told of in the documentation");
    // As verbose as its span, it stands.
    let filter = EnvFilter::new("error,db=trace,[request]=info");
    with_default(Registry::default().with(trail.layer().filtered()).with(filter), || {
        assert!(!info_span!("request").is_disabled());
    });
}

/// Caveat: 64 filters of single layers are the most a subscriber has.
#[test]
fn the_sixty_fifth_filter_is_refused_by_tracing_subscriber() {
    let _alone = alone();
    let trail = Trail::new();
    let filters = |n: usize| (0..n).map(|_| fmt::layer().with_filter(LevelFilter::OFF).boxed()).collect::<Vec<_>>();
    with_default(Registry::default().with(filters(63)).with(trail.layer().filtered()), || info!(audit.event = "e"));
    assert_eq!(trail.names(), ["e"]);
    let too_many =
        std::panic::catch_unwind(|| Registry::default().with(filters(64)).with(Trail::new().layer().filtered()));
    assert!(too_many.is_err());
}

/// Caveat: `reload` tells a filtered layer nothing of its registry; put in at the start it works, and `tracing-subscriber` panics where it is put in later.
#[test]
fn reload_of_a_filtered_layer_is_refused_by_tracing_subscriber() {
    let _alone = alone();
    let trail = Trail::new();
    let (layer, handle) = reload::Layer::new(trail.layer().filtered());
    with_default(Registry::default().with(layer), || {
        info!(audit.event = "before");
        let reloaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            handle.reload(trail.layer().filtered()).unwrap();
            info!(audit.event = "after");
        }));
        assert!(reloaded.is_err());
    });
    assert_eq!(trail.names(), ["before"]);
}

#[cfg(feature = "otel")]
#[test]
fn explicit_parents_that_only_opentelemetry_wants_have_their_ids() {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    let _alone = alone();
    let trail = Trail::new();
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("t")).with_filter(LevelFilter::INFO);
    with_default(Registry::default().with(otel).with(trail.layer().filtered()), || {
        let other = info_span!("other");
        info_span!("current").in_scope(|| {
            info!(parent: &other, audit.event = "explicit");
            info!(audit.event = "contextual");
        });
    });
    let spans = exporter.get_finished_spans().unwrap();
    for (event, span) in [("explicit", "other"), ("contextual", "current")] {
        let span = spans.iter().find(|s| s.name == span).unwrap();
        assert_eq!(trail.one(event)["span_id"], span.span_context.span_id().to_string());
    }
}
