//! A real configuration's history, replayed live under `argus watch`: every version whose value differs is one record with the right values, and the trail
//! verifies by our verdict and by the independent one. No sleep paces it: the next version is written once the trail has the change to this one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use argus_core::{AuditReader, Filter};
use argus_testkit::{shared, verify_with_python};
use common::{Running, Signal, TempTrail, argus, json, run, until};
use serde_json::Value;

fn versions() -> Option<Vec<PathBuf>> {
    let folder = shared("realconfigs/otelcol-config.yaml")?;
    let mut all: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    all.sort();
    Some(all)
}

/// Equal but for the form of numbers (canonical JSON has no `1.0`) and for what is withheld.
fn same(got: &Value, wanted: &Value) -> bool {
    match (got, wanted) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), _) if x.len() == 1 && x.contains_key("$argus.redacted") => true,
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, x)| y.get(k).is_some_and(|y| same(x, y)))
        }
        _ => got == wanted,
    }
}

fn changes(trail: &Path) -> usize {
    AuditReader::open(trail).unwrap().query(Filter::new().event("config_change")).unwrap().count()
}

fn replay(store: fn(&TempTrail) -> PathBuf) {
    let Some(versions) = versions() else { return };
    // An independent parse, and one value for each run of versions that have the same.
    let parse = |p: &PathBuf| -> Value { yaml_serde::from_str(&fs::read_to_string(p).unwrap()).unwrap() };
    let t = TempTrail::new();
    let trail = store(&t);
    let file = t.path("otelcol-config.yaml");
    fs::copy(&versions[0], &file).unwrap();
    let mut c = argus(&["watch"]);
    c.arg(&file).arg("--db").arg(&trail);
    let watch = Running::start(c);
    assert!(watch.line().starts_with("ready: watching 1 files"));

    let mut values = vec![parse(&versions[0])];
    for (i, version) in versions.iter().enumerate().skip(1) {
        // By turns written in place, and written beside and renamed.
        let to = if i % 2 == 0 { file.clone() } else { t.path("new") };
        fs::copy(version, &to).unwrap();
        if to != file {
            fs::rename(&to, &file).unwrap();
        }
        let value = parse(version);
        if values.last() != Some(&value) {
            values.push(value);
            until(&format!("the change to {}", version.display()), || {
                (changes(&trail) == values.len() - 1).then_some(())
            });
        }
    }
    watch.signal(Signal::TERM);
    assert_eq!(watch.end().ok(), "");

    assert!(values.len() > 20, "too few differ: {}", values.len());
    let records = json(&trail, &["query", "--event", "config_change", "--oldest-first", "-n", "1000"]);
    assert_eq!(records.len(), values.len() - 1);
    for (record, pair) in records.iter().zip(values.windows(2)) {
        assert_eq!((record["level"].as_str(), record["file_path"].as_str()), (Some("CRITICAL"), file.to_str()));
        assert!(same(&record["old_value"], &pair[0]), "old of {}", record["seq"]);
        assert!(same(&record["new_value"], &pair[1]), "new of {}", record["seq"]);
        assert_eq!(record["context"]["kind"], "modified");
    }
    let all = json(&trail, &["query", "--app", "argus", "-n", "1000"]);
    assert_eq!(all[0]["event"], "audit_close");
    assert!(all.iter().all(|r| r["event"] != "parse_warning"), "no half of a file was taken for one");
    let verdict = run(&trail, &["verify"]).ok();
    assert!(verdict.starts_with("ok: ") && verdict.ends_with("assurance linked\n"), "{verdict}");
    if let Some((code, text)) = verify_with_python(&trail) {
        assert_eq!(code, 0, "{text}");
    }
}

#[test]
fn into_a_database() {
    replay(TempTrail::db);
}

#[test]
fn into_json_lines() {
    replay(TempTrail::jsonl);
}
