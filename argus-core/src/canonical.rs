//! A record's fields, borrowed, and their canonical bytes and JSONL line. Pure; the writer and every verifier go through here.
//! Rules: `docs/record-format.md`, sections 1, 2 and 6.

use crate::json::{escape_into, escaped_len};

/// All fields of a record but its checksum, as text. The three JSON fields are canonical already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) timestamp: &'a str,
    pub(crate) level: &'a str,
    pub(crate) event: &'a str,
    pub(crate) component: &'a str,
    pub(crate) original_output_file: &'a str,
    pub(crate) context: &'a str,
    pub(crate) file_path: Option<&'a str>,
    pub(crate) user_agent: Option<&'a str>,
    pub(crate) old_value: Option<&'a str>,
    pub(crate) new_value: Option<&'a str>,
    pub(crate) process_id: u64,
    pub(crate) process_name: &'a str,
    pub(crate) actor_id: Option<&'a str>,
    pub(crate) actor_type: Option<&'a str>,
    pub(crate) action: Option<&'a str>,
    pub(crate) outcome: Option<&'a str>,
    pub(crate) trace_id: Option<&'a str>,
    pub(crate) span_id: Option<&'a str>,
    pub(crate) stack: Option<&'a str>,
    pub(crate) record_id: &'a str,
    pub(crate) writer: &'a str,
    pub(crate) writer_seq: u64,
    pub(crate) created_at: &'a str,
    pub(crate) seq: u64,
    pub(crate) prev_hash: Option<&'a str>,
}

/// An object being written; the flag says that no member stands yet.
struct Object<'o>(&'o mut Vec<u8>, bool);

impl Object<'_> {
    fn name(&mut self, name: &str) {
        if !self.1 {
            self.0.push(b',');
        }
        self.1 = false;
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.0.push(b'"');
        escape_into(value, self.0);
        self.0.push(b'"');
    }

    fn text_opt(&mut self, name: &str, value: Option<&str>) {
        if let Some(v) = value {
            self.text(name, v);
        }
    }

    fn json_opt(&mut self, name: &str, value: Option<&str>) {
        if let Some(v) = value {
            self.name(name);
            self.0.extend_from_slice(v.as_bytes());
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        crate::json::write_u64(value, self.0);
    }
}

/// Appends the canonical bytes: members in UTF-16 order of their names, which are fixed and ASCII.
pub(crate) fn write_canonical(f: &Fields<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut o = Object(out, true);
    o.text_opt("action", f.action);
    o.text_opt("actor_id", f.actor_id);
    o.text_opt("actor_type", f.actor_type);
    o.text("component", f.component);
    o.json_opt("context", Some(f.context));
    o.text("created_at", f.created_at);
    o.text("event", f.event);
    o.text_opt("file_path", f.file_path);
    o.text("level", f.level);
    o.json_opt("new_value", f.new_value);
    o.json_opt("old_value", f.old_value);
    o.text("original_output_file", f.original_output_file);
    o.text_opt("outcome", f.outcome);
    o.text_opt("prev_hash", f.prev_hash);
    o.number("process_id", f.process_id);
    o.text("process_name", f.process_name);
    o.text("record_id", f.record_id);
    o.number("seq", f.seq);
    o.text_opt("span_id", f.span_id);
    o.text_opt("stack", f.stack);
    o.text("timestamp", f.timestamp);
    o.text_opt("trace_id", f.trace_id);
    o.text_opt("user_agent", f.user_agent);
    o.text("writer", f.writer);
    o.number("writer_seq", f.writer_seq);
    out.push(b'}');
}

/// Appends the record as a JSONL line without its line end: members in the order of the table, `checksum` last.
pub(crate) fn write_line(f: &Fields<'_>, checksum: &str, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut o = Object(out, true);
    o.text("timestamp", f.timestamp);
    o.text("level", f.level);
    o.text("event", f.event);
    o.text("component", f.component);
    o.text("original_output_file", f.original_output_file);
    o.json_opt("context", Some(f.context));
    o.text_opt("file_path", f.file_path);
    o.text_opt("user_agent", f.user_agent);
    o.json_opt("old_value", f.old_value);
    o.json_opt("new_value", f.new_value);
    o.number("process_id", f.process_id);
    o.text("process_name", f.process_name);
    o.text_opt("actor_id", f.actor_id);
    o.text_opt("actor_type", f.actor_type);
    o.text_opt("action", f.action);
    o.text_opt("outcome", f.outcome);
    o.text_opt("trace_id", f.trace_id);
    o.text_opt("span_id", f.span_id);
    o.text_opt("stack", f.stack);
    o.text("record_id", f.record_id);
    o.text("writer", f.writer);
    o.number("writer_seq", f.writer_seq);
    o.text("created_at", f.created_at);
    o.number("seq", f.seq);
    o.text_opt("prev_hash", f.prev_hash);
    o.text("checksum", checksum);
    out.push(b'}');
}

/// An upper bound of the canonical length: the names, punctuation and fixed-width fields of a record that has every field.
const FIXED: usize = 1_100;

/// Upper bound of the canonical length, from the parts that vary.
pub(crate) fn upper_bound<'a>(texts: impl Iterator<Item = &'a str> + Clone, json: usize) -> usize {
    let raw: usize = texts.clone().map(str::len).sum();
    let pessimistic = FIXED + raw * 6 + json;
    if pessimistic <= crate::accept::MAX_RECORD {
        pessimistic
    } else {
        FIXED + json + texts.map(escaped_len).sum::<usize>()
    }
}
