//! The SQL engines that benchmarks write to.

use tempfile::TempDir;

use crate::database::Database;
use crate::services::{MariaDb, Postgres, temporary_directory};

/// An engine with its server, if it has one.
#[derive(Debug)]
pub enum Server {
    /// A directory of files.
    Sqlite(TempDir),
    /// A PostgreSQL.
    Postgres(Postgres),
    /// A MariaDB.
    MariaDb(MariaDb),
}

impl Server {
    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
            Self::MariaDb(_) => "MariaDB",
        }
    }

    /// All of them, started.
    pub fn all() -> [Self; 3] {
        [
            Self::Sqlite(temporary_directory("engine")),
            Self::Postgres(Postgres::start()),
            Self::MariaDb(MariaDb::start()),
        ]
    }

    /// URL of a new, empty database.
    pub async fn database(&self) -> (String, Database) {
        let url = match self {
            Self::Sqlite(directory) => {
                format!("sqlite://{}/{}.db", directory.path().display(), rand::random_range(0..u64::MAX))
            }
            Self::Postgres(server) => server.create_database().await,
            Self::MariaDb(server) => server.create_database().await,
        };
        let database = Database::connect(&url).await;
        if let Database::Sqlite(_) = &database {
            // As weir sets it: the bare statements get the same.
            database.script("PRAGMA journal_mode = WAL").await;
        }
        (url, database)
    }
}
