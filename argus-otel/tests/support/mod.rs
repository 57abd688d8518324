//! What the tests share: a trail in memory beside an in-memory span exporter.
#![allow(dead_code)]

#[cfg(feature = "sdk")]
pub(crate) mod exporter;
#[cfg(feature = "otlp")]
pub(crate) mod pipeline;

use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditLogger, MemoryTrail};
use argus_otel::opentelemetry::Value;
use argus_otel::opentelemetry::trace::TracerProvider;
use argus_otel::{OtelAuditWrapper, OtelWrapperConfig};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider, SpanData};

/// Long enough for a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn config() -> AuditConfig {
    AuditConfig::default()
}

pub(crate) struct Trail {
    pub(crate) memory: MemoryTrail,
    pub(crate) logger: AuditLogger,
    pub(crate) exporter: InMemorySpanExporter,
    pub(crate) provider: SdkTracerProvider,
}

impl Trail {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: AuditConfig) -> Self {
        let memory = MemoryTrail::new();
        let logger = AuditLogger::open_in_memory(config, &memory).unwrap();
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        Self { memory, logger, exporter, provider }
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("test")
    }

    pub(crate) fn wrap(&self, config: OtelWrapperConfig) -> OtelAuditWrapper<AuditLogger> {
        OtelAuditWrapper::new(self.logger.clone(), self.tracer(), config)
    }

    pub(crate) fn spans(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }

    /// The one span of that name.
    pub(crate) fn span(&self, name: &str) -> SpanData {
        let all = self.spans();
        let mut found: Vec<_> = all.iter().filter(|s| s.name == name).cloned().collect();
        assert_eq!(found.len(), 1, "{name} among {:?}", all.iter().map(|s| &s.name).collect::<Vec<_>>());
        found.remove(0)
    }

    /// The same, for a close that did not wait for it.
    pub(crate) fn wait_for(&self, name: &str) -> SpanData {
        let until = Instant::now() + SOON;
        while !self.spans().iter().any(|s| s.name == name) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.span(name)
    }

    /// The first committed record with that event.
    pub(crate) fn line(&self, event: &str) -> serde_json::Value {
        let lines = self.memory.lines();
        let parsed = lines.iter().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        parsed.into_iter().find(|l| l["event"] == event).unwrap_or_else(|| panic!("no {event} in {lines:#?}"))
    }
}

/// An attribute of a span.
pub(crate) fn attribute(span: &SpanData, key: &str) -> Option<Value> {
    span.attributes.iter().find(|kv| kv.key.as_str() == key).map(|kv| kv.value.clone())
}
