//! How the writer waits: for work, asleep, so that a call must wake it; for a group of records to grow; and between groups for a moment without being woken, since to wake
//! a thread is the most expensive thing that a call can do.

use std::time::{Duration, Instant};

use super::Writer;
use crate::core::{Core, State};
use crate::queue::QueueKind;
use crate::sync::MutexGuard;

/// How long a group grows where a killed process loses nothing by it.
const JOURNAL_DELAY: Duration = Duration::from_millis(2);
/// The longest wait for a group that has not begun. (Time stands still in the model check: what ends a nap there is whatever else ends one.)
pub(super) const NAP: Duration = Duration::from_millis(if cfg!(all(test, shuttle)) { 3_600_000 } else { 2 });
/// The shortest sleep: what is due and finds no room is tried again no sooner.
const SHORTEST: Duration = Duration::from_millis(2);

impl Writer {
    /// Returns when there is something to do, or it is time to look after the rows of other programs.
    pub(super) fn wait<'c>(&mut self, core: &'c Core, mut state: MutexGuard<'c, State>) -> MutexGuard<'c, State> {
        let config = &core.config;
        let delay = config.commit_delay.unwrap_or(match state.queue.kind() {
            QueueKind::Journal => JOURNAL_DELAY,
            QueueKind::Memory => Duration::ZERO,
        });
        // Each record waits for the delay at most: also one that comes in the nap.
        let mut began = Instant::now();
        if self.several && is_idle(&state) {
            state = nap(core, state, began + delay.min(self.nap));
        }
        while is_idle(&state) && state.closing.is_none() && !state.spill.active {
            state.sleeping = true;
            let (s, timeout) = core
                .work
                .wait_timeout(state, self.stats.sleep(config.flush_interval).max(SHORTEST))
                .unwrap_or_else(|e| e.into_inner());
            state = s;
            if !state.spill.active {
                state.sleeping = false;
            }
            if timeout.timed_out() {
                while state.queue.is_empty()
                    && let Some(memory) = state.queue.shrink()
                {
                    drop(state);
                    drop(memory);
                    state = core.lock();
                }
                if is_idle(&state) {
                    // Time to look after rows of other programs.
                    return state;
                }
            }
            began = Instant::now();
        }
        // Whoever waits for a commit or for space waits for no delay; but those who wait for commits may wait for each other.
        while nobody_hurries(&state) {
            let (until, callers) = match state.acks.len() {
                // A loss alone is no group.
                0 if state.queue.is_empty() => (began + delay.min(self.nap), 0),
                0 if is_small(&state, core) => (began + delay, 0),
                0 => break,
                here => match self.group.wait(here) {
                    Some(wait) => wait,
                    None => break,
                },
            };
            let Some(left) = left(until) else { break };
            if callers == 0 {
                state = let_grow(core, state, left);
                continue;
            }
            // They are on their way. To sleep and to be woken takes as long as they do.
            (state.delaying, state.callers) = (true, callers);
            drop(state);
            std::thread::yield_now();
            state = core.lock();
            state.delaying = false;
        }
        state
    }
}

/// Waits for a group that has not begun, woken only by what a growing group is ended by.
fn nap<'c>(core: &'c Core, mut state: MutexGuard<'c, State>, until: Instant) -> MutexGuard<'c, State> {
    while nobody_hurries(&state)
        && state.acks.is_empty()
        && is_small(&state, core)
        && let Some(left) = left(until)
    {
        state = let_grow(core, state, left);
    }
    state
}

/// Nobody who logs wakes the writer, but for whoever waits, and for a large group.
fn let_grow<'c>(core: &'c Core, mut state: MutexGuard<'c, State>, most: Duration) -> MutexGuard<'c, State> {
    (state.delaying, state.callers) = (true, 0);
    state = core.work.wait_timeout(state, most).unwrap_or_else(|e| e.into_inner()).0;
    state.delaying = false;
    state
}

fn left(until: Instant) -> Option<Duration> {
    until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero())
}

fn is_idle(state: &State) -> bool {
    state.queue.is_empty() && state.spill.returned.is_empty() && !state.ledger.has_gaps()
}

fn nobody_hurries(state: &State) -> bool {
    state.closing.is_none() && state.hurry == 0 && !state.spill.active && state.waiting == 0
}

fn is_small(state: &State, core: &Core) -> bool {
    state.last_seq - state.done_seq < core.config.buffer_size as u64
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::Arc;
    use std::thread::JoinHandle;
    use std::time::SystemTime;

    use super::*;
    use crate::accept::Rules;
    use crate::config::AuditConfig;
    use crate::core::Accepted;
    use crate::event::AuditEvent;
    use crate::id::WriterId;
    use crate::pending::Pending;
    use crate::sink::{Carrier, LossReason};
    use crate::store::memory::{MemoryStore, MemoryTrail};
    use crate::writer::Identity;

    /// What no test waits for.
    const LONG: Duration = Duration::from_secs(120);
    const WAIT: Duration = Duration::from_secs(20);

    fn log(core: &Core, ack: bool) -> Option<Pending> {
        let mut accepted = Accepted::default();
        assert!(core.submit(&AuditEvent::info("e"), &Carrier::default(), ack, &mut accepted).unwrap());
        accepted.pending
    }

    fn until(core: &Core, what: &str, is_so: impl Fn(&State) -> bool) {
        let began = Instant::now();
        while !is_so(&core.lock()) {
            assert!(began.elapsed() < WAIT, "not {what}");
            std::thread::yield_now();
        }
    }

    /// A writer that has committed so many records, and waits long for groups that grow and for those that have not begun.
    fn after(records: usize) -> (Arc<Core>, JoinHandle<()>) {
        let config = AuditConfig::default().commit_delay(LONG).buffer_size(10);
        let core = Arc::new(Core::new(config, Rules::empty(), WriterId::random()));
        let mut writer = Writer::new(core.clone(), Box::new(MemoryStore::new(MemoryTrail::new())), Identity::default());
        writer.nap = LONG;
        (1..records).for_each(|_| drop(log(&core, false)));
        let last = log(&core, true).unwrap();
        let thread = std::thread::spawn(move || writer.run());
        last.wait(WAIT).unwrap();
        (core, thread)
    }

    fn napping() -> (Arc<Core>, JoinHandle<()>) {
        let (core, thread) = after(2);
        until(&core, "napping", |s| s.delaying && s.queue.is_empty());
        (core, thread)
    }

    fn close(core: &Core, thread: JoinHandle<()>) {
        assert_eq!(core.close(WAIT).error, None);
        thread.join().unwrap();
    }

    #[test]
    fn between_groups_nobody_wakes_the_writer() {
        let (core, thread) = napping();
        (0..5).for_each(|_| drop(log(&core, false)));
        let state = core.lock();
        assert!(state.delaying && !state.sleeping && state.done_seq == 2, "nothing was said to it");
        drop(state);
        close(&core, thread);
    }

    #[test]
    fn after_a_lone_record_the_writer_sleeps() {
        let (core, thread) = after(1);
        until(&core, "asleep", |s| s.sleeping);
        log(&core, false);
        until(&core, "a group that grows", |s| s.delaying && !s.queue.is_empty());
        close(&core, thread);
    }

    #[test]
    fn whoever_waits_and_a_large_group_end_a_nap() {
        let (core, thread) = napping();
        let durable = log(&core, true).unwrap();
        assert!(durable.wait(WAIT).is_ok());
        close(&core, thread);

        let (core, thread) = napping();
        (0..10).for_each(|_| drop(log(&core, false)));
        until(&core, "committed", |s| s.done_seq == 12);
        close(&core, thread);

        let (core, thread) = napping();
        log(&core, false);
        core.flush(WAIT).unwrap();
        close(&core, thread);
    }

    #[test]
    fn a_loss_waits_for_no_long_delay() {
        let config = AuditConfig::default().commit_delay(LONG);
        let core = Arc::new(Core::new(config, Rules::empty(), WriterId::random()));
        let writer = Writer::new(core.clone(), Box::new(MemoryStore::new(MemoryTrail::new())), Identity::default());
        let thread = std::thread::spawn(move || writer.run());
        core.lose(LossReason::QueueFull, 3, SystemTime::now());
        until(&core, "told", |s| s.done_seq == 1);
        close(&core, thread);
    }
}
