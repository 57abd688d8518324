//! Marks Argus's own threads, so that a call from an observer or callback never waits for the thread it runs on.

use std::cell::Cell;

thread_local!(static ARGUS: Cell<bool> = const { Cell::new(false) });

pub(crate) fn mark_argus() {
    ARGUS.set(true);
}

pub(crate) fn is_argus() -> bool {
    ARGUS.get()
}
