//! Locks and signals of what callers, writer, keeper and observers share: those of the standard library, or, under `just shuttle`, ones that take
//! their turns in an order that a test chooses and can repeat.

#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, atomic};

#[cfg(all(test, shuttle))]
mod protocol;
