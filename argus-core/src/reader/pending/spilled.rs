//! Copying a pending file, while its writer goes on appending to it.

use std::fs::Metadata;
use std::path::Path;

use super::journals::{Segment, check};
use super::spool::Spool;
use crate::error::{ErrorKind, TrailError};
use crate::id::WriterId;
use crate::queue::files::{is_of, same_folder};
use crate::spill::file::{Lines, damaged};
use crate::spill::line::{Buffers, parse};

/// The records of a pending file, and why they end early.
type Found = (Option<Segment>, Option<TrailError>);

/// Copies the records of a pending file. `None`: it is gone, holds nothing, or is another trail's. The trail is given resolved, as it was named,
/// and with what is known of its file.
pub(super) fn copy(
    writer: WriterId,
    path: &Path,
    (trail, named, meta): (&Path, &Path, &Metadata),
    spool: &mut Spool,
) -> Result<Option<Found>, TrailError> {
    let mut lines = match Lines::open(path) {
        Ok(Some(lines)) => lines,
        Ok(None) => return Ok(None),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    check(lines.file(), path, meta)?;
    let (head, begin) = (lines.head().clone(), spool.len());
    let log_id = head.log_id();
    if log_id.is_none() && !is_of(path, &head.trail, trail) && head.trail != named.to_string_lossy() {
        return Ok(None);
    }
    let (mut numbers, mut entry, mut buffers) = (None::<(u64, u64)>, Vec::new(), Buffers::default());
    let error = loop {
        let text = match lines.next() {
            Ok(Some(text)) => text,
            Ok(None) => break None,
            Err(e) => break Some(e),
        };
        entry.clear();
        match parse(text, writer, &mut buffers, &mut entry) {
            Ok(n) if numbers.is_none_or(|(_, next)| next == n) => {
                spool.push(&entry).map_err(|e| TrailError::io("cannot copy a pending file aside", path, e))?;
                numbers = Some((numbers.map_or(n, |(first, _)| first), n.saturating_add(1)));
            }
            Ok(_) => break Some(damaged("its numbers do not follow each other", path)),
            Err(why) => break Some(damaged(&why, path)),
        }
    };
    let segment = numbers.map(|numbers| Segment {
        path: path.into(),
        log_id,
        apart: !same_folder(path, trail),
        owner: head.owner,
        span: (begin, spool.len()),
        numbers,
    });
    Ok(Some((segment, error)))
}
