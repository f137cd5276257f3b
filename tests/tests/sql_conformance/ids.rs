//! Ids and times of every type that a column may have.

use std::collections::BTreeSet;

use serde_json::json;
use uuid::Uuid;
use weir::config::{IngestTable, KindTable};
use weir::model::{Action, Id, IdType, Origin};
use weir::sql::{Applied, DocumentRow, Finding, Problem, Row, StoredDocument, TargetState};

use crate::documents::body;
use crate::fixture::{AT_MS, Engine, Fixture, ORIGIN, Toggles as _, change, table};

/// Type of ids, and the column types that may hold them.
fn columns(engine: Engine) -> Vec<(IdType, &'static str)> {
    use IdType::{Integer, Text, Uuid};
    match engine {
        Engine::Sqlite => {
            vec![(Integer, "INTEGER"), (Integer, "BIGINT"), (Uuid, "TEXT"), (Uuid, "BLOB"), (Text, "TEXT")]
        }
        Engine::Postgres => vec![
            (Integer, "SMALLINT"),
            (Integer, "INTEGER"),
            (Integer, "BIGINT"),
            (Uuid, "UUID"),
            (Text, "TEXT"),
            (Text, "VARCHAR(191)"),
        ],
        Engine::MariaDb | Engine::MySql => vec![
            (Integer, "INT"),
            (Integer, "INT UNSIGNED"),
            (Integer, "BIGINT"),
            (Integer, "BIGINT UNSIGNED"),
            (Uuid, "BINARY(16)"),
            (Uuid, "CHAR(36)"),
            (Uuid, "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin"),
            (Uuid, "UUID"),
            (Text, "VARCHAR(191) COLLATE utf8mb4_nopad_bin"),
        ],
    }
}

fn id(id_type: IdType, n: u8) -> Id {
    match id_type {
        IdType::Integer => Id::Int(i64::from(n)),
        IdType::Uuid => Id::Uuid(Uuid::from_u128(u128::MAX - u128::from(n) * (1 << 70))),
        IdType::Text => Id::Text(format!("id-{n}").into()),
    }
}

async fn create(fixture: &Fixture, column: &str, created: &str) {
    fixture
        .run(&format!(
            "DROP TABLE IF EXISTS feed_like; DROP TABLE IF EXISTS feed;
             CREATE TABLE feed (id {column} NOT NULL PRIMARY KEY, like_count INTEGER NOT NULL DEFAULT 0);
             CREATE TABLE feed_like (feed_id {column} NOT NULL, user_id {column} NOT NULL, created_at {created},
                PRIMARY KEY (feed_id, user_id))"
        ))
        .await;
}

/// Inserts a target by weir's own way of writing ids: an unknown target has no count, so the row is written by hand.
async fn target(fixture: &Fixture, column: &str, id: &Id) {
    let text = match (id, column) {
        (Id::Int(number), _) => number.to_string(),
        (Id::Uuid(uuid), "BLOB" | "BINARY(16)") => format!("x'{}'", uuid.simple()),
        (other, _) => format!("'{other}'"),
    };
    fixture.run(&format!("INSERT INTO feed (id) VALUES ({text})")).await;
}

pub async fn every_id_type(fixture: &Fixture) {
    for (id_type, column) in columns(fixture.engine).into_iter().filter(|(_, column)| fixture.engine.has(column)) {
        create(fixture, column, "BIGINT NOT NULL").await;
        fixture.run("DELETE FROM weir_checkpoint").await;
        let table = table(id_type);
        let findings = fixture.sql.check_toggle(&table).await.unwrap();
        let is_narrow = |finding: &Finding| finding.name == Problem::NarrowInteger;
        assert!(findings.iter().all(is_narrow), "{column}: {findings:?}");
        let ids: Vec<Id> = (1..=5).map(|n| id(id_type, n)).collect();
        for each in &ids {
            target(fixture, column, each).await;
        }
        let from = fixture.claim(0).await;
        let rows: Vec<_> =
            ids.iter().flat_map(|t| ids.iter().map(|a| change(t.clone(), a.clone(), Action::Add))).collect();
        let applied = fixture.flush(&table, from, &rows).await;
        assert_eq!((applied.inserted, &applied.dead), (25, &vec![]), "{column}");
        let from = fixture.checkpoint(0).await.unwrap();
        let rows: Vec<_> = ids.iter().map(|a| change(ids[0].clone(), a.clone(), Action::Remove)).collect();
        let applied = fixture.flush(&table, from, &rows[1..]).await;
        assert_eq!((applied.deleted, &applied.dead), (4, &vec![]), "{column}");
        fixture.counts_equal_rows().await;
        assert_eq!(fixture.number("SELECT count(*) FROM feed_like").await, 21, "{column}");
        let loaded = fixture.sql.load_targets(&table, &ids, 100).await.unwrap();
        assert_eq!(loaded[0].state, TargetState::Whole(vec![(ids[0].clone(), AT_MS)]), "{column}");
        let TargetState::Whole(members) = &loaded[1].state else { panic!("{column}: {loaded:?}") };
        assert_eq!(members.iter().map(|(id, _)| id).collect::<BTreeSet<_>>(), ids.iter().collect(), "{column}");
        let pairs = [(ids[0].clone(), ids[0].clone()), (ids[0].clone(), ids[1].clone())];
        assert_eq!(fixture.sql.load_pairs(&table, &pairs).await.unwrap(), vec![Some(AT_MS), None], "{column}");
        let page = fixture.sql.load_members(&table, &ids[1], None, 3).await.unwrap();
        let rest = fixture.sql.load_members(&table, &ids[1], page.last(), 3).await.unwrap();
        let mut expected = ids.clone();
        expected.sort_by_key(|id| std::cmp::Reverse(id.to_string()));
        let got: Vec<Id> = page.into_iter().chain(rest).map(|member| member.actor).collect();
        assert_eq!(got, expected, "{column}");
    }
}

/// What a careless statement, comparison or collation would take for something else.
const HOSTILE: &[&str] = &[
    "'",
    "''",
    "\"",
    "\\",
    "\\'",
    "\\\\",
    "%",
    "_",
    "a",
    "A",
    "a ",
    " a",
    "á",
    "a\u{301}",
    "ß",
    "ss",
    "ä",
    "😀",
    "; DROP TABLE feed;--",
    "{}",
    "[1]",
    "null",
    "NULL",
    "0",
    "00",
    "1e3",
    "$1",
    "?",
    ":a",
    "\u{200b}",
    "\u{fffd}",
    "{\"a\":1}",
    "x'00'",
    "{1,2}",
    "NaN",
    "日本語",
    "\u{202e}abc",
    "/*",
    "--",
    "`",
    "$$",
];

pub async fn hostile_texts(fixture: &Fixture) {
    let column = match fixture.engine {
        Engine::MariaDb | Engine::MySql => "VARCHAR(191) COLLATE utf8mb4_nopad_bin",
        _ => "VARCHAR(191)",
    };
    create(fixture, column, "BIGINT NOT NULL").await;
    let table = table(IdType::Text);
    let long = "😀".repeat(47);
    let texts: Vec<&str> = HOSTILE.iter().copied().chain([long.as_str()]).collect();
    let ids: Vec<Id> = texts.iter().map(|text| Id::parse(IdType::Text, text).unwrap()).collect();
    assert!(Id::parse(IdType::Text, "a\0b").is_err(), "NUL never gets here");
    for text in texts {
        let text = match fixture.engine {
            Engine::MariaDb | Engine::MySql => text.replace('\\', "\\\\").replace('\'', "''"),
            _ => text.replace('\'', "''"),
        };
        fixture.run(&format!("INSERT INTO feed (id) VALUES ('{text}')")).await;
    }
    let from = fixture.claim(0).await;
    let rows: Vec<_> = ids.iter().flat_map(|t| ids.iter().map(|a| change(t.clone(), a.clone(), Action::Add))).collect();
    let Applied { inserted, dead, .. } = fixture.flush(&table, from, &rows).await;
    assert_eq!((inserted, dead), (rows.len() as u64, vec![]));
    fixture.counts_equal_rows().await;
    for row in fixture.sql.load_targets(&table, &ids, 100).await.unwrap() {
        let TargetState::Whole(members) = row.state else { panic!("{:?}", row.target) };
        assert_eq!(members.iter().map(|(id, _)| id).collect::<BTreeSet<_>>(), ids.iter().collect(), "{:?}", row.target);
    }
    let from = fixture.checkpoint(0).await.unwrap();
    let rows: Vec<_> = ids.iter().map(|a| change(ids[0].clone(), a.clone(), Action::Remove)).collect();
    assert_eq!(fixture.flush(&table, from, &rows).await.deleted, ids.len() as u64);
    fixture.counts_equal_rows().await;
    let mut paged = Vec::new();
    while let Ok(page) = fixture.sql.load_members(&table, &ids[1], paged.last(), 7).await
        && !page.is_empty()
    {
        paged.extend(page);
    }
    let mut expected = ids.clone();
    expected.sort_by_key(|id| std::cmp::Reverse(id.to_string()));
    assert_eq!(paged.into_iter().map(|member| member.actor).collect::<Vec<_>>(), expected);
}

pub async fn every_kind_of_created_at(fixture: &Fixture) {
    // Column type, the resolution in milliseconds, and a query for the time as UTC text up to the second.
    let columns: &[(&str, u64, &str)] = match fixture.engine {
        Engine::Sqlite => &[
            (
                "INTEGER NOT NULL",
                1,
                "SELECT strftime('%Y-%m-%d %H:%M:%S', created_at / 1000, 'unixepoch') FROM feed_like",
            ),
            ("DATETIME NOT NULL", 1, "SELECT strftime('%Y-%m-%d %H:%M:%S', created_at) FROM feed_like"),
            ("TIMESTAMP", 1, "SELECT strftime('%Y-%m-%d %H:%M:%S', created_at) FROM feed_like"),
            (
                "TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP",
                1,
                "SELECT replace(substr(created_at, 1, 19), 'T', ' ') FROM feed_like",
            ),
        ],
        Engine::Postgres => &[
            (
                "BIGINT",
                1,
                "SELECT to_char(to_timestamp(created_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
                 FROM feed_like",
            ),
            (
                "TIMESTAMPTZ NOT NULL",
                1,
                "SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM feed_like",
            ),
            ("TIMESTAMP DEFAULT now()", 1, "SELECT to_char(created_at, 'YYYY-MM-DD HH24:MI:SS') FROM feed_like"),
            (
                "TIMESTAMPTZ(0)",
                1_000,
                "SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM feed_like",
            ),
            ("TEXT", 1, "SELECT replace(left(created_at, 19), 'T', ' ') FROM feed_like"),
        ],
        Engine::MariaDb | Engine::MySql => &[
            ("BIGINT", 1, "SELECT CAST(FROM_UNIXTIME(created_at DIV 1000) AS CHAR) FROM feed_like"),
            ("DATETIME(3) NOT NULL", 1, "SELECT DATE_FORMAT(created_at, '%Y-%m-%d %H:%i:%s') FROM feed_like"),
            ("DATETIME", 1_000, "SELECT DATE_FORMAT(created_at, '%Y-%m-%d %H:%i:%s') FROM feed_like"),
            (
                "TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)",
                1,
                "SELECT DATE_FORMAT(created_at, '%Y-%m-%d %H:%i:%s') FROM feed_like",
            ),
            ("TIMESTAMP NULL", 1_000, "SELECT DATE_FORMAT(created_at, '%Y-%m-%d %H:%i:%s') FROM feed_like"),
            ("VARCHAR(40)", 1, "SELECT REPLACE(LEFT(created_at, 19), 'T', ' ') FROM feed_like"),
        ],
    };
    for (column, resolution_ms, query) in columns {
        create(fixture, "BIGINT", column).await;
        fixture.run("DELETE FROM weir_checkpoint; INSERT INTO feed (id) VALUES (1)").await;
        let table = table(IdType::Integer);
        let findings = fixture.sql.check_toggle(&table).await.unwrap();
        let is_narrow = |finding: &Finding| finding.name == Problem::NarrowInteger;
        assert!(findings.iter().all(is_narrow), "{column}: {findings:?}");
        let from = fixture.claim(0).await;
        let applied = fixture.flush(&table, from, &[crate::fixture::add(1, 1)]).await;
        assert_eq!((applied.inserted, &applied.dead), (1, &vec![]), "{column}");
        assert_eq!(fixture.probe().await.text(query).await, "2024-05-01 12:14:56", "{column}");
        let pair = (Id::Int(1), Id::Int(1));
        let at = fixture.sql.load_pairs(&table, std::slice::from_ref(&pair)).await.unwrap()[0].unwrap();
        assert_eq!(at, AT_MS / resolution_ms * resolution_ms, "{column}");
        let loaded = fixture.sql.load_targets(&table, &[Id::Int(1)], 100).await.unwrap();
        assert_eq!(loaded[0].state, TargetState::Whole(vec![(Id::Int(1), at)]), "{column}");
        let members = fixture.sql.load_members(&table, &Id::Int(1), None, 5).await.unwrap();
        assert_eq!(members[0].since_ms, at, "{column}");
        assert_eq!(fixture.sql.load_members(&table, &Id::Int(1), members.last(), 5).await.unwrap(), vec![], "{column}");
    }
}

/// Type of the ids of documents and of actors, and the column types that may hold them and a time.
fn document_columns(engine: Engine) -> &'static [(IdType, &'static str, &'static str)] {
    match engine {
        Engine::Sqlite => &[
            (IdType::Integer, "INTEGER", "INTEGER NOT NULL"),
            (IdType::Uuid, "BLOB", "DATETIME NOT NULL"),
            (IdType::Uuid, "TEXT", "TEXT NOT NULL"),
            (IdType::Text, "TEXT", "TEXT"),
        ],
        Engine::Postgres => &[
            (IdType::Integer, "INTEGER", "BIGINT NOT NULL"),
            (IdType::Uuid, "UUID", "TIMESTAMP NOT NULL"),
            (IdType::Text, "VARCHAR(191)", "TEXT"),
            (IdType::Text, "TEXT", "TIMESTAMPTZ(0)"),
        ],
        Engine::MariaDb | Engine::MySql => &[
            (IdType::Integer, "INT UNSIGNED", "BIGINT NOT NULL"),
            (IdType::Uuid, "BINARY(16)", "TIMESTAMP(3) NOT NULL"),
            (IdType::Uuid, "UUID", "DATETIME NOT NULL"),
            (IdType::Uuid, "CHAR(36)", "VARCHAR(40)"),
            (IdType::Text, "VARCHAR(191) COLLATE utf8mb4_nopad_bin", "DATETIME(6)"),
        ],
    }
}

/// The tables of documents with one nested table, with columns of these types.
async fn wholes(fixture: &Fixture, index: usize, id_type: IdType, column: &str, created: &str) -> IngestTable {
    fixture
        .run(&format!(
            "CREATE TABLE whole_{index} (id {column} NOT NULL PRIMARY KEY, owner {column}, made {created},
                title VARCHAR(9));
             CREATE TABLE part_{index} (whole_id {column} NOT NULL, n INTEGER NOT NULL, v INTEGER,
                PRIMARY KEY (whole_id, n), FOREIGN KEY (whole_id) REFERENCES whole_{index} (id))"
        ))
        .await;
    toml::from_str(&format!(
        "name = 'whole_{index}'\nid_column = 'id'\nid_type = '{0}'\nactor_column = 'owner'\nactor_type = '{0}'\n
         created_at_column = 'made'\ncolumns = {{ title = 'title' }}\n
         [[children]]\nfield = 'parts'\nname = 'part_{index}'\nparent_column = 'whole_id'\nposition_column = 'n'\n
         value_column = 'v'",
        format!("{id_type:?}").to_lowercase()
    ))
    .unwrap()
}

pub async fn document_ids_of_every_type(fixture: &Fixture) {
    let cases = document_columns(fixture.engine).iter().filter(|(_, column, _)| fixture.engine.has(column));
    for (index, (id_type, column, created)) in cases.enumerate() {
        let table = wholes(fixture, index, *id_type, column, created).await;
        let id = |n: u8| match id_type {
            IdType::Integer => Id::Int(i64::from(n)),
            IdType::Uuid => {
                Id::Uuid(Uuid::from_u128((u128::from(n) << 120) + 0x0092_f0c1_2345_7abc_8def_0123_4567_89ab))
            }
            IdType::Text => Id::Text(format!("it's {n:03} \\").into()),
        };
        let row = |n: u8| DocumentRow {
            origin: Origin { at_ms: AT_MS + u64::from(n / 2), ..ORIGIN },
            id: id(n),
            actor: id(200),
            body: json!({ "title": "t", "parts": [n, n + 1] }).to_string().into(),
        };
        let rows: Vec<Row> = (1..=9).map(|n| Row::Document(row(n))).collect();
        let applied = fixture.store(&KindTable::Ingest(table.clone()), &rows).await;
        assert_eq!((applied.inserted, &applied.dead), (9, &vec![]), "{column} {created}");
        let ids: Vec<Id> = (1..=10).map(id).collect();
        let found = fixture.sql.load_documents(&table, &ids).await.unwrap();
        for (document, n) in found[..9].iter().zip(1..) {
            let document = document.as_ref().unwrap_or_else(|| panic!("{column}: {n} is missing"));
            assert_eq!((&document.id, &document.actor), (&id(n), &Some(id(200))), "{column}");
            assert_eq!(body(Some(document)), json!({ "title": "t", "parts": [n, n + 1] }), "{column}");
            // Never later than it was, and in the same second.
            let at_ms = document.at_ms.unwrap();
            assert!(at_ms <= row(n).origin.at_ms && at_ms + 1_000 > AT_MS, "{created}: {at_ms}");
        }
        assert_eq!(found[9], None, "{column}");
        let mut paged: Vec<StoredDocument> = Vec::new();
        loop {
            let page = fixture.sql.documents_of(&table, &id(200), paged.last(), 2).await.unwrap();
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        let expected: Vec<Id> = (1..=9).rev().map(id).collect();
        assert_eq!(paged.into_iter().map(|document| document.id).collect::<Vec<_>>(), expected, "{column} {created}");
    }
}
