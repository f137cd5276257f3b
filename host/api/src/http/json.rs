//! Reads JSON bodies without silent loss: it refuses duplicate keys, numbers that would be rounded, and nesting deeper
//! than people write by hand. A whole number counts as one in any notation (`10`, `10.0`, `1e1`): JSON has only one
//! number type, and many programs write every number with a fraction.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use weir_listener::problem::{BAD_BODY, Problem};

/// Deepest nesting of a body.
pub(super) const NESTING_MAX: usize = 64;
/// Digits of the largest whole number.
const WHOLE_DIGITS_MAX: usize = 19;

/// Reads a body.
///
/// # Errors
/// 400: not JSON (RFC 8259), a duplicate key in an object, nesting deeper than [`NESTING_MAX`], or a whole number
/// beyond 64 bits.
pub(super) fn read(body: &[u8]) -> Result<Value, Problem> {
    check_tokens(body)?;
    let body = whole_numbers(body);
    let mut reader = serde_json::Deserializer::from_slice(&body);
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

/// Rewrites whole numbers that fit 64 bits in plain notation. It works on their digits, so that none is rounded.
/// Invalid JSON stays invalid.
pub(super) fn whole_numbers(body: &[u8]) -> Cow<'_, [u8]> {
    if !may_have_others(body) {
        return Cow::Borrowed(body);
    }
    let (mut plain, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => at += string_bytes(&body[at..]),
            b'-' | b'0'..=b'9' => {
                let length = body[at..].iter().take_while(|byte| is_of_number(**byte)).count();
                if let Some(number) = whole_number(&body[at..at + length]) {
                    plain.extend_from_slice(&body[copied..at]);
                    plain.extend_from_slice(number.to_string().as_bytes());
                    copied = at + length;
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(body);
    }
    plain.extend_from_slice(&body[copied.min(body.len())..]);
    Cow::Owned(plain)
}

/// Whether some number may not be written plainly. Most bodies have none, and are looked at no further.
fn may_have_others(body: &[u8]) -> bool {
    let follows_digit = |at: usize| at > 0 && body[at - 1].is_ascii_digit();
    memchr::memchr(b'.', body).is_some()
        || memchr::memchr2_iter(b'e', b'E', body).any(follows_digit)
        || memchr::memchr_iter(b'-', body).any(|at| body.get(at + 1) == Some(&b'0'))
}

/// The value of a number with a fraction, an exponent or a sign before its zero, if it is whole and fits.
fn whole_number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (sign, unsigned) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_json = are_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(are_digits)
        && exponent.is_none_or(|exponent| are_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)));
    if !is_json || fraction.is_none() && exponent.is_none() && (sign.is_empty() || whole != "0") {
        return None;
    }
    let digits = format!("{whole}{}", fraction.unwrap_or_default());
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let exponent: i32 = exponent.map_or(Ok(0), str::parse).ok()?;
    let scale = exponent.checked_sub(i32::try_from(fraction.unwrap_or_default().len()).ok()?)?;
    let digits = match usize::try_from(scale.unsigned_abs()).ok()? {
        zeros if scale < 0 => {
            let (kept, cut) = digits.split_at_checked(digits.len().checked_sub(zeros)?)?;
            cut.bytes().all(|digit| digit == b'0').then(|| kept.to_owned())?
        }
        zeros if digits.len() + zeros <= WHOLE_DIGITS_MAX => format!("{digits}{}", "0".repeat(zeros)),
        _ => return None,
    };
    format!("{sign}{digits}").parse().ok()
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

/// A whole number is either kept exactly or refused. A number with a fraction, or a larger one with an exponent, is a
/// double, as in JavaScript.
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
            r#"{"a":[1,-2,3.5,1e30,true,null,"x\"]{1.0\u00e9"],"b":{"a":9007199254740993},"c":-9223372036854775808}"#;
        assert_eq!(read(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(read(b" 9223372036854775807 ").unwrap(), 9_223_372_036_854_775_807_i64);
        let deep = format!("{}{}", "[".repeat(NESTING_MAX), "]".repeat(NESTING_MAX));
        assert!(!refused(&deep));
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        let of = |text: &str| read(text.as_bytes()).unwrap();
        for (text, number) in [
            ("10.0", 10_i64),
            ("1e1", 10),
            ("1E+1", 10),
            ("100e-1", 10),
            ("1.50e1", 15),
            ("-10.000", -10),
            ("-0", 0),
            ("-0.0", 0),
            ("0e999999999999", 0),
            ("9007199254740993.0", 9_007_199_254_740_993),
            ("9.223372036854775807e18", i64::MAX),
            ("-9223372036854775808.0", i64::MIN),
        ] {
            assert_eq!(of(text), Value::from(number), "{text}");
            assert_eq!(
                of(&format!("{{\"1.0\":[{text},1.5,\"2.0\"]}}")),
                serde_json::json!({"1.0": [number, 1.5, "2.0"]})
            );
        }
        for (text, number) in
            [("1.5", 1.5), ("1e-1", 0.1), ("15e-1", 1.5), ("9223372036854775808.0", 2_f64.powi(63)), ("1e19", 1e19)]
        {
            assert_eq!(of(text), Value::from(number), "{text}");
        }
        for wrong in ["01.0", "1.", ".0", "1.0.0", "1e", "1e1.0", "+1.0", "--1.0", "1.0-"] {
            assert!(refused(wrong), "{wrong}");
        }
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
                // Whole numbers are the same by their values.
                let plain = |value: &Value| value.as_f64().map_or_else(|| value.to_string(), |number| (number + 0.0).to_string());
                let theirs = theirs.map(|theirs| if theirs.is_number() { plain(&theirs) } else { "".into() }).ok();
                let is_number = ours.is_number();
                proptest::prop_assert_eq!(Some(if is_number { plain(&ours) } else { "".into() }), theirs);
            }
        }
    }
}
