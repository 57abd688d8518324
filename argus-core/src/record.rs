//! `Record`: a committed (or pending) record as readers and observers see it, and `Json`, its canonical JSON values.

use std::fmt;
use std::time::SystemTime;

use crate::canonical::{Fields, write_line, write_pending_line};
use crate::id::{Checksum, RecordId, WriterId, hex};
use crate::level::{ActorType, Level, Outcome};

/// A JSON value in canonical form. Equal values have equal text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(pub(crate) Box<str>);

impl Json {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value as `serde_json` sees it. (Integers keep all digits; a double keeps its bits.)
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).unwrap_or(serde_json::Value::Null)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One audit record. The fields and their rules are those of `docs/record-format.md`, section 1.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// When it happened.
    pub timestamp: SystemTime,
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub event: String,
    /// The part of the program that spoke.
    pub component: String,
    /// The configured `output_file`.
    pub original_output_file: String,
    /// A JSON object.
    pub context: Json,
    /// The file it is about.
    pub file_path: Option<String>,
    /// The client's user agent.
    pub user_agent: Option<String>,
    /// The value before.
    pub old_value: Option<Json>,
    /// The value after.
    pub new_value: Option<Json>,
    /// The process that logged it.
    pub process_id: u64,
    /// Its name.
    pub process_name: String,
    /// Who acted.
    pub actor_id: Option<String>,
    /// What kind of principal acted.
    pub actor_type: Option<ActorType>,
    /// What was done.
    pub action: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The caller's trace.
    pub trace_id: Option<[u8; 16]>,
    /// The caller's span.
    pub span_id: Option<[u8; 8]>,
    /// The caller's stack.
    pub stack: Option<String>,
    /// The record's identity.
    pub record_id: RecordId,
    /// The logger that wrote it.
    pub writer: WriterId,
    /// Its number in that logger's order of acceptance.
    pub writer_seq: u64,
    /// When it was committed, `YYYY-MM-DD HH:MM:SS` UTC. `None` while pending, as the next three.
    pub created_at: Option<String>,
    /// Its position in the log.
    pub seq: Option<u64>,
    /// The checksum of the record before; also `None` for the first record.
    pub prev_hash: Option<Checksum>,
    /// Its checksum.
    pub checksum: Option<Checksum>,
}

impl Record {
    /// The member `key` of the context.
    pub fn context_value(&self, key: &str) -> Option<serde_json::Value> {
        match self.context.to_value() {
            serde_json::Value::Object(mut members) => members.remove(key),
            _ => None,
        }
    }

    /// The record as a JSONL line (without its line end), the same whichever store it came from. While it is pending, `created_at`, `seq`, `prev_hash` and
    /// `checksum` are left out.
    pub fn to_jsonl(&self) -> String {
        let timestamp = crate::time::format_timestamp(self.timestamp);
        let (trace, span) = (self.trace_id.map(|t| hex(&t)), self.span_id.map(|t| hex(&t)));
        let (id, writer) = (self.record_id.to_string(), self.writer.to_string());
        let (prev, sum) =
            (self.prev_hash.map(|p| p.to_string()), self.checksum.map(|c| c.to_string()).unwrap_or_default());
        let fields = Fields {
            timestamp: &timestamp,
            level: self.level.as_str(),
            event: &self.event,
            component: &self.component,
            original_output_file: &self.original_output_file,
            context: self.context.as_str(),
            file_path: self.file_path.as_deref(),
            user_agent: self.user_agent.as_deref(),
            old_value: self.old_value.as_ref().map(Json::as_str),
            new_value: self.new_value.as_ref().map(Json::as_str),
            process_id: self.process_id,
            process_name: &self.process_name,
            actor_id: self.actor_id.as_deref(),
            actor_type: self.actor_type.map(|a| a.as_str()),
            action: self.action.as_deref(),
            outcome: self.outcome.map(|o| o.as_str()),
            trace_id: trace.as_deref(),
            span_id: span.as_deref(),
            stack: self.stack.as_deref(),
            record_id: &id,
            writer: &writer,
            writer_seq: self.writer_seq,
            created_at: self.created_at.as_deref().unwrap_or_default(),
            seq: self.seq.unwrap_or(0),
            prev_hash: prev.as_deref(),
        };
        let mut out = Vec::new();
        match self.seq {
            Some(_) => write_line(&fields, &sum, &mut out),
            None => write_pending_line(&fields, &mut out),
        }
        String::from_utf8(out).unwrap_or_default()
    }
}
