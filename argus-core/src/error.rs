//! Errors as values. `AuditError` is what a call on a sink returns; `TrailError` is what a file, database or configuration does to us, with
//! what happened, where, what to do, and the source. Tampering is no error but a verdict (`verify`).

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a record was not accepted, or an accepted one not (yet) committed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AuditError {
    /// The trail is closed; nothing was recorded.
    Closed,
    /// The level is below `min_level` (only from calls that must return a receipt).
    Filtered,
    /// The queue is full and stayed so for the configured time. Nothing was recorded.
    Full {
        /// Bytes that were queued.
        queued: usize,
        /// The configured bound, in bytes.
        limit: usize,
    },
    /// The time given ran out. What was accepted stays accepted.
    Timeout,
    /// The sink cannot do this.
    Unsupported,
    /// A field breaks a rule of the record format. Nothing was recorded.
    Invalid {
        /// The field, e.g. `event` or `context.port`.
        field: Cow<'static, str>,
        /// The rule.
        reason: Arc<str>,
    },
    /// A field or the whole record is over its cap. Nothing was recorded.
    TooLarge {
        /// The field, or `record`.
        field: Cow<'static, str>,
        /// Its size: bytes, members or depth.
        size: usize,
        /// The cap, in the same unit.
        limit: usize,
    },
    /// A value's own `Serialize` panicked. Nothing was recorded.
    Panicked {
        /// The field.
        field: Cow<'static, str>,
    },
    /// A call from an observer or callback would have had to wait for the very thread it runs on.
    OnArgusThread,
    /// The queue is memory, not a journal: what is queued dies with the process. (Told to `on_error` when a trail is opened.)
    NoJournal {
        /// Why.
        reason: Arc<str>,
    },
    /// Records go to the pending file for now. (Told to `on_error`; they are durable there, and the writer brings them into the trail when it can.)
    Spilling {
        /// The pending file.
        file: Arc<Path>,
        /// Why.
        reason: Arc<str>,
    },
    /// This process was forked from the one that opened the logger; nothing was recorded.
    Forked,
    /// Sixty-four observers are subscribed already.
    TooManyObservers,
    /// The record was accepted and then lost; a gap record or `health()` says why.
    Lost,
    /// The store failed.
    Store(Arc<TrailError>),
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuditError::Closed => f.write_str("the audit trail is closed; open a new logger to record more"),
            AuditError::Filtered => {
                f.write_str("the event is below the trail's min_level, so there is no record to wait for")
            }
            AuditError::Full { queued, limit } => {
                write!(
                    f,
                    "the audit queue is full ({queued} of {limit} bytes); raise queue_bytes, or see health() for what holds the store up"
                )
            }
            AuditError::Timeout => f.write_str("the time given ran out; what was accepted stays accepted"),
            AuditError::Unsupported => f.write_str("this audit sink cannot do that"),
            AuditError::Invalid { field, reason } => write!(f, "audit field `{field}`: {reason}"),
            AuditError::TooLarge { field, size, limit } => {
                write!(
                    f,
                    "audit field `{field}` is too large: {size}, the cap is {limit}; shorten it or store it elsewhere and record its hash"
                )
            }
            AuditError::Panicked { field } if matches!(&**field, "writer" | "spill") => {
                write!(f, "Argus's {field} thread panicked: a configured clock or hook, or a defect; what it left is recovered by the next open")
            }
            AuditError::Panicked { field } => write!(f, "audit field `{field}`: its Serialize implementation panicked"),
            AuditError::OnArgusThread => {
                f.write_str("called from an observer or callback on Argus's own thread, where waiting would never end")
            }
            AuditError::NoJournal { reason } => {
                write!(f, "accepted records wait in memory, not in a journal, and die with the process: {reason}")
            }
            AuditError::Spilling { file, reason } => {
                write!(f, "audit records go to the pending file {} until the trail takes them: {reason}", file.display())
            }
            AuditError::Forked => {
                f.write_str("this process was forked from the one that opened the audit trail, and has no writer; open a logger of its own here (for SQLite: in a new program, after exec)")
            }
            AuditError::TooManyObservers => f.write_str("64 observers are subscribed already; unsubscribe one first"),
            AuditError::Lost => {
                f.write_str("the record was accepted and then lost; health() and an audit_gap record say why")
            }
            AuditError::Store(e) => write!(f, "the audit store failed: {e}"),
        }
    }
}

impl Error for AuditError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            AuditError::Store(e) => Some(&**e),
            _ => None,
        }
    }
}

/// What kind of trouble a [`TrailError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file or directory does not exist.
    NotFound,
    /// This process was forked from one that uses SQLite.
    Forked,
    /// The file is no longer the one that was opened.
    Replaced,
    /// The operating system refuses access.
    PermissionDenied,
    /// No place for the trail: no `ARGUS_AUDIT_DB`, no home, no state directory.
    NoLocation,
    /// The file is something else than an Argus trail.
    NotATrail,
    /// The file was written by the Go library.
    GoTrail,
    /// The file has a newer schema or format than this build knows.
    NewerVersion,
    /// The schema is not the one that Argus makes: somebody changed it.
    SchemaMismatch,
    /// Another logger writes this JSONL trail; or another program has taken this logger for dead and recovered it.
    InUse,
    /// The database stayed locked for the whole wait.
    Busy,
    /// No space left.
    DiskFull,
    /// The file or file system is read-only.
    ReadOnly,
    /// The file is damaged.
    Damaged,
    /// The file system cannot carry a shared database.
    NetworkFileSystem,
    /// Owner, mode or links of a file or directory would let others tamper.
    Unsafe,
    /// A configuration value is impossible.
    Config,
    /// Any other failure of the operating system or of SQLite.
    Io,
}

/// Trouble with a trail's file, database or configuration: what happened, where, and what to do.
#[derive(Debug)]
pub struct TrailError {
    kind: ErrorKind,
    what: String,
    path: Option<PathBuf>,
    help: Cow<'static, str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Why a trail could not be opened for writing.
pub type OpenError = TrailError;
/// Why a trail could not be read.
pub type ReadError = TrailError;

impl TrailError {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), path: None, help: Cow::Borrowed(""), source: None }
    }

    pub(crate) fn at(mut self, path: impl AsRef<Path>) -> Self {
        self.path.get_or_insert_with(|| path.as_ref().to_owned());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<Cow<'static, str>>) -> Self {
        self.help = help.into();
        self
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// An I/O error with what was being done; the kind and the advice follow from its own kind.
    pub(crate) fn io(what: impl Into<String>, path: impl AsRef<Path>, e: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let (kind, help) = match e.kind() {
            K::NotFound => (ErrorKind::NotFound, "check the path"),
            K::PermissionDenied => {
                (ErrorKind::PermissionDenied, "check owner and mode of the file and of its directory")
            }
            K::StorageFull | K::QuotaExceeded => (ErrorKind::DiskFull, "free some space"),
            K::ReadOnlyFilesystem => (ErrorKind::ReadOnly, "the file system is mounted read-only"),
            _ => (ErrorKind::Io, ""),
        };
        Self::new(kind, what).at(path).help(help).because(e)
    }

    /// What kind of trouble it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The file or directory concerned.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl fmt::Display for TrailError {
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

impl Error for TrailError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|s| &**s as &(dyn Error + 'static))
    }
}

/// Equal if they say the same.
impl PartialEq for TrailError {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.to_string() == other.to_string()
    }
}
