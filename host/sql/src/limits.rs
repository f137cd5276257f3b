//! What the columns of a kind's tables can hold, so that what cannot fit is refused at the door and never becomes a dead letter.
//!
//! Knows no engine: an engine reads its catalogue into [`Seen`]. Sends nothing. Says less where it is not sure: what
//! it lets through is judged by the database, as ever.

use std::sync::Arc;

use serde_json::Value;

use super::documents::{self, Forms};
use super::introspection::{Column, Dialect, Holds, IdForm, Introspection, id_form};
use super::numbers::grown;
use weir_core::config::{IngestTable, KindTable};
use weir_core::model::{Id, IdType, SettingRef, Settings, Violation};

/// What a column can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Integers from the one to the other.
    Integer(i64, i64),
    /// Text of so many characters.
    Characters(u64),
}

/// A column that cannot hold everything.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ColumnLimit {
    /// Table and column, with a dot between them.
    column: Arc<str>,
    bound: Bound,
}

/// Why a value does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Table and column, with a dot between them.
    pub column: Arc<str>,
    /// What the column holds, in dialect.
    pub limit: Arc<str>,
}

/// Whose row must be there before a kind's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentOf {
    /// The target's, or the member's.
    Target,
    /// The actor's.
    Actor,
}

/// A table that a foreign key leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Which id leads there.
    pub of: ParentOf,
    /// Table and column of the foreign key, with a dot between them.
    pub column: Arc<str>,
    /// The table.
    pub table: String,
    /// Its column.
    pub key: String,
    /// How ids lie there.
    pub(super) form: IdForm,
}

/// What fits into the tables of a kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    target: Option<ColumnLimit>,
    actor: Option<ColumnLimit>,
    by: Option<ColumnLimit>,
    fields: Vec<(String, ColumnLimit)>,
    documents: Option<(IngestTable, Forms, bool)>,
    /// The tables in which rows must be there first.
    pub parents: Vec<Parent>,
}

/// What an engine has read of the table that gets a kind's rows.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The table.
    pub facts: Option<Introspection>,
    /// Its foreign keys of one column: the column, the other table, its column, and what is known of that table.
    pub keys: Vec<(String, String, String, Option<Introspection>)>,
    /// Of documents: the forms of their columns.
    pub forms: Option<Forms>,
}

impl Bound {
    fn of(column: &Column) -> Option<Self> {
        match column.holds {
            Holds::Integer(8) if !column.unsigned => None,
            Holds::Integer(bytes) => {
                let bits = u32::from(bytes.min(8)) * 8;
                let most = |bits: u32| i64::try_from((1_i128 << bits) - 1).unwrap_or(i64::MAX);
                Some(match column.unsigned {
                    true => Self::Integer(0, most(bits)),
                    false => Self::Integer(-most(bits - 1) - 1, most(bits - 1)),
                })
            }
            Holds::Text(Some(room)) | Holds::Fixed(room) => Some(Self::Characters(room)),
            _ => None,
        }
    }
}

impl ColumnLimit {
    fn of(table: &str, facts: &Introspection, name: &str) -> Option<Self> {
        let bound = Bound::of(facts.column(name)?)?;
        Some(Self { column: format!("{table}.{name}").into(), bound })
    }

    fn unfit(&self) -> Unfit {
        let limit = match self.bound {
            Bound::Integer(least, most) => format!("integers from {least} to {most}"),
            Bound::Characters(most) => format!("text of {most} characters at most"),
        };
        Unfit { column: Arc::clone(&self.column), limit: limit.into() }
    }

    fn check_number(&self, number: i64) -> Result<(), Unfit> {
        match self.bound {
            Bound::Integer(least, most) if !(least..=most).contains(&number) => Err(self.unfit()),
            _ => Ok(()),
        }
    }

    fn check_text(&self, text: &str) -> Result<(), Unfit> {
        match self.bound {
            Bound::Characters(most) if text.len() as u64 > most && text.chars().count() as u64 > most => {
                Err(self.unfit())
            }
            _ => Ok(()),
        }
    }

    fn check_id(&self, id: &Id) -> Result<(), Unfit> {
        match id {
            Id::Int(number) => self.check_number(*number),
            Id::Text(text) => self.check_text(text),
            // It has the form of its column, or none at all.
            Id::Uuid(_) => Ok(()),
        }
    }
}

/// The table that gets a kind's rows; `None` where rows are only changed.
pub(super) fn table_of(kind: &KindTable) -> Option<&str> {
    grown(kind).first().map(|grown| grown.table)
}

impl Limits {
    /// What follows from what an engine has read.
    pub(super) fn new<D: Dialect>(dialect: &D, kind: &KindTable, seen: &Seen) -> Self {
        let (Some(name), Some(facts)) = (table_of(kind), &seen.facts) else { return Self::default() };
        let limit = |column: &str| ColumnLimit::of(name, facts, column);
        let parent = |of, column: &str, id_type| parent(dialect, (name, of, column, id_type), seen);
        match kind {
            KindTable::Toggle(table) => {
                // Where there is a table of targets it is known already which are there.
                let of_target = parent(ParentOf::Target, &table.target_column, table.target_type);
                let of_target = of_target.filter(|_| table.targets.is_none());
                let of_actor = parent(ParentOf::Actor, &table.actor_column, table.actor_type);
                Self {
                    target: limit(&table.target_column),
                    actor: limit(&table.actor_column),
                    parents: of_target.into_iter().chain(of_actor).collect(),
                    ..Self::default()
                }
            }
            KindTable::Counter(table) => {
                let Some(events) = &table.events else { return Self::default() };
                Self {
                    target: limit(&events.target_column),
                    actor: limit(&events.actor_column),
                    by: events.by_column.as_deref().and_then(limit),
                    parents: parent(ParentOf::Actor, &events.actor_column, table.actor_type).into_iter().collect(),
                    ..Self::default()
                }
            }
            KindTable::Ingest(table) => {
                let actor = table.actor_column.as_deref();
                Self {
                    target: limit(&table.id_column),
                    actor: actor.and_then(limit),
                    documents: seen.forms.clone().map(|forms| (table.clone(), forms, D::NUL)),
                    parents: actor
                        .and_then(|actor| parent(ParentOf::Actor, actor, table.actor_type))
                        .into_iter()
                        .collect(),
                    ..Self::default()
                }
            }
            KindTable::Preference(table) => {
                let of_member = parent(ParentOf::Target, &table.member_column, table.member_type);
                let fields = table.fields.iter();
                Self {
                    target: limit(&table.member_column),
                    fields: fields.filter_map(|field| Some((field.name.clone(), limit(&field.column)?))).collect(),
                    parents: of_member.filter(|_| table.members.is_none()).into_iter().collect(),
                    ..Self::default()
                }
            }
        }
    }

    /// Whether the ids and the number of a row fit.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self, target: Option<&Id>, actor: Option<&Id>, by: Option<u32>) -> Result<(), Unfit> {
        let check = |limit: &Option<ColumnLimit>, id: Option<&Id>| match (limit, id) {
            (Some(limit), Some(id)) => limit.check_id(id),
            _ => Ok(()),
        };
        check(&self.target, target)?;
        check(&self.actor, actor)?;
        match (&self.by, by) {
            (Some(limit), Some(by)) => limit.check_number(by.into()),
            _ => Ok(()),
        }
    }

    /// Whether what is set of a member fits.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check_settings(&self, settings: &Settings) -> Result<(), Unfit> {
        self.fields.iter().try_for_each(|(name, limit)| match settings.get(name) {
            Some(SettingRef::Int(number)) => limit.check_number(number),
            Some(SettingRef::Text(text)) => limit.check_text(text),
            Some(SettingRef::Bool(_)) | None => Ok(()),
        })
    }

    /// What of a document does not fit, at most `most`.
    pub fn violations(&self, document: &Value, most: usize) -> Vec<Violation> {
        let Some((table, forms, nul)) = &self.documents else { return Vec::new() };
        documents::violations(table, forms, document, *nul, most)
    }
}

/// What a foreign key of this column leads to.
fn parent<D: Dialect>(
    dialect: &D,
    (table, of, column, id_type): (&str, ParentOf, &str, IdType),
    seen: &Seen,
) -> Option<Parent> {
    let (_, other, key, facts) = seen.keys.iter().find(|(from, ..)| from == column)?;
    let column_of_key = facts.as_ref()?.column(key)?;
    // Where different texts are equal the row that an id leads to may be written otherwise, and would be missed.
    if column_of_key.collation.is_some() {
        return None;
    }
    let form = id_form(dialect, column_of_key, id_type)?;
    Some(Parent { of, column: format!("{table}.{column}").into(), table: other.clone(), key: key.clone(), form })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(holds: Holds, unsigned: bool) -> Column {
        Column {
            name: "c".into(),
            declared: "a type".into(),
            holds,
            unsigned,
            must_be_given: false,
            default: None,
            preset: false,
            generated: false,
            collation: None,
            rest: String::new(),
            collated: String::new(),
        }
    }

    #[test]
    fn a_column_holds_what_its_type_says() {
        let limit = |holds, unsigned| {
            let facts = Introspection { columns: vec![column(holds, unsigned)], ..Introspection::default() };
            ColumnLimit::of("t", &facts, "c")
        };
        assert_eq!(limit(Holds::Integer(8), false), None);
        assert_eq!(limit(Holds::Text(None), false), None);
        let small = limit(Holds::Integer(2), false).unwrap();
        assert!(small.check_number(-32_768).is_ok() && small.check_number(32_767).is_ok());
        let said = small.check_id(&Id::Int(32_768)).unwrap_err();
        assert_eq!((&*said.column, &*said.limit), ("t.c", "integers from -32768 to 32767"));
        let wide = limit(Holds::Integer(8), true).unwrap();
        assert!(wide.check_number(i64::MAX).is_ok() && wide.check_number(-1).is_err());
        let text = limit(Holds::Text(Some(3)), false).unwrap();
        assert!(text.check_text("äöü").is_ok() && text.check_text("abcd").is_err());
    }
}
