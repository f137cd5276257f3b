//! SQLite as an engine: its statements and its catalogue, for the executors.

use sqlx::Row as _;
use sqlx::sqlite::{Sqlite as Driver, SqliteConnection};

use super::access::scans;
use super::statements::dialect::SqliteDialect;
use super::statements::{self, checkpoints, counters, documents, preferences, toggles};
use crate::Finding;
use crate::engine::{Engine, LoadSizes, Statements};
use crate::exec::toggles::TogglePlan;
use crate::finding::{Problem, Remedy, refuse};
use crate::introspection::Introspection;
use crate::own::{OwnStatements, fixed_own_statements};
use crate::wire::{Batch, Fixed, Wire as _};
use weir_core::config::KindTable;

/// SQLite.
#[derive(Debug)]
pub(crate) struct Sqlite;

/// The statements on weir's own tables.
static OWN: OwnStatements<Fixed> = fixed_own_statements!(statements);

impl Engine for Sqlite {
    type Database = Driver;
    type Connection = SqliteConnection;
    type Dialect = SqliteDialect;

    const LOAD: LoadSizes = LoadSizes { targets: 256, pairs: usize::MAX, rows: 10_000 };
    const FIRST_ROW: i64 = 0;
    const PAGE_STEP_MS: u64 = 1;

    const STATEMENTS: Statements<Fixed> = Statements {
        own: || &OWN,
        parents: |parent| statements::parents(parent).into(),
        foreign_keys: statements::foreign_keys,
        checkpoints: || &checkpoints::STATEMENTS,
        toggle: toggles::statements,
        counter: counters::statements,
        ingest: documents::statements,
        preference: preferences::statements,
    };

    async fn unused_key(
        connection: &mut SqliteConnection,
        plan: &TogglePlan<Self>,
        _pairs: &Introspection,
    ) -> Result<Option<Finding>, sqlx::Error> {
        let rows = connection.fetch(&plan.statements.delete_plan, &Batch::new().text("[]")).await?;
        let steps: Vec<String> = rows.iter().map(|row| row.try_get_unchecked(3)).collect::<Result<_, _>>()?;
        let table = &plan.table.name;
        let name = table.rsplit('.').next().unwrap_or(table);
        Ok(scans(&steps, name).map(|scan| {
            refuse(
                Problem::Scan,
                format!("the bulk delete from {table} does not use its unique key: {scan}"),
                Remedy::text("run ANALYZE, and compare the column types with the id types in weir.toml"),
            )
        }))
    }

    async fn understood(connection: &mut SqliteConnection, table: &KindTable, error: sqlx::Error) -> sqlx::Error {
        super::numbers::understood(connection, table, error).await
    }
}
