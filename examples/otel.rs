//! The OpenTelemetry wrapper: each committed record becomes an `audit.*` span under the caller's span.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 cargo run --example otel [PATH]`

use std::time::Duration;

use argus_core::{ActorType, AuditConfig, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt};
use argus_otel::{OtelAuditWrapper, OtelWrapperConfig, otlp_from_env};
use opentelemetry::KeyValue;
use opentelemetry::trace::Tracer;

const WAIT: Duration = Duration::from_secs(5);

/// What a handler does; it neither knows nor cares whether records become spans.
fn change_price(audit: &impl AuditSink) -> Result<(), argus_core::AuditError> {
    audit.log_config_change("/etc/shop/prices.toml", 10, 12)?;
    audit.log(AuditEvent::security("price_override").actor("jane", ActorType::User).with("reason", "sale"))?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("argus-otel/audit.db"), Into::into);
    let logger = AuditLogger::open(AuditConfig::new(&path).service("shop", "1.4.2"))?;

    let Some(pipeline) = otlp_from_env("shop")? else {
        println!("OTEL_EXPORTER_OTLP_ENDPOINT is not set: no spans, but the trail is written");
        let audit = OtelAuditWrapper::without_tracer(logger);
        change_price(&audit)?;
        audit.close(WAIT);
        println!("{}", AuditReader::open(&path)?.verify()?);
        return Ok(());
    };
    // Tells at once if host, port, path, certificate or token are wrong. Auditing goes on without spans.
    if let Err(e) = pipeline.probe(WAIT) {
        eprintln!("{e}");
    }
    let config = OtelWrapperConfig::default()
        .base_attribute(KeyValue::new("deployment.environment.name", "demo"))
        .include_checksums(true)
        // Spans that could not be sent are then in `tracing_errors()` and `health()`, with the reason.
        .account(pipeline.account());
    let audit = OtelAuditWrapper::new(logger, pipeline.tracer(), config);

    pipeline.tracer().in_span("PUT /price", |_| change_price(&audit))?;

    // The trail first: its last commit makes the last spans.
    audit.close(WAIT);
    pipeline.shutdown(WAIT)?;
    println!("spans went to {}, {} could not be made or sent", pipeline.endpoint(), audit.tracing_errors());
    if let Some(why) = audit.tracing_error() {
        println!("the last one: {why}");
    }
    println!("{}", AuditReader::open(&path)?.verify()?);
    Ok(())
}
