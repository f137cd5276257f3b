//! A machine's clock that is set while the host runs: what has passed has passed, whatever the clock says.

use super::*;

const HOUR_S: i64 = 3_600;

/// A host whose clock can be set.
fn host(stand: &Stand, config: &Config) -> Host {
    let mut host = Host::start_with_clock(HostConfig::of(config), stand.directory.path());
    host.wait_ready();
    host
}

/// What the host says of its flusher.
async fn status(admin: &mut Client) -> Value {
    admin.get("/admin/v1/flush").await.json()["kinds"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_delays_no_flush() {
    let _turn = TURN.lock().await;
    for setup in [Setup::EmbeddedSqlite, Setup::RedisPostgres] {
        let stand = Stand::start(setup, 3).await;
        let mut config = stand.config();
        set(&mut config, "flush-age-ms", "1500");
        let host = host(&stand, &config);
        let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
        // One waits when the clock is set, the other comes after.
        assert_eq!(client.like(1, 1).await, (true, 1));
        host.set_clock(-HOUR_S);
        assert_eq!(client.like(1, 2).await, (true, 2));
        admin.wait_drained(LIMIT).await;
        assert_eq!(stand.database.likes().await, [(1, 1), (1, 2)].into(), "{}", setup.name());
        // The time of what happens is the clock's: the row of the second is an hour older.
        let minutes = minutes_between(&stand.database).await;
        assert!((55..=65).contains(&minutes), "{}: {minutes} minutes", setup.name());
        until("the host says that its clock was set", || async { host.log().contains("clock was set back") }).await;
    }
}

/// By how many minutes the row of actor 1 is younger than that of actor 2.
async fn minutes_between(database: &Database) -> i64 {
    let sql = match database {
        Database::Sqlite(_) => {
            "SELECT CAST(ROUND((julianday(a.created_at) - julianday(b.created_at)) * 1440) AS INTEGER) \
             FROM feed_like a, feed_like b WHERE a.user_id = 1 AND b.user_id = 2"
        }
        _ => {
            "SELECT CAST(ROUND(EXTRACT(EPOCH FROM a.created_at - b.created_at) / 60) AS BIGINT) \
             FROM feed_like a, feed_like b WHERE a.user_id = 1 AND b.user_id = 2"
        }
    };
    database.integer(sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ages_limits_and_keys_outlast_a_clock_that_is_set_and_a_flush_is_to_be_had_at_once() {
    let _turn = TURN.lock().await;
    for setup in [Setup::EmbeddedSqlite, Setup::RedisPostgres] {
        let stand = Stand::start(setup, 3).await;
        let mut config = stand.config();
        for (name, value) in [("flush-age-ms", "3600000"), ("limit-burst", "2"), ("limit-period-ms", "600000")] {
            set(&mut config, name, value);
        }
        let host = host(&stand, &config);
        let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
        let toggle = [("x-actor-id", "1"), ("idempotency-key", "k")];
        let path = "/v1/toggles/feed-like/1";
        let first = client.request("POST", path, &toggle, "").await.unwrap();
        assert_eq!((first.status, first.json()["likeCount"].as_i64()), (200, Some(1)), "{}", first.text());
        host.set_clock(-HOUR_S);
        let start = Instant::now();
        while status(&mut admin).await["oldest_age_ms"].as_u64().unwrap() < 300 {
            assert!(start.elapsed() < LIMIT, "{}: what waits never grows old", setup.name());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        host.set_clock(HOUR_S);
        let again = client.request("POST", path, &toggle, "").await.unwrap();
        assert_eq!((again.status, again.json()["likeCount"].as_i64()), (200, Some(1)), "the key is still remembered");
        let other = [("x-actor-id", "1")];
        assert_eq!(client.request("POST", path, &other, "").await.unwrap().status, 200, "the second of two");
        let limited = client.request("POST", path, &other, "").await.unwrap();
        assert_eq!(limited.status, 429, "{}: two in ten minutes, not in an hour that nobody waited", setup.name());

        let run = |arguments: &[&str]| {
            let admin = host.admin().to_string();
            weir(stand.directory.path(), &[arguments, &["--admin", &admin]].concat())
        };
        let flushed = run(&["flush", "feed-like"]);
        assert_eq!((flushed.code, &*flushed.stdout), (Some(0), "feed-like: 2 changes flushed\n"), "{}", flushed.stderr);
        assert_eq!(status(&mut admin).await["backlog_entries"], 0);
        assert!(stand.database.likes().await.is_empty(), "liked and taken back");
        let all = run(&["flush", "--json"]);
        assert_eq!(all.stdout, "{\"kinds\":[{\"flushed\":0,\"kind\":\"feed-like\"}]}\n");
        let unknown = run(&["flush", "nothing"]);
        assert_eq!(unknown.code, Some(1), "{}", unknown.stderr);
        assert!(unknown.stderr.contains("no kind nothing is flushed here; there are: feed-like"), "{}", unknown.stderr);
    }
}
