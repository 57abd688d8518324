//! Opening an SQLite trail without touching its folder. SQLite would make or change `-shm`; so: with a `-shm` there, it is mapped read-only; without one and
//! without a `-wal`, the file is opened as immutable and watched for change; a `-wal` without `-shm` (a copy) is read from a private copy, watched too.
//! Paths here are resolved: what belongs to a database stands beside the file, not beside a link to it.

use std::fs::{File, Metadata};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::rows::Writers;
use crate::error::{ErrorKind, TrailError};
use crate::store::place;
use crate::store::sqlite::error;

/// Bytes of a cell that are read at most. No cell of a record has nearly as many; a hostile file may have a gigabyte.
const MAX_CELL: i32 = 4 << 20;
/// Copies that are begun again because the database was changed under them.
const ATTEMPTS: usize = 20;

/// The wait for a lock, which a reader seldom meets; a step is tried some twenty times.
const BUSY: Duration = Duration::from_millis(500);

/// Between two looks for a `-wal`.
const PAUSE: Duration = Duration::from_millis(10);

/// Device and inode.
type Identity = (u64, u64);
/// What a file looks like: identity, size, time of its last change.
type Stamp = (Identity, u64, i64, i64);
/// Of a database and of its `-wal`; none where there is no such file.
type Stamps = [Option<Stamp>; 2];

/// How a database is open.
#[derive(Debug, PartialEq)]
pub(super) enum Mode {
    /// Through a `-shm`: every commit is seen. Of the database and of its `-wal`.
    Shared([Option<Identity>; 2]),
    /// As immutable, with what the file looked like.
    Immutable(Option<Stamp>),
    /// As a private copy, with what the file and its `-wal` looked like.
    Copied(Stamps),
}

pub(super) struct State {
    pub(super) conn: Connection,
    pub(super) mode: Mode,
    pub(super) writers: Writers,
    /// Removed after the connection is closed.
    _copy: Option<PrivateCopy>,
}

impl State {
    /// Whether the file is not any more what was opened: another was put in its place, or a writer came.
    pub(super) fn is_stale(&self, path: &Path) -> bool {
        match &self.mode {
            Mode::Shared(before) => identities(path) != *before,
            Mode::Immutable(before) => stamp(path) != *before || writer_came(path) || has_wal(path),
            Mode::Copied(before) => stamps(path) != *before || writer_came(path),
        }
    }

    /// Whether what was read while the file went stale is worth nothing. A private copy stays what it is.
    pub(super) fn is_worthless(&self, path: &Path) -> bool {
        !matches!(self.mode, Mode::Copied(_)) && self.is_stale(path)
    }
}

/// A folder that is removed with its value.
struct PrivateCopy(PathBuf);

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut p = path.as_os_str().to_owned();
    p.push(suffix);
    p.into()
}

fn identity(m: &Metadata) -> Identity {
    (m.dev(), m.ino())
}

fn stamp(path: &Path) -> Option<Stamp> {
    let m = std::fs::metadata(path).ok()?;
    Some((identity(&m), m.size(), m.mtime(), m.mtime_nsec()))
}

fn stamps(path: &Path) -> Stamps {
    [stamp(path), stamp(&beside(path, "-wal"))]
}

fn identities(path: &Path) -> [Option<Identity>; 2] {
    [path, &beside(path, "-wal")].map(|p| place::seen(p).ok().map(|s| s.id))
}

fn writer_came(path: &Path) -> bool {
    beside(path, "-shm").exists()
}

/// An empty `-wal` says nothing, and a copy may have one.
fn has_wal(path: &Path) -> bool {
    std::fs::metadata(beside(path, "-wal")).is_ok_and(|m| m.len() > 0)
}

fn uri(path: &Path, options: &str) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut out = String::from("file:");
    for b in path.as_os_str().as_bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => out.push(char::from(*b)),
            _ => out.push_str(&format!("%{b:02x}")),
        }
    }
    out + "?" + options
}

/// Opens a database; `path` is resolved.
pub(super) fn connect(path: &Path) -> Result<State, TrailError> {
    crate::fork::refuse(path)?;
    for _ in 0..ATTEMPTS {
        let state = if writer_came(path) {
            let files = identities(path);
            if files[0].is_some() && files[1].is_none() {
                // SQLite would make another. Mostly the last writer is just closing.
                std::thread::sleep(PAUSE);
                if writer_came(path) && identities(path)[1].is_none() {
                    return Err(removed_log(path));
                }
                continue;
            }
            open(path, "mode=ro&readonly_shm=1", Mode::Shared(files), None)?
        } else if has_wal(path) {
            let Some((copy, stamps)) = private_copy(path)? else { continue };
            open(&copy.0.join("trail.db"), "mode=rw", Mode::Copied(stamps), Some(copy))?
        } else {
            open(path, "mode=ro&immutable=1", Mode::Immutable(stamp(path)), None)?
        };
        return Ok(state);
    }
    Err(TrailError::new(ErrorKind::Busy, "the audit database kept changing while it was copied")
        .at(path)
        .help("try again"))
}

fn removed_log(path: &Path) -> TrailError {
    TrailError::new(ErrorKind::Busy, "the database's write-ahead log was removed while it was in use")
        .at(beside(path, "-wal"))
        .help("a logger that has it open saves what stood in it; if none has, open a logger, or begin the trail's service, first")
}

fn open(target: &Path, options: &str, mode: Mode, copy: Option<PrivateCopy>) -> Result<State, TrailError> {
    let err = |e| error("cannot open the audit database for reading", target, e);
    let flags = OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | if copy.is_some() { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let conn = Connection::open_with_flags(uri(target, options), flags).map_err(err)?;
    conn.busy_timeout(BUSY).map_err(err)?;
    for (option, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ] {
        conn.set_db_config(option, on).map_err(err)?;
    }
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_CELL).map_err(err)?;
    conn.execute_batch(
        "PRAGMA mmap_size=0; PRAGMA cell_size_check=ON; PRAGMA query_only=ON; PRAGMA temp_store=MEMORY;",
    )
    .map_err(err)?;
    Ok(State { conn, mode, writers: Writers::default(), _copy: copy })
}

/// Copies a database and its `-wal` aside. No process has it open, since there is no `-shm`; none if one came meanwhile.
fn private_copy(path: &Path) -> Result<Option<(PrivateCopy, Stamps)>, TrailError> {
    let dir = std::env::temp_dir().join(format!("argus-read-{}", crate::id::WriterId::random()));
    let err = |e| TrailError::io("cannot copy the audit database aside for reading", &dir, e);
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(err)?;
    let copy = PrivateCopy(dir.clone());
    let before = stamps(path);
    let copied = copy_kept(path, &dir.join("trail.db"))
        .and_then(|()| std::fs::copy(beside(path, "-wal"), dir.join("trail.db-wal")).map(drop));
    // What a writer did in between shows by what it leaves: a `-shm`, another `-wal` or none, a newer file.
    if stamps(path) != before || writer_came(path) {
        return Ok(None);
    }
    copied.map_err(err)?;
    Ok(Some((copy, before)))
}

/// Database files that were opened here. They stay open until they are deleted: closing any descriptor of a file drops all locks that the process has on
/// it, so those of a logger that opened it meanwhile. (A `-wal` is never locked.)
static KEPT: Mutex<Vec<(Identity, File)>> = Mutex::new(Vec::new());

fn copy_kept(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut kept = KEPT.lock().unwrap_or_else(|e| e.into_inner());
    let wanted = identity(&std::fs::metadata(from)?);
    // A logger that still has one of the deleted writes to it no more.
    kept.retain(|k| k.1.metadata().is_ok_and(|m| m.nlink() > 0));
    if !kept.iter().any(|k| k.0 == wanted) {
        let file = File::open(from)?;
        // Kept before anything can fail.
        kept.push((wanted, file));
        if let Some(last) = kept.last_mut() {
            last.0 = identity(&last.1.metadata()?);
        }
    }
    let Some((_, file)) = kept.iter_mut().find(|k| k.0 == wanted) else {
        return Err(std::io::Error::other("another file was put in its place"));
    };
    file.seek(SeekFrom::Start(0))?;
    std::io::copy(file, &mut File::create(to)?).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHILD: &str = "ARGUS_LOCKED_BY_PARENT";

    /// Whether another process can take the write lock.
    fn another_process_gets_the_lock(path: &Path) -> bool {
        let test = "reader::sqlite::open::tests::a_copy_drops_no_lock_that_this_process_has";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test]).env(CHILD, path).output().unwrap().status.success()
    }

    #[test]
    fn a_copy_drops_no_lock_that_this_process_has() {
        let begin = |path: &Path| {
            let conn = Connection::open(path).unwrap();
            conn.busy_timeout(std::time::Duration::ZERO).unwrap();
            conn.execute_batch("BEGIN IMMEDIATE").map(|()| conn)
        };
        if let Some(path) = std::env::var_os(CHILD) {
            begin(Path::new(&path)).unwrap();
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        assert!(another_process_gets_the_lock(&path));
        let held = begin(&path).unwrap();
        for _ in 0..2 {
            copy_kept(&path, &dir.path().join("b.db")).unwrap();
            assert_eq!(std::fs::read(dir.path().join("b.db")).unwrap().len(), 8192);
            assert!(!another_process_gets_the_lock(&path), "the lock is gone");
        }
        drop(held);
        assert!(another_process_gets_the_lock(&path));

        // One that is deleted stays open no longer than until the next copy.
        let kept = |id: Identity, links| {
            KEPT.lock().unwrap().iter().any(|k| k.0 == id && k.1.metadata().unwrap().nlink() == links)
        };
        let other = dir.path().join("c.db");
        copy_kept(&path, &other).unwrap();
        let [first, second] = [&path, &other].map(|p| identity(&std::fs::metadata(p).unwrap()));
        assert!(kept(first, 1));
        std::fs::remove_file(&path).unwrap();
        copy_kept(&other, &dir.path().join("d.db")).unwrap();
        assert!(!kept(first, 0) && kept(second, 1));
    }
}
