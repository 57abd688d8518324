//! `AuditConfig`: every setting, its default and the reason for it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::error::AuditError;
use crate::level::Level;
use crate::redaction::Redaction;
use crate::sink::OwnedTraceContext;

/// When `log` returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// As soon as the bytes are queued. An orderly `close` or the guard commits them; with the memory queue a killed process loses what is queued.
    #[default]
    Accepted,
    /// After the commit with sync: survives power loss.
    Committed,
}

/// What happens on a full queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// Waits for space this long, then a typed error. A relay waits at most its own bound, and its refusal is a counted loss.
    Block {
        /// The longest wait.
        timeout: Duration,
    },
    /// A typed error at once.
    Reject,
}

impl Default for Overflow {
    fn default() -> Self {
        Overflow::Block { timeout: Duration::from_secs(5) }
    }
}

pub(crate) type OnError = Arc<dyn Fn(&AuditError) + Send + Sync>;
pub(crate) type TraceHook = Arc<dyn Fn() -> Option<OwnedTraceContext> + Send + Sync>;

/// The settings of a logger. A partly filled one never switches auditing off.
///
/// ```
/// use argus_core::{AuditConfig, Durability, Level};
/// let config = AuditConfig::new("/var/lib/shop/audit.db")
///     .service("shop", "1.4.0")
///     .component("checkout")
///     .min_level(Level::Info)
///     .durability_from(Level::Security, Durability::Committed)
///     .with("region", "eu-1");
/// ```
#[derive(Clone)]
#[non_exhaustive]
#[must_use]
pub struct AuditConfig {
    /// Off: everything is filtered, no file is touched. Default: on.
    pub enabled: bool,
    /// Where: `.jsonl` is JSONL; `.db .sqlite .sqlite3` is SQLite; anything else is the unified database. Default: `""`.
    pub output_file: PathBuf,
    /// The lowest level recorded. Default: INFO.
    pub min_level: Level,
    /// With a `commit_delay`: the writer commits at the latest when so many records wait. Default: 1000.
    pub buffer_size: usize,
    /// How often an idle writer looks after adopted rows and gaps. Default: 5 s.
    pub flush_interval: Duration,
    /// How long the writer lets a group grow after its first record. Default: zero, since the queue is memory.
    pub commit_delay: Duration,
    /// Members of every record's context; the event's own go before them. Values are JSON. Default: none.
    pub context: Vec<(String, serde_json::Value)>,
    /// The component of events that name none. Default: `argus`.
    pub component: String,
    /// Default: `OTEL_SERVICE_NAME`, else `service.name` of `OTEL_RESOURCE_ATTRIBUTES`, else the program's name.
    pub service_name: Option<String>,
    /// Default: `service.version` of `OTEL_RESOURCE_ATTRIBUTES`.
    pub service_version: Option<String>,
    /// Default: `service.instance.id` of `OTEL_RESOURCE_ATTRIBUTES`.
    pub service_instance: Option<String>,
    /// From this level up, `log` waits for the commit. Default: never.
    pub committed_from: Option<Level>,
    /// Default: block 5 s.
    pub overflow: Overflow,
    /// Default: on, with a small list of keys and a list of shapes.
    pub redaction: Redaction,
    /// Bound of the queue in bytes. Default: 64 MiB.
    pub queue_bytes: usize,
    /// Mode of the files; directories that Argus makes get the matching `x` bits. Default: 0600.
    pub file_mode: u32,
    /// Group (gid) that shares the trail, with a `file_mode` that lets it. Default: none.
    pub group: Option<u32>,
    pub(crate) on_error: Option<OnError>,
    pub(crate) trace_context: Option<TraceHook>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            output_file: PathBuf::new(),
            min_level: Level::Info,
            buffer_size: 1000,
            flush_interval: Duration::from_secs(5),
            commit_delay: Duration::ZERO,
            context: Vec::new(),
            component: "argus".into(),
            service_name: None,
            service_version: None,
            service_instance: None,
            committed_from: None,
            overflow: Overflow::default(),
            redaction: Redaction::default(),
            queue_bytes: 64 << 20,
            file_mode: 0o600,
            group: None,
            on_error: None,
            trace_context: None,
            clock: Arc::new(SystemClock),
        }
    }
}

impl AuditConfig {
    /// The defaults, with this `output_file`.
    pub fn new(output_file: impl AsRef<Path>) -> Self {
        Self { output_file: output_file.as_ref().to_owned(), ..Self::default() }
    }

    /// Switches auditing off or on.
    pub fn enabled(mut self, on: bool) -> Self {
        self.enabled = on;
        self
    }

    /// The lowest level recorded.
    pub fn min_level(mut self, level: Level) -> Self {
        self.min_level = level;
        self
    }

    /// The component of events that name none.
    pub fn component(mut self, component: impl Into<String>) -> Self {
        self.component = component.into();
        self
    }

    /// The service's name and version.
    pub fn service(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self.service_version = Some(version.into());
        self
    }

    /// One member of every record's context.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.context.push((key.into(), value.into()));
        self
    }

    /// When `log` returns, for events of every level.
    pub fn durability(self, durability: Durability) -> Self {
        self.durability_from(Level::Info, durability)
    }

    /// When `log` returns, for events from `level` up.
    pub fn durability_from(mut self, level: Level, durability: Durability) -> Self {
        self.committed_from = match durability {
            Durability::Committed => Some(level),
            Durability::Accepted => None,
        };
        self
    }

    /// What happens on a full queue.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Bound of the queue in bytes.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Which values are withheld.
    pub fn redaction(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// Mode of the files, e.g. `0o660`.
    pub fn file_mode(mut self, mode: u32) -> Self {
        self.file_mode = mode;
        self
    }

    /// How long the writer lets a group grow.
    pub fn commit_delay(mut self, delay: Duration) -> Self {
        self.commit_delay = delay;
        self
    }

    /// Is told of trouble that no caller sees, on Argus's own thread.
    pub fn on_error(mut self, f: impl Fn(&AuditError) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(f));
        self
    }

    /// Gives events that carry no trace context that of the calling thread; `argus_otel::trace_context` is one.
    pub fn trace_context(mut self, hook: impl Fn() -> Option<OwnedTraceContext> + Send + Sync + 'static) -> Self {
        self.trace_context = Some(Arc::new(hook));
        self
    }

    /// Another clock, for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

impl fmt::Debug for AuditConfig {
    /// Names no context value: they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditConfig")
            .field("enabled", &self.enabled)
            .field("output_file", &self.output_file)
            .field("min_level", &self.min_level)
            .field("component", &self.component)
            .field("service_name", &self.service_name)
            .field("committed_from", &self.committed_from)
            .field("overflow", &self.overflow)
            .field("queue_bytes", &self.queue_bytes)
            .finish_non_exhaustive()
    }
}
