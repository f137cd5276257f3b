//! What is read: checkpoints, states of targets, dead letters; and ids as they lie in columns and parameters.

use std::collections::HashMap;

use sqlx::mysql::{MySqlArguments, MySqlConnection, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, MySql, Row};
use uuid::Uuid;

use super::catalogue::{number, text};
use super::{CHUNK, Plan, statements};
use crate::model::{Checkpoint, Id, Partition};
use crate::sql::facts::{IdForm, TimeForm};
use crate::sql::rows::{Known, Load, checkpoint, cut_down, signed, time_text, unsigned, uuid_id};
use crate::sql::{DeadLetter, TargetRow};

/// Targets whose members are loaded by one statement: each is a part of a UNION.
const TARGETS_PER_LOAD: usize = 64;

/// A statement with its parameters.
pub(super) type MysqlQuery<'q> = Query<'q, MySql, MySqlArguments>;

/// A statement for `count` rows. Only that for a whole chunk is kept prepared; others are seldom used twice.
pub(super) fn chunk_query(text: String, count: usize) -> MysqlQuery<'static> {
    sqlx::query(AssertSqlSafe(text)).persistent(count == CHUNK)
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
    let mut query = chunk_query(statements::checkpoints(partitions.len(), lock), partitions.len()).bind(kind);
    for partition in partitions {
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
    let mut query = chunk_query(plan.statements.pairs(pairs.len(), lock), pairs.len());
    for (target, actor) in pairs {
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

/// States of some targets, in order.
pub(super) async fn load(
    connection: &mut MySqlConnection,
    plan: &Plan,
    targets: &[Id],
    huge_rows_min: u64,
) -> Result<Vec<TargetRow>, sqlx::Error> {
    let mut load = Load { known: read_known(connection, plan, targets).await?, ..Load::default() };
    let look = load.to_look_at(targets, huge_rows_min);
    for part in look.chunks(TARGETS_PER_LOAD) {
        let text = plan.statements.members(part.len(), signed(huge_rows_min.saturating_add(1)));
        let query = bind_ids(sqlx::query(AssertSqlSafe(text)).persistent(false), plan.forms.target, part);
        for row in &query.fetch_all(&mut *connection).await? {
            if let Some(target) = part.get(usize::try_from(number(row, 0)?).unwrap_or(usize::MAX)) {
                let member = (read_id(row, 1, plan.forms.actor)?, unsigned(number(row, 2)?));
                load.take(target.clone(), member, huge_rows_min);
            }
        }
    }
    for target in load.to_count() {
        let query = bind_id(sqlx::query(AssertSqlSafe(plan.statements.total())), plan.forms.target, &target);
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
        let Some(text) = plan.statements.known(part.len()) else { return Ok(None) };
        for row in &bind_ids(chunk_query(text, part.len()), key, part).fetch_all(&mut *connection).await? {
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
    let query = bind_id(sqlx::query(AssertSqlSafe(plan.statements.size())), plan.forms.target, target);
    let row = query.bind(signed(huge_rows_min.saturating_add(1))).fetch_one(connection).await?;
    number(&row, 0).map(unsigned)
}

/// Binds an id. Its type is checked before.
pub(super) fn bind_id<'q>(query: MysqlQuery<'q>, form: IdForm, id: &Id) -> MysqlQuery<'q> {
    match (form, id) {
        (_, Id::Int(value)) => query.bind(*value),
        (IdForm::UuidBytes, Id::Uuid(value)) => query.bind(*value),
        (_, other) => query.bind(other.to_string()),
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

/// The text by which members of equal age are ordered.
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

/// A dead letter.
pub(super) fn dead_letter(row: &MySqlRow) -> Result<DeadLetter, sqlx::Error> {
    Ok(DeadLetter {
        id: number(row, 0)?,
        kind: text(row, 1)?,
        partition: Partition::try_from(number(row, 2)?).unwrap_or_default(),
        target: text(row, 3)?,
        actor: text(row, 4)?,
        action: text(row, 5)?,
        at_ms: unsigned(number(row, 6)?),
        incarnation: text(row, 7)?,
        position: unsigned(number(row, 8)?),
        digest: text(row, 9)?,
        reason: text(row, 10)?,
        dead_at_ms: unsigned(number(row, 11)?),
    })
}
