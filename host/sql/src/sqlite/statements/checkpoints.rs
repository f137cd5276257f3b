//! Statements of checkpoints, and of what was set aside.

use crate::exec::checkpoints::CheckpointStatements;
use crate::wire::Fixed;

/// The statements.
pub(in crate::sqlite) static STATEMENTS: CheckpointStatements<Fixed> = CheckpointStatements {
    read: Fixed::of(CHECKPOINTS),
    lock: Fixed::of(CHECKPOINTS),
    locks_before_fence: false,
    fence: Fixed::of(FENCE),
    create: Fixed::of(CLAIM_CREATE),
    set: Fixed::of(CLAIM_SET),
    place: Fixed::of(PLACE),
    asides: Fixed::of(ASIDES),
    aside_drop: Fixed::of(ASIDE_DROP),
    aside_set: Fixed::of(ASIDE_SET),
};

/// Moves checkpoints: ?1 kind, ?2 `[[partition, incarnation, epoch, from, to], …]`.
const FENCE: &str = "UPDATE weir_checkpoint SET \"position\" = f.reached
    FROM (SELECT value ->> 0 AS part, value ->> 1 AS life, value ->> 2 AS age, value ->> 3 AS was,
                 value ->> 4 AS reached FROM json_each(?2)) AS f
    WHERE kind = ?1 AND \"partition\" = f.part AND incarnation = f.life AND epoch = f.age AND \"position\" = f.was";
/// Checkpoints, which the one writer need not lock: ?1 kind, ?2 `[partition, …]`.
const CHECKPOINTS: &str = "SELECT \"partition\", incarnation, epoch, \"position\" FROM weir_checkpoint
    WHERE kind = ?1 AND \"partition\" IN (SELECT value FROM json_each(?2))";
/// Creates rows: ?1 kind, ?2 `[[partition, incarnation], …]`.
const CLAIM_CREATE: &str = "INSERT INTO weir_checkpoint (kind, \"partition\", incarnation, epoch, \"position\")
    SELECT ?1, value ->> 0, value ->> 1, 0, 0 FROM json_each(?2) WHERE true ON CONFLICT DO NOTHING";
/// Sets rows: ?1 kind, ?2 `[[partition, incarnation, epoch, position], …]`.
const CLAIM_SET: &str = "UPDATE weir_checkpoint SET incarnation = f.life, epoch = f.age, \"position\" = f.reached
    FROM (SELECT value ->> 0 AS part, value ->> 1 AS life, value ->> 2 AS age, value ->> 3 AS reached
          FROM json_each(?2)) AS f
    WHERE kind = ?1 AND \"partition\" = f.part";
/// Puts a checkpoint: ?1 kind, ?2 partition, ?3 position.
const PLACE: &str = "UPDATE weir_checkpoint SET \"position\" = ?3 WHERE kind = ?1 AND \"partition\" = ?2";
/// What was set aside: ?1 kind.
const ASIDES: &str = "SELECT \"partition\", \"position\", ahead, incarnation, targets FROM weir_aside
    WHERE kind = ?1 ORDER BY \"partition\"";
/// Nothing is set aside of a partition: ?1 kind, ?2 partition.
const ASIDE_DROP: &str = "DELETE FROM weir_aside WHERE kind = ?1 AND \"partition\" = ?2";
/// Sets aside: ?1 kind, ?2 partition, ?3 incarnation, ?4 position, ?5 ahead, ?6 targets.
const ASIDE_SET: &str = "INSERT INTO weir_aside (kind, \"partition\", incarnation, \"position\", ahead, targets)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
