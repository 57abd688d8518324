//! Opening an SQLite trail without touching its folder. SQLite would make or change `-shm`; so: with a `-shm` there, it is mapped read-only; without one and
//! without a `-wal`, the file is opened as immutable and watched for change; a `-wal` without `-shm` (a copy) is read from a private copy.

use std::collections::HashMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::TrailError;
use crate::store::sqlite::error;

type Stamp = (u64, u64, i64, i64, u64);

pub(super) struct State {
    pub(super) conn: Connection,
    /// Set while the file is open as immutable: what it looked like then.
    pub(super) stamp: Option<Stamp>,
    pub(super) writers: HashMap<i64, (String, String)>,
    pub(super) copy: Option<PrivateCopy>,
}

impl State {
    /// Whether the file is open as immutable and is not what it was any more.
    pub(super) fn is_stale(&self, path: &Path) -> bool {
        self.stamp.is_some_and(|before| stamp(path) != Some(before) || has_wal(path))
    }
}

/// A folder that is removed with its value.
pub(super) struct PrivateCopy(PathBuf);

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

/// Whether something may stand in a `-wal`. An empty one may stay behind: power was lost between its last checkpoint and its removal.
fn has_wal(path: &Path) -> bool {
    std::fs::metadata(beside(path, "-wal")).is_ok_and(|m| m.len() > 0)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let m = std::fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size()))
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

pub(super) fn connect(path: &Path) -> Result<State, TrailError> {
    let err = |e| error("cannot open the audit database for reading", path, e);
    let full = path.canonicalize().map_err(|e| TrailError::io("cannot resolve the trail's path", path, e))?;
    let mut copy = None;
    let (target, options, watched) = if beside(&full, "-shm").exists() {
        (full.clone(), "mode=ro&readonly_shm=1", None)
    } else if has_wal(&full) {
        let private = private_copy(&full)?;
        let target = private.0.join("trail.db");
        copy = Some(private);
        (target, "mode=rw", None)
    } else {
        (full.clone(), "mode=ro&immutable=1", stamp(&full))
    };
    let flags = OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | if copy.is_some() { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let conn = Connection::open_with_flags(uri(&target, options), flags).map_err(err)?;
    conn.busy_timeout(std::time::Duration::from_secs(5)).map_err(err)?;
    for (option, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ] {
        conn.set_db_config(option, on).map_err(err)?;
    }
    conn.execute_batch(
        "PRAGMA mmap_size=0; PRAGMA cell_size_check=ON; PRAGMA query_only=ON; PRAGMA temp_store=MEMORY;",
    )
    .map_err(err)?;
    Ok(State { conn, stamp: watched, writers: HashMap::new(), copy })
}

/// Copies a database and its `-wal` aside. No process has it open, since there is no `-shm`.
fn private_copy(path: &Path) -> Result<PrivateCopy, TrailError> {
    let dir = std::env::temp_dir().join(format!("argus-read-{}", crate::id::WriterId::random()));
    let err = |e| TrailError::io("cannot copy the audit database aside for reading", &dir, e);
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(err)?;
    let copy = PrivateCopy(dir.clone());
    std::fs::copy(path, dir.join("trail.db")).map_err(err)?;
    std::fs::copy(beside(path, "-wal"), dir.join("trail.db-wal")).map_err(err)?;
    Ok(copy)
}
