//! Argus's own threads: they are marked, so that a call from an observer or callback never waits for the thread it runs on, and scheduled so that they are in nobody's
//! way.

mod place;
mod policy;

use std::cell::Cell;

pub(crate) use place::{Callers, FAST, NOTED};
pub(crate) use policy::background;

#[cfg(all(test, shuttle))]
shuttle::thread_local!(static ARGUS: Cell<bool> = Cell::new(false));
#[cfg(not(all(test, shuttle)))]
thread_local!(static ARGUS: Cell<bool> = const { Cell::new(false) });

pub(crate) fn mark_argus() {
    ARGUS.with(|a| a.set(true));
}

pub(crate) fn is_argus() -> bool {
    ARGUS.with(Cell::get)
}
