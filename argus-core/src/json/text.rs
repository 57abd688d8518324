//! Text and digits of canonical JSON, appended to bytes. A text is looked at eight bytes at a time; one of up to eight bytes is a number in a register, so that it is
//! looked at and put down in a few steps. Pure.

use std::cmp::Ordering;

use crate::redaction::{Ending, RESERVED};

const HEX: &[u8; 16] = b"0123456789abcdef";
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
/// Letters that need nothing.
pub(crate) const FILL: u64 = LOW * b'a' as u64;

/// What stands in a text.
#[derive(Clone, Copy, Default)]
struct Marks {
    escapes: u64,
    foreign: u64,
}

impl Marks {
    #[inline(always)]
    fn of(word: u64) -> Self {
        Self { escapes: escapes_in(word), foreign: word & HIGH }
    }

    /// The same of the first `len` bytes of `word`, at most eight; the others are zero.
    #[inline(always)]
    fn of_short(word: u64, len: usize) -> Self {
        Self::of(word | FILL.checked_shl(8 * len as u32).unwrap_or(0))
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self { escapes: self.escapes | other.escapes, foreign: self.foreign | other.foreign }
    }

    #[inline(always)]
    fn escapes(self) -> bool {
        self.escapes != 0
    }

    /// ASCII without escapes.
    #[inline(always)]
    fn plain(self) -> bool {
        self.escapes | self.foreign == 0
    }
}

/// High bits are set in the bytes of `word` that need an escape. (It may also mark a byte above one that does; never one alone.)
#[inline(always)]
fn escapes_in(word: u64) -> u64 {
    // With this bit turned, the quote stands right above the control characters, which keep among themselves.
    let below = (word ^ (LOW * 2)).wrapping_sub(LOW * 0x21);
    let backslash = (word ^ (LOW * 0x5c)).wrapping_sub(LOW);
    (below | backslash) & !word & HIGH
}

/// The first eight bytes as a number, the first of them the least significant, shorter texts filled up with zeros.
#[inline(always)]
pub(crate) fn word(b: &[u8]) -> u64 {
    if let Some(first) = b.first_chunk() {
        return u64::from_le_bytes(*first);
    }
    let four = |c: &[u8; 4]| u64::from(u32::from_le_bytes(*c));
    match (b.first_chunk(), b.last_chunk()) {
        // The two overlap, and where they do they agree.
        (Some(first), Some(last)) => four(first) | four(last) << (8 * (b.len() - 4)),
        _ => match *b {
            [a, b, c] => u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16,
            [a, b] => u64::from(a) | u64::from(b) << 8,
            [a] => a.into(),
            _ => 0,
        },
    }
}

/// The first eight bytes, the first of them the most significant: in the order of the bytes.
#[inline(always)]
pub(crate) fn prefix(b: &[u8]) -> u64 {
    word(b).swap_bytes()
}

/// Appends the first `len` bytes, the least significant first; at most sixteen. (A copy of a length that the compiler knows is no call.)
#[inline(always)]
fn push_bytes(out: &mut Vec<u8>, bytes: u128, len: usize) {
    let end = out.len() + len;
    out.extend_from_slice(&bytes.to_le_bytes());
    out.truncate(end);
}

/// The same of at most eight.
#[inline(always)]
fn push_word(out: &mut Vec<u8>, word: u64, len: usize) {
    let end = out.len() + len;
    out.extend_from_slice(&word.to_le_bytes());
    out.truncate(end);
}

/// What stands in a text of more than eight bytes.
#[inline(always)]
fn scan(s: &[u8]) -> Marks {
    let (words, _) = s.as_chunks();
    let marks = words.iter().fold(Marks::default(), |m, w| m.and(Marks::of(u64::from_le_bytes(*w))));
    // The last eight overlap what was looked at.
    marks.and(s.last_chunk().map_or(Marks::default(), |w| Marks::of(u64::from_le_bytes(*w))))
}

/// Appends a text as it is; true if any of it needs an escape in JSON.
#[inline(always)]
pub(super) fn append(b: &[u8], out: &mut Vec<u8>) -> bool {
    if b.len() > 8 {
        return append_long(b, out);
    }
    let word = word(b);
    push_word(out, word, b.len());
    Marks::of_short(word, b.len()).escapes()
}

#[inline(never)]
fn append_long(b: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(b);
    scan(b).escapes()
}

/// Appends `s` as the inside of a canonical JSON string.
#[inline]
pub(crate) fn escape_into(s: &str, out: &mut Vec<u8>) {
    escape_bytes(s.as_bytes(), out);
}

#[inline]
fn escape_bytes(b: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    if append(b, out) {
        out.truncate(start);
        escape_slowly(b, out);
    }
}

/// Appends `s` as a canonical JSON string.
#[inline(always)]
pub(crate) fn quote_into(s: &str, out: &mut Vec<u8>) {
    quote_bytes(s.as_bytes(), out);
}

/// The same of bytes that are UTF-8, or will be looked at again.
#[inline(always)]
pub(crate) fn quote_bytes(b: &[u8], out: &mut Vec<u8>) {
    if b.len() <= 8 {
        let word = word(b);
        if !Marks::of_short(word, b.len()).escapes() {
            push_bytes(out, u128::from(word) << 8 | u128::from(b'"'), b.len() + 1);
            return out.push(b'"');
        }
    }
    quote_long(b, out);
}

#[inline(never)]
fn quote_long(b: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    escape_bytes(b, out);
    out.push(b'"');
}

/// The name of a member of which no JSON is made here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    pub(crate) text: &'a str,
    /// The first eight bytes, the first of them the least significant.
    pub(crate) word: u64,
}

impl<'a> Name<'a> {
    #[inline(always)]
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, word: word(text.as_bytes()) }
    }

    /// Whether it is Argus's own.
    #[inline(always)]
    pub(crate) fn is_reserved(&self) -> bool {
        self.word & RESERVED_BYTES == RESERVED_WORD
    }
}

/// `RESERVED` as a number, and which bytes of a word it takes.
const RESERVED_WORD: u64 = {
    let (text, mut word, mut n) = (RESERVED.as_bytes(), 0, 0);
    while n < text.len() {
        word |= (text[n] as u64) << (8 * n);
        n += 1;
    }
    word
};
const RESERVED_BYTES: u64 = u64::MAX >> (64 - 8 * RESERVED.len());

/// The name of a member, with what must be known of it. All of that the compiler works out where the name is a literal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    pub(crate) text: &'a str,
    pub(crate) prefix: u64,
    pub(crate) ending: Ending,
    /// Some of it needs an escape.
    escapes: bool,
    /// ASCII without escapes: its bytes order as its UTF-16 does.
    pub(super) plain: bool,
    /// Argus's own.
    pub(crate) reserved: bool,
}

impl<'a> Key<'a> {
    /// What `new("")` is, worked out.
    pub(crate) const EMPTY: Key<'static> =
        Key { text: "", prefix: 0, ending: Ending::ANY, escapes: false, plain: true, reserved: false };

    #[inline(always)]
    pub(crate) fn new(text: &'a str) -> Self {
        let b = text.as_bytes();
        let prefix = prefix(b);
        let marks = if b.len() <= 8 { Marks::of_short(prefix.swap_bytes(), b.len()) } else { scan(b) };
        Self {
            text,
            prefix,
            ending: Ending::of(text),
            escapes: marks.escapes(),
            plain: marks.plain(),
            reserved: text.starts_with(RESERVED),
        }
    }

    /// The first eight bytes, the first of them the least significant.
    #[inline(always)]
    pub(crate) fn word(&self) -> u64 {
        self.prefix.swap_bytes()
    }

    /// One bit of 64, by its first eight bytes: the same for the same name.
    #[inline(always)]
    pub(crate) fn bit(&self) -> u64 {
        1 << (self.prefix.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
    }

    /// Whether it is the same name.
    #[inline(always)]
    pub(crate) fn is(&self, other: &Key<'_>) -> bool {
        self.prefix == other.prefix && self.text == other.text
    }

    /// Appends the name and its colon, and a comma before it unless it is the first.
    #[inline(always)]
    pub(super) fn write(&self, first: bool, out: &mut Vec<u8>) {
        if self.text.len() <= 8 && !self.escapes {
            let word = u128::from(self.prefix.swap_bytes());
            let (bytes, before) = if first { (word << 8 | 0x22, 1) } else { (word << 16 | 0x222c, 2) };
            push_bytes(out, bytes, before + self.text.len());
            out.extend_from_slice(b"\":");
        } else {
            self.write_long(first, out);
        }
    }

    #[inline(never)]
    fn write_long(&self, first: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(if first { b"\"" } else { b",\"".as_slice() });
        if self.escapes {
            escape_slowly(self.text.as_bytes(), out);
        } else {
            out.extend_from_slice(self.text.as_bytes());
        }
        out.extend_from_slice(b"\":");
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
pub(crate) fn escaped_len(s: impl AsRef<[u8]>) -> usize {
    s.as_ref()
        .iter()
        .map(|b| match b {
            b'"' | b'\\' | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d => 2,
            0..=0x1f => 6,
            _ => 1,
        })
        .sum()
}

/// Decimal digits.
#[inline(always)]
pub(crate) fn write_u64(v: u64, out: &mut Vec<u8>) {
    let Some(v) = u32::try_from(v).ok().filter(|v| *v < EIGHT) else { return write_long(v, out) };
    let (mut digits, mut len, mut rest) = (digit(v), 1, v / 10);
    while rest > 0 {
        (digits, len, rest) = (digits << 8 | digit(rest), len + 1, rest / 10);
    }
    push_word(out, digits, len);
}

/// The least number of more than eight digits.
const EIGHT: u32 = 100_000_000;

#[inline(always)]
fn digit(v: u32) -> u64 {
    u64::from(v % 10 + u32::from(b'0'))
}

#[inline(never)]
fn write_long(v: u64, out: &mut Vec<u8>) {
    write_u64(v / u64::from(EIGHT), out);
    let last = u32::try_from(v % u64::from(EIGHT)).unwrap_or(0);
    let (digits, _) = (0..8).fold((0, last), |(digits, rest), _| (digits << 8 | digit(rest), rest / 10));
    push_word(out, digits, 8);
}

/// Order of two names by UTF-16 code units.
#[inline(never)]
pub(crate) fn utf16_cmp(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() { a.as_bytes().cmp(b.as_bytes()) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

/// Which of two names stands behind the other in that order, if their `prefix` tells.
#[inline(always)]
pub(crate) fn is_behind(a: u64, b: u64) -> Option<bool> {
    (a != b && (a | b) & HIGH == 0).then_some(a > b)
}
