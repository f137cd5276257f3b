//! Checkpoints of partitions, and what was set aside of them: read, claimed, moved.

use std::collections::HashMap;

use sqlx::SqlStr;

use super::flush::FlushTransaction;
use crate::aside::{aside_row, targets_text};
use crate::engine::{Engine, StatementOf};
use crate::rows::{checkpoint, claimed, signed};
use crate::wire::{Batch, Record as _, Statement as _, Wire};
use crate::{Fence, identity};
use weir_core::model::{Aside, Checkpoint, DatabaseId, Incarnation, Partition};

/// The statements of weir's own tables of checkpoints.
#[derive(Debug)]
pub(crate) struct CheckpointStatements<S> {
    /// Checkpoints: kind, partitions; partition, incarnation, epoch, position.
    pub read: S,
    /// As `read`, locked in order.
    pub lock: S,
    /// Whether `fence` locks in an order of its own, so that several are locked first.
    pub locks_before_fence: bool,
    /// Moves checkpoints: kind, partitions, incarnations, epochs, from, to.
    pub fence: S,
    /// Creates rows: kind, partitions, incarnations.
    pub create: S,
    /// Sets rows: kind, partitions, incarnations, epochs, positions.
    pub set: S,
    /// Puts a checkpoint: kind, partition, position.
    pub place: S,
    /// What was set aside: kind; partition, position, ahead, incarnation, targets.
    pub asides: S,
    /// Nothing is set aside of a partition: kind, partition.
    pub aside_drop: S,
    /// Sets aside: kind, partition, incarnation, position, ahead, targets.
    pub aside_set: S,
}

/// Whose checkpoints are claimed, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// The database that it must be.
    pub database: Option<DatabaseId>,
    /// The kind.
    pub kind: &'a str,
    /// Its partitions, and the lives of their journals.
    pub wanted: &'a [(Partition, Incarnation)],
    /// Whether the epoch is raised of a row of the same life, too.
    pub take_over: bool,
}

/// Checkpoints by partition.
pub(crate) async fn read<E: Engine>(
    connection: &mut E::Connection,
    kind: &str,
    partitions: &[Partition],
) -> Result<HashMap<Partition, Checkpoint>, sqlx::Error> {
    read_by::<E>(connection, &(E::STATEMENTS.checkpoints)().read, kind, partitions).await
}

/// Checkpoints by partition, locked in order.
pub(crate) async fn lock<E: Engine>(
    connection: &mut E::Connection,
    kind: &str,
    partitions: &[Partition],
) -> Result<HashMap<Partition, Checkpoint>, sqlx::Error> {
    read_by::<E>(connection, &(E::STATEMENTS.checkpoints)().lock, kind, partitions).await
}

async fn read_by<E: Engine>(
    connection: &mut E::Connection,
    statement: &StatementOf<E>,
    kind: &str,
    partitions: &[Partition],
) -> Result<HashMap<Partition, Checkpoint>, sqlx::Error> {
    let mut found = HashMap::with_capacity(partitions.len());
    for part in statement.parts(partitions) {
        let batch = Batch::new().text(kind).partitions(part.iter().copied());
        for row in &connection.fetch(statement, &batch).await? {
            let read = checkpoint(row.integer(0)?, &row.text(1)?, row.integer(2)?, row.integer(3)?)?;
            found.insert(read.partition, read);
        }
    }
    Ok(found)
}

/// What was set aside of a kind.
pub(crate) async fn read_asides<E: Engine>(
    connection: &mut E::Connection,
    kind: &str,
) -> Result<Vec<Aside>, sqlx::Error> {
    let rows = connection.fetch(&(E::STATEMENTS.checkpoints)().asides, &Batch::new().text(kind)).await?;
    let aside = rows.iter().map(|row| {
        let numbers = [row.integer(0)?, row.integer(1)?, row.integer(2)?];
        aside_row(numbers, &row.text(3)?, &row.text(4)?)
    });
    aside.collect()
}

/// Refuses the database of this connection where it is not the one that is expected.
async fn check_id<E: Engine>(connection: &mut E::Connection, expected: Option<DatabaseId>) -> Result<(), sqlx::Error> {
    let Some(expected) = expected else { return Ok(()) };
    let read = connection.fetch(&E::own().meta_read, &Batch::new().text(identity::NAME)).await;
    let found = read.and_then(|rows| rows.first().map(|row| row.text(0)).transpose());
    identity::check(expected, found)
}

/// In a transaction of its own, which is refused in another database; the rows afterwards.
pub(crate) async fn claim<E: Engine>(
    connection: &mut E::Connection,
    begin: SqlStr,
    claim: Claim<'_>,
) -> Result<HashMap<Partition, Checkpoint>, sqlx::Error> {
    let Claim { database, kind, wanted, take_over } = claim;
    let statements = (E::STATEMENTS.checkpoints)();
    let mut ordered = wanted.to_vec();
    ordered.sort_unstable();
    connection.command(begin).await?;
    check_id::<E>(connection, database).await?;
    for part in statements.create.parts(&ordered) {
        let batch = Batch::new().text(kind).partitions(part.iter().map(|(partition, _)| *partition));
        connection.execute(&statements.create, &batch.uuids(part.iter().map(|(_, life)| life.0))).await?;
    }
    let partitions: Vec<Partition> = ordered.iter().map(|(partition, _)| *partition).collect();
    let mut rows = lock::<E>(connection, kind, &partitions).await?;
    let mut set: Vec<Checkpoint> = Vec::new();
    for (partition, life) in ordered {
        if let Some(row) = rows.get_mut(&partition)
            && let Some(changed) = claimed(row, life, take_over)
        {
            *row = changed;
            set.push(changed);
        }
    }
    for part in statements.set.parts(&set) {
        let batch = Batch::new().text(kind).partitions(part.iter().map(|row| row.partition));
        let batch = batch.uuids(part.iter().map(|row| row.incarnation.0)).integers(part.iter().map(|row| row.epoch));
        connection.execute(&statements.set, &batch.integers(part.iter().map(|row| signed(row.position)))).await?;
    }
    connection.command(SqlStr::from_static(super::flush::COMMIT)).await?;
    Ok(rows)
}

impl<E: Engine> FlushTransaction<'_, E> {
    /// Moves the checkpoints by compare-and-set, locking in partition order; how many it moved.
    pub(super) async fn fence(&mut self, kind: &str, fences: &[Fence]) -> Result<u64, sqlx::Error> {
        let statements = (E::STATEMENTS.checkpoints)();
        let batch = Batch::new().text(kind).partitions(fences.iter().map(|fence| fence.from.partition));
        if statements.locks_before_fence && fences.len() > 1 {
            self.execute(&statements.lock, &batch).await?;
        }
        let batch = batch.uuids(fences.iter().map(|fence| fence.from.incarnation.0));
        let batch = batch.integers(fences.iter().map(|fence| fence.from.epoch));
        let batch = batch.integers(fences.iter().map(|fence| signed(fence.from.position)));
        self.execute(&statements.fence, &batch.integers(fences.iter().map(|fence| signed(fence.to)))).await
    }

    /// Puts checkpoints where asides say, and writes these; of one without targets nothing is left.
    pub(super) async fn set_aside(&mut self, kind: &str, asides: &[Aside]) -> Result<(), sqlx::Error> {
        let statements = (E::STATEMENTS.checkpoints)();
        for aside in asides {
            let of_partition = || Batch::new().text(kind).partition(aside.partition);
            self.execute(&statements.place, &of_partition().integer(signed(aside.position))).await?;
            self.execute(&statements.aside_drop, &of_partition()).await?;
            if !aside.targets.is_empty() {
                let batch = of_partition().uuid(aside.incarnation.0).integer(signed(aside.position));
                let batch = batch.integer(signed(aside.ahead)).text(targets_text(aside));
                self.execute(&statements.aside_set, &batch).await?;
            }
        }
        Ok(())
    }
}
