//! MariaDB and MySQL as an engine: its statements and its catalogue, for the executors.

use std::sync::LazyLock;

use sqlx::mysql::{MySql as Driver, MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::access::{Step, misses};
use super::statements::dialect::MysqlDialect;
use super::statements::{self, checkpoints, counters, documents, own, preferences, toggles};
use super::wire::Template;
use crate::Finding;
use crate::engine::{Engine, LoadSizes, Statements};
use crate::exec::toggles::TogglePlan;
use crate::finding::{Problem, Remedy, refuse};
use crate::introspection::Introspection;
use crate::own::OwnStatements;
use weir_core::config::KindTable;

/// MariaDB or MySQL.
#[derive(Debug)]
pub(crate) struct Mysql;

/// The statements on weir's own tables.
static OWN: LazyLock<OwnStatements<Template>> = LazyLock::new(own::own);

impl Engine for Mysql {
    type Database = Driver;
    type Connection = MySqlConnection;
    type Dialect = MysqlDialect;

    const LOAD: LoadSizes = LoadSizes { targets: 1_024, pairs: super::CHUNK, rows: super::CHUNK };
    const SPLITS_DEAD_LETTERS: bool = true;
    const FIRST_ROW: i64 = 0;
    // One second on where the column holds no less: a time that is cut down must stay above all that it means.
    const PAGE_STEP_MS: u64 = 1_000;

    const STATEMENTS: Statements<Template> = Statements {
        own: || &OWN,
        parents: statements::parents,
        foreign_keys: statements::foreign_keys,
        checkpoints: || &checkpoints::STATEMENTS,
        toggle: toggles::statements,
        counter: counters::statements,
        ingest: documents::statements,
        preference: preferences::statements,
    };

    /// Which key the delete does use on a small table says nothing.
    async fn unused_key(
        connection: &mut MySqlConnection,
        plan: &TogglePlan<Self>,
        pairs: &Introspection,
    ) -> Result<Option<Finding>, sqlx::Error> {
        let table = &plan.table;
        let text = AssertSqlSafe(plan.statements.delete_plan.plain());
        let rows = sqlx::raw_sql(text).fetch_all(connection).await?;
        let steps = rows.iter().map(step_of).collect::<Result<Vec<_>, _>>()?;
        let Some(key) = pairs.unique_on(&[&table.target_column, &table.actor_column]) else { return Ok(None) };
        let name = table.name.rsplit('.').next().unwrap_or(&table.name);
        Ok(misses(&steps, name, &key.name).then(|| {
            refuse(
                Problem::Scan,
                format!("the bulk delete from {} cannot use its unique key {}", table.name, key.name),
                Remedy::text("compare the column types with the id types in weir.toml"),
            )
        }))
    }

    async fn blamed_number(
        connection: &mut MySqlConnection,
        table: &KindTable,
        reason: &str,
    ) -> Result<Option<String>, sqlx::Error> {
        super::numbers::blamed_auto_increment(connection, table, reason).await
    }
}

/// A row of a plan.
fn step_of(row: &MySqlRow) -> Result<Step, sqlx::Error> {
    let text = |name: &str| row.try_get_unchecked::<Option<String>, _>(name).map(Option::unwrap_or_default);
    Ok(Step { table: text("table")?, possible_keys: text("possible_keys")?, key: text("key")? })
}
