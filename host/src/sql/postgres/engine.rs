//! PostgreSQL as an engine: its statements and its catalogue, for the executors.

use serde_json::Value;
use sqlx::postgres::{PgConnection, Postgres as Driver};
use sqlx::{Row as _, SqlStr};

use super::statements::words::PostgresWords;
use super::statements::{self, checkpoints, counters, documents, preferences, toggles};
use super::{PostgresSql, catalogue, identity};
use crate::config::KindTable;
use crate::model::DatabaseId;
use crate::sql::access::postgres_scans;
use crate::sql::engine::{Backend, Engine, FlushTexts, LoadSizes, Role, Statements};
use crate::sql::exec::flush::{Dead, FlushTransaction};
use crate::sql::exec::toggles::TogglePlan;
use crate::sql::facts::Facts;
use crate::sql::finding::{Problem, Remedy, refuse};
use crate::sql::lease::Lease;
use crate::sql::plans::PlanCache;
use crate::sql::wire::{Batch, Fixed, Wire as _};
use crate::sql::{Finding, SqlError};

/// Time to wait for a lock while those are looked for that are locked, in milliseconds.
const LOCK_PROBE_MS: u64 = 20;

/// PostgreSQL.
#[derive(Debug)]
pub(in crate::sql) struct Postgres;

impl Engine for Postgres {
    type Database = Driver;
    type Connection = PgConnection;
    type Dialect = PostgresWords;

    const LOAD: LoadSizes = LoadSizes { targets: 256, pairs: 10_000, rows: 10_000 };
    const FIRST_ROW: i64 = 1;
    const PAGE_STEP_MS: u64 = 1;

    const STATEMENTS: Statements<Fixed> = Statements {
        checkpoints: || &checkpoints::STATEMENTS,
        toggle: toggles::statements,
        counter: counters::statements,
        ingest: documents::statements,
        preference: preferences::statements,
    };

    async fn read_facts(
        connection: &mut PgConnection,
        _dialect: PostgresWords,
        table: &str,
        rights: &[&str],
    ) -> Result<Option<Facts>, sqlx::Error> {
        catalogue::read_facts(connection, table, rights).await
    }

    async fn read_surroundings(
        connection: &mut PgConnection,
        _dialect: PostgresWords,
        table: &str,
        _role: Role,
        facts: Option<&mut Facts>,
    ) -> Result<(), sqlx::Error> {
        catalogue::read_surroundings(connection, table, facts).await
    }

    async fn read_of_documents(
        connection: &mut PgConnection,
        _dialect: PostgresWords,
        table: &str,
        facts: &mut Facts,
    ) -> Result<(), sqlx::Error> {
        facts.leading = catalogue::read_leading(connection, table).await?;
        Ok(())
    }

    async fn unused_key(
        connection: &mut PgConnection,
        plan: &TogglePlan<Self>,
        _pairs: &Facts,
    ) -> Result<Option<Finding>, sqlx::Error> {
        connection.command(SqlStr::from_static(statements::PLAN_BEGIN)).await?;
        let batch = Batch::new().ids(plan.forms.target, []).ids(plan.forms.actor, []);
        let rows = connection.fetch(&plan.statements.delete_plan, &batch).await?;
        connection.command(SqlStr::from_static(statements::ROLLBACK)).await?;
        // JSON goes over the wire as its text.
        let steps: String = rows.first().map_or(Ok(String::new()), |row| row.try_get_unchecked(0))?;
        let steps: Value = serde_json::from_str(&steps).unwrap_or_default();
        Ok(postgres_scans(&steps).map(|scan| {
            refuse(
                Problem::Scan,
                format!("the bulk delete from {} cannot use its unique key: {scan}", plan.table.name),
                Remedy::words("compare the column types with the id types in weir.toml"),
            )
        }))
    }

    async fn check_id(connection: &mut PgConnection, expected: Option<DatabaseId>) -> Result<(), sqlx::Error> {
        identity::check_id(connection, expected).await
    }

    async fn write_dead_letters(
        transaction: &mut FlushTransaction<'_, Self>,
        kind: &str,
        dead: &[Dead<'_>],
        now_ms: u64,
    ) -> Result<(), sqlx::Error> {
        transaction.write_letters(kind, dead, now_ms).await
    }

    async fn blamed_number(
        connection: &mut PgConnection,
        table: &KindTable,
        reason: &str,
    ) -> Result<Option<String>, sqlx::Error> {
        super::numbers::blamed_sequence(connection, table, reason).await
    }
}

impl Backend for PostgresSql {
    type Engine = Postgres;

    async fn lease(&self) -> Result<Lease<Driver>, SqlError> {
        self.lease().await
    }

    fn dialect(&self) -> PostgresWords {
        PostgresWords
    }

    fn plans(&self) -> &PlanCache<Postgres> {
        &self.plans
    }

    fn begin(&self) -> SqlStr {
        Fixed::from(self.begin.to_string()).text()
    }

    fn flush_texts(&self) -> FlushTexts {
        let lock_ms = self.settings.lock_timeout_ms;
        FlushTexts {
            begin: statements::flush_begin(&self.begin, lock_ms).into(),
            wait: Some(statements::lock_limit(lock_ms).into()),
            probe: Some(statements::lock_limit(LOCK_PROBE_MS).into()),
            has_no_wait: false,
        }
    }

    fn acknowledged(&self) -> &[String] {
        &self.settings.acknowledged
    }
}
