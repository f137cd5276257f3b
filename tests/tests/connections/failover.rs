//! Masters that are put down while connections to them stay open, and others that take over: Redis by its sentinels, PostgreSQL
//! and MariaDB by the hosts in one URL. A load goes on all the while; what was acknowledged is counted against SQL.

use std::time::{Duration, Instant};

use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::load::{Load, LoadOptions};
use weir_tests::services::{
    Host, MariaDb, Postgres, PostgresOptions, Redis, RedisOptions, Sentinel, temporary_directory,
};
use weir_tests::stand::{Setup, SqlServer, Stand, add_targets, create_more_tables, create_tables};

use crate::{LIMIT, TURN, until};

const TARGETS: i64 = 20;
const OPTIONS: LoadOptions = LoadOptions { clients: 8, actors: 40, targets: TARGETS, seed: 7 };

/// Ends the load, and compares what was acknowledged with what is in SQL.
async fn assert_nothing_lost(name: &str, host: &Host, load: Load, database: &Database, seconds: f64) {
    assert!(load.wait_for_acks(200, LIMIT).await, "no acknowledgements after the failover:\n{}", host.log());
    let ledger = load.stop().await;
    Client::new(host.admin()).wait_drained(LIMIT).await;
    let difference = ledger.compare(database).await;
    println!(
        "failover {name}: acks={} unknown={} lost={} doubled={} wrong-answers={} {seconds:.2} s until writes go on",
        ledger.acks,
        ledger.unknown,
        difference.lost.len(),
        difference.doubled.len(),
        ledger.violations.len()
    );
    assert!(difference.lost.is_empty() && difference.doubled.is_empty(), "{difference:?}\n{}", host.log());
    assert!(ledger.violations.is_empty(), "{:?}", ledger.violations);
    database.assert_counts_equal_rows().await;
    assert_eq!(database.dead_letters().await, 0);
}

fn field(redis: &Redis, name: &str) -> String {
    let told: String = redis.try_command(&["INFO", "replication"]).unwrap_or_default();
    told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().to_owned()
}

async fn follow(replica: &Redis, master: &Redis) {
    replica.command::<()>(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    until("the replica follows", || async { field(replica, "master_link_status") == "up" }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_sentinels_put_down_is_left_for_the_new_one() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::RedisPostgres, TARGETS).await;
    let options = || RedisOptions {
        more: ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"].map(str::to_owned).into(),
        ..RedisOptions::default()
    };
    let (second, third) = (Redis::start(options()), Redis::start(options()));
    let first = stand.redis.as_ref().unwrap();
    // The third one follows the second, so that this has a replica as soon as it is the master, and what was acknowledged is on
    // the second for certain.
    follow(&second, first).await;
    follow(&third, &second).await;
    let sentinel = Sentinel::start(first, Duration::from_secs(60));
    sentinel.wait_knows(1);
    let mut config = stand.config();
    config.store.url = sentinel.url();
    config.store.replicas_min = 1;
    config.store.replicas_timeout_ms = 300;
    let host = stand.host(&config);
    let load = Load::start(&[host.public()], OPTIONS);
    assert!(load.wait_for_acks(500, LIMIT).await, "the load does not get going:\n{}", host.log());

    // The old one goes on taking writes from whoever is connected to it, until the sentinel tells it otherwise.
    sentinel.fail_over();
    until("another master", || async { field(&second, "role") == "master" }).await;
    let is_open = field(first, "role") == "master";
    let begun = Instant::now();
    assert!(load.wait_for_acks(20, LIMIT).await, "no writes on the new master:\n{}", host.log());
    let seconds = begun.elapsed().as_secs_f64();
    assert!(is_open, "the old master was to be open still");
    until("the sentinel names the new one", || async { sentinel.master() == second.port() }).await;
    assert_nothing_lost("sentinel", &host, load, &stand.database, seconds).await;
    let ready = Client::new(host.admin()).get("/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    assert!(host.log().contains("the sentinels name another master"), "{}", host.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_are_away_or_know_nothing_are_told() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::RedisPostgres, 3).await;
    let mut sentinel = Sentinel::start(stand.redis.as_ref().unwrap(), Duration::from_secs(60));
    let mut config = stand.config();
    config.store.namespace = Some("test".to_owned().try_into().unwrap());
    let look = async |url: String| {
        let store = weir::config::StoreConfig { url, ..config.store.clone() };
        weir::store::inspect(&store)
            .await
            .map(|(holdings, _)| holdings.unwrap().place)
            .map_err(|error| error.to_string())
    };
    let place = look(sentinel.url()).await.unwrap();
    assert_eq!(place, format!("redis-sentinel 127.0.0.1:{}/weir-master/0 test", sentinel.port()));
    let unknown = look(sentinel.url().replace("weir-master", "other")).await.unwrap_err();
    assert!(
        unknown.contains("no sentinel names the master \"other\"") && unknown.contains("No such master"),
        "{unknown}"
    );
    let url = sentinel.url();
    sentinel.kill();
    let away = look(url).await.unwrap_err();
    println!("sentinel away: {away}");
    assert!(away.contains("no sentinel names") && away.contains(&format!("127.0.0.1:{}", sentinel.port())), "{away}");
}

/// Where all flushes have got, as a number that only grows.
async fn progress(database: &Database) -> i64 {
    let rows = database.try_integers("SELECT position FROM weir_checkpoint").await.unwrap();
    rows.iter().map(|row| row[0]).sum()
}

async fn until_flushed(database: &Database, than: i64, host: &Host) -> f64 {
    let begun = Instant::now();
    while progress(database).await <= than {
        assert!(begun.elapsed() < LIMIT, "nothing is flushed to the new one:\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_written_on_the_host_that_takes_writes() {
    let _turn = TURN.lock().await;
    let first = Postgres::start();
    let url = first.create_database().await;
    let name = url.rsplit_once('/').unwrap().1.to_owned();
    let database = Database::connect(&url).await;
    create_tables(&database, "").await;
    add_targets(&database, TARGETS).await;
    create_more_tables(&database, TARGETS).await;
    let second =
        Postgres::start_with(PostgresOptions { primary: Some(first.url("postgres")), ..PostgresOptions::default() });
    let other = Database::connect(&second.url(&name)).await;
    // From now on a commit is acknowledged when the standby has it.
    database.script("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    database.script("SELECT pg_reload_conf()").await;
    let stand = stand_on(Setup::EmbeddedPostgres, SqlServer::Postgres(first), url, database);
    let mut config = stand.config();
    let SqlServer::Postgres(first) = &stand.sql else { unreachable!() };
    // The standby first: it is passed over.
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", second.port(), first.port());
    config.sql.url = format!("postgres://postgres@{hosts}/{name}?target_session_attrs=read-write");
    let host = stand.host(&config);
    let load = Load::start(&[host.public()], OPTIONS);
    assert!(load.wait_for_acks(500, LIMIT).await, "the load does not get going:\n{}", host.log());

    // Put down: its connections stay open, and whoever writes there is refused.
    stand.database.script("ALTER SYSTEM SET default_transaction_read_only = on").await;
    stand.database.script("SELECT pg_reload_conf()").await;
    until("the last writes are done", || async {
        stand.database.integer("SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL").await == 0
    })
    .await;
    assert!(load.wait_for_acks(100, LIMIT).await, "what is known goes on into the journal:\n{}", host.log());
    let (mut old, mut new) = (
        PgConnection::connect(&first.url("postgres")).await.unwrap(),
        PgConnection::connect(&second.url("postgres")).await.unwrap(),
    );
    let wal: String = sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(&mut old).await.unwrap();
    let has_all = format!("SELECT pg_last_wal_replay_lsn() >= '{wal}'::pg_lsn");
    let start = Instant::now();
    while !sqlx::query_scalar::<_, bool>(AssertSqlSafe(has_all.as_str())).fetch_one(&mut new).await.unwrap() {
        assert!(start.elapsed() < LIMIT, "the standby does not follow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = progress(&other).await;
    let promoted: bool = sqlx::query_scalar("SELECT pg_promote()").fetch_one(&mut new).await.unwrap();
    assert!(promoted);
    let seconds = until_flushed(&other, before, &host).await;
    assert_nothing_lost("postgres", &host, load, &other, seconds).await;
    let pid = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'weir'";
    until("no connection of weir's is left on the old one", || async { stand.database.integer(pid).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_is_written_on_the_host_that_takes_writes() {
    let _turn = TURN.lock().await;
    let servers = ["1", "2"].map(|id| {
        MariaDb::start_with(&[
            &format!("--server-id={id}"),
            "--log-bin=binlog",
            "--log-slave-updates",
            "--gtid-strict-mode=OFF",
        ])
    });
    let [first, second] = servers;
    let mut new = MySqlConnection::connect(&second.url("mysql")).await.unwrap();
    let run = async |connection: &mut MySqlConnection, sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql.clone()))
            .execute(connection)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    };
    run(&mut new, "RESET MASTER; SET GLOBAL gtid_slave_pos = ''".into()).await;
    let follow = format!(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='weir', MASTER_USE_GTID=slave_pos",
        first.port()
    );
    run(&mut new, follow).await;
    run(&mut new, "START SLAVE; SET GLOBAL read_only = 1".into()).await;
    let url = first.create_database().await;
    let name = url.rsplit_once('/').unwrap().1.to_owned();
    let database = Database::connect(&url).await;
    create_tables(&database, "").await;
    add_targets(&database, TARGETS).await;
    create_more_tables(&database, TARGETS).await;
    let caught_up = async |new: &mut MySqlConnection, database: &Database| {
        let Database::MySql(pool) = database else { unreachable!() };
        let at: String = sqlx::query_scalar("SELECT @@global.gtid_binlog_pos").fetch_one(pool).await.unwrap();
        let waited = format!("SELECT CAST(MASTER_GTID_WAIT('{at}', 60) AS SIGNED)");
        let waited: i64 = sqlx::query_scalar(AssertSqlSafe(waited)).fetch_one(new).await.unwrap();
        assert_eq!(waited, 0, "the replica does not follow");
    };
    caught_up(&mut new, &database).await;
    let other = Database::connect(&second.url(&name)).await;
    let stand = stand_on(Setup::EmbeddedMariaDb, SqlServer::MariaDb(first), url, database);
    let mut config = stand.config();
    let SqlServer::MariaDb(first) = &stand.sql else { unreachable!() };
    // The replica first: it is passed over. Not as an administrator, who writes in spite of read_only.
    config.sql.url = format!("mysql://app@127.0.0.1:{},127.0.0.1:{}/{name}", second.port(), first.port());
    let host = stand.host(&config);
    let load = Load::start(&[host.public()], OPTIONS);
    assert!(load.wait_for_acks(500, LIMIT).await, "the load does not get going:\n{}", host.log());

    stand.database.script("SET GLOBAL read_only = 1").await;
    assert!(load.wait_for_acks(100, LIMIT).await, "what is known goes on into the journal:\n{}", host.log());
    caught_up(&mut new, &stand.database).await;
    let before = progress(&other).await;
    run(&mut new, "STOP SLAVE; SET GLOBAL read_only = 0".into()).await;
    let seconds = until_flushed(&other, before, &host).await;
    assert_nothing_lost("mariadb", &host, load, &other, seconds).await;
}

fn stand_on(setup: Setup, sql: SqlServer, database_url: String, database: Database) -> Stand {
    Stand { setup, redis: None, sql, database_url, database, directory: temporary_directory("failover") }
}
