//! What a flush makes of hits: one sum for each target, and each hit by itself where the kind keeps events.

use std::collections::HashMap;

use crate::capability::{Fold, OtherCapability};
use weir_core::model::{Change, CountChange, Id, Origin};
use weir_policy::Rules;
use weir_sql::{CountRow, EventRow, Row};

/// Changes that one flush reads at most, however few targets they concern.
const CHANGES_MAX: usize = 1_000_000;

/// The hits of one flush.
pub(super) struct CountFold {
    sums: HashMap<Id, CountRow>,
    events: Vec<EventRow>,
    keeps_events: bool,
}

impl CountFold {
    pub(super) fn new(keeps_events: bool) -> Self {
        Self { sums: HashMap::new(), events: Vec::new(), keeps_events }
    }
}

impl Fold for CountFold {
    // What is summed costs no row more.
    fn room(&self, rows_max: usize, changes: usize) -> usize {
        let rows_left = rows_max.saturating_sub(self.sums.len() + self.events.len());
        rows_left.min(CHANGES_MAX.saturating_sub(changes))
    }

    fn add(&mut self, origin: Origin, changes: Vec<Change>) -> Result<(), OtherCapability> {
        for change in changes {
            let Change::Count(CountChange { target, actor, by }) = change else { return Err(OtherCapability) };
            match self.sums.get_mut(&target) {
                Some(row) => (row.origin, row.by) = (origin, row.by.saturating_add(by)),
                None => {
                    let row = CountRow { origin, target: target.clone(), by };
                    self.sums.insert(target.clone(), row);
                }
            }
            if self.keeps_events {
                self.events.push(EventRow { origin, target, actor, by });
            }
        }
        Ok(())
    }

    fn rows(self: Box<Self>, _kind: &str, _rules: &Rules) -> Vec<Row> {
        let counts = self.sums.into_values().map(Row::Count);
        counts.chain(self.events.into_iter().map(Row::Event)).collect()
    }
}
