//! Accept: an event becomes an entry in thread-local scratch, on the caller's thread. User code (`Serialize`) runs here and nowhere else; every rule of the
//! record format is checked here, so that nothing after accept can refuse a record. No lock is held.

use std::borrow::Cow;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::canonical::upper_bound;
use crate::entry::{EntryWriter, Part};
use crate::error::AuditError;
use crate::event::{AuditEvent, Field};
use crate::json::{JsonError, JsonWriter, Key, Scratch, Source, is_behind, utf16_cmp};
use crate::redaction::Redaction;
use crate::sink::{ObserverSet, TraceContext};
use crate::stack::MAX_STACK;
use crate::time;
use crate::value::{V, Value};

/// Cap of a record's canonical form, in bytes.
pub(crate) const MAX_RECORD: usize = 256 << 10;
/// Cap of an event's name, in bytes.
pub(crate) const MAX_EVENT: usize = 256;
/// Cap of context members, after the merge.
pub(crate) const MAX_MEMBERS: usize = 128;
/// The component of what Argus says of itself, and the names that verification reads with it: no caller may say the same.
pub(crate) const OWN_COMPONENT: &str = "argus";
const OWN_EVENTS: [&str; 9] = [
    "audit_open",
    "audit_close",
    "audit_gap",
    "audit_segment",
    "audit_recovered",
    "audit_migrated",
    "audit_fallback",
    "audit_prune",
    "log_replaced",
];
/// The context member that has the bytes of a path that is not UTF-8.
const PATH_BYTES: &str = "argus.path_bytes";
/// Cap of a trace state, in bytes; longer ones are dropped.
const MAX_TRACE_STATE: usize = 512;

/// What accept needs of the configuration, made ready once.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) component: String,
    /// Keys and canonical values that every context gets.
    pub(crate) context: Vec<(String, String)>,
    pub(crate) redaction: Redaction,
    /// Length of the texts that every record of this logger has beside its own.
    pub(crate) constant: usize,
}

impl Rules {
    pub(crate) fn empty() -> Self {
        Self { component: String::new(), context: Vec::new(), redaction: Redaction::none(), constant: 0 }
    }
}

/// What accept needs of the call.
pub(crate) struct Call<'a> {
    /// Now, in parts; the caller needs them for the id, too.
    pub(crate) now: Option<(i64, u32)>,
    pub(crate) trace: Option<&'a TraceContext<'a>>,
    pub(crate) observers: ObserverSet,
    pub(crate) own: bool,
    /// Say where the caller stands.
    pub(crate) stack: bool,
}

/// The buffers of a thread.
#[derive(Default)]
pub(crate) struct Buffers {
    pub(crate) entry: Vec<u8>,
    json: Scratch,
    order: Vec<(u64, usize)>,
}

thread_local!(static BUFFERS: Cell<Option<Box<Buffers>>> = const { Cell::new(None) });

/// Runs `f` with this thread's buffers. A `Serialize` that logs gets fresh ones.
#[inline]
pub(crate) fn with_buffers<T>(f: impl FnOnce(&mut Buffers) -> T) -> T {
    // While a thread ends, its buffers may be gone already; a destructor that logs gets fresh ones, too.
    let mut buffers = BUFFERS.try_with(Cell::take).ok().flatten().unwrap_or_default();
    let result = f(&mut buffers);
    // A thread that once logged something huge should not keep it.
    if buffers.entry.capacity() <= 2 * MAX_RECORD {
        let _ = BUFFERS.try_with(|b| b.set(Some(buffers)));
    }
    result
}

/// Encodes `event` into `buffers.entry`.
pub(crate) fn encode(
    event: &AuditEvent<'_>,
    rules: &Rules,
    call: &Call<'_>,
    buffers: &mut Buffers,
) -> Result<(), AuditError> {
    let field = Cell::new("event");
    catch_unwind(AssertUnwindSafe(|| encode_inner(event, rules, call, buffers, &field)))
        .unwrap_or_else(|_| Err(AuditError::Panicked { field: Cow::Borrowed(field.get()) }))
}

fn invalid(field: impl Into<Cow<'static, str>>, reason: impl Into<std::sync::Arc<str>>) -> AuditError {
    AuditError::Invalid { field: field.into(), reason: reason.into() }
}

fn encode_inner(
    event: &AuditEvent<'_>,
    rules: &Rules,
    call: &Call<'_>,
    buffers: &mut Buffers,
    field: &Cell<&'static str>,
) -> Result<(), AuditError> {
    let Buffers { entry, json, order } = buffers;
    if event.event.is_empty() {
        return Err(invalid("event", "an event needs a name"));
    }
    if event.event.len() > MAX_EVENT {
        return Err(AuditError::TooLarge { field: "event".into(), size: event.event.len(), limit: MAX_EVENT });
    }
    let (secs, nanos) = event
        .at
        .map_or(call.now, time::split)
        .ok_or_else(|| invalid("timestamp", "the time lies outside the years 0000 to 9999"))?;
    let component = event.component.filter(|c| !c.is_empty()).unwrap_or(&rules.component);
    let path = event.file_path.map_or(Cow::Borrowed([].as_slice()), path_text);
    // What of it was no text must be told elsewhere.
    let raw_path = event.file_path.filter(|_| matches!(path, Cow::Owned(_)));
    if !call.own && component == OWN_COMPONENT && OWN_EVENTS.contains(&event.event) {
        return Err(invalid("event", "Argus says this of itself; name the event or its component otherwise"));
    }
    let mut w = EntryWriter::begin(entry);
    w.head(event.level, event.actor_type, event.outcome, secs, nanos);
    w.carrier(call.trace, call.observers);
    if call.own {
        w.own();
    }
    text(&mut w, Part::Event, "event", event.event.as_bytes())?;
    text(&mut w, Part::Component, "component", component.as_bytes())?;
    let start = w.buf.len();
    field.set("context");
    encode_context(event, raw_path, rules, w.buf, json, order, call.own)?;
    w.part(Part::Context, start);
    let mut json_len = w.buf.len() - start;
    text(&mut w, Part::FilePath, "file_path", &path)?;
    text(&mut w, Part::UserAgent, "user_agent", bytes(event.user_agent))?;
    for (part, name, value) in [(Part::OldValue, "old_value", &event.old), (Part::NewValue, "new_value", &event.new)] {
        if value.is_absent() {
            continue;
        }
        field.set(name);
        let start = w.buf.len();
        let mut out = JsonWriter::new(w.buf, json, &rules.redaction, Source::Caller);
        if value.encode(&mut out).map_err(|e| json_error(name.into(), e))? {
            w.part(part, start);
        } else {
            w.buf.truncate(start);
        }
        json_len += w.buf.len() - start;
    }
    text(&mut w, Part::ActorId, "actor_id", bytes(event.actor))?;
    text(&mut w, Part::Action, "action", bytes(event.action))?;
    w.text(Part::TraceState, call.trace.map(|t| t.trace_state).filter(|t| t.len() <= MAX_TRACE_STATE));
    let texts = [
        event.event.as_bytes(),
        component.as_bytes(),
        &path,
        bytes(event.user_agent),
        bytes(event.actor),
        bytes(event.action),
    ];
    let size = rules.constant + upper_bound(&texts, json_len);
    // A record that would be refused for the room that its stack may need goes without: the fact matters more.
    if call.stack && size + MAX_STACK <= MAX_RECORD {
        let start = w.buf.len();
        crate::stack::capture(w.buf);
        w.part(Part::Stack, start);
    }
    w.end();
    if size > MAX_RECORD {
        return Err(AuditError::TooLarge { field: "record".into(), size, limit: MAX_RECORD });
    }
    Ok(())
}

/// A path as UTF-8: borrowed, if that is what it is. (Most are ASCII, which is quickly told.)
#[inline]
fn path_text(path: &std::path::Path) -> Cow<'_, [u8]> {
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    if bytes.is_ascii() || std::str::from_utf8(bytes).is_ok() {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned(path.to_string_lossy().into_owned().into_bytes())
}

#[inline(always)]
fn bytes(text: Option<&str>) -> &[u8] {
    text.unwrap_or_default().as_bytes()
}

/// Writes a text, looking for NUL on the way: that is one of those that need an escape, and most texts have none.
#[inline(always)]
fn text(w: &mut EntryWriter<'_>, part: Part, name: &'static str, text: &[u8]) -> Result<(), AuditError> {
    if w.utf8(part, text) { no_nul(name, text) } else { Ok(()) }
}

#[cold]
fn no_nul(name: &'static str, text: &[u8]) -> Result<(), AuditError> {
    if text.contains(&0) {
        return Err(invalid(name, "text must not contain NUL"));
    }
    Ok(())
}

#[cold]
fn json_error(field: String, e: JsonError) -> AuditError {
    match e {
        JsonError::TooDeep => AuditError::TooLarge {
            field: field.into(),
            size: crate::json::MAX_DEPTH + 1,
            limit: crate::json::MAX_DEPTH,
        },
        e => invalid(field, e.to_string()),
    }
}

/// Writes the context: the event's own members, and those of the configuration that it does not name. In order from the start, so that no text is moved.
fn encode_context(
    event: &AuditEvent<'_>,
    raw_path: Option<&std::path::Path>,
    rules: &Rules,
    buf: &mut Vec<u8>,
    json: &mut Scratch,
    order: &mut Vec<(u64, usize)>,
    own: bool,
) -> Result<(), AuditError> {
    let path_bytes;
    let path = match raw_path {
        Some(path) => {
            path_bytes = crate::id::hex(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
            Value::from(path_bytes.as_str())
        }
        None => Value::ABSENT,
    };
    // A number for each member: first the event's own, then the path's bytes, then the configuration's.
    let given = event.member_count();
    let last = given + if own { 0 } else { rules.context.len() };
    let member = |n: usize| match n.checked_sub(given) {
        None => event.member(n),
        Some(0) => Field { key: Key::new(PATH_BYTES), value: path },
        Some(i) => {
            let (key, json) = rules.context.get(i - 1).map_or(("", "null"), |(key, json)| (key, json));
            Field { key: Key::new(key), value: Value(V::Canonical(json)) }
        }
    };
    order.clear();
    for n in 0..given {
        let prefix = event.ready_member(n).map_or_else(|| member(n).key.prefix, |f| f.key.prefix);
        place(order, n, prefix, member);
    }
    let others = if raw_path.is_some() { given } else { given + 1 };
    for n in others..=last {
        let key = member(n).key;
        if !(0..given).any(|m| event.member(m).key.text == key.text) {
            place(order, n, key.prefix, member);
        }
    }

    // Argus's own records say what they must, whatever their keys are called.
    let source = if own { Source::Stored } else { Source::Caller };
    let mut out = JsonWriter::new(buf, json, &rules.redaction, source);
    let mut open = out.open_object().map_err(|e| json_error("context".into(), e))?;
    let (mut count, mut before) = (0, None);
    for &(_, n) in order.iter() {
        let made;
        let Field { key, value } = match event.ready_member(n) {
            Some(field) => field,
            None => {
                made = member(n);
                &made
            }
        };
        let named = |e| json_error(format!("context.{}", key.text), e);
        let (start, depth, first) = (out.position(), out.depth(), open.first);
        out.name(&mut open, key).map_err(named)?;
        let at = out.position();
        if value.encode(&mut out).map_err(named)? {
            if before.is_some_and(|(prefix, name)| prefix == key.prefix && name == key.text) {
                return Err(json_error("context".into(), JsonError::DuplicateKey(key.text.into())));
            }
            before = Some((key.prefix, key.text));
            out.redact(key, at);
            count += 1;
        } else {
            out.rewind(start, depth);
            open.first = first;
        }
    }
    if count > MAX_MEMBERS {
        return Err(AuditError::TooLarge { field: "context".into(), size: count, limit: MAX_MEMBERS });
    }
    out.close_object(open).map_err(|e| json_error("context".into(), e))
}

/// Puts member `n` where its name belongs. Members are few and mostly come in some order, so they are shifted, not sorted.
#[inline(always)]
fn place<'a>(order: &mut Vec<(u64, usize)>, n: usize, prefix: u64, member: impl Fn(usize) -> Field<'a>) {
    let mut at = order.len();
    order.push((prefix, n));
    // From the end: what comes in order is compared once.
    while let Some([before, place]) = order.get_mut(at.wrapping_sub(1)..at + 1)
        && is_behind(before.0, prefix)
            .unwrap_or_else(|| utf16_cmp(member(before.1).key.text, member(n).key.text).is_gt())
    {
        let moved = *before;
        (*before, *place) = ((prefix, n), moved);
        at -= 1;
    }
}

/// The configuration's context, made ready.
pub(crate) fn prepare_context(
    members: &[(String, serde_json::Value)],
    redaction: &Redaction,
) -> Result<Vec<(String, String)>, JsonError> {
    let mut ready: Vec<(String, String)> = Vec::new();
    for (key, value) in members {
        if key.starts_with(crate::redaction::RESERVED) {
            return Err(JsonError::ReservedKey(key.clone()));
        }
        if ready.iter().any(|(k, _)| k == key) {
            return Err(JsonError::DuplicateKey(key.clone()));
        }
        let (mut out, mut scratch) = (Vec::new(), Scratch::default());
        let mut w = JsonWriter::new(&mut out, &mut scratch, redaction, Source::Caller);
        // In an object, as it will stand in every context: so its depth counts.
        let mut open = w.open_object()?;
        w.key(&mut open, key)?;
        let start = w.position();
        w.serialize_top(value)?;
        w.end_member();
        ready.push((key.clone(), String::from_utf8(out.split_off(start)).unwrap_or_default()));
    }
    Ok(ready)
}
