//! The records of a pending file that count: recovery commits them and readers show them, so both take them from here. Reads only.

use super::file::{Lines, damaged};
use super::line::{Buffers, parse};
use crate::entry::Entry;
use crate::error::{ErrorKind, TrailError};
use crate::id::WriterId;

/// An entry and its number.
pub(crate) type Numbered = (u64, Vec<u8>);

/// The entries of a pending file. A line that is no record, or whose number does not fit among those around it, is left out.
pub(crate) struct Records<'a> {
    lines: &'a mut Lines,
    writer: WriterId,
    buffers: Buffers,
    /// What is wrong with the first line that was left out.
    damage: Option<TrailError>,
    /// The number of the last line that was a record.
    last: u64,
    /// What its id has beside its number.
    base: u64,
    ahead: Option<Numbered>,
}

/// The random bits of a writer's ids (`Core::mint`), to which each adds its number.
fn base((number, entry): &Numbered) -> u64 {
    let id = Entry::of(entry).map_or([0; 16], |e| e.record_id().to_bytes());
    let low = id.last_chunk().map_or(0, |b| u64::from_be_bytes(*b));
    low.wrapping_sub(*number) & 0x3fff_ffff_ffff_ffff
}

impl<'a> Records<'a> {
    pub(crate) fn of(lines: &'a mut Lines, writer: WriterId) -> Self {
        Self { lines, writer, buffers: Buffers::default(), damage: None, last: 0, base: 0, ahead: None }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Numbered>, TrailError> {
        loop {
            let ahead = self.ahead.take();
            let Some(e) = ahead.map_or_else(|| self.read(), |e| Ok(Some(e)))? else { return Ok(None) };
            // Numbers only rise. Where one jumps and the next one does not go on from there, the jump is the damage.
            let mut wrong = e.0 <= self.last;
            if !wrong && e.0 != self.last + 1 {
                self.ahead = self.read()?;
                wrong = match &self.ahead {
                    Some(ahead) => ahead.0 <= e.0,
                    // None that could tell: but a number is in the record's id, too.
                    None => self.last > 0 && base(&e) != self.base,
                };
            }
            if !wrong {
                (self.last, self.base) = (e.0, base(&e));
                return Ok(Some(e));
            }
            self.note(damaged("its numbers do not rise", self.lines.path()));
        }
    }

    /// The next line that is a record.
    fn read(&mut self) -> Result<Option<Numbered>, TrailError> {
        loop {
            let mut entry = Vec::new();
            let parsed = match self.lines.next() {
                Ok(Some(text)) => parse(text, self.writer, &mut self.buffers, &mut entry),
                Ok(None) => return Ok(None),
                Err(e) if e.kind() == ErrorKind::Damaged => {
                    self.note(e);
                    continue;
                }
                Err(e) => return Err(e),
            };
            match parsed {
                Ok(number) => return Ok(Some((number, entry))),
                Err(why) => self.note(damaged(&why, self.lines.path())),
            }
        }
    }

    fn note(&mut self, e: TrailError) {
        self.damage.get_or_insert(e);
    }

    pub(crate) fn lines(&self) -> &Lines {
        self.lines
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Whether lines were left out.
    pub(crate) fn damaged(&self) -> bool {
        self.damage.is_some()
    }

    /// Why lines were left out, if any were.
    pub(crate) fn damage(self) -> Option<TrailError> {
        self.damage
    }
}
