//! What one round takes from the journals, gathered as SQL will be told: toggles as they are, increments summed by target,
//! documents one by one, settings laid over each other by member.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::config::KindTable;
use crate::journal::{Entry, Mark};
use crate::model::{Aside, Change, Digest, Id, Partition, Position, Settings, ToggleChange};
use crate::sql::{CountRow, DocumentRow, EventRow, Fence, Row, RowChange, SettingsRow};
use crate::store::StoreError;

/// Changes of counters that one round reads at most, however few targets they concern.
const SUMMED_CHANGES_MAX: usize = 1_000_000;

/// See the room's text.
pub(super) struct Gathered {
    what: What,
    /// Changes that were read.
    pub(super) changes: usize,
    pub(super) fences: BTreeMap<Partition, Fence>,
    /// What is known of the last entry of each partition.
    pub(super) marks: BTreeMap<Partition, Mark>,
    /// What waits of partitions, when this is stored.
    pub(super) asides: BTreeMap<Partition, Aside>,
    touched: BTreeMap<Partition, BTreeSet<Id>>,
}

enum What {
    Toggles {
        changes: Vec<ToggleChange>,
        /// Where each change comes from, index-aligned.
        origins: Vec<(Partition, Position, Digest)>,
    },
    Counts {
        sums: HashMap<Id, CountRow>,
        events: Vec<EventRow>,
        keeps_events: bool,
    },
    Documents(Vec<DocumentRow>),
    Settings(HashMap<Id, SettingsRow>),
}

impl Gathered {
    /// Nothing yet, for the tables of a kind.
    pub(super) fn new(table: &KindTable) -> Self {
        let what = match table {
            KindTable::Toggle(_) => What::Toggles { changes: Vec::new(), origins: Vec::new() },
            KindTable::Counter(table) => {
                What::Counts { sums: HashMap::new(), events: Vec::new(), keeps_events: table.events.is_some() }
            }
            KindTable::Ingest(_) => What::Documents(Vec::new()),
            KindTable::Preference(_) => What::Settings(HashMap::new()),
        };
        let (fences, marks, asides, touched) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { what, changes: 0, fences, marks, asides, touched }
    }

    /// How many changes more may be read when `rows_max` rows may be written.
    pub(super) fn room(&self, rows_max: usize) -> usize {
        match &self.what {
            // What is summed costs no row more.
            What::Counts { sums, events, .. } => {
                let rows_left = rows_max.saturating_sub(sums.len() + events.len());
                rows_left.min(SUMMED_CHANGES_MAX.saturating_sub(self.changes))
            }
            _ => rows_max.saturating_sub(self.changes),
        }
    }

    /// Takes the next entry of a partition; how many changes that were.
    ///
    /// # Errors
    /// Changes of another capability: the kind has had another before. Nothing of them may be dropped.
    pub(super) fn add(&mut self, partition: Partition, entry: Entry) -> Result<usize, StoreError> {
        let Entry { position, digest, changes, .. } = entry;
        let touched = self.touched.entry(partition).or_default();
        let count = changes.len();
        for change in changes {
            if !touched.contains(change.target()) {
                touched.insert(change.target().clone());
            }
            self.changes += 1;
            match (&mut self.what, change) {
                (What::Toggles { changes, origins }, Change::Toggle(change)) => {
                    origins.push((partition, position, digest));
                    changes.push(change);
                }
                (What::Counts { sums, events, keeps_events }, Change::Count(change)) => {
                    let row = sums.entry(change.target.clone()).or_insert_with(|| CountRow {
                        partition,
                        target: change.target.clone(),
                        by: 0,
                        at_ms: 0,
                        position,
                        digest,
                    });
                    row.by = row.by.saturating_add(change.by);
                    (row.at_ms, row.position, row.digest) = (change.at_ms, position, digest);
                    if *keeps_events {
                        let (target, actor, by, at_ms) = (change.target, change.actor, change.by, change.at_ms);
                        events.push(EventRow { partition, target, actor, by, at_ms, position, digest });
                    }
                }
                (What::Documents(rows), Change::Document(change)) => {
                    let (id, actor, body, at_ms) = (change.id, change.actor, change.body, change.at_ms);
                    rows.push(DocumentRow { partition, id, actor, body, at_ms, position, digest });
                }
                (What::Settings(rows), Change::Settings(change)) => {
                    let row = rows.entry(change.member.clone()).or_insert_with(|| SettingsRow {
                        partition,
                        member: change.member.clone(),
                        settings: Settings::default(),
                        at_ms: 0,
                        position,
                        digest,
                    });
                    // The last value of each field.
                    row.settings = change.settings.over(&row.settings);
                    (row.at_ms, row.position, row.digest) = (change.at_ms, position, digest);
                }
                _ => return Err(other_capability(partition, position)),
            }
        }
        Ok(count)
    }

    /// The changes of toggles, which the policy coalesces; empty for all others.
    pub(super) fn take_toggles(&mut self) -> Vec<ToggleChange> {
        match &mut self.what {
            What::Toggles { changes, .. } => std::mem::take(changes),
            _ => Vec::new(),
        }
    }

    /// The rows to write. `kept` are the indexes of the toggles that survive.
    pub(super) fn rows(&mut self, toggles: Vec<ToggleChange>, kept: &[usize]) -> Vec<Row> {
        match &mut self.what {
            What::Toggles { origins, .. } => kept
                .iter()
                .filter_map(|&index| {
                    let (change, (partition, position, digest)) = (toggles.get(index)?, *origins.get(index)?);
                    Some(Row::Toggle(RowChange {
                        partition,
                        target: change.target.clone(),
                        actor: change.actor.clone(),
                        action: change.action,
                        at_ms: change.at_ms,
                        position,
                        digest,
                    }))
                })
                .collect(),
            What::Counts { sums, events, .. } => {
                let counts = std::mem::take(sums).into_values().map(Row::Count);
                counts.chain(std::mem::take(events).into_iter().map(Row::Event)).collect()
            }
            What::Documents(rows) => std::mem::take(rows).into_iter().map(Row::Document).collect(),
            What::Settings(rows) => std::mem::take(rows).into_values().map(Row::Settings).collect(),
        }
    }

    /// The targets that changed in a partition.
    pub(super) fn touched(&mut self, partition: Partition) -> Vec<Id> {
        self.touched.remove(&partition).unwrap_or_default().into_iter().collect()
    }
}

fn other_capability(partition: Partition, position: Position) -> StoreError {
    StoreError::Damaged(format!(
        "the journal of this kind holds changes of another capability (partition {partition}, entry {position}): give the \
         kind its former capability until they are flushed, or the new one another name"
    ))
}
