//! How the host's own types become those of the operators' API.

use crate::cache::{CacheMemory, RulingState};
use crate::capability::journal_hole;
use crate::flush::{AsideStatus, CheckpointStatus, FlushStatus};
use crate::operators::{self, CacheUse, CheckpointRow, KindFlush, ReadCache, SetAside, UpstreamCache};
use crate::read::ReadState;
use crate::upstream::UpstreamState;

/// Without the number of dead letters, which the flusher does not know.
impl From<FlushStatus> for KindFlush {
    fn from(status: FlushStatus) -> Self {
        Self {
            kind: status.kind,
            backlog_entries: status.backlog_entries,
            backlog_targets: status.backlog_targets,
            backlog_bytes: status.backlog_bytes,
            oldest_age_ms: status.oldest_age_ms,
            lease: status.lease,
            batch_changes: status.batch_changes,
            checkpoints: status.checkpoints.into_iter().map(CheckpointRow::from).collect(),
            last_error: status.last_error,
            stuck: status.stuck,
            overdue: status.overdue,
            ended: status.ended,
            set_aside: status.set_aside.into_iter().map(SetAside::from).collect(),
            flushed_at_ms: status.flushed_at_ms,
            holes: status.holes.into_iter().map(journal_hole).collect(),
            dead_letters: None,
        }
    }
}

impl From<CheckpointStatus> for CheckpointRow {
    fn from(status: CheckpointStatus) -> Self {
        let CheckpointStatus { partition, incarnation, epoch, position } = status;
        Self { partition, incarnation, epoch, position }
    }
}

impl From<AsideStatus> for SetAside {
    fn from(status: AsideStatus) -> Self {
        let AsideStatus { partition, position, ahead, targets, targets_count, held_by } = status;
        Self { partition, position, ahead, targets, targets_count, held_by }
    }
}

impl From<RulingState> for CacheUse {
    fn from(state: RulingState) -> Self {
        Self {
            class: state.class.to_owned(),
            rule: state.rule,
            requests: state.requests,
            hit_permille: state.hit_permille,
            stale: state.stale,
            failed: state.failed,
            cost_p50_us: state.cost_p50_us,
            cost_p99_us: state.cost_p99_us,
            saved_ms: state.saved_ms,
            entries: state.entries,
            bytes: state.bytes,
            evictions: state.evictions,
        }
    }
}

impl From<ReadState> for ReadCache {
    fn from(state: ReadState) -> Self {
        let ReadState { name, ruling, key, groups } = state;
        Self { name, usage: ruling.into(), key, groups }
    }
}

impl From<UpstreamState> for UpstreamCache {
    fn from(state: UpstreamState) -> Self {
        let UpstreamState { name, prefix, ruling, key, groups } = state;
        Self { name, prefix, usage: ruling.into(), key, groups }
    }
}

impl From<CacheMemory> for operators::CacheMemory {
    fn from(memory: CacheMemory) -> Self {
        let CacheMemory { entries, bytes } = memory;
        Self { entries, bytes }
    }
}
