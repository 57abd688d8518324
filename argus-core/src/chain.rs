//! The chain step: checksum over canonical bytes, which hold the checksum of the record before. Pure.

use sha2::{Digest, Sha256};

use crate::canonical::{Fields, write_canonical};
use crate::id::Checksum;

/// SHA-256(0x00 || canonical bytes) of `fields`; `buf` is scratch.
pub(crate) fn checksum(fields: &Fields<'_>, buf: &mut Vec<u8>) -> Checksum {
    buf.clear();
    // The leaf prefix of RFC 6962, so that the same hash can stand in a Merkle tree.
    buf.push(0);
    write_canonical(fields, buf);
    Checksum(Sha256::digest(buf.as_slice()).into())
}
