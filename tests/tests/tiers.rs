//! The house's rules that no compiler checks: who imports whom, where `bindgen!` and SQL may stand, no `unwrap`.
//!
//! The table is the one of `host/src/lib.rs`. A sample with violations proves that the checker sees them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A room, its tier, and what it may import besides the rooms of lower tiers (of tier 4: besides the floor). Every room of `host/src` must stand here.
const ROOMS: &[(&str, u8, &[&str])] = &[
    ("model", 0, &[]),
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

#[test]
fn every_room_imports_only_from_below() {
    let mut violations = Vec::new();
    for (path, text) in sources() {
        violations.extend(import_violations(&room_of(&path), &path.display().to_string(), &text));
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn every_room_is_in_the_table_and_in_the_text_of_lib_rs() {
    let lib = fs::read_to_string(source_directory().join("lib.rs")).unwrap();
    let found: BTreeSet<String> =
        sources().iter().map(|(path, _)| room_of(path)).filter(|room| room != "lib").collect();
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
        assert!(found.contains(*room), "the table lists {room}, which is not in host/src");
    }
}

#[test]
fn the_checker_sees_a_violation() {
    let cases = [
        ("store", "use crate::policy::Decided;", true),
        ("store", "use crate::{model::Id, sql::Sql};", true),
        ("store", "fn f() { crate::sql::open() }", true),
        ("store", "use crate::model::Id;\nuse crate::journal::Entry;", false),
        ("store", "/// As [`crate::sql::Sql`] says.\n// use crate::sql::Sql;", false),
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
    assert!(!without_tests_and_comments("let a = b.unwrap(); // x").contains("// x"));
    assert!(without_tests_and_comments("let a = \"// no comment\"; b").contains("; b"));
    assert!(without_tests_and_comments("let a = '\"'; b // c\nd").contains("\nd"));
    assert!(
        !without_tests_and_comments("#[cfg(test)]\nmod tests { fn f() { x.unwrap() } }\nfn g() {}").contains("unwrap")
    );
    assert!(without_tests_and_comments("#[cfg(test)]\nmod tests { fn f() { \"}\" } }\nfn g() {}").contains("fn g"));
    assert_eq!(statements_in("sqlx::query(\"SELECT 1\")"), 1);
    assert_eq!(statements_in("let a = \"  DELETE FROM x\"; // \"SELECT\""), 1);
    assert_eq!(statements_in("let a = \"Select a file\"; /* \"INSERT x\" */"), 0);
}

#[test]
fn bindgen_stands_in_exactly_one_file() {
    let with: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|(_, text)| without_tests_and_comments(text).contains("bindgen!"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(with.len(), 1, "bindgen! must stand in exactly one file of the host: {with:?}");
}

#[test]
fn statements_stand_in_the_file_of_their_engine() {
    let mut found = BTreeMap::new();
    for (path, text) in sources() {
        let count = statements_in(&text);
        if count > 0 {
            found.insert(path.strip_prefix(source_directory()).unwrap().to_owned(), count);
        }
    }
    let allowed = |path: &Path| {
        ["sqlite", "postgres", "mysql"].iter().any(|engine| {
            let statements = Path::new("sql").join(engine).join("statements");
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
        for (number, line) in without_tests_and_comments(&text).lines().enumerate() {
            if [".unwrap()", ".expect(", concat!("todo", "!("), concat!("unimplemented", "!(")]
                .iter()
                .any(|word| line.contains(word))
            {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// What takes something away from the demo breaks on the day when the demo gets more: tests and benchmarks name their kinds.
#[test]
fn tests_and_benchmarks_name_the_kinds_that_they_want() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<(PathBuf, String)> =
        ["src", "bench", "tests"].iter().flat_map(|part| sources_in(&directory.join(part))).collect();
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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src")
}

/// Every source file of the host.
fn sources() -> Vec<(PathBuf, String)> {
    let found = sources_in(&source_directory());
    assert!(found.len() > 20, "the sources of the host were not found");
    found
}

/// Every source file in a directory and below it.
fn sources_in(directory: &Path) -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(directory, &mut found);
    found.sort();
    found
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
    imports(&without_tests_and_comments(text))
        .into_iter()
        .filter(|other| !may(other))
        .map(|other| format!("{file}: {room} (tier {tier}) must not import {other}"))
        .collect()
}

/// The first segment of every path that begins with `crate::` (or `weir::`, as in `main.rs`), also within braces.
fn imports(text: &str) -> BTreeSet<String> {
    let squeezed: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let squeezed = squeezed.replace(" ::", "::").replace(":: ", "::");
    let mut found = BTreeSet::new();
    for root in ["crate::", "weir::"] {
        for (at, _) in squeezed.match_indices(root) {
            let before = squeezed[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &squeezed[at + root.len()..];
            if let Some(list) = rest.strip_prefix('{') {
                found.extend(heads_of_list(list));
            } else {
                found.insert(identifier(rest));
            }
        }
    }
    // A macro or an item of the crate's root is no room.
    found.retain(|name| !name.is_empty() && name.starts_with(|c: char| c.is_ascii_lowercase()));
    found
}

/// `model::Id, sql::{Sql, SqlError}, store}` … → `model`, `sql`, `store`.
fn heads_of_list(list: &str) -> Vec<String> {
    let (mut depth, mut heads, mut expect_head) = (0, Vec::new(), true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expect_head = true,
            c if expect_head && !c.is_whitespace() => {
                heads.push(identifier(&list[at..]));
                expect_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The number of string literals that begin with an SQL statement.
fn statements_in(text: &str) -> usize {
    let code = without_tests_and_comments(text);
    let mut literals = Vec::new();
    scan(&code, |piece, kind| {
        if kind == Piece::Text {
            literals.push(piece.trim_start_matches(['r', '#', '"', 'b']).trim_start().to_owned());
        }
    });
    literals.iter().filter(|literal| STATEMENTS.iter().any(|statement| literal.starts_with(statement))).count()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Code,
    Text,
    Comment,
}

/// The code without comments and without what stands under `#[cfg(test)]`; line breaks stay. Nothing of a file that
/// stands under it as a whole.
fn without_tests_and_comments(text: &str) -> String {
    if text.lines().any(|line| line == "#![cfg(test)]") {
        return String::new();
    }
    let mut code = String::new();
    // Strings keep their content; their brackets must not count below, so they are noted by place.
    let mut is_code = Vec::new();
    scan(text, |piece, kind| match kind {
        Piece::Comment => {
            let breaks = "\n".repeat(piece.matches('\n').count());
            is_code.extend(breaks.bytes().map(|_| true));
            code.push_str(&breaks);
        }
        _ => {
            is_code.extend(piece.bytes().map(|_| kind == Piece::Code));
            code.push_str(piece);
        }
    });
    while let Some(start) = code.find("#[cfg(test)]") {
        let end = end_of_item(&code, &is_code, start + "#[cfg(test)]".len());
        let breaks = "\n".repeat(code[start..end].matches('\n').count());
        is_code.splice(start..end, breaks.bytes().map(|_| true));
        code.replace_range(start..end, &breaks);
    }
    code
}

/// Where the item that begins at `from` ends: after its block, or after its semicolon.
fn end_of_item(code: &str, is_code: &[bool], from: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(from).filter(|(at, _)| is_code[*at]) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Cuts Rust source into code, string literals and comments.
fn scan(text: &str, mut take: impl FnMut(&str, Piece)) {
    let bytes = text.as_bytes();
    let (mut at, mut code_from) = (0, 0);
    while at < bytes.len() {
        let rest = &text[at..];
        let (length, kind) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), Piece::Comment)
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |end| end + 2), Piece::Comment)
        } else if let Some(length) = raw_string_length(text, at) {
            (length, Piece::Text)
        } else if rest.starts_with('"') {
            (quoted_length(rest), Piece::Text)
        } else if let Some(length) = character_length(rest) {
            (length, Piece::Text)
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        take(&text[code_from..at], Piece::Code);
        take(&text[at..at + length], kind);
        at += length;
        code_from = at;
    }
    take(&text[code_from..], Piece::Code);
}

/// Length of `r"…"`, `r#"…"#`, … at `at`.
fn raw_string_length(text: &str, at: usize) -> Option<usize> {
    let joined = text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
    let rest = text[at..].strip_prefix('r').filter(|_| !joined || text[..at].ends_with('b'))?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let body = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + body.find(&end).map_or(body.len(), |found| found + end.len()))
}

/// Length of `"…"` with its escapes.
fn quoted_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of `'c'` or `'\n'`; `None` for a lifetime.
fn character_length(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    let mut characters = body.char_indices();
    let (_, first) = characters.next()?;
    if first == '\\' {
        // The escaped character may be a quote itself.
        let from = 2;
        return body.get(from..)?.find('\'').map(|end| 1 + from + end + 1);
    }
    let (end, second) = characters.next()?;
    (second == '\'').then_some(1 + end + 1)
}
