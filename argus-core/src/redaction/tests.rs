//! Which keys and which shapes are found, and what becomes of them.

use super::*;

/// What passes most keys at a glance must know as much as the walk does.
#[test]
fn the_quick_answer_is_that_of_the_walk() {
    let odd = Redaction::none().key("pw").key("x9").key("schl\u{fc}ssel").key("ttx");
    for r in [Redaction::default(), odd, Redaction::none()] {
        let letters: Vec<char> = ('a'..='z').chain("DKPTX_-.129\u{fc}\u{e9}".chars()).collect();
        for stem in ["", "pass", "to", "my_", "schl\u{fc}", "t"] {
            for (a, b, c) in letters
                .iter()
                .flat_map(|a| letters.iter().map(move |b| (a, b)))
                .flat_map(|(a, b)| letters.iter().map(move |c| (a, b, c)))
            {
                let key = format!("{stem}{a}{b}{c}");
                assert_eq!(r.hides(&key), r.spelt(&key), "{key}");
            }
        }
    }
}

#[test]
fn whole_words_at_the_end_match() {
    let r = Redaction::default();
    for k in [
        "password",
        "DB_PASSWORD",
        "clientSecret",
        "X-Api-Key",
        "aws.secret_access_key",
        "password2",
        "Authorization",
        "/db/password",
        "apiKey",
        "password[]",
        "password_",
        "PGPASSWORD",
        "dbpassword",
        "accesstoken",
        "token_2",
        "PWD",
    ] {
        assert!(r.hides(k), "{k}");
    }
    for k in [
        "user",
        "password_policy",
        "max_tokens",
        "tokenizer",
        "secretary",
        "key",
        "compass",
        "monkey",
        "",
        "-",
        "cwd",
        "s",
    ] {
        assert!(!r.hides(k), "{k}");
    }
    assert!(Redaction::default().key("session-id").hides("sessionId"));
    assert!(!Redaction::none().hides("password"));
    // The walk over bytes takes the same steps as the one over characters.
    for key in ["a", "ab", "xaB", "xAb", "x-a_b", "1ab", "tokens", "xToken", "xtoken", "TOKEN", "to-ken", ""] {
        for word in ["", "b", "ab", "token", "oken"] {
            assert_eq!(ends_with_ascii(key.as_bytes(), word.as_bytes()), ends_with_words(key, word), "{key} {word}");
        }
    }
    let odd = Redaction::none().key("oauth2").key("pw").key("x").key("schlüssel").key("");
    for k in ["oauth2", "my_OAuth2", "pw", "db.pw", "pw1", "x", "a_x", "Schlüssel", "HAUPTSCHLÜSSEL"] {
        assert!(odd.hides(k), "{k}");
    }
    for k in ["oauth", "oauth3", "apw", "ax", "", "_"] {
        assert!(!odd.hides(k), "{k}");
    }
}

#[path = "../../tests/common/secrets.rs"]
mod secrets;

fn shapes() -> Shapes {
    Shapes::new(&Shape::defaults()).unwrap()
}

#[test]
fn each_secret_is_found_by_its_rule_and_nothing_of_it_is_left() {
    let (shapes, corpus) = (shapes(), secrets::corpus());
    assert!(corpus.len() >= 100);
    let mut wrong = Vec::new();
    for made in &corpus {
        let found = shapes.find(&made.text);
        let names: Vec<&str> = found.iter().map(|f| shapes.name(f)).collect();
        let left = shapes.text(&made.text).unwrap_or_else(|| made.text.clone());
        // Exactly the secret is gone, and a marker is no secret.
        let around =
            shapes.text(&made.before).is_some() || left.starts_with(&made.before) && left.ends_with(&made.after);
        let once = shapes.text(&left).is_none();
        if !names.contains(&made.rule.as_str()) || made.is_in(left.as_bytes()) || !around || !once {
            wrong.push(format!("{} {names:?}: {:?} became {left:?}", made.rule, made.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for shape in Shape::defaults() {
        assert!(corpus.iter().any(|m| m.rule == shape.name), "no secret for {}", shape.name);
    }
}

#[test]
fn innocent_values_come_through() {
    let (shapes, innocent) = (shapes(), secrets::innocent());
    assert!(innocent.len() >= 60);
    let changed: Vec<_> =
        innocent.iter().filter_map(|t| shapes.text(t).map(|c| format!("{t:?} became {c:?}"))).collect();
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_prefilter_uses_vector_instructions() {
    if std::is_x86_feature_detected!("avx2") {
        assert!(shapes().is_packed());
    }
}

#[test]
fn a_marker_never_makes_a_value_too_deep() {
    for leaf in [
        r#""ghp_0123456789abcdefghijABCDEFGHIJ""#,
        r#"{"a":"ghp_0123456789abcdefghijABCDEFGHIJ"}"#,
        r#"{"password":"x"}"#,
    ] {
        let room = crate::json::MAX_DEPTH - usize::from(leaf.starts_with('{'));
        let deep = "[".repeat(room) + leaf + &"]".repeat(room);
        let (mut out, mut scratch, keys) = (Vec::new(), crate::json::Scratch::default(), Redaction::default());
        crate::json::JsonWriter::new(&mut out, &mut scratch, &keys, crate::json::Source::Caller)
            .json_text(&deep)
            .unwrap();
        let accepted = String::from_utf8(out).unwrap();
        let stored = shapes().json(&accepted).unwrap_or(accepted);
        assert!(crate::json::is_canonical(&stored, &mut Vec::new(), &mut scratch), "{stored}");
        assert!(stored.contains("redacted") && !stored.contains("ghp_") && !stored.contains("\"x\""), "{stored}");
    }
}

mod properties {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;
    use crate::json::{JsonWriter, Scratch, Source, escaped_len, is_canonical};

    /// Texts with and without secrets, and what stands around them; markers, too.
    fn text() -> impl Strategy<Value = String> {
        let whole: Vec<String> = secrets::corpus().into_iter().map(|m| m.text).collect();
        let piece = proptest::sample::select(vec![
            "",
            " ",
            "\"",
            "\\",
            "\n",
            "\\n",
            "é",
            "a",
            "ab",
            "://u:",
            "p@h",
            "password=",
            ";",
            "x",
            "'",
            "[redacted]",
            "[redacted:jwt]",
            "***",
            "$argus.",
            "ghp_0123456789abcdefghij",
            "-----BEGIN PRIVATE KEY-----",
            "pwd: ",
            "\u{1}",
            "😀",
        ]);
        prop_oneof![
            1 => proptest::sample::select(whole),
            3 => proptest::collection::vec(piece, 0..7).prop_map(|p| p.concat()),
        ]
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![3 => text().prop_map(Value::from), 1 => any::<i64>().prop_map(Value::from), 1 => Just(Value::Null)];
        leaf.prop_recursive(4, 24, 5, |inner| {
            let name = text().prop_filter("reserved", |n| !n.starts_with(RESERVED));
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::vec((name, inner), 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    /// The default rules, and rules whose finds are shorter than any marker.
    fn rules() -> impl Strategy<Value = Shapes> {
        let short = |pattern| Shapes::new(&[Shape::new("short", pattern)]).unwrap();
        prop_oneof![
            Just("").prop_map(|_| shapes()),
            proptest::sample::select(vec!["a", "[abx]", "a|p@", "."]).prop_map(short)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(
            std::env::var("ARGUS_PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)) })]

        /// So no record that was accepted can become too long afterwards.
        #[test]
        fn nothing_gets_longer_and_json_stays_canonical(value in json(), t in text(), rules in rules()) {
            let (mut out, mut scratch, none) = (Vec::new(), Scratch::default(), Redaction::none());
            JsonWriter::new(&mut out, &mut scratch, &none, Source::Caller).serialize_top(&value).unwrap();
            let before = String::from_utf8(out).unwrap();
            let after = rules.json(&before).unwrap_or_else(|| before.clone());
            prop_assert!(after.len() <= before.len(), "{} became {}", before, after);
            prop_assert!(is_canonical(&after, &mut Vec::new(), &mut scratch), "{}", after);
            prop_assert_eq!(before.starts_with('{'), after.starts_with('{') && !before.starts_with('"'));
            let clean = rules.text(&t).unwrap_or_else(|| t.clone());
            prop_assert!(clean.len() <= t.len() && escaped_len(&clean) <= escaped_len(&t), "{} became {}", t, clean);
            prop_assert_eq!(clean.is_empty(), t.is_empty());
        }

        /// Entries are rewritten in place: the others of their chunk stay, and each is still the length it was.
        #[test]
        fn a_chunk_keeps_its_shape(texts in proptest::collection::vec(text(), 1..6)) {
            use crate::entry::{EntryWriter, Part, entries};
            let (rules, mut chunk) = (shapes(), Vec::new());
            for t in &texts {
                let mut entry = Vec::new();
                let mut w = EntryWriter::begin(&mut entry, 10 + 8 * t.len()).unwrap();
                w.text(Part::Event, Some("e"));
                w.text(Part::Context, Some(&serde_json::json!({ "t": t }).to_string()));
                w.text(Part::UserAgent, Some(t));
                w.text(Part::Action, Some("a"));
                let len = w.end().unwrap();
                chunk.extend_from_slice(&entry[..len]);
            }
            let len = chunk.len();
            rules.chunk(&mut chunk);
            prop_assert_eq!(chunk.len(), len);
            let read: Vec<_> = entries(&chunk).collect();
            prop_assert_eq!(read.len(), texts.len());
            for (t, e) in texts.iter().zip(read) {
                let clean = rules.text(t).unwrap_or_else(|| t.clone());
                prop_assert_eq!((e.text(Part::Event), e.text(Part::Action)), (Some("e"), Some("a")));
                prop_assert_eq!(e.text(Part::UserAgent), Some(clean.as_str()).filter(|t| !t.is_empty()));
                let context = serde_json::json!({ "t": t }).to_string();
                let context = rules.json(&context).unwrap_or(context);
                prop_assert_eq!(e.text(Part::Context), Some(context.as_str()));
            }
        }
    }
}
