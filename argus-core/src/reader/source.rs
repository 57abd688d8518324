//! `Source`: what a store must answer so that a trail can be read, and `Scan`: how far one query has come in it.

use std::collections::HashMap;

use crate::canonical::Fields;
use crate::error::{ErrorKind, TrailError};
use crate::filter::Filter;
use crate::id::{RecordId, WriterId};
use crate::record::Record;
use crate::verify::Code;

/// Records that a page of a query holds at most.
pub(crate) const PAGE: usize = 256;
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

/// Which of some writers' records are in the store, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    /// The last position.
    pub(crate) last_seq: u64,
    /// `None` where it cannot be read.
    pub(crate) log_id: Option<WriterId>,
    /// Those that the store knows.
    pub(crate) writers: HashMap<WriterId, End>,
}

/// How far one writer's records are in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct End {
    pub(crate) last: u64,
    /// Closed or recovered: nothing more of it comes.
    pub(crate) over: bool,
}

/// One step of a query.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) records: Vec<Record>,
    /// Rows or lines on the way that are no records.
    pub(crate) damaged: u64,
    /// Whether there is more to look at; a page without records may have a successor with some.
    pub(crate) more: bool,
}

/// A query on its way: each record that meets the filter comes exactly once, in the order asked for.
pub(crate) trait Scan {
    /// Goes on for a bounded number of rows, and gives up to `want` records. An error leaves it where it was.
    fn page(&mut self, want: usize) -> Result<Page, TrailError>;
    /// Oldest first: every record up to this position was looked at.
    fn position(&self) -> u64;
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
    /// How far these writers' records are in.
    fn ends(&self, writers: &[WriterId]) -> Result<Ends, TrailError>;
    fn scan(&self, filter: Filter) -> Box<dyn Scan + '_>;
    fn by_id(&self, id: RecordId) -> Result<Option<Record>, TrailError>;
}

/// A whole walk into a `T`, from its beginning again where the file was changed under it.
pub(crate) fn gather<T: Default>(
    source: &dyn Source,
    mut visit: impl FnMut(&mut T, Item<'_>) -> bool,
) -> Result<T, TrailError> {
    for _ in 0..ATTEMPTS {
        let mut gathered = T::default();
        if !source.walk(0, &mut |item| visit(&mut gathered, item))?.changed {
            return Ok(gathered);
        }
    }
    Err(TrailError::new(ErrorKind::Busy, "the trail kept changing while it was read").help("try again"))
}
