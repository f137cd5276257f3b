//! Poolers and proxies between a host and its servers: likes under load while they are killed, and what is said of one that
//! would break something.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use weir::config::{Config, Pooler as PoolerConfig};
use weir::sql::{Finding, Problem};
use weir_tests::client::Client;
use weir_tests::load::{CountLoad, CreateLoad, Load, LoadOptions, SettingsLoad};
use weir_tests::services::host::weir;
use weir_tests::services::{Host, HostConfig, Pooler, PoolerType};
use weir_tests::stand::{Setup, SqlServer, Stand};

/// One at a time: each starts several servers.
static TURN: Mutex<()> = Mutex::const_new(());

/// Decides only when a hang is a failure.
const LIMIT: Duration = Duration::from_secs(120);
/// How often a pooler is killed under load.
const KILLS: u32 = 5;

const PGBOUNCER: PoolerType = PoolerType::PgBouncer { follows_statements: true, ignores_parameters: false };

fn port(stand: &Stand) -> u16 {
    match &stand.sql {
        SqlServer::Postgres(server) => server.port(),
        SqlServer::MariaDb(server) => server.port(),
        SqlServer::MySql(server) => server.port(),
        SqlServer::Sqlite => panic!("a file has no port"),
    }
}

/// Load of all kinds through a pooler that is killed again and again: every acknowledged change is in SQL, none twice.
async fn nothing_is_lost(name: &str, stand: &Stand, config: &Config, pooler: &mut Pooler) {
    let seed = rand::random_range(0..1_000_000);
    let mut host = stand.host(config);
    let public = host.public();
    let load = Load::start(&[public], LoadOptions { clients: 24, actors: 200, targets: 5, seed });
    let counts = CountLoad::start(&[public], LoadOptions { clients: 8, actors: 1, targets: 5, seed });
    let creates = CreateLoad::start(&[public], LoadOptions { clients: 6, actors: 4, targets: 0, seed });
    let settings = SettingsLoad::start(&[public], LoadOptions { clients: 4, actors: 0, targets: 5, seed });
    assert!(load.wait_for_acks(200, LIMIT).await, "the load does not get going:\n{}", host.log());
    let mut longest = Duration::ZERO;
    for _ in 0..KILLS {
        pooler.kill();
        tokio::time::sleep(Duration::from_millis(rand::random_range(50..500))).await;
        pooler.restart();
        let back = Instant::now();
        assert!(load.wait_for_acks(200, LIMIT).await, "no acknowledgements after a kill:\n{}", host.log());
        longest = longest.max(back.elapsed());
    }
    let ledger = load.stop().await;
    let counted = counts.acks.load(Ordering::Relaxed);
    let (counts, creates, settings) = (counts.stop().await, creates.stop().await, settings.stop().await);
    Client::new(host.admin()).wait_drained(LIMIT).await;
    let difference = ledger.compare(&stand.database).await;
    println!(
        "pooler {name}: acks={} increments={counted} documents={} kills={KILLS} lost={} doubled={} \
         200 acks after a kill within {} ms",
        ledger.acks,
        creates.documents.len(),
        difference.lost.len(),
        difference.doubled.len(),
        longest.as_millis(),
    );
    ledger.assert_holds(&stand.database).await;
    counts.assert_holds(&stand.database).await;
    creates.assert_holds(&stand.database).await;
    settings.assert_holds(&stand.database).await;
    stand.database.assert_counts_equal_rows().await;
    assert_eq!(stand.database.dead_letters().await, 0);
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_that_pools_transactions_loses_nothing() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::RedisPostgres, 5).await;
    let mut pooler = Pooler::start(PGBOUNCER, port(&stand));
    let mut config = stand.full_config();
    config.sql.url = pooler.before(&stand.database_url);
    config.sql.pooler = PoolerConfig::Transaction;
    nothing_is_lost("pgbouncer+postgres", &stand, &config, &mut pooler).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_router_loses_nothing() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::RedisMySql, 5).await;
    let mut pooler = Pooler::start(PoolerType::MySqlRouter, port(&stand));
    let mut config = stand.full_config();
    config.sql.url = pooler.before(&stand.database_url);
    nothing_is_lost("mysqlrouter+mysql", &stand, &config, &mut pooler).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_before_redis_loses_nothing() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::RedisPostgres, 5).await;
    let redis = stand.redis.as_ref().unwrap();
    let mut pooler = Pooler::start(PoolerType::HaProxy, redis.port());
    let mut config = stand.full_config();
    config.store.url = pooler.before(&redis.url());
    nothing_is_lost("haproxy+redis", &stand, &config, &mut pooler).await;
}

async fn findings(config: &Config) -> Vec<Finding> {
    let sql = weir::sql::open(&config.sql).await.unwrap();
    let findings = sql.check_server().await.unwrap();
    sql.close().await;
    findings
}

/// `pooler` as it is written, before a PostgreSQL, and what the self-check says.
async fn said_of(stand: &Stand, kind: PoolerType, pooler: PoolerConfig) -> Vec<Finding> {
    let between = Pooler::start(kind, port(stand));
    let mut config = stand.config();
    config.sql.url = between.before(&stand.database_url);
    config.sql.pooler = pooler;
    findings(&config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_would_break_something_is_named() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::EmbeddedPostgres, 1).await;
    let mut config = stand.config();
    assert_eq!(findings(&config).await, vec![], "there is none");
    config.sql.pooler = PoolerConfig::Transaction;
    assert_eq!(findings(&config).await, vec![], "what is careful with sessions is right without one, too");
    assert_eq!(said_of(&stand, PGBOUNCER, PoolerConfig::Transaction).await, vec![]);

    // It drops what it does not know, so that weir gets in; what a session sets is then anybody's.
    let quiet = PoolerType::PgBouncer { follows_statements: true, ignores_parameters: true };
    let said = said_of(&stand, quiet, PoolerConfig::None).await;
    let named = said.iter().find(|finding| finding.problem.contains("several server processes")).expect("it is named");
    assert!(!named.warning && named.name == Problem::SessionSettings, "{named:?}");
    assert!(named.remedy.contains("pooler = \"transaction\""), "{named:?}");

    let forgetful = PoolerType::PgBouncer { follows_statements: false, ignores_parameters: false };
    let said = said_of(&stand, forgetful, PoolerConfig::Transaction).await;
    assert!(said.len() == 1 && !said[0].warning && said[0].remedy.contains("max_prepared_statements"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_is_not_configured_refuses_the_host_and_it_says_what_to_write() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::EmbeddedPostgres, 1).await;
    let between = Pooler::start(PGBOUNCER, port(&stand));
    let mut config = stand.config();
    config.sql.url = between.before(&stand.database_url);
    let file = stand.directory.path().join("weir.toml");
    let HostConfig::Text(text) = HostConfig::of(&config) else { panic!("a configuration is text") };
    std::fs::write(&file, text).unwrap();
    let ended = weir(stand.directory.path(), &["check", "--config", file.to_str().unwrap()]);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(ended.code != Some(0) && said.contains("write pooler = \"transaction\" in [sql]"), "{ended:?}");
    println!("pooler not configured: {}", said.lines().find(|line| line.contains("pooler")).unwrap_or_default().trim());
    // With that it starts, and likes are stored.
    config.sql.pooler = PoolerConfig::Transaction;
    let host: Host = stand.host(&config);
    assert_eq!(Client::new(host.public()).like(1, 7).await, (true, 1));
    Client::new(host.admin()).wait_drained(LIMIT).await;
    assert_eq!(stand.database.likes().await, [(1, 7)].into());
}
