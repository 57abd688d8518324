//! The queue as plain memory: chunks of 64 KiB, reused. Where no journal can be, and for trails in memory.

use std::collections::VecDeque;

use super::Room;

/// Size of a chunk, but less than a small bound, so that what one holds is never the whole queue; one larger entry gets a chunk of its own.
const CHUNK: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct MemoryQueue {
    chunks: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    chunk: usize,
    bytes: usize,
    limit: usize,
}

impl MemoryQueue {
    pub(crate) fn new(limit: usize) -> Self {
        let chunk = CHUNK.min(limit / 8).max(1024);
        Self { chunks: VecDeque::new(), spare: Vec::new(), chunk, bytes: 0, limit }
    }

    /// Whether an entry of `len` bytes could be appended now, and leave so much free.
    pub(crate) fn room(&self, len: usize, reserve: usize) -> Room {
        // An empty queue takes any entry: a bound below the record cap must not make a record impossible.
        if self.bytes > 0 && self.bytes + len + reserve > self.limit {
            return Room::Full;
        }
        match self.chunks.back() {
            Some(c) if c.capacity() - c.len() >= len => Room::Ok,
            _ if self.spare.last().is_some_and(|s| s.capacity() >= len) => Room::Ok,
            _ => Room::Chunk(len.max(self.chunk)),
        }
    }

    pub(crate) fn supply(&mut self, chunk: Vec<u8>) {
        self.spare.push(chunk);
    }

    /// Appends an entry that `room` found room for.
    pub(crate) fn push(&mut self, entry: &[u8]) {
        self.bytes += entry.len();
        match self.chunks.back_mut() {
            Some(c) if c.capacity() - c.len() >= entry.len() => c.extend_from_slice(entry),
            _ => {
                let mut chunk = self.spare.pop().unwrap_or_default();
                chunk.extend_from_slice(entry);
                self.chunks.push_back(chunk);
            }
        }
    }

    /// Takes the oldest chunk. Its bytes count as queued until `release`.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        self.chunks.pop_front()
    }

    /// Gives back a chunk whose entries are committed or abandoned.
    pub(crate) fn release(&mut self, mut chunk: Vec<u8>) {
        self.bytes -= chunk.len();
        if self.spare.len() < 4 && chunk.capacity() == self.chunk {
            chunk.clear();
            self.spare.push(chunk);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }
}
