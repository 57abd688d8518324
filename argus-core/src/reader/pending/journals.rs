//! Copying the journals and pending files beside a trail, while their writers go on. The numbers of a writer's segments are read first, then the segments, the newest first: those
//! before it are full by then, so no hole comes from reading them one after the other. A segment whose number changed meanwhile was committed to its end.

use std::collections::HashSet;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::Unreadable;
use super::spool::Spool;
use crate::entry::{Next, has_beyond, next_checked};
use crate::error::{ErrorKind, TrailError};
use crate::id::WriterId;
use crate::members;
use crate::queue::files::{self, HEADER, Header, Owner};

/// No segment is longer.
const LARGEST: u64 = HEADER as u64 + (8 << 20) + 4096;
/// Copies of one writer's journal that are begun again because something was amiss that may come from its being written.
const ATTEMPTS: usize = 5;

/// A segment, or a pending file.
pub(super) struct About {
    pub(super) path: PathBuf,
    /// The log that they belong to, where the file says so.
    pub(super) log_id: Option<WriterId>,
    /// It stands in another folder than the trail, which may serve others, too.
    pub(super) apart: bool,
    pub(super) owner: Owner,
}

/// Entries of one of them that follow each other, as they stand in the spool.
pub(super) struct Segment {
    pub(super) about: Arc<About>,
    /// From and to.
    pub(super) span: (u64, u64),
    /// The numbers of its entries: the first, and the one behind the last.
    pub(super) numbers: (u64, u64),
}

/// One writer's journal.
pub(super) struct Journal {
    pub(super) writer: WriterId,
    /// In the order of their numbers.
    pub(super) segments: Vec<Segment>,
    pub(super) unreadable: Vec<Unreadable>,
}

/// All journals beside a trail, as they were before the store was looked at.
pub(crate) struct Copied {
    pub(super) journals: Vec<Journal>,
    pub(super) unreadable: Vec<Unreadable>,
    pub(super) spool: Spool,
}

impl Copied {
    /// Copies the journals beside a trail. What cannot be read is among what it gives; an error is one of the copy.
    pub(crate) fn beside(trail: &Path) -> Result<Self, TrailError> {
        let mut copied = Self { journals: Vec::new(), unreadable: Vec::new(), spool: Spool::new() };
        // They stand beside the file itself, not beside a link to it.
        let seen = trail.canonicalize().and_then(|path| Ok((std::fs::metadata(&path)?, files::scan(&path)?, path)));
        let (meta, all, path) = match seen {
            Ok(seen) => seen,
            Err(e) => {
                let error = TrailError::io("cannot look for journals beside the trail", trail, e);
                copied.unreadable.push(Unreadable { path: trail.into(), writer: None, error });
                return Ok(copied);
            }
        };
        let mut buf = Vec::new();
        for (writer, found) in all {
            if !found.segments.is_empty() {
                let journal = settled(writer, &found.segments, &meta, &mut copied.spool, &mut buf);
                let journal = journal.map_err(|e| TrailError::io("cannot copy a journal aside", trail, e))?;
                copied.journals.push(journal);
            }
        }
        let fail = |e| TrailError::io("cannot copy a pending file aside", trail, e);
        copied.add_pending(&path, trail, &meta).map_err(fail)?;
        Ok(copied)
    }

    /// Copies the pending files: after the journals, since what leaves a journal for a pending file stands there before.
    fn add_pending(&mut self, trail: &Path, file: &Path, meta: &Metadata) -> std::io::Result<()> {
        for (writer, found) in files::scan_all(trail)? {
            let at = self.journals.iter().position(|j| j.writer == writer);
            let mut journal = match at {
                Some(at) => self.journals.swap_remove(at),
                None => Journal { writer, segments: Vec::new(), unreadable: Vec::new() },
            };
            for path in &found.pending {
                match super::spilled::copy(writer, path, (trail, file, meta), &mut self.spool) {
                    Ok(Some((segments, error))) => {
                        journal.segments.extend(segments);
                        let bad = error.map(|error| Unreadable { path: path.clone(), writer: Some(writer), error });
                        journal.unreadable.extend(bad);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        journal.unreadable.push(Unreadable { path: path.clone(), writer: Some(writer), error });
                    }
                }
            }
            journal.segments.sort_by_key(|s| s.numbers.0);
            if !journal.segments.is_empty() || !journal.unreadable.is_empty() {
                self.journals.push(journal);
            }
        }
        self.journals.sort_by_key(|j| j.writer);
        Ok(())
    }

    pub(crate) fn writers(&self) -> Vec<WriterId> {
        self.journals.iter().map(|j| j.writer).collect()
    }
}

/// Copies a writer's journal; again, until what is amiss stays the same.
fn settled(
    writer: WriterId,
    paths: &[PathBuf],
    trail: &Metadata,
    spool: &mut Spool,
    buf: &mut Vec<u8>,
) -> std::io::Result<Journal> {
    let begin = spool.len();
    let mut before = None;
    for left in (0..ATTEMPTS).rev() {
        let (journal, amiss) = copy(writer, paths, trail, spool, buf)?;
        if left == 0 || amiss.is_empty() || before.as_ref() == Some(&amiss) {
            return Ok(journal);
        }
        spool.truncate(begin);
        before = Some(amiss);
    }
    Ok(Journal { writer, segments: Vec::new(), unreadable: Vec::new() })
}

/// A segment whose header was read.
type Opened<'p> = (Header, File, &'p Path);
/// The numbers around each place where entries do not follow each other or do not check.
type Amiss = Vec<(u64, u64)>;

/// One copy.
fn copy(
    writer: WriterId,
    paths: &[PathBuf],
    trail: &Metadata,
    spool: &mut Spool,
    buf: &mut Vec<u8>,
) -> std::io::Result<(Journal, Amiss)> {
    let mut journal = Journal { writer, segments: Vec::new(), unreadable: Vec::new() };
    let opened = headers(&mut journal, paths, trail, buf);
    let amiss = contents(&mut journal, opened, spool, buf)?;
    Ok((journal, amiss))
}

/// Reads the header of each segment: its number, above all.
fn headers<'p>(journal: &mut Journal, paths: &'p [PathBuf], trail: &Metadata, buf: &mut Vec<u8>) -> Vec<Opened<'p>> {
    let writer = journal.writer;
    let mut bad = |path: &Path, error| {
        journal.unreadable.push(Unreadable { path: path.into(), writer: Some(writer), error });
    };
    let mut opened: Vec<Opened<'p>> = Vec::new();
    let mut numbers = HashSet::new();
    for path in paths {
        match open(path, trail, buf) {
            Ok(Some((header, file))) if header.writer != writer => {
                drop(file);
                bad(path, damaged("the journal belongs to another writer than its name says", path));
            }
            Ok(Some((header, _))) if !numbers.insert(header.number) => {
                bad(path, damaged("another journal of this writer has the same number", path));
            }
            Ok(Some((header, file))) => opened.push((header, file, path)),
            Ok(None) => {}
            Err(e) => bad(path, e),
        }
    }
    opened
}

/// Reads the entries of segments, the newest segment first.
fn contents(
    journal: &mut Journal,
    mut opened: Vec<Opened<'_>>,
    spool: &mut Spool,
    buf: &mut Vec<u8>,
) -> std::io::Result<Amiss> {
    let writer = journal.writer;
    let mut bad = |path: &Path, error| {
        journal.unreadable.push(Unreadable { path: path.into(), writer: Some(writer), error });
    };
    opened.sort_by_key(|o| std::cmp::Reverse(o.0.number));
    let mut amiss = Vec::new();
    for (header, file, path) in opened {
        buf.clear();
        let length = file.metadata().map(|m| m.len());
        let read = (&file).take(LARGEST).read_to_end(buf).and_then(|_| files::number_in(&file)).and(length);
        match read {
            Ok(length) if length > LARGEST => {
                bad(path, damaged("the file is longer than any journal", path));
                continue;
            }
            Ok(_) => {}
            Err(e) => {
                bad(path, TrailError::io("cannot read a journal", path, e));
                continue;
            }
        }
        if files::number_in(&file).ok() != Some(header.number) {
            continue;
        }
        let (begin, mut rest) = (spool.len(), buf.get(HEADER..).unwrap_or_default());
        let (mut numbers, mut opened): (Option<(u64, u64)>, _) = (None, Vec::new());
        loop {
            match next_checked(rest) {
                Next::Entry(e, more) if numbers.is_none_or(|n| n.1 == e.writer_seq()) => {
                    opened.clear();
                    members::open_into(e, &mut opened);
                    spool.push(&opened)?;
                    let next = e.writer_seq().saturating_add(1);
                    numbers = Some((numbers.map_or(e.writer_seq(), |n| n.0), next));
                    rest = more;
                }
                Next::End => {
                    // (While it is written, a copy may have the end of it without the middle.)
                    if header.owner.lives() == Some(false) && has_beyond(rest, numbers.map_or(1, |n| n.1)) {
                        bad(path, damaged("the journal has entries behind a place where none stands", path));
                    }
                    break;
                }
                Next::Entry(..) | Next::Torn => {
                    amiss.push((header.number, numbers.map_or(0, |n| n.1)));
                    // Recovery, too, takes nothing of the journal that stands behind.
                    journal.segments.clear();
                    bad(path, damaged("the journal does not check from some entry on", path));
                    break;
                }
            }
        }
        if let Some(numbers) = numbers {
            let span = (begin, spool.len());
            let (log_id, owner) = (Some(header.log_id), header.owner);
            let about = Arc::new(About { path: path.into(), log_id, apart: false, owner });
            journal.segments.push(Segment { about, span, numbers });
        }
    }
    journal.segments.reverse();
    let holes = journal.segments.windows(2).filter_map(|w| match w {
        [a, b] if a.numbers.1 != b.numbers.0 => Some((a.numbers.1, b.numbers.0)),
        _ => None,
    });
    amiss.extend(holes);
    Ok(amiss)
}

pub(super) fn damaged(what: &str, path: &Path) -> TrailError {
    TrailError::new(ErrorKind::Damaged, what).at(path)
}

/// Whether whoever recovers a writer would take this file of it.
pub(super) fn check(file: &File, path: &Path, trail: &Metadata) -> Result<(), TrailError> {
    let bad = |what: &str| Err(TrailError::new(ErrorKind::Unsafe, what).at(path));
    let fail = |e| TrailError::io("cannot read a journal", path, e);
    let meta = file.metadata().map_err(fail)?;
    if !meta.is_file() {
        return bad("the journal is no regular file");
    }
    // Removed since it was opened: then it has no link any more.
    if meta.nlink() > 1 {
        return bad("the journal has several hard links");
    }
    if meta.mode() & 0o002 != 0 {
        return bad("anybody may write to the journal");
    }
    // Whoever may write the trail may have a journal beside it.
    let shared = meta.gid() == trail.gid() && trail.mode() & 0o020 != 0;
    if meta.uid() != trail.uid() && meta.uid() != 0 && !shared {
        return bad("the journal belongs to another user than the trail");
    }
    Ok(())
}

/// Opens a journal that whoever recovers it will take; `None` if it holds nothing or is gone.
fn open(path: &Path, trail: &Metadata, header: &mut Vec<u8>) -> Result<Option<(Header, File)>, TrailError> {
    let bad = |what: &str| Err(TrailError::new(ErrorKind::Unsafe, what).at(path));
    // A pipe must not make us wait.
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or(0)).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(_) if std::fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()) => {
            return bad("the journal is a symbolic link");
        }
        Err(e) => return Err(TrailError::io("cannot open a journal", path, e)),
    };
    let fail = |e| TrailError::io("cannot read a journal", path, e);
    check(&file, path, trail)?;
    header.clear();
    (&file).take(HEADER as u64).read_to_end(header).and_then(|_| (&file).rewind()).map_err(fail)?;
    Ok(files::read_header(header, path)?.map(|h| (h, file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryWriter;
    use crate::entry::{check, number};
    use crate::id::RecordId;
    use crate::level::Level;
    use crate::queue::files::{Beside, Owner, set_number};
    use crate::queue::journal::Made;
    use crate::store::place::Access;

    /// Entries with these numbers, one after the other.
    fn fill(made: &mut Made, at: u64, numbers: std::ops::Range<u64>) {
        let mut bytes = Vec::new();
        for n in numbers {
            let mut e = Vec::new();
            let mut w = EntryWriter::begin(&mut e, 0).unwrap();
            w.head(Level::Info, None, None, 0, 0);
            let len = w.end().unwrap();
            e.truncate(len);
            let sum = check(&e);
            number(&mut e, n, RecordId([1; 16]), sum);
            bytes.extend(e);
        }
        let from = HEADER + usize::try_from(at).unwrap() * crate::entry::HEAD;
        made.segment.bytes_mut()[from..from + bytes.len()].copy_from_slice(&bytes);
    }

    #[test]
    fn segments_that_are_filled_and_used_again_meanwhile_leave_no_hole() {
        let dir = tempfile::tempdir().unwrap();
        let trail = dir.path().join("t.db");
        std::fs::write(&trail, "").unwrap();
        let beside = Beside { trail: trail.clone(), access: Access { mode: 0o600, group: None }, spill_dir: None };
        if beside.reserves().is_err() {
            return;
        }
        let writer = WriterId::random();
        let mut made: Vec<Made> =
            (1..=3).map(|i| beside.make(i, HEADER + 65536, (writer, writer), &Owner::default()).unwrap()).collect();
        for (i, (m, numbers)) in made.iter_mut().zip([1..5, 5..9, 9..11]).enumerate() {
            set_number(m.segment.bytes_mut(), i as u64 + 1);
            fill(m, 0, numbers);
        }
        let paths: Vec<PathBuf> = made.iter().map(|m| m.path.clone()).collect();
        let meta = std::fs::metadata(&trail).unwrap();
        let mut journal = Journal { writer, segments: Vec::new(), unreadable: Vec::new() };
        let (mut spool, mut buf) = (Spool::new(), Vec::new());
        let opened = headers(&mut journal, &paths, &meta, &mut buf);
        // After the headers: the first is committed and used again as the fourth, the third goes on.
        fill(&mut made[2], 2, 11..13);
        made[0].segment.bytes_mut()[HEADER..].fill(0);
        set_number(made[0].segment.bytes_mut(), 4);
        fill(&mut made[0], 0, 13..15);
        let amiss = contents(&mut journal, opened, &mut spool, &mut buf).unwrap();
        let numbers: Vec<(u64, u64)> = journal.segments.iter().map(|s| s.numbers).collect();
        assert_eq!((numbers, amiss, journal.unreadable), (vec![(5, 9), (9, 13)], vec![], vec![]));
    }

    #[test]
    fn the_newest_segment_is_read_first() {
        let dir = tempfile::tempdir().unwrap();
        let beside =
            Beside { trail: dir.path().join("t.db"), access: Access { mode: 0o600, group: None }, spill_dir: None };
        if beside.reserves().is_err() {
            return;
        }
        std::fs::write(&beside.trail, "").unwrap();
        let writer = WriterId::random();
        let mut journal = Journal { writer, segments: Vec::new(), unreadable: Vec::new() };
        let (mut spool, mut buf) = (Spool::new(), Vec::new());
        let mut paths = Vec::new();
        for (i, numbers) in [(1, 1..3), (2, 3..6)] {
            let mut m = beside.make(i, HEADER + 65536, (writer, writer), &Owner::default()).unwrap();
            set_number(m.segment.bytes_mut(), i.into());
            fill(&mut m, 0, numbers);
            paths.push(m.path);
        }
        let opened = headers(&mut journal, &paths, &std::fs::metadata(&beside.trail).unwrap(), &mut buf);
        contents(&mut journal, opened, &mut spool, &mut buf).unwrap();
        assert_eq!(journal.segments.iter().map(|s| s.numbers).collect::<Vec<_>>(), [(1, 3), (3, 6)]);
        // So what it holds stands before the other in the copy.
        assert!(journal.segments[1].span.0 < journal.segments[0].span.0);
    }
}
