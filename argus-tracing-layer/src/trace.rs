//! The trace context of an event: its explicit parent's, none for a root, else the active OpenTelemetry context, else the current span's. Ids are copied; no
//! `Context` is kept, since it would keep the span alive.

use argus_core::Trace;
use tracing_core::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Runs `f` with the event's trace; never `Unset`, so that a wrapper further in does not look for another.
#[cfg(not(feature = "otel"))]
pub(crate) fn with_trace<S, R>(
    _: &Event<'_>,
    _: &Context<'_, S>,
    _: Option<&Dispatch>,
    f: impl FnOnce(Trace<'_>) -> R,
) -> R
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    f(Trace::Unset)
}

/// Whether the calling code is itself telemetry, which must not feed back.
#[cfg(not(feature = "otel"))]
pub(crate) fn suppressed() -> bool {
    false
}

#[cfg(feature = "otel")]
pub(crate) use otel::{suppressed, with_trace};

#[cfg(feature = "otel")]
mod otel {
    use argus_core::TraceContext;
    use opentelemetry::Context as OtelContext;
    use opentelemetry::trace::{SpanContext, TraceContextExt};
    use tracing_core::span::Id;
    use tracing_opentelemetry::get_otel_context;

    use super::{Context, Dispatch, Event, LookupSpan, Subscriber, Trace};

    pub(crate) fn suppressed() -> bool {
        OtelContext::is_current_telemetry_suppressed()
    }

    pub(crate) fn with_trace<S, R>(
        event: &Event<'_>,
        ctx: &Context<'_, S>,
        dispatch: Option<&Dispatch>,
        f: impl FnOnce(Trace<'_>) -> R,
    ) -> R
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let of = |id: &Id| dispatch.and_then(|d| get_otel_context(id, d)).map(|cx| cx.span().span_context().clone());
        let found = if event.is_root() {
            None
        } else if event.is_contextual() {
            // With activation (the default of tracing-opentelemetry) the entered span's context is the active one: a read of a thread-local, and no side effect.
            OtelContext::map_current(|cx| Some(cx.span().span_context().clone()).filter(SpanContext::is_valid))
                .or_else(|| ctx.lookup_current().and_then(|span| of(&span.id())))
        } else {
            // Only an id that this registry knows may be asked for.
            ctx.event_span(event).and_then(|span| of(&span.id()))
        };
        match found.filter(SpanContext::is_valid) {
            None => f(Trace::None),
            Some(sc) => {
                let state = sc.trace_state().header();
                f(Trace::Parent(TraceContext {
                    trace_id: sc.trace_id().to_bytes(),
                    span_id: sc.span_id().to_bytes(),
                    flags: sc.trace_flags().to_u8(),
                    remote: sc.is_remote(),
                    trace_state: &state,
                }))
            }
        }
    }
}
