//! SQLite as an engine: its statements and its catalogue, for the executors.

use sqlx::sqlite::{Sqlite as Driver, SqliteConnection};
use sqlx::{Row as _, SqlStr};

use super::statements::words::SqliteWords;
use super::statements::{self, checkpoints, counters, documents, preferences, toggles};
use super::{SqliteSql, catalogue, identity};
use crate::config::KindTable;
use crate::model::DatabaseId;
use crate::sql::access::sqlite_scans;
use crate::sql::engine::{Backend, Engine, FlushTexts, LoadSizes, Role, Statements};
use crate::sql::exec::flush::{Dead, FlushTransaction};
use crate::sql::exec::toggles::TogglePlan;
use crate::sql::facts::Facts;
use crate::sql::finding::{Problem, Remedy, refuse};
use crate::sql::lease::Lease;
use crate::sql::plans::PlanCache;
use crate::sql::wire::{Batch, Fixed, Wire as _};
use crate::sql::{Finding, SqlError};

/// SQLite.
#[derive(Debug)]
pub(in crate::sql) struct Sqlite;

impl Engine for Sqlite {
    type Database = Driver;
    type Connection = SqliteConnection;
    type Dialect = SqliteWords;

    const LOAD: LoadSizes = LoadSizes { targets: 256, pairs: usize::MAX, rows: 10_000 };
    const FIRST_ROW: i64 = 0;
    const PAGE_STEP_MS: u64 = 1;

    const STATEMENTS: Statements<Fixed> = Statements {
        checkpoints: || &checkpoints::STATEMENTS,
        toggle: toggles::statements,
        counter: counters::statements,
        ingest: documents::statements,
        preference: preferences::statements,
    };

    async fn read_facts(
        connection: &mut SqliteConnection,
        _dialect: SqliteWords,
        table: &str,
        _rights: &[&str],
    ) -> Result<Option<Facts>, sqlx::Error> {
        catalogue::read_facts(connection, table).await
    }

    async fn read_surroundings(
        connection: &mut SqliteConnection,
        _dialect: SqliteWords,
        table: &str,
        role: Role,
        facts: Option<&mut Facts>,
    ) -> Result<(), sqlx::Error> {
        match role {
            Role::Pairs | Role::Events => catalogue::read_surroundings(connection, table, facts).await,
            Role::Other => Ok(()),
        }
    }

    async fn read_of_documents(
        connection: &mut SqliteConnection,
        _dialect: SqliteWords,
        table: &str,
        facts: &mut Facts,
    ) -> Result<(), sqlx::Error> {
        facts.leading = catalogue::read_leading(connection, table).await?;
        Ok(())
    }

    async fn unused_key(
        connection: &mut SqliteConnection,
        plan: &TogglePlan<Self>,
        _pairs: &Facts,
    ) -> Result<Option<Finding>, sqlx::Error> {
        let rows = connection.fetch(&plan.statements.delete_plan, &Batch::new().text("[]")).await?;
        let steps: Vec<String> = rows.iter().map(|row| row.try_get_unchecked(3)).collect::<Result<_, _>>()?;
        let table = &plan.table.name;
        let name = table.rsplit('.').next().unwrap_or(table);
        Ok(sqlite_scans(&steps, name).map(|scan| {
            refuse(
                Problem::Scan,
                format!("the bulk delete from {table} does not use its unique key: {scan}"),
                Remedy::words("run ANALYZE, and compare the column types with the id types in weir.toml"),
            )
        }))
    }

    async fn may_skip(connection: &mut SqliteConnection, table: &str) -> Result<bool, sqlx::Error> {
        Ok(!catalogue::read_skipping(connection, table).await?.is_empty())
    }

    async fn check_id(connection: &mut SqliteConnection, expected: Option<DatabaseId>) -> Result<(), sqlx::Error> {
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

    async fn understood(connection: &mut SqliteConnection, table: &KindTable, error: sqlx::Error) -> sqlx::Error {
        super::numbers::understood(connection, table, error).await
    }
}

impl Backend for SqliteSql {
    type Engine = Sqlite;

    async fn lease(&self) -> Result<Lease<Driver>, SqlError> {
        self.lease().await
    }

    fn dialect(&self) -> SqliteWords {
        SqliteWords
    }

    fn plans(&self) -> &PlanCache<Sqlite> {
        &self.plans
    }

    fn begin(&self) -> SqlStr {
        SqlStr::from_static(statements::BEGIN)
    }

    fn flush_texts(&self) -> FlushTexts {
        FlushTexts { begin: Fixed::of(statements::BEGIN), wait: None, probe: None, has_no_wait: false }
    }

    fn acknowledged(&self) -> &[String] {
        &self.settings.acknowledged
    }
}
