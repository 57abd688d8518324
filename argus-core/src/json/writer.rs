//! `JsonWriter` puts one canonical JSON value together at the end of a byte buffer: escapes text, sorts members, refuses duplicates and reserved keys,
//! bounds the depth, withholds the values of sensitive keys. Members are written as they come and, where
//! they came in another order than the canonical one, put in order when their object ends. The outermost object's may be left as they come (`members.rs`).

use std::cmp::Ordering;

use super::text::{self, Key, utf16_cmp};
use super::{Fault, JsonError, MAX_DEPTH, number};
use crate::members::{self, Kind};
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
    /// If the value is an object, its members are left as they come.
    may_wait: bool,
    /// They are. (So `depth` 1 is such a member.)
    waits: bool,
    /// What comes next is the value of one, and no array or object: it needs no JSON.
    plain: bool,
    /// The one begun last.
    member: Waiting,
}

/// A member that is left as it comes.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    name: usize,
    value: usize,
    prefix: u64,
    kind: Kind,
    hidden: bool,
}

impl Waiting {
    const NONE: Self = Self { name: 0, value: 0, prefix: 0, kind: Kind::Json, hidden: false };
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
        Self {
            out,
            scratch,
            redaction,
            source,
            depth: 0,
            may_wait: false,
            waits: false,
            plain: false,
            member: Waiting::NONE,
        }
    }

    /// Leaves the members of the value, should it be an object, as they come: whoever opens the entry makes them JSON.
    pub(crate) fn let_members_wait(&mut self) {
        self.may_wait = true;
    }

    /// Whether that is how the value stands there.
    pub(crate) fn members_wait(&self) -> bool {
        self.waits
    }

    /// Whether a scalar needs no JSON, since it is the value of a member that is left as it comes.
    #[inline(always)]
    fn as_it_comes(&mut self, kind: Kind) -> bool {
        let plain = std::mem::take(&mut self.plain);
        if plain {
            self.member.kind = kind;
        }
        plain
    }

    pub(crate) fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }

    #[inline(always)]
    pub(crate) fn bool(&mut self, v: bool) {
        if self.as_it_comes(Kind::Bool) {
            self.out.extend_from_slice(&u64::from(v).to_le_bytes());
        } else if v {
            self.out.extend_from_slice(b"true");
        } else {
            self.out.extend_from_slice(b"false");
        }
    }

    #[inline(always)]
    pub(crate) fn i64(&mut self, v: i64) {
        if self.as_it_comes(Kind::I64) {
            return self.out.extend_from_slice(&v.to_le_bytes());
        }
        if v < 0 {
            self.out.push(b'-');
        }
        text::write_u64(v.unsigned_abs(), self.out);
    }

    #[inline(always)]
    pub(crate) fn u64(&mut self, v: u64) {
        if self.as_it_comes(Kind::U64) {
            return self.out.extend_from_slice(&v.to_le_bytes());
        }
        text::write_u64(v, self.out);
    }

    pub(crate) fn f64(&mut self, v: f64) -> Result<(), Fault> {
        Ok(number::write_double(v, self.out)?)
    }

    pub(crate) fn literal(&mut self, literal: &str) -> Result<(), Fault> {
        Ok(number::write_literal(literal, self.source == Source::Stored, self.out)?)
    }

    #[inline(always)]
    pub(crate) fn string(&mut self, s: &str) {
        if self.as_it_comes(Kind::Text) {
            return text::append_plainly(s.as_bytes(), self.out);
        }
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
        if depth == 0 {
            (self.waits, self.plain) = (false, false);
        }
        self.out.truncate(position);
        let keep = self.scratch.slots.iter().take_while(|s| s.key < position).count();
        self.scratch.slots.truncate(keep);
    }

    pub(super) fn open_array(&mut self) -> Result<Open, Fault> {
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

    #[inline(always)]
    pub(crate) fn open_object(&mut self) -> Result<Open, Fault> {
        if self.depth == 0 && self.may_wait {
            (self.depth, self.waits) = (1, true);
            return Ok(self.open_none());
        }
        self.open(b'{')
    }

    /// Stands for what has no brackets.
    pub(super) fn open_none(&self) -> Open {
        Open { start: self.out.len(), slots: self.scratch.slots.len(), first: true, sorted: true }
    }

    fn open(&mut self, bracket: u8) -> Result<Open, Fault> {
        if self.depth == MAX_DEPTH {
            return Err(JsonError::TooDeep.into());
        }
        self.depth += 1;
        self.plain = false;
        self.out.push(bracket);
        Ok(Open { start: self.out.len(), slots: self.scratch.slots.len(), first: true, sorted: true })
    }

    /// Begins a member; its value is to be written next, then `end_member`.
    #[inline(always)]
    pub(crate) fn key(&mut self, open: &mut Open, key: &str) -> Result<(), Fault> {
        if self.at_waiting() { self.waiting_name(open, key) } else { self.ordered_name(open, key) }
    }

    /// Whether members are left as they come.
    #[inline(always)]
    fn at_waiting(&self) -> bool {
        self.depth == 1 && self.waits
    }

    #[inline(never)]
    fn waiting_name(&mut self, open: &mut Open, key: &str) -> Result<(), Fault> {
        let key = Key::new(key);
        self.check_name(&key)?;
        let hidden = self.hides(&key);
        members::begin(&key, self.out);
        // Not the first one, and not behind the one before.
        if !std::mem::take(&mut open.first) && self.member.prefix >= key.prefix {
            open.sorted = false;
        }
        let value = self.out.len();
        self.member = Waiting { name: value - key.text.len(), value, prefix: key.prefix, kind: Kind::Json, hidden };
        self.plain = !hidden;
        Ok(())
    }

    #[inline(never)]
    fn ordered_name(&mut self, open: &mut Open, key: &str) -> Result<(), Fault> {
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
    pub(crate) fn name(&mut self, open: &mut Open, key: &Key<'_>) -> Result<(), Fault> {
        self.check_name(key)?;
        key.write(std::mem::take(&mut open.first), self.out);
        Ok(())
    }

    #[inline(always)]
    fn check_name(&self, key: &Key<'_>) -> Result<(), Fault> {
        if key.reserved && self.source == Source::Caller { Err(reserved(key.text)) } else { Ok(()) }
    }

    #[inline(always)]
    fn hides(&self, key: &Key<'_>) -> bool {
        self.redaction.hides_ending(key.ending, key.text) && self.source == Source::Caller
    }

    /// Ends the member begun last.
    #[inline]
    pub(crate) fn end_member(&mut self) {
        if self.at_waiting() {
            return self.end_waiting();
        }
        let Some(Slot { value, hidden, .. }) = self.scratch.slots.last().copied() else { return };
        if hidden {
            self.withhold(value);
        }
        if let Some(slot) = self.scratch.slots.last_mut() {
            slot.end = self.out.len();
        }
    }

    #[inline(always)]
    fn end_waiting(&mut self) {
        let Waiting { name, value, kind, hidden, .. } = self.member;
        if hidden {
            self.withhold(value);
        }
        members::end(kind, name, value, self.out);
        self.plain = false;
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
    pub(crate) fn close_object(&mut self, open: Open) -> Result<(), Fault> {
        self.depth -= 1;
        if self.depth == 0 && self.waits {
            return self.close_waiting(&open);
        }
        if !open.sorted {
            self.sort(&open)?;
        }
        self.scratch.slots.truncate(open.slots);
        self.out.push(b'}');
        Ok(())
    }

    /// Ends members that are left as they come.
    #[inline(always)]
    fn close_waiting(&mut self, open: &Open) -> Result<(), Fault> {
        let many = self.out.len() - open.start > members::MOST_BYTES;
        if many || !open.sorted { self.order_waiting(open, many) } else { Ok(()) }
    }

    /// Refuses a name that comes twice. Many bytes of members become JSON after all: so an entry is not much longer than its record.
    #[inline(never)]
    fn order_waiting(&mut self, open: &Open, to_json: bool) -> Result<(), Fault> {
        let Scratch { slots, sorted } = &mut *self.scratch;
        let text = self.out.get(open.start..).unwrap_or_default();
        if text.len() > members::TOO_MANY_BYTES {
            // Whatever it would be as JSON: accept refuses it by its length.
            self.waits = false;
            return Ok(());
        }
        slots.extend(members::places(text).map(|(name, end)| {
            let Key { prefix, plain, .. } = Key::new(std::str::from_utf8(name).unwrap_or_default());
            Slot { key: end - name.len(), value: end, end, plain, hidden: false, prefix }
        }));
        let slots = slots.get_mut(open.slots..).unwrap_or_default();
        let name = |s: &Slot| text.get(s.key..s.value).unwrap_or_default();
        slots.sort_unstable_by(|a, b| {
            if !(a.plain && b.plain) {
                return utf16_cmp(&String::from_utf8_lossy(name(a)), &String::from_utf8_lossy(name(b)));
            }
            a.prefix.cmp(&b.prefix).then_with(|| name(a).cmp(name(b)))
        });
        if let Some(pair) = slots.windows(2).find(|p| p[0].prefix == p[1].prefix && name(&p[0]) == name(&p[1])) {
            return Err(JsonError::DuplicateKey(String::from_utf8_lossy(name(&pair[0])).into_owned()).into());
        }
        if to_json {
            sorted.clear();
            members::to_json(slots.iter().filter_map(|s| members::at(text, s.key)), sorted);
            self.out.truncate(open.start);
            self.out.extend_from_slice(sorted);
            self.waits = false;
        }
        self.scratch.slots.truncate(open.slots);
        Ok(())
    }

    /// Puts the members of an object in order.
    fn sort(&mut self, open: &Open) -> Result<(), Fault> {
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
                let name = super::unescape(&String::from_utf8_lossy(key(&pair[0]))).into_owned();
                return Err(JsonError::DuplicateKey(name).into());
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
fn reserved(key: &str) -> Fault {
    JsonError::ReservedKey(key.into()).into()
}

/// The same order for two escaped names of which one at least is not plain.
#[cold]
fn escaped_cmp(a: &[u8], b: &[u8]) -> Ordering {
    let text = |s: &[u8]| super::unescape(&String::from_utf8_lossy(s)).into_owned();
    utf16_cmp(&text(a), &text(b))
}
