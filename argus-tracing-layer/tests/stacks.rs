//! The ways a layer is put into a stack: optional, boxed, reloadable, in a list, beside filters, twice; and several subscribers in one process.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::{Arc, Barrier};

use argus_core::{AuditSink, AuditSinkExt};
use argus_tracing_layer::AuditLayer;
use serde_json::json;
use support::Trail;
use tracing::subscriber::with_default;
use tracing::{debug, info, info_span, warn};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

fn load() {
    let _span = info_span!("span", audit.actor = "jane").entered();
    debug!(audit.event = "debug");
    info!("ordinary");
    info!(target: "audit::by_target", "by target");
    warn!(audit.event = "warn");
}

const ALL: [&str; 3] = ["debug", "by_target", "warn"];

#[test]
fn optional_boxed_and_in_a_list() {
    let trail = Trail::new();
    with_default(tracing_subscriber::registry().with(Some(trail.layer())), load);
    assert_eq!(trail.names(), ALL);

    with_default(tracing_subscriber::registry().with(None::<AuditLayer<argus_core::AuditLogger>>), load);

    let trail = Trail::new();
    with_default(tracing_subscriber::registry().with(trail.layer().boxed()), load);
    assert_eq!(trail.names(), ALL);
    assert_eq!(trail.one("warn")["actor_id"], "jane");

    let trail = Trail::new();
    let list = vec![fmt::layer().with_writer(std::io::sink).boxed(), trail.layer().boxed()];
    with_default(tracing_subscriber::registry().with(list), load);
    assert_eq!(trail.names(), ALL);

    let trail = Trail::new();
    let both = trail.layer().and_then(fmt::layer().with_writer(std::io::sink));
    with_default(tracing_subscriber::registry().with(both), load);
    assert_eq!(trail.names(), ALL);
}

#[test]
fn over_any_sink() {
    let trail = Trail::new();
    let erased: Arc<dyn AuditSink> = Arc::new(trail.logger.clone());
    let layer = AuditLayer::new(erased);
    layer.sink().log(argus_core::AuditEvent::info("direct")).unwrap();
    with_default(tracing_subscriber::registry().with(layer), load);
    let boxed: Box<dyn AuditSink> = Box::new(trail.logger.clone());
    with_default(tracing_subscriber::registry().with(AuditLayer::new(boxed)), load);
    assert_eq!(trail.names(), ["direct", "debug", "by_target", "warn", "debug", "by_target", "warn"]);
}

#[test]
fn put_in_and_taken_out_while_it_runs() {
    let trail = Trail::new();
    let (layer, handle) = reload::Layer::new(None::<AuditLayer<argus_core::AuditLogger>>);
    with_default(tracing_subscriber::registry().with(layer), || {
        load();
        handle.reload(Some(trail.layer())).unwrap();
        load();
        handle.reload(None).unwrap();
        load();
    });
    assert_eq!(trail.names(), ALL);
}

#[test]
fn a_filter_for_all_keeps_events_from_the_trail_in_either_order() {
    let filter = || EnvFilter::new("info,audit=off");
    let trail = Trail::new();
    with_default(tracing_subscriber::registry().with(filter()).with(trail.layer()), load);
    assert_eq!(trail.names(), ["warn"]);
    let trail = Trail::new();
    with_default(tracing_subscriber::registry().with(trail.layer()).with(filter()), load);
    assert_eq!(trail.names(), ["warn"]);
}

#[test]
fn a_filter_of_another_layer_keeps_nothing_from_the_trail() {
    let printed = || fmt::layer::<tracing_subscriber::Registry>().with_writer(std::io::sink);
    for filter in ["off", "error", "info,audit=off", "warn,[span]=info"] {
        let trail = Trail::new();
        let fmt = printed().with_filter(EnvFilter::new(filter));
        with_default(tracing_subscriber::registry().with(fmt).with(trail.layer()), load);
        assert_eq!(trail.names(), ALL, "{filter}, the layer outside");

        let trail = Trail::new();
        let fmt = fmt::layer().with_writer(std::io::sink).with_filter(EnvFilter::new(filter));
        with_default(tracing_subscriber::registry().with(trail.layer()).with(fmt), load);
        assert_eq!(trail.names(), ALL, "{filter}, the layer inside");
    }
}

#[test]
fn questions_between_events_lose_none() {
    let trail = Trail::new();
    let fmt = fmt::layer().with_writer(std::io::sink).with_filter(LevelFilter::ERROR);
    with_default(tracing_subscriber::registry().with(fmt).with(trail.layer()), || {
        for _ in 0..10 {
            let _ = tracing::enabled!(tracing::Level::DEBUG);
            info!(audit.event = "e");
        }
    });
    assert_eq!(trail.records().len(), 10);
}

#[test]
fn two_trails_in_one_stack_with_their_own_rules() {
    for swapped in [false, true] {
        let (strict, lenient) = (Trail::new(), Trail::new());
        let allowing = lenient.layer().with_span_fields(["tenant", "step"]);
        let load = || {
            let span = info_span!("span", tenant = "t1", step = 1, audit.actor = "jane").entered();
            info!(audit.event = "first");
            span.record("step", 2);
            info!(audit.event = "second");
        };
        if swapped {
            with_default(tracing_subscriber::registry().with(allowing).with(strict.layer()), load);
        } else {
            with_default(tracing_subscriber::registry().with(strict.layer()).with(allowing), load);
        }
        for (event, step) in [("first", 1), ("second", 2)] {
            assert_eq!(strict.one(event)["context"], json!({}), "{event}");
            assert_eq!(lenient.one(event)["context"], json!({"tenant": "t1", "step": step}), "{event}");
            assert_eq!(
                (&strict.one(event)["actor_id"], &lenient.one(event)["actor_id"]),
                (&json!("jane"), &json!("jane"))
            );
        }
    }
}

#[test]
fn subscribers_of_one_process_keep_to_themselves() {
    fn speak(who: usize) {
        let _span = info_span!("span", audit.actor = who).entered();
        info!(audit.event = "e");
    }
    const THREADS: usize = 4;
    let trails: Vec<_> = (0..THREADS).map(|_| Trail::new()).collect();
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|s| {
        for (n, trail) in trails.iter().enumerate() {
            let barrier = &barrier;
            s.spawn(move || {
                trail.run(|| {
                    // All at once: callsites are shared, and are registered while others use them.
                    barrier.wait();
                    for _ in 0..50 {
                        speak(n);
                    }
                });
            });
        }
    });
    for (n, trail) in trails.iter().enumerate() {
        let (records, name) = (trail.records(), n.to_string());
        assert_eq!(records.len(), 50);
        assert!(records.iter().all(|r| r["actor_id"].as_str() == Some(&name)));
    }
}

#[test]
fn a_subscriber_inside_another_and_a_span_of_the_other() {
    let (outer, inner) = (Trail::new(), Trail::new());
    outer.run(|| {
        let span = info_span!("span", audit.actor = "outer").entered();
        info!(audit.event = "before");
        inner.run(|| {
            info!(audit.event = "within");
            // Its id means nothing, or something else, to this subscriber.
            let id = span.id();
            info!(parent: id, audit.event = "foreign");
        });
        info!(audit.event = "after");
    });
    assert_eq!(outer.names(), ["before", "after"]);
    assert_eq!(inner.names(), ["within", "foreign"]);
    assert_eq!(outer.one("after")["actor_id"], "outer");
    assert_eq!((inner.one("within").get("actor_id"), inner.one("foreign").get("actor_id")), (None, None));
}

/// Where no layer has a filter of its own the layer leaves the answer to the others, and where one has, it has it asked anew.
#[test]
fn interest_depends_on_filters_of_single_layers() {
    use tracing_subscriber::Registry;
    let event = an_ordinary_event();
    let printed = || fmt::layer().with_writer(std::io::sink);
    macro_rules! of {
        ($stack:expr) => {
            tracing::Dispatch::new($stack).register_callsite(event)
        };
    }
    let trail = Trail::new();
    for _ in 0..2 {
        assert!(of!(Registry::default().with(trail.layer())).is_always());
        assert!(of!(Registry::default().with(trail.layer().boxed()).with(printed())).is_always());
        assert!(of!(Registry::default().with(EnvFilter::new("info")).with(trail.layer())).is_always());
        assert!(of!(Registry::default().with(trail.layer()).with(EnvFilter::new("off"))).is_never());
        let filtered = fmt::layer().with_writer(std::io::sink).with_filter(LevelFilter::OFF);
        assert!(of!(Registry::default().with(trail.layer()).with(filtered)).is_sometimes());
        let filtered = fmt::layer().with_writer(std::io::sink).with_filter(LevelFilter::INFO);
        assert!(of!(Registry::default().with(filtered).with(trail.layer())).is_sometimes());
        // Not told of its dispatch, it cannot know.
        assert!(of!(Registry::default().with(Some(trail.layer()))).is_sometimes());
        // The cheap form wants nothing of it.
        assert!(of!(Registry::default().with(trail.layer().filtered())).is_never());
    }
}

/// The metadata of an ordinary event.
fn an_ordinary_event() -> &'static tracing::Metadata<'static> {
    use std::sync::Mutex;
    static SEEN: Mutex<Option<&'static tracing::Metadata<'static>>> = Mutex::new(None);
    struct Keep;
    impl<S: tracing::Subscriber> Layer<S> for Keep {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            *SEEN.lock().unwrap() = Some(event.metadata());
        }
    }
    with_default(tracing_subscriber::registry().with(Keep), || info!("ordinary"));
    SEEN.lock().unwrap().unwrap()
}
