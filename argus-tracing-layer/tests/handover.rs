//! The hand-over: it waits a few milliseconds at most, and while user code of one event runs, or hangs, no other event waits for it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::cell::Cell;
use std::fmt;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use argus_core::{AuditConfig, AuditSink, Overflow};
use support::{SOON, Trail};
use tracing::instrument::WithSubscriber;
use tracing::{Dispatch, dispatcher, info, info_span};
use tracing_subscriber::prelude::*;

/// Hazard B7: an async worker is given back after 5 ms, though the trail itself would wait for ten minutes.
#[test]
fn a_full_queue_holds_an_async_worker_for_5_ms() {
    let config = AuditConfig::default().queue_bytes(1).overflow(Overflow::Block { timeout: Duration::from_secs(600) });
    let trail = Trail::with(config);
    trail.memory.fail(u32::MAX);
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(trail.layer()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    const EVENTS: usize = 20;
    let (shortest, other) = runtime.block_on(async {
        let other = Arc::new(Mutex::new(0));
        let ticks = other.clone();
        let ticking = tokio::spawn(async move {
            loop {
                *ticks.lock().unwrap() += 1;
                tokio::task::yield_now().await;
            }
        });
        let logging = tokio::spawn(
            async {
                // An empty queue takes any entry, and the store keeps it there.
                info!(audit.event = "queued");
                let mut shortest = SOON;
                for _ in 0..EVENTS {
                    let began = Instant::now();
                    info!(audit.event = "refused");
                    shortest = shortest.min(began.elapsed());
                    tokio::task::yield_now().await;
                }
                shortest
            }
            .with_subscriber(dispatch),
        );
        let shortest = logging.await.unwrap();
        ticking.abort();
        (shortest, *other.lock().unwrap())
    });
    // A loaded machine may wake late, but not each time.
    assert!(shortest >= Duration::from_millis(5) && shortest < Duration::from_millis(50), "{shortest:?}");
    assert!(other >= EVENTS, "the worker's other task ran between: {other}");
    let h = trail.logger.health();
    assert_eq!((h.submitted, h.lost), (1 + EVENTS as u64, EVENTS as u64));
    trail.memory.fail(0);
    assert_eq!(trail.names(), ["queued"]);
    assert_eq!(trail.gaps(), [("queue_full".to_owned(), EVENTS as u64)]);
}

/// Hangs until it is told to go on, and tells that it hangs.
struct Hangs(std::sync::mpsc::Sender<()>, Mutex<Receiver<()>>);

impl fmt::Debug for Hangs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.send(()).unwrap();
        self.1.lock().unwrap().recv_timeout(SOON).unwrap();
        f.write_str("went on")
    }
}

/// Hazard B4: no lock and no span extension is held while user code runs.
#[test]
fn a_debug_that_hangs_holds_up_its_own_event_only() {
    let trail = Trail::new();
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(trail.layer()));
    let span = dispatcher::with_default(&dispatch, || {
        info_span!("span", audit.actor = "jane", audit.action = tracing::field::Empty)
    });
    for form in ["event", "record", "new span"] {
        let ((tell, hangs), (go, gone)) = (channel(), channel());
        let slow = {
            let (dispatch, span) = (dispatch.clone(), span.clone());
            std::thread::spawn(move || {
                dispatcher::with_default(&dispatch, || {
                    let value = Hangs(tell, Mutex::new(gone));
                    match form {
                        "event" => span.in_scope(|| info!(audit.event = "slow", value = ?value)),
                        "record" => drop(span.record("audit.action", tracing::field::debug(value))),
                        _ => drop(info_span!(parent: &span, "child", audit.action = ?value)),
                    }
                });
            })
        };
        hangs.recv_timeout(SOON).unwrap();
        // Same layer, same span, same sink.
        dispatcher::with_default(&dispatch, || {
            span.in_scope(|| info!(audit.event = "meanwhile", form));
            info_span!(parent: &span, "sibling", audit.action = "sibling")
                .in_scope(|| info!(audit.event = "sibling", form));
        });
        trail.logger.flush(SOON).unwrap();
        go.send(()).unwrap();
        slow.join().unwrap();
    }
    assert_eq!(trail.names(), ["meanwhile", "sibling", "slow", "meanwhile", "sibling", "meanwhile", "sibling"]);
    let slow = trail.one("slow");
    assert_eq!((&slow["actor_id"], &slow["context"]["value"]), (&"jane".into(), &"went on".into()));
    assert!(trail.logger.health().is_ok());
}

thread_local!(static LATE: Cell<Option<Logs>> = const { Cell::new(None) });

struct Logs(Dispatch);
impl Drop for Logs {
    fn drop(&mut self) {
        dispatcher::with_default(&self.0, || info!(audit.event = "late"));
    }
}

/// Thread-locals of the layer may be gone already when those of the application end: an event there is recorded, or counted, and nothing panics.
#[test]
fn an_event_while_its_thread_ends() {
    let trail = Trail::new();
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(trail.layer()));
    let own = dispatch.clone();
    std::thread::spawn(move || {
        // Made first, so that it ends last.
        LATE.set(Some(Logs(own.clone())));
        dispatcher::with_default(&own, || info!(audit.event = "early"));
    })
    .join()
    .unwrap();
    let names = trail.names();
    let lost = trail.logger.health().lost as usize;
    assert_eq!(names.first().map(String::as_str), Some("early"));
    assert!(names.len() + lost <= 2, "{names:?}, {lost}");
}
