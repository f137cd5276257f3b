//! The journal: entries, pages, backlog, trimming.

use weir::model::{Action, Backlog, Checkpoint, Id, Incarnation};
use weir::store::{JournalRead, ReadResult, ToggleBatch};

use crate::stand::{Backend, DIGEST, KIND, START_MS, Sql, Stand, TOGGLE, known, op, outcome};

pub async fn a_batch_is_one_entry_per_partition<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let targets = [1, 2, 9];
    for target in targets {
        stand.load_whole(target, &[]).await;
    }
    assert_eq!(stand.partition(1), stand.partition(9), "as the golden values of the model say");
    let ops = vec![op(1, 5, TOGGLE), op(2, 5, TOGGLE), op(9, 5, TOGGLE), op(1, 5, TOGGLE)];
    let batch = ToggleBatch { digest: DIGEST, at_ms: stand.now_ms(), now_ms: stand.now_ms(), ops };
    let commit = stand.store().toggle(KIND, batch).await.unwrap();
    let mut partitions: Vec<_> = commit.heads.iter().map(|head| head.partition).collect();
    partitions.sort_unstable();
    let mut expected = vec![stand.partition(1), stand.partition(2)];
    expected.sort_unstable();
    assert_eq!(partitions, expected, "the heads of the partitions that were touched");
    for head in &commit.heads {
        assert_eq!(*head, stand.head(head.partition).await);
        assert!(head.last > 0 && head.flushed == 0);
    }
    let changes = stand.changes(stand.partition(1), 1_000).await;
    let actions = |wanted: i64| -> Vec<Action> {
        let of_target = changes.iter().filter(|(_, change)| change.target == Id::Int(wanted));
        of_target.map(|(_, change)| change.action).collect()
    };
    assert_eq!(actions(1), [Action::Add, Action::Remove], "in the order of acceptance, for each target");
    assert_eq!(actions(9), [Action::Add]);
    assert!(changes.iter().all(|(position, _)| *position == changes[0].0));
    let entries = stand.entries(stand.partition(1), 1_000).await;
    assert!(entries.iter().all(|entry| entry.at_ms == START_MS));
    assert_eq!(outcome(&commit.results[0]).position, changes[0].0);
    // Nothing changed, no entry.
    stand.toggle(vec![op(1, 5, crate::stand::rule(weir::model::Effect::Keep, weir::model::Effect::Keep))]).await;
    assert_eq!(stand.changes(stand.partition(1), 1_000).await.len(), 3);
}

pub async fn the_journal_is_read_in_pages<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    let mut positions = Vec::new();
    for entry in 0..100 {
        let results = stand.toggle((0..3).map(|n| op(1, entry * 3 + n, TOGGLE)).collect()).await;
        positions.push(outcome(&results[0]).position);
    }
    assert!(positions.is_sorted_by(|a, b| a < b));
    let head = stand.head(0).await;
    let read = async |position, changes_max| match stand
        .store()
        .read_journal(KIND, 0, head.incarnation, position, changes_max)
        .await
        .unwrap()
    {
        JournalRead::Entries(entries) => entries.iter().map(|entry| entry.position).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(0, 1).await, positions[..1], "at least one");
    assert_eq!(read(0, 0).await, positions[..1]);
    assert_eq!(read(0, 3).await, positions[..1]);
    assert_eq!(read(0, 4).await, positions[..2]);
    assert_eq!(read(0, 1_000).await, positions);
    assert_eq!(read(positions[0], 6).await, positions[1..3], "strictly after");
    assert_eq!(read(positions[40], 150).await, positions[41..91]);
    assert_eq!(read(positions[99], 5).await, positions[..0]);
    for changes_max in [1, 7, 96, 1_000] {
        let actors: Vec<_> = stand.changes(0, changes_max).await.into_iter().map(|(_, change)| change.actor).collect();
        assert_eq!(actors, (0..300).map(Id::Int).collect::<Vec<_>>(), "pages of {changes_max}");
    }
    stand.store().trim(KIND, 0, head.incarnation, positions[50], &[], &[]).await.unwrap();
    assert_eq!(read(positions[50], 1_000).await, positions[51..]);
    assert_eq!(read(0, 3).await, positions[51..52], "below the trim point there is nothing");
}

pub async fn the_backlog_is_what_waits<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    assert_eq!(stand.head(0).await.backlog, Backlog::default());
    let mut positions = Vec::new();
    for n in 0..4 {
        let results = stand.toggle((0..=n).map(|actor| op(1, n * 10 + actor, TOGGLE)).collect()).await;
        positions.push(outcome(&results[0]).position);
        stand.advance_ms(1_000);
    }
    let bytes = |entries: u64, changes: u64| entries * 65 + changes * 19;
    let backlog = async || stand.head(0).await.backlog;
    let expect = |entries, changes, age| Backlog {
        entries: changes,
        targets: 1,
        bytes: bytes(entries, changes),
        oldest_at_ms: Some(START_MS + age),
    };
    assert_eq!(backlog().await, expect(4, 10, 0));
    let head = stand.head(0).await;
    let trim = async |position| stand.store().trim(KIND, 0, head.incarnation, position, &[], &[]).await.unwrap();
    trim(positions[1]).await;
    assert_eq!(backlog().await, expect(2, 7, 2_000));
    assert_eq!(stand.head(0).await.flushed, positions[1]);
    trim(positions[1]).await;
    assert_eq!(backlog().await, expect(2, 7, 2_000), "the same trim again changes nothing");
    trim(positions[3]).await;
    assert_eq!(backlog().await, Backlog::default());
    stand.done(1, 99).await;
    assert_eq!(backlog().await, expect(1, 1, 4_000));
}

pub async fn a_trim_of_another_life_or_an_older_place_does_nothing<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    let first = stand.done(1, 2).await.position;
    let second = stand.done(1, 3).await.position;
    let before = stand.head(0).await;
    let trim = async |incarnation, position| {
        stand.store().trim(KIND, 0, incarnation, position, &[Id::Int(1)], &[Id::Int(1)]).await.unwrap();
        stand.head(0).await
    };
    assert_eq!(trim(Incarnation::after(before.incarnation), second).await, before);
    assert_eq!(trim(before.incarnation, second + 1).await, before, "beyond the end: not of this journal");
    stand.store().trim(KIND, 0, before.incarnation, second, &[], &[]).await.unwrap();
    let after = stand.head(0).await;
    assert_eq!(after.flushed, second);
    assert_eq!(trim(before.incarnation, first).await, after);
    assert_eq!(stand.read(1, 2).await, known(true, 2), "what did not apply made nothing cold");
}

pub async fn a_journal_of_another_life_says_so<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    let other = Incarnation::fresh();
    let read =
        async |incarnation, position| stand.store().read_journal(KIND, 0, incarnation, position, 10).await.unwrap();
    let JournalRead::OtherIncarnation(head) = read(other, 5).await else { panic!("a journal that never was") };
    assert_eq!(head, stand.head(0).await, "its head was made");
    assert_eq!(read(other, 0).await, JournalRead::OtherIncarnation(head));
    assert_eq!(read(head.incarnation, 0).await, JournalRead::Entries(vec![]));
}

pub async fn a_position_that_is_no_entry_is_a_rewind<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    let first = stand.done(1, 2).await.position;
    let second = stand.done(1, 3).await.position;
    let head = stand.head(0).await;
    let read = async |position| stand.store().read_journal(KIND, 0, head.incarnation, position, 10).await.unwrap();
    assert!(matches!(read(first).await, JournalRead::Entries(entries) if entries.len() == 1));
    assert!(matches!(read(second).await, JournalRead::Entries(entries) if entries.is_empty()));
    assert_eq!(read(second + 1).await, JournalRead::Rewound(head), "SQL is ahead of the journal");
    assert_eq!(read(first - 1).await, JournalRead::Rewound(head), "SQL has an entry that never was here");
    stand.store().trim(KIND, 0, head.incarnation, first, &[], &[]).await.unwrap();
    assert!(matches!(read(first).await, JournalRead::Entries(entries) if entries.len() == 1), "the trim point itself");
}

pub async fn an_invalid_target_becomes_cold<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    for target in [1, 2] {
        stand.load_whole(target, &[]).await;
        stand.done(target, 5).await;
    }
    let head = stand.head(0).await;
    let touched = [Id::Int(1), Id::Int(2)];
    stand.store().trim(KIND, 0, head.incarnation, head.last, &touched, &[Id::Int(2)]).await.unwrap();
    assert_eq!(stand.read(1, 5).await, known(true, 1));
    assert_eq!(stand.read(2, 5).await, ReadResult::TargetNotLoaded, "SQL dead-lettered its row");
    stand.load_whole(2, &[]).await;
    assert_eq!(stand.read(2, 5).await, known(false, 0));
}

pub async fn an_invalid_target_with_newer_entries_becomes_cold_when_clean<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 5).await;
    let head = stand.head(0).await;
    stand.done(1, 6).await;
    stand.store().trim(KIND, 0, head.incarnation, head.last, &[Id::Int(1)], &[Id::Int(1)]).await.unwrap();
    assert_eq!(stand.read(1, 6).await, known(true, 2), "dirty state is never dropped");
    stand.done(1, 7).await;
    assert_eq!(stand.read(1, 7).await, known(true, 3));
    stand.flush(&mut Sql::default()).await;
    assert_eq!(stand.read(1, 6).await, ReadResult::TargetNotLoaded);
}

pub async fn a_journal_behind_sqls_life_drops_what_sql_has_and_keeps_the_rest<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    let committed = stand.done(1, 2).await.position;
    let waits = stand.done(1, 3).await.position;
    let head = stand.head(0).await;
    // A flusher moved SQL's checkpoint into another life, and died before the store heard of it.
    let incarnation = Incarnation::after(head.incarnation);
    let row = Checkpoint { partition: 0, incarnation, epoch: 9, position: waits - 1 };
    let after = stand.store().follow(KIND, &head, &row, None).await.unwrap();
    assert!(after.incarnation > incarnation && after.backlog.entries == 1);
    assert_eq!(
        stand.store().follow(KIND, &head, &row, None).await.unwrap(),
        after,
        "whoever comes late changes nothing"
    );
    let positions: Vec<_> = stand.changes(0, 10).await.into_iter().map(|(position, _)| position).collect();
    assert_eq!(positions, [waits], "never applied twice: {committed}");
    assert_eq!(stand.read(1, 3).await, ReadResult::TargetNotLoaded);
}
