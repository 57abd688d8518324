//! `JsonWriter` puts one canonical JSON value together at the end of a byte buffer: escapes text, sorts members, refuses duplicates and reserved keys,
//! bounds the depth, withholds the values of sensitive keys. Members are written as they come and, where
//! they came in another order than the canonical one, put in order when their object ends.

use std::cmp::Ordering;

use super::text::{self, Key, utf16_cmp};
use super::{JsonError, MAX_DEPTH, number};
use crate::redaction::{DEEP_MARKER, MARKER, Redaction};

/// Where a value comes from: a caller, who may not use reserved keys, or a stored record, which may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Caller,
    Stored,
}

/// One member of an object that is still open: where its key and value stand in the buffer.
#[derive(Clone, Copy, Debug)]
struct Slot {
    key: usize,
    value: usize,
    end: usize,
    /// The name is ASCII without escapes: its bytes order as its UTF-16 does.
    plain: bool,
    /// Its value is withheld.
    hidden: bool,
    /// Its first eight bytes as a number, which orders most names. (To read back bytes just written stalls the processor.)
    prefix: u64,
}

/// Buffers that are kept between values, so that encoding allocates nothing in the long run.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    slots: Vec<Slot>,
    sorted: Vec<u8>,
}

/// Writes canonical JSON. Made by Argus only; it is public because [`EncodeJson`](crate::EncodeJson) names it.
#[derive(Debug)]
pub struct JsonWriter<'w> {
    pub(super) out: &'w mut Vec<u8>,
    scratch: &'w mut Scratch,
    redaction: &'w Redaction,
    pub(super) source: Source,
    depth: usize,
}

/// An object or array that is open.
#[derive(Debug)]
pub(crate) struct Open {
    start: usize,
    slots: usize,
    pub(crate) first: bool,
    /// Each name so far is known to come after the one before.
    sorted: bool,
}

impl<'w> JsonWriter<'w> {
    pub(crate) fn new(
        out: &'w mut Vec<u8>,
        scratch: &'w mut Scratch,
        redaction: &'w Redaction,
        source: Source,
    ) -> Self {
        scratch.slots.clear();
        Self { out, scratch, redaction, source, depth: 0 }
    }

    pub(crate) fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }

    #[inline(always)]
    pub(crate) fn bool(&mut self, v: bool) {
        if v { self.out.extend_from_slice(b"true") } else { self.out.extend_from_slice(b"false") }
    }

    #[inline(always)]
    pub(crate) fn i64(&mut self, v: i64) {
        if v < 0 {
            self.out.push(b'-');
        }
        self.u64(v.unsigned_abs());
    }

    #[inline(always)]
    pub(crate) fn u64(&mut self, v: u64) {
        text::write_u64(v, self.out);
    }

    pub(crate) fn f64(&mut self, v: f64) -> Result<(), JsonError> {
        number::write_double(v, self.out)
    }

    pub(crate) fn literal(&mut self, literal: &str) -> Result<(), JsonError> {
        number::write_literal(literal, self.source == Source::Stored, self.out)
    }

    #[inline(always)]
    pub(crate) fn string(&mut self, s: &str) {
        text::quote_into(s, self.out);
    }

    /// Bytes written so far.
    pub(crate) fn position(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Writes text that is canonical already.
    pub(crate) fn raw(&mut self, canonical: &str) {
        self.out.extend_from_slice(canonical.as_bytes());
    }

    /// Takes back what was written since `position`, where `depth` objects and arrays were open.
    pub(crate) fn rewind(&mut self, position: usize, depth: usize) {
        self.depth = depth;
        self.out.truncate(position);
        let keep = self.scratch.slots.iter().take_while(|s| s.key < position).count();
        self.scratch.slots.truncate(keep);
    }

    pub(super) fn open_array(&mut self) -> Result<Open, JsonError> {
        self.open(b'[')
    }

    pub(super) fn element(&mut self, open: &mut Open) {
        if !std::mem::take(&mut open.first) {
            self.out.push(b',');
        }
    }

    pub(super) fn close_array(&mut self, _open: Open) {
        self.depth -= 1;
        self.out.push(b']');
    }

    pub(crate) fn open_object(&mut self) -> Result<Open, JsonError> {
        self.open(b'{')
    }

    /// Stands for a value that is written whole, without brackets of its own.
    pub(super) fn open_none(&self) -> Open {
        Open { start: self.out.len(), slots: self.scratch.slots.len(), first: true, sorted: true }
    }

    fn open(&mut self, bracket: u8) -> Result<Open, JsonError> {
        if self.depth == MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.depth += 1;
        self.out.push(bracket);
        Ok(Open { start: self.out.len(), slots: self.scratch.slots.len(), first: true, sorted: true })
    }

    /// Begins a member; its value is to be written next, then `end_member`.
    #[inline(never)]
    pub(crate) fn key(&mut self, open: &mut Open, key: &str) -> Result<(), JsonError> {
        let (start, key) = (self.out.len() + usize::from(!open.first), Key::new(key));
        self.name(open, &key)?;
        let Key { plain, prefix, .. } = key;
        let before = self.scratch.slots.get(open.slots..).and_then(<[Slot]>::last);
        open.sorted &= before.is_none_or(|b| b.plain && plain && b.prefix < prefix);
        let hidden = self.hides(&key);
        self.scratch.slots.push(Slot { key: start, value: self.out.len(), end: 0, plain, hidden, prefix });
        Ok(())
    }

    /// Writes the name of a member, for who keeps order and withholds by himself.
    #[inline(always)]
    pub(crate) fn name(&mut self, open: &mut Open, key: &Key<'_>) -> Result<(), JsonError> {
        if key.reserved && self.source == Source::Caller {
            return Err(reserved(key.text));
        }
        key.write(std::mem::take(&mut open.first), self.out);
        Ok(())
    }

    #[inline(always)]
    fn hides(&self, key: &Key<'_>) -> bool {
        self.redaction.hides_ending(key.ending, key.text) && self.source == Source::Caller
    }

    /// Ends the member begun last.
    #[inline]
    pub(crate) fn end_member(&mut self) {
        let Some(Slot { value, hidden, .. }) = self.scratch.slots.last().copied() else { return };
        if hidden {
            self.withhold(value);
        }
        if let Some(slot) = self.scratch.slots.last_mut() {
            slot.end = self.out.len();
        }
    }

    /// Withholds the value that stands from `value` to the end, if `key` says so.
    #[inline(always)]
    pub(crate) fn redact(&mut self, key: &Key<'_>, value: usize) {
        if self.hides(key) {
            self.withhold(value);
        }
    }

    #[cold]
    fn withhold(&mut self, value: usize) {
        // An empty value tells nothing, and hiding it would tell that there was one.
        if !matches!(self.out.get(value..).unwrap_or_default(), b"null" | b"\"\"" | b"{}" | b"[]") {
            self.out.truncate(value);
            // Where an object would be too deep, a text stands for it.
            let marker = if self.depth < MAX_DEPTH { MARKER } else { DEEP_MARKER };
            self.out.extend_from_slice(marker.as_bytes());
        }
    }

    #[inline]
    pub(crate) fn close_object(&mut self, open: Open) -> Result<(), JsonError> {
        self.depth -= 1;
        if !open.sorted {
            self.sort(&open)?;
        }
        self.scratch.slots.truncate(open.slots);
        self.out.push(b'}');
        Ok(())
    }

    /// Puts the members of an object in order.
    fn sort(&mut self, open: &Open) -> Result<(), JsonError> {
        let slots = self.scratch.slots.get_mut(open.slots..).unwrap_or_default();
        let text = self.out.as_slice();
        let key = |s: &Slot| text.get(s.key + 1..s.value.saturating_sub(2)).unwrap_or_default();
        let order = |a: &Slot, b: &Slot| {
            if !(a.plain && b.plain) {
                return escaped_cmp(key(a), key(b));
            }
            a.prefix.cmp(&b.prefix).then_with(|| key(a).cmp(key(b)))
        };
        let sorted = slots.is_sorted_by(|a, b| order(a, b) == Ordering::Less);
        if !sorted {
            slots.sort_unstable_by(order);
            if let Some(pair) = slots.windows(2).find(|p| p[0].prefix == p[1].prefix && key(&p[0]) == key(&p[1])) {
                return Err(JsonError::DuplicateKey(String::from_utf8_lossy(key(&pair[0])).into_owned()));
            }
            self.scratch.sorted.clear();
            for (i, s) in slots.iter().enumerate() {
                if i > 0 {
                    self.scratch.sorted.push(b',');
                }
                self.scratch.sorted.extend_from_slice(text.get(s.key..s.end).unwrap_or_default());
            }
            self.out.truncate(open.start);
            self.out.extend_from_slice(&self.scratch.sorted);
        }
        Ok(())
    }
}

#[cold]
fn reserved(key: &str) -> JsonError {
    JsonError::ReservedKey(key.into())
}

/// The same order for two escaped names of which one at least is not plain.
#[cold]
fn escaped_cmp(a: &[u8], b: &[u8]) -> Ordering {
    let text = |s: &[u8]| super::unescape(&String::from_utf8_lossy(s)).into_owned();
    utf16_cmp(&text(a), &text(b))
}
