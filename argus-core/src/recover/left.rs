//! What a dead writer left beside a trail: which of it is this log's, which another one's, and what cannot be used. Each file is judged for itself.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::entry::whole;
use crate::error::{ErrorKind, TrailError};
use crate::id::{RecordId, WriterId};
use crate::queue::files::{self, Beside, Found, Header, Owner};
use crate::spill::file::Lines;
use crate::store::place;

/// Larger files beside a trail are none of ours.
const LARGEST: u64 = 64 << 20;

/// A segment of a journal, read.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) path: PathBuf,
}

/// Files of one writer and one log.
#[derive(Default)]
pub(super) struct Files {
    /// In the order of their numbers.
    pub(super) segments: Vec<Segment>,
    pub(super) pending: Vec<Lines>,
}

impl Files {
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.segments.iter().map(|s| s.path.as_path()).chain(self.pending.iter().map(Lines::path))
    }
}

/// What a dead writer left.
#[derive(Default)]
pub(super) struct Left {
    /// By what its files say of it, its process lives.
    pub(super) lives: bool,
    /// There is a file of a journal, whatever it holds.
    pub(super) has_journal: bool,
    pub(super) own: Files,
    /// By the log that was replaced.
    pub(super) orphans: BTreeMap<WriterId, Files>,
    /// Files that hold nothing.
    pub(super) empty: Vec<PathBuf>,
    /// Of these, the segments in which entries still stand, which should all be in.
    pub(super) emptied: Vec<(PathBuf, Vec<RecordId>)>,
    /// Files that do not begin as they should.
    pub(super) damaged: Vec<PathBuf>,
    pub(super) owner: Option<Owner>,
    /// Files that are not touched, and why.
    pub(super) trouble: Vec<TrailError>,
}

impl Left {
    /// Reads what was found. An error is one that may pass (or a newer version): then all stays as it is.
    /// `spilled`: by its lock the writer has a pending file.
    pub(super) fn read(
        found: &Found,
        beside: &Beside,
        log_id: WriterId,
        (writer, spilled): (WriterId, bool),
    ) -> Result<Self, TrailError> {
        let mut left = Self { has_journal: !found.segments.is_empty(), ..Self::default() };
        for path in &found.segments {
            let read = segment(path, beside).map(|(header, bytes)| match header {
                Some(header) => Some((header, bytes)),
                None => {
                    // (Of another log, all is in that one.)
                    let ours = bytes.get(files::LOG_ID).is_some_and(|id| id == log_id.to_bytes());
                    let entries = bytes.get(files::HEADER..).filter(|_| ours).unwrap_or_default();
                    let ids: Vec<RecordId> = whole(entries).map(|e| e.record_id()).collect();
                    left.emptied.extend((!ids.is_empty()).then(|| (path.clone(), ids)));
                    None
                }
            });
            let Some((header, bytes)) = left.usable(path, read)? else { continue };
            if header.writer != writer {
                left.damaged.push(path.clone());
                continue;
            }
            let segment = Segment { number: header.number, bytes, path: path.clone() };
            left.files(header.log_id == log_id, header.log_id, header.owner).segments.push(segment);
        }
        for path in &found.pending {
            let read = match lines(path, beside) {
                Ok(None) if spilled && std::fs::metadata(path).is_ok_and(|m| m.len() > 0) => {
                    Err(TrailError::new(ErrorKind::Damaged, "the pending file has not even its first line").at(path))
                }
                read => read,
            };
            let Some(lines) = left.usable(path, read)? else { continue };
            let (head, id) = (lines.head().clone(), lines.head().log_id());
            let ours = id.map_or_else(|| files::is_of(path, &head.trail, &beside.trail), |id| id == log_id);
            // In a folder for the pending files of several trails, it is simply another one's.
            let concerns_us = ours || (id.is_some() && files::same_folder(path, &beside.trail));
            if !concerns_us {
                continue;
            }
            if head.writer() != Some(writer) {
                left.damaged.push(path.clone());
                continue;
            }
            left.files(ours, id.unwrap_or(log_id), head.owner).pending.push(lines);
        }
        left.own.segments.sort_by_key(|s| s.number);
        left.orphans.values_mut().for_each(|o| o.segments.sort_by_key(|s| s.number));
        Ok(left)
    }

    /// Whether one of the segments that cannot be read may have been the last: there are more of them than numbers missing among the others.
    pub(super) fn end_unknown(&self) -> bool {
        let all = &self.own.segments;
        let damaged = self.damaged.iter().filter(|d| d.extension().is_some_and(|e| e == "journal")).count() as u64;
        let span = all.first().zip(all.last()).map_or(0, |(a, b)| b.number.saturating_sub(a.number) + 1);
        damaged > span.saturating_sub(all.len() as u64)
    }

    fn files(&mut self, ours: bool, log_id: WriterId, owner: Owner) -> &mut Files {
        self.lives |= owner.lives() == Some(true);
        if !ours {
            return self.orphans.entry(log_id).or_default();
        }
        self.owner.get_or_insert(owner);
        &mut self.own
    }

    /// What a file holds, if it can be used.
    fn usable<T>(&mut self, path: &Path, read: Result<Option<T>, TrailError>) -> Result<Option<T>, TrailError> {
        match read {
            Ok(Some(content)) => return Ok(Some(content)),
            Ok(None) => self.empty.push(path.into()),
            Err(e) => match e.kind() {
                ErrorKind::Damaged => self.damaged.push(path.into()),
                // Planted, or not to be trusted: nobody keeps a writer from being recovered by that.
                ErrorKind::Unsafe | ErrorKind::NotATrail => self.trouble.push(e),
                ErrorKind::NotFound => {}
                _ => return Err(e),
            },
        }
        Ok(None)
    }
}

fn segment(path: &Path, beside: &Beside) -> Result<(Option<Header>, Vec<u8>), TrailError> {
    place::check_beside(path, None, &beside.trail, beside.access)?;
    let fail = |e| TrailError::io("cannot read a journal", path, e);
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(fail)?;
    place::check_beside(path, Some(&file), &beside.trail, beside.access)?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(fail)?;
    match files::read_header(&bytes, path)? {
        None if files::lacks_header(&bytes) => {
            Err(TrailError::new(ErrorKind::Damaged, "the journal lacks its header").at(path))
        }
        header => Ok((header, bytes)),
    }
}

fn lines(path: &Path, beside: &Beside) -> Result<Option<Lines>, TrailError> {
    place::check_beside(path, None, &beside.trail, beside.access)?;
    let Some(lines) = Lines::open(path)? else { return Ok(None) };
    // The file that was opened may be another than the one that was looked at.
    place::check_beside(path, Some(lines.file()), &beside.trail, beside.access)?;
    Ok(Some(lines))
}
