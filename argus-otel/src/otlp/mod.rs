//! `otlp_from_env`: spans and metrics to a Collector from the standard `OTEL_*` variables. Clients are made explicitly and on a thread of their own; shutdown
//! runs on a thread of its own, bounded.

mod env;
mod error;
#[cfg(feature = "grpc")]
mod grpc;
mod http;
mod metrics;
mod peer;
#[cfg(test)]
mod tests;
#[cfg(feature = "grpc")]
mod throttle;
#[cfg(feature = "tls")]
mod tls;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanExporter, TracerProviderBuilder};

use crate::account::SpanAccount;
use crate::sdk::{CountedBatch, KeepSecurity, counted_batch};
use env::{Env, Settings, TRACES, Transport};
pub use error::OtlpError;
pub use metrics::{OtlpMetrics, otlp_metrics_from_env, otlp_metrics_from_lookup};

/// How long dropping a pipeline waits for its last items.
const DROP_WAIT: Duration = Duration::from_secs(5);
/// Spans that wait, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise. The specification's number.
const QUEUE: usize = 2048;
/// Attributes of a span, unless `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT` says otherwise: room for all context members of a record beside ours.
const ATTRIBUTES: u32 = 256;

/// A span pipeline over OTLP. Dropping it sends what is left, for at most 5 s.
pub struct OtlpPipeline {
    provider: SdkTracerProvider,
    account: SpanAccount,
    settings: Settings,
    end: End,
}

impl fmt::Debug for OtlpPipeline {
    /// The endpoint only: the provider's own `Debug` is long, and headers may hold tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpPipeline").field("endpoint", &self.endpoint()).finish_non_exhaustive()
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

    /// What became of audit spans, for [`OtelWrapperConfig::account`](crate::OtelWrapperConfig::account).
    pub fn account(&self) -> &SpanAccount {
        &self.account
    }

    /// Where spans go, without user, password and query.
    pub fn endpoint(&self) -> &str {
        &self.settings.shown
    }

    /// Sends a request without spans, and says what came back: whether host, port, protocol, path, certificate and headers are right.
    ///
    /// # Errors
    /// [`OtlpError::Refused`], with the reason; or the client cannot be made.
    pub fn probe(&self, timeout: Duration) -> Result<(), OtlpError> {
        let mut settings = self.settings.clone();
        settings.timeout = settings.timeout.min(timeout);
        let endpoint = settings.shown.clone();
        let account = SpanAccount::default();
        let probed = on_own_thread("argus-otlp-probe", timeout.saturating_add(Duration::from_secs(1)), move || {
            Ok(match settings.transport {
                Transport::Http => wait(http_spans(&settings, &account)?.export(Vec::new())),
                #[cfg(feature = "grpc")]
                Transport::Grpc => wait(grpc::Spans::new(&settings, &account)?.export(Vec::new())),
                #[cfg(not(feature = "grpc"))]
                Transport::Grpc => Ok(()),
            }
            .map_err(|e| account.take_note().unwrap_or_else(|| e.to_string())))
        });
        match probed {
            Some(answer) => answer?.map_err(|why| OtlpError::Refused { endpoint, why }),
            None => Err(OtlpError::Refused { endpoint, why: format!("no answer within {timeout:?}") }),
        }
    }

    /// Sends what is left and ends the pipeline. Works on any runtime and without one; a second call does nothing.
    ///
    /// # Errors
    /// The time ran out, or the exporter failed.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), OtlpError> {
        let provider = self.provider.clone();
        self.end.once(timeout, move || provider.shutdown_with_timeout(timeout))
    }
}

impl Drop for OtlpPipeline {
    fn drop(&mut self) {
        // A drop has nobody to tell; who wants to know calls `shutdown`.
        let _ = self.shutdown(DROP_WAIT);
    }
}

/// The pipeline that `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT` asks for; `None` where neither is set, or `OTEL_SDK_DISABLED` is
/// `true`. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` go before `service_name`. Protocol, headers, certificates, time limit, batching and sampling follow
/// the environment, too; `docs/otel.md` lists the variables.
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
///     Some(p) => OtelAuditWrapper::new(logger, p.tracer(), OtelWrapperConfig::default().account(p.account())),
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
/// The variables ask for what this build cannot do, or name what cannot be used, and the error says what.
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

/// As [`otlp_from_env`], with the variables from `lookup` instead of the process's environment.
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
    let env = Env(lookup);
    if env.disabled() {
        return Ok(None);
    }
    let Some(settings) = env.settings(&TRACES)? else { return Ok(None) };
    let number = |name: &str| env.get(name).and_then(|v| v.parse::<u32>().ok());
    let queue = number("OTEL_BSP_MAX_QUEUE_SIZE").filter(|n| *n > 0).map_or(QUEUE, |n| n as usize);
    let account = SpanAccount::default();
    let mut builder = SdkTracerProvider::builder()
        .with_resource(env.resource(service_name))
        .with_sampler(KeepSecurity(env.sampler()))
        .with_span_processor(processor(&settings, &account, queue)?);
    if number("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT").is_none() {
        builder = builder.with_max_attributes_per_span(ATTRIBUTES);
    }
    let provider = customise(builder).build();
    Ok(Some(OtlpPipeline { provider, account, settings, end: End::default() }))
}

fn processor(settings: &Settings, account: &SpanAccount, queue: usize) -> Result<CountedBatch, OtlpError> {
    let (settings, account) = (settings.clone(), account.clone());
    build(move || match settings.transport {
        #[cfg(feature = "grpc")]
        Transport::Grpc => Ok(counted_batch(grpc::Spans::new(&settings, &account)?, &account, queue)),
        _ => Ok(counted_batch(http_spans(&settings, &account)?, &account, queue)),
    })
}

fn http_spans(settings: &Settings, account: &SpanAccount) -> Result<opentelemetry_otlp::SpanExporter, OtlpError> {
    let builder = opentelemetry_otlp::SpanExporter::builder().with_http();
    over_http(builder, settings, account)?.build().map_err(|e| OtlpError::Build(e.into()))
}

/// What the exporters of both signals are told.
fn over_http<B: WithExportConfig + WithHttpConfig>(
    builder: B,
    settings: &Settings,
    account: &SpanAccount,
) -> Result<B, OtlpError> {
    let builder = builder.with_http_client(http::Client::new(settings, account)?).with_headers(encoded(settings)?);
    let builder = builder.with_protocol(Protocol::HttpBinary).with_timeout(settings.timeout);
    Ok(builder.with_endpoint(settings.target.clone()))
}

/// The SDK decodes values once more, and leaves out in silence what cannot be sent.
fn encoded(settings: &Settings) -> Result<std::collections::HashMap<String, String>, OtlpError> {
    let name_ok = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    for (name, value) in &settings.headers {
        if !name.bytes().all(name_ok) || value.bytes().any(|c| c != b'\t' && (c < 32 || c == 127)) {
            return Err(OtlpError::Header { variable: settings.headers_variable, name: name.clone() });
        }
    }
    Ok(settings.headers.iter().map(|(k, v)| (k.clone(), v.replace('%', "%25"))).collect())
}

/// Clients are made where no runtime is: a blocking one must not meet any.
fn build<T: Send + 'static>(f: impl FnOnce() -> Result<T, OtlpError> + Send + 'static) -> Result<T, OtlpError> {
    let thread = std::thread::Builder::new().name("argus-otlp-build".into()).spawn(f);
    let thread = thread.map_err(|e| OtlpError::Build(e.into()))?;
    thread.join().unwrap_or_else(|_| Err(OtlpError::Build("the exporter's thread panicked".into())))
}

/// `None` where the time ran out; the thread is left to itself.
fn on_own_thread<T: Send + 'static>(
    name: &str,
    timeout: Duration,
    f: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = mpsc::sync_channel(1);
    let body = move || {
        let _ = tell.send(f());
    };
    std::thread::Builder::new().name(name.into()).spawn(body).ok()?;
    told.recv_timeout(timeout).ok()
}

/// The end of a pipeline, which comes once.
#[derive(Default)]
struct End(AtomicBool);

impl End {
    /// On a thread of its own, so that it works on any runtime and without one.
    fn once(
        &self,
        timeout: Duration,
        shutdown: impl FnOnce() -> OTelSdkResult + Send + 'static,
    ) -> Result<(), OtlpError> {
        if self.0.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        match on_own_thread("argus-otlp-shutdown", timeout, shutdown) {
            Some(Ok(())) => Ok(()),
            Some(Err(e)) => Err(OtlpError::Shutdown(e.to_string())),
            None => Err(OtlpError::Shutdown(format!("no answer within {timeout:?}"))),
        }
    }
}

/// Waits for a future on a thread that has no runtime.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(done) = future.as_mut().poll(&mut cx) {
            return done;
        }
        std::thread::park();
    }
}
