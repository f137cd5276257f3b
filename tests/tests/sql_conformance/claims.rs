//! Who may flush; weir's own tables.

use weir::config::KindTable;
use weir::journal::Hole;
use weir::model::{Checkpoint, Incarnation, JournalId, KnownJournal};
use weir::sql::{Fence, Passed, SqlError};

use crate::fixture::{Engine, Fixture, KIND};

pub async fn a_claim_creates_raises_and_respects(fixture: &Fixture) {
    let old = Incarnation::fresh();
    let new = Incarnation::after(old);
    assert_eq!(fixture.sql.checkpoints(KIND, &[3, 1]).await.unwrap(), vec![None, None]);
    let made = fixture.sql.claim(KIND, &[(3, old), (1, old)], true).await.unwrap();
    assert_eq!(made.iter().map(|row| row.partition).collect::<Vec<_>>(), vec![3, 1]);
    assert!(made.iter().all(|row| row.incarnation == old && row.position == 0 && row.epoch == made[0].epoch));
    // The same again changes nothing; taking over raises the epoch.
    assert_eq!(fixture.sql.claim(KIND, &[(3, old)], false).await.unwrap(), vec![made[0]]);
    let taken = fixture.sql.claim(KIND, &[(3, old)], true).await.unwrap()[0];
    assert_eq!((taken.epoch, taken.incarnation), (made[0].epoch + 1, old));
    // A later life starts anew and fences the old one; an earlier one is left alone.
    let later = fixture.sql.claim(KIND, &[(3, new)], false).await.unwrap()[0];
    assert_eq!((later.epoch, later.incarnation, later.position), (taken.epoch + 1, new, 0));
    assert_eq!(fixture.sql.claim(KIND, &[(3, old)], true).await.unwrap(), vec![later]);
    // Partition 1 and other kinds were not touched.
    assert_eq!(fixture.checkpoint(1).await, Some(made[1]));
    assert_eq!(fixture.sql.checkpoints("other", &[3]).await.unwrap(), vec![None]);
    let both = fixture.sql.checkpoints(KIND, &[1, 2, 3]).await.unwrap();
    assert_eq!(both, vec![Some(made[1]), None, Some(later)]);
}

pub async fn two_claimers_agree(fixture: &Fixture) {
    let life = Incarnation::fresh();
    let wanted: Vec<(u16, Incarnation)> = (0..8).map(|partition| (partition, life)).collect();
    let (one, two) = (fixture.other().await, fixture.other().await);
    let claim = async |sql: &dyn weir::sql::Sql| loop {
        match sql.claim(KIND, &wanted, true).await {
            Ok(rows) => return rows,
            Err(SqlError::Transient(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    };
    let (first, second) = tokio::join!(claim(&*one), claim(&*two));
    // One came first; the other's epochs are higher, and they are what is there.
    let winner = if first[0].epoch > second[0].epoch { &first } else { &second };
    assert!(first.iter().zip(&second).all(|(a, b)| a.epoch != b.epoch && a.incarnation == b.incarnation));
    let now: Vec<_> = fixture.sql.checkpoints(KIND, &(0..8).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(now.into_iter().flatten().collect::<Vec<_>>(), *winner);
}

pub async fn a_hole_is_recorded_once_by_the_step_that_leaves_it_behind(fixture: &Fixture) {
    let row = fixture.claim(3).await;
    let (amount, total_amount) = (Some(1 << 60), Some(1 << 61));
    let hole =
        Hole { after: 0, last: 70, next: Some(90), changes: 5, amount, is_exact: true, total: Some(6), total_amount };
    let targets = ["7".to_owned(), "it's \"ö\"".to_owned()];
    let life = Incarnation::after(row.incarnation);
    let passed = Passed { from: &row, life, hole: &hole, targets: &targets };
    let after = fixture.sql.pass_hole(KIND, passed, 1_000).await.unwrap();
    assert_eq!(after, Checkpoint { incarnation: life, epoch: row.epoch + 1, position: 89, ..row });
    assert_eq!(fixture.checkpoint(3).await, Some(after));
    // Whoever was there before is fenced, and so is who finds the hole once more.
    assert_eq!(fixture.sql.pass_hole(KIND, passed, 2_000).await, Err(SqlError::Fenced));
    let table = fixture.tables(3, "").await;
    let late = fixture.sql.apply(KIND, &KindTable::Toggle(table), &[Fence { from: row, to: 95 }], &[], 0).await;
    assert_eq!(late, Err(SqlError::Fenced));
    let found = fixture.sql.journal_holes(None, true, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    let told = &found[0];
    assert_eq!((told.kind.as_str(), told.partition, told.incarnation.clone()), (KIND, 3, row.incarnation.to_string()));
    assert_eq!((told.after, told.last, told.next), (0, 70, Some(90)));
    assert_eq!((told.changes, told.amount, told.is_exact), (5, Some(1 << 60), true));
    assert_eq!((told.targets.as_slice(), told.found_at_ms, told.acknowledged_at_ms), (&targets[..], 1_000, None));

    let end = Hole { next: None, amount: None, is_exact: false, ..hole };
    let passed = Passed { from: &after, life: Incarnation::after(life), hole: &end, targets: &[] };
    assert_eq!(fixture.sql.pass_hole(KIND, passed, 3_000).await.unwrap().position, 70, "to the end of what was lost");
    assert_eq!(fixture.sql.acknowledge_holes("other", 9).await, Ok(0));
    assert_eq!(fixture.sql.acknowledge_holes(KIND, 4_000).await, Ok(2));
    assert_eq!(fixture.sql.acknowledge_holes(KIND, 5_000).await, Ok(0));
    assert_eq!(fixture.sql.journal_holes(Some(KIND), true, 10).await.unwrap(), vec![]);
    let all = fixture.sql.journal_holes(Some(KIND), false, 10).await.unwrap();
    let told: Vec<_> =
        all.iter().map(|hole| (hole.next, hole.amount, hole.is_exact, hole.acknowledged_at_ms)).collect();
    assert_eq!(told, [(None, None, false, Some(4_000)), (Some(90), Some(1 << 60), true, Some(4_000))], "newest first");
    assert_eq!(fixture.sql.journal_holes(Some("other"), false, 10).await.unwrap(), vec![]);
    assert_eq!(fixture.sql.journal_holes(None, false, 1).await.unwrap().len(), 1);
}

pub async fn migrations_run_at_once(fixture: &Fixture) {
    fixture.run("DROP TABLE weir_meta; DROP TABLE weir_checkpoint; DROP TABLE weir_dead_letter").await;
    let hosts = [fixture.other().await, fixture.other().await, fixture.other().await, fixture.other().await];
    let done = futures_util::future::join_all(hosts.iter().map(|host| host.migrate())).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    fixture.sql.migrate().await.unwrap();
    assert_eq!(fixture.number("SELECT count(*) FROM weir_meta").await, 1);
    fixture.claim(0).await;
}

/// weir's tables as schema 1 had them.
fn schema_one(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => {
            "CREATE TABLE weir_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
             CREATE TABLE weir_checkpoint (
                kind TEXT NOT NULL, \"partition\" INTEGER NOT NULL, incarnation TEXT NOT NULL, epoch INTEGER NOT NULL,
                \"position\" INTEGER NOT NULL, PRIMARY KEY (kind, \"partition\")) WITHOUT ROWID;
             CREATE TABLE weir_dead_letter (
                id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, \"partition\" INTEGER NOT NULL,
                target TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, at_ms INTEGER NOT NULL,
                incarnation TEXT NOT NULL, \"position\" INTEGER NOT NULL, digest TEXT NOT NULL, reason TEXT NOT NULL,
                dead_at_ms INTEGER NOT NULL)"
        }
        Engine::Postgres => {
            "CREATE TABLE weir_meta (name text PRIMARY KEY, value text NOT NULL);
             CREATE TABLE weir_checkpoint (
                kind text NOT NULL, \"partition\" integer NOT NULL, incarnation uuid NOT NULL, epoch bigint NOT NULL,
                \"position\" bigint NOT NULL, PRIMARY KEY (kind, \"partition\"));
             CREATE TABLE weir_dead_letter (
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL, \"partition\" integer NOT NULL,
                target text NOT NULL, actor text NOT NULL, action text NOT NULL, at_ms bigint NOT NULL,
                incarnation text NOT NULL, \"position\" bigint NOT NULL, digest text NOT NULL, reason text NOT NULL,
                dead_at_ms bigint NOT NULL)"
        }
        Engine::MariaDb | Engine::MySql => {
            "CREATE TABLE weir_meta (name VARCHAR(64) NOT NULL PRIMARY KEY, value VARCHAR(255) NOT NULL)
                CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
             CREATE TABLE weir_checkpoint (
                kind VARCHAR(64) NOT NULL, `partition` INT NOT NULL, incarnation CHAR(36) NOT NULL,
                epoch BIGINT NOT NULL, `position` BIGINT NOT NULL, PRIMARY KEY (kind, `partition`))
                CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
             CREATE TABLE weir_dead_letter (
                id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, kind VARCHAR(64) NOT NULL, `partition` INT NOT NULL,
                target VARCHAR(191) NOT NULL, actor VARCHAR(191) NOT NULL, action VARCHAR(16) NOT NULL,
                at_ms BIGINT NOT NULL, incarnation VARCHAR(36) NOT NULL, `position` BIGINT NOT NULL,
                digest CHAR(64) NOT NULL, reason TEXT NOT NULL, dead_at_ms BIGINT NOT NULL)
                CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        }
    }
}

pub async fn schema_one_is_upgraded_with_its_rows(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    fixture.run("DROP TABLE weir_meta; DROP TABLE weir_checkpoint; DROP TABLE weir_dead_letter").await;
    fixture.run(schema_one(fixture.engine)).await;
    let life = Incarnation::fresh();
    let (partition, position) = match fixture.engine {
        Engine::MariaDb | Engine::MySql => ("`partition`", "`position`"),
        _ => ("\"partition\"", "\"position\""),
    };
    fixture
        .run(&format!(
            "INSERT INTO weir_meta VALUES ('schema', '1'), ('partitions', '8');
             INSERT INTO weir_checkpoint VALUES ('{KIND}', 3, '{life}', 5, 77);
             INSERT INTO weir_dead_letter (kind, {partition}, target, actor, action, at_ms, incarnation, {position},
                digest, reason, dead_at_ms)
                VALUES ('{KIND}', 3, '1', '9', 'add', 5, '{life}', 6, '{}', 'so it was', 7)",
            "07".repeat(32)
        ))
        .await;
    let hosts = [fixture.other().await, fixture.other().await, fixture.other().await];
    let done = futures_util::future::join_all(hosts.iter().map(|host| host.migrate())).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    fixture.sql.migrate().await.unwrap();
    assert_eq!(fixture.text("SELECT value FROM weir_meta WHERE name = 'schema'").await, "3");
    assert_eq!(fixture.sql.journal_holes(None, false, 10).await.unwrap(), vec![]);
    let expected = Checkpoint { partition: 3, incarnation: life, epoch: 5, position: 77 };
    assert_eq!(fixture.checkpoint(3).await, Some(expected));
    assert_eq!(fixture.sql.check_partitions(8).await.unwrap(), None);
    let letters = fixture.sql.dead_letters(None, 0, 9).await.unwrap();
    let known = (letters[0].reason.as_str(), letters[0].position, letters[0].dead_at_ms, &letters[0].body);
    assert_eq!((letters.len(), known), (1, ("so it was", 6, 7, &None)));
    // New letters have all of theirs, old ones can still be stored.
    let kind = KindTable::Toggle(table.clone());
    fixture.sql.replay_dead_letter(&kind, &letters[0]).await.unwrap();
    assert_eq!(fixture.number("SELECT like_count FROM feed WHERE id = 1").await, 1);
    fixture.run("CREATE UNIQUE INDEX one_each ON feed_like (user_id)").await;
    let applied = fixture.flush(&table, fixture.claim(0).await, &[crate::fixture::add(2, 9)]).await;
    assert_eq!((applied.dead.len(), fixture.sql.dead_letters(None, 0, 9).await.unwrap().len()), (1, 1));
    let index = match fixture.engine {
        Engine::Sqlite => "SELECT count(*) FROM pragma_index_info('weir_dead_letter_target')",
        Engine::Postgres => "SELECT count(*) FROM pg_indexes WHERE indexname = 'weir_dead_letter_target'",
        Engine::MariaDb | Engine::MySql => {
            "SELECT count(*) FROM information_schema.statistics
             WHERE table_schema = DATABASE() AND index_name = 'weir_dead_letter_target'"
        }
    };
    assert!(fixture.number(index).await > 0, "rejections are found by an index");
}

pub async fn a_later_schema_is_refused(fixture: &Fixture) {
    fixture.run("UPDATE weir_meta SET value = '999' WHERE name = 'schema'").await;
    let error = fixture.sql.migrate().await.unwrap_err();
    assert!(matches!(&error, SqlError::Permanent(reason) if reason.contains("upgrade weir")), "{error:?}");
}

pub async fn the_number_of_partitions_is_recorded(fixture: &Fixture) {
    assert_eq!(fixture.sql.check_partitions(8).await.unwrap(), None);
    assert_eq!(fixture.sql.check_partitions(8).await.unwrap(), None);
    assert_eq!(fixture.other().await.check_partitions(16).await.unwrap(), Some(8));
    assert_eq!(fixture.sql.check_partitions(8).await.unwrap(), None);
}

pub async fn another_database_claims_nothing(fixture: &Fixture) {
    let life = Incarnation::fresh();
    assert_eq!(fixture.sql.database_id().await.unwrap(), None, "nobody has given it one");
    let hosts = [fixture.other().await, fixture.other().await];
    let (one, two) = tokio::join!(hosts[0].identify(), hosts[1].identify());
    let id = one.unwrap();
    assert_eq!((two.unwrap(), fixture.sql.database_id().await.unwrap()), (id, Some(id)), "one id, whoever came first");
    fixture.sql.pin(id);
    let before = fixture.sql.claim(KIND, &[(0, life)], true).await.unwrap();

    let exchanges = [
        ("UPDATE weir_meta SET value = '7d444840-9dc0-11d1-b245-5ffdce74fad2' WHERE name = 'database'", None),
        ("DELETE FROM weir_meta WHERE name = 'database'", None),
        ("ALTER TABLE weir_meta RENAME TO gone", Some("ALTER TABLE gone RENAME TO weir_meta")),
    ];
    for (exchange, back) in exchanges {
        fixture.run(exchange).await;
        for take_over in [true, false] {
            let refused =
                fixture.sql.claim(KIND, &[(0, Incarnation::fresh()), (1, life)], take_over).await.unwrap_err();
            let SqlError::Permanent(reason) = &refused else { panic!("{refused:?}") };
            assert!(reason.contains(&id.to_string()) && reason.contains("weir store adopt"), "{exchange}: {reason}");
        }
        if let Some(back) = back {
            fixture.run(back).await;
        }
        let rows = fixture.sql.checkpoints(KIND, &[0, 1]).await.unwrap();
        assert_eq!(rows, [Some(before[0]), None], "{exchange}: nothing was claimed");
    }
    fixture.run(&format!("INSERT INTO weir_meta (name, value) VALUES ('database', '{id}')")).await;
    fixture.sql.claim(KIND, &[(1, life)], true).await.unwrap();
}

pub async fn journals_are_noted(fixture: &Fixture) {
    let known = |kind: &str, number: u128, is_closed: bool| KnownJournal {
        kind: kind.into(),
        journal: JournalId(uuid::Uuid::from_u128(number)),
        place: format!("embedded /srv/{number}"),
        is_closed,
    };
    assert_eq!(fixture.sql.journals().await.unwrap(), []);
    fixture.sql.note_journals(&[known("b", 1, false), known("a", 1, false)]).await.unwrap();
    fixture.sql.note_journals(&[known("b", 2, true)]).await.unwrap();
    assert_eq!(fixture.sql.journals().await.unwrap(), [known("a", 1, false), known("b", 2, true)]);
    fixture.run("DROP TABLE weir_journal").await;
    assert_eq!(fixture.other().await.journals().await.unwrap(), [], "an earlier version had no such table");
}
