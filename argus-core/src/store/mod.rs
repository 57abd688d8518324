//! `Store`: where committed records live. Only the writer thread calls it. One transaction reads the head and appends, so exactly once is decided by the store
//! alone: `Head::writer_last`, read in the same transaction, tells which numbers are in already.

pub(crate) mod jsonl;
pub(crate) mod late;
#[cfg(any(test, feature = "test-util"))]
pub(crate) mod memory;
pub(crate) mod place;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::collections::BTreeSet;

use crate::canonical::Fields;
use crate::error::TrailError;
use crate::id::{Checksum, RecordId, WriterId};

/// The end of the log, as it stands inside a transaction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) log_id: WriterId,
    pub(crate) next_seq: u64,
    pub(crate) prev: Option<Checksum>,
    pub(crate) created_at: Option<String>,
    /// Highest committed number of this writer.
    pub(crate) writer_last: u64,
    /// Whether this writer's records are over.
    pub(crate) closed: Closed,
    /// Highest committed number of the log writer.
    pub(crate) log_writer_last: u64,
}

/// Whether a writer's records are over, and how; the numbers are those of the column `closed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Closed {
    #[default]
    No = 0,
    /// By its `audit_close`.
    Yes = 1,
    /// It died, and an `audit_recovered` says so.
    Recovered = 2,
}

#[cfg(feature = "sqlite")]
impl Closed {
    pub(crate) fn from_number(n: i64) -> Option<Self> {
        [Closed::No, Closed::Yes, Closed::Recovered].into_iter().find(|c| *c as i64 == n)
    }
}

/// What a transaction leaves in the `writers` table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ends {
    pub(crate) writer_last: u64,
    pub(crate) log_writer_last: u64,
    pub(crate) closed: Closed,
}

/// A row that another program inserted; every cell as text, whatever it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ForeignRow {
    pub(crate) id: i64,
    /// In the order of the table: timestamp to created_at.
    pub(crate) cells: Vec<(&'static str, Option<String>)>,
}

impl ForeignRow {
    pub(crate) fn get(&self, column: &str) -> Option<&str> {
        self.cells.iter().find(|(c, _)| *c == column).and_then(|(_, v)| v.as_deref())
    }
}

/// What a store holds beside its file.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) bytes: u64,
    /// It is more than it should be, and this is why.
    pub(crate) stuck: Option<TrailError>,
}

/// Something the store found and mended when it was opened; it becomes a record of the log writer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) event: &'static str,
    pub(crate) level: crate::level::Level,
    /// Canonical JSON.
    pub(crate) context: String,
}

/// Appends one record with its checksum to the open transaction.
pub(crate) type Insert<'a> = dyn FnMut(&Fields<'_>, &str) -> Result<(), TrailError> + 'a;

/// A trail opened for writing by one writer.
pub(crate) trait Store: Send {
    /// Takes the write lock and reads the head.
    fn begin(&mut self) -> Result<Head, TrailError>;
    /// Whose records the next transactions append: recovery speaks for the dead.
    fn act_as(&mut self, writer: WriterId, service: &str) {
        let _ = (writer, service);
    }
    /// The log's own identity.
    fn log_id(&self) -> WriterId;
    /// Writers whose records are not over.
    fn unclosed(&mut self) -> Result<Vec<WriterId>, TrailError> {
        Ok(Vec::new())
    }
    /// Whether a writer's records are over; `None` if it has none.
    fn standing(&mut self, writer: WriterId) -> Result<Option<Closed>, TrailError> {
        let _ = writer;
        Ok(None)
    }
    /// Dead writers whose recovery announced a gap record that is not there: writer, first number, reason. Only a store without transactions has them.
    fn untold_gaps(&mut self) -> Vec<(WriterId, u64, String)> {
        Vec::new()
    }
    /// Contexts of the records that say of files that they are put aside: `log_replaced`, and `audit_recovered` with torn ones. In a transaction.
    fn aside(&mut self) -> Result<Vec<String>, TrailError> {
        Ok(Vec::new())
    }
    /// Rows of other programs, oldest first.
    fn foreign(&mut self, limit: usize) -> Result<Vec<ForeignRow>, TrailError> {
        let _ = limit;
        Ok(Vec::new())
    }
    /// Removes adopted rows up to this id.
    fn forget_foreign(&mut self, up_to: i64) -> Result<(), TrailError> {
        let _ = up_to;
        Ok(())
    }
    /// Whether rows of other programs wait; takes no write lock.
    fn foreign_waiting(&mut self) -> bool {
        false
    }
    /// What the opening found and no record tells yet.
    fn findings(&mut self) -> Vec<Finding> {
        Vec::new()
    }
    /// Appends one record to the open transaction.
    fn insert(&mut self, fields: &Fields<'_>, checksum: &str) -> Result<(), TrailError>;
    /// Appends many: `all` is called once, with what appends one. Here a store prepares once what it would for each.
    fn insert_all(&mut self, all: &mut dyn FnMut(&mut Insert<'_>) -> Result<(), TrailError>) -> Result<(), TrailError> {
        all(&mut |fields, checksum| self.insert(fields, checksum))
    }
    /// Makes the transaction durable. On an error the outcome is unknown until the next `begin`.
    fn commit(&mut self, ends: &Ends) -> Result<(), TrailError>;
    /// Drops the open transaction, if there is one.
    fn rollback(&mut self);
    /// Positions and checksums of this writer's records `first..=last`, for receipts after an unknown outcome.
    fn find(&mut self, first: u64, last: u64) -> Result<Vec<(u64, u64, Checksum)>, TrailError>;
    /// Takes those out of `ids` that are ids of records in the log, and of what the open transaction appended.
    fn take_known(&mut self, ids: &mut BTreeSet<RecordId>) -> Result<(), TrailError>;
    /// What it holds beside its file. Between transactions.
    fn backlog(&mut self) -> Backlog {
        Backlog::default()
    }
    /// Lets go of the file.
    fn close(&mut self) -> Result<(), TrailError>;
}
