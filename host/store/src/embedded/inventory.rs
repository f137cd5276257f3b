//! Contents and owner of a directory: inventory without changes, binding to a database, deletion by an operator.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fjall::Readable;

use super::files::batch_header::BatchHeader;
use super::layout::{
    HeadRecord, Space, Spaces, Writes, check_version, damaged, failed, is_unproven, place_of, recorded_id,
    recorded_partitions,
};
use crate::{Binding, ForeignJournal, Inventory, KindInventory, StoreError};
use weir_core::journal::Head;
use weir_core::model::{DatabaseId, JournalId};

/// The database's lock file, held by the process that has it open.
const LOCK_FILE: &str = "lock";
/// Most keys of one deleting write.
const DROPPED_AT_ONCE: usize = 4_096;

/// The location of a directory: absolute, so that it can be found from elsewhere.
fn place(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    format!("embedded {}", absolute.display())
}

/// The inventory of the store in this directory; `None` where none was begun. Opening a database repairs the remains of a crash,
/// so this opens a copy.
///
/// # Errors
/// `InUse` by a running host; `Refused` or `Damaged` where it cannot be read.
pub(crate) fn inspect(path: &Path) -> Result<Option<Inventory>, StoreError> {
    let Some(copy) = copy_of(path)? else { return Ok(None) };
    let spaces = super::open_spaces(&copy.0)?;
    check_version(&spaces, path)?;
    read(&spaces, path).map(Some)
}

/// A copy of a directory that no process has open; `None` where none was begun.
///
/// # Errors
/// `InUse` by a running host; `Refused` where it cannot be read.
pub(super) fn copy_of(path: &Path) -> Result<Option<DirectoryCopy>, StoreError> {
    let Ok(lock) = File::open(path.join(LOCK_FILE)) else { return Ok(None) };
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(StoreError::InUse(path.display().to_string())),
        Err(fs::TryLockError::Error(error)) => {
            return Err(StoreError::Refused(format!("{}: {error}", path.display())));
        }
    }
    let copy = DirectoryCopy::of(path)
        .map_err(|error| StoreError::Refused(format!("cannot copy {}: {error}", path.display())))?;
    drop(lock);
    Ok(Some(copy))
}

/// A copy of a directory, removed with its value.
pub(super) struct DirectoryCopy(pub(super) PathBuf);

impl DirectoryCopy {
    fn of(path: &Path) -> std::io::Result<Self> {
        let copied = Self(std::env::temp_dir().join(format!("weir-look-{}", uuid::Uuid::new_v4().simple())));
        copy(path, &copied.0)?;
        Ok(copied)
    }
}

impl Drop for DirectoryCopy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a copy could not be removed");
        }
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// See [`crate::Ownership::inventory`].
pub(super) fn read(spaces: &Spaces, path: &Path) -> Result<Inventory, StoreError> {
    let mut kinds: BTreeMap<String, Vec<Head>> = BTreeMap::new();
    for guard in spaces.snapshot().iter(spaces.of(Space::Heads)) {
        let (key, value) = guard.into_inner().map_err(failed)?;
        if *key == *BatchHeader::KEY {
            continue;
        }
        let (kind, partition) = place_of(&key)?;
        let head = HeadRecord::decode(&value).ok_or_else(|| damaged("a head"))?;
        kinds.entry(kind.to_owned()).or_default().push(head.public(partition, 0));
    }
    let held = |(kind, heads)| KindInventory { kind, heads, is_flushed: false, is_taken: false };
    let kinds: Vec<KindInventory> = kinds.into_iter().map(held).collect();
    let (kinds, earlier) = if is_unproven(spaces)? { (Vec::new(), kinds) } else { (kinds, Vec::new()) };
    Ok(Inventory {
        partitions: recorded_partitions(spaces)?,
        place: place(path),
        journal: recorded_id(spaces, "journal")?.map(JournalId),
        database: recorded_id(spaces, "database")?.map(DatabaseId),
        kinds,
        earlier,
    })
}

/// See [`crate::Ownership::bind`]. The directory is locked, so the binding stays.
pub(super) fn bind(spaces: &Spaces, path: &Path, wanted: &Binding) -> Result<(), StoreError> {
    match recorded_id(spaces, "database")?.map(DatabaseId) {
        Some(owner) if owner == wanted.database => return Ok(()),
        Some(owner) if !wanted.is_forced => {
            return Err(ForeignJournal::new(&place(path), owner, Some(wanted.database)).into());
        }
        _ => {}
    }
    let mut writes = Writes::default();
    let system = &mut writes[Space::System as usize];
    system.insert(b"database".to_vec(), Some(wanted.database.0.into_bytes().into()));
    system.insert(b"unproven".to_vec(), None);
    spaces.commit(writes, true).map_err(failed)
}

/// See [`crate::Ownership::drop_kind`]. Deletes the heads last: they show that there is data.
pub(super) fn drop_kind(spaces: &Spaces, kind: &str) -> Result<(), StoreError> {
    let prefix = [kind.as_bytes(), &[0]].concat();
    for space in [Space::Journal, Space::Outcomes, Space::Uniques, Space::Heads] {
        drop_keys(spaces, space, &prefix)?;
    }
    Ok(())
}

/// See [`crate::Ownership::drop_all`]. The directory stays, with a journal without an owner.
pub(super) fn drop_all(spaces: &Spaces) -> Result<(), StoreError> {
    let all =
        [Space::Journal, Space::Outcomes, Space::Uniques, Space::Expiry, Space::Modules, Space::Rooms, Space::Heads];
    for space in all {
        drop_keys(spaces, space, &[])?;
    }
    let mut writes = Writes::default();
    let system = &mut writes[Space::System as usize];
    system.insert(b"database".to_vec(), None);
    system.insert(b"unproven".to_vec(), None);
    system.insert(b"journal".to_vec(), Some(uuid::Uuid::new_v4().into_bytes().into()));
    spaces.commit(writes, true).map_err(failed)
}

fn drop_keys(spaces: &Spaces, space: Space, prefix: &[u8]) -> Result<(), StoreError> {
    let keyspace = spaces.of(space);
    loop {
        let mut writes = Writes::default();
        for guard in spaces.snapshot().prefix(keyspace, prefix).take(DROPPED_AT_ONCE) {
            let (key, _) = guard.into_inner().map_err(failed)?;
            // The beacon stays: it shows how far the keyspace has been written to tables.
            if *key != *BatchHeader::KEY {
                writes[space as usize].insert(key.to_vec(), None);
            }
        }
        if writes[space as usize].is_empty() {
            return Ok(());
        }
        spaces.commit(writes, true).map_err(failed)?;
    }
}
