//! Where a thread of Argus runs: not on the processor of a caller at full speed, if there is another. Batch work does not take such a processor when it wakes up, but the scheduler may put it there and give
//! it its turn, for milliseconds, even while another processor rests ([ADR 18](../../../docs/adr/0018-batch.md)).

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sys;

/// One call of so many notes where it runs.
pub(crate) const NOTED: u64 = 256;
/// If so many calls came within so many milliseconds: then their callers are at full speed.
pub(crate) const FAST: u64 = 20;

/// The processors that callers at full speed run on, of the first 64: a bit for each.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    now: AtomicU64,
    before: AtomicU64,
}

impl Callers {
    /// The calling thread is one.
    #[cold]
    pub(crate) fn note(&self) {
        self.now.fetch_or(sys::processor(), Ordering::Relaxed);
    }

    /// Forgets those that were noted before the last turn.
    pub(crate) fn turn(&self) {
        self.before.store(self.now.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Moves the calling thread to another processor, if it runs on one of these and may run on others. Where it may run is as it was then: the scheduler leaves it where it is while nothing speaks against it.
    pub(crate) fn step_aside(&self) {
        let callers = self.now.load(Ordering::Relaxed) | self.before.load(Ordering::Relaxed);
        if sys::processor() & callers != 0 {
            off(callers);
        }
    }
}

#[cfg(all(target_os = "linux", not(miri), not(shuttle)))]
#[cold]
fn off(processors: u64) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let Ok(allowed) = sched_getaffinity(None) else { return };
    let mut others = allowed;
    (0..64).filter(|n| processors >> n & 1 == 1).for_each(|n| others.unset(n));
    if others.count() == 0 || sched_setaffinity(None, &others).is_err() {
        return;
    }
    // What the kernel makes of all is what its groups allow now. If that is what it was, nobody chose less, and it follows them as before.
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|n| all.set(n));
    if sched_setaffinity(None, &all).is_err() || sched_getaffinity(None) != Ok(allowed) {
        let _ = sched_setaffinity(None, &allowed);
    }
}

#[cfg(not(all(target_os = "linux", not(miri), not(shuttle))))]
fn off(_: u64) {}

#[cfg(all(test, target_os = "linux", not(miri), not(shuttle)))]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::*;
    use crate::accept::Rules;
    use crate::core::{Accepted, Core};
    use crate::id::WriterId;
    use crate::{AuditConfig, AuditEvent, Carrier, ManualClock};

    #[test]
    fn fast_callers_are_noted_and_slow_ones_are_not() {
        // (Before the first time that is noted stands the year 1970.)
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)));
        let core = Core::new(AuditConfig::default().clock(clock.clone()), Rules::empty(), WriterId::random());
        let call = || {
            let event = AuditEvent::info("e").component("tests");
            core.submit(&event, &Carrier::default(), false, &mut Accepted::default()).unwrap();
        };
        let noted = || core.callers.now.load(Ordering::Relaxed);
        for _ in 0..3 * NOTED {
            clock.advance(Duration::from_millis(1));
            call();
        }
        assert_eq!(noted(), 0);
        for _ in 0..2 * NOTED {
            call();
        }
        assert_ne!(noted(), 0);
    }

    fn allowed() -> CpuSet {
        sched_getaffinity(None).unwrap()
    }

    #[test]
    fn a_thread_steps_aside_and_may_run_where_it_might_before() {
        let test = || {
            let given = allowed();
            if given.count() < 2 {
                return eprintln!("SKIPPED: one processor");
            }
            let callers = Callers::default();
            let mine = sys::processor();
            callers.note();
            for _ in 0..2 {
                callers.step_aside();
                assert_ne!(sys::processor(), mine);
                assert_eq!(allowed(), given);
                // Until those were noted a turn ago.
                callers.turn();
            }
            let now = sys::processor();
            callers.turn();
            callers.step_aside();
            assert!(
                now != 0 && callers.now.load(Ordering::Relaxed) == 0 && callers.before.load(Ordering::Relaxed) == 0
            );

            // Callers are everywhere, or the thread was given one processor: it stays.
            callers.now.store(u64::MAX, Ordering::Relaxed);
            callers.step_aside();
            assert_eq!(allowed(), given);
            let mut one = CpuSet::new();
            one.set(now.trailing_zeros() as usize);
            sched_setaffinity(None, &one).unwrap();
            callers.now.store(now, Ordering::Relaxed);
            callers.step_aside();
            assert_eq!((allowed(), sys::processor()), (one, now));

            // Somebody gave it fewer than there are: it keeps to those.
            if given.count() > 2 {
                let mut fewer = given;
                fewer.unset((0..64).find(|n| given.is_set(*n) && 1 << n != now).unwrap());
                sched_setaffinity(None, &fewer).unwrap();
                callers.now.store(sys::processor(), Ordering::Relaxed);
                callers.step_aside();
                assert_eq!(allowed(), fewer);
            }
        };
        std::thread::spawn(test).join().unwrap();
    }
}
