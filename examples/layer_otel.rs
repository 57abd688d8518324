//! The `tracing` layer beside `tracing-opentelemetry`: records have the trace ids of their request, and a self-test at the start says what would keep them from the trail.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 cargo run --example layer_otel [PATH]`

use std::time::Duration;

use argus_core::{AuditConfig, AuditLogger, AuditReader, AuditSink};
use argus_otel::{OtelAuditWrapper, OtelWrapperConfig, otlp_from_env};
use argus_tracing_layer::{AuditLayer, SelfTest, audit_security};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

const WAIT: Duration = Duration::from_secs(5);

#[tracing::instrument(name = "POST /refund", skip_all, fields(audit.actor = user, order = order))]
fn refund(user: &str, order: u64) {
    tracing::debug!("checking the order");
    audit_security!("refund_denied", audit.outcome = "failure", "older than 30 days");
    tracing::info!("an ordinary event, for the terminal only");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("argus-layer-otel/audit.db"), Into::into);
    let logger = AuditLogger::open(AuditConfig::new(&path).service("shop", "1.4.2"))?;
    let pipeline = otlp_from_env("shop")?;
    let audit = match &pipeline {
        Some(p) => OtelAuditWrapper::new(logger, p.tracer(), OtelWrapperConfig::default()),
        None => OtelAuditWrapper::without_tracer(logger),
    };

    // Filters stand on the layers that should be quiet. `filtered` costs nothing where nobody wants an event; `order` is the one span field that records may have.
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env()?;
    tracing_subscriber::registry()
        .with(fmt::layer().with_writer(std::io::stderr).with_filter(filter))
        .with(pipeline.as_ref().map(|p| tracing_opentelemetry::layer().with_tracer(p.tracer())))
        .with(AuditLayer::new(audit.clone()).with_span_fields(["order"]).filtered())
        .init();

    let test = SelfTest::new().target(module_path!());
    println!("trace ids: {:?}", tracing::dispatcher::get_default(|d| test.run(d))?);

    refund("jane", 1042);

    // The trail first: its last commit makes the last spans.
    audit.close(WAIT);
    if let Some(pipeline) = &pipeline {
        pipeline.shutdown(WAIT)?;
    }
    println!("{}", AuditReader::open(&path)?.verify()?);
    Ok(())
}
