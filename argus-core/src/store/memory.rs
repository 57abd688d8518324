//! A store in memory, for tests; it can be told to fail. Runs on the writer thread, is read from any.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Ends, Head, Store};
use crate::canonical::{Fields, write_line};
use crate::error::{ErrorKind, TrailError};
use crate::id::{Checksum, RecordId, WriterId};

#[derive(Debug)]
struct Inner {
    log_id: WriterId,
    lines: Vec<(u64, u64, Checksum, String)>,
    created_at: Option<String>,
    fail: u32,
    fail_after_commit: bool,
}

/// The records of an in-memory trail, as JSONL lines; and the switch that makes its store fail.
#[derive(Clone, Debug)]
pub struct MemoryTrail(Arc<Mutex<Inner>>);

impl Default for MemoryTrail {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            log_id: WriterId::random(),
            lines: Vec::new(),
            created_at: None,
            fail: 0,
            fail_after_commit: false,
        })))
    }
}

impl MemoryTrail {
    /// An empty trail.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The committed records, as JSONL lines.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.iter().map(|(_, _, _, l)| l.clone()).collect()
    }

    /// Makes the next `times` transactions fail; `u32::MAX` for good.
    pub fn fail(&self, times: u32) {
        self.lock().fail = times;
    }

    /// Makes the next commit succeed and yet report a failure.
    pub fn fail_after_commit(&self) {
        self.lock().fail_after_commit = true;
    }
}

pub(crate) struct MemoryStore {
    trail: MemoryTrail,
    open: Vec<(u64, u64, Checksum, String)>,
    created_at: Option<String>,
}

impl MemoryStore {
    pub(crate) fn new(trail: MemoryTrail) -> Self {
        Self { trail, open: Vec::new(), created_at: None }
    }
}

impl Store for MemoryStore {
    fn log_id(&self) -> WriterId {
        self.trail.lock().log_id
    }

    fn begin(&mut self) -> Result<Head, TrailError> {
        let mut t = self.trail.lock();
        if t.fail > 0 {
            t.fail -= u32::from(t.fail != u32::MAX);
            return Err(TrailError::new(ErrorKind::DiskFull, "the in-memory store was told to fail"));
        }
        self.open.clear();
        let last = t.lines.last();
        Ok(Head {
            log_id: t.log_id,
            next_seq: t.lines.len() as u64 + 1,
            prev: last.map(|l| l.2),
            created_at: t.created_at.clone(),
            writer_last: last.map_or(0, |l| l.0),
            closed: super::Closed::No,
            log_writer_last: 0,
        })
    }

    fn insert(&mut self, f: &Fields<'_>, checksum: &str) -> Result<(), TrailError> {
        let mut line = Vec::new();
        write_line(f, checksum, &mut line);
        let sum = Checksum::parse_exact(checksum).ok_or_else(|| TrailError::new(ErrorKind::Damaged, "bad checksum"))?;
        self.open.push((f.writer_seq, f.seq, sum, String::from_utf8(line).unwrap_or_default()));
        self.created_at = Some(f.created_at.into());
        Ok(())
    }

    fn commit(&mut self, _ends: &Ends) -> Result<(), TrailError> {
        let mut t = self.trail.lock();
        t.lines.append(&mut self.open);
        t.created_at = self.created_at.clone();
        if std::mem::take(&mut t.fail_after_commit) {
            return Err(TrailError::new(ErrorKind::Io, "the in-memory store was told to fail after its commit"));
        }
        Ok(())
    }

    fn rollback(&mut self) {
        self.open.clear();
    }

    fn find(&mut self, first: u64, last: u64) -> Result<Vec<(u64, u64, Checksum)>, TrailError> {
        Ok(self.trail.lock().lines.iter().filter(|l| (first..=last).contains(&l.0)).map(|l| (l.0, l.1, l.2)).collect())
    }

    fn take_known(&mut self, ids: &mut BTreeSet<RecordId>) -> Result<(), TrailError> {
        let trail = self.trail.lock();
        ids.retain(|id| !trail.lines.iter().chain(&self.open).any(|l| l.3.contains(&id.to_string())));
        Ok(())
    }

    fn close(&mut self) -> Result<(), TrailError> {
        Ok(())
    }
}
