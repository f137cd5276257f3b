//! One flush transaction: fence, rows, dead letters, commit.
//!
//! The rows are stored by the executor of their capability; `bisect` finds those that can never be stored. Decides nothing
//! about when to flush, and never retries.

use std::time::Duration;

use sqlx::SqlStr;

use super::bisect::Search;
use crate::aside::{Around, Waiting, settled};
use crate::classify::{Class, Failure, commit_error, judge, sql_error};
use crate::engine::{Engine, FlushTexts, RowOf, StatementOf};
use crate::lease::within;
use crate::plans::PlanOf;
use crate::rows::Unstorable;
use crate::wire::{Batch, Fixed, Wire};
use crate::{Applied, Fence, Row, SqlError};
use weir_core::config::KindTable;
use weir_core::model::Incarnation;

/// How often a transaction is begun anew because a target was found locked of which something was written already.
const RESTARTS_MAX: usize = 4;
/// Ends well.
pub(crate) const COMMIT: &str = "COMMIT";
/// Ends without effect.
pub(crate) const ROLLBACK: &str = "ROLLBACK";

/// A flush, as it was asked for.
pub(crate) struct Flush<'a> {
    /// The kind.
    pub kind: &'a str,
    /// The checkpoints that move.
    pub fences: &'a [Fence],
    /// What is written.
    pub rows: &'a [Row],
    /// Around what.
    pub around: &'a Around,
    /// The time, in Unix milliseconds.
    pub now_ms: u64,
}

/// What one part of a flush did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// Rows really inserted.
    pub inserted: u64,
    /// Rows really deleted.
    pub deleted: u64,
    /// Counters to which something was added.
    pub updated: u64,
    /// Rows that can never be stored, found before a statement failed for them: index into the part, and the reason.
    pub dead: Vec<Unstorable>,
}

/// A row on its way to the dead letters.
pub(crate) struct Dead<'a> {
    /// The row.
    pub row: &'a Row,
    /// The life of the journal that it comes from.
    pub incarnation: Option<Incarnation>,
    /// What the database said.
    pub reason: &'a str,
}

/// A connection on which one flush transaction runs.
pub(crate) struct FlushTransaction<'a, E: Engine> {
    /// Its connection.
    pub connection: &'a mut E::Connection,
    /// The engine's dialect.
    pub dialect: E::Dialect,
    /// What is prepared for the kind's tables.
    pub plan: &'a PlanOf<E>,
    /// The kind's tables.
    pub table: &'a KindTable,
    /// How it begins, and waits for locks.
    pub texts: FlushTexts,
    /// Whether locks are not waited for now.
    pub is_probing: bool,
    /// Statements sent so far.
    pub statements: u64,
}

impl<'a, E: Engine> FlushTransaction<'a, E> {
    /// Begins nothing yet.
    pub fn new(
        connection: &'a mut E::Connection,
        dialect: E::Dialect,
        plan: &'a PlanOf<E>,
        table: &'a KindTable,
        texts: FlushTexts,
    ) -> Self {
        Self { connection, dialect, plan, table, texts, is_probing: false, statements: 0 }
    }

    /// Begins the transaction, for writing, at read committed, with constraints checked at once, and with its time limit for
    /// locks.
    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.statements += 1;
        self.connection.command(self.texts.begin.text()).await
    }

    /// From here on locks are not waited for, or again as long as they are from the beginning.
    async fn probe(&mut self, is_probing: bool) -> Result<(), sqlx::Error> {
        let text = if is_probing { &self.texts.probe } else { &self.texts.wait };
        let Some(text) = text.as_ref().map(Fixed::text) else { return Ok(()) };
        self.statements += 1;
        self.is_probing = is_probing;
        self.connection.command(text).await
    }

    /// Sends a text without parameters.
    pub(super) async fn command(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        self.statements += 1;
        self.connection.command(SqlStr::from_static(text)).await
    }

    /// Runs a statement, and reads its rows.
    pub(crate) async fn fetch(
        &mut self,
        statement: &StatementOf<E>,
        batch: &Batch<'_>,
    ) -> Result<Vec<RowOf<E>>, sqlx::Error> {
        self.statements += 1;
        self.connection.fetch(statement, batch).await
    }

    /// Runs a statement; the number of rows that it affected.
    pub(crate) async fn execute(&mut self, statement: &StatementOf<E>, batch: &Batch<'_>) -> Result<u64, sqlx::Error> {
        self.statements += 1;
        self.connection.execute(statement, batch).await
    }

    /// The batch of a read that locks, which waits as this flush does.
    pub(super) fn locking<'b>(&self, batch: Batch<'b>) -> Batch<'b> {
        batch.no_wait(self.is_probing && self.texts.has_no_wait)
    }

    /// Stores rows of one case, which are sorted by target and actor, and all that follows from them: all but those that
    /// it names, or an error.
    pub(crate) async fn store(&mut self, rows: &[&Row]) -> Result<Effect, sqlx::Error> {
        let stored = match self.plan {
            PlanOf::Toggle(plan) => self.store_toggles(plan, rows).await,
            PlanOf::Counter(plan) if matches!(rows, [Row::Event(_), ..]) => self.insert_events(plan, rows).await,
            PlanOf::Counter(plan) => self.add_counts(plan, rows).await,
            PlanOf::Ingest(plan) => self.insert_documents(plan, rows).await,
            PlanOf::Preference(plan) => self.store_preferences(plan, rows).await,
        };
        match stored {
            Ok(effect) => Ok(effect),
            Err(error) => Err(E::understood(self.connection, self.table, error).await),
        }
    }

    /// What in the tables themselves, read again, makes every row of this one's case fail, or what is known of them
    /// wrong: no row can be blamed then. `reason` is what the database said, if it said anything.
    pub(super) async fn mismatch(&mut self, row: &Row, reason: &str) -> Result<Option<String>, sqlx::Error> {
        let found = match self.plan {
            PlanOf::Toggle(plan) => self.toggle_mismatch(plan).await?,
            PlanOf::Counter(plan) => self.counter_mismatch(plan, row).await?,
            PlanOf::Ingest(plan) => self.document_mismatch(plan).await?,
            PlanOf::Preference(plan) => self.preference_mismatch(plan).await?,
        };
        match found {
            Some(problem) => Ok(Some(problem)),
            None => E::blamed_number(self.connection, self.table, reason).await,
        }
    }
}

/// Runs the transaction. After an error it is rolled back, and its connection must be closed.
pub(crate) async fn run<E: Engine>(
    transaction: &mut FlushTransaction<'_, E>,
    limit: Duration,
    flush: &Flush<'_>,
) -> Result<Applied, SqlError> {
    let mut waiting = Waiting::new();
    for _ in 0..=RESTARTS_MAX {
        let result = transact(transaction, limit, flush, &mut waiting).await;
        match result {
            Ok(Some(applied)) => return Ok(applied),
            // A target is stored whole or not at all: once more, without it.
            Ok(None) => within(limit, transaction.command(ROLLBACK)).await.map_err(sql_error)?,
            Err(error) => {
                if !matches!(error, SqlError::OutcomeUnknown(_)) {
                    // Frees the locks now rather than when the server notices the closed connection; it may be gone.
                    let _ = within(limit, transaction.command(ROLLBACK)).await;
                }
                return Err(error);
            }
        }
    }
    Err(SqlError::Locked("whatever is left out, something else is locked".into()))
}

/// `None` when it must be begun anew, without those that wait.
async fn transact<E: Engine>(
    transaction: &mut FlushTransaction<'_, E>,
    limit: Duration,
    flush: &Flush<'_>,
    waiting: &mut Waiting,
) -> Result<Option<Applied>, SqlError> {
    let Flush { kind, fences, rows, around, now_ms } = *flush;
    within(limit, transaction.begin()).await.map_err(sql_or_locked)?;
    if !fences.is_empty() {
        let mut ordered = fences.to_vec();
        ordered.sort_by_key(|fence| fence.from.partition);
        let moved = within(limit, transaction.fence(kind, &ordered)).await.map_err(sql_or_locked)?;
        if moved < ordered.len() as u64 {
            return Err(SqlError::Fenced);
        }
    }
    // Only the user's rows: a flush always waits for locks on weir's own rows.
    if around.set_aside {
        within(limit, transaction.probe(true)).await.map_err(sql_or_locked)?;
    }
    let Some(mut applied) = Search::new(flush, waiting).run(transaction, limit).await? else { return Ok(None) };
    if around.set_aside {
        within(limit, transaction.probe(false)).await.map_err(sql_or_locked)?;
    }
    if !applied.dead.is_empty() {
        let dead: Vec<Dead<'_>> = applied
            .dead
            .iter()
            .map(|(index, reason)| {
                let row = &rows[*index];
                let fence = fences.iter().find(|fence| fence.from.partition == row.partition());
                Dead { row, incarnation: fence.map(|fence| fence.from.incarnation), reason }
            })
            .collect();
        within(limit, transaction.write_dead_letters(kind, &dead, now_ms)).await.map_err(sql_or_locked)?;
    }
    applied.asides = settled(fences, around, rows, waiting)?;
    if !applied.asides.is_empty() {
        within(limit, transaction.set_aside(kind, &applied.asides)).await.map_err(sql_or_locked)?;
    }
    within(limit, transaction.command(COMMIT)).await.map_err(commit_error)?;
    applied.waiting = waiting.values().cloned().collect();
    applied.statements = transaction.statements;
    Ok(Some(applied))
}

/// A lock is not an outage.
pub(super) fn locked_or(failure: Failure) -> SqlError {
    match failure.class {
        Class::Locked => SqlError::Locked(failure.reason),
        _ => failure.into(),
    }
}

fn sql_or_locked(error: sqlx::Error) -> SqlError {
    locked_or(judge(&error))
}
