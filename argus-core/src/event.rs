//! `AuditEvent`: what a caller says. Borrows everything; building one neither allocates (up to four context members) nor runs user code.

use std::path::Path;
use std::time::SystemTime;

use crate::json::Key;
use crate::level::{ActorType, Level, Outcome};
use crate::sink::Trace;
use crate::value::Value;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) key: Key<'a>,
    pub(crate) value: Value<'a>,
}

const INLINE: usize = 4;

/// A fact to be recorded.
///
/// ```
/// use argus_core::{ActorType, AuditEvent, Outcome};
/// let event = AuditEvent::security("login_denied")
///     .component("gateway")
///     .actor("jane", ActorType::User)
///     .action("login")
///     .outcome(Outcome::Failure)
///     .with("ip", "192.0.2.7")
///     .with("attempts", 3);
/// ```
#[derive(Clone, Debug)]
#[must_use = "an event is recorded only when it is handed to a sink, e.g. `logger.log(event)`"]
pub struct AuditEvent<'a> {
    pub(crate) level: Level,
    pub(crate) event: &'a str,
    pub(crate) component: Option<&'a str>,
    pub(crate) file_path: Option<&'a Path>,
    pub(crate) user_agent: Option<&'a str>,
    pub(crate) actor: Option<&'a str>,
    pub(crate) actor_type: Option<ActorType>,
    pub(crate) action: Option<&'a str>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) old: Value<'a>,
    pub(crate) new: Value<'a>,
    pub(crate) trace: Trace<'a>,
    pub(crate) at: Option<SystemTime>,
    context: &'a [(&'a str, Value<'a>)],
    used: u8,
    inline: [Option<Field<'a>>; INLINE],
    more: Vec<Field<'a>>,
}

impl<'a> AuditEvent<'a> {
    /// An event of any level. `event` is its name, 1 to 256 bytes.
    #[inline(always)]
    pub fn new(level: Level, event: &'a str) -> Self {
        Self {
            level,
            event,
            component: None,
            file_path: None,
            user_agent: None,
            actor: None,
            actor_type: None,
            action: None,
            outcome: None,
            old: Value::ABSENT,
            new: Value::ABSENT,
            trace: Trace::Unset,
            at: None,
            context: &[],
            used: 0,
            // Each by itself: the compiler writes four tags, and not the whole.
            inline: [None, None, None, None],
            more: Vec::new(),
        }
    }

    /// An event of level INFO.
    #[inline(always)]
    pub fn info(event: &'a str) -> Self {
        Self::new(Level::Info, event)
    }

    /// An event of level WARN.
    #[inline(always)]
    pub fn warn(event: &'a str) -> Self {
        Self::new(Level::Warn, event)
    }

    /// An event of level CRITICAL.
    #[inline(always)]
    pub fn critical(event: &'a str) -> Self {
        Self::new(Level::Critical, event)
    }

    /// An event of level SECURITY.
    #[inline(always)]
    pub fn security(event: &'a str) -> Self {
        Self::new(Level::Security, event)
    }

    /// The level.
    #[inline(always)]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The name.
    #[inline(always)]
    pub fn name(&self) -> &'a str {
        self.event
    }

    /// The trace context that the event itself carries.
    #[inline(always)]
    pub fn trace_context(&self) -> Trace<'a> {
        self.trace
    }

    /// Another level.
    #[inline(always)]
    pub fn with_level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Another name.
    #[inline(always)]
    pub fn with_event(mut self, event: &'a str) -> Self {
        self.event = event;
        self
    }

    /// The part of the program that speaks; else the configured component.
    #[inline(always)]
    pub fn component(mut self, component: &'a str) -> Self {
        self.component = Some(component);
        self
    }

    /// The file that the event is about.
    #[inline(always)]
    pub fn file_path<P: AsRef<Path> + ?Sized>(mut self, path: &'a P) -> Self {
        self.file_path = Some(path.as_ref());
        self
    }

    /// The client's user agent.
    #[inline(always)]
    pub fn user_agent(mut self, user_agent: &'a str) -> Self {
        self.user_agent = Some(user_agent);
        self
    }

    /// Who acted. The type may be left out with `None`.
    #[inline(always)]
    pub fn actor(mut self, id: &'a str, actor_type: impl Into<Option<ActorType>>) -> Self {
        self.actor = Some(id);
        self.actor_type = actor_type.into();
        self
    }

    /// What kind of principal acted, without naming it.
    #[inline(always)]
    pub fn actor_type(mut self, actor_type: ActorType) -> Self {
        self.actor_type = Some(actor_type);
        self
    }

    /// What was done.
    #[inline(always)]
    pub fn action(mut self, action: &'a str) -> Self {
        self.action = Some(action);
        self
    }

    /// How it ended.
    #[inline(always)]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// The value before. The outermost `None` means absent; `()`, `serde_json::Value::Null` and a deeper `None` mean JSON null.
    #[inline(always)]
    pub fn old_value(mut self, value: impl Into<Value<'a>>) -> Self {
        self.old = value.into();
        self
    }

    /// The value after; as [`old_value`](Self::old_value).
    #[inline(always)]
    pub fn new_value(mut self, value: impl Into<Value<'a>>) -> Self {
        self.new = value.into();
        self
    }

    /// The trace context of the event; it goes before any that a layer or wrapper would find.
    #[inline(always)]
    pub fn trace(mut self, trace: Trace<'a>) -> Self {
        self.trace = trace;
        self
    }

    /// When it happened, if not now.
    #[inline(always)]
    pub fn at(mut self, time: SystemTime) -> Self {
        self.at = Some(time);
        self
    }

    /// One context member.
    #[inline(always)]
    pub fn with(mut self, key: &'a str, value: impl Into<Value<'a>>) -> Self {
        self.push(key, value.into());
        self
    }

    /// Many context members at once, borrowed; beside those of [`with`](Self::with).
    #[inline(always)]
    pub fn context(mut self, members: &'a [(&'a str, Value<'a>)]) -> Self {
        self.context = members;
        self
    }

    /// As [`with`](Self::with), for callers that collect members in a loop.
    #[inline(always)]
    pub fn push(&mut self, key: &'a str, value: Value<'a>) {
        let field = Field { key: Key::new(key), value };
        match self.inline.get_mut(self.used as usize) {
            Some(slot) => {
                *slot = Some(field);
                self.used += 1;
            }
            None => self.more.push(field),
        }
    }

    pub(crate) fn member_count(&self) -> usize {
        self.context.len() + usize::from(self.used) + self.more.len()
    }

    /// The context members where all stand ready in the event itself, as they mostly do.
    #[inline(always)]
    pub(crate) fn ready_members(&self) -> Option<&[Option<Field<'a>>]> {
        let ready = self.context.is_empty() && self.more.is_empty();
        self.inline.get(..usize::from(self.used)).filter(|_| ready)
    }

    /// The context member `n` where it stands ready in the event itself.
    #[inline(always)]
    pub(crate) fn ready_member(&self, n: usize) -> Option<&Field<'a>> {
        let ready = if self.context.is_empty() { usize::from(self.used) } else { 0 };
        self.inline.get(..ready)?.get(n)?.as_ref()
    }

    /// The context member `n`, below `member_count`: the slice first, then those added one by one.
    #[inline(never)]
    pub(crate) fn member(&self, n: usize) -> Field<'a> {
        if let Some((key, value)) = self.context.get(n) {
            return Field { key: Key::new(key), value: *value };
        }
        let inline = n - self.context.len();
        let field = self.inline.get(inline).map_or_else(|| self.more.get(inline - INLINE), Option::as_ref);
        field.copied().unwrap_or(Field { key: Key::EMPTY, value: Value::ABSENT })
    }
}
