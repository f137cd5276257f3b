//! Lives of a journal: making, losing, resetting, wiping, reopening; the lease; words for operators.

use std::sync::Arc;

use weir::model::{Backlog, Id, Incarnation, Partition};
use weir::store::{
    Head, Hydrated, JournalRead, LoadedState, Members, ReadResult, StoreError, TargetLoad, ToggleBatch, ToggleResult,
};

use crate::counters::hit;
use crate::documents::create;
use crate::stand::{Backend, DIGEST, KIND, Sql, Stand, TOGGLE, keyed, known, op, outcome, state};

pub async fn heads_are_made_once<B: Backend>() {
    let stand = Stand::<B>::new().await;
    assert_eq!(stand.store().partitions(), stand.config.partitions);
    let asked: Vec<Partition> = vec![3, 0, 7, 3];
    let heads = stand.store().heads(KIND, &asked).await.unwrap();
    assert_eq!(heads.iter().map(|head| head.partition).collect::<Vec<_>>(), asked, "in order");
    for head in &heads {
        assert_eq!((head.last, head.flushed, head.floor, head.backlog), (0, 0, 0, Backlog::default()));
    }
    assert_eq!(stand.store().heads(KIND, &asked).await.unwrap(), heads);
    assert_eq!(stand.store().heads(KIND, &[]).await.unwrap(), vec![]);
    // Made by many at once, there is one.
    let store = Arc::clone(stand.store());
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.heads("other", &[1]).await.unwrap()[0].incarnation })
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        made.push(task.await.unwrap());
    }
    made.dedup();
    assert_eq!(made.len(), 1);
}

pub async fn kinds_do_not_meet<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    let pair = (Id::Int(1), Some(Id::Int(2)));
    for kind in ["feed", "feed-like-2", "other"] {
        let read = stand.store().read(kind, stand.now_ms(), std::slice::from_ref(&pair)).await.unwrap();
        assert_eq!(read, vec![ReadResult::TargetNotLoaded], "{kind}");
        assert_eq!(stand.store().heads(kind, &[stand.partition(1)]).await.unwrap()[0].backlog.entries, 0);
    }
    stand.store().wipe_state("other").await.unwrap();
    assert_eq!(stand.read(1, 2).await, known(true, 1));
}

pub async fn lost_data_is_a_new_life<B: Backend>() {
    let mut stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    let position = stand.done(1, 2).await.position;
    let before = stand.head(0).await;
    stand.flush(&mut Sql::default()).await;
    stand.lose_all().await;
    let read = stand.store().read_journal(KIND, 0, before.incarnation, position, 10).await.unwrap();
    let JournalRead::OtherIncarnation(after) = read else { panic!("{read:?}") };
    assert!(after.incarnation > before.incarnation);
    assert_eq!((after.last, after.flushed, after.floor), (0, 0, 0));
    assert_eq!(stand.read(1, 2).await, ReadResult::TargetNotLoaded);
    let stale = stand
        .hydrate_at(
            0,
            (before.incarnation, position),
            vec![TargetLoad { target: Id::Int(1), state: LoadedState::Huge(1) }],
            vec![],
        )
        .await;
    assert!(matches!(stale, Hydrated::Stale(_)), "a checkpoint of the former life does not speak for this one");
    stand.load_whole(1, &[2]).await;
    assert_eq!(stand.done(1, 2).await.state, state(false, 0), "whoever liked before unlikes");
}

pub async fn a_reset_starts_a_new_life_and_keeps_the_journal<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    stand.flush(&mut Sql::default()).await;
    stand.done(1, 3).await;
    let last = stand.done(1, 4).await.position;
    let before = stand.head(0).await;
    let after = stand.store().reset(KIND, 0, before.incarnation).await.unwrap();
    assert!(after.incarnation > before.incarnation);
    let backlog = Backlog { targets: 0, ..before.backlog };
    assert_eq!(after, Head { incarnation: after.incarnation, flushed: 0, floor: last, backlog, ..before });
    assert_eq!(stand.head(0).await, after);
    assert_eq!(stand.read(1, 3).await, ReadResult::TargetNotLoaded, "all state is cold");
    assert_eq!(stand.one(op(1, 3, TOGGLE)).await, ToggleResult::TargetNotLoaded);
    assert_eq!(stand.changes(0, 10).await.len(), 2, "entries stay");
    assert_eq!(stand.store().reset(KIND, 0, before.incarnation).await.unwrap(), after, "once is enough");
    let mut sql = Sql::default();
    stand.flush(&mut sql).await;
    assert_eq!(sql.members(&Id::Int(1)).len(), 2);
    stand.load_whole(1, &[2, 3, 4]).await;
    let outcome = stand.done(1, 5).await;
    assert_eq!(outcome.state, state(true, 4));
    assert!(outcome.position > last);
    let far = Incarnation(uuid::Uuid::from_u128(after.incarnation.0.as_u128() + (1 << 90)));
    assert!(stand.store().reset(KIND, 0, far).await.unwrap().incarnation > far, "even if SQL's clock was ahead");
}

pub async fn a_reset_of_an_empty_journal_can_be_loaded_at_once<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    stand.flush(&mut Sql::default()).await;
    let before = stand.head(0).await;
    let after = stand.store().reset(KIND, 0, before.incarnation).await.unwrap();
    assert_eq!((after.flushed, after.floor, after.last), (0, 0, 0), "nothing waits that SQL must hold first");
    stand.load_whole(1, &[2]).await;
    assert_eq!(stand.done(1, 2).await.state, state(false, 0));
    assert_eq!(stand.changes(0, 10).await.len(), 1);
    // A partition that never was.
    let fresh = stand.store().reset("other", 0, before.incarnation).await.unwrap();
    assert!(fresh.incarnation > before.incarnation && fresh.last == 0);
}

pub async fn wiped_state_is_loaded_again_after_the_flush<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 2).await;
    let mut sql = Sql::default();
    for target in 1..=4 {
        stand.load_whole(target, &[]).await;
        stand.done(target, 5).await;
    }
    stand.load(vec![(9, LoadedState::Missing)]).await;
    let heads = stand.store().heads(KIND, &[0, 1]).await.unwrap();
    stand.store().wipe_state(KIND).await.unwrap();
    for (before, after) in heads.iter().zip(stand.store().heads(KIND, &[0, 1]).await.unwrap()) {
        let backlog = Backlog { targets: 0, ..before.backlog };
        assert_eq!(after, Head { floor: before.last, backlog, ..*before }, "the same life, the journal kept");
    }
    assert_eq!(stand.read(1, 5).await, ReadResult::TargetNotLoaded);
    assert_eq!(stand.read(9, 5).await, ReadResult::TargetNotLoaded);
    let load = TargetLoad { target: Id::Int(1), state: LoadedState::Whole(vec![]) };
    assert!(matches!(stand.hydrate(stand.partition(1), vec![load], vec![]).await, Hydrated::Stale(_)));
    stand.flush(&mut sql).await;
    for target in 1..=4 {
        stand.load(vec![(target, LoadedState::Whole(sql.members(&Id::Int(target))))]).await;
        assert_eq!(stand.read(target, 5).await, known(true, 1), "{target}");
        assert_eq!(stand.done(target, 5).await.state, state(false, 0));
    }
}

pub async fn what_was_acknowledged_survives_a_crash<B: Backend>() {
    let mut stand = Stand::<B>::tuned(|config| config.partitions = 2).await;
    stand.load_whole(1, &[7]).await;
    stand.load(vec![(2, LoadedState::Huge(100)), (3, LoadedState::Missing)]).await;
    stand.load_pair(2, 5, None).await;
    let first = outcome(&stand.one(keyed(op(1, 5, TOGGLE), 1, 1)).await);
    stand.done(2, 5).await;
    let heads = stand.store().heads(KIND, &[0, 1]).await.unwrap();
    let members = stand.store().members(KIND, stand.now_ms(), &Id::Int(1), None, 9).await.unwrap();
    let mut changes = stand.changes(0, 100).await;
    changes.extend(stand.changes(1, 100).await);
    stand.crash().await;
    assert_eq!(stand.store().heads(KIND, &[0, 1]).await.unwrap(), heads);
    if !B::STATE_SURVIVES {
        assert_eq!(stand.read(1, 5).await, ReadResult::TargetNotLoaded);
    }
    // What is known already is left as it is.
    stand.load_whole(1, &[7]).await;
    assert_eq!(stand.store().members(KIND, stand.now_ms(), &Id::Int(1), None, 9).await.unwrap(), members);
    assert!(matches!(members, Members::Whole(list) if list.len() == 2));
    assert_eq!(stand.read(1, 5).await, known(true, 2));
    if B::STATE_SURVIVES {
        assert_eq!(stand.read(2, 5).await, known(true, 101));
        assert_eq!(stand.read(3, 5).await, ReadResult::TargetMissing);
    }
    let mut after = stand.changes(0, 100).await;
    after.extend(stand.changes(1, 100).await);
    assert_eq!(after, changes);
    let replay = outcome(&stand.one(keyed(op(1, 5, TOGGLE), 1, 1)).await);
    assert!(replay.replayed && replay.position == first.position);
    assert!(stand.done(1, 6).await.position > first.position);
}

pub async fn another_number_of_partitions_is_refused<B: Backend>() {
    let mut stand = Stand::<B>::tuned(|config| config.partitions = 4).await;
    stand.close();
    stand.config.partitions = 8;
    let refused = weir::store::open(&stand.config).await.err();
    let Some(StoreError::Misconfigured(message)) = refused else { panic!("{refused:?}") };
    assert!(message.contains("store.partitions") && message.contains("partitions = 4"), "{message}");
    stand.config.partitions = 4;
    stand.open().await;
}

pub async fn one_owner_holds_the_lease<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let store = stand.store();
    let lease = async |owner, ttl_ms| store.lease(KIND, owner, ttl_ms).await.unwrap();
    assert!(lease("a", 600_000).await);
    assert!(lease("a", 600_000).await, "renewed");
    assert!(!lease("b", 600_000).await);
    assert!(store.lease("other", "b", 600_000).await.unwrap(), "per kind");
    store.release(KIND, "b").await.unwrap();
    assert!(!lease("b", 600_000).await, "only its owner gives it back");
    store.release(KIND, "a").await.unwrap();
    assert!(lease("b", 50).await);
    stand.until("a lease that is not renewed ends", async || lease("a", 600_000).await).await;
    assert!(!lease("b", 50).await);
}

pub async fn explain_tells_state_head_and_journal<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    let explain = async |target, actor| {
        stand.store().explain(KIND, stand.now_ms(), (0, &Id::Int(target)), Some(&Id::Int(actor))).await.unwrap()
    };
    assert_eq!(explain(1, 2).await["state"]["known"], "cold");
    stand.load_whole(1, &[7]).await;
    stand.load(vec![(2, LoadedState::Huge(50)), (3, LoadedState::Missing)]).await;
    let clean = explain(1, 7).await;
    assert_eq!((&clean["state"]["known"], &clean["state"]["pair"]), (&"whole".into(), &"present".into()));
    assert_eq!((&clean["state"]["since_ms"], &clean["state"]["dirty"]), (&7.into(), &false.into()));
    assert_eq!(clean["journal"], serde_json::json!([]));
    assert_eq!(explain(2, 7).await["state"]["pair"], "unknown");
    assert_eq!(explain(3, 7).await["state"]["known"], "missing");
    for _ in 0..35 {
        let ops = (0..3).flat_map(|_| [op(1, 2, TOGGLE), op(1, 8, TOGGLE)]).collect();
        stand.toggle(ops).await;
    }
    let dirty = explain(1, 2).await;
    assert_eq!((&dirty["state"]["dirty"], &dirty["state"]["pair"]), (&true.into(), &"present".into()));
    assert_eq!(dirty["head"]["backlog"]["entries"], 210);
    let journal = dirty["journal"].as_array().unwrap();
    assert_eq!(journal.len(), 100, "the newest hundred of 105");
    let head = stand.head(0).await;
    assert_eq!(journal[99]["position"], head.last, "newest last");
    assert_eq!((&journal[99]["action"], &journal[98]["action"]), (&"add".into(), &"remove".into()));
    assert_eq!(journal[99]["digest"], DIGEST.to_string());
    assert_eq!(dirty["head"]["incarnation"], head.incarnation.to_string());
}

pub async fn explain_tells_of_counters_and_documents<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    let explain =
        async |target: i64| stand.store().explain(KIND, stand.now_ms(), (0, &Id::Int(target)), None).await.unwrap();
    stand.load(vec![(1, LoadedState::Count(5)), (2, LoadedState::Exists), (3, LoadedState::Missing)]).await;
    let clean = explain(1).await;
    assert_eq!((&clean["state"]["known"], &clean["state"]["count"]), (&"counter".into(), &5.into()));
    assert_eq!(clean["state"]["dirty"], false);
    for _ in 0..2 {
        stand.hit(hit(1, 7)).await;
    }
    let dirty = explain(1).await;
    assert_eq!((&dirty["state"]["dirty"], &dirty["state"]["count"]), (&true.into(), &19.into()));
    let actions: Vec<_> = dirty["journal"].as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions, ["count", "count"]);
    assert_eq!(explain(2).await["state"]["known"], "exists");
    assert_eq!(stand.count_of(2).await, known(false, 0));
    stand.create(create(0, &[3])).await;
    let pending = explain(3).await;
    assert_eq!((&pending["state"]["known"], &pending["state"]["actor"]), (&"pending".into(), &7.into()));
    assert_eq!(pending["state"]["position"], stand.head(0).await.last);
    assert_eq!(
        (&pending["journal"][0]["action"], &pending["head"]["backlog"]["targets"]),
        (&"create".into(), &2.into())
    );
}

pub async fn the_store_says_what_survives<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.store().ping().await.unwrap();
    let durability = stand.store().durability();
    assert!(durability.survives_power_loss, "{durability:?}");
    assert!(["fdatasync", "aof-always", "aof-always replicas-1"].contains(&durability.mode.as_str()));
    let batch = ToggleBatch { digest: DIGEST, at_ms: stand.now_ms(), now_ms: stand.now_ms(), ops: vec![] };
    assert!(stand.store().toggle(KIND, batch).await.unwrap().heads.is_empty());
}
