//! What a database leaves undone without an error: another unique key than the upsert's own, triggers that skip a row. It
//! is told by name, beside it everything is stored, and counts equal rows.

use serde_json::json;
use weir::config::{CounterTable, EventTable, FieldConfig, IngestTable, KindTable, PreferenceTable, ToggleTable};
use weir::model::{Id, IdType, Setting, SettingType, Settings};
use weir::sql::{Applied, CountRow, EventRow, Finding, Row, RowChange, SettingsRow};

use crate::documents::{create, playlists};
use crate::fixture::{Engine, Fixture, KIND, ORIGIN, Toggles as _, add, remove};

/// Makes the database leave out rows of `table` for which `condition` holds (`NEW` or `OLD` in it): without an error
/// where the engine can do that, and where it cannot with one.
async fn skip(fixture: &Fixture, event: &str, table: &str, condition: &str) {
    let name = format!("skip_{}_{table}", event.to_lowercase());
    let script = match fixture.engine {
        Engine::Sqlite => {
            format!("CREATE TRIGGER {name} BEFORE {event} ON {table} WHEN {condition} BEGIN SELECT RAISE(IGNORE); END")
        }
        Engine::Postgres => {
            let row = if event == "DELETE" { "OLD" } else { "NEW" };
            format!(
                "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN IF {condition} THEN RETURN NULL; END IF; RETURN {row}; END $$;
                 CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
            )
        }
        Engine::MariaDb | Engine::MySql => format!(
            "CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW
             IF {condition} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'a trigger refused it'; END IF"
        ),
    };
    fixture.run(&script).await;
}

/// The rows that are dead, which must be those at `bad`, and for a trigger's sake.
fn dead_by_trigger(applied: &Applied, bad: &[usize]) {
    let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
    assert_eq!(dead, bad, "{:?}", applied.dead);
    for (_, reason) in &applied.dead {
        assert!(reason.contains("trigger"), "{reason}");
    }
}

fn named<'f>(findings: &'f [Finding], problem: &str) -> &'f Finding {
    let found = findings.iter().find(|finding| finding.problem.contains(problem));
    found.unwrap_or_else(|| panic!("nobody says {problem:?}: {findings:#?}"))
}

async fn flush(fixture: &Fixture, table: &ToggleTable, rows: &[RowChange]) -> Applied {
    let rows: Vec<Row> = rows.iter().cloned().map(Row::Toggle).collect();
    fixture.store(&KindTable::Toggle(table.clone()), &rows).await
}

pub async fn skipped_likes_are_dead_alone(fixture: &Fixture) {
    let table = fixture.tables(10, "").await;
    let usual = flush(fixture, &table, &(0..500).map(|n| add(1 + n % 10, n)).collect::<Vec<_>>()).await;
    let again = flush(fixture, &table, &(0..500).map(|n| add(1 + n % 10, n)).collect::<Vec<_>>()).await;
    let cost = again.statements.saturating_sub(usual.statements);
    assert!(cost <= 1, "rows that are there already cost {cost} statements");
    skip(fixture, "INSERT", "feed_like", "NEW.user_id % 10 = 3").await;
    skip(fixture, "DELETE", "feed_like", "OLD.user_id % 100 = 7").await;
    // Some are there already, some are new, some go; some that go were never there.
    let mut rows: Vec<RowChange> = (400..1_000).map(|n| add(1 + n % 10, n)).collect();
    rows.extend((0..100).map(|n| remove(1 + n % 10, n)));
    rows.extend((2_000..2_010).map(|n| remove(1 + n % 10, n)));
    let skipped_add = |n: i64| n >= 500 && n % 10 == 3;
    let bad: Vec<usize> = rows
        .iter()
        .enumerate()
        .filter(|(index, row)| {
            let Id::Int(actor) = row.actor else { return false };
            if *index < 600 { skipped_add(actor) } else { actor == 7 }
        })
        .map(|(index, _)| index)
        .collect();
    assert_eq!(bad.len(), 51);
    let applied = flush(fixture, &table, &rows).await;
    dead_by_trigger(&applied, &bad);
    assert_eq!((applied.inserted, applied.deleted), (450, 99));
    assert_eq!(fixture.number("SELECT count(*) FROM feed_like").await, 500 + 450 - 99);
    fixture.counts_equal_rows().await;
    let letters = fixture.sql.dead_letters(Some(KIND), 0, 100).await.unwrap();
    assert_eq!(letters.len(), 51);
    // Still so: the letter stays. Mended: it is stored, and counted.
    let kind = KindTable::Toggle(table.clone());
    let letter = letters.iter().find(|letter| letter.action == "add").unwrap();
    assert!(fixture.sql.replay_dead_letter(&kind, letter).await.is_err());
    fixture.run(&drop_trigger(fixture, "skip_insert_feed_like", "feed_like")).await;
    fixture.sql.replay_dead_letter(&kind, letter).await.unwrap();
    fixture.counts_equal_rows().await;
}

fn drop_trigger(fixture: &Fixture, name: &str, table: &str) -> String {
    match fixture.engine {
        Engine::Postgres => format!("DROP TRIGGER {name} ON {table}"),
        Engine::Sqlite | Engine::MariaDb | Engine::MySql => format!("DROP TRIGGER {name}"),
    }
}

pub async fn likes_that_cannot_be_counted_are_dead(fixture: &Fixture) {
    let table = fixture.tables(10, "").await;
    skip(fixture, "UPDATE", "feed", "NEW.id = 4").await;
    let rows: Vec<RowChange> = (0..100).map(|n| add(1 + n % 10, n)).collect();
    let applied = flush(fixture, &table, &rows).await;
    let bad: Vec<usize> = (0..100).filter(|n| n % 10 == 3).collect();
    dead_by_trigger(&applied, &bad);
    assert_eq!(applied.inserted, 90);
    assert_eq!(fixture.number("SELECT count(*) FROM feed_like WHERE feed_id = 4").await, 0);
    fixture.counts_equal_rows().await;
}

fn settings_table() -> PreferenceTable {
    let field = |name: &str, field_type, default| FieldConfig {
        name: name.into(),
        column: format!("{name}_column"),
        field_type,
        default,
    };
    PreferenceTable {
        name: "member_setting".into(),
        member_column: "member_id".into(),
        member_type: IdType::Integer,
        fields: vec![
            field("minute", SettingType::Int, Setting::Int(5)),
            field("note", SettingType::Text, Setting::Text("".into())),
        ],
        members: None,
    }
}

/// Table `member_setting` with `extra` among its columns and constraints.
async fn settings(fixture: &Fixture, extra: &str) -> KindTable {
    fixture
        .run(&format!(
            "CREATE TABLE member_setting (member_id BIGINT NOT NULL PRIMARY KEY, minute_column INTEGER NOT NULL,
                note_column VARCHAR(40) NOT NULL{extra})"
        ))
        .await;
    KindTable::Preference(settings_table())
}

fn set(member: i64, minute: i64) -> Row {
    let (member, settings) = (Id::Int(member), Settings::of([("minute", &Setting::Int(minute))]));
    Row::Settings(SettingsRow { origin: ORIGIN, member, settings })
}

pub async fn another_unique_key_swallows_no_settings(fixture: &Fixture) {
    let extra = ", device_token VARCHAR(20) NOT NULL DEFAULT '', UNIQUE (device_token)";
    let kind = settings(fixture, extra).await;
    let applied = fixture.store(&kind, &[set(1, 1), set(2, 2), set(3, 3), set(4, 4)]).await;
    let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
    assert_eq!(dead, [1, 2, 3], "{:?}", applied.dead);
    for (_, reason) in &applied.dead {
        assert!(reason.contains("device_token"), "{reason}");
    }
    assert_eq!((applied.inserted, fixture.number("SELECT count(*) FROM member_setting").await), (1, 1));
    // Who has a row goes on; who gets a token of their own can be stored again.
    fixture.run("UPDATE member_setting SET device_token = 'one'").await;
    let letters = fixture.sql.dead_letters(Some(KIND), 0, 10).await.unwrap();
    fixture.sql.replay_dead_letter(&kind, &letters[0]).await.unwrap();
    let applied = fixture.store(&kind, &[set(1, 9), set(2, 9), set(5, 9)]).await;
    assert_eq!(applied.dead.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2]);
    assert_eq!(fixture.number("SELECT count(*) FROM member_setting WHERE minute_column = 9").await, 2);
    let findings = fixture.sql.check_table(&kind).await.unwrap();
    let finding = named(&findings, "another unique key");
    assert!(finding.warning && finding.problem.contains("(device_token)"), "{finding:?}");
    assert_eq!(findings.len(), 1, "{findings:?}");
}

pub async fn skipped_settings_are_dead_alone(fixture: &Fixture) {
    let kind = settings(fixture, "").await;
    fixture.store(&kind, &(0..200).map(|n| set(n, 1)).collect::<Vec<_>>()).await;
    skip(fixture, "INSERT", "member_setting", "NEW.member_id % 50 = 11").await;
    skip(fixture, "UPDATE", "member_setting", "NEW.member_id % 50 = 12").await;
    let rows: Vec<Row> = (0..400).map(|n| set(n, 2)).collect();
    let applied = fixture.store(&kind, &rows).await;
    let bad: Vec<usize> = (0..400).filter(|n| if *n < 200 { n % 50 == 12 } else { n % 50 == 11 }).collect();
    dead_by_trigger(&applied, &bad);
    assert_eq!(fixture.number("SELECT count(*) FROM member_setting WHERE minute_column = 2").await, 392);
    assert_eq!(fixture.number("SELECT count(*) FROM member_setting WHERE minute_column = 1").await, 4);
}

pub async fn updates_that_change_nothing_may_be_suppressed(fixture: &Fixture) {
    let kind = settings(fixture, "").await;
    if fixture.engine == Engine::Postgres {
        fixture
            .run(
                "CREATE TRIGGER quiet BEFORE UPDATE ON member_setting
                 FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            )
            .await;
    }
    for round in 0..2 {
        let applied = fixture.store(&kind, &(0..100).map(|n| set(n, 3)).collect::<Vec<_>>()).await;
        assert_eq!(applied.dead, vec![], "round {round}");
    }
    let rows: Vec<Row> = (0..100).map(|n| set(n, if n % 3 == 0 { 4 } else { 3 })).collect();
    assert_eq!(fixture.store(&kind, &rows).await.dead, vec![]);
    assert_eq!(fixture.number("SELECT count(*) FROM member_setting WHERE minute_column = 4").await, 34);
}

pub async fn skipped_counts_and_events_are_dead_alone(fixture: &Fixture) {
    fixture
        .run(
            "CREATE TABLE video (id BIGINT NOT NULL PRIMARY KEY, view_count BIGINT NOT NULL);
             INSERT INTO video VALUES (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0);
             CREATE TABLE video_view (video_id BIGINT NOT NULL, user_id BIGINT NOT NULL)",
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
    skip(fixture, "UPDATE", "video", "NEW.id = 5").await;
    skip(fixture, "INSERT", "video_view", "NEW.user_id = 42").await;
    let mut rows = Vec::new();
    for n in 1..=8 {
        rows.push(Row::Count(CountRow { origin: ORIGIN, target: Id::Int(n), by: 2 }));
    }
    for n in 1..=8 {
        let actor = Some(Id::Int(if n == 3 { 42 } else { n }));
        rows.push(Row::Event(EventRow { origin: ORIGIN, target: Id::Int(n), actor, by: 2 }));
    }
    let applied = fixture.store(&kind, &rows).await;
    dead_by_trigger(&applied, &[4, 10]);
    assert_eq!((applied.updated, applied.inserted), (7, 7));
    assert_eq!(fixture.number("SELECT count(*) FROM video WHERE view_count = 2").await, 7);
    assert_eq!(fixture.number("SELECT count(*) FROM video_view").await, 7);
}

pub async fn skipped_documents_are_dead_with_all_that_is_nested(fixture: &Fixture) {
    let table: IngestTable = playlists(fixture, "", "").await;
    let kind = KindTable::Ingest(table);
    skip(fixture, "INSERT", "playlist", "NEW.title = 'no list'").await;
    skip(fixture, "INSERT", "playlist_track", "NEW.title = 'no track'").await;
    let body = |n: u64| {
        let title = if n == 5 { "no list" } else { "list" };
        let track = if n == 11 { "no track" } else { "track" };
        json!({ "title": title, "tracks": [{ "title": "first" }, { "title": track }] })
    };
    let rows: Vec<Row> = (0..20).map(|n| create(n, &body(n))).collect();
    let applied = fixture.store(&kind, &rows).await;
    dead_by_trigger(&applied, &[5, 11]);
    assert_eq!(fixture.number("SELECT count(*) FROM playlist").await, 18);
    assert_eq!(fixture.number("SELECT count(*) FROM playlist_track").await, 36);
}

pub async fn a_table_that_ignores_or_replaces_is_overruled(fixture: &Fixture) {
    if fixture.engine != Engine::Sqlite {
        return;
    }
    for clause in ["IGNORE", "REPLACE"] {
        let extra = format!(", device_token TEXT NOT NULL DEFAULT '' UNIQUE ON CONFLICT {clause}");
        let kind = settings(fixture, &extra).await;
        let applied = fixture.store(&kind, &[set(1, 1), set(2, 2), set(3, 3)]).await;
        assert_eq!(applied.dead.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2], "{:?}", applied.dead);
        assert_eq!(fixture.number("SELECT member_id FROM member_setting").await, 1, "the first stays");
        fixture.run("DROP TABLE member_setting").await;
    }
}

pub async fn other_keys_and_triggers_are_named(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    fixture
        .run(
            "ALTER TABLE feed_like ADD COLUMN slot INTEGER NOT NULL DEFAULT 1;
             CREATE UNIQUE INDEX one_each ON feed_like (user_id, slot);
             ALTER TABLE feed_like ADD COLUMN ticket INTEGER;
             CREATE UNIQUE INDEX ticket_once ON feed_like (ticket);
             CREATE UNIQUE INDEX wider ON feed_like (slot, user_id, feed_id)",
        )
        .await;
    let findings = fixture.sql.check_toggle(&table).await.unwrap();
    assert_eq!(findings.len(), 1, "neither a key that is NULL, nor one that holds weir's own: {findings:#?}");
    assert!(findings[0].warning && findings[0].problem.contains("one_each (user_id, slot)"), "{findings:?}");
    if fixture.engine.is_mysql() {
        return;
    }
    skip(fixture, "INSERT", "feed_like", "NEW.user_id = 1").await;
    skip(fixture, "UPDATE", "feed", "NEW.id = 1").await;
    fixture.run("CREATE UNIQUE INDEX early ON feed_like (user_id) WHERE user_id < 9").await;
    let findings = fixture.sql.check_toggle(&table).await.unwrap();
    assert!(named(&findings, "skip_insert_feed_like on feed_like").problem.contains("(INSERT)"), "{findings:?}");
    assert!(named(&findings, "skip_update_feed on feed").problem.contains("(UPDATE)"), "{findings:?}");
    named(&findings, "early");
    assert!(findings.iter().all(|finding| finding.warning), "{findings:?}");
}
