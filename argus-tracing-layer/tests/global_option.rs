//! `Option<AuditLayer>` as the global default: `tracing-subscriber` tells it of no dispatch, and yet explicit parents have their ids.
#![cfg(feature = "otel")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use argus_core::{AuditConfig, AuditSink};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use support::Trail;
use tracing::{info, info_span};
use tracing_subscriber::prelude::*;

#[test]
fn explicit_parents_have_their_ids() {
    let trail = Trail::with(AuditConfig::default().component("shop"));
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing_subscriber::registry().with(Some(trail.layer())).with(otel).init();

    let other = info_span!("other");
    info_span!("current").in_scope(|| info!(parent: &other, audit.event = "explicit"));
    drop(other);
    let spans = exporter.get_finished_spans().unwrap();
    let other = spans.iter().find(|s| s.name == "other").unwrap();
    let line = trail.one("explicit");
    assert_eq!(line["span_id"], other.span_context.span_id().to_string());
    assert_eq!(line["trace_id"], other.span_context.trace_id().to_string());
    assert!(trail.logger.health().is_ok());
}
