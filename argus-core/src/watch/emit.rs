//! What all parts of a watcher share: the registry of files and directories, the sink, the error handler; and how an action becomes a record and a callback.
//! Any thread. Invariants: no lock of ours is held while the sink, a callback or the error handler runs; a panic of theirs is an error, not our end.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::config::WatcherConfig;
use super::diff;
use super::disk;
use super::event::{ChangeEvent, WatchError, WatchErrorKind};
use super::format::Format;
use super::state::{Action, Change, FileState};
use crate::error::AuditError;
use crate::event::AuditEvent;
use crate::id::RecordId;
use crate::sink::{AuditSink, Carrier};

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
}

impl Target {
    pub(crate) fn new(path: PathBuf, callback: Callback, from: Option<PathBuf>, was_missing: bool) -> Arc<Target> {
        let format = Format::of(&path);
        let state = if was_missing { FileState::new_missing(format) } else { FileState::new(format) };
        Arc::new(Target { path, from, format, callback, state: Mutex::new(state) })
    }

    pub(crate) fn undecided(&self) -> bool {
        lock(&self.state).undecided()
    }

    pub(crate) fn begun(&self) -> bool {
        lock(&self.state).begun()
    }
}

/// What is watched.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) files: BTreeMap<PathBuf, Arc<Target>>,
    pub(crate) dirs: BTreeMap<PathBuf, Callback>,
    /// Files of watched directories that the user does not want.
    pub(crate) excluded: BTreeSet<PathBuf>,
}

pub(crate) struct Shared {
    pub(crate) config: WatcherConfig,
    pub(crate) sink: Arc<dyn AuditSink>,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) on_error: Mutex<Option<OnError>>,
    /// The thread that runs the callbacks.
    pub(crate) engine: Mutex<Option<ThreadId>>,
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

    /// Files of the watched directories that are not in the registry yet go there. Gives the new ones.
    pub(crate) fn scan(&self, was_missing: bool) -> Vec<Arc<Target>> {
        let dirs: Vec<(PathBuf, Callback)> =
            lock(&self.registry).dirs.iter().map(|(d, c)| (d.clone(), c.clone())).collect();
        let mut new = Vec::new();
        for (dir, callback) in dirs {
            let files = match disk::list(&dir) {
                Ok(files) => files,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue, // Its files will be found missing.
                Err(e) => {
                    self.report(
                        &WatchError::new(
                            WatchErrorKind::Io,
                            "cannot list a watched directory",
                            "check its owner and mode",
                        )
                        .at(&dir)
                        .because(e),
                    );
                    continue;
                }
            };
            let mut registry = lock(&self.registry);
            if !registry.dirs.contains_key(&dir) {
                continue;
            }
            for path in files {
                if !registry.excluded.contains(&path) && !registry.files.contains_key(&path) {
                    let target = Target::new(path.clone(), callback.clone(), Some(dir.clone()), was_missing);
                    registry.files.insert(path, target.clone());
                    new.push(target);
                }
            }
        }
        new
    }

    /// Looks at a file and does what follows. Gives when to look again, if nothing can be said yet.
    pub(crate) fn examine(&self, target: &Arc<Target>, by: SeenBy) -> Option<Duration> {
        let actions = {
            let mut state = lock(&target.state);
            let seen = disk::look(&target.path, self.config.max_file_size);
            if state.begun() { state.observe(seen, Instant::now()) } else { state.begin(seen, Instant::now()) }
        };
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
                Action::Denied { error } => {
                    let event = AuditEvent::security("permission_denied")
                        .with("error", error.as_str())
                        .with("seen_by", by.as_str());
                    self.record(&target.path, &event.file_path(&target.path));
                }
            }
        }
        again
    }

    fn changed(&self, target: &Target, change: Change, by: SeenBy) {
        let diff = diff::diff(change.old.as_ref(), change.new.as_ref());
        let record_id = self.record_change(&target.path, &change, &diff, by);
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
    fn record_change(&self, path: &Path, change: &Change, diff: &serde_json::Value, by: SeenBy) -> Option<RecordId> {
        // Of a created or deleted file the difference is the value itself.
        let both = change.old.is_some() && change.new.is_some();
        let diff = both.then(|| diff::for_record(diff, &self.config.audit.redaction));
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
                event = event.old_value(&change.old).new_value(&change.new);
            }
            result = self.submit(&event);
            if !matches!(result, Err(AuditError::TooLarge { .. } | AuditError::Invalid { .. })) {
                break;
            }
        }
        self.told(path, result)
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

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without text".into())
}
