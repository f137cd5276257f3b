//! From values to settings: serde over the tree, so that what a type refuses is told with its place.

use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, de, forward_to_deserialize_any};

use super::tree::{Content, Node};

/// A step from a table or list to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Name(String),
    Place(usize),
}

/// What a type refuses, and the way to it from the root.
#[derive(Debug)]
pub(crate) struct Refused {
    pub reason: String,
    /// From the innermost step outwards.
    pub way: Vec<Step>,
    /// Something is missing, or unknown, in the table that the way leads to; the checks before say it better.
    pub is_of_table: bool,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.reason)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: std::fmt::Display>(reason: T) -> Self {
        Self { reason: reason.to_string(), way: Vec::new(), is_of_table: false }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { is_of_table: true, ..Self::custom(format!("{field} is missing")) }
    }
}

impl<'de> IntoDeserializer<'de, Refused> for &'de Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self.content {
            Content::Text(text) | Content::Time(text) => visitor.visit_borrowed_str(text),
            Content::Integer(number) => visitor.visit_i64(*number),
            Content::Float(number) => visitor.visit_f64(*number),
            Content::Boolean(value) => visitor.visit_bool(*value),
            Content::List(nodes) => visitor.visit_seq(Elements { nodes: nodes.iter().enumerate() }),
            Content::Table(entries) => visitor.visit_map(Entries { entries: entries.iter(), next: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match &self.content {
            Content::Text(text) => StrDeserializer::new(text).deserialize_enum(name, variants, visitor),
            Content::Table(entries) => {
                let entries = entries.iter().map(|(name, node)| (name.as_str(), node));
                de::value::MapAccessDeserializer::new(MapDeserializer::new(entries))
                    .deserialize_enum(name, variants, visitor)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Elements<'de> {
    nodes: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some((place, node)) = self.nodes.next() else { return Ok(None) };
        seed.deserialize(node).map(Some).map_err(|error| error.behind(Step::Place(place)))
    }
}

struct Entries<'de> {
    entries: std::collections::btree_map::Iter<'de, String, Node>,
    next: Option<(&'de String, &'de Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        self.next = self.entries.next();
        self.next.map(|(name, _)| seed.deserialize(StrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let (name, node) = self.next.take().ok_or_else(|| de::Error::custom("a value without a name"))?;
        seed.deserialize(node).map_err(|error: Refused| error.behind(Step::Name(name.clone())))
    }
}

impl Refused {
    fn behind(mut self, step: Step) -> Self {
        self.way.push(step);
        self
    }
}
