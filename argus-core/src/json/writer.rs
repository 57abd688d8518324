//! `JsonWriter` puts one canonical JSON value together at the end of a byte buffer: escapes text, sorts members, refuses duplicates and reserved keys,
//! bounds the depth, withholds the values of sensitive keys. Members are written as they come and put in order when their object ends.

use std::cmp::Ordering;

use super::{JsonError, MAX_DEPTH, number};
use crate::redaction::{DEEP_MARKER, MARKER, Redaction};

const HEX: &[u8; 16] = b"0123456789abcdef";

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
    /// Its first eight bytes as a number, which orders most names. (To read back bytes just written stalls the processor.)
    prefix: u64,
}

/// Buffers that are kept between values, so that encoding allocates nothing in the long run.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    slots: Vec<Slot>,
    sorted: Vec<u8>,
    /// Buffers for the names of maps.
    texts: Vec<String>,
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

    pub(crate) fn bool(&mut self, v: bool) {
        self.out.extend_from_slice(if v { b"true" } else { b"false" });
    }

    pub(crate) fn i64(&mut self, v: i64) {
        if v < 0 {
            self.out.push(b'-');
        }
        self.u64(v.unsigned_abs());
    }

    pub(crate) fn u64(&mut self, v: u64) {
        write_u64(v, self.out);
    }

    pub(crate) fn f64(&mut self, v: f64) -> Result<(), JsonError> {
        number::write_double(v, self.out)
    }

    pub(crate) fn literal(&mut self, literal: &str) -> Result<(), JsonError> {
        number::write_literal(literal, self.source == Source::Stored, self.out)
    }

    pub(crate) fn string(&mut self, s: &str) {
        self.out.push(b'"');
        escape_into(s, self.out);
        self.out.push(b'"');
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

    /// A buffer for text; `give_text` takes it back.
    pub(super) fn take_text(&mut self) -> String {
        self.scratch.texts.pop().unwrap_or_default()
    }

    pub(super) fn give_text(&mut self, text: String) {
        if text.capacity() > 0 {
            self.scratch.texts.push(text);
        }
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
        Open { start: self.out.len(), slots: self.scratch.slots.len(), first: true }
    }

    fn open(&mut self, bracket: u8) -> Result<Open, JsonError> {
        if self.depth == MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.depth += 1;
        self.out.push(bracket);
        Ok(Open { start: self.out.len(), slots: self.scratch.slots.len(), first: true })
    }

    /// Begins a member; its value is to be written next, then `end_member`.
    pub(crate) fn key(&mut self, open: &mut Open, key: &str) -> Result<(), JsonError> {
        self.key_with(open, key, prefix(key))
    }

    /// The same for a name whose `prefix` is known.
    #[inline]
    pub(crate) fn key_with(&mut self, open: &mut Open, key: &str, prefix: u64) -> Result<(), JsonError> {
        if self.source == Source::Caller && key.starts_with(crate::redaction::RESERVED) {
            return Err(JsonError::ReservedKey(key.into()));
        }
        if !std::mem::take(&mut open.first) {
            self.out.push(b',');
        }
        let start = self.out.len();
        self.out.push(b'"');
        // A short name is its prefix; letters that need nothing fill it up.
        let (escapes, foreign) = match key.len() {
            n @ 1..=8 => {
                let word = prefix | (LOW * u64::from(b'a')).checked_shr(8 * n as u32).unwrap_or(0);
                (escapes_in(word) != 0, word & HIGH != 0)
            }
            _ => scan(key.as_bytes()),
        };
        let plain = !escapes && !foreign;
        if escapes {
            escape_slowly(key.as_bytes(), self.out);
        } else {
            self.out.extend_from_slice(key.as_bytes());
        }
        self.out.extend_from_slice(b"\":");
        self.scratch.slots.push(Slot { key: start, value: self.out.len(), end: 0, plain, prefix });
        Ok(())
    }

    /// Ends the member begun last. `key` is its name, for redaction.
    pub(crate) fn end_member(&mut self, key: &str) {
        let Some(slot) = self.scratch.slots.last_mut() else { return };
        if self.source == Source::Caller && self.redaction.hides(key) {
            // An empty value tells nothing, and hiding it would tell that there was one.
            let value = self.out.get(slot.value..).unwrap_or_default();
            if !matches!(value, b"null" | b"\"\"" | b"{}" | b"[]") {
                self.out.truncate(slot.value);
                // Where an object would be too deep, a text stands for it.
                let marker = if self.depth < MAX_DEPTH { MARKER } else { DEEP_MARKER };
                self.out.extend_from_slice(marker.as_bytes());
            }
        }
        slot.end = self.out.len();
    }

    pub(crate) fn close_object(&mut self, open: Open) -> Result<(), JsonError> {
        self.depth -= 1;
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
        self.scratch.slots.truncate(open.slots);
        self.out.push(b'}');
        Ok(())
    }
}

/// Decimal digits.
pub(crate) fn write_u64(mut v: u64, out: &mut Vec<u8>) {
    let mut buf = [0u8; 20];
    let mut at = buf.len();
    loop {
        at -= 1;
        buf[at] = b'0' + (v % 10) as u8;
        v /= 10;
        if v == 0 {
            break;
        }
    }
    out.extend_from_slice(&buf[at..]);
}

/// The first eight bytes, the first of them the most significant, shorter names filled up with zeros: in the order of the bytes.
#[inline]
pub(crate) fn prefix(s: &str) -> u64 {
    let b = s.as_bytes();
    if let Some(first) = b.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    match (b.first_chunk(), b.last_chunk()) {
        // The two overlap, and where they do they agree.
        (Some(first), Some(last)) => {
            let (first, last) = (u32::from_be_bytes(*first), u32::from_be_bytes(*last));
            u64::from(first) << 32 | u64::from(last) << (8 * (8 - b.len()))
        }
        _ => b.iter().zip([56, 48, 40]).fold(0, |p, (c, shift)| p | u64::from(*c) << shift),
    }
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// High bits are set in the bytes of `word` that need an escape. (It may also mark a byte above one that does; never one alone.)
#[inline]
fn escapes_in(word: u64) -> u64 {
    let zero = |w: u64| w.wrapping_sub(LOW) & !w;
    let (quote, backslash) = (word ^ (LOW * 0x22), word ^ (LOW * 0x5c));
    ((word.wrapping_sub(LOW * 0x20) & !word) | zero(quote) | zero(backslash)) & HIGH
}

/// Whether any byte of `s` needs an escape, and whether any is no ASCII: eight bytes at a time.
#[inline]
fn scan(s: &[u8]) -> (bool, bool) {
    let (mut escapes, mut foreign) = (0, 0);
    let mut look = |word: u64| {
        escapes |= escapes_in(word);
        foreign |= word & HIGH;
    };
    let (words, rest) = s.as_chunks();
    words.iter().for_each(|w| look(u64::from_le_bytes(*w)));
    if !rest.is_empty() {
        let four = |c: &[u8; 4]| u64::from(u32::from_le_bytes(*c));
        if let Some(last) = s.last_chunk() {
            look(u64::from_le_bytes(*last));
        } else if let (Some(first), Some(last)) = (s.first_chunk(), s.last_chunk()) {
            look(four(first) | four(last) << 32);
        } else {
            // At most three; the rest are letters that need nothing.
            look(rest.iter().fold(LOW * u64::from(b'a'), |w, b| w << 8 | u64::from(*b)));
        }
    }
    (escapes != 0, foreign != 0)
}

/// Whether `s` has a NUL. That is one of those that need an escape, and most texts have none.
#[inline]
pub(crate) fn has_nul(s: &str) -> bool {
    scan(s.as_bytes()).0 && s.as_bytes().contains(&0)
}

/// Appends `s` as the inside of a canonical JSON string.
#[inline]
pub(crate) fn escape_into(s: &str, out: &mut Vec<u8>) {
    let bytes = s.as_bytes();
    if scan(bytes).0 {
        escape_slowly(bytes, out);
    } else {
        out.extend_from_slice(bytes);
    }
}

#[cold]
fn escape_slowly(bytes: &[u8], out: &mut Vec<u8>) {
    for &b in bytes {
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0a => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            0x0d => out.extend_from_slice(b"\\r"),
            0..=0x1f => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(b >> 4)]);
                out.push(HEX[usize::from(b & 15)]);
            }
            _ => out.push(b),
        }
    }
}

/// Length of what `escape_into` writes.
pub(crate) fn escaped_len(s: &str) -> usize {
    s.bytes()
        .map(|b| match b {
            b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 2,
            0..=0x1f => 6,
            _ => 1,
        })
        .sum()
}

/// Order of two names by UTF-16 code units.
pub(crate) fn utf16_cmp(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() { a.as_bytes().cmp(b.as_bytes()) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

/// The same order, from the names' `prefix` where that decides.
#[inline]
pub(crate) fn prefixed_cmp<'a>(a: (u64, impl Fn() -> &'a str), b: (u64, impl Fn() -> &'a str)) -> Ordering {
    if a.0 != b.0 && (a.0 | b.0) & HIGH == 0 { a.0.cmp(&b.0) } else { utf16_cmp(a.1(), b.1()) }
}

/// The same order for two escaped names of which one at least is not plain.
#[cold]
fn escaped_cmp(a: &[u8], b: &[u8]) -> Ordering {
    let text = |s: &[u8]| super::unescape(&String::from_utf8_lossy(s)).into_owned();
    utf16_cmp(&text(a), &text(b))
}
