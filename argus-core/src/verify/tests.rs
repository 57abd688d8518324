//! What `verify` makes of a store that changes, fails or is damaged between its steps.

use std::cell::{Cell, RefCell};

use super::*;
use crate::canonical::Fields;
use crate::filter::Filter;
use crate::id::RecordId;
use crate::reader::{About, Origin, Scan, Walked};
use crate::record::Record;

const LOG: &str = "00000000-0000-4000-8000-000000000000";

/// A store of `records` rows, of which a walk shows what its turn lets it.
#[derive(Default)]
struct Script {
    /// Rows that the store says it has, by the number of the call of `about`.
    about: Vec<u64>,
    /// Rows that each walk shows up to.
    walks: Vec<u64>,
    structure: RefCell<Option<TrailError>>,
    origin: RefCell<Option<TrailError>>,
    calls: Cell<(usize, usize)>,
}

impl Source for Script {
    fn check_structure(&self) -> Result<Vec<(Code, String)>, TrailError> {
        self.structure.take().map_or(Ok(Vec::new()), Err)
    }
    fn origin(&self) -> Result<Origin, TrailError> {
        let origin = Origin { links: Links::Above, log_id: Some(LOG.into()), first_seq: Some(1) };
        self.origin.take().map_or(Ok(origin), Err)
    }
    fn walk(&self, after: u64, visit: &mut dyn FnMut(Item<'_>) -> bool) -> Result<Walked, TrailError> {
        let (walk, about) = self.calls.get();
        self.calls.set((walk + 1, about));
        for seq in after + 1..=self.walks[walk] {
            let damage = Damage { seq: Some(seq), why: "a row of the test".into(), checksum: None, writer: None };
            visit(Item::Damage(damage));
        }
        Ok(Walked::default())
    }
    fn about(&self, last: u64) -> Result<Option<About>, TrailError> {
        let (walk, about) = self.calls.get();
        self.calls.set((walk, about + 1));
        let last_seq = self.about[about];
        Ok((last_seq <= last).then_some(About { last_seq, writers: None, foreign_waiting: 0 }))
    }
    fn ends(&self, _: &[crate::id::WriterId]) -> Result<crate::reader::Ends, TrailError> {
        unreachable!()
    }
    fn scan(&self, _: Filter) -> Box<dyn Scan + '_> {
        unreachable!()
    }
    fn by_id(&self, _: RecordId) -> Result<Option<Record>, TrailError> {
        unreachable!()
    }
}

fn codes(script: &Script) -> Vec<Code> {
    verify(script, None).unwrap().findings.iter().map(|f| f.code).collect()
}

#[test]
fn records_that_come_while_an_empty_database_is_verified_are_no_gap() {
    // The first walk sees nothing; then a logger opens; the next walk sees its records.
    let script = Script { walks: vec![0, 2], about: vec![2, 2], ..Script::default() };
    assert_eq!(codes(&script), [Code::Column, Code::Column], "the two rows of the test themselves");
}

#[test]
fn records_that_no_walk_reaches_are_a_gap() {
    let script = Script { walks: vec![1, 1], about: vec![3, 3], ..Script::default() };
    assert_eq!(codes(&script), [Code::Column, Code::Gap]);
    let script = Script { walks: vec![0, 0], about: vec![3, 3], ..Script::default() };
    assert_eq!(codes(&script), [Code::Gap]);
}

#[test]
fn damage_that_the_store_meets_anywhere_is_a_verdict() {
    let error = |kind| RefCell::new(Some(TrailError::new(kind, "on purpose")));
    let script = || Script { walks: vec![0], about: vec![0], ..Script::default() };
    assert_eq!(codes(&Script { structure: error(ErrorKind::Damaged), ..script() }), [Code::Integrity]);
    assert_eq!(codes(&Script { origin: error(ErrorKind::Damaged), ..script() }), [Code::Integrity]);
    assert!(verify(&Script { structure: error(ErrorKind::Io), ..script() }, None).is_err());
    assert!(verify(&Script { origin: error(ErrorKind::Busy), ..script() }, None).is_err());
}

#[test]
fn many_writers_are_compared_in_linear_time() {
    // With a square of comparisons this would take a quarter of an hour.
    let mut writers = Writers::of_log(Some(LOG.into()));
    let mut rows = vec![crate::reader::WriterRow {
        id: 0,
        writer: LOG.into(),
        service_name: Some(String::new()),
        last_seq: Some(0),
        closed: Some(0),
    }];
    let mut report = VerifyReport::default();
    for i in 1..=200_000u64 {
        let writer = format!("00000000-0000-4000-8000-{i:012x}");
        let f = Fields {
            writer: &writer,
            writer_seq: 1,
            seq: i,
            component: "argus",
            event: "audit_open",
            context: r#"{"service_name":"s"}"#,
            ..Fields::default()
        };
        writers.record(&f, &mut report);
        rows.push(crate::reader::WriterRow {
            id: i64::try_from(i).unwrap(),
            writer: writer.clone(),
            service_name: Some("s".into()),
            last_seq: Some(1),
            closed: Some(0),
        });
    }
    writers.end(Some(&rows), &mut report);
    assert!(report.is_ok(), "{report}");
    assert_eq!(report.unclosed_writers.len(), 200_000);
}

/// Feeds records of one writer, numbers from 1, each `(number, context of an audit_gap)`.
fn numbers(records: impl Iterator<Item = (u64, Option<String>)>) -> VerifyReport {
    let mut writers = Writers::of_log(Some(LOG.into()));
    let mut report = VerifyReport::default();
    for (seq, (number, gap)) in (1..).zip(records) {
        let event = if number == 1 { "audit_open" } else { gap.as_ref().map_or("e", |_| "audit_gap") };
        let f = Fields {
            writer: "00000000-0000-4000-8000-000000000001",
            writer_seq: number,
            seq,
            component: "argus",
            event,
            context: gap.as_deref().unwrap_or("{}"),
            ..Fields::default()
        };
        writers.record(&f, &mut report);
    }
    writers.end(None, &mut report);
    report
}

fn gap(first: u64, last: u64) -> Option<String> {
    Some(format!(r#"{{"first":{first},"last":{last},"writer":"00000000-0000-4000-8000-000000000001"}}"#))
}

#[test]
fn a_writer_may_lose_and_tell_as_often_as_it_likes() {
    // Each record tells of the loss of three before it.
    let often = |n: u64| (0..n).map(|i| if i == 0 { (1, None) } else { (i * 4 + 1, gap(i * 4 - 2, i * 4)) });
    let report = numbers(often(20_000));
    assert!(report.is_ok(), "{report}");
    // One that is told twice, one that is not told, and one that was none are still found, whatever was forgotten.
    let n = 20_000 * 4 + 1;
    assert!(!numbers(often(20_000).chain([(n, None), (n + 1, gap(n - 3, n - 1)), (n + 2, gap(2, 4))])).is_ok());
    assert!(!numbers(often(20_000).chain([(n, None)])).is_ok());
    assert!(!numbers(often(20_000).chain([(n, gap(n - 3, n - 1)), (n + 1, gap(5, 5))])).is_ok());
    assert!(numbers(often(20_000).chain([(n, gap(n - 3, n - 1))])).is_ok());
}

#[test]
fn holes_that_nothing_explains_are_found_however_many() {
    let report = numbers((0..20_000u64).map(|i| (i * 2 + 1, None)));
    assert_eq!(report.findings_total, 19_999);
}

#[test]
fn the_log_writer_names_numbers_that_a_recovery_did_not_find() {
    const DEAD: &str = "00000000-0000-4000-8000-000000000001";
    let found = |records: &[(&str, u64, &str, &str)]| {
        let mut writers = Writers::of_log(Some(LOG.into()));
        let mut report = VerifyReport::default();
        for (seq, (writer, number, event, context)) in (1..).zip(records) {
            let f =
                Fields { writer, writer_seq: *number, seq, component: "argus", event, context, ..Fields::default() };
            writers.record(&f, &mut report);
        }
        writers.end(None, &mut report);
        report.findings_total
    };
    let gap = |first: u64, last: u64| format!(r#"{{"first":{first},"last":{last},"writer":"{DEAD}"}}"#);
    let over = |last: u64| format!(r#"{{"cause":"dead","count":1,"last":{last},"writer":"{DEAD}"}}"#);
    let with = |gap: &str, then: u64, last: u64| {
        let (open, end) = ((DEAD, 1, "audit_open", "{}"), over(last));
        let end = (LOG, 2, "audit_recovered", &*end);
        found(&[open, (DEAD, 2, "e", "{}"), (LOG, 1, "audit_gap", gap), (DEAD, then, "e", "{}"), end])
    };
    assert_eq!(with(&gap(3, 5), 6, 6), 0);
    for (context, then) in [(gap(4, 5), 6), (gap(2, 5), 6), (gap(3, 2), 3), (gap(3, 5), 5), (gap(3, 5), 7)] {
        assert!(with(&context, then, then) > 0, "{context}, then {then}");
    }
    // Nothing follows the end of a writer.
    let (context, end) = (gap(2, 3), over(1));
    let open = (DEAD, 1, "audit_open", "{}");
    assert!(found(&[open, (LOG, 1, "audit_recovered", &end), (LOG, 2, "audit_gap", &context)]) > 0);
}
