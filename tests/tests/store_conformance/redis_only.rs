//! What only the Redis store promises: it refuses what would lose data, and lives through a Redis that comes and goes.

use std::collections::BTreeSet;
use std::time::Duration;

use weir::config::{StoreConfig, StoreType};
use weir::model::{Id, Incarnation};
use weir::store::redis::RedisStore;
use weir::store::{
    CountBatch, CountOp, CountOutcome, CountResult, CreateBatch, CreateOp, CreateResult, Journal, JournalRead,
    LoadedState, ReadResult, State, StoreError, StoreHealth, ToggleResult,
};
use weir_tests::services::{AppendFsync, RedisOptions, free_port};

use crate::counters::hit;
use crate::documents::create;
use crate::stand::{Backend, DIGEST, KIND, OnRedis, Sql, Stand, TOGGLE, known, limited, op, state};

async fn refused(config: &StoreConfig) -> String {
    match RedisStore::connect(config).await {
        Err(StoreError::Misconfigured(message)) => message,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicting_redis_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let (redis, config) = OnRedis::with(RedisOptions { maxmemory_policy: policy, ..RedisOptions::default() });
        let message = refused(&config).await;
        assert!(message.contains(policy) && message.contains("CONFIG SET maxmemory-policy noeviction"), "{message}");
        redis.0.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        assert!(RedisStore::connect(&config).await.is_ok(), "what the message says helps");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_url_is_refused() {
    for url in ["nonsense", "http://127.0.0.1:1", "rediss://127.0.0.1:6379/#insecure"] {
        let config = StoreConfig { store_type: StoreType::Redis, url: url.into(), ..StoreConfig::default() };
        assert!(refused(&config).await.contains("store.url"), "{url}");
    }
    let (redis, mut config) = OnRedis::start();
    redis.0.command::<()>(&["CONFIG", "SET", "requirepass", "secret-of-redis"]);
    assert!(refused(&config).await.contains("store.url"), "no password");
    config.url = config.url.replace("redis://", "redis://:wrong@");
    assert!(refused(&config).await.contains("store.url"), "a wrong one");
    config.url = config.url.replace(":wrong@", ":secret-of-redis@");
    RedisStore::connect(&config).await.unwrap().ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_format_is_refused() {
    let (redis, config) = OnRedis::start();
    redis.0.command::<()>(&["HSET", "weir:format", "version", "2", "partitions", "8"]);
    let message = refused(&config).await;
    assert!(message.contains("format 2, this one has 5") && message.contains("delete its keys"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_durability_is_what_redis_says() {
    for (append_fsync, mode) in
        [(AppendFsync::Always, "aof-always"), (AppendFsync::EverySec, "aof-everysec"), (AppendFsync::Off, "none")]
    {
        let (redis, config) = OnRedis::with(RedisOptions { append_fsync, ..RedisOptions::default() });
        let store = RedisStore::connect(&config).await.unwrap();
        assert_eq!(store.durability().mode, mode);
        assert_eq!(store.durability().survives_power_loss, mode == "aof-always");
        if mode == "none" {
            redis.0.command::<()>(&["CONFIG", "SET", "save", "3600 1"]);
            assert_eq!(RedisStore::connect(&config).await.unwrap().durability().mode, "rdb-only");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_away_at_the_start_is_found_when_it_comes() {
    let (mut redis, config) = OnRedis::start();
    redis.0.kill();
    let store = RedisStore::connect(&config).await.unwrap();
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.heads(KIND, &[0]).await, Err(StoreError::Unavailable(_))), "nothing was sent");
    assert_eq!(store.durability().mode, "unknown");
    redis.0.restart();
    let stand = Stand::<OnRedis>::on(redis, config, |_| {}).await;
    stand.until("the store finds it", async || store.ping().await.is_ok()).await;
    store.heads(KIND, &[0]).await.unwrap();
    assert_eq!(store.durability().mode, "aof-always");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_is_used_again() {
    let mut stand = Stand::<OnRedis>::new().await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    for _ in 0..2 {
        stand.backend.0.kill();
        let away = stand.store().ping().await;
        assert!(matches!(away, Err(StoreError::Unavailable(_))), "{away:?}");
        stand
            .until("the loss is noticed", async || {
                matches!(stand.try_toggle(vec![op(1, 3, TOGGLE)]).await, Err(StoreError::Unavailable(_)))
            })
            .await;
        assert!(matches!(
            stand.store().read(KIND, stand.now_ms(), &[(Id::Int(1), None)]).await,
            Err(StoreError::Unavailable(_))
        ));
        stand.backend.0.restart();
        stand.until("it is found again", async || stand.store().ping().await.is_ok()).await;
        assert_eq!(stand.read(1, 2).await, known(true, 1), "nothing was lost, nothing was done meanwhile");
    }
    assert_eq!(stand.done(1, 3).await.state, state(true, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_does_not_answer_leaves_the_outcome_unknown() {
    let stand = Stand::<OnRedis>::tuned(|config| config.response_timeout_ms = 2_000).await;
    stand.load_whole(1, &[]).await;
    stand.backend.0.stop_signal();
    let unknown = stand.try_toggle(vec![op(1, 2, TOGGLE)]).await;
    assert!(matches!(unknown, Err(StoreError::OutcomeUnknown(_))), "{unknown:?}");
    let next = stand.try_toggle(vec![op(1, 3, TOGGLE)]).await;
    assert!(matches!(next, Err(StoreError::Unavailable(_))), "nothing is sent after it: {next:?}");
    let read = stand.store().read(KIND, stand.now_ms(), &[(Id::Int(1), None)]).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    stand.backend.0.cont();
    stand.until("it is found again", async || stand.store().ping().await.is_ok()).await;
    let pairs = [2, 3].map(|actor| (Id::Int(1), Some(Id::Int(actor))));
    let expected = Ok(vec![known(true, 1), known(false, 1)]);
    stand
        .until("what was sent has run, once, and nothing else", async || {
            stand.store().read(KIND, stand.now_ms(), &pairs).await == expected
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_lost_answer_does_not_keep_the_others_waiting() {
    let stand = Stand::<OnRedis>::tuned(|config| config.response_timeout_ms = 500).await;
    stand.load_whole(1, &[]).await;
    stand.backend.0.stop_signal();
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let store = std::sync::Arc::clone(stand.store());
            tokio::spawn(async move { store.ping().await })
        })
        .collect();
    // Each waits for one answer and at most one attempt to connect, not for those of the others.
    let all = async {
        for caller in callers {
            assert!(caller.await.unwrap().is_err());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("callers queue up behind each other");
    stand.backend.0.cont();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_scripts_are_loaded_again() {
    let stand = Stand::<OnRedis>::new().await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    stand.backend.0.command::<()>(&["SCRIPT", "FLUSH"]);
    assert_eq!(stand.done(1, 3).await.state, state(true, 2));
    assert_eq!(stand.read(1, 2).await, known(true, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_redis_is_a_new_life_under_the_same_connection() {
    let stand = Stand::<OnRedis>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    let before = stand.head(0).await;
    stand.backend.0.command::<()>(&["FLUSHALL"]);
    assert_eq!(stand.one(op(1, 2, TOGGLE)).await, ToggleResult::TargetNotLoaded);
    let after = stand.head(0).await;
    assert!(after.incarnation > before.incarnation && after.last == 0);
    let read = stand.store().read_journal(KIND, 0, before.incarnation, before.last, 10).await.unwrap();
    assert_eq!(read, JournalRead::OtherIncarnation(after));
    let recorded: Option<u16> = stand.backend.0.command(&["HGET", "weir:test:format", "partitions"]);
    assert_eq!(recorded, Some(1), "written again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_refuses_toggles_and_lets_the_journal_drain() {
    let stand = Stand::<OnRedis>::tuned(|config| config.partitions = 1).await;
    for target in [1, 2] {
        stand.load_whole(target, &[]).await;
    }
    stand.done(1, 2).await;
    let before = stand.head(0).await;
    stand.backend.0.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = stand.try_toggle(vec![op(1, 2, TOGGLE), op(2, 2, limited(1, 9_000))]).await;
    assert!(matches!(full, Err(StoreError::Refused(_))), "{full:?}");
    let full = stand.try_hits(false, vec![hit(1, 1)]).await;
    assert!(matches!(full, Err(StoreError::Refused(_))), "{full:?}");
    assert_eq!(stand.read(1, 2).await, known(true, 1), "nothing was done");
    assert_eq!(stand.head(0).await, before);
    let mut sql = Sql::default();
    stand.flush(&mut sql).await;
    assert_eq!(sql.members(&Id::Int(1)).len(), 1);
    assert_eq!(stand.head(0).await.backlog.entries, 0);
    assert!(stand.store().lease(KIND, "a", 1_000).await.unwrap());
    stand.backend.0.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(stand.done(1, 2).await.state, state(false, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_refuses_writes() {
    let stand = Stand::<OnRedis>::new().await;
    stand.load_whole(1, &[]).await;
    stand.backend.0.command::<()>(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    let refused = stand.try_toggle(vec![op(1, 2, TOGGLE)]).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    stand.backend.0.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(stand.done(1, 2).await.state, state(true, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_weir_did_not_write_is_damage_and_left_alone() {
    let stand = Stand::<OnRedis>::tuned(|config| config.partitions = 1).await;
    for target in [1, 2] {
        stand.load_whole(target, &[]).await;
    }
    stand.backend.0.command::<()>(&["SET", "weir:test:{feed-like:0}:t:2", "x"]);
    let damaged = stand.try_toggle(vec![op(1, 2, TOGGLE), op(2, 2, TOGGLE)]).await;
    assert!(matches!(damaged, Err(StoreError::Damaged(_))), "{damaged:?}");
    assert_eq!(stand.read(1, 2).await, known(false, 0), "the whole batch was not done");
    stand.backend.0.command::<()>(&["DEL", "weir:test:{feed-like:0}:t:2"]);
    stand.backend.0.command::<()>(&["HSET", "weir:test:{feed-like:0}:t:2", "", "x"]);
    assert_eq!(stand.read(2, 2).await, ReadResult::TargetNotLoaded, "a record of no life is no record");
    stand.done(1, 2).await;
    let head = stand.head(0).await;
    stand.backend.0.command::<()>(&["DEL", "weir:test:{feed-like:0}:j"]);
    let lost = stand.store().read_journal(KIND, 0, head.incarnation, 0, 10).await;
    assert!(matches!(lost, Ok(JournalRead::Hole(_, hole)) if hole.changes == 1), "{lost:?}");
    stand.backend.0.command::<()>(&["XADD", "weir:test:{feed-like:0}:j", "1-0", "x", "y"]);
    let damaged = stand.store().read_journal(KIND, 0, head.incarnation, 0, 10).await;
    assert!(
        matches!(&damaged, Err(StoreError::Damaged(why)) if why.contains("XDEL weir:test:{feed-like:0}:j 1-0")),
        "{damaged:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_gone_while_its_journal_is_not_is_damage() {
    let stand = Stand::<OnRedis>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    stand.backend.0.command::<()>(&["DEL", "weir:test:{feed-like:0}:x"]);
    let damaged = stand.try_toggle(vec![op(1, 2, TOGGLE)]).await;
    assert!(matches!(damaged, Err(StoreError::Damaged(_))), "{damaged:?}");
    let damaged = stand.store().reset(KIND, 0, Incarnation::fresh()).await;
    assert!(matches!(damaged, Err(StoreError::Damaged(_))), "{damaged:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_share_one_state() {
    let stand = Stand::<OnRedis>::new().await;
    stand.load_whole(1, &[]).await;
    let other = RedisStore::connect(&stand.config).await.unwrap();
    stand.done(1, 2).await;
    let read = other.read(KIND, stand.now_ms(), &[(Id::Int(1), Some(Id::Int(2)))]).await.unwrap();
    assert_eq!(read, vec![known(true, 1)]);
    assert!(stand.store().lease(KIND, "one", 60_000).await.unwrap());
    assert!(!other.lease(KIND, "two", 60_000).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_share_counts_windows_and_documents() {
    let stand = Stand::<OnRedis>::tuned(|config| config.partitions = 1).await;
    let other = RedisStore::connect(&stand.config).await.unwrap();
    stand.load_count(1, 0).await;
    let first = stand.hits(vec![unique_hit(1, 5), hit(1, 1)]).await.remove(0);
    let ops = vec![unique_hit(1, 5), unique_hit(1, 6)];
    let batch = CountBatch {
        digest: DIGEST,
        at_ms: stand.now_ms(),
        now_ms: stand.now_ms(),
        keep_actors: true,
        unique_pairs_max: 10_000,
        ops,
    };
    let results = other.count(KIND, batch).await.unwrap().results;
    let (CountResult::Done(first), CountResult::Done(again)) = (first, results[0].clone()) else {
        panic!("{results:?}")
    };
    assert_eq!(again, CountOutcome { count: 2, counted: false, ..first });
    assert!(matches!(results[1], CountResult::Done(CountOutcome { count: 3, counted: true, .. })));
    assert_eq!(stand.count_of(1).await, known(false, 3));
    stand.load_ids(&[7], LoadedState::Missing).await;
    stand.create(create(0, &[7])).await;
    assert_eq!(other.documents(KIND, &[(0, Id::Int(7))]).await.unwrap(), stand.waiting(&[7]).await);
    let batch =
        CreateBatch { digest: DIGEST, at_ms: stand.now_ms(), now_ms: stand.now_ms(), ops: vec![create(0, &[7])] };
    assert_eq!(other.create(KIND, batch).await.unwrap().results, vec![CreateResult::Exists(0)]);
}

/// One that counts once in an hour.
fn unique_hit(target: i64, actor: i64) -> CountOp {
    let mut op = hit(target, 1);
    (op.actor, op.rule.unique_ms) = (Some(Id::Int(actor)), Some(3_600_000));
    op
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_of_windows_is_bounded_and_goes_away() {
    let stand = Stand::<OnRedis>::tuned(|config| config.partitions = 1).await;
    stand.load_count(1, 0).await;
    let redis = &stand.backend.0;
    let table = || {
        let key = "weir:test:{feed-like:0}:u";
        (redis.command::<usize>(&["STRLEN", key]), redis.command::<i64>(&["PTTL", key]))
    };
    stand.hit(hit(1, 1)).await;
    assert_eq!(table(), (0, -2), "nobody needs one");
    let see = async |unique_pairs_max: u64, unique_ms: u32, actors: std::ops::Range<i64>| {
        let one = |actor| {
            let mut op = unique_hit(1, actor);
            op.rule.unique_ms = Some(unique_ms);
            op
        };
        let (now_ms, ops) = (stand.now_ms(), actors.map(one).collect());
        let batch = CountBatch { digest: DIGEST, at_ms: now_ms, now_ms, keep_actors: false, unique_pairs_max, ops };
        stand.store().count(KIND, batch).await.unwrap();
    };
    // As many pairs as there are slots, and ten times as many.
    for actors in [0..2_000, 0..20_000] {
        see(1_000, 60_000, actors).await;
        let (bytes, ttl_ms) = table();
        assert!(bytes <= 1_000 * 16 && bytes > 900 * 16, "{bytes} bytes");
        assert!((60_000..=121_000).contains(&ttl_ms), "{ttl_ms}");
    }
    see(1_000, 600_000, 0..1).await;
    assert!((600_000..=1_201_000).contains(&table().1), "as long as the longest window");
    see(1_000, 1_000, 1..2).await;
    assert!(table().1 > 1_100_000, "a shorter one takes nothing back");
    see(100, 60_000, 0..1).await;
    assert!(table().0 <= 100 * 16 + 128, "a smaller table takes the place of a larger one");
    see(100, 200, 0..1).await;
    redis.command::<()>(&["PEXPIRE", "weir:test:{feed-like:0}:u", "1"]);
    stand.until("it goes away", async || table() == (0, -2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_documents_that_were_flushed() {
    let stand = Stand::<OnRedis>::tuned(|config| config.partitions = 1).await;
    let keys = || {
        let mut keys: Vec<String> = stand.backend.0.command(&["KEYS", "weir:test:{feed-like:0}:*"]);
        keys.iter_mut().for_each(|key| *key = key.replace("weir:test:{feed-like:0}:", ""));
        keys.sort();
        keys
    };
    stand.load_ids(&[3, 4], LoadedState::Missing).await;
    let fresh = CreateOp { has_fresh_ids: true, ..create(0, &[1, 2]) };
    stand.creates(vec![fresh, create(0, &[3, 4])]).await;
    assert_eq!(keys(), ["j", "o:i7", "t:1", "t:2", "t:3", "t:4", "x"]);
    let ttl = |key: &str| stand.backend.0.command::<i64>(&["PTTL", &format!("weir:test:{{feed-like:0}}:{key}")]);
    assert_eq!(["t:1", "t:3", "o:i7"].map(ttl), [-1; 3], "what waits does not expire");
    stand.flush_documents(&mut BTreeSet::new(), 0, &[4]).await;
    assert_eq!(keys(), ["j", "t:3", "x"], "but that the one exists whose id may be asked for");
    assert!(ttl("t:3") > 0, "for a while");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_meets_damage_leaves_nothing() {
    let stand = Stand::<OnRedis>::tuned(|config| config.partitions = 1).await;
    for target in [1, 2] {
        stand.load_count(target, 0).await;
    }
    let head = stand.head(0).await;
    let redis = &stand.backend.0;
    for key in ["t:2", "u"] {
        let key = format!("weir:test:{{feed-like:0}}:{key}");
        redis.command::<()>(&["DEL", &key]);
        redis.command::<()>(&["LPUSH", &key, "x"]);
        let damaged = stand.try_hits(false, vec![hit(1, 1), unique_hit(1, 5), hit(2, 1)]).await;
        assert!(matches!(damaged, Err(StoreError::Damaged(_))), "{key}: {damaged:?}");
        redis.command::<()>(&["DEL", &key]);
    }
    for key in ["t:8", "o:i7"] {
        let key = format!("weir:test:{{feed-like:0}}:{key}");
        redis.command::<()>(&["LPUSH", &key, "x"]);
        let fresh = CreateOp { has_fresh_ids: true, ..create(0, &[6, 8]) };
        let batch = CreateBatch { digest: DIGEST, at_ms: stand.now_ms(), now_ms: stand.now_ms(), ops: vec![fresh] };
        let damaged = stand.store().create(KIND, batch).await.map(|commit| commit.results);
        assert!(matches!(damaged, Err(StoreError::Damaged(_))), "{key}: {damaged:?}");
        redis.command::<()>(&["DEL", &key]);
    }
    assert_eq!((stand.count_of(1).await, stand.waiting(&[6]).await), (known(false, 0), vec![None]));
    assert_eq!(stand.head(0).await, head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dirty_does_not_expire() {
    let stand = Stand::<OnRedis>::tuned(|config| config.partitions = 1).await;
    stand.load(vec![(1, LoadedState::Whole(vec![(Id::Int(5), 1)])), (2, LoadedState::Huge(9))]).await;
    for (actor, since_ms) in [(5, Some(1)), (6, None)] {
        stand.load_pair(2, actor, since_ms).await;
    }
    let ttls = || {
        ["t:1", "t:2"].map(|key| {
            let ttl_ms: i64 = stand.backend.0.command(&["PTTL", &format!("weir:test:{{feed-like:0}}:{key}")]);
            ttl_ms
        })
    };
    let is_clean = |ttls: [i64; 2]| ttls.iter().all(|ttl| *ttl > 0);
    assert!(is_clean(ttls()), "loaded: {:?}", ttls());
    for (target, actor) in [(1, 6), (2, 5), (2, 6)] {
        stand.done(target, actor).await;
    }
    assert_eq!(ttls(), [-1; 2], "dirty: nothing of it expires");
    stand.flush(&mut Sql::default()).await;
    assert!(is_clean(ttls()), "flushed: {:?}", ttls());
}
