//! The command line: `init`, `check`, `explain`, `policy check`, and what happens with a wrong configuration.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use weir_tests::client::Client;
use weir_tests::kinds::{self, Kind};
use weir_tests::services::host::{Ended, weir};
use weir_tests::services::{Host, HostConfig, temporary_directory};
use weir_tests::stand::{Setup, Stand};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_writes_a_file_that_serves() {
    let directory = temporary_directory("cli");
    let written = weir(directory.path(), &["init"]);
    assert_eq!(written.code, Some(0), "{written:?}");
    let text = fs::read_to_string(directory.path().join("weir.toml")).expect("weir init writes weir.toml");
    assert!(text.lines().filter(|line| line.trim_start().starts_with('#')).count() > 10, "it must be commented");
    toml::from_str::<weir::config::Config>(&text).expect("what weir init writes is a configuration");
    let again = weir(directory.path(), &["init"]);
    assert_ne!(again.code, Some(0), "an existing file must not be overwritten");
    assert_eq!(fs::read_to_string(directory.path().join("weir.toml")).unwrap(), text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_what_is_wrong_with_the_schema() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let file = write_config(&stand, "good.toml", &stand.config());
    let good = weir(stand.directory.path(), &["check", "--config", &file]);
    assert_eq!(good.code, Some(0), "{good:?}");

    let mut config = stand.config();
    config.toggles[0].table.actor_column = "nobody".into();
    let file = write_config(&stand, "bad.toml", &config);
    let bad = weir(stand.directory.path(), &["check", "--config", &file]);
    assert!(bad.code.is_some_and(|code| code != 0), "{bad:?}");
    assert!(all_output(&bad).contains("nobody"), "the missing column must be named: {bad:?}");

    // Without a unique key on (target, actor): the statement to run is printed, and a host does not start.
    stand
        .database
        .script(
            "DROP TABLE feed_like;\n\
             CREATE TABLE feed_like (feed_id INTEGER NOT NULL, user_id INTEGER NOT NULL, created_at TEXT NOT NULL)",
        )
        .await;
    let file = write_config(&stand, "keyless.toml", &stand.config());
    let keyless = weir(stand.directory.path(), &["check", "--config", &file]);
    assert!(keyless.code.is_some_and(|code| code != 0), "{keyless:?}");
    assert!(all_output(&keyless).to_uppercase().contains("UNIQUE"), "{keyless:?}");
    let ended = Host::start_refused(HostConfig::of(&stand.config()), stand.directory.path());
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    assert!(all_output(&ended).to_uppercase().contains("UNIQUE"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_what_is_wrong_with_the_store() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 3).await;
    let mut host = stand.host(&stand.config());
    Client::new(host.public()).like(3, 7).await;
    host.kill();
    // The number of partitions is part of what the directory holds.
    let mut config = stand.config();
    config.store.partitions *= 2;
    let file = write_config(&stand, "partitions.toml", &config);
    let other = weir(stand.directory.path(), &["check", "--config", &file]);
    assert!(other.code.is_some_and(|code| code != 0), "{other:?}");
    assert!(
        all_output(&other).contains(&format!("store.partitions = {}", stand.config().store.partitions)),
        "{other:?}"
    );
    let file = write_config(&stand, "good.toml", &stand.config());
    let good = weir(stand.directory.path(), &["check", "--config", &file]);
    assert_eq!(good.code, Some(0), "{good:?}");
    // A store that somebody has emptied is missed: SQL knows that there was one.
    fs::remove_dir_all(&stand.config().store.path).unwrap();
    let host = stand.host(&stand.config());
    let log = host.log();
    assert!(log.contains("is gone, and what it had not flushed, too") && log.contains("find out who emptied"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_a_statement_that_the_database_cannot_prepare() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let mut config = stand.config();
    let statement = |sql: &str| weir::config::StatementConfig {
        name: "tier-of".into(),
        sql: sql.into(),
        parameters: vec![weir::config::ParameterType::Integer],
        write: false,
        rows_max: 1,
        timeout_ms: 200,
    };
    config.policy.statements = vec![statement("SELECT like_count FROM feed WHERE id = ?")];
    let file = write_config(&stand, "good.toml", &config);
    let good = weir(stand.directory.path(), &["check", "--config", &file]);
    assert_eq!(good.code, Some(0), "{good:?}");
    config.policy.statements = vec![statement("SELECT tier FROM nowhere WHERE id = ?")];
    let file = write_config(&stand, "bad.toml", &config);
    let bad = weir(stand.directory.path(), &["check", "--config", &file]);
    assert!(bad.code.is_some_and(|code| code != 0), "{bad:?}");
    let output = all_output(&bad);
    assert!(output.contains("policy.statement tier-of") && output.contains("nowhere"), "{bad:?}");
}

fn write_config(stand: &Stand, name: &str, config: &weir::config::Config) -> String {
    let path = stand.directory.path().join(name);
    fs::write(&path, toml::to_string(config).unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn all_output(ended: &Ended) -> String {
    format!("{}{}", ended.stdout, ended.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_shows_all_that_is_known_of_a_pair() {
    for setup in [Setup::EmbeddedSqlite, Setup::RedisPostgres] {
        let stand = Stand::start(setup, 5).await;
        let mut config = stand.config();
        config.toggles[0].settings.insert("flush-age-ms".into(), "600000".into());
        config.toggles[0].settings.insert("flush-entries".into(), "2".into());
        let host = stand.host(&config);
        let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
        client.like(3, 7).await;
        client.like(3, 8).await;
        admin.wait_drained(LIMIT).await;
        // One more, which waits in the journal.
        client.like(3, 7).await;

        let plain = explain(&host, &[]);
        for word in ["store", "journal", "sql", "checkpoint"] {
            assert!(plain.to_lowercase().contains(word), "{}: no {word} in\n{plain}", setup.name());
        }
        let json: Value = serde_json::from_str(&explain(&host, &["--json"])).unwrap();
        let text = json.to_string();
        for field in ["\"store\"", "\"journal\"", "\"sql\"", "\"checkpoint\"", "\"row\""] {
            assert!(text.contains(field), "{}: no {field} in {text}", setup.name());
        }
        assert!(!json["sql"]["row"].is_null(), "SQL holds the row still: {text}");
        let waiting = json["store"]["journal"].as_array().unwrap_or_else(|| panic!("no journal in {text}"));
        assert_eq!(waiting.len(), 1, "one entry of this pair waits: {text}");
    }
}

/// `weir explain feed-like 3 7` with the configuration of `host`, which goes on running.
fn explain(host: &Host, more: &[&str]) -> String {
    let config = host.config_path().unwrap();
    let arguments = [&["explain", "feed-like", "3", "7", "--config", config.to_str().unwrap()], more].concat();
    // Where the command asks the running host, it must find it at the port that the host listens on.
    let admin = host.admin().to_string();
    let ended = weir(host.directory(), &[arguments.as_slice(), &["--admin", &admin]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stdout
}

#[test]
fn a_module_that_does_not_fit_is_refused_with_the_reason() {
    let directory = temporary_directory("cli");
    let core = wat::parse_str("(module (func (export \"decide\")))").unwrap();
    let nothing = wat::parse_str("(component)").unwrap();
    let lacking = wat::parse_str(toggle_component("", "(instance $toggle)")).unwrap();
    let signature = wat::parse_str(toggle_component("", SIGNATURE)).unwrap();
    let unknown = wat::parse_str(toggle_component("(import \"wasi:sockets/tcp@0.2.0\" (instance))", SIGNATURE));
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("text.wasm", b"this is no module".to_vec(), "component"),
        ("core.wasm", core, "component"),
        ("nothing.wasm", nothing, "export"),
        ("lacking.wasm", lacking, "decide"),
        ("signature.wasm", signature, "decide"),
        ("import.wasm", unknown.unwrap(), "wasi:sockets"),
    ];
    for (name, bytes, word) in cases {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        let ended = weir(directory.path(), &["policy", "check", name]);
        assert!(ended.code.is_some_and(|code| code != 0), "{name} was not refused: {ended:?}");
        assert!(all_output(&ended).contains(word), "{name}: the reason must name {word:?}: {ended:?}");
        assert_no_start(&path, word);
    }
    let missing = weir(directory.path(), &["policy", "check", "there-is-no-such.wasm"]);
    assert!(missing.code.is_some_and(|code| code != 0), "{missing:?}");
}

/// A component whose `decide` takes and gives nothing.
const SIGNATURE: &str = "(core module $m (func (export \"decide\")))
    (core instance $i (instantiate $m))
    (func $decide (canon lift (core func $i \"decide\")))
    (instance $toggle (export \"decide\" (func $decide)))";

fn toggle_component(imports: &str, instance: &str) -> String {
    format!("(component {imports} {instance} (export \"weir:policy/toggle@0.1.0\" (instance $toggle)))")
}

/// A host with this module does not start, and says why.
fn assert_no_start(module: &Path, word: &str) {
    let directory = temporary_directory("cli");
    let mut config = kinds::config(directory.path(), &kinds::sqlite_in(directory.path()), &[Kind::FeedLike]);
    config.policy.component = Some(module.to_owned());
    let ended = Host::start_refused(HostConfig::of(&config), directory.path());
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    assert!(all_output(&ended).contains(word), "{}: the reason must name {word:?}: {ended:?}", module.display());
}

#[test]
fn a_wrong_configuration_is_refused_with_the_name_of_the_field() {
    let cases = [
        ("[http]\nlisten_adress = \"127.0.0.1:1\"", "listen_adress"),
        ("[store]\npartitions = 0", "store.partitions"),
        ("[[toggle]]\nkind = \"Feed Like\"", "toggle"),
        ("[sql]\nurl = \"oracle://x\"", "sql.url"),
        ("not toml at all", "weir"),
        ("[admin]\nlisten = \"0.0.0.0:0\"", "admin.listen"),
    ];
    for (text, word) in cases {
        let directory = temporary_directory("cli");
        let ended = Host::start_refused(HostConfig::Text(text.into()), directory.path());
        assert!(ended.code.is_some_and(|code| code != 0), "{text}: {ended:?}");
        assert!(ended.stderr.contains(word), "{text}: the message must name {word:?}: {ended:?}");
    }
    let directory = temporary_directory("cli");
    let missing = weir(directory.path(), &["check", "--config", "there-is-no-such.toml"]);
    assert!(missing.code.is_some_and(|code| code != 0));
    assert!(missing.stderr.contains("there-is-no-such.toml"), "{missing:?}");
    let unknown = weir(directory.path(), &["no-such-command"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
}
