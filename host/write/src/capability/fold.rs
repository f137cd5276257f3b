//! What a flush makes of the journal's changes: each capability folds its own into the rows that SQL is to write.

use weir_core::model::{Change, Origin};
use weir_policy::Rules;
use weir_sql::Row;

/// Gathers the changes of one kind for one flush.
pub trait Fold: Send {
    /// How many changes more may be read when `rows_max` rows may be written and `changes` were read.
    fn room(&self, rows_max: usize, changes: usize) -> usize {
        rows_max.saturating_sub(changes)
    }

    /// Takes the changes of one entry, in their order.
    ///
    /// # Errors
    /// [`OtherCapability`] where one of them is not of this capability. Nothing of them may be dropped.
    fn add(&mut self, origin: Origin, changes: Vec<Change>) -> Result<(), OtherCapability>;

    /// Whether [`Fold::rows`] asks the rules, which may take some milliseconds.
    fn asks_rules(&self) -> bool {
        false
    }

    /// The rows to write.
    fn rows(self: Box<Self>, kind: &str, rules: &Rules) -> Vec<Row>;
}

/// A change is of another capability than the kind: the kind has had another before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherCapability;

/// The fold of a kind that no capability claims: it refuses every change.
pub struct NoFold;

impl Fold for NoFold {
    fn add(&mut self, _origin: Origin, _changes: Vec<Change>) -> Result<(), OtherCapability> {
        Err(OtherCapability)
    }

    fn rows(self: Box<Self>, _kind: &str, _rules: &Rules) -> Vec<Row> {
        Vec::new()
    }
}
