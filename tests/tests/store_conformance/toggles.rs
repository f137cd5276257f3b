//! Toggles: rules, order, limits, idempotency.

use weir::model::{Effect, Id, RateState};
use weir::store::{LoadedState, ToggleResult};

use crate::stand::{Backend, Sql, Stand, TOGGLE, keyed, known, limited, op, outcome, rule, state};

pub async fn rules_are_evaluated_against_the_state<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.load_whole(1, &[10]).await;
    let effects = [Effect::Add, Effect::Remove, Effect::Keep, Effect::Deny];
    for effect in effects {
        for other in effects {
            let absent = stand.one(op(1, 99, rule(effect, other))).await;
            let present = stand.one(op(1, 10, rule(other, effect))).await;
            match effect {
                Effect::Deny => {
                    assert_eq!(absent, ToggleResult::Denied(state(false, 1)));
                    assert_eq!(present, ToggleResult::Denied(state(true, 1)));
                }
                _ => {
                    let (absent, present) = (outcome(&absent), outcome(&present));
                    let (adds, removes) = (effect == Effect::Add, effect == Effect::Remove);
                    assert_eq!((absent.state.active, absent.changed), (adds, adds), "{effect:?}");
                    assert_eq!((present.state.active, present.changed), (!removes, removes), "{effect:?}");
                }
            }
            // Back to the beginning.
            stand.one(op(1, 99, rule(Effect::Keep, Effect::Remove))).await;
            stand.one(op(1, 10, rule(Effect::Add, Effect::Keep))).await;
            assert_eq!(stand.read(1, 10).await, known(true, 1));
        }
    }
}

pub async fn each_operation_sees_those_before_it<B: Backend>() {
    let stand = Stand::<B>::new().await;
    for target in [1, 2] {
        stand.load_whole(target, &[]).await;
    }
    let set = rule(Effect::Add, Effect::Keep);
    let ops =
        vec![op(1, 5, TOGGLE), op(1, 6, TOGGLE), op(1, 5, TOGGLE), op(2, 5, set), op(1, 5, TOGGLE), op(2, 5, set)];
    let results = stand.toggle(ops).await;
    let seen: Vec<_> = results.iter().map(|result| (outcome(result).state, outcome(result).changed)).collect();
    let expected = [
        (state(true, 1), true),
        (state(true, 2), true),
        (state(false, 1), true),
        (state(true, 1), true),
        (state(true, 2), true),
        (state(true, 1), false),
    ];
    assert_eq!(seen, expected);
    assert_eq!(stand.read(1, 5).await, known(true, 2));
    assert_eq!(stand.read(1, 6).await, known(true, 2));
    let mut sql = Sql::default();
    stand.flush(&mut sql).await;
    assert_eq!(sql.members(&Id::Int(1)).len(), 2);
    // Added and removed within one batch: nothing is left, and both changes are journaled.
    let results = stand.toggle(vec![op(2, 8, TOGGLE), op(2, 8, TOGGLE)]).await;
    assert_eq!(outcome(&results[1]).state, state(false, 1));
    assert_eq!(stand.read(2, 8).await, known(false, 1));
    assert_eq!(stand.changes(stand.partition(2), 10).await.len(), 2);
}

pub async fn positions_say_where_an_answer_lies<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    for target in [1, 2] {
        stand.load_whole(target, &[5]).await;
    }
    let keep = rule(Effect::Keep, Effect::Keep);
    let position = async |target, rule| outcome(&stand.one(op(target, 5, rule)).await).position;
    assert_eq!(position(1, keep).await, 0, "SQL holds it all");
    let first = position(1, TOGGLE).await;
    assert!(first > 0);
    assert_eq!(position(1, keep).await, first);
    let second = position(2, TOGGLE).await;
    assert!(second > first);
    assert_eq!(position(1, keep).await, first, "of the target, not of the partition");
    assert_eq!(stand.head(0).await.last, second);
    let results = stand.toggle(vec![op(1, 5, TOGGLE), op(1, 5, keep)]).await;
    let third = outcome(&results[0]).position;
    assert!(third > second);
    assert_eq!(outcome(&results[1]).position, third, "what changed earlier in the batch");
    stand.flush(&mut Sql::default()).await;
    assert_eq!(position(1, keep).await, 0);
}

pub async fn a_limit_lets_its_burst_pass_and_refills<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.load_whole(1, &[]).await;
    let slow = limited(3, 600_000);
    let rate = async || outcome(&stand.one(op(1, 2, slow)).await).rate.unwrap();
    assert_eq!(rate().await, RateState { remaining: 2, reset_ms: 200_000 });
    assert_eq!(rate().await, RateState { remaining: 1, reset_ms: 400_000 });
    assert_eq!(rate().await, RateState { remaining: 0, reset_ms: 600_000 });
    let over = RateState { remaining: 0, reset_ms: 600_000 };
    let refused = stand.one(op(1, 2, slow)).await;
    assert_eq!(refused, ToggleResult::Limited { retry_after_ms: 200_000, rate: over });
    assert_eq!(stand.read(1, 2).await, known(true, 1), "the state is untouched");
    stand.advance_ms(199_999);
    let over = RateState { remaining: 0, reset_ms: 400_001 };
    assert_eq!(stand.one(op(1, 2, slow)).await, ToggleResult::Limited { retry_after_ms: 1, rate: over });
    stand.advance_ms(1);
    assert_eq!(rate().await, RateState { remaining: 0, reset_ms: 600_000 });
    stand.advance_ms(600_000);
    assert_eq!(rate().await.remaining, 2, "whole again");
    assert_eq!(outcome(&stand.one(op(1, 2, TOGGLE)).await).rate, None, "a rule without a limit");
    // A period that its burst does not divide is rounded against the caller.
    let odd = limited(7, 10_000);
    let results = stand.toggle((0..8).map(|_| op(1, 77, odd)).collect()).await;
    assert_eq!(outcome(&results[0]).rate, Some(RateState { remaining: 6, reset_ms: 1_429 }));
    let over = RateState { remaining: 0, reset_ms: 10_001 };
    assert_eq!(results[7], ToggleResult::Limited { retry_after_ms: 1_429, rate: over }, "within one batch too");
}

pub async fn what_is_refused_does_not_count<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.load_whole(1, &[]).await;
    stand.load(vec![(2, LoadedState::Missing), (3, LoadedState::Huge(9))]).await;
    let deny = weir::model::ToggleRule { when_absent: Effect::Deny, ..limited(1, 600_000) };
    for _ in 0..3 {
        assert_eq!(stand.one(op(1, 2, deny)).await, ToggleResult::Denied(state(false, 0)));
        assert_eq!(stand.one(op(2, 2, limited(1, 600_000))).await, ToggleResult::TargetMissing);
        assert_eq!(stand.one(op(3, 2, limited(1, 600_000))).await, ToggleResult::PairNotLoaded);
    }
    stand.load_pair(3, 2, None).await;
    for target in [1, 3] {
        assert_eq!(outcome(&stand.one(op(target, 2, limited(1, 600_000))).await).rate.unwrap().remaining, 0);
        for _ in 0..3 {
            let over = stand.one(op(target, 2, limited(1, 600_000))).await;
            assert!(matches!(over, ToggleResult::Limited { retry_after_ms: 600_000, .. }), "{over:?}");
        }
        assert!(matches!(stand.one(op(target, 2, deny)).await, ToggleResult::Limited { .. }), "the limit comes first");
    }
    // Kept and already so: evaluated, so they count.
    let keep = weir::model::ToggleRule { when_absent: Effect::Keep, when_present: Effect::Keep, ..limited(1, 600_000) };
    assert!(!outcome(&stand.one(op(1, 50, keep)).await).changed);
    assert!(matches!(stand.one(op(1, 50, keep)).await, ToggleResult::Limited { .. }));
}

pub async fn limits_are_per_target_and_actor<B: Backend>() {
    let stand = Stand::<B>::new().await;
    for target in [1, 11] {
        stand.load_whole(target, &[]).await;
    }
    let once = limited(1, 600_000);
    for (target, actor) in [(1, 11), (11, 1), (1, 1), (11, 11), (1, 111)] {
        assert!(outcome(&stand.one(op(target, actor, once)).await).changed, "{target} {actor}");
    }
    assert!(matches!(stand.one(op(1, 11, once)).await, ToggleResult::Limited { .. }));
}

pub async fn an_idempotency_key_answers_the_first_outcome_again<B: Backend>() {
    let stand = Stand::<B>::new().await;
    stand.load_whole(1, &[]).await;
    let once = limited(2, 600_000);
    let first = outcome(&stand.one(keyed(op(1, 2, once), 7, 7)).await);
    assert!(first.changed && !first.replayed);
    stand.done(1, 3).await;
    let again = weir::store::ToggleOutcome { replayed: true, ..first };
    for _ in 0..3 {
        assert_eq!(outcome(&stand.one(keyed(op(1, 2, once), 7, 7)).await), again, "count, position and rate as then");
    }
    assert_eq!(stand.read(1, 2).await, known(true, 2), "applied once");
    let results = stand.toggle(vec![keyed(op(1, 4, TOGGLE), 8, 8), keyed(op(1, 4, TOGGLE), 8, 8)]).await;
    assert!(!outcome(&results[0]).replayed && outcome(&results[1]).replayed, "within one batch");
    assert_eq!(stand.read(1, 4).await, known(true, 3));
    let deny = rule(Effect::Deny, Effect::Deny);
    let denied = ToggleResult::Denied(state(false, 3));
    assert_eq!(stand.one(keyed(op(1, 5, deny), 9, 9)).await, denied);
    assert_eq!(stand.one(keyed(op(1, 5, TOGGLE), 9, 9)).await, denied, "by the rule of then");
    // The answer needs no state.
    stand.flush(&mut Sql::default()).await;
    stand.store().wipe_state(crate::stand::KIND).await.unwrap();
    assert_eq!(outcome(&stand.one(keyed(op(1, 2, once), 7, 7)).await), again);
}

pub async fn an_idempotency_key_belongs_to_one_request<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    for target in 1..=8 {
        stand.load_whole(target, &[]).await;
    }
    assert!(outcome(&stand.one(keyed(op(1, 2, TOGGLE), 7, 7)).await).changed);
    for target in 1..=8 {
        let conflict = stand.one(keyed(op(target, 2, TOGGLE), 7, 8)).await;
        assert_eq!(conflict, ToggleResult::IdempotencyConflict, "whatever the target: {target}");
    }
    assert_eq!(stand.read(5, 2).await, known(false, 0), "nothing was done");
    let results = stand.toggle(vec![keyed(op(3, 2, TOGGLE), 9, 1), keyed(op(4, 2, TOGGLE), 9, 2)]).await;
    assert!(outcome(&results[0]).changed);
    assert_eq!(results[1], ToggleResult::IdempotencyConflict, "within one batch");
    let batch = weir::store::ToggleBatch {
        digest: crate::stand::DIGEST,
        at_ms: stand.now_ms(),
        now_ms: stand.now_ms(),
        ops: vec![keyed(op(1, 2, TOGGLE), 7, 8)],
    };
    let other_kind = stand.store().toggle("other", batch).await.unwrap().results;
    assert_eq!(other_kind, vec![ToggleResult::TargetNotLoaded], "kinds do not share keys");
}

pub async fn only_evaluated_outcomes_are_remembered<B: Backend>() {
    let stand = Stand::<B>::new().await;
    let cold = keyed(op(1, 2, TOGGLE), 1, 1);
    assert_eq!(stand.one(cold.clone()).await, ToggleResult::TargetNotLoaded);
    stand.load(vec![(1, LoadedState::Huge(4)), (9, LoadedState::Missing)]).await;
    assert_eq!(stand.one(cold.clone()).await, ToggleResult::PairNotLoaded);
    stand.load_pair(1, 2, None).await;
    assert_eq!(outcome(&stand.one(cold).await).state, state(true, 5));
    let missing = keyed(op(9, 2, TOGGLE), 2, 2);
    assert_eq!(stand.one(missing).await, ToggleResult::TargetMissing);
    stand.load_pair(1, 3, None).await;
    assert!(outcome(&stand.one(keyed(op(1, 3, TOGGLE), 2, 3)).await).changed, "the key was not taken");
    let once = limited(1, 600_000);
    stand.load_pair(1, 4, None).await;
    stand.one(op(1, 4, once)).await;
    assert!(matches!(stand.one(keyed(op(1, 4, once), 4, 4)).await, ToggleResult::Limited { .. }));
    stand.advance_ms(600_000);
    assert!(outcome(&stand.one(keyed(op(1, 4, once), 4, 4)).await).changed);
}

pub async fn an_idempotency_key_is_forgotten_after_its_ttl<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.idempotency_ttl_s = 1).await;
    stand.load_whole(1, &[]).await;
    let add = rule(Effect::Add, Effect::Keep);
    assert!(outcome(&stand.one(keyed(op(1, 2, add), 7, 7)).await).changed);
    stand
        .until("the key is forgotten", async || {
            !matches!(stand.one(keyed(op(1, 2, add), 7, 8)).await, ToggleResult::IdempotencyConflict)
        })
        .await;
    assert_eq!(stand.one(keyed(op(1, 2, add), 7, 7)).await, ToggleResult::IdempotencyConflict, "taken anew");
}

pub async fn a_batch_of_thousands_is_one_step<B: Backend>() {
    let stand = Stand::<B>::new().await;
    for target in 0..50 {
        stand.load_whole(target, &[]).await;
    }
    let ops = (0..6_000).map(|n| op(n % 50, n, limited(5, 60_000))).collect();
    let results = stand.toggle(ops).await;
    assert!(results.iter().all(|result| outcome(result).changed));
    assert_eq!(outcome(&results[5_999]).state, state(true, 120));
    // All of one target, and all of them again.
    let ops = (0..6_000).map(|n| op(1, 10_000 + n, TOGGLE)).collect();
    assert_eq!(outcome(stand.toggle(ops).await.last().unwrap()).state, state(true, 6_120));
    let ops = (0..6_000).map(|n| op(1, 10_000 + n, TOGGLE)).collect();
    assert_eq!(outcome(stand.toggle(ops).await.last().unwrap()).state, state(false, 120));
    assert_eq!(stand.toggle(vec![]).await, vec![]);
}
