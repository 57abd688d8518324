//! `#[tracing::instrument]`: spans of functions, also async ones across threads and awaits, and the events that it makes of results.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use serde_json::json;
use support::{Trail, record};
use tracing::instrument::WithSubscriber;
use tracing::subscriber::with_default;
use tracing::{Instrument, info, info_span, instrument};
use tracing_subscriber::prelude::*;

#[instrument(skip_all, fields(audit.actor = user, audit.action = tracing::field::Empty))]
async fn login(user: &str, password: &str) -> usize {
    tokio::task::yield_now().await;
    tracing::Span::current().record("audit.action", "login");
    tokio::task::yield_now().await;
    info!(audit.event = "login", user_len = user.len());
    password.len()
}

#[test]
fn async_functions_keep_their_span_across_awaits_and_tasks() {
    let trail = Trail::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(trail.layer()));
    runtime.block_on(async {
        let tasks: Vec<_> = ["jane", "joe", "ada"]
            .map(|user| tokio::spawn(login(user, "hunter2").with_subscriber(dispatch.clone())))
            .into();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let mut seen: Vec<_> = trail.records().iter().map(|r| (r["actor_id"].clone(), r["context"].clone())).collect();
    seen.sort_by_key(|s| s.0.to_string());
    assert_eq!(
        seen,
        [
            (json!("ada"), json!({"user_len": 3})),
            (json!("jane"), json!({"user_len": 4})),
            (json!("joe"), json!({"user_len": 3}))
        ]
    );
    assert!(trail.records().iter().all(|r| r["action"] == "login" && !r.to_string().contains("hunter2")));
}

/// Hazard C4: a task that is spawned without its span has none; `in_current_span` or `instrument` hands it on.
#[test]
fn a_detached_task_has_the_span_it_is_given() {
    let trail = Trail::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    with_default(tracing_subscriber::registry().with(trail.layer()), || {
        runtime.block_on(async {
            let _request = info_span!("request", audit.actor = "jane").entered();
            let detached = tokio::spawn(async { info!(audit.event = "detached") });
            let current = tokio::spawn(async { info!(audit.event = "current") }.in_current_span());
            drop(_request);
            detached.await.unwrap();
            current.await.unwrap();
        });
    });
    assert_eq!(trail.one("detached").get("actor_id"), None);
    assert_eq!(trail.one("current")["actor_id"], "jane");
}

#[instrument(target = "audit::transfer", err, skip(amount))]
fn transfer(from: &str, amount: u64) -> Result<u64, String> {
    if amount > 10 { Err(format!("{from} has not so much")) } else { Ok(amount) }
}

#[instrument(target = "audit::balance", ret, skip_all)]
fn balance(_: &str) -> u64 {
    7
}

#[instrument(err, ret)]
fn ordinary(n: u64) -> Result<u64, String> {
    if n == 0 { Err("zero".into()) } else { Ok(n) }
}

/// `err` and `ret` make events with the target of their span: a target that marks makes them records.
#[test]
fn results_are_records_where_the_target_marks() {
    let line = record(|| {
        transfer("jane", 5).unwrap();
        transfer("jane", 50).unwrap_err();
        ordinary(0).unwrap_err();
        ordinary(1).unwrap();
    });
    assert_eq!((&line["event"], &line["level"]), (&json!("transfer"), &json!("CRITICAL")));
    assert_eq!(line["context"], json!({"error": "jane has not so much"}));
    let line = record(|| {
        balance("jane");
    });
    assert_eq!((&line["event"], &line["context"]), (&json!("balance"), &json!({"return": "7"})));
}
