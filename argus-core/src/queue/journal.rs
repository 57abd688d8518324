//! The journal: the queue in mapped files beside the trail. All of it runs under the core's lock and does no I/O; files are made, zeroed and removed by the keeper
//! (`keeper.rs`), outside it. A segment is filled once, then zeroed and used again, so whoever reads it after a crash meets entries and then zeros, never a hole.
//! Format: `docs/record-format.md`, section 8.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use super::Room;
use super::files::{self, HEADER};
use super::segment::{Segment, Span, Tail};
use crate::entry::Front;

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

/// The segment that is being filled.
struct Current {
    tail: Tail,
    path: PathBuf,
    /// Bytes that are pushed and not released.
    unreleased: usize,
    /// Where the writer goes on.
    taken: usize,
    last_mark: usize,
}

/// What the keeper is about to supply.
#[derive(PartialEq)]
enum Coming {
    New,
    Zeroed,
}

pub(crate) struct JournalQueue {
    /// About the length of a run.
    run: usize,
    /// None while the only segment that there is is zeroed.
    current: Option<Current>,
    /// Less room than this in the current segment, and the next one is made.
    begun: usize,
    /// Number of the last segment that was begun.
    number: u64,
    /// Ends of runs in the current segment that are not taken.
    marks: VecDeque<usize>,
    /// Runs of full segments, not taken.
    ready: VecDeque<(Span, u64)>,
    used: VecDeque<Used>,
    spare: VecDeque<Made>,
    /// Committed to the end, to be zeroed.
    idle: Vec<(Arc<Segment>, PathBuf)>,
    coming: Option<Coming>,
    /// Segments that exist or are being made.
    made: usize,
    most: usize,
    bytes: usize,
    limit: usize,
    /// Half of a segment: no entry needs more, and one may need it.
    half: usize,
    /// No further segment can be made for now.
    stuck: bool,
    /// Why none could be made when it was last tried.
    trouble: Option<Arc<str>>,
}

/// What the keeper should do next.
pub(crate) enum Task {
    Make,
    /// Zero it, and keep it if `true`, else remove it.
    Zero(Arc<Segment>, PathBuf, bool),
}

impl Current {
    /// Gives a zeroed segment its number, to be appended to.
    fn begin(mut made: Made, number: u64) -> Self {
        files::set_number(made.segment.bytes_mut(), number);
        let tail = Tail::new(made.segment, HEADER);
        Self { path: made.path, unreleased: 0, taken: tail.at(), last_mark: tail.at(), tail }
    }
}

impl JournalQueue {
    /// A queue of at most `limit` bytes in segments of `len`, of which this is the first.
    pub(crate) fn new(first: Made, len: usize, limit: usize) -> Self {
        let run = RUN.min(limit / 8).max(1024);
        Self {
            run,
            current: Some(Current::begin(first, 1)),
            number: 1,
            begun: len / 8 * 7,
            marks: VecDeque::with_capacity(len / run + 1),
            ready: VecDeque::with_capacity(64),
            used: VecDeque::with_capacity(16),
            spare: VecDeque::with_capacity(2),
            idle: Vec::with_capacity(16),
            coming: None,
            made: 1,
            // Two more than the bytes need: each segment wastes less than a record at its end.
            most: limit.div_ceil(len - HEADER) + 2,
            bytes: 0,
            limit,
            half: (len - HEADER) / 2,
            stuck: false,
            trouble: None,
        }
    }

    /// Bytes that can still be appended to the current segment.
    fn left(&self) -> usize {
        self.current.as_ref().map_or(0, |c| c.tail.room())
    }

    #[inline]
    pub(crate) fn room(&self, len: usize, reserve: usize) -> Room {
        if self.bytes > 0 && self.bytes + len + reserve > self.limit {
            return Room::Full;
        }
        if self.left() >= len + reserve || !self.spare.is_empty() {
            return Room::Ok;
        }
        if self.coming.is_none() && !self.has_task() { Room::Full } else { Room::Segment }
    }

    /// Appends an entry with `front` in place of its own, and leaves so much free, if it can. True if the keeper may have something to do that it had not before.
    pub(crate) fn push(&mut self, front: Front, entry: &[u8], reserve: usize) -> bool {
        let rolls = self.left() < entry.len() + reserve;
        if rolls {
            self.roll();
        }
        let Some(current) = &mut self.current else { return rolls };
        let before = current.tail.room();
        if current.tail.append(front, entry) {
            self.bytes += entry.len();
            current.unreleased += entry.len();
            if current.tail.at() - current.last_mark >= self.run {
                current.last_mark = current.tail.at();
                self.marks.push_back(current.last_mark);
            }
        }
        rolls || before >= self.begun && current.tail.room() < self.begun
    }

    /// Goes on in the next segment.
    fn roll(&mut self) {
        let Some(next) = self.spare.pop_front() else { return };
        while let Some(run) = self.take_here() {
            self.ready.push_back(run);
        }
        let number = self.number;
        self.number += 1;
        if let Some(full) = self.current.replace(Current::begin(next, self.number)) {
            let Current { tail, path, unreleased, .. } = full;
            match unreleased {
                0 => self.idle.push((tail.finish(), path)),
                _ => self.used.push_back(Used { number, segment: tail.finish(), path, unreleased }),
            }
        }
    }

    /// The next run of the current segment.
    fn take_here(&mut self) -> Option<(Span, u64)> {
        let current = self.current.as_mut()?;
        let end = self.marks.pop_front().unwrap_or(current.tail.at());
        if end == current.taken {
            return None;
        }
        let span = current.tail.span(current.taken, end);
        current.taken = end;
        current.last_mark = current.last_mark.max(end);
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
            if let Some(current) = &mut self.current {
                current.unreleased -= len;
            }
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
        self.ready.is_empty() && self.current.as_ref().is_none_or(|c| c.taken == c.tail.at())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a further segment is wanted and may be made.
    fn wants_one(&self) -> bool {
        self.spare.is_empty() && self.made < self.most && !self.stuck
    }

    /// Whether the next segment should be made: not before the current one is in use, for who logs little needs no other; but where none could be, until one can.
    fn wants_more(&self) -> bool {
        self.wants_one() && (self.trouble.is_some() || self.current.as_ref().is_none_or(|c| c.tail.room() < self.begun))
    }

    /// Whether the current segment is committed to its end and no other can be had: then it serves again.
    fn worn(&self) -> bool {
        self.spare.is_empty()
            && self.current.as_ref().is_some_and(|c| c.unreleased == 0 && c.tail.room() < self.half)
            && !self.wants_one()
    }

    /// What the keeper should do, if anything.
    pub(crate) fn task(&mut self) -> Option<Task> {
        if let Some((segment, path)) = self.idle.pop() {
            let keep = self.spare.len() < SPARE;
            self.made -= usize::from(!keep);
            self.coming = keep.then_some(Coming::Zeroed);
            return Some(Task::Zero(segment, path, keep));
        }
        if self.wants_more() {
            self.made += 1;
            self.coming = Some(Coming::New);
            return Some(Task::Make);
        }
        let worn = if self.worn() { self.current.take() } else { None }?;
        self.coming = Some(Coming::Zeroed);
        Some(Task::Zero(worn.tail.finish(), worn.path, true))
    }

    /// Whether the keeper has something to do.
    pub(crate) fn has_task(&self) -> bool {
        !self.idle.is_empty() || self.wants_more() || self.worn()
    }

    /// A segment that is ready.
    pub(crate) fn supply(&mut self, made: Made) {
        self.stuck = false;
        if self.coming.take() == Some(Coming::New) {
            self.trouble = None;
        }
        if self.current.is_some() {
            self.spare.push_back(made);
        } else {
            self.number += 1;
            self.current = Some(Current::begin(made, self.number));
        }
    }

    /// What was to be zeroed is gone.
    pub(crate) fn gone(&mut self) {
        self.made -= usize::from(self.coming.take().is_some());
    }

    /// None could be made; `retry` lets the keeper try again. True if the last one could.
    pub(crate) fn failed(&mut self, why: Arc<str>) -> bool {
        self.gone();
        self.stuck = true;
        self.trouble.replace(why).is_none()
    }

    pub(crate) fn retry(&mut self) {
        self.stuck = false;
    }

    /// Why it has fewer segments than it may have, if the last one could not be made.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Every file, for a trail that is closed with nothing left in them.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let used = self.used.iter().map(|u| &u.path);
        let all = used.chain(self.spare.iter().map(|s| &s.path)).chain(self.idle.iter().map(|i| &i.1));
        all.chain(self.current.iter().map(|c| &c.path)).cloned().collect()
    }
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
    use crate::entry::front_of;

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
        let (mut pushed, mut taken, mut told_keeper) = (0u64, 0u64, 0);
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
                let idle = !q.has_task();
                let told = q.push(front_of(&e), &e, 0);
                assert!(told || !(idle && q.has_task()), "the keeper is not told");
                told_keeper += u32::from(told);
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
        assert!((2..100).contains(&told_keeper), "{told_keeper} times");
        assert!(q.made <= 3 && q.paths().len() == q.made);
    }

    #[test]
    fn a_full_queue_and_a_disk_that_gives_no_segment_say_so() {
        let mut q = JournalQueue::new(made(0), LEN, 1 << 20);
        let e = entry(64 << 10, 1);
        for _ in 0..4 {
            assert_eq!(q.room(e.len(), 0), Room::Ok);
            q.push(front_of(&e), &e, 0);
        }
        assert_eq!(q.room(e.len(), 0), Room::Segment);
        assert!(matches!(q.task(), Some(Task::Make)));
        assert!(q.failed("the disk is full".into()));
        assert_eq!((q.room(e.len(), 0), q.has_task()), (Room::Full, false));
        q.retry();
        assert_eq!((q.room(e.len(), 0), q.has_task()), (Room::Segment, true));
        let (mut n, mut removed) = (0, Vec::new());
        for _ in 4..16 {
            keep(&mut q, &mut n, &mut removed);
            assert_eq!(q.room(e.len(), 0), Room::Ok);
            q.push(front_of(&e), &e, 0);
        }
        assert_eq!(q.room(e.len(), 0), Room::Full, "the limit in bytes");
        while let Some((span, number)) = q.take() {
            q.release(span, number);
        }
        keep(&mut q, &mut n, &mut removed);
        assert_eq!(q.room(e.len(), 0), Room::Ok);
        assert!(!removed.is_empty(), "what a burst needed is given back");
    }

    #[test]
    fn the_only_segment_serves_again_once_it_is_committed() {
        let mut q = JournalQueue::new(made(0), LEN, 1 << 20);
        let e = entry(64 << 10, 1);
        for _ in 0..3 {
            assert_eq!(q.has_task(), q.trouble().is_some(), "nothing stands in it");
            q.push(front_of(&e), &e, 0);
            assert!(matches!(q.task(), Some(Task::Make)));
            assert_eq!(q.room(4 * e.len(), 0), Room::Segment, "one is being made");
            q.failed("the disk is full".into());
            for _ in 0..3 {
                q.push(front_of(&e), &e, 0);
            }
            let runs: Vec<_> = std::iter::from_fn(|| q.take()).collect();
            assert_eq!((q.room(e.len(), 0), q.has_task(), runs.len()), (Room::Full, false, 4));
            runs.into_iter().for_each(|(span, number)| q.release(span, number));
            assert_eq!((q.room(e.len(), 0), q.has_task()), (Room::Segment, true));
            let Some(Task::Zero(segment, path, true)) = q.task() else { panic!("it is to be zeroed") };
            assert_eq!((q.room(e.len(), 0), q.is_empty(), q.paths().len()), (Room::Segment, true, 0));
            q.supply(zero(segment, path).unwrap());
            assert_eq!((q.room(e.len(), 0), q.trouble()), (Room::Ok, Some("the disk is full")));
        }
        let (mut n, mut removed) = (0, Vec::new());
        keep(&mut q, &mut n, &mut removed);
        assert_eq!((q.made, q.trouble()), (2, None));
    }
}
