//! Entries put aside, read back from either end: in memory up to a bound, then in a nameless temporary file.

use std::fs::{File, OpenOptions};
use std::io::Result;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::entry::HEAD;
use crate::id::WriterId;

/// Bytes that are kept in memory.
const MEMORY: usize = 8 << 20;
/// Behind each entry its length stands again, for those who read backwards.
const FOOT: u64 = 4;

pub(super) struct Spool {
    memory: Vec<u8>,
    /// What `memory` had no room for, and how much that is.
    file: Option<File>,
    flushed: u64,
    most: usize,
}

impl Spool {
    pub(super) fn new() -> Self {
        Self { memory: Vec::new(), file: None, flushed: 0, most: MEMORY }
    }

    pub(super) fn len(&self) -> u64 {
        self.flushed + self.memory.len() as u64
    }

    pub(super) fn push(&mut self, entry: &[u8]) -> Result<()> {
        self.memory.extend_from_slice(entry);
        self.memory.extend_from_slice(&u32::try_from(entry.len()).unwrap_or(0).to_le_bytes());
        if self.memory.len() > self.most {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(nameless()?),
            };
            file.write_all_at(&self.memory, self.flushed)?;
            self.flushed += self.memory.len() as u64;
            self.memory.clear();
        }
        Ok(())
    }

    /// Forgets everything from an entry's beginning on.
    pub(super) fn truncate(&mut self, len: u64) {
        let in_memory = len.checked_sub(self.flushed).and_then(|n| usize::try_from(n).ok());
        self.memory.truncate(in_memory.unwrap_or(0));
        // What the file has beyond is written over.
        self.flushed = self.flushed.min(len);
    }

    /// The entry that begins here, and where the next one does.
    pub(super) fn after(&self, at: u64, entry: &mut Vec<u8>) -> Result<u64> {
        let len = self.word(at)?;
        self.entry(at, len, entry)?;
        Ok(at + u64::from(len) + FOOT)
    }

    /// The entry that ends here, and where it begins.
    pub(super) fn before(&self, end: u64, entry: &mut Vec<u8>) -> Result<u64> {
        let len = self.word(end.saturating_sub(FOOT))?;
        let at = end.saturating_sub(FOOT + u64::from(len));
        self.entry(at, len, entry)?;
        Ok(at)
    }

    fn word(&self, at: u64) -> Result<u32> {
        let mut word = [0; 4];
        self.read(at, &mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn entry(&self, at: u64, len: u32, entry: &mut Vec<u8>) -> Result<()> {
        entry.resize((len as usize).max(HEAD), 0);
        self.read(at, entry)
    }

    fn read(&self, at: u64, to: &mut [u8]) -> Result<()> {
        let gone = || std::io::Error::other("the copy of a journal was cut");
        match (at.checked_sub(self.flushed), &self.file) {
            (Some(at), _) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                let from = self.memory.get(at..at.saturating_add(to.len())).ok_or_else(gone)?;
                to.copy_from_slice(from);
                Ok(())
            }
            (None, Some(file)) => file.read_exact_at(to, at),
            (None, None) => Err(gone()),
        }
    }
}

/// A private file without a name.
fn nameless() -> Result<File> {
    let path = std::env::temp_dir().join(format!("argus-pending-{}", WriterId::random()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u8) -> Vec<u8> {
        let len = HEAD + 8 * usize::from(n % 5);
        let mut e = vec![n; len];
        e[..4].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
        e
    }

    #[test]
    fn entries_come_back_from_both_ends_wherever_they_are_kept() {
        for most in [MEMORY, 1000, 0] {
            let mut s = Spool { most, ..Spool::new() };
            let push = |s: &mut Spool, n| s.push(&entry(n)).unwrap();
            (0..20).for_each(|n| push(&mut s, n));
            let mark = s.len();
            (100..120).for_each(|n| push(&mut s, n));
            s.truncate(mark);
            (20..40).for_each(|n| push(&mut s, n));
            let (mut at, mut e) = (0, Vec::new());
            for n in 0..40 {
                at = s.after(at, &mut e).unwrap();
                assert_eq!(e, entry(n));
            }
            assert_eq!(at, s.len());
            for n in (0..40).rev() {
                at = s.before(at, &mut e).unwrap();
                assert_eq!(e, entry(n));
            }
            assert_eq!(at, 0);
            assert!(s.after(s.len(), &mut e).is_err());
        }
    }
}
