//! The tables of the database (lsm-tree 3) on disk: one directory for each keyspace.
//!
//! ```text
//! keyspaces/K/current   number of the version u64 · xxh3 of its file u128 · 0
//! keyspaces/K/vN        an archive (sfa); section "tables": levels u8 · runs u8 · tables u32 · (id u64 · 0 · xxh3 u128 · seqno u64)
//! keyspaces/K/tables/T  a table: the whole file is under the checksum in the version
//! ```
//! The database checks blocks of tables when it reads them, and takes a keyspace without `current` for a new one. So all of this
//! is checked before the database opens. Keyspace 0 maps names to numbers.

use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use lsm_tree::{AbstractTree, AnyTree, SequenceNumberCounter};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::judge::Damage;

/// The directory of all keyspaces.
pub(in super::super) const KEYSPACES: &str = "keyspaces";
const CURRENT: &str = "current";
const TABLES: &str = "tables";

/// A table that a version names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct TableRef {
    pub(in super::super) id: u64,
    checksum: u128,
    /// Its record in the section.
    record: Range<usize>,
}

/// The current version of a keyspace.
#[derive(Debug)]
pub(in super::super) struct Version {
    pub(in super::super) number: u64,
    bytes: Vec<u8>,
    section: Range<usize>,
    pub(in super::super) tables: Vec<TableRef>,
}

/// The files of one keyspace.
#[derive(Debug, Default)]
pub(in super::super) struct Keyspace {
    pub(in super::super) number: u64,
    /// `None` when the keyspace was never created, or its version is unreadable.
    pub(in super::super) version: Option<Version>,
    /// It has no `current`.
    pub(in super::super) is_unmade: bool,
    /// Tables of the version that are damaged or missing.
    pub(in super::super) bad: Vec<u64>,
    pub(in super::super) damage: Vec<Damage>,
    /// Bytes read.
    pub(in super::super) bytes: u64,
}

fn damage(file: String, range: Option<Range<usize>>, why: impl Into<String>) -> Damage {
    Damage { file, range, why: why.into(), groups: None }
}

fn why(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound { "it has gone".into() } else { format!("it cannot be read: {error}") }
}

/// The directories of keyspaces, in order; any other directory is damage.
pub(in super::super) fn list(directory: &Path) -> io::Result<(Vec<u64>, Vec<Damage>)> {
    let (mut numbers, mut found) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(directory.join(KEYSPACES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((numbers, found)),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.parse() {
            Ok(number) if entry.file_type()?.is_dir() => numbers.push(number),
            _ => found.push(damage(format!("{KEYSPACES}/{name}"), None, "it is not of this store: take it away")),
        }
    }
    numbers.sort_unstable();
    Ok((numbers, found))
}

/// Reads all files of a keyspace.
pub(in super::super) fn check(directory: &Path, number: u64) -> Keyspace {
    let name = format!("{KEYSPACES}/{number}");
    let path = directory.join(&name);
    let mut keyspace = Keyspace { number, ..Keyspace::default() };
    match read_version(&path, &name) {
        Ok(Some(version)) => {
            for table in &version.tables {
                let file = format!("{name}/{TABLES}/{}", table.id);
                match checksum(&path.join(TABLES).join(table.id.to_string())) {
                    Ok((sum, bytes)) if sum == table.checksum => keyspace.bytes += bytes,
                    Ok(_) => keyspace.spoil(table.id, damage(file, None, "its checksum does not match")),
                    Err(error) => keyspace.spoil(table.id, damage(file, None, why(&error))),
                }
            }
            keyspace.version = Some(version);
        }
        Ok(None) => {
            keyspace.is_unmade = true;
            let has_tables = fs::read_dir(path.join(TABLES)).is_ok_and(|mut tables| tables.next().is_some());
            if has_tables || number == 0 {
                keyspace.damage.push(damage(format!("{name}/{CURRENT}"), None, "it has gone"));
            }
        }
        Err(found) => keyspace.damage.push(found),
    }
    keyspace
}

impl Keyspace {
    fn spoil(&mut self, table: u64, found: Damage) {
        self.bad.push(table);
        self.damage.push(found);
    }
}

fn checksum(path: &Path) -> io::Result<(u128, u64)> {
    let (mut file, mut sum, mut bytes) = (File::open(path)?, Xxh3::new(), 0);
    let mut chunk = vec![0; 256 * 1_024];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok((sum.digest128(), bytes)),
            len => {
                sum.update(&chunk[..len]);
                bytes += len as u64;
            }
        }
    }
}

fn read_version(path: &Path, name: &str) -> Result<Option<Version>, Damage> {
    let current = match fs::read(path.join(CURRENT)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(damage(format!("{name}/{CURRENT}"), None, why(&error))),
    };
    let parsed = || {
        let (number, rest) = current.split_first_chunk()?;
        let (sum, kind) = rest.split_first_chunk()?;
        (kind == [0]).then(|| (u64::from_le_bytes(*number), u128::from_le_bytes(*sum)))
    };
    let Some((number, sum)) = parsed() else {
        return Err(damage(format!("{name}/{CURRENT}"), None, "it is not as it was written"));
    };
    let file = format!("{name}/v{number}");
    let bytes = fs::read(path.join(format!("v{number}"))).map_err(|error| damage(file.clone(), None, why(&error)))?;
    if xxh3_128(&bytes) != sum {
        return Err(damage(file, None, format!("its checksum is not the one in {CURRENT}")));
    }
    let is_odd = || damage(file.clone(), None, "it is not as this version of weir knows it");
    let section = section(&bytes, b"tables").ok_or_else(is_odd)?;
    let tables = tables(&bytes[section.clone()]).ok_or_else(is_odd)?;
    Ok(Some(Version { number, bytes, section, tables }))
}

fn section(bytes: &[u8], name: &[u8]) -> Option<Range<usize>> {
    let reader = sfa::Reader::from_reader(&mut Cursor::new(bytes)).ok()?;
    let entry = reader.toc().section(name)?;
    let start = usize::try_from(entry.pos()).ok()?;
    let range = start..start + usize::try_from(entry.len()).ok()?;
    bytes.get(range.clone()).map(|_| range)
}

/// Bytes of a table's record: id, kind of checksum, checksum, sequence number.
const RECORD: usize = 8 + 1 + 16 + 8;

fn tables(section: &[u8]) -> Option<Vec<TableRef>> {
    let (mut at, mut found) = (0, Vec::new());
    let mut next = |len: usize| {
        let range = at..at + len;
        at += len;
        section.get(range.clone()).map(|bytes| (range, bytes))
    };
    for _ in 0..next(1)?.1[0] {
        for _ in 0..next(1)?.1[0] {
            for _ in 0..u32::from_le_bytes(next(4)?.1.try_into().ok()?) {
                let (record, bytes) = next(RECORD)?;
                let (id, rest) = bytes.split_first_chunk()?;
                let (_, rest) = rest.split_first()?;
                let checksum = u128::from_le_bytes(*rest.first_chunk()?);
                found.push(TableRef { id: u64::from_le_bytes(*id), checksum, record });
            }
        }
    }
    Some(found)
}

impl Version {
    /// The same version without the tables that `keep` rejects.
    fn with_only(&self, keep: impl Fn(u64) -> bool) -> Option<Vec<u8>> {
        let reader = sfa::Reader::from_reader(&mut Cursor::new(&self.bytes)).ok()?;
        let mut writer = sfa::Writer::from_writer(Cursor::new(Vec::new()));
        for entry in reader.toc().iter() {
            let name = std::str::from_utf8(entry.name()).ok()?;
            writer.start(name).ok()?;
            let bytes = &self.bytes[section(&self.bytes, entry.name())?];
            let kept = if name == "tables" { self.tables_with_only(&keep)? } else { bytes.to_vec() };
            io::Write::write_all(&mut writer, &kept).ok()?;
        }
        Some(writer.into_inner().ok()?.into_inner())
    }

    /// The section of tables, without runs that would be empty.
    fn tables_with_only(&self, keep: &impl Fn(u64) -> bool) -> Option<Vec<u8>> {
        let section = &self.bytes[self.section.clone()];
        let mut records = self.tables.iter().peekable();
        let (mut at, mut out) = (1, vec![*section.first()?]);
        for _ in 0..*section.first()? {
            let (mut runs, mut body) = (0_u8, Vec::new());
            let count = *section.get(at)?;
            at += 1;
            for _ in 0..count {
                let tables = u32::from_le_bytes(section.get(at..at + 4)?.try_into().ok()?);
                at += 4;
                let mut kept = Vec::new();
                for _ in 0..tables {
                    let table = records.next()?;
                    at += RECORD;
                    if keep(table.id) {
                        kept.push(&section[table.record.clone()]);
                    }
                }
                if !kept.is_empty() {
                    runs += 1;
                    body.extend((kept.len() as u32).to_le_bytes());
                    body.extend(kept.concat());
                }
            }
            out.push(runs);
            out.extend(body);
        }
        Some(out)
    }
}

/// Opens the tree of a keyspace in place. The database tidies up as usual.
pub(in super::super) fn open(directory: &Path, number: u64) -> lsm_tree::Result<AnyTree> {
    open_at(&directory.join(KEYSPACES).join(number.to_string()))
}

fn open_at(path: &Path) -> lsm_tree::Result<AnyTree> {
    lsm_tree::Config::new(path, SequenceNumberCounter::default(), SequenceNumberCounter::default()).open()
}

/// Opens the tree of a keyspace through links below `beside`, so that the original stays untouched, with the tables that `keep`
/// accepts. Empty without any version.
pub(in super::super) fn open_beside(
    directory: &Path,
    keyspace: &Keyspace,
    beside: &Path,
    keep: impl Fn(u64) -> bool,
) -> io::Result<AnyTree> {
    fs::create_dir_all(beside.join(TABLES))?;
    if let Some(version) = &keyspace.version {
        let bytes = version.with_only(&keep).ok_or_else(|| io::Error::other("the version cannot be written anew"))?;
        let current = [&version.number.to_le_bytes()[..], &xxh3_128(&bytes).to_le_bytes(), &[0]].concat();
        fs::write(beside.join(format!("v{}", version.number)), bytes)?;
        fs::write(beside.join(CURRENT), current)?;
        let tables = fs::canonicalize(directory.join(KEYSPACES).join(keyspace.number.to_string()).join(TABLES))?;
        for table in version.tables.iter().filter(|table| keep(table.id)) {
            let name = table.id.to_string();
            std::os::unix::fs::symlink(tables.join(&name), beside.join(TABLES).join(name))?;
        }
    }
    open_at(beside).map_err(io::Error::other)
}

/// The number of each keyspace by name, from keyspace 0.
pub(in super::super) fn numbers(meta: &AnyTree, names: &[&str]) -> lsm_tree::Result<Vec<Option<u64>>> {
    let mut numbers = vec![None; names.len()];
    let key = |number: u64| [&b"n"[..], &number.to_be_bytes()].concat();
    // Numbers are assigned in order and never reused.
    for number in 1..=4 * names.len() as u64 {
        let name = meta.get(key(number), lsm_tree::SeqNo::MAX)?;
        if let Some(place) = name.and_then(|name| names.iter().position(|known| known.as_bytes() == &*name)) {
            numbers[place] = Some(number);
        }
    }
    Ok(numbers)
}

/// A temporary directory, removed with its value.
pub(in super::super) struct Scratch(pub(in super::super) PathBuf);

impl Scratch {
    pub(in super::super) fn new() -> io::Result<Self> {
        let name = format!("weir-store-{}", uuid::Uuid::now_v7().simple());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
