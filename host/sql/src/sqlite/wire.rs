//! How a batch crosses to SQLite: its columns as one JSON text, read by `json_each`.
//!
//! The text is an array of rows, of one column an array of its values. Holds no SQL text.

use serde_json::Value;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Row as _, SqlStr, Sqlite, TypeInfo as _, ValueRef as _};
use uuid::Uuid;

use crate::documents::{Sheet, Slot, SlotForm};
use crate::introspection::IdForm;
use crate::rows::uuid_id;
use crate::values::{Given, ValueForm, taken};
use crate::wire::{
    Batch, Fixed, Json, Parameter, Record, Wire, id_text, order_text, plain_columns, push_given, push_time,
};
use weir_core::model::{Id, SettingRef};

type SqliteQuery<'q> = Query<'q, Sqlite, SqliteArguments>;

impl Wire for SqliteConnection {
    type Statement = Fixed;
    type Row = SqliteRow;

    async fn fetch(&mut self, statement: &Fixed, batch: &Batch<'_>) -> Result<Vec<SqliteRow>, sqlx::Error> {
        bound(statement, batch)?.fetch_all(self).await
    }

    async fn execute(&mut self, statement: &Fixed, batch: &Batch<'_>) -> Result<u64, sqlx::Error> {
        Ok(bound(statement, batch)?.execute(self).await?.rows_affected())
    }

    async fn command(&mut self, text: SqlStr) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(text).execute(self).await.map(drop)
    }
}

/// Columns that stand side by side are one parameter.
fn bound(statement: &Fixed, batch: &Batch<'_>) -> Result<SqliteQuery<'static>, sqlx::Error> {
    let mut query = sqlx::query(statement.text());
    for side_by_side in batch.parameters().chunk_by(|a, b| a.rows().is_some() && b.rows().is_some()) {
        query = match side_by_side {
            [Parameter::Records(sheet, rows)] => query.bind(records(sheet, rows)?),
            [column] if column.rows().is_some() => {
                let mut json = Json::with_capacity(batch.rows() * 16);
                json.array(0..batch.rows(), |json, row| push_cell(json, column, row))?;
                query.bind(json.text()?)
            }
            [value] => bind(query, value),
            columns => {
                let mut json = Json::with_capacity(batch.rows() * columns.len() * 16);
                json.array(0..batch.rows(), |json, row| {
                    json.array(columns, |json, column| push_cell(json, column, row))
                })?;
                query.bind(json.text()?)
            }
        };
    }
    Ok(query)
}

fn bind<'q>(query: SqliteQuery<'q>, parameter: &Parameter<'_>) -> SqliteQuery<'q> {
    match parameter {
        Parameter::Id(form, id) => bind_id(query, *form, id),
        Parameter::LastId(form, Some(id)) => bind_id(query, *form, id),
        Parameter::LastId(_, None) => query.bind(None::<String>),
        Parameter::Time(_, value) | Parameter::Integer(value) => query.bind(*value),
        Parameter::OptionalInteger(value) => query.bind(*value),
        Parameter::Partition(value) => query.bind(i64::from(*value)),
        Parameter::Uuid(value) => query.bind(value.to_string()),
        Parameter::Text(value) => query.bind((**value).to_owned()),
        Parameter::OptionalText(value) => query.bind(value.as_deref().map(ToOwned::to_owned)),
        Parameter::Boolean(value) => query.bind(*value),
        // Columns, which are bound as JSON.
        _ => query,
    }
}

/// Binds one id as its JSON value would be.
fn bind_id<'q>(query: SqliteQuery<'q>, form: IdForm, id: &Id) -> SqliteQuery<'q> {
    match (form, id) {
        (IdForm::Integer, Id::Int(id)) => query.bind(*id),
        (form, id) => query.bind(order_text(form, id).into_owned()),
    }
}

fn push_id(json: &mut Json, form: IdForm, id: &Id) -> Result<(), sqlx::Error> {
    match (form, id) {
        (_, Id::Int(value)) => json.value(value),
        (IdForm::UuidBytes, Id::Uuid(uuid)) => json.value(&uuid.simple().to_string()),
        (_, id) => json.value(&*id_text(id)),
    }
}

fn push_cell(json: &mut Json, column: &Parameter<'_>, row: usize) -> Result<(), sqlx::Error> {
    match column {
        Parameter::Ids(form, ids) => push_id(json, *form, ids[row]),
        Parameter::OptionalIds(form, ids) => match ids[row] {
            Some(id) => push_id(json, *form, id),
            None => json.value(&Value::Null),
        },
        Parameter::Times(form, times) => push_time(json, *form, times[row]),
        Parameter::Integers(values) => json.value(&values[row]),
        Parameter::Partitions(values) => json.value(&values[row]),
        Parameter::Uuids(values) => json.value(&values[row].to_string()),
        Parameter::Texts(values) => json.value(&*values[row]),
        Parameter::OptionalTexts(values) => json.value(&values[row].as_deref()),
        Parameter::Settings(_, values) => match values[row] {
            Some(SettingRef::Bool(value)) => json.value(&u8::from(value)),
            Some(SettingRef::Int(value)) => json.value(&value),
            Some(SettingRef::Text(text)) => json.value(text),
            None => json.value(&Value::Null),
        },
        _ => Ok(()),
    }
}

/// Rows as arrays, in the order of the sheet's columns.
fn records(sheet: &Sheet, rows: &[Vec<Given>]) -> Result<String, sqlx::Error> {
    let mut json = Json::default();
    json.array(rows, |json, row| {
        json.array(row.iter().zip(&sheet.slots), |json, (given, slot)| push_cell_of(json, given, slot))
    })?;
    json.text()
}

fn push_cell_of(json: &mut Json, given: &Given, slot: &Slot) -> Result<(), sqlx::Error> {
    match (given, slot.form) {
        (Given::Uuid(uuid), _) => json.value(&uuid.simple().to_string()),
        (Given::Json(value), _) => json.value(&value.to_string()),
        (Given::Time(at_ms), SlotForm::Time(form)) => push_time(json, form, *at_ms),
        _ => push_given(json, given),
    }
}

/// A value has a type of its own, whatever its column was declared as.
impl Record for SqliteRow {
    plain_columns!(try_get_unchecked);

    fn boolean(&self, index: usize) -> Result<bool, sqlx::Error> {
        self.try_get_unchecked(index)
    }

    fn id(&self, index: usize, form: IdForm) -> Result<Id, sqlx::Error> {
        match form {
            IdForm::Integer => self.try_get_unchecked(index).map(Id::Int),
            IdForm::Text => self.try_get_unchecked::<&str, _>(index).map(|text| Id::Text(text.into())),
            IdForm::UuidText => uuid_id(self.try_get_unchecked::<&str, _>(index)?),
            IdForm::Uuid | IdForm::UuidBytes => {
                let bytes: &[u8] = self.try_get_unchecked(index)?;
                Uuid::from_slice(bytes).map(Id::Uuid).map_err(|error| sqlx::Error::Decode(error.into()))
            }
        }
    }

    fn field(&self, index: usize, form: ValueForm) -> Result<Value, sqlx::Error> {
        let raw = self.try_get_raw(index)?;
        if raw.is_null() {
            return Ok(Value::Null);
        }
        match (raw.type_info().name(), form) {
            ("INTEGER", ValueForm::Boolean) => Ok(taken(form, self.try_get_unchecked::<i64, _>(index)?.to_string())),
            ("INTEGER", _) => self.try_get_unchecked::<i64, _>(index).map(Value::from),
            ("REAL", _) => self.try_get_unchecked::<f64, _>(index).map(Value::from),
            ("BLOB", _) => {
                let bytes: &[u8] = self.try_get_unchecked(index)?;
                Ok(Uuid::from_slice(bytes).map_or(Value::Null, |uuid| uuid.to_string().into()))
            }
            _ => Ok(taken(form, self.try_get_unchecked(index)?)),
        }
    }
}
