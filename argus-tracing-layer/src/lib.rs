//! `AuditLayer`: `tracing` events tagged `audit` become audit records.
//!
//! Add the layer to the subscriber you have, and tag events by a field (or by the target `audit`):
//!
//! ```
//! use argus_core::{AuditConfig, AuditLogger, AuditReader, AuditSink, Filter};
//! use argus_tracing_layer::{AuditLayer, audit_security};
//! use tracing_subscriber::prelude::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("audit.jsonl");
//! let logger = AuditLogger::open(AuditConfig::new(&path))?;
//! let subscriber = tracing_subscriber::registry().with(AuditLayer::new(logger.clone()));
//!
//! tracing::subscriber::with_default(subscriber, || {
//!     tracing::info!("an ordinary event, not for the trail");
//!     tracing::warn!(audit.event = "quota_exceeded", audit.actor = "jane", used = 120, "over quota");
//!     audit_security!("login_denied", audit.actor = "joe", ip = "192.0.2.7");
//! });
//! logger.close(std::time::Duration::from_secs(5));
//!
//! let records: Vec<_> = AuditReader::open(&path)?.query(Filter::new().component("argus"))?.collect::<Result<_, _>>()?;
//! let names: Vec<_> = records.iter().map(|r| r.event.as_str()).collect();
//! assert_eq!(names, ["audit_segment", "audit_open", "quota_exceeded", "login_denied", "audit_close"]);
//! # Ok(()) }
//! ```
//!
//! # What becomes a record
//! - **Marking.** An event whose callsite has a field `audit` or one that begins with `audit.`, or whose target is `audit` or begins with `audit::`, also of a record of the
//!   `log` crate through `tracing-log`. Prefer the field: a target is easily lost to an `EnvFilter`. `audit = false` takes an event out.
//! - **Level.** `audit.level`, else ERROR is CRITICAL, WARN is WARN, the rest INFO.
//! - **Name.** `audit.event`, else the event's explicit `name:`, else the target after `audit::`, else `event`.
//! - **Fields.** Those of [`keys`] fill the record; the message becomes the context member `message`; all others become context members of their own type.
//! - **Spans.** Only span fields that begin with `audit.`, or are allowed by [`AuditLayer::with_span_fields`], are inherited. Secrets of `#[instrument]` stay out.
//! - **Trace ids** (feature `otel`). Those of the active OpenTelemetry context, whatever the order of the layers; with an explicit `parent:`, that span's; with
//!   `parent: None`, none, and a wrapper further in takes none either. Telemetry's own calls (a suppressed context) are no events.
//!
//! `docs/tracing-fields.md` has every rule, with the record that results, and the hazards of the neighbourhood with the test for each.
//!
//! # What it promises the others
//! The layer answers neither `never` nor a level hint, so it hides nothing from other layers. The price is that callsites stay alive; [`AuditLayer::filtered`] is the form
//! without that price. One thing changes while any layer of the stack has a filter of its own: a span directive of an `EnvFilter`, `[span]=level`, must be as verbose as its
//! span, since filters are then asked at each event. An event that the trail refuses is a counted loss and a gap record, never a panic.
//!
//! Put no other filter on the layer (`with_filter`): a per-layer filter can lose events (tracing issues 2519 and 3364). Another layer or a global filter may still keep an
//! event from every layer: [`self_test`] says so at the start, and what must be recorded goes to the logger directly.
//!
//! # What `tracing` does not hand over
//! - Under a scoped default (`with_default`), an event that the `Debug` of another event's field, or another layer's callback, emits reaches no layer at all; under a global
//!   default it is recorded.
//! - `Option` and `Vec` do not tell a layer of its subscriber. Under a scoped default an event with an explicit `parent:` then has no trace ids; `.boxed()` has them.
//!
//! # Layout
//! - [`keys`]: the reserved field names
//! - `callsite`: which events are audit events, decided once a callsite
//! - `filter`: the filter of [`AuditLayer::filtered`]
//! - `visitor`: the fields of an event or span, typed
//! - `trace`: trace ids from the active OpenTelemetry context (feature `otel`)
//! - `layer`: [`AuditLayer`]
//! - `macros`: `audit_info!`, `audit_warn!`, `audit_critical!`, `audit_security!`
//! - `self_test`: [`self_test`] and its probes
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod callsite;
mod filter;
pub mod keys;
mod layer;
mod macros;
mod self_test;
mod trace;
mod visitor;

#[doc(hidden)]
pub use ::tracing as __tracing;
pub use filter::AuditFilter;
#[doc(hidden)]
pub use keys::check as __check_key;
pub use layer::AuditLayer;
pub use self_test::{Problem, SelfTest, SelfTestError, TraceIds, self_test};
