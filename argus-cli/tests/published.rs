//! The queries that the documentation of the modelled system publishes run unchanged on our database: by a read-only connection beside a live writer, and by
//! the stock `sqlite3` on a copy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use argus_testkit::shared;
use common::{Running, Signal, TempTrail, argus, fill, records, run, until};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

/// Name and text of each query.
fn published() -> Option<Vec<(String, String)>> {
    let text = fs::read_to_string(shared("queries/published.sql")?).unwrap();
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("-- name: "), found.last_mut()) {
            (Some(name), _) => found.push((name.split(' ').next().unwrap().into(), String::new())),
            (None, Some((_, sql))) => *sql += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert_eq!(found.len(), 5);
    Some(found)
}

/// The rows of every query, by its name.
fn rows(path: &Path, queries: &[(String, String)]) -> Vec<(String, Vec<Vec<Value>>)> {
    let c = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let all = |sql: &str| {
        let mut s = c.prepare(sql).unwrap();
        let n = s.column_count();
        s.query_map([], |r| (0..n).map(|i| r.get(i)).collect()).unwrap().map(Result::unwrap).collect()
    };
    queries.iter().map(|(name, sql)| (name.clone(), all(sql))).collect()
}

/// The trail of `fill` and then two live changes of a file: 1, 2, 3.
fn assert_right(found: &[(String, Vec<Vec<Value>>)], trail: &Path) {
    let of = |name: &str| &found.iter().find(|f| f.0 == name).unwrap().1;
    let text = |v: &Value| match v {
        Value::Text(t) => t.clone(),
        other => format!("{other:?}"),
    };
    let records = records(trail);
    let output_file = trail.to_str().unwrap();

    let last_hour = of("changes_last_hour");
    assert_eq!(last_hour.len(), 4);
    assert!(last_hour.iter().all(|r| text(&r[2]) == "config_change" && text(&r[1]) == output_file));
    // The newest first.
    assert_eq!((text(&last_hour[0][4]), text(&last_hour[0][5])), ("2".into(), "3".into()));
    assert_eq!(text(&last_hour[2][5]), r#"{"port":2}"#);

    // The live ones; those of `fill` are ten minutes apart and more.
    let correlated = of("correlate_5_minutes");
    assert_eq!((correlated.len(), text(&correlated[0][0])), (1, "argus".into()));

    let summary = of("activity_summary");
    let total: i64 = summary.iter().map(|r| if let Value::Integer(n) = r[2] { n } else { 0 }).sum();
    assert_eq!(total, records.len() as i64);
    let config = summary.iter().find(|r| text(&r[1]) == "config").unwrap();
    assert_eq!((&config[2], &config[3]), (&Value::Integer(2), &Value::Integer(2)));

    let security = of("security_events");
    assert_eq!(security.len(), 1);
    assert_eq!(
        (text(&security[0][1]), text(&security[0][2])),
        ("login_denied".into(), r#"{"attempts":3,"ip":"192.0.2.7"}"#.into())
    );

    let last_day = of("critical_last_day");
    assert_eq!(last_day.len(), 4);
    assert!(text(&last_day[0][3]).contains("\"kind\":\"modified\""), "{:?}", last_day[0]);
}

#[test]
fn published_queries_run_unchanged() {
    let Some(queries) = published() else { return };
    let t = TempTrail::new();
    fill(&t.db());
    let live = t.path("app.json");
    fs::write(&live, "1").unwrap();
    let mut c = argus(&["watch"]);
    c.arg(&live).arg("--db").arg(t.db());
    let watch = Running::start(c);
    watch.line();
    for new in ["2", "3"] {
        fs::write(&live, new).unwrap();
        let is_there = |r: &argus_core::Record| r.new_value.as_ref().is_some_and(|v| v.as_str() == new);
        until("the change", || records(&t.db()).iter().any(is_there).then_some(()));
    }
    assert_right(&rows(&t.db(), &queries), &t.db());
    watch.signal(Signal::TERM);
    assert_eq!(watch.end().ok(), "");

    // Copies only: another build of SQLite is never let near a trail that is in use.
    let copy = TempTrail::new();
    fs::copy(t.db(), copy.db()).unwrap();
    let found = rows(&copy.db(), &queries);
    assert_right(&found, &t.db());
    assert!(run(&t.db(), &["verify"]).ok().starts_with("ok: "));
    stock(&copy.db(), &found);
}

/// The whole file at once, by the stock program: as many rows as we got.
fn stock(copy: &Path, found: &[(String, Vec<Vec<Value>>)]) {
    let sql = fs::File::open(shared("queries/published.sql").unwrap()).unwrap();
    let out = match Command::new("sqlite3").arg("-readonly").arg(copy).stdin(sql).stderr(Stdio::piped()).output() {
        Ok(out) => out,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED: sqlite3 not found");
            return;
        }
        Err(e) => panic!("sqlite3 cannot be started: {e}"),
    };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    let printed = String::from_utf8(out.stdout).unwrap();
    let wanted: usize = found.iter().map(|f| f.1.len()).sum();
    assert_eq!(printed.lines().count(), wanted, "{printed}");
    assert!(printed.contains(r#"gateway|login_denied|{"attempts":3,"ip":"192.0.2.7"}|"#), "{printed}");
}
