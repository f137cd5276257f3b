//! Whose a journal is, what it holds, and how it is given up.

use std::sync::Arc;

use uuid::Uuid;
use weir::model::{DatabaseId, Id, Partition, partition_of};
use weir::store::redis::RedisStore;
use weir::store::{Binding, Inventory, Journal, Ownership, ReadResult, StoreError};

use crate::stand::{Backend, KIND, NAMESPACE, OnCluster, OnRedis, OnServer, Stand, known, namespace};

fn database(number: u128) -> DatabaseId {
    DatabaseId(Uuid::from_u128(number))
}

fn binding(of: DatabaseId) -> Binding {
    let kinds = vec![KIND.to_owned()];
    Binding { database: of, kinds, rooms: Vec::new(), take: Vec::new(), takes_all: false, is_forced: false }
}

fn waiting(holdings: &Inventory) -> Vec<(String, u64)> {
    holdings.all().map(|kind| (kind.kind.clone(), kind.waiting())).collect()
}

fn assert_stranger<T: std::fmt::Debug>(refused: Result<T, StoreError>) {
    let Err(StoreError::Misconfigured(message)) = refused else { panic!("{refused:?}") };
    let ways_out = ["sql.url", "store.namespace", "weir store adopt", "weir store drop --all"];
    assert!(ways_out.iter().all(|word| message.contains(word)), "{message}");
}

pub async fn a_journal_belongs_to_one_database<B: Backend>() {
    let mut stand = Stand::<B>::new().await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    assert_eq!(stand.store().inventory().await.unwrap().database, None, "nobody has reached SQL so far");
    stand.store().bind(&binding(database(1))).await.unwrap();
    stand.store().bind(&binding(database(1))).await.unwrap();
    stand.store().check_binding().await.unwrap();
    stand.done(1, 3).await;
    let journal = stand.store().inventory().await.unwrap().journal;
    stand.close();
    stand.open().await;
    assert_stranger(stand.store().bind(&binding(database(2))).await);
    let holdings = stand.store().inventory().await.unwrap();
    assert_eq!((holdings.database, holdings.journal), (Some(database(1)), journal), "a stranger changes nothing");
    assert_eq!(waiting(&holdings), [(KIND.to_owned(), 2)]);
    stand.store().bind(&Binding { is_forced: true, ..binding(database(2)) }).await.unwrap();
    assert_eq!(stand.store().inventory().await.unwrap().database, Some(database(2)), "an operator says so");
    stand.store().heads(KIND, &[0]).await.unwrap();
}

pub async fn what_is_held_is_told_and_dropped<B: Backend>() {
    let mut stand = Stand::<B>::new().await;
    stand.load_whole(1, &[]).await;
    for actor in 2..5 {
        stand.done(1, actor).await;
    }
    stand.store().bind(&binding(database(1))).await.unwrap();
    stand.store().heads("other", &[0, 1]).await.unwrap();
    let holdings = stand.store().inventory().await.unwrap();
    assert_eq!(waiting(&holdings), [(KIND.to_owned(), 3), ("other".to_owned(), 0)]);
    assert_eq!(holdings.kinds[0].backlog().entries, stand.head(stand.partition(1)).await.backlog.entries);
    assert!(!holdings.kinds[0].is_flushed);
    stand.store().lease(KIND, "somebody", 60_000).await.unwrap();
    let is_shared = holdings.place.starts_with("redis");
    assert_eq!(stand.store().inventory().await.unwrap().kinds[0].is_flushed, is_shared);

    // An embedded store is dropped while no host has it.
    stand.close();
    stand.open().await;
    stand.store().drop_kind(KIND).await.unwrap();
    stand.store().drop_kind(KIND).await.unwrap();
    let left = stand.store().inventory().await.unwrap();
    assert_eq!((waiting(&left), left.database), (vec![("other".to_owned(), 0)], Some(database(1))));
    stand.close();
    stand.open().await;
    let read = stand.store().read(KIND, stand.now_ms(), &[(Id::Int(1), None)]).await.unwrap();
    assert_eq!(read, [ReadResult::TargetNotLoaded]);
    stand.store().drop_all().await.unwrap();
    let left = stand.store().inventory().await.unwrap();
    assert_eq!((waiting(&left), left.database), (Vec::new(), None));
    assert_ne!(left.journal, holdings.journal, "it is another journal");
    stand.close();
    stand.open().await;
    stand.store().bind(&binding(database(2))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_with_namespaces_share_a_redis() {
    let mut stand = Stand::<OnRedis>::new().await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    stand.store().bind(&binding(database(1))).await.unwrap();
    let first = Arc::clone(stand.store());
    stand.config.namespace = namespace("another");
    stand.open().await;
    stand.store().bind(&binding(database(2))).await.unwrap();
    let read = stand.store().read(KIND, stand.now_ms(), &[(Id::Int(1), None)]).await.unwrap();
    assert_eq!(read, [ReadResult::TargetNotLoaded], "nothing of the first is seen");
    stand.load_whole(1, &[7, 8]).await;
    assert_eq!(stand.read(1, 7).await, known(true, 2));
    first.check_binding().await.unwrap();
    let read = first.read(KIND, stand.now_ms(), &[(Id::Int(1), Some(Id::Int(2)))]).await.unwrap();
    assert_eq!(read, [known(true, 1)]);
    let keys: Vec<String> = stand.backend.0.command(&["KEYS", "*"]);
    assert!(keys.iter().all(|key| key.starts_with("weir:test:") || key.starts_with("weir:another:")), "{keys:?}");
    stand.store().drop_all().await.unwrap();
    assert_eq!(waiting(&first.inventory().await.unwrap()), [(KIND.to_owned(), 1)], "the other one is left alone");
}

/// The data goes as a whole under a running host, and another host, of another database, is the first to begin anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_that_came_first_after_a_loss_is_noticed_before_anybody_is_answered() {
    let stand = Stand::<OnRedis>::new().await;
    stand.load_whole(1, &[]).await;
    stand.store().bind(&binding(database(1))).await.unwrap();
    stand.done(1, 2).await;
    let other = RedisStore::connect(&stand.config).await.unwrap();
    stand.backend.0.command::<()>(&["FLUSHALL"]);
    other.bind(&binding(database(2))).await.unwrap();
    let all: Vec<Partition> = (0..stand.config.partitions).collect();
    other.heads(KIND, &all).await.unwrap();
    // Its heads are no new ones, but their lives are.
    assert_stranger(stand.store().heads(KIND, &[partition_of(&Id::Int(1), stand.config.partitions)]).await);
    assert_stranger(stand.try_toggle(vec![crate::stand::op(1, 3, crate::stand::TOGGLE)]).await);
    assert_stranger(stand.store().check_binding().await);
    stand.backend.0.command::<()>(&["HSET", "weir:test:format", "database", &database(1).to_string()]);
    stand.store().check_binding().await.unwrap();
    stand.store().heads(KIND, &all).await.unwrap();
}

/// Commands as one server or a cluster takes them.
trait Raw: Backend {
    fn keys(&mut self) -> Vec<String>;
    fn run<T: redis::FromRedisValue>(&mut self, key: &str, words: &[&str]) -> T;
}

impl<const RELEASE: usize> Raw for OnServer<RELEASE> {
    fn keys(&mut self) -> Vec<String> {
        self.0.command(&["KEYS", "weir*"])
    }

    fn run<T: redis::FromRedisValue>(&mut self, _key: &str, words: &[&str]) -> T {
        self.0.command(words)
    }
}

impl Raw for OnCluster {
    fn keys(&mut self) -> Vec<String> {
        let masters: Vec<usize> = self.cluster().masters().into_keys().collect();
        masters
            .into_iter()
            .flat_map(|node| self.cluster().node(node).command::<Vec<String>>(&["KEYS", "weir*"]))
            .collect()
    }

    fn run<T: redis::FromRedisValue>(&mut self, key: &str, words: &[&str]) -> T {
        self.cluster().command(key, words)
    }
}

/// Gives all keys the names that they had in format 4, as a host of that version would have left them.
fn as_format_4<B: Raw>(backend: &mut B, partitions: Partition) {
    let prefix = format!("weir:{NAMESPACE}:");
    for key in backend.keys() {
        let rest = key.strip_prefix(&prefix).unwrap();
        if rest.starts_with('{') {
            backend.run::<()>(&key, &["RENAME", &key, &format!("weir:{rest}")]);
        } else if let Some(rest) = rest.strip_prefix("module:") {
            backend.run::<()>(&key, &["RENAME", &key, &format!("weir-module:{rest}")]);
        } else {
            backend.run::<()>(&key, &["DEL", &key]);
        }
    }
    let partitions = partitions.to_string();
    backend.run::<()>("weir:format", &["HSET", "weir:format", "version", "4", "partitions", &partitions]);
}

async fn format_4_is_taken_over<B: Raw>() {
    let mut stand = Stand::<B>::new().await;
    stand.load_whole(1, &[]).await;
    stand.load_whole(2, &[5]).await;
    for actor in 2..5 {
        stand.done(1, actor).await;
    }
    stand.done(2, 5).await;
    let entry = weir::model::KeyEntry { key: "k".into(), value: b"v".to_vec(), ttl_ms: 600_000 };
    stand.store().guest_set("m", stand.now_ms(), vec![entry]).await.unwrap();
    let partition = stand.partition(1);
    let (head, changes) = (stand.head(partition).await, stand.changes(partition, 100).await);
    stand.close();
    as_format_4(&mut stand.backend, stand.config.partitions);

    // Nobody is served before it is known whose it is.
    stand.open().await;
    let early = stand.store().heads(KIND, &[partition]).await;
    assert!(matches!(&early, Err(StoreError::Unavailable(reason)) if reason.contains("format 4")), "{early:?}");
    let found = stand.store().inventory().await.unwrap();
    assert_eq!((found.kinds.len(), found.database, found.journal), (0, None, None));
    assert_eq!(waiting(&found), [(KIND.to_owned(), 4)]);
    let take = Binding { take: vec![KIND.to_owned()], takes_all: true, ..binding(database(1)) };

    // Somebody began, and was killed: some keys are there and some here.
    backend_half_way(&mut stand, partition);
    let found = stand.store().inventory().await.unwrap();
    assert!(found.earlier.iter().all(|kind| kind.is_taken) && waiting(&found) == [(KIND.to_owned(), 4)], "{found:?}");
    stand.store().bind(&take).await.unwrap();
    stand.store().bind(&take).await.unwrap();
    assert_eq!(stand.head(partition).await, head);
    assert_eq!(stand.changes(partition, 100).await, changes);
    assert_eq!(stand.read(1, 3).await, known(true, 3));
    assert_eq!(stand.read(2, 5).await, known(false, 0));
    assert_eq!(stand.store().guest_get("m", stand.now_ms(), &["k".into()]).await.unwrap(), [Some(b"v".to_vec())]);
    let found = stand.store().inventory().await.unwrap();
    assert_eq!(
        (found.database, found.earlier.len(), waiting(&found)),
        (Some(database(1)), 0, vec![(KIND.to_owned(), 4)])
    );
    let left = stand.backend.keys();
    assert!(left.iter().all(|key| key == "weir:format" || key.starts_with("weir:test:")), "{left:?}");
    let version: String = stand.backend.run("weir:format", &["HGET", "weir:format", "version"]);
    assert!(version.contains("moved"), "hosts of the version before refuse it: {version}");
    stand.done(1, 9).await;
}

/// As a host leaves it that was killed while it took over.
fn backend_half_way<B: Raw>(stand: &mut Stand<B>, partition: Partition) {
    let record = format!("weir:{NAMESPACE}:format");
    stand.backend.run::<()>(&record, &["HSET", &record, &format!("kind:{KIND}"), "1"]);
    stand.backend.run::<()>("weir:format", &["HSET", "weir:format", "version", &format!("moving to {NAMESPACE}")]);
    for suffix in ["x", "t:1"] {
        let (from, to) = (
            format!("weir:{{{KIND}:{partition}}}:{suffix}"),
            format!("weir:{NAMESPACE}:{{{KIND}:{partition}}}:{suffix}"),
        );
        stand.backend.run::<()>(&from, &["RENAME", &from, &to]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn format_4_of_one_server_is_taken_over() {
    format_4_is_taken_over::<OnRedis>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn format_4_of_a_cluster_is_taken_over() {
    format_4_is_taken_over::<OnCluster>().await;
}

/// What is not shown to be this database's is left where it is, whoever else comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn format_4_of_somebody_else_is_left_alone() {
    let mut stand = Stand::<OnRedis>::new().await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    stand.close();
    as_format_4(&mut stand.backend, stand.config.partitions);
    let before = stand.backend.keys();
    stand.open().await;
    stand.store().bind(&binding(database(2))).await.unwrap();
    let read = stand.store().read(KIND, stand.now_ms(), &[(Id::Int(1), None)]).await.unwrap();
    assert_eq!(read, [ReadResult::TargetNotLoaded]);
    let after = stand.backend.keys();
    assert!(before.iter().all(|key| after.contains(key)), "{before:?}\n{after:?}");
    assert_eq!(stand.backend.run::<String>("", &["HGET", "weir:format", "version"]), "4");
}

/// A host of the version before that still flushes is noticed by its lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn format_4_is_not_taken_from_a_host_that_runs() {
    let mut stand = Stand::<OnRedis>::new().await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    stand.close();
    as_format_4(&mut stand.backend, stand.config.partitions);
    let lease = format!("weir:{{{KIND}}}:flusher");
    stand.backend.0.command::<()>(&["SET", &lease, "a host", "PX", "60000"]);
    stand.open().await;
    let take = Binding { take: vec![KIND.to_owned()], takes_all: true, ..binding(database(1)) };
    let store = Arc::clone(stand.store());
    let asked = {
        let take = take.clone();
        tokio::spawn(async move { store.bind(&take).await })
    };
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    stand.backend.0.command::<()>(&["SET", &lease, "a host", "PX", "90000"]);
    let refused = asked.await.unwrap();
    assert!(
        matches!(&refused, Err(StoreError::Misconfigured(reason)) if reason.contains("stop all hosts")),
        "{refused:?}"
    );
    stand.backend.0.command::<()>(&["PEXPIRE", &lease, "300"]);
    stand.store().bind(&take).await.unwrap();
    assert_eq!(stand.read(1, 2).await, known(true, 1));
}
