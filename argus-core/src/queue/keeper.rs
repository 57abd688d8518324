//! The keeper: one thread a logger that makes, zeroes and removes the journal's segments, so that neither a caller nor the writer waits for a file. Its work is
//! never in anybody's way: without it the queue is full a little earlier.

use std::sync::Arc;
use std::time::Duration;

use super::Queue;
use super::files::{Beside, Owner};
use super::journal::{JournalQueue, Made, Task, zero};
use crate::core::Core;
use crate::error::AuditError;
use crate::id::WriterId;

/// A segment's size, by the bound of the queue: sixteen of them at most, none smaller than two records.
fn segment_len(queue_bytes: usize) -> usize {
    super::files::HEADER + (queue_bytes / 16).clamp(1 << 20, 8 << 20).next_multiple_of(4096)
}
/// The pause after a segment could not be made.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Keeper {
    beside: Beside,
    ids: (WriterId, WriterId),
    owner: Owner,
    len: usize,
    /// Number in the name of the next file.
    next: u32,
}

impl Keeper {
    /// Makes the first segment: the journal, and its keeper.
    pub(crate) fn begin(
        beside: Beside,
        ids: (WriterId, WriterId),
        owner: Owner,
        queue_bytes: usize,
    ) -> Result<(Self, Queue), crate::TrailError> {
        Self::with_segments(beside, ids, owner, queue_bytes, segment_len(queue_bytes))
    }

    /// The same with segments of `len` bytes.
    pub(crate) fn with_segments(
        beside: Beside,
        ids: (WriterId, WriterId),
        owner: Owner,
        queue_bytes: usize,
        len: usize,
    ) -> Result<(Self, Queue), crate::TrailError> {
        let mut keeper = Self { beside, ids, owner, len, next: 1 };
        let first = keeper.make()?;
        let queue = JournalQueue::new(first, keeper.len, queue_bytes);
        Ok((keeper, Queue::Journal(queue)))
    }

    fn make(&mut self) -> Result<Made, crate::TrailError> {
        let index = self.next;
        self.next += 1;
        self.beside.make(index, self.len, self.ids, &self.owner)
    }

    /// Makes a segment that is not the first.
    fn further(&mut self, #[allow(unused_variables)] core: &Core) -> Result<Made, crate::TrailError> {
        #[cfg(any(test, feature = "test-util"))]
        core.config.faults.of_segment()?;
        self.make()
    }

    /// The body of the thread.
    pub(crate) fn run(mut self, core: &Core) {
        crate::thread::mark_argus();
        crate::thread::background(true);
        loop {
            let task = {
                let mut state = core.lock();
                loop {
                    // What is queued is the writer's business; nothing new is accepted.
                    if state.closing.is_some() || state.closed {
                        return;
                    }
                    let Queue::Journal(q) = &mut state.queue else { return };
                    if let Some(task) = q.task() {
                        state.keeper_busy = true;
                        break task;
                    }
                    state.keeper_idle = true;
                    let (s, timeout) = core.keep.wait_timeout(state, RETRY).unwrap_or_else(|e| e.into_inner());
                    state = s;
                    state.keeper_idle = false;
                    if let (true, Queue::Journal(q)) = (timeout.timed_out(), &mut state.queue) {
                        q.retry();
                    }
                }
            };
            core.callers.step_aside();
            let made = match task {
                Task::Make => self.further(core).map(Some),
                // (If somebody still reads it, that is its end, too; nobody does.)
                Task::Zero(segment, path, true) => Ok(zero(segment, path)),
                Task::Zero(segment, path, false) => {
                    drop(segment);
                    let _ = std::fs::remove_file(path);
                    Ok(None)
                }
            };
            let made = made.map_err(|e| (Arc::<str>::from(e.to_string()), e));
            let mut state = core.lock();
            state.keeper_busy = false;
            let over = state.closing.is_some() || state.closed;
            if over {
                core.progress.notify_all();
            }
            match (made, &mut state.queue) {
                (Ok(None), Queue::Journal(q)) => q.gone(),
                (Ok(Some(made)), Queue::Journal(q)) if !over => {
                    q.supply(made);
                    core.space.notify_all();
                }
                // Nothing stands in it, and nothing will.
                (Ok(Some(made)), _) => drop(std::fs::remove_file(made.path)),
                (Err((why, e)), Queue::Journal(q)) => {
                    let first = q.failed(why);
                    // Who waits for it must learn that the queue is full.
                    core.space.notify_all();
                    drop(state);
                    if first {
                        core.observers.error(AuditError::Store(Arc::new(e)));
                    }
                }
                (Ok(None) | Err(_), Queue::Memory(_)) => return,
            }
        }
    }
}

#[cfg(all(test, not(miri), not(shuttle)))]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::accept::Rules;
    use crate::core::Accepted;
    use crate::queue::files::HEADER;
    use crate::sink::Carrier;
    use crate::store::place::Access;
    use crate::{AuditConfig, AuditEvent, Overflow};

    const QUEUE: usize = 512 << 10;

    #[test]
    fn a_relay_that_never_waits_for_room_waits_for_a_segment() {
        let dir = tempfile::tempdir().unwrap();
        let config = AuditConfig::default().queue_bytes(QUEUE).overflow(Overflow::Reject);
        let writer = WriterId::random();
        let core = Arc::new(Core::new(config, Rules::empty(), writer));
        let access = Access { mode: 0o600, group: None };
        let beside = Beside { trail: dir.path().join("t"), access, spill_dir: None };
        if beside.reserves().is_err() {
            return println!("SKIPPED: no journal on this file system");
        }
        let ids = (WriterId::random(), writer);
        let (keeper, queue) = Keeper::with_segments(beside, ids, Owner::default(), QUEUE, HEADER + (32 << 10)).unwrap();
        core.use_journal(queue);
        std::thread::scope(|s| {
            let relay = s.spawn(|| {
                let agent = "a".repeat(1000);
                let carrier = Carrier::relay(Duration::from_secs(60));
                let event = AuditEvent::info("e").component("tests").user_agent(&agent);
                let mut calls = (0..60).map(|_| core.submit(&event, &carrier, false, &mut Accepted::default()));
                calls.find_map(Result::err).map(|e| e.to_string())
            });
            // The first segment is full, and nobody makes another.
            let began = Instant::now();
            while core.lock().waiting == 0 && !relay.is_finished() {
                assert!(began.elapsed() < Duration::from_secs(20));
                std::thread::yield_now();
            }
            let keeps = s.spawn(|| keeper.run(&core));
            let refused = relay.join();
            core.lock().closed = true;
            core.keep.notify_one();
            keeps.join().unwrap();
            assert_eq!(refused.unwrap(), None);
        });
    }
}
