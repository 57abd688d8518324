//! Where the trace ids of an event are hard to come by: other threads and tasks, spans of another subscriber, a layer behind `reload`.
#![cfg(feature = "otel")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use argus_core::AuditSink;
use opentelemetry::trace::{FutureExt, TraceContextExt};
use support::Trail;
use support::otel::{Otel, ids};
use tracing::{Dispatch, Instrument, dispatcher, info, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, reload};

/// Hazard C4: another thread or task has no span but the one it is given, never a wrong one.
#[test]
fn other_threads_and_tasks() {
    let (trail, otel) = (Trail::new(), Otel::new());
    let dispatch = Dispatch::new(Registry::default().with(trail.layer()).with(otel.layer()));
    dispatcher::with_default(&dispatch, || {
        let request = info_span!("request");
        let _entered = request.enter();
        let context = request.context();
        std::thread::scope(|s| {
            s.spawn(|| dispatcher::with_default(&dispatch, || info!(audit.event = "bare_thread")));
            s.spawn(|| {
                dispatcher::with_default(&dispatch, || request.in_scope(|| info!(audit.event = "with_its_span")))
            });
            s.spawn(|| {
                let _attached = context.clone().attach();
                dispatcher::with_default(&dispatch, || info!(audit.event = "with_its_context"));
            });
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let on = |event: &'static str| {
            let dispatch = dispatch.clone();
            async move { dispatcher::with_default(&dispatch, || info!(audit.event = event)) }
        };
        runtime.block_on(async {
            tokio::spawn(on("bare_task")).await.unwrap();
            tokio::spawn(on("task_with_its_context").with_context(context)).await.unwrap();
        });
        let within = async {
            tokio::task::yield_now().await;
            info!(audit.event = "task_with_its_span");
        };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(within.instrument(info_span!("task")));
    });
    let request = otel.ids("request");
    for event in ["with_its_span", "with_its_context", "task_with_its_context"] {
        assert_eq!(ids(&trail, event), request, "{event}");
    }
    assert_eq!(ids(&trail, "task_with_its_span"), otel.ids("task"));
    for event in ["bare_thread", "bare_task"] {
        assert_eq!(ids(&trail, event), None, "{event}");
    }
}

/// Hazard C2: asking `tracing-opentelemetry` for a span that its registry does not know is a panic there; the layer asks only for those it knows.
#[test]
fn a_parent_of_another_subscriber() {
    let (outer, inner) = ((Trail::new(), Otel::new()), (Trail::new(), Otel::new()));
    let of = |(trail, otel): &(Trail, Otel)| Dispatch::new(Registry::default().with(trail.layer()).with(otel.layer()));
    let (first, second) = (of(&outer), of(&inner));
    let span = dispatcher::with_default(&first, || info_span!("outer"));
    // Ids count up: many spans of the first are unknown to the second.
    let many: Vec<_> = dispatcher::with_default(&first, || (0..50).map(|_| info_span!("more")).collect());
    dispatcher::with_default(&second, || info!(parent: many[49].id(), audit.event = "foreign"));
    dispatcher::with_default(&first, || info!(parent: &span, audit.event = "own"));
    drop((span, many));
    assert_eq!(ids(&inner.0, "foreign"), None);
    assert_eq!(ids(&outer.0, "own"), outer.1.ids("outer"));
    assert!(inner.0.logger.health().is_ok(), "no panic was counted");
}

/// Hazards C1 and C2: behind `reload`, `tracing-opentelemetry` cannot be asked; the active context needs no asking.
#[test]
fn behind_reload() {
    let (trail, otel) = (Trail::new(), Otel::new());
    let (layer, _handle) = reload::Layer::new(otel.layer());
    let dispatch = Dispatch::new(Registry::default().with(layer).with(trail.layer()));
    dispatcher::with_default(&dispatch, || {
        let other = info_span!("other");
        info_span!("request").in_scope(|| {
            info!(audit.event = "contextual");
            info!(parent: &other, audit.event = "explicit");
        });
    });
    assert_eq!(ids(&trail, "contextual"), otel.ids("request"));
    // No id rather than that of the span that happens to be entered.
    assert_eq!(ids(&trail, "explicit"), None);
    assert!(trail.logger.health().is_ok());
}

/// A context that is no span of anybody gives no ids.
#[test]
fn a_context_without_a_span() {
    let (trail, otel) = (Trail::new(), Otel::new());
    let dispatch = Dispatch::new(Registry::default().with(trail.layer()).with(otel.layer()));
    dispatcher::with_default(&dispatch, || {
        let _attached = opentelemetry::Context::new().with_value(7u8).attach();
        assert!(!opentelemetry::Context::current().has_active_span());
        info!(audit.event = "e");
    });
    assert_eq!(ids(&trail, "e"), None);
}
