//! Drives `JsonWriter` from `Serialize`. Only the outermost `None` is absent; unit, `Value::Null` and a deeper `None` are JSON null.
//! User code runs here and nowhere else.

use serde::Serialize;
use serde::ser::{self, Serializer};

use super::text::Name;
use super::writer::{JsonWriter, Open};
use super::{Fault, JsonError};
use crate::entry::MemberValue;
use crate::members::Kind;

/// How `serde_json` smuggles raw text and arbitrary-precision numbers through `Serialize`.
const RAW_VALUE: &str = "$serde_json::private::RawValue";
const NUMBER: &str = "$serde_json::private::Number";

impl JsonWriter<'_> {
    /// Encodes a whole value; false if it is absent.
    pub(crate) fn serialize_top<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<bool, JsonError> {
        (self.top, self.absent) = (Some(self.depth()), false);
        value.serialize(Ser::nested(self))?;
        Ok(!self.absent)
    }
}

/// (Two words, so that it is handed over in registers.)
struct Ser<'a, 'w> {
    out: &'a mut JsonWriter<'w>,
    /// It is the value of a member that is left as it comes, and nothing of that is written yet.
    member: Option<&'a Name<'a>>,
}

impl<'a, 'w> Ser<'a, 'w> {
    #[inline(always)]
    fn nested(out: &'a mut JsonWriter<'w>) -> Self {
        Ser { out, member: None }
    }

    /// Writes what may be left as it comes, too.
    #[inline(always)]
    fn scalar<T>(
        self,
        kind: Kind,
        value: MemberValue<'_>,
        v: T,
        json: impl FnOnce(&mut JsonWriter<'_>, T),
    ) -> Result<(), Fault> {
        match self.member {
            Some(name) => self.out.whole_waiting(name, kind, value),
            None => json(self.out, v),
        }
        Ok(())
    }

    /// Writes JSON.
    fn json(self, json: impl FnOnce(&mut JsonWriter<'w>) -> Result<(), Fault>) -> Result<(), Fault> {
        let Self { out, member } = self;
        if let Some(name) = member {
            out.begin_waiting(name);
        }
        json(out)?;
        if member.is_some() {
            out.end_member();
        }
        Ok(())
    }

    /// Begins an object or array.
    #[inline(always)]
    fn begin(
        self,
        array: bool,
        open: impl FnOnce(&mut JsonWriter<'w>) -> Result<(Option<Open>, Open), Fault>,
    ) -> Result<Compound<'a, 'w>, Fault> {
        let Self { out, member } = self;
        if let Some(name) = member {
            out.begin_waiting(name);
        }
        let (outer, open) = open(out)?;
        Ok(Compound { out, open, outer, member: member.is_some(), named: false, array, raw: Raw::No, failed: None })
    }
}

pub(super) struct Compound<'a, 'w> {
    out: &'a mut JsonWriter<'w>,
    open: Open,
    /// The object around a `{variant: ...}`.
    outer: Option<Open>,
    /// It is the value of a member that is left as it comes, and ends it.
    member: bool,
    /// A map's name stands, and its value is to come.
    named: bool,
    array: bool,
    raw: Raw,
    /// The first error, in case `Serialize` passes over it.
    failed: Option<Fault>,
}

/// Whether a struct is one of `serde_json`'s, whose single field is the value's own text.
#[derive(Clone, Copy, PartialEq)]
enum Raw {
    No,
    Expected,
    Written,
}

impl<'a, 'w> Compound<'a, 'w> {
    // (By reference, and what begins a map is inlined: what is moved is read in other words than it was just written in.)
    #[inline(always)]
    fn finish(&mut self) -> Result<(), Fault> {
        if let Some(e) = self.failed.take() {
            return Err(e);
        }
        if self.named {
            return Err(JsonError::Custom("a map's key without its value".into()).into());
        }
        match self.raw {
            Raw::No if self.array => self.out.close_array(),
            Raw::No => self.out.close_object(&self.open)?,
            Raw::Written => {}
            Raw::Expected => return Err(JsonError::Custom("a raw JSON value without its text".into()).into()),
        }
        if let Some(outer) = &self.outer {
            self.out.end_member();
            self.out.close_object(outer)?;
        }
        if self.member {
            self.out.end_member();
        }
        Ok(())
    }

    fn element<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Fault> {
        self.out.element(&mut self.open);
        let result = v.serialize(Ser::nested(self.out));
        self.remember(result)
    }

    #[inline(always)]
    fn remember(&mut self, result: Result<(), Fault>) -> Result<(), Fault> {
        result.map_err(|e| self.note(e))
    }

    #[cold]
    fn note(&mut self, error: Fault) -> Fault {
        self.failed.get_or_insert_with(|| error.clone());
        error
    }

    fn member<T: Serialize + ?Sized>(&mut self, key: &str, v: &T) -> Result<(), Fault> {
        let result = self.try_member(key, v);
        self.remember(result)
    }

    fn try_member<T: Serialize + ?Sized>(&mut self, key: &str, v: &T) -> Result<(), Fault> {
        match self.raw {
            Raw::No => {}
            Raw::Expected => {
                self.raw = Raw::Written;
                return v.serialize(TextOnly(|text: &str| Ok(self.out.json_text(text)?)));
            }
            Raw::Written => return Err(JsonError::Custom("a raw JSON value with two texts".into()).into()),
        }
        if self.out.at_waiting() {
            return self.waiting(key, v);
        }
        self.out.key(&mut self.open, key)?;
        self.value(v)
    }

    /// Writes a member that is left as it comes.
    fn waiting<T: Serialize + ?Sized>(&mut self, key: &str, v: &T) -> Result<(), Fault> {
        let name = Name::new(key);
        self.out.next_waiting(&mut self.open, &name)?;
        if self.out.hides_name(&name) {
            self.out.begin_waiting(&name);
            return self.value(v);
        }
        v.serialize(Ser { out: self.out, member: Some(&name) })
    }

    /// Begins a map's member.
    fn name<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fault> {
        if self.named {
            return Err(JsonError::Custom("two keys of a map without a value between".into()).into());
        }
        key.serialize(TextOnly(|key: &str| self.out.key(&mut self.open, key)))
    }

    /// Writes a map's member.
    #[inline(always)]
    fn entry<K: Serialize + ?Sized, T: Serialize + ?Sized>(&mut self, key: &K, v: &T) -> Result<(), Fault> {
        if self.named || !is_text::<K>() || !self.out.at_waiting() {
            return self.name(key).and_then(|()| self.value(v));
        }
        key.serialize(TextOnly(|key: &str| self.waiting(key, v)))
    }

    /// Writes the value of the member begun last, and ends it.
    fn value<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Fault> {
        v.serialize(Ser::nested(self.out))?;
        self.out.end_member();
        Ok(())
    }
}

// (Not inlined: so the members of a map, which are left as they come, need no registers for them.)
#[inline(never)]
fn write_i64(out: &mut JsonWriter<'_>, v: i64) {
    out.i64(v);
}
#[inline(never)]
fn write_u64(out: &mut JsonWriter<'_>, v: u64) {
    out.u64(v);
}
#[inline(never)]
fn write_bool(out: &mut JsonWriter<'_>, v: bool) {
    out.bool(v);
}
#[inline(never)]
fn write_text(out: &mut JsonWriter<'_>, v: &str) {
    out.string(v);
}

/// Whether a key of this type is text, and no more: then its value can be looked at while the key is. A key's own code may hold a lock meanwhile that the value's wants.
/// (The maps of `std` hand over references to their keys.)
#[inline(always)]
fn is_text<K: ?Sized>() -> bool {
    let id = typeid::of::<K>();
    let all = [
        typeid::of::<String>(),
        typeid::of::<str>(),
        typeid::of::<&str>(),
        typeid::of::<&String>(),
        typeid::of::<&&str>(),
    ];
    all.contains(&id)
}

macro_rules! to_i64 { ($($f:ident: $t:ty),*) => { $(fn $f(self, v: $t) -> Result<(), Fault> {
    let v = i64::from(v);
    self.scalar(Kind::I64, MemberValue::Word(v.cast_unsigned()), v, write_i64)
})* } }
macro_rules! to_u64 { ($($f:ident: $t:ty),*) => { $(fn $f(self, v: $t) -> Result<(), Fault> {
    let v = u64::from(v);
    self.scalar(Kind::U64, MemberValue::Word(v), v, write_u64)
})* } }

impl<'a, 'w> Serializer for Ser<'a, 'w> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Compound<'a, 'w>;
    type SerializeTuple = Compound<'a, 'w>;
    type SerializeTupleStruct = Compound<'a, 'w>;
    type SerializeTupleVariant = Compound<'a, 'w>;
    type SerializeMap = Compound<'a, 'w>;
    type SerializeStruct = Compound<'a, 'w>;
    type SerializeStructVariant = Compound<'a, 'w>;

    to_i64!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64);
    to_u64!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);

    fn serialize_bool(self, v: bool) -> Result<(), Fault> {
        self.scalar(Kind::Bool, MemberValue::Word(v.into()), v, write_bool)
    }
    fn serialize_i128(self, v: i128) -> Result<(), Fault> {
        self.json(|out| out.literal(&v.to_string()))
    }
    fn serialize_u128(self, v: u128) -> Result<(), Fault> {
        self.json(|out| out.literal(&v.to_string()))
    }
    fn serialize_f32(self, v: f32) -> Result<(), Fault> {
        self.serialize_f64(f64::from(v))
    }
    fn serialize_f64(self, v: f64) -> Result<(), Fault> {
        self.json(|out| out.f64(v))
    }
    fn serialize_char(self, v: char) -> Result<(), Fault> {
        self.serialize_str(v.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, v: &str) -> Result<(), Fault> {
        self.scalar(Kind::Text, MemberValue::Text(v.as_bytes()), v, write_text)
    }
    fn serialize_bytes(self, v: &[u8]) -> Result<(), Fault> {
        self.json(|out| {
            let mut open = out.open_array()?;
            for b in v {
                out.element(&mut open);
                out.u64(u64::from(*b));
            }
            out.close_array();
            Ok(())
        })
    }
    fn serialize_none(self) -> Result<(), Fault> {
        if self.out.top == Some(self.out.depth()) {
            self.out.absent = true;
            return Ok(());
        }
        self.serialize_unit()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, v: &T) -> Result<(), Fault> {
        self.out.top = None;
        v.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), Fault> {
        self.json(|out| {
            out.null();
            Ok(())
        })
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Fault> {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Fault> {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, v: &T) -> Result<(), Fault> {
        v.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        v: &T,
    ) -> Result<(), Fault> {
        let mut object = self.begin(false, |out| Ok((None, out.open_object()?)))?;
        object.member(variant, v)?;
        object.finish()
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'a, 'w>, Fault> {
        self.begin(true, |out| Ok((None, out.open_array()?)))
    }
    fn serialize_tuple(self, n: usize) -> Result<Compound<'a, 'w>, Fault> {
        self.serialize_seq(Some(n))
    }
    fn serialize_tuple_struct(self, _: &'static str, n: usize) -> Result<Compound<'a, 'w>, Fault> {
        self.serialize_seq(Some(n))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a, 'w>, Fault> {
        self.begin(true, |out| {
            let mut outer = out.open_object()?;
            out.key(&mut outer, variant)?;
            Ok((Some(outer), out.open_array()?))
        })
    }
    #[inline(always)]
    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'a, 'w>, Fault> {
        self.begin(false, |out| Ok((None, out.open_object()?)))
    }
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Compound<'a, 'w>, Fault> {
        if name == RAW_VALUE || name == NUMBER {
            // Nothing is open: `member` writes the text itself.
            let raw = self.begin(false, |out| Ok((None, out.open_none())))?;
            return Ok(Compound { raw: Raw::Expected, ..raw });
        }
        self.serialize_map(None)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a, 'w>, Fault> {
        self.begin(false, |out| {
            let mut outer = out.open_object()?;
            out.key(&mut outer, variant)?;
            Ok((Some(outer), out.open_object()?))
        })
    }
}

macro_rules! elements {
    ($($trait:ident :: $f:ident),*) => { $(
        impl ser::$trait for Compound<'_, '_> {
            type Ok = ();
            type Error = Fault;
            fn $f<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Fault> {
                self.element(v)
            }
            fn end(mut self) -> Result<(), Fault> {
                self.finish()
            }
        }
    )* };
}
elements!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! fields {
    ($($trait:ident),*) => { $(
        impl ser::$trait for Compound<'_, '_> {
            type Ok = ();
            type Error = Fault;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, v: &T) -> Result<(), Fault> {
                self.member(key, v)
            }
            fn end(mut self) -> Result<(), Fault> {
                self.finish()
            }
        }
    )* };
}
fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = Fault;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fault> {
        let result = self.name(key);
        self.named = true;
        self.remember(result)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Fault> {
        let result = if std::mem::take(&mut self.named) {
            self.value(v)
        } else {
            Err(JsonError::Custom("a map's value without its key".into()).into())
        };
        self.remember(result)
    }
    fn serialize_entry<K: Serialize + ?Sized, T: Serialize + ?Sized>(&mut self, key: &K, v: &T) -> Result<(), Fault> {
        let result = self.entry(key, v);
        self.remember(result)
    }
    #[inline(always)]
    fn end(mut self) -> Result<(), Fault> {
        self.finish()
    }
}

/// Object keys, and the text of `serde_json`'s raw values: text, numbers and booleans are given as text, the rest is refused.
struct TextOnly<F>(F);

macro_rules! display { ($($f:ident: $t:ty),*) => { $(fn $f(self, v: $t) -> Result<(), Fault> { (self.0)(&v.to_string()) })* } }
macro_rules! refuse { ($($f:ident($($t:ty),*) -> $r:ty;)*) => { $(fn $f(self, $(_: $t),*) -> Result<$r, Fault> { Err(JsonError::BadKey.into()) })* } }
type No = ser::Impossible<(), Fault>;

impl<F: FnOnce(&str) -> Result<(), Fault>> Serializer for TextOnly<F> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = No;
    type SerializeTuple = No;
    type SerializeTupleStruct = No;
    type SerializeTupleVariant = No;
    type SerializeMap = No;
    type SerializeStruct = No;
    type SerializeStructVariant = No;

    display!(serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128, serialize_char: char);
    refuse! {
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_seq(Option<usize>) -> No;
        serialize_tuple(usize) -> No;
        serialize_tuple_struct(&'static str, usize) -> No;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> No;
        serialize_map(Option<usize>) -> No;
        serialize_struct(&'static str, usize) -> No;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> No;
    }
    fn serialize_str(self, v: &str) -> Result<(), Fault> {
        (self.0)(v)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, v: &T) -> Result<(), Fault> {
        v.serialize(self)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Fault> {
        (self.0)(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, v: &T) -> Result<(), Fault> {
        v.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Fault> {
        Err(JsonError::BadKey.into())
    }
}
