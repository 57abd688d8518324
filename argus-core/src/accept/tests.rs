//! A context that waited as members is opened as what would have been written at once.

use proptest::prelude::*;
use serde::ser::{SerializeMap, SerializeStruct, SerializeStructVariant, SerializeTupleVariant};

use super::*;
use crate::entry::{self, Entry, Queued};
use crate::level::Level;

#[derive(Clone, Debug)]
enum Given {
    Absent,
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
    Json(&'static str),
}

impl Given {
    fn value(&self) -> Value<'_> {
        match self {
            Given::Absent => Value::ABSENT,
            Given::Bool(b) => (*b).into(),
            Given::I64(i) => (*i).into(),
            Given::U64(u) => (*u).into(),
            Given::F64(f) => (*f).into(),
            Given::Text(t) => t.as_str().into(),
            Given::Json(t) => Value::json(t),
        }
    }
}

fn name() -> impl Strategy<Value = String> {
    // The same first eight bytes, escapes, what orders otherwise by UTF-16, what is withheld, what is refused.
    let awkward = [
        "request_id",
        "request_path",
        "request_",
        "a",
        "b",
        "\"",
        "\\",
        "\u{1}",
        "é",
        "\u{fb33}",
        "\u{1f600}",
        "",
        "password",
        "token",
        "$argus.x",
        "of the configuration",
    ];
    let odd = proptest::sample::select(awkward.to_vec()).prop_map(String::from);
    prop_oneof![1 => odd, 5 => "[a-c\"\u{e9}\u{fb33}\u{1f600}]{1,3}", 5 => "[a-z]{1,20}"]
}

fn given() -> impl Strategy<Value = Given> {
    prop_oneof![
        8 => Just(Given::Absent),
        8 => any::<bool>().prop_map(Given::Bool),
        8 => any::<i64>().prop_map(Given::I64),
        8 => (-3..4i64).prop_map(Given::I64),
        8 => any::<u64>().prop_map(Given::U64),
        1 => any::<f64>().prop_map(Given::F64),
        8 => "[a\"\\\\\u{0}\u{7f}é\u{1f600}]{0,40}".prop_map(Given::Text),
        8 => "[a-z]{0,40}".prop_map(Given::Text),
        2 => "[a\u{0}]{0,2000}".prop_map(Given::Text),
        1 => proptest::sample::select(vec!["{\"b\":1,\"a\":2}", "[]", "1.0", "nul"]).prop_map(Given::Json),
    ]
}

fn rules(configured: bool) -> Rules {
    let context = [("of the configuration".to_owned(), "{\"x\":1}".to_owned()), ("zone".into(), "\"b\"".into())];
    let context = context.into_iter().filter(|_| configured);
    Rules::new("shop".into(), context.collect(), Redaction::default(), 0)
}

const CALL: Call<'static> =
    Call { now: &Some((1_795_000_000, 0)), trace: None, observers: ObserverSet(0), own: false, stack: false };

/// The context of an event's entry when it is opened, and whether it waited as members.
fn opened(event: &AuditEvent<'_>, rules: &Rules) -> Result<(String, bool), String> {
    let mut buffers = Buffers::default();
    let len = encode(event, rules, &CALL, &mut buffers).map_err(|e| e.to_string())?;
    let sum = entry::check(&buffers.entry[..len]);
    entry::number(&mut buffers.entry[..len], 7, crate::id::RecordId([3; 16]), sum);
    let entry = Queued::of(&buffers.entry[..len]).unwrap();
    let mut out = b"before".to_vec();
    members::open_into(entry, &mut out);
    assert_eq!(entry::length(&out[6..]), Some(out.len() - 6));
    let entry = Entry::of(&out[6..]).unwrap();
    assert_eq!(
        [Part::Event, Part::Component, Part::FilePath, Part::Action].map(|p| entry.text(p)),
        [Some("request"), Some("shop"), Some("/etc/shop.yaml"), Some("ask")]
    );
    assert_eq!((entry.writer_seq(), entry.record_id(), entry.level()), (7, crate::id::RecordId([3; 16]), Level::Info));
    Ok((entry.text(Part::Context).unwrap().to_owned(), out[6..] != buffers.entry[..len]))
}

/// What the JSON of the context is by the way that writes it at once.
fn at_once(event: &AuditEvent<'_>, rules: &Rules) -> Result<String, String> {
    let (mut json, mut scratch, mut order) = (Vec::new(), Scratch::default(), Vec::new());
    encode_context(event, None, rules, &mut json, &mut scratch, &mut order, false).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(json).unwrap())
}

fn event() -> AuditEvent<'static> {
    AuditEvent::info("request").file_path("/etc/shop.yaml").action("ask")
}

proptest! {
    #[test]
    fn both_ways_give_the_same(
        members in proptest::collection::vec((name(), given()), 0..8),
        sliced in 0usize..8,
        context in any::<bool>(),
    ) {
        let rules = rules(context);
        let slice: Vec<_> = members.iter().take(sliced).map(|(k, v)| (k.as_str(), v.value())).collect();
        let mut event = event().context(&slice);
        members.iter().skip(sliced).for_each(|(k, v)| event.push(k, v.value()));
        prop_assert_eq!(opened(&event, &rules).map(|(json, _)| json), at_once(&event, &rules));
    }

    /// A journal may have been planted: whatever stands in an entry, opening it ends.
    #[test]
    fn what_was_never_written_is_opened_as_something(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut entry = vec![0; entry::HEAD];
        entry.extend(&bytes);
        for (kind, len) in [(2, bytes.len()), (2, 0), (2, 1 << 20), (14, bytes.len() / 3), (15, bytes.len()), (255, usize::MAX >> 32)] {
            entry[entry::KIND] = kind;
            for length in [92, 104, 108] {
                entry[length..length + 4].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
            }
            let mut out = Vec::new();
            members::open_into(Queued::of(&entry).unwrap(), &mut out);
        }
    }
}

#[test]
fn members_are_put_in_order_and_none_comes_twice() {
    // By UTF-16 the emoji comes first, by UTF-8 last.
    let (json, plain) =
        opened(&event().with("\u{fb33}", 1).with("\u{1f600}", -2).with("b", true), &rules(false)).unwrap();
    assert_eq!((json.as_str(), plain), ("{\"b\":true,\"\u{1f600}\":-2,\"\u{fb33}\":1}", true));
    let many = [("a", 1.into()), ("b", 2.into()), ("a", 3.into())];
    for twice in [event().with("a", 1).with("b", 2).with("a", 3), event().context(&many)] {
        let error = opened(&twice, &rules(false)).unwrap_err();
        assert!(error.contains("duplicate") || error.contains("twice"), "{error}");
    }
}

#[test]
fn what_waits_as_members_and_what_does_not() {
    let plain = |event: AuditEvent<'_>, context| opened(&event, &rules(context)).unwrap().1;
    assert!(plain(event(), false) && plain(event().with("request_id", "x").with("request_path", 1), true));
    let five = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)];
    assert!(plain(five.iter().fold(event(), |e, (k, v)| e.with(k, *v)), true), "more than stand in the event itself");
    let long = "x".repeat(3 * members::MOST_BYTES);
    for (why, other) in [
        ("a double", event().with("a", 1.5)),
        ("withheld", event().with("password", "x")),
        ("what the configuration says", event().with("zone", "x")),
        ("long", event().with("a", long.as_str())),
        ("foreign code", event().with("a", &vec![1])),
    ] {
        assert!(!plain(other, true), "{why}");
    }
    let most: Vec<_> = ('a'..='p').map(|c| (c.to_string(), 1)).collect();
    let many = |n: usize| most.iter().take(n).fold(event(), |e, (k, v)| e.with(k, *v));
    assert!(plain(many(14), true) && !plain(many(15), true) && plain(many(16), false));
}

/// At the cap the pessimistic count is not enough: then the record is counted as it will be.
#[test]
fn a_record_near_the_cap_is_counted_exactly() {
    let (agent, value) = ("u".repeat(200 << 10), "v".repeat(4000));
    let event = event().user_agent(&agent).with("a", value.as_str());
    let (json, plain) = opened(&event, &rules(false)).unwrap();
    assert!(!plain && json.len() == 4000 + 8);
    let agent = "u".repeat(256 << 10);
    assert!(opened(&event.user_agent(&agent), &rules(false)).unwrap_err().contains("record"));
}

#[test]
fn nul_is_found_wherever_it_stands() {
    for len in 1..70 {
        for at in 0..len {
            let mut text = "aaaaé".repeat(12);
            text.truncate(if text.is_char_boundary(len) { len } else { len - 1 });
            text.push_str(&"x".repeat(len - text.len()));
            let fine = opened(&event().user_agent(&text), &rules(false));
            assert!(fine.is_ok(), "{text}: {fine:?}");
            if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                text.replace_range(at..=at, "\0");
                let error = opened(&event().user_agent(&text), &rules(false)).unwrap_err();
                assert!(error.contains("user_agent") && error.contains("NUL"), "{len} {at}: {error}");
            }
        }
    }
}

#[test]
fn members_leave_room_for_what_comes_behind_them() {
    for (path, text) in [(12_000, 8_000), (4_000, 12_000), (100, 16_200), (30_000, 30_000)] {
        let (path, text) = ("p".repeat(path), "t".repeat(text));
        let event = event().file_path(path.as_str()).with("a", text.as_str());
        // (A buffer of its own: one that was larger before has room for more.)
        let len = encode(&event, &rules(false), &CALL, &mut Buffers::default()).unwrap();
        assert!(len > path.len() + text.len());
    }
}

/// An object whose members come in their own order, as often as they are named.
#[derive(Clone, Debug)]
struct Object(Vec<(String, Nested)>);

#[derive(Clone, Debug)]
enum Nested {
    Given(Given),
    Null,
    Char(char),
    Big(u128),
    List(Vec<Nested>),
    Object(Object),
    /// Its names and values are handed over one by one.
    Split(Object),
    /// `Some`, a newtype variant, a tuple variant, a struct variant.
    Within(u8, Box<Nested>),
    /// As `serde_json` smuggles its raw values.
    Raw(&'static str),
}

impl serde::Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(k, v)| (k, v)))
    }
}

impl serde::Serialize for Nested {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Nested::Given(Given::Bool(b)) => s.serialize_bool(*b),
            Nested::Given(Given::I64(i)) => s.serialize_i64(*i),
            Nested::Given(Given::U64(u)) => s.serialize_u64(*u),
            Nested::Given(Given::F64(f)) => s.serialize_f64(*f),
            Nested::Given(Given::Text(t)) => s.serialize_str(t),
            Nested::Given(Given::Absent | Given::Json(_)) => s.serialize_none(),
            Nested::Null => s.serialize_unit(),
            Nested::Char(c) => s.serialize_some(c),
            Nested::Big(n) => s.serialize_u128(*n),
            Nested::List(l) => l.serialize(s),
            Nested::Object(o) => o.serialize(s),
            Nested::Split(o) => {
                let mut map = s.serialize_map(None)?;
                for (name, value) in &o.0 {
                    map.serialize_key(name)?;
                    map.serialize_value(value)?;
                }
                map.end()
            }
            Nested::Within(0, v) => s.serialize_some(v),
            Nested::Within(1, v) => s.serialize_newtype_variant("E", 1, "one", v),
            Nested::Within(2, v) => {
                let mut all = s.serialize_tuple_variant("E", 2, "two", 2)?;
                all.serialize_field(v)?;
                all.serialize_field(&true)?;
                all.end()
            }
            Nested::Within(_, v) => {
                let mut all = s.serialize_struct_variant("E", 3, "three", 2)?;
                all.serialize_field("of", v)?;
                all.serialize_field("a", &1)?;
                all.end()
            }
            Nested::Raw(text) => {
                let name = "$serde_json::private::RawValue";
                let mut raw = s.serialize_struct(name, 1)?;
                raw.serialize_field(name, text)?;
                raw.end()
            }
        }
    }
}

fn nested() -> impl Strategy<Value = Nested> {
    let raw: [&'static str; 8] = ["{\"b\":1,\"a\":[2,\"x\"]}", "[]", "\"t\"", "7", "1.5e1", "true", "null", "{}"];
    let leaf = prop_oneof![
        20 => given().prop_map(Nested::Given),
        2 => Just(Nested::Null),
        2 => any::<char>().prop_map(Nested::Char),
        1 => any::<u64>().prop_map(|n| Nested::Big(n.into())),
        2 => proptest::sample::select(raw.to_vec()).prop_map(Nested::Raw),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Nested::List),
            object(inner.clone(), 0..4).prop_map(Nested::Object),
            object(inner.clone(), 0..4).prop_map(Nested::Split),
            (0..4u8, inner).prop_map(|(how, v)| Nested::Within(how, v.into())),
        ]
    })
}

fn object(value: impl Strategy<Value = Nested>, n: std::ops::Range<usize>) -> impl Strategy<Value = Object> {
    proptest::collection::vec((name(), value), n).prop_map(Object)
}

/// The old value of an event's entry when it is opened, and whether it waited as members.
fn opened_change(event: &AuditEvent<'_>) -> Result<([Option<String>; 2], u8), String> {
    let mut buffers = Buffers::default();
    let len = encode(event, &rules(false), &CALL, &mut buffers).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    members::open_into(Queued::of(&buffers.entry[..len]).unwrap(), &mut out);
    let entry = Entry::of(&out).unwrap();
    assert_eq!((entry.text(Part::Action), entry.text(Part::Context)), (Some("ask"), Some("{\"n\":1}")));
    let text = |part| entry.text(part).map(str::to_owned);
    Ok(([text(Part::OldValue), text(Part::NewValue)], buffers.entry[entry::KIND]))
}

/// What the JSON of a value is by the way that writes it at once.
fn value_at_once(value: &Value<'_>, name: &str) -> Result<Option<String>, String> {
    let (mut json, mut scratch, redaction) = (Vec::new(), Scratch::default(), Redaction::default());
    let mut out = JsonWriter::new(&mut json, &mut scratch, &redaction, Source::Caller);
    let there = value.encode(&mut out).map_err(|e| json_error(name.into(), e).to_string())?;
    Ok(there.then(|| String::from_utf8(json).unwrap()))
}

proptest! {
    #[test]
    fn both_ways_of_a_change_give_the_same(old in nested(), new in object(nested(), 0..7), again in any::<bool>()) {
        let text = serde_json::to_string(&new).unwrap_or_default();
        let (old, new) = (Value::from(&old), if again { Value::json_or_text(&text) } else { Value::from(&new) });
        let event = event().with("n", 1).old_value(old).new_value(new);
        let at_once = value_at_once(&old, "old_value").and_then(|o| Ok([o, value_at_once(&new, "new_value")?]));
        prop_assert_eq!(opened_change(&event).map(|(json, _)| json), at_once);
    }
}

#[test]
fn the_values_of_a_change_that_are_objects_wait_as_members() {
    #[derive(serde::Serialize)]
    struct Limits {
        zones: u8,
        burst: Option<u32>,
        allow: [&'static str; 2],
        token: &'static str,
    }
    let limits = Limits { zones: 2, burst: None, allow: ["a", "b"], token: "secret" };
    let json = "{\"allow\":[\"a\",\"b\"],\"burst\":null,\"token\":{\"$argus.redacted\":\"key\"},\"zones\":2}";
    let change = event().with("n", 1).old_value(&limits).new_value(Value::json("{\"x\":-1,\"a\":\"\\u00e9\"}"));
    let ([old, new], kind) = opened_change(&change).unwrap();
    assert_eq!((old.as_deref(), new.as_deref(), kind), (Some(json), Some("{\"a\":\"é\",\"x\":-1}"), 2 | 4 | 8));

    // One that is no object, none, and an empty one.
    let empty = std::collections::BTreeMap::<String, u8>::new();
    for (value, json, kind) in [
        (Value::from(7), Some("7"), 2),
        (Value::from(&[1, 2]), Some("[1,2]"), 2),
        (Value::from(&None::<Limits>), None, 2),
        (Value::from(&empty), Some("{}"), 2 | 4),
    ] {
        let ([old, new], stood) = opened_change(&event().with("n", 1).old_value(value)).unwrap();
        assert_eq!((old.as_deref(), new, stood), (json, None, kind));
    }

    // Nothing that is refused gets by.
    let named = |names: &[&str]| Object(names.iter().map(|n| ((*n).to_owned(), Nested::Null)).collect());
    let many: Vec<String> = (0..100).map(|n| format!("request_{}", n * 7 % 100)).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (ok, kind) = opened_change(&event().with("n", 1).new_value(&named(&many))).unwrap();
    assert!(ok[1].as_ref().unwrap().starts_with("{\"request_0\":null,\"request_1\":null,\"request_10\""));
    assert_eq!(kind, 2 | 8);
    many.insert(50, "request_99");
    for (names, why) in [(&many[..], "request_99"), (&["b", "a", "b"], "`b` twice"), (&["a", "$argus.x"], "reserved")] {
        let error = opened_change(&event().new_value(&named(names))).unwrap_err();
        assert!(error.contains(why) && error.contains("new_value"), "{error}");
    }
}

#[test]
fn a_key_that_holds_a_lock_while_it_is_written_has_let_go_of_it_before_its_value_is() {
    struct Id<'a>(&'a std::cell::RefCell<String>, u8);
    impl serde::Serialize for Id<'_> {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            let mut text = self.0.borrow_mut();
            *text = self.1.to_string();
            s.serialize_str(&text)
        }
    }
    struct Ids(std::cell::RefCell<String>);
    impl serde::Serialize for Ids {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            s.collect_map([(Id(&self.0, 1), Id(&self.0, 2)), (Id(&self.0, 3), Id(&self.0, 4))])
        }
    }
    let ids = Ids(Default::default());
    let ([_, new], _) = opened_change(&event().with("n", 1).new_value(&ids)).unwrap();
    assert_eq!(new.as_deref(), Some(r#"{"1":"2","3":"4"}"#));
}

/// An entry is not much longer than its record, and a record near the cap is counted exactly.
#[test]
fn many_bytes_of_members_are_made_json_at_once() {
    let long =
        |n: usize| Object(vec![("b".into(), Nested::Null), ("a".into(), Nested::Given(Given::Text("v".repeat(n))))]);
    let kind = |n, agent: usize| {
        let (value, agent) = (long(n), "u".repeat(agent));
        let event = event().with("n", 1).old_value(&value).user_agent(&agent);
        let ([old, _], kind) = opened_change(&event)?;
        assert_eq!(old.unwrap().len(), n + r#"{"a":"","b":null}"#.len());
        Ok::<_, String>(kind)
    };
    assert_eq!(kind(4000, 0), Ok(2 | 4));
    assert_eq!(kind(5000, 0), Ok(2));
    assert_eq!(kind(4000, 200 << 10), Ok(4));
    assert_eq!(kind(4000, 240 << 10), Ok(0));
    assert!(kind(4000, 256 << 10).unwrap_err().contains("record"));
    // Longer than the head of a member can say.
    for n in [1 << 20, 20 << 20] {
        let huge = Object(vec![("n".repeat(n), Nested::Null), ("a".into(), Nested::Null)]);
        assert!(opened_change(&event().with("n", 1).new_value(&huge)).unwrap_err().contains("record"));
    }
}
