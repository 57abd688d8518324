//! `AuditReader`: looking at a trail without touching it. It opens nothing for writing, makes no file, and reads in short steps, so that a writer is never held
//! up. This side never imports the write side.

mod jsonl;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stats;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::canonical::Fields;
use crate::error::{ErrorKind, ReadError, TrailError};
use crate::filter::Filter;
use crate::form::record_of;
use crate::id::RecordId;
use crate::location::Backend;
use crate::record::Record;
use crate::verify::{Code, VerifyReport, verify};

pub(crate) use jsonl::service_of;
pub use stats::Stats;

/// Records a query holds at once.
const PAGE: usize = 256;
/// Walks that are begun again because the file was changed under them.
const ATTEMPTS: usize = 20;

/// What a walk over a trail meets.
pub(crate) enum Item<'a> {
    /// A record's fields, `prev_hash` included, and its checksum.
    Row(&'a Fields<'a>, &'a str),
    Damage(Damage),
}

/// A row or line that is no record, and what can be known of it.
pub(crate) struct Damage {
    pub(crate) seq: Option<u64>,
    pub(crate) why: String,
    pub(crate) checksum: Option<String>,
    pub(crate) writer: Option<(String, u64)>,
}

/// How a walk went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walked {
    /// The file was changed while rows of it were shown: forget them all.
    pub(crate) changed: bool,
    /// Bytes of a last line that has no end.
    pub(crate) unfinished: u64,
}

/// Where a record's `prev_hash` stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// Nowhere: it is the checksum of the row above.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only SQLite keeps it so"))]
    Above,
    InRecord,
}

/// What a store says of itself before a walk.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) links: Links,
    pub(crate) log_id: Option<String>,
    pub(crate) first_seq: Option<u64>,
}

/// A row of the store's table of writers; `None` where a cell is not of its type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WriterRow {
    pub(crate) id: i64,
    pub(crate) writer: String,
    pub(crate) service_name: Option<String>,
    pub(crate) last_seq: Option<i64>,
    pub(crate) closed: Option<i64>,
}

/// What a store says of itself after a walk.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    pub(crate) last_seq: u64,
    /// `None` where the store keeps no such table.
    pub(crate) writers: Option<Vec<WriterRow>>,
    pub(crate) foreign_waiting: u64,
}

/// One way to read a trail.
pub(crate) trait Source {
    /// Differences of the schema, and what the store's own integrity check finds.
    fn check_structure(&self) -> Result<Vec<(Code, String)>, TrailError>;
    fn origin(&self) -> Result<Origin, TrailError>;
    /// Gives records in order of position beyond `after` (0: all), until `visit` returns false.
    fn walk(&self, after: u64, visit: &mut dyn FnMut(Item<'_>) -> bool) -> Result<Walked, TrailError>;
    /// Read after a walk that reached `last`; `None` if records came meanwhile, so walk on.
    fn about(&self, last: u64) -> Result<Option<About>, TrailError>;
    /// Up to `PAGE` records of a query, beyond `cursor` in its order; the second value says whether there may be more.
    fn page(&self, filter: &Filter, cursor: Option<u64>) -> Result<(Vec<Record>, bool), TrailError>;
}

/// A whole walk into a `T`, from its beginning again where the file was changed under it.
fn gather<T: Default>(source: &dyn Source, mut visit: impl FnMut(&mut T, Item<'_>) -> bool) -> Result<T, TrailError> {
    for _ in 0..ATTEMPTS {
        let mut gathered = T::default();
        if !source.walk(0, &mut |item| visit(&mut gathered, item))?.changed {
            return Ok(gathered);
        }
    }
    Err(TrailError::new(ErrorKind::Busy, "the trail kept changing while it was read").help("try again"))
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
        gather(&*self.source, |found: &mut Option<Record>, item| match item {
            Item::Row(f, sum) if f.record_id == wanted => {
                *found = record_of(f, Some(sum)).ok();
                false
            }
            _ => true,
        })
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
