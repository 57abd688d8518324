//! The tour: three sides act on one trail. A watched file is edited, a `tracing` event is tagged `audit`, and a wrapped logger is called inside a span. Then the
//! trail, its spans and its verdict; and the verdict once a byte was changed behind Argus's back.

use std::error::Error;
use std::fs;
use std::time::Duration;

use argus_core::{
    ActorType, AuditConfig, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Watcher, WatcherConfig,
};
use argus_examples::{print_spans, print_trail};
use argus_otel::{OtelAuditWrapper, OtelWrapperConfig, otlp_from_env_with};
use argus_tracing_layer::{AuditLayer, audit_security};
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing_subscriber::prelude::*;

const WAIT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::Builder::new().prefix("argus-tour-").tempdir()?.keep();
    let (trail, config) = (dir.join("audit.db"), dir.join("app.yaml"));
    fs::write(&config, "server:\n  port: 8080\n  tls: false\n")?;

    // Spans are kept in memory for the print below, and go to a Collector if the environment names one.
    let memory = InMemorySpanExporter::default();
    let otlp = otlp_from_env_with("argus-tour", |p| p.with_simple_exporter(memory.clone()))?;
    let local = SdkTracerProvider::builder().with_simple_exporter(memory.clone()).build();
    let tracer = otlp.as_ref().map_or(&local, |o| o.provider()).tracer("argus-tour");

    // One logger, wrapped once; the clones below share it.
    let audit_config = AuditConfig::new(&trail).service("argus-tour", env!("CARGO_PKG_VERSION"));
    let logger = AuditLogger::open(audit_config.clone())?;
    let audit = OtelAuditWrapper::new(logger, tracer.clone(), OtelWrapperConfig::default());

    // Side 1: a configuration file is watched, and edited on disk.
    let watcher = Watcher::with_sink(WatcherConfig::new(audit_config), audit.clone());
    watcher.watch(&config, |change| println!("{} was {}: {}", change.path.display(), change.kind, change.diff))?;
    watcher.start()?;
    fs::write(&config, "server:\n  port: 9090\n  tls: true\n")?;
    watcher.settle(WAIT)?;
    watcher.stop()?;

    // Side 2: `tracing` events. The subscriber is an ordinary one, with one layer more.
    let subscriber = tracing_subscriber::registry()
        .with(tracing_opentelemetry::layer().with_tracer(tracer.clone()))
        .with(AuditLayer::new(audit.clone()));
    tracing::subscriber::with_default(subscriber, || {
        let _request = tracing::info_span!("GET /admin").entered();
        audit_security!("access_denied", audit.actor = "joe", path = "/admin");
    });

    // Side 3: a direct call, inside a span of OpenTelemetry.
    tracer.in_span("deploy", |_| {
        audit.log(AuditEvent::info("deployed").actor("ci", ActorType::Service).with("version", "1.4.2"))
    })?;
    audit.close(WAIT);

    let reader = AuditReader::open(&trail)?;
    println!("\nThe trail, {}:", trail.display());
    print_trail(&reader)?;
    println!("\nIts spans:");
    print_spans(&memory.get_finished_spans()?);
    match &otlp {
        Some(pipeline) => {
            pipeline.shutdown(WAIT)?;
            println!("They went to {}.", pipeline.endpoint());
        }
        None => println!("Set OTEL_EXPORTER_OTLP_ENDPOINT, and they go to a Collector."),
    }
    println!("\nThe verdict:\n{}", reader.verify()?);

    // Behind Argus's back: one byte of one record, in a copy.
    let (copy, mut bytes) = (dir.join("tampered.db"), fs::read(&trail)?);
    let name = b"access_denied";
    let at = bytes.windows(name.len()).position(|w| w == name).ok_or("no such record")?;
    bytes[at] ^= 1;
    fs::write(&copy, bytes)?;
    println!("\nThe verdict on a copy with one byte changed:\n{}", AuditReader::open(&copy)?.verify()?);
    Ok(())
}
