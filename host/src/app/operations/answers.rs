//! How the host's own types become those of the operators' API.

use crate::capability::journal_hole;
use crate::flush::FlushStatus;
use crate::operators::KindFlush;

/// What a flusher says, with the number of dead letters, which it does not know.
pub(super) fn kind_flush(status: FlushStatus, dead_letters: Option<u64>) -> KindFlush {
    KindFlush {
        kind: status.kind,
        backlog_entries: status.backlog_entries,
        backlog_targets: status.backlog_targets,
        backlog_bytes: status.backlog_bytes,
        oldest_age_ms: status.oldest_age_ms,
        lease: status.lease,
        batch_changes: status.batch_changes,
        checkpoints: status.checkpoints,
        last_error: status.last_error,
        stuck: status.stuck,
        overdue: status.overdue,
        ended: status.ended,
        set_aside: status.set_aside,
        flushed_at_ms: status.flushed_at_ms,
        holes: status.holes.into_iter().map(journal_hole).collect(),
        dead_letters,
    }
}
