//! `OtelAuditWrapper`: the decorator. On the caller's thread it copies the active trace ids into the carrier and marks the record for its observer; all else
//! happens in `spans`. Same trait in and out; whatever becomes of the spans, the result is the inner sink's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use argus_core::{
    AuditError, AuditEvent, AuditSink, Carrier, CloseReport, CommitObserver, Health, Level, LossReason, ObserverId,
    Pending, RecordId, Trace,
};
use opentelemetry::trace::Tracer;

use crate::config::OtelWrapperConfig;
use crate::context::with_current;
use crate::spans::{SpanMaker, Tally};

/// How long dropping the last clone waits for the commit, and so for the spans, of what was logged just before.
const DROP_WAIT: Duration = Duration::from_secs(2);

/// An audit sink whose committed records become `audit.*` spans. See the [crate] documentation.
///
/// Generic over the sink only: the tracer is erased in the observer, so a wrapper with and one without a tracer have the same type.
pub struct OtelAuditWrapper<S: AuditSink> {
    sink: S,
    /// Shared by the clones; the last one to go takes the observer along.
    observer: Option<Arc<ObserverId>>,
    tally: Arc<Tally>,
}

impl<S: AuditSink + Clone> Clone for OtelAuditWrapper<S> {
    fn clone(&self) -> Self {
        Self { sink: self.sink.clone(), observer: self.observer.clone(), tally: self.tally.clone() }
    }
}

impl<S: AuditSink> Drop for OtelAuditWrapper<S> {
    fn drop(&mut self) {
        // `into_inner` is `Some` for one of the clones only, however they race.
        let Some(id) = self.observer.take().and_then(Arc::into_inner) else { return };
        self.settle();
        self.sink.unsubscribe(id);
    }
}

impl<S: AuditSink> fmt::Debug for OtelAuditWrapper<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtelAuditWrapper")
            .field("observer", &self.observer.as_deref())
            .field("tracing_errors", &self.tracing_errors())
            .finish_non_exhaustive()
    }
}

impl<S: AuditSink> OtelAuditWrapper<S> {
    /// Wraps `sink`. Make one wrapper and clone it: each call subscribes one of at most 64 observers, which the last clone unsubscribes on drop, after waiting up
    /// to 2 s for records that are still on their way. A sink that takes no observer is audited without spans: then [`traces`](Self::traces) is false and
    /// [`tracing_errors`](Self::tracing_errors) counts one.
    pub fn new<T>(sink: S, tracer: T, config: OtelWrapperConfig) -> Self
    where
        T: Tracer + Send + Sync + 'static,
    {
        let account = config.account.clone().unwrap_or_default();
        let tally = Arc::new(Tally { account, ..Tally::default() });
        let observer: Arc<dyn CommitObserver> = Arc::new(SpanMaker::new(tracer, config, tally.clone()));
        let observer = match sink.subscribe(observer) {
            Ok(id) => Some(Arc::new(id)),
            Err(e) => {
                tally.account.fail(1, || format!("the sink takes no observer, so there are no spans: {e}"));
                None
            }
        };
        Self { sink, observer, tally }
    }

    /// The plain sink, in the same type.
    pub fn without_tracer(sink: S) -> Self {
        Self { sink, observer: None, tally: Arc::default() }
    }

    /// The sink inside.
    pub fn inner(&self) -> &S {
        &self.sink
    }

    /// Whether records become spans.
    pub fn traces(&self) -> bool {
        self.observer.is_some()
    }

    /// Spans that could not be made: panics of the tracer, a provider that is shut down, records the observer was too slow for, a refused subscription. With an
    /// [`account`](OtelWrapperConfig::account) that the exporter keeps, too: those that found no room or were not delivered.
    pub fn tracing_errors(&self) -> u64 {
        self.tally.account.failed()
    }

    /// Why the last of them was not.
    pub fn tracing_error(&self) -> Option<String> {
        self.tally.account.last_error()
    }

    pub(crate) fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// Hands over with the carrier marked for the observer and filled with the ambient trace, and counts what was `accepted`.
    #[inline]
    fn carried<R>(
        &self,
        event: &AuditEvent<'_>,
        carrier: &Carrier<'_>,
        hand_over: impl FnOnce(&Carrier<'_>) -> R,
        accepted: impl FnOnce(&R) -> bool,
    ) -> R {
        let Some(id) = self.observer.as_deref().filter(|_| self.sink.enabled(event.level())) else {
            return hand_over(carrier);
        };
        let marked = carrier.with_observer(*id);
        let result = if carrier.trace != Trace::Unset || event.trace_context() != Trace::Unset {
            // The event, a layer, or an outer wrapper has said already.
            hand_over(&marked)
        } else {
            with_current(|trace| hand_over(&marked.with_trace(trace)))
        };
        if accepted(&result) {
            self.tally.sent.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Waits, but not for long, until the observer was told of all that was handed over: an observer that is gone hears nothing of records still on their way.
    fn settle(&self) {
        let settled = || self.tally.told.load(Ordering::Acquire) >= self.tally.sent.load(Ordering::Relaxed);
        let until = Instant::now() + DROP_WAIT;
        // `flush` fails on Argus's own thread and with a store that hangs. Then waiting is no use, and those records have no span.
        if settled() || self.sink.flush(DROP_WAIT).is_err() {
            return;
        }
        while !settled() && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl<S: AuditSink> AuditSink for OtelAuditWrapper<S> {
    #[inline]
    fn enabled(&self, level: Level) -> bool {
        self.sink.enabled(level)
    }

    #[inline]
    fn submit(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Option<RecordId>, AuditError> {
        self.carried(event, carrier, |c| self.sink.submit(event, c), |r| matches!(r, Ok(Some(_))))
    }

    fn submit_durable(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Pending, AuditError> {
        self.carried(event, carrier, |c| self.sink.submit_durable(event, c), Result::is_ok)
    }

    fn subscribe(&self, observer: Arc<dyn CommitObserver>) -> Result<ObserverId, AuditError> {
        self.sink.subscribe(observer)
    }

    fn unsubscribe(&self, id: ObserverId) {
        self.sink.unsubscribe(id);
    }

    fn report_loss(&self, reason: LossReason, count: u64) {
        self.sink.report_loss(reason, count);
    }

    fn flush(&self, timeout: Duration) -> Result<(), AuditError> {
        self.sink.flush(timeout)
    }

    fn close(&self, timeout: Duration) -> CloseReport {
        self.sink.close(timeout)
    }

    fn health(&self) -> Health {
        let mut health = self.sink.health();
        health.tracing_errors += self.tracing_errors();
        health.tracing_error = self.tracing_error().or(health.tracing_error);
        health
    }
}
