//! Settings of servers of our own: what is wrong is said, running what is printed mends it, and of a good one nothing is said.

use weir::config::SqlConfig;
use weir::sql::{Advice, Finding, Problem};
use weir_tests::services::{MariaDb, MySql, MySqlOptions, Postgres};

use super::{Said, said};
use crate::fixture::{Engine, Probe, settings};

async fn check(url: &str) -> Vec<Finding> {
    let sql = weir::sql::open(&settings(url)).await.unwrap();
    let findings = sql.check_server().await.unwrap();
    sql.close().await;
    findings
}

async fn finds(url: &str, expected: &[Said]) -> Vec<Finding> {
    let findings = check(url).await;
    assert_eq!(said(&findings), expected, "{findings:#?}");
    findings
}

/// Runs what is printed, as an operator of the server would.
async fn mend(engine: Engine, url: &str, findings: &[Finding]) {
    let mut probe = Probe::connect(engine, url).await;
    for statement in findings.iter().flat_map(|finding| &finding.statements) {
        probe.run(statement).await.unwrap_or_else(|error| panic!("{error}\nin {statement}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_settings_are_mended() {
    let server = Postgres::start();
    let url = server.create_database().await;
    finds(&url, &[]).await;
    let mut probe = Probe::connect(Engine::Postgres, &url).await;
    probe.run("ALTER SYSTEM SET full_page_writes = off").await.unwrap();
    probe.run("SELECT pg_reload_conf()").await.unwrap();
    // The signal reaches a session between two statements.
    for _ in 0..100 {
        if probe.text("SHOW full_page_writes").await == "off" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let findings = finds(&url, &[(Problem::PowerLoss, Advice::SetServer)]).await;
    mend(Engine::Postgres, &url, &findings).await;
    for _ in 0..100 {
        if probe.text("SHOW full_page_writes").await == "on" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    finds(&url, &[]).await;
    // Of a database alone.
    probe.run("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0").await.unwrap();
    finds(&server.url("latin"), &[(Problem::Encoding, Advice::Decide)]).await;
    probe.run("ALTER DATABASE latin SET default_transaction_read_only = on").await.unwrap();
    finds(&server.url("latin"), &[(Problem::Encoding, Advice::Decide), (Problem::ReadOnly, Advice::Decide)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_settings_are_mended() {
    // A binary log of statements, as servers before 10.2.4 have by default.
    let server = MariaDb::start_with(&["--log-bin=log", "--binlog-format=STATEMENT"]);
    let url = server.create_database().await;
    let findings = finds(&url, &[(Problem::BinaryLog, Advice::SetServer)]).await;
    mend(Engine::MariaDb, &url, &findings).await;
    finds(&url, &[]).await;
    let mut probe = Probe::connect(Engine::MariaDb, &url).await;
    for (value, problem) in [(0, Problem::CrashLoss), (2, Problem::PowerLoss)] {
        probe.run(&format!("SET GLOBAL innodb_flush_log_at_trx_commit = {value}")).await.unwrap();
        let findings = finds(&url, &[(problem, Advice::SetServer)]).await;
        mend(Engine::MariaDb, &url, &findings).await;
        finds(&url, &[]).await;
    }
    // What this server answers is a word, OFF or ON.
    assert_eq!(probe.text("SELECT CAST(@@read_only AS CHAR)").await, "OFF");
    probe.run("SET GLOBAL read_only = ON").await.unwrap();
    let findings = finds(&url, &[(Problem::ReadOnly, Advice::Decide)]).await;
    assert!(findings[0].problem.contains("read_only is ON"), "{findings:?}");
    probe.run("SET GLOBAL read_only = OFF").await.unwrap();
    finds(&url, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_settings_are_mended() {
    let settings = vec!["--binlog-format=STATEMENT".into()];
    let server = MySql::start_with(MySqlOptions { binary_log: true, settings, ..MySqlOptions::default() });
    let url = server.create_database().await;
    let findings = finds(&url, &[(Problem::BinaryLog, Advice::SetServer)]).await;
    mend(Engine::MySql, &url, &findings).await;
    finds(&url, &[]).await;
    let mut probe = Probe::connect(Engine::MySql, &url).await;
    for (value, problem) in [(0, Problem::CrashLoss), (2, Problem::PowerLoss)] {
        probe.run(&format!("SET GLOBAL innodb_flush_log_at_trx_commit = {value}")).await.unwrap();
        let findings = finds(&url, &[(problem, Advice::SetServer)]).await;
        mend(Engine::MySql, &url, &findings).await;
        finds(&url, &[]).await;
    }
    // What this server answers is a number, 0 or 1.
    assert_eq!(probe.text("SELECT CAST(@@read_only AS CHAR)").await, "0");
    for (set, unset) in [("read_only", "read_only"), ("super_read_only", "read_only")] {
        probe.run(&format!("SET GLOBAL {set} = ON")).await.unwrap();
        let findings = finds(&url, &[(Problem::ReadOnly, Advice::Decide)]).await;
        assert!(findings[0].problem.contains(&format!("{set} is 1")), "{findings:?}");
        // Without it super_read_only is none either.
        probe.run(&format!("SET GLOBAL {unset} = OFF")).await.unwrap();
        finds(&url, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mysql_whose_storage_takes_no_writes_is_named() {
    let mut server = MySql::start();
    let url = server.create_database().await;
    finds(&url, &[]).await;
    server.restart_with(vec!["--innodb-read-only".into()]);
    let findings = finds(&url, &[(Problem::ReadOnly, Advice::Decide)]).await;
    assert!(findings[0].problem.contains("innodb_read_only is 1"), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_memory_is_named() {
    let sql = weir::sql::open(&SqlConfig { url: "sqlite::memory:".into(), ..SqlConfig::default() }).await.unwrap();
    let findings = sql.check_server().await.unwrap();
    assert_eq!(said(&findings), [(Problem::JournalMode, Advice::Decide)], "{findings:?}");
}
