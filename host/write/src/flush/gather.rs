//! What one round takes from the journals: the capability folds the changes, this notes where they come from.

use std::collections::{BTreeMap, BTreeSet};

use crate::capability::{Fold, NoFold, OtherCapability};
use weir_core::journal::{Entry, Mark};
use weir_core::model::{Aside, Id, Origin, Partition};
use weir_sql::Fence;
use weir_store::StoreError;

/// Changes on their way into one transaction.
pub(super) struct Gathered {
    fold: Box<dyn Fold>,
    /// Changes that were read.
    pub(super) changes: usize,
    pub(super) fences: BTreeMap<Partition, Fence>,
    /// What is known of the last entry of each partition.
    pub(super) marks: BTreeMap<Partition, Mark>,
    /// What waits of partitions, when this is stored.
    pub(super) asides: BTreeMap<Partition, Aside>,
    touched: BTreeMap<Partition, BTreeSet<Id>>,
}

impl Gathered {
    /// Nothing yet.
    pub(super) fn new(fold: Box<dyn Fold>) -> Self {
        let (fences, marks, asides, touched) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { fold, changes: 0, fences, marks, asides, touched }
    }

    /// How many changes more may be read when `rows_max` rows may be written.
    pub(super) fn room(&self, rows_max: usize) -> usize {
        self.fold.room(rows_max, self.changes)
    }

    /// Takes the next entry of a partition.
    ///
    /// # Errors
    /// Changes of another capability: the kind has had another before. Nothing of them may be dropped.
    pub(super) fn add(&mut self, partition: Partition, entry: Entry) -> Result<(), StoreError> {
        let origin = entry.origin(partition);
        let touched = self.touched.entry(partition).or_default();
        for change in &entry.changes {
            // A target is often there already: then it is not cloned.
            if !touched.contains(change.target()) {
                touched.insert(change.target().clone());
            }
        }
        self.changes += entry.changes.len();
        self.fold.add(origin, entry.changes).map_err(|OtherCapability| other_capability(origin))
    }

    /// Takes the fold out, to make rows of it; nothing may be added afterwards.
    pub(super) fn take_fold(&mut self) -> Box<dyn Fold> {
        std::mem::replace(&mut self.fold, Box::new(NoFold))
    }

    /// The targets that changed in a partition.
    pub(super) fn touched(&mut self, partition: Partition) -> Vec<Id> {
        self.touched.remove(&partition).unwrap_or_default().into_iter().collect()
    }
}

fn other_capability(origin: Origin) -> StoreError {
    let Origin { partition, position, .. } = origin;
    StoreError::Damaged(format!(
        "the journal of this kind holds changes of another capability (partition {partition}, entry {position}): give the \
         kind its former capability until they are flushed, or the new one another name"
    ))
}
