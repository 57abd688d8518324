//! `AuditLayer`: runs on the thread of the event, decides inside `on_event`, and hands over to the sink as a relay: it waits at most a few milliseconds, and what is
//! refused is counted by the sink. No lock and no span extension is held while user code or the sink runs; a panic in either becomes a counted loss.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use argus_core::{ActorType, AuditEvent, AuditSink, Carrier, Level, LossReason, Outcome, Value};
use tracing_core::dispatcher::WeakDispatch;
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::subscriber::Interest;
use tracing_core::{Dispatch, Event, LevelFilter, Metadata, Subscriber, dispatcher};
use tracing_subscriber::filter::Filtered;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use crate::callsite::{self, Kind};
use crate::filter::{self, AuditFilter};
use crate::keys;
use crate::self_test;
use crate::trace;
use crate::visitor::{Fields, Slot};

/// The longest an event waits for space in the queue: it may stand on an async worker.
const MAX_WAIT: Duration = Duration::from_millis(5);
/// Events inside the `Debug` of an event's own fields, inside those of that event, and so on.
const MAX_NESTING: u8 = 4;

/// A `tracing` layer that turns events tagged `audit` into audit records. See the [crate] documentation.
pub struct AuditLayer<A> {
    sink: A,
    span_fields: Vec<String>,
    max_wait: Duration,
    ask_current: bool,
    dispatch: OnceLock<WeakDispatch>,
    /// No layer of the stack has a filter of its own, as far as is known.
    unfiltered: AtomicBool,
}

impl<A> fmt::Debug for AuditLayer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLayer")
            .field("span_fields", &self.span_fields)
            .field("max_wait", &self.max_wait)
            .finish_non_exhaustive()
    }
}

/// Fields of a span that its events inherit.
#[derive(Debug, Default)]
struct Inherited(Fields);

#[derive(Default)]
struct Scratch {
    event: Fields,
    /// What spans add, names and values.
    spans: Fields,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
    static NESTING: Cell<u8> = const { Cell::new(0) };
}

/// Counts one level of nesting down again, also while unwinding.
struct Nested;

impl Nested {
    fn enter() -> Option<Self> {
        let depth = NESTING.get();
        (depth < MAX_NESTING).then(|| {
            NESTING.set(depth + 1);
            Nested
        })
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        NESTING.set(NESTING.get() - 1);
    }
}

impl<A: AuditSink> AuditLayer<A> {
    /// A layer over a logger, a wrapper, or an `Arc<dyn AuditSink>`.
    pub fn new(sink: A) -> Self {
        Self {
            sink,
            span_fields: Vec::new(),
            max_wait: MAX_WAIT,
            ask_current: false,
            dispatch: OnceLock::new(),
            unfiltered: AtomicBool::new(false),
        }
    }

    /// Lets events inherit these span fields, too; those that begin with `audit.` always are.
    #[must_use]
    pub fn with_span_fields<I>(mut self, fields: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.span_fields.extend(fields.into_iter().map(Into::into));
        self
    }

    /// The longest that an event waits for space in the queue; 5 ms by default.
    #[must_use]
    pub fn with_max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Also finds the trace ids where `tracing-opentelemetry` activates no contexts (its `with_context_activation(false)`), by asking for those of the current
    /// span. Off by default: asking starts the span, and a sampler or span processor that logs audit events through `tracing` would wait for itself for ever.
    #[cfg(feature = "otel")]
    #[must_use]
    pub fn with_inactive_contexts(mut self, ask: bool) -> Self {
        self.ask_current = ask;
        self
    }

    /// The cheap form: the layer behind a per-layer filter that lets callsites rest which neither it nor another layer wants. Plain, the layer keeps every callsite of the
    /// process alive. No event is lost by it: its filter never refuses at the moment of an event, so there is no refusal that another event could find (tracing issues
    /// 2519 and 3364).
    ///
    /// # Caveats
    /// - Set everything else first (`with_span_fields` above all): the filter knows of spans only what the layer knew here.
    /// - A subscriber has room for 64 per-layer filters; `tracing-subscriber` panics at the next. A filtered layer cannot be put in by `reload` (its own limit).
    /// - It does not make a stack cheaper in which another layer has no filter: each event is for that one, and filters are asked at each.
    /// - As beside any filter of a single layer, an `EnvFilter`'s span directive (`[span]=level`) must be as verbose as its span: asked anew, it says no to a quieter one.
    /// - Spans without a field that is inherited are not kept alive for the layer. What no layer wants does not exist, as without the layer.
    pub fn filtered<S>(self) -> Filtered<Self, AuditFilter, S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let filter = AuditFilter::new(self.span_fields.clone());
        self.with_filter(filter)
    }

    /// The sink inside.
    pub fn sink(&self) -> &A {
        &self.sink
    }

    /// The dispatch that this layer belongs to.
    fn dispatch(&self) -> Option<Dispatch> {
        self.dispatch.get().and_then(WeakDispatch::upgrade).or_else(|| {
            // An `Option<AuditLayer>` is not told of its dispatch. The global default will do, if it is ours.
            let ours = |d: &Dispatch| d.downcast_ref::<Self>().is_some_and(|layer| std::ptr::eq(layer, self));
            dispatcher::get_default(|d| ours(d).then(|| d.clone()))
        })
    }

    fn inherits(&self, name: &str) -> bool {
        filter::inherits(&self.span_fields, name)
    }

    fn record<S>(&self, event: &Event<'_>, kind: Kind, ctx: &Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let mut scratch = SCRATCH.take().unwrap_or_default();
        scratch.event.clear();
        scratch.spans.clear();
        event.record(&mut scratch.event);
        let metadata = event.metadata();
        let target =
            scratch.event.get("log.target").filter(|_| kind == Kind::LogBridge).unwrap_or(metadata.target()).to_owned();
        let vetoed = scratch.event.slots.iter().any(|(n, s)| *n == keys::AUDIT && *s == Slot::Bool(false));
        let marked = kind == Kind::Audit || callsite::is_audit_target(&target);
        if marked && !vetoed {
            self.gather_spans(event, ctx, &mut scratch.spans);
            let name = metadata.name();
            // The bridge names its own callsites.
            let explicit = (!name.starts_with("event ") && kind != Kind::LogBridge).then_some(name);
            let level = match *metadata.level() {
                tracing_core::Level::ERROR => Level::Critical,
                tracing_core::Level::WARN => Level::Warn,
                _ => Level::Info,
            };
            let after = target.strip_prefix("audit::").filter(|t| !t.is_empty());
            let built = build(&scratch, level, explicit.or(after).unwrap_or("event"));
            if self.sink.enabled(built.level()) {
                let look = trace::Look { dispatch: || self.dispatch(), current: self.ask_current };
                trace::with_trace(event, ctx, look, |trace| {
                    // As a relay: the sink itself counts a refusal and writes the gap record.
                    let _ = self.sink.submit(&built, &Carrier::relay(self.max_wait).with_trace(trace));
                });
            }
        }
        SCRATCH.set(Some(scratch));
    }

    /// The inherited fields of the event's spans, the innermost first, each name once; none for a root.
    fn gather_spans<S>(&self, event: &Event<'_>, ctx: &Context<'_, S>, out: &mut Fields)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let Some(scope) = ctx.event_scope(event) else { return };
        for span in scope {
            let extensions = span.extensions();
            let Some(Inherited(fields)) = extensions.get::<Inherited>() else { continue };
            for (name, slot) in &fields.slots {
                // Another `AuditLayer` of this subscriber may allow more.
                if !self.inherits(name) || out.slots.iter().any(|(n, _)| n == name) {
                    continue;
                }
                out.copy(name, slot, fields);
            }
        }
    }

    /// Keeps the fields that events inherit, and no text of others: it may be secret.
    fn keep_span_fields<S>(&self, span: &SpanRef<'_, S>, new: &Fields)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let mut kept = Fields::default();
        let inherited = || new.slots.iter().filter(|(name, _)| self.inherits(name));
        let mut extensions = span.extensions_mut();
        if let Some(Inherited(old)) = extensions.get_mut::<Inherited>() {
            // Made anew, so that a field recorded again and again does not grow. (It may also hold what another `AuditLayer` allows.)
            for (name, slot) in old.slots.iter().filter(|(name, _)| !inherited().any(|(n, _)| n == name)) {
                kept.copy(name, slot, old);
            }
        }
        for (name, slot) in inherited() {
            kept.copy(name, slot, new);
        }
        if !kept.slots.is_empty() {
            extensions.replace(Inherited(kept));
        }
    }
}

/// The audit event that the captured fields say.
fn build<'a>(scratch: &'a Scratch, level: Level, name: &'a str) -> AuditEvent<'a> {
    let mut e = AuditEvent::new(level, name);
    let own = &scratch.event;
    let mut actor_type = None;
    let spans = scratch
        .spans
        .slots
        .iter()
        .filter(|(n, _)| !own.slots.iter().any(|(o, _)| o == n))
        .map(|(n, s)| (*n, s, &scratch.spans));
    for (key, slot, fields) in own.slots.iter().map(|(n, s)| (*n, s, own)).chain(spans) {
        let text = match slot {
            Slot::Text(range) => fields.text(range),
            _ => "",
        };
        match key {
            keys::AUDIT if matches!(slot, Slot::Bool(_)) => {}
            // The bridge's own fields tell where a `log` record came from, not what happened.
            "log.target" | "log.module_path" | "log.file" | "log.line" => {}
            keys::EVENT if !text.is_empty() => e = e.with_event(text),
            keys::COMPONENT => e = e.component(text),
            keys::FILE_PATH => e = e.file_path(text),
            keys::USER_AGENT => e = e.user_agent(text),
            keys::ACTOR => e = e.actor(text, actor_type),
            keys::ACTION => e = e.action(text),
            keys::OLD_VALUE => e = e.old_value(value_of(slot, text, fields)),
            keys::NEW_VALUE => e = e.new_value(value_of(slot, text, fields)),
            keys::LEVEL | keys::OUTCOME | keys::ACTOR_TYPE => {
                // A word that is none keeps its text in the context: never a silent default.
                match (key, text.parse::<Level>(), text.parse::<Outcome>(), text.parse::<ActorType>()) {
                    (keys::LEVEL, Ok(l), ..) => e = e.with_level(l),
                    (keys::OUTCOME, _, Ok(o), _) => e = e.outcome(o),
                    (keys::ACTOR_TYPE, .., Ok(t)) => {
                        actor_type = Some(t);
                        e = e.actor_type(t);
                    }
                    _ => e.push(key, text.into()),
                }
            }
            _ => e.push(key, fields.value(slot)),
        }
    }
    e
}

/// A value field: text that looks like JSON may be JSON.
fn value_of<'a>(slot: &Slot, text: &'a str, fields: &'a Fields) -> Value<'a> {
    if text.starts_with(['{', '[']) { Value::json_or_text(text) } else { fields.value(slot) }
}

impl<S, A> Layer<S> for AuditLayer<A>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    A: AuditSink,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        // Weak: a strong one would be a cycle. Only the first counts.
        let _ = self.dispatch.set(dispatch.downgrade());
        self.unfiltered.store(!filter::has_layer_filters(dispatch), Ordering::Relaxed);
    }

    /// Not `never`: it would switch the callsite off for every layer. Beside filters of single layers not `always`: after a question such as `enabled!`, such a filter
    /// would then swallow its layer's next event (tracing issue 2519); `sometimes` has every filter asked anew. Without them `always` leaves the answer to the others.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        if self.unfiltered.load(Ordering::Relaxed) { Interest::always() } else { Interest::sometimes() }
    }

    /// No hint: one would cap unfiltered layers.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        None
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if attributes.metadata().fields().iter().any(|f| self.inherits(f.name())) {
            if callsite::kind(attributes.metadata()) == Kind::Probe {
                return self_test::heard_span();
            }
            // A panicking `Debug` costs the inherited values, not the span.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let mut fields = Fields::default();
                attributes.record(&mut fields);
                if let Some(span) = ctx.span(id) {
                    self.keep_span_fields(&span, &fields);
                }
            }));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id).filter(|s| s.metadata().fields().iter().any(|f| self.inherits(f.name()))) else {
            return;
        };
        // A panicking `Debug` costs the inherited value, not the span.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let mut fields = Fields::default();
            values.record(&mut fields);
            self.keep_span_fields(&span, &fields);
        }));
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let kind = callsite::kind(event.metadata());
        if kind == Kind::Foreign {
            return;
        }
        let suppressed = trace::suppressed();
        if kind == Kind::Probe {
            let look = trace::Look { dispatch: || self.dispatch(), current: self.ask_current };
            trace::with_trace(event, &ctx, look, |trace| {
                let open = self.sink.enabled(Level::Security) && !self.sink.health().closed;
                self_test::heard(&trace, suppressed, open);
            });
            return;
        }
        if suppressed {
            return;
        }
        let Some(_nested) = Nested::enter() else {
            self.sink.report_loss(LossReason::EncodeFailed, 1);
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| self.record(event, kind, &ctx))).is_err() {
            self.sink.report_loss(LossReason::Panicked, 1);
        }
    }
}
