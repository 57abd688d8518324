//! Redaction by key: which members' values are withheld before a record is queued. Pure. (By the shape of the value: later.)

use std::fmt;

/// Keys that begin so are Argus's own.
pub(crate) const RESERVED: &str = "$argus.";
/// What stands in place of a value withheld because of its key.
pub(crate) const MARKER: &str = r#"{"$argus.redacted":"key"}"#;

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

/// Which keys' values are withheld. On by default, with a small list; [`Redaction::none`] switches it off.
#[derive(Clone, PartialEq, Eq)]
pub struct Redaction {
    words: Vec<String>,
    /// A bit for each three letters that a word ends in, several to a bit: nearly every key is passed by it.
    endings: [u64; ENDINGS / 64],
}

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
const ENDINGS: usize = 4096;
/// Words of this length need no border before them.
const LONG: usize = 5;

fn class(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
}

fn ending(a: u8, b: u8, c: u8) -> usize {
    (usize::from(a) * 1444 + usize::from(b) * 38 + usize::from(c)) % ENDINGS
}

impl Default for Redaction {
    fn default() -> Self {
        DEFAULT.iter().fold(Self::none(), |r, w| r.key(w))
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redaction").field("words", &self.words).finish_non_exhaustive()
    }
}

impl Redaction {
    /// Withholds nothing.
    pub fn none() -> Self {
        Self { words: Vec::new(), endings: [0; _] }
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
                    let bit = ending(a, b, c);
                    self.endings[bit / 64] |= 1 << (bit % 64);
                }
            }
        }
        self.words.push(word);
        self
    }

    /// Whether the value of `key` is withheld.
    #[inline]
    pub fn hides(&self, key: &str) -> bool {
        if let [.., a, b, c] = *key.as_bytes() {
            let (a, b, c) = (class(a), class(b), class(c));
            // Three ASCII letters or digits at the end that no word ends in; digits at the end may be a number behind a word.
            if a < FOREIGN && b < FOREIGN && c < 26 {
                let bit = ending(a, b, c);
                if self.endings[bit / 64] >> (bit % 64) & 1 == 0 {
                    return false;
                }
            }
        }
        self.spelt(key)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_at_the_end_match() {
        let r = Redaction::default();
        for k in [
            "password",
            "DB_PASSWORD",
            "clientSecret",
            "X-Api-Key",
            "aws.secret_access_key",
            "password2",
            "Authorization",
            "/db/password",
            "apiKey",
            "password[]",
            "password_",
            "PGPASSWORD",
            "dbpassword",
            "accesstoken",
            "token_2",
            "PWD",
        ] {
            assert!(r.hides(k), "{k}");
        }
        for k in [
            "user",
            "password_policy",
            "max_tokens",
            "tokenizer",
            "secretary",
            "key",
            "compass",
            "monkey",
            "",
            "-",
            "cwd",
            "s",
        ] {
            assert!(!r.hides(k), "{k}");
        }
        assert!(Redaction::default().key("session-id").hides("sessionId"));
        assert!(!Redaction::none().hides("password"));
        // The walk over bytes takes the same steps as the one over characters.
        for key in ["a", "ab", "xaB", "xAb", "x-a_b", "1ab", "tokens", "xToken", "xtoken", "TOKEN", "to-ken", ""] {
            for word in ["", "b", "ab", "token", "oken"] {
                assert_eq!(
                    ends_with_ascii(key.as_bytes(), word.as_bytes()),
                    ends_with_words(key, word),
                    "{key} {word}"
                );
            }
        }
        let odd = Redaction::none().key("oauth2").key("pw").key("x").key("schlüssel").key("");
        for k in ["oauth2", "my_OAuth2", "pw", "db.pw", "pw1", "x", "a_x", "Schlüssel", "HAUPTSCHLÜSSEL"] {
            assert!(odd.hides(k), "{k}");
        }
        for k in ["oauth", "oauth3", "apw", "ax", "", "_"] {
            assert!(!odd.hides(k), "{k}");
        }
    }
}
