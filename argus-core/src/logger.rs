//! `AuditLogger`: the handle. Opening starts the writer and the observer thread and commits `audit_open`, so that a trail that cannot work fails here.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use crate::accept::{self, Rules};
use crate::config::{self, AuditConfig};
use crate::core::{Accepted, Core};
use crate::error::{AuditError, ErrorKind, OpenError, TrailError};
use crate::event::AuditEvent;
use crate::health::Health;
use crate::id::{RecordId, WriterId};
use crate::level::Level;
use crate::location::{Backend, Location, locate};
use crate::pending::Pending;
use crate::queue::QueueKind;
use crate::queue::files::{Beside, Owner, WriterLock};
use crate::queue::keeper::Keeper;
use crate::reader::AuditReader;
use crate::sink::{AuditSink, Carrier, CloseReport, CommitObserver, LossReason, ObserverId};
use crate::spill::Spiller;
use crate::store::{Store, late};
use crate::writer::{Identity, Writer};

/// How long a guard, or the drop of the last handle, waits for the last commit.
const DROP_WAIT: Duration = Duration::from_secs(5);

/// The handle of an open trail. Clones share it; [`close`](AuditSink::close) on any closes it for all.
#[derive(Clone)]
pub struct AuditLogger {
    // Beside the handle, so that a filtered call follows one pointer only.
    core: Arc<Core>,
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<Core>,
    location: Option<Location>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.close(DROP_WAIT);
    }
}

/// Closes the trail when it is dropped, even if clones of the logger live on in a global subscriber.
#[derive(Debug)]
#[must_use = "binding it to `_` closes the trail at once; write `let _guard = ...`"]
pub struct AuditGuard(AuditLogger);

impl Drop for AuditGuard {
    fn drop(&mut self) {
        self.0.close(DROP_WAIT);
    }
}

impl AuditLogger {
    /// Opens the trail that the configuration names, makes it if it is missing, and commits `audit_open`.
    ///
    /// # Errors
    /// The configuration is impossible, there is no place for the trail, or the file cannot be made, is something else, or belongs to somebody else. The error
    /// says what, where and what to do.
    pub fn open(config: AuditConfig) -> Result<AuditLogger, OpenError> {
        let writer = WriterId::random();
        let service = Service::of(&config);
        if !config.enabled {
            let core = Arc::new(Core::new(config, Rules::empty(), writer));
            let mut state = core.lock();
            state.closed = true;
            state.ledger.health.degraded = core.config.switched_off_by_env();
            drop(state);
            tell_why_off(&core);
            return Ok(Self { core: core.clone(), handle: Arc::new(Handle { core, location: None }) });
        }
        let mut location = locate(&config.output_file)?;
        // What `audit_open` says must lead to the file from anywhere, and a change of directory must not lead elsewhere.
        if let Ok(path) = std::path::absolute(&location.path) {
            location.path = path;
        }
        let access = crate::store::place::Access { mode: config.file_mode, group: config.group };
        let spill_dir = config.spill_dir.as_ref().map(|d| std::path::absolute(d).unwrap_or_else(|_| d.clone()));
        if let Some(dir) = &spill_dir {
            crate::store::place::own_directory(dir, access)?;
        }
        // Once and for all: were a folder on the way a link that leads elsewhere later, the files of this logger would be in two places.
        let spill_dir = spill_dir.map(|d| d.canonicalize().unwrap_or(d));
        if let (Some(dir), Some(name)) = (location.path.parent(), location.path.file_name()) {
            match crate::store::place::directory(dir, access) {
                Ok(dir) => location.path = dir.join(name),
                // The opening of the trail meets it, too, and begins in the pending file if it can.
                Err(e) if crate::store::late::may_pass(&e) => {}
                Err(e) => return Err(e),
            }
        }
        let make = {
            let (location, name) = (location.clone(), service.name.clone());
            move || -> Result<Box<dyn Store>, TrailError> {
                match location.backend {
                    Backend::Jsonl => {
                        Ok(Box::new(crate::store::jsonl::JsonlStore::open(&location.path, access, writer)?))
                    }
                    #[cfg(feature = "sqlite")]
                    Backend::Sqlite => {
                        Ok(Box::new(crate::store::sqlite::SqliteStore::open(&location.path, access, writer, &name)?))
                    }
                    #[cfg(not(feature = "sqlite"))]
                    Backend::Sqlite => {
                        let _ = &name;
                        Err(TrailError::new(ErrorKind::Config, "this build of argus-core has no SQLite")
                            .at(&location.path)
                            .help("enable its feature `sqlite`, or name a .jsonl file"))
                    }
                }
            }
        };
        #[cfg(any(test, feature = "test-util"))]
        let make = {
            let (faults, make) = (config.faults.clone(), make);
            move || -> Result<Box<dyn Store>, TrailError> {
                faults.of_store(crate::fault::StoreFault::Open)?;
                Ok(Box::new(crate::fault::FaultyStore { inner: make()?, faults: faults.clone() }))
            }
        };
        let beside = Beside { trail: location.path.clone(), access, spill_dir };
        Self::start(config, writer, &service, Some((location, beside)), Box::new(make))
    }

    /// A logger over a trail in memory, for tests.
    ///
    /// # Errors
    /// The configuration is impossible, or the store was told to fail.
    #[cfg(any(test, feature = "test-util"))]
    pub fn open_in_memory(
        config: AuditConfig,
        trail: &crate::store::memory::MemoryTrail,
    ) -> Result<AuditLogger, OpenError> {
        let service = Service::of(&config);
        let trail = trail.clone();
        let make = move || -> Result<Box<dyn Store>, TrailError> {
            Ok(Box::new(crate::store::memory::MemoryStore::new(trail.clone())))
        };
        Self::start(config, WriterId::random(), &service, None, Box::new(make))
    }

    fn start(
        config: AuditConfig,
        writer: WriterId,
        service: &Service,
        place: Option<(Location, Beside)>,
        make: Box<late::Open>,
    ) -> Result<AuditLogger, OpenError> {
        let (location, beside) = place.unzip();
        config.redaction.compiled().map_err(|e| {
            TrailError::new(ErrorKind::Config, "the configured redaction has a shape that is none")
                .because(e.to_owned())
        })?;
        let shapeless = |text: String| config.redaction.text(&text).unwrap_or(text);
        let identity = Identity {
            original_output_file: shapeless(config.output_file.to_string_lossy().replace('\0', "\u{fffd}")),
            process_id: std::process::id().into(),
            process_name: shapeless(process_name()),
        };
        config.check()?;
        let context = accept::prepare_context(&config.context, &config.redaction)
            .map_err(|e| TrailError::new(ErrorKind::Config, "the configured context cannot be recorded").because(e))?;
        let constant =
            crate::json::escaped_len(&identity.original_output_file) + crate::json::escaped_len(&identity.process_name);
        let rules = Rules::new(config.component.clone(), context, config.redaction.clone(), constant);
        let redirected = location.as_ref().is_some_and(|l| l.redirected);
        let core = Arc::new(Core::new(config, rules, writer));

        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let user = rustix::process::geteuid().as_raw();
        let executable = std::env::current_exe().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        let place = location.as_ref().map_or("memory".into(), |l| l.path.to_string_lossy().into_owned());
        let reason = location.as_ref().map_or("in memory, for tests".into(), |l| match redirected {
            true => format!(
                "output_file names no trail (.db, .sqlite, .sqlite3, .jsonl), so the unified database was taken: {}",
                l.reason
            ),
            false => l.reason.clone(),
        });
        let (version, instance) = (service.version.clone(), service.instance.clone());
        let name = service.name.clone();

        let spawn = |what: &str, f: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(what.into())
                .spawn(f)
                .map(|_| ())
                .map_err(|e| TrailError::new(ErrorKind::Io, "cannot start the trail's thread").because(e))
        };
        let (tell, told) = mpsc::sync_channel(1);
        let (for_writer, for_observers) = (core.clone(), core.clone());
        spawn("argus-observer", Box::new(move || for_observers.observers.run()))?;
        spawn(
            "argus-writer",
            Box::new(move || {
                crate::thread::mark_argus();
                let opened = prepare(make, beside, &for_writer, &identity, &name).and_then(|prepared| {
                    let Prepared { store, keeper, lock, trouble } = prepared;
                    let mut w = Writer::new(for_writer.clone(), store, identity);
                    for_writer.lock().spill.lock = lock;
                    let queue = for_writer.lock().queue.kind().as_str();
                    let why = keeper.as_ref().err().cloned();
                    let event = AuditEvent::info("audit_open")
                        .component("argus")
                        .with("service_name", name.as_str())
                        .with("service_version", &version)
                        .with("service_instance", &instance)
                        .with("host", host.as_str())
                        .with("user", user)
                        .with("executable", executable.as_str())
                        .with("queue", queue)
                        .with("queue_reason", &why)
                        .with("location", place.as_str())
                        .with("location_reason", reason.as_str())
                        .with("argus_version", env!("CARGO_PKG_VERSION"));
                    w.open(&event, trouble)?;
                    Ok((w, keeper.ok()))
                });
                match opened {
                    Ok((w, keeper)) => {
                        if let Some((keeper, thread)) = keeper {
                            let _ = thread.send(keeper);
                        }
                        let _ = tell.send(Ok(()));
                        w.run();
                    }
                    Err(e) => {
                        let _ = tell.send(Err(e));
                    }
                }
            }),
        )
        .inspect_err(|_| core.observers.close())?;
        let opened = told
            .recv()
            .unwrap_or_else(|_| Err(TrailError::new(ErrorKind::Io, "the trail's thread died while opening")));
        if let Err(e) = opened {
            core.lock().closed = true;
            core.spill.notify_all();
            core.observers.close();
            return Err(e);
        }
        core.config.notices().into_iter().for_each(|n| core.observers.error(n));
        if redirected {
            core.observers.error(AuditError::Invalid {
                field: "output_file".into(),
                reason: format!(
                    "`{}` names no trail, so records go to the unified database",
                    core.config.output_file.display()
                )
                .into(),
            });
        }
        Ok(Self { core: core.clone(), handle: Arc::new(Handle { core, location }) })
    }

    /// A guard that closes the trail when it is dropped.
    pub fn guard(&self) -> AuditGuard {
        AuditGuard(self.clone())
    }

    /// Where the records go and why there; `None` if auditing is off or in memory.
    pub fn location(&self) -> Option<&Location> {
        self.handle.location.as_ref()
    }

    /// This logger's identity as a writer.
    pub fn writer_id(&self) -> WriterId {
        self.core.writer
    }

    /// A reader of this trail, which sees all that was accepted before the call.
    ///
    /// # Errors
    /// The trail cannot be read, or could not be flushed within 5 s.
    pub fn reader(&self) -> Result<AuditReader, TrailError> {
        let location = self.location().ok_or_else(|| {
            TrailError::new(ErrorKind::NotFound, "auditing is off, or in memory: there is no file to read")
        })?;
        if let Err(e) = self.flush(DROP_WAIT)
            && !self.health().closed
        {
            return Err(TrailError::new(ErrorKind::Busy, "the trail could not be flushed before reading").because(e));
        }
        AuditReader::open(&location.path)
    }
}

impl AuditSink for AuditLogger {
    #[inline]
    fn enabled(&self, level: Level) -> bool {
        self.core.enabled(level)
    }

    #[inline]
    fn submit(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Option<RecordId>, AuditError> {
        let mut accepted = Accepted::default();
        match self.core.submit(event, carrier, false, &mut accepted) {
            Ok(true) => Ok(Some(accepted.id)),
            Ok(false) => Ok(None),
            Err(e) => Err(*e),
        }
    }

    fn submit_durable(&self, event: &AuditEvent<'_>, carrier: &Carrier<'_>) -> Result<Pending, AuditError> {
        let mut accepted = Accepted::default();
        self.core.submit(event, carrier, true, &mut accepted).map_err(|e| *e)?;
        Ok(accepted.pending.unwrap_or_else(|| Pending::ready(Err(AuditError::Filtered))))
    }

    fn subscribe(&self, observer: Arc<dyn CommitObserver>) -> Result<ObserverId, AuditError> {
        if self.core.forked() {
            return Err(AuditError::Forked);
        }
        self.core.observers.subscribe(observer)
    }

    fn unsubscribe(&self, id: ObserverId) {
        self.core.unsubscribe(id);
    }

    fn report_loss(&self, reason: LossReason, count: u64) {
        let core = &self.core;
        core.lose(reason, count, core.config.clock.now());
    }

    fn flush(&self, timeout: Duration) -> Result<(), AuditError> {
        self.core.flush(timeout)
    }

    fn close(&self, timeout: Duration) -> CloseReport {
        self.core.close(timeout)
    }

    fn health(&self) -> Health {
        self.core.health()
    }
}

impl fmt::Debug for AuditLogger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLogger")
            .field("location", &self.handle.location)
            .field("writer", &self.core.writer)
            .finish_non_exhaustive()
    }
}

/// What the writer begins with.
struct Prepared {
    store: Box<dyn Store>,
    /// The journal's keeper and the thread that waits for it, or why there is no journal.
    keeper: Result<(Keeper, SyncSender<Keeper>), String>,
    lock: Option<WriterLock>,
    /// Why the store is not open yet.
    trouble: Option<TrailError>,
}

/// Before anything is accepted: opens the store, takes the writer's lock, recovers what the dead left, and makes the journal.
fn prepare(
    mut make: Box<late::Open>,
    beside: Option<Beside>,
    core: &Arc<Core>,
    identity: &Identity,
    service: &str,
) -> Result<Prepared, TrailError> {
    let made = make();
    let Some(beside) = beside else {
        return Ok(Prepared { store: made?, keeper: Err("the trail is in memory".into()), lock: None, trouble: None });
    };
    let owner = Owner {
        service_name: service.into(),
        original_output_file: identity.original_output_file.clone(),
        process_id: identity.process_id,
        process_name: identity.process_name.clone(),
        queue: QueueKind::Memory.as_str().into(),
        spill_dir: beside.spill_dir.as_ref().map(|d| d.to_string_lossy().into_owned()).unwrap_or_default(),
        ..Owner::of_this_process()
    };
    match made {
        Ok(store) => prepare_open((make, store), beside, core, identity, owner),
        Err(e) if late::may_pass(&e) => {
            let dir = beside.trail.parent().unwrap_or(Path::new("."));
            crate::store::place::directory(dir, beside.access)?;
            let lock = beside.begin(core.writer, &owner)?;
            Ok(prepare_late(make, beside, core, identity, (owner, lock), e))
        }
        Err(e) => Err(e),
    }
}

fn prepare_open(
    (make, mut store): (Box<late::Open>, Box<dyn Store>),
    beside: Beside,
    core: &Arc<Core>,
    identity: &Identity,
    mut owner: Owner,
) -> Result<Prepared, TrailError> {
    let log_id = store.log_id();
    let reserves = if core.config.journal { beside.reserves() } else { Err("the configuration says so".into()) };
    if reserves.is_ok() {
        owner.queue = QueueKind::Journal.as_str().into();
    }
    let mut lock = beside.begin(core.writer, &owner)?;
    let amend = |lock: &mut WriterLock, owner: &mut Owner| {
        // Whoever recovers this writer must know that its queue could lose.
        owner.queue = QueueKind::Memory.as_str().into();
        let fail = |e| TrailError::io("cannot write the writer's lock file", beside.lock(core.writer), e);
        lock.amend(&owner.queue).map_err(fail)
    };
    match recover(&mut *store, &beside, core, (identity, &owner.service_name)) {
        Ok(()) => {}
        Err(e) if late::may_pass(&e) => {
            // What it wrote in vain must not be there for the one that is opened later.
            let _ = store.close();
            drop(store);
            amend(&mut lock, &mut owner)?;
            return Ok(prepare_late(make, beside, core, identity, (owner, lock), e));
        }
        Err(e) => return Err(e),
    }
    let begun = match crate::recover::begin_log(&mut *store, core, (identity, &owner.service_name)) {
        Err(e) if !late::may_pass(&e) => return Err(e),
        begun => begun,
    };
    // Were the log never begun, nobody would know whose the files are that name it.
    let named = begun.is_ok().then_some(log_id);
    let reserves = reserves.and(begun.map_err(|e| format!("the log cannot be begun yet: {e}")));
    let keeper = reserves.and_then(|()| {
        // Its thread first: without one the journal would not grow, nor be used again.
        let thread = keeper_thread(core).map_err(|e| format!("its thread cannot be started: {e}"))?;
        let made = Keeper::begin(beside.clone(), (log_id, core.writer), owner.clone(), core.config.queue_bytes);
        let (keeper, queue) = made.map_err(|e| e.to_string())?;
        core.use_journal(queue);
        Ok((keeper, thread))
    });
    if keeper.is_err() && owner.queue != QueueKind::Memory.as_str() {
        amend(&mut lock, &mut owner)?;
    }
    if let Err(why) = &keeper
        && core.config.journal
    {
        core.observers.error(AuditError::NoJournal { reason: why.as_str().into() });
    }
    start_spiller(core, beside, named, &owner, identity);
    Ok(Prepared { store, keeper, lock: Some(lock), trouble: None })
}

/// Starts a thread that waits for the keeper whom it runs, and ends if there is none.
fn keeper_thread(core: &Arc<Core>) -> std::io::Result<SyncSender<Keeper>> {
    #[cfg(any(test, feature = "test-util"))]
    core.config.faults.of_thread()?;
    let (start, started) = mpsc::sync_channel::<Keeper>(1);
    let core = core.clone();
    let run = move || {
        if let Ok(keeper) = started.recv() {
            keeper.run(&core);
        }
    };
    std::thread::Builder::new().name("argus-keeper".into()).spawn(run)?;
    Ok(start)
}

/// The store cannot be opened for now. Then all goes to the pending file, and whether that works decides whether the logger opens.
fn prepare_late(
    make: Box<late::Open>,
    beside: Beside,
    core: &Arc<Core>,
    identity: &Identity,
    (owner, lock): (Owner, WriterLock),
    trouble: TrailError,
) -> Prepared {
    let ready = {
        let (beside, core, identity, service) =
            (beside.clone(), core.clone(), identity.clone(), owner.service_name.clone());
        move |store: &mut dyn Store| recover(store, &beside, &core, (&identity, &service))
    };
    let store = Box::new(late::LateStore::new(make, Box::new(ready)));
    start_spiller(core, beside, None, &owner, identity);
    Prepared {
        store,
        // A segment names the log that it belongs to, which nobody knows yet.
        keeper: Err("the trail could not be opened yet".into()),
        lock: Some(lock),
        trouble: Some(trouble),
    }
}

fn recover(store: &mut dyn Store, beside: &Beside, core: &Core, me: (&Identity, &str)) -> Result<(), TrailError> {
    for trouble in crate::recover::recover(store, beside, core, me)? {
        core.observers.error(AuditError::Store(Arc::new(trouble)));
    }
    Ok(())
}

fn start_spiller(core: &Arc<Core>, beside: Beside, log_id: Option<WriterId>, owner: &Owner, identity: &Identity) {
    if let Err(e) = Spiller::new(core.clone(), beside, log_id, owner, identity.clone()).start() {
        core.observers.error(AuditError::Store(Arc::new(e)));
    }
}

/// A logger that is off has no threads; what its user must hear of is worth a short one.
fn tell_why_off(core: &Arc<Core>) {
    let notices = core.config.notices();
    core.observers.close();
    if notices.is_empty() {
        return core.observers.end();
    }
    notices.into_iter().for_each(|n| core.observers.error(n));
    let for_observers = core.clone();
    let told = std::thread::Builder::new().name("argus-observer".into()).spawn(move || for_observers.observers.run());
    if told.is_err() {
        core.observers.end();
    }
}

struct Service {
    name: String,
    version: Option<String>,
    instance: Option<String>,
}

impl Service {
    /// The configuration, else the environment variables of OpenTelemetry, else the program's name.
    fn of(config: &AuditConfig) -> Self {
        let env = config::Service::of(&|name| std::env::var_os(name));
        let name = config.service_name.clone().or(env.name).unwrap_or_else(process_name);
        let version = config.service_version.clone().or(env.version).filter(|v| !v.is_empty());
        let instance = config.service_instance.clone().or(env.instance);
        let name = name.replace('\0', "\u{fffd}");
        // A store keeps the name beside its records.
        Service { name: config.redaction.text(&name).unwrap_or(name), version, instance }
    }
}

/// The executable's file name.
fn process_name() -> String {
    let exe = std::env::current_exe().ok();
    let arg = std::env::args_os().next().map(std::path::PathBuf::from);
    exe.or(arg)
        .as_deref()
        .and_then(Path::file_name)
        .map(|n| n.to_string_lossy().into_owned())
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| "unknown".into())
}
