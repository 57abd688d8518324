//! `OtelWrapperConfig`: what a span says.

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use crate::account::SpanAccount;

/// What the spans of a wrapper say.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use]
pub struct OtelWrapperConfig {
    /// Attributes of every span. Default: none. What names the service (`service.name` and the like) belongs into the Resource of the tracer's provider. One with
    /// a name of Argus's ([`SPAN_ATTRIBUTES`](crate::names::SPAN_ATTRIBUTES), `audit.context.*`) is left out and counted as a tracing error.
    pub base_attributes: Vec<KeyValue>,
    /// Whether context members become attributes. Default: yes.
    pub include_event_context: bool,
    /// Whether the record's checksum becomes an attribute. Default: no.
    pub include_checksums: bool,
    /// Most bytes of one context value; a longer one is cut and marked with `…`, never dropped. Default: 1024.
    pub max_context_size: usize,
    /// Kind of every span. Default: internal.
    pub span_kind: SpanKind,
    /// Whether the span of a SECURITY record is a root with a link to the caller's span, so that it need not follow a caller that is not sampled. A sampler that
    /// keeps such roots is `KeepSecurity` (feature `sdk`); `otlp_from_env` has it. Default: no.
    pub security_roots: bool,
    /// Where failed spans are counted, shared with an exporter that keeps it too. Default: an account of the wrapper's own.
    pub account: Option<SpanAccount>,
}

impl Default for OtelWrapperConfig {
    fn default() -> Self {
        Self {
            base_attributes: Vec::new(),
            include_event_context: true,
            include_checksums: false,
            max_context_size: 1024,
            span_kind: SpanKind::Internal,
            security_roots: false,
            account: None,
        }
    }
}

impl OtelWrapperConfig {
    /// One attribute of every span.
    pub fn base_attribute(mut self, attribute: KeyValue) -> Self {
        self.base_attributes.push(attribute);
        self
    }

    /// Whether context members become attributes.
    pub fn include_event_context(mut self, on: bool) -> Self {
        self.include_event_context = on;
        self
    }

    /// Whether the record's checksum becomes an attribute.
    pub fn include_checksums(mut self, on: bool) -> Self {
        self.include_checksums = on;
        self
    }

    /// Most bytes of one context value.
    pub fn max_context_size(mut self, bytes: usize) -> Self {
        self.max_context_size = bytes;
        self
    }

    /// Kind of every span.
    pub fn span_kind(mut self, kind: SpanKind) -> Self {
        self.span_kind = kind;
        self
    }

    /// Whether SECURITY records have root spans, linked to the caller's.
    pub fn security_roots(mut self, on: bool) -> Self {
        self.security_roots = on;
        self
    }

    /// Counts failed spans in an account that the exporter keeps, too.
    pub fn account(mut self, account: &SpanAccount) -> Self {
        self.account = Some(account.clone());
        self
    }
}
