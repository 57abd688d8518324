//! The queue as plain memory: chunks of 64 KiB, reused: fresh memory costs a caller more than all else that he does. Where no journal can be, and for trails in memory.

use std::collections::VecDeque;

use super::Room;
use super::segment::prefetch;
use crate::entry::{FRONT, Front};

/// Size of a chunk, but less than a small bound, so that what one holds is never the whole queue; one larger entry gets a chunk of its own.
const CHUNK: usize = 64 << 10;

/// Spare chunks that are kept in any case.
const SPARE: usize = 4;
/// So many chunks go through before it is known which of the spare ones were not needed.
const PERIOD: usize = 256;

#[derive(Debug)]
pub(crate) struct MemoryQueue {
    chunks: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// Fewest spare chunks in this period: so many were not needed.
    fewest: usize,
    /// Chunks released in this period.
    released: usize,
    /// Spare chunks that were not needed in the last period: one goes with each that is released.
    surplus: usize,
    chunk: usize,
    bytes: usize,
    limit: usize,
}

impl MemoryQueue {
    pub(crate) fn new(limit: usize) -> Self {
        let chunk = CHUNK.min(limit / 8).max(1024);
        Self { chunks: VecDeque::new(), spare: Vec::new(), fewest: 0, released: 0, surplus: 0, chunk, bytes: 0, limit }
    }

    /// Whether an entry of `len` bytes could be appended now, and leave so much free.
    #[inline]
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

    /// Appends an entry that `room` found room for, with `front` in place of its own.
    pub(crate) fn push(&mut self, front: Front, entry: &[u8]) {
        self.bytes += entry.len();
        match self.chunks.back_mut() {
            Some(c) if c.capacity() - c.len() >= entry.len() => {
                append(c, front, entry);
                prefetch(c.spare_capacity_mut().as_ptr().cast());
            }
            _ => {
                let mut chunk = self.spare.pop().unwrap_or_default();
                self.fewest = self.fewest.min(self.spare.len());
                append(&mut chunk, front, entry);
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
        self.released += 1;
        if self.released == PERIOD {
            (self.released, self.surplus) = (0, self.fewest.saturating_sub(SPARE));
            self.fewest = self.spare.len();
        }
        if chunk.capacity() != self.chunk {
            return;
        }
        if self.surplus > 0 {
            self.surplus -= 1;
            return;
        }
        chunk.clear();
        self.spare.push(chunk);
    }

    /// Nothing was queued for a while. Lets go of a spare chunk; `None` if there are no more than are kept.
    pub(crate) fn shrink(&mut self) -> Option<Vec<u8>> {
        if self.spare.len() > SPARE { self.spare.pop() } else { None }
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

fn append(chunk: &mut Vec<u8>, front: Front, entry: &[u8]) {
    let at = chunk.len();
    chunk.extend_from_slice(entry);
    if let Some(place) = chunk.get_mut(at..at + FRONT) {
        let (places, _) = place.as_chunks_mut();
        places.iter_mut().zip(front).for_each(|(place, word)| *place = word.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::front_of;

    /// Fills a queue with `n` chunks, and takes them all out again.
    fn burst(q: &mut MemoryQueue, n: usize) -> usize {
        let (entry, mut allocated) = (vec![1; CHUNK / 4], 0);
        for _ in 0..4 * n {
            if let Room::Chunk(len) = q.room(entry.len(), 0) {
                allocated += 1;
                q.supply(Vec::with_capacity(len));
            }
            q.push(front_of(&entry), &entry);
        }
        while let Some(chunk) = q.take() {
            q.release(chunk);
        }
        assert!(q.is_empty() && q.bytes() == 0);
        allocated
    }

    #[test]
    fn what_a_burst_allocated_serves_the_next_one_and_goes_when_none_comes() {
        let mut q = MemoryQueue::new(64 << 20);
        assert_eq!((burst(&mut q, 40), burst(&mut q, 40), q.spare.len()), (40, 0, 40));
        // Small ones need little of it.
        for _ in 0..4 * PERIOD {
            assert_eq!(burst(&mut q, 1), 0);
        }
        assert_eq!(q.spare.len(), SPARE + 1);
        assert_eq!(burst(&mut q, 20), 20 - SPARE - 1);
        assert_eq!(std::iter::from_fn(|| q.shrink()).count(), 20 - SPARE);
    }
}
