//! The body of a look-up. A member with an invalid id does not make the body invalid: the answer names it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_json::Value;

use crate::http::json::whole_numbers;
use crate::http::problem::INVALID_BODY;
use weir_core::model::{Id, IdType};
use weir_listener::problem::Problem;

/// Bytes of a wrong line that are shown.
const SHOWN_BYTES: usize = 64;

/// A look-up, read.
pub(super) struct LookupRequest {
    pub(super) topic: String,
    pub(super) members: Vec<Named>,
}

/// What stands where the id of a member should.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Named {
    /// An id of the kind's type.
    Id(Id),
    /// Something else, and why it is not a member.
    Wrong(Value, String),
}

/// Reads `{"topic":…,"members":[…]}`.
///
/// # Errors
/// 400.
pub(super) fn read(body: &[u8], id_type: IdType) -> Result<LookupRequest, Problem> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        topic: String,
        members: Vec<Raw>,
    }
    let body: Body = serde_json::from_slice(&plain(body, id_type))
        .map_err(|error| Problem::new(&INVALID_BODY, format!("send {{\"topic\":\"…\",\"members\":[…]}}: {error}")))?;
    Ok(LookupRequest { topic: body.topic, members: body.members.into_iter().map(|raw| named(raw, id_type)).collect() })
}

/// Reads the first line of a stream, `{"topic":…}`; members may follow in it.
///
/// # Errors
/// 400.
pub(super) fn read_topic(line: &[u8], id_type: IdType) -> Result<LookupRequest, Problem> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line {
        topic: String,
        #[serde(default)]
        members: Vec<Raw>,
    }
    let line: Line = serde_json::from_slice(&plain(line, id_type))
        .map_err(|error| Problem::new(&INVALID_BODY, format!("the first line must be {{\"topic\":\"…\"}}: {error}")))?;
    Ok(LookupRequest { topic: line.topic, members: line.members.into_iter().map(|raw| named(raw, id_type)).collect() })
}

/// Reads a further line: one member, or an array of them. The answer names a line that is neither, and the
/// lines after it are still read.
pub(super) fn read_line(line: &[u8], id_type: IdType, members: &mut Vec<Named>) {
    let text = plain(line, id_type);
    let raw: Result<Vec<Raw>, serde_json::Error> = if text.starts_with(b"[") {
        serde_json::from_slice(&text)
    } else {
        serde_json::from_slice(&text).map(|raw| vec![raw])
    };
    match raw {
        Ok(raw) => members.extend(raw.into_iter().map(|raw| named(raw, id_type))),
        Err(error) => {
            let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN_BYTES)]).into_owned();
            members.push(Named::Wrong(shown.into(), format!("expected a member or an array of members: {error}")));
        }
    }
}

/// The text with whole numbers written plainly, where ids are numbers.
fn plain(text: &[u8], id_type: IdType) -> Cow<'_, [u8]> {
    if id_type == IdType::Integer { whole_numbers(text) } else { Cow::Borrowed(text) }
}

fn named(raw: Raw, id_type: IdType) -> Named {
    match (raw, id_type) {
        (Raw::Int(value), IdType::Integer) => Named::Id(Id::Int(value)),
        (Raw::Text(text), IdType::Uuid | IdType::Text) => match Id::parse(id_type, &text) {
            Ok(id) => Named::Id(id),
            Err(error) => Named::Wrong(text.into(), error.to_string()),
        },
        (Raw::Text(text), IdType::Integer) => Named::Wrong(text.into(), "expected an integer, not a text".into()),
        (Raw::Int(value), _) => Named::Wrong(value.into(), "expected a text".into()),
        (Raw::Other(value), _) => Named::Wrong(value, "expected the id of a member".into()),
    }
}

/// A member as it was written.
enum Raw {
    Int(i64),
    Text(String),
    Other(Value),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl Visitor<'_> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the id of a member")
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(i64::try_from(value).map_or_else(|_| Raw::Other(value.into()), Raw::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Other(value.into()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Other(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Other(Value::Null))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_none_does_not_spoil_the_others() {
        let body = br#"{"topic":"social","members":[1,"2",3.5,null,18446744073709551615,-4]}"#;
        let asked = read(body, IdType::Integer).unwrap();
        assert_eq!(asked.topic, "social");
        let ids: Vec<_> = asked.members.iter().filter(|named| matches!(named, Named::Id(_))).collect();
        assert_eq!(ids, [&Named::Id(Id::Int(1)), &Named::Id(Id::Int(-4))]);
        assert_eq!(asked.members.len(), 6);
        for wrong in ["", "{}", "[]", r#"{"topic":1,"members":[]}"#, r#"{"topic":"a","members":[[1]]}"#] {
            assert!(read(wrong.as_bytes(), IdType::Integer).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_is_a_member_or_several() {
        let mut members = Vec::new();
        read_line(b"7", IdType::Integer, &mut members);
        read_line(b"[8, 9.0, 1e1]", IdType::Integer, &mut members);
        assert_eq!(members, [7, 8, 9, 10].map(|id| Named::Id(Id::Int(id))));
        for wrong in [&b"{}"[..], b"garbage", b"1 2", b"[[1]]", b"\x00\xff"] {
            members.clear();
            read_line(wrong, IdType::Integer, &mut members);
            assert!(matches!(members[..], [Named::Wrong(..)]), "{members:?}");
        }
    }
}
