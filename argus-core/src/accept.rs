//! Accept: an event becomes an entry in thread-local scratch, on the caller's thread. User code (`Serialize`) runs here and nowhere else; every rule of the
//! record format is checked here, so that nothing after accept can refuse a record. No lock is held.

use std::borrow::Cow;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::canonical::{longest, upper_bound};
use crate::entry::{EntryWriter, Part, Texts};
use crate::error::AuditError;
use crate::event::{AuditEvent, Field};
use crate::json::{JsonError, JsonWriter, Key, Scratch, Source, is_behind, utf16_cmp};
use crate::members;
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
    component: String,
    /// Keys and canonical values that every context gets.
    context: Vec<(String, String)>,
    /// The same, ready to be appended to the members of an event.
    members: Vec<u8>,
    pub(crate) redaction: Redaction,
    /// Length of the texts that every record of this logger has beside its own.
    constant: usize,
}

impl Rules {
    pub(crate) fn new(
        component: String,
        context: Vec<(String, String)>,
        redaction: Redaction,
        constant: usize,
    ) -> Self {
        Self { component, members: members::ready(&context), context, redaction, constant }
    }

    pub(crate) fn empty() -> Self {
        Self::new(String::new(), Vec::new(), Redaction::none(), 0)
    }
}

/// What accept needs of the call.
pub(crate) struct Call<'a> {
    /// Now, in parts; the caller needs them for the id, too. (Borrowed: a copy as larger words would wait for the smaller ones to arrive in the cache.)
    pub(crate) now: &'a Option<(i64, u32)>,
    pub(crate) trace: Option<&'a TraceContext<'a>>,
    pub(crate) observers: ObserverSet,
    pub(crate) own: bool,
    /// Say where the caller stands.
    pub(crate) stack: bool,
}

/// The buffers of a thread.
#[derive(Default)]
pub(crate) struct Buffers {
    /// Room for an entry, which stands at its front.
    pub(crate) entry: Vec<u8>,
    /// What of it must be JSON.
    json: Vec<u8>,
    scratch: Scratch,
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
    if buffers.entry.len() <= 2 * MAX_RECORD && buffers.json.capacity() <= 2 * MAX_RECORD {
        let _ = BUFFERS.try_with(|b| b.set(Some(buffers)));
    }
    result
}

/// Encodes `event` at the front of `buffers.entry`, and tells the entry's length. (The error is boxed, so that a result is two registers and not a copy.)
#[inline]
pub(crate) fn encode(
    event: &AuditEvent<'_>,
    rules: &Rules,
    call: &Call<'_>,
    buffers: &mut Buffers,
) -> Result<usize, Box<AuditError>> {
    let field = Cell::new("event");
    catch_unwind(AssertUnwindSafe(|| encode_inner(event, rules, call, buffers, &field)))
        .unwrap_or_else(|_| Err(AuditError::Panicked { field: Cow::Borrowed(field.get()) }.into()))
}

fn invalid(field: impl Into<Cow<'static, str>>, reason: impl Into<std::sync::Arc<str>>) -> AuditError {
    AuditError::Invalid { field: field.into(), reason: reason.into() }
}

/// Puts the entry down in one go, after whatever must become JSON here and now.
fn encode_inner(
    event: &AuditEvent<'_>,
    rules: &Rules,
    call: &Call<'_>,
    buffers: &mut Buffers,
    field: &Cell<&'static str>,
) -> Result<usize, Box<AuditError>> {
    let Buffers { entry, json, scratch, order } = buffers;
    let name = event.event;
    if name.is_empty() || name.len() > MAX_EVENT {
        return Err(bad_name(name));
    }
    let Some((secs, nanos)) = event.at.map_or(*call.now, time::split) else { return Err(bad_time()) };
    let component = event.component.filter(|c| !c.is_empty()).unwrap_or(&rules.component);
    let path = event.file_path.map_or(Cow::Borrowed([].as_slice()), path_text);
    // What of it was no text must be told elsewhere.
    let raw_path = event.file_path.filter(|_| matches!(path, Cow::Owned(_)));
    if !call.own && component == OWN_COMPONENT && OWN_EVENTS.contains(&name) {
        return Err(invalid("event", "Argus says this of itself; name the event or its component otherwise").into());
    }

    json.clear();
    let mut change = Changes::default();
    let changed = !(event.old.is_absent() && event.new.is_absent());
    if changed {
        changes(event, rules, json, scratch, field, call.own, &mut change)?;
    }
    let (agent, actor, action) = (bytes(event.user_agent), bytes(event.actor), bytes(event.action));
    let trace_state = call.trace.map(|t| t.trace_state).filter(|t| t.len() <= MAX_TRACE_STATE).unwrap_or_default();
    let texts = name.len() + component.len() + path.len() + agent.len() + actor.len() + action.len();
    // Beside the context.
    let parts = texts + json.len() + trace_state.len() + if call.stack { MAX_STACK } else { 0 };

    let mut w = EntryWriter::begin(entry, parts + members::MOST_BYTES).ok_or_else(other_length)?;
    w.head(event.level, event.actor_type, event.outcome, secs, nanos);
    w.carrier(call.trace, call.observers);
    if call.own {
        w.own();
    }
    let mut nul = w.utf8(Part::Event, name.as_bytes());
    nul |= w.utf8(Part::Component, component.as_bytes());
    let plain = match call.own || raw_path.is_some() {
        false => w.members(parts - name.len() - component.len(), |w| plain(event, rules, w)),
        true => None,
    };
    let mut size = rules.constant + longest(texts + plain.unwrap_or(0)) + json.len() + change.more;
    if plain.is_none() || size > MAX_RECORD {
        field.set("context");
        let (before, mut start) = (json.len(), json.len());
        encode_context(event, raw_path, rules, json, scratch, order, call.own)?;
        let texts = [name.as_bytes(), component.as_bytes(), &path, agent, actor, action];
        size = rules.constant + upper_bound(&texts, json.len()) + change.more;
        if size > MAX_RECORD && change.more > 0 {
            // Members must be JSON to be counted exactly.
            let context = json.split_off(start);
            change = change.into_json(json);
            start = json.len();
            json.extend_from_slice(&context);
            size = rules.constant + upper_bound(&texts, json.len());
        }
        if size > MAX_RECORD {
            return Err(AuditError::TooLarge { field: "record".into(), size, limit: MAX_RECORD }.into());
        }
        let known = w.known();
        w = EntryWriter::again(entry, known, name.len() + component.len(), parts - before + json.len())
            .ok_or_else(other_length)?;
        w.utf8(Part::Context, json.get(start..).unwrap_or_default());
        json.truncate(start);
    }
    nul |= w.utf8(Part::FilePath, &path);
    nul |= w.utf8(Part::UserAgent, agent);
    if changed {
        for (part, (range, members)) in [Part::OldValue, Part::NewValue].into_iter().zip(change.values()) {
            match json.get(range) {
                Some(json) if members || !json.is_empty() => w.value(part, json, members),
                _ => {}
            }
        }
    }
    nul |= w.utf8(Part::ActorId, actor);
    nul |= w.utf8(Part::Action, action);
    w.utf8(Part::TraceState, trace_state.as_bytes());
    // A record that would be refused for the room that its stack may need goes without: the fact matters more.
    if call.stack && size + MAX_STACK <= MAX_RECORD {
        json.clear();
        crate::stack::capture(json);
        w.utf8(Part::Stack, json);
    }
    if nul {
        return Err(which_has_nul(&[name.as_bytes(), component.as_bytes(), &path, agent, actor, action]));
    }
    w.end().ok_or_else(other_length)
}

#[cold]
fn other_length() -> Box<AuditError> {
    invalid("record", "its entry has another length than was counted: a defect of Argus").into()
}

#[cold]
fn bad_name(name: &str) -> Box<AuditError> {
    if name.is_empty() {
        return invalid("event", "an event needs a name").into();
    }
    AuditError::TooLarge { field: "event".into(), size: name.len(), limit: MAX_EVENT }.into()
}

#[cold]
fn bad_time() -> Box<AuditError> {
    invalid("timestamp", "the time lies outside the years 0000 to 9999").into()
}

#[cold]
fn which_has_nul(texts: &[&[u8]]) -> Box<AuditError> {
    let names = ["event", "component", "file_path", "user_agent", "actor_id", "action"];
    let name = names.iter().zip(texts).find(|(_, text)| text.contains(&0)).map_or("event", |(name, _)| name);
    invalid(name, "text must not contain NUL").into()
}

/// Writes the context as members, if they can wait as they came: none must be made JSON by the caller's own code, be withheld or be refused.
#[inline(always)]
fn plain(event: &AuditEvent<'_>, rules: &Rules, w: &mut Texts<'_>) -> bool {
    if event.member_count() + rules.context.len() > members::MOST {
        return false;
    }
    let written = match event.ready_members() {
        Some(fields) => {
            // A bit for each name that was there; two names may share one.
            let mut seen = 0;
            fields.iter().flatten().enumerate().all(|(n, field)| {
                let bit = field.key.bit();
                let again = seen & bit != 0 && is_among(&field.key, fields.get(..n).unwrap_or_default());
                seen |= bit;
                !again && member(field, rules, w)
            })
        }
        None => w.lend(|w| plain_of_many(event, rules, w)),
    };
    if rules.context.is_empty() || !written {
        return written;
    }
    // What the event names is not taken from the configuration.
    let named = |key: &str| (0..event.member_count()).any(|m| event.member(m).key.text == key);
    let ours = !rules.context.iter().any(|(key, _)| named(key)) && w.has_room(rules.members.len());
    if ours {
        w.append(&rules.members);
    }
    ours
}

#[cold]
fn is_among(key: &Key<'_>, fields: &[Option<Field<'_>>]) -> bool {
    fields.iter().flatten().any(|before| before.key.is(key))
}

#[inline(never)]
fn plain_of_many(event: &AuditEvent<'_>, rules: &Rules, mut w: Texts<'_>) -> Option<usize> {
    let all = (0..event.member_count()).all(|n| {
        let field = event.member(n);
        !(0..n).any(|m| event.member(m).key.is(&field.key)) && member(&field, rules, &mut w)
    });
    all.then(|| w.at())
}

#[inline(always)]
fn member(Field { key, value }: &Field<'_>, rules: &Rules, w: &mut Texts<'_>) -> bool {
    !key.reserved && !rules.redaction.hides_ending(key.ending, key.text) && members::write(w, key, value)
}

/// Where the values of a change stand.
#[derive(Clone, Copy, Default)]
struct Changes {
    /// Where each ends.
    ends: [usize; 2],
    /// Whether it is members, and not JSON.
    members: [bool; 2],
    /// The most bytes by which members are longer as JSON.
    more: usize,
}

impl Changes {
    #[inline(always)]
    fn values(&self) -> [(std::ops::Range<usize>, bool); 2] {
        let [old, new] = self.ends;
        [(0..old, self.members[0]), (old..new, self.members[1])]
    }

    #[cold]
    fn into_json(self, buf: &mut Vec<u8>) -> Self {
        let mut all = Vec::new();
        let ends = self.values().map(|(range, as_members)| {
            let value = buf.get(range).unwrap_or_default();
            if as_members {
                members::json(value, &mut all)
            } else {
                all.extend_from_slice(value)
            }
            all.len()
        });
        *buf = all;
        Self { ends, ..Self::default() }
    }
}

/// Writes both values of a change. (Not inlined, as nothing that makes JSON: what most events need should be near together.)
#[inline(never)]
fn changes(
    event: &AuditEvent<'_>,
    rules: &Rules,
    json: &mut Vec<u8>,
    scratch: &mut Scratch,
    field: &Cell<&'static str>,
    own: bool,
    change: &mut Changes,
) -> Result<(), Box<AuditError>> {
    let mut out = JsonWriter::new(json, scratch, &rules.redaction, Source::Caller);
    let mut one = |value: &Value<'_>, name: &'static str| -> Result<(usize, bool), Box<AuditError>> {
        field.set(name);
        let start = out.position();
        out.begin_value(!own);
        // Mostly it is something that implements `Serialize`.
        let there = match value.0 {
            V::Dyn(d) => d.encode_json(&mut out),
            _ => value.encode(&mut out),
        };
        if !there.map_err(|e| json_error(name.into(), e))? {
            out.rewind(start, 0);
        }
        let members = out.members_wait();
        if members {
            // No byte is written as more than six, and a member's head is longer than what stands around it; but the brackets count.
            change.more += 5 * (out.position() - start) + 2;
        }
        Ok((out.position(), members))
    };
    (change.ends[0], change.members[0]) = one(&event.old, "old_value")?;
    (change.ends[1], change.members[1]) = one(&event.new, "new_value")?;
    Ok(())
}

/// A path as UTF-8: borrowed, if that is what it is. (Most are ASCII, which is quickly told.)
#[inline]
fn path_text(path: &std::path::Path) -> Cow<'_, [u8]> {
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    if bytes.is_ascii() { Cow::Borrowed(bytes) } else { path_not_ascii(path, bytes) }
}

#[cold]
fn path_not_ascii<'a>(path: &std::path::Path, bytes: &'a [u8]) -> Cow<'a, [u8]> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Cow::Borrowed(bytes),
        Err(_) => Cow::Owned(path.to_string_lossy().into_owned().into_bytes()),
    }
}

#[inline(always)]
fn bytes(text: Option<&str>) -> &[u8] {
    text.unwrap_or_default().as_bytes()
}

#[cold]
fn json_error(field: String, e: impl Into<JsonError>) -> AuditError {
    match e.into() {
        JsonError::TooDeep => AuditError::TooLarge {
            field: field.into(),
            size: crate::json::MAX_DEPTH + 1,
            limit: crate::json::MAX_DEPTH,
        },
        e => invalid(field, e.to_string()),
    }
}

/// Writes the context: the event's own members, and those of the configuration that it does not name. In order from the start, so that no text is moved.
#[inline(never)]
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
        let field = || format!("context.{}", key.text);
        let (start, depth, first) = (out.position(), out.depth(), open.first);
        out.name(&mut open, key).map_err(|e| json_error(field(), e))?;
        let at = out.position();
        if value.encode(&mut out).map_err(|e| json_error(field(), e))? {
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
    out.close_object(&open).map_err(|e| json_error("context".into(), e))
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

#[cfg(test)]
mod tests;
