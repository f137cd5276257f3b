//! SQL reads on real servers: what is kept and why, what invalidates it, what a stampede costs, what is told without SQL.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use weir::config::{Config, ReadConfig, Staleness};
use weir_tests::client::Client;
use weir_tests::guest::{keeps_for, keeps_nothing};
use weir_tests::operator::Operator;
use weir_tests::services::{Host, HostConfig, temporary_directory};
use weir_tests::stand::{Setup, Stand, read};

fn post(class: Staleness) -> ReadConfig {
    read("post", "SELECT id, content, like_count AS likes FROM feed WHERE id = :id", class, &["feed"])
}

/// How often SQL was asked.
async fn readings(host: &Host, read: &str) -> f64 {
    let label = format!("read=\"{read}\"");
    Client::new(host.admin()).metric("weir_read_origin_seconds_count", &[&label]).await.unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_says_what_it_does() {
    let directory = temporary_directory("reads");
    let host = Host::start_on_picked_ports(HostConfig::Demo, directory.path());
    let mut client = Client::new(host.public());
    let dates = "/v1/reads/concert-dates?concert=1";
    let first = client.get(dates).await;
    assert_eq!((first.status, first.header("cache-status")), (200, "weir; fwd=uri-miss; stored"), "{}", first.text());
    let rows = first.json()["rows"].as_array().unwrap().clone();
    assert_eq!((rows.len(), &rows[0]["hall"], &rows[0]["seatsFree"]), (4, &"Hall 1".into(), &50.into()));
    let second = client.get(dates).await;
    assert!(second.header("cache-status").starts_with("weir; hit; ttl="), "{}", second.header("cache-status"));
    assert_eq!((second.header("age"), second.header("etag")), ("0", first.header("etag")));
    let etag = first.header("etag").to_owned();
    let same = client.request("GET", dates, &[("if-none-match", &etag)], "").await.unwrap();
    assert_eq!((same.status, same.body.len()), (304, 0));
    for directive in ["no-cache", "no-store", "max-age=0"] {
        let wants =
            client.request("GET", dates, &[("cache-control", directive), ("pragma", "no-cache")], "").await.unwrap();
        let how = wants.header("cache-status");
        assert!(how.starts_with("weir; hit; ttl="), "no client has SQL asked for what is kept: {directive}: {how}");
    }

    let seats = "/v1/reads/seats?schedule=1";
    for _ in 0..2 {
        let live = client.get(seats).await;
        assert_eq!(live.header("cache-status"), "weir; fwd=bypass; detail=live");
        assert_eq!((live.header("cache-control"), live.json()["rows"].as_array().unwrap().len()), ("no-store", 50));
    }
    for (path, status) in [
        ("/v1/reads/concert-dates", 400),
        ("/v1/reads/concert-dates?concert=x", 400),
        ("/v1/reads/concert-dates?concert=1&concert=2", 400),
        ("/v1/reads/concert-dates?concert=1&more=2", 400),
        ("/v1/reads/nothing?concert=1", 404),
    ] {
        assert_eq!(client.get(path).await.status, status, "{path}");
    }
    let openapi = client.get("/openapi.json").await.json();
    assert_eq!(openapi["paths"]["/v1/reads/seats"]["get"]["parameters"][0]["name"], "schedule");
    let states = Client::new(host.admin()).get("/admin/v1/cache").await.json();
    assert_eq!(states["reads"][0]["name"], "concert-dates", "{states}");
}

/// A flush makes the hosts read anew what depends on its tables.
async fn a_flush_invalidates(setup: Setup, hosts: usize) {
    let stand = Stand::start(setup, 10).await;
    let config = Config { reads: vec![post(Staleness::Hours)], ..stand.config() };
    let hosts: Vec<Host> = (0..hosts).map(|_| stand.host(&config)).collect();
    let mut clients: Vec<Client> = hosts.iter().map(|host| Client::new(host.public())).collect();
    for client in &mut clients {
        for how in ["weir; fwd=uri-miss; stored", "weir; hit; ttl="] {
            let reply = client.get("/v1/reads/post?id=3").await;
            assert!(reply.header("cache-status").starts_with(how), "{} {}", reply.text(), reply.header("cache-status"));
            assert_eq!(reply.json()["rows"][0]["likes"], 0);
        }
    }
    assert_eq!(clients[0].like(3, 7).await, (true, 1));
    Client::new(hosts[0].admin()).wait_drained(Duration::from_secs(30)).await;
    for client in &mut clients {
        let begun = Instant::now();
        while client.get("/v1/reads/post?id=3").await.json()["rows"][0]["likes"] != 1 {
            assert!(begun.elapsed() < Duration::from_secs(20), "not invalidated");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let read = post(Staleness::Hours).name;
    let mut all = Vec::new();
    for host in &hosts {
        all.push(readings(host, &read).await);
    }
    println!("flush invalidates {}: hosts={} readings={all:?}", setup.name(), hosts.len());
    assert!(all.iter().all(|count| *count >= 2.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_invalidates_on_its_own_host() {
    a_flush_invalidates(Setup::EmbeddedSqlite, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_invalidates_on_all_hosts() {
    a_flush_invalidates(Setup::RedisPostgres, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_invalidates_with_mariadb() {
    a_flush_invalidates(Setup::EmbeddedMariaDb, 1).await;
}

/// Ten thousand connections, each with one request at the same time: when nothing is kept, when it is, and when it has just
/// expired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_readers_of_one_expensive_read_over_two_hosts() {
    const READERS: usize = 10_000;
    const TTL: Duration = Duration::from_secs(15);
    allow_open_files(READERS as u64 + 2_000);
    let stand = Stand::start(Setup::RedisPostgres, 10).await;
    let sql = "SELECT f.id, f.content FROM feed f, pg_sleep(0.3) WHERE f.id = :id";
    let mut config = Config { reads: vec![read("slow", sql, Staleness::Minutes, &["feed"])], ..stand.config() };
    (config.http.requests_max, config.http.header_timeout_ms) = (READERS, 60_000);
    let hosts = [stand.host(&config), stand.host(&config)];
    for host in &hosts {
        let ttl_ms = u32::try_from(TTL.as_millis()).unwrap();
        let pushed = Operator::new(host.admin()).try_push(&keeps_for(ttl_ms), "fifteen", true).await.unwrap();
        assert!([200, 201].contains(&pushed.status), "{}", pushed.text());
        let (mut admin, begun) = (Client::new(host.admin()), Instant::now());
        while admin.get("/admin/v1/cache").await.json()["reads"][0]["rule"] != "store: 15000 ms" {
            assert!(begun.elapsed() < Duration::from_secs(20), "the rule is not asked");
            // It is asked when there are requests.
            assert_eq!(Client::new(host.public()).get("/v1/reads/slow?id=2").await.status, 200);
        }
    }
    let before = [readings(&hosts[0], "slow").await, readings(&hosts[1], "slow").await];
    let mut clients: Vec<Client> = (0..READERS).map(|reader| Client::new(hosts[reader % 2].public())).collect();
    for some in clients.chunks_mut(250) {
        join_all(some.iter_mut().map(|client| client.get("/"))).await;
    }
    let mut read_at = Instant::now();
    for (phase, word, calls) in [("cold", "", 1.0), ("kept", "hit; ttl=", 1.0), ("expired", "", 2.0)] {
        if phase == "expired" {
            tokio::time::sleep((TTL + Duration::from_secs(1)).saturating_sub(read_at.elapsed())).await;
        }
        let begun = Instant::now();
        let asked = clients.iter_mut().map(|client| async {
            let reply = client.get("/v1/reads/slow?id=1").await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            assert!(reply.header("cache-status").contains(word), "{phase}: {}", reply.header("cache-status"));
            begun.elapsed()
        });
        let mut times = join_all(asked).await;
        if phase == "cold" {
            read_at = Instant::now();
        }
        times.sort();
        let counts = [readings(&hosts[0], "slow").await - before[0], readings(&hosts[1], "slow").await - before[1]];
        println!(
            "{READERS} at once over two hosts, {phase}: origin calls so far={counts:?} p50={:?} p99={:?}",
            times[READERS / 2],
            times[READERS * 99 / 100]
        );
        assert_eq!(counts, [calls, calls], "{phase}: one for each host each time");
    }
}

/// Lets this process, and the hosts that it starts, have so many files open.
fn allow_open_files(count: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= count) {
        return;
    }
    let limit = Rlimit { current: Some(count), maximum };
    setrlimit(Resource::Nofile, limit).unwrap_or_else(|_| panic!("{count} open files are needed: ulimit -Hn {count}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_expires_under_load_is_read_once_each_time() {
    let stand = Stand::start(Setup::RedisPostgres, 10).await;
    let sql = "SELECT f.id, f.content FROM feed f, pg_sleep(0.3) WHERE f.id = :id";
    // Told for two seconds, and for two more while it is read anew.
    let config = Config { reads: vec![read("slow", sql, Staleness::Seconds, &["feed"])], ..stand.config() };
    let hosts = [stand.host(&config), stand.host(&config)];
    let begun = Instant::now();
    let readers = (0..400).map(|reader| {
        let address = hosts[reader % hosts.len()].public();
        async move {
            let (mut client, mut hits, mut stale) = (Client::new(address), Vec::new(), Vec::new());
            while begun.elapsed() < Duration::from_secs(8) {
                let asked = Instant::now();
                let reply = client.get("/v1/reads/slow?id=1").await;
                assert_eq!(reply.status, 200, "{}", reply.text());
                let status = reply.header("cache-status");
                if status.contains("stale-while-revalidate") {
                    stale.push(asked.elapsed());
                } else if status.contains("hit") {
                    hits.push(asked.elapsed());
                }
            }
            (hits, stale)
        }
    });
    let (mut hits, mut stale) = (Vec::new(), Vec::new());
    for (hit, old) in join_all(readers).await {
        hits.extend(hit);
        stale.extend(old);
    }
    let p99 = |times: &mut Vec<Duration>| {
        times.sort();
        times.get(times.len() * 99 / 100).copied().unwrap_or_default()
    };
    let elapsed = begun.elapsed();
    let counts = [readings(&hosts[0], "slow").await, readings(&hosts[1], "slow").await];
    println!(
        "expiry under load: {elapsed:.1?} hits={} p99={:?}, stale={} p99={:?}, origin calls={counts:?}",
        hits.len(),
        p99(&mut hits),
        stale.len(),
        p99(&mut stale)
    );
    // One when it is cold, and one for each time that it was nearly spent.
    let times = elapsed.as_secs_f64() / 1.8 + 2.0;
    assert!(counts.iter().all(|count| *count >= 2.0 && *count <= times), "{counts:?} in {elapsed:?}");
}

/// What follows a clock is read anew before anybody asks, until nobody has asked for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_for_is_read_anew_on_time() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let read = ReadConfig { refresh_ms: 100, ..post(Staleness::Hours) };
    let host = stand.host(&Config { reads: vec![read], ..stand.config() });
    assert_eq!(Client::new(host.public()).get("/v1/reads/post?id=3").await.status, 200);
    let begun = Instant::now();
    while readings(&host, "post").await < 4.0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is not read anew");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut last = 0.0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = readings(&host, "post").await;
        if now == last {
            break;
        }
        last = now;
        assert!(begun.elapsed() < Duration::from_secs(30), "it is read anew for ever");
    }
    println!("followed: one request, {last} readings");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sql_what_is_kept_is_told() {
    let mut stand = Stand::start(Setup::EmbeddedPostgres, 10).await;
    let reads = vec![post(Staleness::Minutes), ReadConfig { name: "live".into(), ..post(Staleness::Live) }];
    let config = Config { reads, ..stand.config() };
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    assert_eq!(client.get("/v1/reads/post?id=3").await.status, 200);
    stand.sql.kill();
    let mut admin = Client::new(host.admin());
    assert_eq!(
        admin.request("POST", "/admin/v1/cache/purge?group=table:feed&mode=soft", &[], "").await.unwrap().status,
        200
    );
    for _ in 0..3 {
        let told = client.get("/v1/reads/post?id=3").await;
        assert_eq!((told.status, &told.json()["rows"][0]["content"]), (200, &"post 3".into()));
        let status = told.header("cache-status");
        assert!(status.starts_with("weir; hit; ttl=-"), "what is stale has no time left: {status}");
    }
    for path in ["/v1/reads/post?id=4", "/v1/reads/live?id=3"] {
        let refused = client.get(path).await;
        assert_eq!(refused.status, 503, "{path}");
        assert!(!refused.header("retry-after").is_empty());
        assert_eq!(refused.json()["type"], "urn:weir:problem:sql-unavailable");
        assert!(refused.header("cache-status").ends_with("; detail=sql-unavailable"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_rule_changes_what_is_kept_and_fails_no_request() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let config = Config { reads: vec![post(Staleness::Minutes)], ..stand.config() };
    let host = stand.host(&config);
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (address, stop) = (host.public(), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut client, mut requests) = (Client::new(address), 0_u64);
                while !stop.load(Ordering::Relaxed) {
                    let reply = client.get("/v1/reads/post?id=3").await;
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    requests += 1;
                }
                requests
            })
        })
        .collect();
    let mut client = Client::new(host.public());
    let mut until = async |word: &str| {
        let begun = Instant::now();
        loop {
            let reply = client.get("/v1/reads/post?id=3").await;
            if reply.header("cache-status").contains(word) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{} is not {word}", reply.header("cache-status"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until("hit").await;
    let mut operator = Operator::new(host.admin());
    assert!([200, 201].contains(&operator.try_push(&keeps_nothing("not-now"), "nothing", true).await.unwrap().status));
    let bypassed = until("fwd=bypass; detail=rule-not-now").await;
    assert!([200, 201].contains(&operator.try_push(&keeps_for(5_000), "five", true).await.unwrap().status));
    let kept = until("hit; ttl=4").await;
    assert_eq!(operator.try_command("POST", "/rollback").await.unwrap().status, 200);
    until("detail=rule-not-now").await;
    stop.store(true, Ordering::Relaxed);
    let mut requests = 0;
    for reader in readers {
        requests += reader.await.unwrap();
    }
    println!("rules swapped: requests={requests} failed=0 bypassed after {bypassed:?}, kept after {kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_finds_too_much_or_does_not_work_says_so() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let of = |name: &str, sql: &str, class| ReadConfig {
        rows_max: 2,
        parameters: std::collections::BTreeMap::new(),
        ..read(name, sql, class, &["feed"])
    };
    let reads = vec![
        of("many", "SELECT id FROM feed", Staleness::Minutes),
        of("live", "SELECT id FROM feed", Staleness::Live),
        of("broken", "SELECT json(content) AS content FROM feed", Staleness::Minutes),
    ];
    let host = stand.host(&Config { reads, ..stand.config() });
    let mut client = Client::new(host.public());
    for (name, how) in [("many", "fwd=uri-miss"), ("live", "fwd=bypass")] {
        let refused = client.get(&format!("/v1/reads/{name}")).await;
        let problem = refused.json();
        assert_eq!((refused.status, &problem["type"]), (503, &"urn:weir:problem:read-too-large".into()));
        assert_eq!((&problem["limit"], &problem["max"]), (&"rows_max".into(), &2.into()));
        assert_eq!(refused.header("cache-status"), format!("weir; {how}; detail=read-too-large"));
    }
    let shed = Client::new(host.admin()).metric("weir_shed_total", &["limit=\"rows_max\""]).await;
    assert_eq!(shed, Some(2.0));
    let failed = client.get("/v1/reads/broken").await;
    assert_eq!((failed.status, &failed.json()["type"]), (503, &"urn:weir:problem:read-failed".into()));
    assert_eq!(failed.header("cache-status"), "weir; fwd=uri-miss; detail=read-failed");
}
