//! Which context a record and its span get, from wherever the call comes; and input that is bad: each is a record with its span, or an error that the caller sees.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use argus_core::{AuditError, AuditEvent, AuditSink, AuditSinkExt, Value};
use argus_otel::opentelemetry::trace::{SpanId, TraceContextExt, Tracer};
use argus_otel::opentelemetry::{Context, KeyValue};
use argus_otel::{OtelWrapperConfig, names};
use opentelemetry_sdk::trace::SpanData;
use support::{SOON, Trail, attribute};
use tracing_subscriber::layer::SubscriberExt;

fn is_under(child: &SpanData, parent: &SpanData) {
    assert_eq!(child.parent_span_id, parent.span_context.span_id(), "{} under {}", child.name, parent.name);
    assert_eq!(child.span_context.trace_id(), parent.span_context.trace_id());
}

#[test]
fn the_context_is_that_of_the_caller() {
    let t = Trail::new();
    let audit = t.wrap(OtelWrapperConfig::default());
    audit.log(AuditEvent::info("none")).unwrap();
    t.tracer().in_span("otel", |_| audit.log(AuditEvent::info("in_otel")).unwrap());

    let subscriber = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(t.tracer()));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info_span!("tracing").in_scope(|| audit.log(AuditEvent::info("in_tracing")).unwrap());
    });

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    t.tracer().in_span("task", |cx| {
        // Another thread knows nothing of the caller unless it is told.
        let (inherits, bare) = (audit.clone(), audit.clone());
        let handed = cx.clone();
        runtime.block_on(async move {
            let task = tokio::task::spawn_blocking(move || {
                let _active = handed.attach();
                inherits.log(AuditEvent::info("blocking")).unwrap();
            });
            task.await.unwrap();
            tokio::task::spawn_blocking(move || bare.log(AuditEvent::info("orphan")).unwrap()).await.unwrap();
        });
        let handed: Context = cx.clone();
        std::thread::scope(|s| {
            s.spawn(|| {
                let _active = handed.attach();
                audit.log(AuditEvent::info("thread")).unwrap();
            });
        });
        assert!(cx.span().span_context().is_valid());
    });
    audit.close(SOON);
    for (event, parent) in [("in_otel", "otel"), ("in_tracing", "tracing"), ("blocking", "task"), ("thread", "task")] {
        is_under(&t.span(&format!("audit.{event}")), &t.span(parent));
        assert_eq!(t.line(event)["span_id"], t.span(parent).span_context.span_id().to_string());
    }
    for event in ["none", "orphan"] {
        assert_eq!(t.span(&format!("audit.{event}")).parent_span_id, SpanId::INVALID);
    }
    assert_eq!(audit.tracing_errors(), 0);
}

#[test]
fn names_that_collide_are_left_out_and_counted() {
    let t = Trail::new();
    let config = OtelWrapperConfig::default()
        .base_attribute(KeyValue::new(names::LEVEL, "INFO"))
        .base_attribute(KeyValue::new("audit.context.user", "mallory"))
        .base_attribute(KeyValue::new("team", "old"))
        .base_attribute(KeyValue::new("team", "new"));
    let audit = t.wrap(config);
    assert_eq!(audit.tracing_errors(), 2);
    assert!(audit.tracing_error().unwrap().contains("audit.context.user"));
    // A context member cannot collide: its name has a prefix.
    audit.log(AuditEvent::security("e").with("user", "jane").with("audit.level", "INFO").with("team", 1)).unwrap();
    audit.close(SOON);
    let span = t.span("audit.security.e");
    let mut keys: Vec<_> = span.attributes.iter().map(|kv| kv.key.as_str()).collect();
    assert_eq!(attribute(&span, names::LEVEL), Some("SECURITY".into()));
    assert_eq!(attribute(&span, "audit.context.user"), Some("jane".into()));
    assert_eq!(attribute(&span, "audit.context.audit.level"), Some("INFO".into()));
    assert_eq!(attribute(&span, "team"), Some("new".into()));
    keys.sort_unstable();
    let all = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), all, "each key once: {keys:?}");
}

struct Panics;

impl std::fmt::Debug for Panics {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("a `Debug` that panics")
    }
}

impl serde::Serialize for Panics {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{self:?}"))
    }
}

#[test]
fn bad_values_are_errors_that_the_caller_sees_and_no_spans() {
    let t = Trail::new();
    let audit = t.wrap(OtelWrapperConfig::default());
    let panicked = audit.log(AuditEvent::info("panics").new_value(&Panics)).unwrap_err();
    assert!(matches!(panicked, AuditError::Panicked { .. }), "{panicked}");
    let two_kib = "x".repeat(2048);
    let keys: Vec<_> = (0..128).map(|i| format!("k{i}")).collect();
    let members: Vec<(&str, Value<'_>)> = keys.iter().map(|k| (k.as_str(), two_kib.as_str().into())).collect();
    let large = audit.log(AuditEvent::info("large").context(&members)).unwrap_err();
    assert!(matches!(large, AuditError::TooLarge { .. }), "{large}");
    // A few less fit.
    audit.log(AuditEvent::info("fits").context(&members[4..])).unwrap();
    let path = Path::new(OsStr::from_bytes(b"/etc/sh\xffop.yaml"));
    audit.log_file_watch("file_watch_start", path).unwrap();
    assert_eq!(audit.close(SOON).committed, 2);
    assert_eq!((audit.health().rejected, audit.tracing_errors()), (2, 0));
    let path = attribute(&t.span("audit.file_watch_start"), names::FILE_PATH).unwrap();
    assert_eq!(t.line("file_watch_start")["file_path"], path.as_str().into_owned());
    assert_eq!(t.span("audit.fits").attributes.len() as u32 + t.span("audit.fits").dropped_attributes_count, 124 + 7);
    assert_eq!(t.spans().len(), 2);
}
