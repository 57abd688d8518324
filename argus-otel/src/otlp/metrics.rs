//! The same for metrics: a meter provider that sends over OTLP each `OTEL_METRIC_EXPORT_INTERVAL`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_otlp::{MetricExporter, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};

#[cfg(feature = "grpc")]
use super::env::Transport;
use super::env::{Env, METRICS, Settings};
use super::error::OtlpError;
use super::{DROP_WAIT, build, ended, http};
use crate::account::SpanAccount;

/// A metrics pipeline over OTLP. Dropping it sends what is left, for at most 5 s.
pub struct OtlpMetrics {
    provider: SdkMeterProvider,
    endpoint: String,
    down: AtomicBool,
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

    /// Collects and sends once more, and ends the pipeline. Works on any runtime and without one; a second call does nothing.
    ///
    /// # Errors
    /// The time ran out, or the exporter failed.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), OtlpError> {
        if self.down.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let provider = self.provider.clone();
        ended(timeout, move || provider.shutdown_with_timeout(timeout))
    }
}

impl Drop for OtlpMetrics {
    fn drop(&mut self) {
        let _ = self.shutdown(DROP_WAIT);
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
    let (resource, endpoint) = (env.resource(service_name), settings.shown.clone());
    let provider = build(move || {
        let builder = SdkMeterProvider::builder().with_resource(resource);
        Ok(match settings.transport {
            #[cfg(feature = "grpc")]
            Transport::Grpc => builder.with_reader(reader(super::grpc::metrics(&settings)?, interval)).build(),
            _ => builder.with_reader(reader(http_metrics(&settings)?, interval)).build(),
        })
    })?;
    Ok(Some(OtlpMetrics { provider, endpoint, down: AtomicBool::new(false) }))
}

fn reader<E: PushMetricExporter>(exporter: E, interval: Duration) -> PeriodicReader<E> {
    PeriodicReader::builder(exporter).with_interval(interval).build()
}

fn http_metrics(settings: &Settings) -> Result<MetricExporter, OtlpError> {
    let client = http::Client::new(settings, &SpanAccount::default())?;
    let builder =
        MetricExporter::builder().with_http().with_http_client(client).with_headers(super::encoded(settings)?);
    let builder = builder.with_protocol(Protocol::HttpBinary).with_timeout(settings.timeout);
    builder.with_endpoint(settings.target.clone()).build().map_err(|e| OtlpError::Build(e.into()))
}
