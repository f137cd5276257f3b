//! Directories of the store, damaged in every way: each is refused, or has lost nothing that was acknowledged.

#![cfg(test)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fjall::{AbstractTree, Readable};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::layout::{SPACES, Space};
use super::super::tests::{NOW_MS, config, create, load, toggle, whole};
use super::super::*;
use super::batch_header::BatchHeader;
use super::wal::Piece;
use super::*;
use crate::{CreateBatch, CreateOp, State as _};
use weir_core::model::{Digest, Document, Id};

/// All that is promised, by keyspace and key.
type Records = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

const HELPS: [Space; 2] = [Space::Expiry, Space::Modules];

fn records(store: &EmbeddedStore) -> Records {
    let spaces = store.spaces.get().unwrap();
    let (snapshot, mut records) = (spaces.snapshot(), Records::new());
    for space in (0..SPACES).filter(|space| HELPS.iter().all(|help| *help as usize != *space)) {
        for guard in snapshot.iter(spaces.at(space)) {
            let (key, value) = guard.into_inner().unwrap();
            if *key != *BatchHeader::KEY {
                records.insert((space, key.to_vec()), value.to_vec());
            }
        }
    }
    records
}

/// Changes of several kinds, partly in tables.
async fn fill(store: &EmbeddedStore, rounds: std::ops::Range<i64>) {
    for round in rounds {
        load(store, round, whole(3), NOW_MS).await;
        for actor in 10..13 {
            toggle(store, round, actor).await;
        }
        create(store, round * 10 + 1_000..round * 10 + 1_010, true).await;
    }
}

/// A directory after a kill of its host: everything was acknowledged, a part of it is in tables.
async fn killed() -> (tempfile::TempDir, PathBuf, Records) {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&config(directory.path())).unwrap();
    fill(&store, 0..6).await;
    into_tables(&store);
    fill(&store, 6..16).await;
    let left = directory.path().join("left");
    copy(&directory.path().join("store"), &left);
    let records = records(&store);
    (directory, left, records)
}

/// Brings everything into tables.
fn into_tables(store: &EmbeddedStore) {
    let spaces = store.spaces.get().unwrap();
    for space in 0..SPACES {
        let keyspace = spaces.at(space);
        keyspace.rotate_memtable_and_wait().unwrap();
        while keyspace.tree.sealed_memtable_count() > 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// Copies a directory with the holes in its files.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::write(&target, inspect::read_data(&entry.path()).unwrap()).unwrap();
            let len = entry.metadata().unwrap().len();
            OpenOptions::new().write(true).open(&target).unwrap().set_len(len).unwrap();
        }
    }
}

/// What became of a damaged directory.
#[derive(Debug, PartialEq)]
enum Ended {
    Refused(String),
    Whole,
}

/// Damages a copy and opens it. Whatever it does not refuse must have all records.
fn opened(left: &Path, records_before: &Records, what: &str, damage: impl FnOnce(&Path)) -> Ended {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    copy(left, &store);
    damage(&store);
    match EmbeddedStore::open(&config(directory.path())) {
        Ok(store) => {
            let after = records(&store);
            let missing = records_before.iter().filter(|(key, value)| after.get(key) != Some(value)).count();
            assert_eq!((missing, after.len()), (0, records_before.len()), "{what}: taken for whole");
            Ended::Whole
        }
        Err(StoreError::Damaged(message)) => {
            assert!(message.contains("weir store salvage") && message.contains(&*store.to_string_lossy()), "{message}");
            Ended::Refused(message)
        }
        Err(other) => panic!("{what}: {other}"),
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = inspect::read_data(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// All files, relative to the directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path)
            } else {
                found.push(path.strip_prefix(directory).unwrap().to_path_buf())
            }
        }
    }
    found.sort();
    found
}

#[test]
fn paths_are_told_as_a_shell_reads_them() {
    let told = |path: &str| quoted(Path::new(path));
    assert_eq!((told("/var/lib/weir"), told("a b")), ("/var/lib/weir".into(), "'a b'".into()));
    assert_eq!(told("it's"), r"'it'\''s'");
}

#[tokio::test]
async fn no_single_bit_takes_away_what_was_acknowledged() {
    let (_directory, left, records) = killed().await;
    let mut random = StdRng::seed_from_u64(16);
    let log = inspect::read_data(&left.join("0.jnl")).unwrap();
    let end = log.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut refused = 0;
    for _ in 0..120 {
        let (place, bit) = (random.random_range(0..end), random.random_range(0..8_u8));
        let what = format!("bit {bit} of byte {place} of the log");
        let ended =
            opened(&left, &records, &what, |store| edit(&store.join("0.jnl"), |bytes| bytes[place] ^= 1 << bit));
        refused += usize::from(ended != Ended::Whole);
    }
    assert!(refused > 110, "all but some of sequence numbers: {refused}");
    let others: Vec<PathBuf> = files(&left).into_iter().filter(|file| !file.ends_with("0.jnl")).collect();
    for file in others.iter().cycle().take(others.len() * 3) {
        let len = std::fs::metadata(left.join(file)).unwrap().len() as usize;
        if len > 0 {
            let (place, bit) = (random.random_range(0..len), random.random_range(0..8_u8));
            let what = format!("bit {bit} of byte {place} of {}", file.display());
            opened(&left, &records, &what, |store| edit(&store.join(file), |bytes| bytes[place] ^= 1 << bit));
        }
    }
}

#[tokio::test]
async fn no_block_cut_or_file_takes_away_what_was_acknowledged() {
    let (_directory, left, records) = killed().await;
    let end = inspect::read_data(&left.join("0.jnl")).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for block in 0..end.div_ceil(4_096) {
        let zero = |bytes: &mut Vec<u8>| {
            let upto = bytes.len().min((block + 1) * 4_096);
            bytes[block * 4_096..upto].fill(0);
        };
        let ended = opened(&left, &records, "a zeroed block", |store| edit(&store.join("0.jnl"), zero));
        assert!(matches!(&ended, Ended::Refused(why) if why.contains("0.jnl, bytes")), "block {block}: {ended:?}");
    }
    for part in 0..8 {
        let ended =
            opened(&left, &records, "a cut log", |store| edit(&store.join("0.jnl"), |b| b.truncate(end * part / 8)));
        assert!(matches!(&ended, Ended::Refused(why) if why.contains("missing")), "part {part}: {ended:?}");
    }
    for file in files(&left) {
        let what = format!("{} deleted", file.display());
        let ended = opened(&left, &records, &what, |store| std::fs::remove_file(store.join(&file)).unwrap());
        // Tables and versions may be such that others have replaced.
        let is_no_loss = file.ends_with("lock") || file.ends_with(MARK_FILE);
        // Of the keyspaces some were never written to.
        let is_written = (0..4).any(|number| file.starts_with(format!("keyspaces/{number}")));
        let is_loss = file.ends_with(MARKER) || file.ends_with("0.jnl") || file.ends_with("current") && is_written;
        assert!(if ended == Ended::Whole { !is_loss } else { !is_no_loss }, "{what}: {ended:?}");
        let what = format!("{} halved", file.display());
        opened(&left, &records, &what, |store| edit(&store.join(&file), |bytes| bytes.truncate(bytes.len() / 2)));
    }
    for number in 0..=SPACES {
        let what = format!("keyspace {number} deleted");
        let gone = |store: &Path| std::fs::remove_dir_all(store.join("keyspaces").join(number.to_string())).unwrap();
        opened(&left, &records, &what, gone);
    }
}

#[tokio::test]
async fn a_torn_tail_is_no_damage() {
    let (_directory, left, records) = killed().await;
    let log = inspect::read_data(&left.join("0.jnl")).unwrap();
    let end = log.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let Some(Piece::Batch(newest)) = wal::scan(&log, None).pop() else { panic!("no batch") };
    let mut random = StdRng::seed_from_u64(4);
    for _ in 0..12 {
        // The beginning of a batch that was on its way: of a real one, with pages that never came to the disk.
        let begun: Vec<u8> =
            log[newest.range.start..newest.range.end - random.random_range(1..newest.range.len())].to_vec();
        let hole = random.random_range(0..begun.len() + 1);
        let tail = |bytes: &mut Vec<u8>| {
            bytes.truncate(end);
            bytes.extend(&begun);
            bytes[end + hole / 2..end + hole].fill(0);
        };
        let ended = opened(&left, &records, "a torn tail", |store| edit(&store.join("0.jnl"), tail));
        assert_eq!(ended, Ended::Whole);
    }
    // After a power cut the mark may be older than the log.
    let (older, _, _) = killed().await;
    let ended = opened(&left, &records, "an old mark", |store| {
        let mark = batch_header::read_mark(store).unwrap();
        let first = BatchHeader { number: 2, ..mark.header().unwrap().clone() };
        std::fs::remove_file(store.join(MARK_FILE)).unwrap();
        batch_header::MarkFile::open(store, &first).unwrap();
    });
    drop(older);
    assert_eq!(ended, Ended::Whole);
}

#[test]
fn a_first_start_that_did_not_end_is_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(&config(directory.path())).unwrap());
    let path = directory.path().join("store");
    std::fs::remove_dir_all(path.join("keyspaces")).unwrap();
    for file in [MARKER, MARK_FILE] {
        std::fs::remove_file(path.join(file)).unwrap();
    }
    std::fs::write(path.join("0.jnl"), [0; 100]).unwrap();
    std::fs::create_dir(path.join("keyspaces")).unwrap();
    drop(EmbeddedStore::open(&config(directory.path())).unwrap());
    drop(EmbeddedStore::open(&config(directory.path())).unwrap());
}

/// A document of a megabyte.
async fn create_large(store: &EmbeddedStore, id: i64) {
    let body = format!("{{\"text\":\"{}\"}}", "x".repeat(1 << 20));
    let document = Document { id: Id::Int(id), actor: Id::Int(1), body: body.into() };
    let op = CreateOp { partition: 0, documents: vec![document], has_fresh_ids: true, idempotency: None };
    store
        .create("k", CreateBatch { digest: Digest([1; 32]), at_ms: NOW_MS, now_ms: NOW_MS, ops: vec![op] })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_log_of_several_files_is_whole_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&config(directory.path())).unwrap();
    let mut id = 1_000_000;
    while store.spaces.get().unwrap().database.journal_count() < 3 {
        fill(&store, id..id + 1).await;
        for _ in 0..16 {
            id += 1;
            create_large(&store, id).await;
        }
        assert!(id < 1_000_800, "the log is never divided");
        // Only one of the keyspaces: the others hold back the files of the log.
        let journal = Space::Journal as usize;
        store.spaces.get().unwrap().at(journal).rotate_memtable_and_wait().unwrap();
    }
    fill(&store, id..id + 3).await;
    let left = directory.path().join("left");
    copy(&directory.path().join("store"), &left);
    let records = records(&store);
    drop(store);
    let mut logs: Vec<PathBuf> =
        files(&left).into_iter().filter(|file| file.extension().is_some_and(|ext| ext == "jnl")).collect();
    logs.sort();
    assert!(logs.len() >= 3, "{logs:?}");
    assert_eq!(opened(&left, &records, "untouched", |_| {}), Ended::Whole);
    for log in &logs {
        let ended = opened(&left, &records, "deleted", |store| std::fs::remove_file(store.join(log)).unwrap());
        assert!(matches!(ended, Ended::Refused(_)), "{}: {ended:?}", log.display());
        let ended = opened(&left, &records, "damaged", |store| edit(&store.join(log), |bytes| bytes[500] ^= 1));
        assert!(matches!(ended, Ended::Refused(_)), "{}: {ended:?}", log.display());
    }
}

#[tokio::test]
async fn what_can_be_read_is_taken_and_what_is_missing_is_named() {
    let (directory, left, records) = killed().await;
    let log = inspect::read_data(&left.join("0.jnl")).unwrap();
    // In the text of a document, in a batch that holds one entry of ten.
    let texts: Vec<usize> = (0..log.len() - 8).filter(|&at| &log[at..at + 8] == b"somebody").collect();
    let place = texts[texts.len() / 2];
    edit(&left.join("0.jnl"), |bytes| bytes[place] ^= 1);
    let before = files(&left);
    let found = verify(&left).unwrap();
    assert_eq!((found.damage.len(), found.is_whole()), (1, false), "{found}");
    assert!(found.damage[0].contains("is missing"), "{found}");
    let to = directory.path().join("store2");
    let report = salvage(&left, &to).unwrap();
    assert_eq!(files(&left), before, "the damaged directory stays as it is");
    assert_eq!((report.damage.len(), report.missing.is_empty()), (1, false), "{report}");

    let store = open_spaces(&to).unwrap();
    let missing: Vec<&(usize, Vec<u8>)> = records
        .iter()
        .filter(|((space, key), value)| store.at(*space).get(key).unwrap().as_deref() != Some(value))
        .map(|(key, _)| key)
        .collect();
    let lost = missing.iter().filter(|(space, _)| *space == Space::Journal as usize).count();
    assert!(lost == 1 && missing.iter().all(|(space, _)| *space == Space::Journal as usize), "{missing:?}");
    let positions: Vec<u64> = missing.iter().filter_map(|(_, key)| layout::position_of(key)).collect();
    assert_eq!(report.missing, [format!("k, partition 0: 10 changes, the entry at position {}", positions[0])]);
    drop(store);
    let again = verify(&to).unwrap();
    assert!(again.damage.is_empty(), "{again}");
}

#[tokio::test]
async fn of_a_damaged_table_all_else_is_taken() {
    let (directory, left, records) = killed().await;
    let tables = left.join("keyspaces").join((Space::Journal as usize + 1).to_string()).join("tables");
    let table = std::fs::read_dir(&tables).unwrap().next().unwrap().unwrap().path();
    edit(&table, |bytes| bytes[100] ^= 1);
    let to = directory.path().join("store2");
    let report = salvage(&left, &to).unwrap();
    assert_eq!(report.damage.len(), 1, "{report}");
    let store = open_spaces(&to).unwrap();
    let is_there = |((space, key), value): &(&(usize, Vec<u8>), &Vec<u8>)| {
        store.at(*space).get(key).unwrap().as_deref() == Some(value)
    };
    // The log still holds what was in the table.
    assert_eq!(records.iter().filter(|record| !is_there(record)).count(), 0, "{report}");
    drop(store);
    // Without the log only the table is left, and its blocks but one.
    let larger = directory.path().join("store3");
    {
        let store = EmbeddedStore::open(&StoreConfig { path: larger.clone(), ..config(directory.path()) }).unwrap();
        for id in 0..60 {
            create_large(&store, id).await;
        }
        create(&store, 1_000..1_010, true).await;
        into_tables(&store);
    }
    let tables = larger.join("keyspaces").join((Space::Journal as usize + 1).to_string()).join("tables");
    let table =
        files(&tables).into_iter().max_by_key(|table| std::fs::metadata(tables.join(table)).unwrap().len()).unwrap();
    edit(&tables.join(table), |bytes| bytes[1_500_000] ^= 1);
    for log in files(&larger).iter().filter(|file| file.extension().is_some_and(|ext| ext == "jnl")) {
        std::fs::remove_file(larger.join(log)).unwrap();
    }
    let to = directory.path().join("store4");
    let report = salvage(&larger, &to).unwrap();
    let store = open_spaces(&to).unwrap();
    let keys = store.at(Space::Journal as usize).iter().map(|guard| guard.key().unwrap());
    let left = keys.filter(|key| **key != *BatchHeader::KEY).count();
    assert_eq!(left, 60, "{left} of 61 entries: {report}");
    assert!(report.missing.iter().any(|line| line.contains("unreadable blocks")), "{report}");
}
