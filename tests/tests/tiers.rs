//! The house's rules that no compiler checks: who imports whom inside the crate `weir`, where `bindgen!` and SQL may stand, no
//! `unwrap`. What is a crate of its own is held in its place by cargo.
//!
//! The table is the one of `host/src/lib.rs`. A sample with violations proves that the checker sees them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use weir_tests::source::{Source, texts_in, top};

/// A room, its tier, and what it may import besides the rooms of lower tiers (of tier 4: besides the floor). Every room of `host/src` must stand here.
const ROOMS: &[(&str, u8, &[&str])] = &[
    ("model", 0, &[]),
    ("operators", 0, &[]),
    ("error", 0, &[]),
    ("clock", 0, &[]),
    ("telemetry", 0, &[]),
    ("config", 0, &[]),
    ("journal", 1, &[]),
    ("batcher", 1, &[]),
    ("listener", 1, &[]),
    ("tls", 1, &[]),
    ("policy", 2, &[]),
    ("store", 2, &[]),
    ("sql", 2, &[]),
    ("cache", 2, &[]),
    // The write path that the capabilities share.
    ("capability", 3, &[]),
    ("toggle", 3, &["capability"]),
    ("counter", 3, &["capability"]),
    ("ingest", 3, &["capability"]),
    ("preference", 3, &["capability"]),
    ("write", 3, &["capability", "toggle", "counter", "ingest", "preference"]),
    ("room", 3, &[]),
    ("flush", 3, &["capability"]),
    ("read", 3, &[]),
    ("upstream", 3, &[]),
    // The listeners answer from the capabilities; below those they know only the floor and how connections are kept.
    (
        "http",
        4,
        &[
            "capability",
            "toggle",
            "counter",
            "ingest",
            "preference",
            "room",
            "flush",
            "read",
            "upstream",
            "listener",
            "tls",
        ],
    ),
    (
        "admin",
        4,
        &["capability", "toggle", "counter", "ingest", "preference", "room", "flush", "read", "upstream", "listener"],
    ),
    ("app", 5, &["cli"]),
    ("cli", 5, &["app"]),
    ("main", 5, &["app", "cli"]),
];

/// What SQL statements begin with, in text between quotes.
const STATEMENTS: &[&str] = &[
    "SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "DROP ", "ALTER ", "WITH ", "PRAGMA ", "EXPLAIN ", "MERGE ",
];

/// Methods and macros that end the process.
const FORBIDDEN_CALLS: &[&str] = &["unwrap", "expect", concat!("to", "do"), "unimplemented"];

#[test]
fn every_room_imports_only_from_below() {
    let mut violations = Vec::new();
    for (path, text) in sources_of_weir() {
        violations.extend(import_violations(&room_of(&path), &path.display().to_string(), &text));
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn every_room_is_in_the_table_and_in_the_text_of_lib_rs() {
    let lib = fs::read_to_string(source_directory().join("lib.rs")).unwrap();
    let found: BTreeSet<String> =
        sources_of_weir().iter().map(|(path, _)| room_of(path)).filter(|room| room != "lib").collect();
    for room in &found {
        let (_, tier, _) =
            entry(room).unwrap_or_else(|| panic!("room {room} is not in the table of tests/tests/tiers.rs"));
        let listed = lib.lines().any(|line| {
            let named = line.contains(&format!("[`{room}`]"));
            named && line.trim_end().ends_with(&format!("| {tier} |"))
        });
        assert!(listed || room == "main", "host/src/lib.rs does not list {room} with tier {tier}");
    }
    for (room, ..) in ROOMS {
        let is_reexported = lib.lines().any(|line| line.starts_with("pub use weir_") && line.contains(room));
        assert!(found.contains(*room) || is_reexported, "the table lists {room}, which is not in host/src");
    }
}

#[test]
fn the_checker_sees_a_violation() {
    let cases = [
        ("store", "use crate::policy::Decided;", true),
        ("store", "use crate::{model::Id, sql::Sql};", true),
        ("store", "fn f() { crate::sql::open() }", true),
        ("store", "fn f() { json!({ \"a\": crate::sql::open() }) }", true),
        ("store", "use crate::model::Id;\nuse crate::journal::Entry;", false),
        ("store", "/// As [`crate::sql::Sql`] says.\n// use crate::sql::Sql;\nfn f() {}", false),
        ("store", "#[cfg(test)]\nmod tests {\n    use crate::sql::Sql;\n}", false),
        ("store", "//! Tests.\n\n#![cfg(test)]\n\nuse crate::sql::Sql;", false),
        ("toggle", "use crate::flush::Flusher;", true),
        ("toggle", "use crate::counter::Counter;", true),
        ("toggle", "use crate::capability::Kind;", false),
        ("toggle", "use crate::{batcher, policy::Policies, store::Store};", false),
        ("model", "use crate::clock::Clock;", true),
        ("config", "use crate::model::IdType;", false),
        ("http", "use crate::store::Store;", true),
        ("http", "use crate::toggle::Toggle;", false),
        ("admin", "use crate::sql::DeadLetter;", true),
        ("flush", "use crate :: toggle :: X;", true),
        ("flush", "use crate::{\n    journal::Entry,\n    toggle::{\n        Receipt,\n    },\n};", true),
        ("app", "use crate::{http, store, sql, toggle};", false),
        ("nowhere", "use crate::model::Id;", true),
    ];
    for (room, text, wrong) in cases {
        let violations = import_violations(room, "sample.rs", text);
        assert_eq!(!violations.is_empty(), wrong, "{room}: {text}\n{violations:?}");
    }
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
            let statements = Path::new("src/sql").join(engine).join("statements");
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

fn source_directory() -> PathBuf {
    top().join("host/src")
}

/// Every source file of the host.
fn sources() -> Vec<(PathBuf, String)> {
    let found = texts_in(&top().join("host"), &["rs"]);
    assert!(found.len() > 20, "the sources of the host were not found");
    found
}

/// Every source file of the crate `weir`.
fn sources_of_weir() -> Vec<(PathBuf, String)> {
    texts_in(&source_directory(), &["rs"])
}

/// `store/redis/script.rs` → `store`.
fn room_of(path: &Path) -> String {
    let inside = path.strip_prefix(source_directory()).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn entry(room: &str) -> Option<&'static (&'static str, u8, &'static [&'static str])> {
    ROOMS.iter().find(|(name, ..)| *name == room)
}

/// What `room` imports and must not.
fn import_violations(room: &str, file: &str, text: &str) -> Vec<String> {
    if room == "lib" {
        return Vec::new();
    }
    let Some((_, tier, also)) = entry(room) else { return vec![format!("{file}: {room} is not in the table")] };
    let may = |other: &str| {
        other == room
            || also.contains(&other)
            || entry(other).is_some_and(|(_, other_tier, _)| match tier {
                // The configuration speaks of ids, an error of rate limits: the floor stands on the model.
                0 => other == "model",
                4 => *other_tier == 0,
                _ => other_tier < tier,
            })
    };
    Source::parse(text)
        .imports()
        .into_iter()
        .filter(|other| !may(other))
        .map(|other| format!("{file}: {room} (tier {tier}) must not import {other}"))
        .collect()
}

/// The number of string literals that begin with an SQL statement.
fn statements_in(source: &Source) -> usize {
    let is_statement = |text: &str| STATEMENTS.iter().any(|statement| text.trim_start().starts_with(statement));
    source.literals().iter().filter(|literal| is_statement(&literal.text)).count()
}
