//! Plain data that every room speaks: ids, intents, rules, actions, positions.
//!
//! Tier 0. Imports nothing of weir, does no I/O, knows no wasmtime, no Redis, no SQL.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest text id, in bytes. Keeps store keys, journal records and unique indexes bounded.
pub const ID_TEXT_BYTES_MAX: usize = 191;

/// Name of one configured use of a capability, such as `feed-like`.
pub type Kind = Arc<str>;

/// Number of a partition, `0..P`. All keys of a (kind, partition) change together, atomically.
pub type Partition = u16;

/// Place of an entry in the journal of one (kind, partition). Strictly increasing there; 0 is before the first entry.
pub type Position = u64;

/// The type of an id, as the kind's configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// What the caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Add when absent, remove when present, by the default rules (`POST`).
    Toggle,
    /// Make present (`PUT`).
    Set,
    /// Make absent (`DELETE`).
    Clear,
}

/// One request for a toggle, as the policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// What is liked.
    pub target: Id,
    /// Who likes it.
    pub actor: Id,
    /// What the caller asks for.
    pub verb: Verb,
}

/// What a rule does in one of the two states of a (target, actor) pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Make the pair present. Without effect when it is present.
    Add,
    /// Make the pair absent. Without effect when it is absent.
    Remove,
    /// Leave the state; answer it.
    Keep,
    /// Leave the state; refuse with 403.
    Deny,
}

/// At most `burst` operations in any `period_ms` by one actor on one target (GCRA, evenly refilled).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RateLimit {
    /// Operations allowed at once, 1 or more.
    pub burst: u32,
    /// Time in which `burst` operations are refilled, in milliseconds, 1 or more.
    pub period_ms: u32,
}

/// The decision table that a policy returns for one intent. The store evaluates it atomically against the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ToggleRule {
    /// Effect when the pair is absent.
    pub when_absent: Effect,
    /// Effect when the pair is present.
    pub when_present: Effect,
    /// Checked before the effect; counts every evaluated operation that it lets pass.
    pub limit: Option<RateLimit>,
}

/// A change of one (target, actor) pair, absolute: it says what holds afterwards, so repeating it is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The pair is present afterwards.
    Add,
    /// The pair is absent afterwards.
    Remove,
}

/// One accepted change, as it lies in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToggleChange {
    /// What is liked.
    pub target: Id,
    /// Who likes it.
    pub actor: Id,
    /// What holds afterwards.
    pub action: Action,
    /// When it was accepted, in Unix milliseconds, by the host's clock.
    pub at_ms: u64,
}

/// SHA-256 of a policy component; names the module that accepted an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A parameter or a column of a statement that was granted to a policy module.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// NULL.
    Null,
    /// An integer, and booleans as 0 and 1.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Text, and what the database writes as text.
    Text(String),
}

/// A key of a policy module's own, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// The key, 1 to 255 bytes, without the module's prefix.
    pub key: String,
    /// The value, at most 64 KiB.
    pub value: Vec<u8>,
    /// Time to live, in milliseconds, 1 or more.
    pub ttl_ms: u32,
}

/// A counter of a policy module's own, and what is added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyIncrement {
    /// The key, 1 to 255 bytes, without the module's prefix.
    pub key: String,
    /// What is added; 0 reads it.
    pub by: i64,
    /// How long the counter lives after it began, in milliseconds, 1 or more. Later increments do not prolong it.
    pub ttl_ms: u32,
}

/// Names one life of the journal of a (kind, partition): a UUIDv7, so that a later life compares greater.
/// A journal that was recreated or rewound gets a new one, which fences everything read from the old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation(pub Uuid);

impl Incarnation {
    /// A new life, greater than every one made before by this clock.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// A new life that is greater than `other` even if the clock went back.
    pub fn after(other: Self) -> Self {
        let fresh = Self::fresh();
        if fresh > other { fresh } else { Self(Uuid::from_u128(other.0.as_u128().wrapping_add(1))) }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

/// How far SQL has got with the journal of one (kind, partition). One row of `weir_checkpoint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The partition.
    pub partition: Partition,
    /// The life of the journal that `position` belongs to.
    pub incarnation: Incarnation,
    /// Raised by each new owner; an owner with a lower one commits nothing.
    pub epoch: i64,
    /// The last entry whose effect is committed.
    pub position: Position,
}

/// What waits in the journal of a kind (or of one partition).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Backlog {
    /// Changes not yet committed to SQL.
    pub entries: u64,
    /// Their size in the journal, in bytes.
    pub bytes: u64,
    /// When the oldest was accepted, in Unix milliseconds; `None` when empty or unknown.
    pub oldest_at_ms: Option<u64>,
}

impl Backlog {
    /// Age of the oldest change, in milliseconds; 0 when empty.
    pub fn oldest_age_ms(&self, now_ms: u64) -> u64 {
        self.oldest_at_ms.map_or(0, |at| now_ms.saturating_sub(at))
    }

    /// Adds what waits in another partition.
    pub fn merge(&mut self, other: &Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.oldest_at_ms = match (self.oldest_at_ms, other.oldest_at_ms) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// What a rate limit has left after an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateState {
    /// Operations still allowed at once.
    pub remaining: u32,
    /// Milliseconds until the limit is whole again.
    pub reset_ms: u64,
}

/// Whether a pair is present, and how many are on its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairState {
    /// Present for this actor; `false` where no actor was asked.
    pub active: bool,
    /// Members of the target.
    pub count: u64,
}

/// One member of a target, in a newest-first list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The actor.
    pub actor: Id,
    /// When it was added, in Unix milliseconds; 0 when unknown.
    pub since_ms: u64,
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

    #[test]
    fn a_later_incarnation_is_greater() {
        let far_future = Incarnation(Uuid::from_u128(u128::MAX - 5));
        assert!(Incarnation::after(far_future) > far_future);
        let first = Incarnation::fresh();
        assert!(Incarnation::after(first) > first);
    }
}
