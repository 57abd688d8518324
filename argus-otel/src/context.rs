//! The trace context of the calling thread, copied out: a held OpenTelemetry `Context` would keep the parent span alive.

use argus_core::{OwnedTraceContext, Trace, TraceContext};
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, TraceState};

/// Runs `f` with the active span's context, or with `Trace::Unset` where there is none. `f` runs inside, since the trace state is borrowed; it allocates only
/// where a trace state is not empty.
pub(crate) fn with_current<R>(f: impl FnOnce(Trace<'_>) -> R) -> R {
    let mut state = String::new();
    let trace = Context::map_current(|cx| {
        let span = cx.span();
        let sc = span.span_context();
        if !sc.is_valid() {
            return None;
        }
        if *sc.trace_state() != TraceState::NONE {
            state = sc.trace_state().header();
        }
        Some((sc.trace_id().to_bytes(), sc.span_id().to_bytes(), sc.trace_flags().to_u8(), sc.is_remote()))
    });
    match trace {
        Some((trace_id, span_id, flags, remote)) => {
            f(Trace::Parent(TraceContext { trace_id, span_id, flags, remote, trace_state: &state }))
        }
        None => f(Trace::Unset),
    }
}

/// The active span's context, for a bare logger: `AuditConfig::default().trace_context(argus_otel::trace_context)`.
pub fn trace_context() -> Option<OwnedTraceContext> {
    with_current(|t| match t {
        Trace::Parent(t) => {
            let mut owned = OwnedTraceContext::default();
            (owned.trace_id, owned.span_id, owned.flags, owned.remote) = (t.trace_id, t.span_id, t.flags, t.remote);
            owned.trace_state = t.trace_state.to_owned();
            Some(owned)
        }
        _ => None,
    })
}
