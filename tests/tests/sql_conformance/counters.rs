//! Counters: sums, events, what can never be stored, what is loaded.

use uuid::Uuid;
use weir::config::{CounterTable, EventTable, KindTable};
use weir::model::{Id, IdType, Incarnation};
use weir::sql::{CountRow, EventRow, Fence, Row, Sql, SqlError};

use crate::fixture::{AT_MS, Engine, Fixture, KIND, ORIGIN};

/// The usual binding, with ids of `id_type`.
fn binding(id_type: IdType) -> CounterTable {
    CounterTable {
        name: "video".into(),
        key_column: "id".into(),
        count_column: "view_count".into(),
        target_type: id_type,
        actor_type: id_type,
        events: None,
    }
}

/// As `binding`, with all that a table of events may have.
fn with_events(id_type: IdType) -> CounterTable {
    let events = EventTable {
        name: "video_view".into(),
        target_column: "video_id".into(),
        actor_column: "user_id".into(),
        created_at_column: Some("seen_at".into()),
        by_column: Some("times".into()),
    };
    CounterTable { events: Some(events), ..binding(id_type) }
}

/// Table `video` with ids 1 to `targets`; those that 3 divides have no count yet.
async fn videos(fixture: &Fixture, targets: i64, count: &str) -> CounterTable {
    fixture.run(&format!("CREATE TABLE video (id BIGINT NOT NULL PRIMARY KEY, view_count {count})")).await;
    let rows: Vec<String> =
        (1..=targets).map(|id| format!("({id}, {})", if id % 3 == 0 { "NULL" } else { "5" })).collect();
    for part in rows.chunks(1_000) {
        fixture.run(&format!("INSERT INTO video (id, view_count) VALUES {}", part.join(","))).await;
    }
    binding(IdType::Integer)
}

/// Table `video_view`, with `extra` among its columns and constraints.
async fn views(fixture: &Fixture, extra: &str) -> CounterTable {
    fixture
        .run(&format!(
            "CREATE TABLE video_view (video_id BIGINT NOT NULL, user_id BIGINT, seen_at BIGINT NOT NULL,
                times INTEGER NOT NULL{extra})"
        ))
        .await;
    with_events(IdType::Integer)
}

fn count(target: i64, by: u64) -> Row {
    Row::Count(CountRow { origin: ORIGIN, target: Id::Int(target), by })
}

fn event(target: i64, actor: Option<i64>, by: u64) -> Row {
    Row::Event(EventRow { origin: ORIGIN, target: Id::Int(target), actor: actor.map(Id::Int), by })
}

async fn seen(fixture: &Fixture, target: i64) -> i64 {
    let text = fixture.text(&format!("SELECT CAST(view_count AS CHAR(20)) FROM video WHERE id = {target}")).await;
    text.trim().parse().unwrap()
}

pub async fn sums_are_added_and_null_is_zero(fixture: &Fixture) {
    let table = KindTable::Counter(videos(fixture, 6, "BIGINT").await);
    // Backwards: the engine must lock in order by itself.
    let applied = fixture.store(&table, &[count(4, 1), count(3, 2), count(1, 10)]).await;
    assert_eq!((applied.updated, applied.inserted, applied.deleted, applied.dead.len()), (3, 0, 0, 0));
    let counts = [seen(fixture, 1).await, seen(fixture, 3).await, seen(fixture, 4).await, seen(fixture, 5).await];
    assert_eq!(counts, [15, 2, 6, 5]);
    fixture.store(&table, &[count(3, 1)]).await;
    assert_eq!(seen(fixture, 3).await, 3);
}

pub async fn many_sums_are_few_statements(fixture: &Fixture) {
    let table = KindTable::Counter(videos(fixture, 5_000, "BIGINT").await);
    let rows: Vec<Row> = (1..=5_000).rev().map(|target| count(target, 2)).collect();
    let applied = fixture.store(&table, &rows).await;
    assert_eq!((applied.updated, applied.dead.len()), (5_000, 0));
    // Begin, fence, mark, commit; and reading and writing, on one engine in five chunks each.
    assert!(applied.statements <= 14, "{} statements", applied.statements);
    let right = "SELECT count(*) FROM video WHERE view_count = CASE WHEN id % 3 = 0 THEN 2 ELSE 7 END";
    assert_eq!(fixture.number(right).await, 5_000);
    let few = fixture.store(&table, &[count(1, 1), count(2, 1)]).await;
    assert!(few.statements <= 6, "{} statements", few.statements);
}

pub async fn a_vanished_target_is_dead_alone(fixture: &Fixture) {
    let table = KindTable::Counter(videos(fixture, 10, "BIGINT").await);
    let rows: Vec<Row> = (1..=20).map(|target| count(target, 3)).collect();
    let applied = fixture.store(&table, &rows).await;
    assert_eq!(applied.updated, 10);
    assert_eq!(applied.dead.iter().map(|(index, _)| *index).collect::<Vec<_>>(), (10..20).collect::<Vec<_>>());
    assert!(applied.dead.iter().all(|(_, reason)| reason.contains("not there")), "{:?}", applied.dead);
    assert!(applied.statements <= 8, "{} statements: nothing had to be searched for", applied.statements);
    let letter = fixture.sql.dead_letters(Some(KIND), 0, 1).await.unwrap().remove(0);
    assert_eq!((letter.action.as_str(), letter.target.as_str(), letter.actor.as_str()), ("count", "11", ""));
    assert_eq!((letter.body.as_deref(), letter.at_ms, letter.position), (Some("{\"by\":3}"), AT_MS, 7));
    assert_eq!(letter.digest, "07".repeat(32));
}

pub async fn a_sum_that_leaves_the_range_is_dead_alone(fixture: &Fixture) {
    let narrow = if fixture.engine == Engine::Sqlite { "BIGINT" } else { "INTEGER" };
    let table = KindTable::Counter(videos(fixture, 100, narrow).await);
    let most = if fixture.engine == Engine::Sqlite { i64::MAX } else { i32::MAX.into() };
    fixture.run(&format!("UPDATE video SET view_count = {} WHERE id IN (40, 41)", most - 5)).await;
    let mut rows: Vec<Row> = (1..=100).map(|target| count(target, if target == 41 { 5 } else { 6 })).collect();
    rows.push(count(7, u64::MAX));
    rows.remove(6);
    let applied = fixture.store(&table, &rows).await;
    let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
    assert_eq!((applied.updated, dead), (98, vec![38, 99]), "{:?}", applied.dead);
    assert_eq!((seen(fixture, 40).await, seen(fixture, 41).await), (most - 5, most), "nothing is clamped");
    assert_eq!((seen(fixture, 7).await, seen(fixture, 39).await, seen(fixture, 100).await), (5, 6, 11));
    assert!(applied.statements < 100, "{} statements", applied.statements);
    if fixture.engine == Engine::Sqlite {
        assert_eq!(fixture.number("SELECT count(*) FROM video WHERE typeof(view_count) <> 'integer'").await, 0);
    }
}

pub async fn sixty_four_bits_are_exact(fixture: &Fixture) {
    let table = videos(fixture, 2, "BIGINT").await;
    fixture.run("UPDATE video SET view_count = 9007199254740992 WHERE id = 1").await;
    let kind = KindTable::Counter(table.clone());
    let large = (1 << 62) + 1;
    fixture.store(&kind, &[count(1, 1), count(2, large)]).await;
    let expected = vec![Some(9_007_199_254_740_993), Some(large + 5)];
    assert_eq!(fixture.sql.load_counts(&table, &[Id::Int(1), Id::Int(2)]).await.unwrap(), expected);
    // Signed 64 bits are the end, whatever the count.
    let applied = fixture.store(&kind, &[count(2, large)]).await;
    assert_eq!((applied.updated, applied.dead.len()), (0, 1));
    assert_eq!(fixture.sql.load_counts(&table, &[Id::Int(1), Id::Int(2)]).await.unwrap(), expected);
}

pub async fn events_are_inserted_beside_their_counts(fixture: &Fixture) {
    videos(fixture, 3, "BIGINT").await;
    let table = KindTable::Counter(views(fixture, "").await);
    // The same hit twice: no key is assumed.
    let rows =
        [event(2, Some(9), 1), event(2, Some(9), 1), count(2, 5), event(2, None, 3), count(1, 1), event(1, Some(8), 1)];
    let applied = fixture.store(&table, &rows).await;
    assert_eq!((applied.updated, applied.inserted, applied.dead.len()), (2, 4, 0));
    assert_eq!((seen(fixture, 1).await, seen(fixture, 2).await), (6, 10));
    let twice = "SELECT count(*) FROM video_view WHERE video_id = 2 AND user_id = 9 AND times = 1";
    assert_eq!(fixture.number(twice).await, 2);
    assert_eq!(fixture.number("SELECT count(*) FROM video_view WHERE user_id IS NULL AND times = 3").await, 1);
    assert_eq!(fixture.number("SELECT count(DISTINCT seen_at) FROM video_view").await, 1);
    assert_eq!(fixture.number("SELECT min(seen_at) FROM video_view").await, i64::try_from(AT_MS).unwrap());
    let rows: Vec<Row> = (0..5_000).map(|n| event(1, Some(n), 1)).chain([count(1, 5_000)]).collect();
    let applied = fixture.store(&table, &rows).await;
    assert_eq!((applied.inserted, applied.updated), (5_000, 1));
    assert!(applied.statements <= 20, "{} statements", applied.statements);
    // Only what is needed.
    fixture.run("DROP TABLE video_view; CREATE TABLE video_view (video_id BIGINT NOT NULL, user_id BIGINT)").await;
    let KindTable::Counter(mut table) = table else { unreachable!() };
    table.events.as_mut().unwrap().created_at_column = None;
    table.events.as_mut().unwrap().by_column = None;
    let applied = fixture.store(&KindTable::Counter(table), &[event(2, None, 1), event(2, Some(1), 1)]).await;
    assert_eq!((applied.inserted, fixture.number("SELECT count(*) FROM video_view").await), (2, 2));
}

pub async fn a_bad_event_is_dead_alone_and_its_count_stays(fixture: &Fixture) {
    videos(fixture, 3, "BIGINT").await;
    let table = KindTable::Counter(views(fixture, ", CHECK (user_id <> 13)").await);
    let mut rows: Vec<Row> = (0..500).map(|n| event(1, Some(if n == 77 { 13 } else { n + 1_000 }), 1)).collect();
    rows.extend([count(1, 500), count(99, 1), event(99, None, 1)]);
    let applied = fixture.store(&table, &rows).await;
    let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
    assert_eq!((applied.updated, applied.inserted, dead), (1, 500, vec![77, 501]), "{:?}", applied.dead);
    assert_eq!(seen(fixture, 1).await, 505);
    let letters = fixture.sql.dead_letters(Some(KIND), 0, 9).await.unwrap();
    let of: Vec<_> = letters.iter().map(|letter| (letter.action.as_str(), letter.actor.as_str())).collect();
    assert_eq!(of, [("event", "13"), ("count", "")]);
    assert!(letters.iter().all(|letter| letter.body.as_deref() == Some("{\"by\":1}")));
    // A table that takes no event at all is nobody's dead letter.
    fixture.run("ALTER TABLE video_view ADD COLUMN note VARCHAR(9)").await;
    fixture
        .run(
            "DROP TABLE video_view;
             CREATE TABLE video_view (video_id BIGINT NOT NULL, user_id BIGINT, seen_at BIGINT NOT NULL,
                times INTEGER NOT NULL, tenant BIGINT NOT NULL)",
        )
        .await;
    let from = fixture.checkpoint(0).await.unwrap();
    let rows = [count(1, 1), event(1, None, 1)];
    let error = fixture.sql.apply(KIND, &table, &[Fence { from, to: 99 }], &rows, AT_MS).await.unwrap_err();
    assert!(matches!(&error, SqlError::Permanent(reason) if reason.contains("tenant")), "{error:?}");
    assert_eq!((fixture.checkpoint(0).await, seen(fixture, 1).await), (Some(from), 505));
}

pub async fn a_zombie_adds_nothing(fixture: &Fixture) {
    videos(fixture, 3, "BIGINT").await;
    let table = KindTable::Counter(views(fixture, "").await);
    let old = fixture.claim(0).await;
    let new = fixture.sql.claim(KIND, &[(0, old.incarnation)], true).await.unwrap()[0];
    let rows = [count(1, 1), event(1, None, 1), count(99, 1)];
    let refused = fixture.sql.apply(KIND, &table, &[Fence { from: old, to: 5 }], &rows, AT_MS).await;
    assert_eq!(refused, Err(SqlError::Fenced));
    assert_eq!((fixture.checkpoint(0).await, seen(fixture, 1).await), (Some(new), 5));
    let left = "SELECT (SELECT count(*) FROM video_view) + (SELECT count(*) FROM weir_dead_letter)";
    assert_eq!(fixture.number(left).await, 0);
    // The same batch again, after its commit.
    let fence = [Fence { from: new, to: 5 }];
    fixture.sql.apply(KIND, &table, &fence, &rows, AT_MS).await.unwrap();
    assert_eq!(fixture.sql.apply(KIND, &table, &fence, &rows, AT_MS).await, Err(SqlError::Fenced));
    assert_eq!((seen(fixture, 1).await, fixture.number(left).await), (6, 2));
}

pub async fn counts_are_loaded_in_order(fixture: &Fixture) {
    let table = videos(fixture, 3_000, "BIGINT").await;
    let ids: Vec<Id> = (0..3_002).rev().map(Id::Int).collect();
    let found = fixture.sql.load_counts(&table, &ids).await.unwrap();
    let expected = |id: i64| match id {
        0 | 3_001 => None,
        _ if id % 3 == 0 => Some(0),
        _ => Some(5),
    };
    assert_eq!(found, (0..3_002).rev().map(expected).collect::<Vec<_>>());
    assert_eq!(fixture.sql.load_counts(&table, &[]).await.unwrap(), vec![]);
    let twice = [Id::Int(1), Id::Int(1)];
    assert_eq!(fixture.sql.load_counts(&table, &twice).await.unwrap(), vec![Some(5), Some(5)]);
    let kind = KindTable::Counter(table);
    let explained = fixture.sql.explain(&kind, &Id::Int(1), None).await.unwrap();
    assert_eq!((&explained["count"], &explained["target_exists"]), (&5.into(), &true.into()));
    let explained = fixture.sql.explain(&kind, &Id::Int(0), None).await.unwrap();
    assert_eq!((explained["count"].is_null(), &explained["target_exists"]), (true, &false.into()));
}

pub async fn counters_of_every_id_type(fixture: &Fixture) {
    let cases = match fixture.engine {
        Engine::Sqlite => vec![(IdType::Uuid, "TEXT"), (IdType::Uuid, "BLOB"), (IdType::Text, "TEXT")],
        Engine::Postgres => vec![(IdType::Integer, "INTEGER"), (IdType::Uuid, "UUID"), (IdType::Text, "VARCHAR(191)")],
        Engine::MariaDb | Engine::MySql => vec![
            (IdType::Integer, "INT UNSIGNED"),
            (IdType::Uuid, "BINARY(16)"),
            (IdType::Uuid, "UUID"),
            (IdType::Text, "VARCHAR(191) COLLATE utf8mb4_nopad_bin"),
        ],
    };
    let cases = cases.into_iter().filter(|(_, column)| fixture.engine.has(column));
    for (index, (id_type, column)) in cases.enumerate() {
        let mut table = with_events(id_type);
        table.name = format!("video_{index}");
        table.events.as_mut().unwrap().name = format!("video_view_{index}");
        fixture
            .run(&format!(
                "CREATE TABLE video_{index} (id {column} NOT NULL PRIMARY KEY, view_count BIGINT NOT NULL DEFAULT 0);
                 CREATE TABLE video_view_{index} (video_id {column} NOT NULL, user_id {column},
                    seen_at BIGINT NOT NULL, times INTEGER NOT NULL)"
            ))
            .await;
        let id = |n: u8| match id_type {
            IdType::Integer => Id::Int(n.into()),
            IdType::Uuid => Id::Uuid(Uuid::from_u128(u128::MAX - u128::from(n) * (1 << 70))),
            IdType::Text => Id::Text(format!("it's {n} \\ é").into()),
        };
        let literal = |n: u8| match (id(n), column) {
            (Id::Int(n), _) => n.to_string(),
            (Id::Uuid(uuid), "BLOB" | "BINARY(16)") => format!("x'{}'", uuid.simple()),
            (other, _) if fixture.engine.is_mysql() => {
                format!("'{}'", other.to_string().replace('\\', "\\\\").replace('\'', "''"))
            }
            (other, _) => format!("'{}'", other.to_string().replace('\'', "''")),
        };
        fixture.run(&format!("INSERT INTO video_{index} (id) VALUES ({}), ({})", literal(1), literal(2))).await;
        let count = |n: u8| Row::Count(CountRow { origin: ORIGIN, target: id(n), by: n.into() });
        let event = |n: u8, actor: Option<u8>| {
            Row::Event(EventRow { origin: ORIGIN, target: id(n), actor: actor.map(id), by: 1 })
        };
        let rows = [count(1), count(2), count(3), event(1, Some(2)), event(2, None)];
        let applied = fixture.store(&KindTable::Counter(table.clone()), &rows).await;
        assert_eq!((applied.updated, applied.inserted), (2, 2), "{column}");
        assert_eq!(applied.dead.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2], "{column}");
        let loaded = fixture.sql.load_counts(&table, &[id(2), id(3), id(1)]).await.unwrap();
        assert_eq!(loaded, vec![Some(2), None, Some(1)], "{column}");
    }
}

pub async fn counts_and_events_are_replayed_once(fixture: &Fixture) {
    videos(fixture, 3, "BIGINT").await;
    let references = ", FOREIGN KEY (video_id) REFERENCES video (id)";
    let table = KindTable::Counter(views(fixture, references).await);
    let applied = fixture.store(&table, &[count(9, 4), event(9, Some(5), 4), event(9, None, 1), count(1, 1)]).await;
    assert_eq!((applied.updated, applied.dead.len()), (1, 3));
    let letters = fixture.sql.dead_letters(Some(KIND), 0, 9).await.unwrap();
    for letter in &letters {
        let error = fixture.sql.replay_dead_letter(&table, letter).await.unwrap_err();
        assert!(matches!(&error, SqlError::Permanent(reason) if !reason.is_empty()), "{error:?}");
    }
    assert_eq!(fixture.sql.dead_letters(Some(KIND), 0, 9).await.unwrap(), letters, "they stay");
    fixture.run("INSERT INTO video (id) VALUES (9)").await;
    let other = fixture.other().await;
    for letter in &letters {
        // Two operators at once: one of them does it.
        let replays =
            tokio::join!(fixture.sql.replay_dead_letter(&table, letter), other.replay_dead_letter(&table, letter));
        let done = [replays.0, replays.1].into_iter().filter(Result::is_ok).count();
        assert_eq!(done, 1);
        assert!(matches!(fixture.sql.replay_dead_letter(&table, letter).await, Err(SqlError::Permanent(_))));
    }
    assert_eq!(seen(fixture, 9).await, 4);
    assert_eq!(fixture.number("SELECT count(*) FROM video_view").await, 2);
    assert_eq!(fixture.number("SELECT count(*) FROM video_view WHERE user_id = 5 AND times = 4").await, 1);
    assert!(fixture.sql.dead_letters(Some(KIND), 0, 9).await.unwrap().is_empty());
}

pub async fn counters_on_one_table_do_not_deadlock(fixture: &Fixture) {
    let views = videos(fixture, 40, "BIGINT").await;
    fixture.run("ALTER TABLE video ADD COLUMN play_count BIGINT").await;
    let plays = CounterTable { count_column: "play_count".into(), ..views.clone() };
    let (one, two) = (fixture.other().await, fixture.other().await);
    let flush = async |sql: &dyn Sql, kind: &str, table: &CounterTable, backwards: bool| {
        let mut from = sql.claim(kind, &[(0, Incarnation::fresh())], false).await.unwrap()[0];
        for _ in 0..12 {
            let mut rows: Vec<Row> = (1..=40).map(|target| count(target, 1)).collect();
            if backwards {
                rows.reverse();
            }
            let fence = Fence { from, to: from.position + 1 };
            sql.apply(kind, &KindTable::Counter(table.clone()), &[fence], &rows, AT_MS).await.unwrap();
            from.position += 1;
        }
    };
    tokio::join!(flush(&*one, "views", &views, false), flush(&*two, "plays", &plays, true));
    assert_eq!(fixture.number("SELECT count(*) FROM video WHERE play_count = 12 AND view_count >= 12").await, 40);
}

pub async fn a_changed_table_is_nobodys_dead_letter(fixture: &Fixture) {
    let counter = videos(fixture, 3, "BIGINT").await;
    let table = KindTable::Counter(counter.clone());
    fixture.store(&table, &[count(1, 1)]).await;
    let from = fixture.checkpoint(0).await.unwrap();
    let fence = [Fence { from, to: 9 }];
    // The ids become texts while the host runs: what it prepared finds nothing.
    let text = if fixture.engine == Engine::Sqlite { "TEXT" } else { "VARCHAR(40)" };
    fixture.run(&format!("ALTER TABLE video RENAME TO old; CREATE TABLE video (id {text} NOT NULL PRIMARY KEY, view_count BIGINT); INSERT INTO video VALUES ('x1', 7)")).await;
    let error = fixture.sql.apply(KIND, &table, &fence, &[count(1, 1)], AT_MS).await.unwrap_err();
    assert!(matches!(error, SqlError::Permanent(_)), "{error:?}");
    assert_eq!(fixture.number("SELECT count(*) FROM weir_dead_letter").await, 0);
    fixture.run("DROP TABLE video; ALTER TABLE old RENAME TO video").await;
    fixture.sql.apply(KIND, &table, &fence, &[count(1, 1)], AT_MS).await.unwrap();
    assert_eq!(seen(fixture, 1).await, 7);
}

pub async fn rows_of_another_capability_are_refused(fixture: &Fixture) {
    let table = videos(fixture, 1, "BIGINT").await;
    let from = fixture.claim(0).await;
    let fence = [Fence { from, to: 1 }];
    let toggle = Row::Toggle(crate::fixture::add(1, 1));
    for rows in [vec![toggle], vec![count(1, 1), event(1, None, 1)]] {
        let refused = fixture.sql.apply(KIND, &KindTable::Counter(table.clone()), &fence, &rows, AT_MS).await;
        assert!(matches!(refused, Err(SqlError::Permanent(_))), "{refused:?}");
    }
    assert_eq!((fixture.checkpoint(0).await, seen(fixture, 1).await), (Some(from), 5));
}
