//! `[[ingest]]`: one kind of the ingest capability, bound to the user's own tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kind::{DurabilityLevel, PolicyFailure, check_identifier, check_kind};
use super::{ConfigError, all, at_least, between, ensure, one_of, value};
use crate::model::{Id, IdType, Partition, partition_of};

/// Documents of one request at most, whatever is configured.
const DOCUMENTS_MAX_MAX: usize = 1_000;

/// One kind of the ingest capability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IngestConfig {
    /// Its name in URLs: lower-case letters, digits and hyphens.
    pub kind: String,
    /// The user's tables.
    pub table: IngestTable,
    /// Field of a document that is its id, unique in the table. Without it weir makes ids, UUIDs of version 7.
    #[serde(default)]
    pub id_field: Option<String>,
    /// Shape of a document: a JSON Schema (draft 2020-12), as text. Fields that have no column are refused besides.
    #[serde(default)]
    pub schema: Option<String>,
    /// The same in a file of its own.
    #[serde(default)]
    pub schema_file: Option<PathBuf>,
    /// Documents of one request at most.
    #[serde(default = "default_documents_max")]
    pub documents_max: usize,
    /// Size of one document, in bytes.
    #[serde(default = "default_document_bytes_max")]
    pub document_bytes_max: usize,
    /// Size of one request's body, in bytes; beyond: 413.
    #[serde(default = "default_body_bytes_max")]
    pub body_bytes_max: usize,
    /// The level that a reply waits for.
    #[serde(default)]
    pub durability: DurabilityLevel,
    /// What a batch gets when its policy module fails.
    #[serde(default)]
    pub on_policy_failure: PolicyFailure,
    /// Settings that the policy reads through its `config` import. The default rules know `flush-entries` (50) and
    /// `flush-age-ms` (500).
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// The user's tables of an ingest kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IngestTable {
    /// The table of the documents, `name` or `schema.name`.
    pub name: String,
    /// Its id column, with a unique key.
    pub id_column: String,
    /// Type of the id.
    #[serde(default = "default_id_type")]
    pub id_type: IdType,
    /// Its actor column, if it has one.
    #[serde(default)]
    pub actor_column: Option<String>,
    /// Type of the actor's id.
    pub actor_type: IdType,
    /// Its created-at column, if it has one.
    #[serde(default)]
    pub created_at_column: Option<String>,
    /// Its other columns, by the field of the document. Objects and arrays are stored as JSON text.
    pub columns: BTreeMap<String, String>,
    /// Tables of what is nested.
    #[serde(default)]
    pub children: Vec<ChildTable>,
}

/// A table that gets one row for each element of an array in the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChildTable {
    /// The field with the array.
    pub field: String,
    /// Its name, `name` or `schema.name`.
    pub name: String,
    /// Its column with the document's id.
    pub parent_column: String,
    /// Its column with the place in the array, from 1, if it has one.
    #[serde(default)]
    pub position_column: Option<String>,
    /// Its column with the element itself, where elements are no objects.
    #[serde(default)]
    pub value_column: Option<String>,
    /// Its columns by the field of the element, where elements are objects.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
}

fn default_documents_max() -> usize {
    DOCUMENTS_MAX_MAX
}

fn default_document_bytes_max() -> usize {
    64 << 10
}

fn default_body_bytes_max() -> usize {
    1 << 20
}

fn default_id_type() -> IdType {
    IdType::Uuid
}

impl IngestConfig {
    /// Kind `playlist` of the embedded demo.
    pub fn demo() -> Self {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        Self {
            kind: "playlist".into(),
            table: IngestTable {
                name: "playlist".into(),
                id_column: "id".into(),
                id_type: IdType::Uuid,
                actor_column: Some("user_id".into()),
                actor_type: IdType::Integer,
                created_at_column: Some("created_at".into()),
                columns: pairs(&[("title", "title"), ("description", "description")]),
                children: vec![ChildTable {
                    field: "tracks".into(),
                    name: "playlist_track".into(),
                    parent_column: "playlist_id".into(),
                    position_column: Some("position".into()),
                    value_column: None,
                    columns: pairs(&[("title", "title"), ("seconds", "seconds")]),
                }],
            },
            id_field: None,
            schema: Some(include_str!("playlist.schema.json").into()),
            schema_file: None,
            documents_max: default_documents_max(),
            document_bytes_max: default_document_bytes_max(),
            body_bytes_max: default_body_bytes_max(),
            durability: DurabilityLevel::Journaled,
            on_policy_failure: PolicyFailure::Deny,
            settings: BTreeMap::new(),
        }
    }

    /// The partition of the document with this id. Ids from outside are all in one, so that the same id is met again and a
    /// request's documents are accepted together; of ids that weir makes each request has its own.
    pub fn partition(&self, id: &Id, partitions: Partition) -> Partition {
        if self.id_field.is_some() { 0 } else { partition_of(id, partitions) }
    }

    /// The settings that the policy sees: what is set, and the defaults of creates.
    pub fn policy_settings(&self) -> BTreeMap<String, String> {
        let defaults = [("flush-entries", "50"), ("flush-age-ms", "500")];
        let mut settings: BTreeMap<String, String> = defaults.map(|(key, value)| (key.into(), value.into())).into();
        settings.extend(self.settings.clone());
        settings
    }

    pub(super) fn validate(&self, index: usize) -> Result<(), ConfigError> {
        let field = |name: &str| format!("ingest[{index}].{name}");
        let makes_ids = self.id_field.is_none();
        let id_column = self.id_field.as_ref().filter(|id_field| self.table.columns.contains_key(*id_field));
        all([
            check_kind(&field("kind"), &self.kind),
            between(&field("documents_max"), self.documents_max, 1, DOCUMENTS_MAX_MAX),
            at_least(&field("document_bytes_max"), self.document_bytes_max, 2),
            at_least(&field("body_bytes_max"), self.body_bytes_max, self.document_bytes_max),
            one_of(&field("schema"), self.schema.is_some(), self.schema_file.is_some()),
            ensure(
                !makes_ids || self.table.id_type == IdType::Uuid,
                field("table.id_type"),
                "ids that weir makes are UUIDs: write \"uuid\", or set id_field",
            ),
            id_column.map_or(Ok(()), |id_field| {
                Err(value(field("table.columns"), format!("{id_field:?} is the id: its column is table.id_column")))
            }),
            self.table.validate(&field),
        ])
    }

    /// A document goes to the rules whole, and may come back normalised.
    pub(super) fn validate_for_rules(&self, index: usize, bytes_max: usize) -> Result<(), ConfigError> {
        if self.document_bytes_max <= bytes_max {
            return Ok(());
        }
        let reason = format!(
            "must be at most {bytes_max}, a quarter of policy.transfer_bytes_max, or raise that (and \
             policy.memory_bytes_max with it)"
        );
        Err(value(format!("ingest[{index}].document_bytes_max"), reason))
    }
}

impl IngestTable {
    fn validate(&self, field: &dyn Fn(&str) -> String) -> Result<(), ConfigError> {
        let named = [
            ("table.id_column", Some(&self.id_column)),
            ("table.actor_column", self.actor_column.as_ref()),
            ("table.created_at_column", self.created_at_column.as_ref()),
        ];
        let named = named.into_iter().filter_map(|(name, given)| Some((name, given?)));
        let mut taken = BTreeSet::new();
        let mut found = vec![check_identifier(&field("table.name"), &self.name, true)];
        for (name, given) in named.chain(self.columns.values().map(|given| ("table.columns", given))) {
            found.push(check_identifier(&field(name), given, false));
            found.push(ensure(taken.insert(given), field(name), format!("column {given:?} is named twice")));
        }
        let mut fields: BTreeSet<&str> = self.columns.keys().map(String::as_str).collect();
        for (index, child) in self.children.iter().enumerate() {
            let of_child = |name: &str| field(&format!("table.children[{index}].{name}"));
            let reason = format!("field {:?} goes to two places", child.field);
            found.push(ensure(fields.insert(&child.field), of_child("field"), reason));
            found.push(child.validate(&of_child));
        }
        all(found)
    }
}

impl ChildTable {
    fn validate(&self, field: &dyn Fn(&str) -> String) -> Result<(), ConfigError> {
        let named = [
            ("parent_column", Some(&self.parent_column)),
            ("position_column", self.position_column.as_ref()),
            ("value_column", self.value_column.as_ref()),
        ];
        let named = named.into_iter().filter_map(|(name, given)| Some((name, given?)));
        let mut taken = BTreeSet::new();
        let mut found = vec![check_identifier(&field("name"), &self.name, true)];
        for (name, given) in named.chain(self.columns.values().map(|given| ("columns", given))) {
            found.push(check_identifier(&field(name), given, false));
            found.push(ensure(taken.insert(given), field(name), format!("column {given:?} is named twice")));
        }
        found.push(ensure(
            self.value_column.is_some() == self.columns.is_empty(),
            field("columns"),
            "give columns (elements are objects) or value_column (they are not), and not both",
        ));
        all(found)
    }
}
