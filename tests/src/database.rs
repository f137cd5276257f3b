//! A handle on one of the SQL engines: to set up the user's tables, and to see what is in them afterwards.
//!
//! Independent of weir's own SQL room on purpose: it is the witness.

use std::collections::BTreeSet;
use std::str::FromStr;

use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, Row};

/// A database of one of the engines.
#[derive(Debug, Clone)]
pub enum Database {
    /// A SQLite file.
    Sqlite(SqlitePool),
    /// A PostgreSQL database.
    Postgres(PgPool),
    /// A MariaDB (or MySQL) database.
    MySql(MySqlPool),
}

/// A transaction of another session that holds its locks until it is released.
#[derive(Debug)]
pub enum HeldLock {
    /// In PostgreSQL.
    Postgres(PgConnection),
    /// In MariaDB.
    MySql(MySqlConnection),
}

impl Database {
    /// Opens the database that `url` names; a SQLite file is created when it is missing.
    pub async fn connect(url: &str) -> Self {
        match url.split(':').next() {
            Some("sqlite") => {
                let options = SqliteConnectOptions::from_str(url).unwrap().create_if_missing(true);
                Self::Sqlite(SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap())
            }
            Some("postgres") => Self::Postgres(PgPoolOptions::new().max_connections(4).connect(url).await.unwrap()),
            Some("mysql") => Self::MySql(MySqlPoolOptions::new().max_connections(4).connect(url).await.unwrap()),
            _ => panic!("not the URL of a database: {url}"),
        }
    }

    /// Runs statements separated by semicolons.
    pub async fn script(&self, sql: &str) {
        let outcome = match self {
            Self::Sqlite(pool) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.map(drop),
            Self::Postgres(pool) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.map(drop),
            Self::MySql(pool) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.map(drop),
        };
        outcome.unwrap_or_else(|error| panic!("{error}\nin {sql}"));
    }

    /// The rows of a query whose columns are all 64-bit integers.
    pub async fn try_integers(&self, sql: &str) -> Result<Vec<Vec<i64>>, sqlx::Error> {
        fn cells<R: Row>(row: &R) -> Result<Vec<i64>, sqlx::Error>
        where
            usize: sqlx::ColumnIndex<R>,
            i64: for<'r> sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
        {
            (0..row.len()).map(|column| row.try_get::<i64, usize>(column)).collect()
        }
        match self {
            Self::Sqlite(pool) => sqlx::query(AssertSqlSafe(sql)).fetch_all(pool).await?.iter().map(cells).collect(),
            Self::Postgres(pool) => sqlx::query(AssertSqlSafe(sql)).fetch_all(pool).await?.iter().map(cells).collect(),
            Self::MySql(pool) => sqlx::query(AssertSqlSafe(sql)).fetch_all(pool).await?.iter().map(cells).collect(),
        }
    }

    /// The rows of a query whose columns are all 64-bit integers; panics when it fails.
    pub async fn integers(&self, sql: &str) -> Vec<Vec<i64>> {
        self.try_integers(sql).await.unwrap_or_else(|error| panic!("{error}\nin {sql}"))
    }

    /// The one integer that a query answers.
    pub async fn integer(&self, sql: &str) -> i64 {
        self.integers(sql).await[0][0]
    }

    /// Every (target, actor) in `feed_like`.
    pub async fn likes(&self) -> BTreeSet<(i64, i64)> {
        let rows = self.integers("SELECT feed_id, user_id FROM feed_like").await;
        let pairs: BTreeSet<(i64, i64)> = rows.iter().map(|row| (row[0], row[1])).collect();
        assert_eq!(pairs.len(), rows.len(), "feed_like holds a pair twice");
        pairs
    }

    /// The targets whose `like_count` is not their number of rows, as (target, count, rows), in one snapshot.
    pub async fn mismatched_counts(&self) -> Result<Vec<Vec<i64>>, sqlx::Error> {
        self.try_integers(
            "SELECT id, like_count, likes FROM (SELECT feed.id, feed.like_count, \
             (SELECT COUNT(*) FROM feed_like WHERE feed_id = feed.id) AS likes FROM feed) AS counted \
             WHERE like_count <> likes ORDER BY id",
        )
        .await
    }

    /// Panics unless the count of every target is its number of rows.
    pub async fn assert_counts_equal_rows(&self) {
        let mismatched = self.mismatched_counts().await.unwrap();
        assert!(mismatched.is_empty(), "counts differ from rows (target, count, rows): {mismatched:?}");
    }

    /// How many dead letters there are.
    pub async fn dead_letters(&self) -> i64 {
        self.integer("SELECT COUNT(*) FROM weir_dead_letter").await
    }

    /// Locks the rows that `select … FOR UPDATE` answers, in a session of its own, until they are released.
    pub async fn hold(url: &str, select_for_update: &str) -> HeldLock {
        if url.starts_with("postgres") {
            let mut connection = PgConnection::connect(url).await.unwrap();
            sqlx::raw_sql("BEGIN").execute(&mut connection).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(select_for_update)).execute(&mut connection).await.unwrap();
            HeldLock::Postgres(connection)
        } else {
            let mut connection = MySqlConnection::connect(url).await.unwrap();
            sqlx::raw_sql("START TRANSACTION").execute(&mut connection).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(select_for_update)).execute(&mut connection).await.unwrap();
            HeldLock::MySql(connection)
        }
    }

    /// How many sessions of this server wait for a lock that another one holds.
    pub async fn sessions_waiting_for_a_lock(&self) -> i64 {
        let query = match self {
            Self::Sqlite(_) => panic!("SQLite has no sessions"),
            Self::Postgres(_) => {
                "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            }
            // Not innodb_trx: its answer is not renewed while it is asked for more often than ten times a second.
            Self::MySql(pool) => {
                let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(pool).await.unwrap();
                if version.contains("MariaDB") {
                    "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status \
                     WHERE variable_name = 'Innodb_row_lock_current_waits'"
                } else {
                    "SELECT COUNT(DISTINCT requesting_thread_id) FROM performance_schema.data_lock_waits"
                }
            }
        };
        self.integer(query).await
    }
}

impl HeldLock {
    /// Ends the transaction.
    pub async fn release(self) {
        match self {
            Self::Postgres(mut connection) => {
                sqlx::raw_sql("COMMIT").execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Self::MySql(mut connection) => {
                sqlx::raw_sql("COMMIT").execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }
}
