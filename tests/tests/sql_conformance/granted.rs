//! Statements of the operator, as policy modules run them.

use std::sync::Arc;
use std::time::Duration;

use weir::config::{ParameterType, StatementConfig};
use weir::model::SqlValue::{self, Integer, Null, Real};
use weir::sql::{RowSets, Sql, StatementError};
use weir_tests::proxy::CountingProxy;

use crate::fixture::{Engine, Fixture};

/// Longer than any of these statements takes.
const LONG_MS: u64 = 20_000;

/// A statement; `?` is written as the engine's placeholders.
fn statement(fixture: &Fixture, sql: &str, parameters: &[ParameterType]) -> StatementConfig {
    let mut text = String::new();
    for (index, part) in sql.split('?').enumerate() {
        match (index, fixture.engine) {
            (0, _) => {}
            (_, Engine::Postgres) => text += &format!("${index}"),
            _ => text.push('?'),
        }
        text += part;
    }
    let parameters = parameters.to_vec();
    StatementConfig { name: "test".into(), sql: text, parameters, write: false, rows_max: 1_000, timeout_ms: LONG_MS }
}

fn writing(fixture: &Fixture, sql: &str, parameters: &[ParameterType]) -> StatementConfig {
    StatementConfig { write: true, ..statement(fixture, sql, parameters) }
}

fn text(text: &str) -> SqlValue {
    SqlValue::Text(text.into())
}

async fn found(fixture: &Fixture, statement: &StatementConfig, rows: &[Vec<SqlValue>]) -> RowSets {
    fixture.sql.run_statement(statement, rows).await.unwrap()
}

/// The reason of a mistake.
async fn invalid(fixture: &Fixture, statement: &StatementConfig, rows: &[Vec<SqlValue>]) -> String {
    match fixture.sql.run_statement(statement, rows).await {
        Err(error @ (StatementError::Invalid(_) | StatementError::TooLarge { .. })) => {
            let reason = error.to_string();
            assert!(reason.contains("statement test"), "{reason}");
            reason
        }
        other => panic!("{other:?}"),
    }
}

/// A statement that never ends by itself.
fn endless(fixture: &Fixture) -> StatementConfig {
    let sql = match fixture.engine {
        Engine::Sqlite => {
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n WHERE i < 0"
        }
        Engine::Postgres => "SELECT pg_sleep(60)",
        Engine::MariaDb => "SELECT SLEEP(60)",
        // Its SLEEP answers 1 when it is interrupted, in place of an error.
        Engine::MySql => {
            "SELECT count(*) FROM information_schema.collations a, information_schema.collations b,
             information_schema.collations c, information_schema.collations d"
        }
    };
    StatementConfig { timeout_ms: 200, ..statement(fixture, sql, &[]) }
}

/// Works on a handle whose last connection a module may have spoilt.
async fn is_usable(sql: &dyn Sql, statement: &StatementConfig) {
    for _ in 0..8 {
        assert_eq!(sql.run_statement(statement, &[vec![]]).await, Ok(vec![vec![vec![Integer(1)]]]));
        sql.ping().await.unwrap();
    }
}

pub async fn parameters_of_every_type(fixture: &Fixture) {
    use ParameterType::{Integer as I, Real as R, Text as T};
    let sql = "SELECT ?, ?, ?";
    let echo = statement(fixture, sql, &[I, R, T]);
    let rows = [
        vec![Integer(i64::MIN), Real(-0.5), text("")],
        vec![Integer(i64::MAX), Real(1e300), text("'; DROP TABLE feed; -- é 🦀 \\ \" ?")],
        vec![Null, Null, Null],
        vec![Integer(0), Real(0.0), text("x")],
        vec![Null, Real(0.0), Null],
    ];
    let expected: RowSets = rows.iter().map(|row| vec![row.clone()]).collect();
    assert_eq!(found(fixture, &echo, &rows).await, expected);
    // The same text with other types is another statement.
    let other = StatementConfig { name: "other".into(), ..statement(fixture, sql, &[T, T, I]) };
    let row = vec![text("12345678"), Null, Integer(7)];
    assert_eq!(found(fixture, &other, std::slice::from_ref(&row)).await, vec![vec![row]]);
    assert_eq!(found(fixture, &echo, &rows).await, expected);
    // NULLs are written, compared and read as such.
    fixture.run("CREATE TABLE note (id BIGINT, ratio DOUBLE PRECISION, body VARCHAR(50))").await;
    let write = writing(fixture, "INSERT INTO note (id, ratio, body) VALUES (?, ?, ?)", &[I, R, T]);
    assert_eq!(found(fixture, &write, &rows[2..]).await, vec![Vec::<Vec<SqlValue>>::new(); 3]);
    let read = statement(fixture, "SELECT id, ratio, body FROM note ORDER BY COALESCE(id, -1), ratio DESC", &[]);
    let stored = found(fixture, &read, &[vec![]]).await.remove(0);
    assert_eq!(stored.len(), 3);
    for row in &rows[2..] {
        assert!(stored.contains(row), "{row:?} is not in {stored:?}");
    }
}

/// Expressions of SQLite, and what they are read as; NULL where it is a text.
const SQLITE_COLUMNS: &[(&str, SqlValue)] = &[
    ("-7", Integer(-7)),
    ("9223372036854775807", Integer(i64::MAX)),
    ("1 < 2", Integer(1)),
    ("0.5", Real(0.5)),
    ("'é'", SqlValue::Null),
    ("date('2024-02-29')", SqlValue::Null),
    ("NULL", Null),
];
/// Expressions of PostgreSQL, and what they are read as; NULL where it is a text.
const POSTGRES_COLUMNS: &[(&str, SqlValue)] = &[
    ("(-7)::int2", Integer(-7)),
    ("(-70000)::int4", Integer(-70_000)),
    ("9223372036854775807::int8", Integer(i64::MAX)),
    ("4000000000::oid", Integer(4_000_000_000)),
    ("true", Integer(1)),
    ("false", Integer(0)),
    ("0.5::float4", Real(0.5)),
    ("'-infinity'::float8", Real(f64::NEG_INFINITY)),
    ("'é'::text", Null),
    ("'é'::varchar(9)", Null),
    ("'é'::name", Null),
    ("'a'::\"char\"", Null),
    ("'00112233-4455-6677-8899-aabbccddeeff'::uuid", Null),
    ("12.340::numeric(12, 3)", Null),
    ("(-0.00001)::numeric", Null),
    ("123456789012345678901234567890.5::numeric", Null),
    ("100000000::numeric", Null),
    ("'NaN'::numeric", Null),
    ("'2024-02-29'::date", Null),
    ("'0044-03-15 BC'::date", Null),
    ("'infinity'::date", Null),
    ("'2024-02-29 12:34:56.789'::timestamp", Null),
    ("'2024-02-29 12:34:56+02'::timestamptz", Null),
    ("'1969-12-31 23:59:59.999999'::timestamp", Null),
    ("'0001-01-01 00:00:01 BC'::timestamptz", Null),
    ("'-infinity'::timestamptz", Null),
    ("'24:00:00'::time", Null),
    ("'{\"a\": [1]}'::json", Null),
    ("'{\"a\":   [1]}'::jsonb", Null),
    ("'gold'::tier", Null),
    ("'7'::positive", Integer(7)),
];
/// Expressions of MariaDB and MySQL, and what they are read as; NULL where it is a text.
const MYSQL_COLUMNS: &[(&str, SqlValue)] = &[
    ("t.tiny", Integer(-7)),
    ("t.small", Integer(-300)),
    ("t.medium", Integer(-70_000)),
    ("t.plain", Integer(-70_000)),
    ("t.big", Integer(i64::MIN)),
    ("t.unsigned_tiny", Integer(200)),
    ("t.unsigned_medium", Integer(16_000_000)),
    ("t.unsigned_big", Integer(i64::MAX)),
    ("t.yes", Integer(1)),
    ("t.year", Integer(2024)),
    ("t.single", Real(0.5)),
    ("t.double_", Real(-1e300)),
    ("t.decimal_", Null),
    ("t.char_", Null),
    ("t.varchar_", Null),
    ("t.exact", Null),
    ("t.text_", Null),
    ("t.enum_", Null),
    ("t.set_", Null),
    ("t.uuid_", Null),
    ("t.date_", Null),
    ("t.datetime_", Null),
    ("t.timestamp_", Null),
    ("t.time_", Null),
    ("t.json_", Null),
    ("1 < 2", Integer(1)),
    ("count(*)", Integer(1)),
    ("sum(t.small)", Null),
];

fn columns_of(engine: Engine) -> &'static [(&'static str, SqlValue)] {
    match engine {
        Engine::Sqlite => SQLITE_COLUMNS,
        Engine::Postgres => POSTGRES_COLUMNS,
        Engine::MariaDb | Engine::MySql => MYSQL_COLUMNS,
    }
}

/// What is run before, what columns are selected from, and how one becomes a text.
fn setup_of(engine: Engine) -> (&'static str, &'static str, &'static str) {
    match engine {
        Engine::Sqlite => ("SELECT 1", "", "CAST(@ AS TEXT)"),
        Engine::Postgres => {
            ("CREATE TYPE tier AS ENUM ('gold'); CREATE DOMAIN positive AS integer CHECK (value > 0)", "", "(@)::text")
        }
        Engine::MariaDb | Engine::MySql => (
            "CREATE TABLE t (tiny TINYINT, small SMALLINT, medium MEDIUMINT, plain INT, big BIGINT,
                unsigned_tiny TINYINT UNSIGNED, unsigned_medium MEDIUMINT UNSIGNED, unsigned_big BIGINT UNSIGNED,
                yes BOOLEAN, year YEAR, single FLOAT, double_ DOUBLE, decimal_ DECIMAL(12, 3), char_ CHAR(5),
                varchar_ VARCHAR(9), exact VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, text_ TEXT,
                enum_ ENUM('gold', 'silver'), set_ SET('a', 'b'), uuid_ UUID, date_ DATE, datetime_ DATETIME(3),
                timestamp_ TIMESTAMP, time_ TIME(1), json_ JSON);
             INSERT INTO t VALUES (-7, -300, -70000, -70000, -9223372036854775808, 200, 16000000, 9223372036854775807,
                TRUE, 2024, 0.5, -1e300, 12.34, 'é', 'é', 'é', 'é', 'gold', 'a,b',
                '00112233-4455-6677-8899-aabbccddeeff', '2024-02-29', '2024-02-29 12:34:56.789',
                '2024-02-29 12:34:56', '-26:03:04.5', '{\"a\": 1}')",
            "FROM t",
            "CAST(@ AS CHAR)",
        ),
    }
}

pub async fn columns_of_every_type(fixture: &Fixture) {
    let columns = columns_of(fixture.engine);
    let (setup, from, as_text) = setup_of(fixture.engine);
    let setup =
        if fixture.engine == Engine::MySql { setup.replace("uuid_ UUID", "uuid_ CHAR(36)") } else { setup.into() };
    fixture.run(&setup).await;
    for (column, expected) in columns {
        let sql = format!("SELECT {column}, {} {from}", as_text.replace('@', column));
        let row = found(fixture, &statement(fixture, &sql, &[]), &[vec![]]).await.remove(0).remove(0);
        if *expected == Null {
            // As the database itself writes it as text.
            assert_eq!(written(&row[0]), written(&row[1]), "{column}");
            assert_eq!(*column == "NULL", row[0] == Null, "{column}");
        } else {
            assert_eq!(row[0], *expected, "{column}");
        }
    }
    let nulls: Vec<String> = columns
        .iter()
        .filter(|(column, _)| !column.contains("count") && !column.contains("sum(") && !column.contains('<'))
        .map(|(column, _)| format!("CASE WHEN 1 = 0 THEN {column} END"))
        .collect();
    let row = found(fixture, &statement(fixture, &format!("SELECT {} {from}", nulls.join(", ")), &[]), &[vec![]]).await;
    assert!(row[0][0].iter().all(|value| *value == Null), "{row:?}");
}

/// The text of a text; MariaDB fills up the fraction of a second.
fn written(value: &SqlValue) -> Option<String> {
    match value {
        SqlValue::Text(text) => Some(text.strip_suffix(".000").unwrap_or(text).to_owned()),
        Null => None,
        other => panic!("{other:?} is no text"),
    }
}

pub async fn other_types_are_refused_by_name(fixture: &Fixture) {
    let (sql, name) = match fixture.engine {
        Engine::Sqlite => ("SELECT 1 AS one, x'00ff' AS odd", "BLOB"),
        Engine::Postgres => ("SELECT 1 AS one, '1 hour'::interval AS odd", "INTERVAL"),
        Engine::MariaDb | Engine::MySql => ("SELECT 1 AS one, CAST('x' AS BINARY(2)) AS odd", "BINARY"),
    };
    let odd = statement(fixture, sql, &[]);
    let reason = invalid(fixture, &odd, &[vec![]]).await;
    assert!(
        reason.contains("column 2 (odd)") && reason.contains(name) && reason.contains("cast it to text"),
        "{reason}"
    );
    let finding = fixture.sql.check_statement(&odd).await.unwrap();
    // SQLite knows the type of a value only when it is there.
    assert_eq!(finding.is_some(), fixture.engine != Engine::Sqlite, "{finding:?}");
    if fixture.engine.is_mysql() {
        let large = statement(fixture, "SELECT CAST(18446744073709551615 AS UNSIGNED)", &[]);
        assert!(invalid(fixture, &large, &[vec![]]).await.contains("beyond a signed 64-bit integer"));
    }
}

pub async fn each_row_of_parameters_has_its_rows(fixture: &Fixture) {
    fixture.run("CREATE TABLE tier (actor BIGINT, name VARCHAR(20)); INSERT INTO tier VALUES (1, 'gold'), (2, 'silver'), (2, 'bronze'), (3, NULL)").await;
    let sql = "SELECT name, actor FROM tier WHERE actor = ? ORDER BY name";
    let of = statement(fixture, sql, &[ParameterType::Integer]);
    let asked: Vec<Vec<SqlValue>> = [2, 9, 1, 2, 3].map(|actor| vec![Integer(actor)]).to_vec();
    let two = vec![vec![text("bronze"), Integer(2)], vec![text("silver"), Integer(2)]];
    let expected = vec![two.clone(), vec![], vec![vec![text("gold"), Integer(1)]], two, vec![vec![Null, Integer(3)]]];
    assert_eq!(found(fixture, &of, &asked).await, expected);
    assert_eq!(found(fixture, &of, &[]).await, RowSets::new());
    assert_eq!(found(fixture, &of, &[vec![Null]]).await, vec![Vec::<Vec<SqlValue>>::new()]);
    let many: Vec<Vec<SqlValue>> = (0..1_000).map(|actor| vec![Integer(actor)]).collect();
    let sets = found(fixture, &of, &many).await;
    assert_eq!((sets.len(), sets.iter().flatten().count()), (1_000, 4));
    assert_eq!(fixture.sql.check_statement(&of).await.unwrap(), None);
}

pub async fn what_one_call_may_find_is_bounded(fixture: &Fixture) {
    let series = match fixture.engine {
        Engine::Sqlite => "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n LIMIT ?",
        Engine::Postgres => "SELECT generate_series(1, 2000000000) LIMIT ?",
        Engine::MariaDb => "SELECT seq FROM seq_1_to_2000000000 LIMIT ?",
        // What is sent before its end without being stored.
        Engine::MySql => {
            "SELECT 1 FROM digit a, digit b, digit c, digit d, digit e, digit f, digit g, digit h, digit i LIMIT ?"
        }
    };
    if fixture.engine == Engine::MySql {
        fixture
            .run("CREATE TABLE digit (n INT); INSERT INTO digit VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)")
            .await;
    }
    let series = StatementConfig { rows_max: 10, ..statement(fixture, series, &[ParameterType::Integer]) };
    let sets = found(fixture, &series, &[vec![Integer(4)], vec![Integer(6)]]).await;
    assert_eq!(sets.iter().map(Vec::len).collect::<Vec<_>>(), [4, 6]);
    let reason = invalid(fixture, &series, &[vec![Integer(4)], vec![Integer(7)]]).await;
    assert!(reason.contains("rows_max = 10"), "{reason}");
    // What is beyond the limit is not read: this would take far longer than it may. PostgreSQL makes the result of an EXECUTE
    // whole before it sends a row, so there only the statement's timeout bounds how much it makes.
    let many = if fixture.engine == Engine::Postgres { 100_000 } else { 2_000_000_000 };
    let reason = invalid(fixture, &series, &[vec![Integer(many)]]).await;
    assert!(reason.contains("rows_max = 10"), "{reason}");
    let long = match fixture.engine {
        Engine::Sqlite => "SELECT hex(zeroblob(1000000))",
        _ => "SELECT repeat('xx', 1000000)",
    };
    let long = statement(fixture, long, &[]);
    assert_eq!(found(fixture, &long, &[vec![], vec![]]).await.len(), 2);
    let reason = invalid(fixture, &long, &[vec![], vec![], vec![]]).await;
    assert!(reason.contains("bytes"), "{reason}");
    is_usable(&*fixture.sql, &statement(fixture, "SELECT 1", &[])).await;
}

pub async fn a_statement_writes_only_when_it_may(fixture: &Fixture) {
    fixture.run("CREATE TABLE note (id BIGINT NOT NULL PRIMARY KEY)").await;
    let count = async || fixture.number("SELECT count(*) FROM note").await;
    let rows = [vec![Integer(1)], vec![Integer(2)]];
    for sql in ["INSERT INTO note VALUES (?)", "DELETE FROM note WHERE id <> ?", "UPDATE note SET id = ?"] {
        fixture.run("DELETE FROM note; INSERT INTO note VALUES (7)").await;
        let reason = invalid(fixture, &statement(fixture, sql, &[ParameterType::Integer]), &rows).await;
        assert!(reason.contains("write = true"), "{reason}");
        assert_eq!(fixture.number("SELECT min(id) FROM note").await, 7, "nothing was written");
    }
    for sql in ["DROP TABLE note", "CREATE TABLE other (id BIGINT)"] {
        invalid(fixture, &statement(fixture, sql, &[]), &[vec![]]).await;
    }
    assert_eq!(count().await, 1, "nothing was dropped");
    fixture.run("DELETE FROM note").await;
    let insert = writing(fixture, "INSERT INTO note VALUES (?)", &[ParameterType::Integer]);
    assert_eq!(found(fixture, &insert, &rows).await, vec![Vec::<Vec<SqlValue>>::new(); 2]);
    assert_eq!(count().await, 2);
    // All of it or nothing.
    let rows = [vec![Integer(3)], vec![Integer(4)], vec![Integer(2)]];
    invalid(fixture, &insert, &rows).await;
    assert_eq!(count().await, 2);
    // What it wrote can be returned, and is committed then.
    if fixture.engine == Engine::MySql {
        // It returns nothing of what it writes.
        found(fixture, &insert, &rows[..1]).await;
    } else {
        let returning = writing(fixture, "INSERT INTO note VALUES (?) RETURNING id", &[ParameterType::Integer]);
        assert_eq!(found(fixture, &returning, &rows[..1]).await, vec![vec![vec![Integer(3)]]]);
    }
    assert_eq!(count().await, 3);
    // The next one on the same connection may not write again.
    invalid(fixture, &statement(fixture, "DELETE FROM note", &[]), &[vec![]]).await;
    assert_eq!(count().await, 3);
}

pub async fn mistakes_are_told_from_outages(fixture: &Fixture) {
    let one = [vec![Integer(1)]];
    let integer = [ParameterType::Integer];
    for sql in ["SELEC ?", "SELECT * FROM nowhere WHERE id = ?", "SELECT no_column + ? FROM weir_meta"] {
        let wrong = statement(fixture, sql, &integer);
        invalid(fixture, &wrong, &one).await;
        let finding = fixture.sql.check_statement(&wrong).await.unwrap().unwrap();
        assert!(!finding.warning && finding.remedy.contains("\"test\""), "{finding:?}");
    }
    for sql in ["SELECT 1", "SELECT ? + ?"] {
        if sql == "SELECT 1" && fixture.engine == Engine::Postgres {
            // It takes parameters that a statement does not use.
            assert_eq!(found(fixture, &statement(fixture, sql, &integer), &one).await, [[[Integer(1)]]]);
            continue;
        }
        let wrong = statement(fixture, sql, &integer);
        let reason = invalid(fixture, &wrong, &one).await;
        assert!(reason.contains("placeholders"), "{reason}");
        let finding = fixture.sql.check_statement(&wrong).await.unwrap().unwrap();
        assert!(finding.problem.contains("placeholders"), "{finding:?}");
    }
    let right = statement(fixture, "SELECT ? + 0", &integer);
    invalid(fixture, &right, &[vec![]]).await;
    invalid(fixture, &right, &[vec![text("1")]]).await;
    assert_eq!(fixture.sql.check_statement(&right).await.unwrap(), None);
    is_usable(&*fixture.sql, &statement(fixture, "SELECT 1", &[])).await;
    // A server that is away, or, where there is none, a database that another process writes to.
    let mut probe = fixture.probe().await;
    let away = match fixture.engine {
        Engine::Sqlite => {
            fixture.run("CREATE TABLE note (id BIGINT)").await;
            probe.run("BEGIN IMMEDIATE").await.unwrap();
            fixture.with(|settings| settings.acquire_timeout_ms = 50).await
        }
        Engine::Postgres => fixture.with(|settings| settings.url = "postgres://weir@127.0.0.1:1/weir".into()).await,
        Engine::MariaDb | Engine::MySql => {
            fixture.with(|settings| settings.url = "mysql://weir@127.0.0.1:1/weir".into()).await
        }
    };
    let write = writing(fixture, "INSERT INTO note VALUES (?)", &integer);
    let write = StatementConfig { timeout_ms: 1_000, ..write };
    let outage = away.run_statement(&write, &one).await;
    assert!(matches!(outage, Err(StatementError::Unavailable(_))), "{outage:?}");
}

pub async fn a_slow_statement_leaves_the_pool_usable(fixture: &Fixture) {
    let sql = fixture.with(|settings| settings.connections_max = 2).await;
    let (slow, quick) = (endless(fixture), statement(fixture, "SELECT 1", &[]));
    for _ in 0..3 {
        let late = sql.run_statement(&slow, &[vec![]]).await;
        assert!(matches!(late, Err(StatementError::Unavailable(_))), "{late:?}");
    }
    is_usable(&*sql, &quick).await;
    // A caller that goes away.
    let patient = StatementConfig { timeout_ms: 3_000, ..slow.clone() };
    for _ in 0..3 {
        let dropped = tokio::time::timeout(Duration::from_millis(50), sql.run_statement(&patient, &[vec![]])).await;
        assert!(dropped.is_err());
    }
    is_usable(&*sql, &quick).await;
    // The session's own limits are what they were.
    let findings = sql.check_server().await.unwrap();
    assert!(findings.iter().all(|finding| finding.warning), "{findings:?}");
    if fixture.engine.is_mysql() {
        let of_server = match fixture.engine {
            Engine::MariaDb => "SELECT CAST(@@max_statement_time * 1000 AS SIGNED)",
            _ => "SELECT CAST(@@max_execution_time AS SIGNED)",
        };
        let limit = statement(fixture, of_server, &[]);
        let within = sql.run_statement(&StatementConfig { timeout_ms: 1_500, ..limit }, &[vec![]]).await;
        assert_eq!(within, Ok(vec![vec![vec![Integer(1_500)]]]), "the server keeps the time, too");
    }
    if fixture.engine == Engine::Postgres {
        let limit = statement(fixture, "SELECT current_setting('statement_timeout')", &[]);
        let within = sql.run_statement(&StatementConfig { timeout_ms: 1_500, ..limit }, &[vec![]]).await;
        assert_eq!(within, Ok(vec![vec![vec![text("1500ms")]]]), "the server keeps the time, too");
    }
}

pub async fn modules_leave_connections_to_the_host(fixture: &Fixture) {
    let sql = fixture.with(|settings| settings.connections_max = 2).await;
    let slow = StatementConfig { timeout_ms: 5_000, ..endless(fixture) };
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (sql, slow) = (Arc::clone(&sql), slow.clone());
            tokio::spawn(async move { sql.run_statement(&slow, &[vec![]]).await })
        })
        .collect();
    for _ in 0..50 {
        sql.ping().await.unwrap();
    }
    assert!(calls.iter().any(|call| !call.is_finished()), "the host waited for the modules");
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

pub async fn a_call_sees_one_snapshot(fixture: &Fixture) {
    fixture.run("CREATE TABLE note (id BIGINT)").await;
    let sql = match fixture.engine {
        Engine::Sqlite => {
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
            SELECT (SELECT count(*) FROM note), max(i) FROM n"
        }
        Engine::Postgres => "SELECT (SELECT count(*) FROM note), pg_sleep(0.005)",
        Engine::MariaDb | Engine::MySql => "SELECT (SELECT count(*) FROM note), SLEEP(0.005)",
    };
    let counting = statement(fixture, sql, &[]);
    let (rows, mut probe) = (vec![vec![]; 100], fixture.probe().await);
    let call = fixture.sql.run_statement(&counting, &rows);
    let writes = async {
        for id in 0..20 {
            probe.run(&format!("INSERT INTO note VALUES ({id})")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (sets, ()) = tokio::join!(call, writes);
    let counts: Vec<SqlValue> = sets.unwrap().into_iter().map(|mut rows| rows.remove(0).remove(0)).collect();
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

/// Round trips until a call of so many rows of parameters is answered, on a connection that knows the statement, and how often
/// that was tried. The test of a connection that goes back to the pool is none of the call's, and may come in between, again and
/// again on a slow machine: the least of several, `wanted` at best.
async fn round_trips(
    proxy: &CountingProxy,
    sql: &dyn Sql,
    statement: &StatementConfig,
    (rows, wanted): (usize, u64),
) -> (u64, usize) {
    let rows: Vec<Vec<SqlValue>> =
        (0..rows).map(|row| vec![Integer(i64::try_from(row).unwrap()), text(&format!("é'{row}"))]).collect();
    let expected: RowSets =
        rows.iter().map(|row| if statement.write { Vec::new() } else { vec![row.clone()] }).collect();
    let (mut least, mut tries) = (u64::MAX, 0);
    while tries < 8 || (least > wanted && tries < 100) {
        let before = proxy.turns();
        let found = sql.run_statement(statement, &rows).await.unwrap();
        least = least.min(proxy.turns() - before);
        tries += 1;
        assert_eq!(found, expected);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    (least, tries)
}

/// A call is one round trip, however many rows of parameters it has; one that may write has another one for its commit.
async fn a_call_is_one_round_trip(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.run("CREATE TABLE note (id BIGINT, body VARCHAR(50))").await;
    let (proxy, url) = CountingProxy::before(&fixture.url).await;
    let sql = fixture.with(|settings| settings.url = url).await;
    let (integer, words) = (ParameterType::Integer, ParameterType::Text);
    let (echo, echo_one) = match engine {
        // MariaDB has more to say of a statement without a table.
        Engine::Postgres => ("SELECT ?, ?", "SHOW server_version_num"),
        _ => ("SELECT ?, ?", "CALL one()"),
    };
    let read = statement(&fixture, echo, &[integer, words]);
    let write = writing(&fixture, "INSERT INTO note VALUES (?, ?)", &[integer, words]);
    let mut written = 0;
    for rows in [1, 10, 1_000] {
        let (trips, _) = round_trips(&proxy, &*sql, &read, (rows, 1)).await;
        assert_eq!(trips, 1, "{engine:?}: {rows} rows of parameters");
        let (trips, tries) = round_trips(&proxy, &*sql, &write, (rows, 2)).await;
        assert_eq!(trips, 2, "{engine:?}: {rows} rows are written");
        written += i64::try_from(rows * tries).unwrap();
    }
    assert_eq!(fixture.number("SELECT count(*) FROM note").await, written);
    // What no statement can run by name goes one by one, and finds the same.
    if engine.is_mysql() {
        fixture.run("CREATE PROCEDURE one() SELECT 1").await;
    }
    let other = statement(&fixture, echo_one, &[]);
    let found = sql.run_statement(&other, &[vec![], vec![]]).await.unwrap();
    assert!(found.len() == 2 && found[0].len() == 1 && found[0] == found[1], "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_one_round_trip_postgres() {
    a_call_is_one_round_trip(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_one_round_trip_mariadb() {
    a_call_is_one_round_trip(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_one_round_trip_mysql() {
    a_call_is_one_round_trip(Engine::MySql).await;
}

/// Values that could be taken for something else, and more of them than one message holds.
pub async fn values_arrive_as_they_were_given(fixture: &Fixture) {
    use ParameterType::{Integer as I, Real as R, Text as T};
    let sql =
        if fixture.engine == Engine::Postgres { "SELECT $1, $2, $3 -- the end" } else { "SELECT ?, ?, ? -- the end" };
    let echo = StatementConfig { sql: sql.into(), ..statement(fixture, "", &[I, R, T]) };
    let long = "\\'\"é🦀\n$1 ? :x /* */ -- ;".repeat(60);
    let row = |n: i64| vec![Integer(n), Real(0.1 * n as f64), text(&format!("{n}{long}"))];
    let rows: Vec<Vec<SqlValue>> = (0..1_000).map(row).collect();
    let expected: RowSets = rows.iter().map(|row| vec![row.clone()]).collect();
    assert_eq!(found(fixture, &echo, &rows).await, expected);
    for number in [f64::MIN_POSITIVE, f64::MAX, 1.0 / 3.0, 5e-324, 16_777_217.0] {
        let row = vec![Integer(0), Real(number), Null];
        assert_eq!(found(fixture, &echo, std::slice::from_ref(&row)).await, vec![vec![row]]);
    }
    // Compared with columns of other collations, a text is one that takes theirs.
    if fixture.engine.is_mysql() {
        fixture
            .run("CREATE TABLE named (exact VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
                  alike VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, old VARCHAR(9) CHARACTER SET latin1,
                  single FLOAT); INSERT INTO named VALUES ('é', 'é', 'é', 1.2345678)")
            .await;
        let same = statement(fixture, "SELECT single FROM named WHERE exact = ? AND alike = ? AND old = ?", &[T, T, T]);
        let rows = [vec![text("é"), text("É"), text("é")], vec![text("É"), text("é"), text("é")]];
        let single = Real(f64::from(1.234_567_8_f32));
        assert_eq!(found(fixture, &same, &rows).await, vec![vec![vec![single]], vec![]], "no digit of a FLOAT is lost");
    }
    let (odd, words) = match fixture.engine {
        Engine::Sqlite => return,
        Engine::Postgres => (vec![Integer(0), Real(0.0), text("a\0b")], "NUL"),
        Engine::MariaDb | Engine::MySql => (vec![Integer(0), Real(f64::INFINITY), Null], "infinite"),
    };
    let reason = invalid(fixture, &echo, &[odd]).await;
    assert!(reason.contains("parameter") && reason.contains(words), "{reason}");
}

/// PostgreSQL makes what a prepared statement finds before it hands any of it over, so what is far too much ends by its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_far_too_much_ends_by_its_time_postgres() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let all = statement(&fixture, "SELECT generate_series(1, 2000000000)", &[]);
    let all = StatementConfig { rows_max: 10, timeout_ms: 300, ..all };
    let late = fixture.sql.run_statement(&all, &[vec![]]).await;
    // The server's own limit, or weir's, which is the same time and may be first on a busy machine.
    let is_by_time = |reason: &str| reason.contains("57014") || reason.contains("not done within timeout_ms = 300");
    assert!(matches!(&late, Err(StatementError::Unavailable(reason)) if is_by_time(reason)), "{late:?}");
    is_usable(&*fixture.sql, &statement(&fixture, "SELECT 1", &[])).await;
}
