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

/// The reserved fields that the macros take; level and name are theirs.
const IN_MACROS: [&str; 10] =
    [AUDIT, COMPONENT, FILE_PATH, OLD_VALUE, NEW_VALUE, USER_AGENT, ACTOR, ACTOR_TYPE, ACTION, OUTCOME];

/// Refuses a key that begins as the reserved ones do and is none, while a macro is compiled.
#[doc(hidden)]
pub const fn check(key: &str) {
    if starts_with(key.as_bytes(), PREFIX.as_bytes()) {
        let (mut known, mut i) = (false, 0);
        while i < IN_MACROS.len() {
            known = known || IN_MACROS[i].len() == key.len() && starts_with(key.as_bytes(), IN_MACROS[i].as_bytes());
            i += 1;
        }
        assert!(known, "this key is no reserved audit field here; see the module `keys`");
    }
}

const fn starts_with(text: &[u8], start: &[u8]) -> bool {
    let mut i = 0;
    while i < start.len() {
        if i >= text.len() || text[i] != start[i] {
            return false;
        }
        i += 1;
    }
    true
}
