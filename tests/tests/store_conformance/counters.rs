//! Counters: adding, limits, idempotency, what becomes of their state.

use std::collections::BTreeMap;

use weir::journal::Entry;
use weir::model::{Backlog, Change, CountRule, Id, Partition, Position, RateLimit, RateState};
use weir::store::{
    CountBatch, CountOp, CountOutcome, CountResult, Idempotency, LoadedState, Members, ReadResult, StoreError,
    ToggleResult,
};

use crate::stand::{Backend, DIGEST, KIND, START_MS, Stand, TOGGLE, known, op};

/// Greatest count.
const COUNT_MAX: u64 = (1 << 53) - 1;
/// Every hit counts for one.
pub const ONE: CountRule = CountRule { weight: 1, unique_ms: None, limit: None };

/// Counts as SQL would hold them.
pub type Counts = BTreeMap<Id, u64>;

/// By nobody.
pub fn hit(target: i64, by: u32) -> CountOp {
    CountOp { target: Id::Int(target), actor: None, by, rule: ONE, idempotency: None }
}

/// One by an actor.
pub fn by(target: i64, actor: i64, rule: CountRule) -> CountOp {
    CountOp { actor: Some(Id::Int(actor)), rule, ..hit(target, 1) }
}

pub fn unique(unique_ms: u32) -> CountRule {
    CountRule { unique_ms: Some(unique_ms), ..ONE }
}

fn limited(burst: u32, period_ms: u32) -> CountRule {
    CountRule { limit: Some(RateLimit { burst, period_ms }), ..ONE }
}

fn keyed(op: CountOp, key: u8, fingerprint: u8) -> CountOp {
    CountOp { idempotency: Some(Idempotency { key: [key; 16], fingerprint: [fingerprint; 16] }), ..op }
}

pub fn outcome(result: &CountResult) -> CountOutcome {
    match result {
        CountResult::Done(outcome) => *outcome,
        other => panic!("not evaluated: {other:?}"),
    }
}

/// Count and whether it counted.
pub fn told(result: &CountResult) -> (u64, bool) {
    let outcome = outcome(result);
    (outcome.count, outcome.counted)
}

impl<B: Backend> Stand<B> {
    pub async fn try_hits(&self, keep_actors: bool, ops: Vec<CountOp>) -> Result<Vec<CountResult>, StoreError> {
        let batch = CountBatch {
            digest: DIGEST,
            at_ms: self.now_ms(),
            now_ms: self.now_ms(),
            keep_actors,
            unique_pairs_max: 10_000,
            ops,
        };
        self.store().count(KIND, batch).await.map(|commit| commit.results)
    }

    pub async fn hits(&self, ops: Vec<CountOp>) -> Vec<CountResult> {
        self.try_hits(false, ops).await.unwrap()
    }

    pub async fn hit(&self, op: CountOp) -> CountResult {
        self.hits(vec![op]).await.remove(0)
    }

    pub async fn load_count(&self, target: i64, count: u64) {
        self.load(vec![(target, LoadedState::Count(count))]).await;
    }

    pub async fn count_of(&self, target: i64) -> ReadResult {
        self.store().read(KIND, self.now_ms(), &[(Id::Int(target), None)]).await.unwrap().remove(0)
    }

    /// Writes what waits up to `until` into `sql`; trims it where `trims`. The position of the last entry.
    pub async fn flush_counts(
        &self,
        sql: &mut Counts,
        partition: Partition,
        (until, trims): (Position, bool),
    ) -> Position {
        let head = self.head(partition).await;
        let records = self.records(partition, 100).await;
        let records: Vec<_> = records.into_iter().filter(|(position, _)| *position <= until).collect();
        let Some((last, _)) = records.last().cloned() else { return head.flushed };
        let touched: Vec<Id> = records.iter().map(|(_, change)| change.target().clone()).collect();
        for (_, change) in records {
            let Change::Count(change) = change else { panic!("{change:?}") };
            *sql.entry(change.target).or_default() += change.by;
        }
        if trims {
            self.store().trim(KIND, partition, head.incarnation, last, &touched, &[]).await.unwrap();
        }
        last
    }

    /// Writes all that waits into `sql` and trims it.
    pub async fn flush_all_counts(&self, sql: &mut Counts) {
        for partition in 0..self.config.partitions {
            self.flush_counts(sql, partition, (Position::MAX, true)).await;
        }
    }
}

pub async fn a_counter_is_cold_until_it_is_loaded<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.absent_ttl_s = 1).await;
    assert_eq!(stand.hit(hit(1, 1)).await, CountResult::TargetNotLoaded);
    assert_eq!(stand.count_of(1).await, ReadResult::TargetNotLoaded);
    assert_eq!(stand.head(stand.partition(1)).await.backlog, Backlog::default(), "nothing was done");
    stand.load(vec![(1, LoadedState::Count(5)), (2, LoadedState::Missing)]).await;
    assert_eq!(stand.count_of(1).await, known(false, 5));
    assert_eq!(told(&stand.hit(hit(1, 1)).await), (6, true));
    assert_eq!(stand.read(1, 9).await, known(false, 6), "of whomever");
    assert_eq!(stand.hit(hit(2, 1)).await, CountResult::TargetMissing);
    assert_eq!(stand.count_of(2).await, ReadResult::TargetMissing);
    let members = stand.store().members(KIND, stand.now_ms(), &Id::Int(1), None, 9).await.unwrap();
    assert_eq!(members, Members::TargetNotLoaded, "nobody has told who they are");
    stand.load_count(1, 100).await;
    assert_eq!(stand.count_of(1).await, known(false, 6), "what is known is not loaded over");
    stand.until("absence is forgotten", async || stand.count_of(2).await == ReadResult::TargetNotLoaded).await;
    stand.load_count(2, COUNT_MAX + 5).await;
    assert_eq!(stand.count_of(2).await, known(false, COUNT_MAX), "no more than every part holds");
}

pub async fn hits_add_what_they_weigh<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_count(1, 0).await;
    let heavy = CountRule { weight: CountRule::WEIGHT_MAX, ..ONE };
    let none = CountRule { weight: 0, ..ONE };
    let clean = outcome(&stand.hit(CountOp { rule: none, ..hit(1, 7) }).await);
    assert_eq!((clean.count, clean.counted, clean.position), (0, false, 0), "ignored, and SQL holds it all");
    let first = outcome(&stand.hit(CountOp { rule: heavy, ..hit(1, 1_000_000) }).await);
    assert_eq!((first.count, first.counted), (1_000_000_000_000, true));
    let ignored = outcome(&stand.hit(CountOp { rule: none, ..hit(1, 7) }).await);
    assert_eq!((ignored.counted, ignored.position), (false, first.position), "the newest entry of the target");
    let second = outcome(&stand.hit(hit(1, 3)).await);
    assert_eq!(second.count, 1_000_000_000_003);
    assert!(second.position > first.position);
    let adds: Vec<u64> = stand.records(0, 10).await.into_iter().map(|(_, change)| added(&change)).collect();
    assert_eq!(adds, [1_000_000_000_000, 3], "what was ignored is not journaled");
    assert_eq!(stand.hits(vec![]).await, vec![]);
}

fn added(change: &Change) -> u64 {
    match change {
        Change::Count(change) => change.by,
        other => panic!("{other:?}"),
    }
}

pub async fn each_hit_sees_those_before_it<B: Backend>() {
    let stand = Stand::<B>::new().await;
    for target in [1, 2, 9] {
        stand.load_count(target, 10).await;
    }
    assert_eq!(stand.partition(1), stand.partition(9), "as the golden values of the model say");
    let ops = vec![hit(1, 1), hit(9, 5), hit(1, 2), hit(2, 1), hit(1, 3)];
    let batch = CountBatch {
        digest: DIGEST,
        at_ms: stand.now_ms(),
        now_ms: stand.now_ms(),
        keep_actors: false,
        unique_pairs_max: 10_000,
        ops: ops.clone(),
    };
    let commit = stand.store().count(KIND, batch).await.unwrap();
    assert_eq!(commit.results.iter().map(|result| outcome(result).count).collect::<Vec<_>>(), [11, 15, 13, 11, 16]);
    let mut touched: Vec<Partition> = commit.heads.iter().map(|head| head.partition).collect();
    touched.sort_unstable();
    let mut expected = vec![stand.partition(1), stand.partition(2)];
    expected.sort_unstable();
    assert_eq!(touched, expected);
    for head in &commit.heads {
        assert_eq!(*head, stand.head(head.partition).await);
    }
    // One record of the sum for each target, in one entry.
    let entries = stand.entries(stand.partition(1), 10).await;
    let record = |entry: &Entry, change: &Change| {
        let actor = change.actor().cloned();
        (entry.position, change.target().clone(), actor, added(change), entry.at_ms)
    };
    let of_entry = |entry: &Entry| entry.changes.iter().map(|change| record(entry, change)).collect::<Vec<_>>();
    let summed: Vec<_> = entries.iter().flat_map(of_entry).collect();
    let position = outcome(&commit.results[0]).position;
    let expected = [(position, Id::Int(1), None, 6, START_MS), (position, Id::Int(9), None, 5, START_MS)];
    assert_eq!(summed, expected);
    let backlog = stand.head(stand.partition(1)).await.backlog;
    assert_eq!((backlog.entries, backlog.targets, backlog.bytes), (2, 2, 41 + 24 + 2 * 19));
    // With actors every hit that counts is a record of its own.
    let ops = vec![by(1, 7, ONE), by(1, 8, CountRule { weight: 0, ..ONE }), hit(1, 4), by(1, 7, ONE)];
    stand.try_hits(true, ops).await.unwrap();
    let records = stand.records(stand.partition(1), 10).await.split_off(2);
    let single: Vec<_> = records.iter().map(|(_, change)| (change.actor().cloned(), added(change))).collect();
    assert_eq!(single, [(Some(Id::Int(7)), 1), (None, 4), (Some(Id::Int(7)), 1)]);
    assert_eq!(stand.head(stand.partition(1)).await.backlog.entries, 5);
}

pub async fn a_count_stays_in_its_range<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.load_count(1, COUNT_MAX - 5).await;
    let window = unique(600_000);
    let ten = CountOp { by: 10, ..by(1, 2, window) };
    let results = stand.hits(vec![hit(1, 6), ten.clone(), keyed(ten, 1, 1)]).await;
    assert_eq!(results, vec![CountResult::Overflow; 3]);
    assert_eq!(stand.head(stand.partition(1)).await.backlog.entries, 0, "nothing was done");
    let five = CountOp { by: 5, ..by(1, 2, window) };
    assert_eq!(told(&stand.hit(keyed(five, 1, 2)).await), (COUNT_MAX, true), "neither window nor key was taken");
    assert_eq!(stand.hit(hit(1, 1)).await, CountResult::Overflow);
    let heaviest = CountOp { rule: CountRule { weight: u32::MAX, ..ONE }, ..hit(1, u32::MAX) };
    assert_eq!(stand.hit(heaviest).await, CountResult::Overflow);
    assert_eq!(stand.count_of(1).await, known(false, COUNT_MAX));
}

pub async fn a_limit_counts_every_hit_that_it_lets_pass<B: Backend>() {
    let stand = Stand::<B>::new().await;
    for target in [1, 2] {
        stand.load_count(target, 0).await;
    }
    let rule = CountRule { unique_ms: Some(3_600_000), ..limited(3, 600_000) };
    let first = outcome(&stand.hit(by(1, 5, rule)).await);
    assert_eq!(first.rate, Some(RateState { remaining: 2, reset_ms: 200_000 }));
    let again = outcome(&stand.hit(by(1, 5, rule)).await);
    assert_eq!((again.counted, again.rate.unwrap().remaining), (false, 1), "a repetition passes the limit first");
    let ignored = CountRule { weight: 0, ..limited(3, 600_000) };
    let results = stand.hits(vec![by(1, 5, ignored), by(1, 5, rule), by(1, 6, rule)]).await;
    assert_eq!(outcome(&results[0]).rate, Some(RateState { remaining: 0, reset_ms: 600_000 }));
    let over = RateState { remaining: 0, reset_ms: 600_000 };
    assert_eq!(results[1], CountResult::Limited { retry_after_ms: 200_000, rate: over });
    assert_eq!(told(&results[2]), (2, true), "limits are per target and actor");
    assert!(matches!(stand.hit(by(2, 5, rule)).await, CountResult::Done(_)));
    // Without an actor there is nobody to limit.
    let results = stand.hits((0..5).map(|_| CountOp { rule, ..hit(1, 1) }).collect()).await;
    assert!(results.iter().all(|result| outcome(result).counted && outcome(result).rate.is_none()));
    stand.advance_ms(200_000);
    assert!(matches!(stand.hit(by(1, 5, rule)).await, CountResult::Done(_)), "it refills");
    // What is refused or not known does not count.
    stand.load(vec![(3, LoadedState::Missing)]).await;
    for target in [3, 4] {
        for _ in 0..5 {
            let refused = stand.hit(by(target, 5, rule)).await;
            assert!(matches!(refused, CountResult::TargetMissing | CountResult::TargetNotLoaded), "{refused:?}");
        }
    }
    stand.load_count(4, 0).await;
    assert_eq!(outcome(&stand.hit(by(4, 5, rule)).await).rate.unwrap().remaining, 2);
}

pub async fn an_idempotency_key_answers_the_first_count_again<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    for target in 1..=8 {
        stand.load_count(target, 10).await;
    }
    let rule = limited(5, 600_000);
    let op = keyed(CountOp { by: 3, ..by(1, 2, rule) }, 7, 7);
    let first = outcome(&stand.hit(op.clone()).await);
    assert!((first.count, first.counted, first.replayed) == (13, true, false) && first.rate.is_some());
    stand.hit(hit(1, 50)).await;
    let again = CountOutcome { replayed: true, ..first };
    for _ in 0..3 {
        assert_eq!(outcome(&stand.hit(op.clone()).await), again, "count, position and rate as then");
    }
    assert_eq!(stand.count_of(1).await, known(false, 63), "applied once");
    for target in 1..=8 {
        let conflict = stand.hit(keyed(hit(target, 3), 7, 8)).await;
        assert_eq!(conflict, CountResult::IdempotencyConflict, "whatever the target: {target}");
    }
    let ops = vec![keyed(hit(3, 1), 8, 8), hit(1, 1), keyed(hit(3, 1), 8, 8), keyed(hit(4, 1), 8, 9)];
    let results = stand.hits(ops).await;
    assert_eq!((told(&results[0]), told(&results[1])), ((11, true), (64, true)));
    assert!(outcome(&results[2]).replayed && results[3] == CountResult::IdempotencyConflict, "within one batch");
    // One that counted nothing is remembered as such.
    let window = keyed(by(5, 2, unique(1)), 9, 9);
    stand.hit(by(5, 2, unique(1))).await;
    assert!(!outcome(&stand.hit(window.clone()).await).counted);
    stand.advance_ms(60_000);
    assert!(!outcome(&stand.hit(window).await).counted);
    // What was not evaluated is not.
    let cold = keyed(hit(20, 1), 10, 10);
    assert_eq!(stand.hit(cold.clone()).await, CountResult::TargetNotLoaded);
    stand.load_count(20, 0).await;
    assert_eq!(told(&stand.hit(cold).await), (1, true));
    let once = limited(1, 600_000);
    stand.hit(by(6, 2, once)).await;
    assert!(matches!(stand.hit(keyed(by(6, 2, once), 11, 11)).await, CountResult::Limited { .. }));
    assert!(outcome(&stand.hit(keyed(hit(6, 1), 11, 12)).await).counted, "the key was not taken");
    // The answer needs no state.
    stand.flush_all_counts(&mut Counts::new()).await;
    stand.store().wipe_state(KIND).await.unwrap();
    assert_eq!(outcome(&stand.hit(op).await), again);
}

pub async fn a_flushed_counter_is_clean<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| (config.partitions, config.state_ttl_s) = (1, 2)).await;
    let mut sql = Counts::new();
    for target in 1..=3 {
        stand.load_count(target, 0).await;
    }
    stand.hits(vec![hit(1, 5), hit(2, 5)]).await;
    let first = stand.head(0).await;
    assert_eq!((first.backlog.entries, first.backlog.targets), (2, 2));
    stand.hit(hit(2, 1)).await;
    assert_eq!(stand.head(0).await.backlog.targets, 2);
    stand.flush_counts(&mut sql, 0, (first.last, true)).await;
    let backlog = stand.head(0).await.backlog;
    assert_eq!((backlog.entries, backlog.targets), (1, 1), "one of them has a newer entry");
    assert_eq!(outcome(&stand.hit(CountOp { rule: CountRule { weight: 0, ..ONE }, ..hit(1, 1) }).await).position, 0);
    stand.until("a flushed counter expires", async || stand.count_of(1).await == ReadResult::TargetNotLoaded).await;
    assert_eq!(stand.count_of(2).await, known(false, 6), "a dirty one is kept");
    stand.load_count(1, sql[&Id::Int(1)]).await;
    assert_eq!(told(&stand.hit(hit(1, 1)).await), (6, true));
    stand.flush_all_counts(&mut sql).await;
    assert_eq!(sql, Counts::from([(Id::Int(1), 6), (Id::Int(2), 6)]));
    assert_eq!(stand.head(0).await.backlog, Backlog::default());
    // What SQL refused, it holds otherwise than the store knows.
    stand.hit(hit(2, 1)).await;
    let head = stand.head(0).await;
    stand.store().trim(KIND, 0, head.incarnation, head.last, &[Id::Int(2)], &[Id::Int(2)]).await.unwrap();
    assert_eq!(stand.count_of(2).await, ReadResult::TargetNotLoaded);
}

pub async fn wiped_counters_are_loaded_again_after_the_flush<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    let mut sql = Counts::new();
    stand.load_count(1, 0).await;
    stand.hits(vec![hit(1, 5)]).await;
    stand.store().wipe_state(KIND).await.unwrap();
    let head = stand.head(0).await;
    assert_eq!((head.floor, head.backlog.entries, head.backlog.targets), (head.last, 1, 0));
    let load = || vec![weir::store::TargetLoad { target: Id::Int(1), state: LoadedState::Count(0) }];
    assert!(matches!(stand.hydrate(0, load(), vec![]).await, weir::store::Hydrated::Stale(_)));
    stand.flush_all_counts(&mut sql).await;
    stand.load_count(1, sql[&Id::Int(1)]).await;
    assert_eq!(told(&stand.hit(hit(1, 1)).await), (6, true));
    let before = stand.head(0).await;
    assert_eq!(before.backlog.targets, 1);
    let after = stand.store().reset(KIND, 0, before.incarnation).await.unwrap();
    assert_eq!((after.backlog.entries, after.backlog.targets), (1, 0));
    stand.flush_all_counts(&mut sql).await;
    stand.load_count(1, sql[&Id::Int(1)]).await;
    assert_eq!(stand.count_of(1).await, known(false, 6));
}

pub async fn counts_and_windows_survive_a_crash<B: Backend>() {
    let mut stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    for target in [1, 2] {
        stand.load_count(target, 100).await;
    }
    let window = unique(3_600_000);
    stand.hits(vec![by(1, 5, window), by(1, 6, window), hit(2, 7)]).await;
    let key = keyed(hit(1, 9), 3, 3);
    let first = outcome(&stand.hit(key.clone()).await);
    let (head, records) = (stand.head(0).await, stand.records(0, 10).await);
    stand.crash().await;
    assert_eq!(stand.head(0).await, head);
    for target in [1, 2] {
        // What is known already is left as it is; otherwise the journal's tail lies over it.
        stand.load_count(target, 100).await;
    }
    assert_eq!((stand.count_of(1).await, stand.count_of(2).await), (known(false, 111), known(false, 107)));
    assert_eq!(stand.head(0).await, head);
    assert_eq!(told(&stand.hit(by(1, 5, window)).await), (111, false));
    assert_eq!(outcome(&stand.hit(key).await), CountOutcome { replayed: true, ..first });
    assert_eq!(stand.records(0, 10).await, records);
    assert!(outcome(&stand.hit(hit(1, 1)).await).position > head.last);
}

pub async fn capabilities_do_not_take_each_others_state<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[5]).await;
    stand.load_count(2, 7).await;
    assert_eq!(stand.hit(hit(1, 1)).await, CountResult::TargetNotLoaded);
    assert_eq!(stand.one(op(2, 5, TOGGLE)).await, ToggleResult::TargetNotLoaded);
    // A kind that has become of another capability loads what it needs.
    stand.load_count(1, 3).await;
    stand.load_whole(2, &[5, 6]).await;
    assert_eq!(told(&stand.hit(hit(1, 1)).await), (4, true));
    assert_eq!(stand.done(2, 5).await.state.count, 1);
    // What is dirty stays whatever comes.
    stand.load_whole(1, &[5]).await;
    stand.load_count(2, 7).await;
    assert_eq!((stand.count_of(1).await, stand.read(2, 6).await), (known(false, 4), known(true, 1)));
}

pub async fn a_batch_of_thousands_of_hits_is_one_step<B: Backend>() {
    let stand = Stand::<B>::new().await;
    for target in 0..50 {
        stand.load_count(target, 0).await;
    }
    let rule = CountRule { unique_ms: Some(60_000), ..limited(50, 60_000) };
    let ops: Vec<CountOp> = (0..6_000).map(|n| by(n % 50, n % 3_000, rule)).collect();
    let results = stand.hits(ops).await;
    let counted = results.iter().filter(|result| outcome(result).counted).count();
    assert_eq!(counted, 3_000, "each pair once");
    assert_eq!(told(&results[5_999]), (60, false));
    // All of one target, and of many that nobody asked for yet.
    assert_eq!(told(stand.hits((0..6_000).map(|_| hit(1, 2)).collect()).await.last().unwrap()), (12_060, true));
    let records = stand.records(stand.partition(1), 1_000).await;
    let summed: u64 = records.iter().filter(|(_, change)| *change.target() == Id::Int(1)).map(|(_, c)| added(c)).sum();
    assert_eq!(summed, 12_060);
    let cold = stand.hits((1_000..7_000).map(|target| hit(target, 1)).collect()).await;
    assert_eq!(cold, vec![CountResult::TargetNotLoaded; 6_000]);
}
