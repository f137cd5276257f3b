//! Creates as the script takes them, and its replies; waiting documents.

use std::cmp::Reverse;

use redis::Cmd;

use super::RedisStore;
use super::batch::{Envelope, Sent, write_tagged};
use super::link::Nature;
use super::reply::{Reply, unexpected};
use crate::text::tagged;
use crate::{Commit, CreateBatch, CreateOp, CreateResult, Created, PendingDocument, StoreError};
use weir_core::journal::entry::encode_document;
use weir_core::model::{Id, Partition, Position};

/// Most documents of one call that reads many: bounds how long one call occupies Redis.
const CALL_DOCUMENTS_MAX: usize = 200;

impl RedisStore {
    /// See [`crate::State::create`].
    pub(super) async fn apply_creates(
        &self,
        kind: &str,
        batch: &CreateBatch,
    ) -> Result<Commit<CreateResult>, StoreError> {
        batch.check(self.partitions)?;
        let step = |ops: Vec<CreateOp>| {
            let batch = CreateBatch { digest: batch.digest, at_ms: batch.at_ms, now_ms: batch.now_ms, ops };
            async move { self.create_step(kind, &batch).await }
        };
        match self.steps(&batch.ops, |op| op.partition) {
            Some(steps) => self.in_steps(&batch.ops, steps, step).await,
            None => self.create_step(kind, batch).await,
        }
    }

    async fn create_step(&self, kind: &str, batch: &CreateBatch) -> Result<Commit<CreateResult>, StoreError> {
        let mut sent: Vec<(usize, Partition)> =
            batch.ops.iter().enumerate().map(|(index, op)| (index, op.partition)).collect();
        sent.sort_by_key(|(_, partition)| *partition);
        let ops: Vec<&CreateOp> = sent.iter().map(|&(index, _)| &batch.ops[index]).collect();
        let envelope = Envelope {
            digest: &batch.digest,
            at_ms: batch.at_ms,
            now_ms: batch.now_ms,
            sent,
            keys: batch.ops.iter().map(|op| op.idempotency.as_ref()).collect(),
        };
        let arguments = |command: &mut Cmd| {
            for ops in ops.chunk_by(|a, b| a.partition == b.partition) {
                command.arg(ops.len());
                ops.iter().for_each(|op| operation_arguments(command, op));
            }
        };
        let one = |sent: &Sent, extra: &mut Reply| result(sent, &batch.ops[sent.index], batch.at_ms, extra);
        self.batch_call(&self.link.scripts.create, kind, &envelope, arguments, one).await
    }

    /// See [`crate::State::documents`].
    pub(super) async fn waiting_documents(
        &self,
        kind: &str,
        ids: &[(Partition, String)],
    ) -> Result<Vec<Option<PendingDocument>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let call = |ids: Vec<(Partition, String)>| async move { self.documents_call(kind, &ids).await };
        self.in_calls(ids, |(partition, _)| *partition, call).await
    }

    async fn documents_call(
        &self,
        kind: &str,
        ids: &[(Partition, String)],
    ) -> Result<Vec<Option<PendingDocument>>, StoreError> {
        let mut partitions: Vec<Partition> = ids.iter().map(|(partition, _)| *partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let names: Vec<String> = partitions.iter().map(|&partition| self.keys.head(kind, partition)).collect();
        let value = self
            .link
            .run(&self.link.scripts.documents, Nature::Reads, &names, |command| {
                for (partition, id) in ids {
                    // Lua counts from 1.
                    command.arg(partitions.partition_point(|other| other < partition) + 1).arg(id);
                }
            })
            .await?;
        let mut reply = Reply::of(value)?;
        ids.iter().map(|(partition, _)| reply.document(*partition)).collect()
    }

    /// See [`crate::State::documents_of`].
    pub(super) async fn waiting_documents_of(
        &self,
        kind: &str,
        actor: &Id,
        limit: usize,
    ) -> Result<Vec<PendingDocument>, StoreError> {
        let all: Vec<Partition> = (0..self.partitions).collect();
        let call = |partitions: Vec<Partition>| async move { self.owned_call(kind, actor, limit, &partitions).await };
        let owned = self.in_calls(&all, |partition| *partition, call).await?;
        let mut found: Vec<(Position, String, Partition)> = owned.into_iter().flatten().collect();
        found.sort_unstable_by(|a, b| Reverse(a).cmp(&Reverse(b)));
        let newest: Vec<(Partition, String)> =
            found.into_iter().take(limit).map(|(_, id, partition)| (partition, id)).collect();
        let mut documents = Vec::with_capacity(newest.len());
        for some in newest.chunks(CALL_DOCUMENTS_MAX) {
            // Documents that are gone by now do not wait any more.
            documents.extend(self.waiting_documents(kind, some).await?.into_iter().flatten());
        }
        Ok(documents)
    }
}

impl RedisStore {
    /// An actor's waiting documents in each of `partitions`.
    async fn owned_call(
        &self,
        kind: &str,
        actor: &Id,
        limit: usize,
        partitions: &[Partition],
    ) -> Result<Vec<Vec<(Position, String, Partition)>>, StoreError> {
        let names: Vec<String> = partitions.iter().map(|&partition| self.keys.head(kind, partition)).collect();
        let value = self
            .link
            .run(&self.link.scripts.owned, Nature::Reads, &names, |command| {
                command.arg(tagged(actor)).arg(u32::try_from(limit).unwrap_or(u32::MAX));
            })
            .await?;
        let mut reply = Reply::of(value)?;
        let one = |&partition: &Partition| {
            let (mut owned, mut found) = (reply.list()?, Vec::new());
            while !owned.is_empty() {
                let id = owned.text()?;
                found.push((owned.number()?, id, partition));
            }
            Ok(found)
        };
        partitions.iter().map(one).collect()
    }
}

/// See `create.lua`.
fn operation_arguments(command: &mut Cmd, op: &CreateOp) {
    command.arg(op.documents.len()).arg(u8::from(!op.has_fresh_ids));
    let mut buffer = Vec::new();
    for document in &op.documents {
        for id in [&document.id, &document.actor] {
            buffer.clear();
            write_tagged(&mut buffer, id);
            command.arg(&buffer);
        }
        buffer.clear();
        encode_document(&mut buffer, &document.id, &document.actor, &document.body);
        // The body ends the record. Lua counts from 1.
        command.arg(&buffer).arg(buffer.len() - document.body.len() + 1);
    }
}

/// Decodes the letter of an operation. `extra` is at its extra numbers, if it has some.
fn result(sent: &Sent, op: &CreateOp, at_ms: u64, extra: &mut Reply) -> Result<CreateResult, StoreError> {
    match sent.letter {
        b'd' => Ok(CreateResult::Done(Created { position: sent.entry, at_ms, replayed: false })),
        b'e' => Ok(CreateResult::Exists(index(extra)?)),
        b'c' => {
            let id = |index: usize| op.documents.get(index).map(|document| document.id.clone());
            let cold = (0..extra.number()?).map(|_| id(index(extra)?).ok_or_else(|| unexpected("an index")));
            cold.collect::<Result<_, _>>().map(CreateResult::NotLoaded)
        }
        b'x' => Ok(CreateResult::IdempotencyConflict),
        b'r' => {
            let first = extra.outcome()?;
            Ok(CreateResult::Done(Created { position: first.position, at_ms: first.count, replayed: true }))
        }
        _ => Err(unexpected("the letter of a result")),
    }
}

fn index(extra: &mut Reply) -> Result<usize, StoreError> {
    usize::try_from(extra.number()?).map_err(|_| unexpected("an index"))
}
