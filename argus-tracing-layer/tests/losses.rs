//! What the trail refuses is a loss: counted, told by a gap record, and never a panic or an endless wait in the application.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditSink, Caller, Carrier, CloseReport, Health, Level, LossReason, Overflow,
    Pending, RecordId,
};
use argus_tracing_layer::AuditLayer;
use support::{SOON, Trail};
use tracing::subscriber::with_default;
use tracing::{error, info};
use tracing_subscriber::prelude::*;

/// What is handed over is accounted for.
fn balanced(trail: &Trail, submitted: u64, lost: u64) {
    let h = trail.logger.health();
    assert_eq!((h.submitted, h.lost, h.rejected), (submitted, lost, 0), "{h:?}");
    assert_eq!(h.submitted, h.committed + h.lost + h.queued + h.pending);
}

#[test]
fn a_closed_trail_counts_what_comes_after() {
    let trail = Trail::new();
    trail.run(|| {
        info!(audit.event = "before");
        trail.logger.close(SOON);
        info!(audit.event = "after");
        info!(audit.event = "after");
    });
    assert_eq!(trail.names(), ["before"]);
    balanced(&trail, 3, 2);
}

#[test]
fn an_event_that_breaks_a_rule_of_the_format() {
    let trail = Trail::new();
    let (large, long) = ("x".repeat(300 << 10), "n".repeat(257));
    trail.run(|| {
        info!(audit.event = "large", body = large);
        info!(audit.event = %long);
        info!(audit.event = "nul\0");
        info!(audit.event = "reserved", "$argus.key" = 1);
        info!(audit.event = "good");
    });
    assert_eq!(trail.names(), ["good"]);
    assert_eq!(trail.gaps(), [("invalid".to_owned(), 4)]);
    balanced(&trail, 5, 4);
}

struct Panics;
impl fmt::Debug for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a Debug that panics, on purpose")
    }
}
impl fmt::Display for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "begun and given up")?;
        Err(fmt::Error)
    }
}

#[test]
fn a_debug_that_panics() {
    let trail = Trail::new();
    trail.run(|| {
        info!(audit.event = "first");
        // More often than events may be nested: each panic must leave the layer as it was.
        for _ in 0..6 {
            info!(audit.event = "broken", a = 1, value = ?Panics);
        }
        info!(audit.event = "half", value = %Panics);
        // Nobody else's value is touched.
        info!(value = tracing::field::Empty, "not for the trail");
        info!(audit.event = "last", b = 2);
    });
    assert_eq!(trail.names(), ["first", "half", "last"]);
    assert_eq!(trail.one("half")["context"]["value"], "begun and given up");
    assert_eq!(trail.one("last")["context"], serde_json::json!({"b": 2}), "nothing of the broken event is left");
    assert_eq!(trail.gaps(), [("panicked".to_owned(), 6)]);
    balanced(&trail, 9, 6);
}

#[test]
fn an_event_that_is_not_for_the_trail_is_not_even_formatted() {
    let trail = Trail::new();
    trail.run(|| info!(value = ?Panics, "only another layer would format it"));
    balanced(&trail, 0, 0);
}

#[test]
fn a_full_queue_is_waited_for_within_the_bound() {
    let config = AuditConfig::default().queue_bytes(1).overflow(Overflow::Block { timeout: Duration::from_secs(600) });
    let trail = Trail::with(config);
    let wait = Duration::from_millis(40);
    let layer = trail.layer().with_max_wait(wait);
    trail.memory.fail(u32::MAX);
    with_default(tracing_subscriber::registry().with(layer), || {
        // An empty queue takes any entry, and the store keeps it there.
        info!(audit.event = "queued");
        let start = Instant::now();
        info!(audit.event = "refused");
        assert!(start.elapsed() >= wait && start.elapsed() < Duration::from_secs(300), "{:?}", start.elapsed());
    });
    balanced(&trail, 2, 1);
    trail.memory.fail(0);
    assert_eq!(trail.names(), ["queued"]);
    assert_eq!(trail.gaps(), [("queue_full".to_owned(), 1)]);
}

/// A sink that writes down what it is asked, and panics on request.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

impl AuditSink for Asked {
    fn enabled(&self, level: Level) -> bool {
        level >= Level::Warn
    }
    fn submit(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Option<RecordId>, AuditError> {
        let Caller::Relay { max_wait } = carrier.caller else { panic!("not a relay") };
        self.note(format!("{} {max_wait:?}", event.name()));
        assert!(event.name() != "panic", "a sink that panics, on purpose");
        Err(AuditError::Unsupported)
    }
    fn submit_durable(&self, _: &AuditEvent<'_>, _: &Carrier<'_>) -> Result<Pending, AuditError> {
        Err(AuditError::Unsupported)
    }
    fn report_loss(&self, reason: LossReason, count: u64) {
        self.note(format!("lost {count} {reason:?}"));
    }
    fn flush(&self, _: Duration) -> Result<(), AuditError> {
        Ok(())
    }
    fn close(&self, _: Duration) -> CloseReport {
        CloseReport::default()
    }
    fn health(&self) -> Health {
        Health::default()
    }
}

#[test]
fn the_sink_sees_a_relay_and_a_panic_of_its_own_is_reported_to_it() {
    let sink = Asked::default();
    let other: Arc<dyn AuditSink> = Arc::new(sink.clone());
    with_default(tracing_subscriber::registry().with(AuditLayer::new(sink.clone())), || {
        info!(audit.event = "below");
        error!(audit.event = "refused");
        error!(audit.event = "panic");
        error!(audit.event = "next");
    });
    let layer = AuditLayer::new(other).with_max_wait(Duration::from_secs(1));
    with_default(tracing_subscriber::registry().with(layer), || error!(audit.event = "other"));
    assert_eq!(*sink.0.lock().unwrap(), ["refused 5ms", "panic 5ms", "lost 1 Panicked", "next 5ms", "other 1s"]);
}
