//! Makes the spans: a commit observer, on Argus's own thread, after the commit. A span is built and ended here, with the event's own time; what a tracer or
//! exporter does wrong is counted and touches nothing else. It holds no sink.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use argus_core::{AuditError, Carrier, CommitObserver, Level, Receipt, Record, Trace, format_timestamp};
use opentelemetry::trace::{
    Link, Span, SpanBuilder, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue, StringValue};

use crate::account::SpanAccount;
use crate::config::OtelWrapperConfig;
use crate::{members, names};

/// What a wrapper and its observer count together. `told` catches up with `sent` once every record has its span.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Records handed over for the observer; the caller's side.
    pub(crate) sent: AtomicU64,
    /// Records the observer was told of, or told to have missed; Argus's side.
    pub(crate) told: AtomicU64,
    /// Spans that could not be made, and those that the exporter failed to send if it shares the account.
    pub(crate) account: SpanAccount,
}

pub(crate) struct SpanMaker<T> {
    tracer: T,
    config: OtelWrapperConfig,
    tally: Arc<Tally>,
}

impl<T> SpanMaker<T>
where
    T: Tracer + Send + Sync + 'static,
{
    /// Base attributes that would hide one of ours are left out, once, and counted.
    pub(crate) fn new(tracer: T, mut config: OtelWrapperConfig, tally: Arc<Tally>) -> Self {
        let given = std::mem::take(&mut config.base_attributes);
        for attribute in given {
            let key = attribute.key.as_str();
            if names::SPAN_ATTRIBUTES.contains(&key) || key.starts_with(names::CONTEXT_PREFIX) {
                tally.account.fail(1, || format!("the base attribute `{key}` has a name of Argus's and is left out"));
                continue;
            }
            // A key has one value: the last.
            config.base_attributes.retain(|a| a.key != attribute.key);
            config.base_attributes.push(attribute);
        }
        Self { tracer, config, tally }
    }

    /// Builds and ends one span, inside a suppression scope: nothing here may feed back into Argus.
    fn make(&self, record: &Record, receipt: Option<&Receipt>, carrier: &Carrier<'_>, error: Option<&AuditError>) {
        let made = catch_unwind(AssertUnwindSafe(|| {
            let _quiet = Context::enter_telemetry_suppressed_scope();
            let caller = caller(carrier);
            let mut builder = SpanBuilder::from_name(span_name(record))
                .with_kind(self.config.span_kind.clone())
                .with_start_time(record.timestamp)
                .with_attributes(self.attributes(record, receipt));
            let mut parent = Context::new();
            match caller {
                Some(c) if self.config.security_roots && record.level == Level::Security => {
                    builder = builder.with_links(vec![Link::with_context(c)]);
                }
                Some(c) => parent = parent.with_remote_span_context(c),
                None => {}
            }
            let mut span = self.tracer.build_with_context(builder, &parent);
            if let Some(e) = error {
                span.set_status(Status::error(e.to_string()));
            }
            span.end_with_timestamp(record.timestamp);
            span.span_context().is_valid() || self.is_noop()
        }));
        match made {
            Ok(true) => {}
            Ok(false) => self.tally.account.fail(1, || "the tracer's provider is shut down".into()),
            Err(_) => self.tally.account.fail(1, || "the tracer or a span processor panicked".into()),
        }
        self.tally.told.fetch_add(1, Ordering::Release);
    }

    /// Ours first: the SDK drops what is beyond its limit of attributes from the end.
    fn attributes(&self, record: &Record, receipt: Option<&Receipt>) -> Vec<KeyValue> {
        let config = &self.config;
        let mut out = Vec::with_capacity(16 + config.base_attributes.len());
        // One text for both: an action is seldom given.
        let event = StringValue::from(Arc::<str>::from(record.event.as_str()));
        let operation = record.action.as_ref().map_or_else(|| event.clone(), |a| a.clone().into());
        out.push(KeyValue::new(names::LEVEL, record.level.as_str()));
        out.push(KeyValue::new(names::EVENT, event));
        out.push(KeyValue::new(names::COMPONENT, record.component.clone()));
        out.push(KeyValue::new(names::OPERATION, operation));
        out.push(KeyValue::new(names::TIMESTAMP, format_timestamp(record.timestamp)));
        out.push(KeyValue::new(names::RECORD_ID, record.record_id.to_string()));
        out.push(KeyValue::new(names::SECURITY_CRITICAL, matches!(record.level, Level::Security | Level::Critical)));
        if let Some(path) = &record.file_path {
            out.push(KeyValue::new(names::FILE_PATH, path.clone()));
        }
        if let (true, Some(sum)) = (config.include_checksums, receipt.and_then(|r| r.checksum)) {
            out.push(KeyValue::new(names::CHECKSUM, sum.to_string()));
        }
        out.extend_from_slice(&config.base_attributes);
        if config.include_event_context {
            members::push(&mut out, record.context.as_str(), config.max_context_size);
        }
        out
    }

    /// A tracer that makes no spans by design hands a parent's context through; that of a provider which is shut down does not.
    fn is_noop(&self) -> bool {
        let probe = SpanContext::new(
            TraceId::from_bytes([1; 16]),
            SpanId::from_bytes([1; 8]),
            TraceFlags::default(),
            true,
            TraceState::default(),
        );
        let parent = Context::new().with_remote_span_context(probe);
        let span = self.tracer.build_with_context(SpanBuilder::from_name("probe"), &parent);
        span.span_context().is_valid()
    }
}

impl<T> CommitObserver for SpanMaker<T>
where
    T: Tracer + Send + Sync + 'static,
{
    fn committed(&self, record: &Record, receipt: &Receipt, carrier: &Carrier<'_>) {
        self.make(record, Some(receipt), carrier, None);
    }

    fn failed(&self, record: &Record, error: &AuditError, carrier: &Carrier<'_>) {
        self.make(record, None, carrier, Some(error));
    }

    fn missed(&self, count: u64) {
        self.tally.account.fail(count, || "spans are made and exported more slowly than records are committed".into());
        self.tally.told.fetch_add(count, Ordering::Release);
    }
}

/// The caller's span.
fn caller(carrier: &Carrier<'_>) -> Option<SpanContext> {
    let Trace::Parent(t) = carrier.trace else { return None };
    let context = SpanContext::new(
        TraceId::from_bytes(t.trace_id),
        SpanId::from_bytes(t.span_id),
        TraceFlags::new(t.flags),
        t.remote,
        if t.trace_state.is_empty() {
            TraceState::NONE
        } else {
            TraceState::from_str(t.trace_state).unwrap_or_default()
        },
    );
    Some(context).filter(SpanContext::is_valid)
}

fn span_name(record: &Record) -> String {
    let prefix = if record.level == Level::Security { names::SPAN_SECURITY_PREFIX } else { names::SPAN_PREFIX };
    names::with_prefix(prefix, &record.event)
}
