//! Identities and hashes: `RecordId`, `WriterId` (UUIDs), `Checksum` (SHA-256). Plain values with their one text form.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) [u8; 16]);

        impl $name {
            /// The sixteen bytes.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0
            }

            /// From sixteen bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Writes the lower-case hyphenated text into `buf`.
            pub(crate) fn encode(self, buf: &mut [u8; 36]) -> &str {
                Uuid::from_bytes(self.0).hyphenated().encode_lower(buf)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.encode(&mut [0; 36]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(s: &str) -> Result<Self, BadId> {
                Uuid::try_parse(s).map(|u| Self(u.into_bytes())).map_err(|_| BadId(s.into()))
            }
        }
    };
}

uuid_id! {
    /// Identity of a record: a UUIDv7, minted when the record is accepted. The idempotency key everywhere.
    RecordId
}

uuid_id! {
    /// Identity of a writer: one opened logger. Also the identity of a log, whose own records its *log writer* makes.
    WriterId
}

impl WriterId {
    /// Reads the one text form that records carry: lower case, hyphens, nothing else.
    pub(crate) fn parse_exact(s: &str) -> Option<Self> {
        let id = Self(Uuid::try_parse(s).ok()?.into_bytes());
        (id.encode(&mut [0; 36]) == s).then_some(id)
    }

    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4().into_bytes())
    }
}

/// Text that is no UUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadId(String);

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no UUID", self.0)
    }
}

impl std::error::Error for BadId {}

/// SHA-256 over `0x00` and a record's canonical bytes: the link of the chain, and the RFC 6962 leaf hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum(pub(crate) [u8; 32]);

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Checksum {
    /// The 32 bytes.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// From 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn encode(self, buf: &mut [u8; 64]) -> &str {
        hex_into(&self.0, buf)
    }

    /// Whether `text` is this checksum's text.
    pub(crate) fn is(self, text: &str) -> bool {
        self.encode(&mut [0; 64]) == text
    }

    /// Reads 64 lower-case hex digits and nothing else.
    pub(crate) fn parse_exact(s: &str) -> Option<Self> {
        let mut out = [0; 32];
        unhex_into(s, &mut out).then_some(Self(out))
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.encode(&mut [0; 64]))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({self})")
    }
}

/// Whether `s` is a UUID of this version in the one text form that records carry.
pub(crate) fn is_uuid(s: &str, version: u32) -> bool {
    let b = s.as_bytes();
    let digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    b.len() == 36
        && b.iter().enumerate().all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) { *b == b'-' } else { digit(b) })
        && u32::from(b[14]) == u32::from(b'0') + version
        && matches!(b[19], b'8' | b'9' | b'a' | b'b')
}

/// Lower-case hex of `bytes` into `buf`, which must be at least twice as long.
pub(crate) fn hex_into<'b>(bytes: &[u8], buf: &'b mut [u8]) -> &'b str {
    let mut n = 0;
    for (pair, b) in buf.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[(b >> 4) as usize];
        pair[1] = HEX[(b & 15) as usize];
        n += 2;
    }
    // Only hex digits were written, so this is never the empty fallback.
    std::str::from_utf8(buf.get(..n).unwrap_or_default()).unwrap_or_default()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut buf = vec![0; bytes.len() * 2];
    hex_into(bytes, &mut buf).into()
}

/// Reads exactly `2 * out.len()` lower-case hex digits; false if `s` is anything else.
pub(crate) fn unhex_into(s: &str, out: &mut [u8]) -> bool {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    if s.len() != out.len() * 2 {
        return false;
    }
    for (o, pair) in out.iter_mut().zip(s.as_bytes().chunks_exact(2)) {
        match (digit(pair[0]), digit(pair[1])) {
            (Some(h), Some(l)) => *o = h << 4 | l,
            _ => return false,
        }
    }
    true
}
