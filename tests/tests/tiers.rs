//! The house's rules that no compiler checks: which crates a crate may ask for, who imports whom inside a crate, where
//! `bindgen!` and SQL may stand, no `unwrap`.
//!
//! The table of crates is the one of `host/src/lib.rs`. A sample with violations proves that the checker sees them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use weir_tests::source::{Source, texts_in, top};

/// A crate of the host, where it stands, and the crates of weir that it may use; `*` is for all.
const CRATES: &[(&str, &str, &[&str])] = &[
    ("weir-core", "host/core", &[]),
    ("weir-listener", "host/listener", &["weir-core"]),
    ("weir-store", "host/store", &["weir-core"]),
    ("weir-sql", "host/sql", &["weir-core"]),
    ("weir-policy", "host/policy", &["weir-core"]),
    ("weir-cache", "host/cache", &["weir-core"]),
    ("weir-write", "host/write", &["weir-core", "weir-store", "weir-sql", "weir-policy", "weir-cache"]),
    ("weir-queues", "host/queues", &["weir-core", "weir-store", "weir-policy"]),
    ("weir-reads", "host/reads", &["weir-core", "weir-listener", "weir-store", "weir-sql", "weir-cache"]),
    ("weir-api", "host/api", &["weir-core", "weir-listener", "weir-write", "weir-queues", "weir-reads"]),
    ("weir", "host", &["*"]),
];

/// What every crate may use besides: the parts of the built-in policy that are no host.
const OF_GUESTS: &[&str] = &["weir-default-policy", "weir-policy-vectors"];

/// The modules of the crates that have several parts, and the others that each may import from its own crate.
const MODULES: &[(&str, &str, &[&str])] = &[
    ("weir-core", "model", &[]),
    ("weir-core", "clock", &[]),
    ("weir-core", "telemetry", &[]),
    ("weir-core", "error", &["model"]),
    ("weir-core", "config", &["model"]),
    ("weir-core", "operators", &["model"]),
    ("weir-core", "tls", &["config"]),
    ("weir-core", "batcher", &["config", "error", "telemetry"]),
    ("weir-core", "journal", &["clock", "config", "model"]),
    ("weir-write", "capability", &[]),
    ("weir-write", "toggle", &["capability"]),
    ("weir-write", "counter", &["capability"]),
    ("weir-write", "ingest", &["capability"]),
    ("weir-write", "preference", &["capability"]),
    ("weir-write", "flush", &["capability"]),
    ("weir-reads", "read", &[]),
    ("weir-reads", "upstream", &[]),
    ("weir-api", "http", &[]),
    ("weir-api", "admin", &[]),
    ("weir", "app", &["cli"]),
    ("weir", "cli", &["app"]),
    ("weir", "main", &["app", "cli"]),
];

/// What SQL statements begin with, in text between quotes.
const STATEMENTS: &[&str] = &[
    "SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "DROP ", "ALTER ", "WITH ", "PRAGMA ", "EXPLAIN ", "MERGE ",
];

/// Methods and macros that end the process.
const FORBIDDEN_CALLS: &[&str] = &["unwrap", "expect", concat!("to", "do"), "unimplemented"];

#[test]
fn a_crate_uses_only_what_stands_below_it() {
    let lib = fs::read_to_string(top().join("host/src/lib.rs")).unwrap();
    let members: BTreeSet<PathBuf> = fs::read_dir(top().join("host"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("Cargo.toml").exists())
        .chain([top().join("host")])
        .collect();
    let listed: BTreeSet<PathBuf> = CRATES.iter().map(|(_, path, _)| top().join(path)).collect();
    assert_eq!(members, listed, "the crates of host/ and those of this table");
    let mut violations = Vec::new();
    for (name, path, may) in CRATES {
        let manifest = fs::read_to_string(top().join(path).join("Cargo.toml")).unwrap();
        violations.extend(crate_violations(name, may, &manifest));
        assert!(lib.contains(&format!("| `{name}`")), "host/src/lib.rs does not list {name}");
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn a_module_imports_only_from_below() {
    let (mut violations, mut seen) = (Vec::new(), BTreeSet::new());
    for (name, path, _) in CRATES.iter().filter(|(name, ..)| MODULES.iter().any(|(of, ..)| of == name)) {
        let source = top().join(path).join("src");
        for (file, text) in texts_in(&source, &["rs"]) {
            let module = module_of(&source, &file);
            violations.extend(import_violations(name, &module, &file.display().to_string(), &text));
            seen.insert((*name, module));
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    let gone: Vec<_> = MODULES.iter().filter(|(of, module, _)| !seen.contains(&(*of, (*module).to_owned()))).collect();
    assert!(gone.is_empty(), "the table lists what is not there: {gone:?}");
}

#[test]
fn the_checker_sees_a_violation() {
    let cases = [
        ("weir-write", "toggle", "use crate::flush::Flusher;", true),
        ("weir-write", "toggle", "use crate::counter::Counter;", true),
        ("weir-write", "toggle", "use crate::capability::Kind;", false),
        ("weir-write", "toggle", "use weir_core::model::Id;\nuse crate::toggle::step::Step;", false),
        ("weir-write", "toggle", "fn f() { crate::counter::open() }", true),
        ("weir-write", "toggle", "fn f() { json!({ \"a\": crate::counter::open() }) }", true),
        (
            "weir-write",
            "toggle",
            "/// As [`crate::counter::Counter`] says.\n// use crate::counter::Counter;\nfn f() {}",
            false,
        ),
        ("weir-write", "toggle", "#[cfg(test)]\nmod tests {\n    use crate::counter::Counter;\n}", false),
        ("weir-write", "toggle", "//! Tests.\n\n#![cfg(test)]\n\nuse crate::counter::Counter;", false),
        ("weir-write", "flush", "use crate :: toggle :: X;", true),
        (
            "weir-write",
            "flush",
            "use crate::{\n    capability::Fold,\n    toggle::{\n        Receipt,\n    },\n};",
            true,
        ),
        ("weir-core", "model", "use crate::clock::Clock;", true),
        ("weir-core", "config", "use crate::model::IdType;", false),
        ("weir-api", "http", "use crate::admin::AdminState;", true),
        ("weir-write", "nowhere", "use crate::capability::Kind;", true),
    ];
    for (name, module, text, wrong) in cases {
        let violations = import_violations(name, module, "sample.rs", text);
        assert_eq!(!violations.is_empty(), wrong, "{module}: {text}\n{violations:?}");
    }
    let manifest = "[dependencies]\nserde = \"1\"\nweir-core.workspace = true\nweir-sql.workspace = true\n\
                    [dev-dependencies]\nweir-store.workspace = true\n";
    assert_eq!(crate_violations("weir-store", &["weir-core"], manifest), ["weir-store must not use weir-sql"]);
    const NO_LINES: [usize; 0] = [];
    let calls = |text: &str| Source::parse(text).calls(FORBIDDEN_CALLS);
    assert_eq!(calls("fn f() {\n    b.unwrap();\n    json!(c.expect(\"d\"))\n}"), [2, 3]);
    assert_eq!(calls("#[cfg(test)]\nmod tests { fn f() { x.unwrap() } }\nfn g() {}"), NO_LINES);
    assert_eq!(calls("/// `a.unwrap()`\nfn unwrap() { \"b.unwrap()\"; }"), NO_LINES);
    assert_eq!(calls(concat!("fn f() { to", "do!() }")), [1]);
    let statements = |text: &str| statements_in(&Source::parse(text));
    assert_eq!(statements("fn f() { sqlx::query(\"SELECT 1\") }"), 1);
    assert_eq!(statements("const A: &str = \"  DELETE FROM x\"; // \"SELECT\""), 1);
    assert_eq!(statements("/// \"DROP TABLE x\"\nconst A: &str = \"Select a file\"; /* \"INSERT x\" */"), 0);
}

#[test]
fn bindgen_stands_in_exactly_one_file() {
    let with: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|(_, text)| !Source::parse(text).calls(&["bindgen"]).is_empty())
        .map(|(path, _)| path)
        .collect();
    assert_eq!(with.len(), 1, "bindgen! must stand in exactly one file of the host: {with:?}");
}

#[test]
fn statements_stand_in_the_file_of_their_engine() {
    let mut found = BTreeMap::new();
    for (path, text) in sources() {
        let count = statements_in(&Source::parse(&text));
        if count > 0 {
            found.insert(path.strip_prefix(top().join("host")).unwrap().to_owned(), count);
        }
    }
    let allowed = |path: &Path| {
        ["sqlite", "postgres", "mysql"].iter().any(|engine| {
            let statements = Path::new("sql/src").join(engine).join("statements");
            path.starts_with(&statements) || path == statements.with_extension("rs")
        })
    };
    let elsewhere: Vec<_> = found.iter().filter(|(path, _)| !allowed(path)).collect();
    assert!(elsewhere.is_empty(), "SQL outside of the statements of its engine: {elsewhere:?}");
    assert!(!found.is_empty(), "no SQL was found at all: the checker is blind");
}

#[test]
fn nothing_unwraps_outside_of_tests() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        let calls = Source::parse(&text).calls(FORBIDDEN_CALLS);
        found.extend(calls.iter().map(|line| format!("{}:{line}", path.display())));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// What takes something away from the demo breaks on the day when the demo gets more: tests and benchmarks name their kinds.
#[test]
fn tests_and_benchmarks_name_the_kinds_that_they_want() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<(PathBuf, String)> =
        ["src", "bench", "tests"].iter().flat_map(|part| texts_in(&directory.join(part), &["rs"])).collect();
    let takes_the_demo = |text: &str| {
        // Not the one kind of `ToggleConfig::demo` and its like.
        let is_whole = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric());
        text.match_indices(concat!("Config::", "demo(")).any(|(at, _)| is_whole(at))
            || text.contains(concat!("demo::", "prepare"))
    };
    assert!(takes_the_demo(concat!("weir::config::Config::", "demo(path)")));
    assert!(!takes_the_demo(concat!("ToggleConfig::", "demo()")));
    let taken: Vec<_> = files.iter().filter(|(_, text)| takes_the_demo(text)).map(|(path, _)| path).collect();
    assert!(files.len() > 30, "the checker is blind: {} files", files.len());
    assert!(taken.is_empty(), "name the kinds (weir_tests::kinds) instead of the demo's configuration: {taken:?}");
}

/// Every source file of the host.
fn sources() -> Vec<(PathBuf, String)> {
    let found = texts_in(&top().join("host"), &["rs"]);
    assert!(found.len() > 20, "the sources of the host were not found");
    found
}

/// `store/redis/script.rs` → `store`.
fn module_of(source: &Path, file: &Path) -> String {
    let first = file.strip_prefix(source).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The crates of weir that `name` asks for and must not. What only its tests use is not looked at.
fn crate_violations(name: &str, may: &[&str], manifest: &str) -> Vec<String> {
    let table: toml::Table = toml::from_str(manifest).unwrap();
    let used = table["dependencies"].as_table().unwrap().keys();
    let is_allowed = |other: &str| {
        !other.starts_with("weir-") || OF_GUESTS.contains(&other) || may.iter().any(|one| *one == "*" || *one == other)
    };
    used.filter(|other| !is_allowed(other)).map(|other| format!("{name} must not use {other}")).collect()
}

/// What a module imports from its own crate and must not.
fn import_violations(name: &str, module: &str, file: &str, text: &str) -> Vec<String> {
    // The crate's own root lists its modules, and may put them together.
    if module == "lib" {
        return Vec::new();
    }
    let Some((.., may)) = MODULES.iter().find(|(of, listed, _)| *of == name && *listed == module) else {
        return vec![format!("{file}: {module} of {name} is not in the table of tests/tests/tiers.rs")];
    };
    Source::parse(text)
        .imports()
        .into_iter()
        // What its root hands on from other crates is not of this crate.
        .filter(|other| MODULES.iter().any(|(of, listed, _)| *of == name && listed == other))
        .filter(|other| other != module && !may.contains(&other.as_str()))
        .map(|other| format!("{file}: {module} of {name} must not import {other}"))
        .collect()
}

/// The number of string literals that begin with an SQL statement.
fn statements_in(source: &Source) -> usize {
    let is_statement = |text: &str| STATEMENTS.iter().any(|statement| text.trim_start().starts_with(statement));
    source.literals().iter().filter(|literal| is_statement(&literal.text)).count()
}
