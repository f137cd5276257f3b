//! One transaction: fence, rows, counts.

use weir::model::{Checkpoint, Id, Origin};
use weir::sql::{Fence, RowChange, SqlError};

use crate::fixture::{AT_MS, Fixture, KIND, ORIGIN, Toggles as _, add, remove};

pub async fn a_flush_moves_checkpoint_rows_and_counts_together(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    let from = fixture.claim(0).await;
    let rows = [add(1, 10), add(1, 11), add(2, 10)];
    let applied = fixture.sql.apply_toggles(KIND, &table, &[Fence { from, to: 42 }], &rows, AT_MS).await.unwrap();
    assert_eq!((applied.inserted, applied.deleted, applied.dead.len()), (3, 0, 0));
    assert_eq!(fixture.checkpoint(0).await, Some(Checkpoint { position: 42, ..from }));
    assert_eq!(fixture.number("SELECT count(*) FROM feed_like").await, 3);
    assert_eq!(fixture.number("SELECT like_count FROM feed WHERE id = 1").await, 2);
    let at_ms = i64::try_from(AT_MS).unwrap();
    let at = fixture.number("SELECT created_at FROM feed_like WHERE feed_id = 2 AND user_id = 10").await;
    assert_eq!(at, at_ms, "the time of acceptance, not of the flush");
    fixture.counts_equal_rows().await;
}

pub async fn a_zombie_commits_nothing(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    let old = fixture.claim(0).await;
    let new = fixture.sql.claim(KIND, &[(0, old.incarnation)], true).await.unwrap()[0];
    let other = fixture.claim(1).await;
    // The fence of partition 1 holds, that of partition 0 does not: neither may move.
    let fences = [Fence { from: other, to: 5 }, Fence { from: old, to: 5 }];
    let refused = fixture.sql.apply_toggles(KIND, &table, &fences, &[add(1, 1)], AT_MS).await;
    assert_eq!(refused, Err(SqlError::Fenced));
    assert_eq!(fixture.checkpoint(0).await, Some(new));
    assert_eq!(fixture.checkpoint(1).await, Some(other));
    assert_eq!(fixture.number("SELECT count(*) FROM feed_like").await, 0);
    // Same owner, but this batch was committed already: the position is another one.
    fixture.flush(&table, new, &[add(1, 1)]).await;
    let again = fixture.sql.apply_toggles(KIND, &table, &[Fence { from: new, to: 9 }], &[add(1, 2)], AT_MS).await;
    assert_eq!(again, Err(SqlError::Fenced));
    assert_eq!(fixture.number("SELECT count(*) FROM feed_like").await, 1);
    fixture.counts_equal_rows().await;
}

pub async fn deltas_come_from_rows_really_changed(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    let from = fixture.claim(0).await;
    let rows = [add(1, 1), add(1, 2), add(2, 1)];
    let first = fixture.flush(&table, from, &rows).await;
    assert_eq!((first.inserted, first.deleted), (3, 0));
    // What is there is added again, what is not there is removed.
    let from = fixture.checkpoint(0).await.unwrap();
    let rows = [add(1, 1), remove(1, 2), remove(2, 9), add(3, 3), remove(3, 4)];
    let second = fixture.flush(&table, from, &rows).await;
    assert_eq!((second.inserted, second.deleted, second.dead.len()), (1, 1, 0));
    fixture.counts_equal_rows().await;
    assert_eq!(fixture.number("SELECT count(*) FROM feed WHERE like_count <> 1").await, 0);
    // The whole batch once more, as after an unknown outcome without a fence: nothing changes.
    let again = fixture.sql.apply_toggles(KIND, &table, &[], &rows, AT_MS).await.unwrap();
    assert_eq!((again.inserted, again.deleted), (0, 0));
    fixture.counts_equal_rows().await;
}

pub async fn ten_thousand_mixed_rows(fixture: &Fixture) {
    let table = fixture.tables(50, "").await;
    let from = fixture.claim(0).await;
    let first: Vec<RowChange> = (0..10_000).map(|n| add(1 + n % 50, n)).collect();
    let applied = fixture.flush(&table, from, &first).await;
    assert_eq!((applied.inserted, applied.deleted), (10_000, 0));
    // Every second one is removed, every second one added again, 5,000 others are new.
    let from = fixture.checkpoint(0).await.unwrap();
    let second: Vec<RowChange> = (0..10_000)
        .rev()
        .map(|n| match n % 4 {
            0 | 2 => remove(1 + n % 50, n),
            1 => add(1 + n % 50, n),
            _ => add(1 + n % 50, n + 100_000),
        })
        .collect();
    let applied = fixture.flush(&table, from, &second).await;
    assert_eq!((applied.inserted, applied.deleted, applied.dead.len()), (2_500, 5_000, 0));
    assert_eq!(fixture.number("SELECT count(*) FROM feed_like").await, 7_500);
    fixture.counts_equal_rows().await;
    assert!(applied.statements < 100, "{} statements are not a batch", applied.statements);
}

pub async fn a_flush_over_many_partitions(fixture: &Fixture) {
    let table = fixture.tables(16, "").await;
    let mut fences = Vec::new();
    let mut rows = Vec::new();
    // Backwards: the engine must lock in partition order by itself.
    for partition in (0..16).rev() {
        fences.push(Fence { from: fixture.claim(partition).await, to: 3 });
        let target = Id::Int(i64::from(partition) + 1);
        rows.push(RowChange { origin: Origin { partition, ..ORIGIN }, target, ..add(0, 1) });
    }
    let applied = fixture.sql.apply_toggles(KIND, &table, &fences, &rows, AT_MS).await.unwrap();
    assert_eq!(applied.inserted, 16);
    let partitions: Vec<u16> = (0..16).collect();
    let after = fixture.sql.checkpoints(KIND, &partitions).await.unwrap();
    assert!(after.iter().enumerate().all(|(n, row)| row.is_some_and(|row| row.partition as usize == n)));
    assert!(after.iter().all(|row| row.is_some_and(|row| row.position == 3)));
    fixture.counts_equal_rows().await;
}

pub async fn an_empty_flush_moves_the_checkpoint(fixture: &Fixture) {
    let table = fixture.tables(1, "").await;
    let from = fixture.claim(0).await;
    let applied = fixture.flush(&table, from, &[]).await;
    assert_eq!((applied.inserted, applied.deleted), (0, 0));
    assert_eq!(fixture.checkpoint(0).await.unwrap().position, 1);
}

pub async fn a_count_is_never_below_zero(fixture: &Fixture) {
    let table = fixture.tables(2, "").await;
    // Somebody wrote rows without counting them.
    fixture.run("INSERT INTO feed_like VALUES (1, 1, 0), (1, 2, 0)").await;
    let from = fixture.claim(0).await;
    let applied = fixture.flush(&table, from, &[remove(1, 1), remove(1, 2)]).await;
    assert_eq!((applied.deleted, applied.dead.len()), (2, 0));
    fixture.counts_equal_rows().await;
}

pub async fn a_missing_target_row_keeps_no_count(fixture: &Fixture) {
    let table = fixture.tables(2, "").await;
    let from = fixture.claim(0).await;
    let applied = fixture.flush(&table, from, &[add(99, 1), add(1, 1)]).await;
    assert_eq!((applied.inserted, applied.dead.len()), (2, 0));
    assert_eq!(fixture.number("SELECT count(*) FROM feed WHERE id = 99").await, 0);
    fixture.counts_equal_rows().await;
}

pub async fn two_kinds_on_one_table_of_targets_do_not_deadlock(fixture: &Fixture) {
    let likes = fixture.tables(40, ", FOREIGN KEY (feed_id) REFERENCES feed (id)").await;
    fixture
        .run(
            "ALTER TABLE feed ADD COLUMN save_count BIGINT NOT NULL DEFAULT 0;
             CREATE TABLE feed_save (feed_id BIGINT NOT NULL, user_id BIGINT NOT NULL, created_at BIGINT NOT NULL,
                PRIMARY KEY (feed_id, user_id), FOREIGN KEY (feed_id) REFERENCES feed (id))",
        )
        .await;
    let mut saves = likes.clone();
    saves.name = "feed_save".into();
    saves.targets.as_mut().unwrap().count_column = Some("save_count".into());
    let (one, two) = (fixture.other().await, fixture.other().await);
    let rounds = 12;
    let flush = async |sql: &dyn weir::sql::Sql, kind: &str, table: &weir::config::ToggleTable, backwards: bool| {
        let mut from = sql.claim(kind, &[(0, weir::model::Incarnation::fresh())], false).await.unwrap()[0];
        for round in 0..rounds {
            let mut rows: Vec<RowChange> = (1..=40).map(|target| add(target, round)).collect();
            if backwards {
                rows.reverse();
            }
            let fence = Fence { from, to: from.position + 1 };
            sql.apply_toggles(kind, table, &[fence], &rows, AT_MS).await.unwrap();
            from.position += 1;
        }
    };
    tokio::join!(flush(&*one, "likes", &likes, false), flush(&*two, "saves", &saves, true));
    fixture.counts_equal_rows().await;
    assert_eq!(fixture.number("SELECT count(*) FROM feed WHERE save_count <> 12").await, 0);
}

pub async fn a_dropped_flush_leaves_nothing_behind(fixture: &Fixture) {
    let table = fixture.tables(5, "").await;
    let from = fixture.claim(0).await;
    let fence = [Fence { from, to: from.position + 1 }];
    let rows: Vec<RowChange> = (0..2_000).map(|n| add(1 + n % 5, n)).collect();
    let sql = fixture.with(|settings| settings.connections_max = 2).await;
    // Cancelled at many different points; with two connections a leaked transaction would soon be met again.
    for polls in 0..40 {
        let mut flush = Box::pin(sql.apply_toggles(KIND, &table, &fence, &rows, AT_MS));
        let mut left = polls;
        let outcome = std::future::poll_fn(|context| match flush.as_mut().poll(context) {
            std::task::Poll::Ready(result) => std::task::Poll::Ready(Some(result)),
            std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
            std::task::Poll::Pending => {
                left -= 1;
                std::task::Poll::Pending
            }
        })
        .await;
        drop(flush);
        if let Some(result) = outcome {
            assert!(matches!(result, Ok(_) | Err(SqlError::Fenced | SqlError::Transient(_))), "{result:?}");
        }
    }
    let after = fixture.checkpoint(0).await.unwrap();
    let stored = fixture.number("SELECT count(*) FROM feed_like").await;
    assert!((after.position, stored) == (0, 0) || (after.position, stored) == (1, 2_000), "{after:?} {stored}");
    let last = Fence { from: after, to: after.position + 1 };
    sql.apply_toggles(KIND, &table, &[last], &rows, AT_MS).await.unwrap();
    fixture.counts_equal_rows().await;
}
