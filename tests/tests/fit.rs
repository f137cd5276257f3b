//! What SQL could never take is refused at the door with 422, column and limit: no answer of success and a dead letter later. And
//! whoever is not there has nothing enabled.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use weir::config::{Config, CounterConfig, EventTable, IngestConfig, MemberTable, PreferenceConfig};
use weir_tests::client::{Client, Reply};
use weir_tests::database::Database;
use weir_tests::services::{Host, wait_until};
use weir_tests::stand::{Setup, Stand};

const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const JSON: (&str, &str) = ("content-type", "application/json");
/// Accounts that there are: 1 to this.
const ACCOUNTS: i64 = 20;
/// Likes of users that there are not.
const STRANGERS: i64 = 5_000;

/// `account` with ids 1 to [`ACCOUNTS`], and `feed_like` anew, whose users are accounts.
async fn accounts(database: &Database) {
    let (user, time) = match database {
        Database::Sqlite(_) => ("INTEGER", "TEXT"),
        Database::Postgres(_) => ("INTEGER", "TIMESTAMPTZ"),
        Database::MySql(_) => ("INT", "DATETIME(3)"),
    };
    let ids: Vec<String> = (1..=ACCOUNTS).map(|id| format!("({id})")).collect();
    database
        .script(&format!(
            "DROP TABLE feed_like;
             CREATE TABLE account (id {user} NOT NULL PRIMARY KEY);
             INSERT INTO account (id) VALUES {};
             CREATE TABLE feed_like (feed_id BIGINT NOT NULL, user_id {user} NOT NULL, created_at {time} NOT NULL,
                PRIMARY KEY (feed_id, user_id), FOREIGN KEY (user_id) REFERENCES account (id))",
            ids.join(", ")
        ))
        .await;
}

fn problem(reply: &Reply, name: &str) -> Value {
    let body = reply.json();
    assert_eq!((reply.status, &body["type"]), (422, &json!(format!("urn:weir:problem:{name}"))), "{body}");
    body
}

fn error_lines(host: &Host) -> usize {
    host.log().lines().filter(|line| line.contains("ERROR")).count()
}

async fn checked(host: &Host, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    Client::new(host.admin()).metric("weir_parent_checks_total", &[&label]).await.unwrap_or_default()
}

/// Likes of target 1 by users `from` to `to`, 32 at a time; how often each status was answered.
async fn likes(host: &Host, from: i64, to: i64) -> BTreeMap<u16, i64> {
    let tasks: Vec<_> = (0..32)
        .map(|lane| {
            let address = host.public();
            tokio::spawn(async move {
                let (mut client, mut statuses) = (Client::new(address), BTreeMap::new());
                for user in (from..=to).filter(|user| user % 32 == lane) {
                    let reply = client.toggle("PUT", 1, user, None).await.unwrap();
                    *statuses.entry(reply.status).or_insert(0) += 1;
                }
                statuses
            })
        })
        .collect();
    let mut all = BTreeMap::new();
    for task in tasks {
        for (status, count) in task.await.unwrap() {
            *all.entry(status).or_insert(0) += count;
        }
    }
    all
}

async fn strangers_are_refused(setup: Setup) {
    let stand = Stand::start(setup, 2).await;
    accounts(&stand.database).await;
    let mut config = stand.config();
    // A busy machine must not make a request go on without the answer.
    config.fit.wait_ms = 30_000;
    let host = stand.host(&config);
    let refused = likes(&host, 1_001, 1_000 + STRANGERS).await;
    assert_eq!(refused, BTreeMap::from([(422, STRANGERS)]));
    let body = problem(&Client::new(host.public()).toggle("POST", 1, 999, None).await.unwrap(), "parent-missing");
    assert_eq!(body["column"], "feed_like.user_id", "{body}");
    assert!(body["table"].as_str().unwrap().ends_with("account"), "{body}");
    assert_eq!(likes(&host, 1, ACCOUNTS).await, BTreeMap::from([(200, ACCOUNTS)]));
    let (_, count) = Client::new(host.public()).like(2, 1).await;
    assert_eq!(count, 1);
    let state = Client::new(host.public()).get("/v1/toggles/feed-like/1").await;
    assert_eq!(state.json()["likeCount"], ACCOUNTS, "nobody counted who is not there");
    Client::new(host.admin()).wait_drained(DRAIN_LIMIT).await;
    let (letters, errors) = (stand.database.dead_letters().await, error_lines(&host));
    println!(
        "{}: {STRANGERS} likes by unknown users: answers {refused:?}, count {ACCOUNTS}, dead letters {letters}, ERROR lines {errors}",
        setup.name()
    );
    assert_eq!((letters, errors), (0, 0), "{}", host.log());
    stand.database.assert_counts_equal_rows().await;

    // Who is known is asked for once.
    let present = checked(&host, "present").await;
    assert!(present <= ACCOUNTS as f64, "{present}");
    let mut client = Client::new(host.public());
    for _ in 0..50 {
        client.like(2, 7).await;
    }
    assert_eq!(checked(&host, "present").await, present, "no look-up of who is known");
    // Who takes something back needs to be nobody.
    assert_eq!(client.toggle("DELETE", 1, 4_000, None).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_with_postgres() {
    strangers_are_refused(Setup::EmbeddedPostgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_with_mariadb() {
    strangers_are_refused(Setup::EmbeddedMariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_with_mysql() {
    strangers_are_refused(Setup::EmbeddedMySql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_with_sqlite() {
    strangers_are_refused(Setup::EmbeddedSqlite).await;
}

/// A trigger makes the parent before the row: SQL takes it, so the door does, too.
async fn what_sql_would_take_is_not_refused(setup: Setup) {
    let stand = Stand::start(setup, 1).await;
    accounts(&stand.database).await;
    stand
        .database
        .script(match &stand.database {
            Database::Sqlite(_) => {
                "CREATE TRIGGER makes_account BEFORE INSERT ON feed_like
                 BEGIN INSERT OR IGNORE INTO account (id) VALUES (NEW.user_id); END"
            }
            Database::Postgres(_) => {
                "CREATE FUNCTION make_account() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN INSERT INTO account (id) VALUES (NEW.user_id) ON CONFLICT DO NOTHING; RETURN NEW; END $$;
                 CREATE TRIGGER makes_account BEFORE INSERT ON feed_like FOR EACH ROW EXECUTE FUNCTION make_account()"
            }
            Database::MySql(_) => {
                "CREATE TRIGGER makes_account BEFORE INSERT ON feed_like FOR EACH ROW
                 INSERT IGNORE INTO account (id) VALUES (NEW.user_id)"
            }
        })
        .await;
    let host = stand.host(&stand.config());
    assert_eq!(likes(&host, 501, 510).await, BTreeMap::from([(200, 10)]));
    Client::new(host.admin()).wait_drained(DRAIN_LIMIT).await;
    assert_eq!((stand.database.dead_letters().await, error_lines(&host)), (0, 0), "{}", host.log());
    stand.database.assert_counts_equal_rows().await;
    let made = stand.database.integers("SELECT COUNT(*) FROM account WHERE id > 500").await;
    assert_eq!(made, [[10]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sql_would_take_is_not_refused_with_postgres() {
    what_sql_would_take_is_not_refused(Setup::EmbeddedPostgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sql_would_take_is_not_refused_with_mariadb() {
    what_sql_would_take_is_not_refused(Setup::EmbeddedMariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sql_would_take_is_not_refused_with_sqlite() {
    what_sql_would_take_is_not_refused(Setup::EmbeddedSqlite).await;
}

/// Without SQL nobody can say who is there: requests are taken, that is counted, and the flush judges; in one line of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sql_the_check_is_skipped_and_counted() {
    let mut stand = Stand::start(Setup::EmbeddedPostgres, 1).await;
    accounts(&stand.database).await;
    let host = stand.host(&stand.config());
    Client::new(host.public()).like(1, 1).await;
    Client::new(host.admin()).wait_drained(DRAIN_LIMIT).await;
    stand.sql.kill();
    let answers = likes(&host, 2_001, 2_040).await;
    assert_eq!(answers, BTreeMap::from([(200, 40)]), "what is not known is not refused");
    assert!(checked(&host, "skipped").await >= 40.0);
    stand.sql.restart();
    Client::new(host.admin()).wait_drained(DRAIN_LIMIT).await;
    stand.database = Database::connect(&stand.database_url).await;
    assert_eq!(stand.database.dead_letters().await, 40);
    stand.database.assert_counts_equal_rows().await;
    let log = host.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("moved to the dead letters")).collect();
    println!("40 dead letters in {} lines of the log, the first: {}", lines.len(), lines[0]);
    assert!(lines.len() < 10, "a line for each batch: {lines:#?}");
    assert!(lines[0].contains("target 1 actor 20"), "{lines:#?}");
}

async fn send(client: &mut Client, method: &str, path: &str, actor: i64, body: &Value) -> Reply {
    let actor = actor.to_string();
    client.request(method, path, &[JSON, ("x-actor-id", &actor)], &body.to_string()).await.unwrap()
}

/// Columns that hold little: likes by INTEGER, events of SMALLINT, settings of SMALLINT and VARCHAR(9), titles of 10.
fn narrow(database: &Database) -> String {
    let (id, time, boolean) = match database {
        Database::Sqlite(_) => ("TEXT", "TEXT", "BOOLEAN"),
        Database::Postgres(_) => ("UUID", "TIMESTAMPTZ", "BOOLEAN"),
        Database::MySql(_) => ("BINARY(16)", "DATETIME(3)", "TINYINT(1)"),
    };
    format!(
        "DROP TABLE feed_like;
         CREATE TABLE feed_like (feed_id BIGINT NOT NULL, user_id INTEGER NOT NULL, created_at {time} NOT NULL,
            PRIMARY KEY (feed_id, user_id));
         CREATE TABLE video_event (video_id BIGINT NOT NULL, user_id INTEGER, n SMALLINT NOT NULL);
         CREATE TABLE small_list (id {id} NOT NULL PRIMARY KEY, user_id INTEGER NOT NULL, title VARCHAR(10) NOT NULL,
            stars SMALLINT);
         CREATE TABLE small_track (list_id {id} NOT NULL, position INTEGER NOT NULL, title VARCHAR(5) NOT NULL,
            PRIMARY KEY (list_id, position));
         CREATE TABLE small_setting (member_id INTEGER NOT NULL PRIMARY KEY, enabled {boolean} NOT NULL,
            social {boolean} NOT NULL, event {boolean} NOT NULL, marketing {boolean} NOT NULL,
            quiet_from SMALLINT NOT NULL, quiet_until SMALLINT NOT NULL, app_version VARCHAR(9) NOT NULL)"
    )
}

fn narrow_config(stand: &Stand) -> Config {
    let mut config = stand.config();
    config.fit.refresh_ms = 100;
    let mut counter = CounterConfig::demo();
    counter.by_max = 100_000;
    counter.settings.insert("flush-age-ms".into(), "100".into());
    counter.table.events = Some(EventTable {
        name: "video_event".into(),
        target_column: "video_id".into(),
        actor_column: "user_id".into(),
        created_at_column: None,
        by_column: Some("n".into()),
    });
    config.counters.push(counter);
    let mut ingest = IngestConfig::demo();
    ingest.schema = None;
    ingest.table.name = "small_list".into();
    ingest.table.created_at_column = None;
    ingest.table.columns = ["title", "stars"].map(|name| (name.to_owned(), name.to_owned())).into();
    ingest.table.children[0].name = "small_track".into();
    ingest.table.children[0].parent_column = "list_id".into();
    ingest.table.children[0].columns = [("title".to_owned(), "title".to_owned())].into();
    config.ingests.push(ingest);
    let mut preference = PreferenceConfig::demo();
    preference.table.name = "small_setting".into();
    preference.settings.insert("flush-age-ms".into(), "100".into());
    config.preferences.push(preference);
    config
}

/// No 32-bit integer.
const LARGE: i64 = 3_000_000_000;

async fn what_does_not_fit_is_refused(setup: Setup) {
    let stand = Stand::start(setup, 2).await;
    stand.database.script(&narrow(&stand.database)).await;
    let host = stand.host(&narrow_config(&stand));
    let mut client = Client::new(host.public());
    let int = "integers from -2147483648 to 2147483647";
    let large = LARGE;

    let body = problem(&client.toggle("POST", 1, large, None).await.unwrap(), "unfit");
    assert_eq!((&body["column"], &body["limit"]), (&json!("feed_like.user_id"), &json!(int)), "{body}");
    assert_eq!(client.toggle("POST", 1, 2_147_483_647, None).await.unwrap().status, 200);

    let view = "/v1/counters/video-view/1";
    let body = problem(&send(&mut client, "POST", view, 7, &json!({"by": 40_000})).await, "unfit");
    let smallint = "integers from -32768 to 32767";
    assert_eq!((&body["column"], &body["limit"]), (&json!("video_event.n"), &json!(smallint)), "{body}");
    let body = problem(&send(&mut client, "POST", view, large, &json!({})).await, "unfit");
    assert_eq!(body["column"], "video_event.user_id", "{body}");
    assert_eq!(send(&mut client, "POST", view, 7, &json!({"by": 32_767})).await.status, 200);

    let member = "/v1/preferences/notification/7";
    let body = problem(&send(&mut client, "PUT", member, 7, &json!({"quiet_from": 32_768})).await, "unfit");
    assert_eq!((&body["column"], &body["limit"]), (&json!("small_setting.quiet_from"), &json!(smallint)), "{body}");
    let body = problem(&send(&mut client, "PUT", member, 7, &json!({"app_version": "0123456789"})).await, "unfit");
    let nine = "text of 9 characters at most";
    assert_eq!((&body["column"], &body["limit"]), (&json!("small_setting.app_version"), &json!(nine)), "{body}");
    let path = format!("/v1/preferences/notification/{large}");
    let body = problem(&send(&mut client, "PUT", &path, large, &json!({"social": true})).await, "unfit");
    assert_eq!(body["column"], "small_setting.member_id", "{body}");
    let good = json!({"app_version": "äöüäöüäöü", "quiet_from": -32_768});
    assert_eq!(send(&mut client, "PUT", member, 7, &good).await.status, 200);

    let lists = "/v1/ingest/playlist";
    let document =
        |title: &str, stars: i64, track: &str| json!({"title": title, "stars": stars, "tracks": [{"title": track}]});
    let body = send(&mut client, "POST", lists, 7, &document("01234567890", 40_000, "123456")).await;
    let body = problem(&body, "invalid-document");
    let violations: Vec<(&str, &str)> = body["violations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|violation| (violation["path"].as_str().unwrap(), violation["message"].as_str().unwrap()))
        .collect();
    for (path, word) in [
        ("/title", "10 characters (column small_list.title)"),
        ("/stars", "(column small_list.stars)"),
        ("/tracks/0/title", "5 characters (column small_track.title)"),
    ] {
        assert!(violations.iter().any(|(at, said)| *at == path && said.contains(word)), "{path}: {body}");
    }
    let body = problem(&send(&mut client, "POST", lists, large, &document("a", 1, "b")).await, "unfit");
    assert_eq!(body["column"], "small_list.user_id", "{body}");
    assert_eq!(send(&mut client, "POST", lists, 7, &document("0123456789", 32_767, "äöüäö")).await.status, 202);

    Client::new(host.admin()).wait_drained(DRAIN_LIMIT).await;
    assert_eq!((stand.database.dead_letters().await, error_lines(&host)), (0, 0), "{}", host.log());
    let refused = Client::new(host.admin()).metric("weir_unfit_total", &["kind=\"feed-like\""]).await;
    assert_eq!(refused, Some(1.0));

    a_wider_column_takes_more(setup, &stand, &host, &mut client).await;
}

/// Without a restart.
async fn a_wider_column_takes_more(setup: Setup, stand: &Stand, host: &Host, client: &mut Client) {
    let wider = match setup {
        Setup::EmbeddedPostgres => "ALTER TABLE feed_like ALTER COLUMN user_id TYPE BIGINT",
        _ => "ALTER TABLE feed_like MODIFY COLUMN user_id BIGINT NOT NULL",
    };
    stand.database.script(wider).await;
    let mut status = 422;
    for _ in 0..200 {
        status = client.toggle("PUT", 1, LARGE, None).await.unwrap().status;
        if status != 422 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, 200);
    Client::new(host.admin()).wait_drained(DRAIN_LIMIT).await;
    assert_eq!(stand.database.dead_letters().await, 0);
    assert!(wait_until(DRAIN_LIMIT, || error_lines(host) == 0), "{}", host.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_with_postgres() {
    what_does_not_fit_is_refused(Setup::EmbeddedPostgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_with_mariadb() {
    what_does_not_fit_is_refused(Setup::EmbeddedMariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_with_mysql() {
    what_does_not_fit_is_refused(Setup::EmbeddedMySql).await;
}

/// A look-up and a GET agree on who there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_there_has_nothing_enabled() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    stand
        .database
        .script("CREATE TABLE account (id INTEGER NOT NULL PRIMARY KEY); INSERT INTO account VALUES (1), (2)")
        .await;
    let mut config = stand.full_config();
    config.preferences[0].table.members = Some(MemberTable { name: "account".into(), key_column: "id".into() });
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    let body = json!({"topic": "social", "members": [1, 2, 3, 4]}).to_string();
    let looked = client.request("POST", "/v1/preferences/notification/lookup", &[JSON], &body).await.unwrap();
    assert_eq!(looked.json()["enabled"], json!([1, 2]), "social is on by default for those that there are");
    let mut statuses = Vec::new();
    for member in 1..=4 {
        statuses.push(client.get(&format!("/v1/preferences/notification/{member}")).await.status);
    }
    assert_eq!(statuses, [200, 200, 404, 404]);
    let missing = Client::new(host.admin()).metric("weir_preference_members_total", &["outcome=\"missing\""]).await;
    assert_eq!(missing, Some(2.0));
}
