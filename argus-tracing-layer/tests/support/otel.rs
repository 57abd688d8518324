//! Spans of OpenTelemetry beside a trail.

use opentelemetry::trace::{SpanContext, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider, SpanData};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use super::Trail;

pub(crate) struct Otel {
    exporter: InMemorySpanExporter,
    provider: SdkTracerProvider,
}

impl Otel {
    pub(crate) fn new() -> Self {
        let exporter = InMemorySpanExporter::default();
        Self { provider: SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build(), exporter }
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("test")
    }

    pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer().with_tracer(self.tracer())
    }

    /// The finished span of that name.
    pub(crate) fn span(&self, name: &str) -> SpanData {
        let all = self.exporter.get_finished_spans().unwrap();
        all.into_iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no span {name}"))
    }

    pub(crate) fn ids(&self, name: &str) -> Ids {
        ids_of(&self.span(name).span_context)
    }
}

/// Trace and span id.
pub(crate) type Ids = Option<(String, String)>;

pub(crate) fn ids_of(span: &SpanContext) -> Ids {
    Some((span.trace_id().to_string(), span.span_id().to_string()))
}

/// Those of the record of that event.
pub(crate) fn ids(trail: &Trail, event: &str) -> Ids {
    let line = trail.one(event);
    let text = |k: &str| line.get(k).map(|v| v.as_str().unwrap().to_owned());
    assert_eq!(text("trace_id").is_some(), text("span_id").is_some());
    text("trace_id").zip(text("span_id"))
}
