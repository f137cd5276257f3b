//! Settings of members: what is loaded, what is written, what can never be stored.

use serde_json::{Value, json};
use uuid::Uuid;
use weir::config::{FieldConfig, KindTable, MemberTable, PreferenceTable};
use weir::model::{Id, IdType, Setting, SettingType, Settings};
use weir::sql::{Fence, Row, SettingsRow, SqlError};

use crate::fixture::{AT_MS, Engine, Fixture, KIND, ORIGIN};

fn binding(member_type: IdType) -> PreferenceTable {
    let field = |name: &str, field_type, default| FieldConfig {
        name: name.into(),
        column: format!("{name}_column"),
        field_type,
        default,
    };
    PreferenceTable {
        name: "member_setting".into(),
        member_column: "member_id".into(),
        member_type,
        fields: vec![
            field("on", SettingType::Bool, Setting::Bool(true)),
            field("flag", SettingType::Bool, Setting::Bool(false)),
            field("minute", SettingType::Int, Setting::Int(5)),
            field("version", SettingType::Text, Setting::Text("1.0".into())),
        ],
        members: None,
    }
}

/// Table `member_setting`: a boolean, a small number as one, an integer, a text of 9 characters.
async fn create(fixture: &Fixture, member: &str) -> PreferenceTable {
    fixture
        .run(&format!(
            "CREATE TABLE member_setting (member_id {member} NOT NULL PRIMARY KEY, on_column BOOLEAN NOT NULL,
                flag_column SMALLINT, minute_column INTEGER, version_column VARCHAR(9) NOT NULL, note VARCHAR(9))"
        ))
        .await;
    binding(IdType::Integer)
}

fn settings(fields: &[(&str, Setting)]) -> Settings {
    Settings::of(fields.iter().map(|(name, value)| (*name, value)))
}

fn row(member: impl Into<MemberId>, fields: &[(&str, Setting)]) -> Row {
    let (member, settings) = (member.into().0, settings(fields));
    Row::Settings(SettingsRow { origin: ORIGIN, member, settings })
}

struct MemberId(Id);

impl From<i64> for MemberId {
    fn from(id: i64) -> Self {
        Self(Id::Int(id))
    }
}

impl From<Id> for MemberId {
    fn from(id: Id) -> Self {
        Self(id)
    }
}

async fn loaded(fixture: &Fixture, table: &PreferenceTable, members: &[i64]) -> Vec<Option<Value>> {
    let members: Vec<Id> = members.iter().copied().map(Id::Int).collect();
    let found = fixture.sql.load_settings(table, &members).await.unwrap();
    found.into_iter().map(|found| found.map(|settings| Value::Object(settings.to_json()))).collect()
}

pub async fn settings_come_back_as_they_were(fixture: &Fixture) {
    let mut table = create(fixture, "BIGINT").await;
    fixture
        .run(
            "INSERT INTO member_setting VALUES (1, TRUE, 0, -7, 'é', 'kept');
             INSERT INTO member_setting VALUES (2, FALSE, NULL, NULL, '', NULL);
             CREATE TABLE account (id BIGINT NOT NULL PRIMARY KEY);
             INSERT INTO account VALUES (1), (3)",
        )
        .await;
    let one = json!({"on": true, "flag": false, "minute": -7, "version": "é"});
    let two = json!({"on": false, "version": ""});
    let found = loaded(fixture, &table, &[3, 2, 1, 2]).await;
    assert_eq!(found, [Some(json!({})), Some(two.clone()), Some(one.clone()), Some(two)], "NULL is not set");
    table.members = Some(MemberTable { name: "account".into(), key_column: "id".into() });
    assert_eq!(loaded(fixture, &table, &[1, 2, 3]).await, [Some(one), None, Some(json!({}))]);
    let wrong = fixture.sql.load_settings(&table, &[Id::Text("1".into())]).await;
    assert!(matches!(wrong, Err(SqlError::Permanent(_))), "{wrong:?}");
    // Other types of ids.
    fixture.run("DROP TABLE member_setting").await;
    let uuid = match fixture.engine {
        Engine::Sqlite => "TEXT",
        Engine::Postgres => "UUID",
        Engine::MariaDb | Engine::MySql => "BINARY(16)",
    };
    create(fixture, uuid).await;
    let (table, id) = (binding(IdType::Uuid), Id::Uuid(Uuid::from_u128(5)));
    let kind = KindTable::Preference(table.clone());
    fixture.store(&kind, &[row(id.clone(), &[("minute", Setting::Int(9))])]).await;
    let found = fixture.sql.load_settings(&table, &[Id::Uuid(Uuid::from_u128(6)), id]).await.unwrap();
    assert_eq!(found[0], Some(Settings::default()));
    let expected = json!({"on": true, "flag": false, "minute": 9, "version": "1.0"});
    assert_eq!(Value::Object(found[1].as_ref().unwrap().to_json()), expected);
}

pub async fn only_what_changes_is_written_and_new_rows_have_defaults(fixture: &Fixture) {
    let table = create(fixture, "BIGINT").await;
    fixture.run("INSERT INTO member_setting VALUES (1, TRUE, 0, 3, '2.0', 'kept')").await;
    let kind = KindTable::Preference(table.clone());
    let rows = [
        row(2, &[("flag", Setting::Bool(true))]),
        row(1, &[("on", Setting::Bool(false)), ("version", Setting::Text("o'ne".into()))]),
        row(3, &[("minute", Setting::Int(-1)), ("on", Setting::Bool(false))]),
    ];
    let applied = fixture.store(&kind, &rows).await;
    assert_eq!((applied.inserted + applied.updated, applied.dead.len()), (3, 0));
    let expected = [
        Some(json!({"on": false, "flag": false, "minute": 3, "version": "o'ne"})),
        Some(json!({"on": true, "flag": true, "minute": 5, "version": "1.0"})),
        Some(json!({"on": false, "flag": false, "minute": -1, "version": "1.0"})),
    ];
    assert_eq!(loaded(fixture, &table, &[1, 2, 3]).await, expected);
    // What somebody else writes meanwhile stays.
    fixture.run("UPDATE member_setting SET minute_column = 77 WHERE member_id = 1").await;
    fixture.store(&kind, &[row(1, &[("on", Setting::Bool(true))])]).await;
    assert_eq!(loaded(fixture, &table, &[1]).await[0].as_ref().unwrap()["minute"], 77);
    assert_eq!(fixture.number("SELECT count(*) FROM member_setting WHERE note = 'kept'").await, 1);
    assert_eq!(fixture.sql.explain(&kind, &Id::Int(1), None).await.unwrap()["settings"]["on"], true);
}

pub async fn thousands_of_settings_are_few_statements(fixture: &Fixture) {
    let kind = KindTable::Preference(create(fixture, "BIGINT").await);
    let rows: Vec<Row> = (1..=5_000).rev().map(|n| row(n, &[("minute", Setting::Int(n))])).collect();
    for _ in 0..2 {
        let applied = fixture.store(&kind, &rows).await;
        assert_eq!((applied.inserted + applied.updated, applied.dead.len()), (5_000, 0));
        assert!(applied.statements <= 20, "{} statements", applied.statements);
    }
    assert_eq!(fixture.number("SELECT count(*) FROM member_setting WHERE minute_column = member_id").await, 5_000);
}

pub async fn one_bad_row_of_settings_is_dead_alone(fixture: &Fixture) {
    let kind = KindTable::Preference(create(fixture, "BIGINT").await);
    if fixture.engine == Engine::Sqlite {
        fixture
            .run(
                "CREATE TRIGGER short BEFORE UPDATE ON member_setting WHEN length(new.version_column) > 9
                    BEGIN SELECT RAISE(ABORT, 'too long'); END;
                 CREATE TRIGGER shorter BEFORE INSERT ON member_setting WHEN length(new.version_column) > 9
                    BEGIN SELECT RAISE(ABORT, 'too long'); END",
            )
            .await;
    }
    let mut rows: Vec<Row> = (1..=1_000).map(|n| row(n, &[("on", Setting::Bool(false))])).collect();
    rows[499] = row(500, &[("version", Setting::Text("0123456789".into()))]);
    rows[799] = row(800, &[("colour", Setting::Int(1))]);
    let applied = fixture.store(&kind, &rows).await;
    let dead: Vec<usize> = applied.dead.iter().map(|(index, _)| *index).collect();
    assert_eq!(dead, [499, 799], "{:?}", applied.dead);
    assert_eq!(fixture.number("SELECT count(*) FROM member_setting").await, 998);
    let letters = fixture.sql.dead_letters(Some(KIND), 0, 10).await.unwrap();
    let letter = letters.iter().find(|letter| letter.target == "500").unwrap();
    assert_eq!((letter.action.as_str(), letter.actor.as_str()), ("set", ""));
    assert_eq!(letter.body.as_deref(), Some("{\"version\":\"0123456789\"}"));
}

pub async fn a_zombie_sets_nothing(fixture: &Fixture) {
    let kind = KindTable::Preference(create(fixture, "BIGINT").await);
    let from = fixture.claim(0).await;
    fixture.sql.claim(KIND, &[(0, from.incarnation)], true).await.unwrap();
    let fences = [Fence { from, to: from.position + 10 }];
    let outcome = fixture.sql.apply(KIND, &kind, &fences, &[row(1, &[("on", Setting::Bool(false))])], AT_MS).await;
    assert_eq!(outcome, Err(SqlError::Fenced));
    assert_eq!(fixture.number("SELECT count(*) FROM member_setting").await, 0);
}

pub async fn settings_are_replayed_once(fixture: &Fixture) {
    let table = create(fixture, "BIGINT").await;
    let kind = KindTable::Preference(table.clone());
    fixture.run("INSERT INTO member_setting VALUES (1, TRUE, 0, 3, '2.0', NULL)").await;
    let mut fewer = table.clone();
    fewer.fields.remove(2);
    let without = KindTable::Preference(fewer);
    let applied =
        fixture.store(&without, &[row(1, &[("minute", Setting::Int(4)), ("on", Setting::Bool(false))])]).await;
    assert_eq!(applied.dead.len(), 1, "a field that is not configured any more");
    let letter = fixture.sql.dead_letters(Some(KIND), 0, 1).await.unwrap().remove(0);
    assert!(fixture.sql.replay_dead_letter(&without, &letter).await.is_err());
    fixture.sql.replay_dead_letter(&kind, &letter).await.unwrap();
    assert!(fixture.sql.replay_dead_letter(&kind, &letter).await.is_err(), "once");
    let found = loaded(fixture, &table, &[1]).await;
    assert_eq!(found, [Some(json!({"on": false, "flag": false, "minute": 4, "version": "2.0"}))]);
}

pub async fn tables_of_settings_are_checked(fixture: &Fixture) {
    let mut table = binding(IdType::Integer);
    let check = |table: &PreferenceTable| {
        let table = KindTable::Preference(table.clone());
        async move { fixture.sql.check_table(&table).await.unwrap() }
    };
    let findings = check(&table).await;
    assert!(findings[0].problem.contains("member_setting does not exist"), "{findings:?}");
    // The printed statement mends it.
    fixture.mend(&findings[0], false).await;
    assert!(check(&table).await.iter().all(|finding| finding.warning), "{:?}", check(&table).await);
    fixture.run("DROP TABLE member_setting").await;
    create(fixture, "BIGINT").await;
    assert_eq!(check(&table).await, Vec::new());
    table.fields[2].column = "version_column".into();
    let findings = check(&table).await;
    assert!(findings.iter().any(|finding| finding.problem.contains("values of type int")), "{findings:?}");
    table.fields[2].column = "nowhere".into();
    let findings = check(&table).await;
    assert!(findings.iter().any(|finding| finding.problem.contains("no column nowhere")), "{findings:?}");
}
