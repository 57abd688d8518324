//! A context that waited as members is opened as what would have been written at once.

use proptest::prelude::*;

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
    Call { now: Some((1_795_000_000, 0)), trace: None, observers: ObserverSet(0), own: false, stack: false };

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
        entry[50] = 2;
        entry.extend(&bytes);
        for len in [bytes.len(), 0, 1 << 20] {
            entry[92..96].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
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
    let long = "x".repeat(3 * MOST_PLAIN);
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
