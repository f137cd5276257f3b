//! What a flush needs: the checkpoints, one transaction for the rows, and the record of what was lost.
//!
//! Holds the role and its types; the engines implement it.

use std::time::Duration;

use async_trait::async_trait;

use super::DeadLetters;
use crate::{Around, JournalHole, Passed, Row, SqlError};
use weir_core::config::KindTable;
use weir_core::model::{Aside, Checkpoint, Incarnation, Partition, Position};

/// Compare-and-set of one partition's checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// What the row must hold now.
    pub from: Checkpoint,
    /// Where it moves.
    pub to: Position,
}

/// What a committed flush did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows really inserted.
    pub inserted: u64,
    /// Rows really deleted.
    pub deleted: u64,
    /// Counters to which something was added.
    pub updated: u64,
    /// Rows moved to the dead letters in the same transaction: index into the rows, and the reason.
    pub dead: Vec<(usize, String)>,
    /// Statements sent, for the figures.
    pub statements: u64,
    /// Rows of targets that were found locked and set aside, one of each: index into the rows, and what the database said.
    pub waiting: Vec<(usize, String)>,
    /// What holds now of the partitions of which something was set aside, or had been: without targets where that is over.
    pub asides: Vec<Aside>,
}

/// Takes the rows of flushes, and keeps the checkpoints that fence them.
#[async_trait]
pub trait Sink: DeadLetters {
    /// The checkpoint rows of the given partitions, in order; `None` where there is none yet.
    async fn checkpoints(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Option<Checkpoint>>, SqlError>;

    /// In a transaction that is refused by another database than the one that was pinned (see [`crate::Sql::pin`]):
    /// makes the row of each (partition, incarnation) hold at least that incarnation: creates it at position 0, or,
    /// when it holds a lesser one, sets the new incarnation, position 0 and epoch + 1 (which fences any host that
    /// flushes from the old one). With `take_over`, raises the epoch of a row that holds the same incarnation too. A
    /// row that holds a greater incarnation is left alone. Returns the rows afterwards, in order.
    async fn claim(
        &self,
        kind: &str,
        partitions: &[(Partition, Incarnation)],
        take_over: bool,
    ) -> Result<Vec<Checkpoint>, SqlError>;

    /// One transaction: fences (in partition order), then the rows in bulk. Of a toggle: delete, insert, and count deltas
    /// derived from the rows really changed. Of a counter: the sums are added (a target that is not there any more is a row
    /// that can never be stored), events inserted. Of creates: documents and what is nested in them are inserted. Of
    /// preferences: members without a row get one, then the fields that change are written. A row that
    /// can never be stored (constraint, type, length, range) is found by bisection under savepoints and moved alone to the
    /// dead letters within the same transaction; a document with all that is nested in it. A field that is missing or null
    /// becomes NULL, in a column that is NOT NULL and has a default the default. What an engine would cut, round to an
    /// integer or reinterpret is a value that can never be stored.
    async fn apply(
        &self,
        kind: &str,
        table: &KindTable,
        fences: &[Fence],
        rows: &[Row],
        now_ms: u64,
    ) -> Result<Applied, SqlError> {
        self.apply_around(kind, table, fences, rows, &Around::default(), now_ms).await
    }

    /// [`Sink::apply`] around targets that wait for a lock, whose rows are not among `rows`. The fences of their partitions
    /// say where the checkpoint was; where it goes is said by `around`.
    async fn apply_around(
        &self,
        kind: &str,
        table: &KindTable,
        fences: &[Fence],
        rows: &[Row],
        around: &Around,
        now_ms: u64,
    ) -> Result<Applied, SqlError>;

    /// What was set aside of a kind, as it was committed last.
    async fn asides(&self, kind: &str) -> Result<Vec<Aside>, SqlError>;

    /// Whether another session can lock single rows. Where not, nothing can be set aside.
    fn locks_rows(&self) -> bool;

    /// How long a flush waits for a lock.
    fn lock_timeout(&self) -> Duration;

    /// Which sessions hold the locks that sessions of this user wait for now, in dialect.
    async fn lock_holders(&self) -> Result<Vec<String>, SqlError>;

    /// Leaves a hole of a journal behind, in one transaction: compare-and-set of its checkpoint, which moves to the end of the
    /// hole and into another life, so that no host goes on in the one before; and the record of what was lost. So what
    /// was lost is recorded once, and never applied later. Returns the row afterwards.
    ///
    /// # Errors
    /// [`SqlError::Fenced`] when the row is another; nothing was done.
    async fn pass_hole(&self, kind: &str, passed: Passed<'_>, now_ms: u64) -> Result<Checkpoint, SqlError>;

    /// The newest holes of a kind (or of all), newest first; with `is_open` only unacknowledged ones.
    async fn journal_holes(
        &self,
        kind: Option<&str>,
        is_open: bool,
        limit: usize,
    ) -> Result<Vec<JournalHole>, SqlError>;

    /// Notes that an operator has seen the holes of a kind; how many were open.
    async fn acknowledge_holes(&self, kind: &str, now_ms: u64) -> Result<u64, SqlError>;
}
