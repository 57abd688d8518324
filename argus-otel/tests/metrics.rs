//! The metrics against what the trail holds: the counters equal `argus stats`, live, after restarts and beside other writers.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use argus_core::{
    AuditConfig, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt, Carrier, Durability, Level, LossReason,
    MemoryTrail, Stats,
};
use argus_otel::opentelemetry::metrics::{Meter, MeterProvider};
use argus_otel::{AuditMetrics, MetricsError, OtelAuditWrapper, OtelWrapperConfig, names};
use argus_testkit::TempTrail;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter, InMemoryMetricExporterBuilder, PeriodicReader, SdkMeterProvider, Temporality,
};
use prometheus::{Registry, TextEncoder};
use support::{SOON, Trail};

/// A provider that collects when it is told to.
struct Meters {
    exporter: InMemoryMetricExporter,
    provider: SdkMeterProvider,
}

/// Attributes as `key=value`, in order, and the value.
type Points = BTreeMap<String, f64>;

impl Meters {
    fn new() -> Self {
        Self::with(Temporality::Cumulative)
    }

    fn with(temporality: Temporality) -> Self {
        let exporter = InMemoryMetricExporterBuilder::new().with_temporality(temporality).build();
        let reader = PeriodicReader::builder(exporter.clone()).with_interval(Duration::from_secs(3600)).build();
        Self { exporter, provider: SdkMeterProvider::builder().with_reader(reader).build() }
    }

    fn meter(&self) -> Meter {
        self.provider.meter("test")
    }

    /// Every metric of one collection.
    fn collect(&self) -> BTreeMap<String, Points> {
        self.exporter.reset();
        self.provider.force_flush().unwrap();
        let mut all = BTreeMap::new();
        let collected = self.exporter.get_finished_metrics().unwrap();
        for metric in collected.iter().flat_map(|r| r.scope_metrics()).flat_map(|s| s.metrics()) {
            all.insert(metric.name().to_owned(), points(metric.data()));
        }
        all
    }

    fn one(&self, name: &str) -> f64 {
        self.collect()[name][""]
    }
}

fn points(data: &AggregatedMetrics) -> Points {
    fn key<'a>(attributes: impl Iterator<Item = &'a opentelemetry::KeyValue>) -> String {
        let mut all: Vec<_> = attributes.map(|kv| format!("{}={}", kv.key, kv.value)).collect();
        all.sort();
        all.join(",")
    }
    match data {
        AggregatedMetrics::U64(MetricData::Sum(sum)) => {
            assert!(sum.is_monotonic());
            sum.data_points().map(|p| (key(p.attributes()), p.value() as f64)).collect()
        }
        AggregatedMetrics::U64(MetricData::Gauge(gauge)) => {
            gauge.data_points().map(|p| (key(p.attributes()), p.value() as f64)).collect()
        }
        AggregatedMetrics::F64(MetricData::Gauge(gauge)) => {
            gauge.data_points().map(|p| (key(p.attributes()), p.value())).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// The events of a collection, summed by one attribute.
fn by(events: &Points, attribute: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (key, n) in events {
        let value = key.split(',').find_map(|kv| kv.strip_prefix(attribute)?.strip_prefix('=')).unwrap();
        *sums.entry(value.to_owned()).or_default() += *n as u64;
    }
    sums
}

fn same_as_stats(events: &Points, path: &Path) -> Stats {
    let stats = AuditReader::open(path).unwrap().stats().unwrap();
    assert_eq!(by(events, "level"), stats.by_level);
    assert_eq!(by(events, "component"), stats.by_component);
    stats
}

fn log_some(logger: &AuditLogger, n: u64) {
    for i in 0..n {
        let component = ["gate", "ledger", "argus"][i as usize % 3];
        logger.log(AuditEvent::info("seen").component(component)).unwrap();
        if i % 4 == 0 {
            logger.log(AuditEvent::security("denied").component(component)).unwrap();
        }
        logger.log_config_change("/etc/shop.yaml", i, i + 1).unwrap();
    }
}

fn config(path: &Path) -> AuditConfig {
    AuditConfig::new(path).durability(Durability::Accepted)
}

#[test]
fn a_followed_trail_is_counted_exactly_over_restarts_on_both_stores() {
    let dir = TempTrail::new();
    for path in [dir.db(), dir.jsonl()] {
        for run in 1..=3 {
            let meters = Meters::new();
            let logger = AuditLogger::open(config(&path)).unwrap();
            let follow = AuditMetrics::builder().follow(logger.reader().unwrap());
            let metrics = follow.install(&meters.meter(), &logger).unwrap();
            for _ in 0..3 {
                log_some(&logger, 400);
                logger.flush(SOON).unwrap();
                let events = &meters.collect()[names::METRIC_EVENTS];
                same_as_stats(events, &path);
                assert!(events["component=argus,level=CRITICAL"] >= 400.0);
            }
            logger.close(SOON);
            let stats = same_as_stats(&meters.collect()[names::METRIC_EVENTS], &path);
            assert_eq!(stats.by_event["audit_close"], run, "what Argus says of itself is counted, too");
            assert_eq!((metrics.catch_up(SOON), metrics.read_errors()), (true, 0));
            drop(metrics);
            assert!(!meters.collect().contains_key(names::METRIC_EVENTS), "nothing is shown once the handle is gone");
        }
    }
}

/// Puts the file of the first path in the place of the second.
type Put = fn(&Path, &Path);

/// A closed trail with so many changes of its own.
fn trail_of(path: &Path, n: u64) {
    let logger = AuditLogger::open(config(path)).unwrap();
    log_some(&logger, n);
    logger.close(SOON);
}

#[test]
fn a_trail_in_the_place_of_another_is_counted_anew() {
    use std::fs::{copy, remove_file, rename};
    use std::os::unix::fs::symlink;

    let renamed: Put = |new, path| rename(new, path).unwrap();
    let written_over: Put = |new, path| assert!(copy(new, path).unwrap() > 0);
    // The inode may be used again.
    let made_again: Put = |new, path| {
        remove_file(path).unwrap();
        copy(new, path).unwrap();
    };
    let linked: Put = |new, path| {
        remove_file(path).unwrap();
        symlink(new, path).unwrap();
    };
    for put in [renamed, written_over, made_again, linked] {
        for ext in ["db", "jsonl"] {
            // Longer than the one before, and shorter; behind a link, and not.
            for (n, behind_a_link) in [(40, true), (4, false)] {
                let dir = TempTrail::new();
                let [path, new, real] = ["audit", "new", "real"].map(|name| dir.path(&format!("{name}.{ext}")));
                trail_of(&path, 12);
                trail_of(&new, n);
                if behind_a_link {
                    rename(&path, &real).unwrap();
                    symlink(&real, &path).unwrap();
                }
                let reader = AuditReader::open(&path).unwrap();
                let meters = Meters::new();
                let sink = Trail::new().logger;
                let metrics = AuditMetrics::builder().follow(reader).install(&meters.meter(), &sink).unwrap();
                let before = same_as_stats(&meters.collect()[names::METRIC_EVENTS], &path).records;
                put(&new, &path);
                assert!(metrics.catch_up(SOON));
                let after = same_as_stats(&meters.collect()[names::METRIC_EVENTS], &path).records;
                assert_ne!(before, after);
                assert_eq!(metrics.read_errors(), 0);
            }
        }
    }
}

#[test]
fn a_backup_that_is_put_back_is_counted_anew() {
    let renamed: Put = |backup, path| std::fs::rename(backup, path).unwrap();
    // The same file, with the same first record.
    let written_over: Put = |backup, path| assert!(std::fs::copy(backup, path).unwrap() > 0);
    for put in [renamed, written_over] {
        let dir = TempTrail::new();
        for (path, backup) in [(dir.db(), dir.path("backup.db")), (dir.jsonl(), dir.path("backup.jsonl"))] {
            trail_of(&path, 4);
            std::fs::copy(&path, &backup).unwrap();
            trail_of(&path, 12);
            let (meters, sink) = (Meters::new(), Trail::new().logger);
            let follow = AuditMetrics::builder().follow(AuditReader::open(&path).unwrap());
            let _metrics = follow.install(&meters.meter(), &sink).unwrap();
            same_as_stats(&meters.collect()[names::METRIC_EVENTS], &path);
            put(&backup, &path);
            same_as_stats(&meters.collect()[names::METRIC_EVENTS], &path);
        }
    }
}

#[test]
fn where_an_unreadable_trail_ends_is_an_error_at_start() {
    let dir = TempTrail::new();
    trail_of(&dir.jsonl(), 1);
    let reader = AuditReader::open(dir.jsonl()).unwrap();
    std::fs::remove_file(dir.jsonl()).unwrap();
    let (meters, sink) = (Meters::new(), Trail::new().logger);
    let e = AuditMetrics::builder().follow_from_now(reader).install(&meters.meter(), &sink).unwrap_err();
    assert!(matches!(e, MetricsError::Read(_)) && e.to_string().contains("audit.jsonl"), "{e}");
}

/// The records that a collection tells of.
fn told(meters: &Meters) -> u64 {
    meters.collect().get(names::METRIC_EVENTS).map_or(0, |events| events.values().sum::<f64>() as u64)
}

#[test]
fn with_delta_a_history_is_sent_at_each_start_unless_it_is_left_out() {
    let dir = TempTrail::new();
    for path in [dir.db(), dir.jsonl()] {
        trail_of(&path, 12);
        let history = || AuditReader::open(&path).unwrap().stats().unwrap().records;
        for from_now in [false, true, false, true] {
            let had = history();
            let meters = Meters::with(Temporality::Delta);
            let logger = Trail::new().logger;
            let reader = AuditReader::open(&path).unwrap();
            let builder = AuditMetrics::builder();
            let builder = if from_now { builder.follow_from_now(reader) } else { builder.follow(reader) };
            let metrics = builder.install(&meters.meter(), &logger).unwrap();
            assert_eq!(told(&meters), if from_now { 0 } else { had });
            assert_eq!(told(&meters), 0);
            // Of another writer; its `audit_open` and `audit_close` are new, too.
            trail_of(&path, 4);
            assert_eq!(told(&meters), history() - had);
            assert_eq!(told(&meters), 0);
            assert!(metrics.catch_up(SOON));
        }
    }
}

/// As an operator does it: what stands beside the old database goes with it.
fn put_in_place(new: &Path, path: &Path) {
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    std::fs::rename(new, path).unwrap();
}

#[test]
fn with_delta_another_trail_takes_nothing_back_if_history_is_left_out() {
    let dir = TempTrail::new();
    for (path, backup) in [(dir.db(), dir.path("backup.db")), (dir.jsonl(), dir.path("backup.jsonl"))] {
        trail_of(&path, 4);
        std::fs::copy(&path, &backup).unwrap();
        let meters = Meters::with(Temporality::Delta);
        let logger = Trail::new().logger;
        let follow = AuditMetrics::builder().follow_from_now(AuditReader::open(&path).unwrap());
        let _metrics = follow.install(&meters.meter(), &logger).unwrap();
        let records = || AuditReader::open(&path).unwrap().stats().unwrap().records;
        let had = records();
        assert_eq!(told(&meters), 0);
        trail_of(&path, 12);
        assert_eq!(told(&meters), records() - had);
        put_in_place(&backup, &path);
        assert_eq!(told(&meters), 0, "what the backup holds is no news");
        trail_of(&path, 4);
        assert_eq!(told(&meters), records() - had);
        let longer = dir.path("longer").with_extension(path.extension().unwrap());
        trail_of(&longer, 40);
        put_in_place(&longer, &path);
        assert_eq!(told(&meters), 0, "nor what another trail holds");
    }
}

#[test]
fn a_trail_that_is_gone_is_an_error_until_there_is_one_again() {
    let dir = TempTrail::new();
    for path in [dir.db(), dir.jsonl()] {
        trail_of(&path, 12);
        let meters = Meters::new();
        let t = Trail::new();
        let follow = AuditMetrics::builder().follow(AuditReader::open(&path).unwrap());
        let metrics = follow.install(&meters.meter(), &t.logger).unwrap();
        let before = meters.collect();
        std::fs::remove_file(&path).unwrap();
        assert!(!metrics.catch_up(SOON));
        let gone = meters.collect();
        assert_eq!(gone[names::METRIC_EVENTS], before[names::METRIC_EVENTS], "what was counted stands");
        assert!(gone[names::METRIC_READ_ERRORS][""] >= 1.0);
        for no_trail in ["no trail\n", "no trail"] {
            std::fs::write(&path, no_trail).unwrap();
            assert!(!metrics.catch_up(SOON));
        }
        std::fs::remove_file(&path).unwrap();
        trail_of(&path, 4);
        assert!(metrics.catch_up(SOON));
        same_as_stats(&meters.collect()[names::METRIC_EVENTS], &path);
    }
}

#[test]
fn records_of_other_writers_are_counted_once() {
    let dir = TempTrail::new();
    let meters = Meters::new();
    let first = AuditLogger::open(config(&dir.db())).unwrap();
    let second = AuditLogger::open(config(&dir.db())).unwrap();
    let metrics = AuditMetrics::builder().follow(first.reader().unwrap()).install(&meters.meter(), &first).unwrap();
    std::thread::scope(|s| {
        s.spawn(|| log_some(&first, 300));
        s.spawn(|| log_some(&second, 300));
        // Collections between the commits neither disturb nor are disturbed.
        s.spawn(|| (0..5).for_each(|_| drop(meters.collect())));
    });
    second.close(SOON);
    first.flush(SOON).unwrap();
    let stats = same_as_stats(&meters.collect()[names::METRIC_EVENTS], &dir.db());
    assert_eq!(stats.records, 2 * 675 + 3);
    drop(metrics);
}

#[test]
fn without_a_trail_to_read_what_is_committed_from_now_on_counts() {
    let memory = MemoryTrail::new();
    let logger = AuditLogger::open_in_memory(AuditConfig::default(), &memory).unwrap();
    let meters = Meters::new();
    let metrics = AuditMetrics::install(&meters.meter(), &logger).unwrap();
    log_some(&logger, 8);
    logger.report_loss(LossReason::QueueFull, 3);
    logger.close(SOON);
    let events = &meters.collect()[names::METRIC_EVENTS];
    assert_eq!(events["component=argus,level=CRITICAL"], 8.0, "eight changes; {events:?}");
    assert_eq!(by(events, "level")["SECURITY"], 3, "two denials and the gap record");
    let committed: u64 = by(events, "level").values().sum();
    // All but `audit_open`; the gap record and `audit_close` are Argus's own.
    assert_eq!(committed + 1, memory.lines().len() as u64);
    assert!(metrics.catch_up(Duration::ZERO));
}

#[test]
fn the_account_is_shown() {
    let meters = Meters::new();
    let t = Trail::with(support::config().min_level(Level::Warn).durability(Durability::Accepted));
    let audit = t.wrap(OtelWrapperConfig::default());
    let metrics = AuditMetrics::builder().wrapper(&audit).install(&meters.meter(), &audit).unwrap();
    audit.log(AuditEvent::info("filtered")).unwrap();
    audit.log(AuditEvent::warn("kept")).unwrap();
    audit.log(AuditEvent::warn("")).unwrap_err();
    let relay = Carrier::relay(Duration::ZERO);
    audit.submit(&AuditEvent::warn(""), &relay).unwrap_err();
    audit.report_loss(LossReason::QueueFull, 4);
    audit.flush(SOON).unwrap();
    let all = meters.collect();
    let one = |name: &str| all[name][""];
    assert_eq!(one(names::METRIC_EMITTED), 7.0);
    assert_eq!((one(names::METRIC_REJECTED), one(names::METRIC_FILTERED)), (1.0, 1.0));
    let dropped = &all[names::METRIC_DROPPED];
    assert_eq!((dropped["reason=queue_full"], dropped["reason=invalid"], dropped["reason=closed"]), (4.0, 1.0, 0.0));
    assert_eq!(dropped.len(), LossReason::ALL.len());
    assert_eq!(dropped.values().sum::<f64>() as u64, audit.health().lost);
    assert!((0.0..60.0).contains(&one(names::METRIC_COMMIT_AGE)));
    for name in [
        names::METRIC_QUEUE_DEPTH,
        names::METRIC_PENDING,
        names::METRIC_DEGRADED,
        names::METRIC_CLOSED,
        names::METRIC_TRACING_ERRORS,
        names::METRIC_OBSERVER_MISSED,
    ] {
        assert_eq!(one(name), 0.0, "{name}");
    }
    t.memory.fail(u32::MAX);
    audit.log(AuditEvent::warn("stuck")).unwrap();
    audit.flush(Duration::from_millis(200)).unwrap_err();
    assert_eq!((meters.one(names::METRIC_DEGRADED), meters.one(names::METRIC_QUEUE_DEPTH)), (1.0, 1.0));
    assert!(meters.one(names::METRIC_QUEUE_SIZE) > 0.0);
    audit.close(Duration::from_millis(200));
    // The second one waits until the first has given up.
    audit.close(SOON);
    let all = meters.collect();
    assert_eq!(all[names::METRIC_CLOSED][""], 1.0);
    assert_eq!(all[names::METRIC_DROPPED]["reason=store_failed"], 1.0);
    drop(metrics);
}

#[test]
fn the_handle_keeps_no_trail_open_and_the_provider_neither() {
    let meters = Meters::new();
    let dir = TempTrail::new();
    let logger = AuditLogger::open(config(&dir.db())).unwrap();
    let metrics = AuditMetrics::builder().follow(logger.reader().unwrap()).install(&meters.meter(), &logger).unwrap();
    drop(logger);
    drop(metrics);
    // The last handle is gone, so the trail is closed.
    let events = AuditReader::open(dir.db()).unwrap().stats().unwrap().by_event;
    assert_eq!(events["audit_close"], 1);
}

#[test]
fn in_prometheus_the_names_are_these() {
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().unwrap();
    let provider = SdkMeterProvider::builder().with_reader(exporter).build();
    let dir = TempTrail::new();
    let logger = AuditLogger::open(config(&dir.db())).unwrap();
    let audit = OtelAuditWrapper::without_tracer(logger.clone());
    let builder = AuditMetrics::builder().follow(logger.reader().unwrap()).wrapper(&audit).components(2);
    let metrics = builder.install(&provider.meter("argus"), &audit).unwrap();
    audit.log_config_change("/etc/shop.yaml", 1, 2).unwrap();
    for component in ["gate", "ledger", "till"] {
        audit.log(AuditEvent::info("e").component(component)).unwrap();
    }
    audit.flush(SOON).unwrap();
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let value = |name: &str, labels: &[&str]| {
        let line = text
            .lines()
            .find(|l| l.split(['{', ' ']).next() == Some(name) && labels.iter().all(|want| l.contains(want)));
        let line = line.unwrap_or_else(|| panic!("no {name} {labels:?} in\n{text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let events = "argus_audit_events_total";
    assert_eq!(value(events, &["level=\"CRITICAL\"", "component=\"argus\""]), 1.0);
    assert_eq!(value(events, &["level=\"INFO\"", "component=\"argus\""]), 1.0, "audit_open");
    assert_eq!(value(events, &["component=\"gate\""]), 1.0);
    assert_eq!(value(events, &["component=\"other\""]), 2.0);
    for name in [
        "audit_records_emitted_total",
        "audit_queue_depth",
        "argus_audit_queue_size_bytes",
        "argus_audit_rejected_total",
        "argus_audit_filtered_total",
        "argus_audit_pending",
        "argus_audit_observer_missed_total",
        "argus_audit_last_commit_age_seconds",
        "argus_audit_degraded",
        "argus_audit_closed",
        "argus_audit_tracing_errors_total",
        "argus_audit_metrics_read_errors_total",
        "argus_audit_trail_size_bytes",
        "argus_audit_wal_size_bytes",
    ] {
        value(name, &[]);
    }
    value("audit_records_dropped_total", &["reason=\"store_failed\""]);
    drop(metrics);
}
