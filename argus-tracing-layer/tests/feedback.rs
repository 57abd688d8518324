//! No feedback: everything at TRACE, `log` bridged, a sink that makes spans, and exporters that fail, talk and even log audit events. The trail has the application's records
//! and nothing of Argus about itself but `audit_open` and `audit_close`. `ARGUS_FEEDBACK_EVENTS` is the number of events (default 2,000).
#![cfg(feature = "otel")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use argus_core::{AuditEvent, AuditSink, AuditSinkExt};
use argus_otel::{OtelAuditWrapper, OtelWrapperConfig, otlp_from_lookup};
use argus_tracing_layer::AuditLayer;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use support::{SOON, Trail};
use tracing::{Event, Subscriber, info, info_span, trace, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;

/// Fails, as often as it is called, and talks about it in every way there is.
#[derive(Clone, Debug, Default)]
struct Fails(Arc<AtomicU64>);

impl SpanExporter for Fails {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.fetch_add(batch.len() as u64, Ordering::Relaxed);
        warn!(target: "opentelemetry_sdk", n = batch.len(), "export failed");
        trace!(target: "hyper::client", "connecting");
        info!(audit.event = "from_the_exporter");
        info!(target: "audit::from_the_exporter", "again");
        log::warn!(target: "audit::from_the_exporter", "and by the bridge");
        Err(OTelSdkError::InternalFailure("on purpose".into()))
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Counts what reaches a layer at all.
#[derive(Clone, Default)]
struct Counts(Arc<AtomicU64>, Arc<AtomicU64>);

impl<S: Subscriber> Layer<S> for Counts {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        if event.metadata().target().starts_with("argus_") {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The endpoint of a port where nobody listens.
fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
}

#[test]
fn nothing_about_itself() {
    let events: u64 = std::env::var("ARGUS_FEEDBACK_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
    tracing_log::LogTracer::init().unwrap();
    let (batch, simple) = (Fails::default(), Fails::default());
    let batched = SdkTracerProvider::builder().with_batch_exporter(batch.clone()).build();
    let at_once = SdkTracerProvider::builder().with_simple_exporter(simple.clone()).build();
    let endpoint = nobody();
    let otlp = otlp_from_lookup("test", |name| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| endpoint.clone()));
    let otlp = otlp.unwrap().unwrap();

    // Three wrappers around one trail: a span of each record for each of the exporters.
    let trail = Trail::new();
    let config = OtelWrapperConfig::default;
    let sink = OtelAuditWrapper::new(trail.logger.clone(), batched.tracer("batch"), config());
    let sink = OtelAuditWrapper::new(sink, at_once.tracer("simple"), config());
    let sink = OtelAuditWrapper::new(sink, otlp.tracer(), config());
    let counts = Counts::default();
    tracing_subscriber::registry()
        .with(counts.clone())
        .with(tracing_opentelemetry::layer().with_tracer(batched.tracer("app")))
        .with(AuditLayer::new(sink.clone()))
        .init();

    let mut expected = BTreeMap::from([("audit_open".to_owned(), 1), ("audit_close".to_owned(), 1)]);
    for n in 0..events {
        let _request = info_span!("request", audit.actor = "jane").entered();
        trace!(n, "ordinary");
        info!(audit.event = "by_tracing", n);
        *expected.entry("by_tracing".to_owned()).or_default() += 1;
        if n % 16 == 0 {
            sink.log(AuditEvent::info("direct").with("n", n)).unwrap();
            *expected.entry("direct".to_owned()).or_default() += 1;
        }
        if n % 500 == 0 {
            sink.flush(SOON).unwrap();
        }
    }
    sink.flush(SOON).unwrap();
    let _ = batched.force_flush();
    let _ = batched.shutdown();
    let _ = at_once.shutdown();
    // Nobody listens: it gives up, here or within its time.
    let _ = otlp.shutdown(Duration::from_secs(1));
    assert!(counts.0.load(Ordering::Relaxed) > 2 * events, "the exporters talked, too");
    assert!(simple.0.load(Ordering::Relaxed) > 0 && batch.0.load(Ordering::Relaxed) > 0, "they were asked to export");
    assert_eq!(counts.1.load(Ordering::Relaxed), 0, "Argus itself never logs");
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for record in trail.all() {
        *found.entry(record["event"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(found, expected);
    assert!(trail.logger.health().is_ok());
}
