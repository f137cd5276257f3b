//! What only the embedded store does: memory bounds, expiry in memory, the tail after a restart.

#![cfg(test)]

use std::path::Path;

use fjall::PersistMode;

use super::layout::Space;
use super::*;
use crate::model::{Digest, Document, Effect, PairState, ToggleRule};
use crate::store::{CreateOp, LoadedState, TargetLoad, ToggleOp, ToggleResult};

const NOW_MS: u64 = 1_800_000_000_000;

fn config(path: &Path) -> StoreConfig {
    StoreConfig { path: path.join("store"), partitions: 1, state_ttl_s: 1, ..StoreConfig::default() }
}

async fn load(store: &EmbeddedStore, target: i64, state: LoadedState, now_ms: u64) -> Hydrated {
    let head = store.heads("k", &[0]).await.unwrap()[0];
    let (incarnation, position) = (head.incarnation, head.flushed.max(head.floor));
    let targets = vec![TargetLoad { target: Id::Int(target), state }];
    let hydration = Hydration { partition: 0, incarnation, position, aside: None, targets, pairs: vec![], now_ms };
    store.hydrate("k", vec![hydration]).await.unwrap()[0]
}

fn whole(members: i64) -> LoadedState {
    LoadedState::Whole((0..members).map(|actor| (Id::Int(actor), 7)).collect())
}

async fn toggle(store: &EmbeddedStore, target: i64, actor: i64) -> ToggleResult {
    let rule = ToggleRule { when_absent: Effect::Add, when_present: Effect::Remove, limit: None };
    let op = ToggleOp { target: Id::Int(target), actor: Id::Int(actor), rule, idempotency: None };
    let batch = ToggleBatch { digest: Digest([1; 32]), at_ms: NOW_MS, now_ms: NOW_MS, ops: vec![op] };
    store.toggle("k", batch).await.unwrap().results.remove(0)
}

async fn count(store: &EmbeddedStore, target: i64, now_ms: u64) -> Option<u64> {
    match store.read("k", now_ms, &[(Id::Int(target), None)]).await.unwrap()[0] {
        ReadResult::Known(PairState { count, .. }) => Some(count),
        _ => None,
    }
}

#[tokio::test]
async fn what_expired_is_swept_out_of_memory() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&config(directory.path())).unwrap();
    for target in 0..3 {
        load(&store, target, whole(3_000), NOW_MS).await;
    }
    let full = store.state().bytes;
    assert!(full > 9_000 * size_of::<(i64, u64)>());
    // The sweeper works after each write, on what had expired by then.
    load(&store, 77, whole(1), NOW_MS + 2_000).await;
    load(&store, 78, whole(1), NOW_MS + 2_000).await;
    assert!(store.state().bytes < full / 100, "{} bytes are left", store.state().bytes);
}

#[tokio::test]
async fn memory_is_bounded_by_forgetting_what_is_clean() {
    let directory = tempfile::tempdir().unwrap();
    let bytes_max = 1 << 20;
    let bounded = StoreConfig { memory_bytes_max: bytes_max, state_ttl_s: 3_600, ..config(directory.path()) };
    let store = EmbeddedStore::open(&bounded).unwrap();
    load(&store, 1, whole(1_000), NOW_MS).await;
    assert!(matches!(toggle(&store, 1, 5_000).await, ToggleResult::Done(_)));
    for target in 2..100 {
        load(&store, target, whole(1_000), NOW_MS).await;
        assert!(store.state().bytes <= bytes_max, "{}", store.state().bytes);
    }
    assert_eq!(count(&store, 1, NOW_MS).await, Some(1_001), "what is dirty stays");
    assert_eq!(count(&store, 2, NOW_MS).await, None, "what became clean first is forgotten first");
    assert_eq!(count(&store, 99, NOW_MS).await, Some(1_000));
    // A target that does not fit at all is known as huge.
    load(&store, 100, whole(100_000), NOW_MS).await;
    assert_eq!(count(&store, 100, NOW_MS).await, Some(100_000));
    assert!(store.state().bytes <= bytes_max);
    assert_eq!(toggle(&store, 100, 5).await, ToggleResult::ColdPair);
}

#[tokio::test]
async fn after_a_restart_the_journals_tail_lies_over_what_sql_says() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&config(directory.path())).unwrap();
    load(&store, 1, whole(3), NOW_MS).await;
    load(&store, 2, LoadedState::Huge(50), NOW_MS).await;
    for actor in [0, 10, 11, 11] {
        toggle(&store, 1, actor).await;
    }
    drop(store);

    let store = EmbeddedStore::open(&config(directory.path())).unwrap();
    assert_eq!(count(&store, 1, NOW_MS).await, None);
    assert_eq!(load(&store, 1, whole(3), NOW_MS).await, Hydrated::Accepted);
    assert_eq!(count(&store, 1, NOW_MS + 5_000).await, Some(3), "dirty: it does not expire");
    let read = |actor| (Id::Int(1), Some(Id::Int(actor)));
    let states = store.read("k", NOW_MS, &[read(0), read(1), read(10), read(11)]).await.unwrap();
    let active = |result: &ReadResult| matches!(result, ReadResult::Known(PairState { active: true, .. }));
    assert_eq!(states.iter().map(active).collect::<Vec<_>>(), [false, true, true, false]);

    // Of a huge target the rows would have to tell what the tail did to the count: SQL must have it first.
    drop(store);
    let store = EmbeddedStore::open(&config(directory.path())).unwrap();
    assert!(matches!(load(&store, 1, LoadedState::Huge(3), NOW_MS).await, Hydrated::Stale(_)));
    let head = store.heads("k", &[0]).await.unwrap()[0];
    assert_eq!(head.floor, head.last);
    store.trim("k", 0, head.incarnation, head.last, &[], &[]).await.unwrap();
    assert_eq!(load(&store, 1, LoadedState::Huge(3), NOW_MS).await, Hydrated::Accepted);
}

/// Documents of one actor, whose ids come from outside or were just made.
async fn create(store: &EmbeddedStore, ids: std::ops::Range<i64>, has_fresh_ids: bool) {
    let document = |id| Document { id: Id::Int(id), actor: Id::Text("somebody".into()), body: "{}".into() };
    let op = CreateOp { partition: 0, documents: ids.map(document).collect(), has_fresh_ids, idempotency: None };
    let batch = CreateBatch { digest: Digest([1; 32]), at_ms: NOW_MS, now_ms: NOW_MS, ops: vec![op] };
    let result = store.create("k", batch).await.unwrap().results.remove(0);
    assert!(matches!(result, CreateResult::Done(_)), "{result:?}");
}

#[tokio::test]
async fn what_waits_takes_memory_only_while_it_waits() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&config(directory.path())).unwrap();
    let before = store.state().bytes;
    create(&store, 0..1_000, true).await;
    let full = store.state().bytes;
    assert!(full > before + 1_000 * size_of::<(Id, pending::Waiting)>());
    drop(store);
    let store = EmbeddedStore::open(&config(directory.path())).unwrap();
    assert_eq!(store.state().bytes, full, "found again in the journal");
    let head = store.heads("k", &[0]).await.unwrap()[0];
    store.trim("k", 0, head.incarnation, head.last, &[], &[]).await.unwrap();
    assert_eq!(store.state().bytes, before);
    for id in 0..10 {
        load(&store, id, LoadedState::Missing, NOW_MS).await;
    }
    create(&store, 0..10, false).await;
    store.trim("k", 0, head.incarnation, store.heads("k", &[0]).await.unwrap()[0].last, &[], &[]).await.unwrap();
    let known = store.state().bytes;
    assert!(known > before && known < before + 10_000, "ten that exist: {known} bytes");
    // Forgotten like everything that is clean.
    load(&store, 77, LoadedState::Missing, NOW_MS + 2_000).await;
    load(&store, 78, LoadedState::Missing, NOW_MS + 2_000).await;
    assert!(store.state().bytes < known);
}

#[test]
fn what_waits_is_told_when_its_group_is_on_the_disk() {
    let mut state = State::new(2, 1 << 20);
    let place = (state.kind("k"), 1);
    let waiting = |group| pending::Waiting { position: 5, place: 41, actor: Id::Int(7), is_asked_again: false, group };
    for (id, group) in [(1, 3), (2, 9), (3, 4)] {
        state.with_pending(place, |pending| pending.insert(Id::Int(id), waiting(group)));
    }
    let of = |ids: &[i64]| {
        let ids: Vec<_> = ids.iter().map(|&id| (1, Id::Int(id))).collect();
        read::places(&state, "k", &ids).group
    };
    assert_eq!((of(&[1]), of(&[1, 2]), of(&[3, 1]), of(&[8])), (3, 9, 4, 0));
    let of_actor = |actor| read::places_of(&state, ("k", 2), &Id::Int(actor), 10).group;
    assert_eq!((of_actor(7), of_actor(8)), (9, 0));
}

#[tokio::test]
async fn a_directory_of_another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(&config(directory.path())).unwrap());
    let path = directory.path().join("store");
    let spaces = Spaces::open(Database::builder(&path).open().unwrap()).unwrap();
    spaces.of(Space::System).insert("format", b"2").unwrap();
    spaces.database.persist(PersistMode::SyncAll).unwrap();
    drop(spaces);
    let Err(StoreError::Misconfigured(message)) = EmbeddedStore::open(&config(directory.path())) else {
        panic!("records have changed since")
    };
    assert!(message.contains("format 2, this one has 3") && message.contains("empty directory"), "{message}");
}
