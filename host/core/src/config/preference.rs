//! `[[preference]]`: one kind of the preference capability, bound to columns of the user's own table.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kind::{DurabilityLevel, PolicyFailure, check_identifier, check_kind};
use super::{ConfigError, all, at_least, between, ensure, value};
use crate::model::{IdType, SETTING_TEXT_BYTES_MAX, Setting, SettingType};

/// Most fields of a kind.
const FIELDS_MAX: usize = 64;
/// Most `chunk_members`: what one chunk may hold everything else up.
const CHUNK_MEMBERS_MAX: usize = 10_000;
/// Longest name of a topic, in bytes.
const TOPIC_BYTES_MAX: usize = 64;

/// One kind of the preference capability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreferenceConfig {
    /// Its name in URLs: lower-case letters, digits and hyphens.
    pub kind: String,
    /// The user's table.
    pub table: PreferenceTable,
    /// What can be looked up, and the fields that each topic needs. The rules see it as the setting `topic:<name>`.
    pub topics: BTreeMap<String, Vec<String>>,
    /// Members in one look-up that is not streamed; beyond: 413.
    #[serde(default = "default_lookup_members_max")]
    pub lookup_members_max: usize,
    /// Size of the body of such a look-up, in bytes; beyond: 413. All look-ups of the kind together hold at most eight of
    /// that size; beyond: 503 with Retry-After.
    #[serde(default = "default_lookup_body_bytes_max")]
    pub lookup_body_bytes_max: usize,
    /// Members that are fetched, and judged, together.
    #[serde(default = "default_chunk_members")]
    pub chunk_members: usize,
    /// Chunks of one look-up that are under way at once.
    #[serde(default = "default_chunks_in_flight")]
    pub chunks_in_flight: usize,
    /// Streamed look-ups at once; a further one is answered 503 with Retry-After.
    #[serde(default = "default_streams_max")]
    pub streams_max: usize,
    /// How long this host answers from what it has fetched, in milliseconds; 0: it does not, but look-ups at the same time
    /// still share their fetches. What is written through this host is seen by it at once, what is written through another
    /// after so long at most.
    #[serde(default = "default_share_ms")]
    pub share_ms: u64,
    /// Members of which this host keeps what it has fetched; beyond, it is not kept.
    #[serde(default = "default_near_entries_max")]
    pub near_entries_max: usize,
    /// Who may write the settings of a member.
    #[serde(default)]
    pub writes: WriteRights,
    /// What a look-up says of members that must be read from SQL while SQL does not answer.
    #[serde(default)]
    pub on_sql_failure: LookupFallback,
    /// Whether a look-up asks SQL for members of which the store does not answer. SQL does not have what waits in the journal.
    #[serde(default)]
    pub on_store_failure: StoreFallback,
    /// The level that a reply waits for.
    #[serde(default)]
    pub durability: DurabilityLevel,
    /// What a chunk gets when its policy module fails.
    #[serde(default)]
    pub on_policy_failure: PolicyFailure,
    /// Settings that the policy reads through its `config` import. The default rules know `quiet-from-field` and
    /// `quiet-until-field` (`quiet_from`, `quiet_until`: minutes of the day in UTC), `version-field` (`app_version`),
    /// `version-min` (empty: every version), `flush-entries` (1000) and `flush-age-ms` (2000).
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// Who may write the settings of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WriteRights {
    /// The member itself: the actor has its id. Others are answered 403.
    #[default]
    Own,
    /// Every actor.
    Any,
}

/// What a look-up says of members that cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LookupFallback {
    /// Each is named among the errors.
    #[default]
    Error,
    /// Each has the defaults of the kind.
    Default,
}

/// What a look-up does when the store does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreFallback {
    /// Each member is named among the errors.
    #[default]
    Error,
    /// SQL is asked.
    Sql,
}

/// The user's table of a preference kind: one row for each member that has ever set something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreferenceTable {
    /// Its name, `name` or `schema.name`.
    pub name: String,
    /// Its member column, with a unique key.
    pub member_column: String,
    /// Type of the member's id; also of the actor's.
    pub member_type: IdType,
    /// The settings.
    pub fields: Vec<FieldConfig>,
    /// The table of the members. Without it every member exists, and has the defaults where it has no row.
    #[serde(default)]
    pub members: Option<MemberTable>,
}

/// The table that says which members exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberTable {
    /// Its name, `name` or `schema.name`.
    pub name: String,
    /// Its key column.
    pub key_column: String,
}

/// One setting of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldConfig {
    /// Its name in requests and for the rules.
    pub name: String,
    /// Its column.
    pub column: String,
    /// Type of its values.
    #[serde(rename = "type")]
    pub field_type: SettingType,
    /// What holds where a member has no row, or NULL in it.
    pub default: Setting,
}

fn default_lookup_members_max() -> usize {
    100_000
}

fn default_lookup_body_bytes_max() -> usize {
    8 << 20
}

fn default_chunk_members() -> usize {
    2_000
}

fn default_chunks_in_flight() -> usize {
    8
}

fn default_streams_max() -> usize {
    16
}

fn default_share_ms() -> u64 {
    50
}

fn default_near_entries_max() -> usize {
    100_000
}

impl PreferenceTable {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&FieldConfig> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl PreferenceConfig {
    /// Kind `notification` of the embedded demo.
    pub fn demo() -> Self {
        let field = |name: &str, default: Setting| FieldConfig {
            name: name.into(),
            column: name.into(),
            field_type: default.setting_type(),
            default,
        };
        let topic = |name: &str| {
            let needs = ["enabled", name, "quiet_from", "quiet_until", "app_version"];
            (name.to_owned(), needs.map(ToOwned::to_owned).to_vec())
        };
        Self {
            kind: "notification".into(),
            table: PreferenceTable {
                name: "notification_setting".into(),
                member_column: "member_id".into(),
                member_type: IdType::Integer,
                fields: vec![
                    field("enabled", Setting::Bool(true)),
                    field("social", Setting::Bool(true)),
                    field("event", Setting::Bool(true)),
                    field("marketing", Setting::Bool(false)),
                    field("quiet_from", Setting::Int(0)),
                    field("quiet_until", Setting::Int(0)),
                    field("app_version", Setting::Text("".into())),
                ],
                members: None,
            },
            topics: ["social", "event", "marketing"].map(topic).into(),
            lookup_members_max: default_lookup_members_max(),
            lookup_body_bytes_max: default_lookup_body_bytes_max(),
            chunk_members: default_chunk_members(),
            chunks_in_flight: default_chunks_in_flight(),
            streams_max: default_streams_max(),
            share_ms: default_share_ms(),
            near_entries_max: default_near_entries_max(),
            writes: WriteRights::Own,
            on_sql_failure: LookupFallback::Error,
            on_store_failure: StoreFallback::Error,
            durability: DurabilityLevel::Journaled,
            on_policy_failure: PolicyFailure::Deny,
            settings: BTreeMap::new(),
        }
    }

    /// The settings that the policy sees: what is set, the topics, and the defaults of preferences.
    pub fn policy_settings(&self) -> BTreeMap<String, String> {
        let defaults = [("flush-entries", "1000"), ("flush-age-ms", "2000")];
        let mut settings: BTreeMap<String, String> = defaults.map(|(key, value)| (key.into(), value.into())).into();
        settings.extend(self.topics.iter().map(|(topic, fields)| (format!("topic:{topic}"), fields.join(","))));
        settings.extend(self.settings.clone());
        settings
    }

    pub(super) fn validate(&self, index: usize) -> Result<(), ConfigError> {
        let field = |name: &str| format!("preference[{index}].{name}");
        let table = &self.table;
        let mut found = vec![
            check_kind(&field("kind"), &self.kind),
            at_least(&field("lookup_members_max"), self.lookup_members_max, 1),
            at_least(&field("lookup_body_bytes_max"), self.lookup_body_bytes_max, 1),
            between(&field("chunk_members"), self.chunk_members, 1, CHUNK_MEMBERS_MAX),
            at_least(&field("chunks_in_flight"), self.chunks_in_flight, 1),
            at_least(&field("streams_max"), self.streams_max, 1),
            check_identifier(&field("table.name"), &table.name, true),
            check_identifier(&field("table.member_column"), &table.member_column, false),
        ];
        if let Some(members) = &table.members {
            found.push(check_identifier(&field("table.members.name"), &members.name, true));
            found.push(check_identifier(&field("table.members.key_column"), &members.key_column, false));
        }
        found.push(self.validate_fields(&field));
        let has_topics = !self.topics.is_empty();
        found.push(ensure(has_topics, field("topics"), "name at least one topic and the fields that it needs"));
        for (topic, needs) in &self.topics {
            let fits = (1..=TOPIC_BYTES_MAX).contains(&topic.len());
            found.push(ensure(fits, field("topics"), format!("{topic:?} must have 1 to {TOPIC_BYTES_MAX} bytes")));
            let unknown = needs.iter().filter(|name| table.field(name).is_none());
            found.extend(unknown.map(|unknown| {
                Err(value(field(&format!("topics.{topic}")), format!("{unknown:?} is none of table.fields")))
            }));
        }
        all(found)
    }

    fn validate_fields(&self, field: &impl Fn(&str) -> String) -> Result<(), ConfigError> {
        let table = &self.table;
        let fits = (1..=FIELDS_MAX).contains(&table.fields.len());
        let mut found = vec![ensure(fits, field("table.fields"), format!("must have 1 to {FIELDS_MAX} fields"))];
        let (mut names, mut columns) = (BTreeSet::new(), BTreeSet::from([&table.member_column]));
        for (place, given) in table.fields.iter().enumerate() {
            let of = |name: &str| field(&format!("table.fields[{place}].{name}"));
            let is_new = names.insert(&given.name) & columns.insert(&given.column);
            let has_type = given.default.setting_type() == given.field_type;
            let is_long = matches!(&given.default, Setting::Text(text) if text.len() > SETTING_TEXT_BYTES_MAX || text.contains('\0'));
            found.extend([
                check_identifier(&of("name"), &given.name, false),
                check_identifier(&of("column"), &given.column, false),
                ensure(is_new, of("name"), "each name and each column may be there once"),
                ensure(has_type, of("default"), format!("must be of type {}", given.field_type.as_str())),
                ensure(!is_long, of("default"), format!("must be text of at most {SETTING_TEXT_BYTES_MAX} bytes")),
            ]);
        }
        all(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_defaults_must_fit_the_fields() {
        let wrong = |change: fn(&mut PreferenceConfig)| {
            let mut config = PreferenceConfig::demo();
            change(&mut config);
            config.validate(0).unwrap_err().to_string()
        };
        PreferenceConfig::demo().validate(0).unwrap();
        assert!(wrong(|c| drop(c.topics.insert("new".into(), vec!["nothing".into()]))).contains("topics.new"));
        assert!(wrong(|c| c.table.fields[0].default = Setting::Int(1)).contains("fields[0].default"));
        assert!(wrong(|c| c.table.fields[1].column = "enabled".into()).contains("once"));
        assert!(wrong(|c| c.topics.clear()).contains("at least one topic"));
        assert!(wrong(|c| c.chunk_members = 0).contains("chunk_members"));
    }

    #[test]
    fn the_rules_see_the_topics() {
        let settings = PreferenceConfig::demo().policy_settings();
        assert_eq!(settings["topic:social"], "enabled,social,quiet_from,quiet_until,app_version");
        assert_eq!(settings["flush-entries"], "1000");
    }
}
