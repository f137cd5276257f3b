//! What only a Redis Cluster shows: slots that move, replicas that do not follow, nodes that are not fit.

use std::time::Duration;

use weir::config::{StoreConfig, StoreType};
use weir::model::Id;
use weir::store::redis::RedisStore;
use weir::store::{JournalRead, StoreError};
use weir_tests::services::Redis;

use crate::stand::{Backend, KIND, OnCluster, OnRedis, Sql, Stand, TOGGLE, keyed, known, op, outcome};

async fn refused(config: &StoreConfig) -> String {
    match RedisStore::connect(config).await {
        Err(StoreError::Misconfigured(message)) => message,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_the_other_type_is_refused() {
    let (_cluster, mut config) = OnCluster::start();
    let several = StoreConfig { store_type: StoreType::Redis, ..config.clone() };
    assert!(refused(&several).await.contains("redis-cluster"));
    config.url = config.url.split(',').next().unwrap().to_owned();
    let one = StoreConfig { store_type: StoreType::Redis, ..config.clone() };
    assert!(refused(&one).await.contains("write store.type = \"redis-cluster\""));
    assert!(RedisStore::connect(&config).await.is_ok(), "one seed is enough");
    let (_redis, single) = OnRedis::start();
    let single = StoreConfig { store_type: StoreType::RedisCluster, ..single };
    // A store that nothing can be asked of is no reason not to start; it says why when it is asked.
    let store = RedisStore::connect(&single).await;
    let message = match store {
        Err(error) => error.to_string(),
        Ok(store) => weir::store::StoreHealth::ping(&store).await.unwrap_err().to_string(),
    };
    assert!(message.contains("write store.type = \"redis\""), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicting_node_is_refused() {
    let (mut backend, config) = OnCluster::start();
    for number in [1, 4] {
        let set = |node: &Redis, policy| node.command::<()>(&["CONFIG", "SET", "maxmemory-policy", policy]);
        set(backend.cluster().node(number), "allkeys-lru");
        let message = refused(&config).await;
        set(backend.cluster().node(number), "noeviction");
        assert!(message.contains("allkeys-lru"), "node {number}: {message}");
    }
    assert!(RedisStore::connect(&config).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_are_named() {
    let stand = Stand::<OnCluster>::new().await;
    let nodes = stand.store().nodes().await;
    assert_eq!(nodes.len(), 6, "{nodes:?}");
    assert!(nodes.iter().all(|node| node.fit && node.detail.contains("maxmemory-policy noeviction")), "{nodes:?}");
    let masters: Vec<_> = nodes.iter().filter(|node| node.detail.starts_with("master of 546")).collect();
    assert_eq!(masters.len(), 3, "{nodes:?}");
    assert!(masters.iter().all(|node| node.detail.contains("1 replicas; role master, ")), "{nodes:?}");
    assert!(stand.store().durability().description.contains("3 masters, 3 replicas"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_on_its_way_is_not_taken_for_an_empty_one() {
    let tune = |config: &mut StoreConfig| (config.partitions, config.response_timeout_ms) = (1, 300);
    let mut stand = Stand::<OnCluster>::tuned(|config| {
        tune(config);
        config.replicas_timeout_ms = 200;
    })
    .await;
    for target in 1..=20 {
        stand.load_whole(target, &[1, 2]).await;
        stand.done(target, 3).await;
    }
    let before = stand.head(0).await;
    let cluster = stand.backend.cluster();
    let slot = cluster.slot_of("weir:test:{feed-like:0}:x");
    let from = cluster.master_of(slot);
    let to = *cluster.masters().keys().find(|&&master| master != from).unwrap();
    cluster.begin_move(slot, from, to);
    loop {
        for target in [1, 7, 20] {
            let pair = (Id::Int(target), Some(Id::Int(3)));
            let read = stand.store().read(KIND, stand.now_ms(), &[pair]).await;
            assert!(matches!(read, Err(StoreError::Unavailable(_))), "{target}: {read:?}");
        }
        let refused = stand.try_toggle(vec![op(1, 4, TOGGLE), op(30, 4, TOGGLE)]).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "nothing was done: {refused:?}");
        // The head may be the first to go, or the last.
        if stand.backend.cluster().move_keys(slot, (from, to), "7") == 0 {
            break;
        }
    }
    stand.backend.cluster().end_move(slot, from, to);
    for target in 1..=20 {
        assert_eq!(stand.read(target, 3).await, known(true, 3), "{target}");
    }
    assert_eq!(stand.head(0).await, before, "nothing came between");
    assert!(stand.done(1, 4).await.changed);
    let mut sql = Sql::default();
    stand.flush(&mut sql).await;
    let members = sql.members(&Id::Int(1));
    assert!([3, 4].iter().all(|actor| members.iter().any(|(id, _)| *id == Id::Int(*actor))), "{members:?}");
    // As it was, for whoever has the cluster next.
    stand.backend.cluster().move_slot(slot, from, Duration::ZERO);
    assert_eq!(stand.read(1, 4).await, known(true, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_meanwhile_is_found() {
    let mut stand = Stand::<OnCluster>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    let slot = stand.backend.cluster().slot_of("weir:test:{feed-like:0}:x");
    let from = stand.backend.cluster().master_of(slot);
    let masters: Vec<usize> = stand.backend.cluster().masters().into_keys().collect();
    for (to, actor) in masters.into_iter().zip(10..) {
        if to != stand.backend.cluster().master_of(slot) {
            stand.backend.cluster().move_slot(slot, to, Duration::ZERO);
        }
        assert!(stand.done(1, actor).await.changed);
        let replica = stand.backend.cluster().replica_of(to);
        stand.backend.cluster().fail_over(replica);
        stand.backend.cluster().wait_well();
        assert!(stand.done(1, actor + 100).await.changed, "after the master has handed over");
        stand.backend.cluster().fail_over(to);
        stand.backend.cluster().wait_well();
    }
    stand.backend.cluster().move_slot(slot, from, Duration::ZERO);
    assert_eq!(stand.read(1, 10).await, known(true, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_replicas_leave_the_outcome_unknown() {
    let mut stand = Stand::<OnCluster>::tuned(|config| {
        (config.partitions, config.replicas_timeout_ms) = (1, 100);
    })
    .await;
    stand.load_whole(1, &[]).await;
    let keyed_op = keyed(op(1, 2, TOGGLE), 7, 7);
    let slot = stand.backend.cluster().slot_of("weir:test:{feed-like:0}:x");
    let master = stand.backend.cluster().master_of(slot);
    let replica = stand.backend.cluster().replica_of(master);
    let head = stand.head(0).await;
    stand.backend.cluster().node(replica).stop_signal();
    let unknown = stand.try_toggle(vec![keyed_op.clone()]).await;
    let read = stand.store().read_journal(KIND, 0, head.incarnation, 0, 10).await;
    stand.backend.cluster().node(replica).cont();
    assert!(matches!(unknown, Err(StoreError::OutcomeUnknown(_))), "{unknown:?}");
    assert!(
        matches!(read, Err(StoreError::Unavailable(_))),
        "SQL must not have what a failover may take back: {read:?}"
    );
    let again = async || stand.try_toggle(vec![keyed_op.clone()]).await;
    stand.until("the replica follows again", async || again().await.is_ok()).await;
    assert!(outcome(&again().await.unwrap()[0]).replayed, "it was done once");
    assert_eq!(stand.read(1, 2).await, known(true, 1));
    let read = stand.store().read_journal(KIND, 0, head.incarnation, 0, 10).await.unwrap();
    assert!(matches!(read, JournalRead::Entries(entries) if entries.len() == 1));
}
