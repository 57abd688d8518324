//! `OtelWrapperConfig`: what a span says.

use opentelemetry::KeyValue;

/// What the spans of a wrapper say.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use]
pub struct OtelWrapperConfig {
    /// Attributes of every span. Default: none.
    pub base_attributes: Vec<KeyValue>,
    /// Whether context members become attributes. Default: yes.
    pub include_event_context: bool,
    /// Whether the record's checksum becomes an attribute. Default: no.
    pub include_checksums: bool,
    /// Most bytes of one context value; a longer one is cut and marked with `…`, never dropped. Default: 1024.
    pub max_context_size: usize,
}

impl Default for OtelWrapperConfig {
    fn default() -> Self {
        Self {
            base_attributes: Vec::new(),
            include_event_context: true,
            include_checksums: false,
            max_context_size: 1024,
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
}
