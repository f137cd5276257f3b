//! Columns that number rows by themselves (a sequence, AUTO_INCREMENT, AUTOINCREMENT): whether the number is to blame.
//!
//! Engine-free part of the room. Pure. A number that cannot be given, or that is taken, fails whatever row comes next: it is the
//! schema's fault, never the row's, so the kind is held back until somebody has mended it and nothing becomes a dead letter.
//! Engines say it in words that are also used of rows ("out of range", "duplicate key"), so it is looked at where a row failed
//! for such a word, before anybody is blamed.

/// A column that numbers rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbering {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// What gives the numbers.
    pub source: String,
    /// The number that was given last.
    pub last: i128,
    /// What is added to it for the next one.
    pub step: i128,
    /// The greatest that column and source can hold.
    pub most: i128,
}

impl Numbering {
    /// Whether the next number cannot be given or held.
    pub fn is_used_up(&self) -> bool {
        self.step > 0 && self.last.saturating_add(self.step) > self.most
    }

    /// Why no new row can be stored; `remedy` is a statement.
    pub fn used_up(&self, remedy: &str) -> String {
        let Self { table, column, source, last, most, .. } = self;
        format!(
            "{source}, which numbers {table}.{column}, is used up ({last} of {most}): no new row can be stored; {remedy}"
        )
    }

    /// Whether an error names the last number as one that is taken: `(id)=(5)`.
    pub fn is_named_taken(&self, reason: &str) -> bool {
        reason.contains(&format!("({})=({})", self.column, self.last))
    }

    /// Why the next rows cannot be stored; `remedy` is a statement.
    pub fn taken(&self, remedy: &str) -> String {
        let Self { table, column, source, last, .. } = self;
        format!(
            "{source}, which numbers {table}.{column}, is behind the rows: it gave {last}, which is taken; {remedy}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_number_must_fit() {
        let at = |last, step| Numbering {
            table: "t".into(),
            column: "id".into(),
            source: "t_id_seq".into(),
            last,
            step,
            most: 127,
        };
        assert_eq!(
            [at(126, 1), at(127, 1), at(126, 2), at(0, 1)].map(|of| of.is_used_up()),
            [false, true, true, false]
        );
        assert!(at(5, 1).is_named_taken("23505: duplicate key (Key (id)=(5) already exists.)"));
        assert!(!at(5, 1).is_named_taken("23505: duplicate key (Key (id)=(55) already exists.)"));
        assert!(at(127, 1).used_up("ALTER").contains("t_id_seq, which numbers t.id, is used up (127 of 127)"));
    }
}
