//! Whose a journal is: a Redis that two databases share, a database that is exchanged under a running host, what a version before
//! has left, kinds that nobody flushes, another store. Nothing is lost, nothing doubled, and each way out that a refusal names is
//! taken.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use weir::config::{Config, StoreConfig, StoreType};
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::services::host::{Ended, weir};
use weir_tests::services::{Host, HostConfig, Redis, RedisOptions, temporary_directory};
use weir_tests::stand::{Setup, Stand, add_targets, create_tables};

const LIMIT: Duration = Duration::from_secs(60);

/// Nothing is flushed until the host is told to.
fn patient(mut config: Config) -> Config {
    config.toggles[0].settings.insert("flush-entries".into(), "100000".into());
    config.toggles[0].settings.insert("flush-age-ms".into(), "3600000".into());
    config
}

fn write(directory: &Path, name: &str, config: &Config) -> String {
    let path = directory.join(name);
    fs::write(&path, toml::to_string(config).unwrap()).unwrap();
    path.display().to_string()
}

/// A `weir` command with this configuration.
fn run(directory: &Path, config: &Config, arguments: &[&str]) -> Ended {
    let path = write(directory, "command.toml", config);
    weir(directory, &[arguments, &["--config", &path]].concat())
}

fn done(directory: &Path, config: &Config, arguments: &[&str]) -> String {
    let ended = run(directory, config, arguments);
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended.stdout
}

/// A start and `weir check` refuse with the same words.
fn assert_refused(directory: &Path, config: &Config, words: &[&str]) {
    let started = Host::start_refused(HostConfig::of(config), directory);
    let checked = run(directory, config, &["check"]);
    assert_eq!((started.code, checked.code), (Some(1), Some(1)), "{started:?}\n{checked:?}");
    for word in words {
        assert!(started.stderr.contains(word), "a start does not say {word:?}: {}", started.stderr);
        assert!(checked.stdout.contains(word), "check does not say {word:?}: {}", checked.stdout);
    }
}

fn host(directory: &Path, config: &Config) -> Host {
    let mut host = Host::start(HostConfig::of(config), directory);
    host.wait_ready();
    host
}

/// Waits until SQL holds so many likes; what a host knows of its backlog just after its start is not much.
async fn wait_for_likes(database: &Database, count: usize, host: &Host) {
    let start = std::time::Instant::now();
    while database.likes().await.len() != count {
        assert!(start.elapsed() < LIMIT, "{:?}, not {count} likes:\n{}", database.likes().await, host.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What waits, as `weir store list` says: (kind, changes).
fn listed(directory: &Path, config: &Config) -> Vec<(String, u64)> {
    let listed: Value = serde_json::from_str(&done(directory, config, &["store", "list", "--json"])).unwrap();
    let kinds = listed["kinds"].as_array().unwrap().iter();
    kinds.map(|kind| (kind["kind"].as_str().unwrap().to_owned(), kind["waiting"].as_u64().unwrap())).collect()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// A directory with the tables and targets 1 to 3 in `feed.db`, and a configuration on it.
async fn sqlite_in(directory: &Path, stand: &Stand) -> (Config, Database) {
    fs::create_dir_all(directory).unwrap();
    let url = format!("sqlite://{}", directory.join("feed.db").display());
    let database = Database::connect(&url).await;
    create_tables(&database, "").await;
    add_targets(&database, 3).await;
    let mut config = stand.config();
    config.sql.url = url;
    config.store.path = directory.join("store");
    (config, database)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_databases_of_one_name_do_not_share_a_journal() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let redis = Redis::start(RedisOptions::default());
    let (here, there) = (stand.directory.path().join("a"), stand.directory.path().join("b"));
    let (mut first, first_database) = sqlite_in(&here, &stand).await;
    let (mut second, second_database) = sqlite_in(&there, &stand).await;
    for config in [&mut first, &mut second] {
        config.store = StoreConfig { store_type: StoreType::Redis, url: redis.url(), ..StoreConfig::default() };
    }
    let mut owner = host(&here, &patient(first.clone()));
    assert_eq!(Client::new(owner.public()).like(1, 1).await, (true, 1));
    let words = ["belongs to another database", "store.namespace", "weir store adopt", "weir store drop --all"];
    assert_refused(&there, &second, &words);
    assert_eq!(listed(&here, &first), [("feed-like".to_owned(), 1)], "nothing was taken");

    // The first way out: a namespace.
    second.store.namespace = Some(weir::config::Namespace::try_from("second".to_owned()).unwrap());
    let other = host(&there, &second);
    assert_eq!(Client::new(other.public()).like(1, 2).await, (true, 1));
    Client::new(other.admin()).wait_drained(LIMIT).await;
    assert_eq!(second_database.likes().await, [(1, 2)].into());
    owner.kill();
    let mut owner = host(&here, &first);
    wait_for_likes(&first_database, 1, &owner).await;
    assert_eq!(first_database.likes().await, [(1, 1)].into());
    assert_eq!(owner.terminate().code(), Some(0));

    // Another host writes itself down as the owner: noticed at the next look at the lease, and over when it is put right.
    let record = "weir:second:format";
    let id: String = redis.command(&["HGET", record, "database"]);
    redis.command::<()>(&["HSET", record, "database", "00000000-0000-4000-8000-000000000001"]);
    let mut client = Client::new(other.public());
    let start = std::time::Instant::now();
    while client.toggle("PUT", 2, 2, None).await.unwrap().status != 503 {
        assert!(start.elapsed() < LIMIT, "the stranger is not noticed:\n{}", other.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ready = Client::new(other.admin()).get("/readyz").await;
    assert!(ready.status == 503 && ready.text().contains("belongs to another database"), "{}", ready.text());
    redis.command::<()>(&["HSET", record, "database", &id]);
    while client.toggle("PUT", 3, 2, None).await.unwrap().status != 200 {
        assert!(start.elapsed() < LIMIT, "it does not recover:\n{}", other.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Client::new(other.admin()).wait_drained(LIMIT).await;
    assert!(second_database.likes().await.contains(&(3, 2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_of_another_database_is_adopted_or_given_up() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let (here, there) = (stand.directory.path().join("a"), stand.directory.path().join("b"));
    let (first, _) = sqlite_in(&here, &stand).await;
    let (mut second, database) = sqlite_in(&there, &stand).await;
    let mut owner = host(&here, &patient(first.clone()));
    assert_eq!(Client::new(owner.public()).like(1, 1).await, (true, 1));
    owner.kill();
    for (way, likes) in [("adopt", 1), ("drop", 0)] {
        second.store.path = there.join(way);
        copy(&first.store.path, &second.store.path);
        assert_refused(&there, &second, &["belongs to another database", "weir store adopt", "weir store drop --all"]);
        let arguments: &[&str] = if way == "adopt" { &["store", "adopt"] } else { &["store", "drop", "--all"] };
        let unsure = run(&there, &second, arguments);
        assert!(unsure.code == Some(1) && unsure.stderr.contains("1 change"), "{unsure:?}");
        done(&there, &second, &[arguments, &["--yes"]].concat());
        database.script("DELETE FROM feed_like; UPDATE feed SET like_count = 0").await;
        let mut host = host(&there, &second);
        wait_for_likes(&database, likes, &host).await;
        assert_eq!(database.likes().await.len(), likes, "{way}");
        database.assert_counts_equal_rows().await;
        assert_eq!(host.terminate().code(), Some(0));
    }
}

/// `sql.url` leads to another database under a running host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_exchanged_gets_nothing() {
    let stand = Stand::start(Setup::EmbeddedPostgres, 3).await;
    let config = stand.config();
    let host = stand.host(&config);
    let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
    assert_eq!(client.like(1, 1).await, (true, 1));
    admin.wait_drained(LIMIT).await;
    let exchange = |from: &str, to: &str| {
        format!(
            "UPDATE weir_meta SET name = '{to}' WHERE name = '{from}'; UPDATE weir_checkpoint SET epoch = epoch + 1;"
        )
    };
    stand.database.script(&exchange("database", "hidden")).await;
    assert_eq!(client.like(1, 2).await, (true, 2), "what is known is served, and waits");
    let start = std::time::Instant::now();
    let problem = loop {
        let ready = admin.get("/readyz").await;
        if ready.status == 503 {
            break ready.text();
        }
        assert!(start.elapsed() < LIMIT, "it is not noticed:\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(problem.contains("is not the one that the journal belongs to"), "{problem}");
    assert_eq!(stand.database.likes().await, [(1, 1)].into());
    stand.database.script(&exchange("hidden", "database")).await;
    wait_for_likes(&stand.database, 2, &host).await;
    assert_eq!(stand.database.likes().await, [(1, 1), (1, 2)].into());
    stand.database.assert_counts_equal_rows().await;
}

/// `format-3.tar.gz` is what a host of the version before left when it was killed: a like in SQL, three that were not flushed.
fn unpack(directory: &Path) -> PathBuf {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-3.tar.gz");
    fs::create_dir_all(directory).unwrap();
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(directory).status().unwrap();
    assert!(unpacked.success());
    directory.join("weir-store")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_format_3_is_taken_over_with_what_waits_in_it() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let directory = temporary_directory("format");
    let mut config = stand.config();
    config.store.path = unpack(directory.path());
    config.sql.url = format!("sqlite://{}", directory.path().join("weir.db").display());
    let before: Vec<u8> = fs::read(config.store.path.join("0.jnl")).unwrap();
    let checked = done(directory.path(), &config, &["check"]);
    assert!(checked.contains("weir would start"), "{checked}");
    assert_eq!(listed(directory.path(), &config), [("feed-like".to_owned(), 3)]);
    assert_eq!(fs::read(config.store.path.join("0.jnl")).unwrap(), before, "a look changes nothing");

    // A database that never flushed it is refused, and changes nothing either.
    let (mut other, _) = sqlite_in(&directory.path().join("other"), &stand).await;
    other.store.path = directory.path().join("copy");
    copy(&config.store.path, &other.store.path);
    assert_refused(
        directory.path(),
        &other,
        &["this one has never flushed that journal: 3 changes of feed-like", "adopt"],
    );

    let mut host = host(directory.path(), &config);
    let database = Database::connect(&config.sql.url).await;
    wait_for_likes(&database, 4, &host).await;
    assert_eq!(database.likes().await, [(1, 1), (1, 2), (2, 1), (3, 1)].into());
    database.assert_counts_equal_rows().await;
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
    host.restart();
    host.wait_ready();
    assert_eq!(database.likes().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_of_format_4_is_taken_over_with_what_waits_in_it() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let redis = Redis::start(RedisOptions::default());
    let directory = stand.directory.path().join("a");
    let (mut config, database) = sqlite_in(&directory, &stand).await;
    config.store = StoreConfig { store_type: StoreType::Redis, url: redis.url(), ..StoreConfig::default() };
    let mut before = host(&directory, &config);
    assert_eq!(Client::new(before.public()).like(1, 1).await, (true, 1));
    Client::new(before.admin()).wait_drained(LIMIT).await;
    before.kill();
    let mut before = host(&directory, &patient(config.clone()));
    for target in 1..=3 {
        Client::new(before.public()).like(target, 2).await;
    }
    before.kill();
    // As the version before would have left it.
    for key in redis.command::<Vec<String>>(&["KEYS", "weir:feed:{*"]) {
        redis.command::<()>(&["RENAME", &key, &key.replacen("weir:feed:", "weir:", 1)]);
    }
    redis.command::<()>(&["DEL", "weir:feed:format"]);
    redis.command::<()>(&["HSET", "weir:format", "version", "4", "partitions", "8"]);
    database.script("DELETE FROM weir_meta WHERE name = 'database'; DELETE FROM weir_journal;").await;

    // The version before would not have been shown to be another database's.
    let (mut other, _) = sqlite_in(&stand.directory.path().join("b"), &stand).await;
    other.store = config.store.clone();
    assert_refused(&directory, &other, &["never flushed that journal: 3 changes of feed-like", "store.namespace"]);
    let checked = done(&directory, &config, &["check"]);
    assert!(checked.contains("weir would start"), "{checked}");
    let host = host(&directory, &config);
    wait_for_likes(&database, 4, &host).await;
    assert_eq!(database.likes().await, [(1, 1), (1, 2), (2, 2), (3, 2)].into());
    database.assert_counts_equal_rows().await;
    let version: String = redis.command(&["HGET", "weir:format", "version"]);
    assert_eq!(version, "moved to feed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_nobody_flushes_is_refused_and_each_way_out_works() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let directory = stand.directory.path().join("a");
    let (config, database) = sqlite_in(&directory, &stand).await;
    let mut host_before = host(&directory, &patient(config.clone()));
    for actor in 1..=3 {
        Client::new(host_before.public()).like(2, actor).await;
    }
    host_before.kill();
    let mut renamed = config.clone();
    renamed.toggles[0].kind = "post-like".into();
    let words = ["holds 3 changes of this kind", "weir store rename feed-like NEW", "weir store drop feed-like"];
    assert_refused(&directory, &renamed, &words);

    let kept = directory.join("kept");
    copy(&config.store.path, &kept);
    for (way, likes) in [("under its old name", 3), ("rename", 3), ("drop", 0)] {
        database.script("DELETE FROM feed_like; DELETE FROM weir_checkpoint; UPDATE feed SET like_count = 0").await;
        fs::remove_dir_all(&config.store.path).unwrap();
        copy(&kept, &config.store.path);
        match way {
            "under its old name" => {
                let mut host = host(&directory, &config);
                wait_for_likes(&database, 3, &host).await;
                assert_eq!(host.terminate().code(), Some(0));
                assert_eq!(listed(&directory, &config), [("feed-like".to_owned(), 0)]);
            }
            "rename" => {
                let told = done(&directory, &renamed, &["store", "rename", "feed-like", "post-like"]);
                assert!(told.contains("3 changes"), "{told}");
            }
            _ => {
                let unsure = run(&directory, &renamed, &["store", "drop", "feed-like"]);
                assert!(unsure.code == Some(1) && unsure.stderr.contains("3 changes"), "{unsure:?}");
                done(&directory, &renamed, &["store", "drop", "feed-like", "--yes"]);
            }
        }
        assert_eq!(database.likes().await.len(), likes, "{way}");
        database.assert_counts_equal_rows().await;
        let checked = done(&directory, &renamed, &["check"]);
        assert!(checked.contains("weir would start"), "{way}: {checked}");
        let mut after = host(&directory, &renamed);
        assert_eq!(after.terminate().code(), Some(0), "{way}: {}", after.log());
        assert_eq!(database.likes().await.len(), likes, "{way}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_exchanged_is_missed_while_changes_wait_in_it() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let redis = Redis::start(RedisOptions::default());
    let directory = stand.directory.path().join("a");
    let (embedded, database) = sqlite_in(&directory, &stand).await;
    let mut shared = embedded.clone();
    (shared.store.store_type, shared.store.url) = (StoreType::Redis, redis.url());
    let mut before = host(&directory, &patient(embedded.clone()));
    Client::new(before.public()).like(1, 1).await;
    before.kill();
    let words = ["changes wait in another store of this database", "1 change of feed-like", "weir store forget"];
    assert_refused(&directory, &shared, &words);
    // With the store as it was, until nothing waits.
    let mut drained = host(&directory, &embedded);
    wait_for_likes(&database, 1, &drained).await;
    assert_eq!(drained.terminate().code(), Some(0));
    assert_eq!(database.likes().await, [(1, 1)].into());

    let mut now = host(&directory, &patient(shared.clone()));
    Client::new(now.public()).like(2, 1).await;
    now.kill();
    // And back: the Redis is found where `store.url` still leads, and missed where it does not answer.
    assert_refused(&directory, &embedded, &words);
    let mut elsewhere = redis;
    elsewhere.kill();
    assert_refused(&directory, &embedded, &["whether changes wait in it cannot be seen", "weir store forget"]);
    done(&directory, &embedded, &["store", "forget", "--yes"]);
    let after = host(&directory, &embedded);
    Client::new(after.admin()).wait_drained(LIMIT).await;
    assert_eq!(database.likes().await, [(1, 1)].into(), "given up");
}
