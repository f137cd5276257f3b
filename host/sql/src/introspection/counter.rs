//! Forms and findings of the tables of a counter.

use super::checks::{
    check_count, check_given, check_id, check_number, check_others, check_time, check_unique, check_width,
};
use super::look::same_form;
use super::{
    Counted, Dialect, IdForm, Introspection, Known, TimeForm, Wanted, created_form, id_form, insert_mismatch, shape,
    usable,
};
use crate::finding::{Problem, Remedy, refuse, warn};
use crate::{Finding, SqlError};
use weir_core::config::{CounterTable, EventTable};

/// The forms of a kind's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forms {
    /// Of the key.
    pub key: IdForm,
    /// Of the table of events.
    pub events: Option<EventForms>,
}

/// The forms of the columns of a table of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventForms {
    /// Of the target column.
    pub target: IdForm,
    /// Of the actor column.
    pub actor: IdForm,
    /// Of the created-at column.
    pub created: Option<TimeForm>,
}

/// The forms, or the first finding that makes the tables unusable.
pub(crate) fn forms<D: Dialect>(
    dialect: &D,
    table: &CounterTable,
    counted: Option<&Introspection>,
    events: Option<&Introspection>,
) -> Result<Forms, SqlError> {
    let found = || {
        let of_events = match &table.events {
            None => None,
            Some(given) => {
                let events = events?;
                Some(EventForms {
                    target: id_form(dialect, events.column(&given.target_column)?, table.target_type)?,
                    actor: id_form(dialect, events.column(&given.actor_column)?, table.actor_type)?,
                    created: created_form(events, given.created_at_column.as_ref())?,
                })
            }
        };
        Some(Forms {
            key: id_form(dialect, counted?.column(&table.key_column)?, table.target_type)?,
            events: of_events,
        })
    };
    usable(found(), || check(dialect, table, counted, events, Known::Everything))
}

/// What makes every insert into the table of events fail.
pub(crate) fn mismatch<D: Dialect>(dialect: &D, table: &EventTable, events: Option<&Introspection>) -> Option<String> {
    insert_mismatch(dialect, &table.name, events, &given(table))
}

/// All findings that follow from the catalogue, and from what was seen of the rows.
pub(crate) fn check<D: Dialect>(
    dialect: &D,
    table: &CounterTable,
    counted: Option<&Introspection>,
    events: Option<&Introspection>,
    known: Known<'_>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (name, key, count) = (&table.name, &*table.key_column, &*table.count_column);
    match counted {
        None => {
            let create = dialect.create(name, &[(key, Wanted::Id(table.target_type)), (count, Wanted::Count)], &[key]);
            findings.push(refuse(Problem::NoTable, format!("table {name} does not exist"), create));
        }
        Some(facts) => {
            findings.extend(facts.findings.iter().cloned());
            check_id(dialect, name, (key, "target_type"), table.target_type, facts, &mut findings);
            check_unique(dialect, name, facts, &[key], &mut findings);
            let rows = rows_of(dialect, table, facts, events);
            check_count(dialect, name, count, facts, rows.as_ref(), &mut findings);
            findings.extend(check_others(name, facts, &[key], &[count], &["UPDATE"]));
            findings.extend(shape::check_targets(name, facts, &[key, count], &known));
            findings.extend(check_width(dialect, name, &[(key, "ids"), (count, "counts")], facts));
        }
    }
    if let Some(given) = &table.events {
        match events {
            None => {
                let create = create_events(dialect, table, given);
                findings.push(refuse(Problem::NoTable, format!("table {} does not exist", given.name), create));
            }
            Some(facts) => check_events(dialect, table, given, facts, &known, &mut findings),
        }
    }
    findings
}

/// The counts, and the events that they count, where both name targets in the same form.
fn rows_of<'t, D: Dialect>(
    dialect: &D,
    table: &'t CounterTable,
    counted: &Introspection,
    events: Option<&Introspection>,
) -> Option<Counted<'t>> {
    let (given, events) = (table.events.as_ref()?, events?);
    let by = given.by_column.as_deref();
    if by.is_some_and(|by| events.column(by).is_none()) {
        return None;
    }
    let form = same_form(dialect, table.target_type, (counted, &table.key_column), (events, &given.target_column))?;
    Some(Counted {
        table: &table.name,
        key: &table.key_column,
        count: &table.count_column,
        form,
        rows: &given.name,
        target: &given.target_column,
        by,
    })
}

/// The columns of events that hold ids.
pub(super) fn event_ids(events: &EventTable) -> [&str; 2] {
    [&events.target_column, &events.actor_column]
}

fn create_events<D: Dialect>(dialect: &D, table: &CounterTable, events: &EventTable) -> Remedy {
    let mut columns = vec![
        (&*events.target_column, Wanted::Id(table.target_type)),
        (&*events.actor_column, Wanted::IdOrNull(table.actor_type)),
    ];
    columns.extend(events.created_at_column.as_deref().map(|created| (created, Wanted::Time)));
    columns.extend(events.by_column.as_deref().map(|by| (by, Wanted::Count)));
    dialect.create(&events.name, &columns, &[])
}

fn check_events<D: Dialect>(
    dialect: &D,
    table: &CounterTable,
    events: &EventTable,
    facts: &Introspection,
    known: &Known<'_>,
    findings: &mut Vec<Finding>,
) {
    findings.extend(facts.findings.iter().cloned());
    let name = &events.name;
    check_id(dialect, name, (&events.target_column, "target_type"), table.target_type, facts, findings);
    check_id(dialect, name, (&events.actor_column, "actor_type"), table.actor_type, facts, findings);
    if let Some(created) = &events.created_at_column {
        check_time(dialect, name, created, facts, findings);
    }
    if let Some(by) = &events.by_column {
        check_number(dialect, name, (by, "number"), facts, findings);
    }
    let time = events.created_at_column.is_none().then_some("created_at_column");
    // Of events only what says that they are about different things would matter, and their targets are what they are.
    check_given(dialect, name, facts, &given(events), time, &Known::Everything, findings);
    findings.extend(check_others(name, facts, &[], &given(events), &["INSERT"]));
    let counts = (table.name.as_str(), table.count_column.as_str());
    let setting = "[counter.table.events]";
    findings.extend(shape::check_counting(dialect, (name, facts), counts, setting, known));
    findings.extend(check_width(dialect, name, &event_ids(events).map(|id| (id, "ids")), facts));
    if let Some(actor) = facts.column(&events.actor_column).filter(|actor| actor.must_be_given) {
        let problem = format!("{name}.{} is NOT NULL: the events of hits by nobody become dead letters", actor.name);
        findings.push(warn(Problem::ActorNotNull, problem, dialect.let_null(name, facts, actor)));
    }
}

/// The columns that weir fills.
fn given(events: &EventTable) -> Vec<&str> {
    let others = [events.created_at_column.as_deref(), events.by_column.as_deref()];
    [&*events.target_column, &events.actor_column].into_iter().chain(others.into_iter().flatten()).collect()
}
