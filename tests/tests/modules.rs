//! Bad policy modules, each handed to a host under load: refused with its reason, or contained.
//!
//! One host takes them all while clients go on toggling by the live rules: none of their requests fails. Then what a
//! kind says of failing modules is tried, on hosts that do not roll back by themselves. At the end one table is printed,
//! a line for each module.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir::config::{Config, PolicyFailure};
use weir_tests::client::{Client, Reply};
use weir_tests::guest::{Guest, Import, bombs, with_section};
use weir_tests::load::{Load, LoadOptions};
use weir_tests::operator::{Operator, serving};
use weir_tests::services::Host;
use weir_tests::services::host::weir;
use weir_tests::stand::{Setup, Stand};

/// Decides only when a hang is a failure.
const LIMIT: Duration = Duration::from_secs(60);
/// Growth of a host that must not hold on to anything, in bytes.
const GROWTH_MAX: u64 = 96 << 20;
/// Characters of a reason in the table.
const REASON_MAX: usize = 150;
/// What the module that storms the log writes.
const STORM_LINE: &str = "a line of the storm";
/// Lines that it writes in one call.
const STORM_LINES: u32 = 200;
/// Lines of one module that a host writes in a second.
const LINES_PER_SECOND_MAX: u64 = 20;

/// One line for each module.
#[derive(Default)]
struct Table(Vec<String>);

impl Table {
    fn add(&mut self, module: &str, verdict: &str, reason: &str) {
        let mut reason: String = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        if reason.chars().count() > REASON_MAX {
            reason = reason.chars().take(REASON_MAX).chain("...".chars()).collect();
        }
        self.0.push(format!("module  {module:<26}  {verdict:<9}  {reason}"));
    }
}

/// A host under load, and its operator.
struct Bench {
    stand: Stand,
    host: Host,
    operator: Operator,
    load: Load,
    table: Table,
}

/// Limits that a busy machine does not reach, and a bomb does.
fn config(stand: &Stand) -> Config {
    let mut config = stand.config();
    let policy = &mut config.policy;
    policy.call_deadline_ms = 200;
    policy.compile_deadline_ms = 4_000;
    policy.compile_memory_bytes_max = 160 << 20;
    policy.canary.call_p99_ms_max = 60_000;
    config
}

fn fixture(name: &str) -> (Vec<u8>, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("policies").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let expected =
        text.lines().next().unwrap().strip_prefix(";; refused: ").expect("what it is refused for").to_owned();
    (wat::parse_str(&text).unwrap(), expected)
}

impl Bench {
    async fn start() -> Self {
        let stand = Stand::start(Setup::EmbeddedSqlite, 5).await;
        let host = stand.host(&config(&stand));
        let operator = Operator::new(host.admin());
        let options = LoadOptions { clients: 4, actors: 60, targets: 5, seed: rand::random() };
        let load = Load::start(&[host.public()], options);
        assert!(load.wait_for_acks(100, LIMIT).await, "the load does not get going:\n{}", host.log());
        Self { stand, host, operator, load, table: Table::default() }
    }

    /// The load goes on, and nothing of it has failed.
    async fn assert_serving(&mut self, module: &str) {
        assert!(self.load.wait_for_acks(20, LIMIT).await, "{module}: no answers any more:\n{}", self.host.log());
        let unknown = self.load.tally.unknown.load(Ordering::Relaxed);
        assert_eq!(unknown, 0, "{module}: requests failed:\n{}", self.host.log());
    }

    /// Asks whether the answer is a refusal of this code and reason, and nothing has changed.
    async fn assert_refused(&mut self, module: &str, before: &str, reply: &Reply, (code, words): (&str, &str)) {
        let problem = reply.json();
        let detail = problem["detail"].as_str().unwrap_or_default().to_owned();
        assert_eq!((reply.status, problem["code"].as_str()), (422, Some(code)), "{module}: {problem}");
        assert!(detail.contains(words), "{module}: the reason must say {words:?}: {detail}");
        self.assert_untouched(module, before).await;
        self.table.add(module, "refused", &format!("{} {code}: {detail}", reply.status));
    }

    /// The active set is as it was, the registry does not know the module, and the load goes on.
    async fn assert_untouched(&mut self, module: &str, before: &str) {
        let status = self.operator.status().await;
        assert_eq!(serving(&status, "toggle"), before, "{module}: the active set has changed");
        let known = status["modules"].as_array().unwrap().iter().any(|known| known["name"] == module);
        assert!(!known, "{module} is in the registry");
        self.assert_serving(module).await;
    }

    /// Hands in a module that must be refused.
    async fn refused(&mut self, module: &str, bytes: &[u8], expected: (&str, &str)) {
        let before = serving(&self.operator.status().await, "toggle");
        let memory = self.host.rss_bytes();
        let reply = self.operator.push(bytes, module, true).await;
        self.assert_refused(module, &before, &reply, expected).await;
        let grown = self.host.rss_bytes().saturating_sub(memory);
        assert!(grown < GROWTH_MAX, "{module}: the host grew by {grown} bytes");
    }

    async fn fixture(&mut self, module: &str, file: &str) {
        let (bytes, expected) = fixture(file);
        let (code, words) = expected.split_once(": ").unwrap();
        self.refused(module, &bytes, (code, words)).await;
    }

    /// Activates a module that fails in calls: it is rolled back by itself.
    async fn rolled_back(&mut self, module: &str, guest: Guest<'_>, cause: &str) {
        let interface = if guest.coalesced.is_empty() { "toggle" } else { "flush" };
        let before = serving(&self.operator.status().await, interface);
        let labels = [&format!("interface=\"{interface}\""), "role=\"live\"", &format!("cause=\"{cause}\"")];
        let failures = self.operator.counter("weir_policy_failures_total", &labels).await;
        let bytes = with_section(guest.component(), "weir:version", module);
        let reply = self.operator.push(&bytes, module, true).await;
        assert_eq!(reply.status, 201, "{module}: {}", reply.text());
        let event = self.operator.wait_for_event("rolled-back-by-itself", module).await;
        let reason = event["reason"].as_str().unwrap_or_default().to_owned();
        assert!(reason.contains(&format!("with {cause}: ")), "{module}: {event}");
        let status = self.operator.status().await;
        assert_eq!(serving(&status, interface), before, "{module} is not gone");
        let counted = self.operator.counter("weir_policy_failures_total", &labels).await;
        assert!(counted > failures, "{module}: {counted} failures of {cause} in {interface} are counted");
        self.assert_serving(module).await;
        self.table.add(module, "contained", &format!("rolled back by itself: {reason}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_modules_are_refused_or_contained_while_the_host_serves() {
    let mut bench = Bench::start().await;
    no_modules(&mut bench).await;
    modules_that_do_not_fit(&mut bench).await;
    modules_that_do_not_end(&mut bench).await;
    modules_that_fail_their_vectors(&mut bench).await;
    modules_that_miscount_or_misjudge(&mut bench).await;
    modules_that_fail_in_calls(&mut bench).await;
    modules_that_fail_seldom_or_not_at_all(&mut bench).await;
    audit_and_metric_hold(&mut bench).await;
    let Bench { stand, mut host, load, mut table, .. } = bench;
    let ledger = load.stop().await;
    Client::new(host.admin()).wait_drained(LIMIT).await;
    ledger.assert_holds(&stand.database).await;
    assert_eq!(ledger.unknown, 0, "requests failed");
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
    state_between_calls(&stand, &mut table);
    what_a_kind_says_of_failures(&stand, &mut table).await;
    table.0.iter().for_each(|line| println!("{line}"));
    println!("module  {} modules, {} requests meanwhile, 0 failed, 0 lost, 0 doubled", table.0.len(), ledger.acks);
}

async fn no_modules(bench: &mut Bench) {
    let good = Guest::default().component();
    bench.refused("not-wasm", b"This is not WebAssembly.", ("not-a-component", "")).await;
    bench.fixture("core-module", "core-module.wat").await;
    bench.refused("truncated", &good[..good.len() / 2], ("not-a-component", "")).await;
    let bytes_max = config(&bench.stand).policy.module_bytes_max;
    let padded = with_section(good, "padding", &"x".repeat(bytes_max));
    bench.refused("4-mib-and-more", &padded, ("too-large", "policy.module_bytes_max")).await;
    let before = serving(&bench.operator.status().await, "toggle");
    let (status, text) = announce(&bench.host, 100 << 20).await;
    assert_eq!(status, 413, "{text}");
    bench.assert_untouched("100-mb", &before).await;
    let reason = text.split_once("\"detail\":\"").map_or("", |(_, rest)| rest.split('"').next().unwrap_or_default());
    bench.table.add("100-mb", "refused", &format!("413, unread: {reason}"));
    bench.refused("100000-functions", &bombs::functions(100_000), ("too-many-functions", "100000")).await;
}

/// Announces an upload of so many bytes, and reads the answer without sending them.
async fn announce(host: &Host, bytes: usize) -> (u16, String) {
    let mut stream = TcpStream::connect(host.admin()).await.unwrap();
    let head = format!(
        "POST /admin/v1/policies?name=100-mb HTTP/1.1\r\nHost: {}\r\nContent-Type: application/wasm\r\n\
         Content-Length: {bytes}\r\n\r\n",
        host.admin()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The host closes: it does not wait for what it does not want.
    stream.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    (text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{text:?}")), text)
}

async fn modules_that_do_not_fit(bench: &mut Bench) {
    bench.fixture("wrong-world", "no-exports.wat").await;
    bench.fixture("missing-export", "missing-function.wat").await;
    bench.fixture("missing-exports-of-others", "missing-functions.wat").await;
    bench.fixture("export-of-before", "backlog-without-targets.wat").await;
    bench.fixture("mistyped-export", "wrong-signature.wat").await;
    bench.fixture("unknown-import", "unknown-import.wat").await;
    bench.fixture("mistyped-import", "wrong-import.wat").await;
    for (module, import, name) in [
        ("sql-not-granted", Import::Sql, "weir:policy/sql@0.1.0"),
        ("redis-not-granted", Import::Redis, "weir:policy/redis@0.1.0"),
    ] {
        let bytes = Guest { import, ..Guest::default() }.component();
        bench.refused(module, &bytes, ("import-not-granted", name)).await;
    }
}

async fn modules_that_do_not_end(bench: &mut Bench) {
    bench.fixture("start-loops", "loops-at-start.wat").await;
    bench.fixture("start-traps", "traps-at-start.wat").await;
    bench.fixture("memory-at-start", "memory-too-large.wat").await;
    let words = "policy.compile_memory_bytes_max";
    bench.refused("compile-bomb-memory", &bombs::nested_loops(10_000, 900), ("compile", words)).await;
    // Which of the two limits this one meets first is the machine's.
    let before = serving(&bench.operator.status().await, "toggle");
    let reply = bench.operator.push(&bombs::nested_loops(900, 500), "compile-bomb-time", true).await;
    let late = reply.json()["code"] == "compile-deadline";
    let expected = if late { ("compile-deadline", "policy.compile_deadline_ms") } else { ("compile", words) };
    bench.assert_refused("compile-bomb-time", &before, &reply, expected).await;
    assert_eq!(bench.host.children(), 0, "a compiler goes on");
}

async fn modules_that_fail_their_vectors(bench: &mut Bench) {
    let good = Guest::default().component();
    let case = |effect: &str| {
        format!(
            r#"{{"cases": [{{"name": "a like", "toggle.decide": {{"kind": "feed-like", "batch": [{{"target": 1, "actor": 2}}]}},
                "expect": {{"rules": [{{"when_absent": "{effect}", "when_present": "remove"}}]}}}}]}}"#
        )
    };
    let wrong = with_section(good.clone(), "weir:vectors", &case("deny"));
    bench.refused("vectors-fail", &wrong, ("vectors", "1 of 1 test vectors fail: \"a like\"")).await;
    let unusable = with_section(good.clone(), "weir:vectors", "{\"cases\": 7}");
    bench.refused("vectors-unusable", &unusable, ("bad-vectors", "")).await;
    for (module, vectors, expected) in [
        ("uploaded-vectors-fail", case("keep"), ("vectors", "1 of 1")),
        ("uploaded-vectors-unusable", "no vectors".to_owned(), ("bad-vectors", "")),
    ] {
        let before = serving(&bench.operator.status().await, "toggle");
        let reply = bench.operator.push_with_vectors(&good, module, &vectors).await;
        bench.assert_refused(module, &before, &reply, expected).await;
    }
    let endless = Guest { before: "(loop $forever (br $forever))", ..Guest::default() };
    let cases: Vec<String> =
        vec![case("add").trim_start_matches("{\"cases\": [").trim_end_matches("]}").to_owned(); 300];
    let many = with_section(endless.component(), "weir:vectors", &format!("{{\"cases\": [{}]}}", cases.join(",")));
    bench.refused("vectors-without-end", &many, ("vectors", "of 300 test vectors fail")).await;
    let trapping = Guest { before: "unreachable", ..Guest::default() };
    let reply = bench.operator.push_with_vectors(&trapping.component(), "trap-with-vectors", &case("add")).await;
    let before = serving(&bench.operator.status().await, "toggle");
    bench.assert_refused("trap-with-vectors", &before, &reply, ("vectors", "trap")).await;
}

/// What they answer to hits and documents breaks the contract: their own vectors bring it to light.
async fn modules_that_miscount_or_misjudge(bench: &mut Bench) {
    let count = r#"{"name": "a hit", "counter.decide": {"kind": "video-view", "batch": [{"target": 1, "actor": 2}]},
        "expect": {"hits": [{"weight": 1}]}}"#;
    let judge = r#"{"name": "a document", "ingest.validate": {"kind": "playlist", "batch": [{"id": 1, "actor": 2,
        "body": {"title": "a"}}]}, "expect": {"documents": [{"ok": null}]}}"#;
    let good = Guest {
        counter: true,
        ingest: true,
        functions: "(data (i32.const 128) \"[1] is no object\")",
        ..Guest::default()
    };
    let vectors = |case: &str| format!("{{\"cases\": [{case}]}}");
    let fewer = "(local.set $length (i32.sub (local.get $length) (i32.const 1)))";
    let limit = "(i32.store8 offset=12 (local.get $rule) (i32.const 1))
        (i64.store offset=16 align=4 (local.get $rule) (i64.const 5))";
    for (module, counted, words) in [
        ("count-wrong-length", fewer, "contract: 0 rules for 1 hits"),
        (
            "count-weight-too-large",
            "(i32.store (local.get $rule) (i32.const 1000001))",
            "contract: rule 0 has a weight",
        ),
        (
            "count-window-of-0",
            "(i64.store offset=4 align=4 (local.get $rule) (i64.const 1))",
            "rule 0 has a unique-ms of 0",
        ),
        ("count-limit-without-period", limit, "contract: rule 0 has a limit with a period of 0"),
        ("count-traps", "unreachable", "trap: "),
    ] {
        let bytes = with_section(Guest { counted, ..good }.component(), "weir:vectors", &vectors(count));
        bench.refused(module, &bytes, ("vectors", words)).await;
    }
    // A text of so many bytes, from this place of the data above.
    let text = |at: u32, bytes: u32| {
        format!(
            "(i32.store offset=4 (local.get $verdict) (i32.const 1))
             (i32.store offset=8 (local.get $verdict) (i32.const {at}))
             (i32.store offset=12 (local.get $verdict) (i32.const {bytes}))"
        )
    };
    let empty =
        "(i32.store (local.get $verdict) (i32.const 1)) (i32.store offset=8 (local.get $verdict) (i32.const 0))";
    for (module, judged, words) in [
        ("judge-wrong-length", fewer.to_owned(), "contract: 0 verdicts for 1 documents"),
        ("judge-not-json", text(132, 12), "contract: document 0 is normalised to what is no JSON object"),
        ("judge-no-object", text(128, 3), "contract: document 0 is normalised to what is no JSON object"),
        ("judge-no-violation", empty.to_owned(), "contract: document 0 is refused without a violation"),
        ("judge-endless", "(loop $forever (br $forever))".to_owned(), "deadline: "),
    ] {
        let bytes = with_section(Guest { judged: &judged, ..good }.component(), "weir:vectors", &vectors(judge));
        bench.refused(module, &bytes, ("vectors", words)).await;
    }
    let both = with_section(good.component(), "weir:vectors", &vectors(&[count, judge].join(",")));
    let before = serving(&bench.operator.status().await, "counter");
    let reply = bench.operator.push(&both, "counts-and-judges", true).await;
    assert_eq!((reply.status, &reply.json()["checks"]["vectors"]), (201, &2.into()), "{}", reply.text());
    assert_ne!(serving(&bench.operator.status().await, "counter"), before, "the good one serves");
    bench.operator.command("POST", "/rollback").await;
}

async fn modules_that_fail_in_calls(bench: &mut Bench) {
    let before = |before| Guest { before, ..Guest::default() };
    let coalesced = |coalesced| Guest { flush: true, coalesced, ..Guest::default() };
    bench.rolled_back("trap-on-every-call", before("unreachable"), "trap").await;
    bench.rolled_back("infinite-loop", before("(loop $forever (br $forever))"), "deadline").await;
    let recursion = Guest {
        functions: "(func $deeper (param i32) (result i32)
            (i32.add (i32.const 1) (call $deeper (i32.add (local.get 0) (i32.const 1)))))",
        before: "(local.set $length (call $deeper (i32.const 0)))",
        ..Guest::default()
    };
    bench.rolled_back("infinite-recursion", recursion, "trap").await;
    let grow = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    let memory = bench.host.rss_bytes();
    bench.rolled_back("memory-bomb", before(grow), "trap").await;
    let touch = "(loop $more
        (drop (memory.grow (i32.const 1)))
        (i32.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)) (i32.const 1))
        (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
        (memory.fill (i32.const 1024) (i32.const 1) (i32.const 15000000)) unreachable";
    bench.rolled_back("memory-bomb-touched", before(touch), "trap").await;
    let grown = bench.host.rss_bytes().saturating_sub(memory);
    assert!(grown < GROWTH_MAX, "the host grew by {grown} bytes");
    let claimed = before("(return (call $list (i32.const 1024) (i32.const 6250000)))");
    bench.rolled_back("100-mb-result", claimed, "contract").await;
    // 14 MB that are there.
    let real = before("(drop (memory.grow (i32.const 220))) (return (call $list (i32.const 1024) (i32.const 900000)))");
    bench.rolled_back("14-mb-result", real, "contract").await;
    let wrong = before("(local.set $length (i32.add (local.get $length) (i32.const 1)))");
    bench.rolled_back("wrong-length", wrong, "contract").await;
    let outside = coalesced("(i32.store (local.get $kept) (i32.const 1000000))");
    bench.rolled_back("coalesce-out-of-range", outside, "contract").await;
    let dropped = coalesced("(local.set $length (i32.sub (local.get $length) (i32.const 1)))");
    bench.rolled_back("coalesce-drops-the-last", dropped, "contract").await;
}

async fn modules_that_fail_seldom_or_not_at_all(bench: &mut Bench) {
    let seldom = Guest {
        before: "(if (i32.eqz (i32.rem_u (global.get $calls) (i32.const 1000))) (then unreachable))",
        ..Guest::default()
    };
    let fallbacks = ["kind=\"feed-like\"", "to=\"previous\""];
    let before = bench.operator.counter("weir_policy_fallbacks_total", &fallbacks).await;
    let reply = bench.operator.push(&seldom.component(), "trap-on-one-in-1000", true).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let traps = wait_above(&mut bench.operator, "weir_policy_fallbacks_total", &fallbacks, before).await;
    bench.assert_serving("trap-on-one-in-1000").await;
    bench.operator.command("POST", "/rollback").await;
    let contained = format!("the previous set answered what failed ({traps} calls), until an operator rolled back");
    bench.table.add("trap-on-one-in-1000", "contained", &contained);

    let storm = format!(
        "(data (i32.const 128) \"{STORM_LINE}\")
         (func $storm (local $left i32)
           (local.set $left (i32.const {STORM_LINES}))
           (loop $more
             (call $log (i32.const 3) (i32.const 128) (i32.const {}))
             (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))",
        STORM_LINE.len()
    );
    let storm = Guest { import: Import::Log, functions: &storm, before: "(call $storm)", ..Guest::default() };
    let dropped = ["level=\"dropped\""];
    let before = bench.operator.counter("weir_policy_log_lines_total", &dropped).await;
    let began = Instant::now();
    let reply = bench.operator.push(&storm.component(), "log-storm", true).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let dropped = wait_above(&mut bench.operator, "weir_policy_log_lines_total", &dropped, before).await;
    bench.assert_serving("log-storm").await;
    bench.operator.command("POST", "/rollback").await;
    let seconds = began.elapsed().as_secs();
    let written = bench.host.log().lines().filter(|line| line.contains(STORM_LINE)).count() as u64;
    assert!(written > 0 && written <= (seconds + 2) * LINES_PER_SECOND_MAX, "{written} lines in {seconds} s");
    let contained = format!("{dropped} lines dropped, {written} written, every request answered");
    bench.table.add("log-storm", "contained", &contained);
}

/// Waits until a counter is above `before`: by how much.
async fn wait_above(operator: &mut Operator, name: &str, labels: &[&str], before: f64) -> f64 {
    let began = Instant::now();
    loop {
        let now = operator.counter(name, labels).await;
        if now > before {
            return now - before;
        }
        assert!(began.elapsed() < LIMIT, "{name} {labels:?} is {now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn audit_and_metric_hold(bench: &mut Bench) {
    let by_itself = bench.table.0.iter().filter(|line| line.contains("rolled back by itself")).count();
    let labels = ["event=\"rolled-back-by-itself\""];
    let counted = bench.operator.counter("weir_policy_events_total", &labels).await;
    assert!((counted - by_itself as f64).abs() < 0.5, "{counted} of {by_itself} are counted");
    let audit = bench.operator.command("GET", "/audit?limit=1000").await;
    let lines = audit["audit"].as_array().unwrap();
    let of = |what: &str| lines.iter().filter(|line| line["what"] == what).count();
    assert_eq!(of("rolled-back-by-itself"), by_itself, "{audit:#}");
    let refused = bench.table.0.iter().filter(|line| line.contains("  refused ")).count();
    let failed = lines.iter().filter(|line| line["what"] == "upload" && line["outcome"] != "done").count();
    // What is refused unread never was an upload.
    assert_eq!(failed, refused - 1, "{audit:#}");
    assert!(lines.iter().all(|line| line["by"] == "weir" || line["by"] == "tests@127.0.0.1"), "{audit:#}");
}

/// `weir policy check --purity` finds a module that remembers.
fn state_between_calls(stand: &Stand, table: &mut Table) {
    let directory = stand.directory.path();
    let check = |name: &str, bytes: &[u8]| {
        std::fs::write(directory.join(name), bytes).unwrap();
        weir(directory, &["policy", "check", "--purity", name])
    };
    let remembers = Guest {
        each: "(i32.store8 (local.get $rule) (i32.and (global.get $calls) (i32.const 1)))",
        ..Guest::default()
    };
    let ended = check("remembers.wasm", &remembers.component());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("not pure") && ended.stdout.contains("toggle.decide"), "{ended:?}");
    let first = ended.stdout.lines().next().unwrap();
    table.add("state-between-calls", "found", &format!("weir policy check --purity: {first}"));
    let miscounts = Guest {
        counter: true,
        before: "(i32.store (i32.const 128) (global.get $calls))",
        counted: "(i32.store (i32.const 128) (i32.add (i32.load (i32.const 128)) (i32.const 1)))
            (i32.store (local.get $rule) (i32.load (i32.const 128)))",
        ..Guest::default()
    };
    let ended = check("miscounts.wasm", &miscounts.component());
    assert!(ended.stdout.contains("not pure") && ended.stdout.contains("counter.decide"), "{ended:?}");
    let all = Guest { flush: true, counter: true, ingest: true, ..Guest::default() };
    let pure = check("pure.wasm", &all.component());
    assert_eq!(pure.code, Some(0), "{pure:?}");
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/default/policy.wasm");
    let pure = weir(directory, &["policy", "check", "--purity", default.to_str().unwrap()]);
    assert_eq!(pure.code, Some(0), "{pure:?}");
}

/// Without a probation a failing module stays, and its kind says what its requests get.
async fn what_a_kind_says_of_failures(stand: &Stand, table: &mut Table) {
    let bad = Guest { flush: true, before: "unreachable", coalesced: "unreachable", ..Guest::default() }.component();
    let mut config = config(stand);
    config.policy.probation_ms = 0;
    let mut host = stand.host(&config);
    let (mut client, mut operator) = (Client::new(host.public()), Operator::new(host.admin()));
    let (liked, likes) = client.like(5, 1_001).await;
    assert_eq!(operator.push(&bad, "trap-without-probation", true).await.status, 201);
    let denied = client.toggle("POST", 5, 1_001, None).await.unwrap();
    assert_eq!((denied.status, denied.header("retry-after").is_empty()), (503, false), "{}", denied.text());
    let kind = "kind=\"feed-like\"";
    assert!(operator.counter("weir_policy_fallbacks_total", &[kind, "to=\"deny\""]).await > 0.0);
    let detail = unhealthy_detail(&mut operator).await;
    table.add("trap-without-probation", "contained", &format!("on_policy_failure = deny: 503; /readyz: {detail}"));
    operator.command("POST", "/rollback").await;
    assert_eq!(client.like(5, 1_001).await, (!liked, if liked { likes - 1 } else { likes + 1 }), "denied was undone");
    operator.command("POST", "/trap-without-probation/activate").await;
    operator.client.wait_drained(LIMIT).await;
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());

    // The bad set is active after a restart too, and the built-in rules answer for it.
    config.toggles[0].on_policy_failure = PolicyFailure::BuiltIn;
    let mut host = stand.host(&config);
    let (mut client, mut operator) = (Client::new(host.public()), Operator::new(host.admin()));
    let status = operator.status().await;
    assert_eq!(status["active"]["toggle"]["name"], "trap-without-probation", "{status:#}");
    assert_eq!(client.like(5, 1_001).await, (liked, likes));
    assert!(operator.counter("weir_policy_fallbacks_total", &[kind, "to=\"built-in\""]).await > 0.0);
    let detail = unhealthy_detail(&mut operator).await;
    table.add("trap-without-probation", "contained", &format!("on_policy_failure = built-in: 200; /readyz: {detail}"));
    operator.client.wait_drained(LIMIT).await;
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
    let held = stand.database.likes().await.contains(&(5, 1_001));
    assert_eq!(held, liked, "what was answered is not what is stored");
}

/// What `/readyz` says of the failing module, while it stays 200.
async fn unhealthy_detail(operator: &mut Operator) -> String {
    let reply = operator.client.get("/readyz").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body: Value = reply.json();
    let text = body.to_string();
    let check = body["checks"]
        .as_array()
        .and_then(|checks| checks.iter().find(|check| check["name"] == "policy:trap-without-probation"));
    let detail = check.and_then(|check| check["detail"].as_str()).unwrap_or_else(|| panic!("no such check: {text}"));
    assert!(detail.contains("failed in the last minute") && detail.contains("trap"), "{text}");
    detail.to_owned()
}
