//! `[[counter]]`: one kind of the counter capability, bound to a column of the user's own table.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kind::{DurabilityLevel, PolicyFailure, check_identifier, check_kind};
use super::{ConfigError, all, between};
use crate::model::IdType;

/// Greatest `by_max`: with the greatest weight, what a double holds exactly.
const BY_MAX_MAX: u32 = 1_000_000;
/// Greatest `unique_pairs_max`: 16 bytes each.
const UNIQUE_PAIRS_MAX_MAX: u64 = 100_000_000;

/// One kind of the counter capability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CounterConfig {
    /// Its name in URLs: lower-case letters, digits and hyphens.
    pub kind: String,
    /// The user's table.
    pub table: CounterTable,
    /// Greatest `by` of one request.
    #[serde(default = "default_by_max")]
    pub by_max: u32,
    /// Whether a request must say who makes it.
    #[serde(default)]
    pub actor: ActorNeed,
    /// How many (target, actor) pairs are remembered for windows of uniqueness, at 16 bytes each. With more than these
    /// within one window, those that would be forgotten first are forgotten early, and may count again.
    #[serde(default = "default_unique_pairs_max")]
    pub unique_pairs_max: u64,
    /// The level that a reply waits for.
    #[serde(default)]
    pub durability: DurabilityLevel,
    /// What a batch gets when its policy module fails.
    #[serde(default)]
    pub on_policy_failure: PolicyFailure,
    /// Settings that the policy reads through its `config` import. The default rules know `weight` (1), `unique-ms` (0: every
    /// hit counts), `limit-burst` (0: no limit), `limit-period-ms` (10000), `flush-targets` (10000) and `flush-age-ms`
    /// (60000).
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// Whether a request must say who makes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActorNeed {
    /// It may. Limits and windows of uniqueness concern only those that do.
    #[default]
    Optional,
    /// 401 without.
    Required,
}

/// The user's table of a counter kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CounterTable {
    /// Its name, `name` or `schema.name`.
    pub name: String,
    /// Its key column, with a unique key.
    pub key_column: String,
    /// Its column with the count.
    pub count_column: String,
    /// Type of the target's id.
    pub target_type: IdType,
    /// Type of the actor's id.
    pub actor_type: IdType,
    /// Table of single hits, if they are to be kept.
    #[serde(default)]
    pub events: Option<EventTable>,
}

/// A table that gets one row for each hit that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventTable {
    /// Its name, `name` or `schema.name`.
    pub name: String,
    /// Its target column.
    pub target_column: String,
    /// Its actor column; NULL where nobody is known.
    pub actor_column: String,
    /// Its created-at column, if it has one.
    #[serde(default)]
    pub created_at_column: Option<String>,
    /// Its column with what was added, if it has one.
    #[serde(default)]
    pub by_column: Option<String>,
}

fn default_by_max() -> u32 {
    1_000
}

fn default_unique_pairs_max() -> u64 {
    100_000
}

impl CounterConfig {
    /// Kind `video-view` of the embedded demo.
    pub fn demo() -> Self {
        Self {
            kind: "video-view".into(),
            table: CounterTable {
                name: "video".into(),
                key_column: "id".into(),
                count_column: "view_count".into(),
                target_type: IdType::Integer,
                actor_type: IdType::Integer,
                events: None,
            },
            by_max: default_by_max(),
            actor: ActorNeed::Optional,
            unique_pairs_max: default_unique_pairs_max(),
            durability: DurabilityLevel::Journaled,
            on_policy_failure: PolicyFailure::Deny,
            settings: BTreeMap::new(),
        }
    }

    /// The settings that the policy sees: what is set, and the defaults of counters.
    pub fn policy_settings(&self) -> BTreeMap<String, String> {
        let defaults =
            [("limit-burst", "0"), ("flush-entries", "1000000"), ("flush-targets", "10000"), ("flush-age-ms", "60000")];
        let mut settings: BTreeMap<String, String> = defaults.map(|(key, value)| (key.into(), value.into())).into();
        settings.extend(self.settings.clone());
        settings
    }

    pub(super) fn validate(&self, index: usize) -> Result<(), ConfigError> {
        let field = |name: &str| format!("counter[{index}].{name}");
        let table = &self.table;
        let mut names = vec![
            ("table.name", &table.name),
            ("table.key_column", &table.key_column),
            ("table.count_column", &table.count_column),
        ];
        if let Some(events) = &table.events {
            names.push(("table.events.name", &events.name));
            names.push(("table.events.target_column", &events.target_column));
            names.push(("table.events.actor_column", &events.actor_column));
            names.extend(events.created_at_column.as_ref().map(|name| ("table.events.created_at_column", name)));
            names.extend(events.by_column.as_ref().map(|name| ("table.events.by_column", name)));
        }
        let columns =
            names.into_iter().map(|(name, given)| check_identifier(&field(name), given, name.ends_with(".name")));
        let others = [
            check_kind(&field("kind"), &self.kind),
            between(&field("by_max"), self.by_max, 1, BY_MAX_MAX),
            between(&field("unique_pairs_max"), self.unique_pairs_max, 1, UNIQUE_PAIRS_MAX_MAX),
        ];
        all(others.into_iter().chain(columns))
    }
}
