//! Exporters that hang, refuse, panic or are shut down, under load: the records are committed, memory is bounded, and the account says how many spans failed and why.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use argus_core::{AuditEvent, AuditSink, AuditSinkExt, Durability, Trace, TraceContext};
use argus_otel::opentelemetry::trace::noop::NoopTracer;
use argus_otel::opentelemetry::trace::{SpanId, SpanKind, TraceId, Tracer, TracerProvider};
use argus_otel::{
    CountedExporter, KeepSecurity, OtelAuditWrapper, OtelWrapperConfig, SpanAccount, counted_batch, names,
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider};
use support::exporter::{Exporter, How};
use support::{SOON, Trail, attribute, config};

const RECORDS: u64 = 10_000;
const QUEUE: usize = 512;

fn trail() -> Trail {
    Trail::with(config().durability(Durability::Accepted))
}

/// Logs at full speed.
fn load(audit: &impl AuditSink) {
    for i in 0..RECORDS {
        audit.log(AuditEvent::info("e").with("i", i)).unwrap();
    }
}

#[test]
fn what_an_exporter_holds_at_shutdown_has_failed_whatever_it_does_later() {
    let t = trail();
    let (exporter, account) = (Exporter::new(How::Hangs), SpanAccount::default());
    let processor = counted_batch(exporter.clone(), &account, QUEUE);
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    let config = OtelWrapperConfig::default().account(&account);
    let audit = OtelAuditWrapper::new(t.logger.clone(), provider.tracer("t"), config);
    // The service's own spans take room, and are not counted.
    (0..QUEUE / 2).for_each(|_| provider.tracer("service").in_span("request", |_| ()));
    load(&audit);
    audit.close(SOON);
    let began = Instant::now();
    provider.shutdown_with_timeout(Duration::from_millis(200)).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!((account.exported(), account.failed()), (0, RECORDS));
    assert!(account.last_error().unwrap().contains("at shutdown"), "{account:?}");
    exporter.open();
    let until = Instant::now() + SOON;
    while exporter.taken.load(Ordering::Acquire) < QUEUE && Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!((account.exported(), account.failed()), (0, RECORDS));
}

#[test]
fn the_reason_is_the_exporters_own() {
    for (how, why) in [(How::Refuses, "503 from the collector"), (How::Panics, "the exporter panicked")] {
        let t = trail();
        let account = SpanAccount::default();
        let exporter = CountedExporter::new(Exporter::new(how), &account);
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter).build();
        let config = OtelWrapperConfig::default().account(&account);
        let audit = OtelAuditWrapper::new(t.logger.clone(), provider.tracer("t"), config);
        // The service's own spans are not the wrapper's to count.
        provider.tracer("service").in_span("request", |_| audit.log(AuditEvent::info("e")).unwrap());
        audit.close(SOON);
        assert_eq!(audit.tracing_errors(), 1);
        assert!(audit.tracing_error().unwrap().contains(why), "{account:?}");
    }
}

#[test]
fn an_exporter_that_hangs_on_arguss_thread_holds_up_no_record() {
    let t = trail();
    let exporter = Exporter::new(How::Hangs);
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let audit = OtelAuditWrapper::new(t.logger.clone(), provider.tracer("t"), OtelWrapperConfig::default());
    // More than wait for observers at most.
    for _ in 0..7 {
        load(&audit);
    }
    audit.flush(SOON).unwrap();
    assert_eq!(audit.health().committed, 7 * RECORDS);
    // The writer tells of the last records after `flush` has returned.
    let told = || audit.health().observer_missed >= 7 * RECORDS - 65_536 - 1;
    let until = Instant::now() + SOON;
    while !told() && Instant::now() < until {
        std::thread::yield_now();
    }
    assert!(told(), "{:?}", audit.health());
    exporter.open();
    audit.close(SOON);
    let sent = exporter.taken.load(Ordering::Acquire) as u64;
    assert_eq!(sent + audit.tracing_errors(), 7 * RECORDS);
    assert!(audit.tracing_error().unwrap().contains("more slowly"));
}

#[test]
fn a_provider_that_is_shut_down_is_counted_and_a_no_op_tracer_is_not() {
    let t = trail();
    let provider = SdkTracerProvider::builder().with_simple_exporter(t.exporter.clone()).build();
    let tracer = provider.tracer("t");
    let audit = OtelAuditWrapper::new(t.logger.clone(), tracer, OtelWrapperConfig::default());
    let silent = OtelAuditWrapper::new(t.logger.clone(), NoopTracer::new(), OtelWrapperConfig::default());
    let boxed = argus_otel::opentelemetry::global::tracer("nobody set a provider");
    let global = OtelAuditWrapper::new(t.logger.clone(), boxed, OtelWrapperConfig::default());
    audit.log_durable(AuditEvent::info("before")).unwrap();
    audit.flush(SOON).unwrap();
    t.wait_for("audit.before");
    provider.shutdown().unwrap();
    let parent = TraceContext { trace_id: [1; 16], span_id: [1; 8], flags: 1, ..TraceContext::default() };
    for trace in [Trace::None, Trace::Parent(parent)] {
        audit.log(AuditEvent::info("e").trace(trace)).unwrap();
        silent.log(AuditEvent::info("e").trace(trace)).unwrap();
        global.log(AuditEvent::info("e").trace(trace)).unwrap();
    }
    assert_eq!(audit.close(SOON).committed, 7);
    assert_eq!((audit.tracing_errors(), silent.tracing_errors(), global.tracing_errors()), (2, 0, 0));
    assert!(audit.tracing_error().unwrap().contains("shut down"));
}

#[test]
fn security_records_have_sampled_roots_with_a_link() {
    for never in [Sampler::AlwaysOff, Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(0.0)))] {
        let t = trail();
        let exporter = InMemorySpanExporter::default();
        let builder = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
        let provider = builder.with_sampler(KeepSecurity(never)).build();
        let config = OtelWrapperConfig::default().security_roots(true).span_kind(SpanKind::Producer);
        let audit = OtelAuditWrapper::new(t.logger.clone(), provider.tracer("t"), config);
        let unsampled = TraceContext { trace_id: [1; 16], span_id: [2; 8], ..TraceContext::default() };
        audit.log(AuditEvent::security("denied").trace(Trace::Parent(unsampled))).unwrap();
        audit.log(AuditEvent::security("alone").trace(Trace::None)).unwrap();
        audit.log(AuditEvent::critical("quiet").trace(Trace::Parent(unsampled))).unwrap();
        audit.log(AuditEvent::critical("quiet").trace(Trace::None)).unwrap();
        audit.close(SOON);
        let spans = exporter.get_finished_spans().unwrap();
        let found: Vec<_> = spans.iter().map(|s| s.name.as_ref()).collect();
        assert_eq!(found, ["audit.security.denied", "audit.security.alone"]);
        for span in &spans {
            assert_eq!((span.parent_span_id, &span.span_kind), (SpanId::INVALID, &SpanKind::Producer));
            assert!(span.span_context.is_sampled() && span.span_context.trace_id() != TraceId::from_bytes([1; 16]));
        }
        let link = &spans[0].links[0].span_context;
        assert_eq!((link.trace_id(), link.span_id()), (TraceId::from_bytes([1; 16]), SpanId::from_bytes([2; 8])));
        assert!(spans[1].links.is_empty());
        // The record keeps the caller's trace.
        assert_eq!(t.line("denied")["trace_id"], "01".repeat(16));
        assert_eq!(audit.tracing_errors(), 0);
    }
}

#[test]
fn ours_survive_the_sdks_limit_of_attributes() {
    let t = trail();
    let audit = t.wrap(OtelWrapperConfig::default());
    let value = "ü".repeat(1000);
    let keys: Vec<_> = (0..128).map(|i| format!("k{i:03}")).collect();
    let members: Vec<(&str, argus_core::Value<'_>)> =
        keys.iter().map(|k| (k.as_str(), value.as_str().into())).collect();
    audit.log(AuditEvent::security("wide").context(&members)).unwrap();
    audit.close(SOON);
    let span = t.span("audit.security.wide");
    for name in names::SPAN_ATTRIBUTES.iter().filter(|n| ![names::FILE_PATH, names::CHECKSUM].contains(n)) {
        assert!(attribute(&span, name).is_some(), "{name}");
    }
    assert_eq!(span.attributes.len() + span.dropped_attributes_count as usize, 128 + 7, "the SDK says what it dropped");
    let cut = attribute(&span, "audit.context.k000").unwrap().as_str().into_owned();
    assert_eq!(cut, format!("{}…", "ü".repeat(512)));
}
