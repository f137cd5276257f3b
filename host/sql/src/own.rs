//! The statements on weir's own tables: which database this is, its journals, dead letters, and holes of journals.
//!
//! The texts are the engines'. Holds no SQL.

/// What an engine sends about weir's own tables. Parameters are listed in order; columns have a value for each row.
#[derive(Debug)]
pub(super) struct OwnStatements<S> {
    /// Whether the database answers.
    pub ping: S,
    /// Whether a table of weir's is there: name.
    pub has_table: S,
    /// Reads a value: name.
    pub meta_read: S,
    /// Records a value when there is none: name, value.
    pub meta_record: S,
    /// Where the journals of the kinds are: kind, journal, place, whether it is closed.
    pub journals: S,
    /// Notes where the journal of a kind is: kind, journal, place, whether it is closed.
    pub journal_set: S,
    /// Reads dead letters: kind or NULL, after, limit.
    pub dead_letters: S,
    /// The newest dead letter of each target: kind, action; column: targets.
    pub dead_newest: S,
    /// Dead letters per kind.
    pub dead_counts: S,
    /// Drops dead letters; column: ids.
    pub dead_drop: S,
    /// Gives dead letters to another kind: from, to.
    pub dead_rename: S,
    /// Writes dead letters: kind; columns: partition, target, actor, action, time, incarnation, position, digest, reason, body;
    /// now.
    pub dead_write: S,
    /// Moves a checkpoint behind a hole: kind, partition, incarnation, epoch, position; incarnation, epoch, position.
    pub hole_pass: S,
    /// Records a hole: its eleven columns.
    pub hole_record: S,
    /// Holes, newest first: kind or NULL, 1 for unacknowledged ones only, limit.
    pub holes: S,
    /// Acknowledges the holes of a kind: kind, now.
    pub holes_acknowledge: S,
}

/// The statements of an engine whose texts take their parameters in the order in which they are listed. `$texts` is the module
/// with the texts.
macro_rules! fixed_own_statements {
    ($texts:ident) => {
        $crate::own::OwnStatements {
            ping: $crate::wire::Fixed::of($texts::PING),
            has_table: $crate::wire::Fixed::of($texts::HAS_TABLE),
            meta_read: $crate::wire::Fixed::of($texts::META_READ),
            meta_record: $crate::wire::Fixed::of($texts::META_RECORD),
            journals: $crate::wire::Fixed::of($texts::JOURNALS),
            journal_set: $crate::wire::Fixed::of($texts::JOURNAL_SET),
            dead_letters: $crate::wire::Fixed::of($texts::DEAD_LETTERS),
            dead_newest: $crate::wire::Fixed::of($texts::NEWEST_LETTERS),
            dead_counts: $crate::wire::Fixed::of($texts::DEAD_COUNTS),
            dead_drop: $crate::wire::Fixed::of($texts::DEAD_DROP),
            dead_rename: $crate::wire::Fixed::of($texts::DEAD_RENAME),
            dead_write: $crate::wire::Fixed::of($texts::INSERT_DEAD_LETTER),
            hole_pass: $crate::wire::Fixed::of($texts::HOLE_PASS),
            hole_record: $crate::wire::Fixed::of($texts::HOLE_RECORD),
            holes: $crate::wire::Fixed::of($texts::HOLES),
            holes_acknowledge: $crate::wire::Fixed::of($texts::HOLES_ACKNOWLEDGE),
        }
    };
}
pub(super) use fixed_own_statements;
