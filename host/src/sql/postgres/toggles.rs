//! Toggles: the plan of their tables, what is loaded of them, and how they are stored.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _};

use super::PostgresSql;
use super::catalogue::{read_both, read_surroundings};
use super::read::{bind_ids, bind_times, load, ordinal, page, read_id, read_known, read_size};
use super::statements;
use super::statements::toggles::Statements;
use super::statements::words::PostgresWords;
use super::write::PostgresFlight;
use crate::config::ToggleTable;
use crate::model::{Action, Id, Member};
use crate::sql::access::postgres_scans;
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
/// Pairs that are looked up by one statement.
const PAIRS_PER_LOAD: usize = 10_000;

/// What is prepared per kind.
pub(super) struct Plan {
    /// Its tables.
    pub table: ToggleTable,
    /// The forms of their columns.
    pub forms: Forms,
    /// Its statements.
    pub statements: Statements,
}

impl PostgresSql {
    /// What is prepared for the tables, prepared now if need be.
    pub(super) async fn toggle_plan(&self, table: &ToggleTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.toggles.get(table) {
            return Ok(plan);
        }
        let (pairs, targets) = leased!(self.lease().await?, |connection| read_both(connection, table))?;
        let forms = forms(&PostgresWords, table, pairs.as_ref(), targets.as_ref())?;
        let statements = Statements::new(table, forms);
        Ok(self.toggles.put(table, Plan { table: table.clone(), forms, statements }))
    }

    /// See [`crate::sql::Sql::check_table`].
    pub(super) async fn check_toggle(&self, table: &ToggleTable) -> Result<Vec<Finding>, SqlError> {
        self.toggles.forget(table);
        let (mut pairs, mut targets) = leased!(self.lease().await?, |connection| async {
            let (mut pairs, mut targets) = read_both(connection, table).await?;
            read_surroundings(connection, &table.name, pairs.as_mut()).await?;
            if let Some(given) = &table.targets {
                read_surroundings(connection, &given.name, targets.as_mut()).await?;
            }
            Ok((pairs, targets))
        })?;
        look::toggle(self, &PostgresWords, table, &mut pairs, &mut targets).await?;
        let known = Known::Listed(&self.settings.acknowledged);
        let mut findings = check(&PostgresWords, table, pairs.as_ref(), targets.as_ref(), known);
        if findings.iter().all(|finding| finding.warning) {
            findings.extend(self.check_plan(table).await?);
        }
        Ok(findings)
    }

    /// Whether the bulk delete can use the unique key.
    async fn check_plan(&self, table: &ToggleTable) -> Result<Option<Finding>, SqlError> {
        let plan = self.toggle_plan(table).await?;
        let steps: String = leased!(self.lease().await?, |connection| async {
            sqlx::raw_sql(statements::PLAN_BEGIN).execute(&mut *connection).await?;
            let query = sqlx::query(AssertSqlSafe(plan.statements.delete_plan.clone()));
            let query = bind_ids(bind_ids(query, plan.forms.target, []), plan.forms.actor, []);
            // JSON goes over the wire as its text.
            let steps = query.fetch_one(&mut *connection).await?.try_get_unchecked(0)?;
            sqlx::raw_sql(statements::ROLLBACK).execute(&mut *connection).await?;
            Ok(steps)
        })?;
        let steps: Value = serde_json::from_str(&steps).unwrap_or_default();
        Ok(postgres_scans(&steps).map(|scan| {
            refuse(
                Problem::Scan,
                format!("the bulk delete from {} cannot use its unique key: {scan}", table.name),
                Remedy::words("compare the column types with the id types in weir.toml"),
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
        for part in targets.chunks(TARGETS_PER_LOAD) {
            let rows = leased!(self.lease().await?, |connection| load(connection, &plan, part, huge_rows_min));
            loaded.extend(self.toggles.heed(table, rows)?);
        }
        Ok(loaded)
    }

    /// See [`crate::sql::Sql::load_pairs`].
    pub(super) async fn toggle_pairs(
        &self,
        table: &ToggleTable,
        pairs: &[(Id, Id)],
    ) -> Result<Vec<Option<u64>>, SqlError> {
        let types = (table.target_type, table.actor_type);
        check_types(&table.name, types, pairs.iter().map(|(target, _)| target), pairs.iter().map(|(_, actor)| actor))?;
        let plan = self.toggle_plan(table).await?;
        let mut found = Vec::with_capacity(pairs.len());
        for part in pairs.chunks(PAIRS_PER_LOAD) {
            let query = sqlx::query(AssertSqlSafe(plan.statements.pairs.clone()));
            let query = bind_ids(query, plan.forms.target, part.iter().map(|(target, _)| target));
            let query = bind_ids(query, plan.forms.actor, part.iter().map(|(_, actor)| actor));
            let rows = leased!(self.lease().await?, |connection| query.fetch_all(connection));
            let start = found.len();
            found.resize(start + part.len(), None);
            for row in &self.toggles.heed(table, rows)? {
                if let Some(slot) = found.get_mut(start + ordinal(row).map_err(sql_error)?) {
                    *slot = Some(unsigned(row.try_get(1).map_err(sql_error)?));
                }
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
        let types = (table.target_type, table.actor_type);
        check_types(&table.name, types, [target], before.map(|member| &member.actor))?;
        let plan = self.toggle_plan(table).await?;
        let rows = leased!(self.lease().await?, |connection| page(connection, &plan, target, before, limit));
        let rows = self.toggles.heed(table, rows)?;
        let members = rows
            .iter()
            .map(|row| Ok(Member { actor: read_id(row, 0, plan.forms.actor)?, since_ms: unsigned(row.try_get(1)?) }));
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
            let known = read_known(connection, &plan, std::slice::from_ref(target)).await?;
            Ok((known, read_size(connection, &plan, target, table.huge_rows_min).await?))
        })?;
        Ok(explanation(at.first().copied().flatten(), target, known.as_ref(), size, table))
    }
}

/// What a statement did to pairs.
struct Changed {
    /// Pairs that it really changed.
    rows: u64,
    /// Whether there are triggers that may have discarded others.
    may_skip: bool,
}

impl PostgresFlight<'_> {
    /// Deletes, inserts, and counts what was really changed.
    pub(super) async fn store_toggles(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let (removes, adds) = split(rows);
        let mut deltas = Deltas::default();
        let mut effect = Effect::default();
        if !removes.is_empty() {
            let text = &plan.statements.delete;
            let Changed { rows: deleted, may_skip } = self.change(plan, text, &removes, -1, &mut deltas).await?;
            effect.deleted = deleted;
            if may_skip && deleted < removes.len() as u64 {
                let there = self.pairs_there(plan, &removes).await?;
                effect.dead.extend(pairs_left(&plan.table.name, rows, Action::Remove, &there));
            }
        }
        if !adds.is_empty() {
            let text = &plan.statements.insert;
            let Changed { rows: inserted, may_skip } = self.change(plan, text, &adds, 1, &mut deltas).await?;
            effect.inserted = inserted;
            if may_skip && inserted < adds.len() as u64 {
                let there = self.pairs_there(plan, &adds).await?;
                effect.dead.extend(pairs_left(&plan.table.name, rows, Action::Add, &there));
            }
        }
        let (targets, changes) = deltas.changed();
        if let (Some(key), false, false) = (plan.forms.key, plan.statements.counts.is_empty(), targets.is_empty()) {
            if targets.len() > 1 {
                self.statements += 1;
                let lock = sqlx::query(AssertSqlSafe(plan.statements.lock_counts.clone()));
                bind_ids(lock, key, targets.iter().copied()).execute(&mut *self.connection).await?;
            }
            self.statements += 1;
            let query =
                bind_ids(sqlx::query(AssertSqlSafe(plan.statements.counts.clone())), key, targets.iter().copied());
            let counted = query.bind(&changes).execute(&mut *self.connection).await?.rows_affected();
            if counted < targets.len() as u64 {
                self.check_counts(plan, counted, &targets, &changes).await?;
            }
        }
        Ok(effect)
    }

    /// Whether those that were not counted are not there.
    async fn check_counts(
        &mut self,
        plan: &Plan,
        counted: u64,
        targets: &[&Id],
        changes: &[i64],
    ) -> Result<(), sqlx::Error> {
        self.statements += 1;
        let ids: Vec<Id> = targets.iter().map(|target| (*target).clone()).collect();
        let known = read_known(self.connection, plan, &ids).await?;
        all_counted(&plan.table, counted, targets, changes, known.as_ref())
    }

    /// Those of the pairs that are there.
    async fn pairs_there(&mut self, plan: &Plan, rows: &[&RowChange]) -> Result<HashSet<(Id, Id)>, sqlx::Error> {
        self.statements += 1;
        let forms = plan.forms;
        let query = sqlx::query(AssertSqlSafe(plan.statements.pairs.clone()));
        let query = bind_ids(query, forms.target, rows.iter().map(|row| &row.target));
        let query = bind_ids(query, forms.actor, rows.iter().map(|row| &row.actor));
        let mut there = HashSet::new();
        for row in &query.fetch_all(&mut *self.connection).await? {
            let index = usize::try_from(row.try_get::<i64, _>(0)? - 1).unwrap_or(usize::MAX);
            there.extend(rows.get(index).map(|row| (row.target.clone(), row.actor.clone())));
        }
        Ok(there)
    }

    /// Deletes or inserts, adding `by` to the delta of each row that it really changed.
    async fn change(
        &mut self,
        plan: &Plan,
        text: &Arc<str>,
        rows: &[&RowChange],
        by: i64,
        deltas: &mut Deltas,
    ) -> Result<Changed, sqlx::Error> {
        self.statements += 1;
        let forms = plan.forms;
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(text)));
        query = bind_ids(query, forms.target, rows.iter().map(|row| &row.target));
        query = bind_ids(query, forms.actor, rows.iter().map(|row| &row.actor));
        if let (Some(form), true) = (forms.created, by > 0) {
            query = bind_times(query, form, rows.iter().map(|row| row.origin.at_ms));
        }
        // Where nothing was changed, nobody says whether there are triggers.
        let mut changed = Changed { rows: 0, may_skip: true };
        for row in &query.fetch_all(&mut *self.connection).await? {
            let count: i64 = row.try_get(1)?;
            deltas.add(read_id(row, 0, forms.target)?, by * count);
            changed.rows += unsigned(count);
            changed.may_skip = row.try_get(2)?;
        }
        Ok(changed)
    }
}
