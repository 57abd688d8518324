//! The HTTP client that is handed to the SDK's exporters, so that no other crate's features choose one. It looks at each answer: what the SDK takes for success
//! and is none (a web page, a partial success) is a failure here, with a reason that helps.

use std::fmt::Write as _;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::env::Settings;
use super::error::OtlpError;
use crate::account::SpanAccount;

pub(super) struct Client {
    inner: reqwest::blocking::Client,
    shown: String,
    account: SpanAccount,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.shown).finish_non_exhaustive()
    }
}

impl Client {
    /// On a thread of our own: a blocking client must not meet a runtime, neither when it is made nor when it is dropped.
    pub(super) fn new(settings: &Settings, account: &SpanAccount) -> Result<Self, OtlpError> {
        let builder = reqwest::blocking::Client::builder()
            .timeout(settings.timeout)
            // A redirect would resend headers, tokens among them, to wherever it points.
            .redirect(reqwest::redirect::Policy::none());
        #[cfg(feature = "tls")]
        let builder = builder.tls_backend_preconfigured(super::tls::client_config(settings)?);
        let inner = builder.build().map_err(|e| OtlpError::Build(e.into()))?;
        Ok(Self { inner, shown: settings.shown.clone(), account: account.clone() })
    }

    fn failed(&self, why: String) -> HttpError {
        self.account.note(why.clone());
        why.into()
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = match self.inner.send_bytes(request).await {
            Ok(response) => response,
            Err(e) => return Err(self.failed(format!("{}: {}", self.shown, network(e, &self.shown)))),
        };
        let status = response.status();
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !status.is_success() {
            let hint = match status.as_u16() {
                401 | 403 => "; are the headers with the token set?",
                404 | 405 => "; is the path right? OTEL_EXPORTER_OTLP_ENDPOINT is a base, to which /v1/... is added",
                _ => "",
            };
            // What the server writes may echo a token: only its status is told.
            self.account.note(format!("{} answered {status}{hint}", self.shown));
            return Ok(response);
        }
        let page = || format!("{} answered {status} with `{kind}`, which is no OTLP", self.shown);
        if kind.starts_with("text/html") {
            return Err(self.failed(page()));
        }
        if !kind.starts_with("application/x-protobuf") {
            // Some servers take protobuf and answer `{}`. An error would make the SDK send it all again.
            return Ok(response);
        }
        // Traces and metrics have the same form of answer.
        let Ok(answer) = ExportTraceServiceResponse::decode(response.body().clone()) else {
            return Err(self.failed(page()));
        };
        if let Some(partial) = answer.partial_success.filter(|p| p.rejected_spans > 0) {
            // No error: the SDK would send the whole batch again.
            let n = partial.rejected_spans.unsigned_abs();
            self.account.rejected(n, || format!("{} rejected {n} of a batch: {}", self.shown, partial.error_message));
        }
        Ok(response)
    }
}

/// The whole chain of causes, without the URL, which may hold a password.
fn network(e: HttpError, shown: &str) -> String {
    let e: HttpError = match e.downcast::<reqwest::Error>() {
        Ok(e) => Box::new(e.without_url()),
        Err(e) => e,
    };
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let _ = write!(text, ": {c}");
        cause = c.source();
    }
    if shown.contains(":4317") {
        text += "; port 4317 is usually gRPC: use port 4318, or OTEL_EXPORTER_OTLP_PROTOCOL=grpc";
    }
    text
}
