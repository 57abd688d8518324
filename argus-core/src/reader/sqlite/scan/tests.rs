//! How SQLite goes about each filter.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::Level;
use crate::store::sqlite::schema::SCHEMA;

fn explain(conn: &Connection, sql: &str, values: &[Value]) -> Vec<String> {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let rows = statement.query_map(params_from_iter(values), |r| r.get::<_, String>(3)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn every_filter() -> impl Iterator<Item = Filter> {
    let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    (0..1u32 << 10).map(move |bits| {
        let mut f = Filter::new();
        let on = |i: u32| bits & (1 << i) != 0;
        f.since = on(0).then_some(time);
        f.until = on(1).then_some(time);
        f.min_level = on(2).then_some(Level::Critical);
        f.event = on(3).then(|| "e".into());
        f.component = on(4).then(|| "c".into());
        f.actor = on(5).then(|| "a".into());
        f.pid = on(6).then_some(7);
        f.file = on(7).then(|| "/etc/x".into());
        f.trace = on(8).then(|| "ab".repeat(16));
        f.newest_first = on(9);
        f
    })
}

#[test]
fn no_filter_makes_sqlite_sort_or_read_more_than_its_range() {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    for filter in every_filter() {
        let p = plan(&filter);
        let values: Vec<Value> = [1.into(), 9.into()].into_iter().chain(p.values.iter().cloned()).collect();
        let steps = explain(&conn, &p.sql, &values);
        let wanted = match (&filter.trace, &filter.file) {
            (Some(_), _) => "SEARCH e USING INDEX idx_audit_trace (trace_id=? AND rowid>? AND rowid<?)",
            (None, Some(_)) => "SEARCH e USING INDEX idx_audit_file (file_path=? AND rowid>? AND rowid<?)",
            (None, None) => "SEARCH e USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        };
        assert_eq!(steps[0], wanted, "{filter:?}");
        assert!(!steps.iter().any(|s| s.contains("TEMP B-TREE")), "{filter:?}: {steps:?}");
        // By an index, SQLite decides nothing else, so that each row it reads counts.
        assert_eq!(p.indexed, p.values.len() == 1 && !p.sql.contains('+'), "{filter:?}");
        let used = values.get(..conn.prepare(&p.ids).unwrap().parameter_count()).unwrap();
        assert!(!explain(&conn, &p.ids, used).iter().any(|s| s.contains("TEMP B-TREE")));
    }
}

#[test]
fn a_record_is_found_by_its_id_through_the_index() {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    let steps = explain(&conn, &crate::reader::sqlite::by_id_sql(), &["x".to_owned().into()]);
    assert_eq!(steps[0], "SEARCH e USING INDEX idx_audit_record_id (record_id=?)");
    let steps = explain(&conn, BEGINNING, &["x".to_owned().into(), 5.into()]);
    assert!(steps.iter().any(|s| s.contains("USING COVERING INDEX idx_audit_timestamp (timestamp>?)")), "{steps:?}");
}
