//! Members as they wait in the queue: as they came. A context of scalars and text, and the values of a change that are objects. Whoever takes entries from the
//! queue opens them, which puts the members in order and makes them JSON; no caller pays for that. Format: `docs/record-format.md`, section 8.

use std::cmp::Ordering;

use crate::entry::{MemberValue, Queued, Texts};
use crate::json::{Key, Name, is_behind, quote_bytes, text, utf16_cmp, write_u64};
use crate::value::{V, Value};

/// More members than this, and the context is made JSON at once.
pub(crate) const MOST: usize = 16;
/// More bytes of members, or somewhat more, and they are made JSON at once.
pub(crate) const MOST_BYTES: usize = 4 << 10;
/// Members of so many bytes are more than a record may have as JSON, where each has 5 of 16 at least. (Below it, the lengths of a member have room in its head.)
pub(crate) const TOO_MANY_BYTES: usize = 4 * crate::accept::MAX_RECORD;
/// Bytes of a member beside its name and value.
const HEAD: usize = 8;

/// What the value of a member is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Bool = 1,
    I64 = 2,
    U64 = 3,
    Text = 4,
    /// Canonical JSON.
    Json = 5,
}

impl Kind {
    fn of(kind: u8) -> Self {
        let all = [Self::Bool, Self::I64, Self::U64, Self::Text];
        all.into_iter().find(|k| *k as u8 == kind).unwrap_or(Self::Json)
    }
}

/// Appends a member, unless it is absent. False if its value must be made JSON on the caller's thread, or there is no room.
#[inline(always)]
pub(crate) fn write(w: &mut Texts<'_>, key: &Key<'_>, value: &Value<'_>) -> bool {
    let (kind, value) = match value.0 {
        V::Bool(b) => (Kind::Bool, MemberValue::Word(b.into())),
        V::I64(i) => (Kind::I64, MemberValue::Word(i.cast_unsigned())),
        V::U64(u) => (Kind::U64, MemberValue::Word(u)),
        V::Str(t) => (Kind::Text, MemberValue::Text(t.as_bytes())),
        V::Canonical(t) => (Kind::Json, MemberValue::Text(t.as_bytes())),
        V::Absent => return true,
        V::F64(_) | V::Json(_) | V::JsonOrText(_) | V::Dyn(_) => return false,
    };
    let len = match value {
        MemberValue::Word(_) => 8,
        MemberValue::Text(text) => text.len(),
    };
    w.member(head(kind, key.text.len(), len), key.text.as_bytes(), key.word(), value)
}

/// The kind, the length of the name in three bytes, that of the value in four.
#[inline(always)]
fn head(kind: Kind, name: usize, value: usize) -> u64 {
    u64::from(kind as u8) | (name as u64) << 8 | (value as u64) << 32
}

/// Appends a member.
#[inline(always)]
pub(crate) fn append(name: &Name<'_>, kind: Kind, value: MemberValue<'_>, out: &mut Vec<u8>) {
    let (word, len) = match value {
        MemberValue::Word(number) => (number, 8),
        MemberValue::Text(text) => (text::word(text), text.len()),
    };
    // (With room, so that nothing here is a call.)
    if name.text.len() > 8 || len > 8 || out.capacity() - out.len() < HEAD + 16 {
        let text = match value {
            MemberValue::Word(_) => None,
            MemberValue::Text(text) => Some(text),
        };
        return append_long(name, kind, word, text, out);
    }
    // In one go: the value stands where the filled up name ends.
    let [first, rest] = halves(u128::from(name.word) | u128::from(word) << (8 * name.text.len()));
    let end = out.len() + HEAD + name.text.len() + len;
    out.extend_from_slice([head(kind, name.text.len(), len), first, rest].map(u64::to_le_bytes).as_flattened());
    out.truncate(end);
}

#[inline(always)]
fn halves(both: u128) -> [u64; 2] {
    [both as u64, (both >> 64) as u64]
}

#[inline(never)]
fn append_long(name: &Name<'_>, kind: Kind, number: u64, text: Option<&[u8]>, out: &mut Vec<u8>) {
    let number = number.to_le_bytes();
    let value = text.unwrap_or(&number);
    out.extend_from_slice(&head(kind, name.text.len(), value.len()).to_le_bytes());
    out.extend_from_slice(name.text.as_bytes());
    out.extend_from_slice(value);
}

/// Appends room for the head of a member, and its name; JSON is to be written next, then `end`.
#[inline(always)]
pub(crate) fn begin(name: &Name<'_>, out: &mut Vec<u8>) {
    if name.text.len() > 8 {
        out.extend_from_slice(&[0; HEAD]);
        return out.extend_from_slice(name.text.as_bytes());
    }
    let end = out.len() + HEAD + name.text.len();
    out.extend_from_slice(&(u128::from(name.word) << 64).to_le_bytes());
    out.truncate(end);
}

/// Writes the head of the member whose name and value begin there; the value goes to the end.
#[inline(always)]
pub(crate) fn end(name: usize, value: usize, out: &mut [u8]) {
    let head = head(Kind::Json, value - name, out.len() - value);
    if let Some(place) = name.checked_sub(HEAD).and_then(|at| out.get_mut(at..name)) {
        place.copy_from_slice(&head.to_le_bytes());
    }
}

/// Canonical values, ready to be appended to the members of any event.
pub(crate) fn ready(context: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, json) in context {
        out.extend_from_slice(&head(Kind::Json, key.len(), json.len()).to_le_bytes());
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(json.as_bytes());
    }
    out
}

/// A member as it waits. (Its name and text are UTF-8, as only that was ever put in; whoever reads the entry looks again.)
pub(crate) struct Member<'a> {
    name: &'a [u8],
    kind: Kind,
    value: &'a [u8],
}

fn next<'a>(bytes: &mut &'a [u8]) -> Option<Member<'a>> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let [kind, a, b, c, value @ ..] = *head;
    let (name, rest) = rest.split_at_checked(u32::from_le_bytes([a, b, c, 0]) as usize)?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(value) as usize)?;
    *bytes = rest;
    Some(Member { name, kind: Kind::of(kind), value })
}

/// The member whose name begins there.
pub(crate) fn at(bytes: &[u8], name: usize) -> Option<Member<'_>> {
    next(&mut bytes.get(name.checked_sub(HEAD)?..)?)
}

/// The names of members, and where each ends.
pub(crate) fn places(bytes: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let member = next(&mut rest)?;
        Some((member.name, bytes.len() - rest.len() - member.value.len()))
    })
}

/// Order of two names by UTF-16 code units.
#[inline(always)]
fn order(a: &[u8], b: &[u8]) -> Ordering {
    match is_behind(text::prefix(a), text::prefix(b)) {
        Some(true) => Ordering::Greater,
        Some(false) => Ordering::Less,
        None => utf16_cmp(&String::from_utf8_lossy(a), &String::from_utf8_lossy(b)),
    }
}

impl Member<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let number = || self.value.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
        quote_bytes(self.name, out);
        out.push(b':');
        match self.kind {
            Kind::Bool => out.extend_from_slice(if number() == 0 { b"false" } else { b"true" }),
            Kind::I64 => {
                let number = number().cast_signed();
                if number < 0 {
                    out.push(b'-');
                }
                write_u64(number.unsigned_abs(), out);
            }
            Kind::U64 => write_u64(number(), out),
            Kind::Text => quote_bytes(self.value, out),
            Kind::Json => out.extend_from_slice(self.value),
        }
    }
}

/// Appends the canonical JSON of members.
pub(crate) fn json(bytes: &[u8], out: &mut Vec<u8>) {
    let each = |mut bytes| std::iter::from_fn(move || next(&mut bytes));
    if each(bytes).is_sorted_by(|a: &Member<'_>, b| order(a.name, b.name).is_lt()) {
        return to_json(each(bytes), out);
    }
    let mut members: Vec<_> = each(bytes).collect();
    members.sort_by(|a, b| order(a.name, b.name));
    to_json(members.into_iter(), out);
}

/// The same of members that are in order.
pub(crate) fn to_json<'a>(members: impl Iterator<Item = Member<'a>>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (i, member) in members.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        member.write(out);
    }
    out.push(b'}');
}

/// Appends an entry as it is read: all of its members as JSON.
pub(crate) fn open_into(entry: Queued<'_>, out: &mut Vec<u8>) {
    entry.open_into(out, json);
}
