//! Configuration as people deploy: all mistakes at once with their places, files over files, the environment over files, secrets
//! in files and in no message, what is in force and where it comes from.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::kinds::{self, Kind};
use weir_tests::services::host::{Ended, get, weir_binary};
use weir_tests::services::{Host, HostConfig, START_TIMEOUT, free_port, temporary_directory, wait_until};

/// Runs the binary with these variables and no others of weir's.
fn weir_with(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let output = Command::new(weir_binary())
        .current_dir(directory)
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

const SIX: &str = r#"[http]
listen_adress = "127.0.0.1:1"
requests_max = "many"

[store]
type = "redsi"
partitions = 70000

[flush]
lease_ms = 1

[admin]
  listen = "nowhere"
"#;

#[test]
fn six_mistakes_are_six_lines_with_line_and_column() {
    let directory = temporary_directory("six");
    fs::write(directory.path().join("weir.toml"), SIX).unwrap();
    let right = [
        "weir: 6 mistakes in the configuration",
        "weir.toml:2:1: http.listen_adress: there is no such setting; did you mean listen?",
        "weir.toml:3:16: http.requests_max: must be a whole number, is the text \"many\"",
        "weir.toml:6:8: store.type: \"redsi\" is none of embedded, redis, redis-cluster; did you mean redis?",
        "weir.toml:7:14: store.partitions: must be from 0 to 65535, is 70000",
        "weir.toml:10:12: flush.lease_ms: must be at least 100, is 1",
        "weir.toml:13:12: admin.listen: \"nowhere\" is no address: write 127.0.0.1:8080, [::1]:8080, localhost:8080 or :8080",
    ];
    for arguments in [&["config", "check"][..], &["config", "show"], &["check"], &["serve"], &["flush"]] {
        let ended = weir_with(directory.path(), arguments, &[]);
        assert_eq!((ended.code, ended.stderr.lines().collect::<Vec<_>>()), (Some(2), right.to_vec()), "{arguments:?}");
    }
    println!("{}", right.join("\n"));
    let json = weir_with(directory.path(), &["config", "check", "--json"], &[]);
    let said: Value = serde_json::from_str(&json.stdout).unwrap_or_else(|_| panic!("{json:?}"));
    assert_eq!((&said["ok"], &said["exit_code"]), (&Value::Bool(false), &Value::from(2)));
}

/// What is in force of one setting, and where it comes from.
fn setting(shown: &Value, name: &str) -> (Value, String) {
    let all = shown["settings"].as_array().unwrap();
    let one = all.iter().find(|one| one["setting"] == name).unwrap_or_else(|| panic!("{name} is not shown"));
    (one["value"].clone(), one["from"].as_str().unwrap().to_owned())
}

#[test]
fn what_is_in_force_says_where_it_comes_from() {
    let directory = temporary_directory("show");
    let path = directory.path();
    fs::create_dir(path.join("conf.d")).unwrap();
    fs::write(path.join("base.toml"), "[http]\nrequests_max = 1\ntargets_max = 7\n[sql]\nurl = \"sqlite://a.db\"\n")
        .unwrap();
    fs::write(
        path.join("conf.d/20.toml"),
        "[http]\nrequests_max = 3\n[store]\nurl = \"redis://:${PASSWORD}@${HOST:-cache}:6379\"\n",
    )
    .unwrap();
    fs::write(path.join("conf.d/10.toml"), "[http]\nrequests_max = 2\n").unwrap();
    fs::write(path.join("url"), "postgres://app:s3cret-a@db/shop\n").unwrap();
    let variables = [
        ("PASSWORD", "s3cret-b"),
        ("WEIR_SQL__URL_FILE", "url"),
        ("WEIR_HTTP__LISTEN", ":99"),
        ("WEIR_HTTP__TRUSTED_PROXIES", "[\"loopback\"]"),
    ];
    let arguments = ["config", "show", "--config", "base.toml", "--config", "conf.d"];
    let json = weir_with(path, &[&arguments[..], &["--json"]].concat(), &variables);
    let shown: Value = serde_json::from_str(&json.stdout).unwrap_or_else(|_| panic!("{json:?}"));
    let right = [
        ("http.requests_max", Value::from(3), "conf.d/20.toml:2:16"),
        ("http.targets_max", Value::from(7), "base.toml:3:15"),
        ("http.listen", Value::from("0.0.0.0:99"), "environment WEIR_HTTP__LISTEN"),
        ("http.headers_max", Value::from(64), "default"),
        ("sql.url", Value::from("postgres://app:***@db/shop"), "held by url"),
        ("store.url", Value::from("redis://:***@cache:6379"), "conf.d/20.toml:4:7, ${PASSWORD}, ${HOST}"),
    ];
    for (name, value, from) in right {
        assert_eq!(setting(&shown, name), (value, from.to_owned()), "{name}");
    }
    let text = weir_with(path, &arguments, &variables);
    assert!(text.stdout.contains("url = \"postgres://app:***@db/shop\"") && text.code == Some(0), "{text:?}");
    println!(
        "{}",
        text.stdout
            .lines()
            .filter(|line| !line.ends_with("# default") && line.contains('#'))
            .collect::<Vec<_>>()
            .join("\n")
    );
    assert!(!format!("{text:?}{json:?}").contains("s3cret"), "{text:?}");
}

/// All leaves of the schema outside of lists, as variables with a value that fits.
fn leaves(prefix: &str, schema: &Value, found: &mut Vec<(String, String)>) {
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        let name = format!("{prefix}{}", name.to_ascii_uppercase());
        let default = &of["default"];
        if of["properties"].is_object() {
            leaves(&format!("{name}__"), of, found);
        } else if default.is_number() || default.is_boolean() || default.is_string() {
            let text = default.as_str().map_or_else(|| default.to_string(), ToOwned::to_owned);
            found.push((name, text));
        }
    }
}

#[test]
fn every_plain_setting_can_come_from_the_environment() {
    let directory = temporary_directory("variables");
    let schema = weir_with(directory.path(), &["config", "schema"], &[]);
    let schema: Value = serde_json::from_str(&schema.stdout).unwrap();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    let mut variables = Vec::new();
    leaves("WEIR_", &schema, &mut variables);
    assert!(variables.len() > 80, "{}", variables.len());
    // Tables that are not there by themselves need what they cannot do without.
    let needed = [
        ("WEIR_AUTH__JWT__ALGORITHM", "HS256"),
        ("WEIR_AUTH__JWT__KEY", "0123456789abcdef0123456789abcdef"),
        ("WEIR_CACHE__SHARED__URL", "redis://127.0.0.1:1"),
        ("WEIR_STORE__TYPE", "redis"),
    ];
    let given = variables.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let given: Vec<(&str, &str)> = given.chain(needed).collect();
    let json = weir_with(directory.path(), &["config", "show", "--json"], &given);
    let shown: Value = serde_json::from_str(&json.stdout).unwrap_or_else(|_| panic!("{json:?}"));
    for (name, _) in &variables {
        let path = name.trim_start_matches("WEIR_").replace("__", ".").to_ascii_lowercase();
        assert_eq!(setting(&shown, &path).1, format!("environment {name}"));
    }
    println!("settings by variables: {}", variables.len());
}

#[test]
fn a_name_that_is_none_is_told_with_the_one_that_is_meant() {
    let directory = temporary_directory("names");
    let ended = weir_with(directory.path(), &["config", "check"], &[("WEIR_SQL_URL", "x"), ("WEIR_STORE__URRL", "y")]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for line in [
        "environment WEIR_SQL_URL: there is no such setting; did you mean WEIR_SQL__URL?",
        "environment WEIR_STORE__URRL: there is no setting URRL; did you mean URL?",
    ] {
        assert!(ended.stderr.contains(line), "{ended:?}");
    }
    // What an orchestrator sets, what tests read, and the level of the log are nobody's mistake.
    let fine = [
        ("WEIR_SERVICE_HOST", "10.0.0.1"),
        ("WEIR_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("WEIR_CRASH_KILLS", "1"),
        ("WEIR_LOG", "warn"),
    ];
    let ended = weir_with(directory.path(), &["config", "check"], &fine);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("WEIR_CRASH_KILLS is no setting of weir") && !ended.stdout.contains("SERVICE_HOST"),
        "{ended:?}"
    );
}

/// A host with secrets of all sorts, whose servers are away: what it says holds none of them.
#[test]
fn no_secret_is_in_a_log_or_message() {
    let directory = temporary_directory("secrets");
    let path = directory.path();
    let (sql, redis) = (free_port(), free_port());
    let mut config = kinds::config(path, &format!("postgres://app:s3cret-sql@127.0.0.1:{sql}/shop"), &[Kind::FeedLike]);
    config.store.store_type = weir::config::StoreType::Redis;
    config.store.url = format!("redis://:s3cret-redis@127.0.0.1:{redis}");
    config.admin.token = Some("s3cret-token-0123456789".into());
    config.toggles[0].settings.insert("api-token".into(), "s3cret-setting".into());
    let mut host = Host::start(HostConfig::of(&config), path);
    let said = wait_until(START_TIMEOUT, || host.log().contains(&format!("127.0.0.1:{sql}")));
    let ready = get(host.admin(), "/readyz").unwrap();
    assert!(said && ready.0 == 503, "{ready:?}\n{}", host.log());
    let file = host.config_path().unwrap();
    let arguments = |words: &[&str]| -> Ended {
        let words: Vec<&str> = words.iter().copied().chain(["--config", file.to_str().unwrap()]).collect();
        weir_with(path, &words, &[("WEIR_LOG", "trace")])
    };
    let ended = [
        arguments(&["check"]),
        arguments(&["config", "show"]),
        arguments(&["store", "list"]),
        arguments(&["explain", "feed-like", "1", "2"]),
    ];
    host.kill();
    let all = format!("{}{}{ready:?}{ended:?}", host.log(), host.stdout());
    assert!(!all.contains("s3cret"), "{all}");
}

/// A reload reads what a start reads: several files, variables, secrets, with places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_goes_the_same_way() {
    let directory = temporary_directory("reload-files");
    let path = directory.path();
    let url = kinds::sqlite_in(path);
    let database = Database::connect(&format!("{url}?mode=rwc")).await;
    Kind::FeedLike.create_tables(&database).await;
    let config = kinds::config(path, "${file:url}", &[Kind::FeedLike]);
    fs::write(path.join("url"), format!("{url}\n")).unwrap();
    let mut host = Host::start(HostConfig::of(&config), path);
    host.wait_ready();
    let file = host.config_path().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let reload = |text: &str, said: &str| {
        fs::write(&file, text).unwrap();
        rustix::process::kill_process(host.pid(), rustix::process::Signal::HUP).unwrap();
        assert!(wait_until(START_TIMEOUT, || host.log().contains(said)), "{said} is not said:\n{}", host.log());
    };
    let broken = text.replacen("requests_max", "requests_mx", 1);
    let line = broken.lines().position(|line| line.starts_with("requests_mx")).unwrap() + 1;
    reload(
        &broken,
        &format!("{}:{line}:1: http.requests_mx: there is no such setting; did you mean requests_max?", file.display()),
    );
    reload(&text.replacen("requests_max = 4096", "requests_max = 17", 1), "changed=\"http.requests_max\"");
    assert_eq!(Client::new(host.public()).get("/v1/toggles/feed-like/1").await.status, 404);
}
