//! Everything that is known of a target, or of one pair, for `weir explain`: with a running host or without.

use weir_core::config::KindTable;
use weir_core::model::{Id, Partition};
use weir_core::operators::{self, CheckpointMark, Explanation, IdValue, Part};
use weir_sql::{DeadLetter, JournalHole, Sql};
use weir_store::Store;

/// Dead letters of one kind that are looked through.
const DEAD_LETTERS_MAX: usize = 1_000;

/// Holes of one kind that are looked through, the newest.
const HOLES_MAX: usize = 1_000;

/// What is to be explained.
pub struct Explained<'a> {
    /// The kind.
    pub kind: &'a str,
    /// Its tables.
    pub table: &'a KindTable,
    /// The partition of the target.
    pub partition: Partition,
    /// The target.
    pub target: &'a Id,
    /// The actor, where it makes a difference.
    pub actor: Option<&'a Id>,
}

/// Everything known of a target, and of one actor on it where that makes a difference. What cannot be reached is a text that says
/// why.
pub async fn explain(explained: Explained<'_>, store: &dyn Store, sql: &dyn Sql, now_ms: u64) -> Explanation {
    let Explained { kind, table, partition, target, actor } = explained;
    let known = store.explain(kind, now_ms, (partition, target), actor).await;
    let row = sql.explain(table, target, actor).await;
    let checkpoint = sql.checkpoints(kind, &[partition]).await.map(|rows| {
        rows.first().copied().flatten().map(|row| CheckpointMark {
            incarnation: row.incarnation.to_string(),
            epoch: row.epoch,
            position: row.position,
        })
    });
    let (target_text, actor_text) = (target.to_string(), actor.map(Id::to_string));
    let concerns = |letter: &DeadLetter| {
        letter.target == target_text && actor_text.as_ref().is_none_or(|actor| *actor == letter.actor)
    };
    let letters = sql.dead_letters(Some(kind), 0, DEAD_LETTERS_MAX).await;
    let letters = letters.map(|letters| letters.into_iter().filter(concerns).map(dead_letter).collect::<Vec<_>>());
    let holes = sql.journal_holes(Some(kind), false, HOLES_MAX).await;
    let holes = holes.map(|holes| {
        holes.into_iter().filter(|hole| hole.partition == partition).map(journal_hole).collect::<Vec<_>>()
    });
    Explanation {
        kind: kind.to_owned(),
        target: target.into(),
        actor: actor.map(IdValue::from),
        partition: Some(partition),
        store: known.unwrap_or_else(|error| error.to_string().into()),
        sql: row.unwrap_or_else(|error| error.to_string().into()),
        checkpoint: checkpoint.into(),
        dead_letters: letters.into(),
        holes: Some(Part::from(holes)),
        look_at: None,
    }
}

/// A dead letter as operators see it.
pub fn dead_letter(letter: DeadLetter) -> operators::DeadLetter {
    operators::DeadLetter {
        id: letter.id,
        kind: letter.kind,
        partition: letter.partition,
        target: letter.target,
        actor: letter.actor,
        action: letter.action,
        body: letter.body,
        at_ms: letter.at_ms,
        incarnation: letter.incarnation,
        position: letter.position,
        digest: letter.digest,
        reason: letter.reason,
        dead_at_ms: letter.dead_at_ms,
    }
}

/// A hole in a journal as operators see it.
pub fn journal_hole(hole: JournalHole) -> operators::JournalHole {
    operators::JournalHole {
        id: hole.id,
        kind: hole.kind,
        partition: hole.partition,
        incarnation: hole.incarnation,
        after: hole.after,
        last: hole.last,
        next: hole.next,
        changes: hole.changes,
        amount: hole.amount,
        is_exact: hole.is_exact,
        targets: hole.targets,
        found_at_ms: hole.found_at_ms,
        acknowledged_at_ms: hole.acknowledged_at_ms,
    }
}
