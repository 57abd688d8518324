//! What all parts of a watcher share: the registry of files and directories, the sink, the error handler; and how an action becomes a record and a callback.
//! Any thread. Invariants: no lock of ours is held while the sink, a callback or the error handler runs; a panic of theirs is an error, not our end.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::config::WatcherConfig;
use super::diff;
use super::disk::{self, Stamp};
use super::event::{ChangeEvent, WatchError, WatchErrorKind};
use super::format::Format;
use super::state::{Action, Change, FileState, Trouble};
use super::veil::veil;
use crate::accept::{self, Call, Rules};
use crate::error::AuditError;
use crate::event::AuditEvent;
use crate::id::RecordId;
use crate::level::Level;
use crate::sink::{AuditSink, Carrier, ObserverSet};

/// Room for what the sink adds to a record: names, its configured context, a trace.
const SINK_ADDS: usize = 8 << 10;

thread_local!(static WATCHER: Cell<bool> = const { Cell::new(false) });

/// Marks this thread as one that runs callbacks.
pub(crate) fn mark_watcher() {
    WATCHER.set(true);
}

/// Whether a call from this thread may wait for a watcher's thread: not from one of Argus's, for they could wait for each other.
pub(crate) fn may_wait() -> bool {
    !WATCHER.get() && !crate::thread::is_argus()
}

pub(crate) type Callback = Arc<dyn Fn(&ChangeEvent) + Send + Sync>;
pub(crate) type OnError = Arc<dyn Fn(&WatchError) + Send + Sync>;

/// How a change came to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeenBy {
    Notify,
    Poll,
    Rescan,
}

impl SeenBy {
    fn as_str(self) -> &'static str {
        match self {
            SeenBy::Notify => "notify",
            SeenBy::Poll => "poll",
            SeenBy::Rescan => "rescan",
        }
    }
}

/// One watched file.
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    /// The watched directory that brought it in.
    pub(crate) from: Option<PathBuf>,
    format: Format,
    callback: Callback,
    state: Mutex<FileState>,
    /// What the file's stamp was before the last look.
    seen: Mutex<Option<Stamp>>,
}

impl Target {
    pub(crate) fn new(path: PathBuf, callback: Callback, from: Option<PathBuf>, was_missing: bool) -> Arc<Target> {
        let format = Format::of(&path);
        let state = if was_missing { FileState::new_missing(format) } else { FileState::new(format) };
        Arc::new(Target { path, from, format, callback, state: Mutex::new(state), seen: Mutex::new(None) })
    }

    pub(crate) fn begun(&self) -> bool {
        lock(&self.state).begun()
    }

    /// The stamp before the last look.
    pub(crate) fn seen(&self) -> Option<Stamp> {
        *lock(&self.seen)
    }
}

/// What is watched.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) files: BTreeMap<PathBuf, Arc<Target>>,
    pub(crate) dirs: BTreeMap<PathBuf, Callback>,
    /// Files of watched directories that the user does not want.
    pub(crate) excluded: BTreeSet<PathBuf>,
    /// Watched directories that cannot be listed, and of which that was told.
    pub(crate) unlisted: BTreeSet<PathBuf>,
}

impl Registry {
    /// Takes in those of `files` that are new, for a watched directory.
    pub(crate) fn adopt(
        &mut self,
        dir: &Path,
        callback: &Callback,
        files: Vec<PathBuf>,
        was_missing: bool,
    ) -> Vec<Arc<Target>> {
        let mut new = Vec::new();
        for path in files {
            if !self.excluded.contains(&path) && !self.files.contains_key(&path) {
                let target = Target::new(path.clone(), callback.clone(), Some(dir.to_owned()), was_missing);
                self.files.insert(path, target.clone());
                new.push(target);
            }
        }
        new
    }
}

/// What a look at a file came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    Decided,
    /// Nothing can be said before another look, after this time.
    Again(Duration),
    /// It is gone and recorded so, and was only watched because its directory is: it has been forgotten.
    Forgotten,
}

pub(crate) struct Shared {
    pub(crate) config: WatcherConfig,
    pub(crate) sink: Arc<dyn AuditSink>,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) on_error: Mutex<Option<OnError>>,
    /// The thread that runs the callbacks.
    pub(crate) engine: Mutex<Option<ThreadId>>,
    /// Held by the thread that examines files: one that was started anew waits for the end of the one before.
    pub(crate) turn: Mutex<()>,
}

/// A lock that a panic elsewhere does not spoil: what it guards is whole between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn targets(&self) -> Vec<Arc<Target>> {
        lock(&self.registry).files.values().cloned().collect()
    }

    pub(crate) fn on_engine(&self) -> bool {
        *lock(&self.engine) == Some(std::thread::current().id())
    }

    fn is_watched(&self, target: &Arc<Target>) -> bool {
        lock(&self.registry).files.get(&target.path).is_some_and(|t| Arc::ptr_eq(t, target))
    }

    pub(crate) fn report(&self, error: &WatchError) {
        let handler = lock(&self.on_error).clone();
        if let Some(f) = handler {
            // A handler that panics has nobody else to be told.
            let _ = catch_unwind(AssertUnwindSafe(|| f(error)));
        }
    }

    /// Files that have come to watched directories since go into the registry. Gives them.
    pub(crate) fn scan(&self) -> Vec<Arc<Target>> {
        let dirs: Vec<(PathBuf, Callback)> =
            lock(&self.registry).dirs.iter().map(|(d, c)| (d.clone(), c.clone())).collect();
        let mut new = Vec::new();
        for (dir, callback) in dirs {
            let listed = disk::list(&dir, |p| lock(&self.registry).files.contains_key(p));
            let mut registry = lock(&self.registry);
            match listed {
                // Unless it was unwatched or watched anew meanwhile.
                Ok(files) if registry.dirs.get(&dir).is_some_and(|c| Arc::ptr_eq(c, &callback)) => {
                    registry.unlisted.remove(&dir);
                    new.extend(registry.adopt(&dir, &callback, files, true));
                }
                Ok(_) => {}
                // Its files will be found missing.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => {
                    let told = !registry.unlisted.insert(dir.clone());
                    drop(registry);
                    if !told {
                        self.report(&unlisted(&dir, e));
                    }
                }
            }
        }
        new
    }

    /// Looks at a file and does what follows.
    pub(crate) fn examine(&self, target: &Arc<Target>, by: SeenBy, now: Instant) -> Looked {
        let (actions, gone) = {
            let mut state = lock(&target.state);
            *lock(&target.seen) = Some(Stamp::of(&target.path));
            let seen = disk::look(&target.path, self.config.max_file_size);
            let actions = if state.begun() { state.observe(seen, now) } else { state.begin(seen, now) };
            (actions, state.missing())
        };
        let again = self.act(target, actions, by);
        let mut registry = lock(&self.registry);
        match again {
            Some(after) => Looked::Again(after),
            None if gone && target.from.is_some() => {
                if registry.files.get(&target.path).is_some_and(|t| Arc::ptr_eq(t, target)) {
                    registry.files.remove(&target.path);
                }
                Looked::Forgotten
            }
            None => Looked::Decided,
        }
    }

    /// Gives when to look again, if nothing can be said yet.
    fn act(&self, target: &Arc<Target>, actions: Vec<Action>, by: SeenBy) -> Option<Duration> {
        let mut again = None;
        for action in actions {
            if !self.is_watched(target) {
                return None;
            }
            match action {
                Action::LookAgain(after) => again = Some(after),
                Action::Changed(change) => self.changed(target, *change, by),
                Action::Started { sha256, state } => {
                    let event = AuditEvent::info("file_watch_start")
                        .with("sha256", &sha256)
                        .with("format", target.format.as_str());
                    self.record(&target.path, &event.file_path(&target.path).with("state", state));
                }
                Action::Warning { error, sha256, size } => {
                    let event = AuditEvent::warn("parse_warning")
                        .with("error", error.message.as_str())
                        .with("line", &error.line);
                    let event = event
                        .with("column", &error.column)
                        .with("sha256", &sha256)
                        .with("size", size)
                        .with("seen_by", by.as_str());
                    self.record(&target.path, &event.file_path(&target.path));
                }
                Action::Recovered { sha256, after } => {
                    let event =
                        AuditEvent::info("config_recovered").with("sha256", sha256.as_str()).with("after", after);
                    self.record(&target.path, &event.file_path(&target.path).with("seen_by", by.as_str()));
                }
                Action::Unreadable { trouble, error } => {
                    let (level, kind) = match trouble {
                        Trouble::Unreadable(kind) => (Level::Warn, Some(kind)),
                        _ => (Level::Security, None),
                    };
                    let event = AuditEvent::new(level, trouble.event()).with("error", error.as_str());
                    let event = event.with("error_kind", &kind).with("seen_by", by.as_str());
                    self.record(&target.path, &event.file_path(&target.path));
                }
            }
        }
        again
    }

    fn changed(&self, target: &Target, change: Change, by: SeenBy) {
        let diff = diff::diff(change.old.as_ref(), change.new.as_ref());
        let record_id = self.record_change(target, &change, &diff, by);
        let Change { kind, old, new, size, modified, .. } = change;
        let event = ChangeEvent { path: target.path.clone(), kind, size, modified, old, new, diff, record_id };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.callback)(&event))) {
            let help = "the change is recorded and the watcher goes on; mend the callback";
            self.report(
                &WatchError::new(WatchErrorKind::CallbackPanicked, "a callback panicked", help)
                    .at(&target.path)
                    .because(text_of(&*panic)),
            );
        }
    }

    /// Records a change: with everything, else without the difference, else with hashes only. Never silently nothing.
    fn record_change(&self, target: &Target, change: &Change, diff: &Value, by: SeenBy) -> Option<RecordId> {
        let (path, redaction) = (&target.path, &self.config.audit.redaction);
        let text = target.format == Format::Text;
        let veiled = |v: &Option<Value>| v.as_ref().map(|v| if text { veil(v, redaction) } else { v.clone() });
        let (old, new) = (veiled(&change.old), veiled(&change.new));
        // Of a created or deleted file the difference is the value itself.
        let both = old.is_some() && new.is_some();
        let diff = both.then(|| match text {
            false => diff::for_record(diff, redaction),
            true if old == new => serde_json::json!({ "": { "changed": true } }),
            true => diff::diff(old.as_ref(), new.as_ref()),
        });
        let mut result = Ok(None);
        for attempt in 0..3 {
            let mut event = AuditEvent::critical("config_change").file_path(path).with("kind", change.kind.as_str());
            event = event.with("seen_by", by.as_str()).with("size", change.size);
            event = event.with("old_sha256", &change.old_sha256).with("new_sha256", &change.new_sha256);
            event = match attempt {
                0 => event.with("diff", &diff),
                1 => event.with("diff_omitted", true),
                _ => event.with("value_omitted", true),
            };
            if attempt < 2 {
                event = event.old_value(&old).new_value(&new);
            }
            // What cannot fit is not submitted: a refusal would count in the sink's health as a record that somebody wanted.
            if attempt < 2 && !self.fits(&event) {
                continue;
            }
            result = self.submit(&event);
            if !matches!(result, Err(AuditError::TooLarge { .. } | AuditError::Invalid { .. })) {
                break;
            }
        }
        self.told(path, result)
    }

    /// Whether the rules of the format allow the event, with room for what the sink adds.
    fn fits(&self, event: &AuditEvent<'_>) -> bool {
        let redaction = self.config.audit.redaction.clone();
        let rules = Rules::new(String::new(), Vec::new(), redaction, SINK_ADDS);
        let call = Call {
            now: &crate::time::split(self.config.audit.clock.now()),
            trace: None,
            observers: ObserverSet::default(),
            own: false,
            stack: false,
        };
        accept::with_buffers(|buffers| accept::encode(event, &rules, &call, buffers)).is_ok()
    }

    fn record(&self, path: &Path, event: &AuditEvent<'_>) -> Option<RecordId> {
        self.told(path, self.submit(event))
    }

    fn submit(&self, event: &AuditEvent<'_>) -> Result<Option<RecordId>, AuditError> {
        catch_unwind(AssertUnwindSafe(|| self.sink.submit(event, &Carrier::default())))
            .unwrap_or_else(|_| Err(AuditError::Panicked { field: "sink".into() }))
    }

    fn told(&self, path: &Path, result: Result<Option<RecordId>, AuditError>) -> Option<RecordId> {
        result.unwrap_or_else(|e| {
            let help = "the watcher goes on, but this record is missing from the trail; see health() of the sink";
            self.report(
                &WatchError::new(WatchErrorKind::Audit, "the audit sink refused a record of the watcher", help)
                    .at(path)
                    .because(e),
            );
            None
        })
    }
}

pub(crate) fn unlisted(dir: &Path, e: std::io::Error) -> WatchError {
    WatchError::new(WatchErrorKind::Io, "cannot list a watched directory", "check its owner and mode")
        .at(dir)
        .because(e)
}

pub(crate) fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without text".into())
}
