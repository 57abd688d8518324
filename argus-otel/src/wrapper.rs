//! `OtelAuditWrapper`: the decorator. On the caller's thread it copies the active trace ids into the carrier and marks the record for its observer; all else
//! happens in `spans`. Same trait in and out; whatever becomes of the spans, the result is the inner sink's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use argus_core::{
    AuditError, AuditEvent, AuditSink, Carrier, CloseReport, CommitObserver, Health, Level, LossReason, ObserverId, Pending, RecordId, Trace,
};
use opentelemetry::trace::Tracer;

use crate::config::OtelWrapperConfig;
use crate::context::with_current;
use crate::spans::SpanMaker;

/// An audit sink whose committed records become `audit.*` spans. See the [crate] documentation.
///
/// Generic over the sink only: the tracer is erased in the observer, so a wrapper with and one without a tracer have the same type.
pub struct OtelAuditWrapper<S: AuditSink> {
    sink: S,
    observer: Option<ObserverId>,
    errors: Arc<AtomicU64>,
}

impl<S: AuditSink + Clone> Clone for OtelAuditWrapper<S> {
    fn clone(&self) -> Self {
        Self { sink: self.sink.clone(), observer: self.observer, errors: self.errors.clone() }
    }
}

impl<S: AuditSink> fmt::Debug for OtelAuditWrapper<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtelAuditWrapper").field("observer", &self.observer).field("tracing_errors", &self.tracing_errors()).finish_non_exhaustive()
    }
}

impl<S: AuditSink> OtelAuditWrapper<S> {
    /// Wraps `sink`. The observer lives as long as the sink. A sink that takes no observer is audited without spans: then [`traces`](Self::traces) is false and
    /// [`tracing_errors`](Self::tracing_errors) counts one.
    pub fn new<T>(sink: S, tracer: T, config: OtelWrapperConfig) -> Self
    where
        T: Tracer + Send + Sync + 'static,
    {
        let errors = Arc::new(AtomicU64::new(0));
        let observer: Arc<dyn CommitObserver> = Arc::new(SpanMaker { tracer, config, errors: errors.clone() });
        let observer = sink.subscribe(observer).ok();
        errors.fetch_add(u64::from(observer.is_none()), Ordering::Relaxed);
        Self { sink, observer, errors }
    }

    /// The plain sink, in the same type.
    pub fn without_tracer(sink: S) -> Self {
        Self { sink, observer: None, errors: Arc::default() }
    }

    /// The sink inside.
    pub fn inner(&self) -> &S {
        &self.sink
    }

    /// Whether records become spans.
    pub fn traces(&self) -> bool {
        self.observer.is_some()
    }

    /// Spans that could not be made: panics of the tracer or exporter, records the observer was too slow for, a refused subscription.
    pub fn tracing_errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    #[inline]
    fn carried<R>(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>, f: impl FnOnce(&Carrier<'_>) -> R) -> R {
        let Some(id) = self.observer.filter(|_| self.sink.enabled(event.level())) else { return f(carrier) };
        let marked = carrier.with_observer(id);
        if carrier.trace != Trace::Unset || event.trace_context() != Trace::Unset {
            // The event, a layer, or an outer wrapper has said already.
            return f(&marked);
        }
        with_current(|trace| f(&marked.with_trace(trace)))
    }
}

impl<S: AuditSink> AuditSink for OtelAuditWrapper<S> {
    #[inline]
    fn enabled(&self, level: Level) -> bool {
        self.sink.enabled(level)
    }

    #[inline]
    fn submit(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Option<RecordId>, AuditError> {
        self.carried(event, carrier, |c| self.sink.submit(event, c))
    }

    fn submit_durable(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Pending, AuditError> {
        self.carried(event, carrier, |c| self.sink.submit_durable(event, c))
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
        self.sink.health()
    }
}
