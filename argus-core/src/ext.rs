//! What people call: `AuditSinkExt` on any sink, `AuditScope` for intent and outcome, and the `audit!` macro.

use std::path::Path;
use std::time::Duration;

use crate::error::AuditError;
use crate::event::AuditEvent;
use crate::id::RecordId;
use crate::level::{Level, Outcome};
use crate::pending::Pending;
use crate::sink::{AuditSink, Carrier, Receipt};
use crate::value::Value;

/// The calls that people use, on every [`AuditSink`]. Nothing to implement.
pub trait AuditSinkExt: AuditSink {
    /// Records an event. `Ok(None)`: its level is below `min_level`.
    ///
    /// # Errors
    /// The event was not recorded, and the error says why.
    #[inline(always)]
    fn log(&self, event: AuditEvent<'_>) -> Result<Option<RecordId>, AuditError> {
        self.submit(&event, &Carrier::default())
    }

    /// Records `config_change`, level CRITICAL: `path` changed from `old` to `new`.
    ///
    /// # Errors
    /// As [`log`](Self::log).
    fn log_config_change<'a>(
        &self,
        path: &'a (impl AsRef<Path> + ?Sized),
        old: impl Into<Value<'a>>,
        new: impl Into<Value<'a>>,
    ) -> Result<Option<RecordId>, AuditError> {
        let event = AuditEvent::critical("config_change").file_path(path).old_value(old).new_value(new);
        self.submit(&event, &Carrier::default())
    }

    /// Records an event of level INFO about a watched file, such as `file_watch_start`.
    ///
    /// # Errors
    /// As [`log`](Self::log).
    fn log_file_watch(&self, event: &str, path: &(impl AsRef<Path> + ?Sized)) -> Result<Option<RecordId>, AuditError> {
        // In place: to move an event that was just put together costs more than to make it.
        let mut event = AuditEvent::info(event);
        event.file_path = Some(path.as_ref());
        self.submit(&event, &Carrier::default())
    }

    /// Records an event of level SECURITY. `details` becomes the context member `details`; `context` has the others.
    ///
    /// # Errors
    /// As [`log`](Self::log); [`AuditError::Invalid`] if `context` has a member `details`, too: nothing is recorded then, for one of the two would be gone.
    fn log_security_event(
        &self,
        event: &str,
        details: &str,
        context: &[(&str, Value<'_>)],
    ) -> Result<Option<RecordId>, AuditError> {
        let event = AuditEvent::security(event).context(context).with("details", details);
        self.submit(&event, &Carrier::default())
    }

    /// Records an event and waits until it is durable. Concurrent callers share one commit: it waits a moment for those who shared the last.
    ///
    /// # Errors
    /// As [`log`](Self::log); [`AuditError::Filtered`] if the level is below `min_level`; or what befell the commit.
    fn log_durable(&self, event: AuditEvent<'_>) -> Result<Receipt, AuditError> {
        self.submit_durable(&event, &Carrier::default())?.wait(Duration::MAX)
    }

    /// Records an event now and returns a future of its receipt. (No `async fn`: so the future is `Send + 'static` though the event borrows.)
    ///
    /// # Errors
    /// As [`log`](Self::log).
    fn log_pending(&self, event: AuditEvent<'_>) -> Result<Pending, AuditError> {
        self.submit_durable(&event, &Carrier::default())
    }

    /// Records the intent now and the outcome later: see [`AuditScope`].
    ///
    /// # Errors
    /// As [`log`](Self::log): then do not proceed.
    fn begin(&self, event: AuditEvent<'_>) -> Result<AuditScope<Self>, AuditError>
    where
        Self: Clone + Sized,
    {
        let intent = self.submit(&event, &Carrier::default())?;
        Ok(AuditScope {
            sink: self.clone(),
            level: event.level,
            event: event.event.into(),
            component: event.component.map(Into::into),
            intent,
            done: false,
        })
    }
}

impl<T: AuditSink + ?Sized> AuditSinkExt for T {}

/// Something that was begun. Say how it ended; if nobody does, because of a `return`, a panic or a forgotten branch, its drop records `abandoned`.
///
/// The outcome is a second record of the same event name whose context member `argus.intent` has the id of the first.
#[derive(Debug)]
#[must_use = "dropping a scope records the outcome `abandoned`"]
pub struct AuditScope<S: AuditSink> {
    sink: S,
    level: Level,
    event: Box<str>,
    component: Option<Box<str>>,
    intent: Option<RecordId>,
    done: bool,
}

impl<S: AuditSink> AuditScope<S> {
    /// The record of the intent; `None` if it was filtered.
    pub fn intent(&self) -> Option<RecordId> {
        self.intent
    }

    /// It was done.
    ///
    /// # Errors
    /// As [`AuditSinkExt::log`].
    pub fn success(mut self) -> Result<Option<RecordId>, AuditError> {
        self.end(Outcome::Success, None)
    }

    /// It failed, and why.
    ///
    /// # Errors
    /// As [`AuditSinkExt::log`].
    pub fn failure(mut self, error: &dyn std::fmt::Display) -> Result<Option<RecordId>, AuditError> {
        let text = error.to_string();
        self.end(Outcome::Failure, Some(&text))
    }

    fn end(&mut self, outcome: Outcome, error: Option<&str>) -> Result<Option<RecordId>, AuditError> {
        self.done = true;
        let Some(intent) = self.intent else { return Ok(None) };
        let mut id = [0; 36];
        let mut event =
            AuditEvent::new(self.level, &self.event).outcome(outcome).with("argus.intent", intent.encode(&mut id));
        if let Some(c) = &self.component {
            event = event.component(c);
        }
        if let Some(e) = error {
            event = event.with("error", e);
        }
        self.sink.submit(&event, &Carrier::default())
    }
}

impl<S: AuditSink> Drop for AuditScope<S> {
    fn drop(&mut self) {
        if !self.done {
            // The sink counts a refusal; a drop has nobody to tell.
            let _ = self.end(Outcome::Abandoned, None);
        }
    }
}

/// Records an event, evaluating its arguments only if the level is enabled.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = std::env::temp_dir().join(format!("argus-doc-{}", std::process::id()));
/// # let logger = argus_core::AuditLogger::open(argus_core::AuditConfig::new(dir.join("audit.jsonl")))?;
/// use argus_core::audit;
/// audit!(logger, Security, "login_denied", user = "jane", attempts = 3)?;
/// audit!(logger, Info, "cache_flushed", "cache.name" = "sessions")?;
/// # logger.guard(); std::fs::remove_dir_all(dir)?;
/// # Ok(()) }
/// ```
#[macro_export]
macro_rules! audit {
    ($sink:expr, $level:ident, $event:expr $(, $($members:tt)*)?) => {{
        // Methods, not paths: so a logger, a reference to one, or an `Arc<dyn AuditSink>` will do.
        use $crate::AuditSink as _;
        let sink = &$sink;
        if sink.enabled($crate::Level::$level) {
            #[allow(unused_mut)]
            let mut event = $crate::AuditEvent::new($crate::Level::$level, $event);
            $crate::__members!(sink, event, $($($members)*)?)
        } else {
            ::core::result::Result::Ok(::core::option::Option::None)
        }
    }};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __members {
    ($sink:ident, $event:ident, $key:literal = $value:expr $(, $($rest:tt)*)?) => {
        match &$value { value => { $event.push($key, $crate::__value!(value)); $crate::__members!($sink, $event, $($($rest)*)?) } }
    };
    ($sink:ident, $event:ident, $key:ident = $value:expr $(, $($rest:tt)*)?) => {
        match &$value { value => { $event.push(stringify!($key), $crate::__value!(value)); $crate::__members!($sink, $event, $($($rest)*)?) } }
    };
    ($sink:ident, $event:ident, $(,)?) => { $sink.submit(&$event, &$crate::Carrier::default()) };
}

/// A scalar or text as itself, all else by its `Serialize`: the first trait of the two whose bounds hold is taken, by one reference less.
#[doc(hidden)]
#[macro_export]
macro_rules! __value {
    ($value:ident) => {{
        #[allow(unused_imports)]
        use $crate::__private::{ByInto as _, BySerialize as _};
        (&$crate::__private::Given($value)).argus_value()
    }};
}

/// For the macros only.
#[doc(hidden)]
#[allow(missing_docs, missing_debug_implementations)]
pub mod private {
    use serde::Serialize;

    use crate::value::Value;

    pub struct Given<'a, T: ?Sized>(pub &'a T);

    pub trait ByInto<'a> {
        fn argus_value(&self) -> Value<'a>;
    }

    impl<'a, T: Copy + Into<Value<'a>>> ByInto<'a> for Given<'a, T> {
        #[inline(always)]
        fn argus_value(&self) -> Value<'a> {
            (*self.0).into()
        }
    }

    pub trait BySerialize<'a> {
        fn argus_value(&self) -> Value<'a>;
    }

    impl<'a, T: Serialize> BySerialize<'a> for &Given<'a, T> {
        #[inline(always)]
        fn argus_value(&self) -> Value<'a> {
            self.0.into()
        }
    }
}
