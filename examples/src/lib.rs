//! What the examples share: the tour's tables of a trail and its spans, and spans for Zipkin. The examples themselves stand beside this folder, one file each.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

use argus_core::{AuditReader, Filter, ReadError, format_timestamp};
use opentelemetry_sdk::trace::{SpanData, TracerProviderBuilder};
use opentelemetry_zipkin::ZipkinExporter;

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

/// Sends the spans to Zipkin, too, where `OTEL_EXPORTER_ZIPKIN_ENDPOINT` names one: for `otlp_from_env_with`. What cannot be built is said on stderr.
pub fn zipkin_from_env(provider: TracerProviderBuilder) -> TracerProviderBuilder {
    let Ok(endpoint) = std::env::var("OTEL_EXPORTER_ZIPKIN_ENDPOINT") else { return provider };
    match ZipkinExporter::builder().with_collector_endpoint(endpoint).build() {
        Ok(zipkin) => provider.with_batch_exporter(zipkin),
        Err(e) => {
            eprintln!("no spans go to Zipkin: {e}");
            provider
        }
    }
}
