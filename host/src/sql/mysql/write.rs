//! What the flusher sends: one flush transaction, claims, migrations.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::mysql::MySqlConnection;

use super::catalogue::{number, read_facts};
use super::identity::check_id;
use super::read::{kept, padded, read_checkpoints};
use super::statements::words::MysqlWords;
use super::{counters, documents, settings, statements, toggles};
use crate::config::KindTable;
use crate::model::{Aside, Checkpoint, DatabaseId, Incarnation, Partition};
use crate::sql::aside::targets_text;
use crate::sql::facts::toggle;
use crate::sql::flight::{Dead, Effect, Flight};
use crate::sql::rows::{SCHEMA, SCHEMA_CREATED, claimed, signed};
use crate::sql::{Fence, Row};

/// What is prepared for the tables of a kind.
pub(super) enum PlanOf {
    /// Of a toggle.
    Toggle(Arc<toggles::Plan>),
    /// Of a counter.
    Counter(Arc<counters::Plan>),
    /// Of creates.
    Ingest(Arc<documents::Plan>),
    /// Of members' settings.
    Preference(Arc<settings::Plan>),
}

/// One flush transaction.
pub(super) struct MysqlFlight<'a> {
    /// Its connection.
    pub connection: &'a mut MySqlConnection,
    /// The engine's words.
    pub words: MysqlWords,
    /// What is prepared for the kind's tables.
    pub plan: &'a PlanOf,
    /// The kind's tables.
    pub table: &'a KindTable,
    /// Time to wait for a lock, in seconds.
    pub lock_s: u64,
    /// Whether reads that lock may be told not to wait at all.
    pub takes_nowait: bool,
    /// Whether locks are not waited for now.
    pub is_probing: bool,
    /// Statements sent.
    pub statements: u64,
}

impl Flight for MysqlFlight<'_> {
    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.statements += 1;
        let text = AssertSqlSafe(statements::flush_begin(self.lock_s));
        sqlx::raw_sql(text).execute(&mut *self.connection).await.map(drop)
    }

    async fn probe(&mut self, is_probing: bool) -> Result<(), sqlx::Error> {
        self.statements += 1;
        self.is_probing = is_probing;
        // MySQL has no less than a second.
        let least = if self.words.maria { 0 } else { 1 };
        let text = AssertSqlSafe(statements::lock_limit(if is_probing { least } else { self.lock_s }));
        sqlx::raw_sql(text).execute(&mut *self.connection).await.map(drop)
    }

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

    async fn store(&mut self, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        match self.plan {
            PlanOf::Toggle(plan) => self.store_toggles(plan, rows).await,
            PlanOf::Counter(plan) if matches!(rows, [Row::Event(_), ..]) => self.insert_events(plan, rows).await,
            PlanOf::Counter(plan) => self.add_counts(plan, rows).await,
            PlanOf::Ingest(plan) => self.insert_documents(plan, rows).await,
            PlanOf::Preference(plan) => self.store_settings(plan, rows).await,
        }
    }

    async fn misfit(&mut self, row: &Row, reason: &str) -> Result<Option<String>, sqlx::Error> {
        let found = match self.plan {
            PlanOf::Toggle(plan) => {
                let pairs = read_facts(self.connection, self.words, &plan.table.name).await?;
                toggle::misfit(&self.words, &plan.table, pairs.as_ref())
            }
            PlanOf::Counter(plan) => self.counter_misfit(plan, row).await?,
            PlanOf::Ingest(plan) => self.documents_misfit(plan).await?,
            PlanOf::Preference(plan) => self.settings_misfit(plan).await?,
        };
        match found {
            Some(problem) => Ok(Some(problem)),
            None => self.blamed_auto_increment(reason).await,
        }
    }

    async fn bury(&mut self, kind: &str, dead: &[Dead<'_>], now_ms: u64) -> Result<(), sqlx::Error> {
        self.write_letters(kind, dead, now_ms).await
    }

    async fn set_aside(&mut self, kind: &str, asides: &[Aside]) -> Result<(), sqlx::Error> {
        for aside in asides {
            self.statements += 2;
            let partition = i64::from(aside.partition);
            let place = sqlx::query(statements::PLACE).bind(signed(aside.position)).bind(kind).bind(partition);
            place.execute(&mut *self.connection).await?;
            let drop = sqlx::query(statements::ASIDE_DROP).bind(kind).bind(partition);
            drop.execute(&mut *self.connection).await?;
            if !aside.targets.is_empty() {
                self.statements += 1;
                let query = sqlx::query(statements::ASIDE_SET).bind(kind).bind(partition);
                let query = query.bind(aside.incarnation.to_string()).bind(signed(aside.position));
                let query = query.bind(signed(aside.ahead)).bind(targets_text(aside));
                query.execute(&mut *self.connection).await?;
            }
        }
        Ok(())
    }

    fn statements(&self) -> u64 {
        self.statements
    }
}

impl MysqlFlight<'_> {
    /// A read that locks, which waits as this flush does.
    pub(super) fn locking(&self, text: String) -> String {
        if self.is_probing && self.takes_nowait { text + statements::NOWAIT } else { text }
    }
}

/// Creates weir's tables, and brings them up to [`SCHEMA`], under a lock that is freed with the connection at the latest;
/// the recorded schema. Nothing but the table of names and values is touched unless `is_older` knows it.
pub(super) async fn migrate(
    connection: &mut MySqlConnection,
    patience_s: i64,
    is_older: impl Fn(&str) -> Option<bool> + Send,
) -> Result<String, sqlx::Error> {
    let locked = sqlx::query(statements::MIGRATE_LOCK).bind(patience_s).fetch_one(&mut *connection).await?;
    if number(&locked, 0)? != 1 {
        return Err(sqlx::Error::PoolTimedOut);
    }
    sqlx::raw_sql(statements::CREATE_META).execute(&mut *connection).await?;
    let schema = SCHEMA_CREATED.to_string();
    sqlx::query(statements::META_RECORD).bind("schema").bind(schema).execute(&mut *connection).await?;
    let recorded: String = sqlx::query_scalar(statements::META_READ).bind("schema").fetch_one(&mut *connection).await?;
    if let Some(is_older) = is_older(&recorded) {
        for text in statements::CREATE {
            sqlx::raw_sql(*text).execute(&mut *connection).await?;
        }
        // This engine commits after each: the number is set last, and what is there already is left out.
        if number(&sqlx::query(statements::HAS_BODY).fetch_one(&mut *connection).await?, 0)? == 0 {
            sqlx::raw_sql(statements::UPGRADE).execute(&mut *connection).await?;
        }
        if is_older {
            sqlx::raw_sql(statements::UPGRADE_HOLES).execute(&mut *connection).await?;
            let schema = SCHEMA.to_string();
            sqlx::query(statements::META_SET).bind(schema).bind("schema").execute(&mut *connection).await?;
        }
    }
    sqlx::raw_sql(statements::MIGRATE_UNLOCK).execute(&mut *connection).await?;
    Ok(recorded)
}

/// In a transaction of its own, which is refused in another database than `database`; the rows afterwards.
pub(super) async fn claim(
    connection: &mut MySqlConnection,
    database: Option<DatabaseId>,
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
    check_id(connection, database).await?;
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
