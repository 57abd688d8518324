//! Argus: an audit trail for Rust services. This crate is the trail itself: events, records, the hash chain, the SQLite and JSONL stores, queries,
//! verification, and the config-file watcher. It knows nothing of OpenTelemetry or `tracing`; `argus-otel` and `argus-tracing-layer` add those.
//!
//! # A tour
//!
//! Open a trail, record facts, close it. The ending of the path chooses the store: `.db` is SQLite, which any number of processes may share, `.jsonl` is JSON
//! lines. A path that is neither, or none, means the one database that every program of the user shares ([`locate`]).
//!
//! ```
//! use argus_core::{ActorType, AuditConfig, AuditEvent, AuditLogger, AuditSinkExt, Outcome, audit};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let logger = AuditLogger::open(AuditConfig::new(dir.path().join("audit.db")).service("shop", "1.4.2"))?;
//! let _guard = logger.guard(); // closes the trail at the end of the scope, though clones live on elsewhere
//!
//! logger.log_config_change("/etc/shop/app.yaml", 80, 443)?;
//! audit!(logger, Warn, "quota_exceeded", used = 120, limit = 100)?; // arguments are evaluated only if WARN is recorded
//! logger.log(
//!     AuditEvent::security("login_denied")
//!         .actor("jane", ActorType::User)
//!         .outcome(Outcome::Failure)
//!         .with("password", "hunter2"), // withheld because of its key
//! )?;
//! # Ok(()) }
//! ```
//!
//! `log` returns when the record is queued, which takes a fraction of a microsecond; one thread commits. Ask for more where it matters:
//! [`log_durable`](AuditSinkExt::log_durable) returns after the commit with sync, [`log_pending`](AuditSinkExt::log_pending) gives a future of it, and
//! [`AuditConfig::durability_from`] makes it the rule from a level up. What is intended and what came of it are two records of one
//! [`scope`](AuditSinkExt::begin):
//!
//! ```
//! # use argus_core::{AuditConfig, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Filter};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let logger = AuditLogger::open(AuditConfig::new(dir.path().join("audit.db")))?;
//! let receipt = logger.log_durable(AuditEvent::critical("key_rotated"))?;
//! let scope = logger.begin(AuditEvent::security("export").with("rows", 12_000))?;
//! // ... do it ...
//! scope.success()?; // or `failure(&error)`; dropped without either, by `?` or a panic, it records `abandoned`
//!
//! // Look: strictly read-only, from any process, beside live writers.
//! let reader = logger.reader()?;
//! let record = reader.by_id(receipt.record_id)?.ok_or("not found")?;
//! assert_eq!(record.seq, receipt.seq);
//! let exports: Vec<_> = reader.query(Filter::new().event("export"))?.collect::<Result<_, _>>()?;
//! assert_eq!(exports[1].outcome, Some(argus_core::Outcome::Success));
//!
//! // Was anything changed? Tampering is a verdict, not an error.
//! let report = reader.verify()?;
//! assert!(report.is_ok(), "{report}");
//! # logger.close(std::time::Duration::from_secs(5));
//! # Ok(()) }
//! ```
//!
//! The watcher records what happens to configuration files, with the value before and after and what differs:
//!
//! ```
//! # #[cfg(feature = "watch")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use argus_core::{AuditConfig, AuditLogger, ChangeKind, Watcher, WatcherConfig};
//! use std::{fs, sync::mpsc, time::Duration};
//!
//! # let dir = tempfile::tempdir()?;
//! # let (trail, file) = (dir.path().join("audit.db"), dir.path().join("app.json"));
//! fs::write(&file, r#"{"port":80}"#)?;
//! let logger = AuditLogger::open(AuditConfig::new(&trail))?;
//! let watcher = Watcher::with_sink(WatcherConfig::default(), logger.clone());
//! let (tell, told) = mpsc::channel();
//! watcher.watch(&file, move |change| drop(tell.send(change.clone())))?;
//! watcher.start()?;
//!
//! fs::write(&file, r#"{"port":443}"#)?;
//! let change = told.recv_timeout(Duration::from_secs(20))?;
//! assert_eq!(change.kind, ChangeKind::Modified);
//! assert!(change.record_id.is_some()); // the record is accepted before the callback runs
//! watcher.stop()?;
//! # Ok(()) }
//! # #[cfg(not(feature = "watch"))]
//! # fn main() {}
//! ```
//!
//! # What holds
//!
//! - **Nothing accepted is lost in silence.** [`Health`]: submitted = committed + rejected + lost + queued + pending, whenever you look. A loss is an `audit_gap` record.
//! - **Nothing committed changes in silence.** [`AuditReader::verify`] names the place. The form of a record is fixed in `docs/record-format.md`.
//! - **The application does not feel it.** A call takes no lock that I/O holds; only a full queue or asked-for durability makes it wait.
//! - Every error is a value: [`AuditError`] of a call, [`TrailError`] of a file, a database or a configuration. Nothing panics across this API; what
//!   panics in a caller's `Serialize`, callback or observer is caught.
//!
//! # Where things are
//!
//! [`AuditSink`] is the seam: a logger is one, a wrapper is one around another, and the watcher and the layer drive any. [`AuditConfig`] has every setting,
//! [`Filter`] every question, [`CommitObserver`] hears of what became of records. `ARCHITECTURE.md` leads through the source from an event to a verdict.
//!
//! # Features
//!
//! `sqlite`, `watch`, `yaml`, `toml` (all default), and `test-util`: a trail in memory and a manual clock, for the tests of programs that use Argus.
//! Without default features it builds with JSONL alone.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod accept;
mod adopt;
mod canonical;
mod chain;
mod clock;
mod config;
mod core;
mod entry;
mod error;
mod event;
mod ext;
mod fault;
mod fields;
mod filter;
#[cfg(feature = "sqlite")]
mod fork;
mod form;
mod health;
mod id;
mod json;
mod level;
mod line;
mod location;
mod logger;
mod members;
mod observers;
mod pending;
mod queue;
mod reader;
mod record;
mod recover;
mod redaction;
mod sink;
mod spill;
mod stack;
mod store;
mod sync;
mod sys;
mod thread;
mod time;
mod value;
#[cfg(test)]
mod vectors;
mod verify;
#[cfg(feature = "watch")]
mod watch;

mod writer;

#[cfg(any(test, feature = "test-util"))]
pub use clock::ManualClock;
pub use clock::{Clock, SystemClock};
pub use config::{AuditConfig, Durability, Overflow};
pub use error::{AuditError, ErrorKind, OpenError, ReadError, TrailError};
pub use event::AuditEvent;
#[doc(hidden)]
pub use ext::private as __private;
pub use ext::{AuditScope, AuditSinkExt};
#[cfg(any(test, feature = "test-util"))]
pub use fault::{Faults, StoreFault};
pub use filter::Filter;
pub use health::Health;
pub use id::{BadId, Checksum, RecordId, WriterId};
pub use json::{JsonError, JsonWriter};
pub use level::{ActorType, Level, Outcome, UnknownWord};
pub use location::{Backend, Location, locate};
pub use logger::{AuditGuard, AuditLogger};
pub use pending::{Completer, Pending};
pub use queue::QueueKind;
pub use reader::{AuditReader, PendingRecords, Query, Stats, Tail, TrailFiles, Unreadable, WriterFiles};
pub use record::{Json, Record};
pub use redaction::{Redaction, Shape};
pub use sink::{
    AuditSink, Caller, Carrier, CloseReport, CommitObserver, Interest, LossReason, ObserverId, ObserverSet,
    OwnedTraceContext, Receipt, State, Trace, TraceContext,
};
#[cfg(any(test, feature = "test-util"))]
pub use store::memory::MemoryTrail;
pub use time::format_timestamp;
pub use value::{EncodeJson, Value};
pub use verify::{Assurance, Code, Finding, VerifyReport};
#[cfg(feature = "watch")]
pub use watch::{
    ChangeEvent, ChangeKind, WatchError, WatchErrorKind, Watcher, WatcherConfig, universal_config_watcher,
    universal_config_watcher_with_config,
};
