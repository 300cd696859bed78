//! Keys that a YAML document gives twice, told by line as go-yaml's strict reader tells them.
//!
//! A reading of its own, for documents that are known to have some: lines cost more than the tree does. Two keys are the
//! same here when they are so before they become text, as there: `true` and `"true"` are two, `11` and `0xB` one.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// What is to be told of a node, in the order in which go-yaml finds it: what is inside of a value first.
pub(super) struct Repeated(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Repeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

const NOTHING: Repeated = Repeated(Vec::new());

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Repeated;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Repeated, E> {
        Ok(NOTHING)
    }

    fn visit_none<E>(self) -> Result<Repeated, E> {
        Ok(NOTHING)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Repeated, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Repeated, E> {
        Ok(NOTHING)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Repeated, E> {
        Ok(NOTHING)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Repeated, E> {
        Ok(NOTHING)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Repeated, E> {
        Ok(NOTHING)
    }

    fn visit_str<E>(self, _: &str) -> Result<Repeated, E> {
        Ok(NOTHING)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Repeated, A::Error> {
        let mut told = Vec::new();
        while let Some(Repeated(inside)) = access.next_element()? {
            told.extend(inside);
        }
        Ok(Repeated(told))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Repeated, A::Error> {
        let mut told = Vec::new();
        let mut seen = HashSet::new();
        while let Some(GoKey(key)) = access.next_key()? {
            let value: Spanned<Repeated> = access.next_value()?;
            told.extend(value.value.0);
            // The line is that of the value, as go-yaml has it.
            if !seen.insert(key.clone()) {
                let line = value.referenced.line();
                told.push(format!("line {line}: key {key} already set in map"));
            }
        }
        Ok(Repeated(told))
    }
}

/// A key as Go prints it with `%#v`: texts in quotes, other scalars bare.
struct GoKey(String);

impl<'de> Deserialize<'de> for GoKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Keys)
    }
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = GoKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, number or boolean as key")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<GoKey, E> {
        Ok(GoKey(flag.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<GoKey, E> {
        Ok(GoKey(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<GoKey, E> {
        Ok(GoKey(number.to_string()))
    }

    fn visit_f64<E>(self, float: f64) -> Result<GoKey, E> {
        Ok(GoKey(float.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<GoKey, E> {
        Ok(GoKey(crate::field::quote(text)))
    }

    fn visit_unit<E>(self) -> Result<GoKey, E> {
        Ok(GoKey("<nil>".into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<GoKey, A::Error> {
        Err(A::Error::custom("invalid map key"))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<GoKey, A::Error> {
        Err(A::Error::custom("invalid map key"))
    }
}
