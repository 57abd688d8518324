//! A generated load of spans and events, and layers that write down what they see of it.
#![allow(dead_code)]

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use argus_tracing_layer::{audit_critical, audit_info};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, EnteredSpan, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber, debug, enabled, error, info, info_span, trace, trace_span, warn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt};

/// Callsite interest is one for the process: a second subscriber would change what this one is asked.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// What was seen, one line a call.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<String>>);

impl Seen {
    fn line(&self, text: std::fmt::Arguments<'_>) {
        writeln!(self.0.lock().unwrap(), "{text}").unwrap();
    }

    pub(crate) fn take(&self) -> String {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<'a> MakeWriter<'a> for Seen {
    type Writer = Seen;
    fn make_writer(&'a self) -> Seen {
        self.clone()
    }
}

pub(crate) fn printed<S: Subscriber + for<'a> LookupSpan<'a>>(seen: &Seen) -> impl Layer<S> + use<S> {
    fmt::layer().without_time().with_ansi(false).with_writer(seen.clone())
}

impl io::Write for Seen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A layer that writes down all it is told.
pub(crate) struct Recorder(pub(crate) Seen);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

fn text(record: impl FnOnce(&mut Text)) -> String {
    let mut text = Text(String::new());
    record(&mut text);
    text.0
}

fn name(m: &Metadata<'_>) -> String {
    format!("{} {} {}", m.level(), m.target(), m.name())
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attrs: &Attributes<'_>, _: &Id, ctx: Context<'_, S>) {
        let parent = attrs.is_contextual().then(|| ctx.lookup_current().map(|s| s.name())).flatten();
        self.0.line(format_args!("new {}{} in {parent:?}", name(attrs.metadata()), text(|t| attrs.record(t))));
    }
    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        self.0.line(format_args!("record {}{}", ctx.span(id).unwrap().name(), text(|t| values.record(t))));
    }
    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let scope: Vec<_> = ctx.event_scope(event).into_iter().flatten().map(|s| s.name()).collect();
        self.0.line(format_args!("event {}{} in {scope:?}", name(event.metadata()), text(|t| event.record(t))));
    }
    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        self.0.line(format_args!("enter {}", ctx.span(id).unwrap().name()));
    }
    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        self.0.line(format_args!("exit {}", ctx.span(id).unwrap().name()));
    }
    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        self.0.line(format_args!("close {}", ctx.span(&id).unwrap().name()));
    }
}

/// The same pseudo-random sequence of spans, events and questions each time.
pub(crate) fn load(mut seed: u64, ask: bool) {
    let mut spans: Vec<EnteredSpan> = Vec::new();
    for step in 0..600u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match (seed >> 33) % 24 {
            0 => trace!(step, "fine"),
            1 => debug!(step, "coarse"),
            2 => info!(step, "plain"),
            3 => warn!(step, text = "t", "odd"),
            4 => error!(step, "bad"),
            5 => info!(audit = true, step, "tagged"),
            6 => debug!(audit = false, step, "vetoed"),
            7 => warn!(audit.event = "over", audit.actor = "jane", step),
            8 => info!(target: "audit", step, "by target"),
            9 => trace!(target: "audit::deep", step, "by target"),
            10 => debug!(target: "db::query", step, "other target"),
            11 => audit_info!("macro", step),
            12 => audit_critical!("macro", audit.outcome = "failure", step, "with a message"),
            13 => spans.push(info_span!("request", audit.actor = "joe", step).entered()),
            14 => spans.push(trace_span!("inner", step).entered()),
            15 => spans.push(info_span!(target: "db::pool", "pool", audit.outcome = tracing::field::Empty).entered()),
            16 | 17 => drop(spans.pop()),
            18 => {
                if let Some(span) = spans.last() {
                    span.record("audit.outcome", "success");
                }
            }
            // Questions leave marks in filters.
            19 if ask => drop(enabled!(Level::DEBUG)),
            20 if ask => drop(enabled!(target: "db::query", Level::TRACE)),
            21 if ask => drop(tracing::event_enabled!(Level::TRACE, step)),
            22 => info!(parent: None, step, "rootless"),
            _ => {
                if let Some(span) = spans.first() {
                    warn!(parent: span, audit.event = "explicit", step);
                }
            }
        }
    }
    while spans.pop().is_some() {}
}
