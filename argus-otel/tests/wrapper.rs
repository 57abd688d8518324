//! The wrapper against the SDK's in-memory exporter: which span each record gets, under which parent, and that no tracer can harm a record.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use argus_core::{
    ActorType, AuditConfig, AuditError, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Carrier,
    CloseReport, Durability, ErrorKind, Faults, Health, Level, LossReason, Pending, RecordId, State, StoreFault, Trace,
    TraceContext, audit,
};
use argus_otel::opentelemetry::global::{BoxedSpan, BoxedTracer};
use argus_otel::opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use argus_otel::opentelemetry::{Context, KeyValue, Value};
use argus_otel::{OtelAuditWrapper, OtelWrapperConfig, names, trace_context};
use argus_testkit::TempTrail;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor};
use support::{SOON, Trail, attribute, config};

/// A context whose active span is the given one.
fn ambient(trace: u8, state: &str) -> Context {
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from_bytes([trace; 16]),
        SpanId::from_bytes([trace; 8]),
        TraceFlags::SAMPLED,
        false,
        state.parse::<TraceState>().unwrap(),
    ))
}

fn parent(trace: u8) -> Trace<'static> {
    Trace::Parent(TraceContext { trace_id: [trace; 16], span_id: [trace; 8], flags: 1, remote: true, trace_state: "" })
}

/// The number in the trace id; 0 for a root span.
fn trace_of(span: &SpanData) -> u8 {
    if span.parent_span_id == SpanId::INVALID { 0 } else { span.span_context.trace_id().to_bytes()[0] }
}

#[test]
fn a_span_for_each_record_under_the_callers_span() {
    let t = Trail::new();
    let audit = t.wrap(OtelWrapperConfig::default());
    let at = UNIX_EPOCH + Duration::new(1_795_000_000, 123_456_789);
    t.tracer().in_span("request", |_| {
        audit.log_config_change("/etc/shop.yaml", 1, 2).unwrap();
        audit.log(AuditEvent::security("login_denied").action("login").component("gate").at(at)).unwrap();
        audit.log(AuditEvent::info("started").actor("jane", ActorType::User)).unwrap();
    });
    assert_eq!(audit.close(SOON).committed, 3);
    assert_eq!(audit.tracing_errors(), 0);

    let spans = t.spans();
    assert_eq!(spans.len(), 4, "Argus's own records have no spans: {spans:#?}");
    let request = t.span("request");
    let change = t.span(names::SPAN_CONFIG_CHANGE);
    let denied = t.span("audit.security.login_denied");
    let started = t.span("audit.started");
    for span in [&change, &denied, &started] {
        assert_eq!(span.parent_span_id, request.span_context.span_id());
        assert_eq!(span.span_context.trace_id(), request.span_context.trace_id());
        assert!(!span.parent_span_is_remote);
        assert_eq!((span.start_time, &span.status), (span.end_time, &Status::Unset));
        assert!(span.events.is_empty() && span.links.is_empty());
    }
    // The event's own time, not that of the commit.
    assert_eq!(denied.start_time, at);
    assert_eq!(attribute(&denied, names::TIMESTAMP), Some("2026-11-18T11:06:40.123456789Z".into()));

    for (span, level, event, component, operation, security) in [
        (&change, "CRITICAL", "config_change", "argus", "config_change", true),
        (&denied, "SECURITY", "login_denied", "gate", "login", true),
        (&started, "INFO", "started", "argus", "started", false),
    ] {
        assert_eq!(attribute(span, names::LEVEL), Some(level.into()));
        assert_eq!(attribute(span, names::EVENT), Some(event.into()));
        assert_eq!(attribute(span, names::COMPONENT), Some(component.into()));
        assert_eq!(attribute(span, names::OPERATION), Some(operation.into()));
        assert_eq!(attribute(span, names::SECURITY_CRITICAL), Some(Value::Bool(security)));
        assert_eq!(attribute(span, names::CHECKSUM), None);
    }
    assert_eq!(attribute(&change, names::FILE_PATH), Some("/etc/shop.yaml".into()));
    assert_eq!(attribute(&denied, names::FILE_PATH), None);
    // The span names the record, and the record the span's parent.
    let line = t.line("login_denied");
    assert_eq!(attribute(&denied, names::RECORD_ID), Some(line["record_id"].as_str().unwrap().to_owned().into()));
    assert_eq!(line["span_id"], request.span_context.span_id().to_string());
    assert_eq!(line["trace_id"], request.span_context.trace_id().to_string());
}

#[test]
fn context_members_are_typed_and_cut_but_never_dropped() {
    let t = Trail::new();
    let config = OtelWrapperConfig::default()
        .max_context_size(8)
        .include_checksums(true)
        .base_attribute(KeyValue::new("deployment", "test"));
    let audit = t.wrap(config);
    let list = [1, 2, 3, 4, 5, 6];
    let map = std::collections::BTreeMap::from([("k", true)]);
    audit
        .log(
            AuditEvent::info("e")
                .with("text", "short")
                .with("exact", "12345678")
                .with("long", "123456789")
                .with("wide", "1234567ü9")
                .with("yes", true)
                .with("int", -7)
                .with("float", 2.5)
                .with("large", u64::MAX)
                .with("list", &list)
                .with("map", &map),
        )
        .unwrap();
    audit.close(SOON);
    let span = t.span("audit.e");
    let member = |k: &str| attribute(&span, &format!("{}{k}", names::CONTEXT_PREFIX));
    assert_eq!(member("text"), Some("short".into()));
    assert_eq!(member("exact"), Some("12345678".into()));
    assert_eq!(member("long"), Some("12345678…".into()));
    assert_eq!(member("wide"), Some("1234567…".into()));
    assert_eq!(member("yes"), Some(Value::Bool(true)));
    assert_eq!(member("int"), Some(Value::I64(-7)));
    assert_eq!(member("float"), Some(Value::F64(2.5)));
    assert_eq!(member("large"), Some(u64::MAX.to_string().into()));
    assert_eq!(member("list"), Some("[1,2,3,4…".into()));
    assert_eq!(member("map"), Some("{\"k\":tru…".into()));
    assert_eq!(attribute(&span, "deployment"), Some("test".into()));
    let checksum = t.line("e")["checksum"].as_str().unwrap().to_owned();
    assert_eq!(attribute(&span, names::CHECKSUM), Some(checksum.into()));
}

#[test]
fn context_can_be_left_out() {
    let t = Trail::new();
    let audit = t.wrap(OtelWrapperConfig::default().include_event_context(false));
    audit.log(AuditEvent::info("e").with("password", "x")).unwrap();
    audit.close(SOON);
    assert!(!t.span("audit.e").attributes.iter().any(|kv| kv.key.as_str().starts_with(names::CONTEXT_PREFIX)));
}

#[test]
fn event_before_carrier_before_ambient_before_hook() {
    let t = Trail::with(config().trace_context(|| Some(hook())));
    let audit = t.wrap(OtelWrapperConfig::default());
    let log = |name: &str, event: Trace<'_>, carrier: Trace<'_>| {
        audit.submit(&AuditEvent::info(name).trace(event), &Carrier::default().with_trace(carrier)).unwrap();
    };
    {
        let _active = ambient(3, "k=v").attach();
        log("event", parent(1), parent(2));
        log("event_none", Trace::None, parent(2));
        log("carrier", Trace::Unset, parent(2));
        log("carrier_none", Trace::Unset, Trace::None);
        log("ambient", Trace::Unset, Trace::Unset);
    }
    log("hook", Trace::Unset, Trace::Unset);
    audit.close(SOON);
    for (name, trace) in
        [("event", 1), ("event_none", 0), ("carrier", 2), ("carrier_none", 0), ("ambient", 3), ("hook", 4)]
    {
        assert_eq!(trace_of(&t.span(&format!("audit.{name}"))), trace, "{name}");
    }
    assert!(t.span("audit.carrier").parent_span_is_remote && !t.span("audit.ambient").parent_span_is_remote);
    assert_eq!(t.span("audit.ambient").span_context.trace_state().header(), "k=v");
    assert!(t.line("carrier_none").get("trace_id").is_none_or(serde_json::Value::is_null));
}

fn hook() -> argus_core::OwnedTraceContext {
    let mut owned = argus_core::OwnedTraceContext::default();
    (owned.trace_id, owned.span_id, owned.flags) = ([4; 16], [4; 8], 1);
    owned
}

#[test]
fn trace_context_is_for_a_bare_logger() {
    assert_eq!(trace_context(), None);
    let t = Trail::with(config().trace_context(trace_context));
    {
        let _active = ambient(5, "a=b").attach();
        let got = trace_context().unwrap();
        assert_eq!((got.trace_id, got.span_id, got.flags, got.remote), ([5; 16], [5; 8], 1, false));
        assert_eq!(got.trace_state, "a=b");
        t.logger.log(AuditEvent::info("bare")).unwrap();
    }
    t.logger.close(SOON);
    assert_eq!(t.line("bare")["trace_id"], "05".repeat(16));
}

#[test]
fn an_unsampled_parent_has_a_record_and_no_span() {
    let t = Trail::new();
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_simple_exporter(t.exporter.clone())
        .build();
    let audit = OtelAuditWrapper::new(t.logger.clone(), provider.tracer("t"), OtelWrapperConfig::default());
    let unsampled = TraceContext { trace_id: [1; 16], span_id: [1; 8], ..TraceContext::default() };
    audit.log(AuditEvent::info("e").trace(Trace::Parent(unsampled))).unwrap();
    audit.close(SOON);
    assert_eq!((t.spans().len(), audit.tracing_errors()), (0, 0));
    assert_eq!(t.line("e")["event"], "e");
}

#[test]
fn two_wrappers_make_two_spans_of_one_record() {
    let t = Trail::new();
    let outer = OtelAuditWrapper::new(t.wrap(OtelWrapperConfig::default()), t.tracer(), OtelWrapperConfig::default());
    t.tracer().in_span("request", |_| outer.log(AuditEvent::info("e")).unwrap());
    assert_eq!(outer.close(SOON).committed, 1);
    let twins: Vec<_> = t.spans().into_iter().filter(|s| s.name == "audit.e").collect();
    assert_eq!(twins.len(), 2);
    assert_eq!(attribute(&twins[0], names::RECORD_ID), attribute(&twins[1], names::RECORD_ID));
    assert!(twins.iter().all(|s| s.parent_span_id == t.span("request").span_context.span_id()));
}

#[test]
fn without_tracer_is_the_same_type_and_makes_none() {
    let t = Trail::new();
    let mut audit = t.wrap(OtelWrapperConfig::default());
    assert!(audit.traces());
    audit = OtelAuditWrapper::without_tracer(t.logger.clone());
    assert!(!audit.traces());
    audit!(audit, Security, "e", user = "jane").unwrap();
    assert_eq!(audit.inner().writer_id(), t.logger.writer_id());
    assert_eq!(audit.close(SOON).committed, 1);
    assert_eq!((t.spans().len(), audit.tracing_errors()), (0, 0));
}

#[test]
fn wraps_an_erased_sink_and_is_one() {
    let t = Trail::new();
    let erased: Arc<dyn AuditSink> = Arc::new(t.logger.clone());
    let audit = OtelAuditWrapper::new(erased, t.tracer(), OtelWrapperConfig::default());
    let again: Arc<dyn AuditSink> = Arc::new(audit.clone());
    again.log(AuditEvent::info("one")).unwrap();
    assert!(audit.log_durable(AuditEvent::info("two")).unwrap().checksum.is_some());
    again.flush(SOON).unwrap();
    assert!(again.enabled(Level::Info) && !again.health().closed);
    again.close(SOON);
    assert!(t.span("audit.one").span_context.is_valid() && t.span("audit.two").span_context.is_valid());
}

#[test]
fn a_boxed_tracer_as_the_global_one_is_makes_the_same_spans() {
    let t = Trail::new();
    let boxed = BoxedTracer::new(Box::new(t.tracer()));
    let audit = OtelAuditWrapper::new(t.logger.clone(), boxed, OtelWrapperConfig::default());
    let plain = t.wrap(OtelWrapperConfig::default());
    audit.log(AuditEvent::security("boxed").with("user", "jane").trace(parent(7))).unwrap();
    plain.log(AuditEvent::security("plain").with("user", "jane").trace(parent(7))).unwrap();
    audit.close(SOON);
    let [boxed, plain] = ["boxed", "plain"].map(|e| t.span(&format!("audit.security.{e}")));
    assert_eq!((trace_of(&boxed), boxed.parent_span_id), (7, plain.parent_span_id));
    let keys = |span: &SpanData| span.attributes.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys(&boxed), keys(&plain));
    assert_eq!(audit.tracing_errors(), 0);
}

#[test]
fn a_filtered_event_has_neither() {
    let t = Trail::with(config().min_level(Level::Warn));
    let audit = t.wrap(OtelWrapperConfig::default());
    assert_eq!(audit.log(AuditEvent::info("e")).unwrap(), None);
    assert!(matches!(audit.log_durable(AuditEvent::info("e")), Err(AuditError::Filtered)));
    assert_eq!(audit.health().filtered, 2);
    audit.close(SOON);
    assert!(t.spans().is_empty());
}

#[derive(Debug)]
struct Panics;

impl SpanProcessor for Panics {
    fn on_start(&self, _: &mut Span, _: &Context) {}
    fn on_end(&self, _: SpanData) {
        panic!("a processor that panics")
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[test]
fn a_panicking_processor_is_counted_and_the_records_stay() {
    let t = Trail::new();
    let provider = SdkTracerProvider::builder().with_span_processor(Panics).build();
    let audit = OtelAuditWrapper::new(t.logger.clone(), provider.tracer("t"), OtelWrapperConfig::default());
    let other = t.wrap(OtelWrapperConfig::default());
    for _ in 0..3 {
        audit.log(AuditEvent::info("e")).unwrap();
    }
    other.log(AuditEvent::info("well")).unwrap();
    assert_eq!(audit.close(SOON).committed, 4);
    assert_eq!((audit.tracing_errors(), other.tracing_errors()), (3, 0));
    // Caught before Argus's own net.
    assert_eq!(t.logger.health().observer_missed, 0);
    assert!(t.span("audit.well").span_context.is_valid());
}

struct PanickingTracer;

impl Tracer for PanickingTracer {
    type Span = BoxedSpan;

    fn build_with_context(&self, _: SpanBuilder, _: &Context) -> BoxedSpan {
        panic!("a tracer that panics")
    }
}

#[test]
fn a_panicking_tracer_is_counted_and_the_records_stay() {
    let t = Trail::new();
    let audit = OtelAuditWrapper::new(t.logger.clone(), PanickingTracer, OtelWrapperConfig::default());
    audit.log(AuditEvent::info("e")).unwrap();
    assert!(audit.log_durable(AuditEvent::info("e")).is_ok());
    assert_eq!((audit.close(SOON).committed, audit.tracing_errors()), (2, 2));
    assert_eq!(t.line("e")["event"], "e");
}

#[test]
fn a_record_that_cannot_be_committed_has_a_span_with_error_status() {
    let t = Trail::with(config().durability(Durability::Accepted));
    let audit = t.wrap(OtelWrapperConfig::default().include_checksums(true));
    t.memory.fail(u32::MAX);
    audit.log(AuditEvent::critical("e")).unwrap();
    let report = audit.close(Duration::from_millis(300));
    assert!(report.error.is_some());
    let span = t.wait_for("audit.e");
    let Status::Error { description } = &span.status else { panic!("{:?}", span.status) };
    assert!(!description.is_empty());
    assert_eq!(attribute(&span, names::CHECKSUM), None);
}

#[test]
fn a_spilled_record_has_its_span_once_it_is_merged() {
    let dir = TempTrail::new();
    for path in [dir.db(), dir.jsonl()] {
        let (t, faults) = (Trail::new(), Faults::new());
        let logger = AuditLogger::open(AuditConfig::new(&path).faults(&faults)).unwrap();
        let audit = OtelAuditWrapper::new(logger, t.tracer(), OtelWrapperConfig::default().include_checksums(true));
        faults.store(StoreFault::Commit, ErrorKind::DiskFull, u32::MAX);
        let ids: Vec<_> = (1..=20)
            .map(|i| {
                let _active = ambient(i, "").attach();
                audit.submit(&AuditEvent::security("denied").with("i", i), &Carrier::default()).unwrap().unwrap()
            })
            .collect();
        // Who waits is told that it is in the pending file. That is no commit.
        let waited = audit.log_durable(AuditEvent::info("waited").trace(parent(99))).unwrap();
        assert_eq!(waited.state, State::Spilled);
        let until = Instant::now() + SOON;
        while audit.health().pending < 21 {
            assert!(Instant::now() < until, "{:?}", audit.health());
            std::thread::yield_now();
        }
        assert_eq!(t.spans().len(), 0, "no span before the commit");

        faults.heal();
        assert_eq!(audit.close(SOON).error, None);
        assert_eq!(audit.tracing_errors(), 0);
        let reader = AuditReader::open(&path).unwrap();
        let spans = t.spans();
        assert_eq!(spans.len(), 21, "one each");
        for (i, id) in (1..=20).zip(&ids).chain([(99, &waited.record_id)]) {
            let id_text = Value::from(id.to_string());
            let mut mine = spans.iter().filter(|s| attribute(s, names::RECORD_ID).as_ref() == Some(&id_text));
            let span = mine.next().unwrap();
            let record = reader.by_id(*id).unwrap().unwrap();
            assert_eq!((trace_of(span), &span.status), (i, &Status::Unset));
            assert_eq!((span.start_time, span.end_time), (record.timestamp, record.timestamp), "the event's time");
            let checksum = attribute(span, names::CHECKSUM).map(|v| v.to_string());
            assert_eq!(checksum, record.checksum.map(|c| c.to_string()), "that of the commit");
            assert!(checksum.is_some() && mine.next().is_none());
        }
    }
}

#[test]
fn spans_of_what_was_logged_just_before_the_drop_are_made() {
    let t = Trail::with(config().durability(Durability::Accepted).commit_delay(Duration::from_millis(50)));
    for round in 0..80 {
        let audit = t.wrap(OtelWrapperConfig::default());
        assert!(audit.traces(), "the observers of earlier rounds are gone: {round}");
        let twin = audit.clone();
        audit.log(AuditEvent::info("e")).unwrap();
        drop(audit);
        twin.log(AuditEvent::info("e")).unwrap();
    }
    t.logger.close(SOON);
    assert_eq!(t.spans().len(), 160);
}

#[test]
fn the_last_handle_may_be_inside() {
    let Trail { logger, exporter, provider, memory } = Trail::new();
    let audit = OtelAuditWrapper::new(logger, provider.tracer("t"), OtelWrapperConfig::default());
    audit.log(AuditEvent::info("e")).unwrap();
    drop(audit);
    assert_eq!(exporter.get_finished_spans().unwrap().len(), 1);
    assert!(memory.lines().last().unwrap().contains("audit_close"));
}

/// A sink of a user, which takes no observers.
struct Plain(AuditLogger);

impl AuditSink for Plain {
    fn enabled(&self, level: Level) -> bool {
        self.0.enabled(level)
    }
    fn submit(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Option<RecordId>, AuditError> {
        self.0.submit(event, carrier)
    }
    fn submit_durable(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Pending, AuditError> {
        self.0.submit_durable(event, carrier)
    }
    fn report_loss(&self, reason: LossReason, count: u64) {
        self.0.report_loss(reason, count);
    }
    fn flush(&self, timeout: Duration) -> Result<(), AuditError> {
        self.0.flush(timeout)
    }
    fn close(&self, timeout: Duration) -> CloseReport {
        self.0.close(timeout)
    }
    fn health(&self) -> Health {
        self.0.health()
    }
}

#[test]
fn a_sink_without_observers_is_audited_and_says_so() {
    let t = Trail::new();
    let audit = OtelAuditWrapper::new(Plain(t.logger.clone()), t.tracer(), OtelWrapperConfig::default());
    assert_eq!((audit.traces(), audit.tracing_errors()), (false, 1));
    audit.log(AuditEvent::info("e").at(SystemTime::now())).unwrap();
    assert_eq!(audit.close(SOON).committed, 1);
    assert!(t.spans().is_empty() && t.line("e")["event"] == "e");
}

#[test]
fn a_loss_reaches_the_sink_inside() {
    let t = Trail::with(config());
    let audit = t.wrap(OtelWrapperConfig::default());
    audit.report_loss(LossReason::QueueFull, 2);
    assert_eq!(audit.health().lost, 2);
}
