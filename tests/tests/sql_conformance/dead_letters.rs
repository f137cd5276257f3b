//! Rows that can never be stored, and errors that are no row's fault.

use weir::config::{KindTable, ToggleTable};
use weir::model::{Action, Id, IdType};
use weir::sql::{Fence, RowChange, SqlError};

use crate::fixture::{AT_MS, Engine, Fixture, KIND, Toggles as _, add, change, table};

/// Flushes a thousand rows of which those at `bad` are bad; exactly they must be dead, all others stored.
async fn flush_with_bad(fixture: &Fixture, table: &ToggleTable, rows: &[RowChange], bad: &[usize]) {
    let from = fixture.claim(0).await;
    let letters = fixture.sql.dead_letter_counts().await.unwrap().first().map_or(0, |(_, count)| *count);
    let stored = fixture.number("SELECT count(*) FROM feed_like").await;
    let applied = fixture.flush(table, from, rows).await;
    let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
    assert_eq!(dead, bad, "{:?}", applied.dead);
    assert!(applied.dead.iter().all(|(_, reason)| !reason.is_empty()));
    if bad.len() == 1 {
        // Halving, not one by one: some 21 parts, of a few statements each.
        assert!(applied.statements < 500, "{} statements for one bad row", applied.statements);
    }
    let good = rows.len() - bad.len();
    assert_eq!(applied.inserted, good as u64);
    let after = fixture.number("SELECT count(*) FROM feed_like").await;
    assert_eq!(usize::try_from(after - stored).unwrap(), good);
    assert_eq!(fixture.number("SELECT count(*) FROM weir_dead_letter").await, (letters as usize + bad.len()) as i64);
    assert_eq!(fixture.checkpoint(0).await.unwrap().position, from.position + 1, "the flush is committed");
    fixture.counts_equal_rows().await;
}

pub async fn one_bad_row_among_a_thousand(fixture: &Fixture) {
    let table = fixture.tables(10, ", CHECK (user_id <> 13)").await;
    for (round, bad) in [0, 999, 500, 333].into_iter().enumerate() {
        let base = 1_000_000 * (round as i64 + 1);
        let rows: Vec<RowChange> = (0..1_000).map(|n| add(1 + n % 10, if n == bad { 13 } else { base + n })).collect();
        flush_with_bad(fixture, &table, &rows, &[bad as usize]).await;
        fixture.run("DELETE FROM weir_checkpoint").await;
    }
    let letters = fixture.sql.dead_letters(Some(KIND), 0, 10).await.unwrap();
    assert_eq!(letters.len(), 4);
    let first = &letters[0];
    assert_eq!((first.target.as_str(), first.actor.as_str(), first.action.as_str()), ("1", "13", "add"));
    assert_eq!((first.at_ms, first.position, first.dead_at_ms), (AT_MS, 7, AT_MS + 1));
    assert_eq!(first.digest, "07".repeat(32));
    assert_eq!(first.incarnation.len(), 36);
}

pub async fn a_row_that_breaks_a_foreign_key(fixture: &Fixture) {
    let table = fixture.tables(10, ", FOREIGN KEY (feed_id) REFERENCES feed (id)").await;
    let rows: Vec<RowChange> = (0..1_000).map(|n| add(if n == 640 { 77 } else { 1 + n % 10 }, n)).collect();
    flush_with_bad(fixture, &table, &rows, &[640]).await;
}

pub async fn a_text_that_is_too_long(fixture: &Fixture) {
    let (text, check) = match fixture.engine {
        Engine::Sqlite => ("TEXT", ", CHECK (length(user_id) <= 10)"),
        Engine::Postgres => ("VARCHAR(10)", ""),
        Engine::MariaDb | Engine::MySql => ("VARCHAR(10) COLLATE utf8mb4_nopad_bin", ""),
    };
    fixture
        .run(&format!(
            "CREATE TABLE feed (id {text} NOT NULL PRIMARY KEY, like_count INTEGER NOT NULL DEFAULT 0);
             CREATE TABLE feed_like (feed_id {text} NOT NULL, user_id {text} NOT NULL, created_at BIGINT NOT NULL,
                PRIMARY KEY (feed_id, user_id){check});
             INSERT INTO feed (id) VALUES ('a')"
        ))
        .await;
    let row = |n: usize| {
        let actor = if n == 3 { "01234567890".to_owned() } else { format!("u{n}") };
        change(Id::Text("a".into()), Id::Text(actor.into()), Action::Add)
    };
    let rows: Vec<RowChange> = (0..1_000).map(row).collect();
    flush_with_bad(fixture, &table(IdType::Text), &rows, &[3]).await;
}

pub async fn a_number_that_is_too_large(fixture: &Fixture) {
    let check = match fixture.engine {
        Engine::Sqlite => ", CHECK (user_id BETWEEN -2147483648 AND 2147483647)",
        _ => "",
    };
    fixture
        .run(&format!(
            "CREATE TABLE feed (id INTEGER NOT NULL PRIMARY KEY, like_count INTEGER NOT NULL DEFAULT 0);
             CREATE TABLE feed_like (feed_id INTEGER NOT NULL, user_id INTEGER NOT NULL, created_at BIGINT NOT NULL,
                PRIMARY KEY (feed_id, user_id){check});
             INSERT INTO feed (id) VALUES (1), (2)"
        ))
        .await;
    let rows: Vec<RowChange> = (0..1_000).map(|n| add(1 + n % 2, if n == 998 { i64::MAX } else { n })).collect();
    flush_with_bad(fixture, &table(IdType::Integer), &rows, &[998]).await;
}

pub async fn all_rows_bad(fixture: &Fixture) {
    let table = fixture.tables(10, ", CHECK (user_id < 0)").await;
    let rows: Vec<RowChange> = (0..64).map(|n| add(1 + n % 10, n)).collect();
    let all: Vec<usize> = (0..64).collect();
    flush_with_bad(fixture, &table, &rows, &all).await;
}

pub async fn a_row_that_breaks_another_unique_key(fixture: &Fixture) {
    let table = fixture.tables(10, "").await;
    // One actor, one target: a rule of the application that weir does not know.
    fixture.run("CREATE UNIQUE INDEX one_each ON feed_like (user_id)").await;
    let rows: Vec<RowChange> = (0..100).map(|n| add(1 + n % 10, if n == 50 { 3 } else { n })).collect();
    let from = fixture.claim(0).await;
    let applied = fixture.flush(&table, from, &rows).await;
    assert_eq!((applied.inserted, applied.dead.len()), (99, 1), "{:?}", applied.dead);
    fixture.counts_equal_rows().await;
}

pub async fn schema_errors_are_nobodys_dead_letter(fixture: &Fixture) {
    let table = fixture.tables(10, "").await;
    let from = fixture.claim(0).await;
    let fence = Fence { from, to: 5 };
    let rows: Vec<RowChange> = (0..10).map(|n| add(1 + n, n)).collect();
    // Once with prepared statements of the table as it was, once without.
    fixture.flush(&table, from, &[add(1, 1_000)]).await;
    let from = fixture.checkpoint(0).await.unwrap();
    fixture.run("ALTER TABLE feed_like RENAME TO elsewhere").await;
    for sql in [&fixture.sql, &fixture.other().await] {
        let error = sql.apply_toggles(KIND, &table, &[Fence { from, ..fence }], &rows, AT_MS).await.unwrap_err();
        assert!(matches!(&error, SqlError::Permanent(reason) if reason.contains("feed_like")), "{error:?}");
    }
    assert_eq!(fixture.checkpoint(0).await, Some(from));
    fixture.run("ALTER TABLE elsewhere RENAME TO feed_like; ALTER TABLE feed_like RENAME COLUMN user_id TO who").await;
    let error = fixture.sql.apply_toggles(KIND, &table, &[Fence { from, ..fence }], &rows, AT_MS).await.unwrap_err();
    assert!(matches!(&error, SqlError::Permanent(reason) if reason.contains("user_id")), "{error:?}");
    assert_eq!(fixture.number("SELECT count(*) FROM weir_dead_letter").await, 0);
    // Mended: the same flush goes through, without a restart.
    fixture.run("ALTER TABLE feed_like RENAME COLUMN who TO user_id").await;
    let applied = fixture.sql.apply_toggles(KIND, &table, &[Fence { from, ..fence }], &rows, AT_MS).await.unwrap();
    assert_eq!(applied.inserted, 10);
}

pub async fn a_column_that_weir_cannot_fill_is_nobodys_dead_letter(fixture: &Fixture) {
    let table = fixture.tables(10, "").await;
    let from = fixture.claim(0).await;
    let rows: Vec<RowChange> = (0..10).map(|n| add(1 + n, n)).collect();
    fixture.sql.check_toggle(&table).await.unwrap();
    fixture
        .run(
            "DROP TABLE feed_like;
             CREATE TABLE feed_like (feed_id BIGINT NOT NULL, user_id BIGINT NOT NULL, created_at BIGINT NOT NULL,
                tenant BIGINT NOT NULL, PRIMARY KEY (feed_id, user_id))",
        )
        .await;
    let error = fixture.sql.apply_toggles(KIND, &table, &[Fence { from, to: 5 }], &rows, AT_MS).await.unwrap_err();
    assert!(matches!(&error, SqlError::Permanent(reason) if reason.contains("tenant")), "{error:?}");
    assert_eq!(fixture.number("SELECT count(*) FROM weir_dead_letter").await, 0);
    assert_eq!(fixture.checkpoint(0).await, Some(from));
    let findings = fixture.sql.check_toggle(&table).await.unwrap();
    assert!(findings.iter().any(|finding| !finding.warning && finding.problem.contains("tenant")), "{findings:?}");
}

pub async fn dead_letters_are_listed_replayed_and_dropped(fixture: &Fixture) {
    let table = fixture.tables(10, ", FOREIGN KEY (feed_id) REFERENCES feed (id)").await;
    let from = fixture.claim(0).await;
    let rows = [add(1, 1), add(77, 1), add(78, 2), add(79, 3), add(80, 4)];
    let applied = fixture.flush(&table, from, &rows).await;
    assert_eq!(applied.dead.len(), 4);
    assert_eq!(fixture.sql.dead_letter_counts().await.unwrap(), vec![(KIND.to_owned(), 4)]);
    let first = fixture.sql.dead_letters(None, 0, 2).await.unwrap();
    let rest = fixture.sql.dead_letters(Some(KIND), first[1].id, 100).await.unwrap();
    assert_eq!((first.len(), rest.len()), (2, 2));
    assert!(fixture.sql.dead_letters(Some("other"), 0, 100).await.unwrap().is_empty());
    // Still bad: it stays, and says why.
    let error = fixture.sql.replay_dead_letter(&KindTable::Toggle(table.clone()), &first[0]).await.unwrap_err();
    assert!(matches!(&error, SqlError::Permanent(reason) if !reason.is_empty()), "{error:?}");
    assert_eq!(fixture.number("SELECT count(*) FROM weir_dead_letter").await, 4);
    // Mended: the row and the count are there, the letter is gone, and it is gone once.
    fixture.run("INSERT INTO feed (id) VALUES (77)").await;
    fixture.sql.replay_dead_letter(&KindTable::Toggle(table.clone()), &first[0]).await.unwrap();
    assert_eq!(fixture.number("SELECT like_count FROM feed WHERE id = 77").await, 1);
    fixture.counts_equal_rows().await;
    assert!(matches!(
        fixture.sql.replay_dead_letter(&KindTable::Toggle(table.clone()), &first[0]).await,
        Err(SqlError::Permanent(_))
    ));
    assert_eq!(fixture.number("SELECT like_count FROM feed WHERE id = 77").await, 1);
    assert_eq!(fixture.sql.drop_dead_letters(&[first[0].id, first[1].id, rest[0].id]).await.unwrap(), 2);
    assert_eq!(fixture.sql.drop_dead_letters(&[]).await.unwrap(), 0);
    let left = fixture.sql.dead_letters(None, 0, 100).await.unwrap();
    assert_eq!(left, rest[1..]);
}
