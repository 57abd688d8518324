//! Counting what a trail holds: a thread reads each record once, in order, so that restarts, other writers and slow moments make no difference.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use argus_core::{AuditReader, Filter};

use super::Shared;

/// How often the thread looks without being asked, so that a collection finds little left to read.
const IDLE: Duration = Duration::from_secs(5);

/// The body of the thread. It ends when `Shared::stop` is set.
pub(super) fn run(shared: &Arc<Shared>, reader: &AuditReader) {
    let mut tail = reader.tail(Filter::new());
    loop {
        // What was asked for before this reading is answered by it.
        let asked = shared.lock().asked;
        let ok = loop {
            match tail.poll() {
                Ok(records) => {
                    let mut state = shared.lock();
                    if state.stop {
                        return;
                    }
                    records.iter().for_each(|r| state.counts.add(r.level, &r.component));
                    if records.is_empty() {
                        break true;
                    }
                }
                // The tail stands where it stood: nothing is passed over.
                Err(_) => {
                    shared.read_errors.fetch_add(1, Ordering::Relaxed);
                    break false;
                }
            }
        };
        let mut state = shared.lock();
        state.complete |= ok;
        (state.answered, state.current) = (asked, ok);
        shared.answer.notify_all();
        let until = Instant::now() + IDLE;
        while !state.stop && state.asked == asked {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) else { break };
            state = shared.work.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        if state.stop {
            return;
        }
    }
}
