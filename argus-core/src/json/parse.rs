//! Strict JSON text: transcodes to canonical form through `JsonWriter`, checks stored text, and splits an object into members. Refuses duplicates, lone
//! surrogates, and everything RFC 8259 does not allow. Recursion is bounded by `MAX_DEPTH`.

use std::borrow::Cow;

use super::writer::{JsonWriter, Scratch, Source};
use super::{JsonError, MAX_DEPTH};
use crate::redaction::Redaction;

/// A member of an object: its unescaped name and the raw text of its value.
pub(crate) type Member<'a> = (Cow<'a, str>, &'a str);

impl JsonWriter<'_> {
    /// Writes the JSON value that `text` is, the whole of it.
    pub(crate) fn json_text(&mut self, text: &str) -> Result<(), JsonError> {
        let mut p = Parser { text, at: 0 };
        p.space();
        p.value(self)?;
        p.space();
        if p.at < text.len() { Err(p.expected("the end")) } else { Ok(()) }
    }
}

/// Whether `text` is exactly one JSON value in canonical form, as a stored record has it.
pub(crate) fn is_canonical(text: &str, out: &mut Vec<u8>, scratch: &mut Scratch) -> bool {
    out.clear();
    let redaction = Redaction::none();
    let ok = JsonWriter::new(out, scratch, &redaction, Source::Stored).json_text(text).is_ok();
    ok && out.as_slice() == text.as_bytes()
}

/// Splits an object. White space between tokens is allowed; nothing may follow it.
pub(crate) fn object_members(text: &str) -> Result<Vec<Member<'_>>, JsonError> {
    let mut p = Parser { text, at: 0 };
    let mut members: Vec<Member<'_>> = Vec::new();
    p.space();
    p.byte(b'{', "`{`")?;
    p.space();
    if !p.eat(b'}') {
        loop {
            p.space();
            let key = p.string()?;
            if members.iter().any(|(k, _)| *k == key) {
                return Err(JsonError::DuplicateKey(key.into_owned()));
            }
            p.space();
            p.byte(b':', "`:`")?;
            p.space();
            let start = p.at;
            p.skip(1)?;
            members.push((key, text.get(start..p.at).unwrap_or_default()));
            p.space();
            if p.eat(b'}') {
                break;
            }
            p.byte(b',', "`,` or `}`")?;
        }
    }
    p.space();
    if p.at < text.len() { Err(p.expected("the end")) } else { Ok(members) }
}

/// The text of the inside of a JSON string that is known to be well-formed.
pub(crate) fn unescape(inside: &str) -> Cow<'_, str> {
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    let quoted = format!("\"{inside}\"");
    let mut p = Parser { text: &quoted, at: 0 };
    Cow::Owned(p.string().map(Cow::into_owned).unwrap_or_default())
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expected(&self, expected: &'static str) -> JsonError {
        JsonError::Syntax { offset: self.at, expected }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, b: u8) -> bool {
        let hit = self.peek() == Some(b);
        self.at += usize::from(hit);
        hit
    }

    fn byte(&mut self, b: u8, expected: &'static str) -> Result<(), JsonError> {
        if self.eat(b) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        if self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.expected(word))
        }
    }

    /// Parses one value into `out`.
    fn value(&mut self, out: &mut JsonWriter<'_>) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'{') => {
                self.at += 1;
                let mut open = out.open_object()?;
                self.space();
                if !self.eat(b'}') {
                    loop {
                        self.space();
                        let key = self.string()?;
                        out.key(&mut open, &key)?;
                        self.space();
                        self.byte(b':', "`:`")?;
                        self.space();
                        self.value(out)?;
                        out.end_member();
                        self.space();
                        if self.eat(b'}') {
                            break;
                        }
                        self.byte(b',', "`,` or `}`")?;
                    }
                }
                Ok(out.close_object(&open)?)
            }
            Some(b'[') => {
                self.at += 1;
                let mut open = out.open_array()?;
                self.space();
                if !self.eat(b']') {
                    loop {
                        self.space();
                        out.element(&mut open);
                        self.value(out)?;
                        self.space();
                        if self.eat(b']') {
                            break;
                        }
                        self.byte(b',', "`,` or `]`")?;
                    }
                }
                out.close_array();
                Ok(())
            }
            Some(b'"') => {
                let s = self.string()?;
                out.string(&s);
                Ok(())
            }
            Some(b't') => self.word("true").map(|()| out.bool(true)),
            Some(b'f') => self.word("false").map(|()| out.bool(false)),
            Some(b'n') => self.word("null").map(|()| out.null()),
            _ => {
                let literal = self.number()?;
                Ok(out.literal(literal)?)
            }
        }
    }

    /// Passes over one value, checking its syntax.
    fn skip(&mut self, depth: usize) -> Result<(), JsonError> {
        // One more than a field may have: the object around the fields.
        if depth > MAX_DEPTH + 2 {
            return Err(JsonError::TooDeep);
        }
        match self.peek() {
            Some(open @ (b'{' | b'[')) => {
                self.at += 1;
                let close = if open == b'{' { b'}' } else { b']' };
                self.space();
                if self.eat(close) {
                    return Ok(());
                }
                loop {
                    self.space();
                    if open == b'{' {
                        self.string()?;
                        self.space();
                        self.byte(b':', "`:`")?;
                        self.space();
                    }
                    self.skip(depth + 1)?;
                    self.space();
                    if self.eat(close) {
                        return Ok(());
                    }
                    self.byte(b',', "`,` or a closing bracket")?;
                }
            }
            Some(b'"') => self.string().map(|_| ()),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => self.number().map(|_| ()),
        }
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        self.eat(b'-');
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.expected("a value")),
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.byte(b'"', "`\"`")?;
        let start = self.at;
        let mut owned: Option<String> = None;
        let mut run = start;
        loop {
            match self.peek() {
                None => return Err(self.expected("`\"`")),
                Some(b'"') => {
                    let tail = self.text.get(run..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(tail),
                        Some(mut s) => {
                            s.push_str(tail);
                            Cow::Owned(s)
                        }
                    });
                }
                Some(b'\\') => {
                    let s = owned.get_or_insert_default();
                    s.push_str(self.text.get(run..self.at).unwrap_or_default());
                    self.at += 1;
                    let c = self.escape()?;
                    s.push(c);
                    run = self.at;
                }
                Some(0..=0x1f) => return Err(self.expected("an escaped control character")),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let c = self.peek().ok_or_else(|| self.expected("an escape"))?;
        self.at += 1;
        Ok(match c {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4()?;
                let code = match high {
                    0xd800..=0xdbff => {
                        if !(self.eat(b'\\') && self.eat(b'u')) {
                            return Err(JsonError::LoneSurrogate);
                        }
                        match self.hex4()? {
                            low @ 0xdc00..=0xdfff => 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00),
                            _ => return Err(JsonError::LoneSurrogate),
                        }
                    }
                    other => other,
                };
                char::from_u32(code).ok_or(JsonError::LoneSurrogate)?
            }
            _ => return Err(self.expected("an escape")),
        })
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or_else(|| self.expected("four hex digits"))?;
        let mut v = 0;
        for &d in digits {
            v = v * 16 + char::from(d).to_digit(16).ok_or_else(|| self.expected("four hex digits"))?;
        }
        self.at += 4;
        Ok(v)
    }
}
