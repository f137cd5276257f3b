//! What a statement may leave undone without an error, and how weir detects it.
//!
//! Pure. An upsert, a trigger that returns NULL, `RAISE(IGNORE)`, a rule: the database
//! answers "done", and the row is not there. Each engine compares the number of rows that a statement met with the number
//! that it was given, and looks again only where they differ. A row that is known by name becomes a dead letter at once;
//! where the statement returns only a number, the part fails with [`unstored`], and the search for bad rows finds it.

use std::collections::{HashMap, HashSet};

use super::Row;
use super::classify::unstored;
use super::preferences::Changed;
use super::rows::{Known, Unstorable};
use weir_core::config::{PreferenceTable, ToggleTable};
use weir_core::model::{Action, Id, Settings};

/// What a statement does to rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteOperation {
    /// Adds them.
    Insert,
    /// Changes them.
    Update,
    /// Removes them.
    Delete,
}

/// Why a row is dead that the database left out without an error.
pub(super) fn discarded(operation: WriteOperation, table: &str) -> String {
    let (verb, of, left) = match operation {
        WriteOperation::Insert => ("INSERT", "into", "the row is not there"),
        WriteOperation::Update => ("UPDATE", "of", "the row is as it was"),
        WriteOperation::Delete => ("DELETE", "from", "the row is still there"),
    };
    format!(
        "a trigger or rule of the database discarded it: it took the {verb} {of} {table} without an error, and {left}"
    )
}

/// Fails unless a statement met as many rows as it was given.
pub(super) fn all_met(operation: WriteOperation, table: &str, met: u64, given: usize) -> Result<(), sqlx::Error> {
    if met < given as u64 { Err(unstored(discarded(operation, table))) } else { Ok(()) }
}

/// The rows of one action whose pairs are not as they should be: those that are `there` were not deleted, those that are
/// not there were not inserted.
pub(super) fn pairs_left(table: &str, rows: &[&Row], action: Action, there: &HashSet<(Id, Id)>) -> Vec<Unstorable> {
    let operation = if action == Action::Add { WriteOperation::Insert } else { WriteOperation::Delete };
    let left = rows.iter().enumerate().filter(|(_, row)| match row {
        Row::Toggle(change) if change.action == action => {
            there.contains(&(change.target.clone(), change.actor.clone())) == (action == Action::Remove)
        }
        _ => false,
    });
    left.map(|(index, _)| (index, discarded(operation, table))).collect()
}

/// Fails when counts of targets that are there were not changed. `known` is what holds afterwards.
pub(super) fn all_counted(
    table: &ToggleTable,
    counted: u64,
    targets: &[&Id],
    changes: &[i64],
    known: Option<&Known>,
) -> Result<(), sqlx::Error> {
    let there = |target: &Id| known.and_then(|known| known.get(target));
    let is_there = targets.iter().filter(|target| there(target).is_some()).count();
    // A count that would fall below zero stays at zero: some triggers discard what changes nothing.
    let stays = |(target, change): (&&Id, &i64)| *change < 0 && there(target).copied().flatten() == Some(0);
    if targets.len() == 1 && targets.iter().zip(changes).all(stays) {
        return Ok(());
    }
    let name = table.targets.as_ref().map_or("", |targets| &targets.name);
    all_met(WriteOperation::Update, name, counted, is_there)
}

/// The members whose settings are not as they should be, where an update met fewer rows than members. `found` is what
/// holds afterwards.
///
/// # Errors
/// [`unstored`] when that does not tell which were left out.
pub(super) fn settings_left(
    table: &PreferenceTable,
    changes: &[Changed<'_>],
    updated: u64,
    found: &HashMap<Id, Settings>,
) -> Result<Vec<Unstorable>, sqlx::Error> {
    let holds = |settings: &Settings, change: &Changed<'_>| {
        let mut fields = table.fields.iter().zip(&change.values);
        fields.all(|(field, value)| value.is_none_or(|value| settings.get(&field.name) == Some(value)))
    };
    let left: Vec<Unstorable> = changes
        .iter()
        .filter_map(|change| match found.get(change.member) {
            None => Some((change.index, discarded(WriteOperation::Insert, &table.name))),
            Some(settings) if !holds(settings, change) => {
                Some((change.index, discarded(WriteOperation::Update, &table.name)))
            }
            Some(_) => None,
        })
        .collect();
    let missing = changes.iter().filter(|change| !found.contains_key(change.member)).count();
    let not_met = (changes.len() as u64).saturating_sub(updated);
    // Others than those that were left out can differ: a trigger may change what it lets through.
    if left.len() == missing || left.len() as u64 == not_met {
        return Ok(left);
    }
    Err(unstored(discarded(WriteOperation::Update, &table.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RowChange;
    use weir_core::config::{PreferenceConfig, ToggleConfig};
    use weir_core::model::{Origin, Setting, SettingRef};

    #[test]
    fn pairs_are_left_that_should_be_gone_or_there() {
        let row = |target: i64, action| {
            let (origin, target, actor) = (Origin::default(), Id::Int(target), Id::Int(9));
            Row::Toggle(RowChange { origin, target, actor, action })
        };
        let rows = [row(1, Action::Add), row(2, Action::Remove), row(3, Action::Add), row(4, Action::Remove)];
        let rows: Vec<&Row> = rows.iter().collect();
        let there = HashSet::from([(Id::Int(1), Id::Int(9)), (Id::Int(2), Id::Int(9))]);
        let indexes =
            |action| pairs_left("t", &rows, action, &there).into_iter().map(|(index, _)| index).collect::<Vec<_>>();
        assert_eq!((indexes(Action::Add), indexes(Action::Remove)), (vec![2], vec![1]));
    }

    #[test]
    fn a_count_that_stays_at_zero_was_not_discarded() {
        let table = &ToggleConfig::demo().table;
        let (one, two) = (Id::Int(1), Id::Int(2));
        let known = Known::from([(one.clone(), Some(0))]);
        assert!(all_counted(table, 0, &[&one], &[-1], Some(&known)).is_ok());
        assert!(all_counted(table, 0, &[&one], &[1], Some(&known)).is_err());
        assert!(all_counted(table, 0, &[&two], &[1], Some(&known)).is_ok(), "it is not there");
        assert!(all_counted(table, 0, &[&one, &two], &[-1, 1], Some(&known)).is_err(), "the search tells");
    }

    #[test]
    fn members_are_named_where_that_is_certain() {
        let table = PreferenceConfig::demo().table;
        let names = [Id::Int(1), Id::Int(2), Id::Int(3)];
        let changes: Vec<Changed<'_>> = names
            .iter()
            .enumerate()
            .map(|(index, member)| {
                let mut values = vec![None; table.fields.len()];
                values[1] = Some(SettingRef::Bool(false));
                Changed { index, member, values }
            })
            .collect();
        let name = table.fields[1].name.as_str();
        let settings = |on: bool| Settings::of([(name, &Setting::Bool(on))]);
        let left = |updated, found: &[(i64, bool)]| {
            let found = found.iter().map(|(id, on)| (Id::Int(*id), settings(*on))).collect();
            settings_left(&table, &changes, updated, &found)
                .map(|left| left.into_iter().map(|(index, _)| index).collect::<Vec<_>>())
        };
        assert_eq!(
            left(2, &[(1, false), (2, false), (3, false)]).unwrap(),
            [0; 0],
            "what changes nothing holds already"
        );
        assert_eq!(left(2, &[(1, false), (3, false)]).unwrap(), [1]);
        assert_eq!(left(1, &[(1, false), (3, true)]).unwrap(), [1, 2]);
        assert!(left(2, &[(1, true), (3, true)]).is_err(), "one of the two was met");
    }
}
