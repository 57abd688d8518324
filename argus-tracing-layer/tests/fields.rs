//! What becomes of an event's fields: the reserved ones fill the record, the rest is context in its own type.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::error::Error;
use std::fmt;

use argus_core::AuditConfig;
use serde_json::{Value, json};
use support::{Trail, record};
use tracing::info;

#[test]
fn reserved_fields_fill_the_record() {
    let line = record(|| {
        info!(
            audit.event = "login_denied",
            audit.level = "SECURITY",
            audit.component = "gate",
            audit.file_path = "/etc/shop.yaml",
            audit.old_value = 1,
            audit.new_value = "two",
            audit.user_agent = "curl/8",
            audit.actor = "jane",
            audit.actor_type = "user",
            audit.action = "login",
            audit.outcome = "failure",
        );
    });
    for (field, value) in [
        ("event", json!("login_denied")),
        ("level", json!("SECURITY")),
        ("component", json!("gate")),
        ("file_path", json!("/etc/shop.yaml")),
        ("old_value", json!(1)),
        ("new_value", json!("two")),
        ("user_agent", json!("curl/8")),
        ("actor_id", json!("jane")),
        ("actor_type", json!("user")),
        ("action", json!("login")),
        ("outcome", json!("failure")),
        ("context", json!({})),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
}

#[test]
fn without_them_the_trails_own_values_stand() {
    let trail = Trail::with(AuditConfig::default().component("shop").with("region", "eu-1"));
    trail.run(|| info!(audit.event = "e"));
    let line = trail.one("e");
    assert_eq!((&line["component"], &line["context"]), (&json!("shop"), &json!({"region": "eu-1"})));
    for absent in ["file_path", "old_value", "new_value", "user_agent", "actor_id", "actor_type", "action", "outcome"] {
        assert_eq!(line.get(absent), None, "{absent}");
    }
}

#[test]
fn text_fields_are_text_whatever_their_type() {
    let path = std::path::Path::new("/etc/shop.yaml");
    let line = record(|| {
        info!(
            audit.actor = 42u64,
            audit.action = true,
            audit.component = -1,
            audit.user_agent = ?Some("curl"),
            audit.file_path = %path.display(),
        );
    });
    assert_eq!(line["actor_id"], "42");
    assert_eq!(line["action"], "true");
    assert_eq!(line["component"], "-1");
    assert_eq!(line["user_agent"], "Some(\"curl\")");
    assert_eq!(line["file_path"], "/etc/shop.yaml");
}

#[test]
fn actor_and_type_in_either_order() {
    for line in [
        record(|| info!(audit.actor = "ci", audit.actor_type = "service")),
        record(|| info!(audit.actor_type = "SERVICE", audit.actor = "ci")),
    ] {
        assert_eq!((&line["actor_id"], &line["actor_type"]), (&json!("ci"), &json!("service")));
    }
    assert_eq!(record(|| info!(audit.actor_type = "system"))["actor_type"], "system");
}

#[test]
fn words_that_are_none_stay_in_the_context() {
    let line = record(|| info!(audit.outcome = "so-so", audit.actor_type = "robot", audit.actor = "r2"));
    assert_eq!((line.get("outcome"), line.get("actor_type")), (None, None));
    assert_eq!(line["actor_id"], "r2");
    assert_eq!(line["context"], json!({"audit.outcome": "so-so", "audit.actor_type": "robot"}));
}

#[test]
fn other_audit_fields_are_context_under_their_whole_name() {
    assert_eq!(record(|| info!(audit.ticket = 12))["context"], json!({"audit.ticket": 12}));
}

#[derive(Debug)]
struct Broken;
impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it broke")
    }
}
impl Error for Broken {}

#[test]
fn context_members_keep_their_type() {
    let line = record(|| {
        info!(
            audit = true,
            i = -7i64,
            u = u64::MAX,
            small = 3u8,
            f = 2.5,
            whole = 2.0,
            yes = true,
            text = "t",
            owned = String::from("o"),
            debug = ?Some(1),
            display = %Broken,
            error = &Broken as &(dyn Error + 'static),
            bytes = &[0u8, 255] as &[u8],
            wide = u128::MAX,
            narrow = 5i128,
            some = Some(4),
            none = None::<i32>,
            quoted.path = "with dots",
            "as a string" = 1,
        );
    });
    // An absent value is no member; a wide integer that fits is one.
    let expected = json!({
        "i": -7, "u": u64::MAX, "small": 3, "f": 2.5, "whole": 2, "yes": true, "text": "t", "owned": "o",
        "debug": "Some(1)", "display": "it broke", "error": "it broke", "bytes": "00ff",
        "wide": u128::MAX.to_string(), "narrow": 5, "some": 4, "quoted.path": "with dots", "as a string": 1,
    });
    assert_eq!(line["context"], expected);
}

#[test]
fn of_a_field_named_twice_the_last_word_counts() {
    assert_eq!(record(|| info!(audit = true, a = 1, b = 2, a = "three"))["context"], json!({"a": "three", "b": 2}));
}

#[test]
fn what_json_cannot_say_is_kept_as_text() {
    let line =
        record(|| info!(audit = true, nan = f64::NAN, up = f64::INFINITY, down = f64::NEG_INFINITY, zero = -0.0));
    assert_eq!(line["context"], json!({"nan": "NaN", "up": "inf", "down": "-inf", "zero": 0}));
    let line = record(|| info!(audit.old_value = f64::NAN, audit.new_value = 1.5));
    assert_eq!((&line["old_value"], &line["new_value"]), (&json!("NaN"), &json!(1.5)));
}

#[test]
fn strict_json_in_a_value_field_is_parsed() {
    let old = |f: fn()| record(f)["old_value"].clone();
    assert_eq!(old(|| info!(audit.old_value = r#" {"a":1}"#)), json!(" {\"a\":1}"), "only text that begins so");
    assert_eq!(old(|| info!(audit.old_value = r#"{"b":[1,2.50],"a":null}"#)), json!({"a": null, "b": [1, 2.5]}));
    assert_eq!(old(|| info!(audit.old_value = "[1, 2]")), json!([1, 2]));
    assert_eq!(old(|| info!(audit.old_value = ?vec![1, 2])), json!([1, 2]), "of Debug, too");
    assert_eq!(old(|| info!(audit.old_value = %json!({"a": 1}))), json!({"a": 1}));
    for broken in ["{", "[1,]", "{a:1}", r#"{"a":1,"a":2}"#, "{} x", "[nul]", r#"{"$argus.x":1}"#] {
        let line = record(|| info!(audit.new_value = broken));
        assert_eq!(line["new_value"], Value::String(broken.into()), "kept as text");
    }
    // Scalars are what their type says; text stays text.
    assert_eq!(old(|| info!(audit.old_value = "12")), json!("12"));
    assert_eq!(old(|| info!(audit.old_value = "null")), json!("null"));
    assert_eq!(old(|| info!(audit.old_value = false)), json!(false));
    assert_eq!(old(|| info!(audit.old_value = "")), json!(""));
}

#[test]
fn json_elsewhere_stays_text_and_secrets_are_withheld() {
    assert_eq!(record(|| info!(audit = true, body = "{}"))["context"], json!({"body": "{}"}));
    let line = record(|| info!(audit.new_value = r#"{"db":{"password":"hunter2"},"port":1}"#, api_key = "hunter3"));
    assert_eq!(line["new_value"]["port"], 1);
    assert!(!line.to_string().contains("hunter"), "{line}");
}

#[test]
fn the_message_is_the_member_message() {
    assert_eq!(record(|| info!(audit = true, "over {}", 9))["context"], json!({"message": "over 9"}));
    assert_eq!(record(|| info!(audit = true, message = 5))["context"], json!({"message": 5}));
    assert_eq!(record(|| info!(audit = true))["context"], json!({}));
}
