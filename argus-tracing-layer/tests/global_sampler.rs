//! A sampler that logs audit events while the layer itself asks for its span: only a global default lets such an event through, so this file has no other.
#![cfg(feature = "otel")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::mpsc;

use opentelemetry::trace::{Link, SpanKind, TraceId, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, SdkTracerProvider, ShouldSample};
use support::{SOON, Trail};
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

#[test]
fn asking_within_asking_waits_for_nobody() {
    let trail = Trail::new();
    let provider = SdkTracerProvider::builder().with_sampler(Talks).build();
    // Without activation, the span is started by being asked for.
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("test")).with_context_activation(false);
    tracing_subscriber::registry().with(trail.layer().with_inactive_contexts(true)).with(otel).init();

    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        info_span!("request").in_scope(|| info!(audit.event = "first"));
        let other = info_span!("other");
        info!(parent: &other, audit.event = "second");
        done.send(()).unwrap();
    });
    finished.recv_timeout(SOON).expect("it waits for itself");
    assert_eq!(trail.names(), ["sampled", "first", "sampled", "second"]);
    assert!(trail.one("first").get("span_id").is_some() && trail.one("second").get("span_id").is_some());
}
