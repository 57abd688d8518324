//! How much the write-ahead log holds. A reader's snapshot keeps it from being begun anew, and nobody but that reader can end it: so the log grows, commits go on,
//! and it is said. Runs on the writer's thread, between transactions.

use std::path::Path;

use super::SqliteStore;
use crate::error::{ErrorKind, TrailError};
use crate::store::Backlog;

/// More than this is looked into. A burst alone stays below: each commit of a few MiB is followed by a checkpoint.
const MOST: u64 = if cfg!(test) { 4 << 20 } else { 64 << 20 };

impl SqliteStore {
    pub(super) fn look_at_wal(&mut self) -> Backlog {
        let mut name = self.path.as_os_str().to_owned();
        name.push("-wal");
        let bytes = size(Path::new(&name)).unwrap_or(0);
        let mut backlog = Backlog { bytes, stuck: None };
        let Some(conn) = self.conn.as_ref().filter(|_| bytes > MOST) else { return backlog };
        // Passive: waits for nobody. What it could copy is copied; the file gets shorter with the next commit.
        let frames = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |r| Ok((r.get(1)?, r.get(2)?)));
        if let Ok((all, copied)) = frames
            && i64::saturating_sub(all, copied) > 0
        {
            let reason = format!("a reader holds {bytes} bytes of the write-ahead log back, and it grows");
            let error = TrailError::new(ErrorKind::Busy, reason).at(&self.path);
            backlog.stuck =
                Some(error.help("end the transaction, or the program, that reads the database for so long"));
        }
        backlog
    }
}

/// Bytes of a file. By its name: closing a descriptor of ours would drop SQLite's locks. And nothing but its size: once a file's times were asked for, Linux 6.13 and
/// later note the next write's to the nanosecond, and so each sync of the log would wait for the file system's journal, too.
fn size(path: &Path) -> std::io::Result<u64> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
        Ok(statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::SIZE)?.stx_size)
    }
    #[cfg(not(target_os = "linux"))]
    std::fs::symlink_metadata(path).map(|m| m.len())
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
        log_large(&logger, 8);
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
}
