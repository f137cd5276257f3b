//! Numbers that a table gives to its rows by itself: how many are taken, and what happens when none is left.

use weir::config::{FieldConfig, KindTable, PreferenceTable};
use weir::model::{Id, IdType, Setting, SettingType, Settings};
use weir::sql::{Fence, Row, SettingsRow, SqlError};

use crate::fixture::{AT_MS, Engine, Fixture, KIND, ORIGIN, add, table};

fn binding() -> PreferenceTable {
    let minute = FieldConfig {
        name: "minute".into(),
        column: "minute_column".into(),
        field_type: SettingType::Int,
        default: Setting::Int(5),
    };
    PreferenceTable {
        name: "member_setting".into(),
        member_column: "member_id".into(),
        member_type: IdType::Integer,
        fields: vec![minute],
        members: None,
    }
}

/// A key that the engine numbers, of the least type that it has for that.
fn numbered(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "INTEGER PRIMARY KEY AUTOINCREMENT",
        Engine::Postgres => "SMALLSERIAL PRIMARY KEY",
        Engine::MariaDb | Engine::MySql => "SMALLINT NOT NULL AUTO_INCREMENT PRIMARY KEY",
    }
}

async fn settings_table(fixture: &Fixture) -> KindTable {
    let id = numbered(fixture.engine);
    fixture
        .run(&format!(
            "CREATE TABLE member_setting (id {id}, member_id BIGINT NOT NULL UNIQUE, minute_column INTEGER NOT NULL)"
        ))
        .await;
    KindTable::Preference(binding())
}

fn set(member: i64, minute: i64) -> Row {
    let settings = Settings::of([("minute", &Setting::Int(minute))]);
    Row::Settings(SettingsRow { origin: ORIGIN, member: Id::Int(member), settings })
}

/// How many numbers a table has given so far.
async fn taken(fixture: &Fixture, table: &str) -> i64 {
    let query = match fixture.engine {
        Engine::Sqlite => format!("SELECT COALESCE(max(seq), 0) FROM sqlite_sequence WHERE name = '{table}'"),
        Engine::Postgres => format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {table}_id_seq"),
        // MySQL keeps what this table says for a day, unless the session is told otherwise.
        Engine::MariaDb | Engine::MySql => format!(
            "SELECT CAST(auto_increment - 1 AS SIGNED) FROM information_schema.tables
             WHERE table_schema = DATABASE() AND table_name = '{table}'"
        ),
    };
    let mut probe = fixture.probe().await;
    if fixture.engine == Engine::MySql {
        probe.run("SET SESSION information_schema_stats_expiry = 0").await.unwrap();
    }
    probe.number(&query).await
}

/// Gives all numbers but `left`.
async fn use_up(fixture: &Fixture, table: &str, left: i64) {
    let script = match fixture.engine {
        Engine::Sqlite => format!("UPDATE sqlite_sequence SET seq = {} WHERE name = '{table}'", i64::MAX - left),
        Engine::Postgres => format!("SELECT setval('{table}_id_seq', {})", 32_767 - left),
        // Nothing else moves it that far.
        Engine::MariaDb | Engine::MySql => format!("UPDATE {table} SET id = {} WHERE id = 1", 32_767 - left),
    };
    fixture.run(&script).await;
    if fixture.engine.is_mysql() {
        fixture.run(&format!("ALTER TABLE {table} AUTO_INCREMENT = {}", (32_768 - left).min(32_767))).await;
    }
}

pub async fn changes_of_settings_take_a_number_for_each_new_row(fixture: &Fixture) {
    let kind = settings_table(fixture).await;
    let mut statements = Vec::new();
    for round in 0..10 {
        let rows: Vec<Row> = (1..=100).map(|member| set(member, round)).collect();
        let applied = fixture.store(&kind, &rows).await;
        let (inserted, updated) = if round == 0 { (100, 0) } else { (0, 100) };
        assert_eq!((applied.inserted, applied.updated, applied.dead.len()), (inserted, updated, 0));
        statements.push(applied.statements);
    }
    let numbers = taken(fixture, "member_setting").await;
    println!("{:?}: 1,000 changes of 100 members took {numbers} numbers", fixture.engine);
    assert_eq!(numbers, 100);
    assert!(statements.iter().all(|count| *count <= 8), "few statements for a batch: {statements:?}");
    // Old and new in one batch.
    let rows: Vec<Row> = (51..=150).map(|member| set(member, 77)).collect();
    let applied = fixture.store(&kind, &rows).await;
    assert_eq!((applied.inserted, applied.updated, applied.dead.len()), (50, 50, 0));
    assert_eq!(taken(fixture, "member_setting").await, 150);
    assert_eq!(fixture.number("SELECT count(*) FROM member_setting WHERE minute_column = 77").await, 100);
}

pub async fn likes_that_are_there_take_no_number(fixture: &Fixture) {
    fixture
        .run(&format!(
            "CREATE TABLE feed (id BIGINT NOT NULL PRIMARY KEY, like_count BIGINT NOT NULL DEFAULT 0);
             CREATE TABLE feed_like (id {}, feed_id BIGINT NOT NULL, user_id BIGINT NOT NULL,
                created_at BIGINT NOT NULL, UNIQUE (feed_id, user_id));
             INSERT INTO feed (id) VALUES (1), (2)",
            numbered(fixture.engine)
        ))
        .await;
    let kind = KindTable::Toggle(table(IdType::Integer));
    for round in 0..3 {
        let rows: Vec<Row> = (0..100).map(|actor| Row::Toggle(add(1 + actor % 2, actor))).collect();
        let applied = fixture.store(&kind, &rows).await;
        assert_eq!(applied.inserted, if round == 0 { 100 } else { 0 });
    }
    let numbers = taken(fixture, "feed_like").await;
    println!("{:?}: 300 likes of 100 pairs took {numbers} numbers", fixture.engine);
    assert_eq!(numbers, 100);
    fixture.counts_equal_rows().await;
}

pub async fn a_sequence_without_a_number_holds_the_kind_back(fixture: &Fixture) {
    let kind = settings_table(fixture).await;
    fixture.store(&kind, &[set(1, 1), set(2, 1)]).await;
    use_up(fixture, "member_setting", 0).await;
    // Who has a row needs no number.
    let applied = fixture.store(&kind, &[set(1, 2), set(2, 2)]).await;
    assert_eq!((applied.updated, applied.dead.len()), (2, 0));
    let from = fixture.checkpoint(0).await.unwrap();
    let fences = [Fence { from, to: from.position + 1 }];
    let rows = [set(1, 3), set(3, 3), set(4, 3)];
    for _ in 0..2 {
        let refused = fixture.sql.apply(KIND, &kind, &fences, &rows, AT_MS).await;
        assert!(matches!(refused, Err(SqlError::Permanent(_))), "it is nobody's row: {refused:?}");
    }
    assert_eq!(fixture.sql.dead_letters(Some(KIND), 0, 10).await.unwrap(), Vec::new());
    assert_eq!(fixture.number("SELECT count(*) FROM member_setting WHERE minute_column = 2").await, 2);
    // Mended, it goes on where it was.
    fixture
        .run(match fixture.engine {
            Engine::Sqlite => "UPDATE sqlite_sequence SET seq = 10",
            Engine::Postgres => {
                "ALTER TABLE member_setting ALTER COLUMN id TYPE bigint;
                 ALTER SEQUENCE member_setting_id_seq AS bigint NO MAXVALUE"
            }
            Engine::MariaDb | Engine::MySql => {
                "ALTER TABLE member_setting MODIFY COLUMN id BIGINT NOT NULL AUTO_INCREMENT"
            }
        })
        .await;
    let applied = fixture.sql.apply(KIND, &kind, &fences, &rows, AT_MS).await.unwrap();
    assert_eq!((applied.inserted, applied.updated, applied.dead.len()), (2, 1, 0));
}

/// Only this engine has a sequence beside the column.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_that_does_not_suit_its_column_or_its_rows_holds_the_kind_back() {
    let fixture = &Fixture::new(Engine::Postgres).await;
    fixture
        .run(
            "CREATE SEQUENCE numbers;
             CREATE TABLE member_setting (id SMALLINT PRIMARY KEY DEFAULT nextval('numbers'),
                member_id BIGINT NOT NULL UNIQUE, minute_column SMALLINT NOT NULL);
             SELECT setval('numbers', 32767)",
        )
        .await;
    let kind = KindTable::Preference(binding());
    let from = fixture.claim(0).await;
    let fences = [Fence { from, to: from.position + 1 }];
    let apply = |rows: Vec<Row>| {
        let kind = kind.clone();
        async move { fixture.sql.apply(KIND, &kind, &fences, &rows, AT_MS).await }
    };
    let said = apply(vec![set(1, 3)]).await.unwrap_err().to_string();
    assert!(said.contains("numbers, which numbers member_setting.id, is used up"), "{said}");
    // A sequence that is behind its rows, as after a restore of the rows alone.
    fixture.run("INSERT INTO member_setting VALUES (1, 8, 1), (2, 9, 1); SELECT setval('numbers', 1, false)").await;
    let said = apply(vec![set(1, 3)]).await.unwrap_err().to_string();
    assert!(said.contains("is behind the rows"), "{said}");
    let remedy = said.split("; ").find(|part| part.starts_with("SELECT setval")).unwrap();
    let remedy = remedy.split(" (23505").next().unwrap();
    fixture.run(remedy).await;
    // A value that does not fit is still its row's fault.
    let applied = apply(vec![set(1, 3), set(2, 40_000)]).await.unwrap();
    assert_eq!((applied.inserted, applied.dead.len()), (1, 1), "{:?}", applied.dead);
}
