//! The allocator of the benchmark: the system's, with the calls of each thread and the bytes in use counted. SQLite, being C, allocates beside it and counts for
//! itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static IN_USE: AtomicIsize = AtomicIsize::new(0);
thread_local!(static CALLS: Cell<u64> = const { Cell::new(0) });

fn count(bytes: isize) {
    IN_USE.fetch_add(bytes, Ordering::Relaxed);
    // A thread that ends may allocate after its counter is gone.
    let _ = CALLS.try_with(|c| c.set(c.get() + u64::from(bytes > 0)));
}

// SAFETY: every call goes to `System` as it came; counting touches no memory that is handed out, and does not allocate.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(-layout.size().cast_signed());
        count(size.cast_signed());
        // SAFETY: `at` came from `System` with this layout, and the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Allocations of this thread so far.
pub(crate) fn calls() -> u64 {
    CALLS.get()
}

/// Bytes of the process that are allocated and not given back.
pub(crate) fn in_use() -> f64 {
    IN_USE.load(Ordering::Relaxed) as f64
}

/// Bytes that SQLite says it uses.
#[allow(unsafe_code)]
pub(crate) fn sqlite_in_use() -> f64 {
    // SAFETY: no arguments, and SQLite guards its counter itself.
    unsafe { rusqlite::ffi::sqlite3_memory_used() as f64 }
}
