//! What a catalogue says of the user's tables, the findings that follow from it, and the forms in which ids and times
//! are stored.
//!
//! Engine-free part of the room: an engine reads its catalogue into [`Facts`] and words the statements to run
//! ([`Words`]). Sends nothing. The checks of each capability are in the files beside this one.

pub(super) mod counter;
pub(super) mod ingest;
pub(super) mod preference;
pub(super) mod toggle;

use super::{Finding, SqlError};
use crate::model::{ID_TEXT_BYTES_MAX, IdType};

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
    /// One of some words, or a set of them, which the engine also numbers.
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

/// A table.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
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
    /// What only this engine can find fault with.
    pub findings: Vec<Finding>,
}

impl Facts {
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

/// What a column is wanted for, in the statements that an operator is told to run.
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

/// The statements that an operator is told to run, and what is peculiar about an engine's values.
pub(super) trait Words: Sync {
    /// Whether a UUID may lie in a text column of this engine.
    const UUID_TEXT: bool;
    /// Whether text may hold the character NUL.
    const NUL: bool;

    /// Whether a column with this takes a text with a zone for something else than it says.
    fn loses_zone(&self, holds: Holds) -> bool;
    /// Creates a table with a primary key, if `key` names columns.
    fn create(&self, table: &str, columns: &[(&str, Wanted)], key: &[&str]) -> String;
    /// Adds a unique key.
    fn add_unique(&self, table: &str, columns: &[&str]) -> String;
    /// Adds an index.
    fn add_index(&self, table: &str, columns: &[&str]) -> String;
    /// Adds a column; rows that are there get something.
    fn add(&self, table: &str, column: &str, wanted: Wanted) -> String;
    /// Makes a column of the type for these ids.
    fn retype(&self, table: &str, column: &str, id_type: IdType) -> String;
    /// Lets rows leave a column out.
    fn add_default(&self, table: &str, column: &Column) -> String;
}

/// The form for ids of `id_type` in `column`, if it can hold them.
pub(super) fn id_form<W: Words>(_words: &W, column: &Column, id_type: IdType) -> Option<IdForm> {
    match (id_type, column.holds) {
        (IdType::Integer, Holds::Integer(_)) => Some(IdForm::Integer),
        (IdType::Uuid, Holds::Uuid) => Some(IdForm::Uuid),
        (IdType::Uuid, Holds::Bytes16) => Some(IdForm::UuidBytes),
        (IdType::Uuid, Holds::Text(room)) if W::UUID_TEXT && room.is_none_or(|room| room >= 36) => {
            Some(IdForm::UuidText)
        }
        (IdType::Uuid, Holds::Fixed(36)) if W::UUID_TEXT => Some(IdForm::UuidText),
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
fn created_form(facts: &Facts, column: Option<&String>) -> Option<Option<TimeForm>> {
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

/// What makes every insert into a table fail: it is not there, or has columns that must be given and are none of `given`.
fn insert_misfit<W: Words>(words: &W, table: &str, facts: Option<&Facts>, given: &[&str]) -> Option<String> {
    let Some(facts) = facts else { return Some(format!("table {table} does not exist")) };
    let mut findings = Vec::new();
    check_given(words, table, facts, given, &mut findings);
    findings.into_iter().next().map(|finding| format!("{}; {}", finding.problem, finding.remedy))
}

fn check_given<W: Words>(words: &W, table: &str, facts: &Facts, given: &[&str], findings: &mut Vec<Finding>) {
    for column in facts.columns.iter().filter(|column| column.must_be_given) {
        if !given.contains(&column.name.as_str()) {
            findings.push(refuse(
                format!("{table}.{} is NOT NULL without a default, and weir has no value for it", column.name),
                words.add_default(table, column),
            ));
        }
    }
}

fn check_unique<W: Words>(words: &W, table: &str, facts: &Facts, columns: &[&str], findings: &mut Vec<Finding>) {
    if columns.iter().all(|column| facts.column(column).is_some()) && facts.unique_on(columns).is_none() {
        findings.push(refuse(
            format!("{table} has no unique key on exactly ({})", columns.join(", ")),
            words.add_unique(table, columns),
        ));
    }
}

/// Names what refuses or discards a row that is good by itself: keys beside weir's `own`, which may be met by what is
/// `given` or the same for all rows; triggers and rules on `statements`.
fn check_others(table: &str, facts: &Facts, own: &[&str], given: &[&str], statements: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_own = |key: &UniqueKey| !own.is_empty() && own.iter().all(|name| key.columns.iter().any(|c| c == name));
    let can_collide = |key: &&UniqueKey| {
        let mut columns = key.columns.iter();
        columns.all(|name| given.contains(&name.as_str()) || facts.column(name).is_none_or(|column| column.preset))
    };
    let keys = facts.unique.iter().filter(|key| !is_own(key)).filter(can_collide);
    let described = keys.map(|key| format!("{} ({})", key.name, key.columns.join(", ")));
    for key in described.chain(facts.odd_keys.iter().cloned()) {
        findings.push(warn(
            format!("{table} has another unique key, {key}: of rows that are equal in it the first is stored, and the others become dead letters"),
            "give each row its own value there (a field in weir.toml, or NULL instead of a default), or drop the key",
        ));
    }
    for skipping in &facts.skipping {
        let on: Vec<&str> = statements.iter().copied().filter(|word| skipping.on.contains(word)).collect();
        if !on.is_empty() {
            findings.push(warn(
                format!(
                    "{} on {table} may discard what weir writes ({}): that becomes dead letters",
                    skipping.name,
                    on.join(", ")
                ),
                "let it raise an error that says why, or move its rule into the policy",
            ));
        }
    }
    findings
}

/// Whether a default is a constant other than NULL.
pub(super) fn is_constant(default: &str) -> bool {
    let word = default.trim().to_ascii_uppercase();
    let varies = ["CURRENT_", "LOCALTIME", "NULL"].iter().any(|start| word.starts_with(start));
    let computes = word.contains('(') && !word.starts_with('\'') && !word.starts_with('(');
    !word.is_empty() && !varies && !computes
}

fn check_time<W: Words>(words: &W, table: &str, name: &str, facts: &Facts, findings: &mut Vec<Finding>) {
    match facts.column(name) {
        None => findings.push(refuse(missing(table, name), words.add(table, name, Wanted::Time))),
        Some(column) if time_form(column).is_none() => findings.push(refuse(
            format!("{table}.{name} is {}, which cannot hold a time in milliseconds", column.declared),
            "make it a timestamp, a 64-bit integer (Unix milliseconds) or text of 24 characters or more".into(),
        )),
        Some(_) => {}
    }
}

/// A column for numbers; `what` says which.
fn check_integer<W: Words>(
    words: &W,
    table: &str,
    (name, what): (&str, &str),
    facts: &Facts,
    findings: &mut Vec<Finding>,
) {
    match facts.column(name) {
        None => findings.push(refuse(missing(table, name), words.add(table, name, Wanted::Count))),
        Some(column) if !matches!(column.holds, Holds::Integer(_)) => findings.push(refuse(
            format!("{table}.{name} is {}, a {what} needs an integer", column.declared),
            words.retype(table, name, IdType::Integer),
        )),
        Some(_) => {}
    }
}

fn check_id<W: Words>(words: &W, table: &str, name: &str, id_type: IdType, facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(column) = facts.column(name) else {
        findings.push(refuse(missing(table, name), "name the right column in weir.toml".into()));
        return;
    };
    let type_name = match id_type {
        IdType::Integer => "integer",
        IdType::Uuid => "uuid",
        IdType::Text => "text",
    };
    match id_form(words, column, id_type) {
        None => findings.push(refuse(
            format!("{table}.{name} is {}, which does not suit ids of type {type_name}", column.declared),
            format!("{} (or change the id's type in weir.toml)", words.retype(table, name, id_type)),
        )),
        Some(IdForm::Text) => {
            findings.extend(column.collation.clone());
            if let Holds::Text(Some(room)) = column.holds
                && room < ID_TEXT_BYTES_MAX as u64
            {
                findings.push(Finding {
                    warning: true,
                    problem: format!(
                        "{table}.{name} holds {room} characters; ids may have {ID_TEXT_BYTES_MAX} bytes, and a \
                         longer one becomes a dead letter"
                    ),
                    remedy: words.retype(table, name, id_type),
                });
            }
        }
        Some(_) => {}
    }
}

fn missing(table: &str, column: &str) -> String {
    format!("{table} has no column {column}")
}

/// A finding that forbids to start.
pub(super) fn refuse(problem: String, remedy: String) -> Finding {
    Finding { warning: false, problem, remedy }
}

/// A finding worth knowing.
pub(super) fn warn(problem: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { warning: true, problem: problem.into(), remedy: remedy.into() }
}
