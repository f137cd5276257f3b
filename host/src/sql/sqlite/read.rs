//! What is read: checkpoints, states of targets; and ids as they lie in columns and parameters.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row, Sqlite, ValueRef as _};
use uuid::Uuid;

use super::statements;
use super::toggles::Plan;
use crate::model::{Aside, Checkpoint, Id, Member, Partition};
use crate::sql::TargetRow;
use crate::sql::aside::aside_row;
use crate::sql::facts::{IdForm, TimeForm};
use crate::sql::rows::{Known, Load, checkpoint, page_end, signed, time_text, unsigned, uuid_id};

/// A statement with its parameters.
pub(super) type SqliteQuery<'q> = Query<'q, Sqlite, SqliteArguments>;

pub(super) async fn read_checkpoints(
    connection: &mut SqliteConnection,
    kind: &str,
    partitions: &[Partition],
) -> Result<HashMap<Partition, Checkpoint>, sqlx::Error> {
    let list = json!(partitions).to_string();
    let rows = sqlx::query(statements::CHECKPOINTS).bind(kind).bind(list).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let checkpoint = checkpoint(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)?;
            Ok((checkpoint.partition, checkpoint))
        })
        .collect()
}

pub(super) async fn read_asides(connection: &mut SqliteConnection, kind: &str) -> Result<Vec<Aside>, sqlx::Error> {
    let rows = sqlx::query(statements::ASIDES).bind(kind).fetch_all(connection).await?;
    let aside = |row: &SqliteRow| {
        let (life, targets): (String, String) = (row.try_get(3)?, row.try_get(4)?);
        aside_row([row.try_get(0)?, row.try_get(1)?, row.try_get(2)?], &life, &targets)
    };
    rows.iter().map(aside).collect()
}

pub(super) async fn load(
    connection: &mut SqliteConnection,
    plan: &Plan,
    targets: &[Id],
    huge_rows_min: u64,
) -> Result<Vec<TargetRow>, sqlx::Error> {
    let mut load = Load::default();
    if plan.table.targets.is_some() {
        load.known = read_known(connection, plan, targets).await?;
    }
    let look = load.to_look_at(targets, huge_rows_min);
    let sizes = read_sizes(connection, plan, &look, huge_rows_min).await?;
    let mut small = Vec::new();
    for (target, size) in look.into_iter().zip(sizes) {
        if size > huge_rows_min {
            load.too_many.insert(target);
        } else if size > 0 {
            small.push(target);
        }
    }
    if !small.is_empty() {
        let query = sqlx::query(AssertSqlSafe(plan.statements.members.clone()));
        let rows = query.bind(json_ids(&small, plan.forms.target)).fetch_all(&mut *connection).await?;
        for row in &rows {
            let member = (read_id(row, 1, plan.forms.actor)?, unsigned(row.try_get_unchecked(2)?));
            load.take(read_id(row, 0, plan.forms.target)?, member, huge_rows_min);
        }
    }
    let uncounted = load.to_count();
    if !uncounted.is_empty() {
        let query = sqlx::query(AssertSqlSafe(plan.statements.totals.clone()));
        let totals = query.bind(json_ids(&uncounted, plan.forms.target)).fetch_all(&mut *connection).await?;
        for row in &totals {
            let (index, count) = indexed(row)?;
            if let Some(target) = uncounted.get(index) {
                load.totals.insert(target.clone(), count);
            }
        }
    }
    Ok(load.states(targets, huge_rows_min))
}

pub(super) async fn read_known(
    connection: &mut SqliteConnection,
    plan: &Plan,
    targets: &[Id],
) -> Result<Option<Known>, sqlx::Error> {
    let Some(key) = plan.forms.key else { return Ok(None) };
    let query = sqlx::query(AssertSqlSafe(plan.statements.known.clone())).bind(json_ids(targets, key));
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| Ok((read_id(row, 0, key)?, row.try_get_unchecked(1)?))).collect::<Result<_, _>>().map(Some)
}

/// Numbers of members, in order, counted up to one more than `huge_rows_min`.
pub(super) async fn read_sizes(
    connection: &mut SqliteConnection,
    plan: &Plan,
    targets: &[Id],
    huge_rows_min: u64,
) -> Result<Vec<u64>, sqlx::Error> {
    let query = sqlx::query(AssertSqlSafe(plan.statements.sizes.clone())).bind(json_ids(targets, plan.forms.target));
    let rows = query.bind(signed(huge_rows_min.saturating_add(1))).fetch_all(connection).await?;
    let mut sizes = vec![0; targets.len()];
    for row in &rows {
        let (index, size) = indexed(row)?;
        if let Some(slot) = sizes.get_mut(index) {
            *slot = size;
        }
    }
    Ok(sizes)
}

/// A page of members, newest first. Where an index can tell how far back the page reaches, only so much is read.
pub(super) async fn page(
    connection: &mut SqliteConnection,
    plan: &Plan,
    target: &Id,
    before: Option<&Member>,
    limit: usize,
) -> Result<Vec<SqliteRow>, sqlx::Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let one_target =
        |text: &Arc<str>| bind_id(sqlx::query(AssertSqlSafe(Arc::clone(text))), plan.forms.target, Some(target));
    let end_ms = page_end(before.map(|member| member.since_ms));
    let mut start: Option<i64> = None;
    if !plan.statements.page_start.is_empty() && limit > 0 {
        let query = one_target(&plan.statements.page_start).bind(signed(end_ms)).bind(limit - 1);
        let row = query.fetch_optional(&mut *connection).await?;
        start = row.map(|row| row.try_get_unchecked(0)).transpose()?;
    }
    let last = before.map(|member| match plan.forms.actor {
        IdForm::Integer => member.actor.to_string(),
        form => json_id(&member.actor, form).as_str().unwrap_or_default().to_owned(),
    });
    let text = if start.is_some() { &plan.statements.page_within } else { &plan.statements.page };
    let mut query = one_target(text).bind(before.map(|member| signed(member.since_ms))).bind(last).bind(limit);
    if let Some(start) = start {
        query = query.bind(start).bind(signed(end_ms.saturating_add(1)));
    }
    query.fetch_all(&mut *connection).await
}

/// Binds one id as its JSON value would be; NULL where there is none.
pub(super) fn bind_id<'q>(query: SqliteQuery<'q>, form: IdForm, id: Option<&Id>) -> SqliteQuery<'q> {
    match (form, id) {
        (IdForm::Integer, Some(Id::Int(id))) => query.bind(*id),
        (form, id) => query.bind(id.and_then(|id| json_id(id, form).as_str().map(ToOwned::to_owned))),
    }
}

pub(super) fn json_id(id: &Id, form: IdForm) -> Value {
    match (form, id) {
        (IdForm::UuidBytes, Id::Uuid(uuid)) => uuid.simple().to_string().into(),
        _ => id.to_json(),
    }
}

pub(super) fn json_ids<'i>(ids: impl IntoIterator<Item = &'i Id>, form: IdForm) -> String {
    Value::from(ids.into_iter().map(|id| json_id(id, form)).collect::<Vec<_>>()).to_string()
}

pub(super) fn json_time(at_ms: u64, form: TimeForm) -> Value {
    match form {
        TimeForm::Millis => signed(at_ms).into(),
        TimeForm::Iso => time_text(at_ms, true).into(),
        TimeForm::Zoned(_) | TimeForm::Plain(_) => time_text(at_ms, false).into(),
    }
}

pub(super) fn read_id(row: &SqliteRow, index: usize, form: IdForm) -> Result<Id, sqlx::Error> {
    match form {
        IdForm::Integer => row.try_get_unchecked(index).map(Id::Int),
        IdForm::Text => row.try_get_unchecked::<String, _>(index).map(|text| Id::Text(text.into())),
        IdForm::UuidText => uuid_id(&row.try_get_unchecked::<String, _>(index)?),
        IdForm::Uuid | IdForm::UuidBytes => {
            let bytes: Vec<u8> = row.try_get_unchecked(index)?;
            Uuid::from_slice(&bytes).map(Id::Uuid).map_err(|error| sqlx::Error::Decode(error.into()))
        }
    }
}

/// An id, or NULL.
pub(super) fn read_optional_id(row: &SqliteRow, index: usize, form: IdForm) -> Result<Option<Id>, sqlx::Error> {
    if row.try_get_raw(index)?.is_null() { Ok(None) } else { read_id(row, index, form).map(Some) }
}

/// An index and a number.
pub(super) fn indexed(row: &SqliteRow) -> Result<(usize, u64), sqlx::Error> {
    let index: i64 = row.try_get_unchecked(0)?;
    Ok((usize::try_from(index).unwrap_or(usize::MAX), unsigned(row.try_get_unchecked(1)?)))
}
