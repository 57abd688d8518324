//! The C library's file calls, as this program's own: SQLite and Rust's standard library both go through them, so one place sees what either store does, without
//! a kernel feature, a debugger, or a seam in the product. A sync never reaches the kernel here: the simulation decides what is durable. The only `unsafe` of the
//! crate. What is not intercepted (raw system calls, mappings) cannot go unnoticed: at the end a recording is compared with the real files.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{mode_t, off_t, size_t, ssize_t};
use rusqlite::ffi;

use crate::fail::{Call, fails};
use crate::recorder;

/// The connection that was opened last on a watched database.
static CONNECTION: AtomicPtr<ffi::sqlite3> = AtomicPtr::new(std::ptr::null_mut());

fn saw(fd: c_int, at: impl FnOnce() -> i64, buf: *const c_void, done: libc::c_long) -> ssize_t {
    let done = done as ssize_t;
    if let Ok(len) = usize::try_from(done)
        && recorder::watching()
    {
        // SAFETY: the kernel has just read `done` bytes from `buf`, so they are readable; the caller keeps them until we return.
        let bytes = unsafe { std::slice::from_raw_parts(buf.cast::<u8>(), len) };
        recorder::wrote(fd, at(), bytes);
    }
    done
}

/// Says that a call failed.
fn failed(errno: c_int) -> c_int {
    // SAFETY: the place of this thread's `errno`.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// How many of `n` bytes are to be written, or that none are.
fn allowed(fd: c_int, n: size_t) -> Result<size_t, ssize_t> {
    if let Some((errno, _)) = fails(Call::Write, fd) {
        return Err(failed(errno) as ssize_t);
    }
    match fails(Call::Half, fd) {
        // The rest is written by another call, which fails.
        Some((_, true)) if n > 1 => Ok(n / 2),
        Some((errno, _)) => Err(failed(errno) as ssize_t),
        None => Ok(n),
    }
}

// SAFETY of the definitions below: each has the C library's name and signature (an `int` or `mode_t` in the place of C's variable arguments is passed the same way on
// Linux's ABIs), hands its arguments to the kernel unchanged, and gives back what the kernel says, with `errno` set by `syscall`.

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, buf: *const c_void, n: size_t) -> ssize_t {
    let n = match allowed(fd, n) {
        Ok(n) => n,
        Err(failed) => return failed,
    };
    // SAFETY: the caller's promises are those of the system call.
    let done = unsafe { libc::syscall(libc::SYS_write, fd, buf, n) };
    // Behind the bytes just written, also with O_APPEND.
    // SAFETY: lseek has no requirements.
    saw(fd, || unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) } - done, buf, done)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, buf: *const c_void, n: size_t, at: off_t) -> ssize_t {
    let n = match allowed(fd, n) {
        Ok(n) => n,
        Err(failed) => return failed,
    };
    // SAFETY: as `write`.
    saw(fd, || at, buf, unsafe { libc::syscall(libc::SYS_pwrite64, fd, buf, n, at) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, buf: *const c_void, n: size_t, at: off_t) -> ssize_t {
    // SAFETY: as `write`.
    unsafe { pwrite64(fd, buf, n, at) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(fd: c_int, len: off_t) -> c_int {
    if let Some((errno, _)) = fails(Call::Truncate, fd) {
        return failed(errno);
    }
    // SAFETY: ftruncate has no requirements.
    let result = unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) };
    if result == 0 && recorder::watching() {
        recorder::truncated(fd, len);
    }
    result as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate(fd: c_int, len: off_t) -> c_int {
    // SAFETY: as `ftruncate64`.
    unsafe { ftruncate64(fd, len) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    if let Some((errno, _)) = fails(Call::Sync, fd) {
        return failed(errno);
    }
    if recorder::watching() {
        recorder::synced(fd);
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: as `fsync`.
    unsafe { fsync(fd) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promises are those of the system call.
    let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) };
    if fd >= 0 && recorder::watching() {
        recorder::names_may_differ();
    }
    fd as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as `open64`.
    unsafe { open64(path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's promises are those of the system call.
    let result = unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) };
    if result == 0 && recorder::watching() {
        recorder::names_may_differ();
    }
    result as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's promises are those of the system call.
    let result = unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) };
    if result == 0 && recorder::watching() {
        recorder::names_may_differ();
    }
    result as c_int
}

/// Is called by SQLite for each new connection.
unsafe extern "C" fn opened(db: *mut ffi::sqlite3, _: *mut *mut c_char, _: *const ffi::sqlite3_api_routines) -> c_int {
    // SAFETY: SQLite gives a live connection, and the name is its own string or null.
    let name = unsafe { ffi::sqlite3_db_filename(db, c"main".as_ptr()) };
    // SAFETY: as above.
    if !name.is_null() && recorder::watches(Path::new(&*unsafe { CStr::from_ptr(name) }.to_string_lossy())) {
        CONNECTION.store(db, Ordering::SeqCst);
    }
    ffi::SQLITE_OK
}

/// From here on remembers each connection to a watched database.
pub(crate) fn remember_connections() {
    // SAFETY: `opened` has the signature that SQLite calls, and is never unloaded. Registering it twice does nothing.
    let result = unsafe { ffi::sqlite3_auto_extension(Some(opened)) };
    assert_eq!(result, ffi::SQLITE_OK);
}

/// Runs statements on the connection that a logger opened last: how a negative control takes `synchronous=FULL` away from the real store, and how checkpoints come
/// often enough to be met.
///
/// # Panics
/// There is no such connection, or SQLite refuses.
///
/// The logger must be open and idle (no call under way, nothing queued): its connection is not guarded by a mutex.
pub fn tune(statements: &str) {
    let db = CONNECTION.load(Ordering::SeqCst);
    assert!(!db.is_null(), "no connection was opened");
    let sql = CString::new(statements).unwrap();
    // SAFETY: `db` is open while its logger is; the writer thread waits for work and does not use it, and what it did before happened before this through the
    // lock of its queue. `sql` ends with NUL and lives through the call.
    let result = unsafe { ffi::sqlite3_exec(db, sql.as_ptr(), None, std::ptr::null_mut(), std::ptr::null_mut()) };
    assert_eq!(result, ffi::SQLITE_OK, "{statements}");
}
