//! Layers that log while they are called. Only under a global default does `tracing` hand such an event on, so this file has no other subscriber.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::cell::Cell;

use argus_core::AuditSink;
use serde_json::Value;
use support::{SOON, Trail};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber, info, info_span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

thread_local!(static TALKING: Cell<bool> = const { Cell::new(false) });

/// Logs an audit event in every callback, but not in those of its own events.
struct Talks(&'static str);

impl Talks {
    fn say(&self, callback: &'static str) {
        if !TALKING.replace(true) {
            info!(audit.event = "said", layer = self.0, callback);
            TALKING.set(false);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Talks {
    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.say("on_new_span");
    }
    fn on_record(&self, _: &Id, _: &Record<'_>, _: Context<'_, S>) {
        self.say("on_record");
    }
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        self.say("on_event");
    }
    fn on_enter(&self, _: &Id, _: Context<'_, S>) {
        self.say("on_enter");
    }
    fn on_exit(&self, _: &Id, _: Context<'_, S>) {
        self.say("on_exit");
    }
    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.say("on_close");
    }
}

/// Hazard B4: no event is lost by it, none is recorded twice, and nothing waits for itself.
#[test]
fn layers_that_log_in_their_callbacks() {
    let trail = Trail::new();
    tracing_subscriber::registry().with(Talks("inner")).with(trail.layer()).with(Talks("outer")).init();
    // On a thread of its own, so that one that waits for itself is found.
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let span = info_span!("span", audit.actor = "jane", audit.action = tracing::field::Empty).entered();
        span.record("audit.action", "login");
        info!(audit.event = "e");
        drop(span);
        done.send(()).unwrap();
    });
    finished.recv_timeout(SOON).expect("it waits for itself");
    trail.logger.flush(SOON).unwrap();
    let said = trail.records();
    let of = |layer: &str| -> Vec<Value> {
        let own = said.iter().filter(|r| r["context"]["layer"] == layer);
        own.map(|r| r["context"]["callback"].clone()).collect()
    };
    let callbacks = ["on_new_span", "on_enter", "on_record", "on_event", "on_exit", "on_close"];
    assert_eq!((of("inner"), of("outer")), (callbacks.map(Value::from).into(), callbacks.map(Value::from).into()));
    let line = trail.one("e");
    assert_eq!((&line["actor_id"], &line["action"]), (&"jane".into(), &"login".into()));
    assert!(trail.logger.health().is_ok());
}
