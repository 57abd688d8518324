//! The instruments: which number each shows. One collection reads `health()` once per instrument; each reading is one short lock.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use argus_core::{Backend, Health, LossReason};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};

use super::Inner;
use crate::account::SpanAccount;
use crate::names;

/// The longest that a collection waits for the trail to be read to its end.
const MOST: Duration = Duration::from_secs(2);

/// A callback that shows nothing once the handle is dropped.
fn reading<T: 'static>(
    inner: &Arc<Inner>,
    show: impl Fn(&Inner, &dyn AsyncInstrument<T>) + Send + Sync + 'static,
) -> impl Fn(&dyn AsyncInstrument<T>) + Send + Sync + 'static {
    let weak: Weak<Inner> = Arc::downgrade(inner);
    move |to| {
        if let Some(inner) = weak.upgrade() {
            show(&inner, to);
        }
    }
}

pub(super) fn make(meter: &Meter, inner: &Arc<Inner>) {
    let counter = |name: &'static str, unit: &'static str, what: &'static str, get: fn(&Health) -> u64| {
        let show = reading(inner, move |i, to| to.observe(get(&i.sink.health()), &[]));
        meter.u64_observable_counter(name).with_unit(unit).with_description(what).with_callback(show).build();
    };
    let gauge = |name: &'static str, unit: &'static str, what: &'static str, get: fn(&Health) -> u64| {
        let show = reading(inner, move |i, to| to.observe(get(&i.sink.health()), &[]));
        meter.u64_observable_gauge(name).with_unit(unit).with_description(what).with_callback(show).build();
    };

    meter
        .u64_observable_counter(names::METRIC_EVENTS)
        .with_unit("{record}")
        .with_description("Committed audit records by level and component")
        .with_callback(reading(inner, events))
        .build();
    meter
        .u64_observable_counter(names::METRIC_DROPPED)
        .with_unit("{record}")
        .with_description("Lost audit events by reason; more than zero is an alarm")
        .with_callback(reading(inner, |i, to| {
            let health = i.sink.health();
            for reason in LossReason::ALL {
                to.observe(health.lost_by(*reason), &[KeyValue::new(names::METRIC_REASON, reason.as_str())]);
            }
        }))
        .build();
    counter(names::METRIC_EMITTED, "{record}", "Audit events handed over at or above min_level", |h| h.submitted);
    counter(names::METRIC_REJECTED, "{record}", "Audit events refused with an error to their caller", |h| h.rejected);
    counter(names::METRIC_FILTERED, "{record}", "Audit calls below min_level", |h| h.filtered);
    counter(names::METRIC_OBSERVER_MISSED, "{record}", "Audit records that observers were not told of", |h| {
        h.observer_missed
    });
    gauge(names::METRIC_QUEUE_DEPTH, "{record}", "Accepted audit records that are not committed yet", |h| h.queued);
    gauge(names::METRIC_QUEUE_SIZE, "By", "Bytes in the audit queue", |h| h.queue_bytes as u64);
    gauge(names::METRIC_PENDING, "{record}", "Audit records in a pending file", |h| h.pending);
    // No unit: with `1`, Prometheus's name would end in `_ratio`.
    gauge(names::METRIC_DEGRADED, "", "1 while something keeps the audit store from committing", |h| {
        u64::from(h.degraded.is_some())
    });
    gauge(names::METRIC_CLOSED, "", "1 once the audit trail is closed", |h| u64::from(h.closed));
    meter
        .f64_observable_gauge(names::METRIC_COMMIT_AGE)
        .with_unit("s")
        .with_description("Time since the last commit of an audit record")
        .with_callback(reading(inner, |i, to| {
            if let Some(last) = i.sink.health().last_commit {
                // A clock that was set back gives an age of zero, not none.
                to.observe(SystemTime::now().duration_since(last).unwrap_or_default().as_secs_f64(), &[]);
            }
        }))
        .build();
    let failures = |account: Option<SpanAccount>, name: &'static str, unit: &'static str, what: &'static str| {
        let Some(account) = account else { return };
        let show = reading(inner, move |_, to| to.observe(account.failed(), &[]));
        meter.u64_observable_counter(name).with_unit(unit).with_description(what).with_callback(show).build();
    };
    let spans = inner.tally.as_ref().map(|t| t.account.clone());
    failures(spans, names::METRIC_TRACING_ERRORS, "{span}", "Audit spans that could not be made or sent");
    failures(inner.exports.clone(), names::METRIC_EXPORT_ERRORS, "{export}", "Exports of metrics that failed");
    if inner.shared.followed.is_some() {
        followed(meter, inner);
    }
}

fn events(inner: &Inner, to: &dyn AsyncInstrument<u64>) {
    inner.shared.catch_up(MOST);
    let state = inner.shared.lock();
    if state.complete {
        state.counts.each(|level, component, n| {
            let level = KeyValue::new(names::METRIC_LEVEL, level.as_str());
            to.observe(n, &[level, KeyValue::new(names::METRIC_COMPONENT, component.to_owned())]);
        });
    }
}

/// What only the files of a trail tell.
fn followed(meter: &Meter, inner: &Arc<Inner>) {
    meter
        .u64_observable_counter(names::METRIC_READ_ERRORS)
        .with_unit("{read}")
        .with_description("Reads of the followed audit trail that failed")
        .with_callback(reading(inner, |i, to| to.observe(i.shared.read_errors.load(Ordering::Relaxed), &[])))
        .build();
    let size = |name: &'static str, what: &'static str, suffix: &'static str| {
        let show = reading(inner, move |i, to| {
            let Some((path, _)) = &i.shared.followed else { return };
            let mut path = path.clone().into_os_string();
            path.push(suffix);
            if let Ok(meta) = std::fs::metadata(path) {
                to.observe(meta.len(), &[]);
            }
        });
        meter.u64_observable_gauge(name).with_unit("By").with_description(what).with_callback(show).build();
    };
    size(names::METRIC_TRAIL_SIZE, "Size of the audit trail's file", "");
    if matches!(inner.shared.followed, Some((_, Backend::Sqlite))) {
        size(names::METRIC_WAL_SIZE, "Size of the audit database's write-ahead log", "-wal");
    }
}
