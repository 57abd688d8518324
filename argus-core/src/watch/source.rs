//! Where hints of change come from: our trait over `notify`, whose types stay in here, and a manual source for tests.
//! Invariants: a hint is only a reason to look; directories are watched, never files; reading a file causes no hint.

use std::path::{Path, PathBuf};

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
