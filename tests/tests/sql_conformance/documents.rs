//! Documents: inserted in bulk with what is nested in them, found bad alone, rejected, replayed.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;
use weir::config::{ChildTable, IngestConfig, IngestTable, KindTable};
use weir::model::{Id, IdType, Origin};
use weir::sql::{DocumentRow, Fence, Row, SqlError, StoredDocument};

use crate::fixture::{AT_MS, Engine, Fixture, KIND, ORIGIN};

/// The tables of the demo, as each engine would have them; `extra` and `extra_child` are more constraints.
pub async fn playlists(fixture: &Fixture, extra: &str, extra_child: &str) -> IngestTable {
    let length = if fixture.engine == Engine::Sqlite { " CHECK (length(title) <= 40)" } else { "" };
    let (id, time) = match fixture.engine {
        Engine::Sqlite => ("TEXT", "TEXT"),
        Engine::Postgres => ("UUID", "TIMESTAMPTZ"),
        Engine::MariaDb | Engine::MySql => ("BINARY(16)", "DATETIME(3)"),
    };
    fixture
        .run(&format!(
            "CREATE TABLE playlist (id {id} NOT NULL PRIMARY KEY, user_id BIGINT NOT NULL,
                title VARCHAR(40) NOT NULL{length}, description TEXT, created_at {time} NOT NULL{extra});
             CREATE INDEX playlist_of_user ON playlist (user_id, created_at);
             CREATE TABLE playlist_track (playlist_id {id} NOT NULL, position INTEGER NOT NULL,
                title VARCHAR(40) NOT NULL, seconds INTEGER{extra_child}, PRIMARY KEY (playlist_id, position),
                FOREIGN KEY (playlist_id) REFERENCES playlist (id))"
        ))
        .await;
    IngestConfig::demo().table
}

/// An id that weir might have made.
pub fn id(n: u64) -> Id {
    Id::Uuid(Uuid::from_u128((0x0192_f0c1_2345_7abc << 64) + u128::from(n)))
}

/// A document of actor 1 with id `n`, accepted `n` milliseconds after [`AT_MS`].
pub fn create(n: u64, body: &Value) -> Row {
    row(id(n), AT_MS + n, &body.to_string())
}

fn row(id: Id, at_ms: u64, body: &str) -> Row {
    let origin = Origin { at_ms, ..ORIGIN };
    Row::Document(DocumentRow { origin, id, actor: Id::Int(1), body: Arc::from(body) })
}

fn tracks(n: u64, count: usize) -> Value {
    let track = |index: usize| json!({ "title": format!("{n}/{index}"), "seconds": index });
    json!({ "title": format!("list {n}"), "tracks": (0..count).map(track).collect::<Vec<_>>() })
}

/// What came back, which must be there.
pub fn body(document: Option<&StoredDocument>) -> Value {
    Value::Object(document.expect("the document is stored").body.clone())
}

async fn load(fixture: &Fixture, table: &IngestTable, ids: &[u64]) -> Vec<Option<StoredDocument>> {
    let ids: Vec<Id> = ids.iter().copied().map(id).collect();
    fixture.sql.load_documents(table, &ids).await.unwrap()
}

pub async fn documents_come_back_as_they_were(fixture: &Fixture) {
    let table = playlists(fixture, "", "").await;
    let kind = KindTable::Ingest(table.clone());
    let bodies = [
        json!({ "title": "a", "description": "b", "tracks": [{ "title": "x", "seconds": 3 }, { "title": "y" }] }),
        json!({ "title": "only" }),
        json!({ "title": "null", "description": null, "tracks": [] }),
    ];
    let rows: Vec<Row> = bodies.iter().zip(1..).map(|(body, n)| create(n, body)).collect();
    let applied = fixture.store(&kind, &rows).await;
    assert_eq!((applied.inserted, applied.deleted, applied.updated, &applied.dead), (3, 0, 0, &vec![]));
    // Begin, fence, mark, two inserts (in powers of two on one engine), commit.
    assert!(applied.statements <= 8, "{} statements", applied.statements);
    let found = load(fixture, &table, &[3, 9, 1, 2, 1]).await;
    assert_eq!(found[1], None);
    assert_eq!(body(found[2].as_ref()), bodies[0]);
    assert_eq!(body(found[3].as_ref()), bodies[1]);
    assert_eq!(body(found[0].as_ref()), json!({ "title": "null" }), "NULLs and empty arrays are left out");
    assert_eq!(found[2], found[4]);
    let first = found[2].as_ref().unwrap();
    assert_eq!((&first.id, &first.actor, first.at_ms), (&id(1), &Some(Id::Int(1)), Some(AT_MS + 1)));
    let explained = fixture.sql.explain(&kind, &id(1), None).await.unwrap();
    assert_eq!(explained["document"], bodies[0]);
    assert!(fixture.sql.explain(&kind, &id(9), None).await.unwrap()["document"].is_null());
}

pub async fn a_thousand_documents_are_few_statements(fixture: &Fixture) {
    let table = playlists(fixture, "", "").await;
    let rows: Vec<Row> = (0..1_000).map(|n| create(n, &tracks(n, 10))).collect();
    let applied = fixture.store(&KindTable::Ingest(table.clone()), &rows).await;
    assert_eq!((applied.inserted, applied.dead.len()), (1_000, 0));
    // Ten thousand tracks; on one engine in chunks of a thousand rows.
    assert!(applied.statements <= 25, "{} statements", applied.statements);
    assert_eq!(fixture.number("SELECT count(*) FROM playlist_track").await, 10_000);
    let ids: Vec<u64> = (0..1_000).collect();
    let found = load(fixture, &table, &ids).await;
    assert!(found.iter().zip(0..).all(|(document, n)| body(document.as_ref()) == tracks(n, 10)));
}

pub async fn one_bad_document_among_a_thousand(fixture: &Fixture) {
    let table = playlists(fixture, ", CHECK (title <> 'bad')", ", CHECK (title <> 'bad')").await;
    let kind = KindTable::Ingest(table.clone());
    // Bad by itself, and bad by the last of its tracks; at the ends and in the middle.
    let bad_list = json!({ "title": "bad", "tracks": [{ "title": "x" }] });
    let bad_track = json!({ "title": "good", "tracks": [{ "title": "x" }, { "title": "y" }, { "title": "bad" }] });
    for (round, (bad, document)) in
        [(0, &bad_list), (999, &bad_track), (640, &bad_list), (333, &bad_track)].into_iter().enumerate()
    {
        let base = 10_000 * round as u64;
        let rows: Vec<Row> =
            (0..1_000).map(|n| create(base + n, &if n == bad { document.clone() } else { tracks(n, 2) })).collect();
        let applied = fixture.store(&kind, &rows).await;
        let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
        assert_eq!((applied.inserted, dead), (999, vec![bad as usize]), "{:?}", applied.dead);
        assert!(!applied.dead[0].1.is_empty());
        assert!(applied.statements < 500, "{} statements for one bad document", applied.statements);
        assert_eq!(load(fixture, &table, &[base + bad]).await, [None]);
    }
    assert_eq!(fixture.number("SELECT count(*) FROM playlist").await, 4 * 999);
    assert_eq!(fixture.number("SELECT count(*) FROM playlist_track").await, 4 * 999 * 2, "nothing is left of the bad");
    let letters = fixture.sql.dead_letters(Some(KIND), 0, 10).await.unwrap();
    let first = &letters[0];
    assert_eq!((first.action.as_str(), first.actor.as_str()), ("create", "1"));
    assert_eq!(first.target, id(0).to_string());
    assert_eq!((first.at_ms, first.position, first.dead_at_ms), (AT_MS, 7, AT_MS + 1));
    assert_eq!(serde_json::from_str::<Value>(first.body.as_deref().unwrap()).unwrap(), bad_list);
    assert_eq!(letters.len(), 4);
}

pub async fn every_way_to_be_bad(fixture: &Fixture) {
    fixture.run("CREATE TABLE member (id BIGINT NOT NULL PRIMARY KEY); INSERT INTO member VALUES (1)").await;
    let references = ", UNIQUE (title), FOREIGN KEY (user_id) REFERENCES member (id)";
    let table = playlists(fixture, references, "").await;
    fixture.store(&KindTable::Ingest(table.clone()), &[create(500, &json!({ "title": "taken" }))]).await;
    let nobody = |n: u64| match create(n, &json!({ "title": "nobody" })) {
        Row::Document(row) => Row::Document(DocumentRow { actor: Id::Int(77), ..row }),
        other => other,
    };
    let long = "x".repeat(41);
    let rows = vec![
        create(1, &json!({ "title": "one" })),
        create(500, &json!({ "title": "the same id" })),
        create(2, &json!({ "title": "taken" })),
        nobody(3),
        create(4, &json!({})),
        create(5, &json!({ "title": long })),
        create(6, &json!({ "title": format!("{}   ", "x".repeat(38)) })),
        create(7, &json!({ "title": "a", "tracks": [{ "title": "x", "seconds": 1.5 }] })),
        create(8, &json!({ "title": "b", "tracks": [{ "title": "x", "seconds": "many" }] })),
        create(9, &json!({ "title": "c", "tracks": [{ "title": "x", "seconds": 1_u64 << 63 }] })),
        create(10, &json!({ "title": "d", "tracks": [{ "seconds": 1 }] })),
        create(11, &json!({ "title": "e", "tracks": [5] })),
        create(12, &json!({ "title": "f", "tracks": { "title": "x" } })),
        create(13, &json!({ "title": "g", "colour": "red" })),
        create(14, &json!({ "title": "h", "tracks": [{ "title": "x", "colour": "red" }] })),
        row(id(15), AT_MS, "[1]"),
        row(id(16), AT_MS, "{\"title\": "),
        row(id(17), AT_MS, "\0"),
        create(18, &json!({ "title": "last" })),
    ];
    let applied = fixture.store(&KindTable::Ingest(table.clone()), &rows).await;
    let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
    assert_eq!(dead, (1..18).collect::<Vec<_>>(), "{:#?}", applied.dead);
    assert!(applied.dead.iter().all(|(_, reason)| !reason.is_empty()));
    assert_eq!((applied.inserted, fixture.number("SELECT count(*) FROM playlist").await), (2, 3));
    assert_eq!(fixture.number("SELECT count(*) FROM playlist_track").await, 0);
    assert_eq!(fixture.number("SELECT count(*) FROM weir_dead_letter").await, 17);
    let found = load(fixture, &table, &[500]).await;
    assert_eq!(body(found[0].as_ref()), json!({ "title": "taken" }), "what was there stays as it was");
}

pub async fn a_zombie_creates_nothing(fixture: &Fixture) {
    let table = KindTable::Ingest(playlists(fixture, "", "").await);
    let old = fixture.claim(0).await;
    let new = fixture.sql.claim(KIND, &[(0, old.incarnation)], true).await.unwrap()[0];
    let rows = [create(1, &tracks(1, 2)), create(2, &json!({}))];
    let refused = fixture.sql.apply(KIND, &table, &[Fence { from: old, to: 5 }], &rows, AT_MS).await;
    assert_eq!((refused, fixture.checkpoint(0).await), (Err(SqlError::Fenced), Some(new)));
    let all = "SELECT (SELECT count(*) FROM playlist) + (SELECT count(*) FROM playlist_track)
        + (SELECT count(*) FROM weir_dead_letter)";
    assert_eq!(fixture.number(all).await, 0);
    let fence = [Fence { from: new, to: 5 }];
    fixture.sql.apply(KIND, &table, &fence, &rows, AT_MS).await.unwrap();
    assert_eq!(fixture.sql.apply(KIND, &table, &fence, &rows, AT_MS).await, Err(SqlError::Fenced));
    assert_eq!(fixture.number(all).await, 4);
}

pub async fn tables_that_take_no_document_are_nobodys_dead_letter(fixture: &Fixture) {
    let table = playlists(fixture, "", "").await;
    let kind = KindTable::Ingest(table);
    fixture.store(&kind, &[create(1, &tracks(1, 1))]).await;
    let from = fixture.checkpoint(0).await.unwrap();
    fixture
        .run(
            "ALTER TABLE playlist_track RENAME TO elsewhere;
             CREATE TABLE playlist_track (playlist_id INTEGER, position INTEGER NOT NULL, title VARCHAR(40) NOT NULL,
                seconds INTEGER, tenant BIGINT NOT NULL)",
        )
        .await;
    let fence = [Fence { from, to: 9 }];
    for sql in [&fixture.sql, &fixture.other().await] {
        let error = sql.apply(KIND, &kind, &fence, &[create(2, &tracks(2, 1))], AT_MS).await.unwrap_err();
        assert!(matches!(error, SqlError::Permanent(_)), "{error:?}");
    }
    assert_eq!(fixture.number("SELECT count(*) FROM weir_dead_letter").await, 0);
    assert_eq!(fixture.checkpoint(0).await, Some(from));
    // Mended: the same flush goes through, without a restart.
    fixture.run("DROP TABLE playlist_track; ALTER TABLE elsewhere RENAME TO playlist_track").await;
    fixture.sql.apply(KIND, &kind, &fence, &[create(2, &tracks(2, 1))], AT_MS).await.unwrap();
    assert_eq!(fixture.number("SELECT count(*) FROM playlist_track").await, 2);
}

pub async fn rejections_tell_the_newest_letter(fixture: &Fixture) {
    let table = playlists(fixture, "", "").await;
    let kind = KindTable::Ingest(table);
    for title in ["first", "second"] {
        let bad = |n: u64| create(n, &json!({ "title": title, "colour": n }));
        fixture.store(&kind, &[bad(1), bad(2), create(100, &json!({ "title": title }))]).await;
    }
    let ids: Vec<Id> = [2, 7, 1, 100, 2].map(id).to_vec();
    let found = fixture.sql.rejections(KIND, &ids).await.unwrap();
    let titles: Vec<Option<String>> = found
        .iter()
        .map(|letter| {
            let body: Value = serde_json::from_str(letter.as_ref()?.body.as_deref()?).ok()?;
            Some(format!("{} {}", body["title"].as_str()?, body["colour"]))
        })
        .collect();
    let second = |n: u64| Some(format!("second {n}"));
    // The second one with id 100 is a letter, too: its id was taken.
    assert_eq!(titles[..3], [second(2), None, second(1)]);
    assert!(found[3].is_some() && found[4] == found[0]);
    assert_eq!(fixture.sql.rejections("other", &ids).await.unwrap(), vec![None; 5]);
    assert_eq!(fixture.sql.rejections(KIND, &[]).await.unwrap(), vec![]);
    let many: Vec<Id> = (0..2_500).map(id).collect();
    let found = fixture.sql.rejections(KIND, &many).await.unwrap();
    assert_eq!(found.iter().flatten().count(), 3);
}

pub async fn a_document_is_replayed_once(fixture: &Fixture) {
    let table = playlists(fixture, ", CHECK (title <> 'bad')", "").await;
    let kind = KindTable::Ingest(table.clone());
    let document = json!({ "title": "bad", "tracks": [{ "title": "x", "seconds": 1 }, { "title": "y" }] });
    fixture.store(&kind, &[create(1, &document)]).await;
    let letter = fixture.sql.dead_letters(Some(KIND), 0, 9).await.unwrap().remove(0);
    let error = fixture.sql.replay_dead_letter(&kind, &letter).await.unwrap_err();
    assert!(matches!(&error, SqlError::Permanent(reason) if !reason.is_empty()), "{error:?}");
    assert_eq!(fixture.number("SELECT count(*) FROM weir_dead_letter").await, 1);
    fixture.run("DROP TABLE playlist_track; DROP TABLE playlist").await;
    playlists(fixture, "", "").await;
    let other = fixture.other().await;
    let replays =
        tokio::join!(fixture.sql.replay_dead_letter(&kind, &letter), other.replay_dead_letter(&kind, &letter));
    assert_eq!([&replays.0, &replays.1].into_iter().filter(|replay| replay.is_ok()).count(), 1, "{replays:?}");
    assert_eq!(body(load(fixture, &table, &[1]).await[0].as_ref()), document);
    assert_eq!(load(fixture, &table, &[1]).await[0].as_ref().unwrap().at_ms, Some(AT_MS + 1));
    assert_eq!(fixture.number("SELECT count(*) FROM weir_dead_letter").await, 0);
    // A letter of which no row can be made says why, and stays.
    fixture.store(&kind, &[create(2, &json!({ "title": 5, "colour": 1 }))]).await;
    let letter = fixture.sql.dead_letters(Some(KIND), 0, 9).await.unwrap().remove(0);
    let error = fixture.sql.replay_dead_letter(&kind, &letter).await.unwrap_err();
    assert!(matches!(&error, SqlError::Permanent(reason) if reason.contains("colour")), "{error:?}");
    assert_eq!(fixture.sql.dead_letters(Some(KIND), 0, 9).await.unwrap(), [letter]);
}

pub async fn an_actors_documents_are_paged_newest_first(fixture: &Fixture) {
    let mut table = playlists(fixture, "", "").await;
    let kind = KindTable::Ingest(table.clone());
    // Three of each millisecond, and some of somebody else.
    let rows: Vec<Row> = (0..60)
        .map(|n| match create(n, &tracks(n, 1)) {
            Row::Document(row) => {
                let actor = Id::Int(if n % 10 == 9 { 2 } else { 1 });
                let origin = Origin { at_ms: AT_MS + n / 3, ..ORIGIN };
                Row::Document(DocumentRow { origin, actor, ..row })
            }
            other => other,
        })
        .collect();
    fixture.store(&kind, &rows).await;
    let own: Vec<u64> = (0..60).rev().filter(|n| n % 10 != 9).collect();
    for with_times in [true, false] {
        if !with_times {
            // Ids made in order are in the same order.
            fixture.run("ALTER TABLE playlist RENAME COLUMN created_at TO made_at").await;
            table.created_at_column = None;
        }
        for limit in [1, 4, 7, 100] {
            let mut paged: Vec<StoredDocument> = Vec::new();
            loop {
                let page = fixture.sql.documents_of(&table, &Id::Int(1), paged.last(), limit).await.unwrap();
                assert!(page.len() <= limit);
                if page.is_empty() {
                    break;
                }
                paged.extend(page);
            }
            let ids: Vec<Id> = paged.iter().map(|document| document.id.clone()).collect();
            assert_eq!(ids, own.iter().copied().map(id).collect::<Vec<_>>(), "pages of {limit}, times: {with_times}");
            assert_eq!(body(paged.first()), tracks(58, 1));
            let at_ms = with_times.then_some(AT_MS + 58 / 3);
            assert_eq!((paged[0].at_ms, &paged[0].actor), (at_ms, &Some(Id::Int(1))));
        }
    }
    assert_eq!(fixture.sql.documents_of(&table, &Id::Int(1), None, 0).await.unwrap(), vec![]);
    assert_eq!(fixture.sql.documents_of(&table, &Id::Int(3), None, 9).await.unwrap(), vec![]);
    table.actor_column = None;
    assert_eq!(fixture.sql.documents_of(&table, &Id::Int(1), None, 9).await.unwrap(), vec![]);
}

pub async fn nested_values_of_every_shape(fixture: &Fixture) {
    let id_column = if fixture.engine.is_mysql() { "VARCHAR(40) COLLATE utf8mb4_nopad_bin" } else { "TEXT" };
    fixture
        .run(&format!(
            "CREATE TABLE album (id {id_column} NOT NULL PRIMARY KEY);
             CREATE TABLE album_tag (album_id {id_column} NOT NULL, n INTEGER NOT NULL, tag VARCHAR(40));
             CREATE TABLE album_score (album_id {id_column} NOT NULL, score INTEGER NOT NULL);
             CREATE TABLE album_note (album_id {id_column} NOT NULL, note VARCHAR(40), UNIQUE (album_id, note))"
        ))
        .await;
    let child = |field: &str, name: &str, position: Option<&str>, value: &str| ChildTable {
        field: field.into(),
        name: name.into(),
        parent_column: "album_id".into(),
        position_column: position.map(Into::into),
        value_column: Some(value.into()),
        columns: [].into(),
    };
    let table = IngestTable {
        name: "album".into(),
        id_column: "id".into(),
        id_type: IdType::Text,
        actor_column: None,
        actor_type: IdType::Integer,
        created_at_column: None,
        columns: [].into(),
        children: vec![
            child("tags", "album_tag", Some("n"), "tag"),
            child("scores", "album_score", None, "score"),
            child("notes", "album_note", None, "note"),
        ],
    };
    let create = |name: &str, body: Value| row(Id::Text(name.into()), AT_MS, &body.to_string());
    let rows = [
        // The field with the id is in the document, and has no other place.
        create("it's \\", json!({ "slug": "it's \\", "tags": ["z", null, "a", "z"], "scores": [9, 1, 5] })),
        create("b", json!({ "notes": ["y", "x"], "tags": [] })),
        create("c", json!({ "slug": "somebody else's" })),
    ];
    let applied = fixture.store(&KindTable::Ingest(table.clone()), &rows).await;
    assert_eq!((applied.inserted, applied.dead.len()), (2, 1), "{:?}", applied.dead);
    let ids = ["b", "it's \\", "c"].map(|name| Id::Text(name.into()));
    let found = fixture.sql.load_documents(&table, &ids).await.unwrap();
    assert_eq!(body(found[0].as_ref()), json!({ "notes": ["x", "y"] }), "in the order of the key");
    assert_eq!(body(found[1].as_ref()), json!({ "tags": ["z", null, "a", "z"], "scores": [1, 5, 9] }));
    assert_eq!((&found[2], found[1].as_ref().unwrap().at_ms), (&None, None));
}
