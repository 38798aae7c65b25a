//! The parts of sequences, maps and structures, each one level further down.

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
};

use super::{Below, Step, Strict, Watch};

impl<S, W: Watch> Strict<S, W> {
    fn part<T: Serialize + ?Sized, E: Error>(
        &mut self,
        step: Step,
        value: &T,
        write: impl FnOnce(&mut S, &Below<'_, T, W>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.watch.enter(step)?;
        let value = self.below(value);
        write(&mut self.inner, &value)?;
        self.watch.leave();
        Ok(())
    }

    fn item<T: Serialize + ?Sized, E: Error>(
        &mut self,
        value: &T,
        write: impl FnOnce(&mut S, &Below<'_, T, W>) -> Result<(), E>,
    ) -> Result<(), E> {
        let number = self.items;
        self.items += 1;
        self.part(Step::Item(number), value, write)
    }
}

impl<S: SerializeSeq, W: Watch> SerializeSeq for Strict<S, W> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), S::Error> {
        self.item(v, |inner, v| inner.serialize_element(v))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

impl<S: SerializeTuple, W: Watch> SerializeTuple for Strict<S, W> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), S::Error> {
        self.item(v, |inner, v| inner.serialize_element(v))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

impl<S: SerializeTupleStruct, W: Watch> SerializeTupleStruct for Strict<S, W> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), S::Error> {
        self.item(v, |inner, v| inner.serialize_field(v))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

impl<S: SerializeTupleVariant, W: Watch> SerializeTupleVariant for Strict<S, W> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), S::Error> {
        self.item(v, |inner, v| inner.serialize_field(v))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        let done = self.inner.end()?;
        self.watch.leave();
        Ok(done)
    }
}

impl<S: SerializeMap, W: Watch> SerializeMap for Strict<S, W> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        let key = self.key(key);
        self.inner.serialize_key(&key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), S::Error> {
        self.part(Step::Entry, v, |inner, v| inner.serialize_value(v))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

impl<S: SerializeStruct, W: Watch> SerializeStruct for Strict<S, W> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        v: &T,
    ) -> Result<(), S::Error> {
        self.part(Step::Name(name), v, |inner, v| {
            inner.serialize_field(name, v)
        })
    }

    fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
        self.inner.skip_field(name)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

impl<S: SerializeStructVariant, W: Watch> SerializeStructVariant for Strict<S, W> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        v: &T,
    ) -> Result<(), S::Error> {
        self.part(Step::Name(name), v, |inner, v| {
            inner.serialize_field(name, v)
        })
    }

    fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
        self.inner.skip_field(name)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        let done = self.inner.end()?;
        self.watch.leave();
        Ok(done)
    }
}
