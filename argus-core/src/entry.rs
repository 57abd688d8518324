//! The bytes of an accepted record on their way through the queue: a fixed head, then the texts. Written by accept, read by the writer and by recovery: it is the
//! form of the journal (`docs/record-format.md`, section 8). The carrier travels here too, though it is no part of the record.

mod write;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rapidhash::v3::{DEFAULT_RAPID_SECRETS, rapidhash_v3_micro_inline};

pub(crate) use self::write::{EntryWriter, MemberValue, Texts};
use crate::accept::MAX_RECORD;
use crate::id::RecordId;
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
/// Who made it, and what of it is written as members: any of the following.
pub(crate) const KIND: usize = 47;
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
const OBSERVERS: usize = 48;
const TRACE_ID: usize = 56;
const SPAN_ID: usize = 72;
const TRACE: usize = 80;
const FLAGS: usize = 81;
const REMOTE: usize = 82;
/// The stack is names already: said only of entries that were read back from a pending file.
const NAMED: usize = 83;
const LENGTHS: usize = 84;
/// Bytes of a [`Front`].
pub(crate) const FRONT: usize = SECS;
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

/// A check value: rapidhash V3 micro with its default secrets, folded to 32 bits.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let hash = rapidhash_v3_micro_inline::<true, false>(bytes, &DEFAULT_RAPID_SECRETS);
    #[allow(clippy::cast_possible_truncation)]
    let folded = (hash ^ hash >> 32) as u32;
    folded
}

/// That of what stands behind number and identity. Taken before the critical section.
#[inline]
pub(crate) fn check(entry: &[u8]) -> u32 {
    sum(entry.get(SECS..).unwrap_or_default())
}

/// The first bytes of an entry, as the words that stand there: length and check value, number, identity. Known in the critical section only.
pub(crate) type Front = [u64; 4];

/// That of an entry of `len` bytes, of whose check value `check` is the larger part.
#[inline(always)]
pub(crate) fn front(len: usize, check: u32, writer_seq: u64, id: RecordId) -> Front {
    let first = u64::from(u32::try_from(len).unwrap_or(0)) | u64::from(mixed(check, writer_seq, id)) << 32;
    let id = u128::from_le_bytes(id.0);
    #[allow(clippy::cast_possible_truncation)]
    let halves = (id as u64, (id >> 64) as u64);
    [first.to_le(), writer_seq.to_le(), halves.0.to_le(), halves.1.to_le()]
}

/// That of an entry which has its number.
pub(crate) fn front_of(entry: &[u8]) -> Front {
    [LEN, SEQ, ID, ID + 8].map(|at| u64::from_ne_bytes(get(entry, at)))
}

/// Gives an entry its number and identity; and with them the check value.
pub(crate) fn number(entry: &mut [u8], writer_seq: u64, id: RecordId, check: u32) {
    for (n, word) in front(entry.len(), check, writer_seq, id).into_iter().enumerate() {
        put(entry, 8 * n, word.to_ne_bytes());
    }
}

/// Mixes number and identity into a check value: each of their bits changes it.
#[inline(always)]
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

/// Whether whole entries with numbers from `first` on stand in bytes that follow no entry. What one append that was not finished left is none; any is a sign that what stood before
/// it is gone.
pub(crate) fn has_beyond(bytes: &[u8], first: u64) -> bool {
    whole(bytes).any(|e| e.writer_seq() >= first)
}

/// All whole entries, wherever they stand.
pub(crate) fn whole(mut bytes: &[u8]) -> impl Iterator<Item = Queued<'_>> {
    // No entry is so long: what only looks like one costs little.
    const LONGEST: u32 = 2 * MAX_RECORD as u32;
    std::iter::from_fn(move || {
        while !bytes.is_empty() {
            let next = match u32::from_le_bytes(get(bytes, LEN)) {
                1..LONGEST => next_checked(bytes),
                _ => Next::End,
            };
            match next {
                Next::Entry(e, rest) => {
                    bytes = rest;
                    return Some(e);
                }
                Next::End | Next::Torn => bytes = bytes.get(8..).unwrap_or_default(),
            }
        }
        None
    })
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
    pub(crate) fn record_id(&self) -> RecordId {
        self.0.record_id()
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

    /// The journal's format: whatever changes it needs another version there. (Calculated with another implementation of rapidhash.)
    #[test]
    fn the_check_value_is_what_it_was() {
        let bytes: Vec<u8> = (0..=255).collect();
        let expected = [0xe1f6_11e5, 0xfe4d_7d93, 0x4f5d_e87c, 0xb49b_947d, 0x7d6d_6855];
        assert_eq!([0, 1, 96, 160, 256].map(|len| sum(&bytes[..len])), expected);
    }

    #[test]
    fn an_entry_has_nothing_of_the_one_before_in_its_buffer() {
        let write = |entry: &mut Vec<u8>, trace: Option<&TraceContext<'_>>| {
            let mut w = EntryWriter::begin(entry, 40).unwrap();
            w.head(Level::Info, None, None, 1_795_000_000, 7);
            w.carrier(trace, ObserverSet(0));
            w.text(Part::Event, Some("request"));
            let len = w.end().unwrap();
            number(&mut entry[..len], 1, RecordId([1; 16]), 0);
            entry[..len].to_vec()
        };
        let t = TraceContext { trace_id: [3; 16], span_id: [4; 8], flags: 1, remote: true, trace_state: "" };
        for trace in [None, Some(&t)] {
            let (mut fresh, mut used) = (Vec::new(), vec![0xff; 4096]);
            assert_eq!(write(&mut fresh, trace), write(&mut used, trace));
        }
    }

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
