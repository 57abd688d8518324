//! Writes an entry: the texts one behind the other, and the head (but for the ids of a trace) at the end, as whole words. (Whoever reads a word that was written in pieces just before waits
//! until all of them have left the processor.)

use super::{
    ABSENT, HEAD, KIND, LEN, LENGTHS, NANOS, OBSERVERS, OWN, PARTS, Part, SECS, SPAN_ID, TRACE, TRACE_ID, members_bit,
    put,
};
use crate::json::text;
use crate::level::{ActorType, Level, Outcome};
use crate::sink::{ObserverSet, TraceContext};

/// Room that must be left behind what is written: short texts are put down as whole words.
const SLACK: usize = 32;

/// Longer texts are not put down as words.
const SHORT: usize = 16;
/// The most that a member of a short name and a short text has: asked for once.
const WINDOW: usize = 8 + 2 * SHORT;

/// What the head says, until it is put down.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    secs: i64,
    nanos: u32,
    level: u8,
    actor: u8,
    outcome: u8,
    kind: u8,
    observers: u64,
    /// Whether there is a trace, its flags, whether its parent is remote, whether the stack is names.
    trace: [u8; 4],
    lengths: [u32; PARTS],
}

/// Writes one entry at the front of a buffer, whose length is room and no more: what a `Vec` asks at every push is asked once. Parts come in order.
pub(crate) struct EntryWriter<'b> {
    head: &'b mut [u8; HEAD],
    texts: Texts<'b>,
    known: Known,
}

impl<'b> EntryWriter<'b> {
    /// For an entry with so many bytes of parts. (Always `Some`: there is room.)
    #[inline(always)]
    pub(crate) fn begin(buf: &'b mut Vec<u8>, parts: usize) -> Option<Self> {
        let (head, room) = split(buf, parts)?;
        // The one place that `end` leaves as it is: few have a trace.
        put(head, TRACE_ID, [0; 24]);
        let known = Known {
            secs: 0,
            nanos: 0,
            level: 0,
            actor: 0,
            outcome: 0,
            kind: 0,
            observers: 0,
            trace: [0; 4],
            lengths: [ABSENT; PARTS],
        };
        Some(Self { head, texts: Texts { room, at: 0 }, known })
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
        (self.known.secs, self.known.nanos, self.known.level) = (secs, nanos, level as u8);
        self.known.actor = actor.map_or(0, |a| a as u8 + 1);
        self.known.outcome = outcome.map_or(0, |o| o as u8 + 1);
    }

    #[inline(always)]
    pub(crate) fn carrier(&mut self, trace: Option<&TraceContext<'_>>, observers: ObserverSet) {
        if let Some(t) = trace {
            let [.., named] = self.known.trace;
            self.known.trace = [1, t.flags, u8::from(t.remote), named];
            put(self.head, TRACE_ID, t.trace_id);
            put(self.head, SPAN_ID, t.span_id);
        }
        self.known.observers = observers.0;
    }

    /// Marks a record that Argus makes of itself.
    pub(crate) fn own(&mut self) {
        self.known.kind |= OWN;
    }

    /// A stack whose names are known.
    pub(crate) fn named_stack(&mut self, names: Option<&str>) {
        if names.is_some_and(|n| !n.is_empty()) {
            self.known.trace[3] = 1;
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
        let start = self.texts.at;
        let zero = self.texts.append(text);
        self.part(part, start);
        zero
    }

    /// A part of JSON, or of `members`.
    #[inline(always)]
    pub(crate) fn value(&mut self, part: Part, json: &[u8], members: bool) {
        let start = self.texts.at;
        self.texts.append_json(json);
        self.known.kind |= if members { members_bit(part as usize) } else { 0 };
        self.part(part, start);
    }

    /// The context as members that are opened later (see `members`), and how many bytes they may have as JSON but for escapes. `None` if `write` gave up. It does not
    /// get the room of the parts behind it, which have so many bytes.
    #[inline(always)]
    pub(crate) fn members(&mut self, behind: usize, write: impl FnOnce(&mut Texts<'_>) -> bool) -> Option<usize> {
        let start = self.texts.at;
        let most = self.texts.room.len().saturating_sub(behind + SLACK);
        let mut lent = Texts { room: self.texts.room.get_mut(..most)?, at: start };
        if !write(&mut lent) {
            return None;
        }
        self.texts.at = lent.at;
        self.known.kind |= members_bit(Part::Context as usize);
        self.part(Part::Context, start);
        // A member's head is longer than its quotes, colon and comma; but the brackets count.
        Some(self.texts.at - start + 2)
    }

    /// What was said so far.
    pub(crate) fn known(&self) -> Known {
        self.known
    }

    /// Goes back to where the context begins, behind so many bytes of texts, with room for so many bytes of parts in the same buffer.
    #[cold]
    pub(crate) fn again(buf: &'b mut Vec<u8>, known: Known, texts: usize, parts: usize) -> Option<Self> {
        let (head, room) = split(buf, parts)?;
        let known = Known { kind: known.kind & OWN, ..known };
        Some(Self { head, texts: Texts { room, at: texts }, known })
    }

    #[inline(always)]
    fn part(&mut self, part: Part, start: usize) {
        if let Some(len) = self.known.lengths.get_mut(part as usize) {
            *len = u32::try_from(self.texts.at - start).unwrap_or(0);
        }
    }

    /// Fills up, puts down the head and returns the length; `None` if the room was too short, which is a mistake of whoever said how much there would be. To whole
    /// words would do; but the check value is taken of sixteen bytes at a time.
    #[inline(always)]
    pub(crate) fn end(self) -> Option<usize> {
        const { assert!(HEAD.is_multiple_of(16)) }
        let Self { head, texts: Texts { room, at }, known } = self;
        let len = HEAD + at.next_multiple_of(16);
        // Whatever did not fit before leaves no room here.
        room.get_mut(at..at + SLACK / 2)?.copy_from_slice(&[0; SLACK / 2]);
        put(head, LEN, u32::try_from(len).unwrap_or(0).to_le_bytes());
        put(head, SECS, known.secs.to_le_bytes());
        const { assert!(KIND == NANOS + 7) }
        let small = u32::from_le_bytes([known.level, known.actor, known.outcome, known.kind]);
        put(head, NANOS, pair(known.nanos, small));
        put(head, OBSERVERS, known.observers.to_le_bytes());
        let [first, rest @ ..] = known.lengths;
        put(head, TRACE, pair(u32::from_le_bytes(known.trace), first));
        let (pairs, _) = rest.as_chunks();
        for (n, [a, b]) in pairs.iter().enumerate() {
            put(head, LENGTHS + 4 + 8 * n, pair(*a, *b));
        }
        Some(len)
    }
}

#[inline(always)]
fn pair(a: u32, b: u32) -> [u8; 8] {
    (u64::from(a) | u64::from(b) << 32).to_le_bytes()
}

/// The texts of an entry, one behind the other.
pub(crate) struct Texts<'b> {
    room: &'b mut [u8],
    at: usize,
}

impl Texts<'_> {
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
    pub(crate) fn lend(&mut self, write: impl FnOnce(Texts<'_>) -> Option<usize>) -> bool {
        let end = write(Texts { room: self.room, at: self.at });
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

    /// Appends what is somewhat longer and needs no look.
    #[inline(always)]
    fn append_json(&mut self, json: &[u8]) {
        const HALF: usize = 32;
        let at = self.at;
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
