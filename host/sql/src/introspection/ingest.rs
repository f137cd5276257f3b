//! Forms and findings of the tables of documents.

use super::checks::{
    bits, check_given, check_id, check_number, check_others, check_time, check_unique, check_width, computed, missing,
};
use super::{
    Column, Dialect, Holds, Introspection, Known, Wanted, created_form, id_form, insert_mismatch, shape, usable,
};
use crate::documents::{Forms, Sheet, Slot, SlotForm};
use crate::finding::{Problem, Remedy, refuse, warn};
use crate::values::value_form;
use crate::{Finding, SqlError};
use weir_core::config::{ChildTable, IngestTable};

/// The forms, or the first finding that makes the tables unusable. `children` are in the order of the table's.
pub(crate) fn forms<D: Dialect>(
    dialect: &D,
    table: &IngestTable,
    documents: Option<&Introspection>,
    children: &[Option<Introspection>],
) -> Result<Forms, SqlError> {
    let found = || {
        let facts = documents?;
        let id = id_form(dialect, facts.column(&table.id_column)?, table.id_type)?;
        let actor = match &table.actor_column {
            None => None,
            Some(name) => Some(id_form(dialect, facts.column(name)?, table.actor_type)?),
        };
        let created = created_form(facts, table.created_at_column.as_ref())?;
        let mut slots = vec![slot(facts, &table.id_column, SlotForm::Id(id))?];
        if let (Some(name), Some(form)) = (&table.actor_column, actor) {
            slots.push(slot(facts, name, SlotForm::Id(form))?);
        }
        if let (Some(name), Some(form)) = (&table.created_at_column, created) {
            slots.push(slot(facts, name, SlotForm::Time(form))?);
        }
        for name in table.columns.values() {
            slots.push(value_slot(dialect, facts, name)?);
        }
        let own = Sheet { table: table.name.clone(), slots, order: Vec::new() };
        let sheets = table.children.iter().zip(children);
        let children = sheets.map(|(child, facts)| child_sheet(dialect, table, child, facts.as_ref()?));
        Some(Forms { id, actor, created, own, children: children.collect::<Option<_>>()? })
    };
    usable(found(), || check(dialect, table, documents, children, Known::Everything))
}

fn child_sheet<D: Dialect>(
    dialect: &D,
    table: &IngestTable,
    child: &ChildTable,
    facts: &Introspection,
) -> Option<Sheet> {
    let parent = id_form(dialect, facts.column(&child.parent_column)?, table.id_type)?;
    let mut slots = vec![slot(facts, &child.parent_column, SlotForm::Id(parent))?];
    if let Some(name) = &child.position_column {
        slots.push(slot(facts, name, SlotForm::Position)?);
    }
    for name in child.value_column.iter().chain(child.columns.values()) {
        slots.push(value_slot(dialect, facts, name)?);
    }
    // Without a position any order will do that is the same each time.
    let order = match (&child.position_column, facts.unique.first()) {
        (Some(position), _) => vec![position.clone()],
        (None, Some(key)) if key.columns.iter().all(|column| facts.column(column).is_some()) => key.columns.clone(),
        (None, _) => slots.iter().skip(1).map(|slot| slot.name.clone()).collect(),
    };
    Some(Sheet { table: child.name.clone(), slots, order })
}

fn slot(facts: &Introspection, name: &str, form: SlotForm) -> Option<Slot> {
    let Column { name, declared, default, .. } = facts.column(name)?.clone();
    // The ids, the time and the position are always given.
    let default = default.filter(|_| matches!(form, SlotForm::Value(_)));
    Some(Slot { name, declared, form, default })
}

fn value_slot<D: Dialect>(dialect: &D, facts: &Introspection, name: &str) -> Option<Slot> {
    let column = facts.column(name).filter(|column| !column.generated)?;
    slot(facts, name, SlotForm::Value(value_form(dialect, column)?))
}

/// What makes every insert fail.
pub(crate) fn mismatch<D: Dialect>(
    dialect: &D,
    table: &IngestTable,
    documents: Option<&Introspection>,
    children: &[Option<Introspection>],
) -> Option<String> {
    insert_mismatch(dialect, &table.name, documents, &given(table)).or_else(|| {
        let mut children = table.children.iter().zip(children);
        children.find_map(|(child, facts)| insert_mismatch(dialect, &child.name, facts.as_ref(), &given_child(child)))
    })
}

/// All findings that follow from the catalogue, and from what was seen of the rows.
pub(crate) fn check<D: Dialect>(
    dialect: &D,
    table: &IngestTable,
    documents: Option<&Introspection>,
    children: &[Option<Introspection>],
    known: Known<'_>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    match documents {
        None => {
            let problem = format!("table {} does not exist", table.name);
            findings.push(refuse(Problem::NoTable, problem, create(dialect, table)));
        }
        Some(facts) => check_documents(dialect, table, facts, &known, &mut findings),
    }
    for (child, facts) in table.children.iter().zip(children) {
        match facts {
            None => {
                let create = create_child(dialect, table, child);
                findings.push(refuse(Problem::NoTable, format!("table {} does not exist", child.name), create));
            }
            Some(facts) => check_child(dialect, table, child, facts, &known, &mut findings),
        }
    }
    findings
}

fn create<D: Dialect>(dialect: &D, table: &IngestTable) -> Remedy {
    let mut columns = vec![(&*table.id_column, Wanted::Id(table.id_type))];
    columns.extend(table.actor_column.as_deref().map(|actor| (actor, Wanted::Id(table.actor_type))));
    columns.extend(table.created_at_column.as_deref().map(|created| (created, Wanted::Time)));
    columns.extend(table.columns.values().map(|column| (&**column, Wanted::Field)));
    dialect.create(&table.name, &columns, &[&table.id_column])
}

fn create_child<D: Dialect>(dialect: &D, table: &IngestTable, child: &ChildTable) -> Remedy {
    let mut columns = vec![(&*child.parent_column, Wanted::Id(table.id_type))];
    columns.extend(child.position_column.as_deref().map(|position| (position, Wanted::Count)));
    columns.extend(child.value_column.iter().chain(child.columns.values()).map(|column| (&**column, Wanted::Field)));
    let key: Vec<&str> = match &child.position_column {
        Some(position) => vec![&child.parent_column, position],
        None => Vec::new(),
    };
    dialect.create(&child.name, &columns, &key)
}

fn check_documents<D: Dialect>(
    dialect: &D,
    table: &IngestTable,
    facts: &Introspection,
    known: &Known<'_>,
    findings: &mut Vec<Finding>,
) {
    findings.extend(facts.findings.iter().cloned());
    let (name, id) = (&table.name, &*table.id_column);
    check_id(dialect, name, (id, "id_type"), table.id_type, facts, findings);
    check_unique(dialect, name, facts, &[id], findings);
    if let Some(actor) = &table.actor_column {
        check_id(dialect, name, (actor, "actor_type"), table.actor_type, facts, findings);
        if facts.column(actor).is_some() && !facts.leading.contains(actor) {
            let columns: Vec<&str> = [&**actor].into_iter().chain(table.created_at_column.as_deref()).collect();
            let problem = format!("{name} has no index that begins with {actor}: lists of documents read all of it");
            findings.push(warn(Problem::NoIndex, problem, dialect.add_index(name, &columns)));
        }
    }
    if let Some(created) = &table.created_at_column {
        check_time(dialect, name, created, facts, findings);
    }
    for column in table.columns.values() {
        check_value(dialect, name, column, facts, findings);
    }
    let (given, time) = (given(table), table.created_at_column.is_none().then_some("created_at_column"));
    findings.extend(shape::check_read(name, facts, &given, known));
    check_given(dialect, name, facts, &given, time, &Known::Everything, findings);
    findings.extend(check_others(name, facts, &[id], &given, &["INSERT"]));
    let ids: Vec<(&str, &str)> =
        [id].into_iter().chain(table.actor_column.as_deref()).map(|column| (column, "ids")).collect();
    findings.extend(check_width(dialect, name, &ids, facts));
}

fn check_child<D: Dialect>(
    dialect: &D,
    table: &IngestTable,
    child: &ChildTable,
    facts: &Introspection,
    known: &Known<'_>,
    findings: &mut Vec<Finding>,
) {
    findings.extend(facts.findings.iter().cloned());
    let (name, parent) = (&child.name, &child.parent_column);
    check_id(dialect, name, (parent, "id_type"), table.id_type, facts, findings);
    if facts.column(parent).is_some() && !facts.leading.contains(parent) {
        let problem = format!("{name} has no index that begins with {parent}: to read a document reads all of it");
        findings.push(warn(Problem::NoIndex, problem, dialect.add_index(name, &[parent])));
    }
    if let Some(position) = &child.position_column {
        check_number(dialect, name, (position, "position"), facts, findings);
    }
    for column in child.value_column.iter().chain(child.columns.values()) {
        check_value(dialect, name, column, facts, findings);
    }
    let given = given_child(child);
    findings.extend(shape::check_read(name, facts, &given, known));
    check_given(dialect, name, facts, &given, None, &Known::Everything, findings);
    let own: Vec<&str> = child.position_column.iter().flat_map(|position| [&**parent, position.as_str()]).collect();
    findings.extend(check_others(name, facts, &own, &given, &["INSERT"]));
    findings.extend(check_width(dialect, name, &[(parent, "ids")], facts));
}

fn check_value<D: Dialect>(dialect: &D, table: &str, name: &str, facts: &Introspection, findings: &mut Vec<Finding>) {
    match facts.column(name) {
        None => {
            let remedy = dialect.add_value(table, name, Wanted::Field);
            findings.push(refuse(Problem::NoValueColumn, missing(table, name), remedy));
        }
        Some(column) if column.generated => findings.push(computed(table, name)),
        Some(column) if value_form(dialect, column).is_none() && matches!(column.holds, Holds::Bits(_)) => {
            findings.push(bits(dialect, table, facts, column));
        }
        Some(column) if value_form(dialect, column).is_none() => findings.push(refuse(
            Problem::ValueType,
            format!("{table}.{name} is {}, for which JSON has no values", column.declared),
            Remedy::text("leave the column out in weir.toml, or give it another type"),
        )),
        Some(_) => {}
    }
}

/// The columns that weir fills.
fn given(table: &IngestTable) -> Vec<&str> {
    let others = [table.actor_column.as_deref(), table.created_at_column.as_deref()].into_iter().flatten();
    [&*table.id_column].into_iter().chain(others).chain(table.columns.values().map(String::as_str)).collect()
}

fn given_child(child: &ChildTable) -> Vec<&str> {
    let others = child.position_column.iter().chain(&child.value_column).chain(child.columns.values());
    [&*child.parent_column].into_iter().chain(others.map(String::as_str)).collect()
}
