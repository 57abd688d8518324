//! What the OpenTelemetry wrapper adds to a call, and what a span costs on Argus's thread. The floors: the same call on the logger inside; the same span by hand.

use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use argus_core::{
    AuditError, AuditEvent, AuditSink, AuditSinkExt, Carrier, CloseReport, CommitObserver, Health, Level, LossReason,
    ObserverId, Pending, Receipt, Record, RecordId, State, Trace, TraceContext,
};
use argus_otel::{AuditMetrics, OtelAuditWrapper, OtelWrapperConfig, names};
use opentelemetry::trace::noop::NoopTracer;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor};

use crate::accept::logger;
use crate::alloc;
use crate::row::{CALLS, RUNS, Row, interleaved, p50};

#[inline(always)]
fn request(sink: &impl AuditSink) {
    let event = AuditEvent::info("request").with("user", "jane").with("status", 200).with("path", "/orders");
    let _ = black_box(sink.log(event));
}

/// Nanoseconds that a wrapper adds, in a call inside an active span: the difference is `ours`, the call without it the floor.
fn added(what: &'static str, aim: &'static str, tracer: bool) -> Row {
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, true);
    let wrapper = match tracer {
        true => OtelAuditWrapper::new(logger.clone(), NoopTracer::new(), OtelWrapperConfig::default()),
        false => OtelAuditWrapper::without_tracer(logger.clone()),
    };
    let _active = remote().attach();
    let wait = || logger.flush(Duration::from_secs(60)).unwrap();
    let wrapped = || {
        let t = p50(|| request(&wrapper));
        wait();
        t
    };
    let bare = || {
        let t = p50(|| request(&logger));
        wait();
        t
    };
    let (ours, floor) = interleaved(RUNS, wrapped, bare);
    Row { name: "", what, unit: "ns", ours: ours - floor, floor, aim, runs: RUNS }
}

pub(crate) fn without_tracer() -> Row {
    added("a wrapper without a tracer, added to `log`; floor column: `log` itself, journal", "<= 5 ns", false)
}

pub(crate) fn with_tracer() -> Row {
    added("a wrapper with a tracer, inside a span, added to `log`; floor column: `log` itself", "<= 40 ns", true)
}

/// A sink that only takes: what remains is the wrapper.
#[derive(Default)]
struct Takes(Mutex<Option<Arc<dyn CommitObserver>>>);

impl AuditSink for Takes {
    #[inline]
    fn enabled(&self, _: Level) -> bool {
        true
    }
    #[inline(never)]
    fn submit(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Option<RecordId>, AuditError> {
        black_box((event, carrier));
        Ok(Some(RecordId::from_bytes([0; 16])))
    }
    fn submit_durable(&self, _: &AuditEvent<'_>, _: &Carrier<'_>) -> Result<Pending, AuditError> {
        Err(AuditError::Unsupported)
    }
    fn subscribe(&self, observer: Arc<dyn CommitObserver>) -> Result<ObserverId, AuditError> {
        *self.0.lock().unwrap() = Some(observer);
        Ok(ObserverId(0))
    }
    fn report_loss(&self, _: LossReason, _: u64) {}
    fn flush(&self, _: Duration) -> Result<(), AuditError> {
        Err(AuditError::Unsupported)
    }
    fn close(&self, _: Duration) -> CloseReport {
        CloseReport::default()
    }
    fn health(&self) -> Health {
        Health::default()
    }
}

/// The same over a sink that only takes, where no writer's work disturbs.
fn over_nothing(what: &'static str, aim: &'static str, tracer: bool) -> Row {
    let wrapper = match tracer {
        true => OtelAuditWrapper::new(Takes::default(), NoopTracer::new(), OtelWrapperConfig::default()),
        false => OtelAuditWrapper::without_tracer(Takes::default()),
    };
    let plain = Takes::default();
    let _active = remote().attach();
    let (ours, floor) = interleaved(RUNS, || p50(|| request(&wrapper)), || p50(|| request(&plain)));
    Row { name: "", what, unit: "ns", ours: ours - floor, floor, aim, runs: RUNS }
}

pub(crate) fn without_tracer_over_nothing() -> Row {
    over_nothing("the same over a sink that does nothing; floor column: that sink", "<= 5 ns", false)
}

pub(crate) fn with_tracer_over_nothing() -> Row {
    over_nothing("the same over a sink that does nothing; floor column: that sink", "<= 40 ns", true)
}

pub(crate) fn allocations() -> Row {
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, true);
    let wrapper = OtelAuditWrapper::new(logger.clone(), NoopTracer::new(), OtelWrapperConfig::default());
    let _active = remote().attach();
    let ours = || {
        let before = alloc::calls();
        (0..CALLS).for_each(|_| request(&wrapper));
        let made = alloc::calls() - before;
        logger.flush(Duration::from_secs(60)).unwrap();
        made as f64 / (CALLS / 1000) as f64
    };
    let (ours, floor) = interleaved(RUNS, ours, || 0.0);
    let what = "allocations of the caller in 1000 `log` through a wrapper with a tracer, inside a span";
    Row { name: "", what, unit: "per 1000", ours, floor, aim: "0", runs: RUNS }
}

/// Takes spans and drops them, as cheaply as can be.
#[derive(Debug)]
struct Drops;

impl SpanProcessor for Drops {
    fn on_start(&self, _: &mut Span, _: &Context) {}
    fn on_end(&self, span: SpanData) {
        drop(black_box(span));
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn remote() -> Context {
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from_bytes([1; 16]),
        SpanId::from_bytes([2; 8]),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    ))
}

/// The span that the wrapper makes of the record, by hand, from values at hand.
fn by_hand(tracer: &SdkTracer, at: SystemTime, id: &str) {
    let attributes = vec![
        KeyValue::new(names::LEVEL, "INFO"),
        KeyValue::new(names::EVENT, "request".to_owned()),
        KeyValue::new(names::COMPONENT, "argus".to_owned()),
        KeyValue::new(names::OPERATION, "request".to_owned()),
        KeyValue::new(names::TIMESTAMP, "2026-11-18T11:06:40.123456789Z".to_owned()),
        KeyValue::new(names::RECORD_ID, id.to_owned()),
        KeyValue::new(names::SECURITY_CRITICAL, false),
        KeyValue::new(format!("{}path", names::CONTEXT_PREFIX), "/orders".to_owned()),
        KeyValue::new(format!("{}status", names::CONTEXT_PREFIX), 200),
        KeyValue::new(format!("{}user", names::CONTEXT_PREFIX), "jane".to_owned()),
    ];
    let builder = SpanBuilder::from_name("audit.request".to_owned()).with_start_time(at).with_attributes(attributes);
    tracer.build_with_context(builder, &remote()).end_with_timestamp(at);
}

/// Keeps one record as an observer is told of it.
#[derive(Default)]
struct Keeps(Mutex<Option<Record>>);

impl CommitObserver for Keeps {
    fn interest(&self) -> argus_core::Interest {
        argus_core::Interest::All
    }
    fn committed(&self, record: &Record, _: &Receipt, _: &Carrier<'_>) {
        *self.0.lock().unwrap() = Some(record.clone());
    }
}

pub(crate) fn span() -> Row {
    const SPANS: u32 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, true);
    let keeps = Arc::new(Keeps::default());
    logger.subscribe(keeps.clone()).unwrap();
    logger.flush(Duration::from_secs(60)).unwrap();
    request(&logger);
    while keeps.0.lock().unwrap().as_ref().is_none_or(|r| r.event != "request") {
        std::thread::yield_now();
    }
    let record = keeps.0.lock().unwrap().take().unwrap();
    let provider = SdkTracerProvider::builder().with_span_processor(Drops).build();
    let tracer = provider.tracer("bench");
    let takes = Takes::default();
    let wrapper = OtelAuditWrapper::new(takes, tracer.clone(), OtelWrapperConfig::default());
    let observer = wrapper.inner().0.lock().unwrap().clone().unwrap();
    let receipt = Receipt::new(record.record_id, State::Committed);
    let trace = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1, remote: true, trace_state: "" };
    let carrier = Carrier::default().with_trace(Trace::Parent(trace));
    let (at, id) = (record.timestamp, record.record_id.to_string());
    let timed = |f: &dyn Fn()| {
        let t = Instant::now();
        (0..SPANS).for_each(|_| f());
        t.elapsed().as_nanos() as f64 / f64::from(SPANS)
    };
    let ours = || timed(&|| observer.committed(&record, &receipt, &carrier));
    let (ours, floor) = interleaved(RUNS, ours, || timed(&|| by_hand(&tracer, at, &id)));
    let what = "a span with 10 attributes of a record, on Argus's thread; floor: the SDK's cost of the same span, made by hand";
    Row { name: "", what, unit: "ns", ours, floor, aim: "<= 1.3 x", runs: RUNS }
}

/// Records a second that a followed trail's history is counted with; floor: `stats` over the same trail.
pub(crate) fn follow() -> Row {
    const RECORDS: usize = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, true);
    (0..RECORDS).for_each(|_| request(&logger));
    logger.flush(Duration::from_secs(60)).unwrap();
    let meter = opentelemetry::global::meter("bench");
    let ours = || {
        let t = Instant::now();
        let metrics = AuditMetrics::builder().follow(logger.reader().unwrap()).install(&meter, &logger).unwrap();
        assert!(metrics.catch_up(Duration::from_secs(60)));
        RECORDS as f64 / t.elapsed().as_secs_f64()
    };
    let floor = || {
        let t = Instant::now();
        assert!(logger.reader().unwrap().stats().unwrap().records as usize > RECORDS);
        RECORDS as f64 / t.elapsed().as_secs_f64()
    };
    let (ours, floor) = interleaved(3, ours, floor);
    let what = "counting the history of a followed trail; floor: `AuditReader::stats`";
    Row { name: "", what, unit: "records/s", ours, floor, aim: "reported", runs: 3 }
}
