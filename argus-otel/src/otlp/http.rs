//! The HTTP client that is handed to the SDK's exporters, so that no other crate's features choose one. It looks at each answer: what the SDK takes for success
//! and is none (a web page, a partial success) is a failure here, with a reason that helps.

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::env::Settings;
use super::error::OtlpError;
use super::peer::{Peer, causes};
use crate::account::SpanAccount;

pub(super) struct Client {
    inner: reqwest::blocking::Client,
    peer: Peer,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("peer", &self.peer).finish_non_exhaustive()
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
        Ok(Self { inner, peer: Peer::new(settings, account) })
    }

    fn failed(&self, why: String) -> HttpError {
        self.peer.account.note(why.clone());
        why.into()
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let shown = &self.peer.shown;
        let response = match self.inner.send_bytes(request).await {
            Ok(response) => response,
            Err(e) => return Err(self.failed(format!("{shown}: {}", network(e, shown)))),
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
            self.peer.account.note(format!("{shown} answered {status}{hint}"));
            return Ok(response);
        }
        let page = || format!("{shown} answered {status} with `{kind}`, which is no OTLP");
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
        if let Some(p) = answer.partial_success {
            self.peer.took_a_part(p.rejected_spans, &p.error_message);
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
    let mut text = causes(&*e);
    if shown.contains(":4317") {
        text += "; port 4317 is usually gRPC: use port 4318, or OTEL_EXPORTER_OTLP_PROTOCOL=grpc";
    }
    text
}
