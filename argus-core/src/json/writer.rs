//! `JsonWriter` puts one canonical JSON value together at the end of a byte buffer: escapes text, sorts members, refuses duplicates and reserved keys,
//! bounds the depth, withholds the values of sensitive keys. Members are written as they come and, where
//! they came in another order than the canonical one, put in order when their object ends. The outermost object's may be left as they come (`members.rs`).

use std::cmp::Ordering;

use super::text::{self, Key, Name, utf16_cmp};
use super::{Fault, JsonError, MAX_DEPTH, number};
use crate::entry::MemberValue;
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
    /// The one begun last, and the prefix of the last one.
    member: Waiting,
    /// How many objects and arrays were open where the outermost value began, unless that is `Some`.
    pub(super) top: Option<usize>,
    /// The outermost value is `None`.
    pub(super) absent: bool,
}

/// A member that is left as it comes.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    name: usize,
    value: usize,
    prefix: u64,
    hidden: bool,
}

impl Waiting {
    const NONE: Self = Self { name: 0, value: 0, prefix: 0, hidden: false };
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
            member: Waiting::NONE,
            top: None,
            absent: false,
        }
    }

    /// Another value begins, whatever became of the one before. If its members may wait and it is an object, they are left as they come: whoever opens the entry makes
    /// them JSON.
    #[inline(always)]
    pub(crate) fn begin_value(&mut self, may_wait: bool) {
        self.scratch.slots.clear();
        (self.depth, self.may_wait, self.waits) = (0, may_wait, false);
    }

    /// Whether that is how the value stands there.
    pub(crate) fn members_wait(&self) -> bool {
        self.waits
    }

    pub(crate) fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }

    #[inline(always)]
    pub(crate) fn bool(&mut self, v: bool) {
        self.out.extend_from_slice(if v { b"true" } else { b"false" });
    }

    #[inline(always)]
    pub(crate) fn i64(&mut self, v: i64) {
        if v < 0 {
            self.out.push(b'-');
        }
        text::write_u64(v.unsigned_abs(), self.out);
    }

    #[inline(always)]
    pub(crate) fn u64(&mut self, v: u64) {
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
            self.waits = false;
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

    pub(super) fn close_array(&mut self) {
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
    pub(super) fn at_waiting(&self) -> bool {
        self.depth == 1 && self.waits
    }

    #[inline(never)]
    fn waiting_name(&mut self, open: &mut Open, key: &str) -> Result<(), Fault> {
        let name = Name::new(key);
        self.next_waiting(open, &name)?;
        self.begin_waiting(&name);
        Ok(())
    }

    /// Looks at the name of a member that is left as it comes, before it is written.
    #[inline(always)]
    pub(super) fn next_waiting(&mut self, open: &mut Open, name: &Name<'_>) -> Result<(), Fault> {
        if name.is_reserved() && self.source == Source::Caller {
            return Err(reserved(name.text));
        }
        let prefix = name.word.swap_bytes();
        if open.first {
            open.first = false;
        } else if self.member.prefix >= prefix {
            // It is not behind the one before.
            open.sorted = false;
        }
        self.member.prefix = prefix;
        Ok(())
    }

    /// Begins such a member: JSON is to be written next, then `end_member`.
    pub(super) fn begin_waiting(&mut self, name: &Name<'_>) {
        members::begin(name, self.out);
        let value = self.out.len();
        let hidden = self.hides_name(name);
        self.member = Waiting { name: value - name.text.len(), value, hidden, ..self.member };
    }

    /// Writes such a member whole, whose value needs no JSON and is not withheld.
    #[inline(always)]
    pub(super) fn whole_waiting(&mut self, name: &Name<'_>, kind: Kind, value: MemberValue<'_>) {
        members::append(name, kind, value, self.out);
    }

    #[inline(always)]
    pub(super) fn hides_name(&self, name: &Name<'_>) -> bool {
        self.redaction.hides(name.text) && self.source == Source::Caller
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
        let Waiting { name, value, hidden, .. } = self.member;
        if hidden {
            self.withhold(value);
        }
        members::end(name, value, self.out);
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
    pub(crate) fn close_object(&mut self, open: &Open) -> Result<(), Fault> {
        self.depth -= 1;
        if self.depth == 0 && self.waits {
            return self.close_waiting(open);
        }
        if !open.sorted {
            self.sort(open)?;
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
