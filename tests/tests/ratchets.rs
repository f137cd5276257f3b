//! What the house has too much of, counted. A number may only fall: `tests/ratchets.toml` holds where it is now.
//!
//! After it fell, record it: `RATCHETS=record cargo test -p weir-tests --test ratchets`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use weir_tests::source::{Source, texts_in, top};

/// The engines that are compared with PostgreSQL, by their folder.
const OTHER_ENGINES: &[&str] = &["sqlite", "mysql"];

/// The capabilities that write. A file that names all of them knows too much.
const CAPABILITIES: &[&str] = &["toggle", "counter", "ingest", "preference"];

/// Words of a private language; `host/docs/glossary.md` has those of the field.
const PRIVATE_WORDS: &[&str] = &[
    "flight", "flights", "seat", "seats", "patience", "ledger", "bury", "buried", "misfit", "misfits", "desk", "heed",
    "heeds", "heeded", "ground", "patient", "stamp", "stamps",
];

/// Turns that a native engineer would not write.
const FOREIGN_TURNS: &[&str] = &["whoever", "nobody", "told", "tells", "bears"];

#[test]
fn what_the_house_has_too_much_of_only_falls() {
    let found = BTreeMap::from([
        ("equal_lines_between_engines", equal_lines_between_engines()),
        ("files_that_name_all_capabilities", files_that_name_all_capabilities()),
        ("functions_with_tuple_parameters", functions_with_tuple_parameters()),
        ("private_words", words(PRIVATE_WORDS)),
        ("foreign_turns", words(FOREIGN_TURNS)),
        ("lines_of_the_host", lines_of_the_host()),
    ]);
    let path = top().join("tests/ratchets.toml");
    if env::var("RATCHETS").is_ok_and(|wish| wish == "record") {
        let lines: String = found.iter().map(|(name, count)| format!("{name} = {count}\n")).collect();
        fs::write(&path, format!("# Counted by tests/tests/ratchets.rs. Each may only fall.\n{lines}")).unwrap();
    }
    let recorded: BTreeMap<String, usize> = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (name, count) in &found {
        let before = recorded.get(*name).copied().unwrap_or_default();
        let room = if *name == "lines_of_the_host" { before / 100 } else { 0 };
        if *count > before + room {
            wrong.push(format!("{name} rose from {before} to {count}: write it so that it does not"));
        } else if *count < before {
            wrong.push(format!(
                "{name} fell from {before} to {count}: record it (see the top of tests/tests/ratchets.rs)"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_counting_sees_what_it_counts() {
    let postgres = "use sqlx::PgConnection;\nfn plan(a: u8) {}\n// a comment\n}\nlet rows = fetch();\n";
    let sqlite = "use sqlx::SqliteConnection;\nfn plan(a: u8) {}\n// a comment\n}\nlet found = fetch();\n";
    assert_eq!(equal_lines(postgres, sqlite), 2);
    assert_eq!(equal_lines("use sqlx::Pg;\nlet x = 1;\nlet x = 1;", "use sqlx::Sqlite;\nlet x = 1;"), 2);
    let tuples = Source::parse("fn a((b, c): (u8, u8)) {}\nfn d(e: (u8, u8)) {}\nimpl X { fn f(&self, (g, h): I) {} }");
    assert_eq!(tuples.functions_with_tuple_parameters(), ["a", "f"]);
    let parts: Vec<String> = parts_of("let seat_taken = PostgresFlight::new(a1, HTTPSeats); // Told").collect();
    assert_eq!(parts, ["let", "seat", "taken", "postgres", "flight", "new", "a", "http", "seats", "told"]);
}

/// Lines of the other engines' files that stand in PostgreSQL's file of the same name, too. Statements and catalogue are
/// what an engine is about, and are left out.
fn equal_lines_between_engines() -> usize {
    let sql = top().join("host/sql/src");
    let mut count = 0;
    for (path, text) in engine_files(&sql, "postgres") {
        for engine in OTHER_ENGINES {
            let path = sql.join(path.to_str().unwrap().replace("postgres", engine));
            if let Ok(other) = fs::read_to_string(&path) {
                count += equal_lines(&text, &other);
            }
        }
    }
    count
}

/// `postgres.rs` and what is in `postgres/`, with paths from `sql`.
fn engine_files(sql: &Path, engine: &str) -> Vec<(PathBuf, String)> {
    let root = sql.join(engine).with_extension("rs");
    let mut found = texts_in(&sql.join(engine), &["rs"]);
    if let Ok(text) = fs::read_to_string(&root) {
        found.push((root, text));
    }
    let inside = |path: &Path| path.strip_prefix(sql).unwrap().to_owned();
    let is_compared = |path: &Path| {
        !path.components().any(|part| part.as_os_str().to_str().unwrap().starts_with("statements"))
            && !path.ends_with("catalogue.rs")
    };
    found.into_iter().map(|(path, text)| (inside(&path), text)).filter(|(path, _)| is_compared(path)).collect()
}

fn equal_lines(one: &str, other: &str) -> usize {
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines_to_compare(one) {
        *counted.entry(line).or_default() += 1;
    }
    let mut equal = 0;
    for line in lines_to_compare(other) {
        if let Some(left) = counted.get_mut(&line).filter(|left| **left > 0) {
            *left -= 1;
            equal += 1;
        }
    }
    equal
}

/// Lines of code without the engine's name, tests and comments; not those that hold nothing but a bracket or two.
fn lines_to_compare(text: &str) -> impl Iterator<Item = String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(str::trim).filter(|line| line.len() > 3 && !line.starts_with("//"));
    lines.map(|line| {
        let line = line.to_lowercase();
        ["postgres", "sqlite", "mysql", "mariadb", "pg"].iter().fold(line, |line, name| line.replace(name, "x"))
    })
}

fn files_that_name_all_capabilities() -> usize {
    let sources = texts_in(&top().join("host"), &["rs"]);
    sources.iter().filter(|(_, text)| CAPABILITIES.iter().all(|name| text.to_lowercase().contains(name))).count()
}

fn functions_with_tuple_parameters() -> usize {
    let sources = texts_in(&top().join("host"), &["rs"]);
    sources.iter().map(|(_, text)| Source::parse(text).functions_with_tuple_parameters().len()).sum()
}

fn lines_of_the_host() -> usize {
    texts_in(&top().join("host"), &["rs", "lua"]).iter().map(|(_, text)| text.lines().count()).sum()
}

/// How often these words occur in code and texts, also as parts of names.
fn words(wanted: &[&str]) -> usize {
    let mut texts = texts_in(&top().join("host"), &["rs", "lua", "md", "toml"]);
    texts.extend(texts_in(&top().join("guest"), &["rs", "md", "toml"]));
    texts.push((top().join("README.md"), fs::read_to_string(top().join("README.md")).unwrap()));
    texts.iter().map(|(_, text)| parts_of(text).filter(|part| wanted.contains(&part.as_str())).count()).sum()
}

/// The words of a text: names are taken apart at signs and at capitals.
fn parts_of(text: &str) -> impl Iterator<Item = String> {
    let mut parts = vec![String::new()];
    let mut was_lower = false;
    let letters: Vec<char> = text.chars().collect();
    for (at, letter) in letters.iter().enumerate() {
        let next_is_lower = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && (was_lower || next_is_lower) {
            parts.push(String::new());
        }
        was_lower = letter.is_lowercase();
        if letter.is_alphabetic() {
            parts.last_mut().unwrap().extend(letter.to_lowercase());
        } else {
            parts.push(String::new());
        }
    }
    parts.into_iter().filter(|part| !part.is_empty())
}
