//! What a document's values become in columns of every type, and what comes back.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use weir::config::{IngestTable, KindTable};
use weir::model::{Id, IdType};
use weir::sql::{DocumentRow, Fence, Row, SqlError, StoredDocument};

use crate::documents::body;
use crate::fixture::{AT_MS, Engine, Fixture, KIND, ORIGIN};

/// A table of an integer id and the given columns, each the field of its name.
async fn table(fixture: &Fixture, name: &str, columns: &[(&str, &str)]) -> IngestTable {
    let list: String = columns.iter().map(|(name, column)| format!(", {name} {column}")).collect();
    fixture.run(&format!("CREATE TABLE {name} (id BIGINT NOT NULL PRIMARY KEY{list})")).await;
    IngestTable {
        name: name.into(),
        id_column: "id".into(),
        id_type: IdType::Integer,
        actor_column: None,
        actor_type: IdType::Integer,
        created_at_column: None,
        columns: columns.iter().map(|(name, _)| ((*name).to_owned(), (*name).to_owned())).collect(),
        children: Vec::new(),
    }
}

fn thing(n: i64, body: &Value) -> Row {
    Row::Document(DocumentRow { origin: ORIGIN, id: Id::Int(n), actor: Id::Int(1), body: body.to_string().into() })
}

async fn load(fixture: &Fixture, table: &IngestTable, count: i64) -> Vec<Option<StoredDocument>> {
    let ids: Vec<Id> = (0..count).map(Id::Int).collect();
    fixture.sql.load_documents(table, &ids).await.unwrap()
}

/// Stores one document for each value of the field `v`, all of which must be stored, and says what comes back.
async fn round_trip(fixture: &Fixture, name: &str, column: &str, values: &[Value]) -> Vec<Value> {
    let table = table(fixture, name, &[("v", column)]).await;
    let rows: Vec<Row> = values.iter().zip(0..).map(|(value, n)| thing(n, &json!({ "v": value }))).collect();
    let applied = fixture.store(&KindTable::Ingest(table.clone()), &rows).await;
    assert_eq!(applied.dead, vec![], "{column}");
    let found = load(fixture, &table, i64::try_from(values.len()).unwrap()).await;
    found.iter().map(|document| body(document.as_ref())["v"].clone()).collect()
}

/// A column type, what is stored in it, and what comes back.
type Case = (&'static str, Vec<(Value, Value)>);

fn same(values: &[Value]) -> Vec<(Value, Value)> {
    values.iter().map(|value| (value.clone(), value.clone())).collect()
}

fn common() -> Vec<Case> {
    let large = [json!(i64::MAX), json!(i64::MIN), json!(9_007_199_254_740_993_i64), json!(0)];
    let mut integers = same(&large);
    integers.extend([(json!(5.0), json!(5)), (json!("12"), json!(12)), (json!(null), json!(null))]);
    vec![
        ("BIGINT", integers),
        ("SMALLINT", same(&[json!(32_767), json!(-32_768)])),
        (
            "DECIMAL(12,4)",
            vec![
                (json!(1.5), json!(1.5)),
                (json!(7), json!(7)),
                (json!("12345678.1234"), json!(12_345_678.123_4)),
                (json!(0.1), json!(0.1)),
            ],
        ),
        ("DOUBLE PRECISION", same(&[json!(1.5), json!(0.1), json!(-1e300), json!(1e-7)])),
        (
            "BOOLEAN",
            vec![
                (json!(true), json!(true)),
                (json!(false), json!(false)),
                (json!(1), json!(true)),
                (json!("false"), json!(false)),
            ],
        ),
        (
            "TEXT",
            vec![
                (json!("x"), json!("x")),
                (json!(5), json!("5")),
                (json!(true), json!("true")),
                (json!({ "a": [1, null] }), json!("{\"a\":[1,null]}")),
                (json!(["b"]), json!("[\"b\"]")),
            ],
        ),
    ]
}

fn of_engine(engine: Engine) -> Vec<Case> {
    let uuid = json!("0192f0c1-2345-7abc-8def-0123456789ab");
    let documents = same(&[json!({ "a": [1, { "b": null }] }), json!([]), json!("text"), json!(5), json!(true)]);
    let moment = json!("2024-05-01T12:34:56.789Z");
    match engine {
        Engine::Sqlite => vec![
            ("JSON", documents),
            ("BLOB", same(&[uuid])),
            ("DATETIME", same(&[moment, json!(5)])),
            ("", same(&[json!("x"), json!(5), json!(1.5)])),
        ],
        Engine::Postgres => vec![
            ("JSONB", documents.clone()),
            ("JSON", documents),
            ("UUID", same(&[uuid])),
            ("DATE", same(&[json!("2024-02-29")])),
            ("TIME", same(&[json!("12:34:56")])),
            (
                "TIMESTAMPTZ",
                vec![
                    (moment.clone(), json!("2024-05-01T12:34:56.789+00:00")),
                    (json!("2024-05-01T14:34:56+02:00"), json!("2024-05-01T12:34:56+00:00")),
                ],
            ),
            (
                "TIMESTAMP",
                vec![(moment.clone(), moment), (json!("2024-05-01T14:34:56+02:00"), json!("2024-05-01T12:34:56Z"))],
            ),
            ("TEXT[]", same(&[json!(["a", "b\"{}", null]), json!([])])),
            ("mood", same(&[json!("sad"), json!("it's")])),
            ("small", same(&[json!(9)])),
            ("CHAR(3)", same(&[json!("abc")])),
            ("NUMERIC", vec![(json!(u64::MAX), json!(u64::MAX)), (json!(1e25), json!(1e25))]),
        ],
        Engine::MariaDb | Engine::MySql => vec![
            ("JSON", documents),
            ("UUID", same(std::slice::from_ref(&uuid))),
            ("BINARY(16)", same(&[uuid])),
            ("DATE", same(&[json!("2024-02-29")])),
            ("TIME", same(&[json!("12:34:56")])),
            (
                "DATETIME(3)",
                vec![(moment.clone(), moment), (json!("2024-05-01T14:34:56+02:00"), json!("2024-05-01T12:34:56.000Z"))],
            ),
            ("ENUM('sad','it''s','3')", same(&[json!("sad"), json!("it's"), json!("3")])),
            ("BIGINT UNSIGNED", same(&[json!(u64::MAX), json!(0)])),
            ("TINYINT(1)", vec![(json!(true), json!(true)), (json!(7), json!(7))]),
            ("BIT(1)", same(&[json!(true), json!(false)])),
            ("CHAR(3)", same(&[json!("abc")])),
            ("FLOAT", same(&[json!(0.1)])),
        ],
    }
}

pub async fn values_of_every_type(fixture: &Fixture) {
    if fixture.engine == Engine::Postgres {
        fixture.run("CREATE TYPE mood AS ENUM ('sad', 'it''s'); CREATE DOMAIN small AS int CHECK (VALUE < 10)").await;
    }
    let cases = common().into_iter().chain(of_engine(fixture.engine));
    for (index, (column, cases)) in cases.filter(|(column, _)| fixture.engine.has(column)).enumerate() {
        let (given, expected): (Vec<Value>, Vec<Value>) = cases.into_iter().unzip();
        let found = round_trip(fixture, &format!("thing_{index}"), column, &given).await;
        for ((found, expected), given) in found.iter().zip(&expected).zip(&given) {
            // 7 and 7.0 are the same number.
            let equal = found == expected || (found.is_number() && found.as_f64() == expected.as_f64());
            assert!(equal, "{column}: {given} became {found}, not {expected}");
        }
    }
}

pub async fn odd_texts(fixture: &Fixture) {
    let long = "😀".repeat(20_000);
    let texts = [
        "",
        " ",
        "'",
        "''",
        "\"",
        "\\",
        "\\'",
        "\\\\n",
        "%",
        "a ",
        " a",
        "á",
        "a\u{301}",
        "😀",
        "日本語",
        "\n\r\t",
        "\u{1}\u{7f}",
        "; DROP TABLE thing;--",
        "{}",
        "[1]",
        "null",
        "NULL",
        "0",
        "00",
        "1e3",
        "true",
        "$1",
        "?",
        "?1",
        ":a",
        "@@version",
        "\u{200b}",
        "\u{fffd}",
        "\u{feff}",
        "x'00'",
        "{1,2}",
        "NaN",
        "\u{202e}abc",
        "/*",
        "--",
        "`",
        "$$",
        "2024-05-01T00:00:00Z",
        "\u{10ffff}",
        "</script>",
        "\\u0000",
        &long,
    ];
    let column = if fixture.engine.is_mysql() { "MEDIUMTEXT" } else { "TEXT" };
    let values: Vec<Value> = texts.iter().map(|text| json!(text)).collect();
    assert!(round_trip(fixture, "thing", column, &values).await == values, "texts are changed");
    let column = if fixture.engine == Engine::Postgres { "JSONB" } else { "JSON" };
    // Where JSON is more than text, a name has 65,535 bytes at most.
    let names = texts.iter().filter(|text| fixture.engine != Engine::MySql || text.len() < 1 << 16);
    let nested: Vec<Value> = names.map(|text| json!({ "a": [text], *text: 1 })).collect();
    assert!(round_trip(fixture, "nested", column, &nested).await == nested, "nested texts are changed");
}

/// What JSON of an engine does not hold is one document's fault: a name that is too long, values nested too deep.
pub async fn json_beyond_an_engine_is_stored_whole_or_dead_alone(fixture: &Fixture) {
    let column = if fixture.engine == Engine::Postgres { "JSONB" } else { "JSON" };
    let table = table(fixture, "thing", &[("v", column)]).await;
    let deep = (0..110).fold(json!(1), |inner, _| json!([inner]));
    let values = [json!({ "a": 1 }), json!({ ("x".repeat(70_000)): 1 }), deep, json!({ "z": [] })];
    let rows: Vec<Row> = values.iter().zip(0..).map(|(value, n)| thing(n, &json!({ "v": value }))).collect();
    let applied = fixture.store(&KindTable::Ingest(table.clone()), &rows).await;
    let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
    let expected: &[usize] = match fixture.engine {
        Engine::Sqlite | Engine::Postgres => &[],
        Engine::MariaDb => &[2],
        Engine::MySql => &[1, 2],
    };
    assert_eq!(dead, expected, "{:?}", applied.dead);
    let found = load(fixture, &table, 4).await;
    for (index, value) in values.iter().enumerate().filter(|(index, _)| !dead.contains(index)) {
        assert!(body(found[index].as_ref())["v"] == *value, "{index} is changed");
    }
}

pub async fn large_documents_are_inserted_in_parts(fixture: &Fixture) {
    let text = if fixture.engine.is_mysql() { "MEDIUMTEXT" } else { "TEXT" };
    let table = table(fixture, "thing", &[("v", text), ("n", "INTEGER")]).await;
    let large = "é".repeat(400_000);
    let document = |n: i64| json!({ "v": format!("{n}{large}"), "n": if n == 5 { json!("x") } else { json!(n) } });
    let rows: Vec<Row> = (0..9).map(|n| thing(n, &document(n))).collect();
    let applied = fixture.store(&KindTable::Ingest(table.clone()), &rows).await;
    let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
    assert_eq!((applied.inserted, dead), (8, vec![5]));
    assert!(applied.statements <= 16, "{} statements", applied.statements);
    let found = load(fixture, &table, 9).await;
    assert!((0..9).all(|n| found[n as usize].as_ref().map(|found| body(Some(found)) == document(n)) != Some(false)));
    assert_eq!(found.iter().filter(|document| document.is_none()).count(), 1);
    // The letters of large documents, too.
    let bad = |n: i64| thing(n, &json!({ "v": large, "n": "x" }));
    let applied = fixture.store(&KindTable::Ingest(table), &(10..20).map(bad).collect::<Vec<_>>()).await;
    assert_eq!((applied.inserted, applied.dead.len()), (0, 10));
    let letters = fixture.sql.dead_letters(Some(KIND), 0, 99).await.unwrap();
    assert!(letters.iter().all(|letter| letter.body.as_ref().is_some_and(|body| body.len() > 800_000)));
}

pub async fn nul_is_stored_or_refused_never_cut(fixture: &Fixture) {
    let table = table(fixture, "thing", &[("v", "TEXT")]).await;
    let rows = [thing(0, &json!({ "v": "before" })), thing(1, &json!({ "v": "a\0b" })), thing(2, &json!({ "v": "c" }))];
    let applied = fixture.store(&KindTable::Ingest(table.clone()), &rows).await;
    let found = load(fixture, &table, 3).await;
    assert_eq!((body(found[0].as_ref()), body(found[2].as_ref())), (json!({ "v": "before" }), json!({ "v": "c" })));
    if fixture.engine.is_mysql() {
        assert_eq!((applied.inserted, body(found[1].as_ref())), (3, json!({ "v": "a\0b" })));
        return;
    }
    let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
    assert_eq!((applied.inserted, dead, &found[1]), (2, vec![1], &None));
    assert!(applied.dead[0].1.contains("NUL"), "{:?}", applied.dead);
    let letter = fixture.sql.dead_letters(Some(KIND), 0, 9).await.unwrap().remove(0);
    let kept: Value = serde_json::from_str(letter.body.as_deref().unwrap()).unwrap();
    assert_eq!(kept, json!({ "v": "a\0b" }), "the letter has the whole document");
}

pub async fn what_would_be_bent_is_refused(fixture: &Fixture) {
    let common: Vec<(&str, Vec<Value>)> = vec![
        ("INTEGER", vec![json!(1.5), json!("abc"), json!("5x"), json!(""), json!(1_u64 << 63), json!([1]), json!({})]),
        ("DECIMAL(5,2)", vec![json!("abc"), json!(true), json!("1,5")]),
        ("DOUBLE PRECISION", vec![json!("abc"), json!("NaN"), json!(false)]),
        ("BOOLEAN", vec![json!(2.5), json!("maybe"), json!([])]),
    ];
    let engine: Vec<(&str, Vec<Value>)> = match fixture.engine {
        Engine::Sqlite => vec![("BLOB", vec![json!("text"), json!(5)]), ("BOOLEAN", vec![json!(2)])],
        Engine::Postgres => vec![
            ("INTEGER", vec![json!(2_147_483_648_u64), json!(true)]),
            ("VARCHAR(3)", vec![json!("abcd"), json!("abc "), json!(1234)]),
            ("UUID", vec![json!("x"), json!(5)]),
            ("DATE", vec![json!("2024-02-30"), json!("2024-05-01T12:00:00Z"), json!(20_240_501)]),
            ("TIMESTAMP", vec![json!("2024-13-01T00:00:00Z"), json!("soon"), json!(1_714_565_696_789_u64)]),
            ("TIMESTAMPTZ", vec![json!("soon"), json!(5)]),
            ("mood", vec![json!("glad"), json!(1)]),
            ("small", vec![json!(10)]),
            ("INTEGER[]", vec![json!(["a"]), json!(5)]),
            ("NUMERIC(5,2)", vec![json!(12_345.6)]),
        ],
        Engine::MariaDb | Engine::MySql => vec![
            ("INT", vec![json!(2_147_483_648_u64), json!(true)]),
            ("INT UNSIGNED", vec![json!(-1), json!(1_u64 << 32)]),
            ("TINYINT(1)", vec![json!(200)]),
            ("VARCHAR(3)", vec![json!("abcd"), json!("abc "), json!(1234)]),
            ("TINYTEXT", vec![json!("é".repeat(200))]),
            ("UUID", vec![json!("x"), json!(5)]),
            ("BINARY(16)", vec![json!("x"), json!(5)]),
            ("DATE", vec![json!("2024-02-30"), json!("2024-05-01T12:00:00Z"), json!(20_240_501)]),
            ("DATETIME", vec![json!("2024-13-01T00:00:00Z"), json!("soon"), json!(1_714_565_696_789_u64)]),
            ("ENUM('sad','glad')", vec![json!("mad"), json!("2"), json!(2), json!(true)]),
            ("DECIMAL(5,2)", vec![json!(12_345.6)]),
        ],
    };
    if fixture.engine == Engine::Postgres {
        fixture.run("CREATE TYPE mood AS ENUM ('sad'); CREATE DOMAIN small AS int CHECK (VALUE < 10)").await;
    }
    let cases = common.into_iter().chain(engine).filter(|(column, _)| fixture.engine.has(column));
    for (index, (column, values)) in cases.enumerate() {
        let name = format!("thing_{index}");
        let table = table(fixture, &name, &[("v", column)]).await;
        let mut rows: Vec<Row> = values.iter().zip(0..).map(|(value, n)| thing(n, &json!({ "v": value }))).collect();
        rows.push(thing(99, &json!({})));
        let applied = fixture.store(&KindTable::Ingest(table.clone()), &rows).await;
        let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
        let stored = fixture.number(&format!("SELECT count(*) FROM {name}")).await;
        assert_eq!((dead, stored), ((0..values.len()).collect(), 1), "{column}: {:?}", applied.dead);
    }
}

pub async fn a_changed_column_is_nobodys_dead_letter(fixture: &Fixture) {
    let table = table(fixture, "thing", &[("v", "INTEGER")]).await;
    let kind = KindTable::Ingest(table.clone());
    fixture.store(&kind, &[thing(0, &json!({ "v": 1 }))]).await;
    let from = fixture.checkpoint(0).await.unwrap();
    let fence = [Fence { from, to: 9 }];
    // The column becomes wider while the host runs; what it knows of it would refuse this.
    fixture
        .run("ALTER TABLE thing RENAME TO old; CREATE TABLE thing (id BIGINT NOT NULL PRIMARY KEY, v DECIMAL(20,2))")
        .await;
    let rows = [thing(1, &json!({ "v": 1.5 })), thing(2, &json!({ "v": 99_999_999_999_u64 }))];
    let error = fixture.sql.apply(KIND, &kind, &fence, &rows, AT_MS).await.unwrap_err();
    assert!(matches!(&error, SqlError::Permanent(reason) if reason.contains("changed")), "{error:?}");
    assert_eq!(
        (fixture.number("SELECT count(*) FROM weir_dead_letter").await, fixture.checkpoint(0).await),
        (0, Some(from))
    );
    let applied = fixture.sql.apply(KIND, &kind, &fence, &rows, AT_MS).await.unwrap();
    assert_eq!((applied.inserted, applied.dead), (2, vec![]), "looked at anew");
}

pub async fn defaults_are_used_where_null_cannot_be(fixture: &Fixture) {
    let time = match fixture.engine {
        Engine::Sqlite => "TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP",
        Engine::Postgres => "TIMESTAMPTZ NOT NULL DEFAULT now()",
        Engine::MariaDb | Engine::MySql => "DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)",
    };
    let computed = match fixture.engine {
        Engine::Sqlite => "INTEGER NOT NULL DEFAULT (2 + 3)",
        Engine::Postgres => "INTEGER NOT NULL DEFAULT nextval('of_thing')",
        Engine::MariaDb | Engine::MySql => "INTEGER NOT NULL DEFAULT (2 + 3)",
    };
    if fixture.engine == Engine::Postgres {
        fixture.run("CREATE SEQUENCE of_thing").await;
    }
    let columns = [
        ("number", "INTEGER NOT NULL DEFAULT 7"),
        ("word", "VARCHAR(20) NOT NULL DEFAULT 'it''s'"),
        ("blank", "INTEGER DEFAULT 7"),
        ("made", time),
        ("computed", computed),
        ("needed", "INTEGER NOT NULL"),
    ];
    let table = table(fixture, "thing", &columns).await;
    let rows = [
        thing(0, &json!({ "needed": 1 })),
        thing(1, &json!({ "needed": 2, "number": null, "word": null, "blank": null })),
        thing(2, &json!({ "needed": 3, "number": 0, "word": "", "blank": 1, "computed": 9 })),
        thing(3, &json!({ "number": 1 })),
    ];
    let applied = fixture.store(&KindTable::Ingest(table.clone()), &rows).await;
    let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
    assert_eq!((applied.inserted, dead), (3, vec![3]), "{:?}", applied.dead);
    let found = load(fixture, &table, 4).await;
    let bodies: Vec<Map<String, Value>> = found.into_iter().flatten().map(|document| document.body).collect();
    for (document, needed) in bodies[..2].iter().zip([1, 2]) {
        assert_eq!((&document["number"], &document["word"]), (&json!(7), &json!("it's")));
        assert_eq!((document.get("blank"), &document["needed"]), (None, &json!(needed)));
        assert!(document["made"].as_str().is_some_and(|made| made.len() >= 19), "{document:?}");
        assert!(document["computed"].as_i64().is_some_and(|computed| (1..=5).contains(&computed)), "{document:?}");
    }
    let given: BTreeMap<&str, &Value> = bodies[2].iter().map(|(name, value)| (name.as_str(), value)).collect();
    assert_eq!((given["number"], given["word"], given["blank"]), (&json!(0), &json!(""), &json!(1)));
    assert_eq!(given["computed"], &json!(9));
}
