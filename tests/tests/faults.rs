//! Faults on real processes: a wiped store, SQL away, a poisoned row, a zombie flusher, Redis away, bounds, stops.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/failover.rs"]
mod failover;
#[path = "faults/operations.rs"]
mod operations;
#[path = "faults/rows.rs"]
mod rows;

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Mutex;
use weir::config::{Config, DurabilityLevel};
use weir_tests::client::{Client, Reply};
use weir_tests::database::Database;
use weir_tests::load::{Load, LoadOptions};
use weir_tests::services::host::weir;
use weir_tests::services::{AppendFsync, Host, HostConfig, Redis, RedisOptions, temporary_directory};
use weir_tests::stand::{Setup, Stand};

#[path = "faults/disk.rs"]
mod disk;

/// One at a time: each starts several servers.
static TURN: Mutex<()> = Mutex::const_new(());

/// Decides only when a hang is a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// A setting of the kind's rules.
fn set(config: &mut Config, name: &str, value: &str) {
    config.toggles[0].settings.insert(name.into(), value.into());
}

/// Repeats `ask` until its answer has `status`; panics after [`LIMIT`].
async fn until_status<F: Future<Output = Option<Reply>>>(status: u16, mut ask: impl FnMut() -> F) -> Reply {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < LIMIT {
        let reply = ask().await;
        if let Some(reply) = &reply
            && reply.status == status
        {
            return reply.clone();
        }
        last = reply;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    panic!("no answer {status} within {LIMIT:?}; the last was {last:?}");
}

/// Repeats the condition until it holds; panics after [`LIMIT`] with `what`.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn assert_refused_for_now(reply: &Reply) {
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(!reply.header("retry-after").is_empty(), "503 without Retry-After: {}", reply.text());
    assert!(reply.header("content-type").starts_with("application/problem+json"), "{:?}", reply.headers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_flushall_the_next_toggle_is_an_unlike_with_the_right_count() {
    let _turn = TURN.lock().await;
    for setup in [Setup::RedisPostgres, Setup::RedisMariaDb] {
        let mut stand = Stand::start(setup, 3).await;
        let host = stand.host(&stand.config());
        let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
        for actor in 1..=5 {
            assert_eq!(client.like(1, actor).await, (true, actor));
        }
        admin.wait_drained(LIMIT).await;
        stand.redis().command::<()>(&["FLUSHALL"]);
        assert_eq!(client.like(1, 3).await, (false, 4));
        assert_eq!(client.like(1, 6).await, (true, 5));
        // The scripts are gone from Redis as well, and the journal is in a new life: it must still be flushed.
        admin.wait_drained(LIMIT).await;
        let expected = [1, 2, 4, 5, 6].map(|actor| (1, actor));
        assert_eq!(stand.database.likes().await, expected.into(), "{}", setup.name());
        stand.database.assert_counts_equal_rows().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_likes_of_a_cold_target_are_not_loaded() {
    const LIKES: i64 = 1_000_000;
    let _turn = TURN.lock().await;
    for setup in [Setup::RedisPostgres, Setup::RedisMariaDb, Setup::EmbeddedSqlite] {
        let mut stand = Stand::start(setup, 3).await;
        fill(&stand.database, LIKES).await;
        let mut host = stand.host(&stand.config());
        let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
        // Another target warms up what is not the matter here: connections, scripts, the policy's instances.
        client.like(2, 1).await;
        admin.wait_drained(LIMIT).await;
        if let Some(redis) = &stand.redis {
            redis.command::<()>(&["FLUSHALL"]);
        }
        let memory_before = host.rss_bytes();
        let start = Instant::now();
        let answer = client.like(1, 777_777).await;
        let first_ms = start.elapsed().as_secs_f64() * 1_000.0;
        assert_eq!(answer, (false, LIKES - 1));
        assert_eq!(client.like(1, LIKES + 1).await, (true, LIKES));
        println!("huge {}: first answer on a target with {LIKES} likes after {first_ms:.1} ms", setup.name());
        if let Some(redis) = &stand.redis {
            let bytes = stored_bytes(redis);
            assert!(bytes < 1 << 20, "Redis holds {bytes} bytes for a target that must not be loaded");
        }
        let grown = host.rss_bytes().saturating_sub(memory_before);
        assert!(grown < 48 << 20, "the host grew by {grown} bytes: it loaded the members");
        admin.wait_drained(LIMIT).await;
        assert_eq!(stand.database.integer("SELECT like_count FROM feed WHERE id = 1").await, LIKES);
        let of_actor = "SELECT COUNT(*) FROM feed_like WHERE feed_id = 1 AND user_id = 777777";
        assert_eq!(stand.database.integer(of_actor).await, 0);
        stand.database.assert_counts_equal_rows().await;
        assert_eq!(host.terminate().code(), Some(0));
        stand.sql.kill();
    }
}

/// Gives target 1 `likes` likes, by actors 1 to `likes`.
async fn fill(database: &Database, likes: i64) {
    let (numbers, time) = match database {
        Database::Sqlite(_) => (
            format!(
                "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {likes}) SELECT i FROM n)"
            ),
            "'2026-01-01T00:00:00.000Z'",
        ),
        Database::Postgres(_) => (format!("(SELECT generate_series(1, {likes}) AS i)"), "now()"),
        Database::MySql(_) => (format!("(SELECT seq AS i FROM seq_1_to_{likes})"), "now(3)"),
    };
    database
        .script(&format!(
            "INSERT INTO feed_like (feed_id, user_id, created_at) SELECT 1, i, {time} FROM {numbers} AS numbers;\n\
             UPDATE feed SET like_count = {likes} WHERE id = 1"
        ))
        .await;
    if let Database::Postgres(_) = database {
        database.script("ANALYZE feed_like").await;
    }
}

/// What all keys of a Redis take, in bytes.
fn stored_bytes(redis: &Redis) -> u64 {
    let keys: Vec<String> = redis.command(&["KEYS", "*"]);
    assert!(!keys.is_empty(), "weir keeps nothing in Redis");
    keys.iter().map(|key| redis.command::<Option<u64>>(&["MEMORY", "USAGE", key, "SAMPLES", "0"]).unwrap_or(0)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_go_on_while_sql_is_away_and_all_is_stored_afterwards() {
    let _turn = TURN.lock().await;
    let seconds = std::env::var("WEIR_OUTAGE_SECONDS").map_or(8, |text| text.parse().expect("seconds"));
    for setup in [Setup::RedisPostgres, Setup::EmbeddedMariaDb] {
        let mut stand = Stand::start(setup, 5).await;
        let host = stand.host(&stand.config());
        warm(&host, 5).await;
        let options = LoadOptions { clients: 16, actors: 400, targets: 5, seed: rand::random() };
        let load = Load::start(&[host.public()], options);
        assert!(load.wait_for_acks(500, LIMIT).await, "{}", host.log());

        stand.sql.kill();
        // What the outage itself needs (a wider backlog, error texts) is there after the first moments.
        assert!(load.wait_for_acks(200, LIMIT).await, "no acknowledgements without SQL:\n{}", host.log());
        let memory = host.rss_bytes();
        let mut largest = memory;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            assert!(load.wait_for_acks(50, LIMIT).await, "no acknowledgements without SQL:\n{}", host.log());
            largest = largest.max(host.rss_bytes());
        }
        stand.sql.restart();
        assert!(load.wait_for_acks(200, LIMIT).await, "{}", host.log());
        let ledger = load.stop().await;
        Client::new(host.admin()).wait_drained(LIMIT * 2).await;
        let grown_mib = (largest - memory) >> 20;
        println!(
            "outage {}: {seconds} s without SQL, acks={} unknown={} memory {} MiB + {grown_mib} MiB",
            setup.name(),
            ledger.acks,
            ledger.unknown,
            memory >> 20
        );
        ledger.assert_holds(&stand.database).await;
        // The backlog itself may be held in memory by the embedded store; it is bounded, and small per change.
        assert!(grown_mib < 64, "memory grew by {grown_mib} MiB during the outage");
    }
}

/// Makes targets 1 to `targets` known to the store.
async fn warm(host: &Host, targets: i64) {
    let mut client = Client::new(host.public());
    for target in 1..=targets {
        assert_eq!(client.get(&format!("/v1/toggles/feed-like/{target}")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_row_among_a_thousand_goes_alone_to_the_dead_letters() {
    const ACTORS: i64 = 1_000;
    const BAD: i64 = 666;
    let _turn = TURN.lock().await;
    for setup in [Setup::EmbeddedSqlite, Setup::EmbeddedPostgres, Setup::EmbeddedMariaDb, Setup::EmbeddedMySql] {
        let stand = Stand::start(setup, 2).await;
        members_except(&stand.database, ACTORS, BAD).await;
        let mut config = stand.config();
        set(&mut config, "flush-entries", "1000");
        set(&mut config, "flush-age-ms", "3000");
        config.flush.batch_changes_min = 1_000;
        // It would be refused at the door; here it is to reach SQL, as one does whose member has just gone.
        config.fit.parents = false;
        let host = stand.host(&config);
        let tasks = (0..20).map(|part| {
            let address = host.public();
            tokio::spawn(async move {
                let mut client = Client::new(address);
                for actor in (1..=ACTORS).filter(|actor| actor % 20 == part) {
                    assert!(client.like(1, actor).await.0);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
        admin.wait_drained(LIMIT).await;

        let stored: Vec<(i64, i64)> = (1..=ACTORS).filter(|actor| *actor != BAD).map(|actor| (1, actor)).collect();
        assert_eq!(stand.database.likes().await, stored.iter().copied().collect(), "{}", setup.name());
        stand.database.assert_counts_equal_rows().await;
        let letters = dead_letters_of_the_command(&host);
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert_eq!((letters[0]["target"].as_str(), letters[0]["actor"].as_str()), (Some("1"), Some("666")));
        assert!(!letters[0]["reason"].as_str().unwrap().is_empty());
        let of_admin = find_letters(&admin.get("/admin/v1/dead-letters").await.json());
        assert_eq!(of_admin, letters, "the operators' listener and the command differ");
        // The store no longer claims what SQL refused.
        let reply = client.request("GET", "/v1/toggles/feed-like/1", &[("x-actor-id", "666")], "").await.unwrap();
        assert_eq!(reply.like(), (false, ACTORS - 1));

        stand.database.script(&format!("INSERT INTO member (id) VALUES ({BAD})")).await;
        let id = letters[0]["id"].to_string();
        let replayed = dead_letters(&host, &["replay", &id, "--admin", &host.admin().to_string()]);
        assert_eq!(replayed.code, Some(0), "{replayed:?}");
        assert_eq!(stand.database.likes().await.len(), usize::try_from(ACTORS).unwrap());
        stand.database.assert_counts_equal_rows().await;
        assert_eq!(stand.database.dead_letters().await, 0);
        println!("poison {}: dead letters 1, stored {}, replayed 1", setup.name(), stored.len());
    }
}

/// Members 1 to `actors` without `bad`, and a foreign key from the likes to them.
async fn members_except(database: &Database, actors: i64, bad: i64) {
    database.script("DROP TABLE feed_like").await;
    let integer = if matches!(database, Database::Sqlite(_)) { "INTEGER" } else { "BIGINT" };
    let time = match database {
        Database::Sqlite(_) => "TEXT",
        Database::Postgres(_) => "TIMESTAMPTZ",
        Database::MySql(_) => "DATETIME(3)",
    };
    let members: Vec<String> = (1..=actors).filter(|actor| *actor != bad).map(|actor| format!("({actor})")).collect();
    database
        .script(&format!(
            "CREATE TABLE member (id {integer} NOT NULL PRIMARY KEY);\n\
             INSERT INTO member (id) VALUES {};\n\
             CREATE TABLE feed_like (feed_id {integer} NOT NULL, user_id {integer} NOT NULL, created_at {time} NOT NULL, \
             PRIMARY KEY (feed_id, user_id), FOREIGN KEY (user_id) REFERENCES member (id))",
            members.join(", ")
        ))
        .await;
}

/// `weir dead-letters …` with the configuration of `host`, which has other addresses than that names.
fn dead_letters(host: &Host, arguments: &[&str]) -> weir_tests::services::host::Ended {
    let config = host.config_path().expect("a host with a configuration file");
    let all = [&["dead-letters"], arguments, &["--config", config.to_str().unwrap()]].concat();
    weir(host.directory(), &all)
}

fn dead_letters_of_the_command(host: &Host) -> Vec<Value> {
    let ended = dead_letters(host, &["list", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    find_letters(&serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}")))
}

/// The list of letters: the whole value, or its first field that is a list.
fn find_letters(value: &Value) -> Vec<Value> {
    let list = value.as_array().or_else(|| value.as_object()?.values().find_map(Value::as_array));
    list.unwrap_or_else(|| panic!("no list of dead letters in {value}")).clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flusher_that_wakes_up_after_another_took_over_doubles_nothing() {
    let _turn = TURN.lock().await;
    for setup in [Setup::RedisPostgres, Setup::RedisMariaDb, Setup::RedisMySql] {
        let stand = Stand::start(setup, 5).await;
        let mut config = stand.config();
        config.sql.idle_transaction_timeout_ms = 1_000;
        let hosts = [stand.host(&config), stand.host(&config)];
        let mut clients = hosts.each_ref().map(|host| Client::new(host.public()));
        let mut admins = hosts.each_ref().map(|host| Client::new(host.admin()));
        // Through both, on the same targets.
        for actor in 1..=40 {
            let (liked, _) = clients[usize::try_from(actor % 2).unwrap()].like(1 + actor % 5, actor).await;
            assert!(liked);
        }
        admins[0].wait_drained(LIMIT).await;
        let flusher = flusher(&mut admins).await;
        let other = 1 - flusher;

        // The flush of target 1 comes as far as its count, inside its transaction, and waits there.
        let lock = "SELECT like_count FROM feed WHERE id = 1 FOR UPDATE";
        let held = Database::hold(&stand.database_url, lock).await;
        assert!(clients[other].like(1, 1_001).await.0);
        until("the flusher waits for the held row", || async {
            stand.database.sessions_waiting_for_a_lock().await > 0
        })
        .await;
        hosts[flusher].pause();
        held.release().await;

        // The paused one was about to add 1001 and to count it. The other one takes over with the same entries and
        // further ones of the same pair.
        assert!(!clients[other].like(1, 1_001).await.0);
        assert!(clients[other].like(1, 1_001).await.0);
        assert!(clients[other].like(1, 1_002).await.0);
        admins[other].wait_drained(LIMIT).await;
        let taken_over = stand.database.likes().await;
        stand.database.assert_counts_equal_rows().await;
        assert!(taken_over.contains(&(1, 1_001)) && taken_over.contains(&(1, 1_002)));

        hosts[flusher].resume();
        hosts_answer(&mut clients).await;
        assert!(clients[flusher].like(1, 1_003).await.0);
        admins[flusher].wait_drained(LIMIT).await;
        admins[other].wait_drained(LIMIT).await;
        let mut expected = taken_over;
        expected.insert((1, 1_003));
        expected.extend([(2, 2_001), (2, 2_002)]);
        assert_eq!(stand.database.likes().await, expected, "{}", setup.name());
        stand.database.assert_counts_equal_rows().await;
        assert_eq!(stand.database.dead_letters().await, 0);
        println!("zombie {}: flusher {flusher} paused in mid-flush, {other} took over, doubled 0", setup.name());
    }
}

/// One like through each host, which also proves that the resumed one is back.
async fn hosts_answer(clients: &mut [Client; 2]) {
    for (actor, client) in (2_001..).zip(clients) {
        until_liked(client, 2, actor).await;
    }
}

/// PUT until it is answered 200.
async fn until_liked(client: &mut Client, target: i64, actor: i64) {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if client.toggle("PUT", target, actor, None).await.is_ok_and(|reply| reply.status == 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    panic!("PUT of target {target} by {actor} was not answered 200 within {LIMIT:?}");
}

/// Which of two hosts holds the lease to flush.
async fn flusher(admins: &mut [Client; 2]) -> usize {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        for (number, admin) in admins.iter_mut().enumerate() {
            if admin.metric("weir_flush_lease", &["feed-like"]).await == Some(1.0) {
                return number;
            }
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    panic!("no host holds the lease to flush");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_away_is_503_and_needs_no_restart_of_the_host() {
    let _turn = TURN.lock().await;
    let mut stand = Stand::start(Setup::RedisPostgres, 3).await;
    let host = stand.host(&stand.config());
    let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
    assert_eq!(client.like(1, 1).await, (true, 1));

    stand.redis().kill();
    assert_refused_for_now(&client.toggle("POST", 1, 2, None).await.unwrap());
    assert_refused_for_now(&client.get("/v1/toggles/feed-like/1").await);
    let not_ready = admin.get("/readyz").await;
    assert_eq!(not_ready.status, 503);
    assert!(not_ready.text().contains("store"), "/readyz must name what is not ready: {}", not_ready.text());
    assert_eq!(admin.get("/livez").await.status, 200);
    stand.redis().restart();
    until_liked(&mut client, 1, 2).await;

    // A Redis that hangs: no answer of it within the time allowed, so the outcome is unknown; the key finds it out.
    stand.redis().stop_signal();
    assert_refused_for_now(&client.toggle("POST", 1, 3, Some("one-click")).await.unwrap());
    stand.redis().cont();
    let address = host.public();
    let reply =
        until_status(200, || async move { Client::new(address).toggle("POST", 1, 3, Some("one-click")).await.ok() })
            .await;
    assert_eq!(reply.like(), (true, 3));
    admin.wait_drained(LIMIT).await;
    assert_eq!(stand.database.likes().await, [(1, 1), (1, 2), (1, 3)].into());
    stand.database.assert_counts_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_starts_without_sql_serves_what_the_store_knows() {
    let _turn = TURN.lock().await;
    for setup in [Setup::RedisPostgres, Setup::EmbeddedMariaDb] {
        let mut stand = Stand::start(setup, 3).await;
        let config = stand.config();
        let mut host = stand.host(&config);
        let mut client = Client::new(host.public());
        assert_eq!(client.like(1, 1).await, (true, 1));
        Client::new(host.admin()).wait_drained(LIMIT).await;
        assert_eq!(host.terminate().code(), Some(0), "{}", host.log());

        stand.sql.kill();
        host.restart();
        // Redis remembers the target; the embedded store has only its journal, and reads all else from SQL again.
        let remembers = stand.redis.is_some();
        let address = host.public();
        if remembers {
            let put = || async move { Client::new(address).toggle("PUT", 1, 2, None).await.ok() };
            assert_eq!(until_status(200, put).await.like(), (true, 2), "{}", setup.name());
        } else {
            assert_refused_for_now(&client.toggle("PUT", 1, 2, None).await.unwrap());
        }
        // What the store does not know cannot be answered now, and is not guessed.
        assert_refused_for_now(&client.toggle("POST", 2, 1, None).await.unwrap());
        stand.sql.restart();
        host.wait_ready();
        until_liked(&mut client, 2, 1).await;
        if !remembers {
            assert_eq!(client.like(1, 2).await, (true, 2), "{}", setup.name());
        }
        Client::new(host.admin()).wait_drained(LIMIT).await;
        assert_eq!(stand.database.likes().await, [(1, 1), (1, 2), (2, 1)].into(), "{}", setup.name());
        stand.database.assert_counts_equal_rows().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_journal_is_503_until_sql_has_taken_it() {
    const BOUND: u64 = 50;
    let _turn = TURN.lock().await;
    for setup in [Setup::RedisPostgres, Setup::EmbeddedMariaDb] {
        let mut stand = Stand::start(setup, 1).await;
        let mut config = stand.config();
        config.journal.backlog_entries_max = BOUND;
        let host = stand.host(&config);
        warm(&host, 1).await;
        let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
        stand.sql.kill();
        let mut accepted = 0;
        let refusal = loop {
            let reply = client.toggle("PUT", 1, accepted + 1, None).await.unwrap();
            if reply.status != 200 {
                break reply;
            }
            accepted += 1;
            assert!(accepted < 4 * i64::try_from(BOUND).unwrap(), "the bound of the journal does not hold");
        };
        assert_refused_for_now(&refusal);
        assert!(accepted >= i64::try_from(BOUND).unwrap(), "refused after {accepted} changes: {}", refusal.text());
        // Reads go on.
        assert_eq!(client.get("/v1/toggles/feed-like/1").await.status, 200);
        assert!(admin.get("/metrics").await.text().contains("weir_shed_total"), "the refusal was not counted");
        stand.sql.restart();
        admin.wait_drained(LIMIT).await;
        until_liked(&mut client, 1, 5_000).await;
        admin.wait_drained(LIMIT).await;
        let mut expected: std::collections::BTreeSet<_> = (1..=accepted).map(|actor| (1, actor)).collect();
        expected.insert((1, 5_000));
        assert_eq!(stand.database.likes().await, expected, "{}", setup.name());
        stand.database.assert_counts_equal_rows().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicting_redis_is_refused_at_start() {
    let _turn = TURN.lock().await;
    let options = RedisOptions {
        append_fsync: AppendFsync::Off,
        maxmemory_policy: "allkeys-lru",
        maxmemory: "64mb",
        ..RedisOptions::default()
    };
    let redis = Redis::start(options);
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let mut config = stand.config();
    config.store.store_type = weir::config::StoreType::Redis;
    config.store.url = redis.url();
    let ended = Host::start_refused(HostConfig::of(&config), stand.directory.path());
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    assert!(ended.stderr.contains("maxmemory-policy"), "the message must name the setting: {ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_into_sql() {
    let _turn = TURN.lock().await;
    for setup in [Setup::EmbeddedSqlite, Setup::RedisPostgres] {
        let stand = Stand::start(setup, 3).await;
        let mut config = stand.config();
        set(&mut config, "flush-entries", "1000000");
        set(&mut config, "flush-age-ms", "600000");
        let mut host = stand.host(&config);
        let mut client = Client::new(host.public());
        for actor in 1..=30 {
            client.like(1 + actor % 3, actor).await;
        }
        assert!(stand.database.likes().await.is_empty(), "the rules said to wait: the test would prove nothing");
        assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
        assert_eq!(stand.database.likes().await.len(), 30, "{}", setup.name());
        stand.database.assert_counts_equal_rows().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn level_stored_answers_when_sql_holds_it() {
    let _turn = TURN.lock().await;
    for setup in [Setup::EmbeddedSqlite, Setup::RedisMariaDb] {
        let stand = Stand::start(setup, 3).await;
        let mut config = stand.config();
        config.toggles[0].durability = DurabilityLevel::Stored;
        let host = stand.host(&config);
        let mut client = Client::new(host.public());
        for actor in 1..=5 {
            let reply = client.toggle("POST", 1, actor, None).await.unwrap();
            assert_eq!(reply.like(), (true, actor));
            assert_eq!(reply.json()["durability"], "stored");
            assert!(stand.database.likes().await.contains(&(1, actor)), "{}: not in SQL", setup.name());
        }
        let reply = client.toggle("POST", 1, 3, None).await.unwrap();
        assert_eq!((reply.like(), reply.json()["durability"].as_str()), ((false, 4), Some("stored")));
        assert!(!stand.database.likes().await.contains(&(1, 3)));
        stand.database.assert_counts_equal_rows().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_do_not_share_an_embedded_store() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let config = stand.config();
    let host = stand.host(&config);
    let second = temporary_directory("second");
    let ended = Host::start_refused(HostConfig::of(&config), second.path());
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    assert!(ended.stderr.contains("store"), "the message must name the directory of the store: {ended:?}");
    // The first one is none the worse.
    assert_eq!(Client::new(host.public()).like(1, 1).await, (true, 1));
}

async fn hit(client: &mut Client, video: i64, by: i64) -> u64 {
    let headers = [("content-type", "application/json")];
    let path = format!("/v1/counters/video-view/{video}");
    let reply = client.request("POST", &path, &headers, &format!("{{\"by\":{by}}}")).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["count"].as_u64().unwrap()
}
