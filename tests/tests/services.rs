//! The harness itself: each server starts, keeps what was committed over `kill -9`, and takes sessions again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use sqlx::{Connection, MySqlConnection, PgConnection, Row};
use weir_tests::database::Database;
use weir_tests::services::{MariaDb, MySql, Postgres, Redis, RedisOptions};
use weir_tests::stand::{Setup, Stand};

#[test]
fn redis_keeps_what_it_acknowledged_over_a_kill() {
    let mut redis = Redis::start(RedisOptions::default());
    redis.command::<()>(&["SET", "key", "value"]);
    redis.kill();
    redis.restart();
    assert_eq!(redis.command::<String>(&["GET", "key"]), "value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_recovers_from_a_kill_of_all_its_processes() {
    let mut postgres = Postgres::start();
    let url = postgres.create_database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE t (n BIGINT); INSERT INTO t VALUES (7)").execute(&mut connection).await.unwrap();
    postgres.kill();
    postgres.restart();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let row = sqlx::query("SELECT n FROM t").fetch_one(&mut connection).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_recovers_from_a_kill() {
    let mut mariadb = MariaDb::start();
    let url = mariadb.create_database().await;
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE t (n BIGINT); INSERT INTO t VALUES (7)").execute(&mut connection).await.unwrap();
    mariadb.kill();
    mariadb.restart();
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    let row = sqlx::query("SELECT n FROM t").fetch_one(&mut connection).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_recovers_from_a_kill() {
    let mut mysql = MySql::start();
    let url = mysql.create_database().await;
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE t (n BIGINT); INSERT INTO t VALUES (7)").execute(&mut connection).await.unwrap();
    mysql.kill();
    mysql.restart();
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    let row = sqlx::query("SELECT n FROM t").fetch_one(&mut connection).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_waits_for_a_held_row_is_seen() {
    for setup in [Setup::EmbeddedPostgres, Setup::EmbeddedMariaDb, Setup::EmbeddedMySql] {
        let stand = Stand::start(setup, 2).await;
        assert_eq!(stand.database.sessions_waiting_for_a_lock().await, 0);
        let held = Database::hold(&stand.database_url, "SELECT like_count FROM feed WHERE id = 1 FOR UPDATE").await;
        let database = stand.database.clone();
        let blocked = tokio::spawn(async move { database.script("UPDATE feed SET like_count = 5 WHERE id = 1").await });
        while stand.database.sessions_waiting_for_a_lock().await == 0 {
            assert!(!blocked.is_finished(), "the row is not held");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        held.release().await;
        blocked.await.unwrap();
        assert_eq!(stand.database.integer("SELECT like_count FROM feed WHERE id = 1").await, 5);
    }
}
