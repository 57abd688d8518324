//! Every example runs and says what its file promises. `cargo test` builds the examples beside this test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use argus_core::{AuditReader, Filter, Record};
use argus_testkit::{OtlpReceiver, verify_with_python};

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
