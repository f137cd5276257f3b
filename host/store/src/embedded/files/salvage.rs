//! Readable data of a directory, and a report of missing data: for `weir store verify`, and into a new directory for `weir store
//! salvage`. Changes nothing in the directory.
//!
//! It takes log batches behind damage, and the intact part of damaged tables. It takes nothing from the damaged bytes themselves,
//! because a flipped bit may name another person's like. Journal entries name each other, so the flush of the new directory
//! notices missing ones, too, and keeps those that follow.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use lsm_tree::{AbstractTree, AnyTree, Guard, InternalValue, SeqNo, ValueType};

use super::super::layout::{HeadRecord, NAMES, SPACES, Space, Spaces, Writes, failed, position_of};
use super::batch_header::BatchHeader;
use super::inspect::{Findings, Place, inspect, read_data};
use super::trees::{Scratch, open_beside};
use super::wal::{Batch, Broken, Gap, Item, Piece, parse, scan};
use super::{lock, said, unreadable};
use crate::StoreError;
use weir_core::journal::entry;
use weir_core::model::{Partition, Position};

/// Bytes of one write into the new directory.
const WRITE_BYTES: usize = 4 << 20;

/// Consecutive unreadable blocks of a table after which the rest is given up.
const BLOCKS_LOST_MAX: u64 = 100_000;

/// The contents of a directory, and what is missing from it.
#[derive(Debug, Default)]
pub struct DirectoryReport {
    /// The damage: file, range, reason.
    pub damage: Vec<String>,
    /// The missing data, as far as it is known: kinds, partitions, positions, numbers of changes.
    pub missing: Vec<String>,
    /// Unacknowledged writes at the end of the log.
    pub torn: Vec<String>,
    /// The readable data.
    pub there: Vec<String>,
}

impl DirectoryReport {
    /// Whether nothing is damaged or missing.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && self.missing.is_empty()
    }
}

impl fmt::Display for DirectoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [("damaged", &self.damage), ("missing", &self.missing), ("torn", &self.torn), ("there", &self.there)];
        for (what, lines) in parts {
            lines.iter().try_for_each(|line| writeln!(f, "{what}: {line}"))?;
        }
        Ok(())
    }
}

/// Reads everything in a directory, and changes nothing.
///
/// # Errors
/// `Misconfigured` when it cannot be read, or another process has it open.
pub fn verify(directory: &Path) -> Result<DirectoryReport, StoreError> {
    if !directory.join(super::MARKER).exists() && !directory.join(super::trees::KEYSPACES).exists() {
        return Err(StoreError::Misconfigured(format!("{} holds no embedded store", directory.display())));
    }
    let _lock = lock(directory)?;
    let failed = |error: io::Error| unreadable(directory, &error);
    let scratch = Scratch::new().map_err(failed)?;
    let findings = inspect(directory, &Place::Beside(scratch.0.clone())).map_err(failed)?;
    let mut reading = Reading::open(directory, &findings, &scratch.0).map_err(failed)?;
    reading.report(directory, &findings, |_, _, _| Ok(()))
}

/// Copies the readable data into a directory that does not exist yet.
///
/// # Errors
/// As [`verify`]; and when the new directory cannot be written.
pub fn salvage(directory: &Path, to: &Path) -> Result<DirectoryReport, StoreError> {
    let is_taken = fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some());
    if is_taken {
        return Err(StoreError::Misconfigured(format!("{} is not empty; name a new directory", to.display())));
    }
    if !directory.is_dir() {
        return Err(StoreError::Misconfigured(format!("{} is no directory", directory.display())));
    }
    let _lock = lock(directory)?;
    let cannot = |error: io::Error| unreadable(directory, &error);
    let scratch = Scratch::new().map_err(cannot)?;
    let findings = inspect(directory, &Place::Beside(scratch.0.clone())).map_err(cannot)?;
    let mut reading = Reading::open(directory, &findings, &scratch.0).map_err(cannot)?;
    fs::create_dir_all(to).map_err(|error| unreadable(to, &error))?;
    let spaces = super::super::open_spaces(to)?;
    let mut writer = Copy { spaces: &spaces, writes: Writes::default(), bytes: 0 };
    let report = reading.report(directory, &findings, |space, key, value| writer.put(space, key, value))?;
    writer.flush(true)?;
    spaces.sync_mark();
    Ok(report)
}

struct Copy<'a> {
    spaces: &'a Spaces,
    writes: Writes,
    bytes: usize,
}

impl Copy<'_> {
    fn put(&mut self, space: usize, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.bytes += key.len() + value.len();
        self.writes[space].insert(key.to_vec(), Some(value.into()));
        if self.bytes > WRITE_BYTES { self.flush(false) } else { Ok(()) }
    }

    fn flush(&mut self, sync: bool) -> Result<(), StoreError> {
        self.bytes = 0;
        self.spaces.commit(std::mem::take(&mut self.writes), sync).map_err(failed)
    }
}

/// A (kind, partition), as keys begin.
type Where = (String, Partition);

fn place_of(key: &[u8]) -> Option<(Where, &[u8])> {
    let zero = key.iter().position(|byte| *byte == 0)?;
    let (partition, rest) = key.get(zero + 1..)?.split_first_chunk()?;
    Some(((String::from_utf8(key[..zero].to_vec()).ok()?, Partition::from_be_bytes(*partition)), rest))
}

/// The known part of the journal of one (kind, partition).
#[derive(Default)]
struct Journal {
    head: Option<HeadRecord>,
    entries: Vec<(Position, u64)>,
    /// Positions and changes of entries in damaged batches.
    spoiled: Vec<(Position, Option<u64>)>,
}

/// The directory as the database would see it, and the data behind damage.
struct Reading {
    trees: Vec<AnyTree>,
    journals: BTreeMap<Where, Journal>,
    /// Records of other keyspaces in damaged batches.
    spoiled: [u64; SPACES],
    missing: Vec<String>,
}

impl Reading {
    fn open(directory: &Path, findings: &Findings, scratch: &Path) -> io::Result<Self> {
        let (mut missing, mut trees) = (Vec::new(), Vec::new());
        for (index, number) in findings.numbers.iter().enumerate() {
            let number = number.unwrap_or(index as u64 + 1);
            let none = super::trees::Keyspace::default();
            let keyspace = findings.keyspaces.iter().find(|keyspace| keyspace.number == number).unwrap_or(&none);
            let place = |what: &str| scratch.join(format!("read-{number}-{what}"));
            let tree = open_beside(directory, keyspace, &place("whole"), |table| !keyspace.bad.contains(&table))?;
            for bad in &keyspace.bad {
                let only = open_beside(directory, keyspace, &place(&bad.to_string()), |table| table == *bad);
                let lost = match only {
                    Ok(only) => take_table(&tree, &only),
                    Err(_) => 1,
                };
                if lost > 0 {
                    let name = NAMES[index];
                    missing.push(format!(
                        "{name}: {lost} unreadable blocks of table {bad}; what was in them cannot be told"
                    ));
                }
            }
            if keyspace.version.is_none() && !keyspace.is_unmade && keyspace.number == number {
                missing.push(format!("{}: all that was in its tables", NAMES[index]));
            }
            trees.push(tree);
        }
        let mut reading = Self { trees, journals: BTreeMap::new(), spoiled: [0; SPACES], missing };
        reading.replay(findings)?;
        Ok(reading)
    }

    /// Replays the log over the tables.
    fn replay(&mut self, findings: &Findings) -> io::Result<()> {
        let newest = |(tree, keyspace): (&AnyTree, bool)| {
            // The log may hold data of a damaged table.
            if keyspace { None } else { tree.get_highest_persisted_seqno() }
        };
        let number_of = |index: usize| findings.numbers[index].unwrap_or(index as u64 + 1);
        let is_bad = |index: usize| {
            findings.keyspaces.iter().any(|keyspace| keyspace.number == number_of(index) && !keyspace.damage.is_empty())
        };
        let skip: Vec<Option<SeqNo>> =
            self.trees.iter().enumerate().map(|(index, tree)| newest((tree, is_bad(index)))).collect();
        let space_of = |keyspace: u64| (0..SPACES).find(|index| number_of(*index) == keyspace);
        let mut before = 0;
        for path in &findings.log {
            let Ok(bytes) = read_data(path) else { continue };
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let torn = findings.torn.iter().find(|(torn, _)| *torn == name).map(|(_, from)| *from);
            for piece in scan(&bytes, findings.salt) {
                match piece {
                    Piece::Batch(batch) if torn.is_some_and(|from| batch.range.start >= from) => {}
                    Piece::Gap(gap) if torn.is_some_and(|from| gap.range.start >= from) => {}
                    Piece::Batch(batch) => {
                        before = seqno(&batch, before);
                        let Ok(parsed) = parse(&bytes[batch.range]) else { continue };
                        for item in parsed.items {
                            let Some(space) = space_of(item.keyspace) else { continue };
                            if skip[space].is_none_or(|persisted| before > persisted) {
                                apply(&self.trees[space], &item, before);
                            }
                        }
                    }
                    Piece::Gap(gap) => self.describe(&bytes, &gap, space_of),
                }
            }
        }
        Ok(())
    }

    /// Records the content of a damaged batch, as far as it is known.
    fn describe(&mut self, bytes: &[u8], gap: &Gap, space_of: impl Fn(u64) -> Option<usize>) {
        let Err(Broken { items, .. }) = parse(&bytes[gap.range.clone()]) else { return };
        for item in items.iter().filter(|item| item.key != BatchHeader::KEY) {
            let Some(space) = space_of(item.keyspace) else { continue };
            let place = (space == Space::Journal as usize).then(|| place_of(item.key)).flatten();
            match (place, position_of(item.key), item.value) {
                (Some((place, _)), Some(position), Some(value)) => {
                    let changes = entry::decode(position, value).ok().map(|entry| entry.changes.len() as u64);
                    self.journals.entry(place).or_default().spoiled.push((position, changes));
                }
                (Some(_), ..) => {}
                (None, ..) => self.spoiled[space] += 1,
            }
        }
    }

    /// Reads everything, passes it on, and reports what is there and what is missing.
    fn report(
        &mut self,
        directory: &Path,
        findings: &Findings,
        mut take: impl FnMut(usize, &[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<DirectoryReport, StoreError> {
        let mut there = Vec::new();
        for (space, tree) in self.trees.iter().enumerate() {
            let (mut records, mut bytes) = (0_u64, 0);
            for guard in tree.iter(SeqNo::MAX, None) {
                let (key, value) = match guard.into_inner() {
                    Ok(record) => record,
                    Err(error) => {
                        self.missing.push(format!("{}: all behind a place that cannot be read: {error}", NAMES[space]));
                        break;
                    }
                };
                if *key == *BatchHeader::KEY {
                    continue;
                }
                (records, bytes) = (records + 1, bytes + key.len() + value.len());
                match note(&mut self.journals, space, &key, &value) {
                    Ok(true) => take(space, &key, &value)?,
                    Ok(false) => {}
                    Err(what) => self.missing.push(what),
                }
            }
            there.push(format!("{}: {records} records, {bytes} bytes", NAMES[space]));
        }
        let tables: usize =
            findings.keyspaces.iter().filter_map(|keyspace| Some(keyspace.version.as_ref()?.tables.len())).sum();
        let bytes: u64 = findings.keyspaces.iter().map(|keyspace| keyspace.bytes).sum();
        there.push(format!(
            "log: {} files, {} batches; {tables} tables, {bytes} bytes",
            findings.log.len(),
            findings.batches
        ));
        let mut missing = std::mem::take(&mut self.missing);
        for ((kind, partition), journal) in &self.journals {
            journal.say(kind, *partition, &mut missing, &mut there);
        }
        let others =
            self.spoiled.iter().enumerate().filter(|(space, count)| **count > 0 && *space != Space::Heads as usize);
        missing.extend(others.map(|(space, count)| format!("{}: {count} records in damaged batches", NAMES[space])));
        let torn = |(name, from): &(String, usize)| {
            format!(
                "{}, from byte {from}: was being written when the host ended, never acknowledged",
                directory.join(name).display()
            )
        };
        Ok(DirectoryReport {
            damage: findings.damage.iter().map(|damage| said(directory, damage)).collect(),
            missing,
            torn: findings.torn.iter().map(torn).collect(),
            there,
        })
    }
}

/// Records a journal record. Returns whether it can be taken: without a head it is unknown which entries SQL already has.
fn note(journals: &mut BTreeMap<Where, Journal>, space: usize, key: &[u8], value: &[u8]) -> Result<bool, String> {
    let is_odd = |what: &str| format!("{what} that is not as weir wrote it, at {}", key.escape_ascii());
    if space == Space::Heads as usize {
        let (place, _) = place_of(key).ok_or_else(|| is_odd("a head"))?;
        let head = HeadRecord::decode(value).ok_or_else(|| is_odd("a head"))?;
        journals.entry(place).or_default().head = Some(head);
    } else if space == Space::Journal as usize {
        let (place, _) = place_of(key).ok_or_else(|| is_odd("an entry"))?;
        let position = position_of(key).ok_or_else(|| is_odd("an entry"))?;
        let entry = entry::decode(position, value).map_err(|error| format!("{}: {error}", is_odd("an entry")))?;
        let journal = journals.entry(place).or_default();
        journal.entries.push((position, entry.changes.len() as u64));
        return Ok(journal.head.is_some());
    }
    Ok(true)
}

impl Journal {
    fn say(&self, kind: &str, partition: Partition, missing: &mut Vec<String>, there: &mut Vec<String>) {
        let at = format!("{kind}, partition {partition}");
        let known = self.head.map_or(0, |head| head.flushed);
        let waiting: Vec<&(Position, u64)> = self.entries.iter().filter(|(position, _)| *position > known).collect();
        let changes: u64 = waiting.iter().map(|(_, changes)| changes).sum();
        if let (Some((first, _)), Some((last, _))) = (waiting.first(), waiting.last()) {
            let entries = waiting.len();
            there.push(format!("{at}: {changes} changes wait in {entries} entries, positions {first} to {last}"));
        }
        let gone = self.spoiled.iter().filter(|(position, _)| self.entries.iter().all(|(known, _)| known != position));
        let mut told = 0;
        for (position, lost) in gone {
            told += lost.unwrap_or(0);
            let lost = lost.map_or("an unknown number of".to_owned(), |lost| lost.to_string());
            missing.push(format!("{at}: {lost} changes, the entry at position {position}"));
        }
        match self.head {
            Some(head) if head.entries > changes + told => {
                let lost = head.entries - changes - told;
                let from =
                    waiting.iter().map(|(position, _)| *position).take_while(|position| *position <= head.last).last();
                let from = from.unwrap_or(head.flushed);
                let upto = head.last;
                missing.push(if from == upto {
                    format!("{at}: {lost} changes between positions {} and {upto}", head.flushed)
                } else {
                    format!(
                        "{at}: {lost} changes between positions {} and {upto}, the newest that is there is at {from}",
                        head.flushed
                    )
                });
            }
            None if !self.entries.is_empty() => {
                missing.push(format!("{at}: its head; without it nobody knows which of the {changes} changes in its entries SQL has, so none is taken"));
            }
            _ => {}
        }
    }
}

/// The sequence number of a batch; where it is damaged, one that fits.
fn seqno(batch: &Batch, before: SeqNo) -> SeqNo {
    let min = batch.header.as_ref().map_or(0, |header| header.seqno_min).max(before + 1);
    let is_plausible =
        batch.seqno >= min && (batch.header.is_none() || batch.seqno - min <= super::judge::SEQNO_SKIP_MAX);
    if is_plausible { batch.seqno } else { min }
}

fn apply(tree: &AnyTree, item: &Item<'_>, seqno: SeqNo) {
    match item.value {
        Some(value) => drop(tree.insert(item.key, value, seqno)),
        None => drop(tree.remove(item.key, seqno)),
    }
}

/// Copies the readable part of a damaged table into `tree`. Returns how many of its blocks are unreadable.
fn take_table(tree: &AnyTree, damaged: &AnyTree) -> u64 {
    let mut lost = 0;
    for table in damaged.current_version().iter_tables() {
        let mut in_a_row = 0;
        for record in table.iter() {
            // Skip an unreadable block.
            let Ok(InternalValue { key, value }) = record else {
                (lost, in_a_row) = (lost + 1, in_a_row + 1);
                if in_a_row > BLOCKS_LOST_MAX {
                    break;
                }
                continue;
            };
            in_a_row = 0;
            match key.value_type {
                ValueType::Value => drop(tree.insert(key.user_key, value, key.seqno)),
                _ => drop(tree.remove(key.user_key, key.seqno)),
            }
        }
    }
    lost
}
