//! A host on a Redis Cluster of three masters and three replicas: failovers and slots that move in mid-load, a master that
//! is gone, replicas that do not follow, a failover that loses the newest entries.
//!
//! With `replicas_min = 1` and an append-only file that is synced, nothing that was acknowledged may be lost, and nothing
//! be there twice. Without, replication is asynchronous: what a failover lost is printed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Mutex;
use weir::config::{
    AuthConfig, Config, CounterConfig, IngestConfig, PreferenceConfig, SharedCacheConfig, SqlConfig, StoreConfig,
    StoreType, ToggleConfig,
};
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::load::{CountLoad, CreateLoad, Load, LoadOptions, SettingsLoad};
use weir_tests::services::{
    ClusterOptions, Host, HostConfig, Redis, RedisCluster, RedisOptions, temporary_directory, wait_until,
};
use weir_tests::stand::{add_targets, create_more_tables, create_tables};

/// One cluster at a time: each wants the machine for itself.
static TURN: Mutex<()> = Mutex::const_new(());

const LIMIT: Duration = Duration::from_secs(120);
/// Targets of the load.
const TARGETS: i64 = 8;

/// A cluster, a SQLite file, and how to configure a host on both.
struct Stand {
    cluster: RedisCluster,
    database: Database,
    config: Config,
    directory: TempDir,
}

impl Stand {
    async fn start(options: &ClusterOptions, replicas_min: u32) -> Self {
        let directory = temporary_directory("cluster");
        let url = format!("sqlite://{}", directory.path().join("feed.db").display());
        let database = Database::connect(&url).await;
        create_tables(&database, "").await;
        add_targets(&database, TARGETS).await;
        create_more_tables(&database, TARGETS).await;
        let cluster = RedisCluster::start(options);
        let settings = [("limit-burst", "0"), ("flush-entries", "100"), ("flush-age-ms", "100")];
        let settings: BTreeMap<String, String> =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut counter = CounterConfig::demo();
        counter.settings.insert("flush-age-ms".into(), "100".into());
        let mut preference = PreferenceConfig::demo();
        preference.settings.insert("flush-age-ms".into(), "100".into());
        let store = StoreConfig {
            store_type: StoreType::RedisCluster,
            url: cluster.url(),
            replicas_min,
            ..StoreConfig::default()
        };
        let mut config = Config {
            auth: AuthConfig { trusted_header: Some("X-Actor-Id".into()), ..AuthConfig::default() },
            store,
            sql: SqlConfig { url, ..SqlConfig::default() },
            toggles: vec![ToggleConfig { settings, ..ToggleConfig::demo() }],
            counters: vec![counter],
            ingests: vec![IngestConfig::demo()],
            preferences: vec![preference],
            ..Config::default()
        };
        config.flush.retry_ms_max = 500;
        config.flush.lease_ms = 1_000;
        Self { cluster, database, config, directory }
    }

    fn host(&self) -> Host {
        let mut host = Host::start(HostConfig::of(&self.config), self.directory.path());
        host.wait_ready();
        host
    }
}

/// What happened to the nodes.
#[derive(Debug, Default)]
struct Happened {
    killed: u32,
    handed_over: u32,
    moved: u32,
    host_killed: u32,
}

/// Slots of partitions go to another master and back, a master hands over, a master is killed, and last the host.
fn storm(mut stand: Stand, mut host: Host, rounds: usize) -> (Stand, Host, Happened) {
    let mut happened = Happened::default();
    for round in 0..rounds {
        for kind in ["feed-like", "video-view", "playlist", "notification"] {
            for partition in [round, round + 1] {
                let slot = stand.cluster.slot_of(&format!("weir:{{{kind}:{partition}}}:x"));
                let from = stand.cluster.master_of(slot);
                let to = *stand.cluster.masters().keys().find(|&&master| master != from).expect("another master");
                stand.cluster.move_slot(slot, to, Duration::from_millis(20));
                happened.moved += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        let slot = stand.cluster.slot_of(&format!("weir:{{feed-like:{round}}}:x"));
        let replica = stand.cluster.replica_of(stand.cluster.master_of(slot));
        stand.cluster.fail_over(replica);
        happened.handed_over += 1;
        stand.cluster.wait_well();
        std::thread::sleep(Duration::from_millis(300));

        let slot = stand.cluster.slot_of(&format!("weir:{{video-view:{}}}:x", round + 2));
        let master = stand.cluster.master_of(slot);
        stand.cluster.kill_and_wait_for_failover(master);
        happened.killed += 1;
        std::thread::sleep(Duration::from_millis(500));
        stand.cluster.node(master).restart();
        stand.cluster.wait_well();
        std::thread::sleep(Duration::from_millis(300));
    }
    host.kill();
    happened.host_killed += 1;
    host.restart();
    (stand, host, happened)
}

async fn crash(name: &str, replicas_min: u32, rounds: usize) {
    let _turn = TURN.lock().await;
    let stand = Stand::start(&ClusterOptions::default(), replicas_min).await;
    let (mut host, seed) = (stand.host(), rand::random_range(0..1_000_000));
    let (public, admin, database) = (host.public(), host.admin(), stand.database.clone());
    let load = Load::start(&[public], LoadOptions { clients: 16, actors: 100, targets: TARGETS, seed });
    let counts = CountLoad::start(&[public], LoadOptions { clients: 8, actors: 1, targets: TARGETS, seed });
    let creates = CreateLoad::start(&[public], LoadOptions { clients: 4, actors: 4, targets: 0, seed });
    let settings = SettingsLoad::start(&[public], LoadOptions { clients: 4, actors: 0, targets: 5, seed });
    assert!(load.wait_for_acks(200, LIMIT).await, "the load does not get going:\n{}", host.log());
    let storm = tokio::task::spawn_blocking(move || storm(stand, host, rounds));
    let happened;
    let stand;
    (stand, host, happened) = storm.await.expect("the storm");
    host.wait_ready();
    assert!(load.wait_for_acks(200, LIMIT).await, "no acknowledgements after the storm:\n{}", host.log());
    let (ledger, counts_acked) = (load.stop().await, counts.acks.load(Ordering::Relaxed));
    let (counts, creates) = (counts.stop().await, creates.stop().await);
    let (settings_acked, settings) = (settings.acks.load(Ordering::Relaxed), settings.stop().await);
    Client::new(admin).wait_drained(LIMIT).await;

    let difference = ledger.compare(&database).await;
    let wrong_settings = settings.compare(&database).await;
    let (wrong, documents) = (counts.compare(&database).await, creates.compare(&database).await);
    println!(
        "cluster {name}: acks={} unknown={} {happened:?} lost={} doubled={} wrong-answers={} | increments={counts_acked} \
         wrong-counters={wrong:?} | documents={} lost={} doubled={} torn={} | settings={settings_acked} wrong={} \
         seed={seed}",
        ledger.acks,
        ledger.unknown,
        difference.lost.len(),
        difference.doubled.len(),
        ledger.violations.len(),
        creates.documents.len(),
        documents.lost.len(),
        documents.doubled.len(),
        documents.torn.len(),
        wrong_settings.len(),
    );
    database.assert_counts_equal_rows().await;
    assert_eq!(database.dead_letters().await, 0, "dead letters");
    assert!(documents.doubled.is_empty() && documents.torn.is_empty(), "{documents:?}");
    if replicas_min > 0 {
        ledger.assert_holds(&database).await;
        counts.assert_holds(&database).await;
        creates.assert_holds(&database).await;
        settings.assert_holds(&database).await;
    }
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
    drop(stand);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_and_moving_slots_lose_nothing_that_a_replica_has() {
    crash("aof-always replicas_min=1", 1, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_with_asynchronous_replication_leave_sql_consistent() {
    crash("aof-always replicas_min=0", 0, 1).await;
}

/// Puts until it is answered 200.
async fn like(client: &mut Client, target: i64, actor: i64, host: &Host) {
    let start = tokio::time::Instant::now();
    while start.elapsed() < LIMIT {
        if let Ok(reply) = client.toggle("PUT", target, actor, None).await
            && reply.status == 200
        {
            return assert!(reply.like().0);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no answer to {actor}:\n{}", host.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_master_fails_its_own_partitions_only() {
    let _turn = TURN.lock().await;
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let mut stand = Stand::start(&options, 0).await;
    let mut host = stand.host();
    let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
    for target in 1..=TARGETS {
        like(&mut client, target, 1, &host).await;
    }
    admin.wait_drained(LIMIT).await;
    let partitions = stand.config.store.partitions;
    let key = |target: i64| {
        let partition = weir::model::partition_of(&weir::model::Id::Int(target), partitions);
        format!("weir:{{feed-like:{partition}}}:x")
    };
    // Not the one that has the flusher's lease: of that the whole kind waits.
    let master = |stand: &Stand, key: &str| stand.cluster.master_of(stand.cluster.slot_of(key));
    let leases = master(&stand, "weir:{feed-like}:flusher");
    let masters: Vec<usize> = (1..=TARGETS).map(|target| master(&stand, &key(target))).collect();
    let lost = *masters.iter().find(|master| **master != leases).expect("partitions on several masters");
    stand.cluster.node(lost).kill();
    let mut served = Vec::new();
    for (target, at) in (1..=TARGETS).zip(&masters) {
        if *at == lost {
            let reply = client.toggle("PUT", target, 2, None).await.expect("an answer");
            assert_eq!(reply.status, 503, "{target}: {}", reply.text());
            assert!(!reply.header("retry-after").is_empty(), "nothing was done: {}", reply.text());
        } else {
            like(&mut client, target, 2, &host).await;
            served.push(target);
        }
    }
    assert!(!served.is_empty());
    let has_all = async || {
        let likes = stand.database.likes().await;
        served.iter().all(|target| likes.contains(&(*target, 2)))
    };
    let start = tokio::time::Instant::now();
    while !has_all().await {
        assert!(start.elapsed() < LIMIT, "the others are not flushed:\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ready = admin.get("/readyz").await;
    assert!(ready.status == 200 && ready.text().contains("away"), "{}", ready.text());
    stand.cluster.node(lost).restart();
    for target in 1..=TARGETS {
        like(&mut client, target, 3, &host).await;
    }
    admin.wait_drained(LIMIT).await;
    stand.database.assert_counts_equal_rows().await;
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_the_newest_entries_is_noticed() {
    let _turn = TURN.lock().await;
    let mut stand = Stand::start(&ClusterOptions::default(), 0).await;
    let host = stand.host();
    let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
    like(&mut client, 3, 7, &host).await;
    admin.wait_drained(LIMIT).await;
    let partition = weir::model::partition_of(&weir::model::Id::Int(3), stand.config.store.partitions);
    let slot = stand.cluster.slot_of(&format!("weir:{{feed-like:{partition}}}:x"));
    let master = stand.cluster.master_of(slot);
    let replica = stand.cluster.replica_of(master);
    // The replica loses its master, and is not let in again.
    stand.cluster.node(master).command::<()>(&["ACL", "SETUSER", "default", "-psync", "-sync"]);
    stand.cluster.node(master).command::<i64>(&["CLIENT", "KILL", "TYPE", "replica"]);
    like(&mut client, 3, 8, &host).await;
    admin.wait_drained(LIMIT).await;
    assert_eq!(stand.database.likes().await, [(3, 7), (3, 8)].into());
    stand.cluster.node(master).kill();
    assert!(wait_until(LIMIT, || stand.cluster.master_of(slot) == replica), "the replica does not take over");
    // The new master knows one like, SQL holds two.
    let start = tokio::time::Instant::now();
    loop {
        if let Ok(reply) = client.toggle("GET", 3, 8, None).await
            && reply.status == 200
            && reply.like() == (true, 2)
        {
            break;
        }
        assert!(start.elapsed() < LIMIT, "SQL is not believed:\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(host.log().contains("the journal has lost entries"), "{}", host.log());
    like(&mut client, 3, 9, &host).await;
    admin.wait_drained(LIMIT).await;
    assert_eq!(stand.database.likes().await, [(3, 7), (3, 8), (3, 9)].into());
    stand.database.assert_counts_equal_rows().await;
}

/// Hosts that know one node only, and not the one that has the stream, hear of each other's invalidations and share what they
/// read; also when a replica has taken over the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_know_one_node_hear_of_invalidations() {
    const PATH: &str = "/v1/reads/post?id=3";
    let _turn = TURN.lock().await;
    let mut stand = Stand::start(&ClusterOptions::default(), 1).await;
    let shared = Redis::start(RedisOptions::default());
    let owner = RedisCluster::first_master_of(stand.cluster.slot_of("weir:feed:relay"));
    stand.config.store.url = stand.cluster.seeds()[(owner + 1) % 3].clone();
    stand.config.reads = vec![
        toml::from_str(
            "name = \"post\"\nsql = \"SELECT like_count AS likes FROM feed WHERE id = :id\"\nclass = \"hours\"\n\
             tables = [\"feed\"]\nparameters = { id = \"integer\" }",
        )
        .unwrap(),
    ];
    let url = shared.url();
    stand.config.cache.shared =
        Some(SharedCacheConfig { value_bytes_max: 1 << 16, timeout_ms: 2_000, ..SharedCacheConfig::new(&url) });
    let hosts = [stand.host(), stand.host()];
    let likes = async |host: &Host| Client::new(host.public()).get(PATH).await.json()["rows"][0]["likes"].clone();
    for likes_now in 1..=3 {
        stand.database.script(&format!("UPDATE feed SET like_count = {likes_now} WHERE id = 3;")).await;
        let mut admin = Client::new(hosts[likes_now % 2].admin());
        let purged = admin.request("POST", "/admin/v1/cache/purge?group=table:feed", &[], "").await.unwrap();
        assert_eq!(purged.status, 200);
        for host in &hosts {
            let begun = std::time::Instant::now();
            while likes(host).await != likes_now {
                assert!(begun.elapsed() < LIMIT, "{likes_now} is not heard of:\n{}", host.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        if likes_now == 2 {
            stand.cluster.kill_and_wait_for_failover(owner);
        }
    }
    // Something else is read, by one host and then by the other.
    let begun = std::time::Instant::now();
    loop {
        let id = begun.elapsed().as_millis() + 10;
        let path = format!("/v1/reads/post?id={id}");
        assert_eq!(Client::new(hosts[0].public()).get(&path).await.status, 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let told = Client::new(hosts[1].public()).get(&path).await;
        if told.header("cache-status").ends_with("; detail=shared") {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "nothing is shared: {}", told.header("cache-status"));
    }
}
