//! Many at once, and long random histories against an oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir::model::{Effect, Id};
use weir::store::{
    CountBatch, CountResult, CreateResult, Hydrated, LoadedState, Members, ReadResult, TargetLoad, ToggleBatch,
    ToggleResult,
};

use crate::counters::{Counts, hit};
use crate::documents::create;
use crate::stand::{Backend, DIGEST, KIND, Sql, Stand, TOGGLE, known, op, outcome, rule};

pub async fn concurrent_toggles_of_one_pair_are_counted_exactly<B: Backend>() {
    const TASKS: i64 = 16;
    const ROUNDS: i64 = 25;
    let stand = Stand::<B>::new().await;
    for target in [1, 2] {
        stand.load_whole(target, &[]).await;
    }
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, now_ms) = (Arc::clone(stand.store()), stand.now_ms());
            tokio::spawn(async move {
                let mut changed = 0;
                for _ in 0..ROUNDS {
                    let ops = vec![op(1, 5, TOGGLE), op(2, task, TOGGLE)];
                    let commit =
                        store.toggle(KIND, ToggleBatch { digest: DIGEST, at_ms: now_ms, now_ms, ops }).await.unwrap();
                    changed += i64::from(outcome(&commit.results[0]).changed);
                    assert!(outcome(&commit.results[0]).state.count <= 1);
                }
                changed
            })
        })
        .collect();
    let mut changed = 0;
    for task in tasks {
        changed += task.await.unwrap();
    }
    assert_eq!(changed, TASKS * ROUNDS);
    let is_odd = changed % 2 == 1;
    assert_eq!(stand.read(1, 5).await, known(is_odd, u64::from(is_odd)), "the parity of all toggles");
    assert_eq!(stand.read(2, 3).await, known(true, TASKS.unsigned_abs()), "an odd number each");
    let journaled = stand.changes(stand.partition(1), 50).await;
    let of_pair = journaled.iter().filter(|(_, change)| change.target == Id::Int(1)).count();
    assert_eq!(of_pair, usize::try_from(changed).unwrap());
    let mut sql = Sql::default();
    stand.flush(&mut sql).await;
    assert_eq!(sql.members(&Id::Int(1)).len(), usize::from(is_odd), "the journal replays to the state");
    assert_eq!(sql.members(&Id::Int(2)).len(), usize::try_from(TASKS).unwrap());
}

pub async fn concurrent_hits_are_counted_exactly<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.load_count(1, 0).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, now_ms) = (Arc::clone(stand.store()), stand.now_ms());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for _ in 0..50 {
                    let ops = vec![hit(1, 1), hit(1, 1)];
                    let batch = CountBatch {
                        digest: DIGEST,
                        at_ms: now_ms,
                        now_ms,
                        keep_actors: false,
                        unique_pairs_max: 1_000,
                        ops,
                    };
                    for result in store.count(KIND, batch).await.unwrap().results {
                        let CountResult::Done(outcome) = result else { panic!("{result:?}") };
                        seen.push(outcome.count);
                    }
                }
                seen
            })
        })
        .collect();
    let mut seen = BTreeSet::new();
    for task in tasks {
        seen.extend(task.await.unwrap());
    }
    assert_eq!(seen, (1..=800).collect(), "each count once");
    let mut sql = Counts::new();
    stand.flush_all_counts(&mut sql).await;
    assert_eq!(sql, Counts::from([(Id::Int(1), 800)]));
}

/// A small generator, so that a seed names a history.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn id(&mut self, bound: u64) -> i64 {
        i64::try_from(self.below(bound)).unwrap()
    }
}

pub async fn random_counts_end_in_the_same_sql<B: Backend>() {
    for seed in 1..=B::HISTORIES.0 {
        count_history::<B>(seed).await;
    }
}

async fn count_history<B: Backend>(seed: u64) {
    let mut stand = Stand::<B>::tuned(|config| config.partitions = 2).await;
    let mut dice = Dice(seed);
    let (mut truth, mut sql) = (BTreeMap::new(), Counts::new());
    for step in 0..B::HISTORIES.1 {
        let partition = u16::try_from(dice.below(2)).unwrap();
        match dice.below(20) {
            0..=11 => count_some(&stand, &mut dice, &mut truth, &mut sql, seed, step).await,
            12..=14 => {
                // All of it, or what was there at some time: the rest waits for another flush.
                let records = stand.records(partition, 100).await;
                let some = records.get(usize::try_from(dice.below(8)).unwrap()).map(|(position, _)| *position);
                stand.flush_counts(&mut sql, partition, (some.unwrap_or(u64::MAX), true)).await;
            }
            15 => stand.store().wipe_state(KIND).await.unwrap(),
            16 => {
                stand.flush_all_counts(&mut sql).await;
                stand.lose_all().await;
            }
            17 | 18 => stand.crash().await,
            _ => {
                let head = stand.head(partition).await;
                stand.store().reset(KIND, partition, head.incarnation).await.unwrap();
            }
        }
        stand.advance_ms(dice.below(3_000));
    }
    stand.flush_all_counts(&mut sql).await;
    assert_eq!(sql, truth, "seed {seed}");
    for partition in 0..2 {
        assert_eq!(stand.head(partition).await.backlog.targets, 0, "seed {seed}");
    }
}

/// A batch; whatever is cold is loaded from `sql`, flushed first where the law asks for it.
async fn count_some<B: Backend>(
    stand: &Stand<B>,
    dice: &mut Dice,
    truth: &mut Counts,
    sql: &mut Counts,
    seed: u64,
    step: usize,
) {
    let mut waiting: Vec<_> =
        (0..=dice.below(6)).map(|_| hit(dice.id(6), u32::try_from(dice.below(4)).unwrap())).collect();
    for _ in 0..10 {
        let mut again = Vec::new();
        for (op, result) in waiting.clone().into_iter().zip(stand.hits(waiting).await) {
            match result {
                CountResult::Done(outcome) => {
                    let count = truth.entry(op.target.clone()).or_default();
                    *count += u64::from(op.by);
                    let said = (outcome.count, outcome.counted);
                    assert_eq!(said, (*count, op.by > 0), "seed {seed}, step {step}, {}", op.target);
                    if *count == 0 {
                        truth.remove(&op.target);
                    }
                }
                CountResult::TargetNotLoaded => {
                    warm_count(stand, &op.target, sql).await;
                    again.push(op);
                }
                other => panic!("seed {seed}, step {step}: {other:?}"),
            }
        }
        if again.is_empty() {
            return;
        }
        waiting = again;
    }
    panic!("seed {seed}, step {step}: never warm");
}

async fn warm_count<B: Backend>(stand: &Stand<B>, target: &Id, sql: &mut Counts) {
    let partition = weir::model::partition_of(target, stand.config.partitions);
    for _ in 0..2 {
        let state = LoadedState::Count(sql.get(target).copied().unwrap_or(0));
        let load = TargetLoad { target: target.clone(), state };
        if stand.hydrate(partition, vec![load], vec![]).await == Hydrated::Accepted {
            return;
        }
        stand.flush_counts(sql, partition, (u64::MAX, true)).await;
    }
    panic!("still stale after a flush");
}

pub async fn random_creates_end_in_the_same_sql<B: Backend>() {
    for seed in 1..=B::HISTORIES.0 {
        create_history::<B>(seed).await;
    }
}

/// Ids from outside: whether one is taken must never be answered wrongly, whatever happens to the store.
async fn create_history<B: Backend>(seed: u64) {
    let mut stand = Stand::<B>::tuned(|config| (config.partitions, config.state_ttl_s) = (1, 5)).await;
    let mut dice = Dice(seed);
    let (mut truth, mut sql) = (BTreeSet::new(), BTreeSet::new());
    for step in 0..B::HISTORIES.1 {
        match dice.below(20) {
            0..=11 => {
                let id = dice.id(60);
                create_one(&stand, id, &mut truth, &mut sql, &format!("seed {seed}, step {step}, id {id}")).await;
            }
            12..=14 => stand.flush_documents(&mut sql, 0, &[]).await,
            15 => stand.store().wipe_state(KIND).await.unwrap(),
            16 => {
                stand.flush_documents(&mut sql, 0, &[]).await;
                stand.lose_all().await;
            }
            17 | 18 => stand.crash().await,
            _ => {
                let head = stand.head(0).await;
                stand.store().reset(KIND, 0, head.incarnation).await.unwrap();
            }
        }
        let waiting: Vec<i64> =
            (0..60).filter(|&id| truth.contains(&Id::Int(id)) && !sql.contains(&Id::Int(id))).collect();
        assert!(stand.waiting(&waiting).await.iter().all(Option::is_some), "seed {seed}, step {step}");
        assert_eq!(stand.head(0).await.backlog.targets, waiting.len() as u64, "seed {seed}, step {step}");
        stand.advance_ms(dice.below(3_000));
    }
    stand.flush_documents(&mut sql, 0, &[]).await;
    assert_eq!(sql, truth, "seed {seed}");
}

async fn create_one<B: Backend>(
    stand: &Stand<B>,
    id: i64,
    truth: &mut BTreeSet<Id>,
    sql: &mut BTreeSet<Id>,
    what: &str,
) {
    for _ in 0..4 {
        match stand.create(create(0, &[id])).await {
            CreateResult::Done(_) => return assert!(truth.insert(Id::Int(id)), "{what}: created twice"),
            CreateResult::Exists(0) => return assert!(truth.contains(&Id::Int(id)), "{what}: there is none"),
            CreateResult::NotLoaded(cold) => {
                assert_eq!(cold, [Id::Int(id)], "{what}");
                let state = if sql.contains(&Id::Int(id)) { LoadedState::Exists } else { LoadedState::Missing };
                if matches!(stand.load_ids(&[id], state).await, Hydrated::Stale(_)) {
                    stand.flush_documents(sql, 0, &[]).await;
                }
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    panic!("{what}: never warm");
}

pub async fn random_histories_end_in_the_same_sql<B: Backend>() {
    for seed in 1..=B::HISTORIES.0 {
        history::<B>(seed).await;
    }
}

async fn history<B: Backend>(seed: u64) {
    let mut stand = Stand::<B>::tuned(|config| (config.partitions, config.huge_pairs_max) = (2, 3)).await;
    let mut dice = Dice(seed);
    // What every answer must agree with, and what SQL holds.
    let (mut truth, mut sql) = (BTreeSet::new(), Sql::default());
    for step in 0..B::HISTORIES.1 {
        match dice.below(20) {
            0..=11 => toggle_some(&stand, &mut dice, &mut truth, &mut sql, seed, step).await,
            12..=14 => stand.flush_partition(&mut sql, u16::try_from(dice.below(2)).unwrap()).await,
            15 => stand.store().wipe_state(KIND).await.unwrap(),
            16 => {
                stand.flush(&mut sql).await;
                stand.lose_all().await;
            }
            17 => stand.crash().await,
            18 => {
                let partition = u16::try_from(dice.below(2)).unwrap();
                let head = stand.head(partition).await;
                stand.store().reset(KIND, partition, head.incarnation).await.unwrap();
            }
            _ => list_one(&stand, dice.id(6), &truth, &mut sql).await,
        }
        stand.advance_ms(dice.below(3_000));
    }
    stand.flush(&mut sql).await;
    let rows: BTreeSet<(Id, Id)> =
        sql.0.iter().flat_map(|(target, rows)| rows.keys().map(|actor| (target.clone(), actor.clone()))).collect();
    assert_eq!(rows, truth, "seed {seed}");
}

/// A batch; whatever is cold is loaded from `sql`, flushed first where the law asks for it.
async fn toggle_some<B: Backend>(
    stand: &Stand<B>,
    dice: &mut Dice,
    truth: &mut BTreeSet<(Id, Id)>,
    sql: &mut Sql,
    seed: u64,
    step: usize,
) {
    let rules = [TOGGLE, rule(Effect::Add, Effect::Keep), rule(Effect::Keep, Effect::Remove)];
    let mut waiting: Vec<_> = (0..=dice.below(6))
        .map(|_| op(dice.id(6), dice.id(5), rules[usize::try_from(dice.below(3)).unwrap()]))
        .collect();
    for _ in 0..10 {
        let results = stand.toggle(waiting.clone()).await;
        let mut again = Vec::new();
        for (op, result) in waiting.into_iter().zip(results) {
            let pair = (op.target.clone(), op.actor.clone());
            match result {
                ToggleResult::TargetNotLoaded => {
                    warm_target(stand, dice.below(3) == 0, &op.target, sql).await;
                    again.push(op);
                }
                ToggleResult::PairNotLoaded => {
                    warm_pair(stand, &pair, sql).await;
                    again.push(op);
                }
                ToggleResult::Done(outcome) => {
                    let was = truth.contains(&pair);
                    let effect = if was { op.rule.when_present } else { op.rule.when_absent };
                    let now = match effect {
                        Effect::Add => true,
                        Effect::Remove => false,
                        _ => was,
                    };
                    if now {
                        truth.insert(pair.clone())
                    } else {
                        truth.remove(&pair)
                    };
                    let count = truth.iter().filter(|(target, _)| *target == pair.0).count() as u64;
                    let said = (outcome.state.active, outcome.state.count, outcome.changed);
                    assert_eq!(said, (now, count, now != was), "seed {seed}, step {step}, {pair:?}");
                }
                other => panic!("seed {seed}, step {step}: {other:?}"),
            }
        }
        if again.is_empty() {
            return;
        }
        waiting = again;
    }
    panic!("seed {seed}, step {step}: never warm");
}

async fn warm_target<B: Backend>(stand: &Stand<B>, huge: bool, target: &Id, sql: &mut Sql) {
    let partition = weir::model::partition_of(target, stand.config.partitions);
    for _ in 0..2 {
        let members = sql.members(target);
        let state = if huge { LoadedState::Huge(members.len() as u64) } else { LoadedState::Whole(members) };
        let load = TargetLoad { target: target.clone(), state };
        if stand.hydrate(partition, vec![load], vec![]).await == Hydrated::Accepted {
            return;
        }
        stand.flush_partition(sql, partition).await;
    }
    panic!("still stale after a flush");
}

async fn warm_pair<B: Backend>(stand: &Stand<B>, (target, actor): &(Id, Id), sql: &mut Sql) {
    let partition = weir::model::partition_of(target, stand.config.partitions);
    let since = sql.members(target).into_iter().find(|(member, _)| member == actor).map(|(_, since_ms)| since_ms);
    let pair = weir::store::PairLoad { target: target.clone(), actor: actor.clone(), present_since_ms: since };
    if matches!(stand.hydrate(partition, vec![], vec![pair]).await, Hydrated::Stale(_)) {
        stand.flush_partition(sql, partition).await;
    }
}

/// Members: the whole list, or SQL with the overlay laid over it.
async fn list_one<B: Backend>(stand: &Stand<B>, target: i64, truth: &BTreeSet<(Id, Id)>, sql: &mut Sql) {
    let target = Id::Int(target);
    let expected: BTreeSet<Id> = truth.iter().filter(|(of, _)| *of == target).map(|(_, actor)| actor.clone()).collect();
    let listed: BTreeSet<Id> = match stand.store().members(KIND, stand.now_ms(), &target, None, 100).await.unwrap() {
        Members::TargetNotLoaded => {
            let read = stand.store().read(KIND, stand.now_ms(), &[(target, None)]).await.unwrap();
            assert_eq!(read, vec![ReadResult::TargetNotLoaded]);
            return;
        }
        Members::Whole(members) => members.into_iter().map(|member| member.actor).collect(),
        Members::Overlay { present, absent } => {
            let mut listed: BTreeSet<Id> = sql.members(&target).into_iter().map(|(actor, _)| actor).collect();
            listed.extend(present.into_iter().map(|member| member.actor));
            listed.retain(|actor| !absent.contains(actor));
            listed
        }
        Members::TargetMissing => panic!("never loaded as missing"),
    };
    assert_eq!(listed, expected, "{target}");
}
