//! The lines of a pending file: a head that says whose they are, then one pending record a line. Pure. Format: `docs/record-format.md`, section 9.

use serde::{Deserialize, Serialize};

use crate::canonical::{Fields, write_pending_line};
use crate::entry::{self, Entry, EntryWriter, Part};
use crate::fields::Spelled;
use crate::form::form_error;
use crate::id::{RecordId, WriterId, unhex_into};
use crate::json::Scratch;
use crate::level::{ActorType, Level, Outcome};
use crate::line::Line;
use crate::queue::files::Owner;
use crate::sink::{ObserverSet, Trace, TraceContext};
use crate::time;
use crate::writer::Identity;

/// The one version of the format.
const VERSION: u32 = 1;
/// What a record's line has beside its record.
const CARRIER: &str = "carrier";
/// No line is longer: a record, and what travels beside it.
pub(crate) const MAX_LINE: usize = crate::line::MAX_LINE + 4096;

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    argus_pending: u32,
    /// None where the trail could not be opened.
    log_id: Option<String>,
    writer: String,
    /// The trail's path, since the file may stand in another folder.
    pub(crate) trail: String,
    pub(crate) owner: Owner,
}

/// What is no part of the record and needed after its commit.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Carrier {
    #[serde(skip_serializing_if = "is_default")]
    own: bool,
    #[serde(skip_serializing_if = "is_default")]
    observers: u64,
    #[serde(skip_serializing_if = "is_default")]
    flags: u8,
    #[serde(skip_serializing_if = "is_default")]
    remote: bool,
    #[serde(skip_serializing_if = "is_default")]
    trace_state: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Head {
    pub(crate) fn new(log_id: Option<WriterId>, writer: WriterId, trail: &std::path::Path, owner: &Owner) -> Self {
        Self {
            argus_pending: VERSION,
            log_id: log_id.map(|id| id.to_string()),
            writer: writer.to_string(),
            trail: trail.to_string_lossy().into_owned(),
            owner: owner.clone(),
        }
    }

    pub(crate) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// The error says what is wrong; a newer version is `Err(Some(version))`.
    pub(crate) fn parse(line: &str) -> Result<Self, Option<u32>> {
        #[derive(Deserialize)]
        struct Version {
            argus_pending: u32,
        }
        match serde_json::from_str::<Version>(line) {
            Ok(v) if v.argus_pending != VERSION => Err(Some(v.argus_pending)),
            // A log that is named must be one.
            _ => serde_json::from_str(line)
                .ok()
                .filter(|h: &Self| h.log_id.is_none() || h.log_id().is_some())
                .ok_or(None),
        }
    }

    pub(crate) fn writer(&self) -> Option<WriterId> {
        WriterId::parse_exact(&self.writer)
    }

    /// The log that the records belong to, if it was known.
    pub(crate) fn log_id(&self) -> Option<WriterId> {
        self.log_id.as_deref().and_then(WriterId::parse_exact)
    }
}

/// Appends the line of an entry.
pub(crate) fn write(e: &Entry<'_>, identity: &Identity, writer: &str, stack: Option<&str>, out: &mut Vec<u8>) {
    write_pending_line(&Spelled::new().fields(e, identity, writer, stack), out);
    let trace = match e.trace() {
        Trace::Parent(t) => Some(t),
        _ => None,
    };
    let carrier = Carrier {
        own: e.is_own(),
        observers: e.observers().0,
        flags: trace.map_or(0, |t| t.flags),
        remote: trace.is_some_and(|t| t.remote),
        trace_state: trace.map_or(String::new(), |t| t.trace_state.into()),
    };
    if carrier != Carrier::default() {
        out.pop();
        out.extend_from_slice(b",\"carrier\":");
        out.extend_from_slice(&serde_json::to_vec(&carrier).unwrap_or_default());
        out.push(b'}');
    }
    out.push(b'\n');
}

/// What parsing works in.
#[derive(Default)]
pub(crate) struct Buffers {
    entry: Vec<u8>,
    json: Vec<u8>,
    scratch: Scratch,
}

/// Appends the entry that a line was, and returns its number. The file may have been changed, so the line must be a record's in every way. The error says what is wrong.
pub(crate) fn parse(text: &str, writer: WriterId, buffers: &mut Buffers, out: &mut Vec<u8>) -> Result<u64, String> {
    let (line, carrier) = Line::parse_pending(text, CARRIER)?;
    let f = line.fields();
    // What a commit would give has its form.
    let whole = Fields { seq: 1, created_at: "2000-01-01 00:00:00", ..f };
    if let Some(why) = form_error(&whole, &mut buffers.json, &mut buffers.scratch) {
        return Err(why);
    }
    if WriterId::parse_exact(f.writer) != Some(writer) {
        return Err("`writer` is another than the file's".into());
    }
    let carrier: Carrier =
        carrier.map(serde_json::from_str).transpose().map_err(|_| "`carrier` has not its form")?.unwrap_or_default();
    let id = WriterId::parse_exact(f.record_id).ok_or("`record_id` has not its form")?;
    let (secs, nanos) = time::parse_exact(f.timestamp).and_then(time::split).ok_or("`timestamp` has not its form")?;
    let level = f.level.parse::<Level>().map_err(|_| "`level` is no known word")?;
    let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
    let traced = f.trace_id.is_some_and(|t| unhex_into(t, &mut trace_id))
        && f.span_id.is_some_and(|s| unhex_into(s, &mut span_id));
    let trace = traced.then_some(TraceContext {
        trace_id,
        span_id,
        flags: carrier.flags,
        remote: carrier.remote,
        trace_state: &carrier.trace_state,
    });
    let mut w = EntryWriter::begin(&mut buffers.entry, text.len()).ok_or("there is no room for its texts")?;
    let actor = f.actor_type.and_then(|a| a.parse::<ActorType>().ok());
    let outcome = f.outcome.and_then(|o| o.parse::<Outcome>().ok());
    w.head(level, actor, outcome, secs, nanos);
    w.carrier(trace.as_ref(), ObserverSet(carrier.observers));
    if carrier.own {
        w.own();
    }
    // In the order of the parts.
    w.text(Part::Event, Some(f.event));
    w.text(Part::Component, Some(f.component));
    w.text(Part::Context, Some(f.context));
    w.text(Part::FilePath, f.file_path);
    w.text(Part::UserAgent, f.user_agent);
    w.text(Part::OldValue, f.old_value);
    w.text(Part::NewValue, f.new_value);
    w.text(Part::ActorId, f.actor_id);
    w.text(Part::Action, f.action);
    w.text(Part::TraceState, trace.map(|t| t.trace_state));
    w.named_stack(f.stack);
    let len = w.end().ok_or("its texts are longer than its line")?;
    let entry = buffers.entry.get_mut(..len).unwrap_or_default();
    let check = entry::check(entry);
    entry::number(entry, f.writer_seq, RecordId(id.0), check);
    out.extend_from_slice(entry);
    Ok(f.writer_seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::entries;

    fn identity() -> Identity {
        Identity { original_output_file: "audit.db".into(), process_id: 7, process_name: "shop".into() }
    }

    fn one(full: bool) -> Vec<u8> {
        let mut e = Vec::new();
        let mut w = EntryWriter::begin(&mut e, 200).unwrap();
        w.head(Level::Warn, full.then_some(ActorType::User), full.then_some(Outcome::Failure), 1_700_000_000, 12_345);
        let t = TraceContext { trace_id: [3; 16], span_id: [4; 8], flags: 1, remote: true, trace_state: "a=b" };
        w.carrier(full.then_some(&t), ObserverSet(if full { 1 << 63 } else { 0 }));
        w.text(Part::Event, Some("e\u{1}\"vent"));
        w.text(Part::Component, Some("shop"));
        w.text(Part::Context, Some("{\"a\":1}"));
        if full {
            w.text(Part::FilePath, Some("/etc/x"));
            w.text(Part::UserAgent, Some("agent"));
            w.text(Part::OldValue, Some("null"));
            w.text(Part::NewValue, Some("[1]"));
            w.text(Part::ActorId, Some("jane"));
            w.text(Part::Action, Some("write"));
            w.text(Part::TraceState, Some("a=b"));
            w.named_stack(Some("f (a.rs:1)\ng (b.rs:2)"));
        }
        let len = w.end().unwrap();
        e.truncate(len);
        let check = entry::check(&e);
        let mut id = [0x71; 16];
        id[8] = 0x81;
        entry::number(&mut e, 42, RecordId(id), check);
        e
    }

    #[test]
    fn an_entry_goes_through_its_line_unchanged() {
        let writer = WriterId::random();
        for full in [false, true] {
            let bytes = one(full);
            let e = Entry::of(&bytes).unwrap();
            let mut line = Vec::new();
            write(&e, &identity(), &writer.to_string(), e.named_stack(), &mut line);
            let text = std::str::from_utf8(&line).unwrap();
            let (mut buffers, mut out) = (Buffers::default(), Vec::new());
            assert_eq!(parse(text.trim_end(), writer, &mut buffers, &mut out), Ok(42), "{text}");
            assert_eq!(out, bytes, "{text}");
            assert_eq!(entries(&out).count(), 1);
            let json: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(
                (json["writer_seq"].as_u64(), json.get("seq"), json.get("carrier").is_some()),
                (Some(42), None, full)
            );
        }
    }

    #[test]
    fn what_is_no_pending_record_is_refused() {
        let writer = WriterId::random();
        let bytes = one(true);
        let mut line = Vec::new();
        write(&Entry::of(&bytes).unwrap(), &identity(), &writer.to_string(), None, &mut line);
        let text = String::from_utf8(line).unwrap();
        let text = text.trim_end();
        let refused = |t: &str| parse(t, writer, &mut Buffers::default(), &mut Vec::new()).unwrap_err();
        let another = parse(text, WriterId::random(), &mut Buffers::default(), &mut Vec::new());
        assert_eq!(another.unwrap_err(), "`writer` is another than the file's");
        for (from, to, why) in [
            ("{\"a\":1}", "{\"a\": 1}", "canonical"),
            ("\"level\":\"WARN\"", "\"level\":\"LOUD\"", "level"),
            ("\"writer_seq\":42", "\"writer_seq\":0", "writer_seq"),
            ("\"writer_seq\":42", "\"writer_seq\":42,\"seq\":7", "seq"),
            ("\"writer_seq\":42", "\"writer_seq\":42,\"checksum\":\"00\"", "checksum"),
            ("\"writer_seq\":42", "\"writer_seq\":42,\"more\":1", "more"),
            ("\"carrier\":{", "\"carrier\":[{", "expected"),
            ("\"event\":\"e", "\"event\":\"\u{0}e", "expected"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            let error = refused(&changed);
            assert!(error.to_lowercase().contains(why) || why == "expected", "{why}: {error}");
        }
        refused(&text[..text.len() - 1]);
    }

    #[test]
    fn heads_read_back() {
        let (log, writer) = (WriterId::random(), WriterId::random());
        let path = std::path::Path::new("/var/lib/a.db");
        for id in [Some(log), None] {
            let head = Head::new(id, writer, path, &Owner::default());
            let line = String::from_utf8(head.line()).unwrap();
            let back = Head::parse(line.trim_end()).unwrap();
            assert_eq!((&back, back.writer()), (&head, Some(writer)));
            assert_eq!(back.log_id(), id);
            assert_eq!(Head::parse(&line.replace("\"argus_pending\":1", "\"argus_pending\":2")), Err(Some(2)));
        }
        assert_eq!(Head::parse("{}"), Err(None));
        let line = String::from_utf8(Head::new(Some(log), writer, path, &Owner::default()).line()).unwrap();
        assert_eq!(Head::parse(&line.replace(&log.to_string(), "none")), Err(None));
    }
}
