//! The same for metrics: a meter provider that sends over OTLP each `OTEL_METRIC_EXPORT_INTERVAL`.

use std::fmt;
use std::time::Duration;

use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};

#[cfg(feature = "grpc")]
use super::env::Transport;
use super::env::{Env, METRICS};
use super::error::OtlpError;
use super::{DROP_WAIT, End, build, over_http};
use crate::account::SpanAccount;
use crate::sdk::guarded;

/// A metrics pipeline over OTLP. Dropping it sends what is left, for at most 5 s.
pub struct OtlpMetrics {
    provider: SdkMeterProvider,
    /// Counts exports, not spans.
    account: SpanAccount,
    endpoint: String,
    end: End,
}

impl fmt::Debug for OtlpMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpMetrics").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl OtlpMetrics {
    /// A meter for [`AuditMetrics`](crate::AuditMetrics).
    pub fn meter(&self) -> Meter {
        self.provider.meter("argus")
    }

    /// The provider, for the service's own metrics.
    pub fn provider(&self) -> &SdkMeterProvider {
        &self.provider
    }

    /// Where metrics go, without user, password and query.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Exports that failed, or of which the other side did not take all. The next one that arrives makes up for them: the counters are cumulative.
    pub fn export_errors(&self) -> u64 {
        self.account.failed()
    }

    /// Why the last of them did; at most 500 bytes.
    pub fn export_error(&self) -> Option<String> {
        self.account.last_error()
    }

    pub(crate) fn account(&self) -> &SpanAccount {
        &self.account
    }

    /// Collects and sends once more, and ends the pipeline. Works on any runtime and without one; a second call does nothing.
    ///
    /// # Errors
    /// The time ran out, or the exporter failed.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), OtlpError> {
        let provider = self.provider.clone();
        self.end.once(timeout, move || provider.shutdown_with_timeout(timeout))
    }
}

impl Drop for OtlpMetrics {
    fn drop(&mut self) {
        let _ = self.shutdown(DROP_WAIT);
    }
}

/// An exporter whose errors and panics are counted: the SDK's reader swallows them.
struct Counted<E> {
    exporter: E,
    account: SpanAccount,
}

impl<E: PushMetricExporter> PushMetricExporter for Counted<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = guarded(|| self.exporter.export(metrics)).await;
        // Taken even if all went well: what a try before the last one saw is of no concern.
        let note = self.account.take_note();
        if let Err(e) = &result {
            self.account.fail(1, || note.unwrap_or_else(|| e.to_string()));
        }
        result
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

/// The metrics pipeline that `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT` asks for; else as [`otlp_from_env`](crate::otlp_from_env).
///
/// # Errors
/// As [`otlp_from_env`](crate::otlp_from_env).
pub fn otlp_metrics_from_env(service_name: &str) -> Result<Option<OtlpMetrics>, OtlpError> {
    otlp_metrics_from_lookup(service_name, |name| std::env::var(name).ok())
}

/// As [`otlp_metrics_from_env`], with the variables from `lookup` instead of the process's environment.
///
/// # Errors
/// As [`otlp_from_env`](crate::otlp_from_env).
pub fn otlp_metrics_from_lookup(
    service_name: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Option<OtlpMetrics>, OtlpError> {
    let env = Env(lookup);
    if env.disabled() {
        return Ok(None);
    }
    let Some(settings) = env.settings(&METRICS)? else { return Ok(None) };
    let interval = env.get("OTEL_METRIC_EXPORT_INTERVAL").and_then(|v| v.parse().ok()).filter(|ms| *ms > 0);
    let interval = Duration::from_millis(interval.unwrap_or(60_000));
    let (resource, endpoint, temporality) = (env.resource(service_name), settings.shown.clone(), env.temporality());
    let account = SpanAccount::default();
    let counts = account.clone();
    let provider = build(move || {
        let builder = SdkMeterProvider::builder().with_resource(resource);
        Ok(match settings.transport {
            #[cfg(feature = "grpc")]
            Transport::Grpc => {
                let client = super::grpc::Client::new(&settings, &counts)?;
                builder.with_reader(reader(super::grpc::Metrics { client, temporality }, counts, interval)).build()
            }
            _ => {
                let exporter = MetricExporter::builder().with_temporality(temporality).with_http();
                let exporter = over_http(exporter, &settings, &counts)?.build();
                let exporter = exporter.map_err(|e| OtlpError::Build(e.into()))?;
                builder.with_reader(reader(exporter, counts, interval)).build()
            }
        })
    })?;
    Ok(Some(OtlpMetrics { provider, account, endpoint, end: End::default() }))
}

fn reader<E: PushMetricExporter>(exporter: E, account: SpanAccount, interval: Duration) -> PeriodicReader<Counted<E>> {
    PeriodicReader::builder(Counted { exporter, account }).with_interval(interval).build()
}
