use std::collections::BTreeMap;

use serde::Serialize;

use super::text::append;
use super::*;
use crate::redaction::Redaction;

fn with<T>(source: Source, f: impl FnOnce(&mut JsonWriter<'_>) -> Result<T, JsonError>) -> Result<String, JsonError> {
    let (mut out, mut scratch, redaction) = (Vec::new(), Scratch::default(), Redaction::default());
    f(&mut JsonWriter::new(&mut out, &mut scratch, &redaction, source))?;
    Ok(String::from_utf8(out).unwrap())
}

fn text(t: &str) -> Result<String, JsonError> {
    with(Source::Caller, |w| w.json_text(t))
}

fn ser<T: Serialize>(v: &T) -> Result<String, JsonError> {
    with(Source::Caller, |w| w.serialize_top(v))
}

#[test]
fn numbers_keep_integers_and_write_doubles_as_ecmascript() {
    let t =
        text("[9007199254740993, -9223372036854775808, 18446744073709551615, 1.0, 1e21, 1e20, -0, 4.50, 5e-324, 1e-7]")
            .unwrap();
    assert_eq!(
        t,
        "[9007199254740993,-9223372036854775808,18446744073709551615,1,1e+21,100000000000000000000,0,4.5,5e-324,1e-7]"
    );
    assert!(matches!(text("18446744073709551616"), Err(JsonError::NumberRange(_))));
    assert!(matches!(text("1e999"), Err(JsonError::NumberRange(_))));
    assert!(matches!(ser(&f64::NAN), Err(JsonError::NumberRange(_))));
    assert!(matches!(ser(&(u128::from(u64::MAX) + 1)), Err(JsonError::NumberRange(_))));
    assert_eq!(ser(&i128::from(i64::MIN)).unwrap(), "-9223372036854775808");
}

#[test]
fn stored_text_may_hold_a_long_double_and_only_in_its_own_form() {
    let canonical = |t: &str| is_canonical(t, &mut Vec::new(), &mut Scratch::default());
    assert!(canonical("100000000000000000000"));
    assert!(!canonical("100000000000000000001"));
    assert!(!canonical("1.0"));
    assert!(!canonical("{\"b\":1,\"a\":2}"));
    assert!(!canonical("{} "));
    assert!(canonical(r#"{"$argus.redacted":"key"}"#));
}

#[test]
fn keys_sort_by_utf16_and_duplicates_are_refused() {
    assert_eq!(
        text("{\"\u{1F600}\":1,\"\u{FB33}\":2,\"\\r\":3,\"1\":4}").unwrap(),
        "{\"\\r\":3,\"1\":4,\"\u{1F600}\":1,\"\u{FB33}\":2}"
    );
    assert!(matches!(text(r#"{"a":1,"b":2,"\u0061":3}"#), Err(JsonError::DuplicateKey(_))));
    assert!(matches!(text(r#"{"a":1,"a":3}"#), Err(JsonError::DuplicateKey(_))));
}

#[test]
fn reserved_keys_are_refused_at_any_depth() {
    assert!(matches!(text(r#"[{"x":{"$argus.redacted":"key"}}]"#), Err(JsonError::ReservedKey(_))));
}

#[test]
fn surrogates_and_syntax_are_strict() {
    assert_eq!(text(r#""\ud83d\ude00\/\u007f\u0000""#).unwrap(), "\"\u{1F600}/\u{7f}\\u0000\"");
    assert!(matches!(text(r#""\ud83d""#), Err(JsonError::LoneSurrogate)));
    assert!(matches!(text(r#""\ude00""#), Err(JsonError::LoneSurrogate)));
    for bad in ["", "{", "[1,]", "01", "1.", "nul", "'a'", "{\"a\"}", "\"\n\"", "1 2", "NaN", "+1", "\u{feff}1"] {
        assert!(matches!(text(bad), Err(JsonError::Syntax { .. })), "{bad:?} was taken");
    }
}

#[test]
fn depth_is_bounded_at_32() {
    let nest = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(text(&nest(32)).is_ok());
    assert_eq!(text(&nest(33)), Err(JsonError::TooDeep));
}

#[test]
fn serialize_sorts_structs_and_knows_three_kinds_of_nothing() {
    #[derive(Serialize)]
    struct S {
        z: Option<u8>,
        a: (),
        m: BTreeMap<u8, &'static str>,
    }
    let s = S { z: None, a: (), m: [(10, "ten"), (9, "nine")].into() };
    assert_eq!(ser(&s).unwrap(), r#"{"a":null,"m":{"10":"ten","9":"nine"},"z":null}"#);
    let (mut out, mut scratch, r) = (Vec::new(), Scratch::default(), Redaction::none());
    let mut w = JsonWriter::new(&mut out, &mut scratch, &r, Source::Caller);
    assert!(!w.serialize_top(&None::<u8>).unwrap());
    assert!(w.serialize_top(&Some(None::<u8>)).unwrap());
    assert_eq!(out, b"null");
}

#[test]
fn values_of_sensitive_keys_are_withheld_at_any_depth() {
    let t = text(r#"{"db":{"password":"hunter2","port":1,"secret":"","api_key":{"a":[1]}},"max_tokens":5}"#).unwrap();
    assert_eq!(
        t,
        r#"{"db":{"api_key":{"$argus.redacted":"key"},"password":{"$argus.redacted":"key"},"port":1,"secret":""},"max_tokens":5}"#
    );
}

#[test]
fn whoever_poses_as_a_raw_value_writes_one_json_value_or_nothing() {
    use serde::ser::SerializeStruct;
    struct Poser(&'static str, &'static [&'static str]);
    impl Serialize for Poser {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            let mut s = s.serialize_struct(self.0, self.1.len())?;
            for text in self.1 {
                s.serialize_field("text", text)?;
            }
            s.end()
        }
    }
    for name in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
        assert_eq!(ser(&Poser(name, &["1.50"])).unwrap(), "1.5");
        for texts in [&[][..], &["1", "2"], &["007"], &["+1"], &["1,2"], &["1}"], &["inf"]] {
            assert!(ser(&[Poser(name, texts)]).is_err(), "{name} {texts:?}");
        }
    }
}

#[test]
fn every_byte_at_every_place_is_escaped_as_serde_json_does() {
    for len in 0..20 {
        for at in 0..len {
            for byte in 0..0x80u8 {
                let mut bytes = vec![b'x'; len];
                bytes[at] = byte;
                let s = String::from_utf8(bytes).unwrap();
                let theirs = serde_json::to_string(&s).unwrap();
                assert_eq!(ser(&s).unwrap(), theirs);
                assert_eq!(ser(&BTreeMap::from([(&s, 1)])).unwrap(), format!("{{{theirs}:1}}"));
            }
        }
    }
}

#[test]
fn names_that_share_their_first_eight_bytes_or_less_are_ordered() {
    let names = [
        "",
        "a",
        r"a\u0000",
        "aa",
        "abcdefg",
        "abcdefgh",
        r"abcdefgh\u0000",
        "abcdefghi",
        "abcdefghj",
        r"abc\u00e9",
        "b",
        r"\u20ac",
    ];
    let mut reversed: Vec<String> = names.iter().map(|n| format!("\"{n}\":1")).collect();
    let sorted = format!("{{{}}}", {
        let mut keys: Vec<String> = names.iter().map(|n| serde_json::from_str(&format!("\"{n}\"")).unwrap()).collect();
        keys.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
        keys.iter().map(|k| format!("{}:1", serde_json::to_string(k).unwrap())).collect::<Vec<_>>().join(",")
    });
    reversed.reverse();
    assert_eq!(text(&format!("{{{}}}", reversed.join(","))).unwrap(), sorted);
}

#[test]
fn an_error_that_serialize_passes_over_still_counts() {
    use serde::ser::{SerializeMap, SerializeSeq};
    struct Careless(bool);
    impl Serialize for Careless {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            if self.0 {
                let mut seq = s.serialize_seq(None)?;
                if seq.serialize_element(&f64::NAN).is_err() {
                    seq.serialize_element("NaN")?;
                }
                return seq.end();
            }
            let mut map = s.serialize_map(None)?;
            let _ = map.serialize_entry("a", &f64::INFINITY);
            map.serialize_entry("b", &1)?;
            map.end()
        }
    }
    for careless in [Careless(true), Careless(false)] {
        assert!(matches!(ser(&careless), Err(JsonError::NumberRange(_))));
    }
}

#[test]
fn what_needs_an_escape_is_found_wherever_it_stands() {
    let needs = |b: u8| b < 0x20 || matches!(b, b'"' | b'\\');
    for len in 0..20 {
        let mut text = "a!#[]\u{7f}\u{e9}~ z".repeat(3);
        text.truncate((0..=len).rev().find(|n| text.is_char_boundary(*n)).unwrap());
        let mut out = b"before".to_vec();
        assert!(!append(text.as_bytes(), &mut out), "{text}");
        assert_eq!(out, format!("before{text}").as_bytes());
        for at in 0..text.len() {
            for byte in (0..0x80).filter(|_| text.as_bytes()[at].is_ascii()) {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = byte;
                let text = String::from_utf8(bytes).unwrap();
                assert_eq!(append(text.as_bytes(), &mut Vec::new()), needs(byte), "{byte} at {at} of {len}");
                let quoted = ser(&text).unwrap();
                let named = ser(&BTreeMap::from([("0", 1), (text.as_str(), 2)]));
                if byte != b'0' || text.len() > 1 {
                    assert!(named.unwrap().contains(&format!("{quoted}:2")), "{text:?}");
                }
                // Another's escapes are as good, but longer.
                let theirs: String = serde_json::from_str(&quoted).unwrap();
                assert_eq!((theirs, escaped_len(&text) + 2), (text, quoted.len()));
            }
        }
    }
}

#[test]
fn integers_have_their_digits() {
    let powers = (0..20).flat_map(|e| [10u64.pow(e) - 1, 10u64.pow(e), 10u64.pow(e) + 1, 7 * 10u64.pow(e.min(18))]);
    for n in powers.chain([u64::MAX, u64::MAX - 9]) {
        assert_eq!(ser(&n).unwrap(), n.to_string());
        let negative = -i128::from(n >> 1);
        assert_eq!(ser(&i64::try_from(negative).unwrap()).unwrap(), negative.to_string());
    }
}

#[test]
fn a_map_gives_each_key_its_value() {
    struct Steps(&'static str);
    impl Serialize for Steps {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeMap;
            let mut map = s.serialize_map(None)?;
            for (n, step) in self.0.chars().enumerate() {
                let _ = match step {
                    'k' => map.serialize_key(&n),
                    'b' => map.serialize_key(&1.5),
                    _ => map.serialize_value(&n),
                };
            }
            map.end()
        }
    }
    assert_eq!(ser(&Steps("kvkv")).unwrap(), r#"{"0":1,"2":3}"#);
    for careless in ["k", "v", "kkv", "kvv", "kvk"] {
        assert!(matches!(ser(&Steps(careless)), Err(JsonError::Custom(_))), "{careless}");
    }
    assert_eq!(ser(&Steps("bv")), Err(JsonError::BadKey));
}
