//! Context members as attributes, read from the record's JSON text straight into them: scalars typed, the rest as JSON text, text cut.

use std::borrow::Cow;
use std::fmt;

use opentelemetry::{KeyValue, Value};
use serde::Deserializer;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use crate::names;

/// Adds the members of the JSON object `text`; none where it is no object.
pub(crate) fn push(out: &mut Vec<KeyValue>, text: &str, most: usize) {
    if text != "{}" {
        let had = out.len();
        if serde_json::Deserializer::from_str(text).deserialize_map(Members { out: &mut *out, most }).is_err() {
            out.truncate(had);
        }
    }
}

struct Members<'o> {
    out: &'o mut Vec<KeyValue>,
    most: usize,
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'de>>()? {
            let name = names::with_prefix(names::CONTEXT_PREFIX, &key.0);
            let value = map.next_value_seed(Member { most: self.most })?;
            self.out.push(KeyValue::new(name, value));
        }
        Ok(())
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E: Error>(self, v: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(v)))
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(v.to_owned())))
            }
        }
        from.deserialize_str(KeyVisitor)
    }
}

struct Member {
    most: usize,
}

impl Member {
    fn text(&self, v: serde_json::Value) -> Value {
        cut(v.to_string().into(), self.most).into()
    }
}

impl<'de> DeserializeSeed<'de> for Member {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    /// One beyond an i64 keeps its digits as text.
    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        Ok(i64::try_from(v).map_or_else(|_| v.to_string().into(), Value::from))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        Ok(cut(v.into(), self.most).into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok("null".into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Value, A::Error> {
        Ok(self.text(Deserialize::deserialize(SeqAccessDeserializer::new(seq))?))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        Ok(self.text(Deserialize::deserialize(MapAccessDeserializer::new(map))?))
    }
}

/// Cuts at a character's border and says so.
pub(crate) fn cut(text: Cow<'_, str>, most: usize) -> String {
    if text.len() <= most {
        return text.into_owned();
    }
    let end = (0..=most).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_value_has_its_type() {
        let mut out = Vec::new();
        let text = r#"{"a":null,"b":true,"c":-7,"d":9223372036854775808,"e":2.5,"f\n":"x","g":[1,{"h":"1234567890"}],"i":{},"j":""}"#;
        push(&mut out, text, 8);
        let got: Vec<_> = out.iter().map(|kv| format!("{}={:?}", kv.key, kv.value)).collect();
        let text = |k: &str, v: &str| format!("audit.context.{k}={:?}", Value::from(v.to_owned()));
        let expected = [
            format!("audit.context.a={:?}", Value::from("null")),
            format!("audit.context.b={:?}", Value::Bool(true)),
            format!("audit.context.c={:?}", Value::I64(-7)),
            text("d", "9223372036854775808"),
            format!("audit.context.e={:?}", Value::F64(2.5)),
            text("f\n", "x"),
            text("g", "[1,{\"h\":…"),
            text("i", "{}"),
            text("j", ""),
        ];
        assert_eq!(got, expected);
        push(&mut out, "{}", 8);
        push(&mut out, "[1]", 8);
        push(&mut out, r#"{"a":1,"b":"#, 8);
        assert_eq!(out.len(), expected.len(), "what is no object adds nothing");
    }

    #[test]
    fn text_is_cut_at_a_border() {
        for (text, most, expected) in [("", 0, ""), ("ü", 1, "…"), ("ü", 2, "ü"), ("aü", 2, "a…"), ("abc", 3, "abc")]
        {
            assert_eq!(cut(text.into(), most), expected);
        }
    }
}
