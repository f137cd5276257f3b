//! What the self-check asks: the server's settings, and of rows what is to be had in a bounded time.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::statements::dialect::PostgresDialect;
use super::statements::{self, check};
use super::{PostgresDriver, PostgresSql, VERSION_MIN};
use crate::driver::{ServerCheck, TextRows};
use crate::engine::Backend as _;
use crate::finding::{Problem, Remedy, refuse, warn};
use crate::lease::leased;
use crate::rows::signed;
use crate::{Finding, SqlError};
use weir_core::config::Pooler;

impl ServerCheck for PostgresDriver {
    async fn check_server(database: &PostgresSql) -> Result<Vec<Finding>, SqlError> {
        // Behind a pooler that is not careful nothing else can be asked.
        if let Some(finding) = database.check_pooler().await? {
            return Ok(vec![finding]);
        }
        let row =
            leased!(database.lease().await?, |connection| sqlx::query(statements::SETTINGS).fetch_one(connection))?;
        let number = |index: usize| row.try_get::<i64, _>(index).unwrap_or_default();
        let text = |index: usize| row.try_get::<String, _>(index).unwrap_or_default();
        let mut findings = Vec::new();
        if number(0) < VERSION_MIN {
            let problem = format!("PostgreSQL {} is too old", number(0));
            findings.push(refuse(Problem::OldServer, problem, Remedy::text("run PostgreSQL 12 or later")));
        }
        for (index, name) in [(1, "fsync"), (2, "full_page_writes")] {
            if text(index) != "on" {
                let problem = format!("{name} is {}: a power failure may lose or damage what is stored", text(index));
                findings.push(warn(Problem::PowerLoss, problem, PostgresDialect::set_on(name)));
            }
        }
        // Behind a pooler each transaction sets it.
        if text(3) == "off" && database.settings.pooler == Pooler::None {
            let problem = "synchronous_commit is off and cannot be set: a crash could undo commits".into();
            findings.push(refuse(Problem::CrashLoss, problem, PostgresDialect::set_on("synchronous_commit")));
        }
        if text(4) != "UTF8" {
            let problem = format!("the database's encoding is {}: some text ids cannot be stored", text(4));
            findings.push(warn(Problem::Encoding, problem, Remedy::text("use a database with ENCODING 'UTF8'")));
        }
        if text(5) == "on" {
            let problem = "the server takes no writes now (transaction_read_only is on)";
            findings.push(warn(Problem::ReadOnly, problem, Remedy::text("connect to the primary")));
        }
        let limits = [
            (6, "statement_timeout", database.settings.statement_timeout_ms),
            (7, "idle_in_transaction_session_timeout", database.settings.idle_transaction_timeout_ms),
        ];
        for (index, name, wanted) in limits {
            // Behind a pooler each transaction sets its own.
            if database.settings.pooler == Pooler::None && number(index) != signed(wanted) {
                let problem =
                    format!("{name} is {}, not {wanted}: a stopped flusher could block others", number(index));
                let remedy = Remedy::text("let sessions keep their settings (a pooler in the way?)");
                findings.push(refuse(Problem::SessionSettings, problem, remedy));
            }
        }
        Ok(findings)
    }

    async fn ask(
        database: &PostgresSql,
        connection: &mut PgConnection,
        query: String,
    ) -> Result<TextRows, sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(check::begin(database.settings.check_timeout_ms)))
            .execute(&mut *connection)
            .await?;
        let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(&mut *connection).await?;
        sqlx::raw_sql(statements::ROLLBACK).execute(&mut *connection).await?;
        let texts = |row: &PgRow| (0..row.len()).map(|index| row.try_get(index)).collect();
        rows.iter().map(texts).collect()
    }
}
