//! The layer alters nothing for others: what another layer, `fmt` and an `EnvFilter` see of a generated load is the same with and without it, wherever it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/load.rs"]
mod load;

use argus_core::{AuditConfig, AuditLogger, AuditSink, MemoryTrail};
use argus_tracing_layer::AuditLayer;
use load::{Recorder, Seen, alone, load, printed};
use tracing::subscriber::with_default;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer};

/// `ask`: with questions (`enabled!`), which leave marks in filters of single layers. Where such a filter stands beside a layer without one, tracing itself then
/// hides the next event (tracing issue 2519), so there the comparison is made without.
///
/// Runs the load through the stack without the layer, with it next to the registry, and with it outermost.
macro_rules! compare {
    ($seen:ident, $ask:expr, [$($layer:expr),*]) => {{
        for seed in 0..4 {
            let $seen = Seen::default();
            let trail = MemoryTrail::new();
            let logger = AuditLogger::open_in_memory(AuditConfig::default(), &trail).unwrap();
            let audit = || AuditLayer::new(logger.clone());
            let stack = stringify!($($layer),*);

            with_default(tracing_subscriber::registry()$(.with($layer))*, || load(seed, $ask));
            let without = $seen.take();
            assert!(without.lines().count() > 50, "{stack} sees something");

            with_default(tracing_subscriber::registry().with(audit())$(.with($layer))*, || load(seed, $ask));
            same(&without, &$seen.take(), stack, "inner");
            with_default(tracing_subscriber::registry()$(.with($layer))*.with(audit()), || load(seed, $ask));
            same(&without, &$seen.take(), stack, "outer");
            assert!(logger.health().submitted > 10, "{stack}: the layer works");
        }
    }};
}

fn same(without: &str, with: &str, stack: &str, place: &str) {
    if without != with {
        let n = without.lines().zip(with.lines()).take_while(|(a, b)| a == b).count();
        let (before, now) = (without.lines().nth(n), with.lines().nth(n));
        panic!("{stack}, the layer {place}: line {n} was {before:?}, is {now:?}");
    }
}

const DIRECTIVES: &str = "info,db=trace,audit=off,[inner]=trace";

#[test]
fn beside_plain_layers() {
    let _alone = alone();
    compare!(seen, true, [Recorder(seen.clone())]);
    compare!(seen, true, [printed(&seen), Recorder(seen.clone())]);
    compare!(seen, true, [Some(printed(&seen)), Recorder(seen.clone()).boxed()]);
}

#[test]
fn beside_a_filter_for_all() {
    let _alone = alone();
    compare!(seen, true, [EnvFilter::new(DIRECTIVES), printed(&seen), Recorder(seen.clone())]);
    compare!(seen, true, [Recorder(seen.clone()), printed(&seen), EnvFilter::new(DIRECTIVES)]);
    compare!(seen, true, [LevelFilter::INFO, Recorder(seen.clone())]);
}

/// A span directive that is quieter than its span stands only as long as nobody has the filter asked anew: without filters of single layers, the layer does not.
#[test]
fn beside_a_span_directive_that_is_quieter_than_its_span() {
    let _alone = alone();
    const QUIETER: &str = "error,db=trace,[request]=warn";
    compare!(seen, true, [EnvFilter::new(QUIETER), printed(&seen), Recorder(seen.clone())]);
    compare!(seen, true, [printed(&seen), Recorder(seen.clone()), EnvFilter::new(QUIETER)]);
}

#[test]
fn beside_filters_of_single_layers() {
    let _alone = alone();
    compare!(seen, false, [printed(&seen).with_filter(EnvFilter::new(DIRECTIVES))]);
    // Answering `always` would make the next event after a question disappear from `fmt`.
    compare!(seen, true, [printed(&seen).with_filter(LevelFilter::INFO)]);
    compare!(
        seen,
        false,
        [
            printed(&seen).with_filter(LevelFilter::WARN),
            Recorder(seen.clone()).with_filter(EnvFilter::new("db=debug,warn"))
        ]
    );
    compare!(seen, false, [Recorder(seen.clone()), printed(&seen).with_filter(LevelFilter::INFO)]);
    compare!(
        seen,
        false,
        [EnvFilter::new("debug"), printed(&seen).with_filter(LevelFilter::INFO), Recorder(seen.clone())]
    );
}
