//! SQLite in a process that was forked: the library's own tables of locks and mutexes came along as they stood at the fork, held by threads that the child does not
//! have. So a child that does not `exec` gets a named error instead of a hang. (A logger's own answer to a fork is in `core`.)

use std::path::Path;
use std::sync::OnceLock;

use crate::error::{ErrorKind, TrailError};
use crate::queue::segment::ForkMark;

/// Made when this process first opens a database, and its number.
static MARK: OnceLock<(Option<ForkMark>, u32)> = OnceLock::new();

/// Refuses in a child of a process that has opened a database before the fork.
pub(crate) fn refuse(path: &Path) -> Result<(), TrailError> {
    let (mark, process) = MARK.get_or_init(|| (ForkMark::new(), std::process::id()));
    if mark.as_ref().map_or_else(|| std::process::id() != *process, ForkMark::in_a_child) {
        return Err(TrailError::new(
            ErrorKind::Forked,
            "this process was forked from one that uses SQLite, which does not work in the child",
        )
        .at(path)
        .help(
            "open the trail after the fork only, or in a new program (exec), or use a .jsonl trail of its own here",
        ));
    }
    Ok(())
}
