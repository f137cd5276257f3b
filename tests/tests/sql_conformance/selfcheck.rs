//! What is refused before it can do harm, and the statements that mend it.

use weir::config::CountTable;
use weir::model::IdType;
use weir::sql::{Finding, Problem};

use crate::fixture::{Engine, Fixture, KIND, Toggles as _, add, table};

/// The findings that forbid to start.
fn refusals(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| !finding.warning).collect()
}

pub async fn good_tables_pass(fixture: &Fixture) {
    let table = fixture.tables(3, ", FOREIGN KEY (feed_id) REFERENCES feed (id)").await;
    assert_eq!(fixture.sql.check_toggle(&table).await.unwrap(), vec![]);
    // Further columns do no harm when they fill themselves.
    fixture
        .run(
            "ALTER TABLE feed_like ADD COLUMN note VARCHAR(20);
             ALTER TABLE feed_like ADD COLUMN score INTEGER NOT NULL DEFAULT 7",
        )
        .await;
    assert_eq!(fixture.sql.check_toggle(&table).await.unwrap(), vec![]);
    // A surrogate key, and the pair's key the other way round.
    let key = match fixture.engine {
        Engine::Sqlite => "id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL",
        Engine::Postgres => "id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        Engine::MariaDb | Engine::MySql => "id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY",
    };
    fixture
        .run(&format!(
            "DROP TABLE feed_like;
             CREATE TABLE feed_like ({key}, feed_id BIGINT NOT NULL, user_id BIGINT NOT NULL,
                created_at BIGINT NOT NULL, UNIQUE (user_id, feed_id))"
        ))
        .await;
    assert_eq!(fixture.sql.check_toggle(&table).await.unwrap(), vec![]);
    let from = fixture.claim(0).await;
    assert_eq!(fixture.flush(&table, from, &[add(1, 1), add(1, 2)]).await.inserted, 2);
    fixture.counts_equal_rows().await;
}

pub async fn a_missing_unique_key_is_mended_by_the_printed_statement(fixture: &Fixture) {
    let table = fixture.tables(3, "").await;
    fixture
        .run(
            "DROP TABLE feed_like; DROP TABLE feed;
             CREATE TABLE feed (id BIGINT NOT NULL, like_count BIGINT NOT NULL DEFAULT 0);
             CREATE TABLE feed_like (feed_id BIGINT NOT NULL, user_id BIGINT NOT NULL, created_at BIGINT NOT NULL);
             CREATE UNIQUE INDEX too_wide ON feed_like (feed_id, user_id, created_at);
             CREATE INDEX not_unique ON feed_like (feed_id, user_id)",
        )
        .await;
    let findings = fixture.sql.check_toggle(&table).await.unwrap();
    let wrong = refusals(&findings);
    assert_eq!(wrong.len(), 2, "{findings:?}");
    assert!(wrong[0].problem.contains("feed_like has no unique key on exactly (feed_id, user_id)"), "{wrong:?}");
    assert!(wrong[1].problem.contains("feed has no unique key on exactly (id)"), "{wrong:?}");
    for finding in &wrong {
        fixture.mend(finding, false).await;
    }
    assert_eq!(fixture.sql.check_toggle(&table).await.unwrap(), vec![]);
}

pub async fn missing_tables_are_mended_by_the_printed_statements(fixture: &Fixture) {
    for id_type in [IdType::Integer, IdType::Uuid, IdType::Text] {
        let mut table = table(id_type);
        let suffix = format!("{id_type:?}").to_lowercase();
        table.name = format!("likes_{suffix}");
        table.targets = Some(CountTable {
            name: format!("things_{suffix}"),
            key_column: "id".into(),
            count_column: Some("likes".into()),
        });
        let findings = fixture.sql.check_toggle(&table).await.unwrap();
        assert_eq!(refusals(&findings).len(), 2, "{findings:?}");
        // What is missing is an error that names it, not a panic and not a dead letter.
        let from = fixture.claim(0).await;
        let fence = weir::sql::Fence { from, to: 1 };
        let error = fixture.sql.apply_toggles(KIND, &table, &[fence], &[], 0).await.unwrap_err();
        assert!(error.to_string().contains("does not exist"), "{error}");
        fixture.run("DELETE FROM weir_checkpoint").await;
        for finding in &findings {
            fixture.mend(finding, false).await;
        }
        assert_eq!(fixture.sql.check_toggle(&table).await.unwrap(), vec![], "{id_type:?}");
    }
    let mut table = fixture.tables(1, "").await;
    table.created_at_column = Some("liked_at".into());
    table.targets.as_mut().unwrap().count_column = Some("likes".into());
    let findings = fixture.sql.check_toggle(&table).await.unwrap();
    let named = |name: &str| findings.iter().find(|finding| finding.problem.contains(name)).unwrap();
    let (time, count) = (named("feed_like has no column liked_at"), named("feed has no column likes"));
    fixture.mend(time, false).await;
    fixture.mend(count, false).await;
    // The old column cannot be filled any more; now it is the only thing that is wrong.
    let findings = fixture.sql.check_toggle(&table).await.unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].problem.contains("feed_like.created_at is NOT NULL without a default"), "{findings:?}");
    // Nobody but the application knows what belongs there.
    assert!(findings[0].statements.is_empty() && findings[0].remedy.contains("DEFAULT"), "{findings:?}");
}

pub async fn unsuitable_columns_are_named(fixture: &Fixture) {
    let mut table = fixture.tables(1, "").await;
    table.target_type = IdType::Uuid;
    let findings = fixture.sql.check_toggle(&table).await.unwrap();
    for column in ["feed_like.feed_id", "feed.id"] {
        let named = findings.iter().any(|finding| !finding.warning && finding.problem.contains(column));
        assert!(named, "{column}: {findings:?}");
    }
    table.target_type = IdType::Integer;
    table.actor_column = "nobody".into();
    let findings = fixture.sql.check_toggle(&table).await.unwrap();
    assert!(findings.iter().any(|finding| finding.problem.contains("no column nobody")), "{findings:?}");
    table.actor_column = "user_id".into();
    fixture.run("DROP TABLE feed; CREATE TABLE feed (id BIGINT NOT NULL PRIMARY KEY, like_count VARCHAR(20))").await;
    let findings = fixture.sql.check_toggle(&table).await.unwrap();
    assert!(findings.iter().any(|finding| finding.problem.contains("feed.like_count")), "{findings:?}");
    fixture
        .run(
            "DROP TABLE feed_like;
             CREATE TABLE feed_like (feed_id BIGINT NOT NULL, user_id BIGINT NOT NULL, created_at BOOLEAN,
                PRIMARY KEY (feed_id, user_id))",
        )
        .await;
    let findings = fixture.sql.check_toggle(&table).await.unwrap();
    assert!(findings.iter().any(|finding| finding.problem.contains("feed_like.created_at")), "{findings:?}");
}

pub async fn text_is_compared_by_bytes(fixture: &Fixture) {
    let (bad, key) = match fixture.engine {
        Engine::Sqlite => ("TEXT COLLATE NOCASE", ""),
        Engine::Postgres => (
            "TEXT COLLATE weir_loose",
            "CREATE COLLATION weir_loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);",
        ),
        Engine::MariaDb | Engine::MySql => ("VARCHAR(191)", ""),
    };
    fixture
        .run(&format!(
            "{key} CREATE TABLE feed (id {bad} NOT NULL PRIMARY KEY, like_count BIGINT NOT NULL DEFAULT 0);
             CREATE TABLE feed_like (feed_id {bad} NOT NULL, user_id {bad} NOT NULL, created_at BIGINT NOT NULL,
                PRIMARY KEY (feed_id, user_id))"
        ))
        .await;
    let table = table(IdType::Text);
    let findings = fixture.sql.check_toggle(&table).await.unwrap();
    let wrong = refusals(&findings);
    for column in ["feed_like.feed_id", "feed_like.user_id", "feed.id"] {
        assert!(wrong.iter().any(|finding| finding.problem.contains(column)), "{column}: {findings:?}");
    }
    if fixture.engine.is_mysql() {
        for finding in wrong {
            fixture.mend(finding, false).await;
        }
        assert_eq!(fixture.sql.check_toggle(&table).await.unwrap(), vec![]);
    }
}

pub async fn the_server_is_checked(fixture: &Fixture) {
    let findings = fixture.sql.check_server().await.unwrap();
    // The shared PostgreSQL of these tests runs without fsync, and the check sees it; nothing else is said of a good server.
    let expected: &[Problem] = if fixture.engine == Engine::Postgres { &[Problem::PowerLoss] } else { &[] };
    let found: Vec<Problem> = findings.iter().map(|finding| finding.name).collect();
    assert_eq!(found, expected, "{findings:#?}");
    fixture.sql.ping().await.unwrap();
}
