//! An empty database of an engine, a way to look into it that is not weir's, and the usual tables.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection};
use tempfile::TempDir;
use weir::config::{CountTable, KindTable, Pooler as PoolerConfig, SqlConfig, ToggleTable};
use weir::model::{Action, Checkpoint, Digest, Id, IdType, Incarnation, Origin, Partition};
use weir::sql::{self, Applied, Fence, Finding, Row, RowChange, Sql, SqlError};
use weir_tests::certificates::Certificates;
use weir_tests::services::{
    MariaDb, MySql, MySqlOptions, Pooler, PoolerType, Postgres, PostgresOptions, Release, temporary_directory,
};

/// The kind of most tests.
pub const KIND: &str = "feed-like";
/// The time of most rows.
pub const AT_MS: u64 = 1_714_565_696_789;

/// The engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
    MariaDb,
    MySql,
}

impl Engine {
    /// MySQL, or what comes from it.
    pub fn is_mysql(self) -> bool {
        matches!(self, Self::MariaDb | Self::MySql)
    }

    /// Whether it has this type of columns, where those that come from MySQL differ.
    pub fn has(self, column: &str) -> bool {
        self != Self::MySql || column != "UUID"
    }
}

/// The servers that the suite runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Sqlite,
    Postgres,
    PostgresCurrent,
    /// PostgreSQL behind a pooler of transactions.
    PostgresPooled,
    PostgresTls,
    MariaDb,
    MariaDbCurrent,
    MariaDbTls,
    MySql,
    MySqlTls,
}

impl Server {
    fn engine(self) -> Engine {
        match self {
            Self::Sqlite => Engine::Sqlite,
            Self::Postgres | Self::PostgresCurrent | Self::PostgresPooled | Self::PostgresTls => Engine::Postgres,
            Self::MariaDb | Self::MariaDbCurrent | Self::MariaDbTls => Engine::MariaDb,
            Self::MySql | Self::MySqlTls => Engine::MySql,
        }
    }
}

impl From<Engine> for Server {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => Self::Sqlite,
            Engine::Postgres => Self::Postgres,
            Engine::MariaDb => Self::MariaDb,
            Engine::MySql => Self::MySql,
        }
    }
}

/// An empty database with weir's tables in it.
pub struct Fixture {
    pub engine: Engine,
    pub url: String,
    pub sql: Arc<dyn Sql>,
    /// The URL of what is in between, if anything is.
    through: Option<String>,
    _directory: Option<TempDir>,
}

fn postgres(release: Release) -> &'static Postgres {
    static INSTALLED: OnceLock<Postgres> = OnceLock::new();
    static CURRENT: OnceLock<Postgres> = OnceLock::new();
    let server = if release == Release::Current { &CURRENT } else { &INSTALLED };
    // The tests that share this one look at what is committed, not at what survives a power failure.
    let options = PostgresOptions { fsync: false, release, ..PostgresOptions::default() };
    server.get_or_init(|| Postgres::start_with(options))
}

fn mariadb(release: Release) -> &'static MariaDb {
    static INSTALLED: OnceLock<MariaDb> = OnceLock::new();
    static CURRENT: OnceLock<MariaDb> = OnceLock::new();
    let server = if release == Release::Current { &CURRENT } else { &INSTALLED };
    server.get_or_init(|| MariaDb::start_quickly(release))
}

fn mysql() -> &'static MySql {
    static SERVER: OnceLock<MySql> = OnceLock::new();
    // As of PostgreSQL.
    let settings = vec!["--innodb-flush-method=nosync".into()];
    SERVER.get_or_init(|| MySql::start_with(MySqlOptions { settings, ..MySqlOptions::default() }))
}

fn pgbouncer() -> &'static Pooler {
    static SERVER: OnceLock<Pooler> = OnceLock::new();
    let kind = PoolerType::PgBouncer { follows_statements: true, ignores_parameters: false };
    SERVER.get_or_init(|| Pooler::start(kind, postgres(Release::Installed).port()))
}

/// Says on which server, of which version, so many tests run.
pub async fn says_its_version(server: Server, tests: usize) {
    let fixture = Fixture::new(server).await;
    let version = match fixture.engine {
        Engine::Sqlite => format!("SQLite {}", fixture.text("SELECT sqlite_version()").await),
        Engine::Postgres => format!("PostgreSQL {}", fixture.text("SHOW server_version").await),
        Engine::MariaDb => format!("MariaDB {}", fixture.text("SELECT VERSION()").await),
        Engine::MySql => format!("MySQL {}", fixture.text("SELECT VERSION()").await),
    };
    let least = match server {
        Server::PostgresCurrent => 18,
        Server::MariaDbCurrent => 11,
        Server::MySql | Server::MySqlTls => 9,
        _ => 1,
    };
    let major = version.split([' ', '.']).nth(1).and_then(|major| major.parse::<u32>().ok());
    assert!(major.is_some_and(|major| major >= least), "an older server than was meant: {version}");
    assert_eq!(
        fixture.engine == Engine::MariaDb,
        version.contains("-MariaDB"),
        "another server than was meant: {version}"
    );
    let between = match server {
        Server::PostgresPooled => " behind PgBouncer",
        Server::PostgresTls | Server::MariaDbTls | Server::MySqlTls => " over TLS",
        _ => "",
    };
    println!("conformance: {version}{between} ({tests} tests)");
}

fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(Certificates::new)
}

fn postgres_with_tls() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    let certificate = || Some(certificates().server.clone());
    SERVER.get_or_init(|| {
        Postgres::start_with(PostgresOptions { fsync: false, certificate: certificate(), ..PostgresOptions::default() })
    })
}

fn mariadb_with_tls() -> &'static MariaDb {
    static SERVER: OnceLock<MariaDb> = OnceLock::new();
    SERVER.get_or_init(|| MariaDb::start_with_certificate(&certificates().server))
}

fn mysql_with_tls() -> &'static MySql {
    static SERVER: OnceLock<MySql> = OnceLock::new();
    let certificate = || Some(certificates().server.clone());
    SERVER.get_or_init(|| MySql::start_with(MySqlOptions { certificate: certificate(), ..MySqlOptions::default() }))
}

fn verified(url: &str) -> String {
    let (url, _) = url.split_once('?').unwrap_or((url, ""));
    format!("{url}?ssl-mode=VERIFY_IDENTITY&ssl-ca={}", certificates().ca.display())
}

/// Settings for tests: few connections, short waits.
pub fn settings(url: &str) -> SqlConfig {
    SqlConfig {
        url: url.to_owned(),
        connections_max: 4,
        acquire_timeout_ms: 10_000,
        statement_timeout_ms: 20_000,
        idle_transaction_timeout_ms: 5_000,
        lock_timeout_ms: 5_000,
        ..SqlConfig::default()
    }
}

/// The same, through what is in between.
fn settings_through(through: Option<&str>, url: &str) -> SqlConfig {
    let pooler = if through.is_some() { PoolerConfig::Transaction } else { PoolerConfig::None };
    SqlConfig { pooler, ..settings(through.unwrap_or(url)) }
}

/// What most tests ask of the tables of a toggle.
#[async_trait]
pub trait Toggles {
    /// [`Sql::apply`] of toggles.
    async fn apply_toggles(
        &self,
        kind: &str,
        table: &ToggleTable,
        fences: &[Fence],
        rows: &[RowChange],
        now_ms: u64,
    ) -> Result<Applied, SqlError>;

    /// [`Sql::check_table`] of a toggle.
    async fn check_toggle(&self, table: &ToggleTable) -> Result<Vec<Finding>, SqlError>;
}

#[async_trait]
impl Toggles for dyn Sql + '_ {
    async fn apply_toggles(
        &self,
        kind: &str,
        table: &ToggleTable,
        fences: &[Fence],
        rows: &[RowChange],
        now_ms: u64,
    ) -> Result<Applied, SqlError> {
        let rows: Vec<Row> = rows.iter().cloned().map(Row::Toggle).collect();
        self.apply(kind, &KindTable::Toggle(table.clone()), fences, &rows, now_ms).await
    }

    async fn check_toggle(&self, table: &ToggleTable) -> Result<Vec<Finding>, SqlError> {
        self.check_table(&KindTable::Toggle(table.clone())).await
    }
}

impl Fixture {
    pub async fn new(server: impl Into<Server>) -> Self {
        let server = server.into();
        let (url, directory) = match server {
            Server::Sqlite => {
                let directory = temporary_directory("sqlite");
                (format!("sqlite://{}", directory.path().join("weir.db").display()), Some(directory))
            }
            Server::Postgres | Server::PostgresPooled => (postgres(Release::Installed).create_database().await, None),
            Server::PostgresCurrent => (postgres(Release::Current).create_database().await, None),
            Server::MariaDb => (mariadb(Release::Installed).create_database().await, None),
            Server::MariaDbCurrent => (mariadb(Release::Current).create_database().await, None),
            Server::MySql => (mysql().create_database().await, None),
            // Where the server's certificate is verified.
            Server::PostgresTls => {
                let url = postgres_with_tls().create_database().await;
                (format!("{url}?sslmode=verify-full&sslrootcert={}", certificates().ca.display()), None)
            }
            Server::MariaDbTls => (verified(&mariadb_with_tls().create_database().await), None),
            Server::MySqlTls => (verified(&mysql_with_tls().create_database().await), None),
        };
        let engine = server.engine();
        let through = (server == Server::PostgresPooled).then(|| pgbouncer().before(&url));
        let sql = sql::open(&settings_through(through.as_deref(), &url)).await.unwrap();
        sql.migrate().await.unwrap();
        Self { engine, url, sql, through, _directory: directory }
    }

    /// Another handle on the same database, as another host would have it.
    pub async fn other(&self) -> Arc<dyn Sql> {
        self.with(|_| {}).await
    }

    /// Another handle with other settings.
    pub async fn with(&self, change: impl FnOnce(&mut SqlConfig)) -> Arc<dyn Sql> {
        let mut settings = settings_through(self.through.as_deref(), &self.url);
        change(&mut settings);
        sql::open(&settings).await.unwrap()
    }

    /// A connection that is not weir's.
    pub async fn probe(&self) -> Probe {
        Probe::connect(self.engine, &self.url).await
    }

    /// Runs statements that are not weir's.
    pub async fn run(&self, script: &str) {
        self.probe().await.run(script).await.unwrap();
    }

    /// Runs what a finding says, in one session: as it is printed, or in batches until nothing changes any more.
    pub async fn mend(&self, finding: &Finding, in_batches: bool) {
        let mut probe = self.probe().await;
        let (last, first) = match finding.statements.split_last() {
            Some((last, first)) => (last.clone(), first),
            None => return,
        };
        for statement in first {
            probe.run(statement).await.unwrap_or_else(|error| panic!("{error}\nin {statement}"));
        }
        let (ending, times) =
            if in_batches && !finding.in_batches.is_empty() { (finding.in_batches.join("; "), 3) } else { (last, 1) };
        for _ in 0..times {
            probe.run(&ending).await.unwrap_or_else(|error| panic!("{error}\nin {ending}"));
        }
    }

    /// The text that a query answers.
    pub async fn text(&self, query: &str) -> String {
        self.probe().await.text(query).await
    }

    /// The number that a query answers.
    pub async fn number(&self, query: &str) -> i64 {
        self.probe().await.number(query).await
    }

    /// Tables `feed` with ids 1 to `targets`, and `feed_like` with `extra` among its columns and constraints.
    pub async fn tables(&self, targets: i64, extra: &str) -> ToggleTable {
        let ids: Vec<String> = (1..=targets).map(|id| format!("({id})")).collect();
        self.run(&format!(
            "CREATE TABLE feed (id BIGINT NOT NULL PRIMARY KEY, like_count BIGINT NOT NULL DEFAULT 0);
             CREATE TABLE feed_like (feed_id BIGINT NOT NULL, user_id BIGINT NOT NULL, created_at BIGINT NOT NULL,
                PRIMARY KEY (feed_id, user_id){extra});
             INSERT INTO feed (id) VALUES {}",
            ids.join(",")
        ))
        .await;
        table(IdType::Integer)
    }

    /// Claims a partition for [`KIND`].
    pub async fn claim(&self, partition: Partition) -> Checkpoint {
        let life = Incarnation::fresh();
        self.sql.claim(KIND, &[(partition, life)], false).await.unwrap()[0]
    }

    /// The checkpoint of a partition of [`KIND`].
    pub async fn checkpoint(&self, partition: Partition) -> Option<Checkpoint> {
        self.sql.checkpoints(KIND, &[partition]).await.unwrap()[0]
    }

    /// Fails unless every count of `feed` is the number of its rows in `feed_like`.
    pub async fn counts_equal_rows(&self) {
        let query = "SELECT count(*) FROM feed
            WHERE like_count <> (SELECT count(*) FROM feed_like WHERE feed_id = feed.id)";
        assert_eq!(self.number(query).await, 0, "counts differ from rows");
    }

    /// Moves the fence of partition 0 of [`KIND`] on by one, claiming it first if need be, and stores rows with it.
    pub async fn store(&self, table: &KindTable, rows: &[Row]) -> Applied {
        let from = match self.checkpoint(0).await {
            Some(row) => row,
            None => self.claim(0).await,
        };
        let fence = Fence { from, to: from.position + 1 };
        let applied = self.sql.apply(KIND, table, &[fence], rows, AT_MS + 1).await.unwrap();
        assert_eq!(self.checkpoint(0).await.unwrap().position, from.position + 1, "the flush is committed");
        applied
    }

    /// Moves a fence on by one and stores rows with it.
    pub async fn flush(&self, table: &ToggleTable, from: Checkpoint, rows: &[RowChange]) -> sql::Applied {
        let fence = Fence { from, to: from.position + 1 };
        self.sql.apply_toggles(KIND, table, &[fence], rows, AT_MS + 1).await.unwrap()
    }
}

/// The usual binding, with ids of `id_type`.
pub fn table(id_type: IdType) -> ToggleTable {
    ToggleTable {
        name: "feed_like".into(),
        target_column: "feed_id".into(),
        actor_column: "user_id".into(),
        created_at_column: Some("created_at".into()),
        target_type: id_type,
        actor_type: id_type,
        targets: Some(CountTable {
            name: "feed".into(),
            key_column: "id".into(),
            count_column: Some("like_count".into()),
        }),
        huge_rows_min: 100,
    }
}

/// Where the rows of tests come from: partition 0, at [`AT_MS`].
pub const ORIGIN: Origin = Origin { partition: 0, position: 7, digest: Digest([7; 32]), at_ms: AT_MS };

/// A change of partition 0.
pub fn change(target: Id, actor: Id, action: Action) -> RowChange {
    RowChange { origin: ORIGIN, target, actor, action }
}

/// An addition of integers in partition 0.
pub fn add(target: i64, actor: i64) -> RowChange {
    change(Id::Int(target), Id::Int(actor), Action::Add)
}

/// A removal of integers in partition 0.
pub fn remove(target: i64, actor: i64) -> RowChange {
    change(Id::Int(target), Id::Int(actor), Action::Remove)
}

/// A connection that is not weir's.
pub enum Probe {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
    MariaDb(MySqlConnection),
    MySql(MySqlConnection),
}

impl Probe {
    pub async fn connect(engine: Engine, url: &str) -> Self {
        match engine {
            Engine::Sqlite => Self::Sqlite(SqliteConnection::connect(url).await.unwrap()),
            Engine::Postgres => Self::Postgres(PgConnection::connect(url).await.unwrap()),
            Engine::MariaDb => Self::MariaDb(MySqlConnection::connect(url).await.unwrap()),
            Engine::MySql => Self::MySql(MySqlConnection::connect(url).await.unwrap()),
        }
    }

    pub async fn run(&mut self, script: &str) -> Result<(), sqlx::Error> {
        // The same by another name.
        let script = match self {
            Self::MySql(_) => script.replace("utf8mb4_nopad_bin", "utf8mb4_0900_bin"),
            _ => script.to_owned(),
        };
        let script = sqlx::raw_sql(AssertSqlSafe(script));
        match self {
            Self::Sqlite(connection) => script.execute(connection).await.map(drop),
            Self::Postgres(connection) => script.execute(connection).await.map(drop),
            Self::MariaDb(connection) | Self::MySql(connection) => script.execute(connection).await.map(drop),
        }
    }

    pub async fn number(&mut self, query: &str) -> i64 {
        let text = AssertSqlSafe(query);
        match self {
            Self::Sqlite(connection) => sqlx::query_scalar(text).fetch_one(connection).await.unwrap(),
            Self::Postgres(connection) => sqlx::query_scalar(text).fetch_one(connection).await.unwrap(),
            Self::MariaDb(connection) | Self::MySql(connection) => {
                sqlx::query_scalar(text).fetch_one(connection).await.unwrap()
            }
        }
    }

    pub async fn text(&mut self, query: &str) -> String {
        let text = AssertSqlSafe(query);
        match self {
            Self::Sqlite(connection) => sqlx::query_scalar(text).fetch_one(connection).await.unwrap(),
            Self::Postgres(connection) => sqlx::query_scalar(text).fetch_one(connection).await.unwrap(),
            Self::MariaDb(connection) | Self::MySql(connection) => {
                sqlx::query_scalar(text).fetch_one(connection).await.unwrap()
            }
        }
    }
}
