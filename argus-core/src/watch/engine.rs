//! The watcher's thread: hints, the slow poll and requests come in by one channel; files are examined when they are due. All looks are taken here, so records
//! come in the order of what was seen and callbacks one at a time.
//! Invariants: directories are armed before files are read, so a change between the two is not missed; a file is read after a quiet time only, whether a hint, the
//! poll, a rescan or `settle` is the reason, but at the latest after `max_wait`; the poll runs whatever the source does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::chains::{Chains, probe};
use super::disk::Stamp;
use super::due::{Due, Quiet, deadline};
use super::emit::{Looked, SeenBy, Shared, Target, lock};
use super::event::{WatchError, WatchErrorKind};
use super::source::{Hints, Signal, Source};

/// What the thread is told.
pub(crate) enum Msg {
    Signal(Signal),
    /// The registry changed. Answer when every file has had its first look.
    Sync(Option<SyncSender<()>>),
    /// Look at everything, and answer when all is decided.
    Settle(SyncSender<()>),
    /// Look at everything once more, and end.
    Stop,
}

/// Most messages that are taken before files are looked at.
const BATCH: usize = 4096;

/// Somebody who waits, and the files still to be decided for it.
struct Waiter {
    answer: SyncSender<()>,
    files: BTreeSet<PathBuf>,
}

pub(crate) struct Engine {
    shared: Arc<Shared>,
    chains: Chains,
    inbox: Receiver<Msg>,
    hints: Arc<Hints>,
    /// Set by a `stop` from inside a callback: no more files, no more callbacks.
    halt: Arc<AtomicBool>,
    due: BTreeMap<PathBuf, Due>,
    waiting: Vec<Waiter>,
    /// Requests since the last step; true: for all files.
    asked: Vec<(SyncSender<()>, bool)>,
    pass: Option<SeenBy>,
    next_poll: Instant,
    /// The registry changed.
    sync: bool,
    /// Files whose chains are to be followed again.
    named: BTreeSet<PathBuf>,
    /// Directories in which something happened, and when all of it is looked through: once in a quiet time, for there may be thousands of files.
    stirred: BTreeMap<PathBuf, Instant>,
    /// `stop` was called; the last moment.
    ending: Option<Instant>,
    /// The last moment has come: nothing is put off any more.
    last: bool,
}

impl Engine {
    pub(crate) fn new(
        shared: Arc<Shared>,
        source: Box<dyn Source>,
        (inbox, hints): (Receiver<Msg>, Arc<Hints>),
        halt: Arc<AtomicBool>,
        now: Instant,
    ) -> Self {
        Self {
            next_poll: deadline(now, shared.config.poll_interval.max(Duration::from_millis(1))),
            shared,
            chains: Chains::new(source),
            inbox,
            hints,
            halt,
            due: BTreeMap::new(),
            waiting: Vec::new(),
            asked: Vec::new(),
            // What happened while nothing ran.
            pass: Some(SeenBy::Poll),
            sync: true,
            named: BTreeSet::new(),
            stirred: BTreeMap::new(),
            ending: None,
            last: false,
        }
    }

    pub(crate) fn run(mut self) {
        // Requests that came first are answered by the first step.
        self.take_waiting(Instant::now());
        loop {
            self.step(Instant::now());
            if self.over() {
                break;
            }
            match self.inbox.recv_timeout(self.idle(Instant::now())) {
                Ok(msg) => self.take(msg, Instant::now()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.take_waiting(Instant::now());
        }
        if !self.halted() {
            for w in self.waiting.drain(..) {
                let _ = w.answer.try_send(());
            }
        }
    }

    fn halted(&self) -> bool {
        self.halt.load(Ordering::Acquire)
    }

    /// Whether all is done that `stop` waits for.
    fn over(&self) -> bool {
        let idle = || self.due.values().all(|d| d.again) && !self.busy();
        self.halted() || self.last || (self.ending.is_some() && idle())
    }

    fn busy(&self) -> bool {
        self.sync || self.pass.is_some()
    }

    /// How long there is nothing to do.
    fn idle(&self, now: Instant) -> Duration {
        let due = self.due.values().map(|d| d.at).chain(self.stirred.values().copied());
        match due.chain(self.ending).chain([self.next_poll]).min() {
            Some(next) if !self.busy() => next.saturating_duration_since(now),
            _ => Duration::ZERO,
        }
    }

    fn take_waiting(&mut self, now: Instant) {
        for _ in 0..BATCH {
            let Ok(msg) = self.inbox.try_recv() else { break };
            self.take(msg, now);
        }
    }

    pub(crate) fn take(&mut self, msg: Msg, now: Instant) {
        match msg {
            Msg::Signal(signal) => {
                self.hints.taken(&signal);
                self.signal(signal, now);
            }
            Msg::Sync(answer) => {
                self.sync = true;
                self.asked.extend(answer.map(|a| (a, false)));
            }
            Msg::Settle(answer) => {
                self.asked.push((answer, true));
                self.pass.get_or_insert(SeenBy::Poll);
            }
            Msg::Stop => {
                // Within the time that `stop` waits.
                let config = &self.shared.config;
                self.ending = Some(deadline(now, config.max_wait.min(config.stop_timeout / 2)));
                self.pass.get_or_insert(SeenBy::Poll);
            }
        }
    }

    fn signal(&mut self, signal: Signal, now: Instant) {
        match signal {
            Signal::Touched(paths) => {
                let named = self.chains.named(&paths);
                for file in &named {
                    self.hinted(file, now);
                }
                self.named.extend(named);
                let at = deadline(now, self.shared.config.debounce.min(self.shared.config.max_wait));
                for path in &paths {
                    // What is known by its name says nothing about what is beside it.
                    let beside = path.parent().filter(|_| !self.chains.knows(path));
                    for dir in beside.into_iter().chain([path.as_path()]) {
                        if !self.stirred.contains_key(dir) && self.chains.is_in_a_chain(dir) {
                            self.stirred.insert(dir.to_owned(), at);
                        }
                    }
                }
            }
            Signal::Rescan => self.pass = Some(SeenBy::Rescan),
            Signal::Trouble(text) => {
                self.trouble(None, text);
                self.pass = Some(SeenBy::Rescan);
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

    /// A file is due after a quiet time, which begins anew with every hint.
    fn hinted(&mut self, file: &Path, now: Instant) {
        let (debounce, max_wait) = (self.shared.config.debounce, self.shared.config.max_wait);
        if !lock(&self.shared.registry).files.contains_key(file) {
            return;
        }
        let due = self.due.entry(file.to_owned()).or_insert(Due {
            first: now,
            at: now,
            by: SeenBy::Notify,
            quiet: Quiet::Told,
            again: false,
        });
        due.by = SeenBy::Notify;
        due.at = deadline(now, debounce).min(deadline(due.first, max_wait));
        due.quiet = Quiet::Told;
        due.again = false;
    }

    /// A file that no hint named is due after a quiet time.
    fn due_when_quiet(&mut self, file: &Path, stamp: Stamp, by: SeenBy, now: Instant) {
        let at = deadline(now, self.shared.config.debounce.min(self.shared.config.max_wait));
        let due = Due { first: now, at, by, quiet: Quiet::Since(stamp), again: false };
        self.due.entry(file.to_owned()).or_insert(due);
    }

    /// Does everything that is to be done at `now`.
    pub(crate) fn step(&mut self, now: Instant) {
        if now >= self.next_poll {
            self.next_poll = deadline(now, self.shared.config.poll_interval.max(Duration::from_millis(1)));
            self.pass.get_or_insert(SeenBy::Poll);
        }
        self.last = self.ending.is_some_and(|end| now >= end);
        let pass = self.pass.take();
        self.follow(pass, now);
        self.admit();
        self.look_at_due(now);
        self.answer();
        if let Some(by) = pass {
            self.look_at_all(by, now);
        }
        self.answer();
    }

    /// Finds new files, and makes the source watch what the chains of links lead through now.
    fn follow(&mut self, pass: Option<SeenBy>, now: Instant) {
        let by = pass.unwrap_or(SeenBy::Notify);
        let mut refused = self.chains.refresh(&std::mem::take(&mut self.named));
        let beside = self.beside(now);
        if beside.1 || pass.is_some() || self.sync {
            self.sync |= !self.shared.scan().is_empty();
        }
        if std::mem::take(&mut self.sync) || pass.is_some() {
            let targets = self.shared.targets();
            let fresh: Vec<_> = targets.iter().filter(|t| !t.begun() || t.seen().is_none()).cloned().collect();
            let dirs: Vec<PathBuf> = lock(&self.shared.registry).dirs.keys().map(|d| probe(d)).collect();
            let keys: BTreeSet<PathBuf> = targets.iter().map(|t| t.path.clone()).chain(dirs).collect();
            self.due.retain(|path, _| keys.contains(path));
            for w in &mut self.waiting {
                w.files.retain(|path| keys.contains(path));
            }
            refused.extend(self.chains.set(&keys, pass.is_some()));
            // Armed first, read later.
            for t in fresh {
                if !t.begun() {
                    let due = Due { first: now, at: now, by: SeenBy::Poll, quiet: Quiet::ByClock, again: false };
                    self.due.entry(t.path.clone()).or_insert(due);
                } else {
                    self.due_when_quiet(&t.path, Stamp::of(&t.path), by, now);
                }
            }
            // Files that came while their directory was not armed yet.
            self.sync = !self.shared.scan().is_empty();
        }
        for (dir, text) in refused {
            self.trouble(Some(&dir), text);
        }
        for file in beside.0 {
            if !self.due.contains_key(&file) {
                self.look_beside(&file, now);
            }
        }
    }

    /// The files of the directories that were stirred a quiet time ago, and whether a watched directory is among those.
    fn beside(&mut self, now: Instant) -> (BTreeSet<PathBuf>, bool) {
        let (mut files, mut watched) = (BTreeSet::new(), false);
        let chains = &self.chains;
        self.stirred.retain(|dir, at| {
            let later = *at > now;
            if let Some((inside, probed)) = chains.inside(dir).filter(|_| !later) {
                files.extend(inside);
                watched |= probed;
            }
            later
        });
        (files, watched)
    }

    /// Something happened in the directory of a file that was not named: its stamp says whether that is a reason to read it.
    fn look_beside(&mut self, file: &Path, now: Instant) {
        let target = lock(&self.shared.registry).files.get(file).cloned();
        if let Some(seen) = target.and_then(|t| t.seen()) {
            let stamp = Stamp::of(file);
            if stamp != seen {
                self.due_when_quiet(file, stamp, SeenBy::Notify, now);
            }
        }
    }

    /// Notes for new requests what they wait for.
    fn admit(&mut self) {
        for (answer, all) in std::mem::take(&mut self.asked) {
            let targets = self.shared.targets();
            let files = targets.iter().filter(|t| all || !t.begun()).map(|t| t.path.clone()).collect();
            self.waiting.push(Waiter { answer, files });
        }
    }

    fn look_at_all(&mut self, by: SeenBy, now: Instant) {
        for target in self.shared.targets() {
            let stamp = Stamp::of(&target.path);
            match self.due.get_mut(&target.path) {
                // Hints were lost, so that none came proves nothing.
                Some(due) if by == SeenBy::Rescan && !due.again => due.quiet = Quiet::Since(stamp),
                Some(_) => {}
                None if self.last || target.seen() == Some(stamp) => self.look_at(&target, by, now),
                None => self.due_when_quiet(&target.path, stamp, by, now),
            }
        }
    }

    fn look_at_due(&mut self, now: Instant) {
        let mut due: Vec<(PathBuf, Due)> =
            self.due.iter().filter(|(_, d)| self.last || d.at <= now).map(|(p, d)| (p.clone(), *d)).collect();
        due.sort_by_key(|(_, d)| d.at);
        for (path, due) in due {
            self.due.remove(&path);
            let Some(target) = lock(&self.shared.registry).files.get(&path).cloned() else { continue };
            match due.put_off(&path, &self.shared.config, now) {
                Some(later) if !self.last => {
                    self.due.insert(path, later);
                }
                _ => self.look_at(&target, due.by, now),
            }
        }
    }

    fn look_at(&mut self, target: &Arc<Target>, by: SeenBy, now: Instant) {
        if self.halted() {
            return;
        }
        match self.shared.examine(target, by, now) {
            Looked::Again(after) => {
                let due = Due { first: now, at: deadline(now, after), by, quiet: Quiet::Told, again: true };
                self.due.insert(target.path.clone(), due);
                return;
            }
            // It may be back already, and then no hint will come.
            Looked::Forgotten => self.sync = true,
            Looked::Decided => {}
        }
        for w in &mut self.waiting {
            w.files.remove(&target.path);
        }
    }

    /// Tells those who wait that all is decided for them, if it is.
    fn answer(&mut self) {
        if self.halted() {
            return;
        }
        for w in self.waiting.extract_if(.., |w| w.files.is_empty()) {
            // One that no longer waits is fine.
            let _ = w.answer.try_send(());
        }
    }
}
