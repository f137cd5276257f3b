//! What the kinds of all capabilities have in common: names, levels, tables.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, CounterTable, IngestTable, PreferenceTable, ToggleTable, value};
use crate::model::IdType;

/// Longest name of a kind, in bytes.
const KIND_BYTES_MAX: usize = 64;

/// The level that a reply waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityLevel {
    /// In the journal.
    #[default]
    Journaled,
    /// Committed in SQL.
    Stored,
}

impl DurabilityLevel {
    /// The word of replies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Journaled => "journaled",
            Self::Stored => "stored",
        }
    }
}

/// What a batch gets when its policy module fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyFailure {
    /// 503 with Retry-After.
    #[default]
    Deny,
    /// The built-in rules decide.
    BuiltIn,
}

/// The user's tables of a kind, of whatever capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KindTable {
    /// Of a toggle.
    Toggle(ToggleTable),
    /// Of a counter.
    Counter(CounterTable),
    /// Of bulk creates.
    Ingest(IngestTable),
    /// Of members' settings.
    Preference(PreferenceTable),
}

impl KindTable {
    /// Names of the tables that a flush may change.
    pub fn tables(&self) -> Vec<&str> {
        match self {
            Self::Toggle(table) => {
                let counts = table.targets.iter().map(|counts| counts.name.as_str());
                std::iter::once(table.name.as_str()).chain(counts).collect()
            }
            Self::Counter(table) => {
                let events = table.events.iter().map(|events| events.name.as_str());
                std::iter::once(table.name.as_str()).chain(events).collect()
            }
            Self::Ingest(table) => {
                let children = table.children.iter().map(|child| child.name.as_str());
                std::iter::once(table.name.as_str()).chain(children).collect()
            }
            Self::Preference(table) => vec![&table.name],
        }
    }

    /// Types of the ids of targets and of actors.
    pub fn id_types(&self) -> (IdType, IdType) {
        match self {
            Self::Toggle(table) => (table.target_type, table.actor_type),
            Self::Counter(table) => (table.target_type, table.actor_type),
            Self::Ingest(table) => (table.id_type, table.actor_type),
            Self::Preference(table) => (table.member_type, table.member_type),
        }
    }
}

/// A name in URLs.
pub(super) fn check_kind(field: &str, kind: &str) -> Result<(), ConfigError> {
    let fits = !kind.is_empty()
        && kind.len() <= KIND_BYTES_MAX
        && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits { Ok(()) } else { Err(value(field, "must be 1 to 64 lower-case letters, digits and hyphens")) }
}

/// Letters, digits and underscores, not beginning with a digit, at most 63 bytes; a table may have a schema before it.
pub(super) fn check_identifier(field: &str, given: &str, table: bool) -> Result<(), ConfigError> {
    let part_ok = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && !part.starts_with(|c: char| c.is_ascii_digit())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let parts: Vec<&str> = given.split('.').collect();
    if parts.len() <= if table { 2 } else { 1 } && parts.iter().all(|part| part_ok(part)) {
        return Ok(());
    }
    Err(value(
        field,
        format!("{given:?} is not a plain SQL name (letters, digits, underscores; tables may have a schema)"),
    ))
}
