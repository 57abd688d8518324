//! Trace ids: those of the span that OpenTelemetry holds for active, of an explicit parent, or none. Whatever the order of the layers.
#![cfg(feature = "otel")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use argus_core::{AuditEvent, AuditSinkExt};
use argus_otel::{OtelAuditWrapper, OtelWrapperConfig};
use argus_tracing_layer::AuditLayer;
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use support::otel::{Otel, ids, ids_of};
use support::{SOON, Trail};
use tracing::subscriber::with_default;
use tracing::{info, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::prelude::*;

/// Runs `load` with the audit layer inside and outside of that of OpenTelemetry.
fn in_both_orders(load: impl Fn(), check: impl Fn(&Trail, &Otel)) {
    for audit_first in [true, false] {
        let (trail, otel) = (Trail::new(), Otel::new());
        let registry = tracing_subscriber::registry();
        if audit_first {
            with_default(registry.with(trail.layer()).with(otel.layer()), &load);
        } else {
            with_default(registry.with(otel.layer()).with(trail.layer()), &load);
        }
        check(&trail, &otel);
    }
}

#[test]
fn a_contextual_event_has_the_ids_of_its_span() {
    let load = || {
        info!(audit.event = "before");
        let outer = info_span!("outer").entered();
        info!(audit.event = "in_outer");
        info_span!("inner").in_scope(|| info!(audit.event = "in_inner"));
        info!(audit.event = "in_outer_again");
        info!(parent: None, audit.event = "root");
        drop(outer);
        info!(audit.event = "after");
    };
    in_both_orders(load, |trail, otel| {
        let (outer, inner) = (otel.span("outer"), otel.span("inner"));
        assert_eq!(inner.parent_span_id, outer.span_context.span_id());
        assert_eq!(ids(trail, "in_outer"), ids_of(&outer.span_context));
        assert_eq!(ids(trail, "in_inner"), ids_of(&inner.span_context));
        assert_eq!(ids(trail, "in_outer_again"), ids_of(&outer.span_context));
        for none in ["before", "root", "after"] {
            assert_eq!(ids(trail, none), None, "{none}");
        }
    });
}

#[test]
fn an_explicit_parent_has_its_own_ids() {
    let load = || {
        let other = info_span!("other");
        let child = info_span!(parent: &other, "child");
        let _current = info_span!("current").entered();
        info!(parent: &other, audit.event = "of_other");
        info!(parent: &child, audit.event = "of_child");
    };
    in_both_orders(load, |trail, otel| {
        assert_eq!(ids(trail, "of_other"), otel.ids("other"));
        assert_eq!(ids(trail, "of_child"), otel.ids("child"));
    });
}

#[test]
fn an_event_does_not_start_a_span_it_is_not_in() {
    let remote = SpanContext::new(
        TraceId::from_bytes([7; 16]),
        SpanId::from_bytes([8; 8]),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    let load = || {
        let span = info_span!("request");
        info!(audit.event = "early");
        // A started span would refuse this.
        span.set_parent(Context::new().with_remote_span_context(remote.clone())).unwrap();
        span.in_scope(|| info!(audit.event = "late"));
    };
    in_both_orders(load, |trail, otel| {
        assert_eq!(ids(trail, "early"), None);
        let request = otel.span("request");
        assert_eq!((request.parent_span_id, request.span_context.trace_id()), (remote.span_id(), remote.trace_id()));
        assert_eq!(ids(trail, "late"), ids_of(&request.span_context));
    });
}

#[test]
fn a_context_of_opentelemetry_alone_counts() {
    let (trail, otel) = (Trail::new(), Otel::new());
    trail.run(|| otel.tracer().in_span("plain", |_| info!(audit.event = "e")));
    assert_eq!(ids(&trail, "e"), otel.ids("plain"));
}

#[test]
fn a_span_that_is_not_sampled_has_ids_too() {
    let trail = Trail::new();
    let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    with_default(tracing_subscriber::registry().with(trail.layer()).with(layer), || {
        info_span!("dark").in_scope(|| info!(audit.event = "e"));
    });
    assert!(ids(&trail, "e").is_some());
}

#[test]
fn contexts_that_are_not_active_are_found_on_request() {
    for ask in [false, true] {
        let (trail, otel) = (Trail::new(), Otel::new());
        let layer = tracing_opentelemetry::layer().with_tracer(otel.tracer()).with_context_activation(false);
        let audit = trail.layer().with_inactive_contexts(ask);
        with_default(tracing_subscriber::registry().with(audit).with(layer), || {
            let other = info_span!("other");
            info_span!("request").in_scope(|| {
                info!(audit.event = "contextual");
                info!(parent: &other, audit.event = "explicit");
                info!(parent: None, audit.event = "root");
            });
        });
        let request = otel.ids("request").filter(|_| ask);
        assert_eq!(ids(&trail, "contextual"), request);
        assert_eq!(ids(&trail, "explicit"), otel.ids("other"), "never in doubt");
        assert_eq!(ids(&trail, "root"), None);
    }
}

#[test]
fn a_root_event_stops_the_wrapper_from_taking_the_ambient_context() {
    let (trail, otel) = (Trail::new(), Otel::new());
    let wrapper = OtelAuditWrapper::new(trail.logger.clone(), otel.tracer(), OtelWrapperConfig::default());
    with_default(tracing_subscriber::registry().with(AuditLayer::new(wrapper.clone())), || {
        otel.tracer().in_span("ambient", |_| {
            wrapper.log(AuditEvent::info("direct")).unwrap();
            info!(parent: None, audit.event = "root");
            // A parent that OpenTelemetry knows nothing of is no reason to take another.
            let unknown = info_span!("unknown");
            info!(parent: &unknown, audit.event = "explicit");
        });
    });
    argus_core::AuditSink::close(&wrapper, SOON);
    let ambient = otel.span("ambient").span_context;
    assert_eq!(ids(&trail, "direct"), ids_of(&ambient), "what the wrapper does on its own");
    assert_eq!(otel.span("audit.direct").parent_span_id, ambient.span_id());
    for event in ["root", "explicit"] {
        assert_eq!(ids(&trail, event), None, "{event}");
        let span = otel.span(&format!("audit.{event}"));
        assert_eq!(span.parent_span_id, SpanId::INVALID, "{event}");
        assert_ne!(span.span_context.trace_id(), ambient.trace_id(), "{event}");
    }
}

#[test]
fn flags_and_state_of_the_trace_travel_to_the_wrappers_span() {
    let (trail, otel) = (Trail::new(), Otel::new());
    let wrapper = OtelAuditWrapper::new(trail.logger.clone(), otel.tracer(), OtelWrapperConfig::default());
    let remote = SpanContext::new(
        TraceId::from_bytes([7; 16]),
        SpanId::from_bytes([8; 8]),
        TraceFlags::SAMPLED,
        true,
        TraceState::from_key_value([("vendor", "x")]).unwrap(),
    );
    with_default(tracing_subscriber::registry().with(AuditLayer::new(wrapper.clone())), || {
        let _ambient = Context::new().with_remote_span_context(remote.clone()).attach();
        info!(audit.event = "e");
    });
    argus_core::AuditSink::close(&wrapper, SOON);
    let span = otel.span("audit.e");
    assert_eq!((span.parent_span_id, span.span_context.trace_id()), (remote.span_id(), remote.trace_id()));
    assert!(span.parent_span_is_remote);
    assert_eq!(span.span_context.trace_state().header(), "vendor=x");
}

#[test]
fn telemetrys_own_calls_do_not_feed_back() {
    let trail = Trail::new();
    trail.run(|| {
        let quiet = Context::enter_telemetry_suppressed_scope();
        info!(audit.event = "from_an_exporter");
        drop(quiet);
        info!(audit.event = "from_the_application");
    });
    assert_eq!(trail.names(), ["from_the_application"]);
}
