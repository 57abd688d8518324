//! The reserved field names. All are ordinary fields to other layers.

/// Marks an event; `audit = false` takes it out.
pub const AUDIT: &str = "audit";
/// Beginning of every reserved field, and of the span fields that are inherited.
pub const PREFIX: &str = "audit.";
/// INFO, WARN, CRITICAL or SECURITY.
pub const LEVEL: &str = "audit.level";
/// The event's name.
pub const EVENT: &str = "audit.event";
/// The component.
pub const COMPONENT: &str = "audit.component";
/// The file it is about.
pub const FILE_PATH: &str = "audit.file_path";
/// The value before; text that begins with `{` or `[` and is strict JSON is kept as JSON.
pub const OLD_VALUE: &str = "audit.old_value";
/// The value after; as the old one.
pub const NEW_VALUE: &str = "audit.new_value";
/// The client's user agent.
pub const USER_AGENT: &str = "audit.user_agent";
/// Who acted.
pub const ACTOR: &str = "audit.actor";
/// `user`, `service` or `system`.
pub const ACTOR_TYPE: &str = "audit.actor_type";
/// What was done.
pub const ACTION: &str = "audit.action";
/// `success`, `failure`, `unknown` or `abandoned`.
pub const OUTCOME: &str = "audit.outcome";

/// Fields whose value is text in the record, whatever its type in the event.
pub(crate) fn is_text(name: &str) -> bool {
    matches!(name, LEVEL | EVENT | COMPONENT | FILE_PATH | USER_AGENT | ACTOR | ACTOR_TYPE | ACTION | OUTCOME)
}
