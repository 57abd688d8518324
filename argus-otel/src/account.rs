//! `SpanAccount`: what became of the audit spans that a wrapper made. The SDK's processors drop spans and swallow an exporter's errors; this tells how many and why.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Longest reason that is kept: servers answer with whole pages.
const REASON: usize = 500;

/// Counts what became of audit spans after they were made. Clones share the counts. Give one to [`OtelWrapperConfig::account`](crate::OtelWrapperConfig::account)
/// and to the exporter, by `CountedExporter` or `counted_batch` (feature `sdk`); [`otlp_from_env`](crate::otlp_from_env) brings its own.
#[derive(Clone, Default)]
pub struct SpanAccount(Arc<Inner>);

#[derive(Default)]
struct Inner {
    exported: AtomicU64,
    /// Of those exported, what the other side says it did not take.
    rejected: AtomicU64,
    failed: AtomicU64,
    reason: Mutex<Option<String>>,
    /// What a client saw that the exporter's error does not tell.
    #[cfg(feature = "sdk")]
    note: Mutex<Option<String>>,
}

impl fmt::Debug for SpanAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanAccount").field("exported", &self.exported()).field("failed", &self.failed()).finish()
    }
}

impl SpanAccount {
    /// Audit spans that the exporter says it has delivered.
    pub fn exported(&self) -> u64 {
        self.0.exported.load(Ordering::Relaxed).saturating_sub(self.0.rejected.load(Ordering::Relaxed))
    }

    /// Audit spans that were not made, not queued, or not delivered.
    pub fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// Why the last failure was; at most 500 bytes.
    pub fn last_error(&self) -> Option<String> {
        self.0.reason.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    #[cfg(feature = "sdk")]
    pub(crate) fn delivered(&self, spans: u64) {
        self.0.exported.fetch_add(spans, Ordering::Relaxed);
    }

    /// Counts spans that failed. The reason is made only if there are some.
    pub(crate) fn fail(&self, spans: u64, reason: impl FnOnce() -> String) {
        if spans == 0 {
            return;
        }
        let reason = crate::members::cut(reason().into(), REASON);
        *self.0.reason.lock().unwrap_or_else(|e| e.into_inner()) = Some(reason);
        self.0.failed.fetch_add(spans, Ordering::Release);
    }

    /// Counts spans of a batch that counts as delivered otherwise.
    #[cfg(feature = "otlp")]
    pub(crate) fn rejected(&self, spans: u64, reason: impl FnOnce() -> String) {
        self.0.rejected.fetch_add(spans, Ordering::Relaxed);
        self.fail(spans, reason);
    }

    #[cfg(feature = "otlp")]
    pub(crate) fn note(&self, why: String) {
        *self.0.note.lock().unwrap_or_else(|e| e.into_inner()) = Some(why);
    }

    #[cfg(feature = "sdk")]
    pub(crate) fn take_note(&self) -> Option<String> {
        self.0.note.lock().unwrap_or_else(|e| e.into_inner()).take()
    }
}
