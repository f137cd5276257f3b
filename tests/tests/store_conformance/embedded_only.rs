//! What only the embedded store promises: one host per directory, and a torn tail.

use std::fs;
use std::path::Path;

use weir::model::{Id, Position};
use weir::store::embedded::EmbeddedStore;
use weir::store::{Hydrated, LoadedState, ReadResult, StoreError, TargetLoad};

use crate::counters::{Counts, hit};
use crate::documents::create;
use crate::stand::{Embedded, KIND, Stand, known};

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The database's write-ahead logs: the files whose tail a crash can tear.
fn logs(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_belongs_to_one_host() {
    let mut stand = Stand::<Embedded>::new().await;
    let Err(refused @ StoreError::InUse(_)) = EmbeddedStore::open(&stand.config) else {
        panic!("a second host must be refused")
    };
    let message = refused.to_string();
    assert!(message.contains("another process"), "{message}");
    stand.close();
    stand.open().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_taken_at_any_moment_holds_what_was_acknowledged() {
    let stand = Stand::<Embedded>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    for round in 1..=5u64 {
        for n in 0..10 {
            stand.done(1, i64::try_from(round * 100 + n).unwrap()).await;
        }
        // As a kill leaves it: nothing was closed.
        let copy = stand.backend.0.path().join(format!("copy-{round}"));
        copy_directory(&stand.config.path, &copy);
        let mut config = stand.config.clone();
        config.path = copy;
        let (directory, _) = <Embedded as crate::stand::Backend>::start();
        let reopened = Stand::<Embedded>::on(directory, config, |_| {}).await;
        assert_eq!(reopened.head(0).await, stand.head(0).await);
        // SQL holds nothing of it yet: all comes from the journal.
        reopened.load_whole(1, &[]).await;
        assert_eq!(reopened.read(1, i64::try_from(round * 100).unwrap()).await, known(true, round * 10));
        assert_eq!(reopened.changes(0, 7).await, stand.changes(0, 7).await);
        reopened.done(1, 9_999).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_loses_only_what_was_torn() {
    let stand = Stand::<Embedded>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    for actor in 0..10 {
        stand.done(1, actor).await;
    }
    let before = logs(&stand.config.path);
    let log = before.last().expect("a write-ahead log").clone();
    // Where the acknowledged part ends; the file may be longer than what was written.
    let whole = fs::read(&log).unwrap();
    // What has been synced is marked before it is told: the eleventh toggle counts as on its way when the power goes.
    let marked = fs::read(stand.config.path.join("weir.synced")).unwrap();
    stand.done(1, 100).await;
    let longer = fs::read(&log).unwrap();
    let start = whole.iter().zip(&longer).take_while(|(a, b)| a == b).count();
    let end = longer.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(end > start, "the eleventh toggle was appended");
    for (index, cut) in [start + 1, start + (end - start) / 2, end - 1].into_iter().enumerate() {
        let copy = stand.backend.0.path().join(format!("torn-{index}"));
        copy_directory(&stand.config.path, &copy);
        let torn = copy.join(log.file_name().unwrap());
        fs::write(&torn, &longer[..cut]).unwrap();
        let mut config = stand.config.clone();
        config.path = copy.clone();
        let Err(StoreError::Damaged(message)) = EmbeddedStore::open(&config) else { panic!("it was acknowledged") };
        assert!(message.contains("missing") && message.contains("weir store salvage"), "{message}");
        fs::write(copy.join("weir.synced"), &marked).unwrap();
        let mut config = stand.config.clone();
        config.path = copy;
        let (directory, _) = <Embedded as crate::stand::Backend>::start();
        let reopened = Stand::<Embedded>::on(directory, config, |_| {}).await;
        assert_eq!(reopened.changes(0, 100).await.len(), 10, "cut at {cut} of {start}..{end}");
        reopened.load_whole(1, &[]).await;
        assert_eq!(reopened.read(1, 100).await, known(false, 10), "all of a batch or nothing of it");
        assert_eq!(reopened.done(1, 100).await.state.count, 11);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_takes_no_more_and_lost_nothing() {
    let mut stand = Stand::<Embedded>::tuned(|config| config.partitions = 1).await;
    stand.close();
    let store = EmbeddedStore::open(&stand.config).unwrap();
    weir::store::Journal::heads(&store, KIND, &[0]).await.unwrap();
    store.close().await;
    let refused = weir::store::StoreHealth::ping(&store).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    drop(store);
    stand.open().await;
}

/// A counter as of the checkpoint at `position` of partition 0.
async fn load_count_at(stand: &Stand<Embedded>, target: i64, count: u64, position: Position) -> Hydrated {
    let head = stand.head(0).await;
    let load = TargetLoad { target: Id::Int(target), state: LoadedState::Count(count) };
    stand.hydrate_at(0, (head.incarnation, position), vec![load], vec![]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_the_tail_of_a_counter_counts_from_the_checkpoint_on() {
    let mut stand = Stand::<Embedded>::tuned(|config| config.partitions = 1).await;
    let mut sql = Counts::from([(Id::Int(1), 100), (Id::Int(2), 200), (Id::Int(3), 300)]);
    for target in 1..=3 {
        stand.load_count(target, sql[&Id::Int(target)]).await;
    }
    let mut positions = Vec::new();
    for by in [1, 10, 1_000] {
        stand.hits(vec![hit(1, by), hit(2, by), hit(1, by)]).await;
        positions.push(stand.head(0).await.last);
    }
    // A flusher that died between its commit and its trim: SQL is ahead of the trim point.
    stand.flush_counts(&mut sql, 0, (positions[0], true)).await;
    stand.flush_counts(&mut sql, 0, (positions[1], false)).await;
    assert_eq!((sql[&Id::Int(1)], sql[&Id::Int(2)]), (122, 211));
    stand.crash().await;
    assert_eq!(stand.head(0).await.backlog.targets, 2, "those that wait in the journal");
    assert_eq!(load_count_at(&stand, 1, 122, positions[1]).await, Hydrated::Accepted);
    assert_eq!(stand.count_of(1).await, known(false, 2_122), "only what SQL does not hold yet");
    // What SQL held at the trim point leads to the same.
    assert_eq!(load_count_at(&stand, 2, 201, positions[0]).await, Hydrated::Accepted);
    assert_eq!(stand.count_of(2).await, known(false, 1_211));
    assert_eq!(load_count_at(&stand, 3, 300, positions[1]).await, Hydrated::Accepted);
    assert_eq!(stand.count_of(3).await, known(false, 300));
    assert_eq!(stand.head(0).await.backlog.targets, 2, "dirty, and known");
    stand.flush_counts(&mut sql, 0, (Position::MAX, true)).await;
    assert_eq!(stand.head(0).await.backlog.targets, 0);
    assert_eq!((stand.count_of(1).await, stand.count_of(2).await), (known(false, 2_122), known(false, 1_211)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_waits_for_what_the_flusher_may_have_committed() {
    let mut stand = Stand::<Embedded>::tuned(|config| config.partitions = 1).await;
    let mut sql = Counts::from([(Id::Int(1), 100), (Id::Int(2), 100)]);
    for target in [1, 2] {
        stand.load_count(target, 100).await;
    }
    stand.hits(vec![hit(1, 5)]).await;
    let first = stand.head(0).await.last;
    stand.hits(vec![hit(2, 7)]).await;
    stand.crash().await;
    // The loader has read the checkpoint, at 0; now the flusher reads and commits; then the loader reads the count.
    stand.flush_counts(&mut sql, 0, (Position::MAX, false)).await;
    assert!(matches!(load_count_at(&stand, 1, sql[&Id::Int(1)], 0).await, Hydrated::Stale(_)), "not counted twice");
    let head = stand.head(0).await;
    assert_eq!(head.floor, head.last, "SQL must have it first");
    assert!(matches!(load_count_at(&stand, 2, sql[&Id::Int(2)], first).await, Hydrated::Stale(_)));
    assert_eq!(load_count_at(&stand, 1, sql[&Id::Int(1)], head.last).await, Hydrated::Accepted);
    assert_eq!(load_count_at(&stand, 2, sql[&Id::Int(2)], head.last).await, Hydrated::Accepted);
    assert_eq!((stand.count_of(1).await, stand.count_of(2).await), (known(false, 105), known(false, 107)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_that_was_missing_for_a_while_keeps_its_tail() {
    let mut stand = Stand::<Embedded>::tuned(|config| config.partitions = 1).await;
    stand.load_count(1, 100).await;
    stand.hits(vec![hit(1, 5)]).await;
    stand.crash().await;
    stand.load(vec![(1, LoadedState::Missing)]).await;
    assert_eq!(stand.count_of(1).await, ReadResult::TargetMissing);
    stand.advance_ms(60_000);
    stand.load_count(1, 20).await;
    assert_eq!(stand.count_of(1).await, known(false, 25), "what waits will be added to the row that came back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_is_too_long_reaches_sql_first_and_its_documents_are_found() {
    let mut stand = Stand::<Embedded>::tuned(|config| config.partitions = 1).await;
    let ids: Vec<i64> = (0..101_000).collect();
    for some in ids.chunks(5_000) {
        let mut op = create(0, some);
        op.has_fresh_ids = true;
        stand.create(op).await;
    }
    let head = stand.head(0).await;
    assert_eq!((head.backlog.entries, head.backlog.targets), (101_000, 101_000));
    stand.crash().await;
    assert_eq!(stand.head(0).await, head);
    assert!(stand.waiting(&ids).await.iter().all(Option::is_some), "documents are found however many they are");
    // Of counters the tail is bounded.
    let mut stand = Stand::<Embedded>::tuned(|config| config.partitions = 1).await;
    let loads = ids.iter().map(|&id| TargetLoad { target: Id::Int(id), state: LoadedState::Count(0) }).collect();
    assert_eq!(stand.hydrate(0, loads, vec![]).await, Hydrated::Accepted);
    for some in ids.chunks(5_000) {
        stand.hits(some.iter().map(|&id| hit(id, 1)).collect()).await;
    }
    assert_eq!(stand.head(0).await.backlog.targets, 101_000);
    stand.crash().await;
    let head = stand.head(0).await;
    assert_eq!((head.floor, head.backlog.targets), (head.last, 0), "nothing is known of them");
    assert!(matches!(load_count_at(&stand, 1, 0, 0).await, Hydrated::Stale(_)));
    assert_eq!(load_count_at(&stand, 1, 1, head.last).await, Hydrated::Accepted);
    assert_eq!(stand.count_of(1).await, known(false, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_holds_the_mark_and_the_increment_or_neither() {
    let stand = Stand::<Embedded>::tuned(|config| config.partitions = 1).await;
    stand.load_count(1, 0).await;
    stand.hits(vec![hit(1, 1)]).await;
    let log = logs(&stand.config.path).last().expect("a write-ahead log").clone();
    let whole = fs::read(&log).unwrap();
    let marked = fs::read(stand.config.path.join("weir.synced")).unwrap();
    let unique = || {
        let mut op = hit(1, 1);
        (op.actor, op.rule.unique_ms) = (Some(Id::Int(5)), Some(3_600_000));
        op
    };
    stand.hits(vec![unique()]).await;
    let longer = fs::read(&log).unwrap();
    let start = whole.iter().zip(&longer).take_while(|(a, b)| a == b).count();
    let end = longer.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for (index, cut) in [start + 1, start + (end - start) / 2, end - 1, end].into_iter().enumerate() {
        let copy = stand.backend.0.path().join(format!("torn-{index}"));
        copy_directory(&stand.config.path, &copy);
        fs::write(copy.join(log.file_name().unwrap()), &longer[..cut]).unwrap();
        fs::write(copy.join("weir.synced"), &marked).unwrap();
        let mut config = stand.config.clone();
        config.path = copy;
        let (directory, _) = <Embedded as crate::stand::Backend>::start();
        let reopened = Stand::<Embedded>::on(directory, config, |_| {}).await;
        reopened.load_count(1, 0).await;
        let before = if cut == end { 2 } else { 1 };
        assert_eq!(reopened.count_of(1).await, known(false, before), "cut at {cut} of {start}..{end}");
        reopened.hits(vec![unique()]).await;
        assert_eq!(reopened.count_of(1).await, known(false, 2), "counted once, whatever was torn");
    }
}
