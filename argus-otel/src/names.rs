//! Every name that Argus gives to spans, attributes and metrics. Names are interface: a dashboard is built on them.

/// Version of this list.
pub const SCHEMA_VERSION: &str = "1";
/// Span name of `config_change` records below SECURITY.
pub const SPAN_CONFIG_CHANGE: &str = "audit.config_change";
/// Prefix of every span name: `audit.<event>`.
pub const SPAN_PREFIX: &str = "audit.";
/// Prefix of the span names of SECURITY records: `audit.security.<event>`.
pub const SPAN_SECURITY_PREFIX: &str = "audit.security.";
/// Level of the record.
pub const LEVEL: &str = "audit.level";
/// Event name of the record.
pub const EVENT: &str = "audit.event";
/// Component of the record.
pub const COMPONENT: &str = "audit.component";
/// What was done: the record's action, else its event name.
pub const OPERATION: &str = "audit.operation";
/// The record's timestamp, RFC 3339.
pub const TIMESTAMP: &str = "audit.timestamp";
/// Identity of the record: joins span and record.
pub const RECORD_ID: &str = "audit.record.id";
/// The file the record is about.
pub const FILE_PATH: &str = "file.path";
/// Whether the record is of level SECURITY or CRITICAL.
pub const SECURITY_CRITICAL: &str = "audit.security_critical";
/// Prefix of context members.
pub const CONTEXT_PREFIX: &str = "audit.context.";
/// Checksum of the record, on request.
pub const CHECKSUM: &str = "audit.checksum";
/// The attributes of a span, but for those of context members: no base attribute may have such a name.
pub const SPAN_ATTRIBUTES: &[&str] =
    &[LEVEL, EVENT, COMPONENT, OPERATION, TIMESTAMP, RECORD_ID, FILE_PATH, SECURITY_CRITICAL, CHECKSUM];

/// Committed records by [`METRIC_LEVEL`] and [`METRIC_COMPONENT`]; a counter. Prometheus: `argus_audit_events_total`.
pub const METRIC_EVENTS: &str = "argus.audit.events";
/// Attribute of [`METRIC_EVENTS`]: `INFO`, `WARN`, `CRITICAL` or `SECURITY`.
pub const METRIC_LEVEL: &str = "level";
/// Attribute of [`METRIC_EVENTS`]: the record's component, or [`METRIC_OTHER`] beyond the cap.
pub const METRIC_COMPONENT: &str = "component";
/// The component of what is beyond the cap.
pub const METRIC_OTHER: &str = "other";
/// Attribute of [`METRIC_DROPPED`]: a word of `LossReason::as_str`.
pub const METRIC_REASON: &str = "reason";
/// Events that callers handed over at or above `min_level`; a counter. Name of the audit draft of OpenTelemetry.
pub const METRIC_EMITTED: &str = "audit.records.emitted";
/// Lost events by [`METRIC_REASON`]; a counter. Name of the audit draft.
pub const METRIC_DROPPED: &str = "audit.records.dropped";
/// Accepted records on their way to the trail; a gauge. Name of the audit draft.
pub const METRIC_QUEUE_DEPTH: &str = "audit.queue.depth";
/// Bytes in the queue; a gauge.
pub const METRIC_QUEUE_SIZE: &str = "argus.audit.queue.size";
/// Events refused with an error that their caller saw; a counter.
pub const METRIC_REJECTED: &str = "argus.audit.rejected";
/// Calls below `min_level`; a counter.
pub const METRIC_FILTERED: &str = "argus.audit.filtered";
/// Records in a pending file, not yet in the trail; a gauge.
pub const METRIC_PENDING: &str = "argus.audit.pending";
/// Records that observers were not told of, and panics of observers; a counter.
pub const METRIC_OBSERVER_MISSED: &str = "argus.audit.observer_missed";
/// Seconds since the last commit; a gauge that is absent before the first one.
pub const METRIC_COMMIT_AGE: &str = "argus.audit.last_commit.age";
/// 1 while something keeps the store from committing, else 0.
pub const METRIC_DEGRADED: &str = "argus.audit.degraded";
/// 1 once the trail is closed, else 0.
pub const METRIC_CLOSED: &str = "argus.audit.closed";
/// Spans of a wrapper that could not be made or sent; a counter.
pub const METRIC_TRACING_ERRORS: &str = "argus.audit.tracing_errors";
/// Exports of a metrics pipeline that failed, told by the next one that does not; a counter.
pub const METRIC_EXPORT_ERRORS: &str = "argus.audit.metrics.export_errors";
/// Reads of a followed trail that failed; a counter. While it rises, [`METRIC_EVENTS`] stands still.
pub const METRIC_READ_ERRORS: &str = "argus.audit.metrics.read_errors";
/// Bytes of a followed trail's file; a gauge.
pub const METRIC_TRAIL_SIZE: &str = "argus.audit.trail.size";
/// Bytes of the write-ahead log of a followed SQLite trail; a gauge.
pub const METRIC_WAL_SIZE: &str = "argus.audit.wal.size";

/// A prefix and what comes behind it; each span needs a few.
pub(crate) fn with_prefix(prefix: &str, rest: &str) -> String {
    let mut name = String::with_capacity(prefix.len() + rest.len());
    name.push_str(prefix);
    name.push_str(rest);
    name
}
