//! Making and checking the files of a trail, before anybody opens them: owner, mode, links, kind of file system. Existing database files are looked at, never
//! opened, since closing any descriptor of one drops SQLite's locks.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind as Io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags};

use crate::error::{ErrorKind, TrailError};

/// Who may share a trail's files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) mode: u32,
    pub(crate) group: Option<u32>,
}

/// Makes the directory and the (empty) file where they are missing, checks them where they are not, and returns the path with its directory resolved.
pub(crate) fn prepare(path: &Path, access: Access) -> Result<(PathBuf, bool), TrailError> {
    let name = path
        .file_name()
        .ok_or_else(|| TrailError::new(ErrorKind::Config, "the trail's path names no file").at(path))?;
    let dir = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let dir = directory(dir, access)?;
    let file = dir.join(name);
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(&file, flags, Mode::from_raw_mode(access.mode)) {
        Ok(fd) => {
            drop(fd);
            set_access(&file, access.mode, access.group)?;
            Ok((file, true))
        }
        Err(e) if std::io::Error::from(e).kind() == Io::AlreadyExists => {
            check(&file, access)?;
            // Files that SQLite, or healing, would take for ours.
            for ending in ["-wal", "-shm", "-journal", ".torn"] {
                let mut beside = file.as_os_str().to_owned();
                beside.push(ending);
                let beside = Path::new(&beside);
                if rustix::fs::lstat(beside).is_ok() {
                    check(beside, access)?;
                }
            }
            Ok((file, false))
        }
        Err(e) => Err(TrailError::io("cannot make the trail's file", &file, e.into())),
    }
}

/// Makes a directory for files of a trail where it is missing, checks it where it is not, and returns it resolved.
pub(crate) fn directory(dir: &Path, access: Access) -> Result<PathBuf, TrailError> {
    // The directory's `x` bits follow the file's `r` bits; setgid keeps a shared group.
    let mut dir_mode = access.mode | (access.mode & 0o444) >> 2;
    if access.group.is_some() {
        dir_mode |= 0o2000;
    }
    if !dir.exists() {
        let new: Vec<&Path> = dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
        DirBuilder::new()
            .recursive(true)
            .mode(dir_mode)
            .create(dir)
            .map_err(|e| TrailError::io("cannot make the trail's directory", dir, e))?;
        set_access(dir, dir_mode, access.group)?;
        // A committed record is lost with the name of a directory above it: new names are synced, the outermost first.
        let above = |d: &Path| d.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        if let Err(e) = new.iter().rev().try_for_each(|d| sync_directory(&above(d))) {
            // Whoever tries again must not find them there and believe that they are.
            new.iter().for_each(|d| drop(std::fs::remove_dir(d)));
            return Err(e);
        }
    }
    let dir = dir.canonicalize().map_err(|e| TrailError::io("cannot resolve the trail's directory", dir, e))?;
    let meta =
        rustix::fs::stat(&dir).map_err(|e| TrailError::io("cannot look at the trail's directory", &dir, e.into()))?;
    if !FileType::from_raw_mode(meta.st_mode).is_dir() {
        return Err(TrailError::new(ErrorKind::Config, "the trail's parent is no directory").at(&dir));
    }
    let me = rustix::process::geteuid().as_raw();
    let shared = access.group == Some(meta.st_gid);
    if meta.st_uid != me && meta.st_uid != 0 && me != 0 && !shared {
        return Err(TrailError::new(ErrorKind::Unsafe, "the trail's directory belongs to another user")
            .at(&dir)
            .help("put the trail into a directory of the user that runs this, or configure the group that shares it"));
    }
    if meta.st_mode & 0o002 != 0 && meta.st_mode & 0o1000 == 0 {
        return Err(TrailError::new(ErrorKind::Unsafe, "anybody may replace files in the trail's directory")
            .at(&dir)
            .help("take away write access for others (chmod o-w), or put the trail elsewhere"));
    }
    Ok(dir)
}

/// A folder for pending files of its own belongs to this user, root or the configured group, and not everybody may put a file there, even with a sticky bit. One
/// that is not there yet is made by [`directory`].
pub(crate) fn own_directory(dir: &Path, access: Access) -> Result<(), TrailError> {
    let st = match rustix::fs::stat(dir) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        other => other.map_err(|e| TrailError::io("cannot look at spill_dir", dir, e.into()))?,
    };
    let bad = |what: &str, help: &'static str| Err(TrailError::new(ErrorKind::Unsafe, what).at(dir).help(help));
    if !FileType::from_raw_mode(st.st_mode).is_dir() {
        return Err(TrailError::new(ErrorKind::Config, "spill_dir is no folder").at(dir).help("name a folder"));
    }
    let me = rustix::process::geteuid().as_raw();
    if st.st_uid != me && st.st_uid != 0 && access.group != Some(st.st_gid) {
        return bad("spill_dir belongs to another user", "name a folder of the user that runs this");
    }
    if st.st_mode & 0o002 != 0 {
        return bad("anybody may put files into spill_dir", "take away write access for others (chmod o-w)");
    }
    Ok(())
}

/// Whether the file system of a path is mounted read-only.
#[cfg(feature = "sqlite")]
pub(crate) fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Whether this process may write a file that is there.
#[cfg(feature = "sqlite")]
pub(crate) fn is_writable(path: &Path) -> bool {
    !is_read_only(path) && rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

/// Makes the names in a directory survive power loss.
pub(crate) fn sync_directory(dir: &Path) -> Result<(), TrailError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| TrailError::io("cannot sync the trail's directory", dir, e))
}

/// What stands under a name: device and number, and bytes.
#[cfg(feature = "sqlite")]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) id: (u64, u64),
    pub(crate) bytes: u64,
}

/// By its name: closing a descriptor of a database of ours would drop SQLite's locks. And nothing but this: once a file's times were asked for, Linux 6.13 and later
/// note the next write's to the nanosecond, and so each sync of SQLite's log would wait for the file system's journal, too.
#[cfg(feature = "sqlite")]
pub(crate) fn seen(path: &Path) -> std::io::Result<Seen> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, StatxFlags, statx};
        use rustix::io::Errno;
        match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO | StatxFlags::SIZE) {
            // Some containers know no such call.
            Err(Errno::NOSYS | Errno::PERM) => {}
            s => {
                let s = s?;
                let device = u64::from(s.stx_dev_major) << 32 | u64::from(s.stx_dev_minor);
                return Ok(Seen { id: (device, s.stx_ino), bytes: s.stx_size });
            }
        }
    }
    use std::os::unix::fs::MetadataExt;
    let m = std::fs::symlink_metadata(path)?;
    Ok(Seen { id: (m.dev(), m.ino()), bytes: m.len() })
}

/// Device and number of a file.
pub(crate) fn identity(path: &Path) -> Result<(u64, u64), TrailError> {
    let st = rustix::fs::lstat(path).map_err(|e| TrailError::io("cannot look at the trail's file", path, e.into()))?;
    Ok((st.st_dev, st.st_ino))
}

/// The same of an open file.
pub(crate) fn identity_of(file: &std::fs::File) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    file.metadata().ok().map(|m| (m.dev(), m.ino()))
}

/// The error of a file that is not the one that was opened.
pub(crate) fn replaced(path: &Path) -> TrailError {
    TrailError::new(ErrorKind::Replaced, "the trail's file was deleted, moved or replaced while it was written")
        .at(path)
        .help("put the file back; what is queued is kept and written as soon as it is there, or open a new logger for a new trail")
}

pub(crate) fn set_access(path: &Path, mode: u32, group: Option<u32>) -> Result<(), TrailError> {
    let fail = |e: rustix::io::Errno| TrailError::io("cannot set owner or mode", path, e.into());
    if let Some(g) = group {
        rustix::fs::chown(path, None, Some(Gid::from_raw(g))).map_err(fail)?;
    }
    // After chown, which clears setgid; and whatever the umask is.
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).map_err(fail)
}

fn look(file: &Path) -> Result<rustix::fs::Stat, TrailError> {
    rustix::fs::statat(rustix::fs::CWD, file, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| TrailError::io("cannot look at the trail's file", file, e.into()))
}

/// Whether a file of a trail is one that may be written and believed.
pub(crate) fn check(file: &Path, access: Access) -> Result<(), TrailError> {
    judge(file, &look(file)?, access)
}

/// As `check`, of a file that a writer left beside a trail; with `open`, of what was opened at that path. Root is no exception here: everybody's files may lie in a folder, and what
/// another user put there is none of this trail's.
pub(crate) fn check_beside(file: &Path, open: Option<&File>, trail: &Path, access: Access) -> Result<(), TrailError> {
    let st = match open {
        Some(open) => rustix::fs::fstat(open)
            .map_err(|e| TrailError::io("cannot look at a file beside the trail", file, e.into()))?,
        None => look(file)?,
    };
    judge(file, &st, access)?;
    let ours = st.st_uid == rustix::process::geteuid().as_raw() || access.group == Some(st.st_gid);
    if ours || look(trail).is_ok_and(|t| t.st_uid == st.st_uid) {
        return Ok(());
    }
    Err(TrailError::new(ErrorKind::Unsafe, "the file belongs neither to the owner of the trail nor to who runs this")
        .at(file)
        .help("it is left alone: give it to the trail's owner, or remove it"))
}

fn judge(file: &Path, st: &rustix::fs::Stat, access: Access) -> Result<(), TrailError> {
    let bad = |what: &str, help: &'static str| Err(TrailError::new(ErrorKind::Unsafe, what).at(file).help(help));
    match FileType::from_raw_mode(st.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return bad("the trail's file is a symbolic link", "name the file itself"),
        FileType::Directory => {
            return Err(TrailError::new(ErrorKind::NotATrail, "the trail's path is a directory")
                .at(file)
                .help("name a file in it"));
        }
        _ => return bad("the trail's file is no regular file", "name another file"),
    }
    if st.st_nlink != 1 {
        return bad("the trail's file has several hard links", "remove the others, or name another file");
    }
    let me = rustix::process::geteuid().as_raw();
    let shared = access.group == Some(st.st_gid);
    if st.st_uid != me && me != 0 && !shared {
        return bad(
            "the trail's file belongs to another user",
            "run as its owner, or configure the group that shares it",
        );
    }
    if st.st_mode & 0o002 != 0 {
        return bad("anybody may write to the trail's file", "take away write access for others (chmod o-w)");
    }
    Ok(())
}

/// Refuses file systems on which SQLite's shared memory or locks do not hold.
#[cfg(feature = "sqlite")]
pub(crate) fn check_file_system(path: &Path) -> Result<(), TrailError> {
    #[cfg(target_os = "linux")]
    {
        const NETWORK: &[(u32, &str)] = &[
            (0x6969, "NFS"),
            (0x517b, "SMB"),
            (0xff53_4d42, "CIFS"),
            (0xfe53_4d42, "SMB2"),
            (0x6573_5546, "FUSE or virtiofs"),
            (0x0102_1997, "9P"),
            (0x00c3_6400, "Ceph"),
            (0x5346_414f, "AFS"),
        ];
        let st =
            rustix::fs::statfs(path).map_err(|e| TrailError::io("cannot look at the file system", path, e.into()))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast)]
        let magic = st.f_type as u32;
        if let Some((_, name)) = NETWORK.iter().find(|(m, _)| *m == magic) {
            return Err(TrailError::new(
                ErrorKind::NetworkFileSystem,
                format!("an SQLite trail cannot live on {name}: its locks and shared memory do not hold there"),
            )
            .at(path)
            .help("put the trail on a local disk, or use a .jsonl trail"));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path;
    Ok(())
}
