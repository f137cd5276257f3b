//! The border between weir and its rules does not change without its version: a recorded digest for each file of `wit/`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

/// A version of the package `weir:policy`, and the SHA-256 of each of its files.
struct Released {
    version: &'static str,
    files: &'static [(&'static str, &'static str)],
}

/// Every version, the youngest last. A released one is never changed.
const RELEASED: &[Released] = &[Released {
    version: "0.1.0",
    files: &[
        ("admission.wit", "357d6dd73c0172b12bd05423d23b050f68ddf9c8c6cd669d90ef9497843da314"),
        ("cache.wit", "7ae2b36f1cbb4a09f8d7367d11896b25a4ea8110c00b4c5de390d0949dd6eaa3"),
        ("config.wit", "1049b2cade2c2a4a3cda39976f21b0fdd6e385955c05e2f574de5e0d40f7b34b"),
        ("counter.wit", "fd67dbe1b6a3bc443804c219f7cf4560d818461e034d6fe87cb3950a7a1b56e9"),
        ("delivery.wit", "a4f29b68ec0ad3310f8edc7089e5e221f18ade89f108ede12f0e412a80aeef65"),
        ("flush.wit", "6d1fd442aadec3e3cc453bcff9aad5ed16003dde325f2e65da75094dab4db31d"),
        ("ingest.wit", "f40ef0a783df5a88ba35506d0bda31bbc091c6974e5f3e337f8f122e9ce738de"),
        ("log.wit", "d83c096aa10be3abb17f21efe82086d0b5a6a054ebfa3ccd0f56a2d6459f7f14"),
        ("redis.wit", "cf0f357c7fd21b1a3735bac8849146adcc02ca8137235de26367770bf1ccaf81"),
        ("sql.wit", "5fbe9b97e7c1e992b1996f6bd40745c73442b6e559dd710fe27ddd8ee0fe2174"),
        ("toggle.wit", "0901657344e727f8ac7170c1fb9fe3e43de13bb9785d2f747addd77f879589a1"),
        ("types.wit", "328880df29528020e6b0a4d096c1b27a7043e339b724bf6d7996dfd34e6fc2f7"),
        ("worlds.wit", "5933588bac26247100167cf106bee0361209c5530e274ca75f105d8c8e2d7fcc"),
    ],
}];

const WHAT_TO_DO: &str = "Modules are built against these files. Take the change back; or give all files of wit/ a new \
    package version, serve the old one as before, and add the new version with its digests to RELEASED in \
    tests/tests/contract.rs";

/// Each file of `wit/`: its package version and its digest.
fn found() -> BTreeMap<String, (String, String)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let package = text.lines().find_map(|line| line.strip_prefix("package weir:policy@")?.strip_suffix(';'));
        let version =
            package.unwrap_or_else(|| panic!("{name} names no version of the package weir:policy")).to_owned();
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        (name, (version, digest))
    };
    fs::read_dir(directory).unwrap().map(file).collect()
}

#[test]
fn no_file_of_the_contract_changes_without_its_version() {
    let found = found();
    let current = RELEASED.last().unwrap();
    let versions: BTreeSet<&str> = found.values().map(|(version, _)| version.as_str()).collect();
    assert_eq!(versions, BTreeSet::from([current.version]), "the files of wit/ are of one version. {WHAT_TO_DO}");
    let recorded: BTreeMap<&str, &str> = current.files.iter().copied().collect();
    let changed: Vec<String> = found
        .iter()
        .filter(|(name, (_, digest))| recorded.get(name.as_str()) != Some(&digest.as_str()))
        .map(|(name, (version, digest))| format!("wit/{name} of {version} has the digest {digest}"))
        .collect();
    assert!(changed.is_empty(), "{}: not as recorded. {WHAT_TO_DO}", changed.join("; "));
    let missing: Vec<&&str> = recorded.keys().filter(|name| !found.contains_key(**name)).collect();
    assert!(missing.is_empty(), "{missing:?} of {} is gone. {WHAT_TO_DO}", current.version);
}

#[test]
fn each_version_is_recorded_once() {
    let versions: BTreeSet<&str> = RELEASED.iter().map(|released| released.version).collect();
    assert_eq!(versions.len(), RELEASED.len());
}
