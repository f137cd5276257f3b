//! `weir policy` against a listener over a real socket, with operations that are written down.

#![cfg(test)]

use std::path::PathBuf;

use clap::Parser;
use serde_json::{Value, json};

use super::print;
use super::remote::{Outcome, perform};
use super::*;
use crate::admin::OperationsError;
use crate::admin::testing::admin;
use crate::cli::{EXIT_NO, EXIT_UNAVAILABLE, EXIT_USAGE};

/// Columns of a terminal that a table may take.
const WIDTH: usize = 120;
const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: PolicyCommand,
}

fn parse(line: &[&str]) -> Result<super::remote::RemoteCommand, clap::Error> {
    let words = std::iter::once(&"policy").chain(line);
    match Line::try_parse_from(words)?.command {
        PolicyCommand::Remote(command) => Ok(command),
        other => panic!("{other:?} speaks to no host"),
    }
}

/// Runs a command line against the host at `address`; `{}` in it stands for the address.
async fn weir(address: std::net::SocketAddr, line: &[&str]) -> Outcome {
    let address = address.to_string();
    let mut line: Vec<&str> = line.to_vec();
    line.extend(["--admin", &address]);
    perform(parse(&line).unwrap()).await.unwrap_or_else(Outcome::from)
}

fn file(directory: &tempfile::TempDir, name: &str, content: &[u8]) -> String {
    let path: PathBuf = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

fn uploaded(active: Value) -> Value {
    json!({
        "digest": DIGEST, "name": "one-way", "version": "1.2.0", "known": false, "active": active,
        "checks": { "vectors": 3, "compile_ms": 38.5 },
        "milliseconds": { "swap": 0.1, "validate": 0.44, "compile": 38.21, "total": 40.06, "start": 0.9, "vectors": 0.2 },
    })
}

#[tokio::test]
async fn push_sends_the_component_and_what_is_said_of_it() {
    let (served, written) = admin(None, true).await;
    let directory = tempfile::tempdir().unwrap();
    let module = file(&directory, "a.wasm", b"\0asm\xff\r\n--");
    let vectors = file(&directory, "cases.json", "{\"é\":1}".as_bytes());
    written.answers(Ok(uploaded(Value::Null)));
    let plain = weir(served.address, &["push", &module, "--by", "ada"]).await;
    plain.result.unwrap();
    let named = [
        "push",
        &module,
        "--name",
        "b",
        "--version",
        "2",
        "--vectors",
        &vectors,
        "--activate",
        "--json",
        "--by",
        "Ada L",
    ];
    let named = weir(served.address, &named).await;
    named.result.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&named.printed).unwrap(), uploaded(Value::Null));
    let uploads = written.uploads();
    let [(first_by, first), (second_by, second)] = &uploads[..] else { panic!("{uploads:?}") };
    assert_eq!((&**first_by, &**second_by), ("ada@127.0.0.1", "Ada L@127.0.0.1"));
    assert_eq!((&first.bytes[..], &first.name, first.activate), (&b"\0asm\xff\r\n--"[..], &None, false));
    assert_eq!((&second.bytes, &second.name, &second.version), (&first.bytes, &Some("b".into()), &Some("2".into())));
    assert_eq!((second.vectors.as_deref(), second.activate), (Some("{\"é\":1}"), true));
}

#[tokio::test]
async fn a_refused_module_is_no_and_its_code_is_told() {
    let (served, written) = admin(None, true).await;
    let directory = tempfile::tempdir().unwrap();
    let module = file(&directory, "a.wasm", b"m");
    written.answers(Err(OperationsError::Refused { code: "unknown-import", reason: "it imports wasi:io".into() }));
    let refused = weir(served.address, &["push", &module]).await;
    let failure = refused.result.unwrap_err();
    assert_eq!((failure.code, &*failure.message), (EXIT_NO, "refused: it imports wasi:io (code unknown-import)"));
    assert_eq!(refused.printed, "");
    let refused = weir(served.address, &["push", &module, "--json"]).await;
    let problem: Value = serde_json::from_str(&refused.printed).unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(422), &json!("unknown-import")));
    let big = file(&directory, "big.wasm", &vec![0; 24 << 20]);
    let failure = weir(served.address, &["push", &big]).await.result.unwrap_err();
    assert_eq!(failure.code, EXIT_NO, "{failure:?}");
    assert!(failure.message.contains("413") && failure.message.contains("module_bytes_max"), "{failure:?}");
    let empty = file(&directory, "empty.wasm", b"");
    assert_eq!(weir(served.address, &["push", &empty]).await.result.unwrap_err().code, EXIT_NO);
    let absent = weir(served.address, &["push", "there-is-none.wasm"]).await.result.unwrap_err();
    assert_eq!(absent.code, EXIT_USAGE);
    assert_eq!(written.uploads().len(), 2);
}

#[tokio::test]
async fn each_command_asks_for_what_it_says() {
    let (served, written) = admin(None, true).await;
    for line in [
        &["activate", "one-way@1.2"][..],
        &["activate", "0123ab", "--interface", "toggle", "--interface", "flush"],
        &["rollback"],
        &["list"],
        &["diff"],
        &["shadow", "a"],
        &["shadow", "a", "--share", "0.1"],
        &["shadow", "--end"],
        &["canary", "a", "--share", "0.05"],
        &["canary", "--end"],
        &["delete", "a"],
        &["audit"],
        &["audit", "--limit", "5"],
    ] {
        let line: Vec<&str> = line.iter().copied().chain(["--by", "ada"]).collect();
        weir(served.address, &line).await.result.unwrap();
    }
    assert_eq!(
        written.calls(),
        [
            "ada@127.0.0.1: Activate { module: \"one-way@1.2\", interfaces: [] }",
            "ada@127.0.0.1: Activate { module: \"0123ab\", interfaces: [\"toggle\", \"flush\"] }",
            "ada@127.0.0.1: Rollback",
            "policies",
            "diff",
            "ada@127.0.0.1: Shadow { module: \"a\", share: 1.0 }",
            "ada@127.0.0.1: Shadow { module: \"a\", share: 0.1 }",
            "ada@127.0.0.1: EndShadow",
            "ada@127.0.0.1: Canary { module: \"a\", share: 0.05 }",
            "ada@127.0.0.1: EndCanary",
            "ada@127.0.0.1: Delete { module: \"a\" }",
            "audit 100",
            "audit 5",
        ]
    );
}

#[test]
fn what_is_not_meant_is_not_parsed() {
    for line in [
        &["push"][..],
        &["activate"],
        &["shadow"],
        &["shadow", "a", "--end"],
        &["shadow", "a", "--share", "0"],
        &["canary", "a"],
        &["canary", "--share", "0.5"],
        &["canary", "a", "--share", "NaN"],
        &["canary", "a", "--share", "1.5"],
        &["canary", "a", "--share", "0.5", "--end"],
        &["audit", "--limit", "0"],
        &["delete"],
    ] {
        assert!(parse(line).is_err(), "{line:?}");
    }
}

#[tokio::test]
async fn exit_codes_say_what_was_wrong() {
    let (served, written) = admin(Some("0123456789abcdef"), true).await;
    let failure = weir(served.address, &["list"]).await.result.unwrap_err();
    assert_eq!(failure.code, EXIT_USAGE);
    assert!(failure.message.contains("--admin-token-file"), "{failure:?}");
    let directory = tempfile::tempdir().unwrap();
    let token = file(&directory, "token", b"0123456789abcdef\n");
    let line = ["rollback", "--admin-token-file", &token];
    weir(served.address, &line).await.result.unwrap();
    for (error, code) in [
        (OperationsError::NotFound("no such module".into()), EXIT_NO),
        (OperationsError::Conflict("there is none before".into()), EXIT_NO),
        (OperationsError::Invalid("no such interface".into()), EXIT_USAGE),
        (OperationsError::Unavailable("the disk is full".into()), EXIT_UNAVAILABLE),
    ] {
        written.answers(Err(error.clone()));
        let failure = weir(served.address, &line).await.result.unwrap_err();
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(failure.message.contains(&error.to_string()), "{failure:?}");
    }
    let wrong = ["rollback", "--by", "é"];
    assert_eq!(weir(served.address, &wrong).await.result.unwrap_err().code, EXIT_USAGE);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = weir(address, &["list"]).await.result.unwrap_err();
    assert_eq!(failure.code, EXIT_UNAVAILABLE);
    assert!(failure.message.contains("weir serve") && failure.message.contains("--admin"), "{failure:?}");
    let config = file(&directory, "weir.toml", format!("[admin]\nlisten = \"{address}\"\n").as_bytes());
    let configured = perform(parse(&["list", "--config", &config]).unwrap()).await.unwrap_err();
    assert_eq!(configured.code, EXIT_UNAVAILABLE);
    assert!(configured.message.contains(&address.to_string()) && configured.message.contains("weir serve"));
}

/// An answer of a host as the type that it is read as.
fn read<T: serde::de::DeserializeOwned>(answer: Value) -> T {
    serde_json::from_value(answer).unwrap()
}

fn set() -> Value {
    let at_ms = 1_767_225_599_001_u64;
    json!({
        "toggle": { "digest": DIGEST, "name": "one-way", "version": "1.2.0", "since_ms": at_ms, "by": "ada@127.0.0.1" },
        "flush": { "digest": "ff", "name": "built-in", "version": null, "since_ms": 0, "by": null },
    })
}

#[test]
fn a_push_is_told_with_its_times() {
    assert_eq!(
        print::pushed(&read(uploaded(Value::Null))),
        format!(
            "one-way 1.2.0 (0123456789ab): good, and kept\n  digest  {DIGEST}\n  checks  compile ms 38.5, vectors 3\n  \
             time    40.1 ms (validate 0.4 ms, compile 38.2 ms, start 0.9 ms, vectors 0.2 ms, swap 0.1 ms)\nnext: weir \
             policy shadow 0123456789ab, or canary 0123456789ab --share 0.05, or activate 0123456789ab"
        )
    );
    let live = print::pushed(&read(uploaded(set())));
    let end = "live now:\n  flush: built-in (ff)\n  toggle: one-way 1.2.0 (0123456789ab) since 2025-12-31T23:59:59Z by \
               ada@127.0.0.1";
    assert!(live.ends_with(end), "{live}");
}

#[test]
fn a_command_is_told_with_what_holds_now() {
    let tried = json!({ "digest": "aa", "name": "new", "version": "2", "share": 0.05, "since_ms": 1000 });
    let answer = json!({
        "active": set(), "previous": { "toggle": { "digest": "ff", "name": "built-in" } }, "canary": tried,
        "shadow": null, "milliseconds": { "total": 0.3 },
    });
    let told = print::commanded(&read(answer));
    let end = "canary: new 2 (aa), 5 % of the targets, since 1970-01-01T00:00:01Z\na rollback brings back toggle: \
               built-in (ff)\ndone in 0.3 ms";
    assert!(told.starts_with("live now:\n  flush: ") && told.ends_with(end), "{told}");
}

#[test]
fn the_list_fits_the_terminal_whatever_the_names() {
    let long = "n".repeat(64);
    let module = |name: &str, version: Value, serves: Value, failure: Value| {
        json!({
            "digest": DIGEST, "name": name, "version": version, "uploaded_at_ms": 1_767_225_599_001_u64, "by": "ada",
            "serves": serves, "healthy": failure.is_null(), "failures": 7, "last_failure": failure,
        })
    };
    let many = json!(["toggle", "flush", "counter", "ingest", "cache", "admission"]);
    let answer = json!({
        "active": set(),
        "shadow": { "digest": DIGEST, "name": "one-way", "share": 1.0, "since_ms": 1 },
        "breakers": [{ "interface": "toggle", "function": "decide", "kind": "feed-like", "state": "open",
                       "since_ms": 1000, "retry_in_ms": 850, "reason": "3 calls in a row failed", "name": "one-way",
                       "version": "1.2.0", "digest": DIGEST }],
        "modules": [
            module("one-way", json!("1.2.0"), json!([]), Value::Null),
            module(&long, json!(long), many, json!("trap\u{1b}[2J: unreachable")),
        ],
        "watched": [{ "file": "bad.wasm", "state": "refused", "digest": null, "reason": "a core module" },
                    { "file": "good.wasm", "state": "active", "digest": DIGEST, "reason": null }],
        "events": [{ "at_ms": 1000, "what": "rolled-back", "module": "new (aa)", "by": "", "reason": "3 traps" }],
    });
    let told = print::list(&read(answer));
    let table: Vec<&str> = told.lines().skip_while(|line| !line.starts_with("serves")).take(3).collect();
    assert_eq!(
        table[0].split_whitespace().collect::<Vec<_>>(),
        ["serves", "name", "version", "digest", "uploaded", "health"]
    );
    assert!(table[1].starts_with("shadow 100 %") && table[1].ends_with("good"), "{told}");
    assert!(table[2].starts_with("toggle, flush, counter,") && table[2].ends_with("failing"), "{told}");
    assert!(table[2].contains("  0123456789ab  2025-12-31T23:59:59Z  "), "{told}");
    assert!(table.iter().all(|line| line.chars().count() <= WIDTH), "{told}");
    assert!(told.contains("7 failures, the last: trap [2J: unreachable"), "{told}");
    let breaker = "not called (open): toggle.decide of feed-like, by one-way 1.2.0 (0123456789ab), since \
                   1970-01-01T00:00:01Z, tried again in 850 ms: 3 calls in a row failed\n";
    assert!(told.contains(breaker), "{told}");
    let condemned = json!({
        "digest": DIGEST, "name": long, "version": long, "serves": [], "healthy": null, "failures": null,
        "last_failure": "3 calls in a row failed", "order": 1, "condemned": { "at_ms": 1000, "reason": "3 calls in a row failed" },
    });
    let unfit = json!({ "toggle": { "digest": DIGEST, "name": "older", "unfit": "plan is missing" } });
    let answer = json!({ "active": unfit, "modules": [condemned], "durable": false, "unsaved": "disk full" });
    let worse = print::list(&read(answer));
    assert!(
        worse.contains("  toggle: older (0123456789ab): NOT LOADED, its kinds fall back: plan is missing"),
        "{worse}"
    );
    assert!(worse.contains("NOT WRITTEN DOWN") && worse.contains("disk full"), "{worse}");
    assert!(worse.contains("rolled back by itself at 1970-01-01T00:00:01Z: 3 calls in a row failed"), "{worse}");
    let row = worse.lines().find(|line| line.starts_with('-')).unwrap();
    assert!(row.ends_with("rolled back") && row.chars().count() <= WIDTH, "{worse}");
    assert!(told.contains("bad.wasm: refused: a core module") && !told.contains("good.wasm"), "{told}");
    assert!(told.ends_with("last events:\n  1970-01-01T00:00:01Z rolled-back new (aa): 3 traps"), "{told}");
    assert!(print::list(&read(json!({ "active": set() }))).contains("weir policy push"));
}

#[test]
fn a_diff_shows_counts_times_and_samples() {
    let report = json!({
        "module": { "digest": DIGEST, "name": "one-way", "version": null }, "share": 0.1, "since_ms": 1000,
        "ended": "3 traps in a window", "batches": 100, "skipped": 2, "decisions": 500, "differing": 3,
        "failures": { "trap": 3, "deadline": 0 },
        "samples": [{ "interface": "toggle", "kind": "feed-like", "input": { "target": 3 }, "live": { "rule": "a" },
                      "candidate": { "rule": "b" }, "times": 3 }],
        "live_micros": { "mean": 9.5, "p50": 9, "p99": 20, "max": 2500 },
        "candidate_micros": { "mean": 10.0, "p50": 9, "p99": 21, "max": 30 },
    });
    let expected = "canary: one-way (0123456789ab), 10 % of the targets, since 1970-01-01T00:00:01Z, ended: 3 traps in a \
                    window\n  batches    100, 2 skipped\n  decisions  500, 3 differ\n  failures   trap 3\n  \
                    a call     live       mean 9.5 µs, p50 9.0 µs, p99 20.0 µs, max 2.5 ms\n             \
                    candidate  mean 10.0 µs, p50 9.0 µs, p99 21.0 µs, max 30.0 µs\n  toggle feed-like, 3 times\n    \
                    input      {\"target\":3}\n    live       {\"rule\":\"a\"}\n    candidate  {\"rule\":\"b\"}";
    assert_eq!(print::diff(&read(json!({ "shadow": null, "canary": report }))), expected);
    assert!(print::diff(&read(json!({ "shadow": null, "canary": null }))).contains("weir policy shadow MODULE"));
}

#[test]
fn the_audit_log_is_a_table() {
    let line = json!({ "at_ms": 1000, "by": "ada@127.0.0.1", "what": "activate", "module": "m".repeat(99), "outcome": "done" });
    let told = print::audit(&read(json!({ "audit": [line] })));
    assert!(told.contains("\n1970-01-01T00:00:01Z  ada@127.0.0.1  activate  mmm"), "{told}");
    assert!(told.lines().all(|line| line.chars().count() <= WIDTH), "{told}");
    assert_eq!(print::audit(&read(json!({ "audit": [] }))), "nothing was done yet");
}

#[test]
fn what_a_host_does_not_say_is_left_out() {
    let words = [
        print::pushed(&read(json!({}))),
        print::commanded(&read(json!({ "new": 1 }))),
        print::deleted(&read(json!({}))),
        print::list(&read(json!({ "modules": [{}], "events": [{}], "watched": [{}], "breakers": [{}] }))),
        print::diff(&read(json!({ "shadow": { "samples": [{}] } }))),
        print::audit(&read(json!({ "audit": [{}] }))),
    ];
    assert!(words.iter().all(|words| !words.is_empty()));
}
