//! Forms and findings of the tables of a toggle.

use super::{
    Facts, IdForm, TimeForm, Wanted, Words, check_given, check_id, check_integer, check_others, check_time,
    check_unique, created_form, id_form, insert_misfit, refuse, usable,
};
use crate::config::ToggleTable;
use crate::sql::{Finding, SqlError};

/// The forms of a kind's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sql) struct Forms {
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
pub(in crate::sql) fn forms<W: Words>(
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
        Some(Forms {
            target: id_form(words, pairs.column(&table.target_column)?, table.target_type)?,
            actor: id_form(words, pairs.column(&table.actor_column)?, table.actor_type)?,
            created: created_form(pairs, table.created_at_column.as_ref())?,
            key,
        })
    };
    usable(found(), || check(words, table, pairs, targets))
}

/// What makes every insert into the table of the pairs fail.
pub(in crate::sql) fn misfit<W: Words>(words: &W, table: &ToggleTable, pairs: Option<&Facts>) -> Option<String> {
    insert_misfit(words, &table.name, pairs, &given(table))
}

/// All findings that follow from the catalogue.
pub(in crate::sql) fn check<W: Words>(
    words: &W,
    table: &ToggleTable,
    pairs: Option<&Facts>,
    targets: Option<&Facts>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    match pairs {
        None => findings.push(refuse(format!("table {} does not exist", table.name), create_pairs(words, table))),
        Some(facts) => check_pairs(words, table, facts, &mut findings),
    }
    if let Some(given) = &table.targets {
        match targets {
            None => {
                findings.push(refuse(format!("table {} does not exist", given.name), create_targets(words, table)));
            }
            Some(facts) => check_targets(words, table, facts, &mut findings),
        }
    }
    findings
}

fn create_pairs<W: Words>(words: &W, table: &ToggleTable) -> String {
    let mut columns = vec![
        (&*table.target_column, Wanted::Id(table.target_type)),
        (&table.actor_column, Wanted::Id(table.actor_type)),
    ];
    columns.extend(table.created_at_column.as_deref().map(|created| (created, Wanted::Time)));
    words.create(&table.name, &columns, &[&table.target_column, &table.actor_column])
}

fn create_targets<W: Words>(words: &W, table: &ToggleTable) -> String {
    let Some(targets) = &table.targets else { return String::new() };
    let mut columns = vec![(&*targets.key_column, Wanted::Id(table.target_type))];
    columns.extend(targets.count_column.as_deref().map(|count| (count, Wanted::Count)));
    words.create(&targets.name, &columns, &[&targets.key_column])
}

fn check_pairs<W: Words>(words: &W, table: &ToggleTable, facts: &Facts, findings: &mut Vec<Finding>) {
    findings.extend(facts.findings.iter().cloned());
    let name = &table.name;
    check_id(words, name, &table.target_column, table.target_type, facts, findings);
    check_id(words, name, &table.actor_column, table.actor_type, facts, findings);
    if let Some(created) = &table.created_at_column {
        check_time(words, name, created, facts, findings);
    }
    check_unique(words, name, facts, &[&table.target_column, &table.actor_column], findings);
    check_given(words, name, facts, &given(table), findings);
    let own = [&*table.target_column, &table.actor_column];
    findings.extend(check_others(name, facts, &own, &given(table), &["INSERT", "DELETE"]));
}

/// The columns that weir fills.
fn given(table: &ToggleTable) -> Vec<&str> {
    let created = table.created_at_column.as_deref();
    [&*table.target_column, &table.actor_column].into_iter().chain(created).collect()
}

fn check_targets<W: Words>(words: &W, table: &ToggleTable, facts: &Facts, findings: &mut Vec<Finding>) {
    let Some(given) = &table.targets else { return };
    findings.extend(facts.findings.iter().cloned());
    check_id(words, &given.name, &given.key_column, table.target_type, facts, findings);
    check_unique(words, &given.name, facts, &[&given.key_column], findings);
    if let Some(count) = &given.count_column {
        check_integer(words, &given.name, (count, "count"), facts, findings);
        findings.extend(check_others(&given.name, facts, &[&given.key_column], &[count], &["UPDATE"]));
    }
}
