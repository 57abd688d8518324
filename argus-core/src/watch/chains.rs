//! Which directories the source watches, and which files a path in one of them concerns. On the watcher's thread.
//! Invariants: a chain of links is followed again after a directory of it was armed, until nothing new comes up, so a link that is swapped in between is not
//! missed; the cost of a hint does not grow with the number of files it does not concern.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::disk::{Chain, Identity};
use super::source::Source;

/// How often chains are followed again while links keep moving; the slow poll sees the rest.
const ROUNDS: usize = 5;
/// A name that no file has: its chain is that to a watched directory, and the directory itself.
const PROBE: &str = "\u{1}";

/// The key of a watched directory.
pub(crate) fn probe(dir: &Path) -> PathBuf {
    dir.join(PROBE)
}

fn is_probe(key: &Path) -> bool {
    key.file_name().is_some_and(|n| n == PROBE)
}

pub(crate) struct Chains {
    source: Box<dyn Source>,
    /// The directories of the source; `None`: it refused.
    armed: BTreeMap<PathBuf, Option<Identity>>,
    /// By file, or by the probe of a watched directory.
    chains: BTreeMap<PathBuf, Chain>,
    /// Keys by the names and directories in their chains.
    by_name: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    /// Keys by the directories in their chains.
    by_dir: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    /// An armed directory was moved or removed.
    lost: bool,
}

impl Chains {
    pub(crate) fn new(source: Box<dyn Source>) -> Self {
        Self {
            source,
            armed: BTreeMap::new(),
            chains: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_dir: BTreeMap::new(),
            lost: false,
        }
    }

    /// The keys in whose chain a path is that was named. A directory that is itself named may be another one by now, even with the same number: it is armed anew.
    pub(crate) fn named(&mut self, paths: &[PathBuf]) -> BTreeSet<PathBuf> {
        for path in paths {
            if self.armed.get(path).is_some_and(Option::is_some) {
                self.armed.remove(path);
                self.source.unwatch(path);
                self.lost = true;
            }
        }
        paths.iter().filter_map(|p| self.by_name.get(p)).flatten().cloned().collect()
    }

    /// The files with this directory in their chain; `None` if it is in no chain. The flag says that a watched directory is it or leads to it.
    pub(crate) fn inside(&self, dir: &Path) -> Option<(Vec<PathBuf>, bool)> {
        let keys = self.by_dir.get(dir)?;
        let (probes, files): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(|k| is_probe(k));
        Some((files, !probes.is_empty()))
    }

    /// Whether a path is in a chain by its name.
    pub(crate) fn knows(&self, path: &Path) -> bool {
        self.by_name.contains_key(path)
    }

    pub(crate) fn is_in_a_chain(&self, dir: &Path) -> bool {
        self.by_dir.contains_key(dir)
    }

    /// Follows the chains of exactly these keys. Gives what the source refused; it is asked again only if `retry`.
    pub(crate) fn set(&mut self, keys: &BTreeSet<PathBuf>, retry: bool) -> Vec<(PathBuf, String)> {
        let before = self.chains.len();
        self.chains.retain(|k, _| keys.contains(k));
        self.lost |= self.chains.len() != before || retry;
        self.follow(keys, retry)
    }

    /// Follows these chains again.
    pub(crate) fn refresh(&mut self, keys: &BTreeSet<PathBuf>) -> Vec<(PathBuf, String)> {
        self.follow(keys, false)
    }

    fn follow(&mut self, keys: &BTreeSet<PathBuf>, retry: bool) -> Vec<(PathBuf, String)> {
        let mut refused = Vec::new();
        for round in 0..ROUNDS {
            let mut moved = std::mem::take(&mut self.lost);
            for key in keys {
                let chain = Chain::of(key);
                if self.chains.get(key) != Some(&chain) {
                    self.chains.insert(key.clone(), chain);
                    moved = true;
                }
            }
            if !moved {
                break;
            }
            self.index();
            if !self.arm(retry && round == 0, &mut refused) {
                break;
            }
        }
        refused
    }

    fn index(&mut self) {
        self.by_name.clear();
        self.by_dir.clear();
        for (key, chain) in &self.chains {
            for name in chain.names.iter().chain(chain.dirs.keys()) {
                self.by_name.entry(name.clone()).or_default().insert(key.clone());
            }
            for dir in chain.dirs.keys() {
                self.by_dir.entry(dir.clone()).or_default().insert(key.clone());
            }
        }
    }

    /// Whether anything was armed that was not before.
    fn arm(&mut self, retry: bool, refused: &mut Vec<(PathBuf, String)>) -> bool {
        let mut wanted: BTreeMap<&PathBuf, Identity> = BTreeMap::new();
        for chain in self.chains.values() {
            wanted.extend(chain.dirs.iter().map(|(d, i)| (d, *i)));
        }
        let gone: Vec<PathBuf> = self.armed.keys().filter(|d| !wanted.contains_key(d)).cloned().collect();
        for dir in gone {
            self.armed.remove(&dir);
            self.source.unwatch(&dir);
        }
        let mut new = false;
        for (dir, identity) in wanted {
            match self.armed.get(dir) {
                Some(Some(i)) if *i == identity => continue,
                Some(None) if !retry => continue,
                Some(Some(_)) => self.source.unwatch(dir),
                _ => {}
            }
            let known = self.armed.get(dir) == Some(&None);
            match self.source.watch(dir) {
                Ok(()) => {
                    new = true;
                    self.armed.insert(dir.clone(), Some(identity));
                }
                Err(text) => {
                    if !known {
                        refused.push((dir.clone(), text));
                    }
                    self.armed.insert(dir.clone(), None);
                }
            }
        }
        new
    }
}
