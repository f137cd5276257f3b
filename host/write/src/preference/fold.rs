//! What a flush makes of changes of settings: of each member the last value of each field.

use std::collections::HashMap;

use crate::capability::{Fold, OtherCapability};
use weir_core::model::{Change, Id, Origin, SettingsChange};
use weir_policy::Rules;
use weir_sql::{Row, SettingsRow};

/// The changes of one flush.
#[derive(Default)]
pub(super) struct SettingsFold {
    rows: HashMap<Id, SettingsRow>,
}

impl Fold for SettingsFold {
    fn add(&mut self, origin: Origin, changes: Vec<Change>) -> Result<(), OtherCapability> {
        for change in changes {
            let Change::Settings(SettingsChange { member, settings }) = change else { return Err(OtherCapability) };
            match self.rows.get_mut(&member) {
                Some(row) => (row.origin, row.settings) = (origin, settings.over(&row.settings)),
                None => {
                    let row = SettingsRow { origin, member: member.clone(), settings };
                    self.rows.insert(member, row);
                }
            }
        }
        Ok(())
    }

    fn rows(self: Box<Self>, _kind: &str, _rules: &Rules) -> Vec<Row> {
        self.rows.into_values().map(Row::Settings).collect()
    }
}
