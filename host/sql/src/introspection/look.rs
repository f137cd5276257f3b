//! What the self-check looks up in the rows themselves: the greatest ids and counts, what stands in the way of a unique key,
//! whether counts are the numbers of rows.
//!
//! Knows no engine: an engine answers a query within `sql.check_timeout_ms` ([`Ask`]) and words it ([`Dialect`]).
//! Reads only. What cannot be seen in time, or at all, is no failure: it is said.

use async_trait::async_trait;

use super::checks::end_of;
use super::{Counted, Counts, Dialect, Holds, Introspection, counter, id_form, toggle};
use crate::SqlError;
use weir_core::config::{CounterTable, IngestTable, PreferenceTable, ToggleTable};

/// Targets that are compared from each end of the keys, and of the rows.
const TARGETS_COMPARED: usize = 200;
/// Rows of one target that are counted, where an engine can stop there.
const ROWS_COUNTED_MAX: i128 = 10_000;
/// Values that are there more than once and are named.
const DUPLICATES_NAMED: usize = 3;

/// What became of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Its rows; of each, its columns as text.
    Rows(Vec<Vec<Option<String>>>),
    /// There is none, and why: no time, a lock, no right.
    Unknown(String),
}

/// Who answers queries that only read.
#[async_trait]
pub(crate) trait Ask: Sync {
    /// Answers within `sql.check_timeout_ms`.
    ///
    /// # Errors
    /// When the connection is lost.
    async fn ask(&self, query: String) -> Result<Answer, SqlError>;
}

/// Looks at the rows of a toggle.
pub(crate) async fn toggle<A: Ask, D: Dialect>(
    ask: &A,
    dialect: &D,
    table: &ToggleTable,
    pairs: &mut Option<Introspection>,
    targets: &mut Option<Introspection>,
) -> Result<(), SqlError> {
    let pair = [&*table.target_column, &table.actor_column];
    look(ask, dialect, &table.name, pairs.as_mut(), &pair, Some(&pair)).await?;
    let Some(given) = &table.targets else { return Ok(()) };
    let columns: Vec<&str> = [&*given.key_column].into_iter().chain(given.count_column.as_deref()).collect();
    look(ask, dialect, &given.name, targets.as_mut(), &columns, Some(&[&given.key_column])).await?;
    let counts = match toggle::counted(dialect, table, pairs.as_ref(), targets.as_ref()) {
        Some(counted) if is_integer(targets.as_ref(), counted.count) => compare(ask, dialect, &counted).await?,
        _ => return Ok(()),
    };
    if let Some(facts) = targets {
        facts.seen.counts = counts;
    }
    Ok(())
}

/// Looks at the rows of a counter.
pub(crate) async fn counter<A: Ask, D: Dialect>(
    ask: &A,
    dialect: &D,
    table: &CounterTable,
    counted: &mut Option<Introspection>,
    events: &mut Option<Introspection>,
) -> Result<(), SqlError> {
    let columns = [&*table.key_column, &table.count_column];
    look(ask, dialect, &table.name, counted.as_mut(), &columns, Some(&[&table.key_column])).await?;
    if let Some(given) = &table.events {
        look(ask, dialect, &given.name, events.as_mut(), &counter::event_ids(given), None).await?;
    }
    Ok(())
}

/// Looks at the rows of documents.
pub(crate) async fn ingest<A: Ask, D: Dialect>(
    ask: &A,
    dialect: &D,
    table: &IngestTable,
    documents: &mut Option<Introspection>,
    children: &mut [Option<Introspection>],
) -> Result<(), SqlError> {
    let columns: Vec<&str> = [&*table.id_column].into_iter().chain(table.actor_column.as_deref()).collect();
    look(ask, dialect, &table.name, documents.as_mut(), &columns, Some(&[&table.id_column])).await?;
    for (child, facts) in table.children.iter().zip(children) {
        look(ask, dialect, &child.name, facts.as_mut(), &[&child.parent_column], None).await?;
    }
    Ok(())
}

/// Looks at the rows of settings.
pub(crate) async fn preference<A: Ask, D: Dialect>(
    ask: &A,
    dialect: &D,
    table: &PreferenceTable,
    own: &mut Option<Introspection>,
    members: &mut Option<Introspection>,
) -> Result<(), SqlError> {
    let member = [&*table.member_column];
    look(ask, dialect, &table.name, own.as_mut(), &member, Some(&member)).await?;
    if let Some(given) = &table.members {
        look(ask, dialect, &given.name, members.as_mut(), &[&given.key_column], None).await?;
    }
    Ok(())
}

fn is_integer(facts: Option<&Introspection>, column: &str) -> bool {
    facts.and_then(|facts| facts.column(column)).is_some_and(|column| matches!(column.holds, Holds::Integer(_)))
}

/// Looks at the greatest values of `numbers`, and for what stands in the way of a unique key.
async fn look<A: Ask, D: Dialect>(
    ask: &A,
    dialect: &D,
    table: &str,
    facts: Option<&mut Introspection>,
    numbers: &[&str],
    unique: Option<&[&str]>,
) -> Result<(), SqlError> {
    let Some(facts) = facts else { return Ok(()) };
    for name in numbers {
        if facts.column(name).is_none_or(|column| end_of(column).is_none()) {
            continue;
        }
        if let Answer::Rows(rows) = ask.ask(dialect.largest(table, name)).await?
            && let Some(value) = rows.first().and_then(|row| number(row, 0))
        {
            facts.seen.largest.push(((*name).to_owned(), value));
        }
    }
    let Some(columns) = unique else { return Ok(()) };
    if !columns.iter().all(|column| facts.column(column).is_some()) || facts.unique_on(columns).is_some() {
        return Ok(());
    }
    let query = dialect.duplicates(table, columns, Some(DUPLICATES_NAMED));
    if let Answer::Rows(rows) = ask.ask(query).await?
        && !rows.is_empty()
    {
        let named = rows.iter().map(|row| {
            let (times, values) =
                row.split_last().map_or((None, row.as_slice()), |(last, rest)| (last.as_deref(), rest));
            let values: Vec<&str> = values.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
            format!("({}) {} times", values.join(", "), times.unwrap_or("several"))
        });
        let key = columns.iter().map(|column| (*column).to_owned()).collect();
        facts.seen.duplicates.push((key, named.collect()));
    }
    Ok(())
}

/// Compares counts with the rows that they count, of some targets.
async fn compare<A: Ask, D: Dialect>(ask: &A, dialect: &D, counted: &Counted<'_>) -> Result<Counts, SqlError> {
    let rows = match ask.ask(dialect.sample(counted, TARGETS_COMPARED, ROWS_COUNTED_MAX)).await? {
        Answer::Unknown(reason) => return Ok(Counts::Unknown(reason)),
        Answer::Rows(rows) => rows,
    };
    let differs = |row: &Vec<Option<String>>| {
        let (key, count, found) = (row.first()?.clone()?, number(row, 1)?, number(row, 2)?);
        let both_beyond = found > ROWS_COUNTED_MAX && count > ROWS_COUNTED_MAX;
        (count != found && !both_beyond).then_some((key, count, found))
    };
    Ok(Counts::Compared(rows.len(), rows.iter().filter_map(differs).collect()))
}

fn number(row: &[Option<String>], index: usize) -> Option<i128> {
    row.get(index)?.as_ref()?.trim().parse().ok()
}

/// The form of a key in two tables, if it is the same in both.
pub(super) fn same_form<D: Dialect>(
    dialect: &D,
    id_type: weir_core::model::IdType,
    (one, one_column): (&Introspection, &str),
    (other, other_column): (&Introspection, &str),
) -> Option<super::IdForm> {
    let form = id_form(dialect, one.column(one_column)?, id_type)?;
    (id_form(dialect, other.column(other_column)?, id_type)? == form).then_some(form)
}
