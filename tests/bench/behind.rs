//! Bulk creates against one INSERT per create, and what a sync costs that has nothing to do.
//!
//! `tests/bench/run behind [--documents 100000] [--counters 1000000] [--seconds 10]`

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use weir::app::App;
use weir::clock::Clock;
use weir::ingest::{CreateRequest, Fields, Ingest};
use weir::model::Id;
use weir::policy::Compiler;
use weir_tests::bench::contenders::cost;
use weir_tests::bench::engines::Server;
use weir_tests::bench::report::{Aim, Report, machine};
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::kinds::{self, Kind};
use weir_tests::services::{Host, HostConfig, temporary_directory};

/// Documents of one request.
const EACH: usize = 1_000;
/// Tracks of one playlist.
const TRACKS: usize = 2;
/// Targets of one read.
const READ: i64 = 1_000;

/// Bulk creates, and a sync that has nothing to do.
#[derive(Debug, Args)]
pub struct Options {
    /// Playlists, each with two tracks.
    #[arg(long, default_value_t = 100_000)]
    documents: usize,
    /// Counters that are known and unchanged.
    #[arg(long, default_value_t = 1_000_000)]
    counters: i64,
    /// How long they are looked at.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds of creates one by one.
    #[arg(long, default_value_t = 3)]
    single_seconds: u64,
}

/// Does it run?
pub fn smoke() -> Options {
    Options { documents: 4_000, counters: 5_000, seconds: 1, single_seconds: 1 }
}

/// Runs it.
pub fn run(options: &Options, report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        println!("{}; databases share it", machine());
        let section = format!("{} playlists of {TRACKS} tracks, {EACH} a request", options.documents);
        report.section(&section, &["x single", "to SQL /s", "accepted /s", "single /s"]);
        for server in Server::all() {
            let (accepted, written) = in_bulk(&server, options.documents).await;
            let single = one_by_one(&server, options.single_seconds).await;
            report.row(
                &section,
                server.name(),
                &[
                    ("x single", Some(written / single)),
                    ("to SQL /s", Some(written)),
                    ("accepted /s", Some(accepted)),
                    ("single /s", Some(single)),
                ],
            );
            let what = format!("creates into {} against one by one", server.name());
            report.aim(&what, written / single, Aim::AtLeast(20.0));
            report.usual_of_disk(what, written / single, 30.0);
        }
        unchanged(options, report).await;
    });
}

async fn database(server: &Server) -> (String, Database) {
    let (url, database) = server.database().await;
    Kind::Playlist.create_tables(&database).await;
    (url, database)
}

/// Documents accepted per second, and then written per second, by weir's whole way: shape, rules, journal; bulk insert.
async fn in_bulk(server: &Server, documents: usize) -> (f64, f64) {
    let (url, database) = database(server).await;
    let directory = temporary_directory("behind");
    let mut config = kinds::config(directory.path(), &url, &[Kind::Playlist]);
    config.flush.drain_grace_ms = 600_000;
    for name in ["flush-entries", "flush-age-ms"] {
        config.ingests[0].settings.insert(name.into(), "4000000000".into());
    }
    let app = App::start(config, Clock::Real, Compiler::InProcess).await.unwrap();
    app.schema_ready().wait_for(|ready| *ready).await.unwrap();
    let kind = app.kinds().written.get::<Ingest>("playlist").expect("the kind is configured");
    let track = |number: usize| json!({ "title": format!("track {number}"), "seconds": 200 });
    let fields = |number: usize| -> Fields {
        let tracks: Vec<Value> = (0..TRACKS).map(track).collect();
        json!({ "title": format!("playlist {number}"), "tracks": tracks }).as_object().cloned().unwrap()
    };
    let requests: Vec<Vec<Fields>> = (0..documents)
        .step_by(EACH)
        .map(|first| (first..(first + EACH).min(documents)).map(fields).collect())
        .collect();
    let started = Instant::now();
    for documents in requests {
        let request = CreateRequest { documents, actor: Id::Int(7), idempotency_key: None, wait: Duration::ZERO };
        kind.create(request).await.unwrap();
    }
    let accepted = documents as f64 / started.elapsed().as_secs_f64();
    let started = Instant::now();
    app.flush_now("playlist").await.unwrap();
    let written = documents as f64 / started.elapsed().as_secs_f64();
    app.stop().await;
    let rows = |table: &str| format!("SELECT COUNT(*) FROM {table}");
    assert_eq!(database.integer(&rows("playlist")).await, i64::try_from(documents).unwrap());
    assert_eq!(database.integer(&rows("playlist_track")).await, i64::try_from(documents * TRACKS).unwrap());
    (accepted, written)
}

/// As it is written by hand: for each create a transaction of one insert, and one for its tracks.
async fn one_by_one(server: &Server, seconds: u64) -> f64 {
    let (_, database) = database(server).await;
    let (started, mut done) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(seconds) {
        let id = uuid::Uuid::now_v7();
        let at = "2026-09-21 13:33:20";
        let playlist = format!(
            "INSERT INTO playlist (id, user_id, title, created_at) VALUES ('{id}', 7, 'playlist {done}', '{at}')"
        );
        let tracks: Vec<String> =
            (0..TRACKS).map(|number| format!("('{id}', {number}, 'track {number}', 200)")).collect();
        let tracks =
            format!("INSERT INTO playlist_track (playlist_id, position, title, seconds) VALUES {}", tracks.join(", "));
        match &database {
            Database::Sqlite(pool) => {
                let mut transaction = pool.begin().await.unwrap();
                sqlx::raw_sql(sqlx::AssertSqlSafe(playlist)).execute(&mut *transaction).await.unwrap();
                sqlx::raw_sql(sqlx::AssertSqlSafe(tracks)).execute(&mut *transaction).await.unwrap();
                transaction.commit().await.unwrap();
            }
            Database::Postgres(pool) => {
                let mut transaction = pool.begin().await.unwrap();
                sqlx::raw_sql(sqlx::AssertSqlSafe(playlist)).execute(&mut *transaction).await.unwrap();
                sqlx::raw_sql(sqlx::AssertSqlSafe(tracks)).execute(&mut *transaction).await.unwrap();
                transaction.commit().await.unwrap();
            }
            Database::MySql(pool) => {
                let mut transaction = pool.begin().await.unwrap();
                sqlx::raw_sql(sqlx::AssertSqlSafe(playlist)).execute(&mut *transaction).await.unwrap();
                sqlx::raw_sql(sqlx::AssertSqlSafe(tracks)).execute(&mut *transaction).await.unwrap();
                transaction.commit().await.unwrap();
            }
        }
        done += 1;
    }
    f64::from(done) / started.elapsed().as_secs_f64()
}

/// Many counters that are known and unchanged: what the flusher does about them, and what about ten that change.
async fn unchanged(options: &Options, report: &mut Report) {
    let server = Server::Postgres(weir_tests::services::Postgres::start());
    let (url, database) = server.database().await;
    Kind::VideoView.create_tables(&database).await;
    let fill =
        format!("INSERT INTO video (id, view_count) SELECT n, 5 FROM generate_series(1, {}) AS n", options.counters);
    database.script(&fill).await;
    let directory = temporary_directory("behind");
    let mut config = kinds::config(directory.path(), &url, &[Kind::VideoView]);
    config.http.targets_max = usize::try_from(READ).unwrap();
    config.store.memory_bytes_max = 1 << 30;
    config.counters[0].settings.insert("flush-age-ms".into(), "1000".into());
    let mut host = Host::start(HostConfig::of(&config), directory.path());
    host.wait_ready();
    let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
    let started = Instant::now();
    for first in (1..=options.counters).step_by(usize::try_from(READ).unwrap()) {
        let targets: Vec<String> = (first..(first + READ).min(options.counters + 1)).map(|id| id.to_string()).collect();
        let reply = client.get(&format!("/v1/counters/video-view?targets={}", targets.join(","))).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let hydrated = started.elapsed();
    let statements = async |admin: &mut Client| {
        admin.metric("weir_flush_statements_total", &["kind=\"video-view\""]).await.unwrap_or(0.0)
    };
    let (before, cpu) = (statements(&mut admin).await, cost(&[host.pid()]).cpu_us);
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let idle_us = (cost(&[host.pid()]).cpu_us - cpu) / options.seconds as f64;
    let idle_statements = statements(&mut admin).await - before;
    for target in 1..=10 {
        let path = format!("/v1/counters/video-view/{target}");
        assert_eq!(client.request("POST", &path, &[], "").await.unwrap().status, 200);
    }
    admin.wait_drained(Duration::from_secs(60)).await;
    let ten = statements(&mut admin).await - before - idle_statements;
    let section = format!("{} counters known, a sync each second", options.counters);
    report.section(&section, &["statements", "CPU us/sync", "hydrated /s"]);
    let rate = options.counters as f64 / hydrated.as_secs_f64();
    let unchanged =
        [("statements", Some(idle_statements)), ("CPU us/sync", Some(idle_us)), ("hydrated /s", Some(rate))];
    report.row(&section, "none changed", &unchanged);
    report.row(&section, "ten changed", &[("statements", Some(ten))]);
    report.aim("statements of a sync of unchanged counters", idle_statements, Aim::AtMost(0.0));
    assert!(idle_statements == 0.0, "a sync of unchanged counters sent {idle_statements} statements");
}
