//! The trace context of an event: its explicit parent's, none for a root, else that of the active OpenTelemetry context. Ids are copied; no `Context` is kept,
//! since it would keep the span alive.

use argus_core::Trace;
use tracing_core::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Where else to look.
#[cfg_attr(not(feature = "otel"), allow(dead_code))]
pub(crate) struct Look<F> {
    /// The dispatch that the event's layer belongs to, asked for only where it is needed.
    pub(crate) dispatch: F,
    /// Whether the current span is asked where no context is active.
    pub(crate) current: bool,
}

/// Runs `f` with the event's trace. Without OpenTelemetry nothing is known but that a root has none: a wrapper further in may look.
#[cfg(not(feature = "otel"))]
pub(crate) fn with_trace<S, R>(
    event: &Event<'_>,
    _: &Context<'_, S>,
    _: Look<impl Fn() -> Option<Dispatch>>,
    f: impl FnOnce(Trace<'_>) -> R,
) -> R
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    f(if event.is_root() { Trace::None } else { Trace::Unset })
}

/// Whether the calling code is itself telemetry, which must not feed back.
#[cfg(not(feature = "otel"))]
pub(crate) fn suppressed() -> bool {
    false
}

/// The trace and span id that OpenTelemetry has for a span of `dispatch`.
#[cfg(not(feature = "otel"))]
pub(crate) fn ids_of(_: &tracing_core::span::Id, _: &Dispatch) -> Option<([u8; 16], [u8; 8])> {
    None
}

#[cfg(feature = "otel")]
pub(crate) use otel::{ids_of, suppressed, with_trace};

#[cfg(feature = "otel")]
mod otel {
    use std::cell::Cell;

    use argus_core::TraceContext;
    use opentelemetry::Context as OtelContext;
    use opentelemetry::trace::{SpanContext, TraceContextExt};
    use tracing_core::span::Id;
    use tracing_opentelemetry::get_otel_context;

    use super::{Context, Dispatch, Event, Look, LookupSpan, Subscriber, Trace};

    thread_local!(static ASKING: Cell<bool> = const { Cell::new(false) });

    struct Asked;

    impl Drop for Asked {
        fn drop(&mut self) {
            ASKING.set(false);
        }
    }

    pub(crate) fn suppressed() -> bool {
        OtelContext::is_current_telemetry_suppressed()
    }

    /// The context of a span that this registry knows. Asking starts the span: its sampler runs, under a lock that asking again would wait for.
    fn of(id: &Id, dispatch: Option<Dispatch>) -> Option<SpanContext> {
        let dispatch = dispatch?;
        if ASKING.replace(true) {
            return None;
        }
        let _asked = Asked;
        get_otel_context(id, &dispatch).map(|cx| cx.span().span_context().clone())
    }

    pub(crate) fn ids_of(id: &Id, dispatch: &Dispatch) -> Option<([u8; 16], [u8; 8])> {
        let found = of(id, Some(dispatch.clone()))?;
        found.is_valid().then(|| (found.trace_id().to_bytes(), found.span_id().to_bytes()))
    }

    /// Runs `f` with the event's trace; never `Unset`, so that a wrapper further in does not look for another.
    pub(crate) fn with_trace<S, R>(
        event: &Event<'_>,
        ctx: &Context<'_, S>,
        look: Look<impl Fn() -> Option<Dispatch>>,
        f: impl FnOnce(Trace<'_>) -> R,
    ) -> R
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let found = if event.is_contextual() {
            // The entered span's context is the active one: a read of a thread-local, without side effect and whatever the order of the layers.
            OtelContext::map_current(|cx| Some(cx.span().span_context().clone()).filter(SpanContext::is_valid)).or_else(
                || {
                    // Not by default: a sampler that logs while its span is being entered would wait for itself.
                    let span = ctx.lookup_current().filter(|_| look.current)?;
                    of(&span.id(), (look.dispatch)())
                },
            )
        } else {
            // A root has no span. Only an id that this registry knows may be asked for.
            ctx.event_span(event).and_then(|span| of(&span.id(), (look.dispatch)()))
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
