//! The forms in which people write settings, the same in files and in variables. Pure: text or number in, value or nothing out; `FORMS` says what is accepted.

use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Unexpected, Visitor};

use super::Overflow;
use crate::level::Level;

/// What can be written by a person.
pub(super) trait Human: Sized {
    /// The accepted forms, for errors.
    const FORMS: &'static str;
    fn text(text: &str) -> Option<Self>;
    /// A number of a file; what has a unit has it by the type.
    fn number(_: u64) -> Option<Self> {
        None
    }
    fn flag(_: bool) -> Option<Self> {
        None
    }
}

/// A setting as a file has it.
pub(super) struct Form<T>(pub(super) T);

impl<'de, T: Human> Deserialize<'de> for Form<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V<T>(std::marker::PhantomData<T>);
        impl<T: Human> Visitor<'_> for V<T> {
            type Value = Form<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(T::FORMS)
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Form<T>, E> {
                T::text(s).map(Form).ok_or_else(|| E::invalid_value(Unexpected::Str(s), &self))
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Form<T>, E> {
                T::number(n).map(Form).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(n), &self))
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Form<T>, E> {
                let value = u64::try_from(n).ok().and_then(T::number).map(Form);
                value.ok_or_else(|| E::invalid_value(Unexpected::Signed(n), &self))
            }
            fn visit_bool<E: de::Error>(self, b: bool) -> Result<Form<T>, E> {
                T::flag(b).map(Form).ok_or_else(|| E::invalid_value(Unexpected::Bool(b), &self))
            }
        }
        d.deserialize_any(V(std::marker::PhantomData))
    }
}

impl Human for bool {
    const FORMS: &'static str = "true, false, yes, no, on, off, 1 or 0";
    fn text(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        }
    }
    fn number(n: u64) -> Option<Self> {
        [false, true].get(usize::try_from(n).ok()?).copied()
    }
    fn flag(b: bool) -> Option<Self> {
        Some(b)
    }
}

impl Human for Level {
    const FORMS: &'static str = "INFO, WARN, CRITICAL or SECURITY, in any case";
    fn text(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }
}

/// From which level `log` waits for the commit; `None`: from none.
pub(super) struct CommittedFrom(pub(super) Option<Level>);

impl Human for CommittedFrom {
    const FORMS: &'static str = "INFO, WARN, CRITICAL, SECURITY or `never`, in any case";
    fn text(text: &str) -> Option<Self> {
        match text.trim().eq_ignore_ascii_case("never") {
            true => Some(Self(None)),
            false => Level::text(text).map(|l| Self(Some(l))),
        }
    }
}

impl Human for Duration {
    const FORMS: &'static str = "a duration such as `5s`, `250ms` or `1m 30s`, or a whole number of milliseconds";
    fn text(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(ms) = text.parse() {
            return Self::number(ms);
        }
        text.parse::<jiff::SignedDuration>().ok()?.try_into().ok()
    }
    fn number(ms: u64) -> Option<Self> {
        Some(Duration::from_millis(ms))
    }
}

/// A number of bytes.
pub(super) struct Bytes(pub(super) usize);

impl Bytes {
    const UNITS: [(&'static str, u64); 7] = [
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("b", 1),
    ];
}

impl Human for Bytes {
    const FORMS: &'static str = "a size such as `64MiB`, `512 KiB` or `1GB`, or a whole number of bytes";
    fn text(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let (digits, factor) =
            Self::UNITS.iter().find_map(|(u, f)| text.strip_suffix(u).map(|d| (d, *f))).unwrap_or((&text, 1));
        Self::number(digits.trim_end().parse::<u64>().ok()?.checked_mul(factor)?)
    }
    fn number(bytes: u64) -> Option<Self> {
        usize::try_from(bytes).ok().map(Self)
    }
}

/// A number of records.
pub(super) struct Count(pub(super) usize);

impl Human for Count {
    const FORMS: &'static str = "a whole number of records";
    fn text(text: &str) -> Option<Self> {
        Self::number(text.trim().parse().ok()?)
    }
    fn number(n: u64) -> Option<Self> {
        usize::try_from(n).ok().map(Self)
    }
}

/// A file mode.
pub(super) struct Mode(pub(super) u32);

impl Human for Mode {
    const FORMS: &'static str = "a mode such as \"0600\" or \"0640\": octal text, or a number written with 0o, that lets the owner read and write, nobody execute and not everybody write";
    fn text(text: &str) -> Option<Self> {
        let text = text.trim();
        let octal = text.strip_prefix("0o").unwrap_or(text);
        u32::from_str_radix(octal, 8).ok().filter(|m| mode_is_sound(*m)).map(Self)
    }
    /// A decimal 640 is no mode that anybody would want, so what was meant as octal is refused.
    fn number(n: u64) -> Option<Self> {
        u32::try_from(n).ok().filter(|m| mode_is_sound(*m)).map(Self)
    }
}

/// Read and write for the owner, no execution, no writing by everybody, and a group that may write may also read.
pub(super) fn mode_is_sound(mode: u32) -> bool {
    mode & !0o664 == 0 && mode & 0o600 == 0o600 && mode & 0o060 != 0o020
}

/// A group's number.
pub(super) struct Gid(pub(super) u32);

impl Human for Gid {
    const FORMS: &'static str = "the number of a group (gid)";
    fn text(text: &str) -> Option<Self> {
        text.trim().parse().ok().map(Self)
    }
    fn number(n: u64) -> Option<Self> {
        u32::try_from(n).ok().map(Self)
    }
}

impl Human for Overflow {
    const FORMS: &'static str = "`block` (5 s), `block:250ms`, `reject` or `spill`; in a file also {block: \"250ms\"}";
    fn text(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        match (text.as_str(), text.strip_prefix("block:")) {
            ("block", _) => Some(Overflow::default()),
            ("reject", _) => Some(Overflow::Reject),
            ("spill", _) => Some(Overflow::Spill),
            (_, Some(wait)) => Duration::text(wait).map(|timeout| Overflow::Block { timeout }),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Overflow {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        one_word_or_member(d, "block", |Form(timeout)| Overflow::Block { timeout })
    }
}

/// The member `durability` of a file.
pub(super) struct Durable(pub(super) Option<Level>);

impl Human for Durable {
    const FORMS: &'static str = "`accepted`, `committed`, or {from: LEVEL}";
    fn text(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "accepted" => Some(Self(None)),
            "committed" => Some(Self(Some(Level::Info))),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Durable {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        one_word_or_member(d, "from", |Form(CommittedFrom(level))| Durable(level))
    }
}

/// A word of `T`, or a map with this one member.
fn one_word_or_member<'de, D: Deserializer<'de>, T: Human, M: Deserialize<'de>>(
    d: D,
    member: &'static str,
    make: impl Fn(M) -> T,
) -> Result<T, D::Error> {
    struct V<T, M, F>(&'static str, F, std::marker::PhantomData<(T, M)>);
    impl<'de, T: Human, M: Deserialize<'de>, F: Fn(M) -> T> Visitor<'de> for V<T, M, F> {
        type Value = T;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(T::FORMS)
        }
        fn visit_str<E: de::Error>(self, s: &str) -> Result<T, E> {
            T::text(s).ok_or_else(|| E::invalid_value(Unexpected::Str(s), &self))
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
            let mut found = None;
            while let Some(key) = map.next_key::<String>()? {
                if key != self.0 || found.is_some() {
                    return Err(de::Error::invalid_value(Unexpected::Other(&format!("a map with `{key}`")), &self));
                }
                found = Some((self.1)(map.next_value()?));
            }
            found.ok_or_else(|| de::Error::invalid_value(Unexpected::Map, &self))
        }
    }
    d.deserialize_any(V(member, make, std::marker::PhantomData))
}

/// A duration as it can be read again.
pub(super) fn duration_text(d: Duration) -> String {
    let nanos = d.as_nanos();
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    let (factor, unit) = units.into_iter().find(|(f, _)| nanos.is_multiple_of(*f)).unwrap_or((1, "ns"));
    format!("{}{unit}", nanos / factor)
}

/// A size as it can be read again.
pub(super) fn size_text(bytes: usize) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let (factor, unit) = units.into_iter().find(|(f, _)| bytes != 0 && bytes.is_multiple_of(*f)).unwrap_or((1, "B"));
    format!("{}{unit}", bytes / factor)
}
