//! The pipeline against a real OTLP/HTTP receiver: what arrives, how it ends, and on which runtimes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt};
use argus_otel::{OtelAuditWrapper, OtelWrapperConfig, OtlpError, OtlpPipeline, names};
use argus_testkit::{OtlpReceiver, Reply, TempTrail, verify_with_python};
use support::SOON;
use support::pipeline::{ENDPOINT, spans};

fn pipeline(receiver: &OtlpReceiver, more: &[(&str, &str)]) -> OtlpPipeline {
    let more = more.iter().map(|(k, v)| (*k, (*v).to_owned()));
    spans(&[(ENDPOINT, receiver.endpoint())].into_iter().chain(more).collect::<Vec<_>>()).unwrap()
}

fn log_one(pipeline: &OtlpPipeline) -> (TempTrail, u64) {
    let trail = TempTrail::new();
    let logger = AuditLogger::open(AuditConfig::new(trail.jsonl())).unwrap();
    let audit = OtelAuditWrapper::new(logger, pipeline.tracer(), OtelWrapperConfig::default());
    audit.log(AuditEvent::security("login_denied").with("ip", "192.0.2.7").with("attempts", 3)).unwrap();
    let committed = audit.close(SOON).committed;
    (trail, committed)
}

#[test]
fn spans_arrive_with_their_resource() {
    let receiver = OtlpReceiver::start();
    let attributes = "service.name=other,deployment.environment=a%20b";
    let more = [("OTEL_RESOURCE_ATTRIBUTES", attributes), ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=a%20b")];
    let pipeline = pipeline(&receiver, &more);
    assert_eq!(pipeline.endpoint(), format!("{}/v1/traces", receiver.endpoint()));
    let (trail, committed) = log_one(&pipeline);
    assert_eq!(committed, 1);
    pipeline.shutdown(SOON).unwrap();
    pipeline.shutdown(SOON).unwrap();

    let spans = receiver.wait_for_spans(1, SOON).unwrap();
    assert_eq!(spans.len(), 1);
    let span = &spans[0];
    assert_eq!((span.span.name.as_str(), span.scope.name.as_str()), ("audit.security.login_denied", "argus"));
    assert_eq!(span.attribute(names::LEVEL).as_deref(), Some("SECURITY"));
    assert_eq!(span.attribute("audit.context.attempts").as_deref(), Some("3"));
    assert_eq!(span.span.start_time_unix_nano, span.span.end_time_unix_nano);
    assert_eq!(span.resource_attribute("service.name").as_deref(), Some("other"));
    assert_eq!(span.resource_attribute("deployment.environment").as_deref(), Some("a b"));
    let requests = receiver.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("x-token"), Some("a b"));
    if let Some((code, out)) = verify_with_python(trail.jsonl()) {
        assert_eq!(code, 0, "{out}");
    }
}

#[test]
fn the_service_name_has_an_order() {
    let receiver = OtlpReceiver::start();
    let from_attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=two");
    for more in [&[][..], &[from_attributes], &[from_attributes, ("OTEL_SERVICE_NAME", "three")]] {
        let pipeline = pipeline(&receiver, more);
        log_one(&pipeline);
        pipeline.shutdown(SOON).unwrap();
    }
    let names: Vec<_> = receiver
        .wait_for_spans(3, SOON)
        .unwrap()
        .iter()
        .map(|s| s.resource_attribute("service.name").unwrap())
        .collect();
    assert_eq!(names, ["svc", "two", "three"]);
}

#[test]
fn dropping_sends_what_is_left() {
    let receiver = OtlpReceiver::start();
    log_one(&pipeline(&receiver, &[]));
    assert_eq!(receiver.spans().len(), 1);
}

#[test]
fn a_current_thread_runtime_neither_panics_nor_hangs() {
    let receiver = OtlpReceiver::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pipeline = pipeline(&receiver, &[]);
        log_one(&pipeline);
        pipeline.shutdown(SOON).unwrap();
        drop(pipeline);
        let dropped = self::pipeline(&receiver, &[]);
        log_one(&dropped);
    });
    assert_eq!(receiver.spans().len(), 2);
}

#[test]
fn it_ends_inside_a_task_and_after_its_runtime() {
    let receiver = OtlpReceiver::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (inside, kept) = (pipeline(&receiver, &[]), pipeline(&receiver, &[]));
    let task = runtime.spawn(async move {
        inside.probe(SOON).unwrap();
        log_one(&inside);
        drop(inside);
    });
    runtime.block_on(task).unwrap();
    log_one(&kept);
    drop(runtime);
    kept.shutdown(SOON).unwrap();
    assert_eq!(receiver.spans().len(), 2);
}

#[test]
fn a_refusing_collector_harms_no_record() {
    let receiver = OtlpReceiver::start();
    receiver.set_status(400);
    let pipeline = pipeline(&receiver, &[]);
    let (trail, committed) = log_one(&pipeline);
    let ended = pipeline.shutdown(SOON);
    assert_eq!((committed, receiver.requests()[0].status, receiver.spans().len()), (1, 400, 0));
    assert!(matches!(ended, Ok(()) | Err(OtlpError::Shutdown(_))));
    assert_eq!(std::fs::read_to_string(trail.jsonl()).unwrap().matches("login_denied").count(), 1);
}

#[test]
fn shutdown_is_bounded() {
    let receiver = OtlpReceiver::start();
    receiver.respond_with(|_| Reply::status(200).after(Duration::from_secs(3)));
    let pipeline = pipeline(&receiver, &[]);
    log_one(&pipeline);
    let began = Instant::now();
    let error = pipeline.shutdown(Duration::from_millis(200)).unwrap_err();
    assert!(matches!(error, OtlpError::Shutdown(_)), "{error}");
    drop(pipeline);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
