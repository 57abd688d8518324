//! `Pending`: a record on its way to durability. Awaited in any runtime, or waited for without one. No sink is held, so dropping it cancels nothing.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::error::AuditError;
use crate::id::RecordId;
use crate::queue::segment::ForkMark;
use crate::sink::Receipt;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

type Outcome = Result<Receipt, AuditError>;

#[derive(Default)]
struct Slot {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Shared {
    slot: Mutex<Slot>,
    bell: Arc<Bell>,
    origin: Origin,
}

/// Where threads wait for their records. Those of one commit share it, so that one system call wakes all of them; each looks whether its own record is done.
#[derive(Default)]
pub(crate) struct Bell {
    lock: Mutex<()>,
    rung: Condvar,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn ring(&self) {
        // Whoever has looked, and does not wait yet, holds the lock.
        drop(self.lock());
        self.rung.notify_all();
    }
}

/// Two bells in turns: a commit wakes those whose records are in it, and not those who came since.
#[derive(Default)]
pub(crate) struct Bells {
    both: [Arc<Bell>; 2],
    turn: AtomicUsize,
}

impl Bells {
    /// The one for a record that comes now.
    pub(crate) fn now(&self) -> Arc<Bell> {
        let [one, other] = &self.both;
        if self.turn.load(Ordering::Relaxed).is_multiple_of(2) { one.clone() } else { other.clone() }
    }

    /// What comes from now on is for another commit. (If not, somebody is woken for nothing.)
    pub(crate) fn turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }
}

/// Completes many records, and then wakes those who wait for them.
#[derive(Default)]
pub(crate) struct Completion(Vec<Arc<Bell>>);

impl Completion {
    pub(crate) fn add(&mut self, mut completer: Completer, outcome: Outcome) {
        if let Some(bell) = completer.set(outcome)
            && !self.0.iter().any(|b| Arc::ptr_eq(b, &bell))
        {
            self.0.push(bell);
        }
    }

    pub(crate) fn wake(self) {
        self.0.iter().for_each(|b| b.ring());
    }
}

/// The process that made a pending record. Only there is somebody who completes it; in a child that is forked the lock, too, may be held for ever.
#[derive(Default)]
enum Origin {
    /// Nobody is to complete it.
    #[default]
    Known,
    Mark(Arc<ForkMark>),
    Process(u32),
}

impl Shared {
    fn forked(&self) -> bool {
        match &self.origin {
            Origin::Known => false,
            Origin::Mark(mark) => mark.in_a_child(),
            Origin::Process(id) => *id != std::process::id(),
        }
    }

    /// What a forked child is told: what was known at the fork, else that it will never be.
    fn told_in_a_child(&self) -> Outcome {
        self.slot.try_lock().ok().and_then(|s| s.outcome.clone()).unwrap_or(Err(AuditError::Forked))
    }

    /// A panic cannot leave the slot half-written, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// An accepted record on its way to durability: a `Future` that needs no particular runtime, or [`wait`](Pending::wait) without any.
///
/// Dropping it does not cancel the record.
#[must_use = "await it or call `wait`"]
pub struct Pending {
    record_id: Option<RecordId>,
    shared: Arc<Shared>,
}

/// The other end of a [`Pending`], for sinks. Dropped without [`complete`](Completer::complete), it yields [`AuditError::Lost`].
pub struct Completer(Option<Arc<Shared>>);

/// Both ends of a `Pending` whose record has no id yet.
pub(crate) struct Waiter(Arc<Shared>);

impl Waiter {
    /// With the mark of its logger, which is cheaper to ask than the kernel.
    pub(crate) fn new(mark: Option<Arc<ForkMark>>, bell: Arc<Bell>) -> Self {
        let origin = mark.map_or_else(|| Origin::Process(std::process::id()), Origin::Mark);
        Self(Arc::new(Shared { slot: Mutex::default(), bell, origin }))
    }

    pub(crate) fn name(self, record_id: RecordId) -> (Pending, Completer) {
        (Pending { record_id: Some(record_id), shared: self.0.clone() }, Completer(Some(self.0)))
    }
}

impl Pending {
    /// A pending record and the end that completes it; for implementers of sinks.
    pub fn channel(record_id: RecordId) -> (Pending, Completer) {
        Waiter::new(None, Arc::default()).name(record_id)
    }

    /// One whose outcome is known already.
    pub fn ready(outcome: Outcome) -> Pending {
        let record_id = outcome.as_ref().ok().map(|r| r.record_id);
        let shared = Arc::new(Shared::default());
        shared.lock().outcome = Some(outcome);
        Pending { record_id, shared }
    }

    /// The record, if one was accepted.
    pub fn record_id(&self) -> Option<RecordId> {
        self.record_id
    }

    /// Blocks until the record is durable or `timeout` is over.
    ///
    /// # Errors
    /// What befell the record, or [`AuditError::Timeout`], after which it can be waited for again.
    /// On Argus's own thread it never waits: [`AuditError::OnArgusThread`]. In a child that was forked meanwhile nothing more is heard of the record, which is its
    /// parent's: [`AuditError::Forked`]; so for awaiting it.
    pub fn wait(&self, timeout: Duration) -> Outcome {
        if self.shared.forked() {
            return self.shared.told_in_a_child();
        }
        let outcome = self.shared.lock().outcome.clone();
        if let Some(outcome) = outcome {
            return outcome;
        }
        if crate::thread::is_argus() {
            return Err(AuditError::OnArgusThread);
        }
        let bell = &self.shared.bell;
        let (guard, waits) = (bell.lock(), |(): &mut ()| self.shared.lock().outcome.is_none());
        if timeout == Duration::MAX {
            drop(bell.rung.wait_while(guard, waits).unwrap_or_else(|e| e.into_inner()));
        } else {
            drop(bell.rung.wait_timeout_while(guard, timeout, waits).unwrap_or_else(|e| e.into_inner()));
        }
        self.shared.lock().outcome.clone().unwrap_or(Err(AuditError::Timeout))
    }
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if self.shared.forked() {
            return Poll::Ready(self.shared.told_in_a_child());
        }
        let mut slot = self.shared.lock();
        if let Some(outcome) = slot.outcome.clone() {
            return Poll::Ready(outcome);
        }
        if !slot.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            slot.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Completer {
    /// Tells the outcome.
    pub fn complete(mut self, outcome: Outcome) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Outcome) {
        if let Some(bell) = self.set(outcome) {
            bell.ring();
        }
    }

    /// Sets the outcome and wakes a task that awaits it; a thread waits for the bell.
    fn set(&mut self, outcome: Outcome) -> Option<Arc<Bell>> {
        let shared = self.0.take().filter(|s| !s.forked())?;
        let waker = {
            let mut slot = shared.lock();
            slot.outcome = Some(outcome);
            slot.waker.take()
        };
        // Outside the lock, and guarded: a waker is foreign code, and this may be the writer's thread.
        if let Some(waker) = waker {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
        Some(shared.bell.clone())
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        self.tell(Err(AuditError::Lost));
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("record_id", &self.record_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Completer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completer").field("completed", &self.0.is_none()).finish()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::sink::State;

    const WAIT: Duration = Duration::from_secs(20);

    fn receipt() -> Outcome {
        Ok(Receipt::new(RecordId([7; 16]), State::Committed))
    }

    #[test]
    fn those_of_one_commit_are_woken_together_and_nobody_by_his_neighbour() {
        let bells = Bells::default();
        let waiter = || Waiter::new(None, bells.now()).name(RecordId([7; 16]));
        let (first, completer) = waiter();
        let (second, neighbour) = waiter();
        assert!(Arc::ptr_eq(&first.shared.bell, &second.shared.bell));
        bells.turn();
        let (third, later) = waiter();
        assert!(!Arc::ptr_eq(&first.shared.bell, &third.shared.bell));

        let (tell, told) = mpsc::channel();
        let threads = [(1, first), (2, second), (3, third)].map(|(n, pending)| {
            let tell = tell.clone();
            std::thread::spawn(move || tell.send((n, pending.wait(Duration::MAX))).unwrap())
        });
        let next = || {
            let (n, outcome) = told.recv_timeout(WAIT).unwrap();
            assert_eq!(outcome, receipt());
            n
        };
        // He hears the bell of the second, and goes on waiting.
        completer.complete(receipt());
        assert_eq!(next(), 1);
        assert!(told.try_recv().is_err());
        let mut both = Completion::default();
        both.add(neighbour, receipt());
        both.add(later, receipt());
        both.wake();
        let mut last = [next(), next()];
        last.sort_unstable();
        assert_eq!(last, [2, 3]);
        threads.into_iter().for_each(|t| t.join().unwrap());
    }

    #[test]
    fn a_completer_that_is_dropped_wakes_and_a_timeout_ends_the_wait() {
        let (pending, completer) = Pending::channel(RecordId([7; 16]));
        assert_eq!(pending.wait(Duration::ZERO), Err(AuditError::Timeout));
        let thread = std::thread::spawn(move || pending.wait(WAIT));
        drop(completer);
        assert_eq!(thread.join().unwrap(), Err(AuditError::Lost));
    }
}
