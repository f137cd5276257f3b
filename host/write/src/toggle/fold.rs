//! What a flush makes of toggles: the rules say which changes are written, the others were overtaken by later ones.

use crate::capability::{Fold, OtherCapability};
use weir_core::model::{Change, Origin, ToggleChange};
use weir_policy::Rules;
use weir_sql::{Row, RowChange};

/// The toggles of one flush.
#[derive(Default)]
pub(super) struct ToggleFold {
    changes: Vec<ToggleChange>,
    /// Where each change comes from, index-aligned.
    origins: Vec<Origin>,
}

impl Fold for ToggleFold {
    fn add(&mut self, origin: Origin, changes: Vec<Change>) -> Result<(), OtherCapability> {
        for change in changes {
            let Change::Toggle(change) = change else { return Err(OtherCapability) };
            self.changes.push(change);
            self.origins.push(origin);
        }
        Ok(())
    }

    fn asks_rules(&self) -> bool {
        !self.changes.is_empty()
    }

    fn rows(self: Box<Self>, kind: &str, rules: &Rules) -> Vec<Row> {
        if self.changes.is_empty() {
            return Vec::new();
        }
        let kept = rules.coalesce(kind, &self.changes).kept;
        let row = |index: usize| {
            let (change, origin) = (self.changes.get(index)?, *self.origins.get(index)?);
            let ToggleChange { target, actor, action } = change.clone();
            Some(Row::Toggle(RowChange { origin, target, actor, action }))
        };
        kept.into_iter().filter_map(row).collect()
    }
}
