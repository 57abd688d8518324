//! An application that logs 10,000 events a second beside an exporter that hangs, refuses, panics or is shut down: it feels nothing, memory is bounded, every
//! record is committed, and `tracing_errors()` and `health()` say how many spans failed and why. Alone in its program, since it looks at the time that calls take.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Durability};
use argus_otel::opentelemetry::trace::TracerProvider;
use argus_otel::opentelemetry::{Context, KeyValue, StringValue};
use argus_otel::{OtelAuditWrapper, OtelWrapperConfig, SpanAccount, counted_batch};
use argus_testkit::TempTrail;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use support::SOON;
use support::exporter::{Exporter, How};

const RECORDS: u64 = 10_000;
/// Between two of 10,000 events a second.
const PACE: Duration = Duration::from_micros(100);
const QUEUE: usize = 512;

/// Logs 10,000 events a second, and runs `often` now and then; how long each call took, in order of length.
fn paced(audit: &impl AuditSink, mut often: impl FnMut(u64)) -> Vec<Duration> {
    let begun = Instant::now();
    let mut took: Vec<_> = (0..RECORDS)
        .map(|i| {
            if let Some(early) = (begun + PACE * i as u32).checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            if i % 100 == 0 {
                often(i);
            }
            let call = Instant::now();
            audit.log(AuditEvent::info("e").with("i", i)).unwrap();
            call.elapsed()
        })
        .collect();
    let late = begun.elapsed().saturating_sub(PACE * RECORDS as u32);
    assert!(late < Duration::from_secs(5), "the load did not keep its pace: {late:?}");
    took.sort();
    took
}

/// Notes on which threads spans end.
#[derive(Clone, Debug, Default)]
struct Threads(Arc<Mutex<HashSet<ThreadId>>>);

impl SpanProcessor for Threads {
    fn on_start(&self, _: &mut Span, _: &Context) {}
    fn on_end(&self, _: SpanData) {
        self.0.lock().unwrap().insert(std::thread::current().id());
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[test]
fn the_application_feels_nothing_and_every_span_is_accounted_for() {
    let dir = TempTrail::new();
    let mut speeds = Vec::new();
    for how in [How::Works, How::Refuses, How::Panics, How::Hangs, How::ShutDown, How::Works] {
        let path = dir.path(&format!("{}.jsonl", speeds.len()));
        let logger = AuditLogger::open(AuditConfig::new(&path).durability(Durability::Accepted)).unwrap();
        let (exporter, account, threads) = (Exporter::new(how), SpanAccount::default(), Threads::default());
        let processor = counted_batch(exporter.clone(), &account, QUEUE);
        let builder = SdkTracerProvider::builder().with_span_processor(threads.clone());
        let provider = builder.with_span_processor(processor).build();
        // Each span alive holds this text.
        let alive: Arc<str> = "here".into();
        let config = OtelWrapperConfig::default().account(&account);
        let config = config.base_attribute(KeyValue::new("alive", StringValue::from(alive.clone())));
        let audit = OtelAuditWrapper::new(logger, provider.tracer("t"), config);
        let without_spans = Arc::strong_count(&alive);
        let mut most = 0;
        let took = paced(&audit, |i| {
            most = most.max(Arc::strong_count(&alive) - without_spans);
            if how == How::ShutDown && i == RECORDS / 2 {
                provider.shutdown().unwrap();
            }
        });
        let closed = audit.close(SOON);
        assert_eq!((closed.committed, closed.error), (RECORDS, None), "{how:?}");
        let lines = std::fs::read_to_string(&path).unwrap();
        assert_eq!(lines.lines().filter(|l| l.contains("\"event\":\"e\"")).count() as u64, RECORDS, "{how:?}");
        speeds.push((how, [took.len() / 2, took.len() * 9 / 10].map(|i| took[i])));
        let ended_on = threads.0.lock().unwrap().clone();
        assert!(ended_on.len() == 1 && !ended_on.contains(&std::thread::current().id()), "{how:?}: {ended_on:?}");
        // One more is in the making, with a copy for the other processor.
        assert!(most <= QUEUE + 2, "{how:?}: {most} spans alive");

        if how == How::Hangs {
            // Those that wait are neither sent nor lost yet.
            assert_eq!((account.exported(), audit.tracing_errors()), (0, RECORDS - QUEUE as u64));
            assert!(audit.tracing_error().unwrap().contains("512 spans wait"), "{account:?}");
            exporter.open();
        }
        provider.force_flush().ok();
        provider.shutdown().ok();
        assert!(Arc::strong_count(&alive) <= without_spans, "{how:?}: spans are left");
        let (exported, failed) = (account.exported(), account.failed());
        assert_eq!(exported + failed, RECORDS, "{how:?}: {account:?}");
        assert_eq!(exporter.taken.load(Ordering::Acquire) as u64, exported, "{how:?}");
        let health = audit.health();
        assert_eq!((health.tracing_errors, &health.tracing_error), (failed, &account.last_error()));
        assert!(health.is_ok(), "a span is not a record");
        let why = account.last_error().unwrap_or_default();
        let (fewest, whys): (u64, &[&str]) = match how {
            // A batch may meet a full queue.
            How::Works => (0, &["", "512 spans wait"]),
            How::Refuses => (RECORDS, &["503 from the collector", "512 spans wait"]),
            How::Panics => (RECORDS, &["the exporter panicked", "512 spans wait"]),
            How::Hangs => (RECORDS - QUEUE as u64, &["512 spans wait"]),
            How::ShutDown => (RECORDS / 2, &["shut down"]),
        };
        assert!(failed >= fewest && whys.iter().any(|w| why.contains(w)), "{how:?}: {failed} failed: {why}");
        println!("{how:?}: {:?}; at most {most} spans alive; {failed} failed: {why}", speeds.last());
    }
    // Of an exporter's trouble, nothing is on the caller's way: its calls are as fast as beside one that works.
    let works = speeds.iter().filter(|(how, _)| *how == How::Works).map(|(_, s)| *s);
    let works = works.reduce(|a, b| [a[0].max(b[0]), a[1].max(b[1])]).unwrap();
    for (how, [half, nine_of_ten]) in &speeds {
        assert!(*half <= 2 * works[0] && *nine_of_ten <= 2 * works[1] + PACE, "{how:?} of {speeds:?}");
    }
}
