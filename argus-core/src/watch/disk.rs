//! The file system as the watcher sees it: the chain of links behind a path, and a bounded read of what it leads to. Runs on the watcher's thread.
//! Invariants: a read never blocks on a pipe and never takes more than the limit; a file that changes while it is read is read again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use super::format::Format;
use super::state::{Seen, Trouble};

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

/// What changes with every write to a file, every replacement and every change of its rights; `None`: it cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(Option<[i64; 7]>, Option<SystemTime>);

impl Stamp {
    /// That of what `path` leads to.
    pub(crate) fn of(path: &Path) -> Stamp {
        let Ok(m) = std::fs::metadata(path) else { return Stamp(None, None) };
        let whole = |n: u64| n.cast_signed();
        let marks =
            [whole(m.dev()), whole(m.ino()), whole(m.len()), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()];
        Stamp(Some(marks), m.modified().ok())
    }

    /// Whether the last write is less than `quiet` away from `now`. A file from the far future is not fresh for ever.
    pub(crate) fn fresh(&self, now: SystemTime, quiet: Duration) -> bool {
        self.1.is_some_and(|at| match now.duration_since(at) {
            Ok(age) => age < quiet,
            Err(ahead) => ahead.duration() < quiet,
        })
    }
}

/// Looks at a file.
pub(crate) fn look(path: &Path, limit: u64) -> Seen {
    read(path, limit).unwrap_or_else(failed)
}

/// What an error of the operating system means. Only a refusal is one; that files or memory ran out says nothing about rights.
fn failed(e: io::Error) -> Seen {
    let trouble = match (e.kind(), e.raw_os_error().map(Errno::from_raw_os_error)) {
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _) => return Seen::Missing,
        (io::ErrorKind::PermissionDenied, _) => Trouble::Denied,
        (_, Some(Errno::MFILE | Errno::NFILE)) => Trouble::Unreadable("too_many_open_files"),
        (_, Some(Errno::IO)) => Trouble::Unreadable("input_output"),
        (_, Some(Errno::LOOP)) => Trouble::Unreadable("link_loop"),
        (_, Some(Errno::NOMEM)) => Trouble::Unreadable("out_of_memory"),
        (_, Some(Errno::NAMETOOLONG)) => Trouble::Unreadable("name_too_long"),
        (_, Some(Errno::STALE)) => Trouble::Unreadable("stale_handle"),
        (_, Some(Errno::TIMEDOUT)) => Trouble::Unreadable("timed_out"),
        _ => Trouble::Unreadable("other"),
    };
    Seen::Unreadable { trouble, error: e.to_string() }
}

fn not_regular() -> Seen {
    Seen::Unreadable { trouble: Trouble::Unreadable("not_a_regular_file"), error: "it is no regular file".into() }
}

fn read(path: &Path, limit: u64) -> io::Result<Seen> {
    // Asked before the open: opening a device can do something.
    if !std::fs::metadata(path)?.is_file() {
        return Ok(not_regular());
    }
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut reads = 0;
    loop {
        reads += 1;
        let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Ok(not_regular());
        }
        if before.len() > limit {
            return Ok(Seen::TooBig { size: before.len(), limit, modified: before.modified().ok() });
        }
        // A sparse file may claim any size.
        let mut bytes = Vec::with_capacity(usize::try_from(before.len()).unwrap_or(0).min(1 << 20));
        (&file).take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        let after = file.metadata()?;
        if bytes.len() as u64 > limit {
            let size = after.len().max(bytes.len() as u64);
            return Ok(Seen::TooBig { size, limit, modified: after.modified().ok() });
        }
        let same =
            (before.len(), before.mtime(), before.mtime_nsec()) == (after.len(), after.mtime(), after.mtime_nsec());
        if same || reads >= MAX_READS {
            return Ok(Seen::Bytes { bytes, modified: after.modified().ok() });
        }
    }
}

/// The files of a directory whose extension names a format, links included; names that begin with a dot are not the user's. Those that `known` has are left out
/// without a question to the disk.
pub(crate) fn list(dir: &Path, known: impl Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && Format::of(&path) != Format::Text
            && !known(&path)
            && std::fs::metadata(&path).is_ok_and(|m| m.is_file())
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
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
        assert!(matches!(look(&root.join("a"), 9), Seen::Unreadable { trouble: Trouble::Unreadable("link_loop"), .. }));
        assert!(matches!(look(root, 9), Seen::Unreadable { trouble: Trouble::Unreadable("not_a_regular_file"), .. }));
        assert!(matches!(look(&root.join("none/x"), 9), Seen::Missing));
        fs::write(root.join("big"), "0123456789").unwrap();
        assert!(matches!(look(&root.join("big"), 9), Seen::TooBig { size: 10, limit: 9, .. }));
        assert!(matches!(look(&root.join("big"), 10), Seen::Bytes { bytes, .. } if bytes.len() == 10));
        assert!(matches!(look(&root.join("big/x"), 10), Seen::Missing));
    }

    #[test]
    fn only_a_refusal_is_permission_denied() {
        let trouble = |errno: Errno| match failed(io::Error::from_raw_os_error(errno.raw_os_error())) {
            Seen::Unreadable { trouble, .. } => Some(trouble),
            _ => None,
        };
        assert_eq!([Errno::ACCESS, Errno::PERM].map(trouble), [Some(Trouble::Denied); 2]);
        assert_eq!([Errno::NOENT, Errno::NOTDIR].map(trouble), [None; 2]);
        assert_eq!(trouble(Errno::MFILE), Some(Trouble::Unreadable("too_many_open_files")));
        assert_eq!(trouble(Errno::IO), Some(Trouble::Unreadable("input_output")));
        assert_eq!(trouble(Errno::NODEV), Some(Trouble::Unreadable("other")));
    }

    #[test]
    fn a_stamp_tells_writes_and_freshness() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        assert_eq!(Stamp::of(&path), Stamp::of(&path));
        fs::write(&path, "1").unwrap();
        let first = Stamp::of(&path);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        let stamp = Stamp::of(&path);
        assert_ne!(first, stamp);
        let s = Duration::from_secs;
        let fresh = |now| stamp.fresh(now, s(10));
        assert_eq!([at, at + s(9), at - s(9)].map(fresh), [true; 3]);
        assert_eq!([at + s(10), at - s(10)].map(fresh), [false; 2]);
    }
}
