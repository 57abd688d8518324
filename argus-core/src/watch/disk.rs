//! The file system as the watcher sees it: the chain of links behind a path, and a bounded read of what it leads to. Runs on the watcher's thread.
//! Invariants: a read never blocks on a pipe and never takes more than the limit; a file that changes while it is read is read again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use super::state::Seen;

/// Most links that are followed, as Linux has it.
const MAX_LINKS: usize = 40;
/// How often a file that changes under the read is read anew.
const MAX_READS: usize = 4;

/// What identifies a directory beyond its name.
pub(crate) type Identity = (u64, u64);

/// Everything whose change can change what a path leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Directories to watch: that of every link, of the file, and the nearest there is of a missing one.
    pub(crate) dirs: BTreeMap<PathBuf, Identity>,
    /// The links and the file, as paths in those directories.
    pub(crate) names: BTreeSet<PathBuf>,
}

impl Chain {
    /// Follows `path`, which is absolute.
    pub(crate) fn of(path: &Path) -> Chain {
        let mut chain = Chain::default();
        let mut here = PathBuf::from("/");
        let mut todo: Vec<PathBuf> = parts(path);
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == Path::new("..") {
                here.pop();
                continue;
            }
            let next = here.join(&part);
            match std::fs::symlink_metadata(&next) {
                Ok(m) if m.is_symlink() && links < MAX_LINKS => {
                    links += 1;
                    chain.add(&here, &next);
                    let Ok(target) = std::fs::read_link(&next) else { break };
                    if target.is_absolute() {
                        here = PathBuf::from("/");
                    }
                    todo.extend(parts(&target));
                }
                Ok(m) if m.is_dir() && !todo.is_empty() => here = next,
                _ => {
                    // The file, or where the path ends for now.
                    chain.add(&here, &next);
                    break;
                }
            }
        }
        chain
    }

    fn add(&mut self, dir: &Path, name: &Path) {
        self.names.insert(name.to_owned());
        if let Some(identity) = identity(dir) {
            self.dirs.insert(dir.to_owned(), identity);
        }
    }
}

/// The components of a path, last first, without the root.
fn parts(path: &Path) -> Vec<PathBuf> {
    let keep = |c: Component<'_>| match c {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    };
    path.components().rev().filter_map(keep).collect()
}

/// Device and inode of a directory.
pub(crate) fn identity(dir: &Path) -> Option<Identity> {
    std::fs::metadata(dir).ok().filter(Metadata::is_dir).map(|m| (m.dev(), m.ino()))
}

/// Looks at a file.
pub(crate) fn look(path: &Path, limit: u64) -> Seen {
    match read(path, limit) {
        Ok(seen) => seen,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Seen::Missing,
        Err(e) => Seen::Unreadable(e.to_string()),
    }
}

fn read(path: &Path, limit: u64) -> io::Result<Seen> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(Seen::Unreadable("it is no regular file".into()));
    }
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut reads = 0;
    loop {
        reads += 1;
        let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Ok(Seen::Unreadable("it is no regular file".into()));
        }
        if before.len() > limit {
            return Ok(Seen::TooBig { size: before.len(), limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(before.len()).unwrap_or(0));
        (&file).take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Ok(Seen::TooBig { size: length(&file, bytes.len()), limit });
        }
        let after = file.metadata()?;
        let same =
            (before.len(), before.mtime(), before.mtime_nsec()) == (after.len(), after.mtime(), after.mtime_nsec());
        if same || reads >= MAX_READS {
            return Ok(Seen::Bytes { bytes, modified: after.modified().ok() });
        }
    }
}

fn length(file: &File, at_least: usize) -> u64 {
    file.metadata().map_or(0, |m| m.len()).max(at_least as u64)
}

/// The files of a directory whose extension names a format, links included; names that begin with a dot are not the user's.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        let known = super::format::Format::of(&path) != super::format::Format::Text;
        if !hidden && known && std::fs::metadata(&path).is_ok_and(|m| m.is_file()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_chain_of_a_config_map() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        fs::create_dir(root.join("..v1")).unwrap();
        fs::write(root.join("..v1/app.yaml"), "a: 1").unwrap();
        symlink("..v1", root.join("..data")).unwrap();
        symlink("..data/app.yaml", root.join("app.yaml")).unwrap();
        let chain = Chain::of(&root.join("app.yaml"));
        assert_eq!(chain.dirs.keys().cloned().collect::<Vec<_>>(), [root.clone(), root.join("..v1")]);
        let names = ["..data", "..v1/app.yaml", "app.yaml"].map(|n| root.join(n));
        assert_eq!(chain.names.iter().cloned().collect::<Vec<_>>(), names);
        fs::remove_dir_all(root.join("..v1")).unwrap();
        let broken = Chain::of(&root.join("app.yaml"));
        assert!(broken.dirs.contains_key(&root) && broken.names.contains(&root.join("..v1")));
    }

    #[test]
    fn loops_pipes_directories_and_size() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        assert!(!Chain::of(&root.join("a")).dirs.is_empty());
        assert!(matches!(look(&root.join("a"), 9), Seen::Unreadable(_)));
        assert!(matches!(look(root, 9), Seen::Unreadable(_)));
        assert!(matches!(look(&root.join("none/x"), 9), Seen::Missing));
        fs::write(root.join("big"), "0123456789").unwrap();
        assert!(matches!(look(&root.join("big"), 9), Seen::TooBig { size: 10, limit: 9 }));
        assert!(matches!(look(&root.join("big"), 10), Seen::Bytes { bytes, .. } if bytes.len() == 10));
        assert!(matches!(look(&root.join("big/x"), 10), Seen::Missing));
    }
}
