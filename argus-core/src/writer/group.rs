//! Callers who wait for a commit share it. Those who were told together come back together, a moment later: begun with the first of them, each transaction would hold half
//! of them. So the writer waits for the others, for a part of what the last commit took. On its thread; no clock is read here.

use std::time::{Duration, Instant};

/// The part of the last commit that the wait for its callers may last, and the most.
const PART: u32 = 4;
const MOST: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Group {
    /// Who waited when the last transaction was committed: for it, or for the next.
    callers: usize,
    /// When those who do not come back are waited for no longer.
    until: Option<Instant>,
}

impl Group {
    /// A transaction is committed: so many wait for it, and so many others for the next.
    pub(super) fn committed(&mut self, told: usize, others: usize) {
        *self = Self { callers: if told > 0 { told + others } else { 0 }, until: None };
    }

    /// They were told, now, of a commit that took so long.
    pub(super) fn told(&mut self, now: Instant, took: Duration) {
        // Time stands still in the model check: what only its passing ends would be a deadlock there.
        self.until = (!cfg!(all(test, shuttle))).then(|| now + (took / PART).min(MOST));
    }

    /// How long the writer may let those wait who are here, and how many it waits for.
    pub(super) fn wait(&self, here: usize) -> Option<(Instant, usize)> {
        self.until.filter(|_| (1..self.callers).contains(&here)).map(|u| (u, self.callers))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread::JoinHandle;

    use super::*;
    use crate::accept::Rules;
    use crate::config::AuditConfig;
    use crate::core::{Accepted, Core};
    use crate::event::AuditEvent;
    use crate::id::WriterId;
    use crate::pending::Pending;
    use crate::sink::Carrier;
    use crate::store::memory::{MemoryStore, MemoryTrail};
    use crate::writer::{Identity, Writer};

    /// What no test waits for.
    const LONG: Duration = Duration::from_secs(120);
    const WAIT: Duration = Duration::from_secs(20);

    /// A writer that told two callers just now and waits long for both of them, once the first is here.
    fn waiting() -> (Arc<Core>, Pending, JoinHandle<()>) {
        let core = Arc::new(Core::new(AuditConfig::default(), Rules::empty(), WriterId::random()));
        let store = Box::new(MemoryStore::new(MemoryTrail::new()));
        let mut writer = Writer::new(core.clone(), store, Identity::default());
        writer.group = Group { callers: 2, until: Some(Instant::now() + LONG) };
        let first = durable(&core);
        let thread = std::thread::spawn(move || writer.run());
        let began = Instant::now();
        while !core.lock().delaying {
            assert!(began.elapsed() < WAIT, "it does not wait");
            std::thread::yield_now();
        }
        (core, first, thread)
    }

    fn durable(core: &Core) -> Pending {
        let mut accepted = Accepted::default();
        assert!(core.submit(&AuditEvent::info("e"), &Carrier::default(), true, &mut accepted).unwrap());
        accepted.pending.unwrap()
    }

    #[test]
    fn those_who_come_back_together_share_a_commit() {
        let (core, first, thread) = waiting();
        let second = durable(&core);
        let (first, second) = (first.wait(WAIT).unwrap(), second.wait(WAIT).unwrap());
        assert_eq!(first.committed_at, second.committed_at);
        assert_eq!(core.close(WAIT).error, None);
        thread.join().unwrap();
    }

    #[test]
    fn a_flush_and_a_close_wait_for_no_caller() {
        let (core, first, thread) = waiting();
        core.flush(WAIT).unwrap();
        first.wait(WAIT).unwrap();
        core.close(WAIT);
        thread.join().unwrap();

        let (core, first, thread) = waiting();
        assert_eq!(core.close(WAIT).error, None);
        first.wait(WAIT).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn only_those_who_were_there_together_are_waited_for_and_not_for_long() {
        let (now, took) = (Instant::now(), Duration::from_micros(800));
        let mut group = Group::default();
        assert_eq!(group.wait(1), None, "nothing was committed yet");
        group.committed(8, 0);
        assert_eq!(group.wait(1), None, "they do not know yet");
        group.told(now, took);
        let until = now + Duration::from_micros(200);
        assert_eq!(group.wait(0), None, "nobody is here");
        assert_eq!((group.wait(1), group.wait(7)), (Some((until, 8)), Some((until, 8))));
        assert_eq!((group.wait(8), group.wait(9)), (None, None), "all are here");
        group.told(now, Duration::from_secs(1));
        assert_eq!(group.wait(1), Some((now + Duration::from_millis(1), 8)));

        // A lone caller, and records that nobody waits for.
        for (told, others) in [(1, 0), (0, 0), (0, 5)] {
            group.committed(told, others);
            group.told(now, took);
            assert_eq!(group.wait(1), None, "{told} and {others}");
        }
        // Two callers in turns: one is told while the other waits already.
        group.committed(1, 1);
        group.told(now, took);
        assert_eq!((group.wait(1), group.wait(2)), (Some((until, 2)), None));
    }
}
