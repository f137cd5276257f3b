//! What is refused of the tables of counters and of documents, and the statements that mend it.

use serde_json::json;
use weir::config::{CounterConfig, CounterTable, EventTable, IngestConfig, IngestTable, KindTable};
use weir::model::IdType;
use weir::sql::{Advice, Finding, Problem, SqlError};

use crate::documents::{create, playlists};
use crate::fixture::{AT_MS, Engine, Fixture, KIND};

fn counter() -> CounterTable {
    let events = EventTable {
        name: "video_view".into(),
        target_column: "video_id".into(),
        actor_column: "user_id".into(),
        created_at_column: Some("seen_at".into()),
        by_column: Some("times".into()),
    };
    CounterTable { events: Some(events), ..CounterConfig::demo().table }
}

async fn check_counter(fixture: &Fixture, table: &CounterTable) -> Vec<Finding> {
    fixture.sql.check_table(&KindTable::Counter(table.clone())).await.unwrap()
}

async fn check_documents(fixture: &Fixture, table: &IngestTable) -> Vec<Finding> {
    fixture.sql.check_table(&KindTable::Ingest(table.clone())).await.unwrap()
}

async fn videos(fixture: &Fixture) {
    fixture
        .run(
            "CREATE TABLE video (id BIGINT NOT NULL PRIMARY KEY, title VARCHAR(20) NOT NULL, view_count BIGINT);
             CREATE TABLE video_view (video_id BIGINT NOT NULL, user_id BIGINT, seen_at BIGINT NOT NULL,
                times SMALLINT NOT NULL, note VARCHAR(9))",
        )
        .await;
}

/// The finding that names this.
fn named<'f>(findings: &'f [Finding], problem: &str) -> &'f Finding {
    let found = findings.iter().find(|finding| finding.problem.contains(problem));
    found.unwrap_or_else(|| panic!("nobody says {problem:?}: {findings:#?}"))
}

pub async fn good_counters_pass(fixture: &Fixture) {
    videos(fixture).await;
    assert_eq!(check_counter(fixture, &counter()).await, vec![]);
    assert_eq!(check_counter(fixture, &CounterConfig::demo().table).await, vec![]);
    // Hits by nobody have no place.
    fixture
        .run(
            "DROP TABLE video_view;
             CREATE TABLE video_view (video_id BIGINT NOT NULL, user_id BIGINT NOT NULL, seen_at BIGINT NOT NULL,
                times SMALLINT NOT NULL)",
        )
        .await;
    let findings = check_counter(fixture, &counter()).await;
    assert_eq!((findings.len(), findings[0].warning), (1, true), "{findings:?}");
    assert!(findings[0].problem.contains("video_view.user_id is NOT NULL"));
}

pub async fn good_documents_pass(fixture: &Fixture) {
    let table = playlists(fixture, "", "").await;
    assert_eq!(check_documents(fixture, &table).await, vec![]);
    // Further columns do no harm when they fill themselves.
    fixture
        .run(
            "ALTER TABLE playlist ADD COLUMN note VARCHAR(20);
             ALTER TABLE playlist_track ADD COLUMN score INTEGER NOT NULL DEFAULT 7",
        )
        .await;
    assert_eq!(check_documents(fixture, &table).await, vec![]);
}

pub async fn missing_tables_are_created_by_the_printed_statements(fixture: &Fixture) {
    for id_type in [IdType::Integer, IdType::Uuid, IdType::Text] {
        let suffix = format!("{id_type:?}").to_lowercase();
        let mut table = CounterTable { target_type: id_type, actor_type: id_type, ..counter() };
        table.name = format!("video_{suffix}");
        table.events.as_mut().unwrap().name = format!("video_view_{suffix}");
        mended(fixture, &KindTable::Counter(table), 2).await;
        let mut table = IngestTable { id_type, actor_type: id_type, ..IngestConfig::demo().table };
        table.name = format!("playlist_{suffix}");
        table.children[0].name = format!("playlist_track_{suffix}");
        let mut tags = table.children[0].clone();
        (tags.field, tags.name) = ("tags".into(), format!("playlist_tag_{suffix}"));
        (tags.position_column, tags.value_column, tags.columns) = (None, Some("tag".into()), [].into());
        table.children.push(tags);
        mended(fixture, &KindTable::Ingest(table), 3).await;
    }
}

/// So many tables are missing; running what is printed, again and again, makes all findings go away.
async fn mended(fixture: &Fixture, table: &KindTable, missing: usize) {
    let mut findings = fixture.sql.check_table(table).await.unwrap();
    assert_eq!(findings.iter().filter(|finding| !finding.warning).count(), missing, "{findings:#?}");
    // What is missing is an error that names it, not a panic and not a dead letter.
    let error = fixture.sql.apply(KIND, table, &[], &[], AT_MS).await.unwrap_err();
    assert!(matches!(&error, SqlError::Permanent(reason) if reason.contains("does not exist")), "{error}");
    for _ in 0..2 {
        for finding in &findings {
            fixture.mend(finding, false).await;
        }
        findings = fixture.sql.check_table(table).await.unwrap();
    }
    assert_eq!(findings, vec![], "{table:?}");
    fixture.sql.apply(KIND, table, &[], &[], AT_MS).await.unwrap();
}

pub async fn columns_that_do_not_fit_are_named(fixture: &Fixture) {
    videos(fixture).await;
    let mut table = counter();
    table.count_column = "title".into();
    let findings = check_counter(fixture, &table).await;
    let problem = if fixture.engine.is_mysql() { "video.title is varchar" } else { "video.title is " };
    assert!(
        !named(&findings, problem).warning && named(&findings, problem).problem.contains("a count needs an integer")
    );
    table.count_column = "likes".into();
    table.events.as_mut().unwrap().by_column = Some("note".into());
    table.events.as_mut().unwrap().created_at_column = Some("times".into());
    table.target_type = IdType::Uuid;
    let findings = check_counter(fixture, &table).await;
    for problem in ["video has no column likes", "video_view.note is ", "video.id is ", "video_view.video_id is "] {
        assert!(!named(&findings, problem).warning, "{problem}");
    }
    if fixture.engine != Engine::Sqlite {
        assert!(!named(&findings, "video_view.times is ").warning, "a short integer holds no milliseconds");
    }
    fixture.mend(named(&findings, "video has no column likes"), false).await;
    let findings = check_counter(fixture, &table).await;
    assert!(!findings.iter().any(|finding| finding.problem.contains("likes")), "{findings:?}");

    let mut table = playlists(fixture, "", "").await;
    table.columns.insert("colour".into(), "colour".into());
    table.children[0].position_column = Some("title".into());
    table.children[0].columns = [("seconds".into(), "length".into())].into();
    let findings = check_documents(fixture, &table).await;
    for problem in ["playlist has no column colour", "playlist_track.title is ", "playlist_track has no column length"]
    {
        assert!(!named(&findings, problem).warning, "{problem}");
    }
    for column in ["colour", "length"] {
        fixture.mend(named(&findings, &format!("no column {column}")), false).await;
    }
    let findings = check_documents(fixture, &table).await;
    assert!(!findings.iter().any(|finding| finding.problem.contains("has no column")), "{findings:?}");
    let (bytes, computed) = match fixture.engine {
        // A BLOB of this engine holds UUIDs.
        Engine::Sqlite => (None, "INTEGER GENERATED ALWAYS AS (user_id + 1) VIRTUAL"),
        Engine::Postgres => (Some("BYTEA"), "BIGINT GENERATED ALWAYS AS (user_id + 1) STORED"),
        Engine::MariaDb | Engine::MySql => (Some("BLOB"), "BIGINT GENERATED ALWAYS AS (user_id + 1) VIRTUAL"),
    };
    let mut table = IngestConfig::demo().table;
    fixture.run(&format!("ALTER TABLE playlist ADD COLUMN made {computed}")).await;
    table.columns.insert("made".into(), "made".into());
    assert!(!named(&check_documents(fixture, &table).await, "playlist.made is computed").warning);
    if let Some(bytes) = bytes {
        fixture.run(&format!("ALTER TABLE playlist ADD COLUMN picture {bytes}")).await;
        table.columns = [("picture".into(), "picture".into()), ("title".into(), "title".into())].into();
        assert!(!named(&check_documents(fixture, &table).await, "for which JSON has no values").warning);
    }
}

pub async fn columns_that_nobody_fills_are_refused(fixture: &Fixture) {
    let mut table = playlists(fixture, ", tenant BIGINT NOT NULL", ", rank_of BIGINT NOT NULL").await;
    let findings = check_documents(fixture, &table).await;
    for problem in ["playlist.tenant is NOT NULL", "playlist_track.rank_of is NOT NULL"] {
        let finding = named(&findings, problem);
        assert!(!finding.warning && finding.statements.is_empty(), "{finding:?}");
        let column = problem.split_whitespace().next().unwrap();
        assert!(finding.remedy.contains(&format!("give {column} a DEFAULT")), "{finding:?}");
        let (table, column) = column.split_once('.').unwrap();
        if fixture.engine != Engine::Sqlite {
            fixture.run(&format!("ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT 1")).await;
        }
    }
    if fixture.engine != Engine::Sqlite {
        assert_eq!(check_documents(fixture, &table).await, vec![]);
        return;
    }
    // Or a field fills it.
    table.columns.insert("tenant".into(), "tenant".into());
    table.children[0].columns.insert("rank".into(), "rank_of".into());
    assert_eq!(check_documents(fixture, &table).await, vec![]);
    let good = json!({ "title": "a", "tenant": 1, "tracks": [{ "title": "x", "rank": 1 }] });
    assert_eq!(fixture.store(&KindTable::Ingest(table), &[create(1, &good)]).await.inserted, 1);
}

pub async fn slow_reads_are_told(fixture: &Fixture) {
    let table = playlists(fixture, "", "").await;
    let drop = if fixture.engine.is_mysql() { " ON playlist" } else { "" };
    fixture.run(&format!("DROP INDEX playlist_of_user{drop}")).await;
    fixture.run("DROP TABLE playlist_track").await;
    let id = match fixture.engine {
        Engine::Sqlite => "TEXT",
        Engine::Postgres => "UUID",
        Engine::MariaDb | Engine::MySql => "BINARY(16)",
    };
    fixture
        .run(&format!(
            "CREATE TABLE playlist_track (position INTEGER NOT NULL, playlist_id {id} NOT NULL, title VARCHAR(40),
                seconds INTEGER, PRIMARY KEY (position, playlist_id))"
        ))
        .await;
    let findings = check_documents(fixture, &table).await;
    assert_eq!(findings.len(), 2, "{findings:?}");
    for (finding, column) in findings.iter().zip(["user_id", "playlist_id"]) {
        assert!(finding.warning && finding.problem.contains(&format!("no index that begins with {column}")));
        fixture.mend(finding, false).await;
    }
    assert_eq!(check_documents(fixture, &table).await, vec![]);
}

/// Rights that a user does not have, which only this engine tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_tells_missing_rights() {
    let fixture = Fixture::new(Engine::Postgres).await;
    videos(&fixture).await;
    let documents = playlists(&fixture, "", "").await;
    fixture
        .run(
            "DROP ROLE IF EXISTS kinds; CREATE ROLE kinds LOGIN; GRANT SELECT ON video TO kinds;
             GRANT SELECT ON playlist TO kinds",
        )
        .await;
    let other = fixture.with(|settings| settings.url = settings.url.replace("postgres@", "kinds@")).await;
    let check = async |table: KindTable| other.check_table(&table).await.unwrap();
    let findings = check(KindTable::Counter(counter())).await;
    for right in ["UPDATE on video", "INSERT on video_view"] {
        assert!(!named(&findings, &format!("no right to {right}")).warning);
    }
    let findings = check(KindTable::Ingest(documents.clone())).await;
    for right in ["INSERT on playlist", "SELECT on playlist_track", "INSERT on playlist_track"] {
        assert!(!named(&findings, &format!("no right to {right}")).warning);
    }
    // What is printed is run by the owner.
    for table in [KindTable::Counter(counter()), KindTable::Ingest(documents.clone())] {
        for finding in check(table).await {
            assert_eq!((finding.name, finding.advice), (Problem::NoRight, Advice::Grant), "{finding:?}");
            fixture.mend(&finding, false).await;
        }
    }
    assert_eq!(check(KindTable::Counter(counter())).await, vec![]);
    assert_eq!(check(KindTable::Ingest(documents)).await, vec![]);
}
