//! What is read: checkpoints, states of targets; and ids as they lie in columns and parameters.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, Row, ValueRef as _};
use uuid::Uuid;

use super::statements;
use super::toggles::Plan;
use crate::model::{Aside, Checkpoint, Id, Member, Partition};
use crate::sql::TargetRow;
use crate::sql::aside::aside_row;
use crate::sql::facts::{IdForm, TimeForm};
use crate::sql::rows::{Known, Load, checkpoint, cut_down, page_end, signed, time_text, unsigned};

/// A statement with its parameters.
pub(super) type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

/// Checkpoints by partition; locked, with `LOCK`.
pub(super) async fn read_checkpoints(
    connection: &mut PgConnection,
    text: &'static str,
    kind: &str,
    partitions: &[Partition],
) -> Result<HashMap<Partition, Checkpoint>, sqlx::Error> {
    let partitions: Vec<i32> = partitions.iter().map(|partition| i32::from(*partition)).collect();
    let rows = sqlx::query(text).bind(kind).bind(partitions).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let checkpoint = checkpoint(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)?;
            Ok((checkpoint.partition, checkpoint))
        })
        .collect()
}

pub(super) async fn read_asides(connection: &mut PgConnection, kind: &str) -> Result<Vec<Aside>, sqlx::Error> {
    let rows = sqlx::query(statements::ASIDES).bind(kind).fetch_all(connection).await?;
    let aside = |row: &PgRow| {
        let (life, targets): (String, String) = (row.try_get(3)?, row.try_get(4)?);
        aside_row([row.try_get(0)?, row.try_get(1)?, row.try_get(2)?], &life, &targets)
    };
    rows.iter().map(aside).collect()
}

/// States of some targets, in order.
pub(super) async fn load(
    connection: &mut PgConnection,
    plan: &Plan,
    targets: &[Id],
    huge_rows_min: u64,
) -> Result<Vec<TargetRow>, sqlx::Error> {
    let mut load = Load { known: read_known(connection, plan, targets).await?, ..Load::default() };
    let look = load.to_look_at(targets, huge_rows_min);
    if !look.is_empty() {
        let query = sqlx::query(AssertSqlSafe(plan.statements.members.clone()));
        let query = bind_ids(query, plan.forms.target, &look).bind(signed(huge_rows_min.saturating_add(1)));
        for row in &query.fetch_all(&mut *connection).await? {
            if let Some(target) = look.get(ordinal(row)?) {
                let member = (read_id(row, 1, plan.forms.actor)?, unsigned(row.try_get(2)?));
                load.take(target.clone(), member, huge_rows_min);
            }
        }
    }
    let uncounted = load.to_count();
    if !uncounted.is_empty() {
        let query = sqlx::query(AssertSqlSafe(plan.statements.totals.clone()));
        for row in &bind_ids(query, plan.forms.target, &uncounted).fetch_all(&mut *connection).await? {
            if let Some(target) = uncounted.get(ordinal(row)?) {
                load.totals.insert(target.clone(), unsigned(row.try_get(1)?));
            }
        }
    }
    Ok(load.states(targets, huge_rows_min))
}

/// What the table of the targets says; `None` where there is no such table.
pub(super) async fn read_known(
    connection: &mut PgConnection,
    plan: &Plan,
    targets: &[Id],
) -> Result<Option<Known>, sqlx::Error> {
    let Some(key) = plan.forms.key else { return Ok(None) };
    let query = bind_ids(sqlx::query(AssertSqlSafe(plan.statements.known.clone())), key, targets);
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| Ok((read_id(row, 0, key)?, row.try_get(1)?))).collect::<Result<_, _>>().map(Some)
}

/// Number of members, counted up to one more than `huge_rows_min`.
pub(super) async fn read_size(
    connection: &mut PgConnection,
    plan: &Plan,
    target: &Id,
    huge_rows_min: u64,
) -> Result<u64, sqlx::Error> {
    let query = bind_ids(sqlx::query(AssertSqlSafe(plan.statements.size.clone())), plan.forms.target, [target]);
    let row = query.bind(signed(huge_rows_min.saturating_add(1))).fetch_one(connection).await?;
    row.try_get(0).map(unsigned)
}

/// A page of members, newest first. Where an index can tell how far back the page reaches, only so much is read.
pub(super) async fn page(
    connection: &mut PgConnection,
    plan: &Plan,
    target: &Id,
    before: Option<&Member>,
    limit: usize,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let one_target =
        |text: &Arc<str>| bind_ids(sqlx::query(AssertSqlSafe(Arc::clone(text))), plan.forms.target, [target]);
    let end_ms = page_end(before.map(|member| member.since_ms));
    let mut start: Option<i64> = None;
    if !plan.statements.page_start.is_empty() && limit > 0 {
        let query = one_target(&plan.statements.page_start).bind(signed(end_ms)).bind(limit - 1);
        let row = query.fetch_optional(&mut *connection).await?;
        start = row.map(|row| row.try_get(0)).transpose()?;
    }
    let text = if start.is_some() { &plan.statements.page_within } else { &plan.statements.page };
    let mut query = one_target(text)
        .bind(before.map(|member| signed(member.since_ms)))
        .bind(before.map(|member| member.actor.to_string()))
        .bind(limit);
    if let Some(start) = start {
        query = query.bind(start).bind(signed(end_ms.saturating_add(1)));
    }
    query.fetch_all(&mut *connection).await
}

/// Binds ids as one array. Their type is checked before.
pub(super) fn bind_ids<'q, 'i>(query: PgQuery<'q>, form: IdForm, ids: impl IntoIterator<Item = &'i Id>) -> PgQuery<'q> {
    let ids = ids.into_iter();
    match form {
        IdForm::Integer => {
            let int = |id: &Id| if let Id::Int(value) = id { *value } else { 0 };
            query.bind(ids.map(int).collect::<Vec<i64>>())
        }
        IdForm::Uuid | IdForm::UuidBytes => {
            let uuid = |id: &Id| if let Id::Uuid(value) = id { *value } else { Uuid::nil() };
            query.bind(ids.map(uuid).collect::<Vec<Uuid>>())
        }
        IdForm::Text | IdForm::UuidText => query.bind(ids.map(ToString::to_string).collect::<Vec<String>>()),
    }
}

/// Binds ids as one array, NULL where there is none.
pub(super) fn bind_optional_ids<'q, 'i>(
    query: PgQuery<'q>,
    form: IdForm,
    ids: impl IntoIterator<Item = Option<&'i Id>>,
) -> PgQuery<'q> {
    let ids = ids.into_iter();
    match form {
        IdForm::Integer => {
            let int = |id: Option<&Id>| if let Some(Id::Int(value)) = id { Some(*value) } else { None };
            query.bind(ids.map(int).collect::<Vec<Option<i64>>>())
        }
        IdForm::Uuid | IdForm::UuidBytes => {
            let uuid = |id: Option<&Id>| if let Some(Id::Uuid(value)) = id { Some(*value) } else { None };
            query.bind(ids.map(uuid).collect::<Vec<Option<Uuid>>>())
        }
        IdForm::Text | IdForm::UuidText => {
            query.bind(ids.map(|id| id.map(ToString::to_string)).collect::<Vec<Option<String>>>())
        }
    }
}

/// Binds times as one array.
pub(super) fn bind_times(query: PgQuery<'_>, form: TimeForm, times: impl Iterator<Item = u64>) -> PgQuery<'_> {
    match form {
        TimeForm::Iso => query.bind(times.map(|at_ms| time_text(at_ms, true)).collect::<Vec<String>>()),
        TimeForm::Millis => query.bind(times.map(signed).collect::<Vec<i64>>()),
        TimeForm::Zoned(digits) | TimeForm::Plain(digits) => {
            query.bind(times.map(|at_ms| signed(cut_down(at_ms, digits))).collect::<Vec<i64>>())
        }
    }
}

/// An id.
pub(super) fn read_id(row: &PgRow, index: usize, form: IdForm) -> Result<Id, sqlx::Error> {
    match form {
        IdForm::Integer => row.try_get(index).map(Id::Int),
        IdForm::Uuid | IdForm::UuidBytes => row.try_get(index).map(Id::Uuid),
        IdForm::Text | IdForm::UuidText => row.try_get::<String, _>(index).map(|text| Id::Text(text.into())),
    }
}

/// An id, or NULL.
pub(super) fn read_optional_id(row: &PgRow, index: usize, form: IdForm) -> Result<Option<Id>, sqlx::Error> {
    if row.try_get_raw(index)?.is_null() { Ok(None) } else { read_id(row, index, form).map(Some) }
}

/// The index, from 0, that the first column says from 1.
pub(super) fn ordinal(row: &PgRow) -> Result<usize, sqlx::Error> {
    Ok(usize::try_from(row.try_get::<i64, _>(0)? - 1).unwrap_or(usize::MAX))
}
