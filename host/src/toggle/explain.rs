//! Everything that is known of one pair, for `weir explain`: with a running host or without.

use serde_json::{Value, json};

use crate::config::ToggleConfig;
use crate::model::{Id, partition_of};
use crate::sql::Sql;
use crate::store::Store;

/// Dead letters of one kind that are looked through.
const LETTERS_MAX: usize = 1_000;

/// Everything known of one pair: `store` (state, head, journal entries), `sql` (row and count), `checkpoint`,
/// `dead_letters`. What cannot be reached is a text that says why.
pub async fn explain(
    config: &ToggleConfig,
    store: &dyn Store,
    sql: &dyn Sql,
    now_ms: u64,
    target: &Id,
    actor: &Id,
) -> Value {
    let kind = config.kind.as_str();
    let partition = partition_of(target, store.partitions());
    let unreachable = |error: &dyn std::fmt::Display| json!(error.to_string());
    let known = store.explain(kind, now_ms, target, actor).await;
    let row = sql.explain(&config.table, target, actor).await;
    let checkpoint = match sql.checkpoints(kind, &[partition]).await {
        Ok(rows) => rows.first().copied().flatten().map_or(
            Value::Null,
            |row| json!({"incarnation": row.incarnation, "epoch": row.epoch, "position": row.position}),
        ),
        Err(error) => unreachable(&error),
    };
    let (target_text, actor_text) = (target.to_string(), actor.to_string());
    let letters = match sql.dead_letters(Some(kind), 0, LETTERS_MAX).await {
        Ok(letters) => {
            json!(letters.into_iter().filter(|l| l.target == target_text && l.actor == actor_text).collect::<Vec<_>>())
        }
        Err(error) => unreachable(&error),
    };
    json!({
        "kind": kind,
        "target": target.to_json(),
        "actor": actor.to_json(),
        "partition": partition,
        "store": known.unwrap_or_else(|error| unreachable(&error)),
        "sql": row.unwrap_or_else(|error| unreachable(&error)),
        "checkpoint": checkpoint,
        "dead_letters": letters,
    })
}
