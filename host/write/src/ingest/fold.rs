//! What a flush makes of creates: one row for each document.

use crate::capability::{Fold, OtherCapability};
use weir_core::model::{Change, DocumentChange, Origin};
use weir_policy::Rules;
use weir_sql::{DocumentRow, Row};

/// The documents of one flush.
#[derive(Default)]
pub(super) struct DocumentFold {
    rows: Vec<Row>,
}

impl Fold for DocumentFold {
    fn add(&mut self, origin: Origin, changes: Vec<Change>) -> Result<(), OtherCapability> {
        for change in changes {
            let Change::Document(DocumentChange { id, actor, body }) = change else { return Err(OtherCapability) };
            self.rows.push(Row::Document(DocumentRow { origin, id, actor, body }));
        }
        Ok(())
    }

    fn rows(self: Box<Self>, _kind: &str, _rules: &Rules) -> Vec<Row> {
        self.rows
    }
}
