//! State: hydration, huge targets, members, expiry.

use uuid::Uuid;
use weir::model::{Id, Incarnation, Member, Partition};
use weir::store::{Hydrated, LoadedState, Members, PairLoad, ReadResult, TargetLoad, ToggleBatch, ToggleResult};

use crate::stand::{Backend, DIGEST, KIND, START_MS, Sql, Stand, TOGGLE, known, op, state};

fn whole(target: i64, members: &[i64]) -> TargetLoad {
    let members = members.iter().map(|&actor| (Id::Int(actor), 0)).collect();
    TargetLoad { target: Id::Int(target), state: LoadedState::Whole(members) }
}

fn pair(target: i64, actor: i64, present_since_ms: Option<u64>) -> PairLoad {
    PairLoad { target: Id::Int(target), actor: Id::Int(actor), present_since_ms }
}

async fn members<B: Backend>(stand: &Stand<B>, target: i64, before: Option<&Member>, limit: usize) -> Members {
    stand.store().members(KIND, stand.now_ms(), &Id::Int(target), before, limit).await.unwrap()
}

fn member(actor: i64, since_ms: u64) -> Member {
    Member { actor: Id::Int(actor), since_ms }
}

pub async fn a_target_is_cold_until_it_is_loaded<B: Backend>() {
    let stand = Stand::<B>::new().await;
    assert_eq!(stand.one(op(1, 2, TOGGLE)).await, ToggleResult::TargetNotLoaded);
    assert_eq!(stand.read(1, 2).await, ReadResult::TargetNotLoaded);
    assert_eq!(members(&stand, 1, None, 10).await, Members::TargetNotLoaded);
    assert_eq!(stand.head(stand.partition(1)).await.backlog.entries, 0, "nothing was done");
    stand.load_whole(1, &[]).await;
    assert_eq!(stand.done(1, 2).await.state, state(true, 1));
    assert_eq!(stand.read(1, 2).await, known(true, 1));
}

pub async fn a_loaded_target_answers_for_sql<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.load_whole(1, &[7, 8, 9]).await;
    assert_eq!(stand.read(1, 8).await, known(true, 3));
    assert_eq!(stand.read(1, 5).await, known(false, 3));
    let all = [(Id::Int(1), None), (Id::Int(2), None), (Id::Int(1), Some(Id::Int(7)))];
    let read = stand.store().read(KIND, stand.now_ms(), &all).await.unwrap();
    assert_eq!(read, vec![known(false, 3), ReadResult::TargetNotLoaded, known(true, 3)], "index-aligned");
    let removed = stand.done(1, 8).await;
    assert_eq!((removed.state, removed.changed), (state(false, 2), true), "whoever liked before unlikes");
    assert_eq!(stand.store().read(KIND, stand.now_ms(), &[]).await.unwrap(), vec![]);
}

pub async fn a_missing_target_is_refused_and_forgotten_after_its_ttl<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.absent_ttl_s = 1).await;
    stand.load(vec![(1, LoadedState::Missing)]).await;
    assert_eq!(stand.one(op(1, 2, TOGGLE)).await, ToggleResult::TargetMissing);
    assert_eq!(stand.read(1, 2).await, ReadResult::TargetMissing);
    assert_eq!(members(&stand, 1, None, 10).await, Members::TargetMissing);
    stand.until("absence is forgotten", async || stand.read(1, 2).await == ReadResult::TargetNotLoaded).await;
    stand.load_whole(1, &[]).await;
    assert_eq!(stand.done(1, 2).await.state, state(true, 1));
}

pub async fn a_load_must_be_of_this_incarnation<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let partition = stand.partition(1);
    let head = stand.head(partition).await;
    let other = Incarnation(Uuid::from_u128(head.incarnation.0.as_u128() - 1));
    let stale = stand.hydrate_at(partition, (other, 99), vec![whole(1, &[2])], vec![]).await;
    assert_eq!(stale, Hydrated::Stale(head));
    assert_eq!(stand.read(1, 2).await, ReadResult::TargetNotLoaded);
    // A partition that was never used: its head is made, and it is of no life that SQL could have named.
    let unused = Partition::try_from((usize::from(partition) + 1) % usize::from(stand.config.partitions)).unwrap();
    assert!(matches!(stand.hydrate_at(unused, (other, 0), vec![], vec![]).await, Hydrated::Stale(_)));
    let now = stand.hydrate_at(partition, (head.incarnation, 0), vec![whole(1, &[2])], vec![]).await;
    assert_eq!(now, Hydrated::Accepted);
    assert_eq!(stand.read(1, 2).await, known(true, 1));
}

pub async fn a_load_must_not_be_older_than_the_trim_point<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    stand.flush(&mut Sql::default()).await;
    let head = stand.head(0).await;
    assert!(head.flushed > 0 && head.flushed == head.last);
    let early = stand.hydrate_at(0, (head.incarnation, head.flushed - 1), vec![whole(3, &[4])], vec![]).await;
    assert_eq!(early, Hydrated::Stale(head));
    assert_eq!(stand.read(3, 4).await, ReadResult::TargetNotLoaded);
    let exact = stand.hydrate_at(0, (head.incarnation, head.flushed), vec![whole(3, &[4])], vec![]).await;
    assert_eq!(exact, Hydrated::Accepted);
    let later = stand.hydrate_at(0, (head.incarnation, head.flushed + 1), vec![whole(5, &[4])], vec![]).await;
    assert_eq!(later, Hydrated::Accepted, "SQL may be ahead of the trim point");
}

pub async fn a_load_must_not_be_older_than_the_floor<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    let position = stand.done(1, 2).await.position;
    stand.store().wipe_state(KIND).await.unwrap();
    let head = stand.head(0).await;
    assert_eq!((head.floor, head.flushed), (position, 0));
    let early = stand.hydrate_at(0, (head.incarnation, position - 1), vec![whole(1, &[])], vec![]).await;
    assert_eq!(early, Hydrated::Stale(head), "it would miss the entry that waits");
    let exact = stand.hydrate_at(0, (head.incarnation, position), vec![whole(1, &[2])], vec![]).await;
    assert_eq!(exact, Hydrated::Accepted);
    assert_eq!(stand.read(1, 2).await, known(true, 1));
}

pub async fn what_is_known_is_not_loaded_over<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.load_whole(1, &[]).await;
    stand.done(1, 2).await;
    stand.load_whole(1, &[5, 6, 7]).await;
    assert_eq!(stand.read(1, 2).await, known(true, 1), "a whole target");
    stand.load(vec![(1, LoadedState::Missing)]).await;
    assert_eq!(stand.read(1, 2).await, known(true, 1));
    stand.load_pair(1, 9, Some(1)).await;
    assert_eq!(stand.read(1, 9).await, known(false, 1), "pairs of a whole target are ignored");
    stand.load_pair(33, 9, Some(1)).await;
    assert_eq!(stand.read(33, 9).await, ReadResult::TargetNotLoaded, "pairs of a cold target are ignored");
    stand.load(vec![(2, LoadedState::Huge(1_000))]).await;
    stand.load_pair(2, 9, None).await;
    stand.done(2, 9).await;
    stand.load_pair(2, 9, None).await;
    assert_eq!(stand.read(2, 9).await, known(true, 1_001), "a pair");
    stand.load(vec![(2, LoadedState::Huge(5))]).await;
    assert_eq!(stand.read(2, 9).await, known(true, 1_001), "a huge target");
}

pub async fn a_large_load_is_taken_whole<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    let many: Vec<i64> = (0..12_000).collect();
    // The same actor twice is one member.
    let mut loads = vec![whole(1, &many), whole(2, &[4, 4, 5]), whole(3, &many[..9_000])];
    loads.push(TargetLoad { target: Id::Int(4), state: LoadedState::Huge(1 << 40) });
    let pairs = (0..9_000).map(|actor| pair(4, actor, (actor % 2 == 0).then_some(1))).collect();
    assert_eq!(stand.hydrate(0, loads, pairs).await, Hydrated::Accepted);
    assert_eq!(stand.read(1, 11_999).await, known(true, 12_000));
    assert_eq!(stand.read(2, 4).await, known(true, 2));
    assert_eq!(stand.read(3, 9_000).await, known(false, 9_000));
    assert_eq!(stand.read(4, 8_998).await, known(true, 1 << 40));
    assert_eq!(stand.read(4, 8_999).await, known(false, 1 << 40));
    assert_eq!(stand.read(4, 9_000).await, ReadResult::PairNotLoaded);
}

pub async fn a_huge_target_knows_only_the_pairs_it_was_told<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.load(vec![(1, LoadedState::Huge(1_000_000))]).await;
    assert_eq!(stand.one(op(1, 2, TOGGLE)).await, ToggleResult::PairNotLoaded);
    assert_eq!(stand.read(1, 2).await, ReadResult::PairNotLoaded);
    let count = stand.store().read(KIND, stand.now_ms(), &[(Id::Int(1), None)]).await.unwrap();
    assert_eq!(count, vec![known(false, 1_000_000)], "the count needs no pair");
    assert_eq!(stand.head(stand.partition(1)).await.backlog.entries, 0);
    stand.load_pair(1, 2, Some(77)).await;
    stand.load_pair(1, 3, None).await;
    assert_eq!(stand.done(1, 2).await.state, state(false, 999_999));
    assert_eq!(stand.done(1, 3).await.state, state(true, 1_000_000));
    assert_eq!(stand.read(1, 2).await, known(false, 1_000_000), "known to be absent now");
    assert_eq!(stand.done(1, 2).await.state, state(true, 1_000_001));
}

pub async fn a_huge_target_lists_only_what_sql_may_not_hold<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load(vec![(1, LoadedState::Huge(500))]).await;
    for (actor, since_ms) in [(2, Some(77)), (3, None), (4, Some(78)), (5, None)] {
        stand.load_pair(1, actor, since_ms).await;
    }
    let empty = Members::Overlay { present: vec![], absent: vec![] };
    assert_eq!(members(&stand, 1, None, 10).await, empty, "SQL holds what was loaded");
    stand.done(1, 2).await;
    stand.done(1, 3).await;
    let overlay = Members::Overlay { present: vec![member(3, START_MS)], absent: vec![Id::Int(2)] };
    assert_eq!(members(&stand, 1, None, 1).await, overlay, "the limit does not apply");
    let head = stand.head(0).await;
    stand.advance_ms(5);
    stand.done(1, 5).await;
    let touched = [Id::Int(1)];
    stand.store().trim(KIND, 0, head.incarnation, head.last, &touched, &[]).await.unwrap();
    let overlay = Members::Overlay { present: vec![member(5, START_MS + 5)], absent: vec![] };
    assert_eq!(members(&stand, 1, None, 10).await, overlay, "what was flushed is out, what came later is in");
    stand.flush(&mut Sql::default()).await;
    assert_eq!(members(&stand, 1, None, 10).await, empty);
    assert_eq!(stand.read(1, 2).await, known(false, 501), "the pairs are still known");
}

pub async fn known_pairs_of_a_huge_target_are_bounded<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.huge_pairs_max = 2).await;
    stand.load(vec![(1, LoadedState::Huge(500))]).await;
    for actor in 2..=4 {
        stand.load_pair(1, actor, None).await;
        stand.done(1, actor).await;
    }
    assert_eq!(stand.read(1, 3).await, known(true, 503), "never dropped while dirty");
    stand.flush(&mut Sql::default()).await;
    assert_eq!(stand.read(1, 3).await, ReadResult::PairNotLoaded);
    let count = stand.store().read(KIND, stand.now_ms(), &[(Id::Int(1), None)]).await.unwrap();
    assert_eq!(count, vec![known(false, 503)], "the count stays");
    stand.load_pair(1, 3, Some(1)).await;
    assert_eq!(stand.done(1, 3).await.state, state(false, 502));
}

pub async fn members_come_newest_first_in_pages<B: Backend>() {
    let stand = Stand::<B>::new().await;
    // Ten at the same time, in the order of their texts: 9 before 10.
    let tied: Vec<(Id, u64)> = (1..=10).map(|actor| (Id::Int(actor), 500)).collect();
    let mut loaded = tied;
    loaded.push((Id::Int(77), 400));
    loaded.push((Id::Int(-3), 600));
    stand.load(vec![(1, LoadedState::Whole(loaded))]).await;
    stand.done(1, 1_000).await;
    let mut expected = vec![member(1_000, START_MS), member(-3, 600)];
    expected.extend([9, 8, 7, 6, 5, 4, 3, 2, 10, 1].map(|actor| member(actor, 500)));
    expected.push(member(77, 400));
    assert_eq!(members(&stand, 1, None, 100).await, Members::Whole(expected.clone()));
    for limit in [1, 2, 5, 100] {
        let mut listed: Vec<Member> = Vec::new();
        loop {
            let Members::Whole(page) = members(&stand, 1, listed.last(), limit).await else { panic!("whole") };
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            listed.extend(page);
            assert!(listed.len() <= expected.len(), "pages of {limit} go on for ever");
        }
        assert_eq!(listed, expected, "pages of {limit}");
    }
    assert_eq!(members(&stand, 1, None, 0).await, Members::Whole(vec![]));
    // A cursor whose member has gone still says where to go on.
    stand.done(1, 5).await;
    let after = members(&stand, 1, Some(&member(5, 500)), 2).await;
    assert_eq!(after, Members::Whole(vec![member(4, 500), member(3, 500)]));
}

pub async fn many_members_are_all_listed_once<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let all: Vec<i64> = (1..=5_000).collect();
    stand.load_whole(1, &all).await;
    stand.toggle((1..=200).map(|actor| crate::stand::op(1, actor, crate::stand::TOGGLE)).collect()).await;
    stand.toggle((6_001..=6_200).map(|actor| crate::stand::op(1, actor, crate::stand::TOGGLE)).collect()).await;
    let Members::Whole(listed) = members(&stand, 1, None, 10_000).await else { panic!("whole") };
    assert!(listed.is_sorted_by_key(|member| std::cmp::Reverse(member.since_ms)));
    let mut actors: Vec<Id> = listed.into_iter().map(|member| member.actor).collect();
    actors.sort_unstable();
    let expected: Vec<Id> = (201..=5_000).chain(6_001..=6_200).map(Id::Int).collect();
    assert_eq!(actors, expected);
    assert_eq!(stand.read(1, 6_001).await, known(true, 5_000));
    // A page of what is in the middle.
    let Members::Whole(page) = members(&stand, 1, Some(&member(3_000, 3_000)), 3).await else { panic!("whole") };
    assert_eq!(page, [member(2_999, 2_999), member(2_998, 2_998), member(2_997, 2_997)]);
}

pub async fn ids_of_every_type_are_read_back<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    let text = |text: &str| Id::Text(text.into());
    let uuid = |bits: u128| Id::Uuid(Uuid::from_u128(bits));
    let pairs = [
        (text("a:b"), text("c")),
        (text("a"), text("b:c")),
        (text("{æ} \"'\\"), text("+-i5")),
        (uuid(1), uuid(u128::MAX)),
        (Id::Int(i64::MIN), Id::Int(i64::MAX)),
        (Id::Int((1 << 53) + 1), Id::Int((1 << 53) + 3)),
    ];
    for (target, _) in &pairs {
        let load = TargetLoad { target: target.clone(), state: LoadedState::Whole(vec![]) };
        assert_eq!(stand.hydrate(0, vec![load], vec![]).await, Hydrated::Accepted);
    }
    let rule = crate::stand::limited(1, 60_000);
    let ops = pairs.iter().map(|(target, actor)| weir::store::ToggleOp {
        target: target.clone(),
        actor: actor.clone(),
        rule,
        idempotency: None,
    });
    let batch = ToggleBatch { digest: DIGEST, at_ms: stand.now_ms(), now_ms: stand.now_ms(), ops: ops.collect() };
    for result in stand.store().toggle(KIND, batch).await.unwrap().results {
        assert_eq!(crate::stand::outcome(&result).state, state(true, 1), "no two of them meet, not even in a limit");
    }
    for (target, actor) in &pairs {
        let listed = stand.store().members(KIND, stand.now_ms(), target, None, 9).await.unwrap();
        assert_eq!(listed, Members::Whole(vec![Member { actor: actor.clone(), since_ms: START_MS }]));
    }
    let changes = stand.changes(0, 100).await;
    let journaled: Vec<(Id, Id)> = changes.into_iter().map(|(_, change)| (change.target, change.actor)).collect();
    assert_eq!(journaled, pairs.to_vec());
}

pub async fn a_clean_target_expires_and_a_dirty_one_does_not<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| (config.partitions, config.state_ttl_s) = (1, 1)).await;
    for target in 1..=4 {
        stand.load_whole(target, &[5]).await;
    }
    stand.load(vec![(6, LoadedState::Huge(10))]).await;
    stand.load_pair(6, 5, None).await;
    stand.done(2, 9).await;
    stand.done(3, 9).await;
    stand.done(6, 5).await;
    let head = stand.head(0).await;
    stand.done(3, 9).await;
    stand.done(6, 5).await;
    let touched = [Id::Int(2), Id::Int(3), Id::Int(6)];
    stand.store().trim(KIND, 0, head.incarnation, head.last, &touched, &[]).await.unwrap();
    assert_eq!(stand.read(2, 9).await, known(true, 2), "clean, and still known for its time");
    stand.until("an untouched target expires", async || stand.read(1, 5).await == ReadResult::TargetNotLoaded).await;
    stand.until("a flushed target expires", async || stand.read(2, 9).await == ReadResult::TargetNotLoaded).await;
    assert_eq!(stand.read(3, 9).await, known(false, 1), "a dirty one is kept");
    assert_eq!(stand.read(6, 5).await, known(false, 10));
    stand.load_whole(2, &[5, 9, 11]).await;
    assert_eq!(stand.read(2, 11).await, known(true, 3), "loaded anew");
    stand.flush(&mut Sql::default()).await;
    stand
        .until("all is clean and expires", async || {
            stand.read(3, 9).await == ReadResult::TargetNotLoaded
                && stand.read(6, 5).await == ReadResult::TargetNotLoaded
        })
        .await;
    stand.load_whole(3, &[]).await;
    assert_eq!(stand.read(3, 5).await, known(false, 0), "nothing of the former state is left");
}
