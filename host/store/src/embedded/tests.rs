//! Behaviour of the embedded store alone: memory bounds, expiry in memory, the tail after a restart.

#![cfg(test)]

use super::layout::{Space, Writes, decoded, journal_key, position_of, prefix};
use super::*;
use crate::{
    CreateBatch, CreateOp, CreateResult, Hydrated, Hydration, Journal as _, JournalRead, LoadedState, ReadResult,
    State as _, TargetLoad, ToggleBatch, ToggleOp, ToggleResult,
};
use weir_core::journal::entry;
use weir_core::model::{Digest, Document, Effect, Id, PairState, Position, ToggleRule};

pub(super) const NOW_MS: u64 = 1_800_000_000_000;

pub(super) fn config(path: &Path) -> StoreConfig {
    StoreConfig { path: path.join("store"), partitions: 1, state_ttl_s: 1, ..StoreConfig::default() }
}

pub(super) async fn load(store: &EmbeddedStore, target: i64, state: LoadedState, now_ms: u64) -> Hydrated {
    let head = store.heads("k", &[0]).await.unwrap()[0];
    let (incarnation, position) = (head.incarnation, head.flushed.max(head.floor));
    let targets = vec![TargetLoad { target: Id::Int(target), state }];
    let hydration = Hydration { partition: 0, incarnation, position, aside: None, targets, pairs: vec![], now_ms };
    store.hydrate("k", vec![hydration]).await.unwrap()[0]
}

pub(super) fn whole(members: i64) -> LoadedState {
    LoadedState::Whole((0..members).map(|actor| (Id::Int(actor), 7)).collect())
}

pub(super) async fn toggle(store: &EmbeddedStore, target: i64, actor: i64) -> ToggleResult {
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
    assert_eq!(toggle(&store, 100, 5).await, ToggleResult::PairNotLoaded);
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

    // Only the rows of a huge target could tell how the tail changed its count: SQL must have it first.
    drop(store);
    let store = EmbeddedStore::open(&config(directory.path())).unwrap();
    assert!(matches!(load(&store, 1, LoadedState::Huge(3), NOW_MS).await, Hydrated::Stale(_)));
    let head = store.heads("k", &[0]).await.unwrap()[0];
    assert_eq!(head.floor, head.last);
    store.trim("k", 0, head.incarnation, head.last, &[], &[]).await.unwrap();
    assert_eq!(load(&store, 1, LoadedState::Huge(3), NOW_MS).await, Hydrated::Accepted);
}

/// Documents of one actor, whose ids come from outside or were just made.
pub(super) async fn create(store: &EmbeddedStore, ids: std::ops::Range<i64>, has_fresh_ids: bool) {
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

/// Entries 1 to 5 of kind `k`, with as many changes each, on a closed directory; their positions.
async fn written(path: &Path) -> Vec<Position> {
    let store = EmbeddedStore::open(&config(path)).unwrap();
    load(&store, 1, whole(0), NOW_MS).await;
    let mut positions = Vec::new();
    for number in 1..=5_i64 {
        let rule = ToggleRule { when_absent: Effect::Add, when_present: Effect::Remove, limit: None };
        let op =
            |actor: i64| ToggleOp { target: Id::Int(1), actor: Id::Int(number * 10 + actor), rule, idempotency: None };
        let batch =
            ToggleBatch { digest: Digest([1; 32]), at_ms: NOW_MS, now_ms: NOW_MS, ops: (0..number).map(op).collect() };
        positions.push(store.toggle("k", batch).await.unwrap().heads[0].last);
    }
    positions
}

/// Edits the records of a closed directory.
fn tamper(path: &Path, work: impl FnOnce(&Spaces, &mut Writes)) {
    let spaces = open_spaces(&path.join("store")).unwrap();
    let mut writes = Writes::default();
    work(&spaces, &mut writes);
    spaces.commit(writes, true).unwrap();
}

async fn read_after(store: &EmbeddedStore, position: Position) -> JournalRead {
    let head = store.heads("k", &[0]).await.unwrap()[0];
    store.read_journal("k", 0, head.incarnation, position, 1_000).await.unwrap()
}

/// Reads all entries, flushes them, and leaves holes behind: the changes that were read, and those that were lost.
async fn read_all(store: &EmbeddedStore) -> (u64, u64) {
    let (mut seen, mut lost) = (0, 0);
    loop {
        let head = store.heads("k", &[0]).await.unwrap()[0];
        match read_after(store, head.flushed).await {
            JournalRead::Entries(entries) => {
                let Some(newest) = entries.last() else { return (seen, lost) };
                seen += entries.iter().map(|entry| entry.changes.len() as u64).sum::<u64>();
                store.trim_to("k", 0, head.incarnation, newest.into(), &[], &[]).await.unwrap();
            }
            JournalRead::Hole(_, hole) => {
                assert!(hole.is_exact && hole.amount.is_none_or(|amount| amount == hole.changes), "{hole:?}");
                lost += hole.changes;
                store.trim("k", 0, head.incarnation, hole.end(), &[], &[]).await.unwrap();
                store.reset("k", 0, head.incarnation).await.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn entries_that_are_missing_are_noticed_wherever_they_were() {
    for mask in 1_u32..32 {
        let directory = tempfile::tempdir().unwrap();
        let positions = written(directory.path()).await;
        let is_gone = |index: &usize| mask >> index & 1 == 1;
        tamper(directory.path(), |_, writes| {
            for index in (0..5).filter(is_gone) {
                writes[Space::Journal as usize].insert(journal_key("k", 0, positions[index]), None);
            }
        });
        let store = EmbeddedStore::open(&config(directory.path())).unwrap();
        let gone: u64 = (0..5).filter(is_gone).map(|index| index as u64 + 1).sum();
        // The rest of the tail lies over the rows of SQL, and nothing else.
        load(&store, 1, whole(0), NOW_MS).await;
        assert_eq!(count(&store, 1, NOW_MS).await, Some(15 - gone), "{mask:05b}");
        assert_eq!(read_all(&store).await, (15 - gone, gone), "{mask:05b}");
        let head = store.heads("k", &[0]).await.unwrap()[0];
        assert_eq!((head.backlog.entries, head.backlog.bytes), (0, 0), "{mask:05b}");
        load(&store, 1, whole(3), NOW_MS).await;
        toggle(&store, 1, 999).await;
        assert_eq!(read_all(&store).await, (1, 0), "the chain goes on");
    }
}

#[tokio::test]
async fn documents_that_were_lost_do_not_wait() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&config(directory.path())).unwrap();
    create(&store, 0..3, true).await;
    create(&store, 3..5, true).await;
    let head = store.heads("k", &[0]).await.unwrap()[0];
    let JournalRead::Entries(entries) = read_after(&store, 0).await else { panic!("a whole journal") };
    // While the host runs: the disk lost it.
    store.spaces.get().unwrap().of(Space::Journal).remove(journal_key("k", 0, entries[0].position)).unwrap();
    let JournalRead::Hole(_, hole) = read_after(&store, 0).await else { panic!("a hole") };
    assert_eq!((hole.changes, hole.next), (3, Some(head.last)));
    assert_eq!(store.lost_targets("k", 0, &hole, 100).await.unwrap().len(), 3);
    assert_eq!(store.lost_targets("k", 0, &hole, 2).await.unwrap().len(), 2);
    store.trim("k", 0, head.incarnation, hole.end(), &[], &[]).await.unwrap();
    let ids: Vec<_> = (0..5).map(|id| (0, Id::Int(id))).collect();
    let waiting: Vec<bool> = store.documents("k", &ids).await.unwrap().iter().map(Option::is_some).collect();
    assert_eq!(waiting, [false, false, false, true, true]);
}

#[tokio::test]
async fn entries_of_the_format_before_are_followed() {
    for gone in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let positions = written(directory.path()).await;
        tamper(directory.path(), |spaces, writes| {
            let journal = spaces.of(Space::Journal);
            for key in positions.iter().map(|&position| journal_key("k", 0, position)) {
                let of_now = decoded(&key, &journal.get(&key).unwrap().unwrap()).unwrap();
                assert_eq!(position_of(&key), Some(of_now.position));
                let earlier = entry::encode(&of_now.digest, NOW_MS, None, &of_now.changes);
                writes[Space::Journal as usize].insert(key, Some(earlier.into()));
            }
            let head = prefix("k", 0);
            let record = spaces.of(Space::Heads).get(&head).unwrap().unwrap();
            writes[Space::Heads as usize].insert(head, Some(record[..64].into()));
        });
        let store = EmbeddedStore::open(&config(directory.path())).unwrap();
        load(&store, 1, whole(0), NOW_MS).await;
        assert_eq!(count(&store, 1, NOW_MS).await, Some(15));
        toggle(&store, 1, 999).await;
        drop(store);
        if gone > 0 {
            tamper(directory.path(), |_, writes| {
                writes[Space::Journal as usize].insert(journal_key("k", 0, positions[gone]), None);
            });
        }
        let store = EmbeddedStore::open(&config(directory.path())).unwrap();
        let lost = if gone > 0 { gone as u64 + 1 } else { 0 };
        assert_eq!(read_all(&store).await, (16 - lost, lost), "without entry {gone}");
    }
}

#[tokio::test]
async fn a_directory_of_another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(&config(directory.path())).unwrap());
    tamper(directory.path(), |_, writes| {
        writes[Space::System as usize].insert(b"format".to_vec(), Some(b"2".into()));
    });
    let Err(StoreError::Misconfigured(message)) = EmbeddedStore::open(&config(directory.path())) else {
        panic!("records have changed since")
    };
    assert!(message.contains("format 2, this one has 4") && message.contains("empty directory"), "{message}");
}
