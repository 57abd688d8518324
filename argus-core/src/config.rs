//! `AuditConfig`: every setting, its default and the reason for it. `config/file.rs` reads it from files, `config/env.rs` from the environment.

mod env;
mod file;
mod forms;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::error::{AuditError, ErrorKind, OpenError, TrailError};
use crate::level::Level;
use crate::redaction::Redaction;
use crate::sink::OwnedTraceContext;

pub(crate) use env::Service;

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
    /// A typed error at once. (Only for a segment of the journal that is just being made is waited, for at most 500 ms: there is room then.)
    Reject,
    /// From four fifths of the bound on, a second thread of Argus empties the queue into the pending file, from which the writer commits later: the caller waits only
    /// for space, at most 5 s, and is refused only if that file has no room either.
    Spill,
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
/// # Precedence
///
/// Code goes before the environment, the environment before a file, a file before the defaults. Whatever is said last counts, so it is said in that order:
///
/// ```no_run
/// # fn main() -> Result<(), argus_core::OpenError> {
/// use argus_core::{AuditConfig, Level};
/// let config = AuditConfig::from_file("/etc/shop/audit.yaml")? // or deserialized as a part of the service's own settings, or `default()`
///     .overlay_env()? //                                          ARGUS_AUDIT_*, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
///     .component("checkout"); //                                  what the code insists on
/// # Ok(()) }
/// ```
///
/// [`from_env`](Self::from_env) is `default().overlay_env()`. Each source changes only the settings that it names. Without `overlay_env` no variable of
/// `ARGUS_AUDIT_*` is read but `ARGUS_AUDIT_DB`, the place of the unified database, which counts where `output_file` names no trail; and OpenTelemetry's
/// variables name the service where the configuration does not.
///
/// # In a file
///
/// It is [`Deserialize`](serde::Deserialize), with the names of the fields, and `durability_from` (a level or `never`) for `committed_from`:
///
/// ```
/// # use argus_core::AuditConfig;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let yaml = "
/// output_file: /var/lib/shop/audit.db
/// min_level: warn
/// durability_from: SECURITY
/// overflow: {block: 250ms}
/// queue_bytes: 16MiB
/// file_mode: \"0640\"
/// context: {region: eu-1}
/// ";
/// let config: AuditConfig = yaml_serde::from_str(yaml)?;
/// assert!(config.enabled && config.queue_bytes == 16 << 20);
/// # Ok(()) }
/// ```
///
/// `docs/configuration.md` lists every setting with its name in code, in a file and in the environment.
///
/// # In code
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
    /// How long the writer lets a group grow after its first record. Nobody who waits for a commit waits for it. Default: 2 ms with a journal, else zero.
    pub commit_delay: Option<Duration>,
    /// How often the trail records how its logger is doing (`system_stats`, INFO). Default: never.
    pub stats_interval: Option<Duration>,
    /// Records where in the program the caller stood: at most 32 frames, one a line, `function (file:line)`, the innermost first and without Argus's own. The caller
    /// pays for the walk up its stack (2 to 6 µs), the writer thread finds the names. A program without symbols has addresses only. Default: off.
    pub include_stack: bool,
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
    /// The queue is a journal beside the trail, where the file system allows: what is accepted survives a killed process. Default: on.
    pub journal: bool,
    /// Mode of the files; directories that Argus makes get the matching `x` bits. Default: 0600.
    pub file_mode: u32,
    /// Group (gid) that shares the trail, with a `file_mode` that lets it. Default: none.
    pub group: Option<u32>,
    /// Where the pending file is made when the store fails or the queue overflows: best another disk than the trail's. Default: beside the trail.
    pub spill_dir: Option<PathBuf>,
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) faults: crate::fault::Faults,
    pub(crate) from_env: env::FromEnv,
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
            commit_delay: None,
            stats_interval: None,
            include_stack: false,
            context: Vec::new(),
            component: "argus".into(),
            service_name: None,
            service_version: None,
            service_instance: None,
            committed_from: None,
            overflow: Overflow::default(),
            redaction: Redaction::default(),
            queue_bytes: 64 << 20,
            journal: true,
            file_mode: 0o600,
            group: None,
            spill_dir: None,
            #[cfg(any(test, feature = "test-util"))]
            faults: crate::fault::Faults::default(),
            from_env: env::FromEnv::default(),
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

    /// Where the records go; see the field.
    pub fn output_file(mut self, path: impl AsRef<Path>) -> Self {
        self.output_file = path.as_ref().to_owned();
        self
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

    /// The service's name alone.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self
    }

    /// The service's version.
    pub fn service_version(mut self, version: impl Into<String>) -> Self {
        self.service_version = Some(version.into());
        self
    }

    /// Which of the service's instances this is.
    pub fn service_instance(mut self, instance: impl Into<String>) -> Self {
        self.service_instance = Some(instance.into());
        self
    }

    /// One member of every record's context; it takes the place of one with the same key.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        let (key, value) = (key.into(), value.into());
        self.context.retain(|(k, _)| *k != key);
        self.context.push((key, value));
        self
    }

    /// Several members, each as by [`with`](Self::with).
    pub fn context<K: Into<String>, V: Into<serde_json::Value>>(
        self,
        members: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        members.into_iter().fold(self, |c, (k, v)| c.with(k, v))
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

    /// Whether the queue is a journal.
    pub fn journal(mut self, on: bool) -> Self {
        self.journal = on;
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

    /// Group (gid) that shares the trail.
    pub fn group(mut self, gid: u32) -> Self {
        self.group = Some(gid);
        self
    }

    /// Where the pending file is made when the store fails or the queue overflows.
    pub fn spill_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.spill_dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Makes the store and the pending file fail when the switch says so, for tests.
    #[cfg(any(test, feature = "test-util"))]
    pub fn faults(mut self, faults: &crate::fault::Faults) -> Self {
        self.faults = faults.clone();
        self
    }

    /// How many waiting records end a `commit_delay`.
    pub fn buffer_size(mut self, records: usize) -> Self {
        self.buffer_size = records;
        self
    }

    /// How often an idle writer looks after adopted rows and gaps. Not zero.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }

    /// How often the trail records how its logger is doing; zero: never.
    pub fn stats_interval(mut self, interval: Duration) -> Self {
        self.stats_interval = Some(interval).filter(|i| !i.is_zero());
        self
    }

    /// Records where in the program the caller stood.
    pub fn include_stack(mut self, on: bool) -> Self {
        self.include_stack = on;
        self
    }

    /// How long the writer lets a group grow, whatever the queue is. At most an hour.
    pub fn commit_delay(mut self, delay: Duration) -> Self {
        self.commit_delay = Some(delay);
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

    /// Refuses what cannot be meant.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refused = |what: String, help: &'static str| Err(TrailError::new(ErrorKind::Config, what).help(help));
        if self.component.is_empty() || self.component.contains('\0') {
            return refused("the configured component is empty or holds NUL".into(), "leave it out for `argus`");
        }
        if self.flush_interval.is_zero() {
            return refused("the configured flush_interval is zero".into(), "leave it out for 5 s");
        }
        if self.commit_delay > Some(Duration::from_secs(3600)) {
            return refused(
                "the configured commit_delay is over an hour".into(),
                "leave it out for 2 ms with a journal and none without",
            );
        }
        if !forms::mode_is_sound(self.file_mode) {
            return refused(
                format!("the configured file_mode {:#o} cannot be a trail's", self.file_mode),
                "0o600, 0o640, 0o644, 0o660 and 0o664 are sound: the owner reads and writes, nobody executes, not everybody writes",
            );
        }
        Ok(())
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
            .field("include_stack", &self.include_stack)
            .finish_non_exhaustive()
    }
}
