//! `AuditMetrics`: an audit trail as OpenTelemetry metrics. All instruments are observable: they are read when the meter's provider collects, from `health()` and
//! from counts that are kept beside it, so nothing here is on the way of a record.

mod counts;
mod follow;
mod instruments;
mod live;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use argus_core::{AuditError, AuditReader, AuditSink, Backend, ObserverId, ReadError};
use opentelemetry::metrics::Meter;

use crate::account::SpanAccount;
use crate::spans::Tally;
use crate::wrapper::OtelAuditWrapper;
use counts::Counts;

/// Components with counts of their own, unless the builder says otherwise.
const COMPONENTS: usize = 64;

/// Why metrics cannot be installed.
#[derive(Debug)]
#[non_exhaustive]
pub enum MetricsError {
    /// The sink takes no observer. A sink of your own can be counted by [`AuditMetricsBuilder::follow`].
    Observe(AuditError),
    /// The thread that follows the trail cannot be started.
    Thread(std::io::Error),
    /// Where the followed trail ends cannot be read.
    Read(ReadError),
}

impl fmt::Display for MetricsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricsError::Observe(e) => write!(f, "the audit sink cannot be counted: {e}"),
            MetricsError::Thread(e) => write!(f, "the thread that follows the audit trail cannot be started: {e}"),
            MetricsError::Read(e) => write!(f, "the end of the audit trail that is to be followed cannot be read: {e}"),
        }
    }
}

impl std::error::Error for MetricsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MetricsError::Observe(e) => Some(e),
            MetricsError::Thread(e) => Some(e),
            MetricsError::Read(e) => Some(e),
        }
    }
}

#[derive(Debug)]
struct State {
    counts: Counts,
    /// Counts of a followed trail are shown once its history is in: half of it would look like a reset.
    complete: bool,
    /// Readings asked for and answered.
    asked: u64,
    answered: u64,
    /// The last reading came to the end of the trail.
    current: bool,
    stop: bool,
}

impl State {
    /// Another trail is in the place of the one that was counted.
    fn begin_anew(&mut self) {
        self.counts.clear();
        self.complete = false;
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The following thread waits here for questions.
    work: Condvar,
    /// Collections wait here for answers.
    answer: Condvar,
    read_errors: AtomicU64,
    followed: Option<(PathBuf, Backend)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Has the trail read to its end; whether that came to be within `timeout`.
    fn catch_up(&self, timeout: Duration) -> bool {
        let mut state = self.lock();
        if self.followed.is_none() {
            return true;
        }
        let until = Instant::now() + timeout;
        state.asked += 1;
        let mine = state.asked;
        self.work.notify_one();
        while state.answered < mine && !state.stop {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else {
                return false;
            };
            state = self.answer.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        state.answered >= mine && state.current
    }
}

/// How [`AuditMetrics`] count.
#[derive(Debug)]
#[must_use]
pub struct AuditMetricsBuilder {
    components: usize,
    follow: Option<AuditReader>,
    from_now: bool,
    tally: Option<Arc<Tally>>,
    exports: Option<SpanAccount>,
}

impl Default for AuditMetricsBuilder {
    fn default() -> Self {
        Self { components: COMPONENTS, follow: None, from_now: false, tally: None, exports: None }
    }
}

impl AuditMetricsBuilder {
    /// Counts the records of this trail, whoever wrote them and whenever, instead of those that the sink commits from now on: then
    /// [`METRIC_EVENTS`](crate::names::METRIC_EVENTS) equals `argus stats` at each collection, after restarts, too. Of the processes that share a trail, one
    /// should follow it, since each that does counts all of it.
    ///
    /// The trail is read once, on a thread of its own; until its history is in, the counter has no value. Another trail that is put in its place is counted from its
    /// beginning: the counter begins anew, too.
    pub fn follow(mut self, reader: AuditReader) -> Self {
        (self.follow, self.from_now) = (Some(reader), false);
        self
    }

    /// As [`follow`](Self::follow), without what the trail holds at the call of [`install`](Self::install): for the temporality `delta`, which would send the whole
    /// history as new at each start. Another trail that is put in its place is counted on from its end.
    pub fn follow_from_now(mut self, reader: AuditReader) -> Self {
        (self.follow, self.from_now) = (Some(reader), true);
        self
    }

    /// Components with counts of their own: the first that appear; the rest is counted as `other`. Default: 64.
    pub fn components(mut self, most: usize) -> Self {
        self.components = most;
        self
    }

    /// Shows [`OtelAuditWrapper::tracing_errors`] of this wrapper, too.
    pub fn wrapper<S: AuditSink>(mut self, wrapper: &OtelAuditWrapper<S>) -> Self {
        self.tally = Some(wrapper.tally());
        self
    }

    /// Shows [`OtlpMetrics::export_errors`](crate::OtlpMetrics::export_errors) of this pipeline, too.
    #[cfg(feature = "otlp")]
    pub fn exports(mut self, pipeline: &crate::OtlpMetrics) -> Self {
        self.exports = Some(pipeline.account().clone());
        self
    }

    /// Makes the instruments.
    ///
    /// # Errors
    /// The sink takes no observer and no trail is followed, there is no thread to follow it, or its end cannot be read.
    pub fn install<S: AuditSink + Clone>(self, meter: &Meter, sink: &S) -> Result<AuditMetrics, MetricsError> {
        let after = match &self.follow {
            Some(reader) if self.from_now => Some(follow::end_of(reader).map_err(MetricsError::Read)?),
            _ => None,
        };
        let state = State {
            counts: Counts::new(self.components),
            complete: self.follow.is_none() || after.is_some(),
            asked: 0,
            answered: 0,
            current: false,
            stop: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            answer: Condvar::new(),
            read_errors: AtomicU64::new(0),
            followed: self.follow.as_ref().map(|r| (r.path().to_owned(), r.backend())),
        });
        let (mut observer, mut thread) = (None, None);
        match self.follow {
            Some(reader) => {
                let shared = shared.clone();
                let body = move || follow::run(&shared, reader, after);
                let spawned = std::thread::Builder::new().name("argus-metrics".into()).spawn(body);
                thread = Some(spawned.map_err(MetricsError::Thread)?);
            }
            None => {
                let live = Arc::new(live::Live(shared.clone()));
                observer = Some(sink.subscribe(live).map_err(MetricsError::Observe)?);
            }
        }
        let source: Arc<dyn AuditSink> = Arc::new(sink.clone());
        let (tally, exports) = (self.tally, self.exports);
        let inner = Arc::new(Inner { sink: source, shared, observer, tally, exports, thread: Mutex::new(thread) });
        instruments::make(meter, &inner);
        Ok(AuditMetrics { inner })
    }
}

/// What the instruments read. They hold it weakly: a meter's provider keeps its instruments for ever, and must not keep a trail open.
struct Inner {
    sink: Arc<dyn AuditSink>,
    shared: Arc<Shared>,
    observer: Option<ObserverId>,
    tally: Option<Arc<Tally>>,
    exports: Option<SpanAccount>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(id) = self.observer {
            self.sink.unsubscribe(id);
        }
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        self.shared.answer.notify_all();
        let thread = self.thread.get_mut().unwrap_or_else(|e| e.into_inner()).take();
        // It reads in short steps, so this takes no longer than one of them.
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// The metrics of one audit sink; see [`names`](crate::names) for what there is. They live as long as this handle, which holds a clone of the sink.
///
/// ```
/// use argus_core::{AuditConfig, AuditLogger, AuditSink, AuditSinkExt};
/// use argus_otel::AuditMetrics;
/// use argus_otel::opentelemetry::metrics::MeterProvider;
/// use opentelemetry_sdk::metrics::SdkMeterProvider;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("audit.db");
/// let provider = SdkMeterProvider::builder().build(); // with your reader: OTLP, Prometheus, ...
/// let logger = AuditLogger::open(AuditConfig::new(&path))?;
/// let metrics = AuditMetrics::builder().follow(logger.reader()?).install(&provider.meter("argus"), &logger)?;
/// logger.log_config_change("/etc/shop.yaml", 1, 2)?;
/// logger.close(std::time::Duration::from_secs(5));
/// provider.shutdown()?; // the last collection sees `audit_close`, too
/// drop(metrics);
/// # Ok(()) }
/// ```
#[must_use = "the metrics end when this is dropped"]
pub struct AuditMetrics {
    inner: Arc<Inner>,
}

impl fmt::Debug for AuditMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditMetrics").field("followed", &self.inner.shared.followed).finish_non_exhaustive()
    }
}

impl AuditMetrics {
    /// Counts what this sink commits from now on, Argus's own records included. That is enough where counters may begin at zero with each start; to have them
    /// equal what the trail holds, use [`builder`](Self::builder) and [`follow`](AuditMetricsBuilder::follow).
    ///
    /// # Errors
    /// The sink takes no observer.
    pub fn install<S: AuditSink + Clone>(meter: &Meter, sink: &S) -> Result<AuditMetrics, MetricsError> {
        Self::builder().install(meter, sink)
    }

    /// More to say.
    pub fn builder() -> AuditMetricsBuilder {
        AuditMetricsBuilder::default()
    }

    /// Waits until all that the followed trail held at the call is counted, and says whether it is. A collection does the same, for at most 2 s.
    pub fn catch_up(&self, timeout: Duration) -> bool {
        self.inner.shared.catch_up(timeout)
    }

    /// Reads of the followed trail that failed.
    pub fn read_errors(&self) -> u64 {
        self.inner.shared.read_errors.load(Ordering::Relaxed)
    }
}
