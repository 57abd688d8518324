//! Adoption: a row that another program inserted becomes the fields of a record of the log writer. Pure. Nothing the row said is dropped: what fits no field
//! stands in the context member `argus.foreign`.

use std::time::SystemTime;

use crate::accept::{MAX_EVENT, MAX_MEMBERS, MAX_RECORD};
use crate::canonical::Fields;
use crate::json::{JsonWriter, Scratch, Source, object_members};
use crate::redaction::Redaction;
use crate::store::ForeignRow;
use crate::time;
use crate::value::Value;
use crate::writer::{context_of, sha256_hex};

/// The fields of an adopted row, owned.
#[derive(Debug, Default)]
pub(crate) struct Adopted {
    timestamp: String,
    level: String,
    event: String,
    component: String,
    original_output_file: String,
    context: String,
    file_path: Option<String>,
    user_agent: Option<String>,
    old_value: Option<String>,
    new_value: Option<String>,
    process_id: u64,
    process_name: String,
}

impl Adopted {
    pub(crate) fn fields(&self) -> Fields<'_> {
        Fields {
            timestamp: &self.timestamp,
            level: &self.level,
            event: &self.event,
            component: &self.component,
            original_output_file: &self.original_output_file,
            context: &self.context,
            file_path: self.file_path.as_deref(),
            user_agent: self.user_agent.as_deref(),
            old_value: self.old_value.as_deref(),
            new_value: self.new_value.as_deref(),
            process_id: self.process_id,
            process_name: &self.process_name,
            ..Fields::default()
        }
    }
}

/// Canonical JSON of text that another program wrote, redacted; `None` if it is no strict JSON.
fn canonical(text: &str, redaction: &Redaction) -> Option<String> {
    let (mut out, mut scratch) = (Vec::new(), Scratch::default());
    JsonWriter::new(&mut out, &mut scratch, redaction, Source::Caller).json_text(text).ok()?;
    String::from_utf8(out).ok()
}

pub(crate) fn adopt(row: &ForeignRow, now: SystemTime, redaction: &Redaction) -> Adopted {
    let mut notes: Vec<(&str, String)> = Vec::new();
    // NUL cannot stand in a text field.
    // By shape before anything is cut: half a secret has none.
    let clean = |t: &str| {
        let t = t.replace('\0', "\u{fffd}");
        redaction.text(&t).unwrap_or(t)
    };
    let text = |column: &str| row.get(column).filter(|t| !t.is_empty()).map(clean);
    let mut adopted = Adopted {
        component: text("component").unwrap_or_default(),
        original_output_file: text("original_output_file").unwrap_or_default(),
        file_path: text("file_path"),
        user_agent: text("user_agent"),
        process_name: text("process_name").unwrap_or_default(),
        ..Adopted::default()
    };
    adopted.timestamp = match row.get("timestamp").and_then(time::parse_any) {
        Some(t) => time::format_timestamp(t),
        None => {
            notes.push(("timestamp", text("timestamp").unwrap_or_default()));
            time::format_timestamp(now)
        }
    };
    adopted.level = match row.get("level").and_then(|l| l.parse::<crate::Level>().ok()) {
        Some(l) => l.as_str().into(),
        None => {
            notes.push(("level", text("level").unwrap_or_default()));
            "INFO".into()
        }
    };
    adopted.event = match text("event") {
        Some(e) if e.len() <= MAX_EVENT => e,
        other => {
            notes.push(("event", other.unwrap_or_default()));
            "foreign".into()
        }
    };
    adopted.process_id = match row.get("process_id").and_then(|p| p.parse().ok()).filter(|p| i64::try_from(*p).is_ok())
    {
        Some(p) => p,
        None => {
            notes.push(("process_id", text("process_id").unwrap_or_default()));
            0
        }
    };
    for (column, slot) in [("old_value", &mut adopted.old_value), ("new_value", &mut adopted.new_value)] {
        // The Go library writes '' for a value that is absent.
        let Some(t) = row.get(column).filter(|t| !t.is_empty()) else { continue };
        *slot = canonical(t, redaction);
        if slot.is_none() {
            notes.push((column, t.into()));
        }
    }
    let context = row.get("context").unwrap_or_default();
    let members = canonical(context, redaction).filter(|c| c.starts_with('{'));
    let mut kept: Vec<(String, String)> = Vec::new();
    match members.as_deref().map(object_members) {
        Some(Ok(m)) if m.len() < MAX_MEMBERS => {
            kept = m.into_iter().map(|(k, v)| (k.into_owned(), v.to_owned())).collect()
        }
        _ if context.is_empty() => {}
        _ => notes.push(("context", context.into())),
    }
    // What the row calls so itself, and when it says it was made, have no place of their own in the record.
    let own = kept.iter().position(|(k, _)| k == "argus.foreign").map(|i| kept.swap_remove(i).1);
    notes.extend(own.map(|json| ("argus.foreign", json)));
    if let Some(c) = row.get("created_at").filter(|c| !c.is_empty()) {
        notes.push(("created_at", c.into()));
    }
    if let Some(c) = row.get("checksum").filter(|c| !c.is_empty()) {
        notes.push(("checksum", c.into()));
    }
    let total: usize = row.cells.iter().filter_map(|(_, v)| v.as_ref()).map(String::len).sum();
    if total * 6 > MAX_RECORD / 2 {
        // Too large to keep whole: say what it was, so that the row itself can be recognised.
        let all: Vec<u8> = row.cells.iter().flat_map(|(_, v)| v.iter().flat_map(|v| v.bytes())).collect();
        let cut = |t: &str| t.chars().take(1024).collect::<String>();
        notes = vec![("sha256", sha256_hex(&all)), ("bytes", total.to_string()), ("cut", "true".into())];
        kept.clear();
        adopted.old_value = None;
        adopted.new_value = None;
        adopted.component = cut(&adopted.component);
        adopted.original_output_file = cut(&adopted.original_output_file);
        adopted.process_name = cut(&adopted.process_name);
        adopted.file_path = adopted.file_path.as_deref().map(cut);
        adopted.user_agent = adopted.user_agent.as_deref().map(cut);
    }
    let mut foreign: Vec<(&str, Value<'_>)> = vec![("id", Value::from(row.id))];
    foreign.extend(notes.iter().map(|(k, v)| (*k, Value::from(v.as_str()))));
    let foreign = context_of(&foreign);
    let mut all: Vec<(&str, Value<'_>)> = kept.iter().map(|(k, v)| (k.as_str(), Value::json(v))).collect();
    all.push(("argus.foreign", Value::json(&foreign)));
    adopted.context = context_of(&all);
    for json in
        [Some(&mut adopted.context), adopted.old_value.as_mut(), adopted.new_value.as_mut()].into_iter().flatten()
    {
        if let Some(clean) = redaction.json(json) {
            *json = clean;
        }
    }
    adopted
}
