//! A batch of creates: checks for existing ids, appends the documents, and records their places.

use std::collections::HashSet;

use super::batch::{self, Works};
use super::outcome::{Before, Outcome, Outcomes};
use super::pending::Waiting;
use super::state::State;
use super::target::Mode;
use super::transaction::Transaction;
use crate::{Commit, CreateBatch, CreateOp, CreateResult, Created, StoreError};
use weir_core::journal::entry;
use weir_core::model::{Document, Id, Partition};

struct Apply<'a> {
    state: &'a mut State,
    kind: usize,
    batch: &'a CreateBatch,
    works: Works,
    outcomes: Outcomes,
}

/// What the store knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// A document with it waits or is in SQL.
    Taken,
    /// No document has it.
    Free,
    /// Not loaded: SQL must answer.
    NotLoaded,
}

/// Applies `batch`. See [`crate::State::create`].
pub(super) fn create(
    transaction: &mut Transaction<'_>,
    state: &mut State,
    (partitions, idempotency_ttl_ms): (Partition, u64),
    kind: &str,
    batch: &CreateBatch,
) -> Result<Commit<CreateResult>, StoreError> {
    let now_ms = batch.now_ms;
    batch.check(partitions)?;
    let works = batch::enter(transaction, kind, batch.ops.iter().map(|op| op.partition), now_ms)?;
    let keys = batch.ops.iter().filter_map(|op| op.idempotency.as_ref());
    let outcomes = Outcomes::read(transaction, kind, (now_ms, idempotency_ttl_ms), keys)?;

    // Nothing fails from here on.
    let place = state.kind(kind);
    let mut apply = Apply { state, kind: place, batch, works, outcomes };
    let mut results = Vec::with_capacity(batch.ops.len());
    for op in &batch.ops {
        let result = apply.one(op);
        if let Some(idempotency) = &op.idempotency
            && let CreateResult::Done(Created { position, at_ms, replayed: false }) = result
        {
            let outcome = Outcome { denied: false, active: false, changed: true, number: at_ms, position, rate: None };
            apply.outcomes.remember(transaction, kind, idempotency, outcome);
        }
        results.push(result);
    }
    let Apply { state, works, .. } = apply;
    Ok(Commit { results, heads: batch::leave(transaction, state, kind, works, batch.at_ms) })
}

impl Apply<'_> {
    fn one(&mut self, op: &CreateOp) -> CreateResult {
        match self.outcomes.before(op.idempotency.as_ref()) {
            Before::New => {}
            Before::Again(Outcome { position, number, .. }) => {
                return CreateResult::Done(Created { position, at_ms: number, replayed: true });
            }
            Before::Conflict => return CreateResult::IdempotencyConflict,
        }
        let (mut cold, mut seen) = (Vec::new(), HashSet::new());
        for (index, document) in op.documents.iter().enumerate() {
            match self.known(op, &document.id) {
                Known::Taken => return CreateResult::Exists(index),
                // The same id twice in one request.
                _ if !seen.insert(&document.id) => return CreateResult::Exists(index),
                Known::Free => {}
                Known::NotLoaded => cold.push(document.id.clone()),
            }
        }
        if !cold.is_empty() {
            return CreateResult::NotLoaded(cold);
        }
        let mut position = 0;
        for document in &op.documents {
            position = self.append(op, document);
        }
        CreateResult::Done(Created { position, at_ms: self.batch.at_ms, replayed: false })
    }

    fn known(&mut self, op: &CreateOp, id: &Id) -> Known {
        let now_ms = self.batch.now_ms;
        let Some(known) = self.state.known(self.kind, op.partition) else { return Known::NotLoaded };
        if known.pending.get(id).is_some() {
            return Known::Taken;
        }
        match known.targets.get(id).filter(|target| target.is_known(now_ms)).map(|target| target.mode) {
            Some(Mode::Exists) => Known::Taken,
            Some(Mode::Missing) => Known::Free,
            _ if op.has_fresh_ids => Known::Free,
            _ => Known::NotLoaded,
        }
    }

    /// Appends a document. Returns the position of its entry.
    fn append(&mut self, op: &CreateOp, document: &Document) -> u64 {
        let Some(work) = self.works.get_mut(&op.partition) else { return 0 };
        let entry = work.record(&self.batch.digest, self.batch.at_ms, 1);
        let waiting = Waiting {
            place: entry.len(),
            actor: document.actor.clone(),
            is_asked_again: !op.has_fresh_ids,
            group: self.state.group,
            position: 0,
        };
        entry.push(entry::DOCUMENT);
        entry::encode_document(entry, &document.id, &document.actor, &document.body);
        let waiting = Waiting { position: work.position, ..waiting };
        let (place, position) = ((self.kind, op.partition), work.position);
        // The id is no longer missing, not even after the flush.
        self.state.remove(place, &document.id);
        self.state.with_pending(place, |pending| pending.insert(document.id.clone(), waiting));
        position
    }
}
