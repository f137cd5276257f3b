//! How a batch crosses to MariaDB and MySQL: a place for each value, in statements whose text depends on the number of rows.
//!
//! This driver neither sends at once what is small (no TCP_NODELAY) nor waits for an answer when it gives a statement back,
//! so that each one given back costs a delayed acknowledgement, about 40 ms. Hence few texts: batches have sizes that are
//! powers of two. A [`Template`] either repeats the last row up to such a size, or splits the rows into parts of such
//! sizes. Holds no SQL text.

use std::borrow::Cow;

use serde_json::Value;
use sqlx::mysql::{MySqlArguments, MySqlConnection, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, MySql, Row as _, SqlStr, ValueRef as _};

use crate::documents::{Slot, SlotForm};
use crate::introspection::{IdForm, TimeForm};
use crate::preferences::as_text;
use crate::rows::{cut_down, signed, time_text, unsigned, uuid_id};
use crate::values::{Given, ValueForm, taken};
use crate::wire::{Batch, Parameter, Record, Statement, Wire, id_text, order_text, plain_columns};
use weir_core::model::Id;

type MysqlQuery<'q> = Query<'q, MySql, MySqlArguments>;

/// How many rows one execution has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// As many as there are.
    Whole,
    /// At most so many; the last row again up to a power of two, for lists in which repeating is harmless.
    Padded(usize),
    /// A power of two, at most so many.
    Exact(usize),
}

/// A piece of a statement's text.
#[derive(Debug, Clone)]
enum Piece {
    /// Stands once. Its places take these parameters, in order.
    Once(Cow<'static, str>, Vec<usize>),
    /// Stands once for each row, with a text between them.
    Each(Cow<'static, str>, &'static str, Vec<usize>),
    /// As `Each`, with the row's number (from 0) and the integer of a parameter within.
    Numbered { start: String, middle: String, bound: usize, end: &'static str, between: &'static str },
    /// Stands once, where the batch says that locks are not waited for.
    NoWait(&'static str),
}

/// A statement, and which parameters its places take.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
    fill: Fill,
}

impl Template {
    /// For as many rows as there are, or for none.
    pub fn whole() -> Self {
        Self { pieces: Vec::new(), fill: Fill::Whole }
    }

    /// For lists in which a row may be repeated; at most `most` rows, a power of two.
    pub fn padded(most: usize) -> Self {
        Self { pieces: Vec::new(), fill: Fill::Padded(most) }
    }

    /// For lists in which no row may be repeated; at most `most` rows, a power of two.
    pub fn exact(most: usize) -> Self {
        Self { pieces: Vec::new(), fill: Fill::Exact(most) }
    }

    /// Adds a text without places.
    pub fn text(self, text: impl Into<Cow<'static, str>>) -> Self {
        self.once(text, [])
    }

    /// Adds a text, and the parameters that its places take.
    pub fn once(mut self, text: impl Into<Cow<'static, str>>, places: impl Into<Vec<usize>>) -> Self {
        self.pieces.push(Piece::Once(text.into(), places.into()));
        self
    }

    /// Adds a text for each row, and the parameters that its places take.
    pub fn each(
        mut self,
        text: impl Into<Cow<'static, str>>,
        between: &'static str,
        places: impl Into<Vec<usize>>,
    ) -> Self {
        self.pieces.push(Piece::Each(text.into(), between, places.into()));
        self
    }

    /// Adds places for the first parameter of each row, with commas between them.
    pub fn list(self) -> Self {
        self.each("?", ", ", [0])
    }

    /// Adds a text for each row with its number between `start` and `middle`, and the integer of the parameter `bound`
    /// before `end`. Its place takes the first parameter.
    pub fn numbered(
        mut self,
        start: String,
        middle: String,
        bound: usize,
        end: &'static str,
        between: &'static str,
    ) -> Self {
        self.pieces.push(Piece::Numbered { start, middle, bound, end, between });
        self
    }

    /// Adds a text where locks are not waited for.
    pub fn no_wait(mut self, text: &'static str) -> Self {
        self.pieces.push(Piece::NoWait(text));
        self
    }

    /// The text of a statement without places.
    pub fn plain(&self) -> String {
        self.render(1, &Batch::new())
    }

    fn render(&self, count: usize, batch: &Batch<'_>) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Once(once, _) => text.push_str(once),
                Piece::Each(each, between, _) => {
                    text.reserve(count * (each.len() + between.len()));
                    for row in 0..count {
                        text.push_str(if row > 0 { between } else { "" });
                        text.push_str(each);
                    }
                }
                Piece::Numbered { start, middle, bound, end, between } => {
                    let bound = match batch.parameters().get(*bound) {
                        Some(Parameter::Integer(bound)) => *bound,
                        _ => 0,
                    };
                    let each = |row| format!("{start}{row}{middle}{bound}{end}");
                    text.push_str(&(0..count).map(each).collect::<Vec<_>>().join(between));
                }
                Piece::NoWait(no_wait) => text.push_str(if batch.must_not_wait() { no_wait } else { "" }),
            }
        }
        text
    }

    fn bound(&self, batch: &Batch<'_>) -> MysqlQuery<'static> {
        let rows = batch.rows();
        let count = match self.fill {
            Fill::Padded(_) if rows > 0 => rows.next_power_of_two(),
            _ => rows,
        };
        let last = rows.saturating_sub(1);
        let parameters = batch.parameters();
        let mut query = sqlx::query(AssertSqlSafe(self.render(count, batch)));
        for piece in &self.pieces {
            query = match piece {
                Piece::Once(_, places) => places.iter().fold(query, |query, place| bind(query, &parameters[*place], 0)),
                Piece::Each(_, _, places) => (0..count).fold(query, |query, row| {
                    places.iter().fold(query, |query, place| bind(query, &parameters[*place], row.min(last)))
                }),
                Piece::Numbered { .. } => (0..count).fold(query, |query, row| bind(query, &parameters[0], row)),
                Piece::NoWait(_) => query,
            };
        }
        query
    }
}

impl Statement for Template {
    fn parts<'r, T>(&self, rows: &'r [T]) -> Vec<&'r [T]> {
        match self.fill {
            _ if rows.is_empty() => Vec::new(),
            Fill::Whole => vec![rows],
            Fill::Padded(most) => rows.chunks(most).collect(),
            Fill::Exact(most) => powers_of_two(rows, most),
        }
    }
}

/// The rows in parts whose sizes are powers of two, `most` at most.
fn powers_of_two<T>(mut rows: &[T], most: usize) -> Vec<&[T]> {
    let mut parts = Vec::new();
    while !rows.is_empty() {
        let (part, rest) = rows.split_at((1 << rows.len().ilog2()).min(most));
        parts.push(part);
        rows = rest;
    }
    parts
}

impl Wire for MySqlConnection {
    type Statement = Template;
    type Row = MySqlRow;

    async fn fetch(&mut self, statement: &Template, batch: &Batch<'_>) -> Result<Vec<MySqlRow>, sqlx::Error> {
        statement.bound(batch).fetch_all(self).await
    }

    async fn execute(&mut self, statement: &Template, batch: &Batch<'_>) -> Result<u64, sqlx::Error> {
        Ok(statement.bound(batch).execute(self).await?.rows_affected())
    }

    async fn command(&mut self, text: SqlStr) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(text).execute(self).await.map(drop)
    }
}

/// Binds the value of a row, or the single value.
fn bind<'q>(query: MysqlQuery<'q>, parameter: &Parameter<'_>, row: usize) -> MysqlQuery<'q> {
    match parameter {
        Parameter::Ids(form, ids) => bind_id(query, *form, ids[row]),
        // Even a NULL has a type here, and not every type goes into every column.
        Parameter::OptionalIds(form, ids) => match ids[row] {
            Some(id) => bind_id(query, *form, id),
            None => query.bind(None::<String>),
        },
        Parameter::Times(form, times) => bind_time(query, *form, times[row]),
        Parameter::Integers(values) => query.bind(values[row]),
        Parameter::Partitions(values) => query.bind(i64::from(values[row])),
        Parameter::Uuids(values) => query.bind(values[row].to_string()),
        Parameter::Texts(values) => query.bind(&*values[row]),
        Parameter::OptionalTexts(values) => query.bind(values[row].as_deref()),
        Parameter::Settings(form, values) => query.bind(values[row].map(|value| as_text(*form, value))),
        Parameter::Records(sheet, rows) => rows[row].iter().zip(&sheet.slots).fold(query, bind_given),
        Parameter::Id(form, id) => bind_id(query, *form, id),
        Parameter::LastId(_, Some(Id::Int(id))) => query.bind(*id),
        Parameter::LastId(form, id) => query.bind(id.map(|id| order_text(*form, id).into_owned())),
        Parameter::Time(form, at_ms) => bind_time(query, *form, unsigned(*at_ms)),
        Parameter::Integer(value) => query.bind(*value),
        Parameter::OptionalInteger(value) => query.bind(*value),
        Parameter::Partition(value) => query.bind(i64::from(*value)),
        Parameter::Uuid(value) => query.bind(value.to_string()),
        Parameter::Text(value) => query.bind(&**value),
        Parameter::OptionalText(value) => query.bind(value.as_deref()),
        Parameter::Boolean(value) => query.bind(*value),
    }
}

/// Binds an id. Its type is checked before.
fn bind_id<'q>(query: MysqlQuery<'q>, form: IdForm, id: &Id) -> MysqlQuery<'q> {
    match (form, id) {
        (_, Id::Int(value)) => query.bind(*value),
        (IdForm::UuidBytes, Id::Uuid(value)) => query.bind(*value),
        (_, other) => query.bind(&*id_text(other)),
    }
}

fn bind_time(query: MysqlQuery<'_>, form: TimeForm, at_ms: u64) -> MysqlQuery<'_> {
    match form {
        TimeForm::Millis => query.bind(signed(at_ms)),
        TimeForm::Iso => query.bind(time_text(at_ms, true)),
        TimeForm::Zoned(digits) | TimeForm::Plain(digits) => query.bind(time_text(cut_down(at_ms, digits), false)),
    }
}

fn bind_given<'q>(query: MysqlQuery<'q>, (given, slot): (&Given, &Slot)) -> MysqlQuery<'q> {
    let is_native = slot.form == SlotForm::Value(ValueForm::Native);
    match given {
        Given::Null => query.bind(None::<String>),
        // A type that takes no numbers says that it is the column's fault; of a text it is the text's.
        Given::Integer(value) if is_native => query.bind(value.to_string()),
        Given::Unsigned(value) if is_native => query.bind(value.to_string()),
        Given::Boolean(value) if is_native => query.bind(u8::from(*value).to_string()),
        Given::Integer(value) => query.bind(*value),
        Given::Unsigned(value) => query.bind(*value),
        // As text, which decimals take exactly.
        Given::Real(value) => query.bind(Value::from(*value).to_string()),
        Given::Boolean(value) => query.bind(i64::from(*value)),
        Given::Text(text) => query.bind(text.as_str()),
        Given::Uuid(uuid) => query.bind(*uuid),
        Given::Json(value) => query.bind(value.to_string()),
        Given::Time(at_ms) => match slot.form {
            SlotForm::Time(form) => bind_time(query, form, *at_ms),
            _ => query.bind(signed(*at_ms)),
        },
    }
}

/// Values are read whatever type the server gave them.
impl Record for MySqlRow {
    plain_columns!(try_get_unchecked);

    /// May be beyond the signed range.
    fn count(&self, index: usize) -> Result<u64, sqlx::Error> {
        self.try_get_unchecked(index)
    }

    fn boolean(&self, index: usize) -> Result<bool, sqlx::Error> {
        Ok(self.integer(index)? != 0)
    }

    fn id(&self, index: usize, form: IdForm) -> Result<Id, sqlx::Error> {
        match form {
            IdForm::Integer => self.integer(index).map(Id::Int),
            IdForm::Text => self.try_get_unchecked::<&str, _>(index).map(|text| Id::Text(text.into())),
            IdForm::Uuid | IdForm::UuidBytes | IdForm::UuidText => uuid_id(self.try_get_unchecked::<&str, _>(index)?),
        }
    }

    /// Comes as text.
    fn field(&self, index: usize, form: ValueForm) -> Result<Value, sqlx::Error> {
        Ok(self.optional_text(index)?.map_or(Value::Null, |text| taken(form, text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_few_sizes_and_lose_nothing() {
        for count in 1..200 {
            let rows: Vec<usize> = (0..count).collect();
            let parts = powers_of_two(&rows, 64);
            assert_eq!(parts.concat(), rows);
            assert!(parts.iter().all(|part| part.len().is_power_of_two() && part.len() <= 64));
            assert_eq!(Template::padded(64).parts(&rows).concat(), rows);
        }
        assert!(powers_of_two::<u8>(&[], 64).is_empty());
    }

    #[test]
    fn a_template_repeats_what_stands_for_each_row() {
        let template = Template::padded(4).text("a ").each("(?, ?)", ", ", [0, 1]).once(" b ?", [2]).no_wait(" now");
        let batch = Batch::new().integers([1, 2, 3]).integers([4, 5, 6]).integer(7);
        assert_eq!(template.render(2, &batch), "a (?, ?), (?, ?) b ?");
        assert_eq!(template.render(1, &batch.no_wait(true)), "a (?, ?) b ? now");
        let numbered = Template::exact(4).numbered("<".into(), ":".into(), 1, ">", "|");
        assert_eq!(numbered.render(2, &Batch::new().integers([1, 2]).integer(9)), "<0:9>|<1:9>");
    }
}
