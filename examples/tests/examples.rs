//! Every example runs and says what its file promises. `cargo test` builds the examples beside this test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use argus_core::{AuditReader, Filter, Record};
use argus_testkit::{OtlpReceiver, Reply, verify_with_python};

fn example(name: &str) -> Command {
    let deps = std::env::current_exe().unwrap();
    let program = deps.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is not built: run `cargo test -p argus-examples`", program.display());
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars().filter(|(k, _)| k.starts_with("OTEL_") || k.starts_with("RUST_LOG")) {
        command.env_remove(variable);
    }
    command
}

fn stdout(output: Output) -> String {
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

fn records(path: &Path) -> Vec<Record> {
    let reader = AuditReader::open(path).unwrap();
    assert!(reader.verify().unwrap().is_ok());
    if let Some((code, text)) = verify_with_python(path) {
        assert_eq!(code, 0, "{text}");
    }
    reader.query(Filter::new()).unwrap().map(Result::unwrap).collect()
}

fn trail(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("audit.db")
}

#[test]
fn quickstart() {
    let dir = tempfile::tempdir().unwrap();
    let text = stdout(example("quickstart").arg(trail(&dir)).output().unwrap());
    assert!(text.contains("ok: 9 records, seq 1..=9"), "{text}");
    let all = records(&trail(&dir));
    let names: Vec<_> = all.iter().map(|r| r.event.as_str()).collect();
    let expected = "audit_open started config_change quota_exceeded login schema_migration schema_migration key_rotated audit_close";
    assert_eq!(names.join(" "), expected);
    assert!(!text.contains("hunter2") && all.iter().all(|r| !r.to_jsonl().contains("hunter2")));
}

#[test]
fn layer() {
    let dir = tempfile::tempdir().unwrap();
    let output = example("layer").arg(trail(&dir)).output().unwrap();
    let printed = String::from_utf8(output.stderr.clone()).unwrap();
    stdout(output);
    // The filter on `fmt` hides the INFO event from the terminal, not from the trail.
    assert!(printed.contains("wrong password") && !printed.contains("success"), "{printed}");
    let all = records(&trail(&dir));
    let login: Vec<_> = all.iter().filter(|r| r.event.starts_with("login")).collect();
    assert_eq!(login.len(), 2);
    assert_eq!((login[0].actor_id.as_deref(), login[1].actor_id.as_deref()), (Some("jane"), Some("joe")));
    assert!(all.iter().all(|r| !r.to_jsonl().contains("password1")));
}

#[test]
fn layer_beside_opentelemetry() {
    let dir = tempfile::tempdir().unwrap();
    let text = stdout(example("layer_otel").arg(trail(&dir)).output().unwrap());
    assert!(text.contains("trace ids: NotInUse"), "{text}");

    let dir = tempfile::tempdir().unwrap();
    let receiver = OtlpReceiver::start();
    let mut command = example("layer_otel");
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint()).env("RUST_LOG", "error");
    let text = stdout(command.arg(trail(&dir)).output().unwrap());
    assert!(text.contains("trace ids: Found"), "{text}");
    let all = records(&trail(&dir));
    let record = all.iter().find(|r| r.event == "refund_denied").unwrap();
    assert_eq!((record.actor_id.as_deref(), record.context_value("order")), (Some("jane"), Some(1042.into())));
    let spans = receiver.wait_for_spans(3, Duration::from_secs(10)).unwrap();
    let request = spans.iter().find(|s| s.span.name == "POST /refund").unwrap();
    assert_eq!(record.span_id.unwrap().to_vec(), request.span.span_id);
    // The self-test's span is the only trace of it: there is no record.
    assert!(spans.iter().any(|s| s.span.name == "argus.self_test"));
    assert_eq!(all.len(), 3);
}

#[test]
fn otel_without_an_endpoint_says_so_and_audits() {
    let dir = tempfile::tempdir().unwrap();
    let text = stdout(example("otel").arg(trail(&dir)).output().unwrap());
    assert!(text.contains("OTEL_EXPORTER_OTLP_ENDPOINT is not set"), "{text}");
    assert_eq!(records(&trail(&dir)).len(), 4);
}

#[test]
fn otel_sends_spans_under_their_request() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = OtlpReceiver::start();
    let mut command = example("otel");
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint()).env("OTEL_SERVICE_NAME", "shop-test");
    let text = stdout(command.arg(trail(&dir)).output().unwrap());
    assert!(text.contains(&receiver.endpoint()) && text.contains("0 could not be made or sent"), "{text}");

    let spans = receiver.wait_for_spans(3, Duration::from_secs(10)).unwrap();
    let span =
        |name: &str| spans.iter().find(|s| s.span.name == name).unwrap_or_else(|| panic!("no {name}: {spans:?}"));
    let request = &span("PUT /price").span;
    let all = records(&trail(&dir));
    for (name, event) in [("audit.config_change", "config_change"), ("audit.security.price_override", "price_override")]
    {
        let s = span(name);
        let record = all.iter().find(|r| r.event == event).unwrap();
        assert_eq!((&s.span.parent_span_id, &s.span.trace_id), (&request.span_id, &request.trace_id), "{name}");
        assert_eq!(record.trace_id.unwrap().to_vec(), s.span.trace_id, "the record knows its trace");
        assert_eq!(s.attribute("audit.checksum"), record.checksum.map(|c| c.to_string()));
        assert_eq!(s.attribute("deployment.environment.name").as_deref(), Some("demo"));
        assert_eq!(s.resource_attribute("service.name").as_deref(), Some("shop-test"));
        let happened = record.timestamp.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        assert_eq!(u128::from(s.span.start_time_unix_nano), happened, "the event's own time");
    }
    assert_eq!(span("audit.security.price_override").attribute("audit.context.reason").as_deref(), Some("sale"));
}

#[test]
fn otel_says_what_is_wrong_with_the_endpoint_and_audits() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = OtlpReceiver::start();
    receiver.set_status(404);
    let mut command = example("otel");
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint());
    let output = command.arg(trail(&dir)).output().unwrap();
    let printed = String::from_utf8(output.stderr.clone()).unwrap();
    let text = stdout(output);
    assert!(printed.contains("does not take OTLP") && printed.contains("404"), "{printed}");
    assert!(text.contains("2 could not be made or sent") && text.contains("answered 404"), "{text}");
    assert_eq!(records(&trail(&dir)).len(), 4);
}

#[test]
fn prometheus_counts_what_the_trail_holds() {
    let dir = tempfile::tempdir().unwrap();
    for run in 1..=2 {
        let text = stdout(example("prometheus").arg(trail(&dir)).arg("--once").output().unwrap());
        let value = |labels: &str| {
            let line = text.lines().find(|l| l.starts_with("argus_audit_events_total{") && l.contains(labels));
            line.unwrap_or_else(|| panic!("no {labels} in {text}")).rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(value("component=\"argus\",level=\"CRITICAL\""), run);
        assert_eq!(value("component=\"till\",level=\"SECURITY\""), run);
        // `audit_open` of each run, and `audit_close` of those before.
        assert_eq!(value("component=\"argus\",level=\"INFO\""), 2 * run - 1);
    }
    assert_eq!(records(&trail(&dir)).len(), 8);
}

#[test]
fn tour() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = OtlpReceiver::start();
    let mut command = example("tour");
    command.env("TMPDIR", dir.path()).env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint());
    let text = stdout(command.output().unwrap());
    let expected = [
        "app.yaml was modified: {\"/server/port\":{\"new\":9090,\"old\":8080}",
        "CRITICAL  config_change",
        "SECURITY  access_denied",
        "audit.security.access_denied   under GET /admin",
        "audit.deployed                 under deploy",
        &format!("They went to {}", receiver.endpoint()),
        "ok: 6 records, seq 1..=6, head ",
        "tampered: 1 finding in 6 records\ntampered: seq 3..=4, link, record ",
    ];
    let mut rest = text.as_str();
    for part in expected {
        let at = rest.find(part).unwrap_or_else(|| panic!("no `{part}` in its place:\n{text}"));
        rest = &rest[at..];
    }
    assert!(receiver.wait_for_spans(6, Duration::from_secs(10)).is_ok());
}

/// The service on a port of the operating system, ended with SIGKILL where a test fails before it stops it.
struct Service {
    child: std::process::Child,
    out: BufReader<std::process::ChildStdout>,
    address: String,
}

impl Service {
    fn start(dir: &tempfile::TempDir, otlp: Option<&str>) -> Self {
        let mut command = example("axum_service");
        command.env("SHOP_LISTEN", "127.0.0.1:0").env("SHOP_CONFIG", dir.path().join("shop.json"));
        command.env("ARGUS_AUDIT_OUTPUT_FILE", trail(dir)).stdout(Stdio::piped()).stderr(Stdio::null());
        if let Some(endpoint) = otlp {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        }
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").expect(&line).to_owned();
        Service { child, out, address }
    }

    /// The status code and the body.
    fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-type: application/json\r\n"
        );
        write!(stream, "{head}traceparent: {TRACEPARENT}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// SIGTERM, and what it says at its end.
    fn stop(mut self) -> String {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text}");
        text
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn axum_service() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = OtlpReceiver::start();
    receiver.respond_with(|r| Reply::status(if r.path == "/v1/metrics" { 404 } else { 200 }));
    fs::write(dir.path().join("shop.json"), r#"{"max_price": 500}"#).unwrap();
    let service = Service::start(&dir, Some(&receiver.endpoint()));
    let price = |n: u32| service.send("PUT", "/price/tea", &format!(r#"{{"user": "jane", "price": {n}}}"#)).0;
    let login = |word: &str| service.send("POST", "/login", &format!(r#"{{"user": "joe", "password": "{word}"}}"#)).0;
    assert_eq!((price(400), price(600), login("correct horse"), login("wrong")), (200, 403, 200, 401));
    // The watched file raises the limit; the service says by its answer when it has seen that.
    fs::write(dir.path().join("shop.json"), r#"{"max_price": 700}"#).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while price(600) != 200 {
        assert!(Instant::now() < until, "the limit was not raised");
    }
    let (status, health) = service.send("GET", "/health", "");
    assert!(status == 200 && health.contains(r#""lost":0"#), "{status} {health}");
    let text = service.stop();
    // The receiver takes no metrics; that is said, and is no failure of the service.
    assert!(text.contains("error: None") && text.contains("sent: (Some(Ok(())), Some(Err("), "{text}");

    let all = records(&trail(&dir));
    let of = |event: &str| all.iter().filter(|r| r.event == event).collect::<Vec<_>>();
    assert_eq!((of("price_change").len(), of("config_change").len(), of("audit_close").len()), (2, 1, 1));
    let spans = receiver.wait_for_spans(all.len() - 2, Duration::from_secs(10)).unwrap();
    for (event, span, parent) in [
        ("price_change", "audit.price_change", "PUT /price/{sku}"),
        ("price_refused", "audit.security.price_refused", "PUT /price/{sku}"),
        ("login", "audit.login", "POST /login"),
        ("login_denied", "audit.security.login_denied", "POST /login"),
    ] {
        let record = of(event)[0];
        let id = record.record_id.to_string();
        let made = spans.iter().find(|s| s.attribute("audit.record.id").as_deref() == Some(&id)).expect(event);
        let under = spans.iter().find(|s| s.span.span_id == made.span.parent_span_id).expect(event);
        assert_eq!((made.span.name.as_str(), under.span.name.as_str()), (span, parent));
        assert_eq!(record.span_id.unwrap().to_vec(), under.span.span_id);
        assert_eq!(opentelemetry::TraceId::from_bytes(record.trace_id.unwrap()).to_string(), TRACEPARENT[3..35]);
    }
}

#[test]
fn axum_service_without_a_collector() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("shop.json"), r#"{"max_price": 500}"#).unwrap();
    let service = Service::start(&dir, None);
    assert_eq!(service.send("PUT", "/price/tea", r#"{"user": "jane", "price": 1}"#).0, 200);
    assert!(service.stop().contains("sent: (None, None)"));
    let all = records(&trail(&dir));
    let names: Vec<_> = all.iter().map(|r| r.event.as_str()).collect();
    assert_eq!(names.join(" "), "audit_open file_watch_start price_change audit_close");
}
