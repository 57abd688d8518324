//! The members of a context as they wait in the queue, where all of them are scalars or text: as they came. Whoever takes entries from the queue opens them, which
//! puts the members in order and makes them JSON; no caller pays for that. Format: `docs/record-format.md`, section 8.

use crate::entry::{EntryWriter, MemberValue, Queued};
use crate::json::{Key, quote_into, utf16_cmp, write_u64};
use crate::value::{V, Value};

/// More members than this, and the context is made JSON at once.
pub(crate) const MOST: usize = 16;
/// Bytes of a member beside its name and value.
const HEAD: usize = 8;

const BOOL: u8 = 1;
const I64: u8 = 2;
const U64: u8 = 3;
const TEXT: u8 = 4;
/// Canonical JSON.
const JSON: u8 = 5;

/// Appends a member, unless it is absent. False if its value must be made JSON on the caller's thread, or there is no room.
#[inline(always)]
pub(crate) fn write(w: &mut EntryWriter<'_>, key: &Key<'_>, value: &Value<'_>) -> bool {
    let (kind, value) = match value.0 {
        V::Bool(b) => (BOOL, MemberValue::Word(b.into())),
        V::I64(i) => (I64, MemberValue::Word(i.cast_unsigned())),
        V::U64(u) => (U64, MemberValue::Word(u)),
        V::Str(t) => (TEXT, MemberValue::Text(t.as_bytes())),
        V::Canonical(t) => (JSON, MemberValue::Text(t.as_bytes())),
        V::Absent => return true,
        V::F64(_) | V::Json(_) | V::JsonOrText(_) | V::Dyn(_) => return false,
    };
    let len = match value {
        MemberValue::Word(_) => 8,
        MemberValue::Text(text) => text.len(),
    };
    w.member(head(kind, key, len), key.text.as_bytes(), key.word(), value)
}

/// The kind, the length of the name in three bytes, that of the value in four. (Both are below the cap of a record.)
#[inline(always)]
fn head(kind: u8, key: &Key<'_>, value: usize) -> u64 {
    u64::from(kind) | (key.text.len() as u64) << 8 | (value as u64) << 32
}

/// Canonical values, ready to be appended to the members of any event.
pub(crate) fn ready(context: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, json) in context {
        out.extend_from_slice(&head(JSON, &Key::new(key), json.len()).to_le_bytes());
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(json.as_bytes());
    }
    out
}

struct Member<'a> {
    name: &'a str,
    kind: u8,
    value: &'a [u8],
}

fn next<'a>(bytes: &mut &'a [u8]) -> Option<Member<'a>> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let [kind, a, b, c, value @ ..] = *head;
    let (name, rest) = rest.split_at_checked(u32::from_le_bytes([a, b, c, 0]) as usize)?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(value) as usize)?;
    *bytes = rest;
    // Only text was ever put in.
    Some(Member { name: std::str::from_utf8(name).ok()?, kind, value })
}

impl Member<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let number = || self.value.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
        let text = || std::str::from_utf8(self.value).unwrap_or_default();
        quote_into(self.name, out);
        out.push(b':');
        match self.kind {
            BOOL => out.extend_from_slice(if number() == 0 { b"false" } else { b"true" }),
            I64 => {
                let number = number().cast_signed();
                if number < 0 {
                    out.push(b'-');
                }
                write_u64(number.unsigned_abs(), out);
            }
            U64 => write_u64(number(), out),
            TEXT => quote_into(text(), out),
            _ => out.extend_from_slice(text().as_bytes()),
        }
    }
}

/// Appends the canonical JSON of members.
fn json(mut bytes: &[u8], out: &mut Vec<u8>) {
    let mut members: Vec<_> = std::iter::from_fn(|| next(&mut bytes)).collect();
    members.sort_by(|a, b| utf16_cmp(a.name, b.name));
    out.push(b'{');
    for (i, member) in members.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        member.write(out);
    }
    out.push(b'}');
}

/// Appends an entry as it is read: with its context as JSON.
pub(crate) fn open_into(entry: Queued<'_>, out: &mut Vec<u8>) {
    entry.open_into(out, json);
}
