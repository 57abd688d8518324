//! The scheduling policy of Argus's threads ([ADR 18](../../../docs/adr/0018-batch.md)). A thread that wakes up under Linux's usual policy takes the processor from the one that runs there, for
//! milliseconds, and often that is the caller who woke it. Under `SCHED_BATCH` it waits for its turn; its share of the time is the same (sched(7)).

use std::cell::Cell;

use crate::sys::{self, Policy};

thread_local!(static POLICY: Cell<Policy> = const { Cell::new(Policy::Unknown) });

/// Whether this thread waits for its turn when it wakes up. Costs a system call where that changes, and changes nothing where the process was given a policy.
pub(crate) fn background(on: bool) {
    let wanted = if on { Policy::Batch } else { Policy::Other };
    let mut policy = POLICY.get();
    if policy == Policy::Unknown {
        policy = sys::policy();
    }
    if policy != Policy::Fixed && policy != wanted {
        policy = if sys::set_policy(wanted) { wanted } else { Policy::Fixed };
    }
    POLICY.set(policy);
}

#[cfg(all(test, target_os = "linux", not(miri), not(shuttle)))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt};

    /// The policy's number in a thread's `stat` (proc(5): the 41st field, and the third is the first behind the name).
    fn number(stat: &str) -> i32 {
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split_whitespace().nth(41 - 3).unwrap().parse().unwrap()
    }

    fn mine() -> i32 {
        number(&std::fs::read_to_string("/proc/thread-self/stat").unwrap())
    }

    #[test]
    fn a_thread_is_batch_work_and_is_not_any_more() {
        std::thread::spawn(|| {
            assert_eq!(mine(), libc::SCHED_OTHER);
            for _ in 0..2 {
                background(true);
                assert_eq!(mine(), libc::SCHED_BATCH);
                background(false);
                assert_eq!(mine(), libc::SCHED_OTHER);
            }
        })
        .join()
        .unwrap();
    }

    #[allow(unsafe_code)]
    #[test]
    fn what_the_process_was_given_stays() {
        std::thread::spawn(|| {
            let param = sys::parameters();
            // SAFETY: the calling thread lives; the parameters are read and not kept.
            let failed =
                unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_IDLE, &raw const param) };
            assert_eq!((failed, mine()), (0, libc::SCHED_IDLE));
            for on in [true, false] {
                background(on);
                assert_eq!(mine(), libc::SCHED_IDLE);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_writer_is_background_work_until_somebody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        // (Other tests have writers, too; those that were here before are not this one.)
        let before = writers();
        let logger = AuditLogger::open(AuditConfig::new(dir.path().join("t.db"))).unwrap();
        let until = |policy| {
            let began = Instant::now();
            while !writers().iter().any(|(id, p)| *p == policy && !before.iter().any(|(b, _)| b == id)) {
                assert!(began.elapsed() < Duration::from_secs(20), "no writer of policy {policy}");
                std::thread::yield_now();
            }
        };
        logger.log(AuditEvent::info("e")).unwrap();
        until(libc::SCHED_BATCH);
        logger.log_durable(AuditEvent::info("e")).unwrap();
        until(libc::SCHED_OTHER);
        logger.close(Duration::from_secs(20));
    }

    /// Number and policy of each writer's thread in this process.
    fn writers() -> Vec<(String, i32)> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let stats = tasks.filter_map(|t| {
            let stat = std::fs::read_to_string(t.path().join("stat")).ok()?;
            stat.contains("(argus-writer)").then(|| (t.file_name().to_string_lossy().into_owned(), number(&stat)))
        });
        stats.collect()
    }
}
