//! Copying a pending file, while its writer goes on appending to it.

use std::fs::Metadata;
use std::path::Path;
use std::sync::Arc;

use super::journals::{About, Segment, check};
use super::spool::Spool;
use crate::error::{ErrorKind, TrailError};
use crate::id::WriterId;
use crate::queue::files::{is_of, same_folder};
use crate::spill::file::Lines;
use crate::spill::records::Records;

/// The records of a pending file, in parts whose numbers follow each other, and why they are not all.
type Found = (Vec<Segment>, Option<TrailError>);

/// Copies what recovery would take of a pending file. `None`: it is gone, holds nothing, or is another trail's. The trail is given resolved, as it was named,
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
    let head = lines.head().clone();
    let log_id = head.log_id();
    if log_id.is_none() && !is_of(path, &head.trail, trail) && head.trail != named.to_string_lossy() {
        return Ok(None);
    }
    let apart = !same_folder(path, trail);
    let about = Arc::new(About { path: path.into(), log_id, apart, owner: head.owner });
    let (mut records, mut segments) = (Records::of(&mut lines, writer), Vec::<Segment>::new());
    let error = loop {
        let (number, entry) = match records.next() {
            Ok(Some(next)) => next,
            Ok(None) => break records.damage(),
            Err(e) => break Some(e),
        };
        let begin = spool.len();
        spool.push(&entry).map_err(|e| TrailError::io("cannot copy a pending file aside", path, e))?;
        match segments.last_mut() {
            Some(s) if s.numbers.1 == number => (s.numbers.1, s.span.1) = (number.saturating_add(1), spool.len()),
            _ => segments.push(Segment {
                about: about.clone(),
                span: (begin, spool.len()),
                numbers: (number, number.saturating_add(1)),
            }),
        }
    };
    Ok(Some((segments, error)))
}
