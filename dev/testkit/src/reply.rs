//! `Reply`: what the receiver answers, in the proper messages of OTLP or, for tests of failure, not. Plain data.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;

/// What the receiver answers.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    rejected: i64,
    message: String,
    raw: Option<Vec<u8>>,
    pub(crate) delay: Duration,
}

impl Reply {
    /// A status; 200 is a clean success.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Status 200 with a partial success.
    pub fn partial(rejected: i64, message: &str) -> Self {
        Self { status: 200, rejected, message: message.into(), ..Self::default() }
    }

    /// With `Retry-After` in seconds.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// With this body instead of the proper message.
    pub fn raw(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.raw = Some(body.into());
        self
    }

    /// Only after this time.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub(crate) fn is_clean(&self) -> bool {
        (200..300).contains(&self.status) && self.rejected == 0 && self.raw.is_none()
    }

    pub(crate) fn body(&self, logs: bool) -> Vec<u8> {
        let (rejected, error_message) = (self.rejected, self.message.clone());
        let partial = rejected != 0 || !error_message.is_empty();
        match (&self.raw, logs) {
            (Some(raw), _) => raw.clone(),
            (None, _) if !(200..300).contains(&self.status) => Vec::new(),
            (None, true) => {
                let partial =
                    partial.then_some(ExportLogsPartialSuccess { rejected_log_records: rejected, error_message });
                ExportLogsServiceResponse { partial_success: partial }.encode_to_vec()
            }
            (None, false) => {
                let partial = partial.then_some(ExportTracePartialSuccess { rejected_spans: rejected, error_message });
                ExportTraceServiceResponse { partial_success: partial }.encode_to_vec()
            }
        }
    }
}
