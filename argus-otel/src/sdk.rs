//! For the SDK's providers: exporters and processors that keep a [`SpanAccount`], and a sampler that keeps what is of level SECURITY.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SamplingDecision, SamplingResult, ShouldSample, Span, SpanData,
    SpanExporter, SpanProcessor,
};

use crate::account::SpanAccount;
use crate::names;

fn is_audit(span: &SpanData) -> bool {
    span.name.starts_with(names::SPAN_PREFIX)
}

/// A panic of an exporter would end its processor's thread, and with it every later export in silence: it is an error instead.
pub(crate) async fn guarded<F: Future<Output = OTelSdkResult>>(export: impl FnOnce() -> F) -> OTelSdkResult {
    let panicked = || Err(OTelSdkError::InternalFailure("the exporter panicked".into()));
    let Ok(future) = catch_unwind(AssertUnwindSafe(export)) else { return panicked() };
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))).unwrap_or_else(|_| Poll::Ready(panicked()))
    })
    .await
}

/// An exporter whose errors and panics are counted.
pub struct CountedExporter<E> {
    exporter: E,
    account: SpanAccount,
    waiting: Arc<Waiting>,
}

/// Spans on their way through a batch processor.
#[derive(Debug, Default)]
struct Waiting {
    all: AtomicUsize,
    audit: AtomicU64,
    /// They were counted as failed at shutdown: what the exporter does later does not count.
    given_up: AtomicBool,
}

impl Waiting {
    fn enter(&self, audit: u64, most: usize) -> bool {
        let more = |n: usize| (n < most).then_some(n + 1);
        let room = self.all.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok();
        if room {
            self.audit.fetch_add(audit, Ordering::AcqRel);
        }
        room
    }

    /// Whether the batch still counts.
    fn leave(&self, all: usize, audit: u64) -> bool {
        let _ = self.all.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(n.saturating_sub(all)));
        let _ = self.audit.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(n.saturating_sub(audit)));
        !self.given_up.load(Ordering::Acquire)
    }

    fn give_up(&self) -> u64 {
        self.given_up.store(true, Ordering::Release);
        self.audit.swap(0, Ordering::AcqRel)
    }
}

impl<E: fmt::Debug> fmt::Debug for CountedExporter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountedExporter").field("exporter", &self.exporter).field("account", &self.account).finish()
    }
}

impl<E: SpanExporter> CountedExporter<E> {
    /// Counts into `account`.
    pub fn new(exporter: E, account: &SpanAccount) -> Self {
        Self { exporter, account: account.clone(), waiting: Arc::default() }
    }
}

impl<E: SpanExporter> SpanExporter for CountedExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (all, audit) = (batch.len(), batch.iter().filter(|s| is_audit(s)).count() as u64);
        let result = guarded(|| self.exporter.export(batch)).await;
        // Left only now: of what is waiting, the batch in hand is a part.
        if self.waiting.leave(all, audit) {
            match &result {
                Ok(()) => self.account.delivered(audit),
                Err(e) => self.account.fail(audit, || self.account.take_note().unwrap_or_else(|| e.to_string())),
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The SDK's batch processor with a door before it: what would not find room in its queue is counted instead of dropped in silence. See [`counted_batch`].
#[derive(Debug)]
pub struct CountedBatch {
    inner: BatchSpanProcessor,
    account: SpanAccount,
    waiting: Arc<Waiting>,
    most: usize,
    down: AtomicBool,
}

/// A batch processor that keeps `account`. At most `queue` spans wait, those in the exporter's hands included; more are counted as failed. Delay and size of the
/// batches follow `OTEL_BSP_SCHEDULE_DELAY` and `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
pub fn counted_batch<E>(exporter: E, account: &SpanAccount, queue: usize) -> CountedBatch
where
    E: SpanExporter + 'static,
{
    let exporter = CountedExporter::new(exporter, account);
    let waiting = exporter.waiting.clone();
    let config = BatchConfigBuilder::default().with_max_queue_size(queue).build();
    let inner = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    CountedBatch { inner, account: account.clone(), waiting, most: queue, down: AtomicBool::new(false) }
}

impl SpanProcessor for CountedBatch {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.inner.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        let audit = u64::from(is_audit(&span));
        if self.down.load(Ordering::Acquire) {
            self.account.fail(audit, || "the span processor is shut down".into());
            return;
        }
        if !self.waiting.enter(audit, self.most) {
            let why = || format!("{} spans wait for the exporter, and no more may", self.most);
            self.account.fail(audit, why);
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.down.store(true, Ordering::Release);
        let result = self.inner.shutdown_with_timeout(timeout);
        if let Err(e) = &result {
            self.account.fail(self.waiting.give_up(), || format!("the exporter had not taken them at shutdown: {e}"));
        }
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// A sampler that always keeps the root spans of SECURITY records, and asks `S` for all else. For
/// [`OtelWrapperConfig::security_roots`](crate::OtelWrapperConfig::security_roots).
#[derive(Clone, Debug)]
pub struct KeepSecurity<S>(pub S);

impl<S: ShouldSample + Clone + 'static> ShouldSample for KeepSecurity<S> {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let root = parent.is_none_or(|p| !p.span().span_context().is_valid());
        if root && name.starts_with(names::SPAN_SECURITY_PREFIX) {
            return SamplingResult {
                decision: SamplingDecision::RecordAndSample,
                attributes: Vec::new(),
                trace_state: TraceState::default(),
            };
        }
        self.0.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}
