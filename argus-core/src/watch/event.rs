//! What the watcher tells its user: `ChangeEvent` for callbacks, `WatchError` for everything that went wrong. Owned data, no behaviour.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::id::RecordId;

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It was missing and is there now.
    Created,
    /// Its value is another.
    Modified,
    /// It is gone.
    Deleted,
}

impl ChangeKind {
    /// The word that records carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChangeKind::Created => "created",
            ChangeKind::Modified => "modified",
            ChangeKind::Deleted => "deleted",
        }
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A change of a watched file's value. Nothing in it is redacted: it is for the program, not for the trail.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChangeEvent {
    /// The path as it was given to the watcher, made absolute.
    pub path: PathBuf,
    /// What happened.
    pub kind: ChangeKind,
    /// Bytes of the file; 0 if it is gone.
    pub size: u64,
    /// When the file was last written, as the file system says.
    pub modified: Option<SystemTime>,
    /// The last good value; `None` if there was none.
    pub old: Option<serde_json::Value>,
    /// The value; `None` if the file is gone.
    pub new: Option<serde_json::Value>,
    /// The difference by JSON pointer: `{"/a/b": {"old": .., "new": ..}}`.
    pub diff: serde_json::Value,
    /// The record of the change; `None` if the sink filtered or refused it (the error handler then knows why).
    pub record_id: Option<RecordId>,
}

/// What kind of trouble a [`WatchError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WatchErrorKind {
    /// The directory to watch does not exist.
    NoDirectory,
    /// The path cannot be watched: it has no file name, or is a directory.
    BadPath,
    /// The operating system gives no change notifications; the slow poll goes on.
    Notifications,
    /// A directory cannot be listed, or a file's links not be followed.
    Io,
    /// The audit trail could not be opened.
    Open,
    /// The sink refused a record.
    Audit,
    /// A callback panicked.
    CallbackPanicked,
    /// The time given ran out.
    Timeout,
    /// The watcher does not run.
    NotRunning,
    /// The call would have to wait for the very callback it is made from.
    InCallback,
    /// The watcher's thread could not be started.
    Thread,
}

/// Trouble with watching: what happened, where, what to do, and the source.
#[derive(Debug)]
pub struct WatchError {
    kind: WatchErrorKind,
    what: String,
    path: Option<PathBuf>,
    help: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl WatchError {
    pub(crate) fn new(kind: WatchErrorKind, what: impl Into<String>, help: &'static str) -> Self {
        Self { kind, what: what.into(), path: None, help, source: None }
    }

    pub(crate) fn at(mut self, path: &Path) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of trouble it is.
    pub fn kind(&self) -> WatchErrorKind {
        self.kind
    }

    /// The file or directory concerned.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What to do about it.
    pub fn help(&self) -> &str {
        self.help
    }
}

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(p) = &self.path {
            write!(f, ": {}", p.display())?;
        }
        if let Some(s) = &self.source {
            write!(f, ": {s}")?;
        }
        if !self.help.is_empty() {
            write!(f, " ({})", self.help)?;
        }
        Ok(())
    }
}

impl Error for WatchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|s| &**s as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_why_and_what_to_do() {
        let e =
            WatchError::new(WatchErrorKind::Io, "cannot list", "check its mode").at(Path::new("/d")).because("nope");
        assert_eq!(e.to_string(), "cannot list: /d: nope (check its mode)");
        assert_eq!((e.kind(), e.path(), e.help()), (WatchErrorKind::Io, Some(Path::new("/d")), "check its mode"));
        assert!(e.source().is_some());
    }
}
