//! Endpoints that are none: each is an error of the probe and a counted failure with its reason, and no record is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use argus_otel::{OtlpPipeline, names};
use argus_testkit::{OtlpReceiver, Reply, text};
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, metric::Data, number_data_point::Value};
use support::SOON;
use support::pipeline::{Collected, ENDPOINT, fares, spans};

fn pipeline(endpoint: &str) -> OtlpPipeline {
    spans(&[(ENDPOINT, endpoint.to_owned())]).unwrap()
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
fn a_wait_that_the_server_asks_for_is_kept() {
    let (receiver, at) = (OtlpReceiver::start(), Arc::new(Mutex::new(Vec::new())));
    let came = at.clone();
    receiver.respond_with(move |_| {
        let mut came = came.lock().unwrap();
        came.push(Instant::now());
        if came.len() == 1 { Reply::status(429).retry_after(1) } else { Reply::status(200) }
    });
    let (exported, failed, why) = fares(&pipeline(&receiver.endpoint()));
    let at = at.lock().unwrap();
    assert_eq!((exported, failed, at.len()), (1, 0, 2), "{why}");
    assert!(at[1] - at[0] >= Duration::from_secs(1), "{at:?}");
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

/// The sums of that name: the values of each data point's attributes, and its own.
fn sums(metrics: &[ResourceMetrics], name: &str) -> Vec<(Vec<String>, i64)> {
    let all = metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics).filter(|m| m.name == name);
    let sums = all.map(|m| match m.data.as_ref().unwrap() {
        Data::Sum(sum) => sum,
        other => panic!("{other:?}"),
    });
    let points = sums.flat_map(|s| &s.data_points).map(|p| {
        let values = p.attributes.iter().map(|kv| text(&p.attributes, &kv.key).unwrap());
        let Some(Value::AsInt(n)) = p.value else { panic!("{p:?}") };
        (values.collect(), n)
    });
    points.collect()
}

#[test]
fn metrics_are_sent_to_their_own_path() {
    let receiver = OtlpReceiver::start();
    let collected = Collected::new(&[(ENDPOINT, receiver.endpoint())]);
    assert_eq!(collected.pipeline.endpoint(), format!("{}/v1/metrics", receiver.endpoint()));
    collected.pipeline.shutdown(SOON).unwrap();
    let requests = receiver.requests();
    assert_eq!((requests.len(), requests[0].path.as_str()), (1, "/v1/metrics"));
    let metrics = &requests[0].metrics;
    assert_eq!(text(&metrics[0].resource.as_ref().unwrap().attributes, "service.name").as_deref(), Some("svc"));
    let mut events = sums(metrics, names::METRIC_EVENTS);
    events.iter_mut().for_each(|e| e.0.sort());
    events.sort();
    let point = |level: &str, n| (vec![level.to_owned(), "argus".to_owned()], n);
    assert_eq!(events, [point("CRITICAL", 1), point("INFO", 1)]);
    assert_eq!(collected.pipeline.export_errors(), 0);

    let preference = ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta".to_owned());
    let changes = Collected::new(&[(ENDPOINT, receiver.endpoint()), preference]);
    changes.fares();
    changes.fares();
    let again = receiver.requests().pop().unwrap();
    assert!(sums(&again.metrics, names::METRIC_EVENTS).iter().all(|(_, n)| *n == 0), "nothing came since");
}

#[test]
fn exports_of_metrics_that_fail_are_counted_and_told_by_the_next_one() {
    let receiver = OtlpReceiver::start();
    let collected = Collected::new(&[(ENDPOINT, receiver.endpoint())]);
    let expect = |n: u64, word: &str| {
        let (failed, why) = collected.fares();
        assert!(failed == n && why.contains(word), "{failed}, not {n}: {why}");
    };
    expect(0, "");
    receiver.set_status(401);
    expect(1, "token");
    receiver.respond_with(|_| Reply::status(200).raw("not a message"));
    expect(2, "no OTLP");
    // One export, whatever number of data points was not taken.
    receiver.respond_with(|_| Reply::partial(7, "too old"));
    expect(3, "rejected 7 of a batch: too old");
    receiver.set_status(200);
    expect(3, "too old");
    let last = receiver.requests().pop().unwrap();
    assert_eq!(sums(&last.metrics, names::METRIC_EXPORT_ERRORS), [(vec![], 3)]);
    drop(receiver);
    expect(4, "refused");
}
