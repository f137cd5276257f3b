//! Ids of targets and actors, and the partition of an id.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Partition;

/// Longest text id, in bytes. Keeps store keys, journal records and unique indexes bounded.
pub const ID_TEXT_BYTES_MAX: usize = 191;

/// The type of an id, as the kind's configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdType {
    /// Signed 64-bit integer.
    Integer,
    /// UUID of any version, hyphenated lower case on the way out.
    Uuid,
    /// Text of 1 to [`ID_TEXT_BYTES_MAX`] bytes without control characters.
    Text,
}

/// Identifies a target or an actor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// See [`IdType::Integer`].
    Int(i64),
    /// See [`IdType::Uuid`].
    Uuid(Uuid),
    /// See [`IdType::Text`].
    Text(Arc<str>),
}

/// Why a text is not an id of the expected type. The message is fit for a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a decimal signed 64-bit integer in canonical form.
    #[error("expected an integer from -9223372036854775808 to 9223372036854775807")]
    NotAnInteger,
    /// Not a hyphenated UUID.
    #[error("expected a hyphenated UUID")]
    NotAUuid,
    /// Empty, too long, or with control characters.
    #[error("expected 1 to {ID_TEXT_BYTES_MAX} bytes of text without control characters")]
    BadText,
}

impl Id {
    /// Reads an id of type `id_type`. Only the canonical spelling is accepted, so that one id has one store key:
    /// `+1`, `01` and `-0` are refused as integers; UUIDs are accepted hyphenated in either case.
    pub fn parse(id_type: IdType, text: &str) -> Result<Self, IdError> {
        match id_type {
            IdType::Integer => {
                let value: i64 = text.parse().map_err(|_| IdError::NotAnInteger)?;
                let digits = text.strip_prefix('-').unwrap_or(text);
                let canonical =
                    (digits == "0" && !text.starts_with('-')) || digits.starts_with(|c| ('1'..='9').contains(&c));
                if canonical { Ok(Self::Int(value)) } else { Err(IdError::NotAnInteger) }
            }
            IdType::Uuid if text.len() == 36 => Uuid::try_parse(text).map(Self::Uuid).map_err(|_| IdError::NotAUuid),
            IdType::Uuid => Err(IdError::NotAUuid),
            IdType::Text => {
                let fits = !text.is_empty() && text.len() <= ID_TEXT_BYTES_MAX && !text.chars().any(char::is_control);
                if fits { Ok(Self::Text(Arc::from(text))) } else { Err(IdError::BadText) }
            }
        }
    }

    /// The type that [`Id::parse`] would need to read this id back.
    pub fn id_type(&self) -> IdType {
        match self {
            Self::Int(_) => IdType::Integer,
            Self::Uuid(_) => IdType::Uuid,
            Self::Text(_) => IdType::Text,
        }
    }

    /// As a JSON value: integers as numbers, the rest as strings.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Int(value) => (*value).into(),
            other => other.to_string().into(),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Uuid(value) => write!(f, "{}", value.hyphenated()),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// The partition of `target` among `partitions`: FNV-1a (64 bit) over the id's canonical text, modulo P.
/// Part of the data format: it must never change for a data set, nor may P.
pub fn partition_of(target: &Id, partitions: Partition) -> Partition {
    struct Fnv(u64);
    impl fmt::Write for Fnv {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for byte in text.bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
            Ok(())
        }
    }
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    // Writing into `Fnv` cannot fail.
    let _ = fmt::Write::write_fmt(&mut hash, format_args!("{target}"));
    (hash.0 % u64::from(partitions.max(1))) as Partition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_integers_are_ids() {
        for good in ["0", "1", "-1", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(Id::parse(IdType::Integer, good).unwrap().to_string(), good);
        }
        for bad in ["", "+1", "01", "-0", "00", "1.0", "1e3", " 1", "9223372036854775808", "٣", "-", "--1"] {
            assert_eq!(Id::parse(IdType::Integer, bad), Err(IdError::NotAnInteger), "{bad}");
        }
    }

    #[test]
    fn a_uuid_has_one_spelling_inside() {
        let upper = Id::parse(IdType::Uuid, "0192F0C1-2345-7ABC-8DEF-0123456789AB").unwrap();
        let lower = Id::parse(IdType::Uuid, "0192f0c1-2345-7abc-8def-0123456789ab").unwrap();
        assert_eq!(upper, lower);
        assert!(Id::parse(IdType::Uuid, "0192f0c123457abc8def0123456789ab").is_err());
    }

    #[test]
    fn text_ids_are_bounded_and_printable() {
        assert!(Id::parse(IdType::Text, "a").is_ok());
        assert!(Id::parse(IdType::Text, "").is_err());
        assert!(Id::parse(IdType::Text, "a\nb").is_err());
        assert!(Id::parse(IdType::Text, &"x".repeat(ID_TEXT_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn partitions_are_stable() {
        // Golden values: a change of these is a change of the data format.
        let of = |n: i64| partition_of(&Id::Int(n), 8);
        assert_eq!((0..10).map(of).collect::<Vec<_>>(), vec![7, 4, 5, 2, 3, 0, 1, 6, 7, 4]);
    }
}
