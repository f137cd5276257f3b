//! Everything that is known of a target, or of one pair, for `weir explain`: with a running host or without.

use serde_json::{Value, json};

use crate::config::KindTable;
use crate::model::{Id, Partition};
use crate::sql::{DeadLetter, Sql};
use crate::store::Store;

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

/// Everything known of a target, and of one actor on it where that makes a difference: `store` (state, head, journal entries),
/// `sql` (row and count), `checkpoint`, `dead_letters`, `holes` in the journal of its partition. What cannot be reached is a
/// text that says why.
pub async fn explain(explained: Explained<'_>, store: &dyn Store, sql: &dyn Sql, now_ms: u64) -> Value {
    let Explained { kind, table, partition, target, actor } = explained;
    let unreachable = |error: &dyn std::fmt::Display| json!(error.to_string());
    let known = store.explain(kind, now_ms, (partition, target), actor).await;
    let row = sql.explain(table, target, actor).await;
    let checkpoint = match sql.checkpoints(kind, &[partition]).await {
        Ok(rows) => rows.first().copied().flatten().map_or(
            Value::Null,
            |row| json!({"incarnation": row.incarnation, "epoch": row.epoch, "position": row.position}),
        ),
        Err(error) => unreachable(&error),
    };
    let (target_text, actor_text) = (target.to_string(), actor.map(Id::to_string));
    let dead = match sql.dead_letters(Some(kind), 0, DEAD_LETTERS_MAX).await {
        Ok(dead) => {
            let concerns = |letter: &DeadLetter| {
                letter.target == target_text && actor_text.as_ref().is_none_or(|actor| *actor == letter.actor)
            };
            json!(dead.into_iter().filter(concerns).collect::<Vec<_>>())
        }
        Err(error) => unreachable(&error),
    };
    let holes = match sql.journal_holes(Some(kind), false, HOLES_MAX).await {
        Ok(holes) => json!(holes.into_iter().filter(|hole| hole.partition == partition).collect::<Vec<_>>()),
        Err(error) => unreachable(&error),
    };
    json!({
        "kind": kind,
        "target": target.to_json(),
        "actor": actor.map(Id::to_json),
        "partition": partition,
        "store": known.unwrap_or_else(|error| unreachable(&error)),
        "sql": row.unwrap_or_else(|error| unreachable(&error)),
        "checkpoint": checkpoint,
        "dead_letters": dead,
        "holes": holes,
    })
}
