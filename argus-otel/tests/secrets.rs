//! Secrets by their shape reach no span: neither that of a committed record nor that of one that could not be stored.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../argus-core/tests/common/secrets.rs"]
mod secrets;
mod support;

use argus_core::{AuditEvent, AuditSink, AuditSinkExt, Redaction, Trace, TraceContext};
use argus_otel::OtelWrapperConfig;
use secrets::{Made, corpus};
use support::{SOON, Trail, config};

/// What the spans of these events show.
fn spans(corpus: &[Made], trail: &Trail) -> String {
    let audit = trail.wrap(OtelWrapperConfig::default());
    for made in corpus {
        let text = made.text.as_str();
        let nested = serde_json::json!([{ text: [text] }]);
        let parent = TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1, trace_state: text, remote: true };
        let event = AuditEvent::info(if text.len() <= 256 { text } else { "long" }).component(text).action(text);
        let event = event.file_path(text).with("note", text).with("nested", &nested).with(text, 1);
        audit.log(event.trace(Trace::Parent(parent))).unwrap();
    }
    audit.close(SOON);
    let spans = trail.spans();
    assert_eq!(spans.len(), corpus.len());
    // As an exporter would send them, line ends and quotation marks as they are.
    let texts = spans.iter().flat_map(|s| {
        let state = s.span_context.trace_state().header();
        let attributes = s.attributes.iter().flat_map(|kv| [kv.key.to_string(), kv.value.to_string()]);
        attributes.chain([s.name.to_string(), state, format!("{:?}", s.status)]).collect::<Vec<_>>()
    });
    texts.collect::<Vec<_>>().join("\n")
}

#[test]
fn no_secret_reaches_a_span() {
    let corpus = corpus();
    let shown = spans(&corpus, &Trail::new());
    let leaks: Vec<_> = corpus.iter().filter(|m| m.is_in(shown.as_bytes())).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    // The search finds them where they are.
    let shown = spans(&corpus, &Trail::with(config().redaction(Redaction::default().without_shapes())));
    assert!(corpus.iter().all(|m| m.is_in(shown.as_bytes())));
}

#[test]
fn nor_the_span_of_a_record_that_was_not_stored() {
    let (corpus, trail) = (corpus(), Trail::new());
    trail.memory.fail(u32::MAX);
    let audit = trail.wrap(OtelWrapperConfig::default());
    for made in &corpus {
        audit.log(AuditEvent::info("e").with("note", made.text.as_str()).action(&made.text)).unwrap();
    }
    audit.close(std::time::Duration::from_millis(50));
    let until = std::time::Instant::now() + SOON;
    while trail.spans().len() < corpus.len() && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let shown = format!("{:?}", trail.spans());
    assert_eq!(trail.spans().len(), corpus.len());
    assert!(!corpus.iter().any(|m| m.is_in(shown.as_bytes())));
}
