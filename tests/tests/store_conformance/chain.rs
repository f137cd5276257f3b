//! The chain of entries: whatever an operator takes out of a journal is noticed, counted, and left behind. The embedded
//! store has its own tests of this beside its code, where its records can be reached.

use weir::journal::Hole;
use weir::model::{Checkpoint, Id, Incarnation, Position};
use weir::store::{CreateResult, Head, JournalRead, LoadedState, ReadResult};

use crate::counters::hit;
use crate::documents::create;
use crate::stand::{Backend, KIND, NAMESPACE, OnCluster, OnServer, Sql, Stand, TOGGLE, known, op, outcome};

/// What an operator may do to the keys of a partition.
pub trait Keys: Backend {
    fn run<T: redis::FromRedisValue>(&mut self, key: &str, words: &[&str]) -> T;

    /// A command whose words are bytes.
    fn raw(&mut self, key: &str, words: &[Vec<u8>]) {
        let escaped: Vec<String> =
            words.iter().map(|word| word.iter().map(|byte| format!("\\{byte:03}")).collect()).collect();
        let quoted: Vec<String> = escaped.iter().map(|word| format!("'{word}'")).collect();
        let script = format!("return redis.call({})", quoted.join(", "));
        self.run::<redis::Value>(key, &["EVAL", &script, "1", key]);
    }
}

impl<const RELEASE: usize> Keys for OnServer<RELEASE> {
    fn run<T: redis::FromRedisValue>(&mut self, _key: &str, words: &[&str]) -> T {
        self.0.command(words)
    }
}

impl Keys for OnCluster {
    fn run<T: redis::FromRedisValue>(&mut self, key: &str, words: &[&str]) -> T {
        self.cluster().command(key, words)
    }
}

/// A key of partition 0.
fn key(name: &str) -> String {
    format!("weir:{NAMESPACE}:{{{KIND}:0}}:{name}")
}

fn on_journal<B: Keys, T: redis::FromRedisValue>(stand: &mut Stand<B>, command: &str, more: &[&str]) -> T {
    let journal = key("j");
    let words: Vec<&str> = [command, &journal].into_iter().chain(more.iter().copied()).collect();
    stand.backend.run(&journal, &words)
}

fn take_out<B: Keys>(stand: &mut Stand<B>, position: Position) {
    let gone: i64 = on_journal(stand, "XDEL", &[&format!("{position}-0")]);
    assert_eq!(gone, 1);
}

/// One partition, target 1, and entries with 1, 2, 3, … changes.
async fn stand_with<B: Keys>(entries: i64) -> (Stand<B>, Vec<Position>) {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    let mut positions = Vec::new();
    for entry in 1..=entries {
        let results = stand.toggle((0..entry).map(|n| op(1, entry * 100 + n, TOGGLE)).collect()).await;
        positions.push(outcome(&results[0]).position);
    }
    (stand, positions)
}

async fn read<B: Backend>(stand: &Stand<B>, head: &Head, position: Position) -> JournalRead {
    stand.store().read_journal(KIND, 0, head.incarnation, position, 1_000).await.unwrap()
}

/// The entries after `position`; panics where there is a hole.
async fn positions<B: Backend>(stand: &Stand<B>, position: Position) -> Vec<Position> {
    let head = stand.head(0).await;
    match read(stand, &head, position).await {
        JournalRead::Entries(entries) => entries.iter().map(|entry| entry.position).collect(),
        other => panic!("{other:?}"),
    }
}

/// The hole directly after `position`.
async fn hole_at<B: Backend>(stand: &Stand<B>, position: Position) -> Hole {
    let head = stand.head(0).await;
    match read(stand, &head, position).await {
        JournalRead::Hole(told, hole) => {
            assert_eq!(told, head);
            hole
        }
        other => panic!("{other:?}"),
    }
}

/// As the flusher leaves it behind once SQL has recorded it.
async fn pass<B: Backend>(stand: &Stand<B>, hole: &Hole) -> Head {
    let head = stand.head(0).await;
    let incarnation = Incarnation::after(head.incarnation);
    let row = Checkpoint { partition: 0, incarnation, epoch: 1, position: hole.end() };
    stand.store().follow(KIND, &head, &row, Some(hole.mark())).await.unwrap()
}

pub async fn each_hole_is_found_and_counted<B: Keys>() {
    let (mut stand, at) = stand_with::<B>(6).await;
    let hole = |after, last, next, changes, total| {
        let (amount, total_amount) = (Some(changes), Some(total));
        Hole { after, last, next, changes, amount, is_exact: true, total: Some(total), total_amount }
    };
    // In the middle: what comes before is read first.
    take_out(&mut stand, at[2]);
    assert_eq!(positions(&stand, 0).await, at[..2]);
    assert_eq!(hole_at(&stand, at[1]).await, hole(at[1], at[2], Some(at[3]), 3, 6));
    assert_eq!(positions(&stand, at[3]).await, at[4..]);
    // At the beginning.
    take_out(&mut stand, at[0]);
    assert_eq!(hole_at(&stand, 0).await, hole(0, at[0], Some(at[1]), 1, 1));
    // At the end.
    take_out(&mut stand, at[5]);
    assert_eq!(positions(&stand, at[3]).await, [at[4]]);
    assert_eq!(hole_at(&stand, at[4]).await, hole(at[4], at[5], None, 6, 21));
    // All of it, while it goes on.
    on_journal::<B, ()>(&mut stand, "DEL", &[]);
    assert_eq!(hole_at(&stand, 0).await, hole(0, at[5], None, 21, 21));
    let later = stand.done(1, 7).await.position;
    assert_eq!(hole_at(&stand, 0).await, hole(0, at[5], Some(later), 21, 21));
}

pub async fn what_follows_a_hole_is_kept_and_what_was_lost_is_not_known_any_more<B: Keys>() {
    let (mut stand, at) = stand_with::<B>(3).await;
    assert_eq!(stand.read(1, 200).await, known(true, 6));
    stand.load_whole(2, &[9]).await;
    stand.done(2, 5).await;
    let lost = stand.head(0).await.last;
    stand.done(1, 400).await;
    take_out(&mut stand, at[1]);
    take_out(&mut stand, lost);

    // What comes before the first hole is flushed; then each hole is left behind.
    let mut sql = Sql::default();
    let (change, at_ms) = stand.changes_of(&[at[0]]).await.swap_remove(0);
    sql.apply(&change, at_ms);
    let head = stand.head(0).await;
    stand.store().trim(KIND, 0, head.incarnation, at[0], &[Id::Int(1)], &[]).await.unwrap();
    let first = hole_at(&stand, at[0]).await;
    assert_eq!((first.changes, first.next), (2, Some(at[2])));
    let life = pass(&stand, &first).await;
    assert!(life.incarnation > head.incarnation && life.floor == life.last);
    assert_eq!(life.backlog.entries, 5, "three, the lost one, one");
    assert_eq!(stand.read(1, 200).await, ReadResult::TargetNotLoaded, "six were known, SQL holds one");

    assert_eq!(positions(&stand, 0).await, [at[2]]);
    stand.flush_readable(&mut sql).await;
    let second = hole_at(&stand, at[2]).await;
    assert_eq!((second.last, second.changes), (lost, 1));
    let names = stand.store().lost_targets(KIND, 0, &second, 10).await.unwrap();
    assert!(names.is_empty(), "the state went with the first hole: {names:?}");
    pass(&stand, &second).await;
    stand.flush_readable(&mut sql).await;
    let head = stand.head(0).await;
    assert_eq!((head.backlog, head.flushed), (weir::model::Backlog::default(), head.last));

    // The answer is what SQL holds.
    assert_eq!(sql.members(&Id::Int(1)).len(), 5);
    stand.load(vec![(1, LoadedState::Whole(sql.members(&Id::Int(1)))), (2, LoadedState::Whole(vec![]))]).await;
    assert_eq!(stand.read(1, 200).await, known(false, 5));
    assert_eq!(stand.read(1, 400).await, known(true, 5));
    stand.done(1, 200).await;
    assert_eq!(positions(&stand, 0).await.len(), 1, "and the chain goes on");
}

pub async fn an_entry_that_goes_between_reading_and_trimming_is_no_loss<B: Keys>() {
    let (mut stand, at) = stand_with::<B>(5).await;
    let head = stand.head(0).await;
    let JournalRead::Entries(entries) = read(&stand, &head, 0).await else { panic!("a whole journal") };
    let mark = (&entries[1]).into();
    on_journal::<B, ()>(&mut stand, "DEL", &[]);
    let later = stand.done(1, 7).await.position;
    // SQL has two entries, and nobody else has them: what was lost is the rest.
    stand.store().trim_to(KIND, 0, head.incarnation, mark, &[Id::Int(1)], &[]).await.unwrap();
    let hole = hole_at(&stand, at[1]).await;
    assert_eq!((hole.changes, hole.amount, hole.is_exact), (12, Some(12), true));
    assert_eq!((hole.after, hole.last, hole.next), (at[1], at[4], Some(later)));
    pass(&stand, &hole).await;
    // Where nobody knows how much SQL has, no more than there was.
    let at = stand.done_after_load(3).await;
    take_out(&mut stand, at[0]);
    take_out(&mut stand, at[1]);
    let hole = hole_at(&stand, at[0]).await;
    assert_eq!((hole.after, hole.last, hole.is_exact), (at[0], at[1], false));
    assert!(hole.changes >= 1, "{hole:?}");
    // The entry of the checkpoint alone is no loss.
    take_out(&mut stand, at[2]);
    assert_eq!(positions(&stand, at[2]).await, [] as [Position; 0]);
}

pub async fn a_stream_of_another_partition_or_time_is_not_taken_for_this_one<B: Keys>() {
    let (mut stand, at) = stand_with::<B>(4).await;
    // Put away, and back when the journal has gone on.
    let (journal, away) = (key("j"), key("away"));
    stand.backend.run::<()>(&journal, &["RENAME", &journal, &away]);
    let later = stand.done(1, 7).await.position;
    let hole = hole_at(&stand, 0).await;
    assert_eq!((hole.changes, hole.next), (10, Some(later)));
    pass(&stand, &hole).await;
    assert_eq!(positions(&stand, 0).await, [later]);
    stand.backend.run::<()>(&journal, &["RENAME", &away, &journal]);
    let hole = hole_at(&stand, 0).await;
    assert_eq!((hole.last, hole.next, hole.changes), (later, None, 1), "what was said to be lost stays lost");
    pass(&stand, &hole).await;
    assert_eq!(positions(&stand, 0).await, [] as [Position; 0]);

    // Put away, and back between the step in SQL and that in the store: what was said to be lost is not counted again.
    let at_life = stand.done_after_load(2).await;
    stand.backend.run::<()>(&journal, &["RENAME", &journal, &away]);
    let later = stand.done(1, 7).await.position;
    let hole = hole_at(&stand, 0).await;
    assert_eq!((hole.last, hole.next, hole.changes), (at_life[1], Some(later), 2));
    stand.backend.run::<()>(&journal, &["RENAME", &away, &journal]);
    pass(&stand, &hole).await;
    let hole = hole_at(&stand, 0).await;
    assert_eq!((hole.last, hole.next, hole.changes), (later, None, 1));
    pass(&stand, &hole).await;

    // A stream with as many entries, of another life of the journal.
    let others: Vec<(String, Vec<Vec<u8>>)> = on_journal(&mut stand, "XRANGE", &["-", "+"]);
    assert!(others.is_empty(), "{}: trimmed with the hole", others.len());
    let at = [at, stand.done_after_load(2).await].concat();
    stand.backend.run::<()>(&journal, &["RENAME", &journal, &away]);
    stand.backend.run::<()>(&journal, &["HSET", &key("x"), "s", "another0"]);
    let foreign = stand.done(1, 8).await.position;
    stand.backend.run::<()>(&journal, &["RENAME", &away, &journal]);
    let hole = hole_at(&stand, 0).await;
    assert_eq!((hole.last, hole.next, hole.changes), (foreign, None, 3), "entries of {at:?} are left alone");
}

pub async fn what_a_hole_leaves_in_the_state_is_named_and_forgotten<B: Keys>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    let mut stand = stand;
    for target in 1..=4 {
        stand.load_whole(target, &[]).await;
        stand.done(target, 5).await;
    }
    stand.load_count(10, 0).await;
    stand.hits(vec![hit(10, 4), hit(10, 3)]).await;
    let mut document = create(0, &[77]);
    document.has_fresh_ids = true;
    assert!(matches!(stand.create(document).await, CreateResult::Done(_)));
    on_journal::<B, ()>(&mut stand, "DEL", &[]);
    let hole = hole_at(&stand, 0).await;
    assert_eq!((hole.changes, hole.amount), (6, Some(4 + 7 + 1)), "of a counter the increments");
    let named = stand.store().lost_targets(KIND, 0, &hole, 100).await.unwrap();
    assert_eq!(named, ["1", "10", "2", "3", "4", "77"]);
    assert_eq!(stand.store().lost_targets(KIND, 0, &hole, 2).await.unwrap().len(), 2);
    pass(&stand, &hole).await;
    assert!(stand.waiting(&[77]).await[0].is_none(), "a document that was lost does not wait");
    stand.load_whole(2, &[5]).await;
    let keys = |stand: &mut Stand<B>| -> Vec<String> {
        let mut keys: Vec<String> = stand.backend.run(&key("x"), &["KEYS", &key("*")]);
        keys.sort();
        keys
    };
    assert!(keys(&mut stand).len() > 6);
    stand.store().forget_lost(KIND, &[0]).await.unwrap();
    assert_eq!(keys(&mut stand), [key("t:2"), key("x")], "nothing stays dirty for ever");
    assert_eq!(stand.read(2, 5).await, known(true, 1));
}

pub async fn entries_of_the_format_before_are_followed<B: Keys>() {
    let (mut stand, at) = stand_with::<B>(4).await;
    // As an earlier version wrote them: without a link, under a head without a seal.
    let entries: Vec<(String, Vec<Vec<u8>>)> = on_journal(&mut stand, "XRANGE", &["-", "+"]);
    let (journal, head) = (key("j"), key("x"));
    stand.backend.run::<()>(&journal, &["DEL", &journal]);
    for (id, fields) in &entries {
        let mut command = vec![b"XADD".to_vec(), journal.clone().into_bytes(), id.clone().into_bytes()];
        for pair in fields.chunks(2) {
            let length = if pair[0] == b"n" { 24 } else { pair[1].len() };
            command.extend([pair[0].clone(), pair[1][..length].to_vec()]);
        }
        stand.backend.raw(&journal, &command);
    }
    let numbers: Vec<u8> = stand.backend.run(&head, &["HGET", &head, "n"]);
    stand.backend.raw(&head, &[b"HSET".to_vec(), head.clone().into_bytes(), b"n".to_vec(), numbers[..88].to_vec()]);
    stand.backend.run::<()>(&head, &["HDEL", &head, "s"]);

    assert_eq!(positions(&stand, 0).await, at);
    let later = stand.done(1, 7).await.position;
    assert_eq!(positions(&stand, 0).await, [at.clone(), vec![later]].concat(), "the chain begins behind them");
    take_out(&mut stand, at[1]);
    let hole = hole_at(&stand, at[0]).await;
    assert_eq!((hole.changes, hole.amount, hole.is_exact), (2, None, true));
    pass(&stand, &hole).await;
    take_out(&mut stand, at[3]);
    assert_eq!(positions(&stand, 0).await, [at[2]]);
    let hole = hole_at(&stand, at[2]).await;
    assert_eq!((hole.last, hole.changes, hole.next), (at[3], 4, Some(later)));
}
