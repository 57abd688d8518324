//! Faults for tests: a switch that makes a store or a pending file fail, and named steps at which the process dies. Nothing of it is in a build for users.

#[cfg(any(test, feature = "test-util"))]
pub(crate) use switch::FaultyStore;
#[cfg(any(test, feature = "test-util"))]
pub use switch::{Faults, StoreFault};

/// A place where a test may let the process die, named by the variable `ARGUS_ABORT_AT`.
#[cfg(any(test, feature = "test-util"))]
pub(crate) fn step(name: &str) {
    static AT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    if AT.get_or_init(|| std::env::var("ARGUS_ABORT_AT").ok()).as_deref() == Some(name) {
        std::process::abort();
    }
}

#[cfg(not(any(test, feature = "test-util")))]
#[inline(always)]
pub(crate) fn step(_: &str) {}

#[cfg(any(test, feature = "test-util"))]
mod switch {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Condvar, Mutex, MutexGuard};
    use std::time::Duration;

    use crate::canonical::Fields;
    use crate::error::{ErrorKind, TrailError};
    use crate::id::{Checksum, RecordId, WriterId};
    use crate::store::{Backlog, Closed, Ends, Finding, ForeignRow, Head, Insert, Store};

    /// Where a store fails.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum StoreFault {
        /// It cannot be opened.
        Open,
        /// No transaction begins.
        Begin,
        /// A record cannot be inserted.
        Insert,
        /// The commit fails, and nothing of it is in.
        Commit,
        /// The commit succeeds and reports a failure.
        AfterCommit,
        /// A transaction waits as long as the fault stands, then goes on, into another one if that is set.
        Stuck,
    }

    #[derive(Clone, Copy, Debug)]
    enum SpillFault {
        Error(ErrorKind),
        Stuck,
        Slow(Duration),
        Panic,
    }

    #[derive(Debug, Default)]
    struct Inner {
        store: Option<(StoreFault, ErrorKind, u32)>,
        spill: Option<SpillFault>,
        segment: Option<ErrorKind>,
        no_thread: bool,
        /// A transaction waits, or a write to the pending file.
        stuck: bool,
        /// So many more commits work before the fault stands.
        good: u32,
        /// The checksums of what each transaction tried to commit, the one that is open last.
        tries: Option<Vec<Vec<String>>>,
    }

    /// The switch. Clones share it.
    #[derive(Clone, Debug, Default)]
    pub struct Faults(Arc<(Mutex<Inner>, Condvar)>);

    impl Faults {
        /// One that lets everything work.
        pub fn new() -> Self {
            Self::default()
        }

        fn lock(&self) -> MutexGuard<'_, Inner> {
            self.0.0.lock().unwrap_or_else(|e| e.into_inner())
        }

        /// Makes the store fail so many times with an error of this kind; `u32::MAX`: until [`heal`](Self::heal).
        pub fn store(&self, fault: StoreFault, kind: ErrorKind, times: u32) {
            self.lock().store = Some((fault, kind, times));
            self.0.1.notify_all();
        }

        /// As `store`, of commits, after so many more that work. From here on [`tries`](Self::tries) are kept.
        pub fn commits(&self, good: u32, kind: ErrorKind, times: u32) {
            let mut inner = self.lock();
            (inner.store, inner.good, inner.tries) = (Some((StoreFault::Commit, kind, times)), good, Some(Vec::new()));
            self.0.1.notify_all();
        }

        /// The checksums of what each transaction tried to commit.
        pub fn tries(&self) -> Vec<Vec<String>> {
            self.lock().tries.clone().unwrap_or_default()
        }

        /// Makes every write to the pending file fail.
        pub fn spill(&self, kind: ErrorKind) {
            self.lock().spill = Some(SpillFault::Error(kind));
        }

        /// Makes a write to the pending file wait until [`heal`](Self::heal).
        pub fn spill_stuck(&self) {
            self.lock().spill = Some(SpillFault::Stuck);
        }

        /// Makes each write to the pending file take so long.
        pub fn spill_slow(&self, each: Duration) {
            self.lock().spill = Some(SpillFault::Slow(each));
        }

        /// Makes the next write to the pending file panic.
        pub fn spill_panics(&self) {
            self.lock().spill = Some(SpillFault::Panic);
        }

        /// Lets no segment of a journal be made but the first.
        pub fn segments(&self, kind: ErrorKind) {
            self.lock().segment = Some(kind);
        }

        /// Lets no thread be started for a journal.
        pub fn no_thread(&self) {
            self.lock().no_thread = true;
        }

        /// Everything works again.
        pub fn heal(&self) {
            let mut inner = self.lock();
            (inner.store, inner.spill, inner.segment, inner.no_thread) = (None, None, None, false);
            self.0.1.notify_all();
        }

        /// Waits until a transaction is stuck, or a write to the pending file.
        pub fn wait_until_stuck(&self) {
            let inner = self.lock();
            drop(self.0.1.wait_while(inner, |i| !i.stuck).unwrap_or_else(|e| e.into_inner()));
        }

        pub(crate) fn of_store(&self, at: StoreFault) -> Result<(), TrailError> {
            let mut inner = self.lock();
            if at == StoreFault::Begin
                && let Some(tries) = &mut inner.tries
            {
                tries.push(Vec::new());
            }
            if at == StoreFault::Commit && inner.good > 0 {
                inner.good -= 1;
                return Ok(());
            }
            match &mut inner.store {
                Some((StoreFault::Stuck, ..)) if at == StoreFault::Begin => {
                    inner.stuck = true;
                    self.0.1.notify_all();
                    let mut inner = self
                        .0
                        .1
                        .wait_while(inner, |i| matches!(i.store, Some((StoreFault::Stuck, ..))))
                        .unwrap_or_else(|e| e.into_inner());
                    inner.stuck = false;
                    Ok(())
                }
                Some((fault, kind, left)) if *fault == at && *left > 0 => {
                    *left -= u32::from(*left != u32::MAX);
                    Err(TrailError::new(*kind, "the store was told to fail"))
                }
                _ => Ok(()),
            }
        }

        fn inserted(&self, checksum: &str) {
            if let Some(last) = self.lock().tries.as_mut().and_then(|t| t.last_mut()) {
                last.push(checksum.into());
            }
        }

        pub(crate) fn of_segment(&self) -> Result<(), TrailError> {
            let kind = self.lock().segment;
            kind.map_or(Ok(()), |k| Err(TrailError::new(k, "the journal was told to get no further segment")))
        }

        pub(crate) fn of_thread(&self) -> std::io::Result<()> {
            if self.lock().no_thread { Err(std::io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        }

        pub(crate) fn of_spill(&self) -> Result<(), TrailError> {
            let mut inner = self.lock();
            match inner.spill {
                Some(SpillFault::Error(kind)) => Err(TrailError::new(kind, "the pending file was told to fail")),
                Some(SpillFault::Stuck) => {
                    inner.stuck = true;
                    self.0.1.notify_all();
                    let mut inner =
                        self.0.1.wait_while(inner, |i| i.spill.is_some()).unwrap_or_else(|e| e.into_inner());
                    inner.stuck = false;
                    Ok(())
                }
                Some(SpillFault::Slow(each)) => {
                    drop(inner);
                    std::thread::sleep(each);
                    Ok(())
                }
                Some(SpillFault::Panic) => panic!("the spill thread was told to panic"),
                None => Ok(()),
            }
        }
    }

    /// A store that fails when it is told to.
    pub(crate) struct FaultyStore {
        pub(crate) inner: Box<dyn Store>,
        pub(crate) faults: Faults,
    }

    impl Store for FaultyStore {
        fn begin(&mut self) -> Result<Head, TrailError> {
            self.faults.of_store(StoreFault::Begin)?;
            self.inner.begin()
        }
        fn act_as(&mut self, writer: WriterId, service: &str) {
            self.inner.act_as(writer, service);
        }
        fn log_id(&self) -> WriterId {
            self.inner.log_id()
        }
        fn unclosed(&mut self) -> Result<Vec<WriterId>, TrailError> {
            self.inner.unclosed()
        }
        fn standing(&mut self, writer: WriterId) -> Result<Option<Closed>, TrailError> {
            self.inner.standing(writer)
        }
        fn untold_gaps(&mut self) -> Vec<(WriterId, u64, String)> {
            self.inner.untold_gaps()
        }
        fn aside(&mut self) -> Result<Vec<String>, TrailError> {
            self.inner.aside()
        }
        fn foreign(&mut self, limit: usize) -> Result<Vec<ForeignRow>, TrailError> {
            self.inner.foreign(limit)
        }
        fn forget_foreign(&mut self, up_to: i64) -> Result<(), TrailError> {
            self.inner.forget_foreign(up_to)
        }
        fn foreign_waiting(&mut self) -> bool {
            self.inner.foreign_waiting()
        }
        fn findings(&mut self) -> Vec<Finding> {
            self.inner.findings()
        }
        fn insert(&mut self, fields: &Fields<'_>, checksum: &str) -> Result<(), TrailError> {
            self.faults.of_store(StoreFault::Insert)?;
            self.faults.inserted(checksum);
            self.inner.insert(fields, checksum)
        }
        fn insert_all(
            &mut self,
            all: &mut dyn FnMut(&mut Insert<'_>) -> Result<(), TrailError>,
        ) -> Result<(), TrailError> {
            let faults = self.faults.clone();
            self.inner.insert_all(&mut |insert| {
                all(&mut |fields, checksum| {
                    faults.of_store(StoreFault::Insert)?;
                    faults.inserted(checksum);
                    insert(fields, checksum)
                })
            })
        }
        fn commit(&mut self, ends: &Ends) -> Result<(), TrailError> {
            self.faults.of_store(StoreFault::Commit)?;
            self.inner.commit(ends)?;
            self.faults.of_store(StoreFault::AfterCommit)
        }
        fn rollback(&mut self) {
            self.inner.rollback();
        }
        fn find(&mut self, first: u64, last: u64) -> Result<Vec<(u64, u64, Checksum)>, TrailError> {
            self.inner.find(first, last)
        }
        fn take_known(&mut self, ids: &mut BTreeSet<RecordId>) -> Result<(), TrailError> {
            self.inner.take_known(ids)
        }
        fn backlog(&mut self) -> Backlog {
            self.inner.backlog()
        }
        fn close(&mut self) -> Result<(), TrailError> {
            self.inner.close()
        }
    }
}
