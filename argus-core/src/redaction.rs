//! Redaction by key: which members' values are withheld before a record is queued. Pure. (By the shape of the value: later.)

/// Keys that begin so are Argus's own.
pub(crate) const RESERVED: &str = "$argus.";
/// What stands in place of a value withheld because of its key.
pub(crate) const MARKER: &str = r#"{"$argus.redacted":"key"}"#;

/// Words whose values are secrets. A key matches if its last word, or its last two or three words joined, is in the list:
/// `db_password`, `clientSecret` and `X-Api-Key` do, `password_policy` and `max_tokens` do not.
const DEFAULT: &[&str] = &[
    "password", "passwd", "pwd", "passphrase", "passwords", "secret", "secrets", "token", "apikey", "privatekey", "secretkey", "accesskey",
    "secretaccesskey", "signingkey", "encryptionkey", "credential", "credentials", "authorization", "cookie", "connectionstring",
];

/// Which keys' values are withheld. On by default, with a small list; [`Redaction::none`] switches it off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    words: Vec<String>,
}

impl Default for Redaction {
    fn default() -> Self {
        Self { words: DEFAULT.iter().map(|w| (*w).into()).collect() }
    }
}

impl Redaction {
    /// Withholds nothing.
    pub fn none() -> Self {
        Self { words: Vec::new() }
    }

    /// Also withholds the values of keys that end in this word (lower case, without separators, e.g. `sessionid`).
    #[must_use]
    pub fn key(mut self, word: &str) -> Self {
        self.words.push(word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect());
        self
    }

    /// Whether the value of `key` is withheld.
    pub fn hides(&self, key: &str) -> bool {
        if self.words.is_empty() || key.len() < 3 {
            return false;
        }
        // Cheap refusal first: nearly every key fails on its last letter.
        let stem = key.trim_end_matches(|c: char| c.is_ascii_digit());
        let Some(last) = stem.bytes().last().map(|b| b.to_ascii_lowercase()) else { return false };
        self.words.iter().any(|w| w.as_bytes().last() == Some(&last) && ends_with_words(stem, w))
    }
}

/// Whether `key`, read backwards without separators, spells `word` and then stops at a word's border.
fn ends_with_words(key: &str, word: &str) -> bool {
    let mut rest = key.char_indices().rev().peekable();
    let mut wanted = word.chars().rev().peekable();
    let mut began_upper = false;
    while let Some(&w) = wanted.peek() {
        match rest.next() {
            Some((_, c)) if c.is_alphanumeric() => {
                if !c.to_lowercase().eq(std::iter::once(w)) {
                    return false;
                }
                began_upper = c.is_uppercase();
                wanted.next();
            }
            Some(_) => {}
            None => return false,
        }
    }
    // A border: the start, a separator, or a change from lower to upper case (`clientSecret`).
    match rest.peek() {
        None => true,
        Some((_, c)) => !c.is_alphanumeric() || (began_upper && !c.is_uppercase()) || c.is_ascii_digit(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_at_the_end_match() {
        let r = Redaction::default();
        for k in ["password", "DB_PASSWORD", "clientSecret", "X-Api-Key", "aws.secret_access_key", "password2", "Authorization", "/db/password", "apiKey"] {
            assert!(r.hides(k), "{k}");
        }
        for k in ["user", "password_policy", "max_tokens", "tokenizer", "secretary", "key", "compass", "monkey", ""] {
            assert!(!r.hides(k), "{k}");
        }
        assert!(Redaction::default().key("session-id").hides("sessionId"));
        assert!(!Redaction::none().hides("password"));
    }
}
