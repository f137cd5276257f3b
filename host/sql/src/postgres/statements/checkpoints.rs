//! Statements of checkpoints, and of what was set aside.

use crate::exec::checkpoints::CheckpointStatements;
use crate::wire::Fixed;

/// The statements.
pub(in crate::postgres) static STATEMENTS: CheckpointStatements<Fixed> = CheckpointStatements {
    read: Fixed::of(CHECKPOINTS),
    lock: Fixed::of(LOCK),
    locks_before_fence: true,
    fence: Fixed::of(FENCE),
    create: Fixed::of(CLAIM_CREATE),
    set: Fixed::of(CLAIM_SET),
    place: Fixed::of(PLACE),
    asides: Fixed::of(ASIDES),
    aside_drop: Fixed::of(ASIDE_DROP),
    aside_set: Fixed::of(ASIDE_SET),
};

/// Moves checkpoints: $1 kind, $2 partitions, $3 incarnations, $4 epochs, $5 from, $6 to.
const FENCE: &str = "UPDATE weir_checkpoint AS c SET \"position\" = f.reached
    FROM unnest($2::int4[], $3::uuid[], $4::int8[], $5::int8[], $6::int8[]) AS f (part, life, age, was, reached)
    WHERE c.kind = $1 AND c.\"partition\" = f.part AND c.incarnation = f.life AND c.epoch = f.age
        AND c.\"position\" = f.was";
/// Checkpoints: $1 kind, $2 partitions.
const CHECKPOINTS: &str = "SELECT \"partition\"::int8, incarnation::text, epoch, \"position\"
    FROM weir_checkpoint WHERE kind = $1 AND \"partition\" = ANY ($2::int4[])";
/// Creates rows: $1 kind, $2 partitions in order, $3 incarnations.
const CLAIM_CREATE: &str = "INSERT INTO weir_checkpoint (kind, \"partition\", incarnation, epoch, \"position\")
    SELECT $1, f.part, f.life, 0, 0 FROM unnest($2::int4[], $3::uuid[]) AS f (part, life) ON CONFLICT DO NOTHING";
/// Sets rows: $1 kind, $2 partitions, $3 incarnations, $4 epochs, $5 positions.
const CLAIM_SET: &str = "UPDATE weir_checkpoint AS c SET incarnation = f.life, epoch = f.age, \"position\" = f.reached
    FROM unnest($2::int4[], $3::uuid[], $4::int8[], $5::int8[]) AS f (part, life, age, reached)
    WHERE c.kind = $1 AND c.\"partition\" = f.part";
/// Puts a checkpoint: $1 kind, $2 partition, $3 position.
const PLACE: &str = "UPDATE weir_checkpoint SET \"position\" = $3 WHERE kind = $1 AND \"partition\" = $2::int4";
/// What was set aside: $1 kind.
const ASIDES: &str = "SELECT \"partition\"::int8, \"position\", ahead, incarnation::text, targets
    FROM weir_aside WHERE kind = $1 ORDER BY \"partition\"";
/// Nothing is set aside of a partition: $1 kind, $2 partition.
const ASIDE_DROP: &str = "DELETE FROM weir_aside WHERE kind = $1 AND \"partition\" = $2::int4";
/// Sets aside: $1 kind, $2 partition, $3 incarnation, $4 position, $5 ahead, $6 targets.
const ASIDE_SET: &str = "INSERT INTO weir_aside (kind, \"partition\", incarnation, \"position\", ahead, targets)
    VALUES ($1, $2::int4, $3, $4, $5, $6)";
/// Locks checkpoints in order: $1 kind, $2 partitions.
const LOCK: &str = "SELECT \"partition\"::int8, incarnation::text, epoch, \"position\" FROM weir_checkpoint
    WHERE kind = $1 AND \"partition\" = ANY ($2::int4[]) ORDER BY \"partition\" FOR UPDATE";
