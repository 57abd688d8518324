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
    done: Condvar,
    origin: Origin,
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
    pub(crate) fn new(mark: Option<Arc<ForkMark>>) -> Self {
        let origin = mark.map_or_else(|| Origin::Process(std::process::id()), Origin::Mark);
        Self(Arc::new(Shared { origin, ..Shared::default() }))
    }

    pub(crate) fn name(self, record_id: RecordId) -> (Pending, Completer) {
        (Pending { record_id: Some(record_id), shared: self.0.clone() }, Completer(Some(self.0)))
    }
}

impl Pending {
    /// A pending record and the end that completes it; for implementers of sinks.
    pub fn channel(record_id: RecordId) -> (Pending, Completer) {
        Waiter::new(None).name(record_id)
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
        let slot = self.shared.lock();
        if slot.outcome.is_none() && crate::thread::is_argus() {
            return Err(AuditError::OnArgusThread);
        }
        let slot = if timeout == Duration::MAX {
            self.shared.done.wait_while(slot, |s| s.outcome.is_none()).unwrap_or_else(|e| e.into_inner())
        } else {
            self.shared
                .done
                .wait_timeout_while(slot, timeout, |s| s.outcome.is_none())
                .unwrap_or_else(|e| e.into_inner())
                .0
        };
        slot.outcome.clone().unwrap_or(Err(AuditError::Timeout))
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
        self.set(outcome);
    }

    fn set(&mut self, outcome: Outcome) {
        let Some(shared) = self.0.take().filter(|s| !s.forked()) else { return };
        let waker = {
            let mut slot = shared.lock();
            slot.outcome = Some(outcome);
            slot.waker.take()
        };
        shared.done.notify_all();
        // Outside the lock, and guarded: a waker is foreign code, and this may be the writer's thread.
        if let Some(waker) = waker {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        self.set(Err(AuditError::Lost));
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
