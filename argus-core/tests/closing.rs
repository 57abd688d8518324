//! `close` from wherever a program ends: it ends, says so, and what was accepted is in the trail.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Carrier, CloseReport, CommitObserver,
    Interest, MemoryTrail, Receipt, Record,
};
use common::{Dir, WAIT, assert_ok, open, records};

/// Runs `f` on a thread of its own; fails if it does not end.
fn ends<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || drop(tell.send(f())));
    match told.recv_timeout(2 * WAIT) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it ended and told nothing"),
        },
    }
}

/// A user's type that holds the logger and closes it when it goes.
struct Service {
    logger: AuditLogger,
    tell: mpsc::Sender<CloseReport>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.logger.log(AuditEvent::info("stopped")).unwrap();
        self.tell.send(self.logger.close(WAIT)).unwrap();
    }
}

/// The trail verifies, and ends with `event` and the close.
fn assert_closed(path: &Path, event: &str) {
    let all: Vec<_> = records(path).into_iter().map(|r| r.event).collect();
    assert_eq!(all[all.len() - 2..], [event, "audit_close"]);
    assert_ok(path);
}

fn assert_first(report: &CloseReport) {
    assert_eq!((&report.error, report.left, report.already_closed), (&None, 0, false));
}

#[test]
fn in_the_drop_of_a_users_type() {
    let dir = Dir::new();
    for path in dir.both() {
        let (tell, told) = mpsc::channel();
        let logger = open(&path);
        ends(move || drop(Service { logger, tell }));
        assert_first(&told.recv().unwrap());
        assert_closed(&path, "stopped");
    }
}

#[test]
fn while_a_panic_unwinds() {
    let dir = Dir::new();
    for path in dir.both() {
        let (tell, told) = mpsc::channel();
        let logger = open(&path);
        ends(move || {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _service = Service { logger, tell };
                panic!("the service fails");
            }));
            assert!(panicked.is_err());
        });
        assert_first(&told.recv().unwrap());
        assert_closed(&path, "stopped");
    }
}

#[test]
fn by_its_guard_while_a_panic_unwinds_with_clones_left() {
    for journal in [true, false] {
        let dir = Dir::new();
        for path in dir.both() {
            guarded(&path, journal);
        }
    }
}

fn guarded(path: &Path, journal: bool) {
    let logger = AuditLogger::open(AuditConfig::new(path).journal(journal)).unwrap();
    let clone = logger.clone();
    ends(move || {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = logger.guard();
            logger.log(AuditEvent::info("last")).unwrap();
            panic!("the service fails");
        }));
        assert!(panicked.is_err());
    });
    assert!(clone.health().closed);
    assert_closed(path, "last");
}

#[test]
fn on_a_current_thread_runtime() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = open(&path);
        let report = ends(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async move {
                // Somebody waits on the same thread: the writer's wakers need no turn of this runtime.
                let waiting = tokio::spawn({
                    let logger = logger.clone();
                    async move { logger.log_pending(AuditEvent::info("awaited")).unwrap().await }
                });
                tokio::task::yield_now().await;
                let report = logger.close(WAIT);
                waiting.await.unwrap().unwrap();
                report
            })
        });
        assert_first(&report);
        assert_closed(&path, "awaited");
    }
}

#[test]
fn after_the_runtime_is_gone() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = open(&path);
        let report = ends(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
            // A task that waits for its record, and a waker that outlives its runtime.
            let task = runtime.spawn({
                let logger = logger.clone();
                async move { logger.log_pending(AuditEvent::info("in_the_runtime")).unwrap().await }
            });
            runtime.block_on(task).unwrap().unwrap();
            let clone = logger.clone();
            runtime.spawn(async move {
                let _held = clone;
                std::future::pending::<()>().await
            });
            drop(runtime);
            logger.log(AuditEvent::info("afterwards")).unwrap();
            logger.close(WAIT)
        });
        assert_first(&report);
        assert_closed(&path, "afterwards");
    }
}

#[test]
fn a_future_that_outlives_its_runtime_is_told_by_close() {
    let logger = AuditLogger::open_in_memory(AuditConfig::default().journal(false), &MemoryTrail::new()).unwrap();
    ends(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut pending = logger.log_pending(AuditEvent::info("x")).unwrap();
        // Polled once or to its end; then its waker is of a runtime that is gone.
        runtime.block_on(async {
            let pending = &mut pending;
            std::future::poll_fn(|cx| {
                let _ = std::pin::Pin::new(&mut *pending).poll(cx);
                std::task::Poll::Ready(())
            })
            .await;
        });
        drop(runtime);
        assert_first(&logger.close(WAIT));
        pending.wait(WAIT).unwrap();
    });
}

#[test]
fn twice_and_from_two_threads() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = open(&path);
        let gate = Arc::new(Barrier::new(2));
        let mut reports: Vec<CloseReport> = ends({
            let logger = logger.clone();
            move || {
                logger.log(AuditEvent::info("last")).unwrap();
                let threads: Vec<_> = (0..2)
                    .map(|_| {
                        let (logger, gate) = (logger.clone(), gate.clone());
                        std::thread::spawn(move || {
                            gate.wait();
                            logger.close(WAIT)
                        })
                    })
                    .collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            }
        });
        reports.sort_by_key(|r| r.already_closed);
        assert_first(&reports[0]);
        let again = logger.close(Duration::ZERO);
        for report in [&reports[1], &again] {
            assert_eq!((&report.error, report.left, report.already_closed), (&None, 0, true));
            assert_eq!(report.committed, reports[0].committed, "both are told the same");
        }
        assert_eq!(logger.log(AuditEvent::info("late")), Err(AuditError::Closed));
        assert_closed(&path, "last");
    }
}

struct Closes(AuditLogger, Mutex<mpsc::Sender<CloseReport>>);

impl CommitObserver for Closes {
    fn interest(&self) -> Interest {
        Interest::All
    }
    fn committed(&self, record: &Record, _: &Receipt, _: &Carrier<'_>) {
        if record.event == "last" {
            self.1.lock().unwrap().send(self.0.close(Duration::MAX)).unwrap();
        }
    }
}

#[test]
fn from_an_observer() {
    let dir = Dir::new();
    for path in dir.both() {
        let (tell, told) = mpsc::channel();
        let logger = open(&path);
        logger.subscribe(Arc::new(Closes(logger.clone(), Mutex::new(tell)))).unwrap();
        logger.log(AuditEvent::info("last")).unwrap();
        // It does not wait for the thread that it stands on; the trail closes all the same.
        let report = told.recv_timeout(WAIT).unwrap();
        assert!(matches!(report.error, None | Some(AuditError::OnArgusThread)), "{report:?}");
        let report = ends(move || logger.close(WAIT));
        assert_eq!((report.error, report.already_closed), (None, true));
        assert_closed(&path, "last");
    }
}

#[test]
fn from_on_error() {
    let (tell, told) = mpsc::channel();
    let own: Arc<Mutex<Option<AuditLogger>>> = Arc::default();
    let trail = MemoryTrail::new();
    let config = AuditConfig::default().on_error({
        let own = own.clone();
        move |_| {
            let logger = own.lock().unwrap().clone();
            if let Some(logger) = logger {
                drop(tell.send(logger.close(WAIT)));
            }
        }
    });
    let logger = AuditLogger::open_in_memory(config, &trail).unwrap();
    *own.lock().unwrap() = Some(logger.clone());
    trail.fail(1);
    logger.log(AuditEvent::info("last")).unwrap();
    let report = told.recv_timeout(WAIT).unwrap();
    assert!(matches!(report.error, None | Some(AuditError::OnArgusThread)), "{report:?}");
    let report = ends({
        let logger = logger.clone();
        move || logger.close(WAIT)
    });
    assert_eq!((report.error, report.already_closed), (None, true));
    let lines = trail.lines();
    assert!(lines[lines.len() - 2].contains("\"last\"") && lines[lines.len() - 1].contains("audit_close"));
    own.lock().unwrap().take();
}

/// The drop of the last handle on Argus's own thread: an observer that holds it.
#[test]
fn by_the_last_handle_on_argus_own_thread() {
    struct Holds(Mutex<Option<AuditLogger>>, mpsc::Sender<()>);
    impl CommitObserver for Holds {
        fn interest(&self) -> Interest {
            Interest::All
        }
        fn committed(&self, record: &Record, _: &Receipt, _: &Carrier<'_>) {
            if record.event == "last" {
                self.0.lock().unwrap().take();
                self.1.send(()).unwrap();
            }
        }
    }
    let dir = Dir::new();
    for path in dir.both() {
        let (tell, told) = mpsc::channel();
        let logger = open(&path);
        logger.subscribe(Arc::new(Holds(Mutex::new(Some(logger.clone())), tell))).unwrap();
        logger.log(AuditEvent::info("last")).unwrap();
        drop(logger);
        told.recv_timeout(WAIT).unwrap();
        // The writer's end is seen by the lock file that goes with it.
        let (folder, name) = (dir.0.path().to_owned(), path.file_name().unwrap().to_string_lossy().into_owned());
        let lives = move || {
            let mut names = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            names.any(|n| n.starts_with(&name) && n.ends_with(".lock"))
        };
        ends(move || {
            while lives() {
                std::thread::yield_now();
            }
        });
        assert_closed(&path, "last");
    }
}
