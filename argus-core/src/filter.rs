//! `Filter`: which records a reader gives. One matcher for both stores; SQLite narrows the rows first. Pure.

use std::path::Path;
use std::time::SystemTime;

use crate::accept::MAX_MEMBERS;
use crate::form::members;
use crate::id::hex;
use crate::json::{JsonWriter, Scratch, Source, object_members};
use crate::level::Level;
use crate::record::Record;
use crate::redaction::Redaction;

/// What a member of the context must be.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    key: String,
    /// The value in canonical form: equal values have equal text. None for one that no record can hold.
    canonical: Option<String>,
    /// If it is text, that text.
    text: Option<String>,
}

/// Which records, in which order, how many. Conditions are joined by AND.
///
/// ```
/// use argus_core::{Filter, Level};
/// let filter = Filter::new().min_level(Level::Critical).event("config_change").newest_first().limit(20);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Filter {
    pub(crate) since: Option<SystemTime>,
    pub(crate) until: Option<SystemTime>,
    pub(crate) min_level: Option<Level>,
    pub(crate) event: Option<String>,
    pub(crate) component: Option<String>,
    pub(crate) app: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) file_prefix: Option<String>,
    pub(crate) pid: Option<u64>,
    pub(crate) actor: Option<String>,
    pub(crate) trace: Option<String>,
    pub(crate) context: Vec<Member>,
    pub(crate) newest_first: bool,
    pub(crate) limit: Option<usize>,
    pub(crate) after: Option<u64>,
}

impl Filter {
    /// Every record, oldest first.
    pub fn new() -> Self {
        Self::default()
    }
    /// From this time on.
    pub fn since(mut self, t: SystemTime) -> Self {
        self.since = Some(t);
        self
    }
    /// Before this time.
    pub fn until(mut self, t: SystemTime) -> Self {
        self.until = Some(t);
        self
    }
    /// Of this level or above.
    pub fn min_level(mut self, level: Level) -> Self {
        self.min_level = Some(level);
        self
    }
    /// With this event name.
    pub fn event(mut self, event: impl Into<String>) -> Self {
        self.event = Some(event.into());
        self
    }
    /// Of this component.
    pub fn component(mut self, component: impl Into<String>) -> Self {
        self.component = Some(component.into());
        self
    }
    /// Of this application: the writer's service name, or `original_output_file`.
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.app = Some(app.into());
        self
    }
    /// About this file.
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.file = Some(path.as_ref().to_string_lossy().into_owned());
        self
    }
    /// About files whose path begins so.
    pub fn file_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.file_prefix = Some(prefix.into());
        self
    }
    /// Logged by this process.
    pub fn pid(mut self, pid: u64) -> Self {
        self.pid = Some(pid);
        self
    }
    /// Acted by this actor.
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = Some(actor.into());
        self
    }
    /// In this trace, 32 hex digits.
    pub fn trace(mut self, trace_id: impl Into<String>) -> Self {
        self.trace = Some(trace_id.into().to_ascii_lowercase());
        self
    }
    /// Whose context has this member with this value (`1.0` is `1`); text also matches what is no text and written so in canonical form, such as `8080`.
    pub fn context(mut self, key: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        let value = value.into();
        let (mut out, mut scratch, redaction) = (Vec::new(), Scratch::default(), Redaction::none());
        let written = JsonWriter::new(&mut out, &mut scratch, &redaction, Source::Stored).serialize_top(&value);
        let canonical = written.ok().and_then(|_| String::from_utf8(out).ok());
        let text = value.as_str().map(str::to_owned);
        self.context.push(Member { key: key.into(), canonical, text });
        self
    }
    /// Newest first; else oldest first.
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }
    /// At most so many.
    pub fn limit(mut self, n: usize) -> Self {
        self.limit = Some(n);
        self
    }
    /// Beyond this position, in the order asked for: the `seq` of the last record that was seen.
    pub fn after(mut self, cursor: u64) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Whether the record meets every condition but the order, the limit and the cursor. `service` is its writer's service name.
    pub(crate) fn matches(&self, r: &Record, service: &str) -> bool {
        fn same(wanted: Option<&String>, got: Option<&str>) -> bool {
            wanted.is_none_or(|w| got == Some(w))
        }
        self.since.is_none_or(|t| r.timestamp >= t)
            && self.until.is_none_or(|t| r.timestamp < t)
            && self.min_level.is_none_or(|l| r.level >= l)
            && same(self.event.as_ref(), Some(&r.event))
            && same(self.component.as_ref(), Some(&r.component))
            && self.app.as_ref().is_none_or(|a| a == service || *a == r.original_output_file)
            && same(self.file.as_ref(), r.file_path.as_deref())
            && self
                .file_prefix
                .as_ref()
                .is_none_or(|p| r.file_path.as_deref().is_some_and(|f| f.starts_with(p.as_str())))
            && self.pid.is_none_or(|p| r.process_id == p)
            && same(self.actor.as_ref(), r.actor_id.as_deref())
            && self.trace.as_ref().is_none_or(|t| r.trace_id.is_some_and(|id| hex(&id) == *t))
            && (self.context.is_empty() || self.matches_context(r))
    }

    fn matches_context(&self, r: &Record) -> bool {
        // Of more members than a record may have, each would be compared with each.
        let few = members(r.context.as_str()) <= MAX_MEMBERS;
        let Some(Ok(members)) = few.then(|| object_members(r.context.as_str())) else { return false };
        self.context.iter().all(|wanted| {
            members.iter().filter(|(key, _)| *key == wanted.key).any(|(_, got)| {
                // `--context port=8080` finds the number as well as the text.
                wanted.canonical.as_deref() == Some(*got)
                    || (!got.starts_with('"') && wanted.text.as_deref() == Some(*got))
            })
        })
    }
}
