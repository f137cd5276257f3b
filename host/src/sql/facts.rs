//! What a catalogue says of the user's tables, the findings that follow from it, and the forms in which ids and times
//! are stored.
//!
//! Engine-free part of the room: an engine reads its catalogue into [`Facts`] and words the statements to run
//! ([`Words`]). Sends nothing.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Finding, SqlError};
use crate::config::ToggleTable;
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
    /// The engine's own UUID type.
    Uuid,
    /// 16 bytes.
    Bytes16,
    /// Text of so many characters at most.
    Text(Option<u64>),
    /// Text padded to so many characters, whose own trailing spaces are lost.
    Fixed(u64),
    /// A point in time, with so many digits after the second.
    Zoned(u8),
    /// Date and time of day, with so many digits after the second.
    Plain(u8),
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
    /// NOT NULL, without default, not generated: somebody must give it a value.
    pub must_be_given: bool,
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

/// A table.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its unique keys.
    pub unique: Vec<UniqueKey>,
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

/// The statements that an operator is told to run.
pub(super) trait Words: Sync {
    /// Whether a UUID may lie in a text column of this engine.
    const UUID_TEXT: bool;

    /// Creates the table of the pairs.
    fn create_pairs(&self, table: &ToggleTable) -> String;
    /// Creates the table of the targets.
    fn create_targets(&self, table: &ToggleTable) -> String;
    /// Adds a unique key.
    fn add_unique(&self, table: &str, columns: &[&str]) -> String;
    /// Adds a column for the time.
    fn add_time(&self, table: &str, column: &str) -> String;
    /// Adds a column for the count.
    fn add_count(&self, table: &str, column: &str) -> String;
    /// Makes a column of the type for these ids.
    fn retype(&self, table: &str, column: &str, id_type: IdType) -> String;
    /// Gives a column a default.
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

/// The forms of a kind's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forms {
    /// Of the target column.
    pub target: IdForm,
    /// Of the actor column.
    pub actor: IdForm,
    /// Of the created-at column.
    pub created: Option<TimeForm>,
    /// Of the key of the table of the targets.
    pub key: Option<IdForm>,
}

/// The forms, or the first finding that makes the tables unusable.
pub(super) fn forms<W: Words>(
    words: &W,
    table: &ToggleTable,
    pairs: Option<&Facts>,
    targets: Option<&Facts>,
) -> Result<Forms, SqlError> {
    let found = || {
        let pairs = pairs?;
        let key = match &table.targets {
            None => None,
            Some(given) => Some(id_form(words, targets?.column(&given.key_column)?, table.target_type)?),
        };
        let created = match &table.created_at_column {
            None => None,
            Some(name) => Some(time_form(pairs.column(name)?)?),
        };
        Some(Forms {
            target: id_form(words, pairs.column(&table.target_column)?, table.target_type)?,
            actor: id_form(words, pairs.column(&table.actor_column)?, table.actor_type)?,
            created,
            key,
        })
    };
    found().ok_or_else(|| {
        let first = check(words, table, pairs, targets).into_iter().find(|finding| !finding.warning);
        let text = first.map_or_else(|| "the tables do not fit".into(), |f| format!("{}; {}", f.problem, f.remedy));
        SqlError::Permanent(text)
    })
}

/// What makes every insert into the table of the pairs fail.
pub(super) fn misfit<W: Words>(words: &W, table: &ToggleTable, pairs: Option<&Facts>) -> Option<String> {
    let Some(pairs) = pairs else { return Some(format!("table {} does not exist", table.name)) };
    let mut findings = Vec::new();
    check_given(words, table, pairs, &mut findings);
    findings.into_iter().next().map(|finding| format!("{}; {}", finding.problem, finding.remedy))
}

/// All findings that follow from the catalogue.
pub(super) fn check<W: Words>(
    words: &W,
    table: &ToggleTable,
    pairs: Option<&Facts>,
    targets: Option<&Facts>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    match pairs {
        None => findings.push(refuse(format!("table {} does not exist", table.name), words.create_pairs(table))),
        Some(facts) => check_pairs(words, table, facts, &mut findings),
    }
    if let Some(given) = &table.targets {
        match targets {
            None => findings.push(refuse(format!("table {} does not exist", given.name), words.create_targets(table))),
            Some(facts) => check_targets(words, table, facts, &mut findings),
        }
    }
    findings
}

fn check_pairs<W: Words>(words: &W, table: &ToggleTable, facts: &Facts, findings: &mut Vec<Finding>) {
    findings.extend(facts.findings.iter().cloned());
    let name = &table.name;
    check_id(words, name, &table.target_column, table.target_type, facts, findings);
    check_id(words, name, &table.actor_column, table.actor_type, facts, findings);
    if let Some(created) = &table.created_at_column {
        match facts.column(created) {
            None => findings.push(refuse(missing(name, created), words.add_time(name, created))),
            Some(column) if time_form(column).is_none() => findings.push(refuse(
                format!("{name}.{created} is {}, which cannot hold a time in milliseconds", column.declared),
                "make it a timestamp, a 64-bit integer (Unix milliseconds) or text of 24 characters or more".into(),
            )),
            Some(_) => {}
        }
    }
    let pair = [table.target_column.as_str(), table.actor_column.as_str()];
    if pair.iter().all(|column| facts.column(column).is_some()) && facts.unique_on(&pair).is_none() {
        findings.push(refuse(
            format!("{name} has no unique key on exactly ({}, {})", pair[0], pair[1]),
            words.add_unique(name, &pair),
        ));
    }
    check_given(words, table, facts, findings);
}

fn check_given<W: Words>(words: &W, table: &ToggleTable, facts: &Facts, findings: &mut Vec<Finding>) {
    for column in facts.columns.iter().filter(|column| column.must_be_given) {
        let given = column.name == table.target_column
            || column.name == table.actor_column
            || table.created_at_column.as_ref() == Some(&column.name);
        if !given {
            findings.push(refuse(
                format!("{}.{} is NOT NULL without a default, and weir has no value for it", table.name, column.name),
                words.add_default(&table.name, column),
            ));
        }
    }
}

fn check_targets<W: Words>(words: &W, table: &ToggleTable, facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(given) = &table.targets else { return };
    findings.extend(facts.findings.iter().cloned());
    check_id(words, &given.name, &given.key_column, table.target_type, facts, findings);
    if facts.column(&given.key_column).is_some() && facts.unique_on(&[given.key_column.as_str()]).is_none() {
        findings.push(refuse(
            format!("{} has no unique key on exactly ({})", given.name, given.key_column),
            words.add_unique(&given.name, &[given.key_column.as_str()]),
        ));
    }
    if let Some(count) = &given.count_column {
        match facts.column(count) {
            None => findings.push(refuse(missing(&given.name, count), words.add_count(&given.name, count))),
            Some(column) if !matches!(column.holds, Holds::Integer(_)) => findings.push(refuse(
                format!("{}.{count} is {}, a count needs an integer", given.name, column.declared),
                words.retype(&given.name, count, IdType::Integer),
            )),
            Some(_) => {}
        }
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

/// What an engine has prepared per kind, so that the catalogue is read once.
pub(super) struct Plans<P>(RwLock<Vec<(ToggleTable, Arc<P>)>>);

impl<P> Plans<P> {
    /// Nothing prepared.
    pub fn new() -> Self {
        Self(RwLock::new(Vec::new()))
    }

    /// What was prepared for `table`.
    pub fn get(&self, table: &ToggleTable) -> Option<Arc<P>> {
        let plans = self.0.read().unwrap_or_else(PoisonError::into_inner);
        plans.iter().find(|(known, _)| known == table).map(|(_, plan)| Arc::clone(plan))
    }

    /// Keeps what was prepared for `table`.
    pub fn put(&self, table: &ToggleTable, plan: P) -> Arc<P> {
        let plan = Arc::new(plan);
        let mut plans = self.0.write().unwrap_or_else(PoisonError::into_inner);
        plans.retain(|(known, _)| known != table);
        plans.push((table.clone(), Arc::clone(&plan)));
        plan
    }

    /// Forgets it: the tables are not what they were.
    pub fn forget(&self, table: &ToggleTable) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| known != table);
    }
}
