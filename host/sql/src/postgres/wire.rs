//! How a batch crosses to PostgreSQL: one array for each column, read by `unnest`; rows of documents as one JSON text.
//!
//! Holds no SQL text.

use std::borrow::Cow;

use serde_json::Value;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row as _, SqlStr, ValueRef as _};
use uuid::Uuid;

use crate::documents::{Sheet, SlotForm};
use crate::introspection::{IdForm, TimeForm};
use crate::preferences::as_text;
use crate::rows::{cut_down, signed, time_text};
use crate::values::{Given, ValueForm, from_utc};
use crate::wire::{Batch, Fixed, Json, Parameter, Record, Wire, id_text, plain_columns, push_given};
use weir_core::model::Id;

type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

impl Wire for PgConnection {
    type Statement = Fixed;
    type Row = PgRow;

    async fn fetch(&mut self, statement: &Fixed, batch: &Batch<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        bound(statement, batch)?.fetch_all(self).await
    }

    async fn execute(&mut self, statement: &Fixed, batch: &Batch<'_>) -> Result<u64, sqlx::Error> {
        Ok(bound(statement, batch)?.execute(self).await?.rows_affected())
    }

    async fn command(&mut self, text: SqlStr) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(text).execute(self).await.map(drop)
    }
}

fn bound(statement: &Fixed, batch: &Batch<'_>) -> Result<PgQuery<'static>, sqlx::Error> {
    batch.parameters().iter().try_fold(sqlx::query(statement.text()), bind)
}

fn bind<'q>(query: PgQuery<'q>, parameter: &Parameter<'_>) -> Result<PgQuery<'q>, sqlx::Error> {
    Ok(match parameter {
        Parameter::Ids(form, ids) => bind_ids(query, *form, ids),
        Parameter::OptionalIds(form, ids) => bind_optional_ids(query, *form, ids),
        Parameter::Times(form, times) => bind_times(query, *form, times),
        Parameter::Integers(values) => query.bind(values),
        Parameter::Partitions(values) => query.bind(values),
        Parameter::Uuids(values) => query.bind(values),
        Parameter::Texts(values) => query.bind(values.iter().map(|value| &**value).collect::<Vec<&str>>()),
        Parameter::OptionalTexts(values) => {
            query.bind(values.iter().map(Option::as_deref).collect::<Vec<Option<&str>>>())
        }
        Parameter::Settings(form, values) => {
            query.bind(values.iter().map(|value| value.map(|value| as_text(*form, value))).collect::<Vec<_>>())
        }
        Parameter::Records(sheet, rows) => query.bind(records(sheet, rows)?),
        Parameter::Id(form, id) => bind_ids(query, *form, &[*id]),
        Parameter::LastId(form, id) => bind_ids(query, *form, id.as_slice()),
        Parameter::Time(_, at_ms) => query.bind(*at_ms),
        Parameter::Integer(value) => query.bind(*value),
        Parameter::OptionalInteger(value) => query.bind(*value),
        Parameter::Partition(value) => query.bind(*value),
        Parameter::Uuid(value) => query.bind(*value),
        Parameter::Text(value) => query.bind(&**value),
        Parameter::OptionalText(value) => query.bind(value.as_deref()),
        Parameter::Boolean(value) => query.bind(*value),
    })
}

/// Binds ids as one array. Their type is checked before.
fn bind_ids<'q>(query: PgQuery<'q>, form: IdForm, ids: &[&Id]) -> PgQuery<'q> {
    match form {
        IdForm::Integer => {
            let int = |id: &&Id| if let Id::Int(value) = id { *value } else { 0 };
            query.bind(ids.iter().map(int).collect::<Vec<i64>>())
        }
        IdForm::Uuid | IdForm::UuidBytes => {
            let uuid = |id: &&Id| if let Id::Uuid(value) = id { *value } else { Uuid::nil() };
            query.bind(ids.iter().map(uuid).collect::<Vec<Uuid>>())
        }
        IdForm::Text | IdForm::UuidText => query.bind(ids.iter().map(|id| id_text(id)).collect::<Vec<Cow<'_, str>>>()),
    }
}

/// Binds ids as one array, NULL where there is none.
fn bind_optional_ids<'q>(query: PgQuery<'q>, form: IdForm, ids: &[Option<&Id>]) -> PgQuery<'q> {
    match form {
        IdForm::Integer => {
            let int = |id: &Option<&Id>| if let Some(Id::Int(value)) = id { Some(*value) } else { None };
            query.bind(ids.iter().map(int).collect::<Vec<Option<i64>>>())
        }
        IdForm::Uuid | IdForm::UuidBytes => {
            let uuid = |id: &Option<&Id>| if let Some(Id::Uuid(value)) = id { Some(*value) } else { None };
            query.bind(ids.iter().map(uuid).collect::<Vec<Option<Uuid>>>())
        }
        IdForm::Text | IdForm::UuidText => {
            query.bind(ids.iter().map(|id| id.map(id_text)).collect::<Vec<Option<Cow<'_, str>>>>())
        }
    }
}

/// Binds times as one array.
fn bind_times<'q>(query: PgQuery<'q>, form: TimeForm, times: &[u64]) -> PgQuery<'q> {
    match form {
        TimeForm::Iso => query.bind(times.iter().map(|at_ms| time_text(*at_ms, true)).collect::<Vec<String>>()),
        TimeForm::Millis => query.bind(times.iter().map(|at_ms| signed(*at_ms)).collect::<Vec<i64>>()),
        TimeForm::Zoned(digits) | TimeForm::Plain(digits) => {
            query.bind(times.iter().map(|at_ms| signed(cut_down(*at_ms, digits))).collect::<Vec<i64>>())
        }
    }
}

/// Rows as JSON objects, keyed by the places of the sheet's columns. NULLs are left out.
fn records(sheet: &Sheet, rows: &[Vec<Given>]) -> Result<String, sqlx::Error> {
    let mut json = Json::default();
    json.array(rows, |json, row| {
        json.push(b"{");
        let mut is_first = true;
        for (place, (given, slot)) in row.iter().zip(&sheet.slots).enumerate() {
            if *given == Given::Null {
                continue;
            }
            json.push(if is_first { b"\"".as_slice() } else { b",\"".as_slice() });
            is_first = false;
            json.value(&place)?;
            json.push(b"\":");
            match (given, slot.form) {
                (Given::Time(at_ms), SlotForm::Time(form)) => push_at(json, form, *at_ms)?,
                _ => push_given(json, given)?,
            }
        }
        json.push(b"}");
        Ok(())
    })?;
    json.text()
}

/// Adds a time as the text or the number that the statement takes.
fn push_at(json: &mut Json, form: TimeForm, at_ms: u64) -> Result<(), sqlx::Error> {
    match form {
        TimeForm::Iso => json.value(&time_text(at_ms, true)),
        TimeForm::Millis => json.value(&signed(at_ms)),
        TimeForm::Zoned(digits) | TimeForm::Plain(digits) => json.value(&signed(cut_down(at_ms, digits))),
    }
}

impl Record for PgRow {
    plain_columns!(try_get);

    fn boolean(&self, index: usize) -> Result<bool, sqlx::Error> {
        self.try_get(index)
    }

    fn id(&self, index: usize, form: IdForm) -> Result<Id, sqlx::Error> {
        match form {
            IdForm::Integer => self.try_get(index).map(Id::Int),
            IdForm::Uuid | IdForm::UuidBytes => self.try_get(index).map(Id::Uuid),
            IdForm::Text | IdForm::UuidText => self.try_get::<&str, _>(index).map(|text| Id::Text(text.into())),
        }
    }

    /// Comes as JSON text.
    fn field(&self, index: usize, form: ValueForm) -> Result<Value, sqlx::Error> {
        let Some(text) = self.try_get::<Option<&str>, _>(index)? else { return Ok(Value::Null) };
        let value = serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(match (form, value) {
            (ValueForm::Moment, Value::String(text)) => from_utc(&text).into(),
            (_, value) => value,
        })
    }
}
