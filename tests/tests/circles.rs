//! No two files of the policy engine (`weir-policy`) import each other, not even in a circle of many: whoever reads one can read what it
//! stands on first.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by their path from the crate on, such as `policy::registry::disk`, and the modules that each imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The files of one crate of the host, tests left out.
fn files(of: &str) -> BTreeMap<String, String> {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../host").join(of).join("src");
    let mut files = BTreeMap::new();
    let mut todo = vec![source.clone()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            if !text.lines().any(|line| line == "#![cfg(test)]") {
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                files.insert(name(of, &source, &path), text);
            }
        }
    }
    files
}

/// `host/policy/src/registry/disk.rs` is `policy::registry::disk`, and the crate's root is `policy`.
fn name(of: &str, source: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(source).unwrap().with_extension("");
    let parts = relative.components().map(|part| part.as_os_str().to_str().unwrap()).filter(|part| *part != "lib");
    [of].into_iter().chain(parts).collect::<Vec<_>>().join("::")
}

/// What each file imports by `use`. A file that only declares its children and hands on their names imports nothing.
fn imports(files: &BTreeMap<String, String>) -> Imports {
    let of = |(name, text): (&String, &String)| {
        let uses = text.split(';').filter_map(|part| {
            let statement = part.lines().skip_while(|line| !line.starts_with("use ")).collect::<Vec<_>>().join(" ");
            statement.strip_prefix("use ").map(str::to_owned)
        });
        let paths = uses.flat_map(|tree| leaves(&tree)).map(|path| absolute(name, &path));
        let found = paths.filter_map(|path| nearest_file(files, &path)).filter(|other| other != name);
        (name.clone(), found.collect())
    };
    files.iter().map(of).collect()
}

/// The paths of a tree of a `use`.
fn leaves(tree: &str) -> Vec<String> {
    let tree: String = tree.chars().filter(|c| !c.is_whitespace()).collect();
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree] };
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    let cuts = inner.char_indices().chain([(inner.len(), ',')]);
    for (at, c) in cuts {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.extend(leaves(&inner[from..at]).into_iter().map(|leaf| format!("{prefix}{leaf}")));
                from = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// A path from the crate's root on.
fn absolute(module: &str, path: &str) -> String {
    let (mut base, mut rest) = (module.split("::").collect::<Vec<_>>(), path);
    while let Some(after) = rest.strip_prefix("super::") {
        base.pop();
        rest = after;
    }
    match path.strip_prefix("crate::") {
        // The crate's name is the first part.
        Some(rest) => [module.split("::").next().unwrap_or_default(), rest].join("::"),
        None => [base.join("::").as_str(), rest].join("::"),
    }
}

/// The longest beginning of a path that is a file.
fn nearest_file(files: &BTreeMap<String, String>, path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split("::").collect();
    (2..=parts.len()).rev().map(|length| parts[..length].join("::")).find(|name| files.contains_key(name))
}

/// A circle, if there is one.
fn circle(imports: &Imports) -> Option<Vec<String>> {
    let mut left: BTreeMap<&str, BTreeSet<&str>> =
        imports.iter().map(|(name, others)| (name.as_str(), others.iter().map(String::as_str).collect())).collect();
    // Whatever imports nothing that is left stands on its own.
    while let Some(name) = left.iter().find(|(_, others)| others.is_empty()).map(|(name, _)| *name) {
        left.remove(name);
        left.values_mut().for_each(|others| {
            others.remove(name);
        });
    }
    let mut path = vec![*left.keys().next()?];
    loop {
        let next = *left[path.last()?].iter().next()?;
        if let Some(at) = path.iter().position(|name| *name == next) {
            return Some(path[at..].iter().chain([&next]).map(|name| (*name).to_owned()).collect());
        }
        path.push(next);
    }
}

#[test]
fn the_policy_engine_has_no_circle() {
    let files = files("policy");
    assert!(files.len() > 40, "{}", files.len());
    let imports = imports(&files);
    assert!(imports["policy::rules::service"].contains("policy::trials"), "{:?}", imports["policy::rules::service"]);
    assert_eq!(circle(&imports), None);
}

#[test]
fn a_circle_is_seen() {
    let sample = |texts: &[(&str, &str)]| {
        let files = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        circle(&imports(&files))
    };
    let straight = [("p::a", "use super::b::B;\n"), ("p::b", "use std::sync::Arc;\n"), ("p::c", "use crate::a::A;\n")];
    assert_eq!(sample(&straight), None);
    let round = [
        ("p::a", "use super::b::B;\n"),
        ("p::b", "use crate::{\n    c::{self, C},\n};\n"),
        ("p::c", "//! Text.\n\nuse super::{\n    x::X,\n    a::A,\n};\n"),
    ];
    assert_eq!(sample(&round).unwrap().len(), 4);
}
