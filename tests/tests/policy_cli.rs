//! `weir policy …` against a running host, with its exit codes: 0 done, 1 refused, 2 wrong usage, 3 no running host.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::client::Client;
use weir_tests::guest::{Guest, Import};
use weir_tests::services::Host;
use weir_tests::services::free_port;
use weir_tests::services::host::{Ended, weir};
use weir_tests::stand::{Setup, Stand};

/// Decides only when a hang is a failure.
const LIMIT: Duration = Duration::from_secs(60);
const CASES: &str = r#"{"cases": [{
    "name": "a like",
    "toggle.decide": {"kind": "feed-like", "batch": [{"target": 1, "actor": 2}]},
    "expect": {"rules": [{"when_absent": "add", "when_present": "remove"}]}
}]}"#;

const CASES_OF_BATCHES: &str = r#"{"cases": [{
    "name": "a view",
    "counter.decide": {"kind": "video-view", "batch": [{"target": 1, "actor": 2}, {"target": 1, "by": 7}]},
    "expect": {"hits": [{"weight": 1}, {"weight": 1}]}
}, {
    "name": "a playlist",
    "ingest.validate": {"kind": "playlist", "batch": [{"id": 1, "actor": 2, "body": {"title": "a"}}]},
    "expect": {"documents": [{"ok": null}]}
}]}"#;

/// Says why, and traps: as the panic of a guest in Rust does.
const SAYS: &str = r#"(data (i32.const 128) "looking up 7") (data (i32.const 160) "panicked at src/lib.rs:14:9: no tier gold")
    (func $no_tier
      (call $log (i32.const 1) (i32.const 128) (i32.const 12))
      (call $log (i32.const 3) (i32.const 160) (i32.const 41))
      unreachable)"#;

/// A command line with a host to speak to.
struct Shell<'a> {
    directory: &'a Path,
    admin: String,
}

impl Shell<'_> {
    fn run(&self, arguments: &[&str]) -> Ended {
        let to_host = ["--admin", self.admin.as_str(), "--by", "alice"];
        weir(self.directory, &[&["policy"], arguments, &to_host].concat())
    }

    /// What it prints, if it exits with `code`.
    fn expect(&self, code: i32, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(code), "weir policy {arguments:?}: {ended:?}");
        if code == 0 { ended.stdout } else { ended.stderr }
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.expect(0, &[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    fn serves(&self) -> String {
        self.json(&["list"])["active"]["toggle"]["name"].as_str().unwrap().to_owned()
    }
}

fn contains(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
}

fn write_files(directory: &Path) {
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
    write("plain.wasm", &Guest::default().component());
    // Never takes a like back.
    let keeps = "(i32.store8 offset=1 (local.get $rule) (i32.const 2))";
    write("one-way.wasm", &Guest { each: keeps, ..Guest::default() }.component());
    write("batches.wasm", &Guest { counter: true, ingest: true, ..Guest::default() }.component());
    write("batches.json", CASES_OF_BATCHES.as_bytes());
    let says = Guest { import: Import::Log, functions: SAYS, before: "(call $no_tier)", ..Guest::default() };
    write("says.wasm", &says.component());
    write("core.wasm", &wat::parse_str("(module)").unwrap());
    write("cases.json", CASES.as_bytes());
    write("wrong.json", CASES.replace("\"add\"", "\"deny\"").as_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modules_are_pushed_tried_activated_and_rolled_back_from_the_command_line() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 5).await;
    let mut config = stand.config();
    config.policy.call_deadline_ms = 1_000;
    config.policy.decisions.share = 1.0;
    let mut host = stand.host(&config);
    let shell = Shell { directory: stand.directory.path(), admin: host.admin().to_string() };
    write_files(shell.directory);
    let mut client = Client::new(host.public());
    push_and_activate(&shell);
    try_out(&shell, &mut client).await;
    delete_and_audit(&shell);
    assert_eq!(shell.serves(), "one-way");
    assert_eq!(client.like(4, 1).await, (true, 1));
    assert_eq!(client.like(4, 1).await, (true, 1), "one-way likes are not taken back");
    shell.expect(0, &["rollback"]);
    assert_eq!(client.like(4, 1).await, (false, 0));
    says_why(&shell, &host, &mut client).await;
    replay(&shell, &host).await;
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
    contains(&shell.expect(3, &["list"]), &["weir serve"]);
}

fn push_and_activate(shell: &Shell<'_>) {
    assert_eq!(shell.serves(), "built-in");
    contains(&shell.expect(1, &["rollback"]), &["no set to roll back to"]);
    contains(&shell.expect(1, &["push", "core.wasm"]), &["refused", "core-module"]);
    shell.expect(2, &["push", "there-is-no-such.wasm"]);
    contains(&shell.expect(1, &["push", "plain.wasm", "--vectors", "wrong.json"]), &["refused", "1 of 1", "a like"]);
    let pushed = shell.expect(
        0,
        &["push", "plain.wasm", "--name", "plain", "--version", "1.0", "--vectors", "cases.json", "--activate"],
    );
    contains(&pushed, &["plain", "1.0", "live now"]);
    assert_eq!(shell.serves(), "plain");
    let known = shell.json(&["push", "plain.wasm"]);
    assert_eq!((&known["known"], &known["name"]), (&true.into(), &"plain".into()), "{known}");
    contains(&shell.expect(0, &["push", "one-way.wasm", "--name", "one-way"]), &["good, and kept"]);
    contains(
        &shell.expect(0, &["list"]),
        &["toggle: plain 1.0", "flush: built-in", "one-way", "a rollback brings back"],
    );
    contains(&shell.expect(1, &["activate", "nobody"]), &["there is no module \"nobody\""]);
    contains(&shell.expect(2, &["activate", "one-way", "--interface", "flush"]), &["does not export flush"]);
    shell.expect(2, &["push", "plain.wasm", "--no-such-option"]);
}

async fn try_out(shell: &Shell<'_>, client: &mut Client) {
    shell.expect(2, &["shadow"]);
    shell.expect(2, &["canary", "one-way", "--share", "1.5"]);
    contains(&shell.expect(1, &["shadow", "--end"]), &["there is no shadow"]);
    contains(&shell.expect(0, &["shadow", "one-way"]), &["shadow: one-way"]);
    client.like(1, 1).await;
    let began = Instant::now();
    while shell.json(&["diff"])["shadow"]["differing"].as_u64() < Some(1) {
        assert!(began.elapsed() < LIMIT, "{}", shell.expect(0, &["diff"]));
    }
    contains(&shell.expect(0, &["diff"]), &["shadow: one-way", "differ", "feed-like", "candidate"]);
    contains(&shell.expect(1, &["delete", "one-way"]), &["is tried"]);
    shell.expect(0, &["shadow", "--end"]);
    contains(&shell.expect(0, &["canary", "one-way", "--share", "1"]), &["canary: one-way"]);
    assert_eq!(client.like(2, 1).await, (true, 1));
    assert_eq!(client.like(2, 1).await, (true, 1), "a canary of all targets decides");
    shell.expect(0, &["canary", "--end"]);
    assert_eq!(client.like(2, 1).await, (false, 0));
    contains(&shell.expect(1, &["canary", "--end"]), &["there is no canary"]);
    let digest = shell.json(&["push", "one-way.wasm"])["digest"].as_str().unwrap()[..8].to_owned();
    contains(&shell.expect(0, &["activate", &digest]), &["toggle: one-way"]);
}

fn delete_and_audit(shell: &Shell<'_>) {
    contains(&shell.expect(1, &["delete", "one-way"]), &["serves"]);
    contains(&shell.expect(1, &["delete", "nobody"]), &["there is no module"]);
    let other = Guest { before: "(nop)", ..Guest::default() }.component();
    std::fs::write(shell.directory.join("other.wasm"), other).unwrap();
    shell.expect(0, &["push", "other.wasm", "--name", "other"]);
    contains(&shell.expect(0, &["delete", "other"]), &["removed"]);
    assert!(!shell.json(&["list"])["modules"].to_string().contains("\"other\""));
    let audit = shell.expect(0, &["audit"]);
    contains(&audit, &["alice@127.0.0.1", "upload", "activate", "shadow", "end-canary", "delete", "done"]);
    let audit = shell.json(&["audit", "--limit", "3"]);
    let lines = audit["audit"].as_array().unwrap();
    assert_eq!(
        (lines.len(), &lines[0]["what"], &lines[0]["outcome"]),
        (3, &"delete".into(), &"done".into()),
        "{audit}"
    );
}

/// Whoever writes rules is told of a failure in the words of the guest, wherever it is met.
async fn says_why(shell: &Shell<'_>, host: &Host, client: &mut Client) {
    let local = |arguments: &[&str]| weir(shell.directory, &[&["policy"], arguments].concat());
    let words = ["panicked at src/lib.rs:14:9: no tier gold", "at no_tier", "it wrote info: looking up 7"];
    let checked = local(&["check", "says.wasm"]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    contains(&checked.stderr, &[&words[..], &["no call of toggle.decide has an answer"]].concat());
    let tested = local(&["test", "says.wasm", "cases.json"]);
    assert_eq!(tested.code, Some(1), "{tested:?}");
    contains(&tested.stdout, &words);
    contains(&shell.expect(1, &["push", "plain.wasm", "--name", "canary"]), &["canary", "--name"]);
    contains(&shell.expect(1, &["push", "says.wasm", "--name", "canary"]), &["canary", "--name"]);

    shell.expect(0, &["push", "says.wasm", "--name", "says", "--activate"]);
    for actor in 1..=3 {
        // The module before it answers, and it goes.
        client.like(3, actor).await;
    }
    assert_ne!(shell.serves(), "says", "{}", host.log());
    let list = shell.expect(0, &["list"]);
    contains(&list, &["rolled back", "says", "rolled back by itself at", "no tier gold"]);
    contains(&host.log(), &words);
}

/// Vectors and recorded decisions, which need no host.
async fn replay(shell: &Shell<'_>, host: &Host) {
    let local = |arguments: &[&str]| weir(shell.directory, &[&["policy"], arguments].concat());
    let tested = local(&["test", "plain.wasm", "cases.json"]);
    assert_eq!(tested.code, Some(0), "{tested:?}");
    contains(&tested.stdout, &["ok", "toggle.decide", "fuel", "1 passed, 0 failed"]);
    let tested = local(&["test", "batches.wasm", "batches.json"]);
    assert_eq!(tested.code, Some(0), "{tested:?}");
    contains(&tested.stdout, &["counter.decide", "ingest.validate", "2 passed, 0 failed"]);
    let failed = local(&["test", "plain.wasm", "batches.json"]);
    assert_eq!(failed.code, Some(1), "it exports neither: {failed:?}");
    let failed = local(&["test", "plain.wasm", "wrong.json"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    contains(&failed.stdout, &["FAILED", "expected"]);
    assert_eq!(local(&["test", "plain.wasm", "there-is-no-such.json"]).code, Some(2));
    assert_eq!(local(&["test", "plain.wasm"]).code, Some(1), "it carries no vectors");

    // The log is written off the reply path: the last like is in it when its line is.
    Client::new(host.public()).like(5, 77).await;
    let log = shell.directory.join("weir-policies/decisions.ndjson");
    let began = Instant::now();
    while !std::fs::read_to_string(&log).unwrap_or_default().contains("\"actor\":77") {
        assert!(began.elapsed() < LIMIT, "no decision of actor 77 in {}:\n{}", log.display(), host.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let config = host.config_path().unwrap();
    let config = config.to_str().unwrap();
    let log = log.to_str().unwrap();
    let plain = local(&["replay", "plain.wasm", log, "--config", config]);
    // What one-way decided as the live module differs.
    assert_eq!(plain.code, Some(1), "{plain:?}");
    let one_way = local(&["replay", "one-way.wasm", log, "--config", config, "--json"]);
    assert_eq!(one_way.code, Some(1), "{one_way:?}");
    let report: Value = serde_json::from_str(&one_way.stdout).unwrap();
    assert!(report["differing"].as_u64() > Some(0) && report["failed"] == 0, "{report:#}");
    assert!(report["fuel_before"].as_u64() > Some(0) && report["fuel_now"].as_u64() > Some(0), "{report:#}");
    // The last decision alone is by the plain rules.
    let lines = std::fs::read_to_string(log).unwrap();
    let last = lines.lines().find(|line| line.contains("\"actor\":77")).unwrap();
    std::fs::write(shell.directory.join("last.ndjson"), format!("{last}\n")).unwrap();
    let same = local(&["replay", "plain.wasm", "last.ndjson", "--config", config]);
    assert_eq!(same.code, Some(0), "{same:?}");
    contains(&same.stdout, &["1 calls replayed", "0 decisions differ"]);
    let other = local(&["replay", "one-way.wasm", "last.ndjson"]);
    assert_eq!(other.code, Some(1), "{other:?}");
    contains(&other.stdout, &["1 decisions differ", "before", "now"]);
    let nobody = weir(shell.directory, &["policy", "list", "--admin", &format!("127.0.0.1:{}", free_port())]);
    assert_eq!(nobody.code, Some(3), "{nobody:?}");
}
