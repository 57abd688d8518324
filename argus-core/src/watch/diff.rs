//! Differences by path: an object keyed by JSON pointer, `{"/a/b": {"old": .., "new": ..}}`. Pure. A side that has no such member has no `old` or `new`;
//! arrays go by index; the order of keys does not matter; equal values give an empty object.

use serde_json::{Map, Number, Value};

use crate::json::{JsonWriter, Scratch, Source};
use crate::redaction::Redaction;

/// Whether two values have the same canonical JSON, for that is what a record holds: `1`, `1.0` and `1e0` are one number.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || ((x.is_f64() || y.is_f64()) && canonical(x) == canonical(y)),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, x)| y.get(k).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

fn canonical(number: &Number) -> Vec<u8> {
    let (mut out, mut scratch, none) = (Vec::new(), Scratch::default(), Redaction::none());
    let mut writer = JsonWriter::new(&mut out, &mut scratch, &none, Source::Stored);
    // What has no canonical form is its own text.
    if writer.serialize_top(number).is_err() {
        return number.to_string().into_bytes();
    }
    out
}

/// What became of `old`.
pub(crate) fn diff(old: Option<&Value>, new: Option<&Value>) -> Value {
    let mut out = Map::new();
    walk(&mut String::new(), old, new, &mut out);
    Value::Object(out)
}

fn walk(path: &mut String, old: Option<&Value>, new: Option<&Value>, out: &mut Map<String, Value>) {
    match (old, new) {
        (Some(a), Some(b)) if same(a, b) => {}
        (None, None) => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let keys = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k)));
            for key in keys {
                let len = path.len();
                path.push('/');
                path.push_str(&key.replace('~', "~0").replace('/', "~1"));
                walk(path, a.get(key), b.get(key), out);
                path.truncate(len);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for i in 0..a.len().max(b.len()) {
                let len = path.len();
                path.push('/');
                path.push_str(&i.to_string());
                walk(path, a.get(i), b.get(i), out);
                path.truncate(len);
            }
        }
        _ => {
            let mut entry = Map::new();
            for (name, side) in [("old", old), ("new", new)] {
                if let Some(v) = side {
                    entry.insert(name.into(), v.clone());
                }
            }
            out.insert(path.clone(), Value::Object(entry));
        }
    }
}

/// The form for the record. In `old_value` a secret key hides all that is under it; a flat pointer such as `/token/value` would tell it after all. So a
/// pointer is cut after its first secret key, without values; the sink withholds the rest by that key. It is cut before a key that is a secret by its shape.
pub(crate) fn for_record(diff: &Value, redaction: &Redaction) -> Value {
    let Value::Object(entries) = diff else { return diff.clone() };
    let mut out = Map::new();
    for (pointer, entry) in entries {
        match secret_prefix(pointer, redaction) {
            Some(prefix) => out.insert(prefix.into(), serde_json::json!({ "changed": true })),
            None => out.insert(pointer.clone(), entry.clone()),
        };
    }
    Value::Object(out)
}

/// The pointer up to its first secret key; without it, if the key itself is the secret.
fn secret_prefix<'a>(pointer: &'a str, redaction: &Redaction) -> Option<&'a str> {
    let mut start = 0;
    for segment in pointer.split('/') {
        let end = start + segment.len();
        let key = segment.replace("~1", "/").replace("~0", "~");
        if redaction.text(&key).is_some() {
            return pointer.get(..start.saturating_sub(1));
        }
        if redaction.hides(&key) {
            return pointer.get(..end);
        }
        start = end + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_what_differs() {
        let old = json!({"a":{"b":1,"c":2},"l":[1,2,3],"x/y~z":true,"same":{"k":[1]}});
        let new = json!({"same":{"k":[1]},"l":[1,5],"a":{"b":9,"d":null},"x/y~z":false});
        let expected = json!({
            "/a/b":{"old":1,"new":9}, "/a/c":{"old":2}, "/a/d":{"new":null},
            "/l/1":{"old":2,"new":5}, "/l/2":{"old":3}, "/x~1y~0z":{"old":true,"new":false},
        });
        assert_eq!(diff(Some(&old), Some(&new)), expected);
        assert_eq!(diff(Some(&old), Some(&old)), json!({}));
        assert_eq!(diff(None, Some(&json!(1))), json!({"":{"new":1}}));
        assert_eq!(diff(Some(&json!([])), Some(&json!({}))), json!({"":{"old":[],"new":{}}}));
    }

    #[test]
    fn what_is_the_same_in_canonical_json_is_the_same() {
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        for (a, b) in
            [("1", "1.0"), ("[{\"a\":-0.0}]", "[{\"a\":0}]"), ("9300000000000000000", "9.3e18"), ("1e2", "100")]
        {
            assert!(same(&value(a), &value(b)), "{a} {b}");
            assert_eq!(diff(Some(&value(a)), Some(&value(b))), json!({}));
        }
        for (a, b) in [("1", "1.5"), ("9007199254740993", "9007199254740992.0"), ("1", "\"1\""), ("[1]", "[1,1]")] {
            assert!(!same(&value(a), &value(b)), "{a} {b}");
        }
    }

    #[test]
    fn nothing_under_a_secret_key_is_told() {
        let d = diff(
            Some(&json!({"token":{"value":"s1"},"passwords":["p1"],"port":1,"db":{"password":"x"}})),
            Some(&json!({"token":{"value":"s2"},"passwords":["p2"],"port":2,"db":{"password":"y"}})),
        );
        let safe = for_record(&d, &Redaction::default());
        let t = json!({"changed":true});
        assert_eq!(safe, json!({"/token":t,"/passwords":t,"/db/password":t,"/port":{"old":1,"new":2}}));
        assert_eq!(for_record(&d, &Redaction::none()), d);
        let by_name =
            diff(Some(&json!({"a":{"https://u:hunter2@h":1}})), Some(&json!({"a":{"https://u:hunter2@h":2}})));
        assert_eq!(for_record(&by_name, &Redaction::default()), json!({"/a":t}));
    }
}
