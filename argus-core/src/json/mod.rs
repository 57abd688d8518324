//! Canonical JSON (RFC 8785 with exact 64-bit integers): the only module that writes or checks the JSON of a record. Pure: bytes in, bytes out.
//! `text` has its strings and digits; `writer` puts values together; `serialize` drives it from `Serialize`; `parse` drives it from JSON text. Rules: `docs/record-format.md`, section 2.

mod number;
mod parse;
mod serialize;
pub(crate) mod text;
mod writer;

pub(crate) use parse::{is_canonical, object_members, unescape};
pub(crate) use text::{Key, Name, escape_into, escaped_len, is_behind, quote_bytes, utf16_cmp, write_u64};
pub use writer::JsonWriter;
pub(crate) use writer::{Scratch, Source};

use std::fmt;

/// Depth of the three JSON fields: a scalar is 0, `{}` is 1.
pub(crate) const MAX_DEPTH: usize = 32;

/// Why a value cannot be encoded.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum JsonError {
    /// Deeper than 32.
    TooDeep,
    /// An object names a member twice.
    DuplicateKey(String),
    /// A key begins with `$argus.`.
    ReservedKey(String),
    /// NaN, an infinity, or an integer outside -2^63 to 2^64-1.
    NumberRange(String),
    /// A `\ud800`-like escape without its other half.
    LoneSurrogate,
    /// No JSON at all.
    Syntax {
        /// Byte offset.
        offset: usize,
        /// What was expected.
        expected: &'static str,
    },
    /// An object key that is neither text nor a number nor a boolean.
    BadKey,
    /// `Serialize` itself gave up.
    Custom(String),
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::TooDeep => write!(f, "JSON is nested deeper than {MAX_DEPTH}"),
            JsonError::DuplicateKey(k) => write!(f, "object names the member `{k}` twice"),
            JsonError::ReservedKey(k) => {
                write!(f, "the key `{k}` is reserved: keys that begin with `$argus.` belong to Argus")
            }
            JsonError::NumberRange(n) => write!(
                f,
                "the number {n} cannot be kept exactly: integers go from -2^63 to 2^64-1, and NaN and infinities have no JSON"
            ),
            JsonError::LoneSurrogate => f.write_str("a surrogate escape without its other half"),
            JsonError::Syntax { offset, expected } => write!(f, "not JSON: expected {expected} at byte {offset}"),
            JsonError::BadKey => f.write_str("an object key must be text, a number or a boolean"),
            JsonError::Custom(m) => f.write_str(m),
        }
    }
}

impl std::error::Error for JsonError {}

/// The same behind a pointer: so the result of each of the many calls that a value takes is one register.
#[derive(Clone, Debug)]
pub(crate) struct Fault(Box<JsonError>);

impl From<JsonError> for Fault {
    #[cold]
    fn from(error: JsonError) -> Self {
        Self(Box::new(error))
    }
}

impl From<Fault> for JsonError {
    fn from(fault: Fault) -> Self {
        *fault.0
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Fault {}

impl serde::ser::Error for Fault {
    fn custom<T: fmt::Display>(msg: T) -> Self {
        JsonError::Custom(msg.to_string()).into()
    }
}

#[cfg(test)]
mod tests;
