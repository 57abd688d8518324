//! The seams: `AuditSink` is what a caller, a layer, the watcher and a wrapper speak to; `CommitObserver` is told what became of a record.
//! A sink is object-safe, so wrappers and layers compose over `Arc<dyn AuditSink>` as well as over a logger.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::AuditError;
use crate::event::AuditEvent;
use crate::health::Health;
use crate::id::{Checksum, RecordId};
use crate::level::Level;
use crate::pending::Pending;
use crate::record::Record;

/// W3C trace context of the caller, borrowed: no heap, no held OpenTelemetry `Context`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceContext<'a> {
    /// The trace id; all zero is invalid.
    pub trace_id: [u8; 16],
    /// The span id; all zero is invalid.
    pub span_id: [u8; 8],
    /// W3C trace flags; bit 0 is `sampled`.
    pub flags: u8,
    /// Whether the span is of another process.
    pub remote: bool,
    /// The `tracestate` header, at most 512 bytes; longer ones are dropped.
    pub trace_state: &'a str,
}

/// A [`TraceContext`] that owns its text: what a `trace_context` hook of a configuration returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedTraceContext {
    /// The trace id.
    pub trace_id: [u8; 16],
    /// The span id.
    pub span_id: [u8; 8],
    /// W3C trace flags.
    pub flags: u8,
    /// Whether the span is of another process.
    pub remote: bool,
    /// The `tracestate` header.
    pub trace_state: String,
}

impl OwnedTraceContext {
    /// The borrowed form.
    pub fn as_context(&self) -> TraceContext<'_> {
        TraceContext {
            trace_id: self.trace_id,
            span_id: self.span_id,
            flags: self.flags,
            remote: self.remote,
            trace_state: &self.trace_state,
        }
    }
}

/// Three-valued, since a layer that knows there is no parent must stop the wrapper from taking the ambient one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trace<'a> {
    /// Nobody said; ask further in.
    #[default]
    Unset,
    /// There is none; stop asking.
    None,
    /// This is it.
    Parent(TraceContext<'a>),
}

/// Who calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Caller {
    /// Code that sees the result.
    #[default]
    Direct,
    /// A layer or callback that has nobody to hand an `Err` to: its refusals are losses, and its wait is bounded.
    Relay {
        /// The longest wait for space in the queue.
        max_wait: Duration,
    },
}

/// Names one observer of one sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObserverId(pub u8);

/// A set of observers, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObserverSet(pub u64);

impl ObserverSet {
    /// This set with `id` in it.
    #[must_use]
    pub fn with(self, id: ObserverId) -> Self {
        Self(self.0 | 1u64.checked_shl(id.0.into()).unwrap_or(0))
    }

    /// Whether `id` is in it.
    pub fn has(self, id: ObserverId) -> bool {
        self.0.checked_shr(id.0.into()).unwrap_or(0) & 1 == 1
    }
}

/// What travels beside an event: the caller's trace context, who wants to hear of the commit, and who called. It is no part of the record (only the two ids are).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Carrier<'a> {
    /// The caller's trace context.
    pub trace: Trace<'a>,
    /// Observers that want to hear of this record.
    pub observers: ObserverSet,
    /// Who calls.
    pub caller: Caller,
}

impl<'a> Carrier<'a> {
    /// A carrier from a relay that waits at most `max_wait`.
    pub fn relay(max_wait: Duration) -> Self {
        Self { caller: Caller::Relay { max_wait }, ..Self::default() }
    }

    /// With this trace context.
    #[must_use]
    pub fn with_trace(mut self, trace: Trace<'a>) -> Self {
        self.trace = trace;
        self
    }

    /// With one more observer.
    #[must_use]
    pub fn with_observer(mut self, id: ObserverId) -> Self {
        self.observers = self.observers.with(id);
        self
    }
}

/// How far a record got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Committed to the trail and synced.
    Committed,
    /// Synced to the pending file, not yet in the trail.
    Spilled,
}

/// Proof that a record is durable.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Receipt {
    /// The record.
    pub record_id: RecordId,
    /// How far it got.
    pub state: State,
    /// Its position in the log, once committed.
    pub seq: Option<u64>,
    /// Its checksum, once committed.
    pub checksum: Option<Checksum>,
    /// When it was committed.
    pub committed_at: Option<SystemTime>,
}

impl Receipt {
    /// A receipt without the details that only a commit gives.
    pub fn new(record_id: RecordId, state: State) -> Self {
        Self { record_id, state, seq: None, checksum: None, committed_at: None }
    }
}

/// Why something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum LossReason {
    /// The queue was full for a relay.
    QueueFull,
    /// The trail was closed for a relay.
    Closed,
    /// A relay's event broke a rule of the record format.
    Invalid,
    /// A relay's event could not be encoded at all.
    EncodeFailed,
    /// A sink or a `Serialize` panicked under a relay.
    Panicked,
    /// The store failed for good.
    StoreFailed,
}

impl LossReason {
    /// Every reason, in order.
    pub const ALL: &'static [LossReason] = &[
        LossReason::QueueFull,
        LossReason::Closed,
        LossReason::Invalid,
        LossReason::EncodeFailed,
        LossReason::Panicked,
        LossReason::StoreFailed,
    ];

    /// The word that gap records and metrics carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            LossReason::QueueFull => "queue_full",
            LossReason::Closed => "closed",
            LossReason::Invalid => "invalid",
            LossReason::EncodeFailed => "encode_failed",
            LossReason::Panicked => "panicked",
            LossReason::StoreFailed => "store_failed",
        }
    }
}

/// What `close` achieved.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Somebody had closed it before; the other fields tell of then.
    pub already_closed: bool,
    /// Records of this logger that are committed, in all.
    pub committed: u64,
    /// Records that are accepted and not committed. What a journal or the pending file has of them is committed by the next open; of a memory queue the rest is
    /// lost, once the writer is done (`health().lost`).
    pub left: u64,
    /// What went wrong.
    pub error: Option<AuditError>,
}

/// Which records an observer is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Every record, Argus's own included.
    All,
    /// Those whose carrier names the observer.
    Addressed,
}

/// Is told what became of records. It runs on Argus's own thread; panics are caught and counted; calls on the sink from here never wait.
/// It must not own the sink: that would be a cycle.
pub trait CommitObserver: Send + Sync + 'static {
    /// Which records.
    fn interest(&self) -> Interest {
        Interest::Addressed
    }

    /// The record is committed.
    fn committed(&self, record: &Record, receipt: &Receipt, carrier: &Carrier<'_>);

    /// The record was accepted and could not be committed.
    fn failed(&self, record: &Record, error: &AuditError, carrier: &Carrier<'_>) {
        let _ = (record, error, carrier);
    }

    /// So many records were not shown, since the observer was too slow. (They are committed nevertheless.)
    fn missed(&self, count: u64) {
        let _ = count;
    }
}

/// Where audit events go: a logger, or a wrapper around one.
pub trait AuditSink: Send + Sync + 'static {
    /// Whether an event of this level would be recorded.
    fn enabled(&self, level: Level) -> bool;

    /// Hands over an event; returns when the durability configured for its level is met. `None`: filtered.
    ///
    /// # Errors
    /// The event was not recorded, and the error says why; except [`AuditError::Timeout`], which leaves an accepted record on its way.
    fn submit(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Option<RecordId>, AuditError>;

    /// Hands over an event; the [`Pending`] tells when it is durable. A filtered event gives one that is ready with [`AuditError::Filtered`].
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    fn submit_durable(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Pending, AuditError>;

    /// Adds an observer; at most 64.
    ///
    /// # Errors
    /// [`AuditError::Unsupported`], [`AuditError::TooManyObservers`] or [`AuditError::Closed`].
    fn subscribe(&self, observer: Arc<dyn CommitObserver>) -> Result<ObserverId, AuditError> {
        let _ = observer;
        Err(AuditError::Unsupported)
    }

    /// Removes an observer; what is queued for it is still delivered.
    fn unsubscribe(&self, id: ObserverId) {
        let _ = id;
    }

    /// Counts events that never reached `submit`; a gap record follows.
    fn report_loss(&self, reason: LossReason, count: u64);

    /// Returns when all that was accepted before the call is committed.
    ///
    /// # Errors
    /// [`AuditError::Timeout`], or what keeps the store from committing.
    fn flush(&self, timeout: Duration) -> Result<(), AuditError>;

    /// Commits what is queued and closes the trail for all handles. Calling it again is fine.
    fn close(&self, timeout: Duration) -> CloseReport;

    /// The account so far.
    fn health(&self) -> Health;
}

macro_rules! forward {
    ($($pointer:ident),*) => { $(
        impl<T: AuditSink + ?Sized> AuditSink for $pointer<T> {
            #[inline]
            fn enabled(&self, level: Level) -> bool {
                (**self).enabled(level)
            }
            #[inline]
            fn submit(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Option<RecordId>, AuditError> {
                (**self).submit(event, carrier)
            }
            fn submit_durable(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Pending, AuditError> {
                (**self).submit_durable(event, carrier)
            }
            fn subscribe(&self, observer: Arc<dyn CommitObserver>) -> Result<ObserverId, AuditError> {
                (**self).subscribe(observer)
            }
            fn unsubscribe(&self, id: ObserverId) {
                (**self).unsubscribe(id)
            }
            fn report_loss(&self, reason: LossReason, count: u64) {
                (**self).report_loss(reason, count)
            }
            fn flush(&self, timeout: Duration) -> Result<(), AuditError> {
                (**self).flush(timeout)
            }
            fn close(&self, timeout: Duration) -> CloseReport {
                (**self).close(timeout)
            }
            fn health(&self) -> Health {
                (**self).health()
            }
        }
    )* };
}
forward!(Arc, Box);
