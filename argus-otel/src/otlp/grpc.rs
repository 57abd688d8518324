//! gRPC: the SDK's tonic exporters over a channel of our own, on a runtime of our own, so that no caller's runtime is needed or held up.

use std::time::Duration;

use opentelemetry_otlp::{MetricExporter, SpanExporter, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::SpanData;
use tokio::runtime::Runtime;
use tonic::metadata::{AsciiMetadataKey, MetadataMap};
use tonic::transport::{Channel, Endpoint};

use super::env::Settings;
use super::error::OtlpError;

/// One worker thread. Dropping a runtime waits, and panics in async code; this one is let go instead.
#[derive(Debug)]
struct Own(Option<Runtime>);

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// An exporter and the runtime that its channel lives on.
#[derive(Debug)]
pub(super) struct WithRuntime<E> {
    exporter: E,
    _runtime: Own,
}

impl opentelemetry_sdk::trace::SpanExporter for WithRuntime<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.exporter.export(batch).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl PushMetricExporter for WithRuntime<MetricExporter> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.exporter.export(metrics).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

pub(super) fn spans(settings: &Settings) -> Result<WithRuntime<SpanExporter>, OtlpError> {
    let (runtime, channel, metadata) = connect(settings)?;
    let builder = SpanExporter::builder().with_tonic().with_channel(channel).with_metadata(metadata);
    let exporter = builder.build().map_err(|e| OtlpError::Build(e.into()))?;
    Ok(WithRuntime { exporter, _runtime: runtime })
}

pub(super) fn metrics(settings: &Settings) -> Result<WithRuntime<MetricExporter>, OtlpError> {
    let (runtime, channel, metadata) = connect(settings)?;
    let builder = MetricExporter::builder().with_tonic().with_channel(channel).with_metadata(metadata);
    let exporter = builder.build().map_err(|e| OtlpError::Build(e.into()))?;
    Ok(WithRuntime { exporter, _runtime: runtime })
}

fn connect(settings: &Settings) -> Result<(Own, Channel, MetadataMap), OtlpError> {
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
    Ok((Own(Some(runtime)), channel, metadata))
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
