//! Which events are audit events. Decided from a callsite's metadata, once for each thread, so that a foreign event costs one look into a small table.

use std::cell::Cell;

use tracing_core::Metadata;

use crate::keys;
use crate::self_test;

/// What a callsite can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Never an audit event.
    Foreign,
    /// An audit event, unless `audit = false`.
    Audit,
    /// A record of the `log` crate: its own target is a field of the event.
    LogBridge,
    /// An event of the self-test, never a record.
    Probe,
}

const SLOTS: usize = 256;
type Slot = Cell<(usize, Kind)>;

thread_local!(static SEEN: [Slot; SLOTS] = const { [const { Cell::new((0, Kind::Foreign)) }; SLOTS] });

/// What the callsite of `metadata` is.
#[inline]
pub(crate) fn kind(metadata: &'static Metadata<'static>) -> Kind {
    let address = std::ptr::from_ref(metadata) as usize;
    // Static metadata stand at aligned addresses: the low bits tell nothing.
    let slot = (address >> 4) % SLOTS;
    SEEN.try_with(|seen| {
        let (known, kind) = seen[slot].get();
        if known == address {
            return kind;
        }
        let kind = decide(metadata);
        seen[slot].set((address, kind));
        kind
    })
    // The thread is ending.
    .unwrap_or_else(|_| decide(metadata))
}

fn decide(metadata: &Metadata<'_>) -> Kind {
    if metadata.name() == self_test::NAME && metadata.fields().field(self_test::FIELD).is_some() {
        return Kind::Probe;
    }
    if metadata.fields().iter().any(|f| f.name() == keys::AUDIT || f.name().starts_with(keys::PREFIX)) {
        return Kind::Audit;
    }
    let target = metadata.target();
    if target == "log" && metadata.fields().field("log.target").is_some() {
        return Kind::LogBridge;
    }
    if is_audit_target(target) { Kind::Audit } else { Kind::Foreign }
}

/// Whether a target marks its events.
pub(crate) fn is_audit_target(target: &str) -> bool {
    target == keys::AUDIT || target.starts_with("audit::")
}
