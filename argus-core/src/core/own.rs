//! Records that Argus makes of itself: encoded as a caller's are, numbered and queued by whoever holds the lock.

use std::time::SystemTime;

use super::{Core, State};
use crate::accept::{self, Call};
use crate::entry;
use crate::error::AuditError;
use crate::event::AuditEvent;
use crate::queue::room_for_own;
use crate::time;

/// Numbers and encodes a record that Argus makes of itself, and hands it over in `out`. Nothing that is queued may be behind it, if it is not queued itself.
pub(crate) fn own_entry(
    core: &Core,
    state: &mut State,
    event: &AuditEvent<'_>,
    now: SystemTime,
    out: &mut Vec<u8>,
) -> Result<(), AuditError> {
    own(core, event, now, |entry, ms| {
        number(core, state, entry, ms);
        out.extend_from_slice(entry);
    })
}

/// Queues a record that Argus makes of itself. False: there is no room for it now.
pub(crate) fn queue_own(core: &Core, state: &mut State, event: &AuditEvent<'_>, now: SystemTime) -> bool {
    let mut queued = false;
    // (What Argus says of itself always has the form of an event.)
    let _ = own(core, event, now, |entry, ms| {
        if room_for_own(state, entry.len()) {
            number(core, state, entry, ms);
            if state.queue.push_own(entry) {
                core.wake_keeper(state);
            }
            queued = true;
        }
    });
    queued
}

fn own(
    core: &Core,
    event: &AuditEvent<'_>,
    now: SystemTime,
    done: impl FnOnce(&mut [u8], u64),
) -> Result<(), AuditError> {
    let now = time::split(now);
    let call = Call { now: &now, trace: None, observers: Default::default(), own: true, stack: false };
    accept::with_buffers(|buffers| {
        let len = accept::encode(event, &core.rules, &call, buffers).map_err(|e| *e)?;
        done(buffers.entry.get_mut(..len).unwrap_or_default(), time::millis(now));
        Ok(())
    })
}

fn number(core: &Core, state: &mut State, entry: &mut [u8], ms: u64) {
    state.last_seq += 1;
    let id = core.mint(ms, state.last_seq);
    let check = entry::check(entry);
    entry::number(entry, state.last_seq, id, check);
}
