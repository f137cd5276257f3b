//! How statements and rows cross to an engine, and back.
//!
//! An executor describes what it sends as a [`Batch`]: columns with a value for each row, and values that stand once. Each
//! engine's [`Wire`] turns them into parameters: PostgreSQL binds one array for each column, SQLite one JSON text for all
//! of them, MariaDB and MySQL a place for each value. Rows come back as the driver's own and are read through [`Record`];
//! nothing is copied in between.
//!
//! May use the model and the encodings of columns. Holds no SQL text, and decides nothing.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use serde_json::Value;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use uuid::Uuid;

use super::documents::Sheet;
use super::introspection::preference::FieldForm;
use super::introspection::{IdForm, TimeForm};
use super::rows::{signed, time_text, unsigned};
use super::values::{Given, ValueForm};
use weir_core::model::{Id, SettingRef};

/// A connection on which statements run.
pub(super) trait Wire: Send {
    /// A statement with places for a batch.
    type Statement: Statement + 'static;
    /// A row, as the driver hands it over.
    type Row: Record;

    /// Runs a statement, and reads its rows.
    fn fetch(
        &mut self,
        statement: &Self::Statement,
        batch: &Batch<'_>,
    ) -> impl Future<Output = Result<Vec<Self::Row>, sqlx::Error>> + Send;

    /// Runs a statement; the number of rows that it affected. MariaDB and MySQL count the rows that an UPDATE found.
    fn execute(
        &mut self,
        statement: &Self::Statement,
        batch: &Batch<'_>,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Runs a text without parameters, which may hold several statements.
    fn command(&mut self, text: SqlStr) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// A statement of an engine.
pub(super) trait Statement: Send + Sync {
    /// Splits rows into the parts of which each is one execution.
    fn parts<'r, T>(&self, rows: &'r [T]) -> Vec<&'r [T]>;
}

/// A row that was read. Columns are counted from 0.
pub(super) trait Record: Send + Sync {
    /// The number of columns.
    fn width(&self) -> usize;
    /// An integer.
    fn integer(&self, index: usize) -> Result<i64, sqlx::Error>;
    /// An integer, or NULL.
    fn optional_integer(&self, index: usize) -> Result<Option<i64>, sqlx::Error>;
    /// A count, which is never negative by right.
    fn count(&self, index: usize) -> Result<u64, sqlx::Error> {
        self.integer(index).map(unsigned)
    }
    /// True or false.
    fn boolean(&self, index: usize) -> Result<bool, sqlx::Error>;
    /// A text.
    fn text(&self, index: usize) -> Result<String, sqlx::Error>;
    /// A text, or NULL.
    fn optional_text(&self, index: usize) -> Result<Option<String>, sqlx::Error>;
    /// An id.
    fn id(&self, index: usize, form: IdForm) -> Result<Id, sqlx::Error>;
    /// An id, or NULL.
    fn optional_id(&self, index: usize, form: IdForm) -> Result<Option<Id>, sqlx::Error>;
    /// A field of a document.
    fn field(&self, index: usize, form: ValueForm) -> Result<Value, sqlx::Error>;
}

/// The columns that need no more than the driver's own decoding, by one of its methods.
macro_rules! plain_columns {
    ($get:ident) => {
        fn width(&self) -> usize {
            self.len()
        }

        fn integer(&self, index: usize) -> Result<i64, sqlx::Error> {
            self.$get(index)
        }

        fn optional_integer(&self, index: usize) -> Result<Option<i64>, sqlx::Error> {
            self.$get(index)
        }

        fn text(&self, index: usize) -> Result<String, sqlx::Error> {
            self.$get(index)
        }

        fn optional_text(&self, index: usize) -> Result<Option<String>, sqlx::Error> {
            self.$get(index)
        }

        fn optional_id(&self, index: usize, form: IdForm) -> Result<Option<Id>, sqlx::Error> {
            if self.try_get_raw(index)?.is_null() { Ok(None) } else { self.id(index, form).map(Some) }
        }
    };
}
pub(super) use plain_columns;

/// A statement whose text fits any number of rows.
#[derive(Debug, Clone)]
pub(super) struct Fixed(SqlStr);

impl Fixed {
    /// Of a constant.
    pub const fn of(text: &'static str) -> Self {
        Self(SqlStr::from_static(text))
    }

    /// Its text.
    pub fn text(&self) -> SqlStr {
        self.0.clone()
    }
}

impl From<String> for Fixed {
    /// Of the checked configuration.
    fn from(text: String) -> Self {
        Self(AssertSqlSafe(Arc::<str>::from(text)).into_sql_str())
    }
}

impl Statement for Fixed {
    fn parts<'r, T>(&self, rows: &'r [T]) -> Vec<&'r [T]> {
        if rows.is_empty() { Vec::new() } else { vec![rows] }
    }
}

/// What a statement is given: columns, which have a value for each row, and single values.
#[derive(Debug)]
pub(super) enum Parameter<'a> {
    /// A column of ids.
    Ids(IdForm, Vec<&'a Id>),
    /// A column of ids, NULL where there is none.
    OptionalIds(IdForm, Vec<Option<&'a Id>>),
    /// A column of times, in Unix milliseconds.
    Times(TimeForm, Vec<u64>),
    /// A column of integers.
    Integers(Vec<i64>),
    /// A column of partitions.
    Partitions(Vec<i32>),
    /// A column of UUIDs of weir's own.
    Uuids(Vec<Uuid>),
    /// A column of texts.
    Texts(Vec<Cow<'a, str>>),
    /// A column of texts, NULL where there is none.
    OptionalTexts(Vec<Option<Cow<'a, str>>>),
    /// A column of preferences, NULL where there is none.
    Settings(FieldForm, Vec<Option<SettingRef<'a>>>),
    /// All columns of rows of documents.
    Records(&'a Sheet, &'a [Vec<Given>]),
    /// An id.
    Id(IdForm, &'a Id),
    /// The id of the last one before a page, or NULL: compared in the order of the page.
    LastId(IdForm, Option<&'a Id>),
    /// A time, in Unix milliseconds.
    Time(TimeForm, i64),
    /// An integer.
    Integer(i64),
    /// An integer, or NULL.
    OptionalInteger(Option<i64>),
    /// A partition.
    Partition(i32),
    /// A UUID of weir's own.
    Uuid(Uuid),
    /// A text.
    Text(Cow<'a, str>),
    /// A text, or NULL.
    OptionalText(Option<Cow<'a, str>>),
    /// True or false.
    Boolean(bool),
}

impl Parameter<'_> {
    /// The number of rows, if this is a column.
    pub fn rows(&self) -> Option<usize> {
        match self {
            Self::Ids(_, column) => Some(column.len()),
            Self::OptionalIds(_, column) => Some(column.len()),
            Self::Times(_, column) => Some(column.len()),
            Self::Integers(column) => Some(column.len()),
            Self::Partitions(column) => Some(column.len()),
            Self::Uuids(column) => Some(column.len()),
            Self::Texts(column) => Some(column.len()),
            Self::OptionalTexts(column) => Some(column.len()),
            Self::Settings(_, column) => Some(column.len()),
            Self::Records(_, rows) => Some(rows.len()),
            _ => None,
        }
    }
}

/// The parameters of one execution, in the order of the statement.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    parameters: Vec<Parameter<'a>>,
    no_wait: bool,
}

impl<'a> Batch<'a> {
    /// A batch without parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a parameter.
    pub fn with(mut self, parameter: Parameter<'a>) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// Adds a column of ids.
    pub fn ids(self, form: IdForm, ids: impl IntoIterator<Item = &'a Id>) -> Self {
        self.with(Parameter::Ids(form, ids.into_iter().collect()))
    }

    /// Adds a column of times.
    pub fn times(self, form: TimeForm, times: impl IntoIterator<Item = u64>) -> Self {
        self.with(Parameter::Times(form, times.into_iter().collect()))
    }

    /// Adds a column of integers.
    pub fn integers(self, values: impl IntoIterator<Item = i64>) -> Self {
        self.with(Parameter::Integers(values.into_iter().collect()))
    }

    /// Adds a column of partitions.
    pub fn partitions<P: Into<i32>>(self, values: impl IntoIterator<Item = P>) -> Self {
        self.with(Parameter::Partitions(values.into_iter().map(Into::into).collect()))
    }

    /// Adds a column of UUIDs.
    pub fn uuids(self, values: impl IntoIterator<Item = Uuid>) -> Self {
        self.with(Parameter::Uuids(values.into_iter().collect()))
    }

    /// Adds a column of texts.
    pub fn texts<T: Into<Cow<'a, str>>>(self, values: impl IntoIterator<Item = T>) -> Self {
        self.with(Parameter::Texts(values.into_iter().map(Into::into).collect()))
    }

    /// Adds a column of texts, NULL where there is none.
    pub fn optional_texts<T: Into<Cow<'a, str>>>(self, values: impl IntoIterator<Item = Option<T>>) -> Self {
        self.with(Parameter::OptionalTexts(values.into_iter().map(|value| value.map(Into::into)).collect()))
    }

    /// Adds an id.
    pub fn id(self, form: IdForm, id: &'a Id) -> Self {
        self.with(Parameter::Id(form, id))
    }

    /// Adds an integer.
    pub fn integer(self, value: i64) -> Self {
        self.with(Parameter::Integer(value))
    }

    /// Adds an integer, or NULL.
    pub fn optional_integer(self, value: Option<i64>) -> Self {
        self.with(Parameter::OptionalInteger(value))
    }

    /// Adds a partition.
    pub fn partition(self, partition: impl Into<i32>) -> Self {
        self.with(Parameter::Partition(partition.into()))
    }

    /// Adds a UUID.
    pub fn uuid(self, value: Uuid) -> Self {
        self.with(Parameter::Uuid(value))
    }

    /// Adds a text.
    pub fn text(self, value: impl Into<Cow<'a, str>>) -> Self {
        self.with(Parameter::Text(value.into()))
    }

    /// Adds a text, or NULL.
    pub fn optional_text<T: Into<Cow<'a, str>>>(self, value: Option<T>) -> Self {
        self.with(Parameter::OptionalText(value.map(Into::into)))
    }

    /// Adds true or false.
    pub fn boolean(self, value: bool) -> Self {
        self.with(Parameter::Boolean(value))
    }

    /// Makes a statement that locks rows fail where it would wait, where the engine can word that.
    pub fn no_wait(mut self, no_wait: bool) -> Self {
        self.no_wait = no_wait;
        self
    }

    /// Whether a statement that locks rows must not wait.
    pub fn must_not_wait(&self) -> bool {
        self.no_wait
    }

    /// The parameters, in order.
    pub fn parameters(&self) -> &[Parameter<'a>] {
        &self.parameters
    }

    /// The number of rows; 1 where there is no column.
    pub fn rows(&self) -> usize {
        self.parameters.iter().find_map(Parameter::rows).unwrap_or(1)
    }
}

/// An id as text.
pub(super) fn id_text(id: &Id) -> Cow<'_, str> {
    match id {
        Id::Text(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// An id as the text by which members and documents of equal age are ordered.
pub(super) fn order_text(form: IdForm, id: &Id) -> Cow<'_, str> {
    match (form, id) {
        (IdForm::UuidBytes, Id::Uuid(uuid)) => Cow::Owned(uuid.simple().to_string()),
        _ => id_text(id),
    }
}

/// A JSON text that is being written.
#[derive(Debug, Default)]
pub(super) struct Json(Vec<u8>);

impl Json {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds bytes that are JSON already.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Adds a value.
    pub fn value<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result<(), sqlx::Error> {
        serde_json::to_writer(&mut self.0, value).map_err(|error| sqlx::Error::Encode(error.into()))
    }

    /// Adds an array with what `write` adds for each element.
    pub fn array<T>(
        &mut self,
        elements: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), sqlx::Error>,
    ) -> Result<(), sqlx::Error> {
        self.push(b"[");
        for (index, element) in elements.into_iter().enumerate() {
            if index > 0 {
                self.push(b",");
            }
            write(self, element)?;
        }
        self.push(b"]");
        Ok(())
    }

    /// Its text.
    pub fn text(self) -> Result<String, sqlx::Error> {
        String::from_utf8(self.0).map_err(|error| sqlx::Error::Encode(error.into()))
    }
}

/// Adds a value of a document that is the same in every column.
pub(super) fn push_given(json: &mut Json, given: &Given) -> Result<(), sqlx::Error> {
    match given {
        Given::Null => json.value(&Value::Null),
        Given::Integer(value) => json.value(value),
        Given::Unsigned(value) => json.value(value),
        Given::Real(value) => json.value(value),
        Given::Boolean(value) => json.value(value),
        Given::Text(text) => json.value(text),
        Given::Uuid(uuid) => json.value(&uuid.to_string()),
        Given::Json(value) => json.value(value),
        Given::Time(at_ms) => json.value(&signed(*at_ms)),
    }
}

/// Adds a time as a text or a number, in the form of its column.
pub(super) fn push_time(json: &mut Json, form: TimeForm, at_ms: u64) -> Result<(), sqlx::Error> {
    match form {
        TimeForm::Millis => json.value(&signed(at_ms)),
        TimeForm::Iso => json.value(&time_text(at_ms, true)),
        TimeForm::Zoned(_) | TimeForm::Plain(_) => json.value(&time_text(at_ms, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_as_many_rows_as_its_columns() {
        assert_eq!(Batch::new().text("kind").rows(), 1);
        assert_eq!(Batch::new().text("kind").integers([1, 2, 3]).rows(), 3);
        assert_eq!(Fixed::of("").parts(&[1, 2]), [[1, 2].as_slice()]);
        assert!(Fixed::of("").parts::<u8>(&[]).is_empty());
    }

    #[test]
    fn json_is_written_as_the_library_writes_it() {
        let mut json = Json::default();
        json.array(["a\"\u{1}", "é"], |json, text| json.value(text)).unwrap();
        assert_eq!(json.text().unwrap(), serde_json::json!(["a\"\u{1}", "é"]).to_string());
    }
}
