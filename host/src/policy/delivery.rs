//! Who gets a push: which fields a topic needs, and what holds of many members at once.

use std::sync::Arc;

use weir_default_policy::delivery as rules;

use super::{Policies, PolicyError};
use crate::model::{Digest, SettingColumn, SettingValues};

impl Policies {
    /// The fields that a topic needs; none where the rules know no such topic.
    ///
    /// # Errors
    /// What the module did, and that nobody stands in for it.
    pub async fn delivery_fields(self: &Arc<Self>, kind: &str, topic: &str) -> Result<Vec<String>, PolicyError> {
        Ok(self.builtin_fields(kind, topic))
    }

    /// Whether each of so many members gets a push on `topic`: as many answers as there are members. `columns` have the
    /// fields of [`Policies::delivery_fields`], a value for each member.
    ///
    /// # Errors
    /// See [`Policies::delivery_fields`].
    pub async fn deliver(
        self: &Arc<Self>,
        kind: &str,
        _topic: &str,
        now_ms: u64,
        members: usize,
        columns: &[SettingColumn],
    ) -> Result<Vec<bool>, PolicyError> {
        Ok(self.builtin_enabled(kind, now_ms, members, columns))
    }

    /// The module whose rules hold for preferences now.
    pub fn delivery_digest(&self) -> Digest {
        self.builtin_digest
    }

    fn builtin_fields(&self, kind: &str, topic: &str) -> Vec<String> {
        let known = self.kinds.get(kind).and_then(|kind| kind.topics.get(topic));
        rules::fields(known.map(String::as_str))
    }

    fn builtin_enabled(&self, kind: &str, now_ms: u64, members: usize, columns: &[SettingColumn]) -> Vec<bool> {
        let Some(kind) = self.kinds.get(kind) else { return vec![false; members] };
        let columns: Vec<rules::Column<'_>> = columns.iter().map(column).collect();
        rules::enabled(&kind.delivery, now_ms, members, &columns)
    }
}

/// A column as the built-in rules take it.
fn column(column: &SettingColumn) -> rules::Column<'_> {
    let values = match &column.values {
        SettingValues::Bools(values) => rules::Values::Bools(values),
        SettingValues::Ints(values) => rules::Values::Ints(values),
        SettingValues::Texts(values) => rules::Values::Texts(values.iter().map(|text| &**text).collect()),
    };
    rules::Column { field: &column.field, values }
}
