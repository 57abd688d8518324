//! A store that could not be opened yet: each transaction tries again. Until it can, the writer's records go to the pending file.

use std::collections::BTreeSet;

use super::{Backlog, Closed, Ends, Finding, ForeignRow, Head, Insert, Store};
use crate::canonical::Fields;
use crate::error::{ErrorKind, TrailError};
use crate::id::{Checksum, RecordId, WriterId};

/// Opens the store.
pub(crate) type Open = dyn FnMut() -> Result<Box<dyn Store>, TrailError> + Send;
/// What is to be done with it first.
pub(crate) type Ready = dyn FnMut(&mut dyn Store) -> Result<(), TrailError> + Send;

pub(crate) struct LateStore {
    open: Box<Open>,
    ready: Box<Ready>,
    store: Option<Box<dyn Store>>,
}

/// Whether trouble of an opening may pass by itself, or by somebody who mends a disk. The rest is a mistake that whoever starts the program must see.
pub(crate) fn may_pass(e: &TrailError) -> bool {
    matches!(e.kind(), ErrorKind::Busy | ErrorKind::DiskFull | ErrorKind::Io | ErrorKind::Damaged)
}

impl LateStore {
    pub(crate) fn new(open: Box<Open>, ready: Box<Ready>) -> Self {
        Self { open, ready, store: None }
    }

    fn store(&mut self) -> Result<&mut dyn Store, TrailError> {
        match &mut self.store {
            Some(store) => Ok(&mut **store),
            None => Err(TrailError::new(ErrorKind::Io, "the trail could not be opened yet")),
        }
    }
}

impl Store for LateStore {
    fn begin(&mut self) -> Result<Head, TrailError> {
        if self.store.is_none() {
            let mut store = (self.open)()?;
            if let Err(e) = (self.ready)(&mut *store) {
                let _ = store.close();
                return Err(e);
            }
            self.store = Some(store);
        }
        self.store()?.begin()
    }
    fn act_as(&mut self, writer: WriterId, service: &str) {
        if let Some(store) = &mut self.store {
            store.act_as(writer, service);
        }
    }
    fn log_id(&self) -> WriterId {
        self.store.as_ref().map_or(WriterId([0; 16]), |s| s.log_id())
    }
    fn unclosed(&mut self) -> Result<Vec<WriterId>, TrailError> {
        self.store()?.unclosed()
    }
    fn standing(&mut self, writer: WriterId) -> Result<Option<Closed>, TrailError> {
        self.store()?.standing(writer)
    }
    fn untold_gaps(&mut self) -> Vec<(WriterId, u64, String)> {
        self.store.as_mut().map_or(Vec::new(), |s| s.untold_gaps())
    }
    fn aside(&mut self) -> Result<Vec<String>, TrailError> {
        self.store()?.aside()
    }
    fn foreign(&mut self, limit: usize) -> Result<Vec<ForeignRow>, TrailError> {
        self.store()?.foreign(limit)
    }
    fn forget_foreign(&mut self, up_to: i64) -> Result<(), TrailError> {
        self.store()?.forget_foreign(up_to)
    }
    fn foreign_waiting(&mut self) -> bool {
        self.store.as_mut().is_some_and(|s| s.foreign_waiting())
    }
    fn findings(&mut self) -> Vec<Finding> {
        self.store.as_mut().map_or(Vec::new(), |s| s.findings())
    }
    fn insert(&mut self, fields: &Fields<'_>, checksum: &str) -> Result<(), TrailError> {
        self.store()?.insert(fields, checksum)
    }
    fn insert_all(&mut self, all: &mut dyn FnMut(&mut Insert<'_>) -> Result<(), TrailError>) -> Result<(), TrailError> {
        self.store()?.insert_all(all)
    }
    fn commit(&mut self, ends: &Ends) -> Result<(), TrailError> {
        self.store()?.commit(ends)
    }
    fn rollback(&mut self) {
        if let Some(store) = &mut self.store {
            store.rollback();
        }
    }
    fn find(&mut self, first: u64, last: u64) -> Result<Vec<(u64, u64, Checksum)>, TrailError> {
        self.store()?.find(first, last)
    }
    fn take_known(&mut self, ids: &mut BTreeSet<RecordId>) -> Result<(), TrailError> {
        self.store()?.take_known(ids)
    }
    fn backlog(&mut self) -> Backlog {
        self.store.as_mut().map_or(Backlog::default(), |s| s.backlog())
    }
    fn close(&mut self) -> Result<(), TrailError> {
        self.store.as_mut().map_or(Ok(()), |s| s.close())
    }
}
