//! `AuditReader`: looking at a trail without touching it. It opens nothing for writing, makes no file, and reads in short steps, so that a writer is never held
//! up. This side never imports the write side.

mod jsonl;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stats;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::canonical::{Fields, write_line};
use crate::error::{ErrorKind, ReadError, TrailError};
use crate::filter::Filter;
use crate::id::{Checksum, RecordId, WriterId, unhex_into};
use crate::json::{Scratch, is_canonical};
use crate::location::Backend;
use crate::record::{Json, Record};
use crate::time;
use crate::verify::{VerifyReport, verify};

pub(crate) use jsonl::service_of;
pub use stats::Stats;

/// Records a query holds at once.
const PAGE: usize = 256;

/// What a walk over a trail meets.
pub(crate) enum Item<'a> {
    Row(&'a Fields<'a>, &'a str),
    /// A row or line that is no record, where it stands, and why.
    Damage(u64, String),
}

/// What the store itself says about writers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WriterRow {
    pub(crate) writer: String,
    pub(crate) service_name: String,
    pub(crate) last_seq: u64,
    pub(crate) closed: bool,
    pub(crate) is_log: bool,
}

/// What a store says of itself, for verification.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub(crate) log_id: Option<String>,
    pub(crate) first_seq: u64,
    /// `None` where the store keeps no such table.
    pub(crate) writers: Option<Vec<WriterRow>>,
    pub(crate) foreign_waiting: u64,
    /// Bytes of a last line that has no end.
    pub(crate) unfinished: u64,
}

/// One way to read a trail.
pub(crate) trait Source {
    /// Gives records in order of position beyond `after`, until `visit` returns false.
    fn walk(&self, after: u64, visit: &mut dyn FnMut(Item<'_>) -> bool) -> Result<(), TrailError>;
    /// Up to `PAGE` records of a query, beyond `cursor` in its order; the second value says whether there may be more.
    fn page(&self, filter: &Filter, cursor: Option<u64>) -> Result<(Vec<Record>, bool), TrailError>;
    /// Differences of the schema, and what the store's own integrity check finds: code and explanation.
    fn check_structure(&self) -> Result<Vec<(&'static str, String)>, TrailError>;
    /// Read after a walk that reached `last`; `None` if records came meanwhile, so walk on.
    fn about(&self, last: u64) -> Result<Option<About>, TrailError>;
}

/// A trail opened for reading. Strictly read-only: no file is made or changed, nothing is migrated, no key is needed.
///
/// ```no_run
/// use argus_core::{AuditReader, Filter};
/// # fn main() -> Result<(), argus_core::ReadError> {
/// let reader = AuditReader::open("/var/lib/shop/audit.db")?;
/// for record in reader.query(Filter::new().event("config_change").newest_first().limit(10))? {
///     let record = record?;
///     println!("{:?} {} {:?}", record.seq, record.event, record.file_path);
/// }
/// assert!(reader.verify()?.is_ok());
/// # Ok(()) }
/// ```
pub struct AuditReader {
    source: Box<dyn Source + Send>,
    path: PathBuf,
    backend: Backend,
}

impl std::fmt::Debug for AuditReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditReader").field("path", &self.path).field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl AuditReader {
    /// Opens a trail. `.jsonl` is JSONL, everything else SQLite.
    ///
    /// # Errors
    /// The file does not exist, may not be read, or is no trail of this version.
    pub fn open(path: impl AsRef<Path>) -> Result<AuditReader, ReadError> {
        let path = path.as_ref();
        let meta = std::fs::metadata(path).map_err(|e| TrailError::io("cannot open the audit trail", path, e))?;
        if meta.is_dir() {
            return Err(TrailError::new(ErrorKind::NotATrail, "the path is a directory")
                .at(path)
                .help("name the trail's file"));
        }
        let jsonl = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("jsonl"));
        let (source, backend): (Box<dyn Source + Send>, _) = if jsonl {
            (Box::new(jsonl::JsonlSource::open(path)?), Backend::Jsonl)
        } else {
            #[cfg(feature = "sqlite")]
            {
                (Box::new(sqlite::SqliteSource::open(path)?), Backend::Sqlite)
            }
            #[cfg(not(feature = "sqlite"))]
            return Err(TrailError::new(ErrorKind::Config, "this build of argus-core has no SQLite")
                .at(path)
                .help("enable its feature `sqlite`"));
        };
        Ok(AuditReader { source, path: path.into(), backend })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which store.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The records that meet the filter, read as the iterator goes.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn query(&self, filter: Filter) -> Result<Query<'_>, ReadError> {
        let cursor = filter.after;
        let left = filter.limit.unwrap_or(usize::MAX);
        Ok(Query { reader: self, filter, cursor, left, page: VecDeque::new(), more: true })
    }

    /// The record at a position.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn by_seq(&self, seq: u64) -> Result<Option<Record>, ReadError> {
        let Some(before) = seq.checked_sub(1) else { return Ok(None) };
        Ok(self.query(Filter::new().after(before).limit(1))?.next().transpose()?.filter(|r| r.seq == Some(seq)))
    }

    /// The record with this identity.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn by_id(&self, id: RecordId) -> Result<Option<Record>, ReadError> {
        let wanted = id.to_string();
        let mut found = None;
        self.source.walk(0, &mut |item| match item {
            Item::Row(f, sum) if f.record_id == wanted => {
                found = record_of(f, Some(sum)).ok();
                false
            }
            _ => true,
        })?;
        Ok(found)
    }

    /// Follows the trail: each [`Tail::poll`] gives what was committed since.
    pub fn tail(&self, filter: Filter) -> Tail<'_> {
        let cursor = filter.after.unwrap_or(0);
        Tail { reader: self, filter, cursor }
    }

    /// Counts of the whole trail.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn stats(&self) -> Result<Stats, ReadError> {
        stats::stats(&*self.source)
    }

    /// Checks the whole trail. Tampering is a verdict in the report, not an error.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn verify(&self) -> Result<VerifyReport, ReadError> {
        verify(&*self.source)
    }
}

/// The records of a query.
#[derive(Debug)]
pub struct Query<'r> {
    reader: &'r AuditReader,
    filter: Filter,
    cursor: Option<u64>,
    left: usize,
    page: VecDeque<Record>,
    more: bool,
}

impl Iterator for Query<'_> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        while self.page.is_empty() && self.more {
            match self.reader.source.page(&self.filter, self.cursor) {
                Ok((records, more)) => {
                    self.more = more;
                    self.page = records.into();
                }
                Err(e) => {
                    self.left = 0;
                    return Some(Err(e));
                }
            }
        }
        let record = self.page.pop_front()?;
        self.cursor = record.seq;
        self.left -= 1;
        Some(Ok(record))
    }
}

/// A trail that is followed.
#[derive(Debug)]
pub struct Tail<'r> {
    reader: &'r AuditReader,
    filter: Filter,
    cursor: u64,
}

impl Tail<'_> {
    /// What was committed since the last call; does not wait.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn poll(&mut self) -> Result<Vec<Record>, ReadError> {
        let mut filter = self.filter.clone().after(self.cursor);
        filter.newest_first = false;
        filter.limit = None;
        let records: Vec<Record> = self.reader.query(filter)?.collect::<Result<_, _>>()?;
        if let Some(last) = records.last().and_then(|r| r.seq) {
            self.cursor = last;
        }
        Ok(records)
    }

    /// The position of the last record that was given.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }
}

/// A record from its fields, every form checked.
pub(crate) fn record_of(f: &Fields<'_>, checksum: Option<&str>) -> Result<Record, String> {
    let id = |name: &str, s: &str| WriterId::parse_exact(s).ok_or_else(|| format!("`{name}` is no UUID in lower case"));
    let own = |s: Option<&str>| s.map(str::to_owned);
    let json = |s: &str| Json(s.into());
    fn hex<const N: usize>(name: &str, s: Option<&str>) -> Result<Option<[u8; N]>, String> {
        let Some(s) = s else { return Ok(None) };
        let mut out = [0; N];
        if unhex_into(s, &mut out) {
            Ok(Some(out))
        } else {
            Err(format!("`{name}` is not lower-case hex of {N} bytes"))
        }
    }
    fn word<T: std::str::FromStr + Copy>(name: &str, s: &str, text: fn(T) -> &'static str) -> Result<T, String> {
        s.parse::<T>().ok().filter(|w| text(*w) == s).ok_or_else(|| format!("`{name}` is no known word"))
    }
    Ok(Record {
        timestamp: time::parse_exact(f.timestamp).ok_or("`timestamp` has not the form of a timestamp")?,
        level: word("level", f.level, crate::Level::as_str)?,
        event: f.event.into(),
        component: f.component.into(),
        original_output_file: f.original_output_file.into(),
        context: json(f.context),
        file_path: own(f.file_path),
        user_agent: own(f.user_agent),
        old_value: f.old_value.map(json),
        new_value: f.new_value.map(json),
        process_id: f.process_id,
        process_name: f.process_name.into(),
        actor_id: own(f.actor_id),
        actor_type: f.actor_type.map(|s| word("actor_type", s, crate::ActorType::as_str)).transpose()?,
        action: own(f.action),
        outcome: f.outcome.map(|s| word("outcome", s, crate::Outcome::as_str)).transpose()?,
        trace_id: hex::<16>("trace_id", f.trace_id)?,
        span_id: hex::<8>("span_id", f.span_id)?,
        stack: own(f.stack),
        record_id: RecordId(id("record_id", f.record_id)?.0),
        writer: id("writer", f.writer)?,
        writer_seq: f.writer_seq,
        created_at: Some(f.created_at.into()),
        seq: Some(f.seq),
        prev_hash: f.prev_hash.map(|p| Checksum::parse_exact(p).ok_or("`prev_hash` is no checksum")).transpose()?,
        checksum: checksum.map(|c| Checksum::parse_exact(c).ok_or("`checksum` is no checksum")).transpose()?,
    })
}

/// What in a record's fields breaks the record format, beyond what its checksum covers.
pub(crate) fn form_error(f: &Fields<'_>, buf: &mut Vec<u8>, scratch: &mut Scratch) -> Option<String> {
    if let Err(e) = record_of(f, None) {
        return Some(e);
    }
    if f.event.is_empty() || f.event.len() > crate::accept::MAX_EVENT {
        return Some("`event` is empty or longer than 256 bytes".into());
    }
    if !time::is_created_at(f.created_at) {
        return Some("`created_at` has not the form of one".into());
    }
    let texts = [
        Some(f.event),
        Some(f.component),
        Some(f.original_output_file),
        Some(f.process_name),
        f.file_path,
        f.user_agent,
        f.actor_id,
        f.action,
        f.stack,
    ];
    if texts.iter().flatten().any(|t| t.contains('\0')) {
        return Some("a text field holds NUL".into());
    }
    if [f.file_path, f.user_agent, f.actor_id, f.action, f.stack].contains(&Some("")) {
        return Some("an optional field is empty instead of absent".into());
    }
    for (name, json) in [("context", Some(f.context)), ("old_value", f.old_value), ("new_value", f.new_value)] {
        if json.is_some_and(|j| !is_canonical(j, buf, scratch)) {
            return Some(format!("`{name}` is not one JSON value in canonical form"));
        }
    }
    (!f.context.starts_with('{')).then(|| "`context` is no object".into())
}

impl Record {
    /// The record as a JSONL line (without its line end), the same whichever store it came from.
    pub fn to_jsonl(&self) -> String {
        let own_hex = |bytes: &[u8]| crate::id::hex(bytes);
        let timestamp = time::format_timestamp(self.timestamp);
        let (trace, span) = (self.trace_id.map(|t| own_hex(&t)), self.span_id.map(|t| own_hex(&t)));
        let (id, writer) = (self.record_id.to_string(), self.writer.to_string());
        let (prev, sum) =
            (self.prev_hash.map(|p| p.to_string()), self.checksum.map(|c| c.to_string()).unwrap_or_default());
        let fields = Fields {
            timestamp: &timestamp,
            level: self.level.as_str(),
            event: &self.event,
            component: &self.component,
            original_output_file: &self.original_output_file,
            context: self.context.as_str(),
            file_path: self.file_path.as_deref(),
            user_agent: self.user_agent.as_deref(),
            old_value: self.old_value.as_ref().map(Json::as_str),
            new_value: self.new_value.as_ref().map(Json::as_str),
            process_id: self.process_id,
            process_name: &self.process_name,
            actor_id: self.actor_id.as_deref(),
            actor_type: self.actor_type.map(|a| a.as_str()),
            action: self.action.as_deref(),
            outcome: self.outcome.map(|o| o.as_str()),
            trace_id: trace.as_deref(),
            span_id: span.as_deref(),
            stack: self.stack.as_deref(),
            record_id: &id,
            writer: &writer,
            writer_seq: self.writer_seq,
            created_at: self.created_at.as_deref().unwrap_or_default(),
            seq: self.seq.unwrap_or(0),
            prev_hash: prev.as_deref(),
        };
        let mut out = Vec::new();
        write_line(&fields, &sum, &mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}
