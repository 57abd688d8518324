//! The macros: level and name, the caller's own target, and every form of field that `tracing` takes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::{Arc, Mutex};

use argus_tracing_layer::{audit_critical, audit_info, audit_security, audit_warn};
use serde_json::json;
use support::{Trail, record};
use tracing::subscriber::with_default;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer};

/// Target, level and field names of what passes.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Passed>>>);

type Passed = (String, Level, Vec<&'static str>);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let m = event.metadata();
        self.0.lock().unwrap().push((m.target().into(), *m.level(), m.fields().iter().map(|f| f.name()).collect()));
    }
}

mod gate {
    pub(super) fn all_four() {
        use argus_tracing_layer::{audit_critical, audit_info, audit_security, audit_warn};
        audit_info!("a");
        audit_warn!("b");
        audit_critical!("c");
        audit_security!("d");
    }
}

#[test]
fn level_and_name_of_each_under_the_callers_own_target() {
    let trail = Trail::new();
    let recorder = Recorder::default();
    with_default(tracing_subscriber::registry().with(trail.layer()).with(recorder.clone()), gate::all_four);
    let records = trail.records();
    let seen: Vec<_> = records.iter().map(|r| (r["event"].as_str().unwrap(), r["level"].as_str().unwrap())).collect();
    assert_eq!(seen, [("a", "INFO"), ("b", "WARN"), ("c", "CRITICAL"), ("d", "SECURITY")]);
    let fields = vec!["audit.event", "audit.level"];
    let expected = [Level::INFO, Level::WARN, Level::ERROR, Level::ERROR];
    assert_eq!(*recorder.0.lock().unwrap(), expected.map(|l| ("macros::gate".to_owned(), l, fields.clone())));
}

#[test]
fn an_env_filter_treats_them_as_events_of_their_module() {
    let trail = Trail::new();
    // The target `audit` is unknown to it, the module is not.
    let filter = EnvFilter::new("off,macros::gate=warn");
    with_default(tracing_subscriber::registry().with(filter).with(trail.layer()), || {
        gate::all_four();
        audit_security!("elsewhere");
    });
    assert_eq!(trail.names(), ["b", "c", "d"]);
}

#[test]
fn every_reserved_field_is_taken() {
    let line = record(|| {
        audit_security!(
            "login_denied",
            audit.component = "gate",
            audit.file_path = "/etc/shop.yaml",
            audit.old_value = "[1]",
            audit.new_value = 2,
            audit.user_agent = "curl/8",
            audit.actor = %"jane",
            audit.actor_type = "user",
            audit.action = "login",
            audit.outcome = "failure",
            ip = "192.0.2.7",
        )
    });
    let of = |k: &str| line[k].clone();
    assert_eq!((of("event"), of("level"), of("component")), (json!("login_denied"), json!("SECURITY"), json!("gate")));
    assert_eq!((of("old_value"), of("new_value")), (json!([1]), json!(2)));
    assert_eq!((of("actor_id"), of("actor_type"), of("outcome")), (json!("jane"), json!("user"), json!("failure")));
    assert_eq!(
        (of("file_path"), of("user_agent"), of("action")),
        (json!("/etc/shop.yaml"), json!("curl/8"), json!("login"))
    );
    assert_eq!(of("context"), json!({"ip": "192.0.2.7"}));
}

#[test]
fn every_form_of_a_field_is_taken() {
    const KEY: &str = "constant";
    let (user, age, list) = ("jane", 7, vec![1]);
    let name = String::from("named");
    let line = record(|| {
        audit_info!(
            name.as_str(),
            user,
            ?list,
            %age,
            dotted.path = 1,
            debug = ?list,
            display = %age,
            "literal key" = 2,
            "literal debug" = ?list,
            { KEY } = 3,
            "{user} is {} and {more}", age, more = 1 + 1
        )
    });
    let expected = json!({
        "user": "jane", "list": "[1]", "age": "7", "dotted.path": 1, "debug": "[1]", "display": "7", "literal key": 2,
        "literal debug": "[1]", "constant": 3, "message": "jane is 7 and 2",
    });
    assert_eq!((&line["event"], &line["context"]), (&json!("named"), &expected));
}

/// The counterpart of what does not compile.
#[test]
fn reserved_fields_in_every_form() {
    const ACTION: &str = argus_tracing_layer::keys::ACTION;
    struct Audit {
        outcome: &'static str,
    }
    let audit = Audit { outcome: "failure" };
    let line = record(
        || audit_info!("e", "audit.actor" = "jane", "audit.component" = %"gate", { ACTION } = "login", %audit.outcome, "audit_x" = 1),
    );
    let of = |k: &str| line[k].clone();
    assert_eq!((of("actor_id"), of("component"), of("action")), (json!("jane"), json!("gate"), json!("login")));
    assert_eq!((of("outcome"), of("context")), (json!("failure"), json!({"audit_x": 1})));
}

#[test]
fn a_message_need_not_be_a_literal() {
    assert_eq!(record(|| audit_warn!("e", concat!("a", "b")))["context"], json!({"message": "ab"}));
    assert_eq!(record(|| audit_warn!("e", "only a message"))["context"], json!({"message": "only a message"}));
    assert_eq!(record(|| audit_warn!("e", a = 1, "and {}", 2,))["context"], json!({"a": 1, "message": "and 2"}));
    assert_eq!(record(|| audit_warn!("e",))["context"], json!({}));
}

#[test]
fn one_event_can_be_taken_out() {
    let trail = Trail::new();
    trail.run(|| {
        for rare in [false, true] {
            audit_critical!("rare", audit = rare);
        }
    });
    assert_eq!(trail.names(), ["rare"]);
}
