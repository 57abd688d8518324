//! A run of bytes that one side appends to while the other reads what stands already: a mapped file, or heap in tests. The `unsafe` of the queue
//! (ADR 12): what is written through [`Tail`] and what is read through [`Span`] never overlap, and both hold an `Arc` of the segment, so that [`Segment::bytes_mut`]
//! needs that there is neither.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fd::AsFd;

use crate::entry::{FRONT, Front};

/// Memory that holds entries; exclusive as long as it is not in a [`Tail`].
pub(crate) struct Segment {
    start: NonNull<u8>,
    len: usize,
    mapped: bool,
}

// SAFETY: `start` is memory that this value alone frees, and no thread of ours is bound to it. Shared access is by `Tail` and `Span` only: see there.
#[allow(unsafe_code)]
unsafe impl Send for Segment {}
// SAFETY: `&Segment` gives no access to the bytes at all.
#[allow(unsafe_code)]
unsafe impl Sync for Segment {}

impl Segment {
    /// Maps the first `len` bytes of a file, which must be reserved and must not be cut while the segment lives. (Whoever cuts it ends the process.)
    #[allow(unsafe_code)]
    pub(crate) fn map(file: impl AsFd, len: usize) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours. Other processes only read the file (recovery waits for its
        // writer's death), so nothing changes under a `Span`.
        let start = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file.as_fd(), 0)
        }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap gave no address"))?;
        let segment = Self { start, len, mapped: true };
        // A child that this process forks must not share it. Should the kernel not know how, `ForkMark` keeps the child away.
        #[cfg(target_os = "linux")]
        // SAFETY: the range is the mapping made above; nothing about it changes in this process.
        let _ = unsafe { rustix::mm::madvise(segment.start.as_ptr().cast(), len, rustix::mm::Advice::LinuxDontFork) };
        Ok(segment)
    }

    /// Has the kernel map every page for writing now, so that no caller waits for one.
    #[allow(unsafe_code)]
    pub(crate) fn touch(&mut self) {
        #[cfg(target_os = "linux")]
        {
            use rustix::mm::{Advice, madvise};
            // SAFETY: the range is this mapping; what its bytes are does not change.
            if unsafe { madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxPopulateWrite) }.is_ok() {
                return;
            }
        }
        // Kernels before 5.14.
        self.bytes_mut().iter_mut().step_by(4096).for_each(|b| *std::hint::black_box(b) = 0);
    }

    /// Zeroed heap memory in place of a file.
    #[cfg(test)]
    #[allow(unsafe_code)]
    pub(crate) fn heap(len: usize) -> Self {
        let Ok(layout) = std::alloc::Layout::from_size_align(len.max(8), 8) else { panic!("too large") };
        // SAFETY: the layout is not empty.
        let Some(start) = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }) else {
            std::alloc::handle_alloc_error(layout)
        };
        Self { start, len, mapped: false }
    }

    /// All bytes, exclusively.
    #[allow(unsafe_code)]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `&mut self` proves that there is no `Tail` and no `Span`: each holds an `Arc` of the segment, which gives no `&mut`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Segment {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.mapped {
            // SAFETY: mapped with this length, and nobody holds a pointer into it any more.
            let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        }
        #[cfg(test)]
        if !self.mapped
            && let Ok(layout) = std::alloc::Layout::from_size_align(self.len.max(8), 8)
        {
            // SAFETY: allocated with this layout.
            unsafe { std::alloc::dealloc(self.start.as_ptr(), layout) }
        }
    }
}

/// Has the processor fetch the lines of its cache where the next entry goes: whoever appends it does not wait for them then, which takes a tenth of a call.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) fn prefetch(place: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for line in 0..5 {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a hint; no address is wrong, none is read.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(place.wrapping_add(64 * line).cast()) }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}

/// The one who appends. There is one for a segment: it is made of the segment itself.
pub(crate) struct Tail {
    segment: Arc<Segment>,
    /// Everything before is written, and never written again while an `Arc` lives elsewhere.
    at: usize,
}

impl Tail {
    /// Appends from `at` on, a multiple of 8.
    pub(crate) fn new(segment: Segment, at: usize) -> Self {
        Self { at: at.next_multiple_of(8).min(segment.len), segment: Arc::new(segment) }
    }

    /// Bytes that can still be appended.
    pub(crate) fn room(&self) -> usize {
        self.segment.len - self.at
    }

    /// Where the next entry goes.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Appends an entry, with `front` in place of its own first 32 bytes. The first four, its length, are written last: whoever finds a length finds the entry behind it,
    /// even after this process was killed at any instruction. False if there is no room, or if it is shorter than that, or no whole number of eight bytes.
    #[allow(unsafe_code)]
    pub(crate) fn append(&mut self, front: Front, entry: &[u8]) -> bool {
        let Some((_, rest)) = entry.split_first_chunk::<FRONT>() else { return false };
        if entry.len() > self.room() || !entry.len().is_multiple_of(8) {
            return false;
        }
        let [first, others @ ..] = front;
        let [a, b, c, d, check @ ..] = first.to_ne_bytes();
        // SAFETY: `at + entry.len()` is within the segment, and `at` within its 8-byte alignment (mappings are page-aligned, the heap's layout is 8). No `Span` reaches
        // beyond `at`, no `&mut` exists since an `Arc` does, and `&mut self` is the only appender. `entry` is a slice of other memory: this one is only lent out as spans.
        unsafe {
            let to = self.segment.start.as_ptr().add(self.at);
            std::ptr::copy_nonoverlapping(rest.as_ptr(), to.add(FRONT), rest.len());
            to.add(8).cast::<[u64; 3]>().write(others);
            to.add(4).cast::<[u8; 4]>().write(check);
            // Release: the compiler must not move the others behind it. Readers in this process are ordered by the queue's lock.
            AtomicU32::from_ptr(to.cast()).store(u32::from_ne_bytes([a, b, c, d]), Ordering::Release);
        }
        self.at += entry.len();
        prefetch(self.segment.start.as_ptr().wrapping_add(self.at));
        true
    }

    /// What stands from `from` to `to`, for the reader; cut to what is written.
    pub(crate) fn span(&self, from: usize, to: usize) -> Span {
        let end = to.min(self.at);
        Span { segment: self.segment.clone(), start: from.min(end), end }
    }

    /// No more is appended; the segment is exclusive again once its last span is gone.
    pub(crate) fn finish(self) -> Arc<Segment> {
        self.segment
    }
}

/// A part of a segment that is written and does not change while this lives.
pub(crate) struct Span {
    segment: Arc<Segment>,
    start: usize,
    end: usize,
}

impl Span {
    #[allow(unsafe_code)]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `start..end` was written before this span was made, by `Tail::span`; the tail writes only behind it, and `bytes_mut` needs that this `Arc` is gone.
        unsafe { std::slice::from_raw_parts(self.segment.start.as_ptr().add(self.start), self.end - self.start) }
    }
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Span").field("start", &self.start).field("end", &self.end).finish_non_exhaustive()
    }
}

/// A page that is wiped in a child that this process forks. To ask it costs a load, where to ask the kernel for the process id costs a call.
pub(crate) struct ForkMark(Segment);

impl ForkMark {
    /// `None` where the kernel cannot do it.
    #[allow(unsafe_code)]
    pub(crate) fn new() -> Option<Self> {
        #[cfg(target_os = "linux")]
        {
            use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
            const LEN: usize = 4096;
            // SAFETY: a new private mapping at an address of the kernel's choice.
            let start = unsafe {
                mmap_anonymous(std::ptr::null_mut(), LEN, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
            };
            let mut page = Segment { start: NonNull::new(start.ok()?.cast())?, len: LEN, mapped: true };
            page.bytes_mut().fill(1);
            // SAFETY: the range is the mapping made above; in this process nothing changes.
            unsafe { madvise(page.start.as_ptr().cast(), LEN, Advice::LinuxWipeOnFork) }.ok()?;
            Some(Self(page))
        }
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Whether this is a child of the process that made the mark.
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) fn in_a_child(&self) -> bool {
        // SAFETY: the page lives as long as `self` and is written by nobody but the kernel, at a fork: before the child runs.
        unsafe { self.0.start.as_ptr().read_volatile() == 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::front_of;

    fn entry(len: u32, fill: u8) -> Vec<u8> {
        let mut e = vec![fill; len as usize];
        e[..4].copy_from_slice(&len.to_ne_bytes());
        e
    }

    #[test]
    fn what_is_appended_is_read_while_more_is_appended() {
        let mut tail = Tail::new(Segment::heap(4096), 60);
        assert_eq!((tail.at(), tail.room()), (64, 4032));
        let (tell, told) = std::sync::mpsc::channel::<Span>();
        let reader = std::thread::spawn(move || {
            told.iter().map(|s| s.bytes().iter().map(|b| u64::from(*b)).sum::<u64>()).sum::<u64>()
        });
        let mut expected = 0;
        for i in 0..50u8 {
            let e = entry(64, i);
            expected += e.iter().map(|b| u64::from(*b)).sum::<u64>();
            let from = tail.at();
            assert!(tail.append(front_of(&e), &e));
            tell.send(tail.span(from, usize::MAX)).unwrap();
        }
        drop(tell);
        assert_eq!(reader.join().unwrap(), expected);
        for wrong in [entry(4096, 1), entry(44, 1), entry(24, 1)] {
            assert!(!tail.append(front_of(&wrong), &wrong));
        }
        let span = tail.span(64, 64 + 64);
        let segment = tail.finish();
        let Err(segment) = Arc::try_unwrap(segment) else { panic!("a span is out") };
        drop(span);
        let Ok(mut segment) = Arc::try_unwrap(segment) else { panic!("exclusive again") };
        segment.bytes_mut().fill(0);
    }

    #[cfg(not(miri))]
    #[test]
    fn a_mapped_file_has_what_was_appended() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let mut tail = Tail::new(Segment::map(&file, 4096).unwrap(), 0);
        let e = entry(40, 7);
        assert!(tail.append(front_of(&e), &e));
        let mut found = [0; 48];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, 0).unwrap();
        assert_eq!((&found[..40], &found[40..]), (&e[..], &[0; 8][..]));
    }
}
