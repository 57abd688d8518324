//! The only place that reads time (the machine's by `sys`).

use std::fmt;
use std::time::SystemTime;

use crate::{sys, time};

/// Where a trail gets its wall-clock time from.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The time now.
    fn now(&self) -> SystemTime;

    /// The same as seconds and nanoseconds since the Unix epoch; `None` outside the years 0000 to 9999.
    #[doc(hidden)]
    fn parts(&self) -> Option<(i64, u32)> {
        time::split(self.now())
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    #[inline]
    fn parts(&self) -> Option<(i64, u32)> {
        sys::now()
    }
}

/// A clock that stands still until it is told otherwise.
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug)]
pub struct ManualClock(std::sync::Mutex<SystemTime>);

#[cfg(any(test, feature = "test-util"))]
impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: SystemTime) -> Self {
        Self(std::sync::Mutex::new(start))
    }

    /// Moves the clock; back, too.
    pub fn set(&self, to: SystemTime) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = to;
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: std::time::Duration) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) += by;
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
