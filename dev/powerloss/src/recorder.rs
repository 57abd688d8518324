//! From file calls to a log. Names are found by looking at the directory after each call, so it does not matter which system call made or removed a file. `-shm` is
//! left out: it is a mapping that is made anew by whoever opens first after a crash.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use argus_core::{Receipt, WriterId};

use crate::image::Disk;
use crate::interpose;

/// What the application knows at a point of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// A logger is being opened.
    Opening,
    /// It is open: its `audit_open` is acknowledged.
    Opened(WriterId),
    /// The caller is about to log its record number `n` (from 1).
    Submitted(WriterId, u64),
    /// Record `n` and all before it are acknowledged as committed; with the receipt, if there is one.
    Acknowledged(WriterId, u64, Option<Receipt>),
    /// The logger is about to be closed.
    Closing(WriterId),
    /// `close` returned without an error.
    Closed(WriterId),
}

/// One thing that happened, in order. Files are numbered; a name is a path below the watched directory.
#[allow(missing_docs)]
#[derive(Clone, Debug)]
pub enum Op {
    /// Bytes were written.
    Write { file: usize, at: usize, bytes: Vec<u8> },
    /// The length was set.
    Truncate { file: usize, len: usize },
    /// A name appeared; `None` is a directory.
    Create { name: String, file: Option<usize> },
    /// A name went away.
    Unlink { name: String },
    /// A name was changed.
    Rename { from: String, to: String },
    /// A file's bytes were synced.
    SyncFile { file: usize },
    /// A directory's names were synced.
    SyncDir { name: String },
    /// What the application knows.
    Note(Note),
}

/// What was on the disk at the beginning, and what happened.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What the application knew already.
    pub before: Vec<Note>,
    /// Durable at the beginning.
    pub initial: Disk,
    /// In order.
    pub ops: Vec<Op>,
}

struct Watch {
    root: PathBuf,
    /// Name, to inode and file number.
    names: BTreeMap<String, (u64, Option<usize>)>,
    files: usize,
    ops: Vec<Op>,
}

static WATCHING: AtomicBool = AtomicBool::new(false);
static WATCH: Mutex<Option<Watch>> = Mutex::new(None);
/// One recording at a time: the calls of the whole process are seen.
static TURN: Mutex<()> = Mutex::new(());

thread_local!(static INSIDE: Cell<bool> = const { Cell::new(false) });

/// Whether calls of this thread are of interest.
pub(crate) fn watching() -> bool {
    WATCHING.load(Ordering::SeqCst) && !INSIDE.get()
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// Runs `f` with the watch, and none of its own calls watched.
fn with<T: Default>(f: impl FnOnce(&mut Watch) -> T) -> T {
    INSIDE.set(true);
    let result = lock(&WATCH).as_mut().map(f).unwrap_or_default();
    INSIDE.set(false);
    result
}

/// Whether the file is below the watched directory.
pub(crate) fn watches(path: &Path) -> bool {
    watching() && with(|w| path.starts_with(&w.root))
}

pub(crate) fn wrote(fd: i32, at: i64, bytes: &[u8]) {
    with(|w| {
        if let Some((_, Some(file))) = w.node(fd) {
            w.ops.push(Op::Write { file, at: usize::try_from(at).unwrap(), bytes: bytes.to_owned() });
        }
    });
}

pub(crate) fn truncated(fd: i32, len: i64) {
    with(|w| {
        if let Some((_, Some(file))) = w.node(fd) {
            w.ops.push(Op::Truncate { file, len: usize::try_from(len).unwrap() });
        }
    });
}

pub(crate) fn synced(fd: i32) {
    with(|w| match w.node(fd) {
        Some((_, Some(file))) => w.ops.push(Op::SyncFile { file }),
        Some((name, None)) => w.ops.push(Op::SyncDir { name }),
        None => {}
    });
}

pub(crate) fn names_may_differ() {
    with(Watch::look);
}

/// Adds a note to the log.
pub(crate) fn note(note: Note) {
    with(|w| w.ops.push(Op::Note(note)));
}

impl Watch {
    /// The file or directory behind a descriptor, if it is below the root.
    fn node(&mut self, fd: i32) -> Option<(String, Option<usize>)> {
        let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        let name = path.strip_prefix(&self.root).ok()?.to_str()?.to_owned();
        self.look();
        if name.is_empty() {
            return Some((name, None));
        }
        let file = self.names.get(&name)?.1;
        Some((name, file))
    }

    /// Finds out which names came and went.
    fn look(&mut self) {
        let now = names(&self.root);
        let mut came: Vec<_> =
            now.iter().filter(|(n, (ino, _))| self.names.get(*n).is_none_or(|(i, _)| i != ino)).collect();
        let gone: Vec<_> = self
            .names
            .iter()
            .filter(|(n, (ino, _))| now.get(*n).is_none_or(|(i, _)| i != ino))
            .map(|(n, v)| (n.clone(), *v))
            .collect();
        for (name, (ino, file)) in gone {
            self.names.remove(&name);
            match came.iter().position(|(_, (i, _))| *i == ino) {
                Some(i) => {
                    let to = came.remove(i).0.clone();
                    self.names.insert(to.clone(), (ino, file));
                    self.ops.push(Op::Rename { from: name, to });
                }
                None => self.ops.push(Op::Unlink { name }),
            }
        }
        for (name, (ino, is_dir)) in came {
            let file = (!is_dir).then(|| {
                self.files += 1;
                self.files - 1
            });
            self.names.insert(name.clone(), (*ino, file));
            self.ops.push(Op::Create { name: name.clone(), file });
        }
    }
}

/// Every name below a directory, with its inode and whether it is a directory.
fn names(root: &Path) -> BTreeMap<String, (u64, bool)> {
    let (mut found, mut todo) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if meta.is_dir() {
                todo.push(entry.path());
            }
            if !name.ends_with("-shm") {
                found.insert(name, (meta.ino(), meta.is_dir()));
            }
        }
    }
    found
}

/// Records what `work` does below `root`, whose present content counts as durable.
///
/// # Panics
/// The log does not lead to the files as they are: something was written past the recorder.
pub fn record(root: &Path, work: impl FnOnce()) -> Recording {
    let _turn = lock(&TURN);
    interpose::remember_connections();
    let root = root.canonicalize().unwrap();
    let initial = Disk::read(&root);
    let mut files = 0;
    let names = names(&root)
        .into_iter()
        .map(|(n, (ino, is_dir))| {
            // The order of `Disk::read`.
            let file = (!is_dir).then(|| {
                files += 1;
                files - 1
            });
            (n, (ino, file))
        })
        .collect();
    *lock(&WATCH) = Some(Watch { root: root.clone(), names, files, ops: Vec::new() });
    WATCHING.store(true, Ordering::SeqCst);
    work();
    names_may_differ();
    WATCHING.store(false, Ordering::SeqCst);
    let recording = Recording { before: Vec::new(), initial, ops: lock(&WATCH).take().unwrap().ops };
    let real = Disk::read(&root);
    let replayed = Disk::after(&recording);
    assert!(replayed.same_as(&real), "something was written past the recorder");
    recording
}
