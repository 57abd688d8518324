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
    /// A bit for each pair of letters that a word ends in: nearly every key is passed by it.
    endings: [u64; (PAIRS / 64) + 1],
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
const PAIRS: usize = 38 * 38;
/// Words of this length need no border before them.
const LONG: usize = 5;

fn class(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
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
        if let [.., a, b] = *word.as_bytes() {
            self.mark(class(a), class(b));
        } else if let [b] = *word.as_bytes() {
            (0..38).for_each(|a| self.mark(a, class(b)));
        }
        self.words.push(word);
        self
    }

    fn mark(&mut self, a: u8, b: u8) {
        let bit = usize::from(a) * 38 + usize::from(b);
        self.endings[bit / 64] |= 1 << (bit % 64);
    }

    /// Whether the value of `key` is withheld.
    #[inline]
    pub fn hides(&self, key: &str) -> bool {
        if let [.., a, b] = *key.as_bytes() {
            let (a, b) = (class(a), class(b));
            // Two ASCII letters or digits at the end that no word ends in; digits at the end may be a number behind a word.
            if a < FOREIGN && b < 26 {
                let bit = usize::from(a) * 38 + usize::from(b);
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
        let ends = |s: &str| self.words.iter().any(|w| ends_with_words(s, w));
        ends(whole) || (stem.len() < whole.len() && ends(stem))
    }
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
        let odd = Redaction::none().key("oauth2").key("pw").key("x").key("schlüssel").key("");
        for k in ["oauth2", "my_OAuth2", "pw", "db.pw", "pw1", "x", "a_x", "Schlüssel", "HAUPTSCHLÜSSEL"] {
            assert!(odd.hides(k), "{k}");
        }
        for k in ["oauth", "oauth3", "apw", "ax", "", "_"] {
            assert!(!odd.hides(k), "{k}");
        }
    }
}
