//! What may be on the disk after a power cut. A file's bytes are durable once that file was synced, a name once its directory was; of everything since, any part
//! may be there: none, all, the last write torn or with a hole, all but one operation, one file's only, any subset.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::recorder::{Note, Op, Recording};
use crate::rng::Rng;

/// What a disk is sure to write whole.
const SECTOR: usize = 512;

/// Names and contents.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// `None` is a directory.
    names: BTreeMap<String, Option<usize>>,
    files: Vec<Vec<u8>>,
}

/// What a file says of its process, as another boot finds it: that process is this one, which lives, and after a power cut it does not.
fn after_a_restart(bytes: &[u8]) -> Vec<u8> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let (boot, mut bytes) = (boot.trim().as_bytes(), bytes.to_vec());
    while let Some(at) = bytes.windows(boot.len()).position(|w| w == boot) {
        bytes[at..at + boot.len()].copy_from_slice(b"8ed3f6ad-685b-459e-ad70-22518e1af76c");
    }
    bytes
}

impl Disk {
    /// A directory as it is, without `-shm` files.
    pub(crate) fn read(root: &Path) -> Self {
        let mut disk = Self::default();
        let mut todo = vec![root.to_owned()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() {
                    todo.push(path);
                    disk.names.insert(name, None);
                } else if !name.ends_with("-shm") {
                    disk.names.insert(name, Some(0));
                }
            }
        }
        for (name, file) in disk.names.iter_mut().filter(|(_, f)| f.is_some()) {
            *file = Some(disk.files.len());
            disk.files.push(std::fs::read(root.join(name)).unwrap());
        }
        disk
    }

    /// All that a recording did, as if there had been no crash.
    pub(crate) fn after(recording: &Recording) -> Self {
        let mut disk = recording.initial.clone();
        recording.ops.iter().for_each(|op| disk.apply(op));
        disk
    }

    /// Whether names and contents are those of another.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        let contents = |d: &Self| -> BTreeMap<String, Option<Vec<u8>>> {
            d.names.iter().map(|(n, f)| (n.clone(), f.map(|f| d.files[f].clone()))).collect()
        };
        contents(self) == contents(other)
    }

    /// Makes these files in an empty directory. A name whose directory is not there is not there either.
    pub fn write(&self, root: &Path) {
        for (name, file) in &self.names {
            let path = root.join(name);
            if !path.parent().unwrap().is_dir() {
                continue;
            }
            match file {
                None => std::fs::create_dir(&path).unwrap(),
                Some(f) => {
                    let bytes = self.files.get(*f).map_or(&[][..], Vec::as_slice);
                    let of_a_writer = name.contains(".lock") || name.contains(".pending.");
                    let bytes = if of_a_writer { Cow::Owned(after_a_restart(bytes)) } else { Cow::Borrowed(bytes) };
                    std::fs::write(&path, bytes).unwrap();
                }
            }
        }
    }

    fn file(&mut self, file: usize) -> &mut Vec<u8> {
        if self.files.len() <= file {
            self.files.resize(file + 1, Vec::new());
        }
        &mut self.files[file]
    }

    fn put(&mut self, file: usize, at: usize, bytes: &[u8]) {
        let content = self.file(file);
        if content.len() < at + bytes.len() {
            content.resize(at + bytes.len(), 0);
        }
        content[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Write { file, at, bytes } => self.put(*file, *at, bytes),
            Op::Truncate { file, len } => self.file(*file).resize(*len, 0),
            Op::Create { name, file } => {
                if let Some(f) = file {
                    self.file(*f);
                }
                self.names.insert(name.clone(), *file);
            }
            Op::Unlink { name } => {
                self.names.remove(name);
            }
            Op::Rename { from, to } => {
                if let Some(node) = self.names.remove(from) {
                    self.names.insert(to.clone(), node);
                }
            }
            Op::SyncFile { .. } | Op::SyncDir { .. } | Op::Note(_) => {}
        }
    }

    /// The first so many sectors of a write.
    fn apply_beginning(&mut self, op: &Op, n: usize) {
        if let Op::Write { file, at, bytes } = op {
            let end = sectors(*at, bytes.len()).take(n).last().map_or(0, |s| s.1);
            self.put(*file, *at, &bytes[..end]);
        }
    }

    /// Those sectors of a write that `keep` says, by their number within it; the length is reached in any case.
    fn apply_sectors(&mut self, op: &Op, mut keep: impl FnMut(usize) -> bool) {
        let Op::Write { file, at, bytes } = op else { return self.apply(op) };
        let len = self.file(*file).len().max(at + bytes.len());
        self.file(*file).resize(len, 0);
        for (i, (from, to)) in sectors(*at, bytes.len()).enumerate() {
            if keep(i) {
                self.put(*file, at + from, &bytes[from..to]);
            }
        }
    }
}

/// The parts of a write by the sectors of the file they go to.
fn sectors(at: usize, len: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from;
        from = (len).min(start + SECTOR - (at + start) % SECTOR);
        (start < len).then_some((start, from))
    })
}

/// Which part of what was not synced is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// Nothing.
    Durable,
    /// All.
    All,
    /// All, the last write only up to this sector.
    Torn(usize),
    /// All, without this sector of the last write.
    Hole(usize),
    /// All, of the last write only the new length.
    Zeros,
    /// All but this operation.
    Drop(usize),
    /// Only that of this operation's file.
    Only(usize),
    /// A subset by this seed; some of its writes have holes, or (`false`) end at some sector.
    Random(u64, bool),
}

/// A power cut after this many operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crash {
    /// How many operations were done.
    pub at: usize,
    /// What was left of them.
    pub variant: Variant,
}

/// Walks a recording and knows what is durable.
#[derive(Debug)]
pub(crate) struct Cursor<'r> {
    recording: &'r Recording,
    pub(crate) at: usize,
    durable: Disk,
    /// What is not synced, oldest first.
    pending: Vec<usize>,
}

impl Recording {
    /// What a crash leaves.
    pub fn image(&self, crash: Crash) -> Disk {
        let mut cursor = Cursor::new(self);
        while cursor.at < crash.at && cursor.step().is_some() {}
        cursor.image(crash.variant)
    }

    /// What the application knew before a crash: [`Recording::before`] of one that goes on from its image.
    pub fn notes_before(&self, crash: Crash) -> Vec<Note> {
        let noted =
            self.ops[..crash.at].iter().filter_map(|o| if let Op::Note(n) = o { Some(n.clone()) } else { None });
        self.before.iter().cloned().chain(noted).collect()
    }
}

impl<'r> Cursor<'r> {
    pub(crate) fn new(recording: &'r Recording) -> Self {
        Self { recording, at: 0, durable: recording.initial.clone(), pending: Vec::new() }
    }

    /// Does the next operation, and gives it.
    pub(crate) fn step(&mut self) -> Option<&'r Op> {
        let op = self.recording.ops.get(self.at)?;
        match op {
            Op::SyncFile { file } => self.settle(|op| file_of(op) == Some(*file)),
            Op::SyncDir { name } => self.settle(|op| parents(op).any(|p| p == name)),
            Op::Note(_) => {}
            _ => self.pending.push(self.at),
        }
        self.at += 1;
        Some(op)
    }

    fn settle(&mut self, what: impl Fn(&Op) -> bool) {
        let (ops, durable) = (&self.recording.ops, &mut self.durable);
        self.pending.retain(|i| {
            let settled = what(&ops[*i]);
            if settled {
                durable.apply(&ops[*i]);
            }
            !settled
        });
    }

    fn pending(&self) -> impl Iterator<Item = &'r Op> + use<'_, 'r> {
        self.pending.iter().map(|i| &self.recording.ops[*i])
    }

    pub(crate) fn image(&self, variant: Variant) -> Disk {
        let mut disk = self.durable.clone();
        let last = self.pending.len().saturating_sub(1);
        let mut rng = Rng::new(if let Variant::Random(seed, _) = variant { seed } else { 0 });
        // Some subsets are nearly whole: that is where the order of two writes matters.
        let likely = [2, 2, 8, 32][rng.below(4)];
        let only = if let Variant::Only(i) = variant { self.pending().nth(i).and_then(file_of) } else { None };
        for (i, op) in self.pending().enumerate() {
            match variant {
                Variant::Durable => {}
                Variant::Torn(n) if i == last => disk.apply_beginning(op, n),
                Variant::Hole(n) if i == last => disk.apply_sectors(op, |s| s != n),
                Variant::Zeros if i == last => disk.apply_sectors(op, |_| false),
                Variant::Drop(n) if i == n => {}
                Variant::Only(_) if file_of(op) != only => {}
                Variant::Random(_, holes) if rng.below(likely) == 0 => match (rng.below(3), op) {
                    (0, Op::Write { .. }) if holes => disk.apply_sectors(op, |_| rng.below(2) == 0),
                    (0, Op::Write { at, bytes, .. }) => {
                        disk.apply_beginning(op, rng.below(sectors(*at, bytes.len()).count().max(1)));
                    }
                    (0, _) => disk.apply(op),
                    _ => {}
                },
                _ => disk.apply(op),
            }
        }
        disk
    }
}

fn file_of(op: &Op) -> Option<usize> {
    match op {
        Op::Write { file, .. } | Op::Truncate { file, .. } => Some(*file),
        _ => None,
    }
}

/// The directories whose sync makes the operation durable.
fn parents(op: &Op) -> impl Iterator<Item = &str> {
    let names = match op {
        Op::Create { name, .. } | Op::Unlink { name } => [Some(name), None],
        Op::Rename { from, to } => [Some(from), Some(to)],
        _ => [None, None],
    };
    names.into_iter().flatten().map(|n| n.rsplit_once('/').map_or("", |(dir, _)| dir))
}

/// Chooses `n` crashes, no two alike: half of them right after a sync or an acknowledgement, which is where faults show, the others anywhere. Without `holes`, what a
/// write added to a file is there up to some sector.
pub fn sample(recording: &Recording, n: usize, seed: u64, holes: bool) -> Vec<Crash> {
    /// What a point offers: operations, of these the last one's sectors if it has just been written, whether something was synced or noted.
    struct Point(usize, usize, bool);
    let mut cursor = Cursor::new(recording);
    let mut points = Vec::new();
    while let Some(op) = cursor.step() {
        points.push(match op {
            Op::Write { at, bytes, .. } => Point(cursor.pending.len(), sectors(*at, bytes.len()).count(), false),
            op => Point(cursor.pending.len(), 0, matches!(op, Op::SyncFile { .. } | Op::SyncDir { .. } | Op::Note(_))),
        });
    }
    let after_sync: Vec<usize> = (0..points.len()).filter(|i| points[*i].2).collect();
    let (mut rng, mut chosen) = (Rng::new(seed), BTreeSet::new());
    let mut tries = 0;
    while chosen.len() < n && tries < n * 100 {
        tries += 1;
        let i = match chosen.len() % 2 {
            0 => after_sync[rng.below(after_sync.len())],
            _ => rng.below(points.len()),
        };
        let Point(pending, sectors, after_sync) = points[i];
        let variant = match rng.below(8) {
            0 if after_sync => Variant::Durable,
            1 if pending > 0 => Variant::All,
            2 if sectors > 1 => Variant::Torn(1 + rng.below(sectors - 1)),
            3 if sectors > 1 && holes => Variant::Hole(rng.below(sectors)),
            4 if sectors > 0 => Variant::Zeros,
            5 if pending > 1 => Variant::Drop(rng.below(pending)),
            6 if pending > 1 => Variant::Only(rng.below(pending)),
            7 if pending > usize::from(!holes) => Variant::Random(rng.draw(), holes),
            _ => continue,
        };
        chosen.insert(Crash { at: i + 1, variant });
    }
    chosen.into_iter().collect()
}
