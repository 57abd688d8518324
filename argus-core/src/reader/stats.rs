//! Counts of a whole trail, in one walk.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Item, Source, gather};
use crate::error::TrailError;
use crate::form::is_record;

/// Counts of a trail.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Records.
    pub records: u64,
    /// By level.
    pub by_level: BTreeMap<String, u64>,
    /// By event name; beyond 1,000 names the rest is counted under `(other)`.
    pub by_event: BTreeMap<String, u64>,
    /// By component; as `by_event`.
    pub by_component: BTreeMap<String, u64>,
    /// Writers that appear.
    pub writers: u64,
    /// Earliest `timestamp`.
    pub oldest: Option<String>,
    /// Latest `timestamp`.
    pub newest: Option<String>,
    /// Rows or lines that are no records.
    pub damaged: u64,
}

/// Most distinct keys counted apart.
const KEYS: usize = 1000;

pub(super) fn stats(source: &dyn Source) -> Result<Stats, TrailError> {
    let count = |map: &mut BTreeMap<String, u64>, key: &str| match map.get_mut(key) {
        Some(n) => *n += 1,
        None => *map.entry(if map.len() < KEYS { key.into() } else { "(other)".into() }).or_default() += 1,
    };
    let (mut stats, writers) = gather(source, |(s, writers): &mut (Stats, BTreeSet<String>), item| {
        let f = match item {
            // The same rows that a query gives.
            Item::Row(f, sum) if is_record(f, sum) => f,
            _ => {
                s.damaged += 1;
                return true;
            }
        };
        s.records += 1;
        count(&mut s.by_level, f.level);
        count(&mut s.by_event, f.event);
        count(&mut s.by_component, f.component);
        if !writers.contains(f.writer) {
            writers.insert(f.writer.to_owned());
        }
        if s.oldest.as_deref().is_none_or(|o| f.timestamp < o) {
            s.oldest = Some(f.timestamp.into());
        }
        if s.newest.as_deref().is_none_or(|n| f.timestamp > n) {
            s.newest = Some(f.timestamp.into());
        }
        true
    })?;
    stats.writers = writers.len() as u64;
    Ok(stats)
}
