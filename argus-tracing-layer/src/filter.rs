//! The filter of [`AuditLayer::filtered`](crate::AuditLayer::filtered). It says at registration what it does not want, so that a callsite which nobody wants rests; asked
//! at an event, it always says yes. A per-layer filter keeps its no in a mark of the thread until the event arrives, and between the two another event or question can
//! leave its own mark there (tracing issues 2519 and 3364): one that never says no leaves no mark to be found.

use tracing_core::callsite::DefaultCallsite;
use tracing_core::field::FieldSet;
use tracing_core::subscriber::Interest;
use tracing_core::{Dispatch, Kind as Shape, Level, LevelFilter, Metadata, Subscriber, identify_callsite};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Filtered;
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt};

use crate::callsite::{self, Kind};
use crate::keys;

/// The per-layer filter of [`AuditLayer::filtered`](crate::AuditLayer::filtered).
#[derive(Clone, Debug)]
pub struct AuditFilter {
    span_fields: Vec<String>,
}

impl AuditFilter {
    pub(crate) fn new(span_fields: Vec<String>) -> Self {
        Self { span_fields }
    }
}

/// Whether events inherit the span field `name`, where `allowed` is inherited besides the reserved ones.
pub(crate) fn inherits(allowed: &[String], name: &str) -> bool {
    name.starts_with(keys::PREFIX) || allowed.iter().any(|f| f == name)
}

impl<S> Filter<S> for AuditFilter {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    /// `sometimes`, never `always`: as the layer itself, it has the filters of others asked anew.
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let wanted = if metadata.is_span() {
            metadata.fields().iter().any(|f| inherits(&self.span_fields, f.name()))
        } else {
            callsite::kind(metadata) != Kind::Foreign
        };
        if wanted { Interest::sometimes() } else { Interest::never() }
    }

    /// Audit events have any level.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        None
    }
}

struct Nothing;
impl Layer<Registry> for Nothing {}

/// Of no event, and never registered.
static CALLSITE: DefaultCallsite = DefaultCallsite::new(&METADATA);
static METADATA: Metadata<'static> = Metadata::new(
    "argus.question",
    "argus_tracing_layer",
    Level::ERROR,
    None,
    None,
    None,
    FieldSet::new(&[], identify_callsite!(&CALLSITE)),
    Shape::EVENT,
);

/// Whether a layer of this stack has a filter of its own; yes, where it cannot be told. Only a registry whose layers have some asks for what their filters answered, which
/// they leave on the thread: so a `never` is left there, and the registry asked.
pub(crate) fn has_layer_filters(dispatch: &Dispatch) -> bool {
    let Some(registry) = dispatch.downcast_ref::<Registry>() else { return true };
    let refusing = || Nothing.with_filter(LevelFilter::OFF);
    let filter: Filtered<_, _, Registry> = refusing();
    filter.register_callsite(&METADATA);
    let answer = registry.register_callsite(&METADATA);
    // Takes away what is left: the next registration on this thread would find it.
    Registry::default().with(refusing()).register_callsite(&METADATA);
    answer.is_never()
}
