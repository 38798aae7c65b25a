//! Finds the NaN or infinity that JSON would silently turn into `null`.

use std::fmt;

use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Walks a value and errs at the first number that is not finite.
pub(super) fn check<V: Serialize>(value: &V) -> Result<(), NotFinite> {
    value.serialize(Walk)
}

/// Why the walk stopped.
#[derive(Debug)]
pub(super) struct NotFinite(String);

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotFinite {}

impl serde::ser::Error for NotFinite {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

type Walked = Result<(), NotFinite>;

/// A serializer that writes nothing.
#[derive(Clone, Copy)]
struct Walk;

fn finite(number: f64) -> Walked {
    if number.is_finite() {
        return Ok(());
    }
    Err(NotFinite::custom(format_args!("found {number}")))
}

impl Serializer for Walk {
    type Ok = ();
    type Error = NotFinite;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fn serialize_f32(self, v: f32) -> Walked {
        finite(f64::from(v))
    }

    fn serialize_f64(self, v: f64) -> Walked {
        finite(v)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Walked {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, v: &T) -> Walked {
        v.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Walked {
        value.serialize(self)
    }

    fn serialize_bool(self, _: bool) -> Walked {
        Ok(())
    }

    fn serialize_i8(self, _: i8) -> Walked {
        Ok(())
    }

    fn serialize_i16(self, _: i16) -> Walked {
        Ok(())
    }

    fn serialize_i32(self, _: i32) -> Walked {
        Ok(())
    }

    fn serialize_i64(self, _: i64) -> Walked {
        Ok(())
    }

    fn serialize_i128(self, _: i128) -> Walked {
        Ok(())
    }

    fn serialize_u8(self, _: u8) -> Walked {
        Ok(())
    }

    fn serialize_u16(self, _: u16) -> Walked {
        Ok(())
    }

    fn serialize_u32(self, _: u32) -> Walked {
        Ok(())
    }

    fn serialize_u64(self, _: u64) -> Walked {
        Ok(())
    }

    fn serialize_u128(self, _: u128) -> Walked {
        Ok(())
    }

    fn serialize_char(self, _: char) -> Walked {
        Ok(())
    }

    fn serialize_str(self, _: &str) -> Walked {
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Walked {
        Ok(())
    }

    fn serialize_none(self) -> Walked {
        Ok(())
    }

    fn serialize_unit(self) -> Walked {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Walked {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Walked {
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, NotFinite> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, NotFinite> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, NotFinite> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, NotFinite> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, NotFinite> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, NotFinite> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, NotFinite> {
        Ok(self)
    }
}

impl SerializeSeq for Walk {
    type Ok = ();
    type Error = NotFinite;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        value.serialize(*self)
    }

    fn end(self) -> Walked {
        Ok(())
    }
}

impl SerializeTuple for Walk {
    type Ok = ();
    type Error = NotFinite;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        value.serialize(*self)
    }

    fn end(self) -> Walked {
        Ok(())
    }
}

impl SerializeTupleStruct for Walk {
    type Ok = ();
    type Error = NotFinite;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        value.serialize(*self)
    }

    fn end(self) -> Walked {
        Ok(())
    }
}

impl SerializeTupleVariant for Walk {
    type Ok = ();
    type Error = NotFinite;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        value.serialize(*self)
    }

    fn end(self) -> Walked {
        Ok(())
    }
}

impl SerializeStruct for Walk {
    type Ok = ();
    type Error = NotFinite;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, v: &T) -> Walked {
        v.serialize(*self)
    }

    fn end(self) -> Walked {
        Ok(())
    }
}

impl SerializeStructVariant for Walk {
    type Ok = ();
    type Error = NotFinite;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, v: &T) -> Walked {
        v.serialize(*self)
    }

    fn end(self) -> Walked {
        Ok(())
    }
}

// Keys need no look: JSON's are texts, and a float that is not finite is
// refused as a key anyway.
impl SerializeMap for Walk {
    type Ok = ();
    type Error = NotFinite;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Walked {
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        value.serialize(*self)
    }

    fn end(self) -> Walked {
        Ok(())
    }
}
