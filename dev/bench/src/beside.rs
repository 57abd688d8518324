//! What others do, beside ours: no floor, since neither makes a record that anybody could verify.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::Duration;

use argus_core::AuditSink;
use tracing_appender::non_blocking::NonBlockingBuilder;

use crate::accept::{REQUEST, logger, request};
use crate::row::{CALLS, GROUP, RUNS, Row, interleaved, p50};

fn beside(what: &'static str, other: impl FnMut() -> f64) -> Row {
    let dir = tempfile::tempdir().unwrap();
    let logger = logger(&dir, true);
    let ours = || {
        let t = p50(|| request(&logger));
        logger.flush(Duration::from_secs(60)).unwrap();
        t
    };
    let (ours, floor) = interleaved(RUNS, ours, other);
    Row { name: "", what, unit: "ns", ours, floor, aim: "(beside)", runs: RUNS }
}

/// `tracing`'s JSON lines through the appender's channel and thread, with room for a whole run, so that it drops nothing.
pub(crate) fn tracing_json() -> Row {
    let dir = tempfile::tempdir().unwrap();
    beside(
        "`log`, journal, p50; floor column: `tracing` with JSON `fmt` to tracing-appender's non-blocking writer, same members",
        || {
            let file = std::fs::File::create(dir.path().join("lines.json")).unwrap();
            // Its drop waits until all is written.
            let (writer, _guard) = NonBlockingBuilder::default().buffered_lines_limit(2 * CALLS).finish(file);
            let subscriber = tracing_subscriber::fmt().json().with_writer(writer).finish();
            tracing::subscriber::with_default(subscriber, || {
                p50(|| tracing::info!(user = "jane", status = 200, path = "/orders", "request"))
            })
        },
    )
}

pub(crate) fn mutex_append() -> Row {
    beside("`log`, journal, p50; floor column: a `Mutex<Vec<u8>>` append of as many bytes, nothing else", || {
        let queue = Mutex::new(Vec::with_capacity((CALLS + GROUP) * REQUEST));
        let record = [7u8; REQUEST];
        p50(|| queue.lock().unwrap().extend_from_slice(black_box(&record)))
    })
}
