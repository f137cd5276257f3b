//! JSON bodies, read so that nothing is lost without being said: a key twice, a number that would be rounded, nesting that
//! nobody writes by hand are refused.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::listener::problem::{BAD_BODY, Problem};

/// Deepest nesting of a body.
pub(super) const NESTING_MAX: usize = 64;

/// Reads a body.
///
/// # Errors
/// 400: not JSON (RFC 8259), a key twice in one object, nesting deeper than [`NESTING_MAX`], or a whole number beyond 64 bits.
pub(super) fn read(body: &[u8]) -> Result<Value, Problem> {
    check_tokens(body)?;
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = Strict::deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map(|value| value.0).map_err(|error| Problem::new(&BAD_BODY, format!("not taken as JSON: {error}")))
}

/// What a parser does not tell: how deep it is, and how a number was written.
fn check_tokens(body: &[u8]) -> Result<(), Problem> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => at += string_bytes(&body[at..]),
            b'[' | b'{' => {
                depth += 1;
                if depth > NESTING_MAX {
                    return Err(Problem::new(&BAD_BODY, format!("nest at most {NESTING_MAX} deep")));
                }
                at += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let length = body[at..].iter().take_while(|byte| is_of_number(**byte)).count();
                check_number(&body[at..at + length])?;
                at += length;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// Length of a string with its quotes; up to the end where there is no second one.
fn string_bytes(body: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    body.len()
}

fn is_of_number(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

/// A whole number is kept exactly or not at all. One with a fraction or an exponent is a double, as in JavaScript.
fn check_number(text: &[u8]) -> Result<(), Problem> {
    let is_whole = !text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    let fits = || std::str::from_utf8(text).is_ok_and(|text| text.parse::<i64>().is_ok());
    if is_whole && text.len() > 18 && !fits() {
        let detail =
            "whole numbers are taken from -9223372036854775808 to 9223372036854775807; write a larger one as text";
        return Err(Problem::new(&BAD_BODY, detail));
    }
    Ok(())
}

/// A value of which every object has each key once.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StrictSeed.deserialize(deserializer).map(Strict)
    }
}

struct StrictSeed;

impl<'de> DeserializeSeed<'de> for StrictSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is none"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(element) = elements.next_element_seed(StrictSeed)? {
            read.push(element);
        }
        Ok(Value::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(StrictSeed)?;
            if read.contains_key(&name) {
                return Err(de::Error::custom(format_args!("key {name:?} is there twice")));
            }
            read.insert(name, value);
        }
        Ok(Value::Object(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> bool {
        read(text.as_bytes()).is_err()
    }

    #[test]
    fn what_is_json_is_read_as_it_is() {
        let text =
            r#"{"a":[1,-2,3.5,1e3,true,null,"x\"]{\u00e9"],"b":{"a":9007199254740993},"c":-9223372036854775808}"#;
        assert_eq!(read(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(read(b" 9223372036854775807 ").unwrap(), 9_223_372_036_854_775_807_i64);
        let deep = format!("{}{}", "[".repeat(NESTING_MAX), "]".repeat(NESTING_MAX));
        assert!(!refused(&deep));
    }

    #[test]
    fn what_would_be_lost_is_refused() {
        for text in [
            "",
            "{",
            "{} {}",
            "nul",
            "{'a':1}",
            "[1,]",
            "01",
            "\"\\ud800\"",
            "\"a",
            "1e400",
            "NaN",
            "{\"a\":1,\"a\":1}",
            "[{\"a\":{\"b\":1,\"c\":2,\"b\":3}}]",
            "9223372036854775808",
            "-9223372036854775809",
            "[18446744073709551616]",
            "\u{feff}{}",
        ] {
            assert!(refused(text), "{text}");
        }
        assert!(refused(&"[".repeat(NESTING_MAX + 1)));
        assert!(
            refused(&"[".repeat(10_000)) && refused(&format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)))
        );
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[\\[\\]{}\",:\\\\0-9eE.+a-c-]{0,60}") {
            let ours = read(text.as_bytes());
            let theirs = serde_json::from_str::<Value>(&text);
            if let Ok(ours) = ours {
                proptest::prop_assert_eq!(Some(ours), theirs.ok());
            }
        }
    }
}
