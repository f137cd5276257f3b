//! What the flusher sends: one flush transaction, claims, migrations.

use std::collections::HashMap;

use sqlx::mysql::MySqlConnection;

use super::catalogue::{number, read_facts};
use super::read::{bind_id, bind_ids, bind_time, kept, padded, pieces, read_checkpoints, read_pairs};
use super::statements::{self, MysqlWords};
use super::{CHUNK, Plan};
use crate::config::ToggleTable;
use crate::model::{Checkpoint, Id, Incarnation, Partition};
use crate::sql::facts::misfit;
use crate::sql::flight::{Dead, Effect, Flight};
use crate::sql::rows::{Deltas, SCHEMA, action_text, claimed, signed, split};
use crate::sql::{Fence, RowChange};

/// One flush transaction.
pub(super) struct MysqlFlight<'a> {
    /// Its connection.
    pub connection: &'a mut MySqlConnection,
    /// The engine's words.
    pub words: MysqlWords,
    /// The kind's tables.
    pub table: &'a ToggleTable,
    /// What is prepared for them.
    pub plan: &'a Plan,
    /// Statements sent.
    pub statements: u64,
}

impl Flight for MysqlFlight<'_> {
    const BEGIN: &'static str = statements::BEGIN;

    async fn command(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        self.statements += 1;
        sqlx::raw_sql(text).execute(&mut *self.connection).await.map(drop)
    }

    async fn fence(&mut self, kind: &str, fences: &[Fence]) -> Result<u64, sqlx::Error> {
        self.statements += 1;
        let list = padded(fences);
        let mut query = kept(statements::fence(list.len()));
        for Fence { from, to } in list.clone() {
            query = query.bind(i64::from(from.partition)).bind(signed(*to));
        }
        query = query.bind(kind);
        for Fence { from, .. } in list.clone() {
            query = query.bind(i64::from(from.partition));
        }
        for Fence { from, .. } in list {
            query = query.bind(i64::from(from.partition)).bind(from.incarnation.to_string());
            query = query.bind(from.epoch).bind(signed(from.position));
        }
        // This driver counts the rows that the condition found, which is what a compare-and-set needs.
        Ok(query.execute(&mut *self.connection).await?.rows_affected())
    }

    async fn store(&mut self, rows: &[&RowChange]) -> Result<Effect, sqlx::Error> {
        let (removes, adds) = split(rows);
        let mut deltas = Deltas::default();
        let mut effect = Effect::default();
        self.lock_targets(rows).await?;
        for part in removes.chunks(CHUNK) {
            let (there, _) = self.look(part).await?;
            effect.deleted += self.delete(&there, &mut deltas).await?;
        }
        for part in adds.chunks(CHUNK) {
            let (_, missing) = self.look(part).await?;
            for piece in pieces(&missing, CHUNK) {
                effect.inserted += self.insert(piece, &mut deltas).await?;
            }
        }
        self.count(&deltas).await?;
        Ok(effect)
    }

    async fn misfit(&mut self) -> Result<Option<String>, sqlx::Error> {
        let pairs = read_facts(self.connection, self.words, &self.table.name).await?;
        Ok(misfit(&self.words, self.table, pairs.as_ref()))
    }

    async fn bury(&mut self, kind: &str, dead: &[Dead<'_>], now_ms: u64) -> Result<(), sqlx::Error> {
        for part in pieces(dead, CHUNK) {
            self.statements += 1;
            let mut query = kept(statements::bury(part.len()));
            for Dead { row, incarnation, reason } in part {
                query = query
                    .bind(kind)
                    .bind(i64::from(row.partition))
                    .bind(row.target.to_string())
                    .bind(row.actor.to_string())
                    .bind(action_text(row.action))
                    .bind(signed(row.at_ms))
                    .bind(incarnation.map(|life| life.to_string()).unwrap_or_default())
                    .bind(signed(row.position))
                    .bind(row.digest.to_string())
                    .bind(*reason)
                    .bind(signed(now_ms));
            }
            query.execute(&mut *self.connection).await?;
        }
        Ok(())
    }

    fn statements(&self) -> u64 {
        self.statements
    }
}

impl MysqlFlight<'_> {
    /// Locks the rows of the targets in order. Inserting into a table with a foreign key would take shared locks on
    /// them first, and two flushers would then wait for each other to count.
    async fn lock_targets(&mut self, rows: &[&RowChange]) -> Result<(), sqlx::Error> {
        let Some(key) = self.plan.forms.key else { return Ok(()) };
        // Sorted by target before.
        let mut targets: Vec<&Id> = rows.iter().map(|row| &row.target).collect();
        targets.dedup();
        for part in targets.chunks(CHUNK) {
            let list = padded(part);
            let Some(text) = self.plan.statements.lock_counts(list.len()) else { return Ok(()) };
            self.statements += 1;
            let query = bind_ids(kept(text), key, list.copied());
            query.fetch_all(&mut *self.connection).await?;
        }
        Ok(())
    }

    /// Locks those of the rows that are there, and tells them from the missing ones. Compared exactly: a collation
    /// that takes other ids for equal deletes nothing, and is met by the unique key when it inserts.
    async fn look<'r>(
        &mut self,
        rows: &[&'r RowChange],
    ) -> Result<(Vec<&'r RowChange>, Vec<&'r RowChange>), sqlx::Error> {
        self.statements += 1;
        let pairs: Vec<(&Id, &Id)> = rows.iter().map(|row| (&row.target, &row.actor)).collect();
        let there = read_pairs(self.connection, self.plan, &pairs, true).await?;
        Ok(rows.iter().partition(|row| there.contains_key(&(row.target.clone(), row.actor.clone()))))
    }

    async fn delete(&mut self, rows: &[&RowChange], deltas: &mut Deltas) -> Result<u64, sqlx::Error> {
        if rows.is_empty() {
            return Ok(0);
        }
        self.statements += 1;
        let forms = self.plan.forms;
        let list = padded(rows);
        let mut query = kept(self.plan.statements.delete(list.len()));
        for row in list {
            query = bind_id(bind_id(query, forms.target, &row.target), forms.actor, &row.actor);
        }
        for row in rows {
            deltas.add(row.target.clone(), -1);
        }
        query.execute(&mut *self.connection).await?;
        Ok(rows.len() as u64)
    }

    /// A plain INSERT. Should another session have added one of the pairs meanwhile, the unique key says so, and the
    /// search for the bad row looks again and finds it there.
    async fn insert(&mut self, rows: &[&RowChange], deltas: &mut Deltas) -> Result<u64, sqlx::Error> {
        self.statements += 1;
        let forms = self.plan.forms;
        let mut query = kept(self.plan.statements.insert(rows.len()));
        for row in rows {
            query = bind_id(bind_id(query, forms.target, &row.target), forms.actor, &row.actor);
            if let Some(form) = forms.created {
                query = bind_time(query, form, row.at_ms);
            }
            deltas.add(row.target.clone(), 1);
        }
        query.execute(&mut *self.connection).await?;
        Ok(rows.len() as u64)
    }

    async fn count(&mut self, deltas: &Deltas) -> Result<(), sqlx::Error> {
        let Some(key) = self.plan.forms.key else { return Ok(()) };
        let (targets, changes) = deltas.changed();
        for (part, changes) in targets.chunks(CHUNK).zip(changes.chunks(CHUNK)) {
            let changes: Vec<(&Id, i64)> = part.iter().copied().zip(changes.iter().copied()).collect();
            let list = padded(&changes);
            let Some(text) = self.plan.statements.counts(list.len()) else { return Ok(()) };
            self.statements += 1;
            let mut query = kept(text);
            for (target, change) in list.clone() {
                query = bind_id(query, key, target).bind(*change);
            }
            let query = bind_ids(query, key, list.map(|(target, _)| *target));
            query.execute(&mut *self.connection).await?;
        }
        Ok(())
    }
}

/// Creates weir's tables under a lock that is freed with the connection at the latest; the recorded schema. The
/// other tables are only created when `accept` takes it.
pub(super) async fn migrate(
    connection: &mut MySqlConnection,
    patience_s: i64,
    accept: impl Fn(&str) -> bool + Send,
) -> Result<String, sqlx::Error> {
    let locked = sqlx::query(statements::MIGRATE_LOCK).bind(patience_s).fetch_one(&mut *connection).await?;
    if number(&locked, 0)? != 1 {
        return Err(sqlx::Error::PoolTimedOut);
    }
    sqlx::raw_sql(statements::CREATE_META).execute(&mut *connection).await?;
    let schema = SCHEMA.to_string();
    sqlx::query(statements::META_RECORD).bind("schema").bind(schema).execute(&mut *connection).await?;
    let recorded: String = sqlx::query_scalar(statements::META_READ).bind("schema").fetch_one(&mut *connection).await?;
    if accept(&recorded) {
        for text in statements::CREATE {
            sqlx::raw_sql(*text).execute(&mut *connection).await?;
        }
    }
    sqlx::raw_sql(statements::MIGRATE_UNLOCK).execute(&mut *connection).await?;
    Ok(recorded)
}

/// In a transaction of its own; the rows afterwards.
pub(super) async fn claim(
    connection: &mut MySqlConnection,
    kind: &str,
    wanted: &[(Partition, Incarnation)],
    take_over: bool,
) -> Result<HashMap<Partition, Checkpoint>, sqlx::Error> {
    let mut ordered = wanted.to_vec();
    ordered.sort_unstable();
    if ordered.is_empty() {
        return Ok(HashMap::new());
    }
    sqlx::raw_sql(statements::BEGIN).execute(&mut *connection).await?;
    let mut create = kept(statements::claim_create(ordered.len()));
    for (partition, life) in &ordered {
        create = create.bind(kind).bind(i64::from(*partition)).bind(life.to_string());
    }
    create.execute(&mut *connection).await?;
    let partitions: Vec<Partition> = ordered.iter().map(|(partition, _)| *partition).collect();
    let mut rows = read_checkpoints(connection, kind, &partitions, true).await?;
    for (partition, life) in ordered {
        if let Some(row) = rows.get_mut(&partition)
            && let Some(changed) = claimed(row, life, take_over)
        {
            *row = changed;
            sqlx::query(statements::CLAIM_SET)
                .bind(changed.incarnation.to_string())
                .bind(changed.epoch)
                .bind(signed(changed.position))
                .bind(kind)
                .bind(i64::from(partition))
                .execute(&mut *connection)
                .await?;
        }
    }
    sqlx::raw_sql(statements::COMMIT).execute(&mut *connection).await?;
    Ok(rows)
}
