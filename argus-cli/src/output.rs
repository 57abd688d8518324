//! Text for people, JSON for programs. No control character of a record ever reaches a terminal.

use std::io::{self, Write};

use argus_core::{Record, format_timestamp};

/// Says on standard error what went wrong.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "argus: {}", clean(text));
}

/// Replaces what could steer a terminal: C0, DEL, C1, bidirectional and zero-width controls.
pub(crate) fn clean(text: &str) -> String {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().flat_map(|c| if bad(c) { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// One record: a line for people, or the JSONL form.
pub(crate) fn record(out: &mut dyn Write, r: &Record, json: bool) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", r.to_jsonl());
    }
    let time = format_timestamp(r.timestamp);
    // Milliseconds are enough to read; `show` has them all.
    let time = time.get(..23).unwrap_or(&time);
    let seq = r.seq.map_or_else(|| "pending".to_owned(), |s| s.to_string());
    write!(out, "{seq:>6}  {time}Z  {:<8}  {:<22}  {}", r.level, clean(&r.event), clean(&r.component))?;
    if let Some(f) = &r.file_path {
        write!(out, "  {}", clean(f))?;
    }
    if let Some(a) = &r.actor_id {
        write!(out, "  by {}", clean(a))?;
    }
    if let (Some(old), Some(new)) = (&r.old_value, &r.new_value) {
        write!(out, "  {} -> {}", short(old.as_str()), short(new.as_str()))?;
    }
    if r.context.as_str() != "{}" {
        write!(out, "  {}", short(r.context.as_str()))?;
    }
    writeln!(out)
}

/// The beginning of a long value.
fn short(text: &str) -> String {
    const MOST: usize = 100;
    let text = clean(text);
    match text.char_indices().nth(MOST) {
        Some((i, _)) => format!("{}…", &text[..i]),
        None => text,
    }
}

/// One record with all its fields, one a line.
pub(crate) fn whole(out: &mut dyn Write, r: &Record) -> io::Result<()> {
    let value: serde_json::Value = serde_json::from_str(&r.to_jsonl()).map_err(io::Error::other)?;
    let empty = serde_json::Map::new();
    for name in ORDER {
        match value.as_object().unwrap_or(&empty).get(*name) {
            None => {}
            Some(serde_json::Value::String(s)) if !matches!(*name, "old_value" | "new_value") => {
                writeln!(out, "{name:<21} {}", clean(s))?
            }
            Some(v @ (serde_json::Value::Object(_) | serde_json::Value::Array(_))) => {
                writeln!(
                    out,
                    "{name:<21} {}",
                    serde_json::to_string_pretty(v)
                        .map_err(io::Error::other)?
                        .lines()
                        .map(clean)
                        .collect::<Vec<_>>()
                        .join("\n                      ")
                )?;
            }
            Some(v) => writeln!(out, "{name:<21} {}", clean(&v.to_string()))?,
        }
    }
    Ok(())
}

const ORDER: &[&str] = &[
    "seq",
    "timestamp",
    "level",
    "event",
    "component",
    "actor_id",
    "actor_type",
    "action",
    "outcome",
    "file_path",
    "old_value",
    "new_value",
    "context",
    "user_agent",
    "original_output_file",
    "process_id",
    "process_name",
    "trace_id",
    "span_id",
    "stack",
    "record_id",
    "writer",
    "writer_seq",
    "created_at",
    "prev_hash",
    "checksum",
];
