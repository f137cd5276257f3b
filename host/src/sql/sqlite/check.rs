//! What the self-check asks: the file's settings, and of rows what is to be had in a bounded time.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row as _};

use super::{SqliteSql, statements};
use crate::sql::classify::{Class, judge};
use crate::sql::facts::look::{Answer, Ask};
use crate::sql::finding::{Problem, Remedy, refuse, warn};
use crate::sql::lease::{leased, within};
use crate::sql::{Finding, SqlError};

/// Steps of the engine between two looks at the time.
const STEPS_PER_LOOK: i32 = 1_000;

#[async_trait]
impl Ask for SqliteSql {
    async fn ask(&self, query: String) -> Result<Answer, SqlError> {
        let mut lease = self.lease().await?;
        let connection = lease.connection();
        let until = Instant::now() + Duration::from_millis(self.settings.check_timeout_ms);
        let asked = within(self.limit, async {
            connection.lock_handle().await?.set_progress_handler(STEPS_PER_LOOK, move || Instant::now() < until);
            let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(&mut *connection).await?;
            connection.lock_handle().await?.remove_progress_handler();
            let text =
                |row: &sqlx::sqlite::SqliteRow| (0..row.len()).map(|index| row.try_get_unchecked(index)).collect();
            rows.iter().map(text).collect::<Result<Vec<Vec<Option<String>>>, sqlx::Error>>()
        })
        .await;
        match asked {
            Ok(rows) => {
                lease.give_back();
                Ok(Answer::Rows(rows))
            }
            Err(error) => match judge(&error) {
                failure if matches!(failure.class, Class::Lost | Class::ReadOnly) => Err(failure.into()),
                failure => Ok(Answer::Unknown(failure.reason)),
            },
        }
    }
}

impl SqliteSql {
    /// See [`crate::sql::Sql::check_server`].
    pub(super) async fn check_settings_of_file(&self) -> Result<Vec<Finding>, SqlError> {
        let row = leased!(self.lease().await?, |connection| sqlx::query(statements::SETTINGS).fetch_one(connection))?;
        let text = |index: usize| row.try_get_unchecked::<String, _>(index).unwrap_or_default();
        let mut findings = Vec::new();
        if text(0) != "wal" {
            findings.push(warn(
                Problem::JournalMode,
                format!("journal_mode is {}, readers and the flusher will block each other", text(0)),
                Remedy::words("keep the database in a file on a local disk"),
            ));
        }
        // weir sets both on each of its connections; what others set on theirs is theirs.
        let built = "use a build of weir whose SQLite keeps it";
        if !matches!(text(1).as_str(), "2" | "3") {
            findings.push(refuse(
                Problem::CrashLoss,
                format!("synchronous is {} though weir has set it: a power failure could undo commits", text(1)),
                Remedy::words(built),
            ));
        }
        if text(2) != "1" {
            let problem = "foreign keys do not hold though weir has set that they do";
            findings.push(warn(Problem::ForeignKeysOff, problem, Remedy::words(built)));
        }
        Ok(findings)
    }
}
