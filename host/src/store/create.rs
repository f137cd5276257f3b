//! Creates as the store takes and answers them.

use std::sync::Arc;

use super::{Idempotency, StoreError};
use crate::model::{Digest, Document, Id, Partition, Position};

/// One request to create documents: all of them or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOp {
    /// The partition that all of its documents belong to. The caller's choice, and part of what it must remember of a
    /// document: with ids from outside it is the same for all documents of the kind, so that the same id is met again.
    pub partition: Partition,
    /// The documents, in order; ids are distinct. At least one.
    pub documents: Vec<Document>,
    /// The ids were just made: nothing can be there under them, so no state is asked for. Otherwise each must be known to
    /// be missing in SQL, or the result is [`CreateResult::Cold`].
    pub has_fresh_ids: bool,
    /// Present when the caller sent an `Idempotency-Key`.
    pub idempotency: Option<Idempotency>,
}

/// Requests of one kind, decided by one module, to be applied in order.
#[derive(Debug, Clone)]
pub struct CreateBatch {
    /// The module that decided them; goes into the journal.
    pub digest: Digest,
    /// When, in Unix milliseconds: the time of the documents.
    pub at_ms: u64,
    /// The time that ages and times to live are measured by, in milliseconds; it never jumps (see [`crate::clock`]).
    pub now_ms: u64,
    /// The requests. Each sees the documents of those before it.
    pub ops: Vec<CreateOp>,
}

impl CreateBatch {
    /// Refuses a partition that does not exist: nobody would ever flush it.
    pub(super) fn check(&self, partitions: Partition) -> Result<(), StoreError> {
        match self.ops.iter().find(|op| op.partition >= partitions) {
            None => Ok(()),
            Some(op) => Err(StoreError::Refused(format!("partition {} of {partitions}", op.partition))),
        }
    }
}

/// Result of one request, index-aligned with the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateResult {
    /// Accepted, or accepted before under the same idempotency key.
    Done(Created),
    /// A document with the id of the one at this index waits or is in SQL; the first that is known of. Nothing was done.
    Exists(usize),
    /// Whether these ids are in SQL is unknown: hydrate them, then apply the request again. Nothing was done.
    Cold(Vec<Id>),
    /// The idempotency key was used with another request. Nothing was done.
    IdempotencyConflict,
}

/// What became of an accepted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    /// The entry of its documents, in the journal of the partition that they were accepted in: of a repetition, the first
    /// time. Its entry may be gone from the journal by then.
    pub position: Position,
    /// When it was accepted, in Unix milliseconds: of a repetition, the first time.
    pub at_ms: u64,
    /// It was accepted before, under the same idempotency key.
    pub replayed: bool,
}

/// A document that waits in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingDocument {
    /// Its id.
    pub id: Id,
    /// Who created it.
    pub actor: Id,
    /// A JSON object, as text.
    pub body: Arc<str>,
    /// When it was accepted, in Unix milliseconds.
    pub at_ms: u64,
    /// Its partition.
    pub partition: Partition,
    /// Its entry.
    pub position: Position,
}
