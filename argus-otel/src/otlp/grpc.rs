//! gRPC: requests on a runtime of our own, so that no caller's runtime is needed or held up. The SDK's exporters are not used: they write a partial success to their
//! log and tell nobody (opentelemetry-otlp 0.33.1, `src/exporter/tonic/trace.rs` line 117 and `metrics.rs` line 103).

use std::fmt;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::Runtime;
use tonic::metadata::{AsciiMetadataKey, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Extensions, Request, Response, Status};

use super::env::Settings;
use super::error::OtlpError;
use super::peer::{Peer, causes};
use super::throttle::wait_asked_for;
use crate::account::SpanAccount;

/// Waits between tries; each is twice the one before. The SDK's numbers.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_millis(400);

pub(super) struct Client {
    peer: Peer,
    channel: Channel,
    metadata: MetadataMap,
    timeout: Duration,
    /// One worker thread. Dropping a runtime waits, and panics in async code; this one is let go instead.
    runtime: Option<Runtime>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Client {
    pub(super) fn new(settings: &Settings, account: &SpanAccount) -> Result<Self, OtlpError> {
        let build = |e: Box<dyn std::error::Error + Send + Sync>| OtlpError::Build(e);
        let mut metadata = MetadataMap::new();
        for (name, value) in &settings.headers {
            let wrong = || OtlpError::Header { variable: settings.headers_variable, name: name.clone() };
            let key = AsciiMetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()).map_err(|_| wrong())?;
            metadata.insert(key, value.parse().map_err(|_| wrong())?);
        }
        let endpoint = Endpoint::from_shared(settings.target.clone()).map_err(|e| build(e.into()))?;
        #[cfg(feature = "tls")]
        let endpoint = match settings.target.get(..6) {
            Some(scheme) if scheme.eq_ignore_ascii_case("https:") => {
                endpoint.tls_config(tls(settings)?).map_err(|e| build(e.into()))?
            }
            _ => endpoint,
        };
        let endpoint = endpoint.timeout(settings.timeout).connect_timeout(settings.timeout);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("argus-otlp-grpc")
            .enable_all()
            .build()
            .map_err(|e| build(e.into()))?;
        let channel = {
            let _entered = runtime.enter();
            endpoint.connect_lazy()
        };
        let peer = Peer::new(settings, account);
        Ok(Self { peer, channel, metadata, timeout: settings.timeout, runtime: Some(runtime) })
    }

    /// Sends a request, and again where the other side may come right.
    async fn call<Q, A, F>(
        &self,
        message: Q,
        send: impl Fn(Channel, Request<Q>) -> F + Send + 'static,
    ) -> Result<A, OTelSdkError>
    where
        Q: Clone + Send + 'static,
        A: Send + 'static,
        F: Future<Output = Result<Response<A>, Status>> + Send,
    {
        let Some(runtime) = &self.runtime else { return Err(OTelSdkError::AlreadyShutdown) };
        let (channel, metadata, timeout) = (self.channel.clone(), self.metadata.clone(), self.timeout);
        let tries = async move {
            let (begun, mut wait) = (Instant::now(), FIRST_WAIT);
            loop {
                let request = Request::from_parts(metadata.clone(), Extensions::default(), message.clone());
                let status = match send(channel.clone(), request).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => status,
                };
                let asked = wait_asked_for(&status);
                let pause = asked.unwrap_or_default().max(wait);
                let again =
                    may_come_right(status.code()) || status.code() == Code::ResourceExhausted && asked.is_some();
                if !again || wait > LAST_WAIT || begun.elapsed().saturating_add(pause) >= timeout {
                    return Err(status);
                }
                tokio::time::sleep(pause).await;
                wait *= 2;
            }
        };
        let why = match runtime.spawn(tries).await {
            Ok(Ok(answer)) => return Ok(answer),
            // What the server writes may echo a token: only its code is told, and what the own side knows.
            Ok(Err(status)) => {
                let why = std::error::Error::source(&status).map(|e| format!(": {}", causes(e))).unwrap_or_default();
                format!("{}: gRPC code {:?}{why}", self.peer.shown, status.code())
            }
            Err(e) => format!("{}: the request was broken off: {e}", self.peer.shown),
        };
        self.peer.account.note(why.clone());
        Err(OTelSdkError::InternalFailure(why))
    }
}

/// Of OTLP's specification, which has `ResourceExhausted` among them if the server says when.
fn may_come_right(code: Code) -> bool {
    use Code::{Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, Unavailable};
    matches!(code, Cancelled | DeadlineExceeded | Aborted | OutOfRange | Unavailable | DataLoss)
}

#[derive(Debug)]
pub(super) struct Spans {
    client: Client,
    resource: ResourceAttributesWithSchema,
}

impl Spans {
    pub(super) fn new(settings: &Settings, account: &SpanAccount) -> Result<Self, OtlpError> {
        Ok(Self { client: Client::new(settings, account)?, resource: ResourceAttributesWithSchema::default() })
    }
}

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let send = |channel, request| async { TraceServiceClient::new(channel).export(request).await };
        let answer = self.client.call(ExportTraceServiceRequest { resource_spans }, send).await?;
        if let Some(p) = answer.partial_success {
            self.client.peer.took_a_part(p.rejected_spans, &p.error_message);
        }
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) client: Client,
    pub(super) temporality: Temporality,
}

impl PushMetricExporter for Metrics {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let send = |channel, request| async { MetricsServiceClient::new(channel).export(request).await };
        let answer = self.client.call(ExportMetricsServiceRequest::from(metrics), send).await?;
        if let Some(p) = answer.partial_success {
            self.client.peer.took_a_part(p.rejected_data_points, &p.error_message);
        }
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}

#[cfg(feature = "tls")]
fn tls(settings: &Settings) -> Result<tonic::transport::ClientTlsConfig, OtlpError> {
    use super::env::PemFile;
    use tonic::transport::{Certificate, ClientTlsConfig, Identity};

    // The same files by the same rules as over HTTP: what is wrong with them is told alike.
    super::tls::client_config(settings)?;
    let read = |file: &PemFile| {
        std::fs::read(&file.path).map_err(|e| OtlpError::Certificate {
            variable: file.variable,
            path: file.path.display().to_string(),
            source: e.into(),
        })
    };
    let config = match &settings.ca {
        Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(file)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    Ok(match &settings.client {
        Some((certificate, key)) => config.identity(Identity::from_pem(read(certificate)?, read(key)?)),
        None => config,
    })
}
