//! `[[toggle]]`: one kind of the toggle capability, bound to the user's own tables.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kind::{DurabilityLevel, PolicyFailure, check_identifier, check_kind};
use super::{ConfigError, all, ensure};
use crate::model::IdType;

/// One kind of the toggle capability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToggleConfig {
    /// Its name in URLs: lower-case letters, digits and hyphens.
    pub kind: String,
    /// The user's tables.
    pub table: ToggleTable,
    /// Names and texts of the reply.
    #[serde(default)]
    pub response: ToggleResponse,
    /// The level that a reply waits for.
    #[serde(default)]
    pub durability: DurabilityLevel,
    /// What a batch gets when its policy module fails.
    #[serde(default)]
    pub on_policy_failure: PolicyFailure,
    /// Settings that the policy reads through its `config` import. The default rules know `limit-burst` (10),
    /// `limit-period-ms` (10000; `limit-burst` = 0 turns the limit off), `flush-entries` (100) and `flush-age-ms` (2000).
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// The user's tables of a toggle kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToggleTable {
    /// Table of the pairs, `name` or `schema.name`, with a unique key on (target, actor).
    pub name: String,
    /// Its target column.
    pub target_column: String,
    /// Its actor column.
    pub actor_column: String,
    /// Its created-at column, if it has one.
    #[serde(default)]
    pub created_at_column: Option<String>,
    /// Type of the target's id.
    pub target_type: IdType,
    /// Type of the actor's id.
    pub actor_type: IdType,
    /// Table of the targets. With it, toggles of targets that it does not hold are refused, and its count column is
    /// kept. Without it every target exists.
    #[serde(default)]
    pub targets: Option<CountTable>,
    /// Members of one target above which it is never loaded whole.
    #[serde(default = "default_huge_rows_min")]
    pub huge_rows_min: u64,
}

/// Table of the targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CountTable {
    /// Its name, `name` or `schema.name`.
    pub name: String,
    /// Its key column, with a unique key.
    pub key_column: String,
    /// Its column with the number of pairs, if it has one.
    #[serde(default)]
    pub count_column: Option<String>,
}

fn default_huge_rows_min() -> u64 {
    10_000
}

/// Names and texts of the reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ToggleResponse {
    /// Name of the boolean: is the pair present?
    pub active: String,
    /// Name of the number of pairs.
    pub count: String,
    /// `message` after the pair became or stayed present.
    pub message_active: String,
    /// `message` after it became or stayed absent.
    pub message_inactive: String,
}

impl Default for ToggleResponse {
    fn default() -> Self {
        Self {
            active: "active".into(),
            count: "count".into(),
            message_active: "added".into(),
            message_inactive: "removed".into(),
        }
    }
}

impl ToggleConfig {
    /// Kind `feed-like` of the embedded demo.
    pub fn demo() -> Self {
        Self {
            kind: "feed-like".into(),
            table: ToggleTable {
                name: "feed_like".into(),
                target_column: "feed_id".into(),
                actor_column: "user_id".into(),
                created_at_column: Some("created_at".into()),
                target_type: IdType::Integer,
                actor_type: IdType::Integer,
                targets: Some(CountTable {
                    name: "feed".into(),
                    key_column: "id".into(),
                    count_column: Some("like_count".into()),
                }),
                huge_rows_min: default_huge_rows_min(),
            },
            response: ToggleResponse {
                active: "liked".into(),
                count: "likeCount".into(),
                message_active: "Liked".into(),
                message_inactive: "Like removed".into(),
            },
            durability: DurabilityLevel::Journaled,
            on_policy_failure: PolicyFailure::Deny,
            settings: BTreeMap::new(),
        }
    }

    /// Kind `video-like` of the embedded demo.
    pub fn demo_video() -> Self {
        let demo = Self::demo();
        Self {
            kind: "video-like".into(),
            table: ToggleTable {
                name: "video_like".into(),
                target_column: "video_id".into(),
                targets: Some(CountTable {
                    name: "video".into(),
                    key_column: "id".into(),
                    count_column: Some("like_count".into()),
                }),
                ..demo.table
            },
            ..demo
        }
    }

    pub(super) fn validate(&self, index: usize) -> Result<(), ConfigError> {
        let field = |name: &str| format!("toggle[{index}].{name}");
        let table = &self.table;
        let mut names = vec![
            ("table.name", &table.name),
            ("table.target_column", &table.target_column),
            ("table.actor_column", &table.actor_column),
        ];
        names.extend(table.created_at_column.as_ref().map(|name| ("table.created_at_column", name)));
        if let Some(targets) = &table.targets {
            names.push(("table.targets.name", &targets.name));
            names.push(("table.targets.key_column", &targets.key_column));
            names.extend(targets.count_column.as_ref().map(|name| ("table.targets.count_column", name)));
        }
        let columns =
            names.into_iter().map(|(name, given)| check_identifier(&field(name), given, name.ends_with(".name")));
        let others = [
            check_kind(&field("kind"), &self.kind),
            ensure(
                self.response.active != self.response.count,
                field("response.count"),
                "must differ from response.active",
            ),
        ];
        all(others.into_iter().chain(columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_identifiers_are_refused() {
        for bad in ["x\"; drop table y;--", "", "a b", "1a", "a.b.c", "naïve", "`a`", &"a".repeat(64)] {
            let mut config = ToggleConfig::demo();
            config.table.name = bad.into();
            assert!(config.validate(0).is_err(), "{bad}");
        }
        let mut config = ToggleConfig::demo();
        config.table.name = "public.feed_like".into();
        config.validate(0).unwrap();
        config.table.actor_column = "public.user_id".into();
        assert!(config.validate(0).is_err());
    }
}
