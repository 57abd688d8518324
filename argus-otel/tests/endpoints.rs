//! Endpoints that are none: each is an error of the probe and a counted failure with its reason, and no record is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt};
use argus_otel::{AuditMetrics, OtelAuditWrapper, OtelWrapperConfig, OtlpPipeline, names, otlp_from_lookup};
use argus_otel::{opentelemetry::metrics::MeterProvider, otlp_metrics_from_lookup};
use argus_testkit::{OtlpReceiver, Reply, TempTrail};

const SOON: Duration = Duration::from_secs(20);

fn pipeline(endpoint: &str) -> OtlpPipeline {
    otlp_from_lookup("svc", |name| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.to_owned()),
        "OTEL_EXPORTER_OTLP_TIMEOUT" => Some("1000".to_owned()),
        _ => None,
    })
    .unwrap()
    .unwrap()
}

/// Logs one record through it, and says how the span fared: those delivered, those failed, why.
fn fares(pipeline: &OtlpPipeline) -> (u64, u64, String) {
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

/// A server that answers whatever comes with these bytes.
fn answers(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        }
    });
    format!("http://{address}")
}

fn must_fail(endpoint: &str, reasons: &[&str]) {
    let pipeline = pipeline(endpoint);
    let probed = pipeline.probe(SOON).unwrap_err().to_string();
    let (exported, failed, why) = fares(&pipeline);
    assert_eq!((exported, failed), (0, 1), "{endpoint}: {why}");
    for reason in reasons {
        assert!(probed.contains(reason), "{endpoint}: no `{reason}` in `{probed}`");
        assert!(why.contains(reason), "{endpoint}: no `{reason}` in `{why}`");
    }
}

#[test]
fn nobody_listens() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    must_fail(&format!("http://127.0.0.1:{port}"), &["/v1/traces", "refused"]);
}

#[test]
fn a_web_page_with_status_200() {
    let html =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>";
    must_fail(&answers(html), &["answered 200 OK", "text/html", "no OTLP"]);
    // These bytes would even be a message.
    let html = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\n\n\0";
    must_fail(&answers(html), &["text/html"]);
    // What some servers say to protobuf is no reason to send it again.
    let json = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    assert_eq!(fares(&pipeline(&answers(json))), (1, 0, String::new()));
}

#[test]
fn a_grpc_server_spoken_to_in_http_1() {
    // What an HTTP/2 server says first: an empty SETTINGS frame.
    must_fail(&answers(&[0, 0, 0, 4, 0, 0, 0, 0, 0]), &["/v1/traces"]);
}

#[test]
fn statuses_have_hints() {
    let receiver = OtlpReceiver::start();
    for (status, hint) in [(404, "/v1/... is added"), (401, "token"), (400, "400 Bad Request")] {
        receiver.set_status(status);
        must_fail(&receiver.endpoint(), &[hint, &status.to_string()]);
    }
}

#[test]
fn a_body_that_is_no_answer() {
    let receiver = OtlpReceiver::start();
    receiver.respond_with(|_| Reply::status(200).raw("not a message"));
    must_fail(&receiver.endpoint(), &["no OTLP"]);
}

#[test]
fn a_partial_success_is_counted_and_not_sent_again() {
    let receiver = OtlpReceiver::start();
    receiver.respond_with(|_| Reply::partial(1, "attribute too long"));
    let pipeline = pipeline(&receiver.endpoint());
    let (exported, failed, why) = fares(&pipeline);
    assert_eq!((exported, failed, receiver.requests().len()), (0, 1, 1));
    assert!(why.contains("rejected 1") && why.contains("attribute too long"), "{why}");
}

#[test]
fn a_good_endpoint_is_one() {
    let receiver = OtlpReceiver::start();
    let pipeline = pipeline(&receiver.endpoint());
    pipeline.probe(SOON).unwrap();
    assert_eq!(fares(&pipeline), (1, 0, String::new()));
    assert_eq!((receiver.spans().len(), receiver.requests().len()), (1, 2));
}

#[test]
fn a_probe_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let e = pipeline(&endpoint).probe(Duration::from_millis(200)).unwrap_err();
    assert!(e.to_string().contains(&endpoint), "{e}");
}

#[test]
fn metrics_are_sent_to_their_own_path() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut got, mut part) = (Vec::new(), [0; 4096]);
        let wanted = |got: &[u8]| {
            let text = String::from_utf8_lossy(got).to_lowercase();
            let (head, _) = text.split_once("\r\n\r\n")?;
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok())?;
            let head = got.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
            Some(head + length)
        };
        while wanted(&got).is_none_or(|n| got.len() < n) {
            let n = stream.read(&mut part).unwrap();
            got.extend_from_slice(&part[..n]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        got
    });
    let pipeline = otlp_metrics_from_lookup("svc", |n| (n == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| endpoint.clone()));
    let pipeline = pipeline.unwrap().unwrap();
    assert_eq!(pipeline.endpoint(), format!("{endpoint}/v1/metrics"));
    let trail = TempTrail::new();
    let logger = AuditLogger::open(AuditConfig::new(trail.db())).unwrap();
    let builder = AuditMetrics::builder().follow(logger.reader().unwrap());
    let metrics = builder.install(&pipeline.provider().meter("argus"), &logger).unwrap();
    logger.log_config_change("/etc/shop.yaml", 1, 2).unwrap();
    logger.close(SOON);
    pipeline.shutdown(SOON).unwrap();
    drop(metrics);
    let got = server.join().unwrap();
    assert!(got.starts_with(b"POST /v1/metrics HTTP/1.1\r\n"));
    let has = |word: &str| got.windows(word.len()).any(|w| w == word.as_bytes());
    assert!(has(names::METRIC_EVENTS) && has("CRITICAL") && has("svc"));
}
