//! Secrets by their shape in an event's fields, its message and its span's fields reach no record.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../argus-core/tests/common/secrets.rs"]
mod secrets;
mod support;

use argus_core::{AuditConfig, Redaction};
use secrets::{Made, corpus};
use support::{SOON, Trail};

/// The records of these events, as lines.
fn lines(corpus: &[Made], redaction: Redaction) -> Vec<String> {
    use argus_core::AuditSink;
    let trail = Trail::with(AuditConfig::default().redaction(redaction));
    trail.run(|| {
        for made in corpus {
            let text = made.text.as_str();
            let in_json = serde_json::json!({ text: [text] }).to_string();
            let _span = tracing::info_span!("request", audit.note = text).entered();
            tracing::info!(audit = true, field = text, debug = ?text, display = %text, "said {text}");
            tracing::warn!(audit.event = "values", audit.old_value = text, audit.new_value = in_json);
            tracing::info!(
                audit.event = "fields",
                audit.file_path = text,
                audit.user_agent = text,
                audit.action = text,
                audit.actor = text
            );
        }
    });
    trail.logger.close(SOON);
    trail.memory.lines()
}

#[test]
fn no_secret_of_an_event_reaches_a_record() {
    let corpus = corpus();
    let clean = lines(&corpus, Redaction::default()).join("\n");
    let leaks: Vec<_> = corpus.iter().filter(|m| m.is_in(clean.as_bytes())).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    assert_eq!(clean.lines().count(), 3 * corpus.len() + 2);
    let open = lines(&corpus, Redaction::default().without_shapes()).join("\n");
    assert!(corpus.iter().all(|m| m.is_in(open.as_bytes())));
}
