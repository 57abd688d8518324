//! A pending file: written and synced by the spill thread, read back by the writer's merge, by recovery and by readers. What a failed write or sync may have left
//! is cut off before the next one, so all lines up to the last sync are whole, and nothing is believed that was not synced.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::line::{Head, MAX_LINE};
use crate::error::{ErrorKind, TrailError};
use crate::id::WriterId;
use crate::queue::files::Owner;
use crate::store::place::{self, Access};

fn flags() -> i32 {
    // A pipe in its place must not make us wait.
    i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK).bits()).unwrap_or(0)
}

/// The file, for the thread that appends.
#[derive(Debug)]
pub(crate) struct PendingFile {
    file: File,
    path: PathBuf,
    /// The first line.
    head: Vec<u8>,
    /// Bytes that are written and synced.
    synced: u64,
    /// Something may stand behind them.
    dirty: bool,
    #[cfg(any(test, feature = "test-util"))]
    faults: crate::fault::Faults,
}

impl PendingFile {
    /// Makes the file, with its first line.
    pub(crate) fn create(
        path: &Path,
        access: Access,
        head: &Head,
        #[cfg(any(test, feature = "test-util"))] faults: &crate::fault::Faults,
    ) -> Result<Self, TrailError> {
        let fail = |e: std::io::Error| TrailError::io("cannot make the pending file", path, e);
        let parent = path.parent().unwrap_or(Path::new("."));
        place::directory(parent, access)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(access.mode)
            .custom_flags(flags())
            .open(path)
            .map_err(fail)?;
        let mut made = Self {
            file,
            path: path.into(),
            head: head.line(),
            synced: 0,
            dirty: false,
            #[cfg(any(test, feature = "test-util"))]
            faults: faults.clone(),
        };
        let begun = place::set_access(path, access.mode, access.group)
            .and_then(|()| made.append(&[]))
            .and_then(|()| place::sync_directory(parent));
        if begun.is_err() {
            let _ = std::fs::remove_file(path);
        }
        begun.map(|()| made)
    }

    /// Appends whole lines and syncs them. On an error nothing of them counts, and the same bytes may be appended again.
    pub(crate) fn append(&mut self, lines: &[u8]) -> Result<(), TrailError> {
        #[cfg(any(test, feature = "test-util"))]
        self.faults.of_spill()?;
        let mut write = || -> std::io::Result<()> {
            if std::mem::replace(&mut self.dirty, true) {
                self.file.set_len(self.synced.min(self.file.metadata()?.len()))?;
            }
            // Cut by somebody: what is left of a line is ended, and the next ones stand for themselves. A head must be whole.
            let len = self.file.metadata()?.len();
            if len < self.head.len() as u64 {
                self.file.set_len(0)?;
                self.file.write_all_at(&self.head, 0)?;
                self.synced = self.head.len() as u64;
            } else if len < self.synced {
                self.file.write_all_at(b"\n", len)?;
                self.synced = len + 1;
            }
            self.file.write_all_at(lines, self.synced)?;
            self.file.sync_data()?;
            Ok(())
        };
        write().map_err(|e| TrailError::io("cannot write to the pending file", &self.path, e))?;
        if place::identity(&self.path).ok() != place::identity_of(&self.file) {
            return Err(TrailError::new(ErrorKind::Replaced, "the pending file was removed or replaced").at(&self.path));
        }
        self.dirty = false;
        self.synced += lines.len() as u64;
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The lines of a pending file, one after the other.
pub(crate) struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    line: Vec<u8>,
    /// Where the next line begins.
    at: u64,
    head: Head,
}

impl Lines {
    /// Opens the file that this process itself made, whatever its first line says by now.
    pub(crate) fn open_own(path: &Path, writer: WriterId) -> Result<Option<Self>, TrailError> {
        Self::begin(path, |_| Ok(Head::new(None, writer, Path::new(""), &Owner::default())))
    }

    /// Opens a file that whoever may write the trail may have made. `None`: it holds nothing yet, not even its first line.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, TrailError> {
        Self::begin(path, |line| {
            let text = std::str::from_utf8(line).unwrap_or_default();
            Head::parse(text.trim_end_matches('\n')).map_err(|newer| match newer {
                Some(version) => TrailError::new(
                    ErrorKind::NewerVersion,
                    format!("the pending file has version {version}, this build knows 1"),
                )
                .at(path)
                .help("use a newer Argus; the file is kept as it is"),
                None => TrailError::new(ErrorKind::Damaged, "the pending file does not begin as one")
                    .at(path)
                    .help("the file is kept as it is"),
            })
        })
    }

    fn begin(path: &Path, head: impl FnOnce(&[u8]) -> Result<Head, TrailError>) -> Result<Option<Self>, TrailError> {
        let fail = |e: std::io::Error| TrailError::io("cannot read a pending file", path, e);
        let file = OpenOptions::new().read(true).custom_flags(flags()).open(path).map_err(fail)?;
        if !file.metadata().map_err(fail)?.is_file() {
            return Err(TrailError::new(ErrorKind::Unsafe, "the pending file is no regular file").at(path));
        }
        let mut reader = BufReader::with_capacity(256 << 10, file);
        let mut line = Vec::new();
        let read = whole(&mut reader, &mut line, path)?;
        if read == 0 {
            return Ok(None);
        }
        let head = head(&line)?;
        Ok(Some(Self { reader, path: path.into(), line, at: read, head }))
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        self.reader.get_ref()
    }

    /// Where the next line begins.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Goes on at a place where `at` was.
    pub(crate) fn seek(&mut self, at: u64) -> Result<(), TrailError> {
        let moved = self.reader.seek(SeekFrom::Start(at));
        self.at = at;
        moved.map(drop).map_err(|e| TrailError::io("cannot read a pending file", &self.path, e))
    }

    /// The next whole line without its end. `None`: there is none; a torn one was never synced. After `Damaged` the line behind it is next.
    pub(crate) fn next(&mut self) -> Result<Option<&str>, TrailError> {
        let read = whole(&mut self.reader, &mut self.line, &self.path)?;
        if read == 0 {
            return Ok(None);
        }
        self.at += read;
        if read > self.line.len() as u64 {
            return Err(damaged("a line is longer than any record", &self.path));
        }
        let text = std::str::from_utf8(&self.line).map_err(|_| damaged("a line is not UTF-8", &self.path))?;
        Ok(Some(text.trim_end_matches('\n')))
    }
}

pub(crate) fn damaged(what: &str, path: &Path) -> TrailError {
    TrailError::new(ErrorKind::Damaged, format!("a pending file does not check: {what}"))
        .at(path)
        .help("the file is kept as evidence")
}

/// Reads one line with its end and returns its length; 0 where none ends. Of one longer than any record only the beginning is kept.
fn whole(reader: &mut BufReader<File>, line: &mut Vec<u8>, path: &Path) -> Result<u64, TrailError> {
    line.clear();
    let fail = |e| TrailError::io("cannot read a pending file", path, e);
    let mut read = reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', line).map_err(fail)?;
    let mut ended = line.last() == Some(&b'\n');
    while !ended && read >= MAX_LINE {
        let more = reader.fill_buf().map_err(fail)?;
        let Some(n) = (!more.is_empty()).then(|| more.iter().position(|b| *b == b'\n').map_or(more.len(), |i| i + 1))
        else {
            break;
        };
        ended = more.get(n - 1) == Some(&b'\n');
        reader.consume(n);
        read += n;
    }
    Ok(if ended { read as u64 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::WriterId;
    use crate::queue::files::Owner;

    #[test]
    fn what_a_failed_write_left_is_cut_off_and_a_torn_line_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let access = Access { mode: 0o600, group: None };
        let head = Head::new(None, WriterId::random(), Path::new("/t.db"), &Owner::default());
        let mut file = PendingFile::create(&path, access, &head, &crate::fault::Faults::new()).unwrap();
        file.append(b"{\"a\":1}\n").unwrap();
        // As a failed write leaves it.
        file.file.write_all_at(b"{\"b\":2222222222}\n{\"c", file.synced).unwrap();
        file.dirty = true;
        let read = || {
            let mut lines = Lines::open(&path).unwrap().unwrap();
            assert_eq!(lines.head(), &head);
            let mut all = Vec::new();
            while let Some(l) = lines.next().unwrap() {
                all.push(l.to_owned());
            }
            all
        };
        assert_eq!(read(), ["{\"a\":1}", "{\"b\":2222222222}"], "a torn line is none");
        file.append(b"{\"d\":4}\n").unwrap();
        assert_eq!(read(), ["{\"a\":1}", "{\"d\":4}"]);
        let again = PendingFile::create(&path, access, &head, &crate::fault::Faults::new());
        assert!(again.is_err(), "a file in its place is not written to");
        assert_eq!(read().len(), 2);
    }
}
