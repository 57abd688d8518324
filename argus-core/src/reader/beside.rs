//! `TrailFiles`: what stands beside a trail, and whose it is. Takes no lock: a lock that is tried is a lock that is held for a moment.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::{ReadError, TrailError};
use crate::id::WriterId;
use crate::queue::files::{self, Found, HEADER, Owner};

/// The files beside a trail. They are no part of it (`docs/record-format.md`, section 8).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TrailFiles {
    /// Writers that have files there: alive, or dead and not recovered.
    pub writers: Vec<WriterFiles>,
    /// Files that were put aside as evidence: `.orphan`, `.torn`.
    pub put_aside: Vec<PathBuf>,
}

/// One writer's files.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WriterFiles {
    /// Which.
    pub writer: WriterId,
    /// Whether its process lives; `None` where that cannot be told from here, as of another container, or where its files may not be read.
    pub alive: Option<bool>,
    /// Its process.
    pub process_id: Option<u64>,
    /// Its process's name.
    pub process_name: Option<String>,
    /// Its service's name.
    pub service_name: Option<String>,
    /// Its lock file.
    pub lock: Option<PathBuf>,
    /// The segments of its journal.
    pub journals: Vec<PathBuf>,
    /// Its pending file, if it has one.
    pub pending: Vec<PathBuf>,
}

impl TrailFiles {
    /// Looks beside a trail, which need not be there itself. Opens nothing for writing and takes no lock.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn beside(trail: impl AsRef<Path>) -> Result<TrailFiles, ReadError> {
        let trail = trail.as_ref();
        let trail = trail.canonicalize().unwrap_or_else(|_| trail.into());
        let fail = |e| TrailError::io("cannot look for files beside the trail", &trail, e);
        let mut all = TrailFiles::default();
        for (writer, mut found) in files::scan_all(&trail).map_err(fail)? {
            found.segments.sort();
            let owner = owner(&found);
            let some = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
            if found.lock.is_none() && found.segments.is_empty() && found.pending.is_empty() {
                // Only files that were put aside.
                continue;
            }
            all.writers.push(WriterFiles {
                writer,
                // Its lock goes last, and never before its end; unless somebody removed it.
                alive: owner.as_ref().and_then(Owner::lives).or(found.lock.is_none().then_some(false)),
                process_id: owner.as_ref().map(|o| o.process_id).filter(|p| *p > 0),
                process_name: owner.as_ref().and_then(|o| some(&o.process_name)),
                service_name: owner.as_ref().and_then(|o| some(&o.service_name)),
                lock: found.lock,
                journals: found.segments,
                pending: found.pending,
            });
        }
        let name = trail.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dir = trail.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        for entry in std::fs::read_dir(dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let other = path.file_name().unwrap_or_default().to_string_lossy();
            let ours = other.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.'));
            if ours && (other.ends_with(".orphan") || other.ends_with(".torn")) {
                all.put_aside.push(path);
            }
        }
        all.put_aside.sort();
        Ok(all)
    }
}

/// What the lock file says of its writer, or the journal.
fn owner(found: &Found) -> Option<Owner> {
    let by_lock = found.lock.iter().find_map(|path| files::owner_in(path));
    let header = |path: &PathBuf| files::read_header(&read(path, HEADER as u64)?, path).ok().flatten();
    by_lock.or_else(|| found.segments.iter().find_map(header).map(|h| h.owner))
}

fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let open = OpenOptions::new().read(true).custom_flags(i32::try_from(flags.bits()).ok()?).open(path);
    let file: File = open.ok().filter(|f| f.metadata().is_ok_and(|m| m.is_file()))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok().map(|_| bytes)
}
