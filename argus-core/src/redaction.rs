//! Redaction: by key, whose values are withheld before a record is queued (here), and by the shape of a value, on the writer thread before anything is stored or
//! sent. Pure. `rules` has the shapes as data, `shapes` finds them, `rewrite` takes them out of a record.

mod rewrite;
mod rules;
mod shapes;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};

pub use rules::Shape;
pub(crate) use shapes::Shapes;

/// Keys that begin so are Argus's own.
pub(crate) const RESERVED: &str = "$argus.";
/// What stands in place of a value withheld because of its key.
pub(crate) const MARKER: &str = r#"{"$argus.redacted":"key"}"#;
/// The same at the greatest depth.
pub(crate) const DEEP_MARKER: &str = r#""[redacted:key]""#;

/// Words whose values are secrets. A key matches if its last word, or its last two or three words joined, is in the list: `db_password`, `clientSecret` and
/// `X-Api-Key` do, `password_policy` and `max_tokens` do not. Words of five letters or more need no border before them: `PGPASSWORD`, `accesstoken`.
const DEFAULT: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "passwords",
    "secret",
    "secrets",
    "token",
    "apikey",
    "privatekey",
    "secretkey",
    "accesskey",
    "secretaccesskey",
    "signingkey",
    "encryptionkey",
    "credential",
    "credentials",
    "authorization",
    "cookie",
    "connectionstring",
];

/// What is withheld: the values of keys that end in a listed word, and whatever has the shape of a secret. On by default; [`Redaction::none`] switches it off.
///
/// Values are withheld by their key on the caller's thread, so they never reach the queue; by their shape on Argus's own thread, before anything is stored or
/// sent. Shapes are looked for in every text: member names and values at any depth, and the text fields.
///
/// ```
/// use argus_core::{AuditConfig, Redaction};
/// let redaction = Redaction::default()
///     .key("session_id")
///     .shape("badge", r"\bBADGE-[0-9]{6}\b") // what the first group matches, or the whole match
///     .without_shape("jwt");
/// let config = AuditConfig::new("/var/lib/shop/audit.db").redaction(redaction);
/// ```
#[derive(Clone)]
pub struct Redaction {
    words: Vec<String>,
    /// A bit for each two letters that a word ends in: most literal keys are passed by them.
    pairs: [u64; PAIRS / 64],
    /// A bit for each three letters that a word ends in, several to a bit: nearly all keys are passed by them.
    endings: [u64; ENDINGS / 64 + 1],
    shapes: Vec<Shape>,
    compiled: OnceLock<Result<Arc<Shapes>, String>>,
}

/// Made once a process: most loggers have these.
static DEFAULT_SHAPES: LazyLock<Result<Arc<Shapes>, String>> =
    LazyLock::new(|| Shapes::new(&Shape::defaults()).map(Arc::new));

impl PartialEq for Redaction {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words && self.shapes == other.shapes
    }
}

impl Eq for Redaction {}

/// Classes of a byte: a to z in either case, the digits, all that is no ASCII, separators.
const CLASSES: [u8; 256] = {
    let mut table = [SEPARATOR; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        if c.is_ascii_alphabetic() {
            table[b] = (c | 0x20) - b'a';
        } else if c.is_ascii_digit() {
            table[b] = 26 + c - b'0';
        } else if !c.is_ascii() {
            table[b] = FOREIGN;
        }
        b += 1;
    }
    table
};
const FOREIGN: u8 = 36;
const SEPARATOR: u8 = 37;
const PAIRS: usize = 2048;
const ENDINGS: usize = 4096;
/// Words of this length need no border before them.
const LONG: usize = 5;

#[inline(always)]
fn class(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
}

/// The last letters of a key, as places in the tables of those that words end in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pair: u16,
    three: u16,
}

impl Ending {
    /// Tells nothing: its bits are always set.
    pub(crate) const ANY: Self = Self { pair: PAIRS as u16 - 1, three: ENDINGS as u16 };

    #[inline(always)]
    pub(crate) fn of(key: &str) -> Self {
        let [.., a, b, c] = *key.as_bytes() else { return Self::ANY };
        let (a, b, c) = (class(a), class(b), class(c));
        // Digits at the end may be a number behind a word, and behind what is no ASCII anything may be.
        if b >= FOREIGN || c >= 26 {
            return Self::ANY;
        }
        let ending = Self::spelt(a, b, c);
        if a < FOREIGN { ending } else { Self { three: Self::ANY.three, ..ending } }
    }

    #[inline(always)]
    fn spelt(a: u8, b: u8, c: u8) -> Self {
        let (a, b, c) = (u16::from(a), u16::from(b), u16::from(c));
        Self { pair: b * 38 + c, three: (a * 1444 + b * 38 + c) % ENDINGS as u16 }
    }
}

fn set(table: &mut [u64], bit: u16) {
    table[usize::from(bit / 64)] |= 1 << (bit % 64);
}

#[inline]
fn has(table: &[u64], bit: u16) -> bool {
    table[usize::from(bit / 64)] >> (bit % 64) & 1 == 1
}

impl Default for Redaction {
    fn default() -> Self {
        let keys = DEFAULT.iter().fold(Self::none(), |r, w| r.key(w));
        Self { shapes: Shape::defaults(), ..keys }
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redaction").field("words", &self.words).field("shapes", &self.shapes).finish_non_exhaustive()
    }
}

impl Redaction {
    /// Withholds nothing.
    pub fn none() -> Self {
        let mut none =
            Self { words: Vec::new(), pairs: [0; _], endings: [0; _], shapes: Vec::new(), compiled: OnceLock::new() };
        set(&mut none.pairs, Ending::ANY.pair);
        set(&mut none.endings, Ending::ANY.three);
        none
    }

    /// The shapes that are looked for.
    pub fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// Also withholds what has this shape; see [`Shape`]. One of the same name is replaced. Opening a logger refuses a name or a pattern that is none.
    ///
    /// A pattern that begins with a literal text of three bytes or more costs nothing where that text is not; any other is tried on each text of each record,
    /// on Argus's own thread.
    #[must_use]
    pub fn shape(self, name: &str, pattern: &str) -> Self {
        let mut changed = self.without_shape(name);
        changed.shapes.push(Shape::new(name.to_owned(), pattern.to_owned()));
        changed
    }

    /// Looks no more for the shape of this name.
    #[must_use]
    pub fn without_shape(mut self, name: &str) -> Self {
        self.shapes.retain(|s| s.name != name);
        self.compiled = OnceLock::new();
        self
    }

    /// Withholds nothing by its key; shapes stay.
    #[must_use]
    pub fn without_keys(self) -> Self {
        Self { shapes: self.shapes, ..Self::none() }
    }

    /// Looks for no shape; keys stay.
    #[must_use]
    pub fn without_shapes(mut self) -> Self {
        self.shapes.clear();
        self.compiled = OnceLock::new();
        self
    }

    /// The shapes made ready; the error names the one that is wrong.
    pub(crate) fn compiled(&self) -> Result<&Arc<Shapes>, &str> {
        let make = || {
            if self.shapes == Shape::defaults() {
                DEFAULT_SHAPES.clone()
            } else {
                Shapes::new(&self.shapes).map(Arc::new)
            }
        };
        self.compiled.get_or_init(make).as_ref().map_err(String::as_str)
    }

    /// A text without secrets, `None` if it has none. Wrong shapes find nothing here: no logger opens with them.
    pub(crate) fn text(&self, text: &str) -> Option<String> {
        self.compiled().ok()?.text(text)
    }

    /// The same of canonical JSON.
    pub(crate) fn json(&self, text: &str) -> Option<String> {
        self.compiled().ok()?.json(text)
    }

    /// Also withholds the values of keys that end in this word, e.g. `session_id`. Upper and lower case and separators do not count.
    #[must_use]
    pub fn key(mut self, word: &str) -> Self {
        let word: String = word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        let last: Vec<u8> = word.bytes().rev().take(3).map(class).collect();
        let any = || 0..SEPARATOR + 1;
        // What a shorter word leaves open can be anything.
        let (c, b, a) = (last.first(), last.get(1), last.get(2));
        for c in any().filter(|x| c.is_some_and(|c| c == x)) {
            for b in any().filter(|x| b.is_none_or(|b| b == x)) {
                for a in any().filter(|x| a.is_none_or(|a| a == x)) {
                    let ending = Ending::spelt(a, b, c);
                    set(&mut self.pairs, ending.pair);
                    set(&mut self.endings, ending.three);
                }
            }
        }
        self.words.push(word);
        self
    }

    /// Whether the value of `key` is withheld.
    #[inline]
    pub fn hides(&self, key: &str) -> bool {
        // Most keys are passed by their last three letters; only at the others it looks more closely.
        match *key.as_bytes() {
            [.., a, b, c] => match (class(a), class(b), class(c)) {
                (a @ ..FOREIGN, b @ ..FOREIGN, c @ ..26) if !has(&self.endings, Ending::spelt(a, b, c).three) => false,
                _ => self.hides_closely(key),
            },
            _ => self.hides_closely(key),
        }
    }

    #[inline(never)]
    fn hides_closely(&self, key: &str) -> bool {
        self.hides_ending(Ending::of(key), key)
    }

    /// The same where the key's ending is known.
    #[inline]
    pub(crate) fn hides_ending(&self, ending: Ending, key: &str) -> bool {
        has(&self.pairs, ending.pair) && has(&self.endings, ending.three) && self.spelt(key)
    }

    /// The walk that knows borders and separators; with the digits at the key's end, and without.
    #[cold]
    fn spelt(&self, key: &str) -> bool {
        let whole = key.trim_end_matches(|c: char| !c.is_alphanumeric());
        let stem = whole.trim_end_matches(|c: char| c.is_ascii_digit() || !c.is_alphanumeric());
        let ends = |s: &str| {
            let plain = s.is_ascii();
            let last = s.as_bytes().last().map(u8::to_ascii_lowercase);
            // In ASCII the last byte is a letter or digit, and must be the word's.
            let possible = |w: &&String| !plain || w.as_bytes().last().copied() == last;
            self.words.iter().filter(possible).any(|w| {
                if plain && w.is_ascii() { ends_with_ascii(s.as_bytes(), w.as_bytes()) } else { ends_with_words(s, w) }
            })
        };
        ends(whole) || (stem.len() < whole.len() && ends(stem))
    }
}

/// As `ends_with_words`, where both are ASCII: the same steps on bytes.
fn ends_with_ascii(key: &[u8], word: &[u8]) -> bool {
    let (mut rest, mut began_upper) = (key.len(), false);
    for w in word.iter().rev() {
        loop {
            let Some(c) = rest.checked_sub(1).and_then(|i| key.get(i)) else { return false };
            rest -= 1;
            if c.is_ascii_alphanumeric() {
                if c.to_ascii_lowercase() != *w {
                    return false;
                }
                began_upper = c.is_ascii_uppercase();
                break;
            }
        }
    }
    let Some(c) = rest.checked_sub(1).and_then(|i| key.get(i)) else { return !word.is_empty() };
    word.len() >= LONG
        || (!word.is_empty()
            && (!c.is_ascii_alphanumeric() || (began_upper && !c.is_ascii_uppercase()) || c.is_ascii_digit()))
}

/// Whether `key`, read backwards without separators, spells `word` and then stops at a word's border.
fn ends_with_words(key: &str, word: &str) -> bool {
    let mut rest = key.chars().rev().peekable();
    let mut wanted = word.chars().rev().peekable();
    let mut began_upper = false;
    while let Some(&w) = wanted.peek() {
        match rest.next() {
            Some(c) if c.is_alphanumeric() => {
                if c.to_ascii_lowercase() != w && !c.to_lowercase().eq(std::iter::once(w)) {
                    return false;
                }
                began_upper = c.is_uppercase();
                wanted.next();
            }
            Some(_) => {}
            None => return false,
        }
    }
    // A border: the start, a separator, a digit, or a change from lower to upper case (`clientSecret`).
    match rest.peek() {
        None => !word.is_empty(),
        Some(_) if word.len() >= LONG => true,
        Some(c) => {
            !word.is_empty() && (!c.is_alphanumeric() || (began_upper && !c.is_uppercase()) || c.is_ascii_digit())
        }
    }
}
