//! Columns that number rows by themselves (a sequence, AUTO_INCREMENT, AUTOINCREMENT): whether the number is to blame.
//!
//! Knows no engine. Pure. A number that cannot be given, or that is taken, fails whatever row comes next: it is the
//! schema's fault, never the row's, so the kind is held back until somebody has mended it and nothing becomes a dead letter.
//! Engines say it in words that are also used of rows ("out of range", "duplicate key"), so it is looked at where a row failed
//! for such a word, before anybody is blamed.

use weir_core::config::{EventTable, KindTable};

/// A table that gets new rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grown<'a> {
    /// Its name.
    pub table: &'a str,
    /// Columns whose values come from weir: no number is given for them, whatever the column could do.
    written: Vec<&'a str>,
}

impl Grown<'_> {
    /// Whether the engine gives the values of a column.
    pub fn is_numbered(&self, column: &str) -> bool {
        !self.written.iter().any(|written| written.eq_ignore_ascii_case(column))
    }
}

/// The tables of a kind that get new rows, the one of the rows themselves first.
pub(super) fn grown(kind: &KindTable) -> Vec<Grown<'_>> {
    match kind {
        KindTable::Toggle(table) => {
            let written = [&*table.target_column, &table.actor_column].into_iter();
            let written = written.chain(table.created_at_column.as_deref()).collect();
            vec![Grown { table: &table.name, written }]
        }
        KindTable::Counter(table) => table.events.as_ref().map(of_events).into_iter().collect(),
        KindTable::Ingest(table) => {
            let others = [table.actor_column.as_deref(), table.created_at_column.as_deref()];
            let written = std::iter::once(&*table.id_column).chain(others.into_iter().flatten());
            let written = written.chain(table.columns.values().map(String::as_str)).collect();
            let children = table.children.iter().map(|child| {
                let others = [child.position_column.as_deref(), child.value_column.as_deref()];
                let written = std::iter::once(&*child.parent_column).chain(others.into_iter().flatten());
                Grown {
                    table: &child.name,
                    written: written.chain(child.columns.values().map(String::as_str)).collect(),
                }
            });
            std::iter::once(Grown { table: &table.name, written }).chain(children).collect()
        }
        KindTable::Preference(table) => {
            let fields = table.fields.iter().map(|field| field.column.as_str());
            vec![Grown { table: &table.name, written: std::iter::once(&*table.member_column).chain(fields).collect() }]
        }
    }
}

fn of_events(events: &EventTable) -> Grown<'_> {
    let written = [&*events.target_column, &events.actor_column].into_iter();
    let others = [events.created_at_column.as_deref(), events.by_column.as_deref()];
    Grown { table: &events.name, written: written.chain(others.into_iter().flatten()).collect() }
}

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

    /// Why no new row can be stored; `remedy` says what to do.
    pub fn used_up(&self, remedy: &str) -> String {
        let Self { table, column, source, last, most, .. } = self;
        format!(
            "{source}, which numbers {table}.{column}, is used up ({last} of {most}): no new row can be stored; {remedy}"
        )
    }

    /// Whether an error names a number of this source as one that is taken: `Key (id)=(5) already exists`. Only the key that the
    /// engine names counts: what stands behind it may be the text of a row. Another session may have been given later ones.
    pub fn is_named_taken(&self, reason: &str) -> bool {
        let named = reason.find(")=(").and_then(|at| {
            let column = &reason[reason[..at].rfind('(')? + 1..at];
            let value = &reason[at + 3..];
            Some((column.trim_matches('"').replace("\"\"", "\""), value[..value.find(')')?].parse::<i128>().ok()?))
        });
        named.is_some_and(|(column, value)| column == self.column && value <= self.last)
    }

    /// Why the next rows cannot be stored; `remedy` says what to do.
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
        assert!(at(60, 1).is_named_taken("23505: duplicate key (Key (id)=(55) already exists.)"), "given to this one");
        let quoted = Numbering { column: "Id".into(), ..at(5, 1) };
        assert!(quoted.is_named_taken("23505: duplicate key (Key (\"Id\")=(5) already exists.)"));
        let of_a_row = "23505: duplicate key (Key (slug)=(x(id)=(5)) already exists.)";
        assert!(!at(5, 1).is_named_taken(of_a_row), "the text of a row blames no sequence");
        assert!(at(127, 1).used_up("ALTER").contains("t_id_seq, which numbers t.id, is used up (127 of 127)"));
    }
}
