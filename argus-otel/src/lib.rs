//! OpenTelemetry for Argus: each committed record becomes an `audit.*` span under the caller's span.
//!
//! Wrap a logger (or any other [`AuditSink`](argus_core::AuditSink)) and use it as before. The span is made after the commit, on Argus's own thread, so the
//! caller pays for a copy of the trace ids and nothing else; sampling, `min_level` of a subscriber or a dead collector never touch the record.
//!
//! ```
//! use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt};
//! use argus_otel::opentelemetry::trace::{Tracer, TracerProvider};
//! use argus_otel::{OtelAuditWrapper, OtelWrapperConfig};
//! use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let exporter = InMemorySpanExporter::default();
//! let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
//! let tracer = provider.tracer("shop");
//!
//! let logger = AuditLogger::open(AuditConfig::new(dir.path().join("audit.jsonl")))?;
//! let audit = OtelAuditWrapper::new(logger, tracer.clone(), OtelWrapperConfig::default());
//! tracer.in_span("PUT /config", |_| audit.log_config_change("/etc/shop.yaml", 1, 2))?;
//! audit.close(std::time::Duration::from_secs(5)); // waits for the spans, too
//!
//! let spans = exporter.get_finished_spans()?;
//! let request = spans.iter().find(|s| s.name == "PUT /config").ok_or("no request span")?;
//! let change = spans.iter().find(|s| s.name == "audit.config_change").ok_or("no audit span")?;
//! assert_eq!(change.parent_span_id, request.span_context.span_id());
//! # Ok(()) }
//! ```
//!
//! # Metrics
//!
//! [`AuditMetrics`] shows the trail through any meter: `argus.audit.events{level,component}` equals `argus stats`, also after restarts, if the trail is
//! [followed](AuditMetricsBuilder::follow); losses by reason, queue, age of the last commit and the like come from `health()`.
//!
//! # To a Collector
//!
#![cfg_attr(
    feature = "otlp",
    doc = "[`otlp_from_env`] and [`otlp_metrics_from_env`] make the pipelines that the standard `OTEL_*` variables ask for;"
)]
#![cfg_attr(feature = "otlp", doc = "[`OtlpPipeline::probe`] says at start whether they lead anywhere.")]
#![cfg_attr(
    not(feature = "otlp"),
    doc = "With the feature `otlp`: pipelines that the standard `OTEL_*` variables ask for."
)]
//! Features: `otlp` (default), `grpc`, `tls`; `sdk` for providers of your own.
//!
//! # What fails, and where it shows
//!
//! No tracer, exporter or collector can harm a record. [`OtelAuditWrapper::tracing_errors`] and `tracing_error` say how many spans failed and why, and `health()`
//! repeats it. What happens behind the tracer is known where the exporter keeps the same [`SpanAccount`]: share it by [`OtelWrapperConfig::account`].
//! `docs/otel.md` has all attributes and metrics, and a table of troubles.
//!
//! # Layout
//! - `wrapper`: [`OtelAuditWrapper`], the decorator, and the caller's side of it
//! - `spans`: the observer that makes the spans, on Argus's thread
//! - `members`: context members as attributes; `timestamps`: their times as text
//! - `account`: [`SpanAccount`], how many spans failed and why; `sdk` (feature `sdk`): exporters, processors and a sampler that keep it
//! - [`names`]: every name of a span, attribute or metric
//! - `metrics`: [`AuditMetrics`]; `live` counts what a sink commits, `follow` what a trail holds, `instruments` shows it
//! - `config`: [`OtelWrapperConfig`]
//! - `context`: the trace context of the calling thread
//! - `otlp` (feature `otlp`): `otlp_from_env` and `otlp_metrics_from_env`; `env` reads the variables, `http`, `grpc` and `tls` make the clients, `peer` counts what the other side rejects
//!
//! Spans are best effort: the absence of one proves nothing. The record is the proof.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod account;
mod config;
mod context;
mod members;
mod metrics;
pub mod names;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "sdk")]
mod sdk;
mod spans;
mod wrapper;

pub use account::SpanAccount;
pub use config::OtelWrapperConfig;
pub use context::trace_context;
pub use metrics::{AuditMetrics, AuditMetricsBuilder, MetricsError};
/// The very `opentelemetry` this crate was built against.
pub use opentelemetry;
#[cfg(feature = "otlp")]
pub use otlp::{
    OtlpError, OtlpMetrics, OtlpPipeline, otlp_from_env, otlp_from_env_with, otlp_from_lookup, otlp_metrics_from_env,
    otlp_metrics_from_lookup,
};
#[cfg(feature = "sdk")]
pub use sdk::{CountedBatch, CountedExporter, KeepSecurity, counted_batch};
pub use wrapper::OtelAuditWrapper;
