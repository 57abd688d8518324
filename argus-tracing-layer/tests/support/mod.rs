//! What the tests share: a trail in memory under a subscriber, and its records.
#![allow(dead_code)]

#[cfg(feature = "otel")]
pub(crate) mod otel;

use std::collections::BTreeMap;
use std::time::Duration;

use argus_core::{AuditConfig, AuditLogger, AuditSink, MemoryTrail};
use argus_tracing_layer::AuditLayer;
use serde_json::Value;
use tracing::subscriber::with_default;
use tracing_subscriber::prelude::*;

/// Long enough for a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Trail {
    pub(crate) memory: MemoryTrail,
    pub(crate) logger: AuditLogger,
}

impl Trail {
    pub(crate) fn new() -> Self {
        Self::with(AuditConfig::default())
    }

    pub(crate) fn with(config: AuditConfig) -> Self {
        let memory = MemoryTrail::new();
        let logger = AuditLogger::open_in_memory(config, &memory).unwrap();
        Self { memory, logger }
    }

    pub(crate) fn layer(&self) -> AuditLayer<AuditLogger> {
        AuditLayer::new(self.logger.clone())
    }

    /// Runs `f` under a subscriber that is this trail's layer alone.
    pub(crate) fn run(&self, f: impl FnOnce()) {
        with_default(tracing_subscriber::registry().with(self.layer()), f);
    }

    /// Every record, Argus's own included; closes the trail.
    pub(crate) fn all(&self) -> Vec<Value> {
        self.logger.close(SOON);
        self.memory.lines().iter().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// The records that events became, in order.
    pub(crate) fn records(&self) -> Vec<Value> {
        let own = ["audit_open", "audit_close", "audit_gap"];
        self.all().into_iter().filter(|r| !own.iter().any(|o| r["event"] == *o)).collect()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.records().iter().map(|r| r["event"].as_str().unwrap().to_owned()).collect()
    }

    /// The record of that event.
    pub(crate) fn one(&self, event: &str) -> Value {
        let all = self.records();
        let mut found: Vec<_> = all.iter().filter(|r| r["event"] == event).cloned().collect();
        assert_eq!(found.len(), 1, "{event} in {all:#?}");
        found.remove(0)
    }

    /// What the gap records tell, by reason.
    pub(crate) fn gaps(&self) -> Vec<(String, u64)> {
        let mut sums = BTreeMap::new();
        for gap in self.all().iter().filter(|r| r["event"] == "audit_gap").map(|r| &r["context"]) {
            *sums.entry(gap["reason"].as_str().unwrap().to_owned()).or_default() += gap["count"].as_u64().unwrap();
        }
        sums.into_iter().collect()
    }
}

/// The one record that `f` makes.
pub(crate) fn record(f: impl FnOnce()) -> Value {
    let trail = Trail::new();
    trail.run(f);
    let mut records = trail.records();
    assert_eq!(records.len(), 1, "{records:#?}");
    records.remove(0)
}
