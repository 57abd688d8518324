//! The bytes of an accepted record on their way through the queue: a fixed head, then the texts. Written by accept, read by the writer and by recovery: it is the
//! form of the journal (`docs/record-format.md`, section 8). The carrier travels here too, though it is no part of the record.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::id::RecordId;
use crate::json::text;
use crate::level::{ActorType, Level, Outcome};
use crate::sink::{ObserverSet, Trace, TraceContext};

/// The texts of an entry, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Part {
    Event,
    Component,
    Context,
    FilePath,
    UserAgent,
    OldValue,
    NewValue,
    ActorId,
    Action,
    TraceState,
    /// Addresses, eight bytes each, of the process that wrote the entry; no text.
    Stack,
}

const PARTS: usize = 11;
/// The parts that are text.
const TEXTS: usize = PARTS - 1;
const LEN: usize = 0;
const CHECK: usize = 4;
const SEQ: usize = 8;
const ID: usize = 16;
/// From here on the check value counts, in one run; number and identity, which are known late, are mixed into it.
const SECS: usize = 32;
const NANOS: usize = 40;
const LEVEL: usize = 44;
const ACTOR: usize = 45;
const OUTCOME: usize = 46;
const TRACE: usize = 47;
const FLAGS: usize = 48;
const REMOTE: usize = 49;
/// Who made it, and what of it is written as members: any of the following.
const KIND: usize = 50;
/// Argus made it of itself.
const OWN: u8 = 1;
/// The parts that may be members, which are not yet in order and not yet JSON.
const MEMBERS: [(u8, Part); 3] = [(2, Part::Context), (4, Part::OldValue), (8, Part::NewValue)];

/// What says that a part is members, if it is one that may be.
const fn members_bit(part: usize) -> u8 {
    let mut i = 0;
    while i < MEMBERS.len() {
        if MEMBERS[i].1 as usize == part {
            return MEMBERS[i].0;
        }
        i += 1;
    }
    0
}
/// The stack is names already: said only of entries that were read back from a pending file.
const NAMED: usize = 51;
const TRACE_ID: usize = 52;
const SPAN_ID: usize = 68;
const OBSERVERS: usize = 76;
const LENGTHS: usize = 84;
/// Bytes before the texts.
pub(crate) const HEAD: usize = LENGTHS + 4 * PARTS;
const ABSENT: u32 = u32::MAX;

#[inline(always)]
fn put<const N: usize>(buf: &mut [u8], at: usize, bytes: [u8; N]) {
    if let Some(slot) = buf.get_mut(at..at + N) {
        slot.copy_from_slice(&bytes);
    }
}

fn get<const N: usize>(buf: &[u8], at: usize) -> [u8; N] {
    buf.get(at..at + N).and_then(|s| s.try_into().ok()).unwrap_or([0; N])
}

/// Room that must be left behind what is written: short texts are put down as whole words.
const SLACK: usize = 32;

/// Longer texts are not put down as words.
const SHORT: usize = 16;
/// The most that a member of a short name and a short text has: asked for once.
const WINDOW: usize = 8 + 2 * SHORT;

/// Writes one entry at the front of a buffer, whose length is room and no more: what a `Vec` asks at every push is asked once. Parts come in order.
pub(crate) struct EntryWriter<'b> {
    head: &'b mut [u8; HEAD],
    /// For the texts.
    room: &'b mut [u8],
    at: usize,
    kind: u8,
}

impl<'b> EntryWriter<'b> {
    /// For an entry with so many bytes of parts. (Always `Some`: there is room.)
    #[inline(always)]
    pub(crate) fn begin(buf: &'b mut Vec<u8>, parts: usize) -> Option<Self> {
        const EMPTY: [u8; HEAD] = {
            let mut head = [0; HEAD];
            let mut i = LENGTHS;
            while i < HEAD {
                head[i] = 0xff;
                i += 1;
            }
            head
        };
        let (head, room) = split(buf, parts)?;
        *head = EMPTY;
        Some(Self { head, room, at: 0, kind: 0 })
    }

    #[inline(always)]
    pub(crate) fn head(
        &mut self,
        level: Level,
        actor: Option<ActorType>,
        outcome: Option<Outcome>,
        secs: i64,
        nanos: u32,
    ) {
        put(self.head, SECS, secs.to_le_bytes());
        let (actor, outcome) = (actor.map_or(0, |a| a as u8 + 1), outcome.map_or(0, |o| o as u8 + 1));
        // As one word.
        let [a, b, c, d] = nanos.to_le_bytes();
        put(self.head, NANOS, [a, b, c, d, level as u8, actor, outcome, 0]);
    }

    #[inline(always)]
    pub(crate) fn carrier(&mut self, trace: Option<&TraceContext<'_>>, observers: ObserverSet) {
        if let Some(t) = trace {
            put(self.head, TRACE, [1, t.flags, u8::from(t.remote)]);
            put(self.head, TRACE_ID, t.trace_id);
            put(self.head, SPAN_ID, t.span_id);
        }
        put(self.head, OBSERVERS, observers.0.to_le_bytes());
    }

    /// Marks a record that Argus makes of itself.
    pub(crate) fn own(&mut self) {
        self.kind |= OWN;
    }

    /// A stack whose names are known.
    pub(crate) fn named_stack(&mut self, names: Option<&str>) {
        if names.is_some_and(|n| !n.is_empty()) {
            put(self.head, NAMED, [1]);
            self.text(Part::Stack, names);
        }
    }

    /// A text, unless it is empty.
    pub(crate) fn text(&mut self, part: Part, text: Option<&str>) {
        self.utf8(part, text.unwrap_or_default().as_bytes());
    }

    /// The same of bytes that are known to be UTF-8. True if there may be a NUL among them.
    #[inline(always)]
    pub(crate) fn utf8(&mut self, part: Part, text: &[u8]) -> bool {
        if text.is_empty() {
            return false;
        }
        let start = self.at;
        let zero = self.append(text);
        self.part(part, start);
        zero
    }

    /// A part of JSON, or of `members`.
    #[inline(always)]
    pub(crate) fn value(&mut self, part: Part, json: &[u8], members: bool) {
        const HALF: usize = 32;
        let (start, at) = (self.at, self.at);
        match (json.first_chunk(), json.last_chunk()) {
            (Some(first), Some(last)) if json.len() <= 2 * HALF => {
                put::<HALF>(self.room, at, *first);
                put::<HALF>(self.room, at + json.len() - HALF, *last);
            }
            _ => {
                if let Some(place) = self.room.get_mut(at..at + json.len()) {
                    place.copy_from_slice(json);
                }
            }
        }
        self.at += json.len();
        self.kind |= if members { members_bit(part as usize) } else { 0 };
        self.part(part, start);
    }

    /// The context as members that are opened later (see `members`), and how many bytes they may have as JSON but for escapes. `None` if `write` gave up. It does not
    /// get the room of the parts behind it, which have so many bytes.
    #[inline(always)]
    pub(crate) fn members(&mut self, behind: usize, write: impl FnOnce(&mut EntryWriter<'_>) -> bool) -> Option<usize> {
        let start = self.at;
        let most = self.room.len().saturating_sub(behind + SLACK);
        let mut lent = EntryWriter { head: self.head, room: self.room.get_mut(..most)?, at: start, kind: 0 };
        if !write(&mut lent) {
            return None;
        }
        self.at = lent.at;
        self.kind |= members_bit(Part::Context as usize);
        self.part(Part::Context, start);
        // A member's head is longer than its quotes, colon and comma; but the brackets count.
        Some(self.at - start + 2)
    }

    /// Goes back to where the context begins, behind so many bytes of texts, with room for so many bytes of parts in the same buffer.
    #[cold]
    pub(crate) fn again(buf: &'b mut Vec<u8>, texts: usize, parts: usize, own: bool) -> Option<Self> {
        let (head, room) = split(buf, parts)?;
        Some(Self { head, room, at: texts, kind: if own { OWN } else { 0 } })
    }

    /// A member, which is eight bytes, its name and its value; `word` has the first eight bytes of the name. False if there is no room.
    #[inline(always)]
    pub(crate) fn member(&mut self, head: u64, name: &[u8], word: u64, value: MemberValue<'_>) -> bool {
        let window = self.room.get_mut(self.at..).and_then(|r| r.first_chunk_mut::<WINDOW>());
        let long = matches!(value, MemberValue::Text(t) if t.len() > SHORT);
        let Some(window) = window.filter(|_| name.len() <= SHORT && !long) else {
            let at = long_member(self.room, self.at, head, name, value);
            self.at = at.unwrap_or(self.at);
            return at.is_some();
        };
        put(window, 0, head.to_le_bytes());
        put(window, 8, word.to_le_bytes());
        // Of a text of more than eight bytes the last eight, too. The two overlap, and where they do they agree.
        if let (true, Some(last)) = (name.len() > 8, name.last_chunk::<8>()) {
            put(window, name.len(), *last);
        }
        let at = 8 + name.len();
        self.at += at;
        match value {
            MemberValue::Word(number) => {
                put(window, at, number.to_le_bytes());
                self.at += 8;
            }
            MemberValue::Text(text) => {
                put(window, at, text::word(text).to_le_bytes());
                if let (true, Some(last)) = (text.len() > 8, text.last_chunk::<8>()) {
                    put(window, at + text.len() - 8, *last);
                }
                self.at += text.len();
            }
        }
        true
    }

    /// Lends itself to `write`, which tells where it came to. (By value: what is lent by reference is not kept in registers.)
    #[inline(always)]
    pub(crate) fn lend(&mut self, write: impl FnOnce(EntryWriter<'_>) -> Option<usize>) -> bool {
        let end = write(EntryWriter { head: self.head, room: self.room, at: self.at, kind: 0 });
        self.at = end.unwrap_or(self.at);
        end.is_some()
    }

    /// Where it stands, in the texts.
    #[inline(always)]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Whether so many bytes have room.
    #[inline(always)]
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.at + len + SLACK <= self.room.len()
    }

    #[inline(always)]
    fn part(&mut self, part: Part, start: usize) {
        let len = u32::try_from(self.at - start).unwrap_or(0);
        put(self.head, LENGTHS + 4 * part as usize, len.to_le_bytes());
    }

    /// Appends bytes as they are. True if there may be a NUL among them.
    #[inline(always)]
    pub(crate) fn append(&mut self, b: &[u8]) -> bool {
        let at = self.at;
        self.at += b.len();
        match (b.first_chunk(), b.last_chunk()) {
            (Some(first), Some(last)) if b.len() <= SHORT => {
                // The two overlap, and where they do they agree.
                put(self.room, at, *first);
                put(self.room, at + b.len() - 8, *last);
                has_zero(u64::from_le_bytes(*first)) || has_zero(u64::from_le_bytes(*last))
            }
            (Some(_), _) => match (b.first_chunk(), b.last_chunk()) {
                (Some(first), Some(last)) if b.len() <= 2 * SHORT => {
                    put::<SHORT>(self.room, at, *first);
                    put::<SHORT>(self.room, at + b.len() - SHORT, *last);
                    [first, last].iter().any(|half| half.as_chunks().0.iter().any(|w| has_zero(u64::from_le_bytes(*w))))
                }
                _ => append_long(self.room, at, b),
            },
            _ => {
                let word = text::word(b);
                put(self.room, at, word.to_le_bytes());
                has_zero(word | text::FILL << (8 * b.len() as u32))
            }
        }
    }

    /// Fills up, notes the length and returns it; `None` if the room was too short, which is a mistake of whoever said how much there would be. To whole words
    /// would do; but the check value is taken of sixteen bytes at a time, and slowly of a rest.
    #[inline(always)]
    pub(crate) fn end(self) -> Option<usize> {
        const { assert!(HEAD.is_multiple_of(16)) }
        let len = HEAD + self.at.next_multiple_of(16);
        // Whatever did not fit before leaves no room here.
        self.room.get_mut(self.at..self.at + SLACK / 2)?.copy_from_slice(&[0; SLACK / 2]);
        put(self.head, LEN, u32::try_from(len).unwrap_or(0).to_le_bytes());
        put(self.head, KIND, [self.kind]);
        Some(len)
    }
}

// Functions of what they need, not of the writer: so the compiler keeps the writer in registers.

#[inline(never)]
fn append_long(room: &mut [u8], at: usize, b: &[u8]) -> bool {
    if let Some(place) = room.get_mut(at..at + b.len()) {
        place.copy_from_slice(b);
    }
    let (words, rest) = b.as_chunks();
    // Without a way out early: so several words are looked at together.
    words.iter().fold(0, |m, w| m | zeros(u64::from_le_bytes(*w))) != 0 || rest.contains(&0)
}

/// A member as it comes, and where it ends; `None` if there is no room.
#[inline(never)]
fn long_member(room: &mut [u8], at: usize, head: u64, name: &[u8], value: MemberValue<'_>) -> Option<usize> {
    let number;
    let value = match value {
        MemberValue::Word(n) => {
            number = n.to_le_bytes();
            &number
        }
        MemberValue::Text(text) => text,
    };
    let end = at + 8 + name.len() + value.len();
    let place = room.get_mut(at..end + SLACK)?;
    let (start, place) = place.split_at_mut_checked(8)?;
    let (place, rest) = place.split_at_mut_checked(name.len())?;
    start.copy_from_slice(&head.to_le_bytes());
    place.copy_from_slice(name);
    rest.get_mut(..value.len())?.copy_from_slice(value);
    Some(end)
}

/// A member's value: a number, or bytes.
#[derive(Clone, Copy)]
pub(crate) enum MemberValue<'a> {
    Word(u64),
    Text(&'a [u8]),
}

/// The head of an entry and the room behind it, for so many bytes of parts.
#[inline(always)]
fn split(buf: &mut Vec<u8>, parts: usize) -> Option<(&mut [u8; HEAD], &mut [u8])> {
    if buf.len() < HEAD + parts + SLACK {
        grow(buf, HEAD + parts + SLACK);
    }
    buf.split_first_chunk_mut()
}

#[cold]
fn grow(buf: &mut Vec<u8>, room: usize) {
    buf.resize(room.max(1024).next_power_of_two(), 0);
}

/// High bits are set where bytes are zero. (It may also mark a byte above one that is; never one alone.)
#[inline(always)]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080
}

#[inline(always)]
fn has_zero(word: u64) -> bool {
    zeros(word) != 0
}

/// CRC-32 of what stands behind number and identity. Taken before the critical section.
pub(crate) fn check(entry: &[u8]) -> u32 {
    let mut crc = FRESH.clone();
    crc.update(entry.get(SECS..).unwrap_or_default());
    crc.finalize()
}

/// Has asked what the processor can do.
static FRESH: LazyLock<crc32fast::Hasher> = LazyLock::new(crc32fast::Hasher::new);

/// Gives an entry its number and identity, in the critical section; and with them the check value, of which `check` is the larger part.
#[inline]
pub(crate) fn number(entry: &mut [u8], writer_seq: u64, id: RecordId, check: u32) {
    put(entry, CHECK, mixed(check, writer_seq, id).to_le_bytes());
    put(entry, SEQ, writer_seq.to_le_bytes());
    put(entry, ID, id.0);
}

/// Mixes number and identity into a check value: each of their bits changes it.
fn mixed(check: u32, writer_seq: u64, id: RecordId) -> u32 {
    let id = u128::from_be_bytes(id.0);
    #[allow(clippy::cast_possible_truncation)]
    let sum = (id as u64 ^ (id >> 64) as u64).wrapping_add(writer_seq.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    #[allow(clippy::cast_possible_truncation)]
    let folded = (sum ^ sum >> 32) as u32;
    check ^ folded
}

/// Length of the entry that `bytes` begin with.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let len = u32::from_le_bytes(get(bytes, LEN)) as usize;
    (len >= HEAD && len <= bytes.len()).then_some(len)
}

/// Replaces texts of one entry in place. `f` is told whether a text is JSON and gives another, no longer one; a longer one is left out instead.
pub(crate) fn rewrite(entry: &mut [u8], mut f: impl FnMut(bool, &str) -> Option<String>) {
    let (mut from, mut to) = (HEAD, HEAD);
    for part in 0..PARTS {
        let slot = LENGTHS + 4 * part;
        let len = u32::from_le_bytes(get(entry, slot));
        if len == ABSENT {
            continue;
        }
        let end = from + len as usize;
        let json = [Part::Context, Part::OldValue, Part::NewValue].iter().any(|p| *p as usize == part);
        let text = entry.get(from..end).and_then(|t| std::str::from_utf8(t).ok()).unwrap_or_default();
        match f(json, text) {
            None => {
                entry.copy_within(from..end, to);
                to += end - from;
            }
            Some(new) if new.len() <= end - from => {
                if let Some(place) = entry.get_mut(to..to + new.len()) {
                    place.copy_from_slice(new.as_bytes());
                }
                put(entry, slot, u32::try_from(new.len()).unwrap_or(0).to_le_bytes());
                to += new.len();
            }
            Some(_) => put(entry, slot, ABSENT.to_le_bytes()),
        }
        from = end;
    }
    if let Some(rest) = entry.get_mut(to..) {
        rest.fill(0);
    }
}

/// An entry, read in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    bytes: &'a [u8],
}

/// The entries of a chunk that is opened, in order.
pub(crate) fn entries(mut bytes: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    std::iter::from_fn(move || {
        let len = u32::from_le_bytes(get(bytes, LEN)) as usize;
        let (head, rest) = bytes.split_at_checked(len).filter(|(h, _)| h.len() >= HEAD)?;
        bytes = rest;
        Some(Entry { bytes: head })
    })
}

/// An entry as it waits in a queue or stands in a journal: parts of it may be members, so it is opened before anything but its number is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued<'a>(Entry<'a>);

/// The entries of a chunk that is not opened yet, in order.
pub(crate) fn queued(bytes: &[u8]) -> impl Iterator<Item = Queued<'_>> {
    entries(bytes).map(Queued)
}

/// What stands at the front of bytes that may have been torn.
pub(crate) enum Next<'a> {
    Entry(Queued<'a>, &'a [u8]),
    /// No entry was begun here.
    End,
    /// Something stands here that does not check.
    Torn,
}

/// The first entry of a journal's bytes, checked.
pub(crate) fn next_checked(bytes: &[u8]) -> Next<'_> {
    let len = u32::from_le_bytes(get(bytes, LEN)) as usize;
    if len == 0 {
        return Next::End;
    }
    match bytes.split_at_checked(len) {
        Some((head, rest)) if len >= HEAD && len.is_multiple_of(8) => {
            let entry = Entry { bytes: head };
            let sum = mixed(check(head), entry.writer_seq(), entry.record_id());
            if sum.to_le_bytes() == get(head, CHECK) { Next::Entry(Queued(entry), rest) } else { Next::Torn }
        }
        _ => Next::Torn,
    }
}

impl<'a> Entry<'a> {
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
    /// The one entry that `bytes` are.
    pub(crate) fn of(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= HEAD).then_some(Self { bytes })
    }
    pub(crate) fn writer_seq(&self) -> u64 {
        u64::from_le_bytes(get(self.bytes, SEQ))
    }
    pub(crate) fn record_id(&self) -> RecordId {
        RecordId(get(self.bytes, ID))
    }
    pub(crate) fn time(&self) -> (i64, u32) {
        (i64::from_le_bytes(get(self.bytes, SECS)), u32::from_le_bytes(get(self.bytes, NANOS)))
    }
    pub(crate) fn system_time(&self) -> SystemTime {
        let (secs, nanos) = self.time();
        let whole = Duration::from_secs(secs.unsigned_abs());
        let base = if secs < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
        base + Duration::from_nanos(nanos.into())
    }
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }
    pub(crate) fn level(&self) -> Level {
        Level::from_u8(self.byte(LEVEL))
    }
    pub(crate) fn actor_type(&self) -> Option<ActorType> {
        ActorType::ALL.get(usize::from(self.byte(ACTOR)).checked_sub(1)?).copied()
    }
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        Outcome::ALL.get(usize::from(self.byte(OUTCOME)).checked_sub(1)?).copied()
    }
    pub(crate) fn is_own(&self) -> bool {
        self.byte(KIND) & OWN != 0
    }
    pub(crate) fn observers(&self) -> ObserverSet {
        ObserverSet(u64::from_le_bytes(get(self.bytes, OBSERVERS)))
    }
    pub(crate) fn trace(&self) -> Trace<'a> {
        if self.byte(TRACE) == 0 {
            return Trace::None;
        }
        Trace::Parent(TraceContext {
            trace_id: get(self.bytes, TRACE_ID),
            span_id: get(self.bytes, SPAN_ID),
            flags: self.byte(FLAGS),
            remote: self.byte(REMOTE) == 1,
            trace_state: self.text(Part::TraceState).unwrap_or_default(),
        })
    }
    /// The stack, where it is names already.
    pub(crate) fn named_stack(&self) -> Option<&'a str> {
        if self.byte(NAMED) == 1 { self.text(Part::Stack) } else { None }
    }
    /// The frames of the caller, the innermost first.
    pub(crate) fn addresses(&self) -> Option<impl Iterator<Item = u64> + use<'a>> {
        if self.byte(NAMED) == 1 {
            return None;
        }
        let (addresses, _) = self.bytes_of(Part::Stack)?.as_chunks();
        Some(addresses.iter().copied().map(u64::from_le_bytes))
    }
    /// All texts, in the order of [`Part`]: one walk, for those who need most of them.
    pub(crate) fn texts(&self) -> [Option<&'a str>; TEXTS] {
        debug_assert!(self.byte(KIND) & !OWN == 0, "the members are not opened");
        let (mut texts, mut at) = ([None; TEXTS], HEAD);
        let (lengths, _) = self.bytes.get(LENGTHS..HEAD).unwrap_or_default().as_chunks();
        for (text, len) in texts.iter_mut().zip(lengths) {
            let len = u32::from_le_bytes(*len);
            if len != ABSENT {
                let end = at + len as usize;
                // Only text was ever put in.
                *text = self.bytes.get(at..end).and_then(|b| std::str::from_utf8(b).ok());
                at = end;
            }
        }
        texts
    }
    pub(crate) fn text(&self, part: Part) -> Option<&'a str> {
        // Only text was ever put in.
        std::str::from_utf8(self.bytes_of(part)?).ok()
    }
    fn bytes_of(&self, part: Part) -> Option<&'a [u8]> {
        debug_assert!(self.byte(KIND) & members_bit(part as usize) == 0, "the members are not opened");
        self.bytes.get(self.place_of(part)?)
    }
    fn place_of(&self, part: Part) -> Option<std::ops::Range<usize>> {
        let len = |i: usize| u32::from_le_bytes(get(self.bytes, LENGTHS + 4 * i));
        let mine = len(part as usize);
        if mine == ABSENT {
            return None;
        }
        let before: usize = (0..part as usize).map(len).filter(|l| *l != ABSENT).map(|l| l as usize).sum();
        Some(HEAD + before..HEAD + before + mine as usize)
    }
}

impl<'a> Queued<'a> {
    #[cfg(test)]
    pub(crate) fn of(bytes: &'a [u8]) -> Option<Self> {
        Entry::of(bytes).map(Self)
    }
    pub(crate) fn writer_seq(&self) -> u64 {
        self.0.writer_seq()
    }
    pub(crate) fn len(&self) -> usize {
        self.0.bytes.len()
    }
    /// Appends the entry with its parts as JSON, which `json` makes of those that are members. Its check value is no longer one.
    pub(crate) fn open_into(&self, out: &mut Vec<u8>, mut json: impl FnMut(&[u8], &mut Vec<u8>)) {
        let Entry { bytes } = self.0;
        let kind = self.0.byte(KIND);
        if kind & !OWN == 0 {
            return out.extend_from_slice(bytes);
        }
        let start = out.len();
        // What stands before `copied` is done; `at` is where the next part begins.
        let (mut copied, mut at) = (0, HEAD);
        let mut lengths = [None; PARTS];
        for (part, new) in lengths.iter_mut().enumerate() {
            let len = u32::from_le_bytes(get(bytes, LENGTHS + 4 * part));
            let end = if len == ABSENT { at } else { at.saturating_add(len as usize) };
            if kind & members_bit(part) != 0 && len != ABSENT {
                out.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
                let before = out.len();
                json(bytes.get(at..end).unwrap_or_default(), out);
                (copied, *new) = (end, u32::try_from(out.len() - before).ok());
            }
            at = end;
        }
        out.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
        out.resize(start + (out.len() - start).next_multiple_of(16), 0);
        let entry = out.get_mut(start..).unwrap_or_default();
        let whole = entry.len();
        put(entry, LEN, u32::try_from(whole).unwrap_or(0).to_le_bytes());
        put(entry, KIND, [kind & OWN]);
        for (part, new) in lengths.iter().enumerate() {
            if let Some(new) = new {
                put(entry, LENGTHS + 4 * part, new.to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts_in_the_check_value() {
        for len in 1..40 {
            let mut entry = Vec::new();
            let mut w = EntryWriter::begin(&mut entry, len).unwrap();
            w.head(Level::Warn, Some(ActorType::User), Some(Outcome::Failure), 1_795_000_000, 120_000_000);
            let t = TraceContext { trace_id: [3; 16], span_id: [4; 8], flags: 1, remote: true, trace_state: "a=b" };
            w.carrier(Some(&t), ObserverSet(1 << 63));
            w.text(Part::Event, Some(&"e".repeat(len)));
            let end = w.end().unwrap();
            assert!(end.is_multiple_of(8));
            entry.truncate(end);
            let sum = check(&entry);
            number(&mut entry, 42, RecordId([0x71; 16]), sum);
            let Next::Entry(read, []) = next_checked(&entry) else { panic!("{len} bytes of text") };
            assert_eq!((read.writer_seq(), read.0.text(Part::Event)), (42, Some("e".repeat(len).as_str())));
            for at in CHECK..entry.len() {
                let mut torn = entry.clone();
                torn[at] ^= 1;
                assert!(matches!(next_checked(&torn), Next::Torn), "byte {at}");
            }
        }
    }
}
