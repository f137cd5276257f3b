//! A stand: a store, a database with the user's tables, and the configuration of a host on both.

use std::collections::BTreeMap;

use tempfile::TempDir;
use weir::config::{
    AuthConfig, Config, CounterConfig, IngestConfig, ParameterType, PreferenceConfig, ReadConfig, SqlConfig, Staleness,
    StoreConfig, StoreType, ToggleConfig,
};

use crate::database::Database;
use crate::kinds::Kind;
use crate::services::{Host, HostConfig, MariaDb, MySql, Postgres, Redis, RedisOptions, temporary_directory};

/// What a host stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// The embedded store and a SQLite file.
    EmbeddedSqlite,
    /// The embedded store and PostgreSQL.
    EmbeddedPostgres,
    /// The embedded store and MariaDB.
    EmbeddedMariaDb,
    /// Redis (append-only file, fsync always) and PostgreSQL.
    RedisPostgres,
    /// Redis (append-only file, fsync always) and MariaDB.
    RedisMariaDb,
    /// The embedded store and MySQL.
    EmbeddedMySql,
    /// Redis (append-only file, fsync always) and MySQL.
    RedisMySql,
}

impl Setup {
    /// Its name in printed lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::EmbeddedSqlite => "embedded+sqlite",
            Self::EmbeddedPostgres => "embedded+postgres",
            Self::EmbeddedMariaDb => "embedded+mariadb",
            Self::RedisPostgres => "redis+postgres",
            Self::RedisMariaDb => "redis+mariadb",
            Self::EmbeddedMySql => "embedded+mysql",
            Self::RedisMySql => "redis+mysql",
        }
    }
}

/// The SQL server of a stand.
#[derive(Debug)]
pub enum SqlServer {
    /// None: a file.
    Sqlite,
    /// A PostgreSQL.
    Postgres(Postgres),
    /// A MariaDB.
    MariaDb(MariaDb),
    /// A MySQL.
    MySql(MySql),
}

impl SqlServer {
    /// Ends it with SIGKILL. A file has no server to end.
    pub fn kill(&mut self) {
        match self {
            Self::Sqlite => {}
            Self::Postgres(server) => server.kill(),
            Self::MariaDb(server) => server.kill(),
            Self::MySql(server) => server.kill(),
        }
    }

    /// Starts it again and waits for its recovery.
    pub fn restart(&mut self) {
        match self {
            Self::Sqlite => {}
            Self::Postgres(server) => server.restart(),
            Self::MariaDb(server) => server.restart(),
            Self::MySql(server) => server.restart(),
        }
    }
}

/// Servers, database and directory of one test.
#[derive(Debug)]
pub struct Stand {
    /// The setup that it was made for.
    pub setup: Setup,
    /// The Redis, where the setup has one.
    pub redis: Option<Redis>,
    /// The SQL server.
    pub sql: SqlServer,
    /// URL of the database.
    pub database_url: String,
    /// A handle on the database.
    pub database: Database,
    /// Working directory of the hosts: configuration, logs, embedded data.
    pub directory: TempDir,
}

impl Stand {
    /// Starts the servers and creates the tables, with `targets` targets that nobody likes.
    pub async fn start(setup: Setup, targets: i64) -> Self {
        let directory = temporary_directory("stand");
        let has_redis = matches!(setup, Setup::RedisPostgres | Setup::RedisMariaDb | Setup::RedisMySql);
        let redis = has_redis.then(|| Redis::start(RedisOptions::default()));
        let (sql, database_url) = match setup {
            Setup::EmbeddedSqlite => {
                (SqlServer::Sqlite, format!("sqlite://{}", directory.path().join("feed.db").display()))
            }
            Setup::RedisPostgres | Setup::EmbeddedPostgres => {
                let server = Postgres::start();
                let url = server.create_database().await;
                (SqlServer::Postgres(server), url)
            }
            Setup::RedisMariaDb | Setup::EmbeddedMariaDb => {
                let server = MariaDb::start();
                let url = server.create_database().await;
                (SqlServer::MariaDb(server), url)
            }
            Setup::RedisMySql | Setup::EmbeddedMySql => {
                let server = MySql::start();
                let url = server.create_database().await;
                (SqlServer::MySql(server), url)
            }
        };
        let database = Database::connect(&database_url).await;
        create_tables(&database, "").await;
        add_targets(&database, targets).await;
        create_more_tables(&database, targets).await;
        Self { setup, redis, sql, database_url, database, directory }
    }

    /// As [`Stand::config`], with kinds `video-view` and `notification` (a flush after 100 ms) and `playlist` (as it is by
    /// default) besides.
    pub fn full_config(&self) -> Config {
        let mut config = self.config();
        let mut counter = CounterConfig::demo();
        counter.settings.insert("flush-age-ms".into(), "100".into());
        config.counters.push(counter);
        config.ingests.push(IngestConfig::demo());
        let mut preference = PreferenceConfig::demo();
        preference.settings.insert("flush-age-ms".into(), "100".into());
        config.preferences.push(preference);
        config
    }

    /// Kind `feed-like` on the stand's servers: no rate limit, actor by trusted header, a flush at 100 changes or
    /// after 100 ms.
    pub fn config(&self) -> Config {
        let settings = [("limit-burst", "0"), ("flush-entries", "100"), ("flush-age-ms", "100")];
        let settings: BTreeMap<String, String> =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let store = match &self.redis {
            Some(redis) => StoreConfig { store_type: StoreType::Redis, url: redis.url(), ..StoreConfig::default() },
            None => StoreConfig { path: self.directory.path().join("store"), ..StoreConfig::default() },
        };
        let mut config = Config {
            auth: AuthConfig { trusted_header: Some("X-Actor-Id".into()), ..AuthConfig::default() },
            store,
            sql: SqlConfig { url: self.database_url.clone(), ..SqlConfig::default() },
            toggles: vec![ToggleConfig { settings, ..ToggleConfig::demo() }],
            ..Config::default()
        };
        // An outage of a test is short: what recovers must be noticed soon.
        config.sql.acquire_timeout_ms = 2_000;
        config.flush.retry_ms_max = 500;
        config.flush.lease_ms = 1_000;
        config
    }

    /// Starts a host with this configuration and waits until it is ready.
    pub fn host(&self, config: &Config) -> Host {
        let mut host = Host::start(HostConfig::of(config), self.directory.path());
        host.wait_ready();
        host
    }

    /// The Redis of a setup that has one.
    pub fn redis(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("a setup with Redis")
    }
}

/// A SQL read with the parameter `id`.
pub fn read(name: &str, sql: &str, class: Staleness, tables: &[&str]) -> ReadConfig {
    ReadConfig {
        name: name.into(),
        sql: sql.into(),
        class,
        tables: tables.iter().map(|table| (*table).into()).collect(),
        rows_max: 1_000,
        timeout_ms: 2_000,
        refresh_ms: 0,
        parameters: BTreeMap::from([("id".into(), ParameterType::Integer)]),
        settings: BTreeMap::new(),
    }
}

/// Creates `feed` and `feed_like`; `constraints` is added to the latter, beginning with a comma.
pub async fn create_tables(database: &Database, constraints: &str) {
    // Pairs are kept in their key, as an application on SQLite would and the demo does.
    let (integer, text, time, kept) = match database {
        Database::Sqlite(_) => ("INTEGER", "TEXT", "TEXT", " WITHOUT ROWID"),
        Database::Postgres(_) => ("BIGINT", "TEXT", "TIMESTAMPTZ", ""),
        Database::MySql(_) => ("BIGINT", "VARCHAR(200)", "DATETIME(3)", ""),
    };
    let script = format!(
        "CREATE TABLE feed (id {integer} NOT NULL PRIMARY KEY, content {text} NOT NULL, \
         like_count {integer} NOT NULL DEFAULT 0);\n\
         CREATE TABLE feed_like (feed_id {integer} NOT NULL, user_id {integer} NOT NULL, created_at {time} NOT NULL, \
         PRIMARY KEY (feed_id, user_id){constraints}){kept};"
    );
    database.script(&script).await;
}

/// Creates `video`, `playlist`, `playlist_track` and `notification_setting`, and videos 1 to `videos` that nobody has seen.
pub async fn create_more_tables(database: &Database, videos: i64) {
    for kind in [Kind::VideoView, Kind::Playlist, Kind::Notification] {
        kind.create_tables(database).await;
    }
    let values: Vec<String> = (1..=videos).map(|id| format!("({id}, 0)")).collect();
    for chunk in values.chunks(500) {
        database.script(&format!("INSERT INTO video (id, view_count) VALUES {}", chunk.join(", "))).await;
    }
}

/// Adds targets 1 to `targets` that nobody likes.
pub async fn add_targets(database: &Database, targets: i64) {
    let values: Vec<String> = (1..=targets).map(|id| format!("({id}, 'post {id}', 0)")).collect();
    for chunk in values.chunks(500) {
        database.script(&format!("INSERT INTO feed (id, content, like_count) VALUES {}", chunk.join(", "))).await;
    }
}
