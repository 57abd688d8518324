//! Numbers: integers exactly, doubles as ECMAScript writes them (RFC 8785, section 3.2.2.3). Pure.

use super::JsonError;

/// ECMAScript's `Number::toString` of a finite double.
pub(super) fn write_double(v: f64, out: &mut Vec<u8>) -> Result<(), JsonError> {
    if !v.is_finite() {
        return Err(JsonError::NumberRange(v.to_string()));
    }
    out.extend_from_slice(ryu_js::Buffer::new().format_finite(v).as_bytes());
    Ok(())
}

/// Writes an already lexed JSON number literal in canonical form. With `stored`, a digits-only literal beyond 64 bits is taken as the double it may be the text of.
pub(super) fn write_literal(literal: &str, stored: bool, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let integer = !literal.bytes().any(|b| matches!(b, b'.' | b'e' | b'E'));
    if integer && literal != "-0" {
        if literal.parse::<i64>().is_ok() || literal.parse::<u64>().is_ok() {
            out.extend_from_slice(literal.as_bytes());
            return Ok(());
        }
        if !stored {
            return Err(JsonError::NumberRange(shorten(literal)));
        }
    }
    match literal.parse::<f64>() {
        Ok(v) if v.is_finite() => write_double(v, out),
        _ => Err(JsonError::NumberRange(shorten(literal))),
    }
}

fn shorten(literal: &str) -> String {
    literal.chars().take(40).collect()
}
