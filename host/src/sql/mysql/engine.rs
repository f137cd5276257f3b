//! MariaDB and MySQL as an engine: its statements and its catalogue, for the executors.

use sqlx::mysql::{MySql as Driver, MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row as _, SqlStr};

use super::statements::words::MysqlWords;
use super::statements::{self, checkpoints, counters, documents, preferences, toggles};
use super::wire::Template;
use super::{MysqlSql, catalogue, identity};
use crate::config::KindTable;
use crate::model::DatabaseId;
use crate::sql::access::{MysqlStep, mysql_misses};
use crate::sql::engine::{Backend, Engine, FlushTexts, LoadSizes, Role, Statements};
use crate::sql::exec::flush::{Dead, FlushTransaction};
use crate::sql::exec::toggles::TogglePlan;
use crate::sql::facts::{Facts, Holds};
use crate::sql::finding::{Problem, Remedy, refuse};
use crate::sql::lease::Lease;
use crate::sql::plans::PlanCache;
use crate::sql::{Finding, SqlError};

/// MariaDB or MySQL.
#[derive(Debug)]
pub(in crate::sql) struct Mysql;

impl Engine for Mysql {
    type Database = Driver;
    type Connection = MySqlConnection;
    type Dialect = MysqlWords;

    const LOAD: LoadSizes = LoadSizes { targets: 1_024, pairs: super::CHUNK, rows: super::CHUNK };
    const FIRST_ROW: i64 = 0;
    // One second on where the column holds no less: a time that is cut down must stay above all that it means.
    const PAGE_STEP_MS: u64 = 1_000;

    const STATEMENTS: Statements<Template> = Statements {
        checkpoints: || &checkpoints::STATEMENTS,
        toggle: toggles::statements,
        counter: counters::statements,
        ingest: documents::statements,
        preference: preferences::statements,
    };

    async fn read_facts(
        connection: &mut MySqlConnection,
        dialect: MysqlWords,
        table: &str,
        _rights: &[&str],
    ) -> Result<Option<Facts>, sqlx::Error> {
        catalogue::read_facts(connection, dialect, table).await
    }

    async fn read_surroundings(
        connection: &mut MySqlConnection,
        dialect: MysqlWords,
        table: &str,
        _role: Role,
        facts: Option<&mut Facts>,
    ) -> Result<(), sqlx::Error> {
        catalogue::read_surroundings(connection, dialect, table, facts).await
    }

    async fn read_of_documents(
        connection: &mut MySqlConnection,
        dialect: MysqlWords,
        table: &str,
        facts: &mut Facts,
    ) -> Result<(), sqlx::Error> {
        facts.leading = catalogue::read_leading(connection, table).await?;
        let json = catalogue::read_json_columns(connection, dialect, table).await?;
        for column in facts.columns.iter_mut().filter(|column| json.contains(&column.name)) {
            column.holds = Holds::Json;
        }
        Ok(())
    }

    /// Which key the delete does use on a small table says nothing.
    async fn unused_key(
        connection: &mut MySqlConnection,
        plan: &TogglePlan<Self>,
        pairs: &Facts,
    ) -> Result<Option<Finding>, sqlx::Error> {
        let table = &plan.table;
        let text = AssertSqlSafe(plan.statements.delete_plan.plain());
        let rows = sqlx::raw_sql(text).fetch_all(connection).await?;
        let steps = rows.iter().map(step_of).collect::<Result<Vec<_>, _>>()?;
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

    async fn check_id(connection: &mut MySqlConnection, expected: Option<DatabaseId>) -> Result<(), sqlx::Error> {
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
        connection: &mut MySqlConnection,
        table: &KindTable,
        reason: &str,
    ) -> Result<Option<String>, sqlx::Error> {
        super::numbers::blamed_auto_increment(connection, table, reason).await
    }
}

/// A row of a plan.
fn step_of(row: &MySqlRow) -> Result<MysqlStep, sqlx::Error> {
    let text = |name: &str| row.try_get_unchecked::<Option<String>, _>(name).map(Option::unwrap_or_default);
    Ok(MysqlStep { table: text("table")?, possible_keys: text("possible_keys")?, key: text("key")? })
}

impl Backend for MysqlSql {
    type Engine = Mysql;

    async fn lease(&self) -> Result<Lease<Driver>, SqlError> {
        self.lease().await
    }

    fn dialect(&self) -> MysqlWords {
        self.words()
    }

    fn plans(&self) -> &PlanCache<Mysql> {
        &self.plans
    }

    fn begin(&self) -> SqlStr {
        SqlStr::from_static(statements::BEGIN)
    }

    fn flush_texts(&self) -> FlushTexts {
        let lock_s = self.settings.lock_timeout_ms.div_ceil(1_000);
        // MySQL has no less than a second.
        let least = if self.words().maria { 0 } else { 1 };
        FlushTexts {
            begin: statements::flush_begin(lock_s).into(),
            wait: Some(statements::lock_limit(lock_s).into()),
            probe: Some(statements::lock_limit(least).into()),
            has_no_wait: self.takes_nowait(),
        }
    }

    fn acknowledged(&self) -> &[String] {
        &self.settings.acknowledged
    }
}
