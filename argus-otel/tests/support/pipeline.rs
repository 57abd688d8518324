//! Pipelines from variables, and how a span or a collection fares in one.

use std::time::Duration;

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt};
use argus_otel::{AuditMetrics, OtelAuditWrapper, OtelWrapperConfig, OtlpError, OtlpMetrics, OtlpPipeline};
use argus_otel::{otlp_from_lookup, otlp_metrics_from_lookup};
use argus_testkit::TempTrail;

use super::SOON;

pub(crate) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
pub(crate) const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";

pub(crate) type Vars<'v> = &'v [(&'v str, String)];

/// A time limit that a test can wait for, unless they set another.
fn lookup(vars: Vars<'_>) -> impl Fn(&str) -> Option<String> {
    move |n| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| v.clone()).or((n == TIMEOUT).then(|| "2000".to_owned()))
}

pub(crate) fn spans(vars: Vars<'_>) -> Result<OtlpPipeline, OtlpError> {
    otlp_from_lookup("svc", lookup(vars)).map(Option::unwrap)
}

pub(crate) fn metrics(vars: Vars<'_>) -> OtlpMetrics {
    otlp_metrics_from_lookup("svc", lookup(vars)).unwrap().unwrap()
}

/// Logs one record through it and ends it, and says how the span fared: those delivered, those failed, why.
pub(crate) fn fares(pipeline: &OtlpPipeline) -> (u64, u64, String) {
    let trail = TempTrail::new();
    let logger = AuditLogger::open(AuditConfig::new(trail.jsonl())).unwrap();
    let config = OtelWrapperConfig::default().account(pipeline.account());
    let audit = OtelAuditWrapper::new(logger, pipeline.tracer(), config);
    audit.log(AuditEvent::security("login_denied")).unwrap();
    assert_eq!(audit.close(SOON).committed, 1);
    pipeline.shutdown(SOON).ok();
    let health = audit.health();
    (pipeline.account().exported(), health.tracing_errors, health.tracing_error.unwrap_or_default())
}

/// Audit metrics of a trail of one change, in a pipeline.
pub(crate) struct Collected {
    pub(crate) pipeline: OtlpMetrics,
    _metrics: AuditMetrics,
    _trail: TempTrail,
}

impl Collected {
    pub(crate) fn new(vars: Vars<'_>) -> Self {
        // Only when told to.
        let hour = ("OTEL_METRIC_EXPORT_INTERVAL", Duration::from_secs(3600).as_millis().to_string());
        let pipeline = metrics(&[vars, &[hour]].concat());
        let trail = TempTrail::new();
        let logger = AuditLogger::open(AuditConfig::new(trail.db())).unwrap();
        logger.log_config_change("/etc/shop.yaml", 1, 2).unwrap();
        logger.flush(SOON).unwrap();
        let builder = AuditMetrics::builder().follow(logger.reader().unwrap()).exports(&pipeline);
        let metrics = builder.install(&pipeline.meter(), &logger).unwrap();
        Self { pipeline, _metrics: metrics, _trail: trail }
    }

    /// Collects and sends once: the failures so far, and why the last was.
    pub(crate) fn fares(&self) -> (u64, String) {
        self.pipeline.provider().force_flush().ok();
        (self.pipeline.export_errors(), self.pipeline.export_error().unwrap_or_default())
    }
}
