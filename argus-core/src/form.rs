//! What the fields of a stored record must look like, and the `Record` they make. Rules: `docs/record-format.md`, section 1. Pure.

use std::str::FromStr;
use std::time::SystemTime;

use crate::accept::{MAX_EVENT, MAX_MEMBERS};
use crate::canonical::Fields;
use crate::id::{Checksum, RecordId, WriterId, is_uuid, unhex_into};
use crate::json::{Scratch, is_canonical};
use crate::level::{ActorType, Level, Outcome};
use crate::record::{Json, Record};
use crate::time;

/// Bytes of the shortest member of an object, with its comma.
const SHORTEST_MEMBER: usize = 5;

fn hex<const N: usize>(s: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    unhex_into(s, &mut out).then_some(out)
}

/// A word in its one spelling.
fn word<T: FromStr + Copy>(s: &str, text: fn(T) -> &'static str) -> Option<T> {
    s.parse::<T>().ok().filter(|w| text(*w) == s)
}

/// Members of an object that is not empty; of text that is no JSON, at least those before its fault. Linear, whatever an attacker wrote.
pub(crate) fn members(object: &str) -> usize {
    let (mut depth, mut text, mut escaped, mut commas) = (0u32, false, false, 0);
    for b in object.bytes() {
        match b {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' => escaped = true,
            b'"' => text = !text,
            _ if text => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => commas += 1,
            _ => {}
        }
    }
    commas + 1
}

/// What in a record's fields breaks the record format, beyond what its checksum covers. Allocates nothing for a sound record.
pub(crate) fn form_error(f: &Fields<'_>, buf: &mut Vec<u8>, scratch: &mut Scratch) -> Option<String> {
    let checks: [(&str, bool); 12] = [
        ("`seq` is 0", f.seq >= 1),
        ("`writer_seq` is 0", f.writer_seq >= 1),
        ("`timestamp` has not the form of a timestamp", time::parse_exact(f.timestamp).is_some()),
        ("`created_at` has not the form of one", time::is_created_at(f.created_at)),
        ("`level` is no known word", word(f.level, Level::as_str).is_some()),
        ("`actor_type` is no known word", f.actor_type.is_none_or(|s| word(s, ActorType::as_str).is_some())),
        ("`outcome` is no known word", f.outcome.is_none_or(|s| word(s, Outcome::as_str).is_some())),
        ("`trace_id` is not 32 lower-case hex digits", f.trace_id.is_none_or(|s| hex::<16>(s).is_some())),
        ("`span_id` is not 16 lower-case hex digits", f.span_id.is_none_or(|s| hex::<8>(s).is_some())),
        ("`record_id` is no UUID of version 7 in lower case", is_uuid(f.record_id, 7)),
        ("`writer` is no UUID of version 4 in lower case", is_uuid(f.writer, 4)),
        ("`event` is empty or longer than 256 bytes", (1..=MAX_EVENT).contains(&f.event.len())),
    ];
    if let Some((why, _)) = checks.iter().find(|(_, ok)| !ok) {
        return Some((*why).into());
    }
    if f.prev_hash.is_some_and(|p| hex::<32>(p).is_none()) {
        return Some("`prev_hash` is no checksum".into());
    }
    let always = [f.event, f.component, f.original_output_file, f.process_name];
    let optional = [f.file_path, f.user_agent, f.actor_id, f.action, f.stack];
    if always.iter().chain(optional.iter().flatten()).any(|t| t.as_bytes().contains(&0)) {
        return Some("a text field holds NUL".into());
    }
    if optional.contains(&Some("")) {
        return Some("an optional field is empty instead of absent".into());
    }
    for (name, json) in [("context", Some(f.context)), ("old_value", f.old_value), ("new_value", f.new_value)] {
        if json.is_some_and(|j| !is_canonical(j, buf, scratch)) {
            return Some(format!("`{name}` is not one JSON value in canonical form"));
        }
    }
    if !f.context.starts_with('{') {
        return Some("`context` is no object".into());
    }
    let many = f.context.len() > MAX_MEMBERS * SHORTEST_MEMBER && members(f.context) > MAX_MEMBERS;
    many.then(|| format!("`context` has more than {MAX_MEMBERS} members"))
}

/// What of a record is parsed, not copied.
struct Parsed {
    timestamp: SystemTime,
    level: Level,
    actor_type: Option<ActorType>,
    outcome: Option<Outcome>,
    trace_id: Option<[u8; 16]>,
    span_id: Option<[u8; 8]>,
    record_id: RecordId,
    writer: WriterId,
    prev_hash: Option<Checksum>,
    checksum: Option<Checksum>,
}

/// The error is the name of the field that has not its form. Allocates nothing.
fn parsed(f: &Fields<'_>, checksum: Option<&str>) -> Result<Parsed, &'static str> {
    fn maybe<T>(
        name: &'static str,
        s: Option<&str>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, &'static str> {
        s.map(|s| parse(s).ok_or(name)).transpose()
    }
    Ok(Parsed {
        timestamp: time::parse_exact(f.timestamp).ok_or("timestamp")?,
        level: word(f.level, Level::as_str).ok_or("level")?,
        actor_type: maybe("actor_type", f.actor_type, |s| word(s, ActorType::as_str))?,
        outcome: maybe("outcome", f.outcome, |s| word(s, Outcome::as_str))?,
        trace_id: maybe("trace_id", f.trace_id, hex)?,
        span_id: maybe("span_id", f.span_id, hex)?,
        record_id: RecordId(WriterId::parse_exact(f.record_id).ok_or("record_id")?.0),
        writer: WriterId::parse_exact(f.writer).ok_or("writer")?,
        prev_hash: maybe("prev_hash", f.prev_hash, Checksum::parse_exact)?,
        checksum: maybe("checksum", checksum, Checksum::parse_exact)?,
    })
}

/// Whether `record_of` would make a record of it.
pub(crate) fn is_record(f: &Fields<'_>, checksum: &str) -> bool {
    parsed(f, Some(checksum)).is_ok()
}

/// A record from its fields; the error names what has not its form.
pub(crate) fn record_of(f: &Fields<'_>, checksum: Option<&str>) -> Result<Record, String> {
    let p = parsed(f, checksum).map_err(|name| format!("`{name}` has not its form"))?;
    let own = |s: Option<&str>| s.map(str::to_owned);
    let json = |s: &str| Json(s.into());
    Ok(Record {
        timestamp: p.timestamp,
        level: p.level,
        event: f.event.into(),
        component: f.component.into(),
        original_output_file: f.original_output_file.into(),
        context: json(f.context),
        file_path: own(f.file_path),
        user_agent: own(f.user_agent),
        old_value: f.old_value.map(json),
        new_value: f.new_value.map(json),
        process_id: f.process_id,
        process_name: f.process_name.into(),
        actor_id: own(f.actor_id),
        actor_type: p.actor_type,
        action: own(f.action),
        outcome: p.outcome,
        trace_id: p.trace_id,
        span_id: p.span_id,
        stack: own(f.stack),
        record_id: p.record_id,
        writer: p.writer,
        writer_seq: f.writer_seq,
        created_at: Some(f.created_at.into()),
        seq: Some(f.seq),
        prev_hash: p.prev_hash,
        checksum: p.checksum,
    })
}

/// A record that is not committed, from its fields; each is looked at, since no checksum stands for it.
pub(crate) fn pending_record_of(f: &Fields<'_>, buf: &mut Vec<u8>, scratch: &mut Scratch) -> Result<Record, String> {
    // What a commit would give has its form.
    let whole = Fields { seq: 1, created_at: "2000-01-01 00:00:00", prev_hash: None, ..*f };
    if let Some(why) = form_error(&whole, buf, scratch) {
        return Err(why);
    }
    Ok(Record { created_at: None, seq: None, ..record_of(&whole, None)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_those_of_the_object_itself() {
        for (object, n) in [
            (r#"{"a":1}"#, 1),
            (r#"{"a":[1,2,{"b":3,"c":4}],"d":"x,y\",{\\","e,":{}}"#, 3),
            (r#"{"a\\":",","b":{"c":1,"d":2}}"#, 2),
        ] {
            assert!(serde_json::from_str::<serde_json::Value>(object).is_ok(), "{object}");
            assert_eq!(members(object), n, "{object}");
        }
        let object = |n: usize| {
            let all: Vec<String> = (0..n).map(|i| format!("\"{i:03}\":0")).collect();
            format!("{{{}}}", all.join(","))
        };
        let error = |context: &str| {
            let f = Fields {
                seq: 1,
                writer_seq: 1,
                timestamp: "2026-11-23T12:00:00.000000000Z",
                created_at: "2026-11-23 12:00:00",
                level: "INFO",
                event: "e",
                record_id: "01900000-0000-7000-8000-000000000000",
                writer: "00000000-0000-4000-8000-000000000000",
                context,
                ..Fields::default()
            };
            form_error(&f, &mut Vec::new(), &mut Scratch::default())
        };
        assert_eq!(error(&object(128)), None);
        assert_eq!(error(&object(129)), Some("`context` has more than 128 members".into()));
        // In no time, although every name is another.
        let many: Vec<String> = (10_000..50_000).map(|i| format!("\"{i}\":0")).collect();
        assert!(error(&format!("{{{}}}", many.join(","))).is_some());
    }
}
