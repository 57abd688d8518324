//! A sampler or span processor that logs audit events: `tracing-opentelemetry` runs it under a lock, so nothing may be asked of it there.
#![cfg(feature = "otel")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::mpsc;
use std::time::Duration;

use opentelemetry::trace::{Link, SpanKind, TraceId, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SamplingResult, SdkTracerProvider, ShouldSample, Span, SpanData, SpanProcessor,
};
use support::{SOON, Trail};
use tracing::subscriber::with_default;
use tracing::{info, info_span};
use tracing_subscriber::prelude::*;

#[derive(Clone, Debug)]
struct Talks;

impl ShouldSample for Talks {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        info!(audit.event = "sampled", name);
        Sampler::AlwaysOn.should_sample(parent, trace, name, kind, attributes, links)
    }
}

impl SpanProcessor for Talks {
    fn on_start(&self, _: &mut Span, _: &Context) {
        info!(audit.event = "started");
    }
    fn on_end(&self, _: SpanData) {}
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Runs `load` on a thread of its own, under both orders of the layers.
fn ends(activation: bool, load: fn()) -> Vec<Trail> {
    let mut trails = Vec::new();
    for audit_first in [true, false] {
        let trail = Trail::new();
        let provider = SdkTracerProvider::builder().with_sampler(Talks).with_span_processor(Talks).build();
        let tracer = provider.tracer("test");
        let layer = trail.layer();
        let (done, finished) = mpsc::channel();
        std::thread::spawn(move || {
            let registry = tracing_subscriber::registry();
            if audit_first {
                let otel = tracing_opentelemetry::layer().with_tracer(tracer).with_context_activation(activation);
                with_default(registry.with(layer).with(otel), load);
            } else {
                let otel = tracing_opentelemetry::layer().with_tracer(tracer).with_context_activation(activation);
                with_default(registry.with(otel).with(layer), load);
            }
            done.send(()).unwrap();
        });
        finished.recv_timeout(SOON).expect("it waits for itself");
        trails.push(trail);
    }
    trails
}

fn spans_and_events() {
    let root = info_span!("root").entered();
    info!(audit.event = "inside");
    let child = info_span!("child");
    info!(parent: &child, audit.event = "explicit");
    child.in_scope(|| info!(audit.event = "deep"));
    drop(root);
}

#[test]
fn they_are_recorded_and_nothing_waits_for_itself() {
    for trail in ends(true, spans_and_events) {
        let names = trail.names();
        for event in ["sampled", "started", "inside", "explicit", "deep"] {
            assert!(names.iter().any(|n| n == event), "{event} in {names:?}");
        }
        // The span that is being sampled has no context yet.
        let first = trail.records().into_iter().find(|r| r["event"] == "sampled").unwrap();
        assert_eq!((&first["context"]["name"], first.get("span_id")), (&"root".into(), None));
    }
}

#[test]
fn nor_where_contexts_are_not_activated() {
    for trail in ends(false, spans_and_events) {
        let names = trail.names();
        for event in ["inside", "explicit", "deep"] {
            assert!(names.iter().any(|n| n == event), "{event} in {names:?}");
        }
    }
}
