//! A process that forks: the child gets a named error at once, can open a logger of its own, and disturbs nothing of its parent's.
//! The one `unsafe` of the tests: there is no safe `fork`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::future::Future;
use std::path::Path;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Carrier, ErrorKind,
    LossReason, MemoryTrail, Pending, RecordId,
};
use common::{Dir, assert_ok, close, open, records};

/// What the child does; its result becomes the exit code.
fn child(logger: &AuditLogger, path: &Path, pending: (&Pending, Pending, &Pending)) -> Result<(), String> {
    let forked = |what: &str, e: Option<AuditError>| match e {
        Some(AuditError::Forked) => Ok(()),
        other => Err(format!("{what}: {other:?}")),
    };
    forked("log", logger.log(AuditEvent::info("from_the_child")).err())?;
    forked("durable", logger.log_durable(AuditEvent::info("from_the_child")).err())?;
    forked("relay", logger.submit(&AuditEvent::info("from_the_child"), &Carrier::relay(Duration::from_secs(1))).err())?;
    let (known, unknown, of_a_sink) = pending;
    forked("wait", unknown.wait(Duration::MAX).err())?;
    forked("wait of another sink's", of_a_sink.wait(Duration::MAX).err())?;
    let mut unknown = std::pin::pin!(unknown);
    match unknown.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => forked("await", outcome.err())?,
        Poll::Pending => return Err("await: pending for ever".into()),
    }
    known.wait(Duration::MAX).map_err(|e| format!("known at the fork: {e}"))?;
    forked("flush", logger.flush(Duration::from_secs(60)).err())?;
    logger.report_loss(LossReason::Closed, 1);
    if !logger.health().closed {
        return Err("health".into());
    }
    let guard = logger.guard();
    drop(guard);
    forked("close", logger.close(Duration::from_secs(60)).error)?;
    // SQLite's own state came along from the parent, and is not to be used; a trail of its own in JSONL is fine.
    let refused = AuditLogger::open(AuditConfig::new(path)).err().map(|e| e.kind());
    let reader = AuditReader::open(path).err().map(|e| e.kind());
    if (refused, reader) != (Some(ErrorKind::Forked), Some(ErrorKind::Forked)) {
        return Err(format!("{refused:?} {reader:?}"));
    }
    let own = open(&path.with_extension(format!("{}.jsonl", std::process::id())));
    own.log_durable(AuditEvent::info("from_the_childs_own")).map_err(|e| e.to_string())?;
    close(&own);
    Ok(())
}

#[test]
fn the_child_gets_a_named_error_and_disturbs_nothing() {
    let dir = Dir::new();
    let path = dir.path("t.db");
    let logger = open(&path);
    for n in 0..200 {
        logger.log(AuditEvent::info("before").with("n", n)).unwrap();
    }
    // The queue's lock is taken and given back all the while, as another thread of a service would.
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let busy = std::thread::spawn({
        let (logger, stop) = (logger.clone(), stop.clone());
        move || {
            let mut n = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                logger.log(AuditEvent::info("beside").with("n", n)).unwrap();
                n += 1;
            }
            n
        }
    });
    let known = logger.log_pending(AuditEvent::info("known")).unwrap();
    known.wait(Duration::MAX).unwrap();
    let (of_a_sink, completer) = Pending::channel(RecordId::from_bytes([7; 16]));
    // A store that fails: what becomes of its records is unknown at each fork.
    let stuck = MemoryTrail::new();
    let waits = AuditLogger::open_in_memory(AuditConfig::default(), &stuck).unwrap();
    stuck.fail(u32::MAX);
    for _ in 0..5 {
        let unknown = waits.log_pending(AuditEvent::info("unknown")).unwrap();
        #[allow(unsafe_code)]
        // SAFETY: the child calls only what a child of a threaded process may rely on here: glibc makes its allocator usable in the child. It ends with `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                child(&logger, &path, (&known, unknown, &of_a_sink))
            })) {
                Ok(Ok(())) => 0,
                Ok(Err(e)) => {
                    eprintln!("child: {e}");
                    1
                }
                Err(_) => 2,
            };
            #[allow(unsafe_code)]
            // SAFETY: ends this process.
            unsafe {
                libc::_exit(code)
            }
        }
        let mut status = 0;
        #[allow(unsafe_code)]
        // SAFETY: `status` is a valid place for it.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!((waited, status), (pid, 0));
    }
    drop(completer);
    assert_eq!(of_a_sink.wait(Duration::MAX), Err(AuditError::Lost));
    stuck.fail(0);
    close(&waits);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let n = busy.join().unwrap();
    logger.log_durable(AuditEvent::info("after")).unwrap();
    close(&logger);
    let all = records(&path);
    let count = |event: &str| all.iter().filter(|r| r.event == event).count() as u64;
    assert_eq!((count("before"), count("beside"), count("after")), (200, n, 1));
    assert_eq!(count("from_the_child"), 0);
    assert_eq!(count("audit_recovered"), 0, "the parent lives");
    assert_ok(&path);
}
