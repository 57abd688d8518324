//! `AuditReader`: looking at a trail without touching it. It opens nothing for writing, makes no file, and reads in short steps, so that a writer is never held
//! up. This side never imports the write side.

mod beside;
mod jsonl;
mod pending;
mod source;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stats;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, ReadError, TrailError};
use crate::filter::Filter;
use crate::id::RecordId;
use crate::location::Backend;
use crate::record::Record;
use crate::verify::{VerifyReport, verify};

pub use beside::{TrailFiles, WriterFiles};
pub(crate) use jsonl::service_of;
pub(crate) use pending::Copied;
pub use pending::{PendingRecords, Unreadable};
use source::PAGE;
#[cfg(test)]
pub(crate) use source::{About, Ends, Origin, Walked};
pub(crate) use source::{Damage, End, Item, Links, Scan, Source, WriterRow};
pub use stats::Stats;

/// Records that one call of [`Tail::poll`] gives at most.
const BATCH: usize = 4096;

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
    /// Opens a trail. `.jsonl` is JSONL, everything else SQLite. In a process that writes the trail, too, open the logger first: where a writer has died, a reader that
    /// was opened before and stays open keeps a logger of the same process out.
    ///
    /// # Errors
    /// The file does not exist, may not be read, or is no trail of this version.
    pub fn open(path: impl AsRef<Path>) -> Result<AuditReader, ReadError> {
        let path = path.as_ref();
        let meta = std::fs::metadata(path).map_err(|e| TrailError::io("cannot open the audit trail", path, e))?;
        if !meta.is_file() {
            // To open a pipe would wait for its other end.
            let what = if meta.is_dir() { "the path is a directory" } else { "the path is no regular file" };
            return Err(TrailError::new(ErrorKind::NotATrail, what).at(path).help("name the trail's file"));
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
        let left = filter.limit.unwrap_or(usize::MAX);
        Ok(Query { scan: self.source.scan(filter), left, page: VecDeque::new(), more: true, damaged: 0 })
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
        self.source.by_id(id)
    }

    /// Follows the trail from its beginning, or from [`Filter::after`]: each [`Tail::poll`] gives what was committed since. Oldest first, without a limit.
    pub fn tail(&self, mut filter: Filter) -> Tail<'_> {
        (filter.newest_first, filter.limit) = (false, None);
        Tail { scan: self.source.scan(filter), damaged: 0 }
    }

    /// The records that are accepted and not committed yet: they stand in journals beside the trail, of writers that live, and of those that died until
    /// somebody opens the trail for writing. The journals are copied first, then the store is asked what of them is in: so each record up to the position
    /// [`PendingRecords::committed`] in the trail, and each of these, is told exactly once.
    ///
    /// ```no_run
    /// # use argus_core::{AuditReader, Filter};
    /// # fn main() -> Result<(), argus_core::ReadError> {
    /// let reader = AuditReader::open("/var/lib/shop/audit.db")?;
    /// let pending = reader.pending()?;
    /// let end = pending.committed();
    /// for record in reader.query(Filter::new())?.take_while(|r| r.as_ref().is_ok_and(|r| r.seq <= Some(end))).chain(pending) {
    ///     println!("{}", record?.to_jsonl());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The trail cannot be read. A journal that cannot be is no error: [`PendingRecords::unreadable`] names it.
    pub fn pending(&self) -> Result<PendingRecords, ReadError> {
        let journals = Copied::beside(&self.path)?;
        let ends = self.source.ends(&journals.writers())?;
        journals.settle(ends.last_seq, ends.log_id, |w| ends.writers.get(&w).copied())
    }

    /// Counts of the whole trail; pending records are not among them.
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
        let journals = Copied::beside(&self.path)?;
        verify(&*self.source, Some(journals))
    }
}

/// The records of a query. It reads in short steps, and holds up no writer between them; what is committed meanwhile may be among its records.
pub struct Query<'r> {
    scan: Box<dyn Scan + 'r>,
    left: usize,
    page: VecDeque<Record>,
    more: bool,
    damaged: u64,
}

impl Query<'_> {
    /// Rows or lines on the way so far that are no records. They are passed over; [`AuditReader::verify`] names them.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}

impl std::fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("damaged", &self.damaged).finish_non_exhaustive()
    }
}

impl Iterator for Query<'_> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        while self.page.is_empty() && self.more {
            match self.scan.page(self.left.min(PAGE)) {
                Ok(page) => {
                    self.more = page.more;
                    self.damaged += page.damaged;
                    self.page = page.records.into();
                }
                Err(e) => {
                    self.left = 0;
                    return Some(Err(e));
                }
            }
        }
        let record = self.page.pop_front()?;
        self.left -= 1;
        Some(Ok(record))
    }
}

/// A trail that is followed.
pub struct Tail<'r> {
    scan: Box<dyn Scan + 'r>,
    damaged: u64,
}

impl Tail<'_> {
    /// What was committed since the last call, 4,096 records at most; does not wait. Empty: there is no more for now.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn poll(&mut self) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        loop {
            match self.scan.page(PAGE) {
                Ok(mut page) => {
                    self.damaged += page.damaged;
                    records.append(&mut page.records);
                    if !page.more || records.len() + PAGE > BATCH {
                        return Ok(records);
                    }
                }
                // The scan is past what it gave: that is not lost for an error, which comes again.
                Err(_) if !records.is_empty() => return Ok(records),
                Err(e) => return Err(e),
            }
        }
    }

    /// The position up to which every record was looked at; as [`Filter::after`], it lets another reader go on from here.
    pub fn cursor(&self) -> u64 {
        self.scan.position()
    }

    /// As [`Query::damaged`].
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}

impl std::fmt::Debug for Tail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("cursor", &self.cursor()).finish_non_exhaustive()
    }
}
