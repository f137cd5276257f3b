//! Servers that are put down, take no writes, or are away, while connections to them stay open: refused at once and said, and
//! found back without a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::{TcpListener, TcpStream};
use weir::config::Config;
use weir_tests::client::Client;
use weir_tests::services::{Host, Redis, RedisOptions};
use weir_tests::stand::{Setup, Stand};

use crate::{LIMIT, TURN, assert_refused_for_now, until, until_liked, warm};

/// A name that leads to a server: a port whose new connections go where it says, and whose old ones stay where they are.
struct Name {
    port: u16,
    leads_to: Arc<AtomicU16>,
}

impl Name {
    async fn of(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = Self { port: listener.local_addr().unwrap().port(), leads_to: Arc::new(AtomicU16::new(port)) };
        let leads_to = Arc::clone(&name.leads_to);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let port = leads_to.load(Ordering::SeqCst);
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                        // Ends when either does.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        name
    }
}

/// What `/readyz` says while the host is not ready, once it says `cause`.
async fn until_not_ready(host: &Host, cause: &str) {
    let address = host.admin();
    until(cause, || async move {
        let reply = Client::new(address).get("/readyz").await;
        reply.status == 503 && reply.text().contains(cause)
    })
    .await;
}

async fn until_ready(host: &Host) {
    let address = host.admin();
    until("ready again", || async move { Client::new(address).get("/readyz").await.status == 200 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_put_down_is_left_for_the_one_behind_its_name() {
    let _turn = TURN.lock().await;
    let mut stand = Stand::start(Setup::RedisPostgres, 3).await;
    let second = Redis::start(RedisOptions::default());
    let name = Name::of(stand.redis().port()).await;
    let mut config = stand.config();
    config.store.url = format!("redis://127.0.0.1:{}/0", name.port);
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    let told = |redis: &Redis, name: &str| {
        let told: String = redis.command(&["INFO", "replication"]);
        told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().to_owned()
    };
    let mut expected = std::collections::BTreeSet::new();
    let (mut actor, mut old, mut new) = (1, &*stand.redis(), &second);
    for _ in 0..2 {
        new.command::<()>(&["REPLICAOF", "127.0.0.1", &old.port().to_string()]);
        until("the replica follows", || async { told(new, "master_link_status") == "up" }).await;
        assert!(client.like(1, actor).await.0);
        expected.insert((1, actor));
        let has_all = || async { told(old, "master_repl_offset") == told(new, "slave_repl_offset") };
        until("the replica has what was acknowledged", has_all).await;

        // A managed failover: the other one takes over, connections to this one stay open, the name follows later.
        new.command::<()>(&["REPLICAOF", "NO", "ONE"]);
        old.command::<()>(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]);
        assert_refused_for_now(&client.toggle("PUT", 1, actor + 1, None).await.unwrap());
        until_not_ready(&host, "takes no writes (READONLY)").await;
        assert_refused_for_now(&client.toggle("PUT", 1, actor + 1, None).await.unwrap());
        assert_eq!(Client::new(host.admin()).get("/livez").await.status, 200);
        name.leads_to.store(new.port(), Ordering::SeqCst);
        until_ready(&host).await;
        until_liked(&mut client, 1, actor + 1).await;
        expected.insert((1, actor + 1));
        actor += 2;
        std::mem::swap(&mut old, &mut new);
    }
    Client::new(host.admin()).wait_drained(LIMIT).await;
    assert_eq!(stand.database.likes().await, expected);
    stand.database.assert_counts_equal_rows().await;
}

/// Makes SQL take writes, or none.
async fn set_read_only(stand: &Stand, is_on: bool) {
    if stand.setup == Setup::RedisPostgres {
        let word = if is_on { "on" } else { "off" };
        stand.database.script(&format!("ALTER SYSTEM SET default_transaction_read_only = {word}")).await;
        stand.database.script("SELECT pg_reload_conf()").await;
    } else {
        stand.database.script(&format!("SET GLOBAL read_only = {}", u8::from(is_on))).await;
    }
}

/// The configuration of a host that may do what an application may: administrators of MariaDB and MySQL write all the same.
fn as_application(stand: &Stand) -> Config {
    let mut config = stand.config();
    if stand.setup != Setup::RedisPostgres {
        config.sql.url = stand.database_url.replace("weir@", "app@");
    }
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_that_takes_no_writes_is_said_and_found_again() {
    let _turn = TURN.lock().await;
    let setups = [
        (Setup::RedisPostgres, "25006"),
        (Setup::EmbeddedMariaDb, "--read-only"),
        (Setup::EmbeddedMySql, "--read-only"),
    ];
    for (setup, code) in setups {
        let stand = Stand::start(setup, 4).await;
        let host = stand.host(&as_application(&stand));
        let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
        assert_eq!(client.like(1, 1).await, (true, 1));
        admin.wait_drained(LIMIT).await;

        set_read_only(&stand, true).await;
        // What is known goes on into the journal.
        assert_eq!(client.like(1, 2).await, (true, 2));
        until_not_ready(&host, code).await;
        assert_eq!(client.like(1, 3).await, (true, 3));
        assert_eq!(client.get("/v1/toggles/feed-like/1").await.status, 200);
        // What must be claimed in SQL first waits for nothing, and is not guessed.
        let cold = client.toggle("PUT", 2, 1, None).await.unwrap();
        if cold.status != 200 {
            assert_refused_for_now(&cold);
        }
        let stored = stand.database.integer("SELECT COUNT(*) FROM feed_like").await;
        assert_eq!(stored, 1, "{}: nothing is written where nothing is to be written", setup.name());

        set_read_only(&stand, false).await;
        until_ready(&host).await;
        until_liked(&mut client, 2, 1).await;
        admin.wait_drained(LIMIT).await;
        assert_eq!(stand.database.likes().await, [(1, 1), (1, 2), (1, 3), (2, 1)].into(), "{}", setup.name());
        stand.database.assert_counts_equal_rows().await;
        assert_eq!(stand.database.dead_letters().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_sql_is_refused_at_once_while_that_is_away() {
    const COLD: i64 = 300;
    let _turn = TURN.lock().await;
    for setup in [Setup::RedisPostgres, Setup::EmbeddedMariaDb, Setup::EmbeddedMySql] {
        let mut stand = Stand::start(setup, COLD + 1).await;
        let mut config = stand.config();
        // Nothing that waits for SQL, or for the end of its time, is answered within this test, and few may wait.
        config.sql.acquire_timeout_ms = 3_600_000;
        config.http.request_deadline_ms = 3_600_000;
        config.http.requests_max = 4;
        let host = stand.host(&config);
        warm(&host, 1).await;
        Client::new(host.admin()).wait_drained(LIMIT).await;

        stand.sql.kill();
        let mut client = Client::new(host.public());
        for target in 2..=COLD {
            assert_refused_for_now(&client.toggle("PUT", target, 1, None).await.unwrap());
            assert_refused_for_now(&client.get(&format!("/v1/toggles/feed-like/{target}")).await);
        }
        for actor in 1..=20 {
            assert_eq!(client.like(1, actor).await, (true, actor), "{}: what is known is served", setup.name());
        }
        let ready = Client::new(host.admin()).get("/readyz").await;
        assert!(ready.status == 200 && ready.text().contains("away"), "{}", ready.text());
        stand.sql.restart();
        until_liked(&mut client, 2, 1).await;
        Client::new(host.admin()).wait_drained(LIMIT).await;
        let expected = (1..=20).map(|actor| (1, actor)).chain([(2, 1)]).collect();
        assert_eq!(stand.database.likes().await, expected, "{}", setup.name());
        stand.database.assert_counts_equal_rows().await;
    }
}
