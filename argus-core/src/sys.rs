//! What the C library offers and no crate does without more: the one place that calls it ([ADR 18](../../docs/adr/0018-batch.md)). Each call works on places of its own stack.

use crate::time;

/// How a thread is scheduled.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Policy {
    /// Not asked yet.
    Unknown,
    /// The usual one.
    Other,
    Batch,
    /// Somebody chose another one for the process, or it cannot be changed.
    Fixed,
}

/// The time in parts, as `time::split` gives it. (That of `std` is as exact, but only tells how much later it is than another: that took a twentieth of a call.)
#[inline]
#[allow(unsafe_code)]
pub(crate) fn now() -> Option<(i64, u32)> {
    #[cfg(all(target_os = "linux", not(shuttle)))]
    {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the place is this function's.
        if unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) } == 0 {
            #[allow(clippy::useless_conversion, reason = "other machines have other sizes")]
            return time::in_range(i64::from(now.tv_sec), u32::try_from(now.tv_nsec).ok()?);
        }
    }
    time::split(std::time::SystemTime::now())
}

#[cfg(all(target_os = "linux", not(miri), not(shuttle)))]
mod threads {
    use super::Policy;

    /// Those of a policy that has no priorities. (musl's have more fields.)
    #[allow(unsafe_code)]
    pub(crate) fn parameters() -> libc::sched_param {
        // SAFETY: numbers, for which zero is one.
        unsafe { std::mem::zeroed() }
    }

    /// That of the calling thread.
    #[allow(unsafe_code)]
    pub(crate) fn policy() -> Policy {
        let (mut policy, mut param) = (0, parameters());
        // SAFETY: the calling thread is one that lives, and the two places are this function's.
        let failed = unsafe { libc::pthread_getschedparam(libc::pthread_self(), &raw mut policy, &raw mut param) };
        if failed == 0 && policy == libc::SCHED_OTHER { Policy::Other } else { Policy::Fixed }
    }

    /// Of the calling thread. Whether it worked.
    #[allow(unsafe_code)]
    pub(crate) fn set_policy(policy: Policy) -> bool {
        let number = if policy == Policy::Batch { libc::SCHED_BATCH } else { libc::SCHED_OTHER };
        let param = parameters();
        // SAFETY: the calling thread is one that lives; the parameters are read and not kept.
        unsafe { libc::pthread_setschedparam(libc::pthread_self(), number, &raw const param) == 0 }
    }

    /// The processor that the calling thread runs on, as a bit; none if it is not one of the first 64.
    #[allow(unsafe_code)]
    pub(crate) fn processor() -> u64 {
        // SAFETY: it takes nothing.
        let number = unsafe { libc::sched_getcpu() };
        u32::try_from(number).ok().and_then(|n| 1u64.checked_shl(n)).unwrap_or(0)
    }
}

#[cfg(not(all(target_os = "linux", not(miri), not(shuttle))))]
mod threads {
    use super::Policy;

    pub(crate) fn policy() -> Policy {
        Policy::Fixed
    }

    pub(crate) fn set_policy(_: Policy) -> bool {
        false
    }

    pub(crate) fn processor() -> u64 {
        0
    }
}

#[cfg(all(test, target_os = "linux", not(miri), not(shuttle)))]
pub(crate) use threads::parameters;
pub(crate) use threads::{policy, processor, set_policy};

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_time_is_that_of_the_standard_library() {
        let between = (time::split(SystemTime::now()), now(), time::split(SystemTime::now()));
        assert!(between.0.is_some() && between.0 <= between.1 && between.1 <= between.2, "{between:?}");
    }
}
