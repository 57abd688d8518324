//! The self-test: events that are made like audit events and sent the way of a macro, which the layer notes instead of recording.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;

use argus_core::Trace;
use tracing_core::{Dispatch, Level, LevelFilter, dispatcher};

use crate::trace;

mod probe;

pub(crate) use probe::{FIELD, NAME};
use probe::{Probe, Shape};

/// The levels of `audit_info!` to `audit_security!`.
const LEVELS: [Level; 3] = [Level::INFO, Level::WARN, Level::ERROR];

/// What keeps audit events, or their trace ids, from the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// No `AuditLayer` hears anything of this dispatch: it is not in the stack, or it is an `Option` or a `reload` that holds none.
    NotInStack,
    /// The program was compiled without events of this level (features `max_level_*` and `release_max_level_*` of `tracing`).
    StaticMaxLevel {
        /// The level of the lost events.
        level: Level,
        /// The most verbose level that is compiled in.
        max: LevelFilter,
    },
    /// All subscribers of the process together say that they want nothing so verbose (`max_level_hint`).
    MaxLevelHint {
        /// The level of the lost events.
        level: Level,
        /// The most verbose level that they want.
        max: LevelFilter,
    },
    /// A filter for the whole stack refuses: an `EnvFilter`, a `LevelFilter`, or `enabled` of any layer.
    GlobalFilter {
        /// The target of the lost events.
        target: String,
        /// The level of the lost events.
        level: Level,
    },
    /// A filter on the `AuditLayer` alone refuses (`with_filter`).
    LayerFilter {
        /// The target of the lost events.
        target: String,
        /// The level of the lost events.
        level: Level,
    },
    /// A layer refuses the event when it sees its values (`event_enabled`).
    EventFilter {
        /// The target of the lost events.
        target: String,
        /// The level of the lost events.
        level: Level,
    },
    /// A layer without a filter answered `never` when the callsite was registered, which switches it off for all.
    NeverInterest {
        /// The target of the lost events.
        target: String,
        /// The level of the lost events.
        level: Level,
    },
    /// The calling code suppresses telemetry (OpenTelemetry's suppressed context), and the layer with it.
    Suppressed,
    /// The sink takes not even SECURITY records: it is closed or switched off.
    SinkRefuses,
    /// Inside a span of `tracing-opentelemetry` the layer found no trace ids, or those of another: contexts are not activated. See
    /// [`AuditLayer::with_inactive_contexts`](crate::AuditLayer).
    NoActiveContext,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInStack => f.write_str("no AuditLayer is in this subscriber"),
            Self::StaticMaxLevel { level, max } => {
                write!(f, "{level} events are not compiled in: `tracing`'s static maximum is {max}")
            }
            Self::MaxLevelHint { level, max } => {
                write!(f, "{level} events are switched off by a level hint: the maximum of this process is {max}")
            }
            Self::GlobalFilter { target, level } => {
                write!(f, "a filter for the whole stack drops {level} events of target `{target}`")
            }
            Self::LayerFilter { target, level } => {
                write!(f, "a filter on the AuditLayer drops {level} events of target `{target}`; use `filtered()` instead of `with_filter`")
            }
            Self::EventFilter { target, level } => {
                write!(f, "a layer's `event_enabled` drops {level} events of target `{target}`")
            }
            Self::NeverInterest { target, level } => {
                write!(f, "a layer answered `never` for {level} events of target `{target}`, which switches them off for all")
            }
            Self::Suppressed => f.write_str("telemetry is suppressed in the calling context"),
            Self::SinkRefuses => f.write_str("the sink takes no records: it is closed or switched off"),
            Self::NoActiveContext => {
                f.write_str("no OpenTelemetry context is active inside a span: records will have no trace ids (context activation is off)")
            }
        }
    }
}

/// The self-test failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfTestError {
    problems: Vec<Problem>,
}

impl SelfTestError {
    /// What was found, each once; never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for SelfTestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("audit events do not reach the trail as they should")?;
        self.problems.iter().enumerate().try_for_each(|(n, p)| write!(f, "{} {p}", if n == 0 { ":" } else { ";" }))
    }
}

impl Error for SelfTestError {}

/// What became of the trace ids of an event inside a span, where the self-test passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceIds {
    /// The record would have those of its span.
    Found,
    /// No layer of `tracing-opentelemetry` took the probe's span, so there are none to be found.
    NotInUse,
    /// A filter for the whole stack refused the probe's span.
    NoSpan,
}

/// Sends probes through the stack of `dispatch` and says what keeps audit events from the trail: [`SelfTest::run`] with the usual targets and levels.
///
/// # Errors
/// [`SelfTestError`] names each [`Problem`].
///
/// ```
/// # use argus_core::{AuditConfig, AuditLogger};
/// # use argus_tracing_layer::{AuditLayer, Problem, self_test};
/// # use tracing_subscriber::{filter::LevelFilter, prelude::*};
/// # let dir = tempfile::tempdir()?;
/// # let logger = AuditLogger::open(AuditConfig::new(dir.path().join("audit.jsonl")))?;
/// let subscriber = tracing_subscriber::registry().with(AuditLayer::new(logger)).with(LevelFilter::WARN);
/// let dispatch = tracing::Dispatch::new(subscriber); // or `tracing::dispatcher::get_default(Clone::clone)`
/// let error = self_test(&dispatch).unwrap_err();
/// assert!(error.to_string().contains("drops INFO events of target `audit`"));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn self_test(dispatch: &Dispatch) -> Result<TraceIds, SelfTestError> {
    SelfTest::new().run(dispatch)
}

/// A self-test: which events are tried. Each is an event `argus.self_test` that is marked by field, and that every other layer sees as any event; a stack with
/// OpenTelemetry also makes a span of that name. The trail has no record of it.
#[derive(Clone, Debug)]
pub struct SelfTest {
    targets: Vec<String>,
    levels: Vec<Level>,
}

impl Default for SelfTest {
    fn default() -> Self {
        Self::new()
    }
}

impl SelfTest {
    /// Tries the targets `audit` and `argus_tracing_layer`, at the levels of the macros: INFO, WARN and ERROR.
    pub fn new() -> Self {
        Self { targets: vec!["audit".into(), env!("CARGO_CRATE_NAME").into()], levels: LEVELS.to_vec() }
    }

    /// Also tries this target: the path of a module that logs audit events, since filters judge by it. Each target is kept for the life of the process, once.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>) -> Self {
        let target = target.into();
        if !self.targets.contains(&target) {
            self.targets.push(target);
        }
        self
    }

    /// Also tries this level.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        if !self.levels.contains(&level) {
            self.levels.push(level);
        }
        self
    }

    /// Sends the probes on the calling thread.
    ///
    /// # Errors
    /// [`SelfTestError`] names each [`Problem`].
    pub fn run(&self, dispatch: &Dispatch) -> Result<TraceIds, SelfTestError> {
        self.run_with(dispatch, tracing::level_filters::STATIC_MAX_LEVEL)
    }

    fn run_with(&self, dispatch: &Dispatch, static_max: LevelFilter) -> Result<TraceIds, SelfTestError> {
        dispatcher::with_default(dispatch, || {
            let mut problems = Vec::new();
            let mut found = |problem: Option<Problem>| {
                if let Some(problem) = problem.filter(|p| !problems.contains(p)) {
                    problems.push(problem);
                }
            };
            if !is_in_stack(dispatch) {
                return Err(SelfTestError { problems: vec![Problem::NotInStack] });
            }
            for target in &self.targets {
                for level in &self.levels {
                    found(event(dispatch, Probe::of(target, *level, Shape::Event), static_max));
                }
            }
            // Any target does: the last is the caller's own, if one was given.
            let last = self.targets.last().map_or("audit", String::as_str);
            let ids = match in_span(dispatch, last, static_max) {
                Ok(ids) => ids,
                Err(problem) => {
                    found(Some(problem));
                    TraceIds::NotInUse
                }
            };
            if problems.is_empty() { Ok(ids) } else { Err(SelfTestError { problems }) }
        })
    }
}

/// What the layers noted of a probe.
#[derive(Clone, Debug, Default)]
struct Heard {
    count: usize,
    suppressed: bool,
    refused: bool,
    /// Trace and span id that the last one found.
    ids: Option<([u8; 16], [u8; 8])>,
}

thread_local!(static HEARD: RefCell<Heard> = RefCell::default());

/// An `AuditLayer` was given a probe.
pub(crate) fn heard(trace: &Trace<'_>, suppressed: bool, sink_open: bool) {
    let ids = match trace {
        Trace::Parent(t) => Some((t.trace_id, t.span_id)),
        _ => None,
    };
    HEARD.with_borrow_mut(|h| {
        *h = Heard { count: h.count + 1, suppressed, refused: h.refused || !sink_open, ids };
    });
}

/// An `AuditLayer` was given the span of a probe.
pub(crate) fn heard_span() {
    HEARD.with_borrow_mut(|h| h.count += 1);
}

/// What is heard while `f` runs.
fn listen(f: impl FnOnce()) -> Heard {
    HEARD.take();
    f();
    HEARD.take()
}

/// Past every filter: an event that none was asked about, or, where a layer refuses it for its values, a span.
fn is_in_stack(dispatch: &Dispatch) -> bool {
    let event = Probe::of("audit", Level::ERROR, Shape::Event);
    // Twice: a question before this call may have left its mark in a per-layer filter, which the first takes away.
    let heard = listen(|| (0..2).for_each(|_| event.send(dispatch)));
    let span = || {
        dispatch.try_close(Probe::of("audit", Level::ERROR, Shape::Span).open(dispatch));
    };
    heard.count > 0 || listen(span).count > 0
}

/// Sends an event as a macro does, and says why it was not heard.
fn event(dispatch: &Dispatch, probe: &'static Probe, static_max: LevelFilter) -> Option<Problem> {
    let (target, level) = (probe.target().to_owned(), probe.level());
    if level > static_max {
        return Some(Problem::StaticMaxLevel { level, max: static_max });
    }
    let heard = listen(|| {
        if probe.is_enabled(dispatch) {
            probe.send(dispatch);
        }
    });
    if heard.count > 0 {
        return if heard.suppressed {
            Some(Problem::Suppressed)
        } else {
            heard.refused.then_some(Problem::SinkRefuses)
        };
    }
    if !dispatch.enabled(probe.metadata()) {
        return Some(Problem::GlobalFilter { target, level });
    }
    // No filter for all refuses. One of a single layer has left its verdict for the next event, and only for that.
    if listen(|| probe.send(dispatch)).count == 0 {
        let alone = listen(|| probe.send(dispatch)).count > 0;
        return Some(if alone {
            Problem::LayerFilter { target, level }
        } else {
            Problem::EventFilter { target, level }
        });
    }
    let max = LevelFilter::current();
    Some(if level > max { Problem::MaxLevelHint { level, max } } else { Problem::NeverInterest { target, level } })
}

/// What trace ids an event finds inside a span.
fn in_span(dispatch: &Dispatch, target: &str, static_max: LevelFilter) -> Result<TraceIds, Problem> {
    let (span, event) = (Probe::of(target, Level::INFO, Shape::Span), Probe::of(target, Level::INFO, Shape::Event));
    if span.level() > static_max || !span.is_enabled(dispatch) {
        return Ok(TraceIds::NoSpan);
    }
    let id = span.open(dispatch);
    dispatch.enter(&id);
    let heard = listen(|| event.send(dispatch));
    dispatch.exit(&id);
    let expected = trace::ids_of(&id, dispatch);
    dispatch.try_close(id);
    match (heard.ids, expected) {
        (found, Some(ids)) if found != Some(ids) => Err(Problem::NoActiveContext),
        (None, _) => Ok(TraceIds::NotInUse),
        (Some(_), _) => Ok(TraceIds::Found),
    }
}

#[cfg(test)]
mod tests;
