//! Every name that Argus gives to spans and attributes. Names are interface: a dashboard is built on them.

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
