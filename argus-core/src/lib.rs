//! Argus: an audit trail for Rust services. This crate is the trail itself.
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
mod filter;
mod form;
mod health;
mod id;
mod json;
mod level;
mod line;
mod location;
mod logger;
mod observers;
mod pending;
mod queue;
mod reader;
mod record;
mod redaction;
mod sink;
mod store;
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
pub use ext::{AuditScope, AuditSinkExt};
pub use filter::Filter;
pub use health::Health;
pub use id::{BadId, Checksum, RecordId, WriterId};
pub use json::{JsonError, JsonWriter};
pub use level::{ActorType, Level, Outcome, UnknownWord};
pub use location::{Backend, Location, locate};
pub use logger::{AuditGuard, AuditLogger};
pub use pending::{Completer, Pending};
pub use reader::{AuditReader, Query, Stats, Tail};
pub use record::{Json, Record};
pub use redaction::Redaction;
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
