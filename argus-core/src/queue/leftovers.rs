//! What a process that was killed while it opened a trail leaves: a lock file that never got its name. Removed by the next opening. Runs while a trail is opened.

use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};

use super::files::{Beside, Owner, split_name};
use crate::store::place;

/// The ending of a lock file that is not locked yet.
pub(super) const UNNAMED: &str = ".new";

impl Beside {
    /// Removes the lock files that killed processes left without a name. A live process may be about to lock its own: then it makes another one
    /// ([`begin`](Beside::begin)). What cannot be opened or removed is in nobody's way.
    pub(super) fn sweep(&self) {
        let dir = self.trail.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut prefix = self.trail.file_name().unwrap_or_default().as_bytes().to_vec();
        prefix.push(b'.');
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let ending = name.as_bytes().strip_prefix(&prefix[..]).and_then(split_name).map(|(_, ending)| ending);
            if ending.and_then(|e| e.strip_prefix("lock")) == Some(UNNAMED) {
                self.remove_leftover(&dir.join(&name));
            }
        }
    }

    fn remove_leftover(&self, path: &Path) {
        if place::check(path, self.access).is_err() {
            return;
        }
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or(0);
        let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else { return };
        // Who holds this lock is the only one that removes or names this very file: what stands at the path is still that one, or nothing is done.
        if is_dead(&file) && place::identity(path).ok() == place::identity_of(&file) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn is_dead(file: &File) -> bool {
    // A child that the dead process forked may hold its lock.
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() || Owner::read(file).is_some_and(|o| o.is_gone())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::id::WriterId;
    use crate::queue::files::aside;
    use crate::store::place::Access;

    fn beside(dir: &Path) -> Beside {
        Beside { trail: dir.join("audit.db"), access: Access { mode: 0o600, group: None }, spill_dir: None }
    }

    fn unnamed(dir: &Path) -> Vec<PathBuf> {
        let all = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        all.filter(|p| p.extension().is_some_and(|e| e == "new")).collect()
    }

    fn leave(beside: &Beside, owner: Option<&Owner>) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = aside(&beside.lock(WriterId::random()), UNNAMED);
        std::fs::write(&path, owner.map(|o| serde_json::to_vec(o).unwrap()).unwrap_or_default()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    #[test]
    fn what_a_killed_opening_left_goes_at_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let beside = beside(dir.path());
        let here = Owner::of_this_process();
        let _empty = leave(&beside, None);
        let _written = leave(&beside, Some(&Owner { started: 1, ..here.clone() }));
        let forked = leave(&beside, Some(&Owner { started: 1, ..here.clone() }));
        let live = leave(&beside, Some(&here));
        let held: Vec<File> = [&forked, &live].map(|p| File::open(p).unwrap()).into();
        held.iter().for_each(|f| flock(f, FlockOperation::NonBlockingLockExclusive).unwrap());
        let others = dir.path().join("audit.db.something.lock.new");
        std::fs::write(&others, "").unwrap();
        let mut kept = vec![live, others];
        kept.sort();
        let lock = beside.begin(WriterId::random(), &here).unwrap();
        let mut found = unnamed(dir.path());
        found.sort();
        assert_eq!(found, kept);
        drop(lock);
    }

    #[test]
    fn many_that_open_at_once_take_nobody_for_dead() {
        let dir = tempfile::tempdir().unwrap();
        let beside = beside(dir.path());
        let over = std::sync::atomic::AtomicBool::new(false);
        let open = || -> Result<(), crate::TrailError> {
            let here = Owner::of_this_process();
            for _ in 0..100 {
                let writer = WriterId::random();
                let lock = beside.begin(writer, &here)?;
                assert!(beside.take_over(writer)?.is_none(), "it lives");
                lock.remove();
            }
            Ok(())
        };
        let results: Vec<_> = std::thread::scope(|s| {
            // Between the steps of the others, far more often than openings are.
            s.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    beside.sweep();
                }
            });
            let openers: Vec<_> = (0..4).map(|_| s.spawn(open)).collect();
            let results = openers.into_iter().map(|o| o.join()).collect();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            results
        });
        for result in results {
            result.unwrap().unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
