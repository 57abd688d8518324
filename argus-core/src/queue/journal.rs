//! The journal: the queue in mapped files beside the trail. All of it runs under the core's lock and does no I/O; files are made, zeroed and removed by the keeper
//! (`keeper.rs`), outside it. A segment is filled once, then zeroed and used again, so whoever reads it after a crash meets entries and then zeros, never a hole.
//! Format: `docs/record-format.md`, section 8.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use super::Room;
use super::files::{self, HEADER};
use super::segment::{Segment, Span, Tail};

/// The writer takes runs of about this size, of a small queue shorter ones, so that a transaction can stop between them.
const RUN: usize = 64 << 10;
/// Segments that wait zeroed; more are removed.
const SPARE: usize = 1;

/// A segment with its file.
pub(crate) struct Made {
    pub(crate) segment: Segment,
    pub(crate) path: PathBuf,
}

/// A segment that is full and not yet committed to its end.
struct Used {
    number: u64,
    segment: Arc<Segment>,
    path: PathBuf,
    unreleased: usize,
}

pub(crate) struct JournalQueue {
    /// About the length of a run.
    run: usize,
    tail: Tail,
    /// Less room than this in the current segment, and the next one is made.
    begun: usize,
    path: PathBuf,
    number: u64,
    /// Bytes of the current segment that are pushed and not released.
    unreleased: usize,
    /// Where the writer goes on in the current segment.
    taken: usize,
    /// Ends of runs in the current segment that are not taken.
    marks: VecDeque<usize>,
    last_mark: usize,
    /// Runs of full segments, not taken.
    ready: VecDeque<(Span, u64)>,
    used: VecDeque<Used>,
    spare: VecDeque<Made>,
    /// Committed to the end, to be zeroed.
    idle: Vec<(Arc<Segment>, PathBuf)>,
    /// Segments that exist or are being made.
    made: usize,
    most: usize,
    bytes: usize,
    limit: usize,
    /// No further segment can be made for now.
    stuck: bool,
}

/// What the keeper should do next.
pub(crate) enum Task {
    Make,
    /// Zero it, and keep it if `true`, else remove it.
    Zero(Arc<Segment>, PathBuf, bool),
}

impl JournalQueue {
    /// A queue of at most `limit` bytes in segments of `len`, of which this is the first.
    pub(crate) fn new(first: Made, len: usize, limit: usize) -> Self {
        let (tail, path) = begin(first, 1);
        let (taken, run) = (tail.at(), RUN.min(limit / 8).max(1024));
        Self {
            run,
            tail,
            path,
            number: 1,
            unreleased: 0,
            taken,
            begun: len / 8 * 7,
            marks: VecDeque::with_capacity(len / run + 1),
            last_mark: taken,
            ready: VecDeque::with_capacity(64),
            used: VecDeque::with_capacity(16),
            spare: VecDeque::with_capacity(2),
            idle: Vec::with_capacity(16),
            made: 1,
            // Two more than the bytes need: each segment wastes less than a record at its end.
            most: limit.div_ceil(len - HEADER) + 2,
            bytes: 0,
            limit,
            stuck: false,
        }
    }

    pub(crate) fn room(&self, len: usize, reserve: usize) -> Room {
        if self.bytes > 0 && self.bytes + len + reserve > self.limit {
            return Room::Full;
        }
        if self.tail.room() >= len + reserve || !self.spare.is_empty() {
            return Room::Ok;
        }
        if self.idle.is_empty() && (self.made >= self.most || self.stuck) { Room::Full } else { Room::Segment }
    }

    pub(crate) fn push(&mut self, entry: &[u8], reserve: usize) {
        if self.tail.room() < entry.len() + reserve {
            self.roll();
        }
        if self.tail.append(entry) {
            self.bytes += entry.len();
            self.unreleased += entry.len();
            if self.tail.at() - self.last_mark >= self.run {
                self.last_mark = self.tail.at();
                self.marks.push_back(self.last_mark);
            }
        }
    }

    /// Goes on in the next segment.
    fn roll(&mut self) {
        let Some(next) = self.spare.pop_front() else { return };
        while let Some(run) = self.take_here() {
            self.ready.push_back(run);
        }
        let number = self.number + 1;
        let (tail, path) = begin(next, number);
        (self.taken, self.last_mark) = (tail.at(), tail.at());
        let segment = std::mem::replace(&mut self.tail, tail).finish();
        let full = Used {
            number: std::mem::replace(&mut self.number, number),
            segment,
            path: std::mem::replace(&mut self.path, path),
            unreleased: std::mem::take(&mut self.unreleased),
        };
        if full.unreleased == 0 { self.idle.push((full.segment, full.path)) } else { self.used.push_back(full) }
    }

    /// The next run of the current segment.
    fn take_here(&mut self) -> Option<(Span, u64)> {
        let end = self.marks.pop_front().unwrap_or(self.tail.at());
        if end == self.taken {
            return None;
        }
        let span = self.tail.span(self.taken, end);
        self.taken = end;
        self.last_mark = self.last_mark.max(end);
        Some((span, self.number))
    }

    pub(crate) fn take(&mut self) -> Option<(Span, u64)> {
        self.ready.pop_front().or_else(|| self.take_here())
    }

    pub(crate) fn release(&mut self, span: Span, number: u64) {
        let len = span.bytes().len();
        drop(span);
        self.bytes -= len;
        if number == self.number {
            self.unreleased -= len;
            return;
        }
        let Some(at) = self.used.iter().position(|u| u.number == number) else { return };
        if let Some(used) = self.used.get_mut(at) {
            used.unreleased -= len;
            if used.unreleased == 0
                && let Some(done) = self.used.remove(at)
            {
                self.idle.push((done.segment, done.path));
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.taken == self.tail.at()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// What the keeper should do, if anything.
    pub(crate) fn task(&mut self) -> Option<Task> {
        if let Some((segment, path)) = self.idle.pop() {
            let keep = self.spare.len() < SPARE;
            self.made -= usize::from(!keep);
            return Some(Task::Zero(segment, path, keep));
        }
        if self.wants_more() {
            self.made += 1;
            return Some(Task::Make);
        }
        None
    }

    /// Whether the keeper has something to do.
    pub(crate) fn has_task(&self) -> bool {
        !self.idle.is_empty() || self.wants_more()
    }

    /// Whether the next segment should be made: not before the current one is in use, for who logs little needs no other.
    fn wants_more(&self) -> bool {
        self.spare.is_empty() && self.tail.room() < self.begun && self.made < self.most && !self.stuck
    }

    /// A segment that is ready.
    pub(crate) fn supply(&mut self, made: Made) {
        self.stuck = false;
        self.spare.push_back(made);
    }

    /// None could be made; `retry` lets the keeper try again.
    pub(crate) fn failed(&mut self) {
        self.made -= 1;
        self.stuck = true;
    }

    pub(crate) fn retry(&mut self) {
        self.stuck = false;
    }

    /// Every file, for a trail that is closed with nothing left in them.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let used = self.used.iter().map(|u| &u.path);
        let all = used.chain(self.spare.iter().map(|s| &s.path)).chain(self.idle.iter().map(|i| &i.1));
        all.chain([&self.path]).cloned().collect()
    }
}

/// Gives a zeroed segment its number and begins to append.
fn begin(mut made: Made, number: u64) -> (Tail, PathBuf) {
    files::set_number(made.segment.bytes_mut(), number);
    (Tail::new(made.segment, HEADER), made.path)
}

/// Zeroes a segment that is committed to its end. Its number goes first: a segment without one holds nothing.
pub(crate) fn zero(segment: Arc<Segment>, path: PathBuf) -> Option<Made> {
    let mut segment = Arc::try_unwrap(segment).ok()?;
    let bytes = segment.bytes_mut();
    files::set_number(bytes, 0);
    if let Some(entries) = bytes.get_mut(HEADER..) {
        entries.fill(0);
    }
    Some(Made { segment, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = HEADER + (256 << 10);

    fn made(n: u32) -> Made {
        Made { segment: Segment::heap(LEN), path: PathBuf::from(format!("{n}")) }
    }

    fn entry(len: usize, fill: u8) -> Vec<u8> {
        let mut e = vec![fill; len];
        e[..4].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
        e
    }

    /// Plays the keeper.
    fn keep(q: &mut JournalQueue, n: &mut u32, removed: &mut Vec<PathBuf>) {
        while let Some(task) = q.task() {
            match task {
                Task::Make => {
                    *n += 1;
                    q.supply(made(*n));
                }
                Task::Zero(segment, path, stays) => {
                    let zeroed = zero(segment, path).unwrap();
                    if stays { q.supply(zeroed) } else { removed.push(zeroed.path) }
                }
            }
        }
    }

    #[test]
    fn entries_come_out_in_order_and_segments_are_used_again() {
        let mut q = JournalQueue::new(made(0), LEN, 1 << 20);
        let (mut n, mut removed) = (0, Vec::new());
        let (mut pushed, mut taken) = (0u64, 0u64);
        for round in 0..40 {
            for _ in 0..(round % 7) * 60 {
                let e = entry(8 * (8 + (pushed % 50) as usize), (pushed % 251) as u8);
                match q.room(e.len(), 0) {
                    Room::Ok => {}
                    Room::Segment => {
                        keep(&mut q, &mut n, &mut removed);
                        assert_eq!(q.room(e.len(), 0), Room::Ok);
                    }
                    other => panic!("{other:?}"),
                }
                q.push(&e, 0);
                pushed += 1;
            }
            let mut runs = Vec::new();
            while let Some(run) = q.take() {
                let mut bytes = run.0.bytes();
                while let Some((len, _)) = bytes.split_first_chunk::<4>() {
                    let len = u32::from_le_bytes(*len) as usize;
                    assert_eq!(bytes[len - 1], (taken % 251) as u8);
                    bytes = &bytes[len..];
                    taken += 1;
                }
                runs.push(run);
            }
            assert!(q.is_empty());
            for (span, number) in runs {
                q.release(span, number);
            }
            assert_eq!((q.bytes(), taken), (0, pushed));
            keep(&mut q, &mut n, &mut removed);
        }
        assert!(pushed > 5000 && n < 12, "{pushed} entries in {n} segments");
        assert!(q.made <= 3 && q.paths().len() == q.made);
    }

    #[test]
    fn a_full_queue_and_a_disk_that_gives_no_segment_say_so() {
        let mut q = JournalQueue::new(made(0), LEN, 1 << 20);
        let e = entry(64 << 10, 1);
        for _ in 0..4 {
            assert_eq!(q.room(e.len(), 0), Room::Ok);
            q.push(&e, 0);
        }
        assert_eq!(q.room(e.len(), 0), Room::Segment);
        assert!(matches!(q.task(), Some(Task::Make)));
        q.failed();
        assert_eq!((q.room(e.len(), 0), q.has_task()), (Room::Full, false));
        q.retry();
        assert_eq!((q.room(e.len(), 0), q.has_task()), (Room::Segment, true));
        let (mut n, mut removed) = (0, Vec::new());
        for _ in 4..16 {
            keep(&mut q, &mut n, &mut removed);
            assert_eq!(q.room(e.len(), 0), Room::Ok);
            q.push(&e, 0);
        }
        assert_eq!(q.room(e.len(), 0), Room::Full, "the limit in bytes");
        while let Some((span, number)) = q.take() {
            q.release(span, number);
        }
        keep(&mut q, &mut n, &mut removed);
        assert_eq!(q.room(e.len(), 0), Room::Ok);
        assert!(!removed.is_empty(), "what a burst needed is given back");
    }
}
