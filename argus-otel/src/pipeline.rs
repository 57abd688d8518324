//! `otlp_from_env`: a span pipeline to a Collector from the standard `OTEL_*` variables. The HTTP client is handed over explicitly, so that no other crate's
//! features choose one, and is built on a thread of its own, since a blocking client must not meet a runtime. Shutdown runs on a thread of its own, bounded.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, TracerProviderBuilder};

/// How long dropping a pipeline waits for its last spans.
const DROP_WAIT: Duration = Duration::from_secs(5);
/// Of the specification.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const ALL_SIGNALS: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Why spans cannot be sent as the environment asks. Endpoints are shown without user, password and query.
#[derive(Debug)]
#[non_exhaustive]
pub enum OtlpError {
    /// The endpoint is no `http://` URL with a host.
    Endpoint {
        /// The variable.
        variable: &'static str,
        /// What it says.
        endpoint: String,
    },
    /// The endpoint is `https://`, and this build has no TLS.
    Tls {
        /// The variable.
        variable: &'static str,
        /// What it says.
        endpoint: String,
    },
    /// Another protocol than `http/protobuf` is asked for.
    Protocol {
        /// The variable.
        variable: &'static str,
        /// What it says.
        value: String,
    },
    /// The exporter could not be built.
    Build(Box<dyn std::error::Error + Send + Sync>),
    /// The last spans were not sent within the time given, or the exporter failed.
    Shutdown(String),
}

impl fmt::Display for OtlpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OtlpError::Endpoint { variable, endpoint } => {
                write!(f, "{variable}: `{endpoint}` is no http:// URL; write for example http://localhost:4318")
            }
            OtlpError::Tls { variable, endpoint } => {
                write!(
                    f,
                    "{variable}: `{endpoint}` needs TLS, which this build has not; send to a Collector on this host over http://"
                )
            }
            OtlpError::Protocol { variable, value } => {
                write!(f, "{variable} is `{value}`; this build sends `http/protobuf` only (port 4318 of a Collector)")
            }
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
pub struct OtlpPipeline {
    provider: SdkTracerProvider,
    endpoint: String,
    down: AtomicBool,
}

impl fmt::Debug for OtlpPipeline {
    /// The endpoint only: the provider's own `Debug` is long, and headers may hold tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpPipeline").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
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

    /// Where spans go, without user, password and query.
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
/// `true`. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` go before `service_name`. Headers, time limit, batching and sampling follow the environment, too.
///
/// It works on any runtime and without one, and may be called from async code.
///
/// ```
/// use argus_core::{AuditLogger, AuditSink};
/// use argus_otel::{OtelAuditWrapper, OtelWrapperConfig, otlp_from_env};
/// use std::time::Duration;
///
/// # fn run(logger: AuditLogger) -> Result<(), Box<dyn std::error::Error>> {
/// let pipeline = otlp_from_env("shop")?;
/// let audit = match &pipeline {
///     Some(p) => OtelAuditWrapper::new(logger, p.tracer(), OtelWrapperConfig::default()),
///     None => OtelAuditWrapper::without_tracer(logger),
/// };
/// // ... at the end, the trail first: its last commit makes the last spans.
/// audit.close(Duration::from_secs(5));
/// if let Some(p) = &pipeline {
///     p.shutdown(Duration::from_secs(5))?;
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// The variables ask for what this build cannot do, and the error says what.
pub fn otlp_from_env(service_name: &str) -> Result<Option<OtlpPipeline>, OtlpError> {
    otlp_from_lookup(service_name, |name| std::env::var(name).ok())
}

/// As [`otlp_from_env`]; `customise` may add to the provider before it is built: another exporter, a sampler, an id generator.
///
/// # Errors
/// As [`otlp_from_env`].
pub fn otlp_from_env_with(
    service_name: &str,
    customise: impl FnOnce(TracerProviderBuilder) -> TracerProviderBuilder,
) -> Result<Option<OtlpPipeline>, OtlpError> {
    pipeline(service_name, |name| std::env::var(name).ok(), customise)
}

/// As [`otlp_from_env`], with endpoint, protocol, headers, time limit and resource from `lookup` instead of the process's environment.
///
/// # Errors
/// As [`otlp_from_env`].
pub fn otlp_from_lookup(
    service_name: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Option<OtlpPipeline>, OtlpError> {
    pipeline(service_name, lookup, |builder| builder)
}

fn pipeline(
    service_name: &str,
    lookup: impl Fn(&str) -> Option<String>,
    customise: impl FnOnce(TracerProviderBuilder) -> TracerProviderBuilder,
) -> Result<Option<OtlpPipeline>, OtlpError> {
    let set = |name: &str| lookup(name).filter(|v| !v.trim().is_empty());
    // The variable of the signal goes before the general one.
    let either = |signal: &'static str, general: &'static str| {
        set(signal).map(|v| (signal, v)).or_else(|| set(general).map(|v| (general, v)))
    };
    if set("OTEL_SDK_DISABLED").is_some_and(|v| v.trim().eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let Some((variable, given)) = either("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ALL_SIGNALS) else { return Ok(None) };
    match either("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL") {
        Some((variable, value)) if value.trim() != "http/protobuf" => {
            return Err(OtlpError::Protocol { variable, value });
        }
        _ => {}
    }
    let target = target(variable, given.trim())?;
    let timeout = either("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
        .and_then(|(_, v)| v.trim().parse().ok())
        .map_or(DEFAULT_TIMEOUT, Duration::from_millis);
    let headers = either("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS");
    let headers =
        headers.map(|(_, v)| pairs(&v).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()).unwrap_or_default();
    let endpoint = shown(&target);
    let exporter = exporter(target, timeout, headers).map_err(OtlpError::Build)?;

    let attributes = set("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let mut resource = Resource::builder().with_service_name(service_name.to_owned());
    resource = resource.with_attributes(pairs(&attributes).map(|(k, v)| KeyValue::new(k.to_owned(), decoded(v))));
    if let Some(name) = set("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name(name);
    }
    let builder = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
    let provider = customise(builder).build();
    Ok(Some(OtlpPipeline { provider, endpoint, down: AtomicBool::new(false) }))
}

/// Where to send: the general endpoint is a base, the one for traces is taken as it is.
fn target(variable: &'static str, given: &str) -> Result<String, OtlpError> {
    let endpoint = shown(given);
    let target = match variable {
        ALL_SIGNALS => format!("{}/v1/traces", given.trim_end_matches('/')),
        _ => given.to_owned(),
    };
    match target.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => Err(OtlpError::Tls { variable, endpoint }),
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("http")
                && !rest.starts_with('/')
                && reqwest::Url::parse(&target).is_ok() =>
        {
            Ok(target)
        }
        _ => Err(OtlpError::Endpoint { variable, endpoint }),
    }
}

/// Built on a thread of its own, since a blocking client must not meet a runtime. It is dropped on the batch processor's thread, which owns it.
fn exporter(
    target: String,
    timeout: Duration,
    headers: HashMap<String, String>,
) -> Result<SpanExporter, Box<dyn std::error::Error + Send + Sync>> {
    let build = move || -> Result<SpanExporter, Box<dyn std::error::Error + Send + Sync>> {
        let client = reqwest::blocking::Client::builder()
            .timeout(timeout)
            // A redirect would resend headers, tokens among them, to wherever it points.
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_headers(headers)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(timeout)
            .with_endpoint(target);
        Ok(exporter.build()?)
    };
    let thread = std::thread::Builder::new().name("argus-otlp-build".into()).spawn(build)?;
    thread.join().unwrap_or_else(|_| Err("the exporter's thread panicked".into()))
}

/// `key=value,key=value`, as OpenTelemetry writes headers and resource attributes.
fn pairs(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.split(',')
        .filter_map(|kv| kv.split_once('='))
        .map(|(k, v)| (k.trim(), v.trim()))
        .filter(|(k, _)| !k.is_empty())
}

/// Percent-decoded; as it is where that gives no text.
fn decoded(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten().filter(|h| h.iter().all(u8::is_ascii_hexdigit));
        let byte = hex.and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = after.get(if byte.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    String::from_utf8(out).unwrap_or_else(|_| value.to_owned())
}

/// A URL fit for logs: no user, no password, no query.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(s, r)| (s, r));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}{}{host}{path}", if scheme.is_empty() { "" } else { "://" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(vars: &[(&str, &str)]) -> Result<Option<OtlpPipeline>, OtlpError> {
        otlp_from_lookup("svc", |n| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn what_cannot_work_is_a_clear_error() {
        assert!(from(&[]).unwrap().is_none());
        assert!(from(&[(ALL_SIGNALS, "")]).unwrap().is_none());
        assert!(from(&[(ALL_SIGNALS, "http://x:1"), ("OTEL_SDK_DISABLED", "True")]).unwrap().is_none());
        for bad in ["localhost:4318", "//localhost:4318", "http:///x", "http://", "ftp://x", "http://x:port"] {
            let e = from(&[(ALL_SIGNALS, bad)]).unwrap_err();
            assert!(matches!(&e, OtlpError::Endpoint { variable: ALL_SIGNALS, endpoint } if endpoint == bad), "{e:?}");
            assert!(e.to_string().contains(bad) && e.to_string().contains("http://localhost:4318"), "{e}");
        }
        let e = from(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://u:secret@x:4318/a?key=secret")]).unwrap_err();
        assert!(matches!(e, OtlpError::Tls { .. }) && e.to_string().contains("`https://x:4318/a`"), "{e}");
        for (variable, value) in
            [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")]
        {
            let e = from(&[(ALL_SIGNALS, "http://x:1"), (variable, value)]).unwrap_err();
            assert!(matches!(e, OtlpError::Protocol { .. }), "{e:?}");
            assert!(e.to_string().contains(variable) && e.to_string().contains(value), "{e}");
        }
    }

    #[test]
    fn the_general_endpoint_is_a_base_and_no_secret_is_shown() {
        let p = from(&[(ALL_SIGNALS, "http://u:secret@127.0.0.1:9/base/")]).unwrap().unwrap();
        assert_eq!(p.endpoint(), "http://127.0.0.1:9/base/v1/traces");
        assert_eq!(format!("{p:?}"), "OtlpPipeline { endpoint: \"http://127.0.0.1:9/base/v1/traces\", .. }");
        let p = from(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9/as/it/is")]).unwrap().unwrap();
        assert_eq!(p.endpoint(), "http://127.0.0.1:9/as/it/is");
        assert_eq!((decoded("a%20b%2C%zz%"), decoded("%ff")), ("a b,%zz%".into(), "%ff".into()));
    }
}
