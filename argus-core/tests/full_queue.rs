//! What a full queue takes, and when it takes records again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/spilling.rs"]
mod spilling;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Barrier};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditError, AuditEvent, AuditLogger, AuditSink, AuditSinkExt, Carrier, ErrorKind, Faults, Overflow,
    QueueKind, StoreFault,
};
use common::{Dir, WAIT, assert_ok, close, open};
use spilling::{close_now, numbers, until};

/// Foreign code on the writer's thread, between a commit and the next look at the queue.
struct Meet(Barrier);

impl Wake for Meet {
    fn wake(self: Arc<Self>) {
        self.0.wait();
        self.0.wait();
    }
}

#[test]
fn after_a_flush_a_full_queue_has_room_again() {
    let dir = Dir::new();
    for path in dir.both() {
        for journal in [false, true] {
            let path = path.with_file_name(format!("{journal}{}", path.file_name().unwrap().to_string_lossy()));
            let faults = Faults::new();
            let config = AuditConfig::new(&path).service("tests", "1").faults(&faults).journal(journal);
            let logger = AuditLogger::open(config.queue_bytes(16 << 10).overflow(Overflow::Reject)).unwrap();
            let text = "x".repeat(9_000);
            let large = AuditEvent::info("n").with("a", text.as_str());
            faults.store(StoreFault::Stuck, ErrorKind::Io, u32::MAX);
            let pending = logger.submit_durable(&large, &Carrier::default()).unwrap();
            let meet = Arc::new(Meet(Barrier::new(2)));
            let waker = Waker::from(meet.clone());
            let mut pending = pin!(pending);
            assert!(pending.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            let another = logger.submit(&large, &Carrier::default());
            assert!(matches!(another, Err(AuditError::Full { .. })), "{another:?}");
            faults.heal();
            meet.0.wait();
            logger.flush(WAIT).unwrap();
            let accepted = logger.submit(&large, &Carrier::default());
            meet.0.wait();
            assert!(accepted.is_ok(), "{accepted:?}");
            close(&logger);
            assert_ok(&path);
        }
    }
}

/// More records than one segment of the journal has room for.
const MANY: u64 = 1_500;

/// A logger whose journal gets no second segment. `None` where there is no journal.
fn one_segment(path: &Path, overflow: Overflow) -> Option<(AuditLogger, Faults)> {
    let faults = Faults::new();
    faults.segments(ErrorKind::DiskFull);
    let config = AuditConfig::new(path).service("tests", "1").faults(&faults).queue_bytes(16 << 20);
    let logger = AuditLogger::open(config.overflow(overflow)).unwrap();
    if logger.health().queue == QueueKind::Memory {
        println!("SKIPPED: no journal on this file system");
        return None;
    }
    // A second one is made when the first is in use.
    let text = "x".repeat(150_000);
    logger.log_durable(AuditEvent::info("first").with("a", text.as_str())).unwrap();
    let says = |h: argus_core::Health| h.degraded.is_some_and(|d| d.contains("the queue cannot grow"));
    until("the trouble", || says(logger.health()));
    Some((logger, faults))
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| p.extension().is_some_and(|e| e == "journal")).collect()
}

fn log(logger: &AuditLogger, i: u64) -> Result<(), AuditError> {
    let text = "x".repeat(2_000);
    let event = AuditEvent::info("n").with("a", text.as_str()).with("i", i);
    logger.submit(&event, &Carrier::default()).map(drop)
}

/// Fills the only segment, from the record `first` on; gives the first that is refused.
fn fill(logger: &AuditLogger, first: u64) -> u64 {
    for i in first..first + MANY {
        if let Err(e) = log(logger, i) {
            assert!(matches!(e, AuditError::Full { .. }), "{e}");
            return i;
        }
    }
    panic!("one segment has room for more than {MANY}");
}

fn stuck(faults: &Faults) {
    faults.store(StoreFault::Stuck, ErrorKind::Io, u32::MAX);
}

/// The store works again, the journal gets no segment.
fn go_on(faults: &Faults) {
    faults.store(StoreFault::Begin, ErrorKind::Io, 0);
}

#[test]
fn a_full_segment_without_a_second_refuses_and_serves_again_once_it_is_committed() {
    let dir = Dir::new();
    for path in dir.both() {
        for overflow in [Overflow::Reject, Overflow::Block { timeout: Duration::from_millis(50) }] {
            let path = path.with_file_name(format!(
                "{}{}",
                matches!(overflow, Overflow::Reject),
                path.file_name().unwrap().to_string_lossy()
            ));
            let Some((logger, faults)) = one_segment(&path, overflow) else { return };
            let mut next = 0;
            for _ in 0..3 {
                stuck(&faults);
                let refused = fill(&logger, next);
                assert!(refused - next > 400, "{next}..{refused}");
                next = refused;
                go_on(&faults);
                logger.flush(WAIT).unwrap();
                assert_eq!(segments(&path).len(), 1);
            }
            assert!(!logger.health().is_ok(), "it still says so");
            faults.heal();
            until("a second segment", || logger.health().is_ok());
            log(&logger, next).unwrap();
            close(&logger);
            assert_eq!(segments(&path), Vec::<PathBuf>::new());
            assert_eq!(numbers(&path), (0..=next).collect::<Vec<_>>());
            assert_ok(&path);
        }
    }
}

#[test]
fn callers_wait_for_the_only_segment() {
    let dir = Dir::new();
    for path in dir.both() {
        let Some((logger, _faults)) = one_segment(&path, Overflow::Block { timeout: WAIT }) else { return };
        (0..3 * MANY).for_each(|i| log(&logger, i).unwrap());
        assert_eq!(segments(&path).len(), 1);
        close(&logger);
        assert_eq!(numbers(&path), (0..3 * MANY).collect::<Vec<_>>());
        assert_ok(&path);
    }
}

#[test]
fn a_full_segment_without_a_second_spills() {
    let dir = Dir::new();
    for path in dir.both() {
        let Some((logger, faults)) = one_segment(&path, Overflow::Spill) else { return };
        // (A store that is stuck holds its batch, and with it the segment.)
        faults.store(StoreFault::Begin, ErrorKind::DiskFull, u32::MAX);
        (0..MANY).for_each(|i| log(&logger, i).unwrap());
        assert!(logger.health().pending > 0);
        go_on(&faults);
        logger.flush(WAIT).unwrap();
        close(&logger);
        assert_eq!(numbers(&path), (0..MANY).collect::<Vec<_>>());
        assert_ok(&path);
    }
}

#[test]
fn one_full_segment_of_a_dead_writer_is_recovered() {
    let dir = Dir::new();
    for path in dir.both() {
        let Some((logger, faults)) = one_segment(&path, Overflow::Reject) else { return };
        faults.spill(ErrorKind::DiskFull);
        faults.store(StoreFault::Begin, ErrorKind::DiskFull, u32::MAX);
        let refused = fill(&logger, 0);
        assert!(close_now(&logger).error.is_some());
        assert_eq!(segments(&path).len(), 1);
        close(&open(&path));
        assert_eq!(numbers(&path), (0..refused).collect::<Vec<_>>());
        assert_ok(&path);
    }
}
