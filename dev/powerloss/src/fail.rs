//! System calls that fail: the nth write, sync or cut of a trail's own files, once or several times in a row, as a disk that is full or broken makes it. The store above is the real
//! one, and so is what it does about it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use libc::c_int;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `write` and `pwrite`: nothing is written.
    Write,
    /// As `Write`, but the first of them writes half of its bytes, as where a disk becomes full in the middle; those that follow write nothing.
    Half,
    /// `fsync` and `fdatasync`.
    Sync,
    /// `ftruncate`.
    Truncate,
}

/// Which calls fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// What fails.
    pub call: Call,
    /// How many of them work before.
    pub after: usize,
    /// How many fail, one after the other.
    pub times: usize,
    /// With what: `libc::EIO`, `libc::ENOSPC`.
    pub errno: c_int,
    /// Those of pending files, in place of the trail's own.
    pub pending: bool,
    /// Folders, too, of which a pending file beside the trail needs its own.
    pub folders: bool,
}

struct Armed {
    dir: PathBuf,
    failure: Failure,
    seen: usize,
    failed: Vec<PathBuf>,
}

static ON: AtomicBool = AtomicBool::new(false);
static ARMED: Mutex<Option<Armed>> = Mutex::new(None);
/// The calls of the whole process are seen.
static TURN: Mutex<()> = Mutex::new(());

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// Runs `f` while calls on files in `dir` fail. Gives what `f` gave, and the files of the calls that failed.
pub fn failing<T>(dir: &Path, failure: Failure, f: impl FnOnce() -> T) -> (T, Vec<PathBuf>) {
    let _turn = lock(&TURN);
    *lock(&ARMED) = Some(Armed { dir: dir.canonicalize().unwrap(), failure, seen: 0, failed: Vec::new() });
    ON.store(true, Ordering::SeqCst);
    let result = f();
    ON.store(false, Ordering::SeqCst);
    let failed = lock(&ARMED).take().map_or(Vec::new(), |a| a.failed);
    (result, failed)
}

/// The file behind a descriptor. By a system call of its own kind, which nobody intercepts.
fn path_of(fd: c_int) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    (!path.as_os_str().as_bytes().ends_with(b" (deleted)")).then_some(path)
}

/// Whether this call fails, with what, and whether it is the first that does.
pub(crate) fn fails(call: Call, fd: c_int) -> Option<(c_int, bool)> {
    if !ON.load(Ordering::SeqCst) {
        return None;
    }
    let mut armed = lock(&ARMED);
    let armed = armed.as_mut()?;
    let Failure { call: wanted, after, times, errno, pending, folders } = armed.failure;
    if wanted != call {
        return None;
    }
    let path = path_of(fd)?;
    let name = path.file_name()?.to_string_lossy().into_owned();
    let beside = name.contains(".lock") || name.contains(".journal") || name.ends_with("-shm");
    if !path.starts_with(&armed.dir) || path.is_dir() && !folders || beside || name.contains(".pending.") != pending {
        return None;
    }
    armed.seen += 1;
    let due = armed.seen > after && armed.failed.len() < times;
    if due {
        armed.failed.push(path);
    }
    due.then_some((errno, armed.failed.len() == 1))
}
