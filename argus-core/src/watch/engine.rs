//! The watcher's thread: hints, the slow poll and requests come in by one channel; files are examined when they are due. Single-threaded.
//! Invariants: directories are armed before files are read, so a change between the two is not missed; the debounce is per file, restarts with every hint
//! for that file and ends at `max_wait`; the poll runs whatever the source does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::disk::{Chain, Identity};
use super::emit::{SeenBy, Shared, Target, lock};
use super::event::{WatchError, WatchErrorKind};
use super::source::{Signal, Source};

/// What the thread is told.
pub(crate) enum Msg {
    Signal(Signal),
    /// The registry changed.
    Sync,
    /// Look at everything, and answer when all is decided.
    Settle(SyncSender<()>),
    /// Look at everything once more, and end.
    Stop,
}

/// Most messages that are taken before files are looked at.
const BATCH: usize = 4096;

#[derive(Clone, Copy)]
struct Due {
    first: Instant,
    at: Instant,
    by: SeenBy,
}

pub(crate) struct Engine {
    shared: Arc<Shared>,
    source: Box<dyn Source>,
    inbox: Receiver<Msg>,
    /// Set by a `stop` from inside a callback: no more files, no more callbacks.
    halt: Arc<AtomicBool>,
    /// The directories of the source; `None`: it refused.
    armed: BTreeMap<PathBuf, Option<Identity>>,
    chains: BTreeMap<PathBuf, Chain>,
    dir_chains: BTreeMap<PathBuf, Chain>,
    due: BTreeMap<PathBuf, Due>,
    waiting: Vec<SyncSender<()>>,
    pass: Option<SeenBy>,
    changed: bool,
    stop: bool,
}

impl Engine {
    pub(crate) fn new(
        shared: Arc<Shared>,
        source: Box<dyn Source>,
        inbox: Receiver<Msg>,
        halt: Arc<AtomicBool>,
    ) -> Self {
        Self {
            shared,
            source,
            inbox,
            halt,
            armed: BTreeMap::new(),
            chains: BTreeMap::new(),
            dir_chains: BTreeMap::new(),
            due: BTreeMap::new(),
            waiting: Vec::new(),
            // What happened between the first look and the arming of the directories.
            pass: Some(SeenBy::Poll),
            changed: false,
            stop: false,
        }
    }

    pub(crate) fn run(mut self) {
        *lock(&self.shared.engine) = Some(std::thread::current().id());
        let interval = self.shared.config.poll_interval.max(Duration::from_millis(1));
        let mut next_poll = deadline(Instant::now(), interval);
        loop {
            if std::mem::take(&mut self.changed) || self.pass.is_some() {
                self.scan();
                self.arm(self.pass.is_some());
            }
            match self.pass.take() {
                Some(by) => self.look_at_all(by),
                None => self.look_at_due(),
            }
            if self.stop || self.halted() {
                break;
            }
            self.answer();
            let next = self.due.values().map(|d| d.at).chain([next_poll]).min().unwrap_or(next_poll);
            match self.inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(msg) => self.take(msg),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            for _ in 0..BATCH {
                let Ok(msg) = self.inbox.try_recv() else { break };
                self.take(msg);
            }
            let now = Instant::now();
            if now >= next_poll {
                next_poll = deadline(now, interval);
                self.pass.get_or_insert(SeenBy::Poll);
            }
        }
        self.answer();
        let mut engine = lock(&self.shared.engine);
        if *engine == Some(std::thread::current().id()) {
            *engine = None;
        }
    }

    fn halted(&self) -> bool {
        self.halt.load(Ordering::Acquire)
    }

    fn take(&mut self, msg: Msg) {
        match msg {
            Msg::Signal(Signal::Touched(paths)) => {
                self.changed = true;
                self.touched(&paths);
            }
            Msg::Signal(Signal::Rescan) => self.pass = Some(SeenBy::Rescan),
            Msg::Signal(Signal::Trouble(text)) => {
                self.trouble(None, text);
                self.pass = Some(SeenBy::Rescan);
            }
            Msg::Sync => self.changed = true,
            Msg::Settle(answer) => {
                self.waiting.push(answer);
                self.pass.get_or_insert(SeenBy::Poll);
            }
            Msg::Stop => {
                self.stop = true;
                self.pass.get_or_insert(SeenBy::Poll);
            }
        }
    }

    fn trouble(&self, dir: Option<&Path>, text: String) {
        let help = "changes are still found by the slow poll; see fs.inotify.max_user_watches and max_user_instances, or shorten poll_interval";
        let mut e =
            WatchError::new(WatchErrorKind::Notifications, "no change notifications from the operating system", help)
                .because(text);
        if let Some(d) = dir {
            e = e.at(d);
        }
        self.shared.report(&e);
    }

    /// Files that the paths belong to become due: those that are named, after a quiet time; others of the same directory, no later than that.
    fn touched(&mut self, paths: &[PathBuf]) {
        let now = Instant::now();
        let (debounce, max_wait) = (self.shared.config.debounce, self.shared.config.max_wait);
        for (file, chain) in &self.chains {
            let named = paths.iter().any(|p| chain.names.contains(p) || chain.dirs.contains_key(p));
            if named || paths.iter().any(|p| p.parent().is_some_and(|d| chain.dirs.contains_key(d))) {
                let fresh = Due { first: now, at: deadline(now, debounce), by: SeenBy::Notify };
                let due = self.due.entry(file.clone()).or_insert(fresh);
                if named {
                    due.by = SeenBy::Notify;
                    due.at = deadline(now, debounce).min(deadline(due.first, max_wait));
                }
            }
        }
    }

    /// Finds new files in watched directories.
    fn scan(&mut self) {
        let now = Instant::now();
        for target in self.shared.scan(true) {
            let at = deadline(now, self.shared.config.debounce);
            self.due.insert(target.path.clone(), Due { first: now, at, by: SeenBy::Notify });
        }
    }

    /// Makes the source watch what the chains of links lead through now.
    fn arm(&mut self, retry: bool) {
        let targets = self.shared.targets();
        let dirs: Vec<PathBuf> = lock(&self.shared.registry).dirs.keys().cloned().collect();
        let now = Instant::now();
        let mut chains = BTreeMap::new();
        for t in &targets {
            if !self.chains.contains_key(&t.path) {
                self.due.entry(t.path.clone()).or_insert(Due { first: now, at: now, by: SeenBy::Poll });
            }
            chains.insert(t.path.clone(), Chain::of(&t.path));
        }
        self.due.retain(|path, _| chains.contains_key(path));
        self.chains = chains;
        // A name that no file has: the chain to the directory, and the directory itself.
        self.dir_chains = dirs.into_iter().map(|d| (d.clone(), Chain::of(&d.join("\u{1}")))).collect();
        let mut wanted: BTreeMap<&PathBuf, Identity> = BTreeMap::new();
        for chain in self.chains.values().chain(self.dir_chains.values()) {
            wanted.extend(chain.dirs.iter().map(|(d, i)| (d, *i)));
        }
        let gone: Vec<PathBuf> = self.armed.keys().filter(|d| !wanted.contains_key(d)).cloned().collect();
        for dir in gone {
            self.armed.remove(&dir);
            self.source.unwatch(&dir);
        }
        let mut refused = Vec::new();
        for (dir, identity) in wanted {
            match self.armed.get(dir) {
                Some(Some(i)) if *i == identity => continue,
                Some(None) if !retry => continue,
                Some(Some(_)) => self.source.unwatch(dir),
                _ => {}
            }
            let known = self.armed.get(dir) == Some(&None);
            match self.source.watch(dir) {
                Ok(()) => self.armed.insert(dir.clone(), Some(identity)),
                Err(text) => {
                    if !known {
                        refused.push((dir.clone(), text));
                    }
                    self.armed.insert(dir.clone(), None)
                }
            };
        }
        for (dir, text) in refused {
            self.trouble(Some(&dir), text);
        }
    }

    fn look_at_all(&mut self, by: SeenBy) {
        for target in self.shared.targets() {
            let by = match (by, self.due.remove(&target.path)) {
                (SeenBy::Poll, Some(due)) => due.by,
                _ => by,
            };
            self.look_at(&target, by);
        }
    }

    fn look_at_due(&mut self) {
        let now = Instant::now();
        let due: Vec<(PathBuf, Due)> =
            self.due.iter().filter(|(_, d)| d.at <= now).map(|(p, d)| (p.clone(), *d)).collect();
        for (path, due) in due {
            self.due.remove(&path);
            let target = lock(&self.shared.registry).files.get(&path).cloned();
            if let Some(target) = target {
                self.look_at(&target, due.by);
            }
        }
    }

    fn look_at(&mut self, target: &Arc<Target>, by: SeenBy) {
        if self.halted() {
            return;
        }
        if let Some(after) = self.shared.examine(target, by) {
            let now = Instant::now();
            self.due.insert(target.path.clone(), Due { first: now, at: deadline(now, after), by });
        }
    }

    /// Tells those who wait that everything is decided, if it is.
    fn answer(&mut self) {
        if self.waiting.is_empty() || (!self.stop && self.shared.targets().iter().any(|t| t.undecided())) {
            return;
        }
        for waiting in self.waiting.drain(..) {
            // One that no longer waits is fine.
            let _ = waiting.try_send(());
        }
    }
}

/// `at + after`, or far away.
fn deadline(at: Instant, after: Duration) -> Instant {
    at.checked_add(after).or_else(|| at.checked_add(Duration::from_secs(86_400 * 365))).unwrap_or(at)
}
