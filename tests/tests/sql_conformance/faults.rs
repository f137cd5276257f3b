//! Servers that go away, locks that are held, owners that stop in mid-flush. None of it may become a dead letter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use weir::config::SqlConfig;
use weir::model::Incarnation;
use weir::sql::{self, Fence, Sql, SqlError};
use weir_tests::services::{MariaDb, MySql, Postgres};

use crate::fixture::{AT_MS, Engine, Fixture, KIND, Probe, Toggles as _, add, settings, table};

/// Begins a transaction of another session that holds the fence of partition 0 of [`KIND`].
async fn hold_fence(fixture: &Fixture) -> Probe {
    let mut probe = fixture.probe().await;
    let begin = match fixture.engine {
        Engine::Sqlite => "BEGIN IMMEDIATE",
        Engine::Postgres | Engine::MariaDb | Engine::MySql => "BEGIN",
    };
    probe.run(begin).await.unwrap();
    probe.run(&format!("UPDATE weir_checkpoint SET epoch = epoch + 0 WHERE kind = '{KIND}'")).await.unwrap();
    probe
}

pub async fn a_lock_held_by_another_session_is_transient(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    let from = fixture.claim(0).await;
    let impatient = fixture
        .with(|settings| {
            settings.acquire_timeout_ms = 1_000;
            settings.statement_timeout_ms = 2_000;
            settings.lock_timeout_ms = 1_000;
            settings.idle_transaction_timeout_ms = 1_000;
        })
        .await;
    let mut holder = hold_fence(fixture).await;
    let fence = [Fence { from, to: 1 }];
    let refused = impatient.apply_toggles(KIND, &table, &fence, &[add(1, 1)], AT_MS).await;
    // Of the checkpoint another flusher; of a file whoever writes it.
    assert!(matches!(refused, Err(SqlError::Transient(_) | SqlError::Locked(_))), "{refused:?}");
    assert_eq!(fixture.number("SELECT count(*) FROM weir_dead_letter").await, 0);
    holder.run("ROLLBACK").await.unwrap();
    impatient.apply_toggles(KIND, &table, &fence, &[add(1, 1)], AT_MS).await.unwrap();
    fixture.counts_equal_rows().await;
}

pub async fn rows_locked_by_another_session_are_waited_for(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    let from = fixture.claim(0).await;
    fixture.run("INSERT INTO feed_like VALUES (1, 1, 0); UPDATE feed SET like_count = 1 WHERE id = 1").await;
    let mut application = fixture.probe().await;
    let begin = if fixture.engine == Engine::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" };
    application.run(begin).await.unwrap();
    // The application itself adds a pair that weir adds too, and removes one that weir removes too.
    application
        .run(
            "INSERT INTO feed_like VALUES (2, 2, 0); UPDATE feed SET like_count = like_count + 1 WHERE id = 2;
             DELETE FROM feed_like WHERE feed_id = 1; UPDATE feed SET like_count = like_count - 1 WHERE id = 1",
        )
        .await
        .unwrap();
    let flush = async {
        let rows = [add(2, 2), crate::fixture::remove(1, 1), add(3, 3)];
        fixture.sql.apply_toggles(KIND, &table, &[Fence { from, to: 1 }], &rows, AT_MS).await.unwrap()
    };
    let commit = async {
        sleep(Duration::from_millis(300)).await;
        application.run("COMMIT").await.unwrap();
    };
    let (applied, ()) = tokio::join!(flush, commit);
    assert_eq!((applied.inserted, applied.deleted, applied.dead.len()), (1, 0, 0), "{:?}", applied.dead);
    fixture.counts_equal_rows().await;
    assert_eq!(fixture.number("SELECT count(*) FROM feed_like").await, 2);
}

/// An owner that was stopped in mid-flush: the server ends its idle transaction, and the next owner goes on.
async fn a_stopped_owner_loses_its_locks(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    let from = fixture.claim(0).await;
    let brief = fixture
        .with(|settings| {
            settings.connections_max = 2;
            settings.idle_transaction_timeout_ms = 1_000;
        })
        .await;
    // A session with weir's own settings begins, moves the fence, writes a row, and falls silent.
    let script = format!(
        "BEGIN; UPDATE weir_checkpoint SET position = 9 WHERE kind = '{KIND}'; INSERT INTO feed_like VALUES (1, 1, 0)"
    );
    brief.execute_script(&script.replace("position", position(fixture.engine))).await.unwrap();
    // The next owner waits for the fence row no longer than the server lets the silent one live.
    let next = fixture.other().await;
    let claim = async || loop {
        match next.claim(KIND, &[(0, from.incarnation)], true).await {
            Ok(rows) => return rows[0],
            Err(SqlError::Transient(_)) => sleep(Duration::from_millis(50)).await,
            Err(other) => panic!("{other:?}"),
        }
    };
    let owned = tokio::time::timeout(Duration::from_secs(60), claim()).await.expect("the fence row stays locked");
    assert_eq!((owned.position, owned.epoch), (0, from.epoch + 1));
    let fence = Fence { from: owned, to: 3 };
    assert_eq!(next.apply_toggles(KIND, &table, &[fence], &[add(2, 2)], AT_MS).await.unwrap().inserted, 1);
    fixture.counts_equal_rows().await;
    // The stopped owner wakes up, on the same connection or on another.
    let zombie = brief.apply_toggles(KIND, &table, &[Fence { from, to: 1 }], &[add(3, 3)], AT_MS).await;
    assert_eq!(zombie, Err(SqlError::Fenced));
}

fn position(engine: Engine) -> &'static str {
    if engine.is_mysql() { "`position`" } else { "\"position\"" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_ends_the_transaction_of_a_stopped_owner() {
    a_stopped_owner_loses_its_locks(&Fixture::new(Engine::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_ends_the_transaction_of_a_stopped_owner() {
    a_stopped_owner_loses_its_locks(&Fixture::new(Engine::MariaDb).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_ends_the_transaction_of_a_stopped_owner() {
    a_stopped_owner_loses_its_locks(&Fixture::new(Engine::MySql).await).await;
}

/// Two transactions that lock each other's rows; the engine picks a victim. If it is weir, that is transient.
async fn a_deadlock_is_transient(fixture: &Fixture) {
    let table = fixture.tables(2, "").await;
    let mut victims = 0;
    for round in 0..20 {
        let from = match fixture.checkpoint(0).await {
            None => fixture.claim(0).await,
            Some(row) => row,
        };
        let mut application = fixture.probe().await;
        // Wrong order on purpose: the count of target 2 first, then the fence. Many rows make it the worse victim.
        let ids: Vec<String> = (1_000..2_000).map(|id| format!("({id})")).collect();
        application.run("BEGIN").await.unwrap();
        application.run(&format!("INSERT INTO feed (id) VALUES {}", ids.join(","))).await.unwrap();
        application.run("UPDATE feed SET like_count = like_count + 1 WHERE id = 2").await.unwrap();
        let fence = [Fence { from, to: from.position + 1 }];
        let rows = [add(2, round)];
        let flush = fixture.sql.apply_toggles(KIND, &table, &fence, &rows, AT_MS);
        let cross = async {
            sleep(Duration::from_millis(300)).await;
            let _ = application.run("UPDATE weir_checkpoint SET epoch = epoch + 1").await;
            let _ = application.run("ROLLBACK").await;
        };
        match tokio::join!(flush, cross).0 {
            Ok(_) => {}
            Err(SqlError::Transient(_)) => victims += 1,
            other => panic!("{other:?}"),
        }
        if victims > 0 {
            break;
        }
    }
    assert!(victims > 0, "weir was never the victim, the test shows nothing");
    assert_eq!(fixture.number("SELECT count(*) FROM weir_dead_letter").await, 0);
    fixture.counts_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_deadlocks_are_transient() {
    a_deadlock_is_transient(&Fixture::new(Engine::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_deadlocks_are_transient() {
    a_deadlock_is_transient(&Fixture::new(Engine::MariaDb).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_deadlocks_are_transient() {
    a_deadlock_is_transient(&Fixture::new(Engine::MySql).await).await;
}

/// Settings that give up soon.
fn impatient(url: &str) -> SqlConfig {
    SqlConfig {
        acquire_timeout_ms: 1_500,
        statement_timeout_ms: 1_000,
        lock_timeout_ms: 500,
        idle_transaction_timeout_ms: 1_000,
        ..settings(url)
    }
}

async fn prepare(sql: &dyn Sql, engine: Engine, url: &str) -> weir::model::Checkpoint {
    sql.migrate().await.unwrap();
    Probe::connect(engine, url)
        .await
        .run(
            "CREATE TABLE feed (id BIGINT NOT NULL PRIMARY KEY, like_count BIGINT NOT NULL DEFAULT 0);
             CREATE TABLE feed_like (feed_id BIGINT NOT NULL, user_id BIGINT NOT NULL, created_at BIGINT NOT NULL,
                PRIMARY KEY (feed_id, user_id));
             INSERT INTO feed (id) VALUES (1)",
        )
        .await
        .unwrap();
    sql.claim(KIND, &[(0, Incarnation::fresh())], false).await.unwrap()[0]
}

/// Flushes as a patient owner does: again after what is transient or unknown, from the checkpoint as it is. Then
/// exactly one row and one count must be there.
async fn flush_until_stored(sql: &dyn Sql, engine: Engine, url: &str, actor: i64) {
    let table = table(weir::model::IdType::Integer);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        assert!(tokio::time::Instant::now() < deadline, "the server is back, and still nothing is stored");
        let Ok(rows) = sql.checkpoints(KIND, &[0]).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let from = rows[0].unwrap();
        let fence = [Fence { from, to: from.position + 1 }];
        match sql.apply_toggles(KIND, &table, &fence, &[add(1, actor)], AT_MS).await {
            Ok(_) => break,
            Err(SqlError::Fenced) => {
                // What an earlier flush left in flight was committed after all.
                let now = sql.checkpoints(KIND, &[0]).await.unwrap()[0];
                assert_ne!(now, Some(from), "fenced although nobody moved the checkpoint");
            }
            Err(SqlError::Transient(_) | SqlError::OutcomeUnknown(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    let mut probe = Probe::connect(engine, url).await;
    assert_eq!(probe.number(&format!("SELECT count(*) FROM feed_like WHERE user_id = {actor}")).await, 1);
    assert_eq!(probe.number("SELECT count(*) FROM feed WHERE like_count <> (SELECT count(*) FROM feed_like)").await, 0);
    assert_eq!(probe.number("SELECT count(*) FROM weir_dead_letter").await, 0);
}

async fn transient(sql: &dyn Sql, from: weir::model::Checkpoint) {
    let table = table(weir::model::IdType::Integer);
    let fence = [Fence { from, to: from.position + 1 }];
    let error = sql.apply_toggles(KIND, &table, &fence, &[add(1, 5)], AT_MS).await.unwrap_err();
    assert!(matches!(error, SqlError::Transient(_) | SqlError::OutcomeUnknown(_)), "{error:?}");
    assert!(matches!(sql.ping().await, Err(SqlError::Transient(_))));
    assert!(matches!(sql.checkpoints(KIND, &[0]).await, Err(SqlError::Transient(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_away_stopped_and_back() {
    let mut server = Postgres::start();
    let url = server.create_database().await;
    server.kill();
    let sql = sql::open(&impatient(&url)).await.expect("open does not need the server");
    assert!(matches!(sql.migrate().await, Err(SqlError::Transient(_))));
    server.restart();
    // It is found back by a probe; until then it is known to be away.
    while sql.ping().await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
    let from = prepare(&*sql, Engine::Postgres, &url).await;
    server.kill();
    transient(&*sql, from).await;
    server.restart();
    flush_until_stored(&*sql, Engine::Postgres, &url, 1).await;
    let from = sql.checkpoints(KIND, &[0]).await.unwrap()[0].unwrap();
    server.stop_signal();
    // The signal takes a moment to reach every thread.
    while sql.ping().await.is_ok() {}
    transient(&*sql, from).await;
    server.cont();
    flush_until_stored(&*sql, Engine::Postgres, &url, 2).await;
    sql.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_away_stopped_and_back() {
    let mut server = MariaDb::start();
    let url = server.create_database().await;
    server.kill();
    let sql = sql::open(&impatient(&url)).await.expect("open does not need the server");
    assert!(matches!(sql.migrate().await, Err(SqlError::Transient(_))));
    server.restart();
    // It is found back by a probe; until then it is known to be away.
    while sql.ping().await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
    let from = prepare(&*sql, Engine::MariaDb, &url).await;
    server.kill();
    transient(&*sql, from).await;
    server.restart();
    flush_until_stored(&*sql, Engine::MariaDb, &url, 1).await;
    let from = sql.checkpoints(KIND, &[0]).await.unwrap()[0].unwrap();
    server.stop_signal();
    // The signal takes a moment to reach every thread.
    while sql.ping().await.is_ok() {}
    transient(&*sql, from).await;
    server.cont();
    flush_until_stored(&*sql, Engine::MariaDb, &url, 2).await;
    sql.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_away_stopped_and_back() {
    let mut server = MySql::start();
    let url = server.create_database().await;
    server.kill();
    let sql = sql::open(&impatient(&url)).await.expect("open does not need the server");
    assert!(matches!(sql.migrate().await, Err(SqlError::Transient(_))));
    server.restart();
    // It is found back by a probe; until then it is known to be away.
    while sql.ping().await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
    let from = prepare(&*sql, Engine::MySql, &url).await;
    server.kill();
    transient(&*sql, from).await;
    server.restart();
    flush_until_stored(&*sql, Engine::MySql, &url, 1).await;
    let from = sql.checkpoints(KIND, &[0]).await.unwrap()[0].unwrap();
    server.stop_signal();
    // The signal takes a moment to reach every thread.
    while sql.ping().await.is_ok() {}
    transient(&*sql, from).await;
    server.cont();
    flush_until_stored(&*sql, Engine::MySql, &url, 2).await;
    sql.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_database_or_scheme_is_permanent() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let nowhere = sql::open(&impatient(&format!("{}_nowhere", fixture.url))).await.unwrap();
    assert!(matches!(nowhere.ping().await, Err(SqlError::Permanent(_))), "{:?}", nowhere.ping().await);
    assert!(matches!(sql::open(&impatient("oracle://x")).await.map(drop), Err(SqlError::Permanent(_))));
}

/// The proxy lets everything pass.
const PASS: u8 = 0;
/// It breaks the connection when it sees a COMMIT, which never reaches the server.
const LOSE_COMMIT: u8 = 1;
/// It passes the COMMIT on, waits for the answer, and breaks the connection instead of passing that back.
const LOSE_REPLY: u8 = 2;

/// A proxy before the server of `url`; the URL through it.
async fn proxy(url: &str, mode: Arc<AtomicU8>) -> String {
    let (start, rest) = url.split_once("@127.0.0.1:").unwrap();
    let (port, database) = rest.split_once('/').unwrap();
    let server = format!("127.0.0.1:{port}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = format!("{start}@127.0.0.1:{}/{database}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(relay(client, TcpStream::connect(server.clone()).await.unwrap(), Arc::clone(&mode)));
        }
    });
    through
}

async fn relay(mut client: TcpStream, mut server: TcpStream, mode: Arc<AtomicU8>) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                // Not the isolation level "READ COMMITTED".
                let at = up[..count].windows(6).position(|bytes| bytes == b"COMMIT");
                let commit = at.is_some_and(|at| up[..count].get(at + 6) != Some(&b'T'));
                match mode.load(Ordering::SeqCst) {
                    LOSE_COMMIT if commit => return,
                    LOSE_REPLY if commit => {
                        server.write_all(&up[..count]).await.unwrap();
                        let _ = server.read(&mut down).await;
                        return;
                    }
                    _ => {}
                }
                if server.write_all(&up[..count]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A commit without an answer is an unknown outcome, and the checkpoint row tells which.
async fn a_lost_commit_is_told_by_the_checkpoint(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    let mode = Arc::new(AtomicU8::new(PASS));
    let sql = sql::open(&settings(&proxy(&fixture.url, Arc::clone(&mode)).await)).await.unwrap();
    let from = fixture.claim(0).await;
    for (actor, lose, committed) in [(1, LOSE_COMMIT, false), (2, LOSE_REPLY, true)] {
        let from = fixture.checkpoint(0).await.unwrap_or(from);
        let fence = [Fence { from, to: from.position + 1 }];
        sql.ping().await.unwrap();
        mode.store(lose, Ordering::SeqCst);
        let lost = sql.apply_toggles(KIND, &table, &fence, &[add(1, actor)], AT_MS).await;
        mode.store(PASS, Ordering::SeqCst);
        assert!(matches!(lost, Err(SqlError::OutcomeUnknown(_))), "{lost:?}");
        let now = sql.checkpoints(KIND, &[0]).await.unwrap()[0].unwrap();
        assert_eq!(now.position, from.position + u64::from(committed));
        let again = sql.apply_toggles(KIND, &table, &fence, &[add(1, actor)], AT_MS).await;
        match committed {
            true => assert_eq!(again, Err(SqlError::Fenced)),
            false => assert_eq!(again.unwrap().inserted, 1),
        }
        fixture.counts_equal_rows().await;
    }
    assert_eq!(fixture.number("SELECT count(*) FROM feed_like").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_lost_commits_are_told_by_the_checkpoint() {
    a_lost_commit_is_told_by_the_checkpoint(&Fixture::new(Engine::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_lost_commits_are_told_by_the_checkpoint() {
    a_lost_commit_is_told_by_the_checkpoint(&Fixture::new(Engine::MariaDb).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_lost_commits_are_told_by_the_checkpoint() {
    a_lost_commit_is_told_by_the_checkpoint(&Fixture::new(Engine::MySql).await).await;
}
