//! Rows that another session has locked: their targets wait by themselves, everything else is stored, and nothing twice.

use std::collections::BTreeSet;

use weir::config::{CounterTable, EventTable, KindTable, ToggleTable};
use weir::model::{Aside, Id, IdType};
use weir::sql::{Applied, Around, CountRow, EventRow, Fence, Row, RowChange, Sql, SqlError};

use crate::fixture::{AT_MS, Engine, Fixture, KIND, ORIGIN, Probe, Toggles as _, add, remove};

/// Another session that holds what `select` finds. A file of SQLite has one lock.
async fn hold(fixture: &Fixture, select: &str) -> Probe {
    let mut probe = fixture.probe().await;
    if fixture.engine == Engine::Sqlite {
        probe.run("BEGIN IMMEDIATE").await.unwrap();
    } else {
        probe.run("BEGIN").await.unwrap();
        probe.run(select).await.unwrap();
    }
    probe
}

/// A handle that does not wait long.
async fn impatient(fixture: &Fixture) -> std::sync::Arc<dyn Sql> {
    fixture
        .with(|settings| {
            settings.acquire_timeout_ms = 300;
            settings.lock_timeout_ms = 300;
        })
        .await
}

fn toggles(rows: &[RowChange]) -> Vec<Row> {
    rows.iter().cloned().map(Row::Toggle).collect()
}

fn texts(targets: &[&str]) -> BTreeSet<String> {
    targets.iter().map(|target| (*target).to_owned()).collect()
}

fn waiting(applied: &Applied) -> Vec<usize> {
    applied.waiting.iter().map(|(index, _)| *index).collect()
}

async fn around(sql: &dyn Sql, kind: &KindTable, fence: Fence, rows: &[Row], asides: Vec<Aside>) -> Applied {
    let around = Around { asides, set_aside: true };
    sql.apply_around(KIND, kind, &[fence], rows, &around, AT_MS).await.unwrap()
}

pub async fn a_locked_target_waits_alone_and_comes_later(fixture: &Fixture) {
    let table: ToggleTable = fixture.tables(40, "").await;
    let kind = KindTable::Toggle(table.clone());
    let from = fixture.claim(0).await;
    let sql = impatient(fixture).await;
    let mut holder = hold(fixture, "SELECT id FROM feed WHERE id = 17 FOR UPDATE").await;
    let rows: Vec<RowChange> = (0..400).map(|n| add(1 + n % 40, n)).collect();
    let refused = sql.apply_toggles(KIND, &table, &[Fence { from, to: 9 }], &rows, AT_MS).await;
    assert!(matches!(&refused, Err(SqlError::Locked(reason)) if !reason.is_empty()), "{refused:?}");
    assert!(!refused.unwrap_err().to_string().contains("not available"), "SQL is there");
    assert_eq!(fixture.checkpoint(0).await, Some(from));
    if fixture.engine == Engine::Sqlite {
        assert!(!sql.locks_rows());
        holder.run("ROLLBACK").await.unwrap();
        assert_eq!(fixture.flush(&table, from, &rows).await.inserted, 400);
        return;
    }
    let applied = around(&*sql, &kind, Fence { from, to: 9 }, &toggles(&rows), vec![]).await;
    assert_eq!((waiting(&applied), applied.inserted, applied.dead.len()), (vec![16], 390, 0), "{applied:?}");
    let first = Aside { partition: 0, incarnation: from.incarnation, position: 0, ahead: 9, targets: texts(&["17"]) };
    assert_eq!(applied.asides.as_slice(), std::slice::from_ref(&first));
    assert_eq!(fixture.sql.asides(KIND).await.unwrap(), std::slice::from_ref(&first));
    assert_eq!(fixture.checkpoint(0).await, Some(from), "the checkpoint stays before what waits");
    assert_eq!(fixture.number("SELECT count(*) FROM feed_like WHERE feed_id = 17").await, 0);
    fixture.counts_equal_rows().await;
    // Those behind go on; a second one waits as well.
    let mut other = hold(fixture, "SELECT id FROM feed WHERE id = 20 FOR UPDATE").await;
    let later = toggles(&[add(1, 1_001), remove(2, 1), add(20, 1_002)]);
    let ahead = Aside { ahead: 12, ..first.clone() };
    let applied = around(&*sql, &kind, Fence { from, to: 12 }, &later, vec![ahead]).await;
    assert_eq!((waiting(&applied), applied.inserted, applied.deleted), (vec![2], 1, 1));
    assert_eq!(applied.asides[0].targets, texts(&["17", "20"]));
    // One is free, and comes with what was read of it from the checkpoint on; the other one waits.
    holder.run("ROLLBACK").await.unwrap();
    let of = |target: i64| rows.iter().filter(move |row| row.target == Id::Int(target)).cloned();
    let held: Vec<RowChange> = of(17).chain([add(20, 1_002)]).collect();
    let freed = Aside { position: 0, ahead: 12, targets: BTreeSet::new(), ..first };
    let applied = around(&*sql, &kind, Fence { from, to: 0 }, &toggles(&held), vec![freed.clone()]).await;
    assert_eq!((applied.inserted, applied.asides[0].targets.clone()), (10, texts(&["20"])));
    other.run("ROLLBACK").await.unwrap();
    let applied = around(&*sql, &kind, Fence { from, to: 0 }, &toggles(&[add(20, 1_002)]), vec![freed]).await;
    assert_eq!((applied.inserted, applied.waiting.len()), (1, 0));
    assert_eq!(fixture.sql.asides(KIND).await.unwrap(), vec![]);
    assert_eq!(fixture.checkpoint(0).await.unwrap().position, 12, "the checkpoint is where the others were");
    assert_eq!(fixture.number("SELECT count(*) FROM feed_like").await, 400 + 1);
    fixture.counts_equal_rows().await;
}

pub async fn a_target_is_stored_whole_or_waits_whole(fixture: &Fixture) {
    if fixture.engine == Engine::Sqlite {
        return;
    }
    let table = fixture.tables(6, "").await;
    let kind = KindTable::Toggle(table.clone());
    let from = fixture.claim(0).await;
    fixture.flush(&table, from, &[add(3, 30)]).await;
    let from = fixture.checkpoint(0).await.unwrap();
    let sql = impatient(fixture).await;
    // Not the target: one of its pairs.
    let mut holder = hold(fixture, "SELECT user_id FROM feed_like WHERE feed_id = 3 AND user_id = 30 FOR UPDATE").await;
    let rows = [add(1, 1), add(3, 1), add(3, 2), remove(3, 30), add(5, 1)];
    let applied = around(&*sql, &kind, Fence { from, to: 7 }, &toggles(&rows), vec![]).await;
    assert_eq!((applied.inserted, applied.deleted), (2, 0), "{applied:?}");
    assert_eq!(applied.asides[0].targets, texts(&["3"]));
    assert_eq!(fixture.number("SELECT count(*) FROM feed_like WHERE feed_id = 3").await, 1);
    fixture.counts_equal_rows().await;
    holder.run("ROLLBACK").await.unwrap();
    // A zombie stores nothing of it, and leaves what waits alone.
    let freed = Aside { targets: BTreeSet::new(), ..applied.asides[0].clone() };
    fixture.sql.claim(KIND, &[(0, from.incarnation)], true).await.unwrap();
    let zombie = Around { asides: vec![freed], set_aside: true };
    let refused = sql.apply_around(KIND, &kind, &[Fence { from, to: 7 }], &toggles(&rows[1..4]), &zombie, AT_MS).await;
    assert_eq!(refused, Err(SqlError::Fenced));
    assert_eq!(fixture.sql.asides(KIND).await.unwrap(), applied.asides);
}

pub async fn a_count_waits_with_its_events(fixture: &Fixture) {
    if fixture.engine == Engine::Sqlite {
        return;
    }
    fixture
        .run(
            "CREATE TABLE video (id BIGINT NOT NULL PRIMARY KEY, view_count BIGINT NOT NULL);
             INSERT INTO video VALUES (1, 0), (2, 0), (3, 0), (4, 0);
             CREATE TABLE video_view (video_id BIGINT NOT NULL, user_id BIGINT)",
        )
        .await;
    let events = EventTable {
        name: "video_view".into(),
        target_column: "video_id".into(),
        actor_column: "user_id".into(),
        created_at_column: None,
        by_column: None,
    };
    let kind = KindTable::Counter(CounterTable {
        name: "video".into(),
        key_column: "id".into(),
        count_column: "view_count".into(),
        target_type: IdType::Integer,
        actor_type: IdType::Integer,
        events: Some(events),
    });
    let from = fixture.claim(0).await;
    let sql = impatient(fixture).await;
    let mut holder = hold(fixture, "SELECT id FROM video WHERE id = 3 FOR UPDATE").await;
    let mut rows = Vec::new();
    for n in 1..=4 {
        let (target, actor) = (Id::Int(n), Some(Id::Int(n)));
        rows.push(Row::Count(CountRow { origin: ORIGIN, target: target.clone(), by: 1 }));
        rows.push(Row::Event(EventRow { origin: ORIGIN, target, actor, by: 1 }));
    }
    let applied = around(&*sql, &kind, Fence { from, to: 7 }, &rows, vec![]).await;
    assert_eq!((applied.updated, applied.inserted), (3, 3), "{applied:?}");
    assert_eq!(applied.asides[0].targets, texts(&["3"]));
    assert_eq!(fixture.number("SELECT count(*) FROM video_view WHERE video_id = 3").await, 0);
    holder.run("ROLLBACK").await.unwrap();
    let freed = Aside { targets: BTreeSet::new(), ..applied.asides[0].clone() };
    let applied = around(&*sql, &kind, Fence { from, to: 0 }, &rows[4..6], vec![freed]).await;
    assert_eq!((applied.updated, applied.inserted, applied.asides[0].position), (1, 1, 7));
    assert_eq!(fixture.number("SELECT count(*) FROM video WHERE view_count = 1").await, 4);
}

pub async fn who_holds_a_lock_is_told(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    let from = fixture.claim(0).await;
    if fixture.engine == Engine::Sqlite {
        assert!(fixture.sql.lock_holders().await.unwrap()[0].contains("another process"));
        return;
    }
    let mut holder = hold(fixture, "SELECT id FROM feed WHERE id = 2 FOR UPDATE").await;
    let session = match fixture.engine {
        Engine::Postgres => holder.text("SELECT CAST(pg_backend_pid() AS text)").await,
        _ => holder.text("SELECT CAST(CONNECTION_ID() AS CHAR)").await,
    };
    let flush =
        async { fixture.sql.apply_toggles(KIND, &table, &[Fence { from, to: 1 }], &[add(2, 1)], AT_MS).await.unwrap() };
    let told = async {
        let named = format!("session {session} ");
        let told = loop {
            let told = fixture.sql.lock_holders().await.unwrap();
            if told.iter().any(|line| line.starts_with(&named) || line.starts_with(&format!("session {session},"))) {
                break told;
            }
            // The answer is not renewed while it is asked for more often than ten times a second.
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        };
        holder.run("ROLLBACK").await.unwrap();
        told
    };
    let (applied, told) = tokio::join!(flush, told);
    assert_eq!(applied.inserted, 1, "{told:?}");
    assert!(told[0].contains("transaction"), "{told:?}");
}
