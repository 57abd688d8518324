//! The lines of a file, forwards and backwards from any line's end, in memory that no line can make grow beyond what a record's line may be.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Seek, SeekFrom};

use crate::line::MAX_LINE;

/// A whole line without its end; none where it is longer than any record's, or not UTF-8.
pub(super) type Whole<'a> = Option<&'a str>;

/// Bytes read at once.
const BLOCK: usize = 64 << 10;

/// Reads from a line's beginning towards the end of the file.
pub(super) struct Forward {
    reader: BufReader<File>,
    line: Vec<u8>,
    /// Where the next line begins.
    at: u64,
    /// Bytes of a last line that has no end; known once `next` has given none.
    pub(super) unfinished: u64,
}

impl Forward {
    pub(super) fn new(mut file: File, at: u64) -> Result<Self> {
        file.seek(SeekFrom::Start(at))?;
        Ok(Self { reader: BufReader::with_capacity(BLOCK, file), line: Vec::new(), at, unfinished: 0 })
    }

    /// What `unfinished` counts, as far as a line may go.
    pub(super) fn rest(&self) -> &[u8] {
        &self.line
    }

    /// The next whole line, and where the one after it begins.
    pub(super) fn next(&mut self) -> Result<Option<(Whole<'_>, u64)>> {
        self.line.clear();
        let mut len = self.reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut self.line)? as u64;
        let mut whole = self.line.last() == Some(&b'\n');
        let fits = whole;
        if !whole && len == MAX_LINE as u64 {
            // No record has such a line: its rest is passed over.
            loop {
                let block = self.reader.fill_buf()?;
                let end = block.iter().position(|b| *b == b'\n');
                let used = end.map_or(block.len(), |i| i + 1);
                self.reader.consume(used);
                len += used as u64;
                whole = end.is_some();
                if whole || used == 0 {
                    break;
                }
            }
        }
        if !whole {
            self.unfinished = len;
            return Ok(None);
        }
        self.at += len;
        self.line.pop();
        Ok(Some((std::str::from_utf8(&self.line).ok().filter(|_| fits), self.at)))
    }
}

/// Reads from a line's end towards the beginning of the file.
pub(super) struct Backward {
    file: File,
    /// What of the file stands before `held`.
    at: u64,
    /// Read and not given yet; it ends with a line's end, if it holds anything.
    held: Vec<u8>,
    /// No line end stands in the last so many bytes of `held`, its last byte not counted.
    searched: usize,
    /// The end of the line that comes next, where a part of it was let go because it is too long.
    too_long: Option<u64>,
}

impl Backward {
    /// `end` is where a line ends; without it, the end of the last whole line is looked for.
    pub(super) fn new(mut file: File, end: Option<u64>) -> Result<Self> {
        let at = match end {
            Some(end) => end,
            None => last_line_end(&mut file)?,
        };
        Ok(Self { file, at, held: Vec::new(), searched: 0, too_long: None })
    }

    /// The line before, and where it begins. The text is the caller's buffer.
    pub(super) fn next<'l>(&mut self, line: &'l mut Vec<u8>) -> Result<Option<(Whole<'l>, u64)>> {
        loop {
            let body = self.held.len().saturating_sub(1);
            let unsearched = body.saturating_sub(self.searched);
            let start = self.held.iter().take(unsearched).rposition(|b| *b == b'\n').map(|i| i + 1);
            let first = self.at == 0 && (!self.held.is_empty() || self.too_long.is_some());
            if let Some(start) = start.or(first.then_some(0)) {
                line.clear();
                line.extend(self.held.drain(start..));
                line.pop();
                self.searched = 0;
                let fits = self.too_long.take().is_none() && line.len() < MAX_LINE;
                let begins = self.at + start as u64;
                return Ok(Some((std::str::from_utf8(line).ok().filter(|_| fits), begins)));
            }
            if self.at == 0 {
                return Ok(None);
            }
            self.searched = body;
            if self.held.len() > MAX_LINE {
                // No record has such a line: only that it is there is kept, as a line end.
                self.too_long = Some(self.at);
                self.held = vec![b'\n'];
                self.searched = 0;
            }
            let n = (BLOCK as u64).min(self.at);
            self.at -= n;
            let mut block = vec![0; usize::try_from(n).map_err(|e| Error::new(ErrorKind::InvalidInput, e))?];
            self.file.seek(SeekFrom::Start(self.at))?;
            self.file.read_exact(&mut block)?;
            block.append(&mut self.held);
            self.held = block;
        }
    }
}

/// Behind the last `\n`; 0 where there is none.
fn last_line_end(file: &mut File) -> Result<u64> {
    let mut at = file.seek(SeekFrom::End(0))?;
    let mut block = vec![0; BLOCK];
    while at > 0 {
        let n = (BLOCK as u64).min(at);
        at -= n;
        file.seek(SeekFrom::Start(at))?;
        let block = &mut block[..usize::try_from(n).unwrap_or(BLOCK)];
        file.read_exact(block)?;
        if let Some(i) = block.iter().rposition(|b| *b == b'\n') {
            return Ok(at + i as u64 + 1);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut f = tempfile::tempfile().unwrap();
        f.write_all(bytes).unwrap();
        f
    }

    #[test]
    fn both_directions_give_the_same_lines_at_the_same_places() {
        let long = "x".repeat(MAX_LINE - 1);
        let too_long = "y".repeat(MAX_LINE);
        let far_too_long = "z".repeat(3 * MAX_LINE + 7);
        let near_block = "b".repeat(BLOCK - 1);
        let cases: [&[&[u8]]; 9] = [
            &[],
            &[b""],
            &[b"", b"", b"a"],
            &[b"a", b"bc", b"\xff\xfe", b"d"],
            &[near_block.as_bytes(), b"", near_block.as_bytes(), b"e"],
            &[long.as_bytes(), b"f"],
            &[b"g", too_long.as_bytes(), b"h", too_long.as_bytes()],
            &[far_too_long.as_bytes(), b"i", far_too_long.as_bytes(), far_too_long.as_bytes(), b"j"],
            &[far_too_long.as_bytes()],
        ];
        for (case, lines) in cases.iter().enumerate() {
            for tail in [&b""[..], b"unfinished", far_too_long.as_bytes()] {
                let mut bytes = lines.join(&b'\n');
                if !lines.is_empty() {
                    bytes.push(b'\n');
                }
                bytes.extend_from_slice(tail);
                let mut forward = Forward::new(file(&bytes), 0).unwrap();
                let (mut seen, mut begins) = (Vec::new(), 0);
                while let Some((text, end)) = forward.next().unwrap() {
                    seen.push((text.map(str::to_owned), begins, end));
                    begins = end;
                }
                assert_eq!(forward.unfinished, tail.len() as u64, "case {case}");
                assert_eq!(forward.rest(), &tail[..tail.len().min(MAX_LINE)], "case {case}");
                let wanted: Vec<Option<String>> =
                    lines.iter().map(|l| String::from_utf8(l.to_vec()).ok().filter(|l| l.len() < MAX_LINE)).collect();
                assert_eq!(seen.iter().map(|s| s.0.clone()).collect::<Vec<_>>(), wanted, "case {case}");
                let mut backward = Backward::new(file(&bytes), None).unwrap();
                let (mut back, mut line) = (Vec::new(), Vec::new());
                while let Some((text, begins)) = backward.next(&mut line).unwrap() {
                    back.push((text.map(str::to_owned), begins));
                    assert!(backward.held.len() <= 2 * MAX_LINE, "held {}", backward.held.len());
                }
                back.reverse();
                assert_eq!(back, seen.iter().map(|s| (s.0.clone(), s.1)).collect::<Vec<_>>(), "case {case}");
                // Begun anew at each line's end, the line before it is the same.
                for (text, begins, end) in &seen {
                    let mut anew = Backward::new(file(&bytes), Some(*end)).unwrap();
                    let got = anew.next(&mut line).unwrap().map(|(t, b)| (t.map(str::to_owned), b));
                    assert_eq!(got, Some((text.clone(), *begins)), "case {case}");
                }
            }
        }
    }
}
