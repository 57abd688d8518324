//! Properties over generated input: what is accepted reads back equal and verifies, on both stores; values get the bytes of any RFC 8785 library.
//! `ARGUS_PROPTEST_CASES` is the number of cases of each (default 24; `just properties` runs 20,000).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use argus_core::{
    ActorType, AuditError, AuditEvent, AuditSink, AuditSinkExt, Level, Outcome, Record, Trace, TraceContext, Value,
};
use common::{Dir, assert_ok, close, open, records};
use proptest::prelude::*;
use serde_json::{Map, Number, Value as Json};

fn config() -> ProptestConfig {
    let cases = std::env::var("ARGUS_PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Text with what makes trouble: quotes, control characters, both halves of the UTF-16 order, line separators.
fn text() -> impl Strategy<Value = String> {
    let odd = proptest::sample::select(vec![
        '"',
        '\\',
        '/',
        '\n',
        '\u{1}',
        '\u{1f}',
        '\u{7f}',
        '\u{80}',
        '\u{2028}',
        '\u{feff}',
        '\u{fb33}',
        '\u{ffff}',
        '\u{1f600}',
        '\u{10ffff}',
        'é',
        '$',
        ' ',
    ]);
    proptest::collection::vec(prop_oneof![3 => proptest::char::range('a', 'f'), 2 => odd, 1 => any::<char>().prop_filter("NUL", |c| *c != '\0')], 0..12)
        .prop_map(|c| c.into_iter().collect())
}

fn number() -> impl Strategy<Value = Number> {
    let edge = proptest::sample::select(vec![0, 1, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, i64::MAX]);
    prop_oneof![
        any::<i64>().prop_map(Number::from),
        edge.prop_flat_map(|n| proptest::sample::select(vec![n, -n, n.wrapping_add(1)])).prop_map(Number::from),
        any::<u64>().prop_map(Number::from),
        proptest::num::f64::NORMAL.prop_filter_map("finite", Number::from_f64),
        proptest::num::f64::SUBNORMAL.prop_filter_map("finite", Number::from_f64),
        (-1000i32..1000).prop_filter_map("finite", |n| Number::from_f64(f64::from(n) / 8.0)),
    ]
}

fn json(number: impl Strategy<Value = Number> + 'static) -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        number.prop_map(Json::Number),
        (text(), any::<bool>()).prop_map(|(t, nul)| Json::from(if nul { t + "\0" } else { t })),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Json::Array),
            proptest::collection::btree_map(text(), inner, 0..5).prop_map(|m| Json::Object(m.into_iter().collect())),
        ]
    })
}

/// What a caller says, owned.
#[derive(Clone, Debug)]
struct Said {
    level: Level,
    event: String,
    component: String,
    path: String,
    agent: String,
    actor: String,
    actor_type: Option<ActorType>,
    action: String,
    outcome: Option<Outcome>,
    old: Option<Json>,
    new: Option<Json>,
    context: Map<String, Json>,
    nanos: u64,
    trace: Option<([u8; 16], [u8; 8])>,
}

fn said() -> impl Strategy<Value = Said> {
    let words = (
        proptest::sample::select(Level::ALL),
        text().prop_map(|t| format!("e{t}")),
        text(),
        text(),
        text(),
        (text(), proptest::option::of(proptest::sample::select(ActorType::ALL))),
        text(),
        proptest::option::of(proptest::sample::select(Outcome::ALL)),
    );
    let values = (
        proptest::option::of(json(number())),
        proptest::option::of(json(number())),
        proptest::collection::btree_map(text(), json(number()), 0..6),
        0..4_102_444_800_000_000_000u64,
        proptest::option::of((any::<[u8; 16]>(), any::<[u8; 8]>())),
    );
    (words, values).prop_map(|(w, v)| Said {
        level: w.0,
        event: w.1,
        component: w.2,
        path: w.3,
        agent: w.4,
        actor: w.5.0,
        actor_type: w.5.1,
        action: w.6,
        outcome: w.7,
        old: v.0,
        new: v.1,
        context: v.2.into_iter().collect(),
        nanos: v.3,
        trace: v.4.filter(|(t, s)| *t != [0; 16] && *s != [0; 8]),
    })
}

impl Said {
    fn at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.nanos)
    }

    fn say(&self, sink: &dyn AuditSink) -> Result<(), AuditError> {
        let mut event = AuditEvent::new(self.level, &self.event)
            .component(&self.component)
            .file_path(&self.path)
            .user_agent(&self.agent)
            .actor(&self.actor, self.actor_type)
            .action(&self.action)
            .at(self.at());
        if let Some(o) = self.outcome {
            event = event.outcome(o);
        }
        if let Some(old) = &self.old {
            event = event.old_value(old);
        }
        if let Some(new) = &self.new {
            event = event.new_value(new);
        }
        if let Some((trace_id, span_id)) = self.trace {
            event = event.trace(Trace::Parent(TraceContext { trace_id, span_id, ..TraceContext::default() }));
        }
        for (key, value) in &self.context {
            event = event.with(key, Value::from(value));
        }
        sink.log(event).map(|_| ())
    }

    fn assert_read(&self, r: &Record) {
        let some = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        assert_eq!((r.level, &r.event, r.timestamp), (self.level, &self.event, self.at()));
        assert_eq!(r.component, some(&self.component).unwrap_or("argus".into()));
        assert_eq!(
            (&r.file_path, &r.user_agent, &r.actor_id),
            (&some(&self.path), &some(&self.agent), &some(&self.actor))
        );
        assert_eq!((r.actor_type, &r.action, r.outcome), (self.actor_type, &some(&self.action), self.outcome));
        assert_eq!((r.trace_id, r.span_id), (self.trace.map(|t| t.0), self.trace.map(|t| t.1)));
        let value = |j: &Option<argus_core::Json>| j.as_ref().map(argus_core::Json::to_value);
        assert!(same_opt(&value(&r.old_value), &self.old), "{:?} became {:?}", self.old, r.old_value);
        assert!(same_opt(&value(&r.new_value), &self.new), "{:?} became {:?}", self.new, r.new_value);
        assert!(
            same(&r.context.to_value(), &Json::Object(self.context.clone())),
            "{:?} became {}",
            self.context,
            r.context
        );
    }
}

fn same_opt(a: &Option<Json>, b: &Option<Json>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// Equal but for the spelling of doubles: canonical JSON writes 1.0 as 1.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(x), Json::Number(y)) => x == y || (y.is_f64() && x.as_f64() == y.as_f64()),
        (Json::Array(x), Json::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Json::Object(x), Json::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, x)| y.get(k).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_accepted_reads_back_equal_and_verifies_on_both_stores(events in proptest::collection::vec(said(), 1..12)) {
        let dir = Dir::new();
        let mut texts = Vec::new();
        for path in dir.both() {
            let logger = open(&path);
            for e in &events {
                e.say(&logger).unwrap();
            }
            close(&logger);
            assert_ok(&path);
            let read: Vec<Record> = records(&path).into_iter().filter(|r| r.writer == logger.writer_id()).collect();
            prop_assert_eq!(read.len(), events.len() + 2);
            for (e, r) in events.iter().zip(&read[1..]) {
                e.assert_read(r);
            }
            texts.push(read.into_iter().map(|r| (r.context, r.old_value, r.new_value)).skip(1).take(events.len()).collect::<Vec<_>>());
        }
        prop_assert_eq!(&texts[0], &texts[1]);
    }

    #[test]
    fn within_i_json_the_bytes_are_those_of_other_rfc_8785_libraries(value in json(proptest::num::f64::NORMAL.prop_filter_map("finite", Number::from_f64)
        .boxed().prop_union((-9_007_199_254_740_991i64..9_007_199_254_740_991).prop_map(Number::from).boxed()))) {
        let trail = argus_core::MemoryTrail::new();
        let logger = argus_core::AuditLogger::open_in_memory(argus_core::AuditConfig::default(), &trail).unwrap();
        logger.log(AuditEvent::info("value").new_value(&value)).unwrap();
        close(&logger);
        let line = trail.lines().into_iter().find(|l| l.contains("\"event\":\"value\"")).unwrap();
        for theirs in [serde_json_canonicalizer::to_string(&value).unwrap(), serde_jcs::to_string(&value).unwrap()] {
            prop_assert!(line.contains(&format!("\"new_value\":{theirs},\"process_id\"")), "{} is not in {}", theirs, line);
        }
    }
}

#[test]
fn the_independent_verifier_accepts_what_ours_does() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let dir = Dir::new();
    for path in dir.both() {
        let logger = open(&path);
        for _ in 0..200 {
            said().new_tree(&mut runner).unwrap().current().say(&logger).unwrap();
        }
        close(&logger);
        assert_ok(&path);
        if let Some((code, text)) = argus_testkit::verify_with_python(&path) {
            assert_eq!(code, 0, "{text}");
        }
    }
}
