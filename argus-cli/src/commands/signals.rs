//! SIGINT and SIGTERM as a value to wait for.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::Failure;

/// Tells when the process was asked to stop.
#[derive(Debug)]
pub(crate) struct Stop(Receiver<i32>);

impl Stop {
    pub(crate) fn install() -> Result<Self, Failure> {
        let mut signals =
            Signals::new([SIGINT, SIGTERM]).map_err(|e| Failure::Other(format!("cannot watch for signals: {e}")))?;
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for s in signals.forever() {
                if tell.send(s).is_err() {
                    return;
                }
            }
        });
        Ok(Stop(told))
    }

    /// Waits at most so long; true if the process is to stop.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        !matches!(self.0.recv_timeout(timeout), Err(RecvTimeoutError::Timeout))
    }
}
