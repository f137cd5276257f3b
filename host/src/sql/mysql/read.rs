//! What is read: checkpoints, states of targets; and ids as they lie in columns and parameters.

use std::collections::HashMap;

use sqlx::mysql::{MySqlArguments, MySqlConnection, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, MySql, Row, ValueRef as _};
use uuid::Uuid;

use super::catalogue::{number, text};
use super::toggles::Plan;
use super::{CHUNK, statements};
use crate::model::{Aside, Checkpoint, Id, Member, Partition};
use crate::sql::TargetRow;
use crate::sql::aside::aside_row;
use crate::sql::facts::{IdForm, TimeForm};
use crate::sql::rows::{Known, Load, checkpoint, cut_down, page_end, signed, time_text, unsigned, uuid_id};

/// Targets whose members are loaded by one statement: each is a part of a UNION.
const TARGETS_PER_LOAD: usize = 64;

/// A statement with its parameters.
pub(super) type MysqlQuery<'q> = Query<'q, MySql, MySqlArguments>;

/// A statement that stays prepared. This driver neither sends at once what is small (no TCP_NODELAY) nor waits for an
/// answer when it gives a statement back, so that each one given back costs a delayed acknowledgement, about 40 ms.
/// Hence few texts: batches have sizes that are powers of two, by [`padded`] or by [`pieces`].
pub(super) fn kept(text: String) -> MysqlQuery<'static> {
    sqlx::query(AssertSqlSafe(text))
}

/// The rows, and the last one again until their number is a power of two: for lists in which repeating is harmless.
pub(super) fn padded<T>(rows: &[T]) -> impl ExactSizeIterator<Item = &T> + Clone {
    let (count, last) = (rows.len().next_power_of_two(), rows.len().saturating_sub(1));
    (0..if rows.is_empty() { 0 } else { count }).map(move |index| &rows[index.min(last)])
}

/// The rows in parts whose sizes are powers of two, `most` at most.
pub(super) fn pieces<T>(mut rows: &[T], most: usize) -> Vec<&[T]> {
    let mut parts = Vec::new();
    while !rows.is_empty() {
        let (part, rest) = rows.split_at((1 << rows.len().ilog2()).min(most));
        parts.push(part);
        rows = rest;
    }
    parts
}

/// Checkpoints by partition, locked in order when `lock`.
pub(super) async fn read_checkpoints(
    connection: &mut MySqlConnection,
    kind: &str,
    partitions: &[Partition],
    lock: bool,
) -> Result<HashMap<Partition, Checkpoint>, sqlx::Error> {
    if partitions.is_empty() {
        return Ok(HashMap::new());
    }
    let list = padded(partitions);
    let mut query = kept(statements::checkpoints(list.len(), lock)).bind(kind);
    for partition in list {
        query = query.bind(i64::from(*partition));
    }
    let rows = query.fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let checkpoint = checkpoint(number(row, 0)?, &text(row, 1)?, number(row, 2)?, number(row, 3)?)?;
            Ok((checkpoint.partition, checkpoint))
        })
        .collect()
}

/// Times of the pairs that are there, locked when `lock`. Compared exactly, whatever the collation.
pub(super) async fn read_pairs(
    connection: &mut MySqlConnection,
    plan: &Plan,
    pairs: &[(&Id, &Id)],
    lock: bool,
) -> Result<HashMap<(Id, Id), u64>, sqlx::Error> {
    let list = padded(pairs);
    let mut query = kept(plan.statements.pairs(list.len(), lock));
    for (target, actor) in list {
        query = bind_id(query, plan.forms.target, target);
        query = bind_id(query, plan.forms.actor, actor);
    }
    let rows = query.fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let pair = (read_id(row, 0, plan.forms.target)?, read_id(row, 1, plan.forms.actor)?);
            Ok((pair, unsigned(number(row, 2)?)))
        })
        .collect()
}

pub(super) async fn read_asides(connection: &mut MySqlConnection, kind: &str) -> Result<Vec<Aside>, sqlx::Error> {
    let rows = sqlx::query(statements::ASIDES).bind(kind).fetch_all(connection).await?;
    let aside =
        |row: &MySqlRow| aside_row([number(row, 0)?, number(row, 1)?, number(row, 2)?], &text(row, 3)?, &text(row, 4)?);
    rows.iter().map(aside).collect()
}

/// States of some targets, in order.
pub(super) async fn load(
    connection: &mut MySqlConnection,
    plan: &Plan,
    targets: &[Id],
    huge_rows_min: u64,
) -> Result<Vec<TargetRow>, sqlx::Error> {
    let mut load = Load { known: read_known(connection, plan, targets).await?, ..Load::default() };
    let look = load.to_look_at(targets, huge_rows_min);
    for part in pieces(&look, TARGETS_PER_LOAD) {
        let text = plan.statements.members(part.len(), signed(huge_rows_min.saturating_add(1)));
        let query = bind_ids(kept(text), plan.forms.target, part);
        for row in &query.fetch_all(&mut *connection).await? {
            if let Some(target) = part.get(usize::try_from(number(row, 0)?).unwrap_or(usize::MAX)) {
                let member = (read_id(row, 1, plan.forms.actor)?, unsigned(number(row, 2)?));
                load.take(target.clone(), member, huge_rows_min);
            }
        }
    }
    for target in load.to_count() {
        let query = bind_id(kept(plan.statements.total()), plan.forms.target, &target);
        let total = unsigned(number(&query.fetch_one(&mut *connection).await?, 0)?);
        load.totals.insert(target, total);
    }
    Ok(load.states(targets, huge_rows_min))
}

/// What the table of the targets says; `None` where there is no such table.
pub(super) async fn read_known(
    connection: &mut MySqlConnection,
    plan: &Plan,
    targets: &[Id],
) -> Result<Option<Known>, sqlx::Error> {
    let Some(key) = plan.forms.key else { return Ok(None) };
    let mut known = Known::new();
    for part in targets.chunks(CHUNK) {
        let list = padded(part);
        let Some(text) = plan.statements.known(list.len()) else { return Ok(None) };
        for row in &bind_ids(kept(text), key, list).fetch_all(&mut *connection).await? {
            known.insert(read_id(row, 0, key)?, row.try_get_unchecked(1)?);
        }
    }
    Ok(Some(known))
}

/// Number of members, counted up to one more than `huge_rows_min`.
pub(super) async fn read_size(
    connection: &mut MySqlConnection,
    plan: &Plan,
    target: &Id,
    huge_rows_min: u64,
) -> Result<u64, sqlx::Error> {
    let query = bind_id(kept(plan.statements.size()), plan.forms.target, target);
    let row = query.bind(signed(huge_rows_min.saturating_add(1))).fetch_one(connection).await?;
    number(&row, 0).map(unsigned)
}

/// A page of members, newest first. Where an index can tell how far back the page reaches, only so much is read.
pub(super) async fn page(
    connection: &mut MySqlConnection,
    plan: &Plan,
    target: &Id,
    before: Option<&Member>,
    limit: usize,
) -> Result<Vec<MySqlRow>, sqlx::Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // Text has no certain order.
    let form = plan.forms.created.filter(|form| *form != TimeForm::Iso);
    let end_ms = page_end(before.map(|member| member.since_ms));
    let mut within = None;
    if let (Some(form), Some(text), true) = (form, plan.statements.page_start(), limit > 0) {
        let query = bind_id(kept(text), plan.forms.target, target);
        let query = bind_time(query, form, end_ms).bind(limit - 1);
        let row = query.fetch_optional(&mut *connection).await?;
        let start = row.map(|row| number(&row, 0)).transpose()?;
        within = start.map(|start| (form, unsigned(start)));
    }
    let mut query = bind_id(kept(plan.statements.page(within.is_some())), plan.forms.target, target);
    if let Some((form, start)) = within {
        query = bind_time(query, form, start);
        // One second on where the column holds no less: a time that is cut down must stay above all that it means.
        query = bind_time(query, form, end_ms.saturating_add(1_000));
    }
    let since = before.map(|member| signed(member.since_ms));
    let text = before.map(|member| order_text(plan.forms.actor, &member.actor));
    query.bind(since).bind(since).bind(since).bind(text).bind(limit).fetch_all(connection).await
}

/// Binds an id. Its type is checked before.
pub(super) fn bind_id<'q>(query: MysqlQuery<'q>, form: IdForm, id: &Id) -> MysqlQuery<'q> {
    match (form, id) {
        (_, Id::Int(value)) => query.bind(*value),
        (IdForm::UuidBytes, Id::Uuid(value)) => query.bind(*value),
        (_, other) => query.bind(other.to_string()),
    }
}

/// Binds an id, or NULL. Even a NULL has a type here, and not every type goes into every column.
pub(super) fn bind_optional_id<'q>(query: MysqlQuery<'q>, form: IdForm, id: Option<&Id>) -> MysqlQuery<'q> {
    match id {
        Some(id) => bind_id(query, form, id),
        None => query.bind(None::<String>),
    }
}

/// Binds ids one by one.
pub(super) fn bind_ids<'q, 'i>(
    query: MysqlQuery<'q>,
    form: IdForm,
    ids: impl IntoIterator<Item = &'i Id>,
) -> MysqlQuery<'q> {
    ids.into_iter().fold(query, |query, id| bind_id(query, form, id))
}

/// Binds a time.
pub(super) fn bind_time(query: MysqlQuery<'_>, form: TimeForm, at_ms: u64) -> MysqlQuery<'_> {
    match form {
        TimeForm::Millis => query.bind(signed(at_ms)),
        TimeForm::Iso => query.bind(time_text(at_ms, true)),
        TimeForm::Zoned(digits) | TimeForm::Plain(digits) => query.bind(time_text(cut_down(at_ms, digits), false)),
    }
}

/// The text by which members, and documents, of equal age are ordered.
pub(super) fn order_text(form: IdForm, id: &Id) -> String {
    match (form, id) {
        (IdForm::UuidBytes, Id::Uuid(uuid)) => Uuid::simple(*uuid).to_string(),
        _ => id.to_string(),
    }
}

/// An id.
pub(super) fn read_id(row: &MySqlRow, index: usize, form: IdForm) -> Result<Id, sqlx::Error> {
    match form {
        IdForm::Integer => number(row, index).map(Id::Int),
        IdForm::Text => text(row, index).map(|text| Id::Text(text.into())),
        IdForm::Uuid | IdForm::UuidBytes | IdForm::UuidText => uuid_id(&text(row, index)?),
    }
}

/// An id, or NULL.
pub(super) fn read_optional_id(row: &MySqlRow, index: usize, form: IdForm) -> Result<Option<Id>, sqlx::Error> {
    if row.try_get_raw(index)?.is_null() { Ok(None) } else { read_id(row, index, form).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_few_sizes_and_lose_nothing() {
        assert_eq!(padded::<u8>(&[]).len(), 0);
        for count in 1..200 {
            let rows: Vec<usize> = (0..count).collect();
            let list: Vec<usize> = padded(&rows).copied().collect();
            assert!(list.len().is_power_of_two() && list.len() < 2 * count && list[..count] == rows);
            assert!(list[count..].iter().all(|row| *row == count - 1));
            let parts = pieces(&rows, 64);
            assert_eq!(parts.concat(), rows);
            assert!(parts.iter().all(|part| part.len().is_power_of_two() && part.len() <= 64));
        }
        assert!(pieces::<u8>(&[], 64).is_empty());
    }
}
