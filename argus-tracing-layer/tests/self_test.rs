//! The self-test: each thing that keeps audit events from the trail is named, and the trail has no record of it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::{Mutex, MutexGuard};

use argus_core::{AuditConfig, AuditSink};
use argus_tracing_layer::{AuditLayer, Problem, SelfTest, TraceIds, self_test};
use support::{SOON, Trail};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, info};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Callsites are shared, and so is the greatest level that anybody wants: one subscriber at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// What the test finds in the stack that `build` makes of a trail's layer; the trail itself stays as it was.
fn problems<S: Subscriber + Send + Sync>(build: impl Fn(AuditLayer<argus_core::AuditLogger>) -> S) -> Vec<Problem> {
    let _alone = alone();
    let trail = Trail::new();
    let dispatch = Dispatch::new(build(trail.layer()));
    // Twice: nothing of the first is left in a filter.
    let found: Vec<_> = (0..2).map(|_| self_test(&dispatch)).collect();
    assert_eq!(found[0], found[1]);
    assert_eq!((trail.logger.health().submitted, trail.names()), (0, vec![]), "no record, no loss");
    found[0].clone().err().map_or(vec![], |e| e.problems().to_vec())
}

fn quiet<S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>>()
-> fmt::Layer<S, fmt::format::DefaultFields, fmt::format::Format, fn() -> std::io::Sink> {
    fmt::layer().with_writer(std::io::sink as fn() -> std::io::Sink)
}

macro_rules! printed {
    () => {
        quiet().with_filter(LevelFilter::ERROR)
    };
}

const TARGETS: [&str; 2] = ["audit", "argus_tracing_layer"];

fn each(make: impl Fn(String, Level) -> Problem, levels: &[Level]) -> Vec<Problem> {
    TARGETS.iter().flat_map(|t| levels.iter().map(|l| make((*t).to_owned(), *l))).collect()
}

fn global(target: String, level: Level) -> Problem {
    Problem::GlobalFilter { target, level }
}

#[test]
fn a_sound_stack_passes() {
    assert_eq!(problems(|a| Registry::default().with(a)), []);
    assert_eq!(problems(|a| Registry::default().with(a.filtered())), []);
    assert_eq!(problems(|a| Registry::default().with(a.boxed()).with(quiet().with_filter(LevelFilter::OFF))), []);
    assert_eq!(
        problems(|a| Registry::default().with(quiet().with_filter(EnvFilter::new("off"))).with(a.filtered())),
        []
    );
    assert_eq!(problems(|a| Registry::default().with(quiet()).with(Some(a)).with(EnvFilter::new("info"))), []);
    assert_eq!(problems(|a| Registry::default().with(reload::Layer::new(a).0)), []);
}

#[test]
fn a_layer_that_is_not_there() {
    assert_eq!(problems(|_| Registry::default()), [Problem::NotInStack]);
    assert_eq!(problems(|_| Registry::default().with(quiet())), [Problem::NotInStack]);
    assert_eq!(problems(|a| Registry::default().with(Some(a).filter(|_| false))), [Problem::NotInStack]);
    let _alone = alone();
    assert_eq!(self_test(&Dispatch::none()).unwrap_err().problems(), [Problem::NotInStack]);
}

#[test]
fn a_filter_for_the_whole_stack_in_either_order() {
    let low = each(global, &[Level::INFO]);
    assert_eq!(problems(|a| Registry::default().with(a).with(LevelFilter::WARN)), low);
    assert_eq!(problems(|a| Registry::default().with(LevelFilter::WARN).with(a)), low);
    assert_eq!(problems(|a| Registry::default().with(a.filtered()).with(EnvFilter::new("warn"))), low);
    let by_target: Vec<_> = [Level::INFO, Level::WARN, Level::ERROR].map(|l| global("audit".into(), l)).into();
    assert_eq!(problems(|a| Registry::default().with(EnvFilter::new("info,audit=off")).with(a)), by_target);
    // Beside filters of single layers.
    assert_eq!(problems(|a| Registry::default().with(printed!()).with(a).with(EnvFilter::new("warn"))), low);
    assert_eq!(problems(|a| Registry::default().with(EnvFilter::new("warn")).with(printed!()).with(a)), low);
}

#[test]
fn a_filter_on_the_layer_alone() {
    let own = |target, level| Problem::LayerFilter { target, level };
    let low = each(own, &[Level::INFO]);
    assert_eq!(problems(|a| Registry::default().with(a.with_filter(LevelFilter::WARN))), low);
    assert_eq!(problems(|a| Registry::default().with(quiet()).with(a.with_filter(EnvFilter::new("warn")))), low);
    assert_eq!(problems(|a| Registry::default().with(a.with_filter(LevelFilter::WARN)).with(printed!())), low);
    assert_eq!(
        problems(|a| Registry::default()
            .with(printed!())
            .with(a.with_filter(filter_fn(|m| *m.level() <= Level::WARN)))),
        low
    );
}

/// Refuses by values, or switches callsites off.
struct Rude {
    event: bool,
    never: bool,
}

impl<S: Subscriber> Layer<S> for Rude {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        if self.never { Interest::never() } else { Interest::always() }
    }
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        !self.event || *event.metadata().level() == Level::ERROR
    }
}

#[test]
fn layers_that_refuse_for_others() {
    let low = each(|target, level| Problem::EventFilter { target, level }, &[Level::INFO, Level::WARN]);
    assert_eq!(problems(|a| Registry::default().with(a).with(Rude { event: true, never: false })), low);
    let all = each(|target, level| Problem::NeverInterest { target, level }, &[Level::INFO, Level::WARN, Level::ERROR]);
    assert_eq!(problems(|a| Registry::default().with(a).with(Rude { event: false, never: true })), all);
}

struct Hint;
impl<S: Subscriber> Layer<S> for Hint {
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }
}

/// Rule: a layer that gives a hint speaks for all others.
#[test]
fn a_level_hint() {
    let low = [Problem::MaxLevelHint { level: Level::INFO, max: LevelFilter::WARN }];
    assert_eq!(problems(|a| Registry::default().with(a).with(Hint)), low);
}

#[test]
fn a_sink_that_takes_nothing() {
    let _alone = alone();
    let trail = Trail::new();
    let dispatch = Dispatch::new(Registry::default().with(trail.layer()));
    assert_eq!(self_test(&dispatch), Ok(TraceIds::NotInUse));
    trail.logger.close(SOON);
    let error = self_test(&dispatch).unwrap_err();
    assert_eq!(error.problems(), [Problem::SinkRefuses]);
    let off = Trail::with(AuditConfig::default().enabled(false));
    let dispatch = Dispatch::new(Registry::default().with(off.layer()));
    assert_eq!(self_test(&dispatch).unwrap_err().problems(), [Problem::SinkRefuses]);
}

#[test]
fn targets_and_levels_of_the_caller() {
    let _alone = alone();
    let trail = Trail::new();
    let dispatch =
        Dispatch::new(Registry::default().with(trail.layer()).with(EnvFilter::new("info,shop::cart=warn,bar=debug")));
    let test = SelfTest::new().target("shop::cart::item").target("bar").target("bar").level(Level::DEBUG);
    let error = test.run(&dispatch).unwrap_err();
    let expected = [
        global("audit".into(), Level::DEBUG),
        global("argus_tracing_layer".into(), Level::DEBUG),
        global("shop::cart::item".into(), Level::INFO),
        global("shop::cart::item".into(), Level::DEBUG),
    ];
    assert_eq!(error.problems(), expected);
    assert_eq!(
        error.to_string(),
        "audit events do not reach the trail as they should: a filter for the whole stack drops DEBUG events of target `audit`; \
         a filter for the whole stack drops DEBUG events of target `argus_tracing_layer`; \
         a filter for the whole stack drops INFO events of target `shop::cart::item`; \
         a filter for the whole stack drops DEBUG events of target `shop::cart::item`"
    );
}

/// What the thread was doing before, and what it does after, is not disturbed.
#[test]
fn between_other_events() {
    let _alone = alone();
    let trail = Trail::new();
    let fmt = quiet().with_filter(LevelFilter::WARN);
    let dispatch = Dispatch::new(Registry::default().with(fmt).with(trail.layer().filtered()));
    tracing::dispatcher::with_default(&dispatch, || {
        for _ in 0..5 {
            // Leaves a mark in the filters.
            let _ = tracing::enabled!(Level::DEBUG);
            assert_eq!(self_test(&dispatch), Ok(TraceIds::NotInUse));
            info!(audit.event = "e");
        }
    });
    assert_eq!(trail.names(), ["e"; 5]);
}

#[cfg(feature = "otel")]
mod otel {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};

    use super::*;

    fn provider() -> (SdkTracerProvider, InMemorySpanExporter) {
        let exporter = InMemorySpanExporter::default();
        (SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build(), exporter)
    }

    #[test]
    fn trace_ids_inside_a_span() {
        let _alone = alone();
        for active in [true, false] {
            for ask in [false, true] {
                for first in [true, false] {
                    let (trail, (provider, exporter)) = (Trail::new(), provider());
                    let otel = tracing_opentelemetry::layer()
                        .with_tracer(provider.tracer("t"))
                        .with_context_activation(active);
                    let audit = trail.layer().with_inactive_contexts(ask);
                    let dispatch = if first {
                        let otel = tracing_opentelemetry::layer()
                            .with_tracer(provider.tracer("t"))
                            .with_context_activation(active);
                        Dispatch::new(Registry::default().with(audit).with(otel))
                    } else {
                        Dispatch::new(Registry::default().with(otel).with(audit))
                    };
                    let found = self_test(&dispatch);
                    if active || ask {
                        assert_eq!(found, Ok(TraceIds::Found));
                    } else {
                        assert_eq!(found.unwrap_err().problems(), [Problem::NoActiveContext]);
                    }
                    let spans: Vec<_> = exporter.get_finished_spans().unwrap().into_iter().map(|s| s.name).collect();
                    assert_eq!(spans, ["argus.self_test"], "as documented");
                    assert_eq!(trail.names(), [""; 0]);
                }
            }
        }
    }

    #[test]
    fn a_span_that_a_filter_refuses() {
        let _alone = alone();
        let (trail, (provider, exporter)) = (Trail::new(), provider());
        let otel = || tracing_opentelemetry::layer().with_tracer(provider.tracer("t"));
        let not_spans = || filter_fn(|m| !m.is_span());
        let dispatch = Dispatch::new(Registry::default().with(otel()).with(trail.layer()).with(not_spans()));
        assert_eq!(self_test(&dispatch), Ok(TraceIds::NoSpan));
        let dispatch = Dispatch::new(Registry::default().with(otel().with_filter(not_spans())).with(trail.layer()));
        assert_eq!(self_test(&dispatch), Ok(TraceIds::NotInUse));
        assert!(exporter.get_finished_spans().unwrap().is_empty());
    }

    #[test]
    fn suppressed_telemetry() {
        let _alone = alone();
        let trail = Trail::new();
        let dispatch = Dispatch::new(Registry::default().with(trail.layer()));
        let quiet = opentelemetry::Context::enter_telemetry_suppressed_scope();
        assert_eq!(self_test(&dispatch).unwrap_err().problems(), [Problem::Suppressed]);
        drop(quiet);
        assert_eq!(self_test(&dispatch), Ok(TraceIds::NotInUse));
    }
}
