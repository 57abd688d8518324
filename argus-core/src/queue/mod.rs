//! The queue between callers and the one writer thread, bounded in bytes. Callers append under the core's lock, the writer takes whole runs of entries, so neither
//! ever waits for the other's work. It is memory, or a journal of mapped files that survives the process.

pub(crate) mod files;
pub(crate) mod journal;
pub(crate) mod keeper;
mod leftovers;
mod memory;
mod owner;
pub(crate) mod segment;

use crate::entry::{self, Front, queued};
use crate::members;
use crate::redaction::Redaction;
use journal::JournalQueue;
use memory::MemoryQueue;
use segment::Span;

/// What an append came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Ok,
    Full,
    /// A fresh chunk of this capacity is needed; it is allocated outside the lock and handed to `supply`.
    Chunk(usize),
    /// The next segment is not ready yet: its maker is to be woken, and is waited for.
    Segment,
}

/// A run of entries that the writer has taken.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// The copy is what the writer has changed.
    Memory(Vec<u8>, Option<Vec<u8>>),
    /// Stands in a segment, whose number this is; with the writer's copy, too.
    Mapped(Span, u64, Option<Vec<u8>>),
    /// Records of Argus itself that never were in the queue.
    Own(Vec<u8>),
}

impl Chunk {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Memory(_, Some(copy)) | Chunk::Mapped(_, _, Some(copy)) => copy,
            Chunk::Memory(b, None) | Chunk::Own(b) => b,
            Chunk::Mapped(span, ..) => span.bytes(),
        }
    }

    /// Opens the entries: from here on all of their members are JSON. What the queue counts stays as it is, and what a journal holds.
    fn open(&mut self) -> &mut [u8] {
        let opened = |bytes: &[u8]| {
            let mut copy = Vec::with_capacity(bytes.len() + bytes.len() / 8);
            queued(bytes).for_each(|e| members::open_into(e, &mut copy));
            copy
        };
        match self {
            // Argus's own are written opened.
            Chunk::Own(bytes) => bytes,
            Chunk::Memory(bytes, copy) => copy.get_or_insert_with(|| opened(bytes)),
            Chunk::Mapped(span, _, copy) => copy.get_or_insert_with(|| opened(span.bytes())),
        }
    }
}

/// Opens what was taken from the queue, and takes secrets out by their shape: from here on nobody sees them.
pub(crate) fn open(chunks: &mut [Chunk], redaction: &Redaction) {
    let shapes = redaction.compiled().ok();
    for opened in chunks.iter_mut().map(Chunk::open) {
        if let Some(shapes) = shapes {
            shapes.chunk(opened);
        }
    }
}

pub(crate) enum Queue {
    Memory(MemoryQueue),
    Journal(JournalQueue),
}

impl Queue {
    pub(crate) fn memory(limit: usize) -> Self {
        Queue::Memory(MemoryQueue::new(limit))
    }

    /// Whether an entry of `len` bytes could be appended now.
    #[inline]
    pub(crate) fn room(&self, len: usize) -> Room {
        self.room_before(len, self.reserve())
    }

    /// What callers must leave free: when nothing else works any more, records of Argus itself say so.
    fn reserve(&self) -> usize {
        RESERVE.min(self.limit() / 8)
    }

    #[inline(always)]
    fn room_before(&self, len: usize, reserve: usize) -> Room {
        match self {
            Queue::Memory(q) => q.room(len, reserve),
            Queue::Journal(q) => q.room(len, reserve),
        }
    }

    /// The files that it is in.
    pub(crate) fn paths(&self) -> Vec<std::path::PathBuf> {
        match self {
            Queue::Journal(q) => q.paths(),
            Queue::Memory(_) => Vec::new(),
        }
    }

    pub(crate) fn supply(&mut self, chunk: Vec<u8>) {
        if let Queue::Memory(q) = self {
            q.supply(chunk);
        }
    }

    /// Appends an entry that `room` found room for, with `front` in place of its own. True if the keeper of the journal may have something to do that it had not before.
    pub(crate) fn push(&mut self, front: Front, entry: &[u8]) -> bool {
        let reserve = self.reserve();
        match self {
            Queue::Memory(q) => {
                q.push(front, entry);
                false
            }
            Queue::Journal(q) => q.push(front, entry, reserve),
        }
    }

    /// Appends an entry of Argus itself that `room_for_own` found room for; true as of `push`.
    pub(crate) fn push_own(&mut self, entry: &[u8]) -> bool {
        let front = entry::front_of(entry);
        match self {
            Queue::Memory(q) => {
                q.push(front, entry);
                false
            }
            Queue::Journal(q) => q.push(front, entry, 0),
        }
    }

    /// Takes the oldest entries. Their bytes count as queued until `release`.
    pub(crate) fn take(&mut self) -> Option<Chunk> {
        match self {
            Queue::Memory(q) => q.take().map(|bytes| Chunk::Memory(bytes, None)),
            Queue::Journal(q) => q.take().map(|(span, segment)| Chunk::Mapped(span, segment, None)),
        }
    }

    /// Gives back entries that are committed or abandoned.
    pub(crate) fn release(&mut self, chunk: Chunk) {
        match (self, chunk) {
            (Queue::Memory(q), Chunk::Memory(bytes, _)) => q.release(bytes),
            (Queue::Journal(q), Chunk::Mapped(span, segment, _)) => q.release(span, segment),
            _ => {}
        }
    }

    /// Nothing was queued for a while: lets go of memory, piece by piece.
    pub(crate) fn shrink(&mut self) -> Option<Vec<u8>> {
        match self {
            Queue::Memory(q) => q.shrink(),
            Queue::Journal(_) => None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Queue::Memory(q) => q.is_empty(),
            Queue::Journal(q) => q.is_empty(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Queue::Memory(q) => q.bytes(),
            Queue::Journal(q) => q.bytes(),
        }
    }

    pub(crate) fn limit(&self) -> usize {
        match self {
            Queue::Memory(q) => q.limit(),
            Queue::Journal(q) => q.limit(),
        }
    }

    /// Whether the keeper of the journal has something to do.
    pub(crate) fn has_task(&self) -> bool {
        matches!(self, Queue::Journal(q) if q.has_task())
    }

    /// Why it is smaller than it may be, if anything makes it so.
    pub(crate) fn trouble(&self) -> Option<&str> {
        match self {
            Queue::Memory(_) => None,
            Queue::Journal(q) => q.trouble(),
        }
    }

    /// The name that `audit_open` and `health()` say.
    pub(crate) fn kind(&self) -> QueueKind {
        match self {
            Queue::Memory(_) => QueueKind::Memory,
            Queue::Journal(_) => QueueKind::Journal,
        }
    }
}

/// What of the queue callers do not get, at most; of a small queue an eighth.
const RESERVE: usize = 16 << 10;

/// Whether the queue has room for a record of Argus itself.
pub(crate) fn room_for_own(state: &mut crate::core::State, len: usize) -> bool {
    match state.queue.room_before(len, 0) {
        Room::Ok => true,
        Room::Chunk(n) => {
            state.queue.supply(Vec::with_capacity(n));
            true
        }
        Room::Full | Room::Segment => false,
    }
}

/// What accepted records wait in until they are committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueKind {
    /// Memory: what is queued dies with the process.
    #[default]
    Memory,
    /// Mapped files beside the trail: what is queued outlives a killed process, and the next open of the trail commits it.
    Journal,
}

impl QueueKind {
    /// The word that records carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            QueueKind::Memory => "memory",
            QueueKind::Journal => "journal",
        }
    }
}
