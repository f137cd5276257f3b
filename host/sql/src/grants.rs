//! The rights that weir needs on each table, and no more: what `weir check` prints, so that its user need not own the
//! tables.
//!
//! Knows no engine. Pure: how a right is written is the engine's.

use std::collections::{BTreeMap, BTreeSet};

use super::Parent;
use weir_core::config::KindTable;

/// weir's own tables.
pub(super) const OWN_TABLES: [&str; 6] =
    ["weir_meta", "weir_checkpoint", "weir_dead_letter", "weir_journal", "weir_aside", "weir_journal_hole"];

/// The rights on one table; that to read is always one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rights {
    /// To insert rows.
    pub inserts: bool,
    /// To delete rows.
    pub deletes: bool,
    /// To change these columns.
    pub updates: BTreeSet<String>,
}

/// By table: what the kinds need of their own tables, of those that these lead to, and what reads need.
pub(super) fn needed<'a>(
    tables: impl Iterator<Item = &'a KindTable>,
    parents: &[Parent],
    reads: &[String],
) -> BTreeMap<String, Rights> {
    let mut needed: BTreeMap<String, Rights> = BTreeMap::new();
    for table in tables {
        match table {
            KindTable::Toggle(table) => {
                let rows = needed.entry(table.name.clone()).or_default();
                (rows.inserts, rows.deletes) = (true, true);
                if let Some(targets) = &table.targets {
                    needed.entry(targets.name.clone()).or_default().updates.extend(targets.count_column.clone());
                }
            }
            KindTable::Counter(table) => {
                needed.entry(table.name.clone()).or_default().updates.insert(table.count_column.clone());
                if let Some(events) = &table.events {
                    needed.entry(events.name.clone()).or_default().inserts = true;
                }
            }
            KindTable::Ingest(table) => {
                let children = table.children.iter().map(|child| &child.name);
                for name in std::iter::once(&table.name).chain(children) {
                    needed.entry(name.clone()).or_default().inserts = true;
                }
            }
            KindTable::Preference(table) => {
                let rows = needed.entry(table.name.clone()).or_default();
                rows.inserts = true;
                rows.updates.extend(table.fields.iter().map(|field| field.column.clone()));
                if let Some(members) = &table.members {
                    needed.entry(members.name.clone()).or_default();
                }
            }
        }
    }
    for name in parents.iter().map(|parent| &parent.table).chain(reads) {
        needed.entry(name.clone()).or_default();
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::config::{CounterConfig, IngestConfig, PreferenceConfig, ToggleConfig};

    #[test]
    fn each_kind_needs_what_it_does() {
        let tables = [
            KindTable::Toggle(ToggleConfig::demo().table),
            KindTable::Counter(CounterConfig::demo().table),
            KindTable::Ingest(IngestConfig::demo().table),
            KindTable::Preference(PreferenceConfig::demo().table),
        ];
        let needed = needed(tables.iter(), &[], &["concert_date".into()]);
        assert_eq!(needed["feed_like"], Rights { inserts: true, deletes: true, updates: BTreeSet::new() });
        assert_eq!(needed["feed"].updates, ["like_count".to_owned()].into());
        assert!(!needed["feed"].inserts && !needed["feed"].deletes);
        assert!(needed["playlist"].inserts && needed["playlist"].updates.is_empty());
        assert!(needed["notification_setting"].inserts && !needed["notification_setting"].updates.is_empty());
        assert_eq!(needed["concert_date"], Rights::default());
        assert!(needed.values().filter(|rights| rights.deletes).count() == 1, "only toggles are taken back");
    }
}
