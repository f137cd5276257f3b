//! PostgreSQL as an engine: its statements and its catalogue, for the executors.

use serde_json::Value;
use sqlx::postgres::{PgConnection, Postgres as Driver};
use sqlx::{Row as _, SqlStr};

use super::access::scans;
use super::statements::dialect::PostgresDialect;
use super::statements::{self, checkpoints, counters, documents, preferences, toggles};
use crate::Finding;
use crate::engine::{Engine, LoadSizes, Statements};
use crate::exec::toggles::TogglePlan;
use crate::finding::{Problem, Remedy, refuse};
use crate::introspection::Introspection;
use crate::own::{OwnStatements, fixed_own_statements};
use crate::wire::{Batch, Fixed, Wire as _};
use weir_core::config::KindTable;

/// PostgreSQL.
#[derive(Debug)]
pub(crate) struct Postgres;

/// The statements on weir's own tables.
static OWN: OwnStatements<Fixed> = fixed_own_statements!(statements);

impl Engine for Postgres {
    type Database = Driver;
    type Connection = PgConnection;
    type Dialect = PostgresDialect;

    const LOAD: LoadSizes = LoadSizes { targets: 256, pairs: 10_000, rows: 10_000 };
    const STORES_NUL: bool = false;
    const FIRST_ROW: i64 = 1;
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
        connection: &mut PgConnection,
        plan: &TogglePlan<Self>,
        _pairs: &Introspection,
    ) -> Result<Option<Finding>, sqlx::Error> {
        connection.command(SqlStr::from_static(statements::PLAN_BEGIN)).await?;
        let batch = Batch::new().ids(plan.forms.target, []).ids(plan.forms.actor, []);
        let rows = connection.fetch(&plan.statements.delete_plan, &batch).await?;
        connection.command(SqlStr::from_static(statements::ROLLBACK)).await?;
        // JSON goes over the wire as its text.
        let steps: String = rows.first().map_or(Ok(String::new()), |row| row.try_get_unchecked(0))?;
        let steps: Value = serde_json::from_str(&steps).unwrap_or_default();
        Ok(scans(&steps).map(|scan| {
            refuse(
                Problem::Scan,
                format!("the bulk delete from {} cannot use its unique key: {scan}", plan.table.name),
                Remedy::text("compare the column types with the id types in weir.toml"),
            )
        }))
    }

    async fn blamed_number(
        connection: &mut PgConnection,
        table: &KindTable,
        reason: &str,
    ) -> Result<Option<String>, sqlx::Error> {
        super::numbers::blamed_sequence(connection, table, reason).await
    }
}
