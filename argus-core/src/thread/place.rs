//! Where a thread of Argus runs: not on the processors of callers at full speed, if there are others. Batch work does not take such a processor when it wakes up, but the scheduler may put it there and give
//! it its turn, for milliseconds, even while another processor rests ([ADR 18](../../../docs/adr/0018-batch.md)).

use crate::sys::Processors;

/// Of one thread, which alone may use it.
#[derive(Default)]
pub(crate) struct Place {
    /// Where it may run, by whoever decides that.
    allowed: Option<Processors>,
    /// What of that it was left.
    left: Option<Processors>,
    off: u64,
}

impl Place {
    /// Keeps the calling thread off some processors, if it may run on others, and only off those. A system call or two where that changes.
    pub(crate) fn keep_off(&mut self, processors: u64) {
        if self.off == processors {
            return;
        }
        self.off = processors;
        let now = Processors::allowed();
        // Somebody else decided anew.
        if now != self.left {
            self.allowed = now;
        }
        let Some(allowed) = self.allowed else { return };
        let left = allowed.without(processors).unwrap_or(allowed);
        self.left = if now == Some(left) || left.allow() { Some(left) } else { now };
    }
}

#[cfg(all(test, target_os = "linux", not(miri), not(shuttle)))]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, sys};

    #[test]
    fn a_thread_keeps_off_processors_and_within_what_it_was_given() {
        let test = || {
            let given = Processors::allowed().unwrap();
            let mine = sys::processor();
            let Some(others) = given.without(mine) else { return eprintln!("SKIPPED: one processor") };
            let mut place = Place::default();
            let mut off = |processors| {
                place.keep_off(processors);
                Processors::allowed().unwrap()
            };
            assert_eq!(off(mine), others);
            assert_ne!(sys::processor(), mine);
            // Other ones; all of them, which would leave none; none.
            let others = sys::processor();
            assert_eq!(Some(off(others)), given.without(others));
            assert_eq!(sys::processor() & others, 0);
            assert_eq!(off(u64::MAX), given.without(u64::MAX).unwrap_or(given));
            assert_eq!(off(0), given);

            // Somebody gives it one processor, and another one: there it stays, whoever runs there.
            for one in [mine, others] {
                let one = given.without(!one).unwrap();
                assert!(one.allow());
                assert_eq!(off(mine), one);
                assert_eq!(off(others), one);
                assert_eq!(off(0), one);
            }
        };
        std::thread::spawn(test).join().unwrap();
    }

    /// Where the writers of this process may run, as proc(5) says it.
    fn writers() -> BTreeMap<String, String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let status = tasks.filter_map(|t| {
            let status = std::fs::read_to_string(t.path().join("status")).ok()?;
            let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed:"))?.trim().to_owned();
            status.starts_with("Name:\targus-writer\n").then(|| (t.file_name().to_string_lossy().into_owned(), allowed))
        });
        status.collect()
    }

    #[test]
    fn a_writer_keeps_off_the_processor_of_a_fast_caller_until_somebody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        // (Other tests have writers, too; those that were here before are not this one.)
        let before = writers();
        let logger = AuditLogger::open(AuditConfig::new(dir.path().join("t.db"))).unwrap();
        let test = || {
            let given = Processors::allowed().unwrap();
            let mine = sys::processor();
            if given.without(mine).is_none() {
                return eprintln!("SKIPPED: one processor");
            }
            assert!(given.without(!mine).unwrap().allow());
            let began = Instant::now();
            let ours = writers().into_iter().filter(|(id, _)| !before.contains_key(id)).collect::<BTreeMap<_, _>>();
            let until = |call: &dyn Fn(), done: &dyn Fn(&String, &String) -> bool| {
                while !writers().iter().any(|(id, now)| ours.get(id).is_some_and(|first| done(first, now))) {
                    assert!(began.elapsed() < Duration::from_secs(60), "{ours:?} {:?}", writers());
                    call();
                }
            };
            let fast = || {
                for _ in 0..1000 {
                    let _ = logger.log(AuditEvent::info("e"));
                }
            };
            let durable = || {
                logger.log_durable(AuditEvent::info("e")).unwrap();
            };
            until(&fast, &|first, now| first != now);
            until(&durable, &|first, now| first == now);
        };
        std::thread::scope(|s| s.spawn(test).join().unwrap());
        logger.close(Duration::from_secs(20));
    }
}
