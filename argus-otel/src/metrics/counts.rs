//! Records counted by level and component, with few distinct components.

use std::collections::BTreeMap;

use argus_core::Level;

use crate::names;

const LEVELS: [Level; 4] = [Level::Info, Level::Warn, Level::Critical, Level::Security];

/// The first `cap` components that appear have counts of their own. A trail is read in its order, so they are the same ones after each start.
#[derive(Debug)]
pub(super) struct Counts {
    by_component: BTreeMap<String, [u64; LEVELS.len()]>,
    other: [u64; LEVELS.len()],
    cap: usize,
}

impl Counts {
    pub(super) fn new(cap: usize) -> Self {
        Self { by_component: BTreeMap::new(), other: [0; LEVELS.len()], cap }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.cap);
    }

    pub(super) fn add(&mut self, level: Level, component: &str) {
        let room = self.by_component.len() < self.cap && component != names::METRIC_OTHER;
        let counts = match self.by_component.get_mut(component) {
            Some(counts) => counts,
            None if room => self.by_component.entry(component.to_owned()).or_default(),
            None => &mut self.other,
        };
        counts[level as usize] += 1;
    }

    /// Every count above zero: level, component, records.
    pub(super) fn each(&self, mut f: impl FnMut(Level, &str, u64)) {
        let components = self.by_component.iter().map(|(c, n)| (c.as_str(), n));
        for (component, counts) in components.chain([(names::METRIC_OTHER, &self.other)]) {
            for (level, n) in LEVELS.into_iter().zip(counts).filter(|(_, n)| **n > 0) {
                f(level, component, *n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_beyond_the_cap_are_other_and_nothing_is_lost() {
        let mut counts = Counts::new(2);
        for (level, component) in [
            (Level::Info, "a"),
            (Level::Security, "b"),
            (Level::Warn, "c"),
            (Level::Info, "a"),
            (Level::Warn, "other"),
            (Level::Critical, "d"),
        ] {
            counts.add(level, component);
        }
        let mut got = Vec::new();
        counts.each(|l, c, n| got.push((l, c.to_owned(), n)));
        let expected = [
            (Level::Info, "a", 2),
            (Level::Security, "b", 1),
            (Level::Warn, "other", 2),
            (Level::Critical, "other", 1),
        ];
        assert_eq!(got, expected.map(|(l, c, n)| (l, c.to_owned(), n)));
    }
}
