//! Tables of counters, documents and settings.

use weir::config::{EventTable, FieldConfig, IngestConfig, KindTable, MemberTable, PreferenceTable};
use weir::model::{Id, IdType, Setting, SettingType, Settings};
use weir::sql::{Advice, CountRow, Problem, Row, SettingsRow};

use super::{Case, Said, Shape, views};
use crate::fixture::{Engine, ORIGIN};

/// The cases of this file.
pub const CASES: &[Case] = &[
    ("counters that fit", |_| Some(Shape::new(format!("{VIDEO} {VIEWS}"), events(), &[]).stores(hits()))),
    ("no tables of counters", |_| {
        Some(Shape::new("SELECT 1", events(), &[(Problem::NoTable, Advice::CreateTable); 2]))
    }),
    ("no count where there are events", |_| {
        let video = VIDEO.replace(", view_count BIGINT NOT NULL DEFAULT 0", "");
        let setup =
            format!("{video} {VIEWS} INSERT INTO video_view VALUES (1, 1, 1, 3), (1, NULL, 1, 4), (2, 1, 1, 1)");
        let shape = Shape::new(setup, events(), &[(Problem::NoCountColumn, Advice::AddCount)]);
        Some(shape.proof("SELECT count(*) FROM video WHERE id = 1 AND view_count = 7", 1).stores(hits()))
    }),
    ("a trigger that counts events", |engine| {
        let statement = "UPDATE video SET view_count = view_count + NEW.times WHERE id = NEW.video_id";
        let trigger = match engine {
            Engine::Sqlite => format!("CREATE TRIGGER tally AFTER INSERT ON video_view BEGIN {statement}; END"),
            Engine::Postgres => format!(
                "CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN NULL; END $$;
                 CREATE TRIGGER tally AFTER INSERT ON video_view FOR EACH ROW EXECUTE FUNCTION tally()"
            ),
            Engine::MariaDb | Engine::MySql => {
                format!("CREATE TRIGGER tally AFTER INSERT ON video_view FOR EACH ROW {statement}")
            }
        };
        let says = &[(Problem::CountingTrigger, Advice::DropTrigger)];
        Some(Shape::new(format!("{VIDEO} {VIEWS} {trigger}"), events(), says).says(&["tally on video_view"]))
    }),
    ("hits by nobody", |engine| {
        let (actor, ids) = match engine {
            Engine::MariaDb | Engine::MySql => {
                ("VARCHAR(191) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin", IdType::Text)
            }
            _ => ("BIGINT", IdType::Integer),
        };
        let setup = format!("{VIDEO} {}", VIEWS.replace("user_id BIGINT", &format!("user_id {actor} NOT NULL")));
        let remedy = if engine == Engine::Sqlite { Advice::Decide } else { Advice::LetNull };
        let KindTable::Counter(mut table) = events() else { return None };
        table.actor_type = ids;
        Some(
            Shape::new(setup, KindTable::Counter(table), &[(Problem::ActorNotNull, remedy)])
                .says(&["actor = \"required\""]),
        )
    }),
    ("hits by nobody in a key", |_| {
        let views = VIEWS
            .replace("user_id BIGINT", "user_id BIGINT NOT NULL")
            .replace("times BIGINT NOT NULL", "times BIGINT NOT NULL, PRIMARY KEY (video_id, user_id, seen_at, times)");
        let says = &[(Problem::ActorNotNull, Advice::Decide), (Problem::OtherKey, Advice::Decide)];
        Some(Shape::new(format!("{VIDEO} {views}"), events(), says))
    }),
    ("no number of events", |_| {
        let setup = format!("{VIDEO} {}", VIEWS.replace(", times BIGINT NOT NULL", ""));
        Some(Shape::new(setup, events(), &[(Problem::NoValueColumn, Advice::AddValue)]).stores(hits()))
    }),
    ("documents that fit", |engine| Some(Shape::new(documents(engine), ingest(), &[]))),
    ("no tables of documents", |_| {
        let mut shape = Shape::new("SELECT 1", ingest(), &[(Problem::NoTable, Advice::CreateTable); 2]);
        shape.rounds.push(vec![(Problem::NoIndex, Advice::AddIndex)]);
        Some(shape)
    }),
    ("documents without indexes", |engine| {
        let setup = documents(engine).replace("CREATE INDEX of_user ON playlist (user_id, created_at);", "");
        let setup = setup.replace("PRIMARY KEY (playlist_id, position)", "PRIMARY KEY (position, playlist_id)");
        Some(Shape::new(setup, ingest(), &[(Problem::NoIndex, Advice::AddIndex); 2]))
    }),
    ("documents without a field", |engine| {
        let setup = documents(engine).replace(" title VARCHAR(40) NOT NULL, created_at", " created_at");
        Some(Shape::new(setup, ingest(), &[(Problem::NoValueColumn, Advice::AddValue)]).says(&["no column title"]))
    }),
    ("documents that are deleted softly", |engine| {
        let setup = documents(engine).replace("PRIMARY KEY, user_id", "PRIMARY KEY, is_deleted BOOLEAN, user_id");
        let shape = Shape::new(setup, ingest(), &[(Problem::RowState, Advice::Decide)]);
        Some(shape.says(&["playlist.is_deleted"]).obey(|_, settings| {
            settings.acknowledged = vec!["playlist.is_deleted".into()];
        }))
    }),
    ("a field that the database computes", |engine| {
        let kind = if engine == Engine::Postgres { "STORED" } else { "VIRTUAL" };
        let computed = format!("PRIMARY KEY, made BIGINT GENERATED ALWAYS AS (user_id + 1) {kind}, user_id");
        let KindTable::Ingest(mut table) = ingest() else { return None };
        table.columns.insert("made".into(), "made".into());
        let setup = documents(engine).replace("PRIMARY KEY, user_id", &computed);
        let shape = Shape::new(setup, KindTable::Ingest(table), &[(Problem::Computed, Advice::Decide)]);
        Some(shape.obey(|table, _| {
            let KindTable::Ingest(table) = table else { return };
            table.columns.remove("made");
        }))
    }),
    ("a field of bits", |engine| {
        let KindTable::Ingest(mut table) = ingest() else { return None };
        table.columns.insert("flags".into(), "flags".into());
        let setup = documents(engine).replace("PRIMARY KEY, user_id", "PRIMARY KEY, flags BIT(8), user_id");
        let says = &[(Problem::BitColumn, Advice::Decide)];
        engine.is_mysql().then(|| Shape::new(setup, KindTable::Ingest(table), says))
    }),
    ("a field for which JSON has no values", |engine| {
        let KindTable::Ingest(mut table) = ingest() else { return None };
        let bytes = match engine {
            // A BLOB of this engine holds UUIDs.
            Engine::Sqlite => return None,
            Engine::Postgres => "BYTEA",
            Engine::MariaDb | Engine::MySql => "BLOB",
        };
        table.columns.insert("picture".into(), "picture".into());
        let setup =
            documents(engine).replace("PRIMARY KEY, user_id", &format!("PRIMARY KEY, picture {bytes}, user_id"));
        Some(Shape::new(setup, KindTable::Ingest(table), &[(Problem::ValueType, Advice::Decide)]))
    }),
    ("settings that fit", |_| Some(Shape::new(SETTING, settings(), &[]).stores(changes()))),
    ("no tables of settings", |_| {
        let KindTable::Preference(mut table) = settings() else { return None };
        table.members = Some(MemberTable { name: "member".into(), key_column: "id".into() });
        let says = &[(Problem::NoTable, Advice::CreateTable); 2];
        Some(Shape::new("SELECT 1", KindTable::Preference(table), says))
    }),
    ("settings without a field", |_| {
        let setup = SETTING.replace(", social BOOLEAN NOT NULL DEFAULT TRUE", "");
        Some(Shape::new(setup, settings(), &[(Problem::NoValueColumn, Advice::AddValue)]).stores(changes()))
    }),
    ("settings of a wrong type", |_| Some(wrong_setting())),
    ("settings that are bits", |engine| {
        let setup =
            SETTING.replace("social BOOLEAN NOT NULL DEFAULT TRUE", "social BIT(1) NOT NULL DEFAULT b'1' COMMENT 'a'");
        let setup = format!(
            "{setup}; INSERT INTO setting (member_id) VALUES (7), (8); UPDATE setting SET social = b'0' WHERE member_id = 8"
        );
        let says = &[(Problem::BitColumn, Advice::MakeBoolean)];
        engine.is_mysql().then(|| {
            Shape::new(setup, settings(), says)
                .says(&["setting.social is bit(1)"])
                .proof("SELECT count(*) FROM setting WHERE member_id = 7 AND social = 1", 1)
                .proof("SELECT count(*) FROM setting WHERE member_id = 8 AND social = 0", 1)
                .stores(changes())
        })
    }),
    ("members that are deleted softly", |_| {
        let KindTable::Preference(mut table) = settings() else { return None };
        table.members = Some(MemberTable { name: "member".into(), key_column: "id".into() });
        let setup = format!("{SETTING}; CREATE TABLE member (id BIGINT NOT NULL PRIMARY KEY, deleted_at BIGINT)");
        let shape = Shape::new(setup, KindTable::Preference(table), &[(Problem::StateIgnored, Advice::Decide)]);
        Some(shape.obey(|_, settings| settings.acknowledged = vec!["member.deleted_at".into()]))
    }),
];

const VIDEO: &str =
    "CREATE TABLE video (id BIGINT NOT NULL PRIMARY KEY, title VARCHAR(20), view_count BIGINT NOT NULL DEFAULT 0);
    INSERT INTO video (id) VALUES (1), (2);";
const VIEWS: &str = "CREATE TABLE video_view (video_id BIGINT NOT NULL, user_id BIGINT, seen_at BIGINT NOT NULL, times BIGINT NOT NULL);";
const SETTING: &str =
    "CREATE TABLE setting (member_id BIGINT NOT NULL PRIMARY KEY, social BOOLEAN NOT NULL DEFAULT TRUE)";

fn events() -> KindTable {
    views(|table| {
        table.events = Some(EventTable {
            name: "video_view".into(),
            target_column: "video_id".into(),
            actor_column: "user_id".into(),
            created_at_column: Some("seen_at".into()),
            by_column: Some("times".into()),
        });
    })
}

fn hits() -> Vec<Row> {
    vec![Row::Count(CountRow { origin: ORIGIN, target: Id::Int(1), by: 5 })]
}

fn documents(engine: Engine) -> String {
    let (id, time) = match engine {
        Engine::Sqlite => ("TEXT", "TEXT"),
        Engine::Postgres => ("UUID", "TIMESTAMPTZ"),
        Engine::MariaDb | Engine::MySql => ("BINARY(16)", "DATETIME(3)"),
    };
    format!(
        "CREATE TABLE playlist (id {id} NOT NULL PRIMARY KEY, user_id BIGINT NOT NULL, title VARCHAR(40) NOT NULL, created_at {time} NOT NULL, description TEXT);
         CREATE INDEX of_user ON playlist (user_id, created_at);
         CREATE TABLE playlist_track (playlist_id {id} NOT NULL, position INTEGER NOT NULL, title VARCHAR(40) NOT NULL,
            seconds INTEGER, PRIMARY KEY (playlist_id, position));"
    )
}

fn ingest() -> KindTable {
    KindTable::Ingest(IngestConfig::demo().table)
}

fn settings() -> KindTable {
    KindTable::Preference(PreferenceTable {
        name: "setting".into(),
        member_column: "member_id".into(),
        member_type: IdType::Integer,
        fields: vec![FieldConfig {
            name: "social".into(),
            column: "social".into(),
            field_type: SettingType::Bool,
            default: Setting::Bool(true),
        }],
        members: None,
    })
}

/// Some that are set.
fn changes() -> Vec<Row> {
    let row = |member: i64, value: bool| {
        let settings = Settings::of([("social", &Setting::Bool(value))]);
        Row::Settings(SettingsRow { origin: ORIGIN, member: Id::Int(member), settings })
    };
    vec![row(7, false), row(9, true)]
}

fn wrong_setting() -> Shape {
    let setup = SETTING.replace("social BOOLEAN NOT NULL DEFAULT TRUE", "social VARCHAR(9)");
    let says: &[Said] = &[(Problem::ValueType, Advice::Decide)];
    Shape::new(setup, settings(), says).says(&["setting.social is "])
}
