//! What the self-check asks: the file's settings, and of rows what is to be had in a bounded time.

use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::{SqliteDriver, SqliteSql, statements};
use crate::driver::{ServerCheck, TextRows};
use crate::engine::Backend as _;
use crate::finding::{Problem, Remedy, refuse, warn};
use crate::lease::leased;
use crate::{Finding, SqlError};

/// Steps of the engine between two looks at the time.
const STEPS_PER_LOOK: i32 = 1_000;

impl ServerCheck for SqliteDriver {
    async fn check_server(database: &SqliteSql) -> Result<Vec<Finding>, SqlError> {
        // Opening the file for writing sets all of this.
        if database.driver.is_look {
            return Ok(Vec::new());
        }
        let row =
            leased!(database.lease().await?, |connection| sqlx::query(statements::SETTINGS).fetch_one(connection))?;
        let text = |index: usize| row.try_get_unchecked::<String, _>(index).unwrap_or_default();
        let mut findings = Vec::new();
        if text(0) != "wal" {
            findings.push(warn(
                Problem::JournalMode,
                format!("journal_mode is {}, readers and the flusher will block each other", text(0)),
                Remedy::text("keep the database in a file on a local disk"),
            ));
        }
        // weir sets both on each of its connections; what others set on theirs is theirs.
        let built = "use a build of weir whose SQLite keeps it";
        if !matches!(text(1).as_str(), "2" | "3") {
            findings.push(refuse(
                Problem::CrashLoss,
                format!("synchronous is {} though weir has set it: a power failure could undo commits", text(1)),
                Remedy::text(built),
            ));
        }
        if text(2) != "1" {
            let problem = "foreign keys do not hold though weir has set that they do";
            findings.push(warn(Problem::ForeignKeysOff, problem, Remedy::text(built)));
        }
        Ok(findings)
    }

    async fn ask(
        database: &SqliteSql,
        connection: &mut SqliteConnection,
        query: String,
    ) -> Result<TextRows, sqlx::Error> {
        let until = Instant::now() + Duration::from_millis(database.settings.check_timeout_ms);
        connection.lock_handle().await?.set_progress_handler(STEPS_PER_LOOK, move || Instant::now() < until);
        let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(&mut *connection).await?;
        connection.lock_handle().await?.remove_progress_handler();
        let texts = |row: &SqliteRow| (0..row.len()).map(|index| row.try_get_unchecked(index)).collect();
        rows.iter().map(texts).collect()
    }
}
