//! `docs/tracing-fields.md` says what is: its example, its reserved fields and its tests.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::Path;

use argus_tracing_layer::keys;
use serde_json::json;
use support::record;
use tracing::{info_span, warn};

fn document() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tracing-fields.md")).unwrap()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn its_example() {
    let line = record(|| {
        let _span =
            info_span!("request", audit.actor = "jane", audit.actor_type = "user", password = "hunter2").entered();
        warn!(
            audit.event = "quota_exceeded",
            audit.component = "billing",
            audit.old_value = 100,
            audit.new_value = r#"{"gb":120}"#,
            used = 120,
            "over {}",
            "quota"
        );
    });
    let expected = json!({
        "event": "quota_exceeded", "level": "WARN", "component": "billing", "actor_id": "jane", "actor_type": "user",
        "old_value": 100, "new_value": {"gb": 120}, "context": {"message": "over quota", "used": 120},
    });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&line[member], value, "{member}");
    }
    assert!(!line.to_string().contains("hunter2"));
    // The document's rows say the same.
    let (text, rows) = (document(), expected.as_object().unwrap());
    for (member, value) in rows {
        let row = text.lines().find(|l| l.starts_with('|') && l.contains(&format!("`{member}`"))).unwrap();
        assert!(row.contains(&format!("`{value}`")), "{member}: {value} in {row}");
    }
}

#[test]
fn the_reserved_fields_are_those_of_the_document() {
    let all = [
        keys::AUDIT,
        keys::LEVEL,
        keys::EVENT,
        keys::COMPONENT,
        keys::FILE_PATH,
        keys::OLD_VALUE,
        keys::NEW_VALUE,
        keys::USER_AGENT,
        keys::ACTOR,
        keys::ACTOR_TYPE,
        keys::ACTION,
        keys::OUTCOME,
    ];
    let text = document();
    let section = text.split("## Reserved fields").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter(|l| l.starts_with("| `"));
    let named: Vec<_> = rows.map(|row| quoted(row).next().unwrap()).collect();
    assert_eq!(named, all);
}

#[test]
fn the_tests_it_names_are_there() {
    let text = document();
    let mut found = 0;
    for (file, test) in quoted(&text).filter_map(|q| q.split_once("::")).filter(|(f, _)| f.ends_with(".rs")) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
        let source = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(source.contains(&format!("#[test]\nfn {test}()")), "{file}::{test}");
        found += 1;
    }
    assert!(found > 25, "{found}");
}
