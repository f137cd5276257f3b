//! Toggles: the plan of their tables, what is loaded of them, and how they are stored.

use std::sync::Arc;

use serde_json::Value;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::catalogue::{number, read_both, read_surroundings};
use super::read::{
    bind_id, bind_ids, bind_time, kept, load, padded, page, pieces, read_id, read_known, read_pairs, read_size,
};
use super::statements::toggles::Statements;
use super::write::MysqlFlight;
use super::{CHUNK, MysqlSql};
use crate::config::ToggleTable;
use crate::model::{Id, Member};
use crate::sql::access::{MysqlStep, mysql_misses};
use crate::sql::classify::sql_error;
use crate::sql::effect::{Asked, all_counted, all_met};
use crate::sql::explain::explanation;
use crate::sql::facts::toggle::{Forms, check, forms};
use crate::sql::facts::{Facts, Known, look};
use crate::sql::finding::{Problem, Remedy, refuse};
use crate::sql::flight::Effect;
use crate::sql::lease::leased;
use crate::sql::rows::{Deltas, check_types, split, unsigned};
use crate::sql::{Finding, Row, RowChange, SqlError, TargetRow};

/// Targets that are loaded with one connection.
const TARGETS_PER_LOAD: usize = 1_024;

/// What is prepared per kind.
pub(super) struct Plan {
    /// Its tables.
    pub table: ToggleTable,
    /// The forms of their columns.
    pub forms: Forms,
    /// Its statements.
    pub statements: Statements,
}

impl MysqlSql {
    async fn read_both(&self, table: &ToggleTable) -> Result<(Option<Facts>, Option<Facts>), SqlError> {
        let lease = self.lease().await?;
        let words = self.words();
        leased!(lease, |connection| read_both(connection, words, table))
    }

    /// What is prepared for the tables, prepared now if need be.
    pub(super) async fn toggle_plan(&self, table: &ToggleTable) -> Result<Arc<Plan>, SqlError> {
        if let Some(plan) = self.toggles.get(table) {
            return Ok(plan);
        }
        let (pairs, targets) = self.read_both(table).await?;
        let forms = forms(&self.words(), table, pairs.as_ref(), targets.as_ref())?;
        let statements = Statements::new(table, forms);
        Ok(self.toggles.put(table, Plan { table: table.clone(), forms, statements }))
    }

    /// See [`crate::sql::Sql::check_table`].
    pub(super) async fn check_toggle(&self, table: &ToggleTable) -> Result<Vec<Finding>, SqlError> {
        self.toggles.forget(table);
        let lease = self.lease().await?;
        let words = self.words();
        let (mut pairs, mut targets) = leased!(lease, |connection| async {
            let (mut pairs, mut targets) = read_both(connection, words, table).await?;
            read_surroundings(connection, words, &table.name, pairs.as_mut()).await?;
            if let Some(given) = &table.targets {
                read_surroundings(connection, words, &given.name, targets.as_mut()).await?;
            }
            Ok((pairs, targets))
        })?;
        look::toggle(self, &words, table, &mut pairs, &mut targets).await?;
        let known = Known::Listed(&self.settings.acknowledged);
        let mut findings = check(&words, table, pairs.as_ref(), targets.as_ref(), known);
        if let (true, Some(pairs)) = (findings.iter().all(|finding| finding.warning), &pairs) {
            findings.extend(self.check_plan(table, pairs).await?);
        }
        Ok(findings)
    }

    /// Whether the bulk delete can use the unique key. Which key it does use on a small table says nothing.
    async fn check_plan(&self, table: &ToggleTable, pairs: &Facts) -> Result<Option<Finding>, SqlError> {
        let plan = self.toggle_plan(table).await?;
        let rows = leased!(self.lease().await?, |connection| {
            sqlx::raw_sql(AssertSqlSafe(plan.statements.delete_plan())).fetch_all(connection)
        })?;
        let steps = rows.iter().map(step_of).collect::<Result<Vec<_>, _>>().map_err(sql_error)?;
        let Some(key) = pairs.unique_on(&[&table.target_column, &table.actor_column]) else { return Ok(None) };
        let name = table.name.rsplit('.').next().unwrap_or(&table.name);
        Ok(mysql_misses(&steps, name, &key.name).then(|| {
            refuse(
                Problem::Scan,
                format!("the bulk delete from {} cannot use its unique key {}", table.name, key.name),
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
        check_types(
            &table.name,
            (table.target_type, table.actor_type),
            pairs.iter().map(|(target, _)| target),
            pairs.iter().map(|(_, actor)| actor),
        )?;
        let plan = self.toggle_plan(table).await?;
        let mut found = Vec::with_capacity(pairs.len());
        for part in pairs.chunks(CHUNK) {
            let wanted: Vec<(&Id, &Id)> = part.iter().map(|(target, actor)| (target, actor)).collect();
            let there = leased!(self.lease().await?, |connection| read_pairs(connection, &plan, &wanted, false));
            let there = self.toggles.heed(table, there)?;
            found.extend(part.iter().map(|pair| there.get(pair).copied()));
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
        let rows = leased!(self.lease().await?, |connection| page(connection, &plan, target, before, limit));
        let rows = self.toggles.heed(table, rows)?;
        let members = rows
            .iter()
            .map(|row| Ok(Member { actor: read_id(row, 0, plan.forms.actor)?, since_ms: unsigned(number(row, 1)?) }));
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

/// A row of a plan.
fn step_of(row: &MySqlRow) -> Result<MysqlStep, sqlx::Error> {
    let text = |name: &str| row.try_get_unchecked::<Option<String>, _>(name).map(Option::unwrap_or_default);
    Ok(MysqlStep { table: text("table")?, possible_keys: text("possible_keys")?, key: text("key")? })
}

impl MysqlFlight<'_> {
    /// Deletes, inserts, and counts what was really changed.
    pub(super) async fn store_toggles(&mut self, plan: &Plan, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let (removes, adds) = split(rows);
        let mut deltas = Deltas::default();
        let mut effect = Effect::default();
        self.lock_targets(plan, rows).await?;
        for part in removes.chunks(CHUNK) {
            let (there, _) = self.look(plan, part).await?;
            effect.deleted += self.delete(plan, &there, &mut deltas).await?;
        }
        for part in adds.chunks(CHUNK) {
            let (_, missing) = self.look(plan, part).await?;
            for piece in pieces(&missing, CHUNK) {
                effect.inserted += self.insert(plan, piece, &mut deltas).await?;
            }
        }
        self.count(plan, &deltas).await?;
        Ok(effect)
    }

    /// Locks the rows of the targets in order. Inserting into a table with a foreign key would take shared locks on
    /// them first, and two flushers would then wait for each other to count.
    async fn lock_targets(&mut self, plan: &Plan, rows: &[&Row]) -> Result<(), sqlx::Error> {
        let Some(key) = plan.forms.key else { return Ok(()) };
        // Sorted by target before.
        let mut targets: Vec<&Id> = rows.iter().map(|row| row.target()).collect();
        targets.dedup();
        for part in targets.chunks(CHUNK) {
            let list = padded(part);
            let Some(text) = plan.statements.lock_counts(list.len()) else { return Ok(()) };
            self.statements += 1;
            let query = bind_ids(kept(self.locking(text)), key, list.copied());
            query.fetch_all(&mut *self.connection).await?;
        }
        Ok(())
    }

    /// Locks those of the rows that are there, and tells them from the missing ones. Compared exactly: a collation
    /// that takes other ids for equal deletes nothing, and is met by the unique key when it inserts.
    async fn look<'r>(
        &mut self,
        plan: &Plan,
        rows: &[&'r RowChange],
    ) -> Result<(Vec<&'r RowChange>, Vec<&'r RowChange>), sqlx::Error> {
        self.statements += 1;
        let pairs: Vec<(&Id, &Id)> = rows.iter().map(|row| (&row.target, &row.actor)).collect();
        let there = read_pairs(self.connection, plan, &pairs, true).await?;
        Ok(rows.iter().partition(|row| there.contains_key(&(row.target.clone(), row.actor.clone()))))
    }

    async fn delete(&mut self, plan: &Plan, rows: &[&RowChange], deltas: &mut Deltas) -> Result<u64, sqlx::Error> {
        if rows.is_empty() {
            return Ok(0);
        }
        self.statements += 1;
        let forms = plan.forms;
        let list = padded(rows);
        let mut query = kept(plan.statements.delete(list.len()));
        for row in list {
            query = bind_id(bind_id(query, forms.target, &row.target), forms.actor, &row.actor);
        }
        for row in rows {
            deltas.add(row.target.clone(), -1);
        }
        let met = query.execute(&mut *self.connection).await?.rows_affected();
        all_met(Asked::Delete, &plan.table.name, met, rows.len())?;
        Ok(met)
    }

    /// A plain INSERT. Should another session have added one of the pairs meanwhile, the unique key says so, and the
    /// search for the bad row looks again and finds it there.
    async fn insert(&mut self, plan: &Plan, rows: &[&RowChange], deltas: &mut Deltas) -> Result<u64, sqlx::Error> {
        self.statements += 1;
        let forms = plan.forms;
        let mut query = kept(plan.statements.insert(rows.len()));
        for row in rows {
            query = bind_id(bind_id(query, forms.target, &row.target), forms.actor, &row.actor);
            if let Some(form) = forms.created {
                query = bind_time(query, form, row.origin.at_ms);
            }
            deltas.add(row.target.clone(), 1);
        }
        let met = query.execute(&mut *self.connection).await?.rows_affected();
        all_met(Asked::Insert, &plan.table.name, met, rows.len())?;
        Ok(met)
    }

    async fn count(&mut self, plan: &Plan, deltas: &Deltas) -> Result<(), sqlx::Error> {
        let Some(key) = plan.forms.key else { return Ok(()) };
        let (targets, changes) = deltas.changed();
        for (part, changes) in targets.chunks(CHUNK).zip(changes.chunks(CHUNK)) {
            let changes: Vec<(&Id, i64)> = part.iter().copied().zip(changes.iter().copied()).collect();
            let list = padded(&changes);
            let Some(text) = plan.statements.counts(list.len()) else { return Ok(()) };
            self.statements += 1;
            let mut query = kept(text);
            for (target, change) in list.clone() {
                query = bind_id(query, key, target).bind(*change);
            }
            let query = bind_ids(query, key, list.map(|(target, _)| *target));
            let counted = query.execute(&mut *self.connection).await?.rows_affected();
            if counted < part.len() as u64 {
                self.statements += 1;
                let ids: Vec<Id> = part.iter().map(|target| (*target).clone()).collect();
                let known = read_known(self.connection, plan, &ids).await?;
                let changes: Vec<i64> = changes.iter().map(|(_, by)| *by).collect();
                all_counted(&plan.table, counted, part, &changes, known.as_ref())?;
            }
        }
        Ok(())
    }
}
