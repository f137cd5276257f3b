//! Forms and findings of the tables of a preference kind.

use super::checks::{bits, check_given, check_id, check_others, check_unique, check_width, computed, missing};
use super::{Dialect, Holds, IdForm, Introspection, Known, Wanted, id_form, insert_mismatch, shape, usable};
use crate::finding::{Problem, Remedy, refuse};
use crate::{Finding, SqlError};
use weir_core::config::{FieldConfig, PreferenceTable};
use weir_core::model::{IdType, SettingType};

/// The forms of a kind's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forms {
    /// Of the member column.
    pub member: IdForm,
    /// Of the key of the table of members.
    pub key: Option<IdForm>,
    /// Of the fields, in the order of the configuration's.
    pub fields: Vec<FieldForm>,
}

/// How the values of a field lie in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldForm {
    /// True and false.
    Boolean,
    /// Integers; true is 1.
    Integer,
    /// Text.
    Text,
}

fn field_form(facts: &Introspection, field: &FieldConfig) -> Option<FieldForm> {
    match (field.field_type, facts.column(&field.column)?.holds) {
        (SettingType::Bool, Holds::Boolean) => Some(FieldForm::Boolean),
        (SettingType::Bool | SettingType::Int, Holds::Integer(_)) => Some(FieldForm::Integer),
        (SettingType::Text, Holds::Text(_)) => Some(FieldForm::Text),
        _ => None,
    }
}

/// The forms, or the first finding that makes the tables unusable.
pub(crate) fn forms<D: Dialect>(
    dialect: &D,
    table: &PreferenceTable,
    own: Option<&Introspection>,
    members: Option<&Introspection>,
) -> Result<Forms, SqlError> {
    let found = || {
        let own = own?;
        let key = match &table.members {
            None => None,
            Some(given) => Some(id_form(dialect, members?.column(&given.key_column)?, table.member_type)?),
        };
        let fields = table.fields.iter().map(|field| field_form(own, field)).collect::<Option<_>>()?;
        Some(Forms { member: id_form(dialect, own.column(&table.member_column)?, table.member_type)?, key, fields })
    };
    usable(found(), || check(dialect, table, own, members, Known::Everything))
}

/// What makes every insert fail.
pub(crate) fn mismatch<D: Dialect>(
    dialect: &D,
    table: &PreferenceTable,
    own: Option<&Introspection>,
) -> Option<String> {
    insert_mismatch(dialect, &table.name, own, &given(table))
}

/// All findings that follow from the catalogue, and from what was seen of the rows.
pub(crate) fn check<D: Dialect>(
    dialect: &D,
    table: &PreferenceTable,
    own: Option<&Introspection>,
    members: Option<&Introspection>,
    known: Known<'_>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (name, member) = (&table.name, &*table.member_column);
    match own {
        None => {
            let mut columns = vec![(member, Wanted::Id(table.member_type))];
            columns.extend(table.fields.iter().map(|field| (&*field.column, wanted(field))));
            let create = dialect.create(name, &columns, &[member]);
            findings.push(refuse(Problem::NoTable, format!("table {name} does not exist"), create));
        }
        Some(facts) => {
            findings.extend(facts.findings.iter().cloned());
            check_id(dialect, name, (member, "member_type"), table.member_type, facts, &mut findings);
            check_unique(dialect, name, facts, &[member], &mut findings);
            table.fields.iter().for_each(|field| check_field(dialect, name, field, facts, &mut findings));
            findings.extend(shape::check_read(name, facts, &given(table), &known));
            check_given(dialect, name, facts, &given(table), None, &Known::Everything, &mut findings);
            findings.extend(check_width(dialect, name, &[(member, "ids")], facts));
            findings.extend(check_others(name, facts, &[member], &given(table), &["INSERT", "UPDATE"]));
        }
    }
    if let Some(given) = &table.members {
        match members {
            None => {
                let columns = [(&*given.key_column, Wanted::Id(table.member_type))];
                let create = dialect.create(&given.name, &columns, &[&given.key_column]).saying(
                    "name the table of your members in weir.toml, or create it and fill it (who is not in it has no settings):",
                );
                findings.push(refuse(Problem::NoTable, format!("table {} does not exist", given.name), create));
            }
            Some(facts) => {
                findings.extend(facts.findings.iter().cloned());
                let (name, key) = (&given.name, &*given.key_column);
                check_id(dialect, name, (key, "member_type"), table.member_type, facts, &mut findings);
                findings.extend(shape::check_targets(name, facts, &[key], &known));
                findings.extend(check_width(dialect, name, &[(key, "ids")], facts));
            }
        }
    }
    findings
}

fn wanted(field: &FieldConfig) -> Wanted {
    match field.field_type {
        SettingType::Bool | SettingType::Int => Wanted::IdOrNull(IdType::Integer),
        SettingType::Text => Wanted::IdOrNull(IdType::Text),
    }
}

fn check_field<D: Dialect>(
    dialect: &D,
    table: &str,
    field: &FieldConfig,
    facts: &Introspection,
    findings: &mut Vec<Finding>,
) {
    let name = &field.column;
    match facts.column(name) {
        None => {
            let remedy = dialect.add_value(table, name, wanted(field));
            findings.push(refuse(Problem::NoValueColumn, missing(table, name), remedy));
        }
        Some(column) if column.generated => findings.push(computed(table, name)),
        Some(column) if matches!(column.holds, Holds::Bits(_)) => findings.push(bits(dialect, table, facts, column)),
        Some(column) if field_form(facts, field).is_none() => findings.push(refuse(
            Problem::ValueType,
            format!("{table}.{name} is {}, which does not hold values of type {}", column.declared, {
                field.field_type.as_str()
            }),
            Remedy::text("change the column, or the field's type in weir.toml"),
        )),
        Some(_) => {}
    }
}

/// The columns that weir fills.
fn given(table: &PreferenceTable) -> Vec<&str> {
    let fields = table.fields.iter().map(|field| &*field.column);
    [&*table.member_column].into_iter().chain(fields).collect()
}
