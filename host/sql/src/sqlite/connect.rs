//! How a file is opened, and how a connection to it is taken.

use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::Sqlite;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{SqliteDriver, SqliteSql, look};
use crate::SqlError;
use crate::classify::{Class, judge, sql_error};
use crate::database::Database;
use crate::lease::Lease;
use weir_core::config::SqlConfig;

/// Rows that the engine may be ahead of their reader.
const ROWS_BUFFERED: usize = 1_024;

/// Opens `sqlite://path`; the file and its directory are created when missing.
pub(crate) async fn open(settings: &SqlConfig) -> Result<SqliteSql, SqlError> {
    let given = settings.url.parse::<SqliteConnectOptions>().map_err(sql_error)?;
    let options = given
        .clone()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true);
    if let Some(directory) = options.get_filename().parent().filter(|path| !path.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)
            .map_err(|error| SqlError::Transient(format!("{}: {error}", directory.display())))?;
    }
    Ok(of(settings, options, given.read_only(true), None))
}

/// Opens what is there for reading only, and changes nothing on disk; an empty database in memory where there is no file.
pub(crate) async fn open_to_look(settings: &SqlConfig) -> Result<SqliteSql, SqlError> {
    let given = settings.url.parse::<SqliteConnectOptions>().map_err(sql_error)?;
    let (options, copy) = look::options(given)?;
    let mut looked = of(settings, options.clone(), options, copy);
    looked.driver.is_look = true;
    Ok(looked)
}

fn of(
    settings: &SqlConfig,
    writing: SqliteConnectOptions,
    reading: SqliteConnectOptions,
    copy: Option<look::Copied>,
) -> SqliteSql {
    let acquire_timeout = acquire_timeout(settings);
    let pool = |options: SqliteConnectOptions| {
        let options = options.busy_timeout(acquire_timeout).row_buffer_size(ROWS_BUFFERED);
        SqlitePoolOptions::new()
            .max_connections(settings.connections_max)
            .acquire_timeout(acquire_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options.disable_statement_logging())
    };
    let (readers, writer) = (pool(reading), Mutex::new(()));
    let driver = SqliteDriver { readers, writer, is_look: false, _copy: copy };
    Database::new(settings, pool(writing), driver)
}

/// Takes a connection.
pub(super) async fn lease(database: &SqliteSql) -> Result<Lease<Sqlite>, SqlError> {
    let deadline = Instant::now() + acquire_timeout(&database.settings);
    loop {
        match Lease::take(&database.pool, database.limit, None).await {
            // The change to WAL at the very first connections cannot wait for its lock by itself.
            Err(error @ sqlx::Error::Database(_)) if Instant::now() < deadline => {
                if !matches!(judge(&error).class, Class::Transient | Class::Locked) {
                    return Err(sql_error(error));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other.map_err(sql_error),
        }
    }
}

/// How long a writer waits for the write lock.
pub(super) fn acquire_timeout(settings: &SqlConfig) -> Duration {
    Duration::from_millis(settings.acquire_timeout_ms)
}
