//! The command line for people and for programs: what only looks changes nothing on disk; a failure names address and cause at
//! once; JSON is JSON; no colours in files; addresses as people write them; a limited address space is told with its remedy.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use weir::config::{Config, SqlConfig};
use weir_tests::client::Client;
use weir_tests::kinds::{self, Kind};
use weir_tests::services::host::{Ended, weir, weir_binary};
use weir_tests::services::{Host, HostConfig, MariaDb, Postgres, free_port, temporary_directory};
use weir_tests::stand::{Setup, Stand};

/// Every file and directory below, with its content.
fn tree(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
            let name = entry.path().strip_prefix(directory).unwrap().to_string_lossy().into_owned();
            if entry.file_type().unwrap().is_dir() {
                found.insert(name + "/", Vec::new());
                todo.push(entry.path());
            } else {
                // What all who have a database open share is memory with a name, and whoever reads leaves a mark there.
                let is_memory = name.ends_with("-shm");
                found.insert(name, if is_memory { Vec::new() } else { fs::read(entry.path()).unwrap() });
            }
        }
    }
    found
}

/// Names of what differs.
fn changes(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let names = before.keys().chain(after.keys()).filter(|name| before.get(*name) != after.get(*name));
    let mut names: Vec<String> = names.cloned().collect();
    names.dedup();
    names
}

/// Runs what only looks, and fails when anything changes in `directory`.
fn look(directory: &Path, config: &[&str], codes: &[i32]) {
    let looks: [&[&str]; 8] = [
        &["check"],
        &["check", "--json"],
        &["explain", "feed-like", "3", "7"],
        &["explain", "feed-like", "3", "7", "--json"],
        &["dead-letters", "list"],
        &["journal", "holes"],
        &["store", "list"],
        &["policy", "list"],
    ];
    for line in looks {
        // Modules have no directory of their own to look at.
        let arguments: Vec<&str> = line.iter().chain(config).copied().collect();
        let before = tree(directory);
        let ended = weir(directory, &arguments);
        let changed = changes(&before, &tree(directory));
        assert_eq!(changed, [""; 0], "weir {} changed files: {ended:?}", arguments.join(" "));
        assert!(ended.code.is_some_and(|code| codes.contains(&code)), "weir {}: {ended:?}", arguments.join(" "));
    }
}

#[test]
fn what_only_looks_changes_nothing_where_nothing_is() {
    let directory = temporary_directory("look");
    look(directory.path(), &[], &[0, 1, 3]);
    let check = weir(directory.path(), &["check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.contains("its first start makes weir-data"), "{check:?}");
    // A database that is not there yet.
    let sqlite = kinds::sqlite_in(&directory.path().join("data"));
    let mut config = kinds::config(directory.path(), &sqlite, &[Kind::FeedLike]);
    config.admin.listen.set_port(free_port());
    fs::write(directory.path().join("weir.toml"), toml::to_string(&config).unwrap()).unwrap();
    look(directory.path(), &[], &[0, 1, 3]);
    let check = weir(directory.path(), &["check"]);
    assert!(check.stdout.contains("table feed_like does not exist"), "{check:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_looks_changes_nothing_of_a_host_that_ran() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 5).await;
    let mut config = stand.full_config();
    config.policy.registry = stand.directory.path().join("policies");
    config.toggles[0].settings.insert("flush-age-ms".into(), "600000".into());
    config.toggles[0].settings.insert("flush-entries".into(), "1000".into());
    config.admin.listen.set_port(free_port());
    let mut host = stand.host(&config);
    Client::new(host.public()).like(3, 7).await;
    let file = stand.directory.path().join("look.toml");
    fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    let file = ["--config", file.to_str().unwrap()];
    // In mid-life, with its database's log beside it.
    host.kill();
    look(stand.directory.path(), &file, &[0, 3]);
    let explained = weir(stand.directory.path(), &[&["explain", "feed-like", "3", "7", "--json"][..], &file].concat());
    let known: Value = serde_json::from_str(&explained.stdout).unwrap_or_else(|_| panic!("{explained:?}"));
    assert_eq!(known["store"]["journal"][0]["action"], "add", "what waits in the journal is seen: {known}");
    // At rest.
    host.restart();
    host.wait_ready();
    assert!(host.terminate().success());
    look(stand.directory.path(), &file, &[0, 3]);
}

fn write_config(directory: &Path, config: &Config) -> String {
    let path = directory.join("weir.toml");
    fs::write(&path, toml::to_string(config).unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// `weir check` with this database. Who would wait for the pool waits for ten minutes.
fn check_sql(directory: &Path, url: &str) -> Ended {
    let mut config = kinds::config(directory, url, &[Kind::FeedLike]);
    config.sql = SqlConfig { acquire_timeout_ms: 600_000, ..config.sql };
    let file = write_config(directory, &config);
    weir(directory, &["check", "--config", &file])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_names_address_and_cause_at_once() {
    let directory = temporary_directory("said");
    let says = |url: &str, parts: &[&str]| {
        let ended = check_sql(directory.path(), url);
        println!("{}: {}", url.split(':').next().unwrap(), ended.stderr.trim());
        assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
        for part in parts {
            assert!(ended.stderr.contains(part), "{part:?} is not said: {ended:?}");
        }
    };
    let port = free_port();
    for scheme in ["postgres", "mysql"] {
        let refused = format!("connection refused at 127.0.0.1:{port}");
        says(&format!("{scheme}://weir:secret@127.0.0.1:{port}/application"), &[&refused]);
        says(
            &format!("{scheme}://weir:secret@nowhere.invalid:{port}/application"),
            &[&format!("at nowhere.invalid:{port}")],
        );
    }
    let (postgres, mariadb) = (Postgres::start(), MariaDb::start());
    for (url, unknown) in
        [(postgres.create_database().await, "does not exist"), (mariadb.create_database().await, "Unknown database")]
    {
        let (before, database) = url.rsplit_once('/').unwrap();
        let address = before.rsplit('@').next().unwrap();
        let at = format!("at {}", address.rsplit("//").next().unwrap());
        says(&format!("{before}/{database}_nowhere"), &[unknown, &at]);
        let scheme = url.split("//").next().unwrap();
        let host = address.rsplit("//").next().unwrap();
        says(&format!("{scheme}//nobody:wrong@{host}/{database}"), &["nobody", &at]);
    }
}

/// With `--json` standard output is JSON and nothing else, whatever happens.
#[test]
fn json_is_json() {
    let directory = temporary_directory("json");
    let path = directory.path();
    let mut config = kinds::config(path, &format!("postgres://weir@127.0.0.1:{}/x", free_port()), &[Kind::FeedLike]);
    config.admin.listen.set_port(free_port());
    let file = write_config(path, &config);
    fs::write(path.join("broken.toml"), "[http]\nlisten_adress = 1").unwrap();
    let with = ["--config", file.as_str()];
    let lines: [(&[&str], &[&str]); 13] = [
        (&["check"], &with),
        (&["check"], &["--config", "nowhere.toml"]),
        (&["check"], &["--config", "broken.toml"]),
        (&["check", "--nonsense"], &with),
        (&["explain", "feed-like", "3", "7"], &with),
        (&["explain", "nothing", "3"], &with),
        (&["flush"], &with),
        (&["dead-letters", "list"], &with),
        (&["journal", "holes"], &with),
        (&["store", "list"], &with),
        (&["policy", "list"], &with),
        (&["policy", "check", "nowhere.wasm"], &with),
        (&["policy", "test", "nowhere.wasm"], &with),
    ];
    for (line, more) in lines {
        let arguments: Vec<&str> = line.iter().chain(more).copied().chain(["--json"]).collect();
        let ended = weir(path, &arguments);
        let said: Value =
            serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("weir {}: {ended:?}", arguments.join(" ")));
        assert!(ended.code.is_some_and(|code| code != 0), "weir {}: {ended:?}", arguments.join(" "));
        let told = ["error", "reason"].iter().any(|name| said[name].as_str().is_some_and(|text| !text.is_empty()));
        assert!(told, "weir {}: no cause in {said}", arguments.join(" "));
    }
    let check = weir(path, &["check", "--config", &file, "--json"]);
    assert!(check.stdout.contains("connection refused at 127.0.0.1:"), "{check:?}");
}

#[test]
fn the_demo_says_that_it_is_one_and_files_have_no_colours() {
    let directory = temporary_directory("demo-line");
    let host = Host::start_on_picked_ports(HostConfig::Demo, directory.path());
    let first = host.stdout().lines().next().unwrap().to_owned();
    assert!(first.starts_with("this is the demo") && first.contains("weir-data"), "{first}");
    assert!(!host.log().is_empty() && !host.log().contains('\u{1b}'), "{}", host.log());
    drop(host);
    let directory = temporary_directory("no-demo-line");
    let sqlite = kinds::sqlite_in(directory.path());
    let config = kinds::config(directory.path(), &sqlite, &[]);
    let host = Host::start_on_picked_ports(HostConfig::of(&config), directory.path());
    assert!(host.stdout().starts_with("listening on "), "{}", host.stdout());
}

#[test]
fn addresses_are_what_people_write() {
    let directory = temporary_directory("addresses");
    let config = kinds::config(directory.path(), &kinds::sqlite_in(directory.path()), &[]);
    let text = toml::to_string(&config).unwrap();
    let (public, operators) = (config.http.listen.to_string(), config.admin.listen.to_string());
    let text = text.replacen(&public, "localhost:0", 1).replacen(&operators, "localhost:0", 1);
    assert_eq!(text.matches("localhost:0").count(), 2, "{text}");
    fs::write(directory.path().join("weir.toml"), &text).unwrap();
    let check = weir(directory.path(), &["check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    fs::write(directory.path().join("weir.toml"), text.replacen("localhost:0", "localhost", 1)).unwrap();
    let wrong = weir(directory.path(), &["check"]);
    assert!(wrong.stderr.contains("localhost:8080 or :8080"), "{wrong:?}");
    // All addresses of the machine: operators need a token there, and so the address was understood.
    fs::write(directory.path().join("weir.toml"), &text).unwrap();
    let open = weir(directory.path(), &["serve", "--listen", "localhost:0", "--admin-listen", ":0"]);
    assert!(open.stderr.contains("admin.listen: must be a loopback address"), "{open:?}");
}

/// Runs `weir` where the address space is limited, in KiB.
fn limited(directory: &Path, limit_kib: u64, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -v {limit_kib}; exec \"$0\" \"$@\"")).arg(weir_binary()).args(arguments);
    command.current_dir(directory).stdin(Stdio::null());
    command
}

/// The settings that a message tells to write, as TOML.
fn remedy(said: &str) -> String {
    let mut text = String::new();
    let told = said.split_once("write in the configuration: ").expect(said).1;
    for table in told.split(" (").next().unwrap().split("; ") {
        let (name, settings) = table.split_once("] ").expect(table);
        text += &format!("{name}]\n{}\n", settings.replace(", ", "\n"));
    }
    text
}

/// 16 GiB of address space: said with the settings that fit, and with these settings a host runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_address_space_is_told_with_its_remedy() {
    const LIMIT_KIB: u64 = 16 << 20;
    let stand = Stand::start(Setup::EmbeddedSqlite, 3).await;
    let mut config = stand.config();
    config.http.listen.set_port(0);
    config.admin.listen.set_port(0);
    config.policy.registry = stand.directory.path().join("policies");
    let file = write_config(stand.directory.path(), &config);
    let output = limited(stand.directory.path(), LIMIT_KIB, &["serve", "--config", &file]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    println!("ulimit -v {LIMIT_KIB}: {}", said.lines().last().unwrap());
    assert!(said.contains("limited to 16 GiB") && said.contains("[policy.pool]"), "{said}");

    // What it says, word for word, in place of what was there.
    let told: toml::Table = remedy(&said).parse().unwrap();
    let mut whole: toml::Table = toml::to_string(&config).unwrap().parse().unwrap();
    let policy = whole["policy"].as_table_mut().unwrap();
    for (name, value) in told["policy"].as_table().unwrap() {
        policy.insert(name.clone(), value.clone());
    }
    fs::write(&file, toml::to_string(&whole).unwrap()).unwrap();
    let out = stand.directory.path().join("limited.out");
    let mut command = limited(stand.directory.path(), LIMIT_KIB, &["serve", "--config", &file]);
    let mut child = command.stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
    let address = || {
        let text = fs::read_to_string(&out).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("listening on http://").map(str::to_owned))?;
        text.contains("operators on").then(|| line.parse::<std::net::SocketAddr>().unwrap())
    };
    let started = weir_tests::services::wait_until(weir_tests::services::START_TIMEOUT, || {
        address().is_some() || child.try_wait().unwrap().is_some()
    });
    let liked = match address().filter(|_| started) {
        Some(address) => Some(Client::new(address).like(1, 7).await),
        None => None,
    };
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(liked, Some((true, 1)), "a host runs with what was told: {said}");
}
