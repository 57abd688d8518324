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
    accepted(&mut o, f);
    o.text("created_at", f.created_at);
    o.number("seq", f.seq);
    o.text_opt("prev_hash", f.prev_hash);
    o.text("checksum", checksum);
    out.push(b'}');
}

/// As `write_line`, of a record that is not committed: without the four members that only a commit gives.
pub(crate) fn write_pending_line(f: &Fields<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    accepted(&mut Object(out, true), f);
    out.push(b'}');
}

/// The members that a record has from its acceptance on.
fn accepted(o: &mut Object<'_>, f: &Fields<'_>) {
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
}

/// An upper bound of the canonical length: the names, punctuation and fixed-width fields of a record that has every field.
const FIXED: usize = 1_100;

/// Upper bound of the canonical length but for what is JSON already, from the length of the texts. (No byte is written as more than six.)
#[inline(always)]
pub(crate) fn longest(texts: usize) -> usize {
    FIXED + texts * 6
}

/// Upper bound of the canonical length, from the parts that vary.
#[inline]
pub(crate) fn upper_bound(texts: &[&[u8]], json: usize) -> usize {
    let raw: usize = texts.iter().map(|t| t.len()).sum();
    let pessimistic = longest(raw) + json;
    if pessimistic <= crate::accept::MAX_RECORD {
        pessimistic
    } else {
        FIXED + json + texts.iter().map(escaped_len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::line::Line;

    /// Few and awkward, so that two records often differ in one place only: what looks like the end of a member, escapes, and the empty text.
    fn text() -> impl Strategy<Value = String> {
        proptest::sample::select(vec!["a", "b", "\"", "\",\"event\":\"", "\\", "\\\"", "\u{1}", "{}", "é", "null", "0"])
            .prop_map(String::from)
    }

    fn json() -> impl Strategy<Value = String> {
        proptest::sample::select(vec!["{}", "{\"a\":1}", "{\"a\":\"1\"}", "null", "0", "\"\"", "[]", "\"null\""])
            .prop_map(String::from)
    }

    type Texts = (Vec<String>, Vec<Option<String>>, Vec<Option<String>>, [u64; 3]);

    fn texts() -> impl Strategy<Value = Texts> {
        (
            proptest::collection::vec(text(), 8),
            proptest::collection::vec(proptest::option::of(text()), 10),
            proptest::collection::vec(proptest::option::of(json()), 2),
            proptest::array::uniform3(0u64..3),
        )
    }

    fn fields(t: &Texts) -> Fields<'_> {
        let opt = |i: usize| t.1[i].as_deref();
        Fields {
            timestamp: &t.0[0],
            level: &t.0[1],
            event: &t.0[2],
            component: &t.0[3],
            original_output_file: &t.0[4],
            process_name: &t.0[5],
            record_id: &t.0[6],
            writer: &t.0[7],
            context: "{}",
            created_at: "c",
            file_path: opt(0),
            user_agent: opt(1),
            actor_id: opt(2),
            actor_type: opt(3),
            action: opt(4),
            outcome: opt(5),
            trace_id: opt(6),
            span_id: opt(7),
            stack: opt(8),
            prev_hash: opt(9),
            old_value: t.2[0].as_deref(),
            new_value: t.2[1].as_deref(),
            process_id: t.3[0],
            writer_seq: t.3[1],
            seq: t.3[2],
        }
    }

    fn bytes(f: &Fields<'_>) -> String {
        let mut out = Vec::new();
        write_canonical(f, &mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        /// The bytes can be read back to the very fields, so no two records share them.
        #[test]
        fn different_records_have_different_canonical_bytes(t in texts()) {
            let canonical = bytes(&fields(&t));
            let with_checksum = canonical.replacen('{', "{\"checksum\":\"s\",", 1);
            let line = Line::parse(&with_checksum).unwrap();
            prop_assert_eq!(format!("{:?}", line.fields()), format!("{:?}", fields(&t)));
            prop_assert!(crate::json::is_canonical(&canonical, &mut Vec::new(), &mut crate::json::Scratch::default()), "{}", canonical);
        }

        #[test]
        fn the_upper_bound_is_one(t in texts(), long in "[\"\\\\\u{1}a]{0,300}", scale in 0usize..400) {
            let long = long.repeat(scale);
            let f = Fields { event: &long, timestamp: "2026-11-23T12:00:00.000000000Z", level: "SECURITY", created_at: "2026-11-23 12:00:00",
                process_id: u64::MAX, writer_seq: u64::MAX, seq: u64::MAX, actor_type: Some("service"), outcome: Some("abandoned"),
                trace_id: Some("0123456789abcdef0123456789abcdef"), span_id: Some("0123456789abcdef"), stack: None,
                record_id: "0192e0e0-0000-7000-8000-000000000000", writer: "0192e0e0-0000-4000-8000-000000000000",
                prev_hash: Some("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"), ..fields(&t) };
            let texts = [Some(f.event), Some(f.component), Some(f.original_output_file), Some(f.process_name), f.file_path, f.user_agent, f.actor_id, f.action];
            let json = f.context.len() + f.old_value.map_or(0, str::len) + f.new_value.map_or(0, str::len);
            let texts: Vec<&[u8]> = texts.iter().flatten().map(|t| t.as_bytes()).collect();
            prop_assert!(upper_bound(&texts, json) >= bytes(&f).len());
        }
    }
}
