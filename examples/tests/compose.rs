//! The sides compose without glue: `AuditLayer` and `Watcher` over `OtelAuditWrapper` over `AuditLogger`, each seam also erased to `Arc<dyn AuditSink>`. Every
//! record has one span, under the caller's span or under none, and the trail verifies.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Filter, Level, Record, Watcher,
    WatcherConfig,
};
use argus_otel::{OtelAuditWrapper, OtelWrapperConfig, names};
use argus_testkit::{TempTrail, verify_with_python};
use argus_tracing_layer::{AuditLayer, audit_security};
use opentelemetry::trace::{SpanId, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider, SpanData};
use tracing::subscriber::with_default;
use tracing::{info, info_span, warn};
use tracing_subscriber::prelude::*;

const SOON: Duration = Duration::from_secs(30);

/// A trail on disk and the spans beside it.
struct Bench {
    dir: TempTrail,
    path: PathBuf,
    logger: AuditLogger,
    exporter: InMemorySpanExporter,
    tracer: SdkTracer,
}

impl Bench {
    fn new(file: &str) -> Self {
        let dir = TempTrail::new();
        let path = dir.path(file);
        let logger = AuditLogger::open(AuditConfig::new(&path).service("compose", "1")).unwrap();
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        Self { dir, path, logger, exporter, tracer: provider.tracer("compose") }
    }

    fn wrap<S: AuditSink>(&self, sink: S) -> OtelAuditWrapper<S> {
        let wrapper = OtelAuditWrapper::new(sink, self.tracer.clone(), OtelWrapperConfig::default());
        assert!(wrapper.traces());
        wrapper
    }

    /// Runs `act` once for each way of putting the seams together.
    fn each_way(act: impl Fn(&Bench, Arc<dyn AuditSink>)) {
        for file in ["audit.db", "audit.jsonl"] {
            let b = Bench::new(file);
            act(&b, Arc::new(b.wrap(b.logger.clone())));

            let b = Bench::new(file);
            let inner: Arc<dyn AuditSink> = Arc::new(b.logger.clone());
            act(&b, Arc::new(b.wrap(inner)));
        }
    }

    fn spans(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }

    fn span(&self, name: &str) -> SpanData {
        let spans = self.spans();
        spans.iter().find(|s| s.name == name).cloned().unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
    }

    /// The records of callers by event, each beside its one span, once both verifiers agree to the trail.
    fn records(&self) -> BTreeMap<String, (Record, SpanData)> {
        let health = self.logger.health();
        assert!(health.closed && health.is_ok() && health.submitted == health.committed, "{health:?}");
        let reader = AuditReader::open(&self.path).unwrap();
        let report = reader.verify().unwrap();
        assert!(report.is_ok(), "{report}");
        if let Some((code, text)) = verify_with_python(&self.path) {
            assert_eq!(code, 0, "{text}");
        }
        let own = ["audit_open", "audit_close", "audit_segment"];
        let records = reader.query(Filter::new()).unwrap().map(Result::unwrap);
        let spans: Vec<_> = self.spans().into_iter().filter(|s| s.name.starts_with("audit.")).collect();
        let mut out = BTreeMap::new();
        for record in records.filter(|r| !own.contains(&r.event.as_str())) {
            let id = record.record_id.to_string();
            let mut of = spans.iter().filter(|s| {
                s.attributes.iter().any(|kv| kv.key.as_str() == names::RECORD_ID && *kv.value.as_str() == *id)
            });
            let span = of.next().unwrap_or_else(|| panic!("no span of {}", record.event)).clone();
            assert!(of.next().is_none(), "one span of {}", record.event);
            assert_eq!(span.start_time, record.timestamp, "the event's own time");
            out.insert(record.event.clone(), (record, span));
        }
        assert_eq!(out.len(), spans.len(), "no span without a record");
        out
    }
}

/// The record has the ids of `parent`, and its span stands under it; with `None`, neither has any.
fn stands_under((record, span): &(Record, SpanData), parent: Option<&SpanData>) {
    let parent = parent.map(|p| &p.span_context);
    assert_eq!(record.trace_id, parent.map(|p| p.trace_id().to_bytes()), "{}", record.event);
    assert_eq!(record.span_id, parent.map(|p| p.span_id().to_bytes()), "{}", record.event);
    assert_eq!(span.parent_span_id, parent.map_or(SpanId::INVALID, |p| p.span_id()), "{}", record.event);
    if let Some(p) = parent {
        assert_eq!(span.span_context.trace_id(), p.trace_id(), "{}", record.event);
    }
}

fn emit() {
    info!(audit.event = "outside");
    let request = info_span!("request", audit.actor = "jane").entered();
    audit_security!("denied", audit.action = "login", ip = "192.0.2.7", "no such user");
    info!("an ordinary event");
    info_span!("inner").in_scope(|| warn!(audit.event = "in_inner", audit.new_value = r#"{"port":1}"#));
    info!(parent: None, audit.event = "root");
    drop(request);
}

fn check_emitted(b: &Bench) {
    let records = b.records();
    let events: Vec<_> = records.keys().map(String::as_str).collect();
    assert_eq!(events, ["denied", "in_inner", "outside", "root"]);
    let (request, inner) = (b.span("request"), b.span("inner"));
    stands_under(&records["outside"], None);
    stands_under(&records["root"], None);
    stands_under(&records["denied"], Some(&request));
    stands_under(&records["in_inner"], Some(&inner));
    let (record, span) = &records["denied"];
    assert_eq!((record.level, record.actor_id.as_deref()), (Level::Security, Some("jane")));
    assert_eq!(record.context.as_str(), r#"{"ip":"192.0.2.7","message":"no such user"}"#);
    assert_eq!(span.name, "audit.security.denied");
    assert_eq!(records["in_inner"].0.new_value.as_ref().unwrap().as_str(), r#"{"port":1}"#);
}

#[test]
fn the_layer_over_the_wrapper_over_the_logger() {
    for audit_first in [true, false] {
        let b = Bench::new("audit.db");
        let audit = b.wrap(b.logger.clone());
        let otel = tracing_opentelemetry::layer().with_tracer(b.tracer.clone());
        if audit_first {
            with_default(tracing_subscriber::registry().with(AuditLayer::new(audit.clone())).with(otel), emit);
        } else {
            let otel = tracing_opentelemetry::layer().with_tracer(b.tracer.clone());
            with_default(tracing_subscriber::registry().with(otel).with(AuditLayer::new(audit.clone())), emit);
        }
        assert_eq!(audit.close(SOON).committed, 4);
        assert_eq!(audit.tracing_errors(), 0);
        check_emitted(&b);
    }
}

#[test]
fn the_layer_over_erased_sinks() {
    Bench::each_way(|b, sink| {
        let otel = tracing_opentelemetry::layer().with_tracer(b.tracer.clone());
        with_default(tracing_subscriber::registry().with(otel).with(AuditLayer::new(sink.clone())), emit);
        sink.close(SOON);
        check_emitted(b);
    });
}

/// Changes a watched file in the middle of a span of the application, which is not the watcher's.
fn edit(b: &Bench, watcher: &Watcher) {
    let file = b.dir.path("app.json");
    fs::write(&file, r#"{"port":80,"tls":false}"#).unwrap();
    watcher.watch(&file, |_| {}).unwrap();
    b.tracer.in_span("deploy", |_| {
        watcher.start().unwrap();
        fs::write(&file, r#"{"port":443,"tls":false}"#).unwrap();
        watcher.settle(SOON).unwrap();
    });
    watcher.stop().unwrap();
}

fn check_edited(b: &Bench, file: &Path) {
    let records = b.records();
    let (record, span) = &records["config_change"];
    assert_eq!(record.file_path.as_deref(), file.canonicalize().unwrap().to_str());
    assert_eq!(record.old_value.as_ref().unwrap().as_str(), r#"{"port":80,"tls":false}"#);
    assert_eq!(record.new_value.as_ref().unwrap().as_str(), r#"{"port":443,"tls":false}"#);
    assert_eq!(span.name, names::SPAN_CONFIG_CHANGE);
    stands_under(&records["config_change"], None);
}

fn watcher_config(b: &Bench) -> WatcherConfig {
    WatcherConfig::new(AuditConfig::new(&b.path)).debounce(Duration::from_millis(10))
}

#[test]
fn the_watcher_over_the_wrapper_over_the_logger() {
    let b = Bench::new("audit.db");
    let audit = b.wrap(b.logger.clone());
    edit(&b, &Watcher::with_sink(watcher_config(&b), audit.clone()));
    audit.close(SOON);
    assert_eq!(audit.tracing_errors(), 0);
    check_edited(&b, &b.dir.path("app.json"));
}

#[test]
fn the_watcher_over_erased_sinks() {
    Bench::each_way(|b, sink| {
        edit(b, &Watcher::with_sink(watcher_config(b), sink.clone()));
        sink.close(SOON);
        check_edited(b, &b.dir.path("app.json"));
    });
}

#[test]
fn all_sides_at_once_on_one_trail() {
    Bench::each_way(|b, sink| {
        let otel = tracing_opentelemetry::layer().with_tracer(b.tracer.clone());
        let dispatch =
            tracing::Dispatch::new(tracing_subscriber::registry().with(otel).with(AuditLayer::new(sink.clone())));
        let watcher = Watcher::with_sink(watcher_config(b), sink.clone());
        std::thread::scope(|s| {
            s.spawn(|| tracing::dispatcher::with_default(&dispatch, emit));
            s.spawn(|| {
                b.tracer
                    .in_span("direct", |_| sink.log(AuditEvent::info("deployed").with("version", "1.4.2")))
                    .unwrap();
            });
            s.spawn(|| edit(b, &watcher));
        });
        sink.close(SOON);
        let records = b.records();
        stands_under(&records["denied"], Some(&b.span("request")));
        stands_under(&records["deployed"], Some(&b.span("direct")));
        stands_under(&records["config_change"], None);
    });
}
