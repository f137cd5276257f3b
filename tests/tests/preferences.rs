//! Preferences end to end: ten thousand members in one call, right against SQL; changes are visible at once and in SQL once;
//! what fails fails alone; streams have flat memory; who asks at the same time shares one fetch.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir::config::{Config, LookupFallback, MemberTable, PreferenceConfig, StoreFallback};
use weir_tests::client::{Client, Reply};
use weir_tests::database::Database;
use weir_tests::services::Host;
use weir_tests::stand::{Setup, Stand};

const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const MEMBERS: i64 = 10_000;
const JSON: (&str, &str) = ("content-type", "application/json");
const LOOKUP: &str = "/v1/preferences/notification/lookup";

/// Creates `push_setting` with members 1 to `members`: who is off where is a matter of arithmetic.
async fn create_settings(database: &Database, members: i64) {
    let (integer, boolean, text) = match database {
        Database::Sqlite(_) => ("INTEGER", "BOOLEAN", "TEXT"),
        Database::Postgres(_) => ("BIGINT", "BOOLEAN", "TEXT"),
        Database::MySql(_) => ("BIGINT", "TINYINT(1)", "VARCHAR(40)"),
    };
    database
        .script(&format!(
            "CREATE TABLE push_setting (member_id {integer} NOT NULL PRIMARY KEY, enabled {boolean} NOT NULL, \
             social {boolean}, event {boolean} NOT NULL, marketing {boolean} NOT NULL, quiet_from INTEGER, \
             quiet_until INTEGER, app_version {text})"
        ))
        .await;
    let row = |n: i64| {
        // NULL is the default, which is on for social.
        let social = if n % 7 == 0 { "NULL".to_owned() } else { (n % 4 != 0).to_string() };
        format!("({n}, {}, {social}, {}, {}, NULL, NULL, '2.1')", n % 10 != 0, n % 5 != 0, n % 3 == 0)
    };
    let rows: Vec<String> = (1..=members).map(row).collect();
    for part in rows.chunks(1_000) {
        database.script(&format!("INSERT INTO push_setting VALUES {}", part.join(", "))).await;
    }
}

fn has_social(n: i64) -> bool {
    n % 10 != 0 && (n % 7 == 0 || n % 4 != 0)
}

fn config(stand: &Stand) -> Config {
    let mut config = stand.config();
    let mut preference = PreferenceConfig::demo();
    preference.table.name = "push_setting".into();
    preference.settings.insert("flush-age-ms".into(), "100".into());
    config.preferences.push(preference);
    // A machine that does something else meanwhile makes no module slow.
    config.policy.call_deadline_ms = 5_000;
    config
}

async fn stand(setup: Setup, members: i64) -> Stand {
    let stand = Stand::start(setup, 1).await;
    create_settings(&stand.database, members).await;
    stand
}

async fn lookup(client: &mut Client, topic: &str, members: &[Value]) -> Value {
    let body = json!({ "topic": topic, "members": members }).to_string();
    let reply = client.request("POST", LOOKUP, &[JSON], &body).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn enabled(answer: &Value) -> Vec<i64> {
    answer["enabled"].as_array().unwrap().iter().map(|member| member.as_i64().unwrap()).collect()
}

async fn put(client: &mut Client, member: i64, body: &Value, key: Option<&str>) -> Reply {
    let actor = member.to_string();
    let mut headers = vec![JSON, ("x-actor-id", actor.as_str())];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    let path = format!("/v1/preferences/notification/{member}");
    client.request("PUT", &path, &headers, &body.to_string()).await.unwrap()
}

async fn ten_thousand_in_one_call(setup: Setup) {
    let stand = stand(setup, MEMBERS).await;
    let host = stand.host(&config(&stand));
    let mut client = Client::new(host.public());
    let members: Vec<Value> = (1..=MEMBERS).map(Value::from).collect();
    let expected: Vec<i64> = (1..=MEMBERS).filter(|n| has_social(*n)).collect();
    let mut times = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        let answer = lookup(&mut client, "social", &members).await;
        times.push(started.elapsed());
        assert_eq!(enabled(&answer), expected);
        assert_eq!(answer.get("errors"), None);
    }
    println!("preferences {}: {MEMBERS} members, {} enabled, times {times:?}", setup.name(), expected.len());

    // Twice, unknown, and what is no member, in order.
    let odd = [json!(3), json!(4), json!(3), json!(MEMBERS + 1), json!("x"), json!(1.5), json!(1)];
    let answer = lookup(&mut client, "social", &odd).await;
    assert_eq!(enabled(&answer), [3, 3, MEMBERS + 1, 1], "an unknown member has the default");
    let errors = answer["errors"].as_array().unwrap();
    let named: Vec<&Value> = errors.iter().map(|error| &error["member"]).collect();
    assert_eq!(named, [&json!("x"), &json!(1.5)]);
    assert!(errors.iter().all(|error| error["type"] == "urn:weir:problem:bad-id"), "{errors:?}");
    assert_eq!(enabled(&lookup(&mut client, "marketing", &odd).await), [3, 3], "off by default");

    changes_are_seen_at_once(&stand, &host, &mut client).await;
    patches(&mut client).await;
    who_may_and_what(&mut client).await;
}

/// Visible at once, and in SQL exactly once.
async fn changes_are_seen_at_once(stand: &Stand, host: &Host, client: &mut Client) {
    let before = client.get("/v1/preferences/notification/4").await.json();
    assert_eq!((&before["settings"]["social"], &before["settings"]["app_version"]), (&json!(false), &json!("2.1")));
    let reply = put(client, 4, &json!({"social": true, "app_version": "2.2"}), Some("k1")).await;
    assert_eq!((reply.status, &reply.json()["settings"]["social"]), (200, &json!(true)), "{}", reply.text());
    assert_eq!(enabled(&lookup(client, "social", &[json!(4)]).await), [4]);
    put(client, 4, &json!({"social": false}), None).await;
    assert_eq!(enabled(&lookup(client, "social", &[json!(4)]).await), Vec::<i64>::new());
    // The first answer again, and nothing else.
    let replayed = put(client, 4, &json!({"social": true, "app_version": "2.2"}), Some("k1")).await;
    assert_eq!((replayed.status, replayed.header("idempotency-replayed")), (200, "true"));
    assert_eq!(put(client, 4, &json!({"social": true}), Some("k1")).await.status, 422);
    assert_eq!(enabled(&lookup(client, "social", &[json!(4)]).await), Vec::<i64>::new());
    // A member without a row gets one, with the defaults besides.
    assert_eq!(put(client, MEMBERS + 5, &json!({"marketing": true, "quiet_from": 60}), None).await.status, 200);
    Client::new(host.admin()).wait_drained(DRAIN_LIMIT).await;
    let counted = |condition: &str, member: i64| {
        format!("SELECT COUNT(*) FROM push_setting WHERE member_id = {member} AND {condition}")
    };
    let is = |condition: &'static str, member: i64| {
        let database = stand.database.clone();
        let text = counted(condition, member);
        async move { database.integer(&text).await }
    };
    assert_eq!(is("NOT social AND app_version = '2.2' AND event", 4).await, 1);
    assert_eq!(is("enabled AND social AND event AND marketing AND quiet_from = 60", MEMBERS + 5).await, 1);
    assert_eq!(stand.database.dead_letters().await, 0);
    let updated = Client::new(host.admin()).metric("weir_settings_total", &["outcome=\"set\""]).await;
    assert_eq!(updated, Some(3.0));
}

/// PATCH is the same, in both of its types.
async fn patches(client: &mut Client) {
    for (number, media_type) in
        ["application/json", "application/merge-patch+json; charset=utf-8"].into_iter().enumerate()
    {
        let headers = [("content-type", media_type), ("x-actor-id", "6")];
        let body = format!("{{\"quiet_from\":{}.0e1}}", 10 * number + 1);
        let path = "/v1/preferences/notification/6";
        let patched = client.request("PATCH", path, &headers, &body).await.unwrap();
        assert_eq!(
            (patched.status, &patched.json()["settings"]),
            (200, &json!({"quiet_from": 10 * (10 * number + 1)}))
        );
        let after = client.get(path).await.json();
        assert_eq!(
            (&after["settings"]["quiet_from"], &after["settings"]["event"]),
            (&json!(10 * (10 * number + 1)), &json!(true))
        );
        let taken = client.request("PATCH", path, &headers, r#"{"quiet_from":null}"#).await.unwrap();
        assert_eq!(taken.status, 422, "each setting has a value");
    }
    let allowed = client.request("OPTIONS", "/v1/preferences/notification/6", &[], "").await.unwrap();
    assert_eq!(allowed.header("allow"), "GET, HEAD, PUT, PATCH, OPTIONS");
    assert_eq!(allowed.header("accept-patch"), "application/merge-patch+json, application/json");
    let wrong = [("content-type", "application/merge-patch+json"), ("x-actor-id", "6")];
    assert_eq!(client.request("PUT", "/v1/preferences/notification/6", &wrong, "{}").await.unwrap().status, 415);
}

async fn who_may_and_what(client: &mut Client) {
    let other = client.request("PUT", "/v1/preferences/notification/4", &[JSON, ("x-actor-id", "5")], "{}").await;
    assert_eq!(other.unwrap().status, 403);
    for wrong in [json!({}), json!({"colour": 1}), json!({"social": "yes"})] {
        assert_eq!(put(client, 4, &wrong, None).await.status, 422, "{wrong}");
    }
    let unknown = client.request("POST", LOOKUP, &[JSON], "{\"topic\":\"x\",\"members\":[1]}").await.unwrap();
    assert_eq!((unknown.status, &unknown.json()["type"]), (422, &json!("urn:weir:problem:unknown-topic")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_on_the_embedded_default() {
    ten_thousand_in_one_call(Setup::EmbeddedSqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_on_redis_and_postgres() {
    ten_thousand_in_one_call(Setup::RedisPostgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_on_redis_and_mariadb() {
    ten_thousand_in_one_call(Setup::RedisMariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_member_is_told_from_who_has_set_nothing() {
    let stand = stand(Setup::EmbeddedSqlite, 2).await;
    stand.database.script("CREATE TABLE account (id INTEGER PRIMARY KEY); INSERT INTO account VALUES (1), (3)").await;
    let mut config = config(&stand);
    let members = MemberTable { name: "account".into(), key_column: "id".into() };
    config.preferences[0].table.members = Some(members);
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    assert_eq!(client.get("/v1/preferences/notification/3").await.json()["settings"]["social"], true);
    assert_eq!(client.get("/v1/preferences/notification/4").await.status, 404);
    assert_eq!(put(&mut client, 4, &json!({"social": false}), None).await.status, 404);
    assert_eq!(put(&mut client, 3, &json!({"social": false}), None).await.status, 200);
    let answer = lookup(&mut client, "social", &[1, 2, 3, 4].map(Value::from)).await;
    assert_eq!(enabled(&answer), [1], "the unknown have nothing enabled, as GET says; 3 has switched it off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sql_each_member_that_is_not_known_is_named() {
    let mut stand = stand(Setup::RedisPostgres, 20).await;
    let mut config = config(&stand);
    config.preferences[0].share_ms = 0;
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    let members = |from: i64, to: i64| (from..=to).map(Value::from).collect::<Vec<_>>();
    lookup(&mut client, "social", &members(1, 10)).await;
    stand.sql.kill();
    let answer = lookup(&mut client, "social", &members(1, 12)).await;
    let known: Vec<i64> = (1..=10).filter(|n| has_social(*n)).collect();
    assert_eq!(enabled(&answer), known);
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(errors.iter().map(|error| error["member"].as_i64().unwrap()).collect::<Vec<_>>(), [11, 12]);
    assert_eq!(errors[0]["type"], "urn:weir:problem:sql-unavailable");
    // What is accepted meanwhile is seen at once, and reaches SQL when that is back.
    assert_eq!(put(&mut client, 1, &json!({"social": false}), None).await.status, 200);
    assert!(!enabled(&lookup(&mut client, "social", &members(1, 10)).await).contains(&1));
    stand.sql.restart();
    Client::new(host.admin()).wait_drained(DRAIN_LIMIT).await;
    let stored = "SELECT COUNT(*) FROM push_setting WHERE member_id = 1 AND NOT social";
    assert_eq!(stand.database.integer(stored).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_key_fails_alone_or_is_read_from_sql() {
    let stand = stand(Setup::RedisPostgres, 20).await;
    for on_store_failure in [StoreFallback::Error, StoreFallback::Sql] {
        let mut config = config(&stand);
        config.preferences[0].share_ms = 0;
        config.preferences[0].on_sql_failure = LookupFallback::Default;
        config.preferences[0].on_store_failure = on_store_failure;
        let mut host = stand.host(&config);
        let mut client = Client::new(host.public());
        let members: Vec<Value> = (1..=20).map(Value::from).collect();
        let expected: Vec<i64> = (1..=20).filter(|n| has_social(*n)).collect();
        assert_eq!(enabled(&lookup(&mut client, "social", &members).await), expected);
        let redis = stand.redis.as_ref().unwrap();
        let key: Vec<String> = redis.command(&["KEYS", "weir:*:{notification:*}:t:3"]);
        redis.command::<()>(&["DEL", &key[0]]);
        redis.command::<()>(&["SET", &key[0], "what somebody else wrote"]);
        let answer = lookup(&mut client, "social", &members).await;
        if on_store_failure == StoreFallback::Sql {
            assert_eq!((enabled(&answer), answer.get("errors")), (expected, None));
        } else {
            assert_eq!(enabled(&answer), expected.into_iter().filter(|n| *n != 3).collect::<Vec<_>>());
            assert_eq!(answer["errors"].as_array().unwrap().len(), 1, "{answer}");
            assert_eq!(answer["errors"][0]["member"], 3);
        }
        redis.command::<()>(&["DEL", &key[0]]);
        host.terminate();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_thousand_are_streamed_with_flat_memory() {
    const STREAMED: i64 = 300_000;
    let stand = stand(Setup::EmbeddedSqlite, MEMBERS).await;
    let host = stand.host(&config(&stand));
    let mut client = Client::new(host.public());
    let body = |count: i64| {
        let mut body = String::from("{\"topic\":\"social\"}\n");
        // The same members again and again: what is measured is the stream, not the store's cache.
        (0..count).for_each(|n| body.push_str(&format!("{}\n", n % MEMBERS + 1)));
        body
    };
    let headers = [("content-type", "application/x-ndjson"), ("accept", "application/x-ndjson")];
    let (mut sizes, mut times) = (Vec::new(), Vec::new());
    for count in [MEMBERS, STREAMED / 3, STREAMED] {
        let started = Instant::now();
        let reply = client.request("POST", LOOKUP, &headers, &body(count)).await.unwrap();
        times.push(started.elapsed().as_secs_f64() * 1_000.0 / (count as f64 / MEMBERS as f64));
        assert_eq!((reply.status, reply.header("content-type")), (200, "application/x-ndjson"));
        let lines: Vec<Value> = reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (last, parts) = lines.split_last().unwrap();
        let found: Vec<i64> = parts.iter().flat_map(enabled).collect();
        let expected: Vec<i64> = (0..count).map(|n| n % MEMBERS + 1).filter(|n| has_social(*n)).collect();
        assert!(found == expected, "{} of {} members", found.len(), expected.len());
        assert_eq!(*last, json!({ "members": count, "enabled": expected.len(), "errors": 0 }));
        sizes.push(host.rss_bytes() >> 20);
    }
    println!("preferences: streamed 10000, 100000, 300000 members; ms for 10000: {times:.1?}; RSS MiB: {sizes:?}");
    assert!(sizes[2] <= sizes[1] + 32, "memory grows with the stream: {sizes:?} MiB");

    assert_eq!(client.request("POST", LOOKUP, &headers, "{\"topic\":\"x\"}\n1\n").await.unwrap().status, 422);
    assert_eq!(client.request("POST", LOOKUP, &headers, "").await.unwrap().status, 400);
}

/// Sends `text` in pieces, `pause` between them, and reads until the connection is closed.
async fn stream_slowly(host: &Host, pieces: &[&str], pause: Duration) -> Vec<(Duration, String)> {
    let mut stream = tokio::net::TcpStream::connect(host.public()).await.unwrap();
    let head = "POST /v1/preferences/notification/lookup HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\
                content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reads, mut writes) = stream.into_split();
    let started = Instant::now();
    let reader = tokio::spawn(async move {
        let (mut got, mut buffer) = (Vec::new(), vec![0; 65_536]);
        while let Ok(length) = reads.read(&mut buffer).await
            && length > 0
        {
            got.push((started.elapsed(), String::from_utf8_lossy(&buffer[..length]).into_owned()));
        }
        got
    });
    for piece in pieces {
        // Whoever was cut off is told by what it has read.
        let _ = writes.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await;
        tokio::time::sleep(pause).await;
    }
    let _ = writes.write_all(b"0\r\n\r\n").await;
    reader.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_answers_as_it_comes_and_names_what_is_no_member() {
    let stand = stand(Setup::EmbeddedSqlite, 100).await;
    let host = stand.host(&config(&stand));
    let pieces = ["{\"topic\":\"social\"}\n1\n2\n", "garbage\n3\n", "1 2\n[[1]]\n5\n"];
    let got = stream_slowly(&host, &pieces, Duration::from_secs(1)).await;
    let text: String = got.iter().map(|(_, text)| text.as_str()).collect();
    let first = got.iter().find(|(_, text)| text.contains("enabled")).unwrap_or_else(|| panic!("{text}"));
    assert!(first.0 < Duration::from_secs(2), "nothing before the last piece was sent: {got:?}");
    for part in ["\"garbage\"", "\"1 2\"", "\"[[1]]\"", "{\"enabled\":4,\"errors\":3,\"members\":7}"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    // A line without an end is refused by name before the connection is cut.
    let endless = "1".repeat(1 << 20);
    let got = stream_slowly(&host, &["{\"topic\":\"social\"}\n1\n", &endless, "1"], Duration::from_millis(300)).await;
    let text: String = got.iter().map(|(_, text)| text.as_str()).collect();
    assert!(text.contains("\"enabled\":[1]") && text.contains("urn:weir:problem:invalid-body"), "{text}");
    assert!(!text.ends_with("0\r\n\r\n"), "it looks whole: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_lookups_of_the_same_members_share_their_fetches() {
    const LOOKUPS: usize = 10_000;
    const CONNECTIONS: usize = 250;
    const ASKED: i64 = 1_000;
    let stand = stand(Setup::RedisPostgres, ASKED).await;
    let mut config = config(&stand);
    // As long as ten thousand requests take here: all of them are one moment then.
    config.preferences[0].share_ms = 600_000;
    config.http.request_deadline_ms = 60_000;
    let host = stand.host(&config);
    let public = host.public();
    let members: Vec<Value> = (1..=ASKED).map(Value::from).collect();
    let body = json!({ "topic": "social", "members": members }).to_string();
    let tasks = (0..CONNECTIONS).map(|_| {
        let body = body.clone();
        tokio::spawn(async move {
            let (mut client, mut answers) = (Client::new(public), BTreeSet::new());
            for _ in 0..LOOKUPS / CONNECTIONS {
                let reply = client.request("POST", LOOKUP, &[JSON], &body).await.unwrap();
                assert_eq!(reply.status, 200, "{}", reply.text());
                answers.insert(reply.text());
            }
            answers
        })
    });
    let started = Instant::now();
    let mut answers = BTreeSet::new();
    for task in tasks.collect::<Vec<_>>() {
        answers.extend(task.await.unwrap());
    }
    let elapsed = started.elapsed();
    let fetched = Client::new(host.admin()).metric("weir_preference_fetches_total", &[]).await.unwrap();
    println!(
        "preferences: {LOOKUPS} look-ups of the same {ASKED} members in {elapsed:.1?}: {fetched} members fetched from the \
         store, not {}",
        LOOKUPS * 1_000
    );
    assert_eq!(answers.len(), 1, "all say the same");
    assert!(fetched < 2.0 * ASKED as f64, "{fetched} fetches");
}

/// A second unique key, which an upsert would take for its own: everybody was answered 200, one has a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_unique_key_is_told_and_swallows_nobody() {
    let stand = stand(Setup::EmbeddedMariaDb, 0).await;
    stand
        .database
        .script("ALTER TABLE push_setting ADD COLUMN device_token VARCHAR(20) NOT NULL DEFAULT '' UNIQUE")
        .await;
    let host = stand.host(&config(&stand));
    let mut client = Client::new(host.public());
    let mut receipts = Vec::new();
    for member in 1..=4 {
        let reply = put(&mut client, member, &json!({"marketing": true}), None).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        receipts.push(reply.header("weir-receipt").to_owned());
    }
    Client::new(host.admin()).wait_drained(DRAIN_LIMIT).await;
    let mut levels = Vec::new();
    for (member, receipt) in (1..).zip(&receipts) {
        let path = format!("/v1/preferences/notification/{member}/status?position={receipt}");
        levels.push(client.get(&path).await.json()["durability"].as_str().unwrap().to_owned());
    }
    assert_eq!(levels, ["stored", "dead-letter", "dead-letter", "dead-letter"]);
    assert_eq!(stand.database.integer("SELECT COUNT(*) FROM push_setting").await, 1);
    assert_eq!(stand.database.dead_letters().await, 3);
    let named = "SELECT COUNT(*) FROM weir_dead_letter WHERE reason LIKE '%device_token%'";
    assert_eq!(stand.database.integer(named).await, 3);
    // Who has no row has the defaults again, in every answer.
    assert_eq!(enabled(&lookup(&mut client, "marketing", &[1, 2, 3, 4].map(Value::from)).await), [1]);
    let told = "push_setting has another unique key, device_token (device_token)";
    assert!(host.log().contains(told), "{}", host.log());
    assert!(host.log().contains("rows can not be stored: moved to the dead letters"));
}
