//! The write-ahead log's file. How much it holds: a reader's snapshot keeps it from being begun anew, and nobody but that reader can end it: so the log grows, which is
//! said, and from a bound on no transaction begins. And whether it still stands under its name: SQLite does not look, and writes on into a log that nobody finds again.
//! Runs on the writer's thread.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::SqliteStore;
use crate::error::{ErrorKind, TrailError};
use crate::id::WriterId;
use crate::store::Backlog;
use crate::store::place::{self, Seen};

/// More than this is looked into. A burst alone stays below: each commit of a few MiB is followed by a checkpoint.
const MOST: u64 = if cfg!(test) { 4 << 20 } else { 64 << 20 };
/// In front of a log of this many bytes no transaction begins before it is copied and cut. (One more may be added by each process that did not see it so long yet.)
const BOUND: u64 = if cfg!(test) { 8 << 20 } else { 256 << 20 };
/// How long that waits for readers and other writers.
const PATIENCE: Duration = Duration::from_millis(200);
/// The first bytes of a log, but for the last bit.
const MAGIC: [u8; 4] = [0x37, 0x7f, 0x06, 0x82];

#[derive(Default)]
pub(super) struct Log {
    pub(super) path: PathBuf,
    /// The file that the connection writes to.
    id: Option<(u64, u64)>,
    /// Its bytes, as a transaction last saw them.
    bytes: u64,
    /// They are those after a commit that was not spoken of yet.
    fresh: bool,
    /// A log lost its name: the head of what stood there when it was left.
    left: Option<Vec<u8>>,
}

impl SqliteStore {
    /// A connection was made: SQLite has opened the log, or made it.
    pub(super) fn log_opened(&mut self) {
        let here = place::seen(&self.log.path).ok();
        self.log.id = here.map(|f| f.id);
        self.log.bytes = here.map_or(0, |f| f.bytes);
        self.log.left = None;
    }

    /// Whether the log that is written to stands under its name; if not, what does.
    pub(super) fn look_at_log(&mut self) -> Result<(), Option<Seen>> {
        let here = place::seen(&self.log.path).ok();
        (self.log.bytes, self.log.fresh) = (here.map_or(0, |f| f.bytes), true);
        if here.is_some() && here.map(|f| f.id) == self.log.id { Ok(()) } else { Err(here) }
    }

    /// Saves what stands in a log that has lost its name, and lets go of it. Whether all of it is saved, and what happened.
    pub(super) fn leave_log(&mut self, here: Option<Seen>) -> (bool, TrailError) {
        let gone = |help| {
            let what = "the database's write-ahead log was deleted, moved or replaced while it was written";
            TrailError::new(ErrorKind::Replaced, what).at(&self.log.path).help(help)
        };
        // Where another one was begun, the shared memory speaks of that: what would be copied are frames of one at the places of the other.
        let begun = here.is_some_and(|f| f.bytes > 0);
        let saved = !begun
            && self.conn.as_ref().is_some_and(|c| {
                // Passive: waits for nobody. It is tried again.
                let row = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?, r.get::<_, i64>(2)?));
                c.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], row)
                    .is_ok_and(|(busy, all, copied)| busy == 0 && all == copied)
            });
        let e = match (saved, begun) {
            (true, _) => gone(
                "what stood in it is saved; what is queued is kept and written once no program uses the removed log: end those that do not notice, readers, too",
            ),
            (_, true) => gone(
                "another stands in its place, so what was committed since the last checkpoint may be lost: run `argus verify`; what is queued is kept and written once no other program uses the database",
            ),
            _ => gone(
                "a reader, or the disk, keeps what stood in it from being saved: end the reader, and not this program; what is queued is kept",
            ),
        };
        if saved || begun {
            self.conn = None;
            self.log.left = Some(self.log_head());
        }
        (saved, e)
    }

    /// While a program has a log without a name open, nobody may begin another: the shared memory is the same for both. So a connection waits until nobody has the
    /// database open, or until a log was begun since.
    pub(super) fn wait_for_old_log(&mut self) -> Result<(), TrailError> {
        let missing = place::seen(&self.log.path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        if missing && place::seen(&self.beside("-shm")).is_ok() {
            self.log.left.get_or_insert_default();
        }
        let Some(left) = &self.log.left else { return Ok(()) };
        let head = self.log_head();
        if head != *left && head.first_chunk().is_some_and(|h: &[u8; 4]| [h[0], h[1], h[2], h[3] & !1] == MAGIC) {
            return Ok(());
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let alone = || -> rusqlite::Result<()> {
            let conn = Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            // Without it SQLite would wait.
            conn.busy_timeout(Duration::ZERO)?;
            conn.query_row("PRAGMA locking_mode=EXCLUSIVE", [], |_| Ok(()))?;
            conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        };
        alone().map_err(|e| {
            if !matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) {
                return self.err("cannot look at the audit database")(e);
            }
            // Whoever only now comes to the trail can wait as for any lock.
            let opening = self.log_id == WriterId([0; 16]);
            let kind = if opening { ErrorKind::Busy } else { ErrorKind::Replaced };
            TrailError::new(kind, "other programs use a write-ahead log that was deleted, moved or replaced")
                .at(&self.log.path)
                .help("end the other programs that have the database open, readers, too")
        })
    }

    /// The first bytes of what stands under the log's name. (A log is never locked.)
    fn log_head(&self) -> Vec<u8> {
        use rustix::fs::{Mode, OFlags, open};
        let mut head = Vec::new();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Ok(file) = open(&self.log.path, flags, Mode::empty()) {
            let _ = std::fs::File::from(file).take(32).read_to_end(&mut head);
        }
        head
    }

    pub(super) fn look_at_wal(&mut self) -> Backlog {
        // (After a commit it was just looked at.)
        if !std::mem::take(&mut self.log.fresh) {
            self.log.bytes = place::seen(&self.log.path).map_or(0, |f| f.bytes);
        }
        let bytes = self.log.bytes;
        let mut backlog = Backlog { bytes, stuck: None };
        let Some(conn) = self.conn.as_ref().filter(|_| bytes > MOST) else { return backlog };
        // Passive: waits for nobody. What it could copy is copied; the file gets shorter with the next commit.
        let frames = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |r| Ok((r.get(1)?, r.get(2)?)));
        if let Ok((all, copied)) = frames
            && i64::saturating_sub(all, copied) > 0
        {
            backlog.stuck = Some(self.held_back());
        }
        backlog
    }

    /// Begins a log anew that has grown too long; while a reader keeps it from that, it is not added to. Before a transaction.
    pub(super) fn bound_log(&mut self) -> Result<(), TrailError> {
        if self.conn.is_none() || self.log.bytes <= BOUND {
            return Ok(());
        }
        // Nothing is copied from a log that has lost its name before it is known what stands there.
        if let Err(here) = self.look_at_log() {
            return Err(self.leave_log(here).1);
        }
        let err = self.err("cannot copy the write-ahead log into the audit database");
        let bytes = self.log.bytes;
        let Some(conn) = self.conn.as_mut().filter(|_| bytes > BOUND) else { return Ok(()) };
        // Waits for the readers in front of its end, and for those who stand there; a new one needs the log no more.
        conn.busy_timeout(PATIENCE).map_err(&err)?;
        let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, bool>(0));
        conn.busy_handler(Some(super::busy)).map_err(&err)?;
        if busy.map_err(err)? {
            return Err(self.held_back());
        }
        self.log.bytes = 0;
        Ok(())
    }

    fn held_back(&self) -> TrailError {
        let bytes = self.log.bytes;
        let so = if bytes > BOUND { "nothing is added to it before he ends" } else { "it grows" };
        TrailError::new(ErrorKind::Busy, format!("a reader holds {bytes} bytes of the write-ahead log back, and {so}"))
            .at(&self.path)
            .help("end the transaction, or the program, that reads the database for so long")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use crate::{AuditConfig, AuditError, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, ErrorKind};

    const WAIT: Duration = Duration::from_secs(20);

    /// Commits so many MiB, one at a time.
    fn log_large(logger: &AuditLogger, mib: usize) {
        let text = "x".repeat(200 << 10);
        for n in 1..=5 * mib {
            logger.log(AuditEvent::info("large").with("text", text.as_str())).unwrap();
            if n % 5 == 0 {
                logger.flush(WAIT).unwrap();
            }
        }
    }

    /// Commits a record at a time until `done`.
    fn until(logger: &AuditLogger, done: impl Fn(&AuditLogger) -> bool) {
        let began = Instant::now();
        while !done(logger) {
            assert!(began.elapsed() < WAIT);
            logger.log_durable(AuditEvent::info("small")).unwrap();
        }
    }

    #[test]
    fn a_reader_that_does_not_end_is_told_of_and_harms_no_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let (tell, told) = mpsc::channel();
        let config = AuditConfig::new(&path).on_error(move |e| {
            if matches!(e, AuditError::Store(_)) {
                drop(tell.send(e.clone()));
            }
        });
        let logger = AuditLogger::open(config).unwrap();
        // Without him the log is begun anew again and again.
        log_large(&logger, 10);
        let calm = logger.health();
        assert!(calm.is_ok() && calm.wal_bytes > 0 && calm.wal_bytes < 10 << 20, "{calm:?}");

        let reader = rusqlite::Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM audit_events;").unwrap();
        log_large(&logger, 5);
        until(&logger, |l| l.health().degraded.is_some());
        let held = logger.health();
        assert!(held.wal_bytes > super::MOST && held.degraded.unwrap().contains("a reader holds"));
        match told.recv_timeout(WAIT).unwrap() {
            AuditError::Store(e) => assert_eq!(e.kind(), ErrorKind::Busy),
            other => panic!("{other}"),
        }

        reader.execute_batch("ROLLBACK").unwrap();
        until(&logger, |l| l.health().is_ok());
        assert_eq!(logger.close(WAIT).error, None);
        drop(reader);
        let trail = AuditReader::open(&path).unwrap();
        let said = trail.query(crate::Filter::new().event("wal_high_water")).unwrap().count();
        assert_eq!(said, 1, "at most once in ten minutes");
        assert!(trail.verify().unwrap().is_ok());
    }

    /// A reader that does not end, and a log that has come to its bound.
    fn at_the_bound(logger: &AuditLogger, path: &std::path::Path) -> rusqlite::Connection {
        let reader = rusqlite::Connection::open(path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM audit_events;").unwrap();
        let text = "x".repeat(200 << 10);
        for _ in 0..100 {
            logger.log(AuditEvent::info("large").with("text", text.as_str())).unwrap();
            // (The trail, or the pending file.)
            wait(logger, |h| h.queued < 10);
        }
        wait(logger, |h| h.pending > 0 && h.queued == 0);
        reader
    }

    fn wait(logger: &AuditLogger, done: impl Fn(&crate::Health) -> bool) {
        let began = Instant::now();
        while !done(&logger.health()) {
            assert!(began.elapsed() < WAIT, "{:?}", logger.health());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn wal(path: &std::path::Path) -> u64 {
        std::fs::metadata(path.with_extension("db-wal")).unwrap().len()
    }

    /// What is in the trail: all of `at_the_bound`, and so many small ones.
    fn assert_all(path: &std::path::Path, small: usize) {
        let trail = AuditReader::open(path).unwrap();
        let count = |event| trail.query(crate::Filter::new().event(event)).unwrap().count();
        assert_eq!((count("large"), count("small")), (100, small));
        let report = trail.verify().unwrap();
        assert!(report.is_ok() && report.pending == 0, "{report}");
    }

    /// One transaction more than the bound may be in it: its entries, and the indexes of them.
    const LONGEST: u64 = super::BOUND + 2 * crate::writer::BATCH as u64;

    #[test]
    fn a_log_at_its_bound_is_not_added_to_until_the_reader_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let (tell, told) = mpsc::channel();
        let config = AuditConfig::new(&path).on_error(move |e| {
            if let AuditError::Store(e) = e {
                drop(tell.send(e.to_string()));
            }
        });
        let logger = AuditLogger::open(config).unwrap();
        let reader = at_the_bound(&logger, &path);
        let health = logger.health();
        assert!(health.degraded.as_ref().unwrap().contains("nothing is added"), "{health:?}");
        assert!(health.pending > 0 && health.lost == 0 && health.rejected == 0, "{health:?}");
        assert!((super::BOUND..LONGEST).contains(&wal(&path)), "{}", wal(&path));
        assert!(told.try_iter().any(|e| e.contains("nothing is added")));
        logger.log_durable(AuditEvent::info("small")).unwrap();

        reader.execute_batch("ROLLBACK").unwrap();
        wait(&logger, |h| h.is_ok() && h.pending == 0);
        assert!(wal(&path) < super::BOUND, "{}", wal(&path));
        assert_eq!(logger.close(WAIT).error, None);
        assert_all(&path, 1);
    }

    #[test]
    fn who_opens_and_closes_a_trail_whose_log_is_at_its_bound_leaves_it_to_the_pending_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let logger = AuditLogger::open(AuditConfig::new(&path)).unwrap();
        let reader = at_the_bound(&logger, &path);
        let other = AuditLogger::open(AuditConfig::new(&path)).unwrap();
        for _ in 0..10 {
            other.log_durable(AuditEvent::info("small")).unwrap();
        }
        for logger in [logger, other] {
            assert!(logger.health().pending > 0);
            assert!(logger.close(Duration::from_millis(500)).left > 0);
        }
        assert!(wal(&path) < LONGEST, "{}", wal(&path));

        drop(reader);
        let logger = AuditLogger::open(AuditConfig::new(&path)).unwrap();
        assert_eq!(logger.close(WAIT).error, None);
        assert_all(&path, 10);
    }

    #[test]
    fn a_log_at_its_bound_that_is_removed_is_noticed_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let logger = AuditLogger::open(AuditConfig::new(&path)).unwrap();
        let reader = at_the_bound(&logger, &path);
        std::fs::remove_file(path.with_extension("db-wal")).unwrap();
        wait(&logger, |h| h.degraded.as_ref().is_some_and(|d| d.contains("was deleted, moved or replaced")));
        drop(reader);
        wait(&logger, |h| h.is_ok() && h.pending == 0);
        assert_eq!(logger.close(WAIT).error, None);
        assert_all(&path, 0);
    }

    #[test]
    fn readers_that_overlap_and_end_keep_nothing_waiting_at_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let logger = AuditLogger::open(AuditConfig::new(&path)).unwrap();
        let begin = || {
            let c = rusqlite::Connection::open(&path).unwrap();
            c.execute_batch("BEGIN; SELECT count(*) FROM audit_events;").unwrap();
            c
        };
        std::thread::scope(|s| {
            let (stop, stopped) = mpsc::channel::<()>();
            s.spawn(move || {
                let mut old = begin();
                while stopped.recv_timeout(Duration::from_millis(10)) == Err(mpsc::RecvTimeoutError::Timeout) {
                    // The new one begins before the old one ends.
                    drop(std::mem::replace(&mut old, begin()));
                }
            });
            let text = "x".repeat(200 << 10);
            let mut longest = 0;
            for _ in 0..100 {
                logger.log_durable(AuditEvent::info("large").with("text", text.as_str())).unwrap();
                assert_eq!(logger.health().pending, 0, "{:?}", logger.health());
                longest = wal(&path).max(longest);
            }
            drop(stop);
            assert!((super::BOUND..LONGEST).contains(&longest), "{longest}");
        });
        assert_eq!(logger.close(WAIT).error, None);
        assert_all(&path, 0);
    }
}
