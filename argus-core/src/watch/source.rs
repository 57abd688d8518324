//! Where hints of change come from: our trait over `notify`, whose types stay in here, and a manual source for tests.
//! Invariants: a hint is only a reason to look; directories are watched, never files; reading a file causes no hint.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher as _};

/// A hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Something happened to these paths, in a watched directory.
    Touched(Vec<PathBuf>),
    /// Hints were lost: look at everything.
    Rescan,
    /// The source is in trouble: look at everything and tell the user.
    Trouble(String),
}

pub(crate) type Tell = Box<dyn Fn(Signal) + Send>;

/// Counts the hints on their way to the watcher's thread. A callback may hang while a directory boils: what is too many becomes one rescan, so memory is bounded.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    queued: AtomicUsize,
    lagging: AtomicBool,
}

/// Most hints that wait.
const MAX_HINTS: usize = 10_000;

impl Hints {
    /// What is to be sent for `signal`, if anything.
    pub(crate) fn send(&self, signal: Signal) -> Option<Signal> {
        if self.queued.load(Ordering::Acquire) < MAX_HINTS {
            self.queued.fetch_add(1, Ordering::AcqRel);
            return Some(signal);
        }
        if self.lagging.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.queued.fetch_add(1, Ordering::AcqRel);
        Some(Signal::Rescan)
    }

    /// It has arrived. What was left out before a rescan is seen by it.
    pub(crate) fn taken(&self, signal: &Signal) {
        if *signal == Signal::Rescan {
            self.lagging.store(false, Ordering::Release);
        }
        self.queued.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Watches directories, each by itself (not what is under its subdirectories).
pub(crate) trait Source: Send {
    fn watch(&mut self, dir: &Path) -> Result<(), String>;
    fn unwatch(&mut self, dir: &Path);
}

/// The operating system's notifications.
pub(crate) struct Notify(notify::RecommendedWatcher);

impl Notify {
    pub(crate) fn new(tell: Tell) -> Result<Self, String> {
        let handler = move |event: notify::Result<notify::Event>| match event {
            Ok(e) if e.need_rescan() => tell(Signal::Rescan),
            Ok(e) if matches!(e.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) => {}
            Ok(e) => tell(Signal::Touched(e.paths)),
            Err(e) => tell(Signal::Trouble(e.to_string())),
        };
        notify::recommended_watcher(handler).map(Notify).map_err(|e| e.to_string())
    }
}

impl Source for Notify {
    fn watch(&mut self, dir: &Path) -> Result<(), String> {
        self.0.watch(dir, RecursiveMode::NonRecursive).map_err(|e| e.to_string())
    }

    fn unwatch(&mut self, dir: &Path) {
        // It fails if the directory is gone, and then there is nothing to do.
        let _ = self.0.unwatch(dir);
    }
}

/// A source that gives no hints: only the slow poll sees anything.
pub(crate) struct Silent;

impl Source for Silent {
    fn watch(&mut self, _: &Path) -> Result<(), String> {
        Ok(())
    }

    fn unwatch(&mut self, _: &Path) {}
}

#[cfg(test)]
pub(crate) type Before = Box<dyn FnMut(&Path) + Send>;

/// A source that a test drives.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Manual(pub(crate) std::sync::Arc<std::sync::Mutex<ManualState>>);

#[cfg(test)]
#[derive(Default)]
pub(crate) struct ManualState {
    pub(crate) dirs: std::collections::BTreeSet<PathBuf>,
    pub(crate) tell: Option<Tell>,
    pub(crate) refuse: bool,
    /// Runs right before a directory is armed.
    pub(crate) before: Option<Before>,
}

#[cfg(test)]
impl Manual {
    pub(crate) fn tell(&self, signal: Signal) {
        (self.0.lock().unwrap().tell.as_ref().unwrap())(signal);
    }
}

#[cfg(test)]
impl Source for Manual {
    fn watch(&mut self, dir: &Path) -> Result<(), String> {
        let mut state = self.0.lock().unwrap();
        if let Some(f) = &mut state.before {
            f(dir);
        }
        if state.refuse {
            return Err("refused".into());
        }
        state.dirs.insert(dir.to_owned());
        Ok(())
    }

    fn unwatch(&mut self, dir: &Path) {
        self.0.lock().unwrap().dirs.remove(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn too_many_hints_become_one_rescan() {
        let hints = Hints::default();
        let touched = || Signal::Touched(vec!["/a".into()]);
        for _ in 0..MAX_HINTS {
            assert_eq!(hints.send(touched()), Some(touched()));
        }
        assert_eq!(hints.send(touched()), Some(Signal::Rescan));
        assert_eq!(hints.send(touched()), None);
        for _ in 0..MAX_HINTS {
            hints.taken(&touched());
        }
        hints.taken(&Signal::Rescan);
        assert_eq!(hints.send(touched()), Some(touched()));
        assert!(!hints.lagging.load(Ordering::Acquire));
    }

    #[test]
    fn notify_tells_of_writes_and_not_of_reads() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        std::fs::write(dir.join("old"), "x").unwrap();
        let (tx, rx) = mpsc::channel();
        let mut source = Notify::new(Box::new(move |s| tx.send(s).unwrap_or(()))).unwrap();
        source.watch(&dir).unwrap();
        std::fs::read(dir.join("old")).unwrap();
        std::fs::write(dir.join("new"), "x").unwrap();
        let first = rx.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(first, Signal::Touched(vec![dir.join("new")]));
        source.unwatch(&dir);
        assert!(source.watch(&dir.join("none")).is_err());
    }
}
