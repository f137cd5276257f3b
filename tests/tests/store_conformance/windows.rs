//! Windows of uniqueness: a pair counts once, as long as the table has room.

use weir::model::Id;
use weir::store::{CountBatch, CountOp};

use crate::counters::{Counts, ONE, by, hit, outcome, told, unique};
use crate::stand::{Backend, DIGEST, KIND, Stand};

pub async fn a_pair_counts_once_within_its_window<B: Backend>() {
    let mut stand = Stand::<B>::tuned(|config| (config.partitions, config.state_ttl_s) = (2, 100_000)).await;
    for target in [1, 2] {
        stand.load_count(target, 0).await;
    }
    let hour = unique(3_600_000);
    let ops = vec![by(1, 5, hour), by(1, 5, hour), by(1, 6, hour), by(2, 5, hour), by(1, 5, ONE)];
    let results = stand.hits(ops).await;
    let seen: Vec<_> = results.iter().map(told).collect();
    assert_eq!(seen, [(1, true), (1, false), (2, true), (1, true), (3, true)], "within one batch, and by its rule");
    let again = outcome(&stand.hit(by(1, 5, hour)).await);
    assert_eq!((again.count, again.counted), (3, false));
    assert_eq!(again.position, outcome(&results[0]).position, "where the answered count lies");
    for _ in 0..2 {
        assert!(outcome(&stand.hit(CountOp { rule: hour, ..hit(1, 1) }).await).counted, "nobody is nobody twice");
        assert!(outcome(&stand.hit(by(1, 9, unique(0))).await).counted, "a window of no time is none");
    }
    // Neither a crash nor a wipe forgets whom it has seen.
    let mut sql = Counts::new();
    stand.flush_all_counts(&mut sql).await;
    stand.crash().await;
    stand.store().wipe_state(KIND).await.unwrap();
    stand.load_count(1, sql[&Id::Int(1)]).await;
    assert_eq!(told(&stand.hit(by(1, 5, hour)).await), (7, false));
    assert_eq!(told(&stand.hit(by(1, 6, unique(1))).await), (7, false), "the window is that of the hit that counted");
    stand.advance_ms(3_599_999);
    assert_eq!(told(&stand.hit(by(1, 5, hour)).await), (7, false));
    stand.advance_ms(1);
    assert_eq!(told(&stand.hit(by(1, 5, hour)).await), (8, true), "a repetition does not prolong it");
    assert_eq!(told(&stand.hit(by(1, 5, hour)).await), (8, false));
}

pub async fn a_full_table_forgets_first_what_goes_first<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_count(1, 0).await;
    // Eight pairs are remembered, in one bucket of sixteen slots.
    let see = async |actor: i64, unique_ms: u32| {
        let ops = vec![by(1, actor, unique(unique_ms))];
        let batch = CountBatch {
            digest: DIGEST,
            at_ms: stand.now_ms(),
            now_ms: stand.now_ms(),
            keep_actors: false,
            unique_pairs_max: 8,
            ops,
        };
        outcome(&stand.store().count(KIND, batch).await.unwrap().results[0]).counted
    };
    let window = |actor: i64| 600_000 + u32::try_from((actor * 7) % 16).unwrap() * 1_000;
    for actor in 0..16 {
        assert!(see(actor, window(actor)).await);
    }
    for actor in 0..16 {
        assert!(!see(actor, window(actor)).await, "{actor} is remembered");
    }
    assert!(see(100, 900_000).await);
    let forgotten = (0..16).min_by_key(|actor| window(*actor)).unwrap();
    for actor in (0..16).filter(|actor| *actor != forgotten) {
        assert!(!see(actor, 900_000).await, "{actor} is still remembered");
    }
    assert!(!see(100, 900_000).await);
    assert!(see(forgotten, 900_000).await, "it may count again");
    // What is over makes room before anybody is forgotten.
    stand.advance_ms(620_000);
    assert!(see(200, 900_000).await);
    assert!(!see(100, 900_000).await && !see(forgotten, 900_000).await && !see(200, 900_000).await);
}

pub async fn a_table_of_another_size_remembers_anew<B: Backend>() {
    let stand = Stand::<B>::tuned(|config| config.partitions = 1).await;
    stand.load_count(1, 0).await;
    let see = async |unique_pairs_max: u64| {
        let ops = (0..500).map(|actor| by(1, actor, unique(600_000))).collect();
        let batch = CountBatch {
            digest: DIGEST,
            at_ms: stand.now_ms(),
            now_ms: stand.now_ms(),
            keep_actors: false,
            unique_pairs_max,
            ops,
        };
        let results = stand.store().count(KIND, batch).await.unwrap().results;
        results.iter().filter(|result| outcome(result).counted).count()
    };
    assert_eq!((see(10_000).await, see(10_000).await), (500, 0));
    for other in [777, 31_000] {
        assert!(see(other).await > 400, "nearly all windows are forgotten");
        assert_eq!(see(other).await, 0, "and begun again");
    }
}
