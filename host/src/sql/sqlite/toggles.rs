//! Toggles: the plan of their tables, what is loaded of them, and how they are stored.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};

use super::SqliteSql;
use super::catalogue::{read_both, read_skipping, read_surroundings};
use super::read::{indexed, json_id, json_time, load, page, read_id, read_known, read_sizes};
use super::statements::toggles::Statements;
use super::statements::words::SqliteWords;
use super::write::SqliteFlight;
use crate::config::ToggleTable;
use crate::model::{Action, Id, Member};
use crate::sql::access::sqlite_scans;
use crate::sql::classify::sql_error;
use crate::sql::effect::{all_counted, pairs_left};
use crate::sql::explain::explanation;
use crate::sql::facts::toggle::{Forms, check, forms};
use crate::sql::facts::{Known, look};
use crate::sql::finding::{Problem, Remedy, refuse};
use crate::sql::flight::Effect;
use crate::sql::lease::leased;
use crate::sql::rows::{Deltas, check_types, split, unsigned};
use crate::sql::{Finding, Row, RowChange, SqlError, TargetRow};

/// Targets whose members are loaded by one statement.
const TARGETS_PER_LOAD: usize = 256;

/// What is prepared per kind.
pub(super) struct Plan {
    /// Its tables.
    pub table: ToggleTable,
    /// The forms of their columns.
    pub forms: Forms,
    /// Its statements.
    pub statements: Statements,
}

impl SqliteSql {
    /// What is prepared for the tables, prepared now if need be.
    pub(super) async fn toggle_plan(&self, table: &ToggleTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.toggles.get(table) {
            return Ok(plan);
        }
        let (pairs, targets) = leased!(self.lease().await?, |connection| read_both(connection, table))?;
        let forms = forms(&SqliteWords, table, pairs.as_ref(), targets.as_ref())?;
        let statements = Statements::new(table, forms);
        Ok(self.toggles.put(table, Plan { table: table.clone(), forms, statements }))
    }

    /// See [`crate::sql::Sql::check_table`].
    pub(super) async fn check_toggle(&self, table: &ToggleTable) -> Result<Vec<Finding>, SqlError> {
        self.toggles.forget(table);
        let (mut pairs, mut targets) = leased!(self.lease().await?, |connection| async {
            let (mut pairs, targets) = read_both(connection, table).await?;
            read_surroundings(connection, &table.name, pairs.as_mut()).await?;
            Ok((pairs, targets))
        })?;
        look::toggle(self, &SqliteWords, table, &mut pairs, &mut targets).await?;
        let known = Known::Listed(&self.settings.acknowledged);
        let mut findings = check(&SqliteWords, table, pairs.as_ref(), targets.as_ref(), known);
        if findings.iter().all(|finding| finding.warning) {
            findings.extend(self.check_plan(table).await?);
        }
        Ok(findings)
    }

    /// Whether the bulk delete uses the unique key.
    async fn check_plan(&self, table: &ToggleTable) -> Result<Option<Finding>, SqlError> {
        let plan = self.toggle_plan(table).await?;
        let steps: Vec<String> = leased!(self.lease().await?, |connection| async {
            let query = sqlx::query(AssertSqlSafe(plan.statements.delete_plan())).bind("[]");
            let rows = query.fetch_all(connection).await?;
            rows.iter().map(|row| row.try_get_unchecked(3)).collect()
        })?;
        let name = table.name.rsplit('.').next().unwrap_or(&table.name);
        Ok(sqlite_scans(&steps, name).map(|scan| {
            refuse(
                Problem::Scan,
                format!("the bulk delete from {} does not use its unique key: {scan}", table.name),
                Remedy::words("run ANALYZE, and compare the column types with the id types in weir.toml"),
            )
        }))
    }

    /// See [`crate::sql::Sql::load_targets`].
    pub(super) async fn toggle_targets(
        &self,
        table: &ToggleTable,
        targets: &[Id],
        huge_rows_min: u64,
    ) -> Result<Vec<TargetRow>, SqlError> {
        check_types(&table.name, (table.target_type, table.actor_type), targets, [])?;
        let plan = self.toggle_plan(table).await?;
        let mut loaded = Vec::with_capacity(targets.len());
        let mut lease = self.lease().await?;
        for part in targets.chunks(TARGETS_PER_LOAD) {
            let rows = load(lease.connection(), &plan, part, huge_rows_min).await.map_err(sql_error);
            loaded.extend(self.toggles.heed(table, rows)?);
        }
        lease.give_back();
        Ok(loaded)
    }

    /// See [`crate::sql::Sql::load_pairs`].
    pub(super) async fn toggle_pairs(
        &self,
        table: &ToggleTable,
        pairs: &[(Id, Id)],
    ) -> Result<Vec<Option<u64>>, SqlError> {
        check_types(
            &table.name,
            (table.target_type, table.actor_type),
            pairs.iter().map(|(target, _)| target),
            pairs.iter().map(|(_, actor)| actor),
        )?;
        let plan = self.toggle_plan(table).await?;
        let forms = plan.forms;
        let list: Vec<Value> =
            pairs.iter().map(|(t, a)| json!([json_id(t, forms.target), json_id(a, forms.actor)])).collect();
        let rows = leased!(self.lease().await?, |connection| {
            sqlx::query(AssertSqlSafe(plan.statements.pairs.clone()))
                .bind(Value::from(list).to_string())
                .fetch_all(connection)
        });
        let mut found = vec![None; pairs.len()];
        for row in self.toggles.heed(table, rows)? {
            let (index, at) = indexed(&row).map_err(sql_error)?;
            if let Some(slot) = found.get_mut(index) {
                *slot = Some(at);
            }
        }
        Ok(found)
    }

    /// See [`crate::sql::Sql::load_members`].
    pub(super) async fn toggle_members(
        &self,
        table: &ToggleTable,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Vec<Member>, SqlError> {
        check_types(&table.name, (table.target_type, table.actor_type), [target], before.map(|member| &member.actor))?;
        let plan = self.toggle_plan(table).await?;
        let forms = plan.forms;
        let rows = leased!(self.lease().await?, |connection| page(connection, &plan, target, before, limit));
        let rows = self.toggles.heed(table, rows)?;
        let members = rows.iter().map(|row| {
            Ok(Member { actor: read_id(row, 0, forms.actor)?, since_ms: unsigned(row.try_get_unchecked(1)?) })
        });
        members.collect::<Result<_, sqlx::Error>>().map_err(sql_error)
    }

    /// See [`crate::sql::Sql::explain`].
    pub(super) async fn explain_toggle(
        &self,
        table: &ToggleTable,
        target: &Id,
        actor: Option<&Id>,
    ) -> Result<Value, SqlError> {
        let pair: Vec<(Id, Id)> = actor.iter().map(|actor| (target.clone(), (*actor).clone())).collect();
        let at = self.toggle_pairs(table, &pair).await?;
        let plan = self.toggle_plan(table).await?;
        let (known, size) = leased!(self.lease().await?, |connection| async {
            let list = std::slice::from_ref(target);
            let known = read_known(connection, &plan, list).await?;
            let sizes = read_sizes(connection, &plan, list, table.huge_rows_min).await?;
            Ok((known, sizes.first().copied().unwrap_or(0)))
        })?;
        Ok(explanation(at.first().copied().flatten(), target, known.as_ref(), size, table))
    }
}

impl SqliteFlight<'_> {
    /// Deletes, inserts, and counts what was really changed.
    pub(super) async fn store_toggles(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let (removes, adds) = split(rows);
        let mut deltas = Deltas::default();
        let mut effect = Effect::default();
        if !removes.is_empty() {
            effect.deleted = self.change(plan, &plan.statements.delete, &removes, -1, &mut deltas).await?;
            if effect.deleted < removes.len() as u64 && self.may_skip(plan).await? {
                let there = self.pairs_there(plan, &removes).await?;
                effect.dead.extend(pairs_left(&plan.table.name, rows, Action::Remove, &there));
            }
        }
        if !adds.is_empty() {
            effect.inserted = self.change(plan, &plan.statements.insert, &adds, 1, &mut deltas).await?;
            if effect.inserted < adds.len() as u64 && self.may_skip(plan).await? {
                let there = self.pairs_there(plan, &adds).await?;
                effect.dead.extend(pairs_left(&plan.table.name, rows, Action::Add, &there));
            }
        }
        let (targets, changes) = deltas.changed();
        if let (Some(key), false, false) = (plan.forms.key, plan.statements.counts.is_empty(), targets.is_empty()) {
            self.statements += 1;
            let list: Vec<Value> = targets.iter().zip(&changes).map(|(id, by)| json!([json_id(id, key), by])).collect();
            let query = sqlx::query(AssertSqlSafe(plan.statements.counts.clone())).bind(Value::from(list).to_string());
            let counted = query.execute(&mut *self.connection).await?.rows_affected();
            if counted < targets.len() as u64 {
                self.statements += 1;
                let ids: Vec<Id> = targets.iter().map(|target| (*target).clone()).collect();
                let known = read_known(self.connection, plan, &ids).await?;
                all_counted(&plan.table, counted, &targets, &changes, known.as_ref())?;
            }
        }
        Ok(effect)
    }

    /// Whether there are triggers that may have discarded a row.
    async fn may_skip(&mut self, plan: &Plan) -> Result<bool, sqlx::Error> {
        self.statements += 1;
        Ok(!read_skipping(self.connection, &plan.table.name).await?.is_empty())
    }

    /// Those of the pairs that are there.
    async fn pairs_there(&mut self, plan: &Plan, rows: &[&RowChange]) -> Result<HashSet<(Id, Id)>, sqlx::Error> {
        self.statements += 1;
        let forms = plan.forms;
        let pair = |row: &&RowChange| json!([json_id(&row.target, forms.target), json_id(&row.actor, forms.actor)]);
        let list: Vec<Value> = rows.iter().map(pair).collect();
        let query = sqlx::query(AssertSqlSafe(plan.statements.pairs.clone())).bind(Value::from(list).to_string());
        let mut there = HashSet::new();
        for row in &query.fetch_all(&mut *self.connection).await? {
            let (index, _) = indexed(row)?;
            there.extend(rows.get(index).map(|row| (row.target.clone(), row.actor.clone())));
        }
        Ok(there)
    }

    /// Deletes or inserts, adding `by` to the delta of each row that it really changed; how many that were.
    async fn change(
        &mut self,
        plan: &Plan,
        text: &Arc<str>,
        rows: &[&RowChange],
        by: i64,
        deltas: &mut Deltas,
    ) -> Result<u64, sqlx::Error> {
        self.statements += 1;
        let forms = plan.forms;
        let list: Vec<Value> = rows
            .iter()
            .map(|row| {
                let (target, actor) = (json_id(&row.target, forms.target), json_id(&row.actor, forms.actor));
                match forms.created {
                    None => json!([target, actor]),
                    Some(form) => json!([target, actor, json_time(row.origin.at_ms, form)]),
                }
            })
            .collect();
        let query = sqlx::query(AssertSqlSafe(Arc::clone(text))).bind(Value::from(list).to_string());
        let changed = query.fetch_all(&mut *self.connection).await?;
        for row in &changed {
            deltas.add(read_id(row, 0, forms.target)?, by);
        }
        Ok(changed.len() as u64)
    }
}
