//! Settings of members: a batch of changes as the script takes it, and lookups of many members.
//!
//! A lookup is one call per partition, all in flight together. The field '' of a member packs all of its settings, so that one
//! command reads a member; the host checks and unpacks it.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use redis::{Cmd, Value};

use super::RedisStore;
use super::batch::{Envelope, Sent, Target, by_target, sent_by_target, size, write_id};
use super::link::Nature;
use super::reply::{Outcome, Reply, unexpected};
use crate::{Commit, MemberRead, SettingsBatch, SettingsOp, SettingsOutcome, SettingsResult, StoreError};
use weir_core::journal::entry::encode_settings;
use weir_core::model::{Id, Partition, Settings, partition_of};

/// Most members of one call: bounds how long a lookup occupies Redis, about a millisecond.
const MEMBERS_PER_CALL: usize = 1_000;
/// The header of the field '' of a member: see `read_meta` in `prelude.lua`.
const META_BYTES: usize = 30;
/// The place of the life in it.
const LIFE: std::ops::Range<usize> = 2..14;

impl RedisStore {
    /// See [`crate::State::put_settings`].
    pub(super) async fn apply_settings(
        &self,
        kind: &str,
        batch: &SettingsBatch,
    ) -> Result<Commit<SettingsResult>, StoreError> {
        let step = |ops: Vec<SettingsOp>| {
            let batch = SettingsBatch { digest: batch.digest, at_ms: batch.at_ms, now_ms: batch.now_ms, ops };
            async move { self.settings_step(kind, &batch).await }
        };
        match self.steps(&batch.ops, |op| partition_of(&op.member, self.partitions)) {
            Some(steps) => self.in_steps(&batch.ops, steps, step).await,
            None => self.settings_step(kind, batch).await,
        }
    }

    async fn settings_step(&self, kind: &str, batch: &SettingsBatch) -> Result<Commit<SettingsResult>, StoreError> {
        let targets = by_target(batch.ops.iter().map(|op| &op.member), self.partitions);
        let envelope = Envelope {
            digest: &batch.digest,
            at_ms: batch.at_ms,
            now_ms: batch.now_ms,
            sent: sent_by_target(&targets),
            keys: batch.ops.iter().map(|op| op.idempotency.as_ref()).collect(),
        };
        let arguments = |command: &mut Cmd| {
            for targets in targets.chunk_by(|a, b| a.partition == b.partition) {
                partition_arguments(command, batch, targets);
            }
        };
        self.batch_call(&self.link.scripts.put_settings, kind, &envelope, arguments, result).await
    }

    /// See [`crate::State::settings`].
    pub(super) async fn read_settings(&self, kind: &str, members: &[Id]) -> Vec<Result<MemberRead, StoreError>> {
        let mut by_partition: BTreeMap<Partition, Vec<usize>> = BTreeMap::new();
        for (index, member) in members.iter().enumerate() {
            by_partition.entry(partition_of(member, self.partitions)).or_default().push(index);
        }
        let calls = by_partition.iter().flat_map(|(partition, indexes)| {
            let one = move |part| async move { (part, self.settings_call(kind, *partition, members, part).await) };
            indexes.chunks(MEMBERS_PER_CALL).map(one)
        });
        let mut found = vec![Ok(MemberRead::NotLoaded); members.len()];
        for (part, reads) in join_all(calls).await {
            match reads {
                Ok(reads) => part.iter().zip(reads).for_each(|(index, read)| found[*index] = read),
                Err(error) => part.iter().for_each(|index| found[*index] = Err(error.clone())),
            }
        }
        found
    }

    async fn settings_call(
        &self,
        kind: &str,
        partition: Partition,
        members: &[Id],
        indexes: &[usize],
    ) -> Result<Vec<Result<MemberRead, StoreError>>, StoreError> {
        let name = self.keys.head(kind, partition);
        let value = self
            .link
            .run(&self.link.scripts.settings, Nature::Reads, &[name], |command| {
                let mut buffer = Vec::with_capacity(24);
                for index in indexes {
                    buffer.clear();
                    write_id(&mut buffer, &members[*index]);
                    command.arg(&buffer);
                }
            })
            .await?;
        let mut reply = Reply::of(value)?;
        let life = reply.bytes()?;
        Ok(indexes.iter().map(|_| member_read(&life, &reply.next())).collect())
    }
}

/// See `put_settings.lua`.
fn partition_arguments(command: &mut Cmd, batch: &SettingsBatch, targets: &[Target<'_>]) {
    command.arg(targets.iter().flat_map(size).collect::<Vec<u8>>());
    let mut buffer = Vec::with_capacity(64 * targets.len());
    for op in targets.iter().flat_map(|target| &target.ops).map(|&index| &batch.ops[index]) {
        encode_settings(&mut buffer, &op.member, &op.settings);
    }
    command.arg(&buffer);
    for target in targets {
        buffer.clear();
        write_id(&mut buffer, target.id);
        command.arg(&buffer);
        for &index in &target.ops {
            command.arg(batch.ops[index].settings.as_bytes());
        }
    }
}

/// Decodes the field '' of a member, where `life` is the valid one.
fn member_read(life: &[u8], meta: &Value) -> Result<MemberRead, StoreError> {
    let meta = match meta {
        Value::BulkString(meta) => meta,
        Value::Nil => return Ok(MemberRead::NotLoaded),
        _ => return Err(unexpected("a member")),
    };
    if let Some(why) = meta.strip_prefix(b"!") {
        return Err(StoreError::Damaged(String::from_utf8_lossy(why).into_owned()));
    }
    if meta.get(LIFE) != Some(life) {
        return Ok(MemberRead::NotLoaded);
    }
    match (meta.first(), meta.get(META_BYTES..)) {
        (Some(b'f'), Some(packed)) => {
            Settings::from_bytes(packed).map(MemberRead::Known).ok_or_else(|| unexpected("settings"))
        }
        (Some(b'm'), _) => Ok(MemberRead::Missing),
        // Of another capability.
        _ => Ok(MemberRead::NotLoaded),
    }
}

/// Decodes the letter of an operation. `extra` is at its extra numbers, if it has some.
fn result(sent: &Sent, extra: &mut Reply) -> Result<SettingsResult, StoreError> {
    match sent.letter {
        b'+' => Ok(SettingsResult::Done(SettingsOutcome { position: sent.entry, replayed: false })),
        b'm' => Ok(SettingsResult::TargetMissing),
        b'c' => Ok(SettingsResult::TargetNotLoaded),
        b'x' => Ok(SettingsResult::IdempotencyConflict),
        b'r' => {
            let Outcome { position, .. } = extra.outcome()?;
            Ok(SettingsResult::Done(SettingsOutcome { position, replayed: true }))
        }
        _ => Err(unexpected("the letter of a result")),
    }
}
