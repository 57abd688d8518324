//! `otlp_from_env`: a span pipeline to a Collector from the standard `OTEL_*` variables. The HTTP client is handed over explicitly, so that no other crate's
//! features choose one, and is built on a thread of its own, since a blocking client must not meet a runtime. Shutdown runs on a thread of its own, bounded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

/// How long dropping a pipeline waits for its last spans.
const DROP_WAIT: Duration = Duration::from_secs(5);

/// Why spans cannot be sent as the environment asks.
#[derive(Debug)]
#[non_exhaustive]
pub enum OtlpError {
    /// The endpoint is no `http://` URL.
    Endpoint {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// `OTEL_EXPORTER_OTLP_PROTOCOL` asks for something else than `http/protobuf`.
    Protocol(String),
    /// The exporter could not be built.
    Build(Box<dyn std::error::Error + Send + Sync>),
    /// The last spans were not sent within the time given, or the exporter failed.
    Shutdown(String),
}

impl fmt::Display for OtlpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OtlpError::Endpoint { variable, reason } => write!(f, "{variable}: {reason}"),
            OtlpError::Protocol(p) => write!(f, "OTEL_EXPORTER_OTLP_PROTOCOL is `{p}`; this build sends `http/protobuf` only (port 4318 of a Collector)"),
            OtlpError::Build(e) => write!(f, "the OTLP exporter cannot be built: {e}"),
            OtlpError::Shutdown(why) => write!(f, "the last spans may not have been sent: {why}"),
        }
    }
}

impl std::error::Error for OtlpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OtlpError::Build(e) => Some(&**e),
            _ => None,
        }
    }
}

/// A span pipeline over OTLP/HTTP. Dropping it sends what is left, for at most 5 s.
#[derive(Debug)]
pub struct OtlpPipeline {
    provider: SdkTracerProvider,
    endpoint: String,
    down: Arc<AtomicBool>,
}

impl OtlpPipeline {
    /// A tracer for an [`OtelAuditWrapper`](crate::OtelAuditWrapper).
    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer("argus")
    }

    /// The provider, for the service's own spans.
    pub fn provider(&self) -> &SdkTracerProvider {
        &self.provider
    }

    /// Where spans go.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends what is left and ends the pipeline. Works on any runtime and without one; a second call does nothing.
    ///
    /// # Errors
    /// The time ran out, or the exporter failed.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), OtlpError> {
        if self.down.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let provider = self.provider.clone();
        let (tell, told) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("argus-otlp-shutdown".into())
            .spawn(move || {
                let _ = tell.send(provider.shutdown_with_timeout(timeout));
            })
            .map_err(|e| OtlpError::Shutdown(e.to_string()))?;
        match told.recv_timeout(timeout) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(OtlpError::Shutdown(e.to_string())),
            Err(_) => Err(OtlpError::Shutdown(format!("no answer within {timeout:?}"))),
        }
    }
}

impl Drop for OtlpPipeline {
    fn drop(&mut self) {
        // A drop has nobody to tell; who wants to know calls `shutdown`.
        let _ = self.shutdown(DROP_WAIT);
    }
}

/// The pipeline that `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT` asks for; `None` where neither is set, or `OTEL_SDK_DISABLED` is
/// `true`. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` go before `service`.
///
/// # Errors
/// The variables ask for what this build cannot do, and the error says what.
pub fn otlp_from_env(service: &str) -> Result<Option<OtlpPipeline>, OtlpError> {
    otlp_from(service, &|name| std::env::var(name).ok())
}

pub(crate) fn otlp_from(service: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<OtlpPipeline>, OtlpError> {
    let set = |name: &str| env(name).filter(|v| !v.trim().is_empty());
    if set("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let (variable, given) = match (set(TRACES), set(ALL)) {
        (Some(v), _) => (TRACES, v),
        (None, Some(v)) => (ALL, v),
        (None, None) => return Ok(None),
    };
    if let Some(p) = set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL")) {
        if p != "http/protobuf" {
            return Err(OtlpError::Protocol(p));
        }
    }
    let bad = |reason: String| Err(OtlpError::Endpoint { variable, reason });
    // The specification: the general endpoint is a base, the one for traces is taken as it is.
    let endpoint = if variable == ALL { format!("{}/v1/traces", given.trim_end_matches('/')) } else { given.clone() };
    match endpoint.split_once("://") {
        Some(("http", rest)) if !rest.starts_with('/') => {}
        Some(("https", _)) => return bad(format!("`{given}` needs TLS, which this build has not; send to a Collector on this host over http://")),
        _ => return bad(format!("`{given}` is no http:// URL; write for example http://localhost:4318")),
    }
    let target = endpoint.clone();
    let exporter = std::thread::spawn(move || -> Result<SpanExporter, Box<dyn std::error::Error + Send + Sync>> {
        let client = reqwest::blocking::Client::builder().timeout(Duration::from_secs(10)).build()?;
        Ok(SpanExporter::builder().with_http().with_http_client(client).with_protocol(Protocol::HttpBinary).with_endpoint(target).build()?)
    })
    .join()
    .unwrap_or_else(|_| Err("the exporter's thread panicked".into()))
    .map_err(OtlpError::Build)?;
    let mut resource = Resource::builder();
    if set("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service.to_owned());
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    Ok(Some(OtlpPipeline { provider, endpoint, down: Arc::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(vars: &[(&str, &str)]) -> Result<Option<OtlpPipeline>, OtlpError> {
        otlp_from("svc", &|n| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn what_cannot_work_is_a_clear_error() {
        assert!(from(&[]).unwrap().is_none());
        assert!(from(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x:1"), ("OTEL_SDK_DISABLED", "true")]).unwrap().is_none());
        for (v, says) in [("localhost:4318", "no http:// URL"), ("https://x:4318", "TLS"), ("http:///x", "no http:// URL")] {
            let e = from(&[("OTEL_EXPORTER_OTLP_ENDPOINT", v)]).unwrap_err().to_string();
            assert!(e.contains(says) && e.contains(v), "{e}");
        }
        let grpc = from(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x:1"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap_err();
        assert!(grpc.to_string().contains("http/protobuf"));
        let p = from(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9/")]).unwrap().unwrap();
        assert_eq!(p.endpoint(), "http://127.0.0.1:9/v1/traces");
    }
}
