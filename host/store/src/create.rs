//! The store's requests and results for creates.

use std::sync::Arc;

use super::{Idempotency, StoreError};
use weir_core::model::{Digest, Document, Id, Partition, Position};

/// One request to create documents: all of them or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOp {
    /// The partition that all of its documents belong to. The caller's choice, and part of what it must remember of a
    /// document: with ids from outside it is the same for all documents of the kind, so that the same id is met again.
    pub partition: Partition,
    /// The documents, in order; ids are distinct. At least one.
    pub documents: Vec<Document>,
    /// The ids were freshly made, so no document can have them and no state is needed. Otherwise each must be known to be missing in
    /// SQL, or the result is [`CreateResult::NotLoaded`].
    pub has_fresh_ids: bool,
    /// Present when the caller sent an `Idempotency-Key`.
    pub idempotency: Option<Idempotency>,
}

/// Requests of one kind, decided by one module, to be applied in order.
#[derive(Debug, Clone)]
pub struct CreateBatch {
    /// The module that decided them; recorded in the journal.
    pub digest: Digest,
    /// Unix time in milliseconds: the time of the documents.
    pub at_ms: u64,
    /// The time that ages and times to live are measured by, in milliseconds; it never jumps (see [`weir_core::clock`]).
    pub now_ms: u64,
    /// The requests. Each sees the documents of those before it.
    pub ops: Vec<CreateOp>,
}

impl CreateBatch {
    /// Refuses a partition that does not exist: no flusher would ever handle it.
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
    /// A document with the id of the one at this index waits or is in SQL; the first such index. Nothing was done.
    Exists(usize),
    /// These ids are not loaded: hydrate them, then apply the request again. Nothing was done.
    NotLoaded(Vec<Id>),
    /// The idempotency key was used with another request. Nothing was done.
    IdempotencyConflict,
}

/// The outcome of an accepted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    /// The entry of its documents, in the journal of their partition; for a repetition, that of the first time. The entry may have
    /// been trimmed since.
    pub position: Position,
    /// When it was accepted, in Unix milliseconds; for a repetition, the first time.
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
