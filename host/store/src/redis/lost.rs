//! After a hole in a journal: the targets that it concerns, and the state that it leaves behind.
//!
//! Redis has no list of dirty targets, so this scans the keys in small steps, beside everything else.

use super::RedisStore;
use super::link::Nature;
use super::reply::Reply;
use crate::StoreError;
use weir_core::journal::Hole;
use weir_core::model::Partition;

/// Keys that one step visits.
const STEP_KEYS: usize = 1_000;
/// Most steps of a search for the targets of one hole: the flusher waits for it.
const SEARCH_STEPS_MAX: usize = 50;

impl RedisStore {
    /// See [`crate::Journal::lost_targets`].
    pub(super) async fn lost_targets_of(
        &self,
        kind: &str,
        partition: Partition,
        hole: &Hole,
        targets_max: usize,
    ) -> Result<Vec<String>, StoreError> {
        let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
        for _ in 0..SEARCH_STEPS_MAX {
            let value = self
                .head_call(Nature::Reads, &self.link.scripts.lost, kind, partition, |command| {
                    command.arg(&cursor).arg(hole.after).arg(hole.last).arg(STEP_KEYS);
                })
                .await?;
            let mut reply = Reply::of(value)?;
            cursor = reply.text()?;
            let mut targets = reply.list()?;
            while !targets.is_empty() {
                found.push(targets.text()?);
            }
            if cursor == "0" || found.len() >= targets_max {
                break;
            }
        }
        // A scan may return the same key twice.
        found.sort();
        found.dedup();
        found.truncate(targets_max);
        Ok(found)
    }

    /// See [`crate::Journal::forget_lost`].
    pub(super) async fn forget_lost_of(&self, kind: &str, partitions: &[Partition]) -> Result<(), StoreError> {
        if !self.link.is_cluster() {
            return self.sweep(kind, partitions).await;
        }
        for partition in partitions {
            self.sweep(kind, std::slice::from_ref(partition)).await?;
        }
        Ok(())
    }

    async fn sweep(&self, kind: &str, partitions: &[Partition]) -> Result<(), StoreError> {
        let heads: Vec<String> = partitions.iter().map(|&partition| self.keys.head(kind, partition)).collect();
        let mut cursor = "0".to_owned();
        loop {
            let arguments = |command: &mut redis::Cmd| {
                command.arg(&cursor).arg(STEP_KEYS);
            };
            let value = self.link.run(&self.link.scripts.sweep, Nature::Writes, &heads, arguments).await?;
            cursor = Reply::of(redis::Value::Array(vec![value]))?.text()?;
            if cursor == "0" {
                return Ok(());
            }
        }
    }
}
