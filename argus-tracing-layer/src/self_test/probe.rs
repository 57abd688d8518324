//! Callsites of the self-test: as those of a macro, but for a target that is known only when the test runs.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_core::callsite::{self, Callsite};
use tracing_core::field::{FieldSet, Value};
use tracing_core::span::{Attributes, Id};
use tracing_core::subscriber::Interest;
use tracing_core::{Dispatch, Event, Kind, Level, LevelFilter, Metadata, identify_callsite};

use crate::keys;

/// The name of probes.
pub(crate) const NAME: &str = "argus.self_test";
/// The field that only probes have.
pub(crate) const FIELD: &str = "argus.self_test";

/// The first marks it as the macros do.
const FIELDS: &[&str] = &[keys::EVENT, FIELD];

const NEVER: u8 = 0;
const SOMETIMES: u8 = 1;
const ALWAYS: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Event,
    Span,
}

#[derive(Debug)]
pub(super) struct Probe {
    target: &'static str,
    level: Level,
    shape: Shape,
    metadata: OnceLock<Metadata<'static>>,
    /// What all subscribers together answered, as a macro keeps it.
    interest: AtomicU8,
}

impl Probe {
    /// The probe of that target, level and shape; made and registered once, and kept for ever, since metadata are.
    pub(super) fn of(target: &str, level: Level, shape: Shape) -> &'static Self {
        static PROBES: Mutex<Vec<&'static Probe>> = Mutex::new(Vec::new());
        let mut probes = PROBES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = probes.iter().find(|p| (p.target, p.level, p.shape) == (target, level, shape)) {
            return known;
        }
        let target = String::leak(target.to_owned());
        let made = Self { target, level, shape, metadata: OnceLock::new(), interest: AtomicU8::new(SOMETIMES) };
        let probe: &'static Self = Box::leak(Box::new(made));
        let fields = FieldSet::new(FIELDS, identify_callsite!(probe));
        let kind = if shape == Shape::Span { Kind::SPAN } else { Kind::EVENT };
        probe.metadata.get_or_init(|| Metadata::new(NAME, target, level, None, None, None, fields, kind));
        probes.push(probe);
        drop(probes);
        // Calls into every subscriber: nothing is locked here.
        callsite::register(probe);
        probe
    }

    pub(super) fn metadata(&self) -> &Metadata<'static> {
        let Some(metadata) = self.metadata.get() else { unreachable!("set before anybody else has the probe") };
        metadata
    }

    pub(super) fn target(&self) -> &'static str {
        self.target
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// What a macro asks before it makes anything; the static maximum is the caller's.
    pub(super) fn is_enabled(&'static self, dispatch: &Dispatch) -> bool {
        self.level <= LevelFilter::current()
            && match self.interest.load(Ordering::Relaxed) {
                NEVER => false,
                ALWAYS => true,
                _ => dispatch.enabled(self.metadata()),
            }
    }

    /// Sends it as an event, whatever the filters that are asked before one would say.
    pub(super) fn send(&'static self, dispatch: &Dispatch) {
        let metadata = self.metadata();
        let values = [Some(&NAME as &dyn Value), Some(&true as &dyn Value)];
        dispatch.event(&Event::new(metadata, &metadata.fields().value_set_all(&values)));
    }

    /// Makes it as a span; likewise.
    pub(super) fn open(&'static self, dispatch: &Dispatch) -> Id {
        let metadata = self.metadata();
        let values = [Some(&NAME as &dyn Value), Some(&true as &dyn Value)];
        dispatch.new_span(&Attributes::new(metadata, &metadata.fields().value_set_all(&values)))
    }
}

impl Callsite for Probe {
    fn set_interest(&self, interest: Interest) {
        let kept = if interest.is_never() {
            NEVER
        } else if interest.is_always() {
            ALWAYS
        } else {
            SOMETIMES
        };
        self.interest.store(kept, Ordering::Relaxed);
    }

    fn metadata(&self) -> &Metadata<'_> {
        Probe::metadata(self)
    }
}
