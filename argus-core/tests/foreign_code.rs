//! Foreign code on our path (clocks, hooks, wakers, destructors, observers): what panics there is caught, loses nothing in silence, and leaves nobody waiting.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, SystemTime};

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Carrier, Clock, CommitObserver,
    Durability, Interest, Level, MemoryTrail, Outcome, Overflow, Receipt, Record, Trace, TraceContext,
};
use common::{Dir, WAIT, assert_ok, close, open, records};

#[derive(Debug, Default)]
struct Bomb {
    /// Panics on Argus's own threads only.
    armed: AtomicBool,
}

impl Clock for Bomb {
    fn now(&self) -> SystemTime {
        let argus = std::thread::current().name().is_some_and(|n| n.starts_with("argus-"));
        assert!(!(argus && self.armed.load(Ordering::SeqCst)), "a clock that panics");
        SystemTime::now()
    }
}

#[test]
fn a_writer_that_dies_leaves_nobody_waiting_and_says_so() {
    let bomb = Arc::new(Bomb::default());
    let (tell, told) = mpsc::channel();
    let config = AuditConfig::default().clock(bomb.clone()).on_error(move |e| drop(tell.send(e.clone())));
    let logger = AuditLogger::open_in_memory(config, &MemoryTrail::new()).unwrap();
    logger.log_durable(AuditEvent::info("kept")).unwrap();
    bomb.armed.store(true, Ordering::SeqCst);
    let panicked = AuditError::Panicked { field: "writer".into() };
    assert_eq!(logger.log_durable(AuditEvent::info("never")), Err(panicked.clone()));
    assert_eq!(told.recv_timeout(WAIT).unwrap(), panicked);
    assert_eq!(logger.flush(WAIT), Err(panicked.clone()), "not everything that was accepted is committed");
    assert_eq!(logger.log(AuditEvent::info("late")), Err(AuditError::Closed));
    let report = logger.close(WAIT);
    assert_eq!((report.error, report.left), (Some(panicked), 1));
    let h = logger.health();
    assert_eq!((h.submitted, h.committed, h.lost, h.rejected, h.queued), (3, 1, 1, 1, 0));
    assert!(h.closed && h.degraded.is_some());
}

#[test]
fn a_waker_that_panics_harms_no_other() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }
    let logger = AuditLogger::open_in_memory(
        AuditConfig::default().commit_delay(Duration::from_millis(50)),
        &MemoryTrail::new(),
    )
    .unwrap();
    let waker = Waker::from(Arc::new(Panics));
    let mut one = pin!(logger.log_pending(AuditEvent::info("one")).unwrap());
    let _ = one.as_mut().poll(&mut Context::from_waker(&waker));
    logger.log_durable(AuditEvent::info("two")).unwrap();
    assert!(one.wait(WAIT).is_ok());
    close(&logger);
}

#[test]
fn a_trace_hook_that_panics_costs_the_trace_and_not_the_record() {
    let dir = Dir::new();
    let (tell, told) = mpsc::channel();
    let config = AuditConfig::new(dir.path("t.db"))
        .trace_context(|| panic!("a hook that panics"))
        .on_error(move |e| drop(tell.send(e.clone())));
    let logger = AuditLogger::open(config).unwrap();
    logger.log(AuditEvent::info("direct")).unwrap();
    logger.submit(&AuditEvent::info("relayed"), &Carrier::relay(WAIT)).unwrap();
    assert_eq!(told.recv_timeout(WAIT).unwrap(), AuditError::Panicked { field: "trace_context".into() });
    let parent = Trace::Parent(TraceContext { trace_id: [1; 16], span_id: [2; 8], ..TraceContext::default() });
    logger.log(AuditEvent::info("needs_no_hook").trace(parent)).unwrap();
    close(&logger);
    let traces: Vec<_> = records(&dir.path("t.db")).iter().map(|r| r.trace_id).collect();
    assert_eq!(traces, [None, None, None, Some([1; 16]), None]);
}

#[test]
fn on_error_may_call_the_logger_and_is_never_made_to_wait() {
    for overflow in [Overflow::Reject, Overflow::Block { timeout: Duration::from_secs(3600) }] {
        for full in [false, true] {
            let own: Arc<Mutex<Option<AuditLogger>>> = Arc::default();
            let ((go, gate), (tell, told)) = (mpsc::channel::<()>(), mpsc::channel());
            let gate = Mutex::new(Some(gate));
            let hears = own.clone();
            let config = AuditConfig::default().overflow(overflow).on_error(move |_| {
                // At the first trouble, when the test has made the queue as it wants it.
                let Some(gate) = gate.lock().unwrap().take() else { return };
                gate.recv().unwrap();
                let logger = hears.lock().unwrap().clone().unwrap();
                let log = logger.log(AuditEvent::info("logged")).map(drop);
                let durable = logger.log_durable(AuditEvent::info("durable")).map(drop);
                tell.send((log, durable, logger.flush(Duration::MAX))).unwrap();
            });
            let trail = MemoryTrail::new();
            // An empty queue takes any record; then this one is full.
            let config = if full { config.queue_bytes(1) } else { config };
            let logger = AuditLogger::open_in_memory(config, &trail).unwrap();
            *own.lock().unwrap() = Some(logger.clone());
            trail.fail(u32::MAX);
            logger.log(AuditEvent::info("first")).unwrap();
            go.send(()).unwrap();
            let (log, durable, flush) = told.recv_timeout(WAIT).expect("it hangs");
            assert_eq!(flush, Err(AuditError::OnArgusThread), "the first record is not committed yet");
            if full {
                let is_full = |r: &Result<(), AuditError>| matches!(r, Err(AuditError::Full { .. }));
                assert!(is_full(&log) && is_full(&durable), "{log:?} {durable:?}");
            } else {
                // Accepted, but not waited for.
                assert_eq!((log, durable), (Ok(()), Err(AuditError::OnArgusThread)));
            }
            trail.fail(0);
            logger.flush(WAIT).unwrap();
            close(&logger);
            let h = logger.health();
            let (accepted, rejected) = if full { (1, 2) } else { (3, 0) };
            assert_eq!((h.committed, h.rejected, h.lost), (accepted, rejected, 0));
            let text = trail.lines().join("\n");
            for event in ["first", "logged", "durable"] {
                let there = text.matches(&format!("\"event\":\"{event}\"")).count();
                assert_eq!(there, usize::from(event == "first" || !full), "{event}");
            }
            own.lock().unwrap().take();
        }
    }
}

#[test]
fn a_destructor_of_a_thread_local_may_log() {
    struct LogsWhenDropped(AuditLogger);
    impl Drop for LogsWhenDropped {
        fn drop(&mut self) {
            self.0.log(AuditEvent::info("from_a_destructor").with("n", 1)).unwrap();
        }
    }
    thread_local!(static LAST: std::cell::RefCell<Option<LogsWhenDropped>> = const { std::cell::RefCell::new(None) });
    let dir = Dir::new();
    let logger = open(&dir.path("t.db"));
    let clone = logger.clone();
    std::thread::spawn(move || {
        // Registered before ours, so that it is dropped after it.
        LAST.with(|l| *l.borrow_mut() = Some(LogsWhenDropped(clone.clone())));
        clone.log(AuditEvent::info("first")).unwrap();
    })
    .join()
    .unwrap();
    close(&logger);
    assert!(records(&dir.path("t.db")).iter().any(|r| r.event == "from_a_destructor"));
}

#[derive(Default)]
struct Hears {
    heard: AtomicU64,
}

impl CommitObserver for Hears {
    fn interest(&self) -> Interest {
        Interest::All
    }
    fn committed(&self, _: &Record, _: &Receipt, _: &Carrier<'_>) {
        self.heard.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn who_unsubscribes_still_hears_of_what_was_accepted_before() {
    let config = AuditConfig::default().commit_delay(Duration::from_secs(3600));
    let logger = AuditLogger::open_in_memory(config, &MemoryTrail::new()).unwrap();
    let hears = Arc::new(Hears::default());
    let id = logger.subscribe(hears.clone()).unwrap();
    for _ in 0..10 {
        logger.log(AuditEvent::info("before")).unwrap();
    }
    logger.unsubscribe(id);
    logger.log(AuditEvent::info("after_but_in_the_same_group")).unwrap();
    logger.flush(WAIT).unwrap();
    logger.log(AuditEvent::info("long_after")).unwrap();
    close(&logger);
    let heard = hears.heard.load(Ordering::SeqCst);
    assert!((10..=11).contains(&heard), "{heard}");
    assert_eq!(Arc::strong_count(&hears), 1, "let go of");
}

#[test]
fn an_observer_whose_drop_calls_the_sink_and_panics_ends_nothing() {
    struct Rude(AuditLogger);
    impl CommitObserver for Rude {
        fn committed(&self, _: &Record, _: &Receipt, _: &Carrier<'_>) {}
    }
    impl Drop for Rude {
        fn drop(&mut self) {
            self.0.health();
            self.0.report_loss(argus_core::LossReason::Panicked, 1);
            panic!("a drop that panics");
        }
    }
    for early in [true, false] {
        let logger = AuditLogger::open_in_memory(AuditConfig::default().on_error(|_| {}), &MemoryTrail::new()).unwrap();
        let id = logger.subscribe(Arc::new(Rude(logger.clone()))).unwrap();
        if early {
            logger.unsubscribe(id);
        }
        logger.log_durable(AuditEvent::info("x")).unwrap();
        close(&logger);
        let again = logger.close(WAIT);
        assert!(again.already_closed && again.error.is_none());
    }
}

#[test]
fn a_committed_record_from_an_argus_thread_is_accepted_and_not_waited_for() {
    struct Calls(AuditLogger, std::sync::Mutex<mpsc::Sender<Result<bool, AuditError>>>);
    impl CommitObserver for Calls {
        fn interest(&self) -> Interest {
            Interest::All
        }
        fn committed(&self, r: &Record, _: &Receipt, _: &Carrier<'_>) {
            if r.event == "calls" {
                let result = self.0.log(AuditEvent::security("called")).map(|id| id.is_some());
                self.1.lock().unwrap().send(result).unwrap();
            }
        }
    }
    let dir = Dir::new();
    let config = AuditConfig::new(dir.path("t.db")).durability_from(Level::Security, Durability::Committed);
    let logger = AuditLogger::open(config).unwrap();
    let (tell, told) = mpsc::channel();
    let id = logger.subscribe(Arc::new(Calls(logger.clone(), std::sync::Mutex::new(tell)))).unwrap();
    logger.log(AuditEvent::info("calls")).unwrap();
    assert_eq!(told.recv_timeout(WAIT).unwrap(), Ok(true));
    logger.unsubscribe(id);
    close(&logger);
    assert_eq!(logger.health().relay_not_waited, 1);
    assert_eq!(records(&dir.path("t.db")).iter().filter(|r| r.event == "called").count(), 1);
}

#[test]
fn nobody_speaks_as_argus() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = open(&path);
        for event in ["audit_open", "audit_close", "audit_gap", "audit_segment", "audit_recovered"] {
            let e = logger.log(AuditEvent::info(event).with("first", 1).with("last", 2)).unwrap_err();
            assert!(matches!(&e, AuditError::Invalid { field, .. } if field == "event"), "{e}");
            logger.log(AuditEvent::info(event).component("shop").outcome(Outcome::Success)).unwrap();
        }
        logger.log(AuditEvent::info("audit_something")).unwrap();
        close(&logger);
        assert_ok(&path);
    }
}
