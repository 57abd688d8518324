//! `Value`: what a caller may hand over, borrowed and not yet encoded. User code (`Serialize`) runs only when accept encodes it.

use std::fmt;

use serde::Serialize;

use crate::json::{JsonError, JsonWriter};

/// A value of an event, borrowed: scalars by value, text, JSON text, or anything that implements [`Serialize`].
///
/// ```
/// use argus_core::Value;
/// let port = Value::from(8080);
/// let name = Value::from("db-1");
/// let list = vec![1, 2, 3];
/// let any = Value::from(&list);          // anything that implements Serialize, by reference
/// let json = Value::json(r#"{"a":1}"#);  // text that is JSON already; checked when the event is accepted
/// ```
#[derive(Clone, Copy)]
pub struct Value<'a>(pub(crate) V<'a>);

#[derive(Clone, Copy)]
pub(crate) enum V<'a> {
    Absent,
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Str(&'a str),
    Json(&'a str),
    JsonOrText(&'a str),
    /// Canonical already, as that of the configuration.
    Canonical(&'a str),
    Dyn(&'a dyn EncodeJson),
}

impl<'a> Value<'a> {
    /// No value: the field or member is left out.
    pub const ABSENT: Value<'static> = Value(V::Absent);

    /// Text that is JSON already. It is parsed strictly when the event is accepted.
    #[inline(always)]
    pub fn json(text: &'a str) -> Self {
        Value(V::Json(text))
    }

    /// Text that may be JSON: parsed strictly when the event is accepted, and kept as text where it is none.
    #[inline(always)]
    pub fn json_or_text(text: &'a str) -> Self {
        Value(V::JsonOrText(text))
    }

    /// A value behind the object-safe face of [`Serialize`].
    #[inline(always)]
    pub fn dynamic(value: &'a dyn EncodeJson) -> Self {
        Value(V::Dyn(value))
    }

    #[inline]
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.0, V::Absent)
    }

    /// Encodes into `out`; false if the value is absent.
    #[inline(always)]
    pub(crate) fn encode(&self, out: &mut JsonWriter<'_>) -> Result<bool, JsonError> {
        match self.0 {
            V::Absent => return Ok(false),
            V::Bool(b) => out.bool(b),
            V::I64(i) => out.i64(i),
            V::U64(u) => out.u64(u),
            V::Str(s) => out.string(s),
            _ => return self.encode_other(out),
        }
        Ok(true)
    }

    #[inline(never)]
    fn encode_other(&self, out: &mut JsonWriter<'_>) -> Result<bool, JsonError> {
        match self.0 {
            V::F64(f) => out.f64(f)?,
            V::Json(t) => out.json_text(t)?,
            V::JsonOrText(t) => {
                let (start, depth) = (out.position(), out.depth());
                if out.json_text(t).is_err() {
                    out.rewind(start, depth);
                    out.string(t);
                }
            }
            V::Canonical(t) => out.raw(t),
            V::Dyn(d) => return d.encode_json(out),
            // Not here.
            V::Absent | V::Bool(_) | V::I64(_) | V::U64(_) | V::Str(_) => return self.encode(out),
        }
        Ok(true)
    }
}

impl fmt::Debug for Value<'_> {
    /// Shows the kind only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            V::Absent => "Value(absent)",
            V::Bool(_) => "Value(bool)",
            V::I64(_) | V::U64(_) | V::F64(_) => "Value(number)",
            V::Str(_) => "Value(text)",
            V::Json(_) | V::JsonOrText(_) | V::Canonical(_) => "Value(json)",
            V::Dyn(_) => "Value(serialize)",
        })
    }
}

/// The object-safe face of [`Serialize`], implemented for every type that has it. Nothing else implements it.
pub trait EncodeJson {
    #[doc(hidden)]
    fn encode_json(&self, out: &mut JsonWriter<'_>) -> Result<bool, JsonError>;
}

impl<T: Serialize + ?Sized> EncodeJson for T {
    fn encode_json(&self, out: &mut JsonWriter<'_>) -> Result<bool, JsonError> {
        out.serialize_top(self)
    }
}

macro_rules! scalars {
    ($($t:ty => $v:ident as $u:ty),* $(,)?) => { $(
        impl From<$t> for Value<'_> {
            #[inline(always)]
            fn from(v: $t) -> Self {
                Value(V::$v(v as $u))
            }
        }
    )* };
}
scalars! {
    bool => Bool as bool,
    i8 => I64 as i64, i16 => I64 as i64, i32 => I64 as i64, i64 => I64 as i64, isize => I64 as i64,
    u8 => U64 as u64, u16 => U64 as u64, u32 => U64 as u64, u64 => U64 as u64, usize => U64 as u64,
    f32 => F64 as f64, f64 => F64 as f64,
}

impl<'a> From<&'a str> for Value<'a> {
    #[inline(always)]
    fn from(v: &'a str) -> Self {
        Value(V::Str(v))
    }
}

/// `T` is sized here, so this does not meet `&str`; `&String`, `&&str`, `&Option<T>`, `&Vec<T>`, `&i64` all come this way.
impl<'a, T: Serialize> From<&'a T> for Value<'a> {
    #[inline(always)]
    fn from(v: &'a T) -> Self {
        Value(V::Dyn(v))
    }
}
