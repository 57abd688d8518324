//! Redaction by key: which members' values are withheld before a record is queued. Pure. (By the shape of the value: later.)

/// Keys that begin so are Argus's own.
pub(crate) const RESERVED: &str = "$argus.";
/// What stands in place of a value withheld because of its key.
pub(crate) const MARKER: &str = r#"{"$argus.redacted":"key"}"#;

/// Words whose values are secrets. A key matches if its last word, or its last two or three words joined, is in the list:
/// `db_password`, `clientSecret` and `X-Api-Key` do, `password_policy` and `max_tokens` do not.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    words: Vec<String>,
    /// A bit for each letter that a word ends in: nearly every key is refused by it.
    endings: u32,
}

impl Default for Redaction {
    fn default() -> Self {
        DEFAULT.iter().fold(Self::none(), |r, w| r.key(w))
    }
}

impl Redaction {
    /// Withholds nothing.
    pub fn none() -> Self {
        Self { words: Vec::new(), endings: 0 }
    }

    /// Also withholds the values of keys that end in this word, e.g. `session_id`. Upper and lower case and separators do not count.
    #[must_use]
    pub fn key(mut self, word: &str) -> Self {
        let word: String = word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        self.endings |= word.bytes().last().map_or(0, ending);
        self.words.push(word);
        self
    }

    /// Whether the value of `key` is withheld.
    #[inline]
    pub fn hides(&self, key: &str) -> bool {
        let bytes = key.as_bytes();
        let mut last = bytes.len();
        while last > 0 && bytes[last - 1].is_ascii_digit() {
            last -= 1;
        }
        last >= 3 && self.endings & ending(bytes[last - 1]) != 0 && self.spelt(key.get(..last).unwrap_or(key))
    }

    #[cold]
    fn spelt(&self, stem: &str) -> bool {
        // Two letters more, before the walk that knows borders and separators.
        let tail = |s: &[u8]| s.len().checked_sub(2).map(|i| (s[i] | 0x20, s[i + 1] | 0x20));
        let plain = stem.is_ascii();
        self.words.iter().any(|w| {
            let (a, b) = (tail(stem.as_bytes()), tail(w.as_bytes()));
            let possible = !plain || a == b || a.is_some_and(|(x, _)| !x.is_ascii_alphanumeric());
            possible && ends_with_words(stem, w)
        })
    }
}

/// The bit of a word's last letter. All that is no ASCII letter shares one.
#[inline]
fn ending(byte: u8) -> u32 {
    let lower = byte | 0x20;
    1 << if lower.is_ascii_lowercase() { lower - b'a' } else { 31 }
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
        None => true,
        Some(c) => !c.is_alphanumeric() || (began_upper && !c.is_uppercase()) || c.is_ascii_digit(),
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
        ] {
            assert!(r.hides(k), "{k}");
        }
        for k in ["user", "password_policy", "max_tokens", "tokenizer", "secretary", "key", "compass", "monkey", ""] {
            assert!(!r.hides(k), "{k}");
        }
        assert!(Redaction::default().key("session-id").hides("sessionId"));
        assert!(!Redaction::none().hides("password"));
    }
}
