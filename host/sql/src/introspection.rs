//! What a catalogue says of the user's tables, the findings that follow from it, and the forms in which ids and times
//! are stored.
//!
//! Knows no engine: an engine reads its catalogue into [`Introspection`] and words the statements to run
//! ([`Dialect`]). Sends nothing. The checks of each capability are in the files beside this one.

pub(super) mod checks;
pub(super) mod counter;
pub(super) mod ingest;
pub(super) mod look;
pub(super) mod preference;
pub(super) mod shape;
pub(super) mod toggle;

use self::checks::check_given;
use super::finding::{Advice, Remedy};
use super::{Finding, SqlError};
use weir_core::model::IdType;

/// How an id lies in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdForm {
    /// An integer.
    Integer,
    /// The engine's own UUID type.
    Uuid,
    /// A UUID as its 16 bytes.
    UuidBytes,
    /// A UUID as hyphenated lower-case text.
    UuidText,
    /// Text.
    Text,
}

/// How a time lies in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeForm {
    /// Unix milliseconds.
    Millis,
    /// A point in time, with so many digits after the second.
    Zoned(u8),
    /// Date and time of day without a zone, taken as UTC, with so many digits after the second.
    Plain(u8),
    /// RFC 3339 text, in UTC.
    Iso,
}

/// What a column can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// An integer of so many bytes.
    Integer(u8),
    /// True and false.
    Boolean,
    /// So many bits, which are not true and false to everybody who writes 1 into them.
    Bits(u64),
    /// An exact number.
    Decimal,
    /// A floating-point number.
    Real,
    /// The engine's own UUID type.
    Uuid,
    /// 16 bytes.
    Bytes16,
    /// Other bytes.
    Bytes,
    /// Text of so many characters at most.
    Text(Option<u64>),
    /// Text padded to so many characters, whose own trailing spaces are lost.
    Fixed(u64),
    /// JSON.
    Json,
    /// A day.
    Date,
    /// A point in time, with so many digits after the second.
    Zoned(u8),
    /// Date and time of day, with so many digits after the second.
    Plain(u8),
    /// One of some dialect, or a set of them, which the engine also numbers.
    Choice,
    /// Anything else.
    Other,
}

/// A column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as the catalogue words it.
    pub declared: String,
    /// What it can hold.
    pub holds: Holds,
    /// Of one for integers: none below 0.
    pub unsigned: bool,
    /// NOT NULL, without default, not generated: somebody must give it a value.
    pub must_be_given: bool,
    /// Of one that is NOT NULL: its default as an expression, where a statement can name it.
    pub default: Option<String>,
    /// Rows that leave it out all get the same value, which is not NULL.
    pub preset: bool,
    /// The engine computes it, and takes no value for it.
    pub generated: bool,
    /// Why its comparisons are not those of bytes, when they are not.
    pub collation: Option<Finding>,
    /// What stands behind its type in its definition, where a statement that changes the type must repeat it.
    pub rest: String,
    /// What stands between type and rest of one for text, in the same way.
    pub collated: String,
}

/// A unique key that covers every row.
#[derive(Debug, Clone)]
pub(super) struct UniqueKey {
    /// Its name.
    pub name: String,
    /// Its columns, in its order.
    pub columns: Vec<String>,
}

/// A trigger or rule that may discard a row without an error.
#[derive(Debug, Clone)]
pub(super) struct Skipping {
    /// Its name.
    pub name: String,
    /// The statements that it concerns: a text with `INSERT`, `UPDATE`, `DELETE` in it.
    pub on: String,
}

/// A trigger or rule that runs when rows come or go.
#[derive(Debug, Clone)]
pub(super) struct Trigger {
    /// Its name.
    pub name: String,
    /// Its definition, with that of the function that it calls.
    pub text: String,
    /// What it is on, quoted, where that may be a part of the table.
    pub on: Option<String>,
    /// A rule (PostgreSQL).
    pub is_rule: bool,
}

/// What was seen of a table's rows, each within `sql.check_timeout_ms`.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The greatest value of some columns.
    pub largest: Vec<(String, i128)>,
    /// Some values that columns hold more than once which a unique key is missing for: of each key its columns, and those.
    pub duplicates: Vec<(Vec<String>, Vec<String>)>,
    /// Of a table with counts: how these compare with the rows that they count.
    pub counts: Counts,
}

/// How counts compare with the rows that they count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Counts {
    /// Not asked yet.
    #[default]
    Unasked,
    /// It could not be seen, and why.
    Unknown(String),
    /// Of so many targets these differ: key, count, rows.
    Compared(usize, Vec<(String, i128, i128)>),
}

/// A table.
#[derive(Debug, Clone, Default)]
pub(super) struct Introspection {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its unique keys.
    pub unique: Vec<UniqueKey>,
    /// Definitions of keys that forbid some rows beside others, but are no lists of columns for every row.
    pub odd_keys: Vec<String>,
    /// What may discard a row.
    pub skipping: Vec<Skipping>,
    /// The columns with which its indexes begin, where that was asked.
    pub leading: Vec<String>,
    /// The columns by which it is partitioned, where that was asked.
    pub partitioned_by: Vec<String>,
    /// What runs when rows come or go, where that was asked.
    pub triggers: Vec<Trigger>,
    /// Columns that are in foreign keys, on either side, with the key's name: where the engine does not change those, and
    /// it was asked.
    pub foreign_keys: Vec<(String, String)>,
    /// What was seen of its rows, where that was asked.
    pub seen: Seen,
    /// What only this engine can find fault with.
    pub findings: Vec<Finding>,
}

impl Introspection {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The unique key on exactly these columns, in any order.
    pub fn unique_on(&self, columns: &[&str]) -> Option<&UniqueKey> {
        self.unique.iter().find(|key| {
            key.columns.len() == columns.len() && columns.iter().all(|c| key.columns.iter().any(|k| k == c))
        })
    }
}

/// What a column is wanted for, in the statements that weir suggests to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// An id.
    Id(IdType),
    /// An id, or NULL.
    IdOrNull(IdType),
    /// A time.
    Time,
    /// A count, from 0.
    Count,
    /// A field of a document, or NULL.
    Field,
}

/// Counts, and the rows that they count. Both name targets in the same form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted<'t> {
    /// The table with the counts.
    pub table: &'t str,
    /// Its key.
    pub key: &'t str,
    /// Its count.
    pub count: &'t str,
    /// The form of the key.
    pub form: IdForm,
    /// The table with the rows.
    pub rows: &'t str,
    /// Its column with the target.
    pub target: &'t str,
    /// Its column with what a row adds; 1 where there is none.
    pub by: Option<&'t str>,
}

/// The statements suggested to an operator, the queries about rows, and what is peculiar about an engine's values.
pub(super) trait Dialect: Sync {
    /// Whether a UUID may lie in a text column of this engine.
    const UUID_TEXT: bool;
    /// Whether text may hold the character NUL.
    const NUL: bool;

    /// Whether a column with this takes a text with a zone for something else than it says.
    fn loses_zone(&self, holds: Holds) -> bool;
    /// Creates a table with a primary key, if `key` names columns.
    fn create(&self, table: &str, columns: &[(&str, Wanted)], key: &[&str]) -> Remedy;
    /// Adds a unique key.
    fn add_unique(&self, table: &str, facts: &Introspection, columns: &[&str]) -> Remedy;
    /// Adds an index.
    fn add_index(&self, table: &str, columns: &[&str]) -> Remedy;
    /// The statement that adds a column.
    fn add(&self, table: &str, column: &str, wanted: Wanted) -> String;
    /// Adds a column for a value; rows that are there get NULL.
    fn add_value(&self, table: &str, column: &str, wanted: Wanted) -> Remedy {
        Remedy::run(Advice::AddValue, [self.add(table, column, wanted)])
    }
    /// Adds a column for the time; rows that are there get none, because theirs is unknown.
    fn add_time(&self, table: &str, column: &str) -> Remedy;
    /// Adds a column for the count, and fills it from the rows that it counts, if there are any.
    fn add_count(&self, table: &str, column: &str, counted: Option<&Counted<'_>>) -> Remedy {
        let statement = self.add(table, column, Wanted::Count);
        let Some(counted) = counted else { return Remedy::run(Advice::AddCount, [statement]) };
        let filling = self.fill_counts(counted);
        Remedy {
            statements: [statement].into_iter().chain(filling.statements).collect(),
            in_batches: filling.in_batches,
            ..Remedy::run(Advice::AddCount, []).saying("add it, and fill it from the rows that are there:")
        }
    }
    /// Makes counts what the rows say; repeatable.
    fn fill_counts(&self, counted: &Counted<'_>) -> Remedy;
    /// Lists all targets whose counts are not what the rows say.
    fn compare_counts(&self, counted: &Counted<'_>) -> Remedy;
    /// Makes 64 bits of a column for integers.
    fn widen_integer(&self, table: &str, facts: &Introspection, column: &Column) -> Remedy;
    /// Makes room for the longest id in a column for text.
    fn widen_text(&self, table: &str, facts: &Introspection, column: &Column) -> Remedy;
    /// Makes true and false of bits, where the engine has such.
    fn make_boolean(&self, table: &str, facts: &Introspection, column: &Column) -> Remedy;
    /// Lets the database fill a time.
    fn default_time(&self, table: &str, column: &Column) -> Option<Remedy>;
    /// Lets NULL be in a column.
    fn let_null(&self, table: &str, facts: &Introspection, column: &Column) -> Remedy;
    /// Drops a trigger or rule.
    fn drop_trigger(&self, table: &str, trigger: &Trigger) -> Remedy;
    /// Lists what columns hold more than once, as texts, and how often; the first `limit`, or all.
    fn duplicates(&self, table: &str, columns: &[&str], limit: Option<usize>) -> String;
    /// The greatest value of a column, as text.
    fn largest(&self, table: &str, column: &str) -> String;
    /// Some targets: key, count, and number of rows (up to one more than `rows_max`, where the engine can stop there), as
    /// texts. From both ends of the keys, and of the rows, `targets` each.
    fn sample(&self, counted: &Counted<'_>, targets: usize, rows_max: i128) -> String;
}

/// The form for ids of `id_type` in `column`, if it can hold them.
pub(super) fn id_form<D: Dialect>(_words: &D, column: &Column, id_type: IdType) -> Option<IdForm> {
    match (id_type, column.holds) {
        (IdType::Integer, Holds::Integer(_)) => Some(IdForm::Integer),
        (IdType::Uuid, Holds::Uuid) => Some(IdForm::Uuid),
        (IdType::Uuid, Holds::Bytes16) => Some(IdForm::UuidBytes),
        (IdType::Uuid, Holds::Text(room)) if D::UUID_TEXT && room.is_none_or(|room| room >= 36) => {
            Some(IdForm::UuidText)
        }
        (IdType::Uuid, Holds::Fixed(36)) if D::UUID_TEXT => Some(IdForm::UuidText),
        (IdType::Text, Holds::Text(_)) => Some(IdForm::Text),
        _ => None,
    }
}

/// The form of times in `column`, if it can hold them.
pub(super) fn time_form(column: &Column) -> Option<TimeForm> {
    match column.holds {
        Holds::Integer(8) => Some(TimeForm::Millis),
        Holds::Zoned(digits) => Some(TimeForm::Zoned(digits)),
        Holds::Plain(digits) => Some(TimeForm::Plain(digits)),
        Holds::Text(room) if room.is_none_or(|room| room >= 24) => Some(TimeForm::Iso),
        _ => None,
    }
}

/// The form of times in the column of this name, if one is named: `None` when it cannot hold them.
fn created_form(facts: &Introspection, column: Option<&String>) -> Option<Option<TimeForm>> {
    match column {
        None => Some(None),
        Some(name) => Some(Some(time_form(facts.column(name)?)?)),
    }
}

/// The forms, or the first of the findings that makes the tables unusable.
fn usable<F>(found: Option<F>, findings: impl FnOnce() -> Vec<Finding>) -> Result<F, SqlError> {
    found.ok_or_else(|| {
        let first = findings().into_iter().find(|finding| !finding.warning);
        let text = first.map_or_else(|| "the tables do not fit".into(), |f| format!("{}; {}", f.problem, f.remedy));
        SqlError::Permanent(text)
    })
}

/// What is prepared for tables that are not what they were any more.
pub(super) fn changed<F: PartialEq>(known: &F, now: Result<F, SqlError>) -> Option<String> {
    match now {
        Ok(now) if now == *known => None,
        Ok(_) => Some("the tables have changed; they are looked at anew".into()),
        Err(error) => Some(error.to_string()),
    }
}

/// What an operator says to know (`sql.acknowledged`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Known<'c> {
    /// All of it: what is asked is only whether statements can be prepared.
    Everything,
    /// These, each `table.column` or `table.trigger`.
    Listed(&'c [String]),
}

impl Known<'_> {
    /// Whether it is known.
    pub fn has(&self, table: &str, name: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Listed(listed) => {
                listed.iter().any(|known| known.rsplit_once('.').is_some_and(|(t, n)| t == table && n == name))
            }
        }
    }
}

/// What makes every insert into a table fail: it is not there, or has columns that must be given and are none of `given`.
fn insert_mismatch<D: Dialect>(
    dialect: &D,
    table: &str,
    facts: Option<&Introspection>,
    given: &[&str],
) -> Option<String> {
    let Some(facts) = facts else { return Some(format!("table {table} does not exist")) };
    let mut findings = Vec::new();
    check_given(dialect, table, facts, given, None, &Known::Everything, &mut findings);
    findings.into_iter().next().map(|finding| format!("{}; {}", finding.problem, finding.remedy))
}

/// Whether a default is a constant other than NULL.
pub(super) fn is_constant(default: &str) -> bool {
    let word = default.trim().to_ascii_uppercase();
    let varies = ["CURRENT_", "LOCALTIME", "NULL"].iter().any(|start| word.starts_with(start));
    let computes = word.contains('(') && !word.starts_with('\'') && !word.starts_with('(');
    !word.is_empty() && !varies && !computes
}
