//! Telling what became of records: one thread, `argus-observer`, calls observers and `on_error`, so that a slow exporter never holds up the writer. Its queue is
//! bounded; what does not fit is counted, never waited for.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::OnError;
use crate::error::AuditError;
use crate::record::Record;
use crate::sink::{Carrier, CommitObserver, Interest, ObserverId, ObserverSet, OwnedTraceContext, Receipt, Trace};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Most records that wait for observers.
const BOUND: usize = 65_536;
const MOST: usize = 64;

/// One record and its fate.
pub(crate) struct Observation {
    pub(crate) record: Record,
    pub(crate) fate: Result<Receipt, AuditError>,
    pub(crate) trace: Option<OwnedTraceContext>,
    pub(crate) observers: ObserverSet,
}

enum Message {
    Observation(Box<Observation>, ObserverSet),
    Error(AuditError),
    Missed(ObserverSet, u64),
    Unsubscribe(ObserverId),
}

#[derive(Default)]
struct Inner {
    slots: Vec<Option<Arc<dyn CommitObserver>>>,
    queue: VecDeque<Message>,
    all: ObserverSet,
    live: ObserverSet,
    /// Observers that go once the record of this number is committed or abandoned.
    leaving: Vec<(ObserverId, u64)>,
    missed: u64,
    busy: bool,
    closed: bool,
    /// The thread is gone: nothing queued now will ever be told.
    ended: bool,
}

pub(crate) struct Observers {
    inner: Mutex<Inner>,
    wake: Condvar,
    idle: Condvar,
    on_error: Option<OnError>,
}

impl Observers {
    pub(crate) fn new(on_error: Option<OnError>) -> Self {
        Self { inner: Mutex::default(), wake: Condvar::new(), idle: Condvar::new(), on_error }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn subscribe(&self, observer: Arc<dyn CommitObserver>) -> Result<ObserverId, AuditError> {
        let interest = observer.interest();
        let mut inner = self.lock();
        if inner.closed {
            return Err(AuditError::Closed);
        }
        let free = inner.slots.iter().position(Option::is_none).unwrap_or(inner.slots.len());
        if free >= MOST {
            return Err(AuditError::TooManyObservers);
        }
        if free == inner.slots.len() {
            inner.slots.push(None);
        }
        inner.slots[free] = Some(observer);
        #[allow(clippy::cast_possible_truncation)]
        let id = ObserverId(free as u8);
        inner.live = inner.live.with(id);
        if interest == Interest::All {
            inner.all = inner.all.with(id);
        }
        Ok(id)
    }

    /// Lets go of an observer after the record `last`, the last that was accepted.
    pub(crate) fn unsubscribe(&self, id: ObserverId, last: u64, done: u64) {
        let mut inner = self.lock();
        if inner.live.has(id) && !inner.leaving.iter().any(|(l, _)| *l == id) {
            inner.leaving.push((id, last));
            self.let_go(inner, done);
        }
    }

    /// Every record up to `done` is committed or abandoned, and told.
    pub(crate) fn done(&self, done: u64) {
        let inner = self.lock();
        if !inner.leaving.is_empty() {
            self.let_go(inner, done);
        }
    }

    fn let_go(&self, mut inner: MutexGuard<'_, Inner>, done: u64) {
        let leaving = std::mem::take(&mut inner.leaving);
        for (id, last) in leaving {
            if last > done {
                inner.leaving.push((id, last));
                continue;
            }
            let bit = ObserverSet::default().with(id).0;
            inner.live.0 &= !bit;
            inner.all.0 &= !bit;
            inner.queue.push_back(Message::Unsubscribe(id));
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// Who wants to hear of a record that names `addressed`.
    pub(crate) fn wanted(&self, addressed: ObserverSet) -> bool {
        let inner = self.lock();
        addressed.0 & inner.live.0 | inner.all.0 != 0
    }

    /// Whether anybody listens at all.
    pub(crate) fn any(&self) -> bool {
        self.lock().live.0 != 0
    }

    pub(crate) fn observe(&self, observation: Observation) {
        let mut inner = self.lock();
        let to = ObserverSet(observation.observers.0 & inner.live.0 | inner.all.0);
        if to.0 == 0 {
            return;
        }
        if inner.queue.len() >= BOUND {
            inner.missed += 1;
            if let Some(Message::Missed(set, n)) = inner.queue.back_mut()
                && set.0 == to.0
            {
                *n += 1;
                return;
            }
            if inner.queue.len() < BOUND + MOST {
                inner.queue.push_back(Message::Missed(to, 1));
            }
            return;
        }
        inner.queue.push_back(Message::Observation(Box::new(observation), to));
        drop(inner);
        self.wake.notify_one();
    }

    pub(crate) fn error(&self, error: AuditError) {
        if self.on_error.is_none() {
            return;
        }
        let mut inner = self.lock();
        if inner.queue.len() < BOUND + MOST {
            inner.queue.push_back(Message::Error(error));
        }
        drop(inner);
        self.wake.notify_one();
    }

    pub(crate) fn missed(&self) -> u64 {
        self.lock().missed
    }

    /// Waits until everything queued is told.
    pub(crate) fn drain(&self, until: Instant) {
        if crate::thread::is_argus() {
            return;
        }
        let mut inner = self.lock();
        while !inner.ended && (inner.busy || !inner.queue.is_empty()) {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else { return };
            inner = self.idle.wait_timeout(inner, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// Ends the thread once its queue is empty.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// For a logger that never had the thread.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.ended = true;
    }

    /// The body of the thread.
    pub(crate) fn run(&self) {
        crate::thread::mark_argus();
        loop {
            let message = {
                let mut inner = self.lock();
                loop {
                    if let Some(m) = inner.queue.pop_front() {
                        inner.busy = true;
                        break m;
                    }
                    inner.busy = false;
                    self.idle.notify_all();
                    if inner.closed {
                        // Observers may hold exporters: they are dropped here, on our own thread, and without the lock.
                        let slots = std::mem::take(&mut inner.slots);
                        inner.ended = true;
                        drop(inner);
                        slots.into_iter().for_each(|o| drop(catch_unwind(AssertUnwindSafe(|| drop(o)))));
                        return;
                    }
                    inner = self.wake.wait_timeout(inner, Duration::from_secs(60)).unwrap_or_else(|e| e.into_inner()).0;
                }
            };
            self.deliver(message);
        }
    }

    fn deliver(&self, message: Message) {
        let guarded = |f: &mut dyn FnMut()| {
            if catch_unwind(AssertUnwindSafe(f)).is_err() {
                self.lock().missed += 1;
            }
        };
        match message {
            Message::Error(e) => {
                if let Some(f) = &self.on_error {
                    guarded(&mut || f(&e));
                }
            }
            Message::Unsubscribe(id) => {
                let mut gone = self.lock().slots.get_mut(usize::from(id.0)).and_then(Option::take);
                guarded(&mut || drop(gone.take()));
            }
            Message::Missed(to, n) => self.each(to, |o| guarded(&mut || o.missed(n))),
            Message::Observation(ob, to) => {
                let trace = ob.trace.as_ref().map_or(Trace::None, |t| Trace::Parent(t.as_context()));
                let carrier = Carrier { trace, observers: ob.observers, ..Carrier::default() };
                self.each(to, |o| {
                    guarded(&mut || match &ob.fate {
                        Ok(receipt) => o.committed(&ob.record, receipt, &carrier),
                        Err(e) => o.failed(&ob.record, e, &carrier),
                    });
                });
            }
        }
    }

    fn each(&self, to: ObserverSet, f: impl Fn(&dyn CommitObserver)) {
        for n in 0..MOST {
            #[allow(clippy::cast_possible_truncation)]
            if to.has(ObserverId(n as u8)) {
                // Cloned out of the lock: an observer may subscribe or unsubscribe.
                let observer = self.lock().slots.get(n).and_then(Clone::clone);
                if let Some(o) = observer {
                    f(&*o);
                }
            }
        }
    }
}
