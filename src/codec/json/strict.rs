//! A wrapper around a serializer that refuses values that could not be read again:
//! numbers that JSON cannot express, and values nested too deeply.
//!
//! It counts the levels on the way down. A value that exceeds the limit fails
//! before the recursion of its `Serialize` can overflow the stack.

mod parts;

use std::fmt;

use serde::ser::{Error, Serialize, Serializer};

use super::depth::Depth;

/// Observes the walk through a value, to find a part of it. Saving uses [`Unwatched`], at no cost.
pub(super) trait Watch: Copy {
    /// Returns the observer for the key of an entry.
    fn of_key(self) -> Self {
        self
    }

    /// Called for a number, a boolean or a text. As keys, all of them are texts.
    fn scalar<T: fmt::Display + ?Sized>(self, _: &T, _is_text: bool) {}

    /// Called for an integer of 128 bits.
    ///
    /// # Errors
    ///
    /// If the walk ends here.
    fn wide<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    /// Called before a part of the value.
    ///
    /// # Errors
    ///
    /// If the walk ends here.
    fn enter<E: Error>(self, _: Step) -> Result<(), E> {
        Ok(())
    }

    /// Called after a part. It is not called where the walk ends, so the path to that part remains.
    fn leave(self) {}
}

/// A step from a value to a part of it.
pub(super) enum Step {
    /// The field, or the variant, of this name.
    Name(&'static str),
    /// The item of this number.
    Item(usize),
    /// The entry of the last key.
    Entry,
}

/// Observes nothing.
#[derive(Clone, Copy)]
pub(super) struct Unwatched;

impl Watch for Unwatched {}

/// A wrapper around a serializer, or around its serializer for the parts of a sequence,
/// a map or a structure.
pub(super) struct Strict<S, W> {
    inner: S,
    depth: Depth,
    watch: W,
    /// How many items were written.
    items: usize,
}

impl<S> Strict<S, Unwatched> {
    pub(super) fn new(inner: S) -> Self {
        Self::watched(inner, Unwatched)
    }
}

impl<S, W> Strict<S, W> {
    pub(super) fn watched(inner: S, watch: W) -> Self {
        Self {
            inner,
            depth: Depth::FULL,
            watch,
            items: 0,
        }
    }
}

/// A value one level further down.
struct Below<'a, T: ?Sized, W> {
    value: &'a T,
    depth: Depth,
    watch: W,
}

impl<T: Serialize + ?Sized, W: Watch> Serialize for Below<'_, T, W> {
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        let Self {
            value,
            depth,
            watch,
        } = *self;
        let items = 0;
        value.serialize(Strict {
            inner,
            depth,
            watch,
            items,
        })
    }
}

impl<S, W: Watch> Strict<S, W> {
    fn below<'a, T: ?Sized>(&self, value: &'a T) -> Below<'a, T, W> {
        let Self { depth, watch, .. } = *self;
        Below {
            value,
            depth,
            watch,
        }
    }

    fn key<'a, T: ?Sized>(&self, value: &'a T) -> Below<'a, T, W> {
        let watch = self.watch.of_key();
        Below {
            watch,
            ..self.below(value)
        }
    }

    /// Enters `more` arrays or objects at once.
    fn nested<E: Error>(self, more: u16) -> Result<Self, E> {
        let depth = self.depth.nested(more);
        let depth = depth.ok_or_else(|| E::custom(Depth::EXCEEDED))?;
        Ok(Self { depth, ..self })
    }

    /// Enters an option or a newtype.
    fn wrapped<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.wrapped();
        let depth = depth.ok_or_else(|| E::custom(Depth::EXCEEDED))?;
        Ok(Self { depth, ..self })
    }

    /// Wraps the serializer for the parts.
    fn parts<P, E>(self, open: impl FnOnce(S) -> Result<P, E>) -> Result<Strict<P, W>, E> {
        Ok(Strict {
            inner: open(self.inner)?,
            depth: self.depth,
            watch: self.watch,
            items: 0,
        })
    }
}

fn finite<E: Error>(number: f64) -> Result<(), E> {
    if number.is_finite() {
        return Ok(());
    }
    Err(E::custom(format_args!(
        "{number} has no form in JSON, and would come back as null"
    )))
}

impl<S: Serializer, W: Watch> Serializer for Strict<S, W> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Strict<S::SerializeSeq, W>;
    type SerializeTuple = Strict<S::SerializeTuple, W>;
    type SerializeTupleStruct = Strict<S::SerializeTupleStruct, W>;
    type SerializeTupleVariant = Strict<S::SerializeTupleVariant, W>;
    type SerializeMap = Strict<S::SerializeMap, W>;
    type SerializeStruct = Strict<S::SerializeStruct, W>;
    type SerializeStructVariant = Strict<S::SerializeStructVariant, W>;

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, text: &T) -> Result<S::Ok, S::Error> {
        self.watch.scalar(text, true);
        self.inner.collect_str(text)
    }

    fn serialize_bool(self, v: bool) -> Result<S::Ok, S::Error> {
        self.watch.scalar(&v, false);
        self.inner.serialize_bool(v)
    }

    fn serialize_i8(self, v: i8) -> Result<S::Ok, S::Error> {
        self.watch.scalar(&v, false);
        self.inner.serialize_i8(v)
    }

    fn serialize_i16(self, v: i16) -> Result<S::Ok, S::Error> {
        self.watch.scalar(&v, false);
        self.inner.serialize_i16(v)
    }

    fn serialize_i32(self, v: i32) -> Result<S::Ok, S::Error> {
        self.watch.scalar(&v, false);
        self.inner.serialize_i32(v)
    }

    fn serialize_i64(self, v: i64) -> Result<S::Ok, S::Error> {
        self.watch.scalar(&v, false);
        self.inner.serialize_i64(v)
    }

    fn serialize_i128(self, v: i128) -> Result<S::Ok, S::Error> {
        self.watch.scalar(&v, false);
        self.watch.wide()?;
        self.inner.serialize_i128(v)
    }

    fn serialize_u8(self, v: u8) -> Result<S::Ok, S::Error> {
        self.watch.scalar(&v, false);
        self.inner.serialize_u8(v)
    }

    fn serialize_u16(self, v: u16) -> Result<S::Ok, S::Error> {
        self.watch.scalar(&v, false);
        self.inner.serialize_u16(v)
    }

    fn serialize_u32(self, v: u32) -> Result<S::Ok, S::Error> {
        self.watch.scalar(&v, false);
        self.inner.serialize_u32(v)
    }

    fn serialize_u64(self, v: u64) -> Result<S::Ok, S::Error> {
        self.watch.scalar(&v, false);
        self.inner.serialize_u64(v)
    }

    fn serialize_u128(self, v: u128) -> Result<S::Ok, S::Error> {
        self.watch.scalar(&v, false);
        self.watch.wide()?;
        self.inner.serialize_u128(v)
    }

    fn serialize_f32(self, v: f32) -> Result<S::Ok, S::Error> {
        finite(f64::from(v))?;
        self.watch.scalar(&v, false);
        self.inner.serialize_f32(v)
    }

    fn serialize_f64(self, v: f64) -> Result<S::Ok, S::Error> {
        finite(v)?;
        self.watch.scalar(&v, false);
        self.inner.serialize_f64(v)
    }

    fn serialize_char(self, v: char) -> Result<S::Ok, S::Error> {
        self.watch.scalar(&v, true);
        self.inner.serialize_char(v)
    }

    fn serialize_str(self, v: &str) -> Result<S::Ok, S::Error> {
        self.watch.scalar(v, true);
        self.inner.serialize_str(v)
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<S::Ok, S::Error> {
        self.inner.serialize_bytes(v)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, v: &T) -> Result<S::Ok, S::Error> {
        let this = self.wrapped()?;
        let v = this.below(v);
        this.inner.serialize_some(&v)
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_struct(name)
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.watch.scalar(variant, true);
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        v: &T,
    ) -> Result<S::Ok, S::Error> {
        let this = self.wrapped()?;
        let v = this.below(v);
        this.inner.serialize_newtype_struct(name, &v)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        v: &T,
    ) -> Result<S::Ok, S::Error> {
        let this = self.nested(1)?;
        let watch = this.watch;
        watch.enter(Step::Name(variant))?;
        let v = this.below(v);
        let inner = this.inner;
        let done = inner.serialize_newtype_variant(name, index, variant, &v)?;
        watch.leave();
        Ok(done)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let this = self.nested(1)?;
        this.parts(|inner| inner.serialize_seq(len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        let this = self.nested(1)?;
        this.parts(|inner| inner.serialize_tuple(len))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        let this = self.nested(1)?;
        this.parts(|inner| inner.serialize_tuple_struct(name, len))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let this = self.nested(2)?;
        this.watch.enter(Step::Name(variant))?;
        this.parts(|inner| inner.serialize_tuple_variant(name, index, variant, len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let this = self.nested(1)?;
        this.parts(|inner| inner.serialize_map(len))
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        let this = self.nested(1)?;
        this.parts(|inner| inner.serialize_struct(name, len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let this = self.nested(2)?;
        this.watch.enter(Step::Name(variant))?;
        this.parts(|inner| inner.serialize_struct_variant(name, index, variant, len))
    }
}
