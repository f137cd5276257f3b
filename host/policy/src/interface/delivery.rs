//! `delivery`: columns of settings out, who gets a push back.

use weir_default_policy::delivery as rules;
use weir_policy_vectors as vectors;
use weir_policy_vectors::Call;

use super::Interface;
use crate::bindings::delivery;
use crate::call::{Called, Outcome, Role, not_exported};
use crate::contract::Contract;
use crate::convert::check_length;
use crate::instance::Warm;
use crate::module::Module;
use weir_core::model::{FIELD_NAME_BYTES_MAX, SettingColumn, SettingValues};

/// Members that one deadline is for: a chunk is many times the size of a batch of requests.
const DEADLINE_MEMBERS: u32 = 500;
/// Fields of a topic at most.
const FIELDS_MAX: usize = 64;

/// What is asked of a module for one chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) kind: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) now_ms: u64,
    pub(crate) members: u32,
    pub(crate) columns: &'a [SettingColumn],
}

impl Module {
    /// The fields that a topic needs, all of them configured where `contract` knows them.
    pub(crate) fn fields(
        &self,
        role: Role,
        kind: &str,
        topic: &str,
        contract: Option<&dyn Contract>,
    ) -> Outcome<Vec<String>> {
        let call = |warm: &mut Warm| match &warm.exports.delivery {
            Some(delivery) => delivery.call_fields(&mut warm.store, kind, topic),
            None => Err(not_exported()),
        };
        self.run(role, Called { interface: Interface::Delivery, function: "fields", kind }, 1, call, |fields| {
            check_fields(fields, contract)
        })
    }

    /// Who gets a push.
    pub(crate) fn enabled(&self, role: Role, asked: Asked<'_>) -> Outcome<Vec<bool>> {
        let Asked { kind, topic, now_ms, members, columns } = asked;
        let texts: Vec<Vec<&str>> = columns.iter().map(texts).collect();
        let columns: Vec<delivery::Column<'_>> = columns.iter().zip(&texts).map(column).collect();
        let call = |warm: &mut Warm| match &warm.exports.delivery {
            Some(delivery) => delivery.call_enabled(&mut warm.store, kind, topic, now_ms, members, &columns),
            None => Err(not_exported()),
        };
        let check =
            |enabled: Vec<bool>| check_length(members as usize, "members", enabled.len(), "answers").map(|()| enabled);
        let deadlines = u64::from(members.div_ceil(DEADLINE_MEMBERS).max(1));
        self.run(role, Called { interface: Interface::Delivery, function: "enabled", kind }, deadlines, call, check)
    }
}

/// The texts of a column, borrowed; none where it holds others.
fn texts(column: &SettingColumn) -> Vec<&str> {
    match &column.values {
        SettingValues::Texts(values) => values.iter().map(|text| &**text).collect(),
        SettingValues::Bools(_) | SettingValues::Ints(_) => Vec::new(),
    }
}

/// A column as the guest gets it.
fn column<'a>((column, texts): (&'a SettingColumn, &'a Vec<&'a str>)) -> delivery::Column<'a> {
    let values = match &column.values {
        SettingValues::Bools(values) => delivery::Values::Bools(values),
        SettingValues::Ints(values) => delivery::Values::Ints(values),
        SettingValues::Texts(_) => delivery::Values::Texts(texts),
    };
    delivery::Column { field: &column.field, values }
}

/// Names of fields, or how they break the contract: that of the interface, and that of the kind.
fn check_fields(fields: Vec<String>, contract: Option<&dyn Contract>) -> Result<Vec<String>, String> {
    if fields.len() > FIELDS_MAX {
        return Err(format!("{} fields, over {FIELDS_MAX}", fields.len()));
    }
    for (index, field) in fields.iter().enumerate() {
        if field.is_empty() || field.len() > FIELD_NAME_BYTES_MAX {
            return Err(format!("field {index} has a name of {} bytes", field.len()));
        }
        if fields[..index].contains(field) {
            return Err(format!("field {field:?} is there twice"));
        }
        contract.map_or(Ok(()), |contract| contract.check_field(field))?;
    }
    Ok(fields)
}

/// The built-in rules.
pub(crate) fn builtin(settings: &rules::Settings, asked: Asked<'_>) -> Vec<bool> {
    let columns: Vec<rules::Column<'_>> = asked.columns.iter().map(builtin_column).collect();
    rules::enabled(settings, asked.now_ms, asked.members as usize, &columns)
}

/// A column as the built-in rules take it.
fn builtin_column(column: &SettingColumn) -> rules::Column<'_> {
    let values = match &column.values {
        SettingValues::Bools(values) => rules::Values::Bools(values),
        SettingValues::Ints(values) => rules::Values::Ints(values),
        SettingValues::Texts(_) => rules::Values::Texts(texts(column)),
    };
    rules::Column { field: &column.field, values }
}

/// A call of `delivery.fields`.
pub(crate) fn record_fields(kind: &str, topic: &str) -> Call {
    Call::DeliveryFields(vectors::DeliveryFields { kind: kind.to_owned(), topic: topic.to_owned() })
}

/// A call of `delivery.enabled`.
pub(crate) fn record_enabled(asked: Asked<'_>) -> Call {
    let column = |column: &SettingColumn| vectors::Column {
        field: column.field.to_string(),
        values: match &column.values {
            SettingValues::Bools(values) => vectors::Values::Bools(values.clone()),
            SettingValues::Ints(values) => vectors::Values::Ints(values.clone()),
            SettingValues::Texts(values) => {
                vectors::Values::Texts(values.iter().map(|text| text.to_string()).collect())
            }
        },
    };
    Call::DeliveryEnabled(vectors::DeliveryEnabled {
        kind: asked.kind.to_owned(),
        topic: asked.topic.to_owned(),
        now_ms: asked.now_ms,
        members: asked.members,
        columns: asked.columns.iter().map(column).collect(),
    })
}

/// A recorded column.
pub(crate) fn to_column(column: &vectors::Column) -> SettingColumn {
    let values = match &column.values {
        vectors::Values::Bools(values) => SettingValues::Bools(values.clone()),
        vectors::Values::Ints(values) => SettingValues::Ints(values.clone()),
        vectors::Values::Texts(values) => {
            SettingValues::Texts(values.iter().map(|text| text.as_str().into()).collect())
        }
    };
    SettingColumn { field: column.field.as_str().into(), values }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_are_bounded_and_there_once() {
        let check = |names: &[&str]| check_fields(names.iter().map(|name| (*name).to_owned()).collect(), None);
        assert!(check(&[]).is_ok() && check(&["a", "b"]).is_ok());
        assert!(check(&["a", "a"]).unwrap_err().contains("twice"));
        assert!(check(&[""]).is_err() && check(&["x"; 65]).is_err());
        assert!(check(&[&"x".repeat(64)]).is_err());
    }
}
