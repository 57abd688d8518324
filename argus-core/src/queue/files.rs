//! The files of a writer beside its trail: a lock that says whether it lives, and the segments of its journal. Names, headers, owners. Runs while a trail is opened
//! and on the keeper's thread. Format: `docs/record-format.md`, section 8.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock};

use super::journal::Made;
use super::leftovers::UNNAMED;
pub(crate) use super::owner::Owner;
use super::segment::Segment;
use crate::entry::sum;
use crate::error::{ErrorKind, TrailError};
use crate::id::WriterId;
use crate::store::place::{self, Access};

/// Bytes before the first entry of a segment.
pub(crate) const HEADER: usize = 8192;
const MAGIC: &[u8; 8] = b"ARGUSJ\r\n";
const VERSION: u32 = 4;
/// Magic, version, length of the identity, number, log id, writer, check value.
const NUMBER: std::ops::Range<usize> = 16..24;
pub(crate) const LOG_ID: std::ops::Range<usize> = 24..40;
const IDENTITY: usize = 64;

/// Where a trail's files are and how they are made.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    pub(crate) trail: PathBuf,
    pub(crate) access: Access,
    /// Where pending files are made, if not beside the trail.
    pub(crate) spill_dir: Option<PathBuf>,
}

/// What lies beside a trail for one writer.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) lock: Option<PathBuf>,
    pub(crate) segments: Vec<PathBuf>,
    /// Its pending file; several only where somebody copied one.
    pub(crate) pending: Vec<PathBuf>,
}

/// A dead writer's lock and what it says, as far as there is one.
pub(crate) type TakenOver = (Option<WriterLock>, Option<Owner>);

/// A segment's header, read back.
#[derive(Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) number: u64,
    pub(crate) log_id: WriterId,
    pub(crate) writer: WriterId,
    pub(crate) owner: Owner,
}

/// Bytes of a new segment that are written at once.
const WRITE: usize = 64 << 10;

impl Beside {
    fn path(&self, writer: WriterId, ending: &str) -> PathBuf {
        let mut name = self.trail.as_os_str().to_owned();
        name.push(format!(".{writer}.{ending}"));
        PathBuf::from(name)
    }

    pub(crate) fn lock(&self, writer: WriterId) -> PathBuf {
        self.path(writer, "lock")
    }

    fn segment(&self, writer: WriterId, index: u32) -> PathBuf {
        self.path(writer, &format!("{index}.journal"))
    }

    /// The pending file of a writer that begins.
    pub(crate) fn pending(&self, writer: WriterId) -> PathBuf {
        let mut name = self.trail.file_name().unwrap_or_default().to_owned();
        name.push(format!(".pending.{writer}.jsonl"));
        match &self.spill_dir {
            Some(dir) => dir.join(name),
            None => self.trail.with_file_name(name),
        }
    }

    /// Every writer that has files here.
    pub(crate) fn scan(&self) -> std::io::Result<BTreeMap<WriterId, Found>> {
        let mut all = scan(&self.trail)?;
        if let Some(dir) = &self.spill_dir {
            // One that cannot be read, or is not made yet, has none: nobody who asks could do anything about it.
            let _ = scan_pending(dir, &self.trail, &mut all);
        }
        Ok(all)
    }

    /// What lies here of one writer, which by its own account may have had another folder for its pending file.
    /// `over`: the log has all of it.
    pub(crate) fn of(&self, writer: WriterId, owner: Option<&Owner>, over: bool) -> std::io::Result<Found> {
        let mut all = scan(&self.trail)?;
        match self.spill_dir.as_ref().map_or(Ok(()), |dir| scan_pending(dir, &self.trail, &mut all)) {
            // Nobody says where its file is: it may be there.
            Err(e) if owner.is_none() && e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        if let Some((owner, dir)) = owner.map(|o| (o, Path::new(&o.spill_dir))).filter(|d| d.1.is_absolute()) {
            match scan_pending(dir, &self.trail, &mut all) {
                Ok(()) => {}
                // It is made for the first file only.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && (over || owner.last.is_none()) => {}
                // It may have its file there.
                Err(e) => return Err(e),
            }
        }
        Ok(all.remove(&writer).unwrap_or_default())
    }

    /// Whether this file system keeps a promise of `fallocate`, so that a store into the mapping never finds the disk full.
    pub(crate) fn reserves(&self) -> Result<(), String> {
        const GOOD: &[(u32, &str)] = &[(0xef53, "ext4"), (0x5846_5342, "xfs"), (0x0102_1994, "tmpfs")];
        #[cfg(target_os = "linux")]
        {
            let dir = self.trail.parent().unwrap_or(Path::new("."));
            let st = rustix::fs::statfs(dir).map_err(|e| e.to_string())?;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast)]
            let magic = st.f_type as u32;
            if GOOD.iter().any(|(m, _)| *m == magic) {
                return Ok(());
            }
            Err(format!(
                "the file system (type {magic:#x}) is none of those on which space can be reserved: ext4, xfs, tmpfs"
            ))
        }
        #[cfg(not(target_os = "linux"))]
        Err(format!("journals are for Linux ({})", GOOD.len()))
    }

    /// Makes a zeroed, reserved and touched segment of `len` bytes.
    pub(crate) fn make(
        &self,
        index: u32,
        len: usize,
        (log_id, writer): (WriterId, WriterId),
        owner: &Owner,
    ) -> Result<Made, TrailError> {
        let path = self.segment(writer, index);
        let fail = |e: std::io::Error| TrailError::io("cannot make a segment of the journal", &path, e);
        let file = self.create(&path).map_err(fail)?;
        let reserve = || -> std::io::Result<Segment> {
            fallocate(&file, FallocateFlags::empty(), 0, len as u64)?;
            // Pages are made several times faster by writing than by touching them, and more than one at a time.
            let zeros = [0; WRITE];
            for at in (0..len).step_by(WRITE) {
                file.write_all_at(zeros.get(..WRITE.min(len - at)).unwrap_or_default(), at as u64)?;
            }
            let mut segment = Segment::map(&file, len)?;
            segment.touch();
            write_header(segment.bytes_mut(), log_id, writer, owner);
            Ok(segment)
        };
        reserve().map(|segment| Made { segment, path: path.clone() }).map_err(|e| {
            let _ = std::fs::remove_file(&path);
            fail(e)
        })
    }

    fn create(&self, path: &Path) -> std::io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(self.access.mode)
            .custom_flags(i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or(0))
            .open(path)?;
        place::set_access(path, self.access.mode, self.access.group).map_err(std::io::Error::other)?;
        Ok(file)
    }

    /// Takes the lock of a writer that begins. It holds as long as the file is open.
    pub(crate) fn begin(&self, writer: WriterId, owner: &Owner) -> Result<WriterLock, TrailError> {
        self.sweep();
        let path = self.lock(writer);
        let mut tries = 20;
        let file = loop {
            tries -= 1;
            match self.lock_and_name(&path, owner) {
                Ok(file) => break file,
                // Another opening may have taken it for a leftover, as long as it was not locked.
                Err(_) if tries > 0 => {}
                Err(e) => return Err(TrailError::io("cannot make the writer's lock file", &path, e)),
            }
        };
        Ok(WriterLock { file, path, owner: owner.clone() })
    }

    /// It gets its name when it is locked: one that is not locked is a dead writer's, and is taken away.
    fn lock_and_name(&self, path: &Path, owner: &Owner) -> std::io::Result<File> {
        let unnamed = aside(path, UNNAMED);
        let make = || {
            let mut file = self.create(&unnamed)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            match file.write_all(&owner.line()) {
                // What it says is worth having; that it is locked is what counts.
                Err(e) if is_full(&e) => file.set_len(0)?,
                written => written?,
            }
            std::fs::rename(&unnamed, path)?;
            Ok(file)
        };
        make().inspect_err(|_| drop(std::fs::remove_file(&unnamed)))
    }

    /// Takes the lock of another writer, if that one is dead; one without a lock is. `None`: it lives, or somebody else is at it.
    pub(crate) fn take_over(&self, writer: WriterId) -> Result<Option<TakenOver>, TrailError> {
        // Asked anew, never believed of a listing: a lock is there before anything else of its writer, and goes last.
        let path = &self.lock(writer);
        match rustix::fs::lstat(path) {
            Ok(_) => {}
            Err(rustix::io::Errno::NOENT) => return Ok(Some((None, None))),
            // Who cannot look does not know that it is dead.
            Err(e) => return Err(TrailError::io("cannot look for a writer's lock file", path, e.into())),
        }
        place::check_beside(path, None, &self.trail, self.access)?;
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or(0))
            .open(path);
        let mut file = match opened {
            Ok(f) => f,
            // Closed meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(TrailError::io("cannot open a writer's lock file", path, e)),
        };
        // A child that the dead process forked may hold its lock.
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
            && !Owner::read(&file).is_some_and(|o| o.is_gone())
        {
            return Ok(None);
        }
        // Now that nobody says anything else in it.
        let mut text = Vec::new();
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| (&mut file).take(64 << 10).read_to_end(&mut text));
        read.map_err(|e| TrailError::io("cannot read a writer's lock file", path, e))?;
        let owner: Option<Owner> = serde_json::from_slice(&text).ok();
        // Whoever was faster has removed it, and perhaps another writer's file has its place.
        if place::identity(path).ok() != place::identity_of(&file) {
            return Ok(None);
        }
        let lock = WriterLock { file, path: path.clone(), owner: owner.clone().unwrap_or_default() };
        Ok(Some((Some(lock), owner)))
    }
}

/// Every writer that has files beside a trail.
pub(crate) fn scan(trail: &Path) -> std::io::Result<BTreeMap<WriterId, Found>> {
    let dir = trail.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = trail.file_name().unwrap_or_default().as_bytes().to_vec();
    prefix.push(b'.');
    let mut all: BTreeMap<WriterId, Found> = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(rest) = name.as_bytes().strip_prefix(&prefix[..]) else { continue };
        let path = dir.join(OsString::from_vec(name.as_bytes().to_vec()));
        if let Some((writer, "jsonl")) = rest.strip_prefix(PENDING).and_then(split_name) {
            all.entry(writer).or_default().pending.push(path);
            continue;
        }
        let Some((writer, ending)) = split_name(rest) else { continue };
        let found = all.entry(writer).or_default();
        if ending == "lock" {
            found.lock = Some(path);
        } else if ending.ends_with(".journal") {
            found.segments.push(path);
        }
    }
    Ok(all)
}

/// What stands before the writer in a pending file's name.
const PENDING: &[u8] = b"pending.";

/// Adds the pending files of a trail in another folder.
pub(crate) fn scan_pending(dir: &Path, trail: &Path, all: &mut BTreeMap<WriterId, Found>) -> std::io::Result<()> {
    let mut prefix = trail.file_name().unwrap_or_default().as_bytes().to_vec();
    prefix.push(b'.');
    prefix.extend_from_slice(PENDING);
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some((writer, "jsonl")) = name.as_bytes().strip_prefix(&prefix[..]).and_then(split_name) {
            let pending = &mut all.entry(writer).or_default().pending;
            let path = entry.path();
            // The folder may be the trail's own by another name.
            let known = |p: &PathBuf| place::identity(p).is_ok_and(|id| place::identity(&path).ok() == Some(id));
            if !pending.iter().any(known) {
                pending.push(path);
            }
        }
    }
    Ok(())
}

/// Whether two files stand in one folder, whatever their paths call it.
pub(crate) fn same_folder(a: &Path, b: &Path) -> bool {
    let folder = |p: &Path| p.parent().and_then(|dir| std::fs::metadata(dir).ok()).map(|m| (m.dev(), m.ino()));
    folder(a).is_some_and(|of_a| folder(b) == Some(of_a))
}

/// Whether a pending file that names no log is this trail's: it stands beside it, or says so, by this path or by another one to the same place.
pub(crate) fn is_of(pending: &Path, named: &str, trail: &Path) -> bool {
    let place = Path::new(named);
    same_folder(pending, trail)
        || named == trail.to_string_lossy()
        || (place.file_name() == trail.file_name() && same_folder(place, trail))
}

/// As `scan`, with the pending files in folders that living writers name.
pub(crate) fn scan_all(trail: &Path) -> std::io::Result<BTreeMap<WriterId, Found>> {
    let mut all = scan(trail)?;
    let locks: Vec<PathBuf> = all.values().filter_map(|f| f.lock.clone()).collect();
    let dirs: std::collections::BTreeSet<String> =
        locks.iter().filter_map(|l| owner_in(l)).map(|o| o.spill_dir).filter(|d| Path::new(d).is_absolute()).collect();
    for dir in dirs {
        let _ = scan_pending(Path::new(&dir), trail, &mut all);
    }
    Ok(all)
}

/// What a lock file says. Never waits, takes no lock.
pub(crate) fn owner_in(lock: &Path) -> Option<Owner> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let open = OpenOptions::new().read(true).custom_flags(i32::try_from(flags.bits()).ok()?).open(lock);
    let file = open.ok().filter(|f| f.metadata().is_ok_and(|m| m.is_file()))?;
    let mut text = Vec::new();
    file.take(64 << 10).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The number of a segment, as it stands in its file now.
pub(crate) fn number_in(file: &File) -> std::io::Result<u64> {
    let mut number = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut number, NUMBER.start as u64)?;
    Ok(u64::from_le_bytes(number))
}

pub(super) fn split_name(rest: &[u8]) -> Option<(WriterId, &str)> {
    let rest = std::str::from_utf8(rest).ok()?;
    let (writer, ending) = rest.split_at_checked(36)?;
    Some((WriterId::parse_exact(writer)?, ending.strip_prefix('.')?))
}

/// Whether there is no room on a disk, or none for this user.
fn is_full(e: &std::io::Error) -> bool {
    matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// A lock that is held.
#[derive(Debug)]
pub(crate) struct WriterLock {
    file: File,
    path: PathBuf,
    owner: Owner,
}

impl WriterLock {
    /// Says that all its owner accepted, up to this number, stands in its pending file.
    pub(crate) fn spilled(&mut self, last: u64, log_id: Option<WriterId>) -> std::io::Result<()> {
        self.owner.last = Some(last);
        self.owner.log_id = log_id.map(|id| id.to_string());
        self.amend(crate::spill::SPILLED)
    }

    /// Says something else of its owner's queue.
    pub(crate) fn amend(&mut self, queue: &str) -> std::io::Result<()> {
        self.owner.queue = queue.into();
        // Over the old text, in one write: on a full disk that one is worth more than none.
        let mut line = self.owner.line();
        let old = usize::try_from(self.file.metadata()?.len()).unwrap_or(0);
        line.resize(line.len().max(old), b' ');
        match std::os::unix::fs::FileExt::write_all_at(&self.file, &line, 0) {
            // There was no room for the first one either. Without a text nobody believes more of the queue than he should.
            Err(e) if old == 0 && is_full(&e) => self.file.set_len(0),
            written => written,
        }
    }

    /// Removes the file; the writer is closed or recovered.
    pub(crate) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(slot) = bytes.get_mut(at..at + value.len()) {
        slot.copy_from_slice(value);
    }
}

/// Sets the number of a segment; 0 says that it holds nothing.
pub(crate) fn set_number(bytes: &mut [u8], number: u64) {
    put(bytes, NUMBER.start, &number.to_le_bytes());
}

fn write_header(bytes: &mut [u8], log_id: WriterId, writer: WriterId, owner: &Owner) {
    let identity = serde_json::to_vec(owner).unwrap_or_default();
    let identity = if identity.len() <= HEADER - IDENTITY { identity } else { Vec::new() };
    put(bytes, 8, &VERSION.to_le_bytes());
    put(bytes, 12, &u32::try_from(identity.len()).unwrap_or(0).to_le_bytes());
    put(bytes, LOG_ID.start, &log_id.to_bytes());
    put(bytes, 40, &writer.to_bytes());
    put(bytes, IDENTITY, &identity);
    put(bytes, 56, &check(log_id, writer, &identity).to_le_bytes());
    // Last: a header without it is none yet.
    put(bytes, 0, MAGIC);
}

fn check(log_id: WriterId, writer: WriterId, identity: &[u8]) -> u32 {
    sum(&[&log_id.to_bytes(), &writer.to_bytes(), identity].concat())
}

/// Whether a file that has no header holds something all the same: entries, whose header is gone. Of a segment that is being made, or zeroed, this is not true.
pub(crate) fn lacks_header(bytes: &[u8]) -> bool {
    !bytes.starts_with(MAGIC) && bytes.iter().skip(HEADER).any(|b| *b != 0)
}

/// Reads a header. `Ok(None)`: the file holds nothing (yet).
pub(crate) fn read_header(bytes: &[u8], path: &Path) -> Result<Option<Header>, TrailError> {
    let number = |r: std::ops::Range<usize>| bytes.get(r).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let id =
        |at: usize| WriterId::from_bytes(bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).unwrap_or_default());
    if number(NUMBER) == 0 {
        return Ok(None);
    }
    let damaged =
        |what: &str| Err(TrailError::new(ErrorKind::Damaged, what).at(path).help("the file is kept as it is"));
    // A number is given to whole segments only.
    if bytes.len() < HEADER || !bytes.starts_with(MAGIC) {
        return damaged("the journal's header is not whole");
    }
    if word(8) != VERSION {
        return Err(TrailError::new(
            ErrorKind::NewerVersion,
            format!("the journal has version {}, this build knows {VERSION}", word(8)),
        )
        .at(path)
        .help(match word(8) < VERSION {
            true => "open the trail once with the Argus that wrote it; the file is kept as it is",
            false => "use a newer Argus; the file is kept as it is",
        }));
    }
    let identity = bytes.get(IDENTITY..IDENTITY + word(12) as usize).unwrap_or_default();
    if check(id(LOG_ID.start), id(40), identity) != word(56) {
        return damaged("the journal's header does not check");
    }
    let owner = serde_json::from_slice(identity).unwrap_or_default();
    Ok(Some(Header { number: number(NUMBER), log_id: id(LOG_ID.start), writer: id(40), owner }))
}

/// `path` with an ending more, for files that are put aside.
pub(crate) fn aside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(OsStr::new(ending));
    PathBuf::from(name)
}

/// As [`aside`], with a number where such a file is there already: evidence is never written over.
pub(crate) fn free_aside(path: &Path, ending: &str) -> PathBuf {
    let free = |p: &PathBuf| rustix::fs::lstat(p).is_err();
    let first = aside(path, ending);
    if free(&first) {
        return first;
    }
    (2..1_000).map(|n| aside(path, &format!(".{n}{ending}"))).find(free).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_and_damage_shows() {
        let (log, writer) = (WriterId::random(), WriterId::random());
        let owner = Owner { service_name: "shop".into(), ..Owner::of_this_process() };
        assert!(owner.started > 0 && !owner.boot_id.is_empty() && !owner.is_gone());
        let mut bytes = vec![0; HEADER];
        let path = Path::new("x");
        assert_eq!(read_header(&bytes, path).unwrap(), None);
        write_header(&mut bytes, log, writer, &owner);
        assert_eq!(read_header(&bytes, path).unwrap(), None, "without a number it holds nothing");
        set_number(&mut bytes, 7);
        let expected = Header { number: 7, log_id: log, writer, owner: owner.clone() };
        assert_eq!(read_header(&bytes, path).unwrap(), Some(expected));
        let version = bytes[8];
        bytes[8] = version + 1;
        let newer = read_header(&bytes, path).unwrap_err();
        assert!(newer.kind() == ErrorKind::NewerVersion && newer.to_string().contains("newer Argus"), "{newer}");
        bytes[8] = version - 1;
        let older = read_header(&bytes, path).unwrap_err();
        assert!(older.to_string().contains("that wrote it"), "{older}");
        bytes[8] = version;
        bytes[41] ^= 1;
        assert_eq!(read_header(&bytes, path).unwrap_err().kind(), ErrorKind::Damaged);
        let journal = Owner { queue: "journal".into(), ..owner.clone() };
        assert_eq!(journal.may_have_lost(), None);
        assert_eq!(Owner { boot_id: "another".into(), ..journal }.may_have_lost(), Some("machine_restarted"));
        assert_eq!(Owner::default().may_have_lost(), Some("process_died"));
        assert!(Owner { started: 1, ..owner.clone() }.is_gone());
        assert!(!Owner { started: 1, boot_id: "another".into(), ..owner }.is_gone());
    }

    #[test]
    fn a_lock_that_a_forked_child_holds_is_taken_over_once_its_writer_is_certainly_gone() {
        let dir = tempfile::tempdir().unwrap();
        let beside =
            Beside { trail: dir.path().join("audit.db"), access: Access { mode: 0o600, group: None }, spill_dir: None };
        let here = Owner::of_this_process();
        // Another process has its number now.
        let gone = Owner { started: 1, queue: "journal".into(), ..here.clone() };
        let cases = [
            (gone.clone(), true),
            (here.clone(), false),
            // Its number means nothing here.
            (Owner { boot_id: "another".into(), ..gone.clone() }, false),
            (Owner { boot_id: String::new(), ..gone.clone() }, false),
            (Owner { pid_namespace: "another".into(), ..gone.clone() }, false),
            (Owner { started: 0, ..gone.clone() }, false),
        ];
        for (owner, is_dead) in cases {
            let writer = WriterId::random();
            let mut lock = beside.begin(writer, &owner).unwrap();
            // One more handle of the same opening, as a child gets it: the lock goes with the last.
            let child = lock.file.try_clone().unwrap();
            lock.amend("journal").unwrap();
            drop(lock);
            let taken = beside.take_over(writer).unwrap();
            assert_eq!(taken.is_some(), is_dead, "{owner:?}");
            if let Some((taken, said)) = taken {
                assert_eq!(said, Some(owner));
                taken.unwrap().remove();
                assert!(!beside.lock(writer).exists());
            }
            drop(child);
        }
        // What it says may be nothing: then the lock alone counts.
        let writer = WriterId::random();
        let lock = beside.begin(writer, &gone).unwrap();
        lock.file.set_len(0).unwrap();
        assert!(beside.take_over(writer).unwrap().is_none());
        drop(lock);
        assert!(matches!(beside.take_over(writer).unwrap(), Some((Some(_), None))));
    }

    #[test]
    fn names_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let beside =
            Beside { trail: dir.path().join("audit.db"), access: Access { mode: 0o600, group: None }, spill_dir: None };
        let (a, b) = (WriterId::random(), WriterId::random());
        let lock = beside.begin(a, &Owner::of_this_process()).unwrap();
        if beside.reserves().is_ok() {
            drop(beside.make(3, HEADER + 4096, (b, b), &Owner::default()).unwrap());
        }
        std::fs::write(dir.path().join("audit.db.not-a-uuid.lock"), "").unwrap();
        std::fs::write(dir.path().join(format!("other.db.{a}.lock")), "").unwrap();
        let found = beside.scan().unwrap();
        assert!(found[&a].lock.is_some() && found[&a].segments.is_empty());
        assert!(found.len() == 1 || found[&b].segments.len() == 1);
        assert!(beside.take_over(a).unwrap().is_none(), "it lives");
        drop(lock);
        let (taken, owner) = beside.take_over(a).unwrap().unwrap();
        assert_eq!(owner, Some(Owner::of_this_process()));
        taken.unwrap().remove();
        assert!(matches!(beside.take_over(a).unwrap(), Some((None, None))), "without a lock it is dead");
    }
}
