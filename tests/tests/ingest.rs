//! Bulk creates end to end: accepted at once, inserted behind in bulk, readable before, rejected alone, never twice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir::config::IngestConfig;
use weir::model::IdType;
use weir_tests::client::{Client, Reply};
use weir_tests::services::Host;
use weir_tests::stand::{Setup, Stand};

const LIMIT: Duration = Duration::from_secs(60);

async fn post(client: &mut Client, actor: &str, more: &[(&str, &str)], body: &str) -> Reply {
    let headers = [&[("content-type", "application/json"), ("x-actor-id", actor)], more].concat();
    client.request("POST", "/v1/ingest/playlist", &headers, body).await.unwrap()
}

async fn get(client: &mut Client, actor: &str, path: &str) -> Reply {
    client.request("GET", path, &[("x-actor-id", actor)], "").await.unwrap()
}

async fn status(client: &mut Client, actor: &str, id: &str) -> Value {
    let reply = get(client, actor, &format!("/v1/ingest/playlist/{id}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// Settings under which nothing is flushed before `entries` wait.
fn patient(config: &mut IngestConfig, entries: u64) {
    config.settings.insert("flush-entries".into(), entries.to_string());
    config.settings.insert("flush-age-ms".into(), "3600000".into());
}

async fn wait_stored(client: &mut Client, id: &str) -> Duration {
    let start = Instant::now();
    while status(client, "7", id).await["status"] != "stored" {
        assert!(start.elapsed() < LIMIT, "{id} is not stored");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}

async fn a_create_is_readable_before_it_is_in_sql(setup: Setup) {
    let stand = Stand::start(setup, 1).await;
    let mut config = stand.full_config();
    patient(&mut config.ingests[0], 1_000);
    let mut host = stand.host(&config);
    let mut client = Client::new(host.public());
    let body = r#"{"title":"A","tracks":[{"title":"x","seconds":3},{"title":"y"}]}"#;
    let created = post(&mut client, "7", &[], body).await;
    assert_eq!(created.status, 202, "{}", created.text());
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(created.header("location"), format!("/v1/ingest/playlist/{id}"));
    assert_eq!(created.json()["status"], "pending");
    let pending = status(&mut client, "7", &id).await;
    assert_eq!((&pending["status"], &pending["document"]["tracks"][1]["title"]), (&json!("pending"), &json!("y")));
    assert_eq!(get(&mut client, "8", &format!("/v1/ingest/playlist/{id}")).await.status, 404, "it is another's");
    let list = get(&mut client, "7", "/v1/ingest/playlist").await.json();
    assert_eq!((&list["documents"][0]["id"], list["documents"].as_array().unwrap().len()), (&json!(id), 1));
    assert_eq!(stand.database.integer("SELECT COUNT(*) FROM playlist").await, 0);

    // It survives the host, and is in SQL after a flush.
    host.kill();
    host.restart();
    host.wait_ready();
    let mut client = Client::new(host.public());
    assert_eq!(status(&mut client, "7", &id).await["status"], "pending");
    let waited = post(&mut client, "7", &[("prefer", "wait=5")], r#"{"title":"B"}"#).await;
    assert_eq!((waited.status, waited.header("preference-applied")), (201, "wait=5"), "{}", waited.text());
    assert_eq!(waited.header("location"), format!("/v1/ingest/playlist/{}", waited.json()["id"].as_str().unwrap()));
    assert_eq!(waited.json()["status"], "stored", "who waits is not kept waiting by a patient plan");
    let stored = status(&mut client, "7", &id).await;
    assert_eq!(stored["status"], "stored");
    let tracks = json!([{ "title": "x", "seconds": 3 }, { "title": "y" }]);
    assert_eq!(stored["document"], json!({ "title": "A", "tracks": tracks }));
    let list = get(&mut client, "7", "/v1/ingest/playlist").await.json();
    let titles: Vec<&Value> =
        list["documents"].as_array().unwrap().iter().map(|document| &document["document"]["title"]).collect();
    assert_eq!(titles, ["B", "A"]);
    assert_eq!(stand.database.integer("SELECT COUNT(*) FROM playlist_track").await, 2);
    assert_eq!(host.terminate().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_is_readable_at_once_embedded_sqlite() {
    a_create_is_readable_before_it_is_in_sql(Setup::EmbeddedSqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_is_readable_at_once_redis_postgres() {
    a_create_is_readable_before_it_is_in_sql(Setup::RedisPostgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_is_readable_at_once_redis_mariadb() {
    a_create_is_readable_before_it_is_in_sql(Setup::RedisMariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_nine_wait_for_the_tick_and_the_fiftieth_does_not() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let mut config = stand.full_config();
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    let mut ids = Vec::new();
    for number in 0..49 {
        let reply = post(&mut client, "7", &[], &format!("{{\"title\":\"{number}\"}}")).await;
        ids.push(reply.json()["id"].as_str().unwrap().to_owned());
    }
    let after = wait_stored(&mut client, &ids[48]).await;
    println!("ingest tick: 49 creates are in SQL {} ms after the last reply", after.as_millis());
    assert_eq!(stand.database.integer("SELECT COUNT(*) FROM playlist").await, 49);
    drop(host);

    // With a tick that does not come, it is the fiftieth that makes them go.
    config.ingests[0].settings.insert("flush-age-ms".into(), "3600000".into());
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    let (mut last, mut times_us) = (String::new(), Vec::new());
    for number in 0..50 {
        if number == 49 {
            assert_eq!(status(&mut client, "7", &last).await["status"], "pending");
            assert_eq!(stand.database.integer("SELECT COUNT(*) FROM playlist").await, 49);
        }
        let begun = Instant::now();
        let reply = post(&mut client, "7", &[], &format!("{{\"title\":\"{number}\"}}")).await;
        times_us.push(begun.elapsed().as_micros());
        assert_eq!((reply.status, &reply.json()["status"]), (202, &json!("pending")));
        last = reply.json()["id"].as_str().unwrap().to_owned();
    }
    let after = wait_stored(&mut client, &last).await;
    let last_us = times_us[49];
    times_us.sort_unstable();
    println!(
        "ingest fiftieth: its reply took {last_us} us; of all 50 p50 {} us, p90 {} us, max {} us; in SQL {} ms later",
        times_us[24],
        times_us[44],
        times_us[49],
        after.as_millis(),
    );
    assert_eq!(stand.database.integer("SELECT COUNT(*) FROM playlist").await, 99);
}

async fn start_with_slugs(stand: &Stand) -> Host {
    let mut config = stand.full_config();
    let ingest = &mut config.ingests[0];
    (ingest.id_field, ingest.schema) = (Some("slug".into()), None);
    ingest.table.id_type = IdType::Text;
    ingest.table.name = "page".into();
    ingest.table.children.clear();
    ingest.table.columns = [("title".to_owned(), "title".to_owned())].into();
    let text = if matches!(stand.setup, Setup::RedisMariaDb | Setup::RedisMySql) {
        "VARCHAR(191) COLLATE utf8mb4_bin"
    } else {
        "TEXT"
    };
    let time = if matches!(stand.setup, Setup::EmbeddedSqlite) { "TEXT" } else { "TIMESTAMP" };
    let script = format!(
        "CREATE TABLE page (id {text} NOT NULL PRIMARY KEY, user_id BIGINT NOT NULL, title VARCHAR(20) NOT NULL, \
         created_at {time} NOT NULL, CHECK (title <> 'poison'));"
    );
    stand.database.script(&script).await;
    stand.host(&config)
}

async fn nothing_is_created_twice(setup: Setup) {
    let stand = Stand::start(setup, 1).await;
    let host = start_with_slugs(&stand).await;
    let mut client = Client::new(host.public());
    let slug = |slug: &str, title: &str| json!({ "slug": slug, "title": title }).to_string();
    assert_eq!(post(&mut client, "7", &[], &slug("a", "A")).await.status, 202);
    let again = post(&mut client, "8", &[], &slug("a", "other")).await;
    assert_eq!((again.status, again.header("location")), (409, "/v1/ingest/playlist/a"), "{}", again.text());
    let both = format!("[{},{}]", slug("b", "B"), slug("a", "A"));
    let refused = post(&mut client, "7", &[], &both).await;
    assert_eq!((refused.status, &refused.json()["index"]), (409, &json!(1)));
    assert_eq!(get(&mut client, "7", "/v1/ingest/playlist/b").await.status, 404, "nothing half accepted");
    let mut admin = Client::new(host.admin());
    admin.wait_drained(LIMIT).await;
    assert_eq!(post(&mut client, "7", &[], &slug("a", "A")).await.status, 409, "nor when it is in SQL");
    let twice = format!("[{},{}]", slug("c", "C"), slug("c", "C"));
    assert_eq!(post(&mut client, "7", &[], &twice).await.status, 422);

    // The same key is the same create; another body under it is a mistake.
    let first = post(&mut client, "7", &[("idempotency-key", "k")], &slug("d", "D")).await;
    let same = post(&mut client, "7", &[("idempotency-key", "k")], &slug("d", "D")).await;
    assert_eq!((first.status, same.status), (202, 202), "{}", same.text());
    assert_eq!((same.json()["id"].clone(), same.header("idempotency-replayed")), (json!("d"), "true"));
    assert_eq!(post(&mut client, "7", &[("idempotency-key", "k")], &slug("e", "D")).await.status, 422);
    admin.wait_drained(LIMIT).await;
    assert_eq!(stand.database.integer("SELECT COUNT(*) FROM page").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_created_twice_embedded_sqlite() {
    nothing_is_created_twice(Setup::EmbeddedSqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_created_twice_redis_postgres() {
    nothing_is_created_twice(Setup::RedisPostgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_created_twice_redis_mariadb() {
    nothing_is_created_twice(Setup::RedisMariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_created_twice_redis_mysql() {
    nothing_is_created_twice(Setup::RedisMySql).await;
}

async fn a_row_that_sql_refuses_is_rejected_alone(setup: Setup) {
    let stand = Stand::start(setup, 1).await;
    let host = start_with_slugs(&stand).await;
    let mut client = Client::new(host.public());
    let title = |number: usize| if number == 500 { "poison".to_owned() } else { format!("t{number}") };
    let documents: Vec<Value> =
        (0..1_000).map(|number| json!({ "slug": format!("s{number}"), "title": title(number) })).collect();
    let body = json!(documents).to_string();
    let waited = post(&mut client, "7", &[("prefer", "wait=5")], &body).await;
    assert_eq!(waited.status, 202, "{}", waited.text());
    Client::new(host.admin()).wait_drained(LIMIT).await;
    assert_eq!(stand.database.integer("SELECT COUNT(*) FROM page").await, 999);
    let rejected = status(&mut client, "7", "s500").await;
    assert_eq!((&rejected["status"], &rejected["document"]["title"]), (&json!("rejected"), &json!("poison")));
    assert!(!rejected["reason"].as_str().unwrap().is_empty());
    assert_eq!(status(&mut client, "7", "s501").await["status"], "stored");
    // Not taken: it may be sent again, mended.
    let mended = post(&mut client, "7", &[], &json!({ "slug": "s500", "title": "well" }).to_string()).await;
    assert_eq!(mended.status, 202, "{}", mended.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_row_is_rejected_alone_embedded_sqlite() {
    a_row_that_sql_refuses_is_rejected_alone(Setup::EmbeddedSqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_row_is_rejected_alone_redis_postgres() {
    a_row_that_sql_refuses_is_rejected_alone(Setup::RedisPostgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_row_is_rejected_alone_redis_mariadb() {
    a_row_that_sql_refuses_is_rejected_alone(Setup::RedisMariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_row_is_rejected_alone_redis_mysql() {
    a_row_that_sql_refuses_is_rejected_alone(Setup::RedisMySql).await;
}

/// Whatever is sent, the answer is a documented one, and nothing is half accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_document_is_refused_whole() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let mut config = stand.full_config();
    config.ingests[0].table.columns.insert("plays".into(), "plays".into());
    config.ingests[0].schema = None;
    stand.database.script("ALTER TABLE playlist ADD COLUMN plays INTEGER").await;
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    let deep = format!("{{\"title\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let long = format!("{{\"title\":\"{}\"}}", "x".repeat(10 << 20));
    let large = format!("{{\"title\":\"{}\"}}", "x".repeat(100 << 10));
    let many = format!("[{}]", vec!["{\"title\":\"a\"}"; 1_001].join(","));
    let cases = [
        ("unknown field", r#"{"title":"a","colour":"red"}"#, 422, "/colour"),
        ("wrong type of what is nested", r#"{"title":"a","tracks":"x"}"#, 422, "/tracks"),
        ("unknown field of an element", r#"{"title":"a","tracks":[{"titel":"x"}]}"#, 422, "/tracks/0/titel"),
        ("nested 10,000 deep", &deep, 400, "nest at most"),
        ("a string of 10 MB", &long, 413, ""),
        ("a document of 100 KiB", &large, 422, "bytes"),
        ("a key twice", r#"{"title":"a","title":"b"}"#, 400, "twice"),
        ("one bad document in a list", r#"[{"title":"a"},{"title":"b","x":1},{"title":"c"}]"#, 422, "/1/x"),
        ("a list of something else", r#"[{"title":"a"},5]"#, 422, "/1"),
        ("an empty list", "[]", 400, ""),
        ("more than 1,000", &many, 413, "1000"),
        ("no object", "5", 400, ""),
        ("no JSON", "{title:1}", 400, ""),
        ("nothing", "", 400, ""),
        ("a NUL", r#"{"title":"a\u0000b"}"#, 422, "/title"),
        ("half a surrogate pair", r#"{"title":"\ud800"}"#, 400, ""),
        ("beyond 64 bits", r#"{"title":"a","plays":9223372036854775808}"#, 400, "64"),
    ];
    for (what, body, expected, told) in cases {
        let reply = post(&mut client, "7", &[], body).await;
        assert_eq!(reply.status, expected, "{what}: {}", reply.text());
        assert!(reply.text().contains(told) || told == "64", "{what}: no {told:?} in {}", reply.text());
        println!("ingest refused: {what}: {} {}", reply.status, reply.json()["type"].as_str().unwrap_or_default());
    }
    let exact = post(&mut client, "7", &[("prefer", "wait=5")], r#"{"title":"a","plays":9007199254740993}"#).await;
    assert_eq!(exact.json()["status"], "stored", "{}", exact.text());
    assert_eq!(stand.database.integers("SELECT plays FROM playlist").await, [[9_007_199_254_740_993]]);
    let anonymous = client.request("POST", "/v1/ingest/playlist", &[("content-type", "application/json")], "{}").await;
    assert_eq!(anonymous.unwrap().status, 401);
    let form = client.request("POST", "/v1/ingest/playlist", &[("x-actor-id", "7")], "title=a").await.unwrap();
    assert_eq!(form.status, 415);
    assert_eq!(get(&mut client, "7", "/v1/ingest/playlist/x").await.status, 400);
    assert_eq!(get(&mut client, "7", "/v1/ingest/playlist?after=x").await.status, 400);
}

/// One's own documents in pages, over pending and stored ones, each exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_paged_over_pending_and_stored() {
    let stand = Stand::start(Setup::RedisPostgres, 1).await;
    let mut config = stand.full_config();
    patient(&mut config.ingests[0], 1_000_000);
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    for number in 0..25 {
        post(&mut client, "7", &[], &format!("{{\"title\":\"{number}\"}}")).await;
        post(&mut client, "8", &[], "{\"title\":\"another's\"}").await;
        if number == 14 {
            let waited = post(&mut client, "9", &[("prefer", "wait=5")], "{\"title\":\"flush\"}").await;
            assert_eq!(waited.json()["status"], "stored");
        }
    }
    let (mut titles, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let path =
            format!("/v1/ingest/playlist?limit=7{}", after.map(|next| format!("&after={next}")).unwrap_or_default());
        let page = get(&mut client, "7", &path).await.json();
        for document in page["documents"].as_array().unwrap() {
            titles.push(document["document"]["title"].as_str().unwrap().parse::<i64>().unwrap());
        }
        pages += 1;
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(titles, (0..25).rev().collect::<Vec<_>>());
    assert!((4..=5).contains(&pages), "{pages} pages");
}
