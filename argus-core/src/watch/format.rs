//! Formats: what a file's bytes mean. By extension, pure, on the watcher's thread.
//! Invariants: a parsed value can be recorded (no NaN, no integer beyond 64 bits: those become their text); a key named twice is an error, never a choice.

use std::borrow::Cow;
use std::fmt;
use std::panic::catch_unwind;
use std::path::Path;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    #[cfg(feature = "yaml")]
    Yaml,
    #[cfg(feature = "toml")]
    Toml,
    /// Any other: the value is the text.
    Text,
}

/// Longest text of an error, in bytes.
const MAX_MESSAGE: usize = 512;

/// Why bytes have no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParseError {
    pub(crate) message: String,
    pub(crate) line: Option<u64>,
    pub(crate) column: Option<u64>,
}

impl ParseError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::at(message.into(), 0, 0)
    }

    /// Parsers quote keys, and those may be as long as the file: an error must always fit a record.
    pub(crate) fn at(mut message: String, line: u64, column: u64) -> Self {
        if message.len() > MAX_MESSAGE {
            let end = (0..=MAX_MESSAGE).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
            message.truncate(end);
            message.push('…');
        }
        Self { message, line: Some(line).filter(|l| *l > 0), column: Some(column).filter(|c| *c > 0) }
    }
}

impl Format {
    /// The format that the extension names.
    pub(crate) fn of(path: &Path) -> Format {
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        match extension.as_deref() {
            Some("json") => Format::Json,
            #[cfg(feature = "yaml")]
            Some("yaml" | "yml") => Format::Yaml,
            #[cfg(feature = "toml")]
            Some("toml") => Format::Toml,
            _ => Format::Text,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            #[cfg(feature = "yaml")]
            Format::Yaml => "yaml",
            #[cfg(feature = "toml")]
            Format::Toml => "toml",
            Format::Text => "text",
        }
    }

    /// The value of `bytes`. A parser that panics is a parse error.
    pub(crate) fn parse(self, bytes: &[u8]) -> Result<Value, ParseError> {
        if self == Format::Text {
            return Ok(match std::str::from_utf8(bytes) {
                Ok(text) => Value::String(text.into()),
                Err(_) => serde_json::json!({ "bytes": bytes.len(), "sha256": crate::writer::sha256_hex(bytes) }),
            });
        }
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let before = &bytes[..e.valid_up_to()];
            let line = 1 + before.iter().filter(|b| **b == b'\n').count();
            ParseError::at(format!("not UTF-8 at byte {}", e.valid_up_to()), line as u64, 0)
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        catch_unwind(|| match self {
            Format::Json => json(text),
            #[cfg(feature = "yaml")]
            Format::Yaml => super::yaml::parse(text),
            #[cfg(feature = "toml")]
            Format::Toml => toml(text),
            Format::Text => Ok(Value::String(text.into())),
        })
        .unwrap_or_else(|_| Err(ParseError::new("the parser panicked")))
    }
}

fn json(text: &str) -> Result<Value, ParseError> {
    match serde_json::from_str::<Node>(&quote_wide_numbers(text)) {
        Ok(node) => Ok(node.0),
        Err(e) => Err(ParseError::at(e.to_string(), e.line() as u64, e.column() as u64)),
    }
}

/// Puts numbers that no 64-bit integer and no finite double holds in quotation marks: `serde_json` would round or refuse them.
fn quote_wide_numbers(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut i) = (String::new(), 0, 0);
    while let Some(&b) = bytes.get(i) {
        match b {
            b'"' => {
                i += 1;
                while let Some(&b) = bytes.get(i) {
                    i += if b == b'\\' { 2 } else { 1 };
                    if b == b'"' {
                        break;
                    }
                }
            }
            b'-' | b'0'..=b'9' => {
                let len = bytes[i..]
                    .iter()
                    .take_while(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
                    .count();
                let number = &text[i..i + len];
                let is_key = || text[i + len..].trim_start().starts_with(':');
                if is_wide(number) && !is_key() {
                    out.push_str(&text[copied..i]);
                    out.push('"');
                    out.push_str(number);
                    out.push('"');
                    copied = i + len;
                }
                i += len;
            }
            _ => i += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Whether a number, if it is one in JSON's grammar, is beyond what a record holds.
fn is_wide(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    if digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit() {
        return false; // No JSON: leave the error to the parser.
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return !digits.is_empty() && number.parse::<i64>().is_err() && number.parse::<u64>().is_err();
    }
    // Rust reads `1.` as a number, JSON does not; only overflow matters here, which needs an exponent or hundreds of digits.
    !digits.ends_with('.')
        && !digits.contains(".e")
        && !digits.contains(".E")
        && number.parse::<f64>().is_ok_and(|f| !f.is_finite())
}

#[cfg(feature = "toml")]
fn toml(text: &str) -> Result<Value, ParseError> {
    fn value(v: toml::Value) -> Value {
        match v {
            toml::Value::String(s) => Value::String(s),
            toml::Value::Integer(i) => i.into(),
            toml::Value::Float(f) if f.is_nan() => "nan".into(),
            toml::Value::Float(f) => double(f),
            toml::Value::Boolean(b) => Value::Bool(b),
            toml::Value::Datetime(d) => Value::String(d.to_string()),
            toml::Value::Array(a) => a.into_iter().map(value).collect(),
            toml::Value::Table(t) => Value::Object(t.into_iter().map(|(k, v)| (k, value(v))).collect()),
        }
    }
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let before = e.span().and_then(|s| text.get(..s.start));
        let line = before.map_or(0, |b| 1 + b.matches('\n').count());
        let column = before.map_or(0, |b| 1 + b.rsplit('\n').next().unwrap_or("").chars().count());
        ParseError::at(e.message().to_owned(), line as u64, column as u64)
    })?;
    Ok(value(toml::Value::Table(table)))
}

/// A finite double as a number, any other as its text.
pub(crate) fn double(f: f64) -> Value {
    Number::from_f64(f).map_or_else(|| Value::String(f.to_string()), Value::Number)
}

/// A value of any self-describing format, under the rules above.
pub(crate) struct Node(pub(crate) Value);

impl Node {
    /// As an object's key.
    pub(crate) fn into_key(self) -> String {
        match self.0 {
            Value::String(s) => s,
            other => other.to_string(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(NodeVisitor).map(Node)
    }
}

struct NodeVisitor;

macro_rules! visit {
    ($($f:ident($v:ident: $t:ty) => $e:expr;)*) => { $(fn $f<E: de::Error>(self, $v: $t) -> Result<Value, E> { Ok($e) })* };
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    visit! {
        visit_bool(v: bool) => Value::Bool(v);
        visit_i64(v: i64) => v.into();
        visit_u64(v: u64) => v.into();
        visit_i128(v: i128) => i64::try_from(v).map_or_else(|_| Value::String(v.to_string()), Value::from);
        visit_u128(v: u128) => u64::try_from(v).map_or_else(|_| Value::String(v.to_string()), Value::from);
        visit_f64(v: f64) => double(v);
        visit_str(v: &str) => Value::String(v.into());
        visit_string(v: String) => Value::String(v);
        visit_bytes(v: &[u8]) => String::from_utf8_lossy(v).into();
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Node(v)) = seq.next_element()? {
            all.push(v);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(key) = map.next_key::<Node>()? {
            let key = key.into_key();
            let Node(value) = map.next_value()?;
            if all.contains_key(&key) {
                return Err(de::Error::custom(format_args!("the key `{key}` is named twice")));
            }
            all.insert(key, value);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_extension_decides() {
        assert_eq!(Format::of(Path::new("/a/b.JSON")), Format::Json);
        assert_eq!(Format::of(Path::new("/a/b.ini")), Format::Text);
        assert_eq!(Format::of(Path::new("/a/json")), Format::Text);
        assert_eq!(Format::Text.parse(b"a=1").unwrap(), json!("a=1"));
        assert_eq!(Format::Text.parse(b"\xff").unwrap()["bytes"], json!(1));
    }

    #[test]
    fn json_keeps_what_it_can_and_texts_the_rest() {
        let v = Format::Json.parse(br#"{"a":18446744073709551616,"b":-9223372036854775808,"c":1e999,"d":"9\"99999999999999999999","e":[18446744073709551615,1.5]}"#);
        let expected = json!({"a":"18446744073709551616","b":i64::MIN,"c":"1e999","d":"9\"99999999999999999999","e":[u64::MAX,1.5]});
        assert_eq!(v.unwrap(), expected);
        for bad in [
            &b"{\"a\":1,\"a\":2}"[..],
            b"{99999999999999999999:1}",
            b"[00000000000000000000000001]",
            b"[1.e999]",
            b"\xff",
            b"",
            b"{\"a\":",
        ] {
            assert!(Format::Json.parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Format::Json.parse(b"{\n\n x").unwrap_err().line, Some(3));
    }

    #[cfg(feature = "toml")]
    #[test]
    fn toml_dates_and_doubles() {
        let v = Format::Toml.parse(b"d = 1979-05-27T07:32:00Z\nf = nan\ng = -inf\n[t]\nx = [1, 2]\n").unwrap();
        assert_eq!(v, json!({"d":"1979-05-27T07:32:00Z","f":"nan","g":"-inf","t":{"x":[1,2]}}));
        let e = Format::Toml.parse(b"a = 1\na = 2\n").unwrap_err();
        assert_eq!(e.line, Some(2), "{e:?}");
    }
}
