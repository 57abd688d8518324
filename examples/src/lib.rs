//! What the examples share: the tour's tables of a trail and its spans, the span of an HTTP request, spans for Zipkin. The examples themselves stand beside this folder, one file each.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

use argus_core::{AuditReader, Filter, ReadError, format_timestamp};
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SpanData, TracerProviderBuilder};
use tracing::{Instrument, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Prints every record of a trail as one line.
///
/// # Errors
/// The trail cannot be read.
pub fn print_trail(reader: &AuditReader) -> Result<(), ReadError> {
    println!("{:>3}  {:<30}  {:<8}  {:<16}  {:<32}  about", "seq", "timestamp", "level", "event", "trace");
    for record in reader.query(Filter::new())? {
        let r = record?;
        let trace = r.trace_id.map_or_else(|| "-".into(), |t| opentelemetry::TraceId::from_bytes(t).to_string());
        let change = r.old_value.iter().zip(&r.new_value).map(|(old, new)| format!(" {old} -> {new}")).next();
        let name = r.file_path.as_deref().and_then(|p| p.rsplit('/').next());
        let about = name.or(r.actor_id.as_deref()).unwrap_or_default();
        println!(
            "{:>3}  {}  {:<8}  {:<16}  {trace:<32}  {about}{}",
            r.seq.unwrap_or_default(),
            format_timestamp(r.timestamp),
            r.level,
            r.event,
            change.unwrap_or_default()
        );
    }
    Ok(())
}

/// Prints the `audit.*` spans, each with the name of its parent.
pub fn print_spans(spans: &[SpanData]) {
    for span in spans.iter().filter(|s| s.name.starts_with("audit.")) {
        let parent = spans.iter().find(|p| p.span_context.span_id() == span.parent_span_id);
        let parent = parent.map_or("no parent", |p| p.name.as_ref());
        println!("{:<29}  under {:<10}  trace {}", span.name, parent, span.span_context.trace_id());
    }
}

/// Sends the spans to Zipkin, too, where `OTEL_EXPORTER_ZIPKIN_ENDPOINT` names one: for `otlp_from_env_with`. What cannot be built is said on stderr. The crate is
/// deprecated, since Zipkin takes OTLP with its module `zipkin-otel`, and says no service name; so only where that module is not to be had.
#[expect(deprecated, reason = "Zipkin without its OTLP module has no other way in")]
pub fn zipkin_from_env(provider: TracerProviderBuilder) -> TracerProviderBuilder {
    let Ok(endpoint) = std::env::var("OTEL_EXPORTER_ZIPKIN_ENDPOINT") else { return provider };
    // The exporter makes a client of its own, which panics without: argus-otel's feature `tls` builds the shared `reqwest` for a provider of the program's choice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match opentelemetry_zipkin::ZipkinExporter::builder().with_collector_endpoint(endpoint).build() {
        Ok(zipkin) => provider.with_batch_exporter(zipkin),
        Err(e) => {
            eprintln!("no spans go to Zipkin: {e}");
            provider
        }
    }
}

/// One span a request, under the caller's `traceparent`. Its route, not its path, is the name: few names, whatever the callers send.
pub async fn request_span(route: MatchedPath, request: Request, next: Next) -> Response {
    let name = format!("{} {}", request.method(), route.as_str());
    let span = info_span!("request", otel.name = name, otel.kind = "server", http.response.status_code = 0);
    // Fails without a Collector, and then there is no trace to belong to.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&HeaderExtractor(request.headers())));
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}
