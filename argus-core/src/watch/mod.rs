//! The config-file watcher: every change of a watched file's value becomes one `config_change` record and one call of a callback.
//!
//! `Watcher` is the handle (any thread); `engine` is its one thread, which alone looks at files; `state` decides per file, purely; `format` and `diff` give
//! values and differences; `disk` follows links and reads; `chains` knows whom a hint concerns; `source` hides `notify`; `emit` records and calls back. Invariants: the content's hash decides, a hint of the operating
//! system is only a reason to look; what cannot be read or parsed is recorded and changes no value; a call from inside a callback never waits.

mod chains;
mod config;
mod diff;
mod disk;
mod due;
mod emit;
mod engine;
mod event;
mod format;
mod source;
mod state;
mod universal;
mod veil;
#[cfg(feature = "yaml")]
mod yaml;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use config::WatcherConfig;
pub use event::{ChangeEvent, ChangeKind, WatchError, WatchErrorKind};
pub use universal::{universal_config_watcher, universal_config_watcher_with_config};

use crate::logger::AuditLogger;
use crate::sink::AuditSink;
use emit::{Callback, Registry, Shared, Target, lock, mark_watcher, may_wait, text_of, unlisted};
use engine::{Engine, Msg};
use source::{Hints, Notify, Signal, Silent, Source, Tell};

/// Watches configuration files: every change of a file's value becomes a `config_change` record and a call of its callback.
///
/// JSON, YAML and TOML (by extension) are compared by value, so a change of white space, comments or key order is none; any other file is compared as text,
/// whose lines are recorded without what follows a key that redaction hides (`DB_PASSWORD=`).
/// Callbacks run on the watcher's thread, one at a time; all calls below may be made from there. Dropping the watcher stops it.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use argus_core::{AuditConfig, Watcher, WatcherConfig};
/// let watcher = Watcher::new(WatcherConfig::new(AuditConfig::new("/var/lib/shop/audit.db")))?;
/// watcher.watch("/etc/shop/app.yaml", |change| println!("{}: {}", change.path.display(), change.diff))?;
/// watcher.start()?;
/// # Ok(()) }
/// ```
pub struct Watcher {
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

struct Running {
    tell: Sender<Msg>,
    halt: Arc<AtomicBool>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Watcher {
    /// A watcher with a trail of its own, which `config.audit` names. Dropping the watcher closes it.
    ///
    /// # Errors
    /// The trail cannot be opened.
    pub fn new(config: WatcherConfig) -> Result<Watcher, WatchError> {
        let logger = AuditLogger::open(config.audit.clone()).map_err(|e| {
            WatchError::new(
                WatchErrorKind::Open,
                "the watcher's audit trail cannot be opened",
                "see the cause, or give a sink with with_sink",
            )
            .because(e)
        })?;
        Ok(Self::with_sink(config, logger))
    }

    /// A watcher that records through `sink`: a logger, a wrapper, or an `Arc` of either.
    pub fn with_sink(config: WatcherConfig, sink: impl AuditSink) -> Watcher {
        let shared = Shared {
            config,
            sink: Arc::new(sink),
            registry: Mutex::new(Registry::default()),
            on_error: Mutex::new(None),
            engine: Mutex::new(None),
            turn: Mutex::new(()),
        };
        Watcher { shared: Arc::new(shared), running: Mutex::new(None) }
    }

    /// Is told of everything that went wrong and that no caller sees. It may be set at any time, and replaces the one before.
    pub fn error_handler(&self, f: impl Fn(&WatchError) + Send + Sync + 'static) {
        *lock(&self.shared.on_error) = Some(Arc::new(f));
    }

    /// Watches a file. It need not exist, but its directory must. Watching a file again replaces its callback and begins anew.
    ///
    /// If the watcher runs, its thread takes the first look, and this call waits for it: for as long as callbacks of other files run, but at most `stop_timeout`,
    /// after which the first look still follows. From inside a callback it does not wait, and the first look follows after the callback.
    ///
    /// # Errors
    /// There is no such directory, or the path is one.
    pub fn watch(
        &self,
        path: impl AsRef<Path>,
        callback: impl Fn(&ChangeEvent) + Send + Sync + 'static,
    ) -> Result<(), WatchError> {
        let path = absolute(path.as_ref())?;
        if path.file_name().is_none() || path.is_dir() {
            return Err(
                WatchError::new(WatchErrorKind::BadPath, "this is a directory, not a file", "use watch_dir").at(&path)
            );
        }
        if let Some(dir) = path.parent().filter(|d| !d.is_dir()) {
            return Err(WatchError::new(
                WatchErrorKind::NoDirectory,
                "the directory of the file to watch does not exist",
                "make it first, or mend the path; the file itself may come later",
            )
            .at(dir));
        }
        let target = Target::new(path.clone(), Arc::new(callback), None, false);
        {
            let mut registry = lock(&self.shared.registry);
            registry.excluded.remove(&path);
            registry.files.insert(path, target);
        }
        self.begin();
        Ok(())
    }

    /// Watches every file of a directory whose extension is known, now and later: `.json`, `.yaml`, `.yml`, `.toml`. Not what is in its subdirectories, nor names
    /// that begin with a dot. A file that comes later is `created`; one that goes is `deleted` and forgotten until it comes again. Watching a directory again replaces
    /// its callback and begins anew. When this call returns is as for [`watch`](Watcher::watch).
    ///
    /// # Errors
    /// There is no such directory, or it cannot be listed.
    pub fn watch_dir(
        &self,
        dir: impl AsRef<Path>,
        callback: impl Fn(&ChangeEvent) + Send + Sync + 'static,
    ) -> Result<(), WatchError> {
        let dir = absolute(dir.as_ref())?;
        if !dir.is_dir() {
            return Err(WatchError::new(
                WatchErrorKind::NoDirectory,
                "there is no such directory to watch",
                "make it first, or use watch for a file",
            )
            .at(&dir));
        }
        let callback: Callback = Arc::new(callback);
        let files = disk::list(&dir, |_| false).map_err(|e| unlisted(&dir, e))?;
        {
            // At once, or the engine would take these files for new ones.
            let mut registry = lock(&self.shared.registry);
            registry.files.retain(|_, t| t.from.as_ref() != Some(&dir));
            registry.adopt(&dir, &callback, files, false);
            registry.unlisted.remove(&dir);
            registry.dirs.insert(dir, callback);
        }
        self.begin();
        Ok(())
    }

    /// Ends watching a file, or a directory with its files. False if it was not watched. A callback that runs right now is not waited for.
    pub fn unwatch(&self, path: impl AsRef<Path>) -> bool {
        let Ok(path) = absolute(path.as_ref()) else { return false };
        let known = {
            let mut registry = lock(&self.shared.registry);
            let dir = registry.dirs.remove(&path).is_some();
            if dir {
                registry.files.retain(|_, t| t.from.as_ref() != Some(&path));
                registry.excluded.retain(|p| p.parent() != Some(&path));
            }
            let file = registry.files.remove(&path);
            if file.as_ref().is_some_and(|t| t.from.is_some()) {
                registry.excluded.insert(path);
            }
            dir || file.is_some()
        };
        self.tell(Msg::Sync(None));
        known
    }

    /// Starts the watcher's thread and waits until it has taken the first look at every file (`file_watch_start`). A file that is being written right now is given
    /// its quiet time, so this may take a debounce. From inside a callback it does not wait. Starting a running watcher does nothing.
    ///
    /// # Errors
    /// The thread cannot be started. [`WatchErrorKind::Timeout`]: a callback of before the last `stop` still runs; watching begins when it returns.
    pub fn start(&self) -> Result<(), WatchError> {
        self.start_with(|tell, shared| match Notify::new(tell) {
            Ok(source) => Box::new(source),
            Err(text) => {
                let help = "changes are found by the slow poll only; see fs.inotify.max_user_instances, or shorten poll_interval";
                shared.report(&WatchError::new(WatchErrorKind::Notifications, "no change notifications from the operating system", help).because(text));
                Box::new(Silent)
            }
        })
    }

    fn start_with(&self, source: impl FnOnce(Tell, &Shared) -> Box<dyn Source>) -> Result<(), WatchError> {
        {
            let mut running = lock(&self.running);
            if running.as_ref().is_some_and(|r| !r.thread.is_finished()) {
                return Ok(());
            }
            *running = None;
        }
        let (tell, inbox) = mpsc::channel();
        let hints = Arc::new(Hints::default());
        let (to, count) = (tell.clone(), hints.clone());
        let hint = move |s: Signal| {
            if let Some(s) = count.send(s) {
                // After the end of the thread nobody is interested.
                let _ = to.send(Msg::Signal(s));
            }
        };
        // Outside the lock, since the error handler may call back.
        let source = source(Box::new(hint), &self.shared);
        let (answer, answered) = mpsc::sync_channel(1);
        let entered = Arc::new(AtomicBool::new(false));
        {
            let mut running = lock(&self.running);
            if running.is_some() {
                return Ok(());
            }
            let halt = Arc::new(AtomicBool::new(false));
            let engine = Engine::new(self.shared.clone(), source, (inbox, hints), halt.clone(), Instant::now());
            let (finished, done) = mpsc::sync_channel::<()>(1);
            let (shared, enter) = (self.shared.clone(), entered.clone());
            let thread = std::thread::Builder::new().name("argus-watcher".into()).spawn(move || {
                let _finished = finished; // Dropped at the end, also by a panic: that is the signal.
                mark_watcher();
                let _turn = lock(&shared.turn);
                enter.store(true, Ordering::Release);
                *lock(&shared.engine) = Some(std::thread::current().id());
                let end = catch_unwind(AssertUnwindSafe(|| engine.run()));
                if let Err(panic) = end {
                    let help = "nothing is watched any more; start it again";
                    let e = WatchError::new(WatchErrorKind::Thread, "the watcher's thread panicked", help);
                    shared.report(&e.because(text_of(&*panic)));
                }
                *lock(&shared.engine) = None;
            });
            let thread = thread.map_err(|e| {
                WatchError::new(
                    WatchErrorKind::Thread,
                    "the watcher's thread cannot be started",
                    "see the limits on threads",
                )
                .because(e)
            })?;
            let _ = tell.send(Msg::Sync(Some(answer)));
            *running = Some(Running { tell, halt, done, thread });
        }
        if may_wait() {
            self.first_looks(&answered, &entered)?;
        }
        Ok(())
    }

    /// Waits for the first looks of a start. No callback runs before those, unless it is of an earlier run.
    fn first_looks(&self, answered: &Receiver<()>, entered: &AtomicBool) -> Result<(), WatchError> {
        let patience = self.shared.config.stop_timeout;
        while answered.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
            if !entered.load(Ordering::Acquire) {
                return Err(WatchError::new(
                    WatchErrorKind::Timeout,
                    "a callback of before the last stop still runs",
                    "watching begins when it returns; raise stop_timeout to wait longer",
                ));
            }
        }
        Ok(())
    }

    /// Takes a last look at every file, ends the thread and waits for it, at most `stop_timeout`. A file that is being written right now is given its quiet time,
    /// at most `max_wait` and half of `stop_timeout`. Stopping a stopped watcher does nothing. From inside a callback
    /// it only signals: no other callback follows, and the thread ends after this one.
    ///
    /// # Errors
    /// [`WatchErrorKind::Timeout`]: a callback still runs; the thread ends after it.
    pub fn stop(&self) -> Result<(), WatchError> {
        let Some(running) = lock(&self.running).take() else { return Ok(()) };
        let inside = self.shared.on_engine();
        if inside {
            running.halt.store(true, Ordering::Release);
        }
        let asked = running.tell.send(Msg::Stop).is_ok();
        if inside {
            return Ok(());
        }
        if asked && running.done.recv_timeout(self.shared.config.stop_timeout) == Err(mpsc::RecvTimeoutError::Timeout) {
            running.halt.store(true, Ordering::Release);
            return Err(WatchError::new(
                WatchErrorKind::Timeout,
                "a callback still runs",
                "the watcher ends when it returns; raise stop_timeout to wait longer",
            ));
        }
        // A thread that panicked has ended as well.
        let _ = running.thread.join();
        Ok(())
    }

    /// The files that are watched, in order.
    pub fn watched(&self) -> Vec<PathBuf> {
        lock(&self.shared.registry).files.keys().cloned().collect()
    }

    /// Has every watched file examined and waits for it: what happened to them before the call is recorded, and its callbacks have run. For a file that was written
    /// right before, that takes a quiet time, as always; for one without content, which may be half-written, up to 1 s.
    ///
    /// # Errors
    /// The watcher does not run, the time ran out, or the call was made from inside a callback.
    pub fn settle(&self, timeout: Duration) -> Result<(), WatchError> {
        if self.shared.on_engine() {
            return Err(WatchError::new(
                WatchErrorKind::InCallback,
                "settle waits for the callback it was called from",
                "call it from another thread",
            ));
        }
        let end = Instant::now().checked_add(timeout);
        let (answer, answered): (SyncSender<()>, _) = mpsc::sync_channel(1);
        let not_running =
            || WatchError::new(WatchErrorKind::NotRunning, "the watcher does not run", "call start first");
        if !self.tell(Msg::Settle(answer)) {
            return Err(not_running());
        }
        let left = end.map_or(Duration::from_secs(86_400 * 365), |e| e.saturating_duration_since(Instant::now()));
        answered.recv_timeout(left).map_err(|e| match e {
            mpsc::RecvTimeoutError::Timeout => WatchError::new(
                WatchErrorKind::Timeout,
                "the watched files were not examined in time",
                "wait longer, or see whether a callback hangs",
            ),
            mpsc::RecvTimeoutError::Disconnected => not_running(),
        })
    }

    /// Has the engine take the first look at new files, if it runs; else `start` does.
    fn begin(&self) {
        let (answer, answered) = mpsc::sync_channel(1);
        if self.tell(Msg::Sync(Some(answer))) && may_wait() {
            // An engine that ended meanwhile leaves the first look to the next start.
            let _ = answered.recv_timeout(self.shared.config.stop_timeout);
        }
    }

    fn tell(&self, msg: Msg) -> bool {
        lock(&self.running).as_ref().is_some_and(|r| r.tell.send(msg).is_ok())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Err(e) = self.stop() {
            self.shared.report(&e);
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("watched", &self.watched())
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

fn absolute(path: &Path) -> Result<PathBuf, WatchError> {
    std::path::absolute(path).map_err(|e| {
        WatchError::new(WatchErrorKind::BadPath, "this path cannot be made absolute", "give an absolute one")
            .at(path)
            .because(e)
    })
}

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod tests;
