//! YAML. Pure. The parser hands integers beyond 64 bits over as rounded doubles; where a document has such a double, it is parsed a second time with the
//! places of its scalars, and the source text decides. Invariant: no digit of an integer is lost.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::format::{Node, ParseError, double};

/// The value of a document; of several, an array of theirs; of none, null.
pub(crate) fn parse(text: &str) -> Result<Value, ParseError> {
    let documents = all::<Node>(text)?.into_iter().map(|n| n.0).collect();
    let value = join(documents);
    if !has_wide(&value) {
        return Ok(value);
    }
    let trees: Vec<Tree> = all::<Spanned<Tree>>(text)?.into_iter().map(placed).collect();
    Ok(join(trees.into_iter().map(|t| t.value(text)).collect()))
}

fn join(mut documents: Vec<Value>) -> Value {
    match documents.len() {
        0 | 1 => documents.pop().unwrap_or(Value::Null),
        _ => Value::Array(documents),
    }
}

fn all<T: de::DeserializeOwned>(text: &str) -> Result<Vec<T>, ParseError> {
    // The booleans, octals and underscores of YAML 1.1 stay text, as in YAML 1.2 and in most Rust programs.
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|e| {
        let at = e.location();
        ParseError::at(e.to_string(), at.as_ref().map_or(0, |l| l.line()), at.as_ref().map_or(0, |l| l.column()))
    })
}

/// A double that may have been an integer beyond 64 bits.
fn is_wide(f: f64) -> bool {
    f.fract() == 0.0 && f.abs() >= 9.2e18
}

fn has_wide(value: &Value) -> bool {
    match value {
        Value::Number(n) => n.is_f64() && n.as_f64().is_some_and(is_wide),
        Value::Array(a) => a.iter().any(has_wide),
        Value::Object(o) => o.values().any(has_wide),
        _ => false,
    }
}

/// A value whose wide doubles know where they are.
enum Tree {
    Leaf(Value),
    Double(f64),
    Wide { value: f64, start: usize, len: usize },
    Seq(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

/// Keeps the place where it is needed.
fn placed(node: Spanned<Tree>) -> Tree {
    let span = node.defined.span();
    let place = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok());
    match (node.value, place(span.byte_offset()), place(span.byte_len())) {
        (Tree::Double(value), Some(start), Some(len)) if is_wide(value) => Tree::Wide { value, start, len },
        (tree, ..) => tree,
    }
}

impl Tree {
    fn value(self, text: &str) -> Value {
        match self {
            Tree::Leaf(v) => v,
            Tree::Double(f) => double(f),
            Tree::Wide { value, start, len } => {
                let source = text.get(start..start + len).map_or("", str::trim);
                let digits = source.trim_start_matches(['-', '+']);
                if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
                    Value::String(source.into())
                } else {
                    double(value)
                }
            }
            Tree::Seq(all) => all.into_iter().map(|t| t.value(text)).collect(),
            Tree::Map(all) => Value::Object(all.into_iter().map(|(k, t)| (k, t.value(text))).collect::<Map<_, _>>()),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

macro_rules! leaf {
    ($($f:ident: $t:ty),*) => { $(fn $f<E: de::Error>(self, v: $t) -> Result<Tree, E> { Ok(Tree::Leaf(v.into())) })* };
}

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    leaf!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_str: &str, visit_string: String);

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Tree, E> {
        Ok(Tree::Double(v))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(v) = seq.next_element()? {
            all.push(placed(v));
        }
        Ok(Tree::Seq(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(key) = map.next_key::<Node>()? {
            all.push((key.into_key(), placed(map.next_value()?)));
        }
        Ok(Tree::Map(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_numbers_and_documents() {
        let text = "1: a\ntrue: b\nnan: .nan\ninf: -.inf\nmode: 0755\non: yes\nt: 2001-12-14\nnull: n\nsmall: 0x10\n";
        let expected = json!({"1":"a","true":"b","nan":".nan","inf":"-.inf","mode":"0755","on":"yes","t":"2001-12-14","null":"n","small":16});
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("a: 1\n---\nb: 2\n").unwrap(), json!([{"a":1},{"b":2}]));
        assert_eq!(parse("# nothing\n").unwrap(), Value::Null);
        assert_eq!(parse("a: 1\nb: 2\na: 3\n").unwrap_err().line, Some(3));
        assert_eq!(parse("1: 1\n'1': 3\n").ok(), None);
        assert!(parse("a: [1\n").is_err());
        assert_eq!(parse("a: &x {b: 1}\nc: {<<: *x, d: 2}\n").unwrap()["c"], json!({"b":1,"d":2}));
    }

    #[test]
    fn no_digit_of_a_wide_integer_is_lost() {
        let text = "é: 18446744073709551616\nl: [-9223372036854775809, 1e30, &a 99999999999999999999, 18446744073709551615]\nq: '99999999999999999999'\nr: *a\n";
        let wide = "99999999999999999999";
        assert_eq!(
            parse(text).unwrap(),
            json!({"é":"18446744073709551616","l":["-9223372036854775809",1e30,wide,u64::MAX],"q":wide,"r":wide})
        );
        assert_eq!(parse("18446744073709551616").unwrap(), json!("18446744073709551616"));
        assert_ne!(parse("18446744073709551616").unwrap(), parse("18446744073709551617").unwrap());
    }
}
