//! The golden vectors (`tests/vectors/*.jsonl`, made by `tools/make_vectors.py`, which shares no code with this crate), and the published ones of RFC 8785.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::canonical::{Fields, write_canonical, write_line};
use crate::chain::checksum;
use crate::form::{form_error, record_of};
use crate::json::{JsonError, JsonWriter, Scratch, Source};
use crate::line::Line;
use crate::redaction::Redaction;

/// A record's vector: fields as text and number, JSON fields as they may be given.
#[derive(Deserialize)]
struct Vector {
    name: String,
    fields: Given,
    raw: Raw,
    canonical: String,
    checksum: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    context: String,
    old_value: Option<String>,
    new_value: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    timestamp: String,
    level: String,
    event: String,
    component: String,
    original_output_file: String,
    file_path: Option<String>,
    user_agent: Option<String>,
    process_id: u64,
    process_name: String,
    actor_id: Option<String>,
    actor_type: Option<String>,
    action: Option<String>,
    outcome: Option<String>,
    trace_id: Option<String>,
    span_id: Option<String>,
    stack: Option<String>,
    record_id: String,
    writer: String,
    writer_seq: u64,
    created_at: String,
    seq: u64,
    prev_hash: Option<String>,
}

fn lines(name: &str) -> Vec<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect()
}

fn canonical(text: &str, source: Source) -> Result<String, JsonError> {
    let (mut out, mut scratch, redaction) = (Vec::new(), Scratch::default(), Redaction::none());
    JsonWriter::new(&mut out, &mut scratch, &redaction, source).json_text(text)?;
    Ok(String::from_utf8(out).unwrap())
}

/// The canonical text that `v` has as a `Serialize`; serde_json keeps integers of 64 bits and doubles apart, as we do.
fn serialized(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    let (mut out, mut scratch, redaction) = (Vec::new(), Scratch::default(), Redaction::none());
    JsonWriter::new(&mut out, &mut scratch, &redaction, Source::Caller).serialize_top(&value).unwrap();
    Some(String::from_utf8(out).unwrap())
}

#[test]
fn records_have_the_canonical_bytes_and_the_checksum_of_their_vector() {
    let all = lines("records.jsonl");
    assert!(all.len() >= 60, "{} vectors", all.len());
    for line in all {
        let v: Vector = serde_json::from_str(&line).unwrap();
        let (name, f) = (&v.name, &v.fields);
        // A name that begins with `stored_` is of a text that only a reader meets.
        let source = if name.starts_with("stored_") { Source::Stored } else { Source::Caller };
        let json = |raw: &String| {
            let text = canonical(raw, source).unwrap_or_else(|e| panic!("{name}: {e}"));
            if source == Source::Caller {
                assert_eq!(serialized(raw).unwrap(), text, "{name}: by Serialize");
            }
            text
        };
        if source == Source::Stored {
            let raw = [Some(&v.raw.context), v.raw.old_value.as_ref(), v.raw.new_value.as_ref()];
            assert!(raw.into_iter().flatten().any(|r| canonical(r, Source::Caller).is_err()), "{name}");
        }
        let context = json(&v.raw.context);
        let (old, new) = (v.raw.old_value.as_ref().map(json), v.raw.new_value.as_ref().map(json));
        let fields = Fields {
            timestamp: &f.timestamp,
            level: &f.level,
            event: &f.event,
            component: &f.component,
            original_output_file: &f.original_output_file,
            context: &context,
            file_path: f.file_path.as_deref(),
            user_agent: f.user_agent.as_deref(),
            old_value: old.as_deref(),
            new_value: new.as_deref(),
            process_id: f.process_id,
            process_name: &f.process_name,
            actor_id: f.actor_id.as_deref(),
            actor_type: f.actor_type.as_deref(),
            action: f.action.as_deref(),
            outcome: f.outcome.as_deref(),
            trace_id: f.trace_id.as_deref(),
            span_id: f.span_id.as_deref(),
            stack: f.stack.as_deref(),
            record_id: &f.record_id,
            writer: &f.writer,
            writer_seq: f.writer_seq,
            created_at: &f.created_at,
            seq: f.seq,
            prev_hash: f.prev_hash.as_deref(),
        };
        let mut bytes = Vec::new();
        write_canonical(&fields, &mut bytes);
        assert_eq!(String::from_utf8(bytes).unwrap(), v.canonical, "{name}");
        assert_eq!(checksum(&fields, &mut Vec::new()).to_string(), v.checksum, "{name}");
        assert_eq!(form_error(&fields, &mut Vec::new(), &mut Scratch::default()), None, "{name}");

        // The JSONL line says the same, and so does the public record that a reader makes of it.
        let mut line = Vec::new();
        write_line(&fields, &v.checksum, &mut line);
        let line = String::from_utf8(line).unwrap();
        let parsed = Line::parse(&line).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(checksum(&parsed.fields(), &mut Vec::new()).to_string(), v.checksum, "{name}: parsed");
        let record = record_of(&parsed.fields(), Some(parsed.checksum())).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(record.to_jsonl(), line, "{name}");
    }
}

#[test]
fn what_must_be_refused_is_refused_for_its_reason() {
    #[derive(Deserialize)]
    struct Refused {
        name: String,
        raw: String,
        reason: String,
    }
    let all = lines("refused.jsonl");
    assert!(all.len() >= 60, "{} vectors", all.len());
    for line in all {
        let v: Refused = serde_json::from_str(&line).unwrap();
        let reason = match canonical(&v.raw, Source::Caller) {
            Ok(text) => panic!("{}: taken as {text}", v.name),
            Err(JsonError::TooDeep) => "depth",
            Err(JsonError::DuplicateKey(_)) => "duplicate_key",
            Err(JsonError::ReservedKey(_)) => "reserved_key",
            Err(JsonError::NumberRange(_)) => "number_range",
            Err(JsonError::LoneSurrogate) => "lone_surrogate",
            Err(JsonError::Syntax { .. }) => "syntax",
            Err(JsonError::BadKey | JsonError::Custom(_)) => "serialize",
        };
        assert_eq!(reason, v.reason, "{}", v.name);
    }
}

#[test]
fn a_trail_that_the_other_implementation_made_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chain.jsonl");
    fs::write(&path, lines("chain.jsonl").join("\n") + "\n").unwrap();
    let report = crate::AuditReader::open(&path).unwrap().verify().unwrap();
    assert!(report.is_ok() && report.records == lines("chain.jsonl").len() as u64, "{report}");
}

#[test]
fn rfc_8785_documents_have_their_published_form() {
    let Some(dir) = argus_testkit::shared("vectors/rfc8785/testdata") else { return };
    let mut seen = 0;
    for entry in fs::read_dir(dir.join("input")).unwrap() {
        let path = entry.unwrap().path();
        let published = fs::read_to_string(dir.join("output").join(path.file_name().unwrap())).unwrap();
        let ours = canonical(&fs::read_to_string(&path).unwrap(), Source::Caller).unwrap();
        assert_eq!(ours, published.trim_end_matches('\n'), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 6);
}

#[test]
fn doubles_are_written_as_the_published_numbers_are() {
    let Some(file) = argus_testkit::shared("vectors/rfc8785/es6-numbers-first-10000.txt") else { return };
    let mut seen = 0;
    for line in fs::read_to_string(file).unwrap().lines() {
        let (bits, text) = line.split_once(',').unwrap();
        let double = f64::from_bits(u64::from_str_radix(bits, 16).unwrap());
        let (mut out, mut scratch, redaction) = (Vec::new(), Scratch::default(), Redaction::none());
        JsonWriter::new(&mut out, &mut scratch, &redaction, Source::Caller).f64(double).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), text, "{bits}");
        // The text, met in a stored record, is canonical.
        assert_eq!(canonical(text, Source::Stored).unwrap(), text, "{bits}");
        seen += 1;
    }
    assert!(seen >= 10_000);
}
