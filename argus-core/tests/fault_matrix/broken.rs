//! Makes a failure, and mends it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use argus_core::{Clock, ErrorKind, Faults, ManualClock, StoreFault};

use crate::cases::{Case, Failure};
use crate::disk::Disk;

const DAY: Duration = Duration::from_secs(86_400);

/// Something that can be made to fail, and mended.
pub(crate) struct Broken<'a> {
    pub(crate) case: Case,
    pub(crate) path: &'a Path,
    pub(crate) faults: Faults,
    pub(crate) disk: Option<Disk>,
    pub(crate) other: Option<rusqlite::Connection>,
    pub(crate) clock: Arc<ManualClock>,
}

/// In another process: whoever closes SQLite's file drops all locks that this process has on it.
fn shell(script: &str, path: &Path) {
    let done = Command::new("sh").args(["-c", script, "sh"]).arg(path).status().unwrap();
    assert!(done.success(), "{script}");
}

/// Writes over some of the bytes of a trail that nobody has open, at a place that each opening reads.
const DAMAGE: &str = r#"cp "$1" "$1.whole"
case "$1" in
*.db) at=100 ;;
*) at=$(($(wc -c <"$1") - 40)) ;;
esac
printf 'not what stood here' | dd of="$1" bs=1 seek="$at" conv=notrunc status=none"#;

/// Writes over all pages of a database but the first.
const DAMAGE_PAGES: &str = r#"cp "$1" "$1.whole"
tr '\0' x </dev/zero | head -c $(($(wc -c <"$1") - 4096)) | dd of="$1" bs=4096 seek=1 conv=notrunc status=none"#;

/// Puts the bytes back that were cut off or written over, if they were. What was appended since stays.
pub(crate) fn put_back(path: &Path) {
    shell(
        "[ ! -e \"$1.whole\" ] || { dd if=\"$1.whole\" of=\"$1\" conv=notrunc status=none && rm \"$1.whole\"; }",
        path,
    );
}

/// Where the trail is while another thing stands in its place.
pub(crate) fn away(path: &Path) -> PathBuf {
    path.with_extension("away")
}

/// A log that is none of ours, to be put in the place of the trail.
pub(crate) fn another(path: &Path) -> PathBuf {
    path.with_file_name("another").with_extension(path.extension().unwrap())
}

impl Broken<'_> {
    pub(crate) fn fail(&mut self) {
        let disk = || self.disk.as_ref().unwrap();
        match self.case.failure {
            Failure::Told(fault, kind) => self.faults.store(fault, kind, u32::MAX),
            Failure::BothFull => {
                self.faults.spill(ErrorKind::DiskFull);
                self.faults.store(StoreFault::Commit, ErrorKind::DiskFull, u32::MAX);
            }
            Failure::FullDisk => disk().fill(),
            Failure::FullSpillDisk { begun } => {
                if !begun {
                    disk().fill();
                }
                self.faults.store(StoreFault::Commit, ErrorKind::DiskFull, u32::MAX);
            }
            Failure::ReadOnlyDisk => {}
            Failure::MovedAway => fs::rename(self.path, away(self.path)).unwrap(),
            Failure::Replaced => {
                fs::rename(self.path, away(self.path)).unwrap();
                fs::rename(another(self.path), self.path).unwrap();
            }
            Failure::Deleted => fs::remove_file(self.path).unwrap(),
            Failure::Cut => shell("cp \"$1\" \"$1.whole\" && truncate -s 10 \"$1\"", self.path),
            Failure::Damaged => shell(DAMAGE, self.path),
            Failure::DamagedPages => {
                // All pages are in the file, and what the writer has of them in memory is too old.
                let c = rusqlite::Connection::open(self.path).unwrap();
                let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
                assert!(!c.query_row(checkpoint, [], |r| r.get::<_, bool>(0)).unwrap());
                c.execute_batch("INSERT INTO audit_events (event, component) VALUES ('foreign', 'sql')").unwrap();
                shell(DAMAGE_PAGES, self.path);
            }
            Failure::ClockBack => {
                self.clock.set(self.clock.now() - DAY);
                self.faults.store(StoreFault::Begin, ErrorKind::Io, u32::MAX);
            }
            Failure::Locked | Failure::StuckReader => {
                let c = rusqlite::Connection::open(self.path).unwrap();
                if self.case.failure == Failure::Locked {
                    c.execute_batch("BEGIN IMMEDIATE").unwrap();
                } else {
                    c.execute_batch("BEGIN").unwrap();
                    c.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get::<_, u64>(0)).unwrap();
                }
                self.other = Some(c);
            }
        }
    }

    pub(crate) fn mend(&mut self) {
        self.faults.heal();
        match self.case.failure {
            Failure::FullDisk => self.disk.as_ref().unwrap().free(),
            // The store works again, and that disk stays full: the queue comes back from the spill thread unwritten.
            Failure::FullSpillDisk { .. } => {}
            Failure::ReadOnlyDisk => self.disk.as_ref().unwrap().remount("rw"),
            Failure::MovedAway | Failure::Replaced => fs::rename(away(self.path), self.path).unwrap(),
            Failure::Cut | Failure::Damaged | Failure::DamagedPages => put_back(self.path),
            _ => self.other = None,
        }
    }
}
