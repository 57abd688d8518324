//! The state machine of one file: what was seen goes in, what is to be recorded comes out. Pure (time is an argument); driven by one thread at a time.
//! Invariants: the SHA-256 of the content decides whether there is anything to do; the last good value stays until another good one, or until the file is
//! deleted; every bad content is told once; nothing that was seen is passed over without an action or an equal value.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::diff;
use super::event::ChangeKind;
use super::format::{Format, ParseError};

/// How long a file without content counts as half-written.
pub(crate) const EMPTY_FOR: Duration = Duration::from_secs(1);
/// How soon such a file is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Most bad contents that are remembered.
const MAX_BAD: usize = 256;

/// Why a file has no good value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The operating system refused it: a matter of security.
    Denied,
    /// It could not be read for another reason, which is named.
    Unreadable(&'static str),
    /// It was read and has no value.
    Unparsable,
}

impl Trouble {
    /// The event that tells of it.
    pub(crate) fn event(self) -> &'static str {
        match self {
            Trouble::Denied => "permission_denied",
            Trouble::Unreadable(_) => "file_unreadable",
            Trouble::Unparsable => "parse_warning",
        }
    }
}

/// What a look at a file showed.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    Missing,
    Unreadable { trouble: Trouble, error: String },
    TooBig { size: u64, limit: u64, modified: Option<SystemTime> },
    Bytes { bytes: Vec<u8>, modified: Option<SystemTime> },
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Started { sha256: Option<String>, state: &'static str },
    Changed(Box<Change>),
    Warning { error: ParseError, sha256: Option<String>, size: u64 },
    Recovered { sha256: String, after: &'static str },
    Unreadable { trouble: Trouble, error: String },
    LookAgain(Duration),
}

/// One change of the value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) kind: ChangeKind,
    pub(crate) old: Option<Value>,
    pub(crate) new: Option<Value>,
    pub(crate) old_sha256: Option<String>,
    pub(crate) new_sha256: Option<String>,
    pub(crate) size: u64,
    pub(crate) modified: Option<SystemTime>,
}

/// What is known of one file.
#[derive(Debug)]
pub(crate) struct FileState {
    format: Format,
    /// Whether the first look has been.
    begun: bool,
    /// The trail says (or implies) that there is no such file.
    missing: bool,
    /// The last good value and its hash.
    good: Option<(Value, String)>,
    /// Bad contents since the last good one.
    bad: BTreeSet<String>,
    /// The trouble that was told last, until the file is well again.
    trouble: Option<Trouble>,
    /// The last look could not read it, for this reason.
    unread: Option<Trouble>,
    empty_since: Option<Instant>,
}

impl FileState {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            begun: false,
            missing: false,
            good: None,
            bad: BTreeSet::new(),
            trouble: None,
            unread: None,
            empty_since: None,
        }
    }

    /// The state of a file that appeared in a watched directory: it was missing before.
    pub(crate) fn new_missing(format: Format) -> Self {
        Self { begun: true, missing: true, ..Self::new(format) }
    }

    pub(crate) fn begun(&self) -> bool {
        self.begun
    }

    /// Whether another look must follow before anything can be said.
    #[cfg(test)]
    fn undecided(&self) -> bool {
        self.empty_since.is_some()
    }

    pub(crate) fn missing(&self) -> bool {
        self.missing
    }

    /// The first look.
    pub(crate) fn begin(&mut self, seen: Seen, now: Instant) -> Vec<Action> {
        self.begun = true;
        let mut actions = Vec::new();
        let (state, sha256) = match &seen {
            Seen::Missing => ("missing", None),
            Seen::Unreadable { .. } => ("unreadable", None),
            Seen::TooBig { .. } => ("unparsable", None),
            Seen::Bytes { bytes, .. } => {
                let sha256 = crate::writer::sha256_hex(bytes);
                match self.format.parse(bytes) {
                    Ok(value) if !self.half_written(bytes) => {
                        self.good = Some((value, sha256.clone()));
                        ("readable", Some(sha256))
                    }
                    Ok(_) => ("empty", Some(sha256)),
                    Err(_) if bytes.is_empty() => ("empty", Some(sha256)),
                    Err(_) => ("unparsable", Some(sha256)),
                }
            }
        };
        self.missing = state == "missing";
        actions.push(Action::Started { sha256, state });
        if state != "readable" {
            actions.extend(self.observe(seen, now));
        }
        actions
    }

    fn half_written(&self, bytes: &[u8]) -> bool {
        bytes.is_empty() && self.format != Format::Text
    }

    /// Every later look.
    pub(crate) fn observe(&mut self, seen: Seen, now: Instant) -> Vec<Action> {
        match seen {
            Seen::Missing => self.gone(),
            Seen::Unreadable { trouble, error } => {
                self.empty_since = None;
                self.trouble = Some(trouble);
                match self.unread.replace(trouble) == Some(trouble) {
                    true => Vec::new(),
                    false => vec![Action::Unreadable { trouble, error }],
                }
            }
            Seen::TooBig { size, limit, modified } => {
                self.empty_since = None;
                self.unread = None;
                let error = ParseError::new(format!(
                    "the file has {size} bytes, and the watcher reads at most {limit}; raise max_file_size"
                ));
                // Its content is not known, so the time stands for it.
                self.warn(format!("{size} {modified:?}"), None, error, size)
            }
            Seen::Bytes { bytes, modified } => self.content(&bytes, modified, now),
        }
    }

    fn gone(&mut self) -> Vec<Action> {
        self.bad.clear();
        self.trouble = None;
        self.unread = None;
        self.empty_since = None;
        if std::mem::replace(&mut self.missing, true) {
            return Vec::new();
        }
        let (old, old_sha256) = self.good.take().unzip();
        let kind = ChangeKind::Deleted;
        vec![Action::Changed(Box::new(Change {
            kind,
            old,
            new: None,
            old_sha256,
            new_sha256: None,
            size: 0,
            modified: None,
        }))]
    }

    fn content(&mut self, bytes: &[u8], modified: Option<SystemTime>, now: Instant) -> Vec<Action> {
        let sha256 = crate::writer::sha256_hex(bytes);
        let size = bytes.len() as u64;
        self.unread = None;
        if self.half_written(bytes) {
            if self.bad.contains(&sha256) {
                return Vec::new();
            }
            let waited = now.saturating_duration_since(*self.empty_since.get_or_insert(now));
            if let Some(left) = EMPTY_FOR.checked_sub(waited).filter(|l| !l.is_zero()) {
                return vec![Action::LookAgain(left.min(LOOK_AGAIN))];
            }
            self.empty_since = None;
            return self.warn(sha256.clone(), Some(sha256), ParseError::new("the file is empty"), 0);
        }
        self.empty_since = None;
        if self.trouble.is_none() && !self.missing && self.good.as_ref().is_some_and(|(_, known)| *known == sha256) {
            return Vec::new();
        }
        if self.bad.contains(&sha256) {
            self.trouble = Some(Trouble::Unparsable);
            return Vec::new();
        }
        let value = match self.format.parse(bytes) {
            Ok(value) => value,
            Err(error) => return self.warn(sha256.clone(), Some(sha256), error, size),
        };
        self.bad.clear();
        let mut actions = Vec::new();
        if let Some(trouble) = self.trouble.take() {
            actions.push(Action::Recovered { sha256: sha256.clone(), after: trouble.event() });
        }
        let was_missing = std::mem::replace(&mut self.missing, false);
        let before = self.good.replace((value.clone(), sha256.clone()));
        if was_missing || before.as_ref().is_none_or(|(old, _)| !diff::same(old, &value)) {
            let kind = if was_missing { ChangeKind::Created } else { ChangeKind::Modified };
            let (old, old_sha256) = before.unzip();
            let change = Change { kind, old, new: Some(value), old_sha256, new_sha256: Some(sha256), size, modified };
            actions.push(Action::Changed(Box::new(change)));
        }
        actions
    }

    fn warn(&mut self, key: String, sha256: Option<String>, error: ParseError, size: u64) -> Vec<Action> {
        self.trouble = Some(Trouble::Unparsable);
        if self.bad.len() >= MAX_BAD {
            self.bad.pop_first();
        }
        if self.bad.insert(key) { vec![Action::Warning { error, sha256, size }] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bytes(text: &str) -> Seen {
        Seen::Bytes { bytes: text.as_bytes().to_vec(), modified: None }
    }

    fn unreadable(trouble: Trouble) -> Seen {
        Seen::Unreadable { trouble, error: "no".into() }
    }

    fn names(actions: &[Action]) -> Vec<String> {
        let name = |a: &Action| match a {
            Action::Started { state, .. } => format!("start {state}"),
            Action::Changed(c) => {
                let text = |v: &Option<Value>| v.as_ref().map_or("-".into(), |v| v.to_string());
                format!("{} {} {}", c.kind.as_str(), text(&c.old), text(&c.new))
            }
            Action::Warning { .. } => "warning".into(),
            Action::Recovered { after, .. } => format!("recovered {after}"),
            Action::Unreadable { trouble: Trouble::Denied, .. } => "denied".into(),
            Action::Unreadable { .. } => "unreadable".into(),
            Action::LookAgain(_) => "again".into(),
        };
        actions.iter().map(name).collect()
    }

    fn run(steps: &[(Seen, &[&str])]) {
        let now = Instant::now();
        let mut s = FileState::new(Format::Json);
        for (i, (seen, expected)) in steps.iter().enumerate() {
            let got = if s.begun() { s.observe(seen.clone(), now) } else { s.begin(seen.clone(), now) };
            assert_eq!(names(&got), *expected, "step {i}");
        }
    }

    #[test]
    fn change_repeat_space_delete_create() {
        run(&[
            (bytes("1"), &["start readable"]),
            (bytes("1"), &[]),
            (bytes(" 1\n"), &[]),
            (bytes("2"), &["modified 1 2"]),
            (Seen::Missing, &["deleted 2 -"]),
            (Seen::Missing, &[]),
            (bytes("2"), &["created - 2"]),
        ]);
        run(&[(Seen::Missing, &["start missing"]), (bytes("3"), &["created - 3"])]);
    }

    #[test]
    fn bad_content_keeps_the_last_good_value() {
        run(&[
            (bytes("1"), &["start readable"]),
            (bytes("{"), &["warning"]),
            (bytes("{"), &[]),
            (bytes("["), &["warning"]),
            (bytes("{"), &[]),
            (bytes("1"), &["recovered parse_warning"]),
            (bytes("{"), &["warning"]),
            (bytes("2"), &["recovered parse_warning", "modified 1 2"]),
            (Seen::TooBig { size: 9, limit: 5, modified: None }, &["warning"]),
            (Seen::Missing, &["deleted 2 -"]),
        ]);
        run(&[
            (bytes("{"), &["start unparsable", "warning"]),
            (bytes("1"), &["recovered parse_warning", "modified - 1"]),
        ]);
        run(&[
            (Seen::Missing, &["start missing"]),
            (bytes("{"), &["warning"]),
            (bytes("1"), &["recovered parse_warning", "created - 1"]),
        ]);
    }

    #[test]
    fn unreadable_is_told_once_and_recovers() {
        let denied = || unreadable(Trouble::Denied);
        run(&[
            (bytes("1"), &["start readable"]),
            (denied(), &["denied"]),
            (denied(), &[]),
            (bytes("1"), &["recovered permission_denied"]),
            (denied(), &["denied"]),
            (Seen::Missing, &["deleted 1 -"]),
        ]);
        run(&[
            (denied(), &["start unreadable", "denied"]),
            (bytes("1"), &["recovered permission_denied", "modified - 1"]),
        ]);
    }

    #[test]
    fn every_trouble_has_its_own_event_and_every_recovery_is_told() {
        let busy = || unreadable(Trouble::Unreadable("too_many_open_files"));
        let denied = || unreadable(Trouble::Denied);
        run(&[
            (bytes("1"), &["start readable"]),
            (busy(), &["unreadable"]),
            (busy(), &[]),
            (denied(), &["denied"]),
            (busy(), &["unreadable"]),
            (bytes("1"), &["recovered file_unreadable"]),
            // Empty in between: it is still the denial that is over.
            (denied(), &["denied"]),
            (bytes(""), &["again"]),
            (bytes("1"), &["recovered permission_denied"]),
            (denied(), &["denied"]),
            (bytes(""), &["again"]),
            (denied(), &["denied"]),
            (bytes("{"), &["warning"]),
            (bytes("1"), &["recovered parse_warning"]),
            (denied(), &["denied"]),
            (Seen::Missing, &["deleted 1 -"]),
            (bytes("1"), &["created - 1"]),
        ]);
    }

    #[test]
    fn the_same_canonical_value_is_no_change() {
        run(&[(bytes("[1]"), &["start readable"]), (bytes("[1.0]"), &[]), (bytes("[1.5]"), &["modified [1.0] [1.5]"])]);
    }

    #[test]
    fn an_empty_file_is_looked_at_again_for_a_second() {
        let now = Instant::now();
        let mut s = FileState::new(Format::Json);
        s.begin(bytes("1"), now);
        assert_eq!(names(&s.observe(bytes(""), now)), ["again"]);
        assert!(s.undecided());
        assert_eq!(names(&s.observe(bytes(""), now + EMPTY_FOR / 2)), ["again"]);
        assert_eq!(names(&s.observe(bytes("1"), now + EMPTY_FOR / 2)), [""; 0]);
        assert!(!s.undecided());
        assert_eq!(names(&s.observe(bytes(""), now)), ["again"]);
        assert_eq!(names(&s.observe(bytes(""), now + EMPTY_FOR)), ["warning"]);
        assert_eq!(names(&s.observe(bytes(""), now + EMPTY_FOR * 2)), [""; 0]);
        let got = s.observe(bytes("5"), now);
        assert!(matches!(&got[1], Action::Changed(c) if c.old == Some(json!(1)) && c.new_sha256.is_some()));
        let mut text = FileState::new(Format::Text);
        text.begin(bytes("a"), now);
        assert_eq!(names(&text.observe(bytes(""), now)), ["modified \"a\" \"\""]);
    }
}
