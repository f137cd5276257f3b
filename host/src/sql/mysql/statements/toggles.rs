//! Statements of a toggle.

use super::{list, millis, path, quote, shown};
use crate::config::ToggleTable;
use crate::sql::facts::IdForm;
use crate::sql::facts::toggle::Forms;

/// The statements of one kind.
#[derive(Debug)]
pub(in crate::sql::mysql) struct Statements {
    name: String,
    target: String,
    actor: String,
    created: Option<String>,
    shown_target: String,
    shown_actor: String,
    actor_bytes: String,
    ms: String,
    sample: String,
    targets: Option<TargetNames>,
}

#[derive(Debug)]
struct TargetNames {
    name: String,
    key: String,
    shown_key: String,
    count: Option<String>,
}

impl Statements {
    /// Words the parts that do not depend on the size of a batch.
    pub fn new(table: &ToggleTable, forms: Forms) -> Self {
        let (target, actor) = (quote(&table.target_column), quote(&table.actor_column));
        let shown_actor = shown(forms.actor, &actor);
        let targets = table.targets.as_ref().zip(forms.key).map(|(targets, form)| TargetNames {
            name: path(&targets.name),
            shown_key: shown(form, &quote(&targets.key_column)),
            key: quote(&targets.key_column),
            count: targets.count_column.as_ref().map(|column| quote(column)),
        });
        Self {
            name: path(&table.name),
            created: table.created_at_column.as_ref().map(|column| quote(column)),
            shown_target: shown(forms.target, &target),
            // Bytes, because text of this engine is equal whatever spaces trail it.
            actor_bytes: format!("CAST({shown_actor} AS BINARY)"),
            shown_actor,
            ms: millis(table.created_at_column.as_ref(), forms.created),
            sample: format!("({0}, {1}), ({0}, {1})", sample(forms.target), sample(forms.actor)),
            target,
            actor,
            targets,
        }
    }

    /// Pairs, and their times: `count` × (? target, ? actor); locked when `lock`.
    pub fn pairs(&self, count: usize, lock: bool) -> String {
        format!(
            "SELECT {}, {}, {} FROM {} WHERE ({}, {}) IN ({}){}",
            self.shown_target,
            self.shown_actor,
            self.ms,
            self.name,
            self.target,
            self.actor,
            list("(?, ?)", count),
            if lock { " FOR UPDATE" } else { "" }
        )
    }

    /// Deletes pairs: `count` × (? target, ? actor).
    pub fn delete(&self, count: usize) -> String {
        format!("DELETE FROM {} WHERE ({}, {}) IN ({})", self.name, self.target, self.actor, list("(?, ?)", count))
    }

    /// Inserts pairs: `count` × (? target, ? actor[, ? time]).
    pub fn insert(&self, count: usize) -> String {
        let (column, row) = match &self.created {
            Some(created) => (format!(", {created}"), "(?, ?, ?)"),
            None => (String::new(), "(?, ?)"),
        };
        format!("INSERT INTO {} ({}, {}{column}) VALUES {}", self.name, self.target, self.actor, list(row, count))
    }

    /// Locks rows of targets in order: `count` × ? target. `None` where no count is kept.
    pub fn lock_counts(&self, count: usize) -> Option<String> {
        let TargetNames { name, key, count: Some(_), .. } = self.targets.as_ref()? else { return None };
        Some(format!("SELECT 1 FROM {name} WHERE {key} IN ({}) ORDER BY {key} FOR UPDATE", list("?", count)))
    }

    /// Adds to counts: `count` × (? target, ? delta), then `count` × ? target. `None` where no count is kept.
    pub fn counts(&self, count: usize) -> Option<String> {
        let TargetNames { name, key, count: Some(column), .. } = self.targets.as_ref()? else { return None };
        Some(format!(
            "UPDATE {name} SET {column} = GREATEST(CAST(COALESCE({column}, 0) AS SIGNED) + CASE {key}{} ELSE 0 END, 0)
             WHERE {key} IN ({})",
            " WHEN ? THEN CAST(? AS SIGNED)".repeat(count),
            list("?", count)
        ))
    }

    /// Which targets exist, and their counts: `count` × ? target. `None` where there is no table of targets.
    pub fn known(&self, count: usize) -> Option<String> {
        let TargetNames { name, key, shown_key, count: column } = self.targets.as_ref()?;
        let shown = match column {
            Some(column) => format!("CAST(COALESCE({column}, 0) AS SIGNED)"),
            None => "NULL".to_owned(),
        };
        Some(format!("SELECT {shown_key}, {shown} FROM {name} WHERE {key} IN ({})", list("?", count)))
    }

    /// Members of each of `count` targets, at most `bound` each: `count` × ? target; index, actor, time.
    pub fn members(&self, count: usize, bound: i64) -> String {
        let one = |index: usize| {
            format!(
                "(SELECT CAST({index} AS SIGNED), {}, {} FROM {} WHERE {} = ? LIMIT {bound})",
                self.shown_actor, self.ms, self.name, self.target
            )
        };
        (0..count).map(one).collect::<Vec<_>>().join(" UNION ALL ")
    }

    /// Number of members up to a bound: ? target, ? bound.
    pub fn size(&self) -> String {
        format!("SELECT COUNT(*) FROM (SELECT 1 FROM {} WHERE {} = ? LIMIT ?) AS m", self.name, self.target)
    }

    /// Exact number of members: ? target.
    pub fn total(&self) -> String {
        format!("SELECT COUNT(*) FROM {} WHERE {} = ?", self.name, self.target)
    }

    /// A page of members: ? target, three times ? time of the last one before, ? its text, ? limit. With `within`,
    /// after ? target: ? oldest, ? newer than all; an index on target and time can find them.
    pub fn page(&self, within: bool) -> String {
        let within = match &self.created {
            Some(created) if within => format!(" AND {created} >= ? AND {created} < ?"),
            _ => String::new(),
        };
        format!(
            "SELECT a, m FROM (SELECT {} AS a, {} AS m, {} AS x FROM {} WHERE {} = ?{within}) AS p
             WHERE ? IS NULL OR m < ? OR (m = ? AND x < CAST(? AS BINARY)) ORDER BY m DESC, x DESC LIMIT ?",
            self.shown_actor, self.ms, self.actor_bytes, self.name, self.target
        )
    }

    /// How old a page's last member is at most: ? target, ? time of the last one before, ? limit less one. `None`
    /// where there are no times.
    pub fn page_start(&self) -> Option<String> {
        let Self { ms, name, target, .. } = self;
        let created = self.created.as_ref()?;
        Some(format!(
            "SELECT {ms} FROM {name} WHERE {target} = ? AND {created} < ? ORDER BY {created} DESC LIMIT 1 OFFSET ?"
        ))
    }

    /// The plan of the bulk delete, as a table: of what both engines have in JSON, MySQL's newer form says nothing of a DELETE.
    pub fn delete_plan(&self) -> String {
        format!(
            "EXPLAIN FORMAT=TRADITIONAL DELETE FROM {} WHERE ({}, {}) IN ({})",
            self.name, self.target, self.actor, self.sample
        )
    }
}

/// Any id, for a plan.
fn sample(form: IdForm) -> &'static str {
    match form {
        IdForm::Integer => "1",
        IdForm::UuidBytes => "x'00000000000000000000000000000000'",
        IdForm::Uuid | IdForm::UuidText => "'00000000-0000-0000-0000-000000000000'",
        IdForm::Text => "'a'",
    }
}
