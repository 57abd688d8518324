//! Counting one logger's commits as they are told, where there is no trail to read.

use std::sync::Arc;

use argus_core::{Carrier, CommitObserver, Interest, Receipt, Record, State};

use super::Shared;

pub(super) struct Live(pub(super) Arc<Shared>);

impl CommitObserver for Live {
    fn interest(&self) -> Interest {
        Interest::All
    }

    fn committed(&self, record: &Record, receipt: &Receipt, _: &Carrier<'_>) {
        // A spilled record is told again once it is in the trail.
        if receipt.state == State::Committed {
            self.0.lock().counts.add(record.level, &record.component);
        }
    }
}
