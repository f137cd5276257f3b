//! Arithmetic on rows: claims, count deltas, states of targets, times as text.
//!
//! Engine-free part of the room. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::{DeadLetter, RowChange, SqlError, TargetRow, TargetState};
use crate::config::ToggleTable;
use crate::model::{Action, Checkpoint, Digest, Id, Incarnation, Member, Partition};

/// The schema of weir's own tables that this version knows.
pub(super) const SCHEMA: i64 = 1;

/// Refuses weir's tables when a later version made them.
pub(super) fn check_schema(recorded: &str) -> Result<(), SqlError> {
    match recorded.parse::<i64>() {
        Ok(version) if version <= SCHEMA => Ok(()),
        Ok(version) => Err(SqlError::Permanent(format!(
            "weir's tables have schema {version}, this weir knows {SCHEMA}: upgrade weir"
        ))),
        Err(_) => Err(SqlError::Permanent(format!("weir_meta.schema is {recorded:?}, which is not a number"))),
    }
}

/// A signed number for SQL. Positions and times beyond the signed range do not occur.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number from SQL that is never negative by right.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// What the row of a claimed partition becomes; `None` when it stays. Epoch 0 is a row just created.
pub(super) fn claimed(row: &Checkpoint, wanted: Incarnation, take_over: bool) -> Option<Checkpoint> {
    if row.incarnation < wanted {
        return Some(Checkpoint { incarnation: wanted, epoch: row.epoch + 1, position: 0, ..*row });
    }
    let raise = row.epoch == 0 || (take_over && row.incarnation == wanted);
    raise.then_some(Checkpoint { epoch: row.epoch + 1, ..*row })
}

/// Refuses ids of another type than the kind's: an engine would store something else, or not find it.
pub(super) fn check_types<'a>(
    table: &ToggleTable,
    targets: impl IntoIterator<Item = &'a Id>,
    actors: impl IntoIterator<Item = &'a Id>,
) -> Result<(), SqlError> {
    let wrong_target = targets.into_iter().find(|id| id.id_type() != table.target_type);
    let wrong = wrong_target.or_else(|| actors.into_iter().find(|id| id.id_type() != table.actor_type));
    match wrong {
        None => Ok(()),
        Some(id) => {
            Err(SqlError::Permanent(format!("id {id} is not of the type that is configured for {}", table.name)))
        }
    }
}

/// A time cut down to what a column with so many digits after the second holds: never later than it was.
pub(super) fn cut_down(at_ms: u64, digits: u8) -> u64 {
    let unit = match digits {
        0 => 1_000,
        1 => 100,
        2 => 10,
        _ => 1,
    };
    at_ms / unit * unit
}

/// 9999-12-30 in Unix milliseconds: later than all that happened, and every engine still has dates after it.
const FAR_MS: u64 = 253_402_214_400_000;

/// Above what the last member before a page has, in Unix milliseconds: everything, when it is the first page.
pub(super) fn page_end(before: Option<&Member>) -> u64 {
    before.map_or(FAR_MS, |member| member.since_ms.min(FAR_MS))
}

/// Splits rows into those to delete and those to insert.
pub(super) fn split<'a>(rows: &[&'a RowChange]) -> (Vec<&'a RowChange>, Vec<&'a RowChange>) {
    rows.iter().partition(|row| row.action == Action::Remove)
}

/// Count deltas per target, in target order.
#[derive(Debug, Default)]
pub(super) struct Deltas(BTreeMap<Id, i64>);

impl Deltas {
    /// Adds `by` to the delta of `target`.
    pub fn add(&mut self, target: Id, by: i64) {
        *self.0.entry(target).or_default() += by;
    }

    /// The targets whose count changes, in order.
    pub fn changed(&self) -> (Vec<&Id>, Vec<i64>) {
        self.0.iter().filter(|(_, by)| **by != 0).map(|(target, by)| (target, *by)).unzip()
    }
}

/// What the table of the targets says: which exist, and their counts where there is a count column.
pub(super) type Known = HashMap<Id, Option<i64>>;

/// What was read of the targets of one load.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// The table of the targets; `None` where there is no such table and every target exists.
    pub known: Option<Known>,
    /// Members, of those that have no more than `huge_rows_min`.
    pub members: HashMap<Id, Vec<(Id, u64)>>,
    /// Those that have more.
    pub too_many: HashSet<Id>,
    /// Exact numbers of members, of those that have too many and no count column.
    pub totals: HashMap<Id, u64>,
}

impl Load {
    /// The targets whose members must be looked at: those that exist and are not known to be huge.
    pub fn to_look_at(&self, targets: &[Id], huge_rows_min: u64) -> Vec<Id> {
        let mut seen = HashSet::new();
        targets
            .iter()
            .filter(|target| match self.known.as_ref().map(|known| known.get(target)) {
                None => true,
                Some(None) => false,
                Some(Some(count)) => count.is_none_or(|count| unsigned(count) <= huge_rows_min),
            })
            .filter(|target| seen.insert(*target))
            .cloned()
            .collect()
    }

    /// Takes a member of a bounded read; one more than `huge_rows_min` means too many.
    pub fn take(&mut self, target: Id, member: (Id, u64), huge_rows_min: u64) {
        let members = self.members.entry(target.clone()).or_default();
        members.push(member);
        if members.len() as u64 > huge_rows_min {
            self.members.remove(&target);
            self.too_many.insert(target);
        }
    }

    /// The targets that have too many members to load, and no count column that would tell how many.
    pub fn to_count(&self) -> Vec<Id> {
        let counted =
            |target: &Id| self.known.as_ref().and_then(|known| known.get(target)).is_some_and(Option::is_some);
        self.too_many.iter().filter(|target| !counted(target)).cloned().collect()
    }

    /// States of the targets, in order.
    pub fn states(&self, targets: &[Id], huge_rows_min: u64) -> Vec<TargetRow> {
        let state = |target: &Id| {
            let column = match &self.known {
                None => None,
                Some(known) => match known.get(target) {
                    None => return TargetState::Missing,
                    Some(count) => count.map(unsigned),
                },
            };
            if let Some(count) = column.filter(|count| *count > huge_rows_min) {
                return TargetState::Huge(count);
            }
            if self.too_many.contains(target) {
                let count = column.or(self.totals.get(target).copied());
                return TargetState::Huge(count.unwrap_or(huge_rows_min.saturating_add(1)));
            }
            TargetState::Whole(self.members.get(target).cloned().unwrap_or_default())
        };
        targets.iter().map(|target| TargetRow { target: target.clone(), state: state(target) }).collect()
    }
}

/// A checkpoint row as it was read.
pub(super) fn checkpoint(
    partition: i64,
    incarnation: &str,
    epoch: i64,
    position: i64,
) -> Result<Checkpoint, sqlx::Error> {
    let partition = Partition::try_from(partition).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let incarnation = Uuid::try_parse(incarnation).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Checkpoint { partition, incarnation: Incarnation(incarnation), epoch, position: unsigned(position) })
}

/// The claimed rows, in the order in which they were asked for.
pub(super) fn in_order(
    wanted: &[(Partition, Incarnation)],
    rows: &HashMap<Partition, Checkpoint>,
) -> Result<Vec<Checkpoint>, SqlError> {
    let row = |partition: &Partition| {
        rows.get(partition)
            .copied()
            .ok_or_else(|| SqlError::Permanent(format!("weir_checkpoint has lost the row of partition {partition}")))
    };
    wanted.iter().map(|(partition, _)| row(partition)).collect()
}

/// The other number of partitions, if `recorded` is one.
pub(super) fn other_partitions(recorded: &str, partitions: Partition) -> Result<Option<Partition>, SqlError> {
    let recorded: Partition = recorded
        .parse()
        .map_err(|_| SqlError::Permanent(format!("weir_meta.partitions is {recorded:?}, which is not a number")))?;
    Ok((recorded != partitions).then_some(recorded))
}

/// A UUID read as text.
pub(super) fn uuid_id(text: &str) -> Result<Id, sqlx::Error> {
    Uuid::try_parse(text.trim_end()).map(Id::Uuid).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// How an action is called in a dead letter.
pub(super) fn action_text(action: Action) -> &'static str {
    match action {
        Action::Add => "add",
        Action::Remove => "remove",
    }
}

/// The row that a dead letter was.
pub(super) fn replayed(table: &ToggleTable, letter: &DeadLetter) -> Result<RowChange, SqlError> {
    let wrong = |what: &str, why: String| SqlError::Permanent(format!("dead letter {}: {what}: {why}", letter.id));
    let action = match letter.action.as_str() {
        "add" => Action::Add,
        "remove" => Action::Remove,
        other => return Err(wrong("action", format!("{other:?} is neither add nor remove"))),
    };
    Ok(RowChange {
        partition: letter.partition,
        target: Id::parse(table.target_type, &letter.target).map_err(|error| wrong("target", error.to_string()))?,
        actor: Id::parse(table.actor_type, &letter.actor).map_err(|error| wrong("actor", error.to_string()))?,
        action,
        at_ms: letter.at_ms,
        position: letter.position,
        digest: Digest::default(),
    })
}

/// The dead letter is not there any more.
pub(super) fn no_letter(id: i64) -> sqlx::Error {
    sqlx::Error::InvalidArgument(format!("there is no dead letter {id} any more"))
}

/// What SQL holds of a pair and its target, in words. `size` is counted up to one more than `huge_rows_min`.
pub(super) fn explanation(
    at_ms: Option<u64>,
    target: &Id,
    known: Option<&Known>,
    size: u64,
    table: &ToggleTable,
) -> serde_json::Value {
    let exists = known.is_none_or(|known| known.contains_key(target));
    let count = known.and_then(|known| known.get(target).copied().flatten());
    serde_json::json!({
        "target_exists": exists,
        "row": at_ms.map(|at_ms| serde_json::json!({ "created_at_ms": at_ms })),
        "count": count,
        "rows": (size <= table.huge_rows_min).then_some(size),
    })
}

/// `2024-05-01T12:34:56.789Z`, or with a space and without the zone.
pub(super) fn time_text(at_ms: u64, iso: bool) -> String {
    let (days, ms) = (signed(at_ms) / 86_400_000, at_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (between, end) = if iso { ('T', "Z") } else { (' ', "") };
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}.{:03}{end}", ms % 1_000)
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant's algorithm for the proleptic Gregorian calendar).
pub(super) fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_calendar_says() {
        assert_eq!(time_text(0, true), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_text(1_709_210_096_789, false), "2024-02-29 12:34:56.789");
        assert_eq!(time_text(4_102_444_799_999, true), "2099-12-31T23:59:59.999Z");
        assert_eq!(time_text(951_782_400_000, true), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn a_claim_moves_only_what_is_older_or_taken_over() {
        let old = Incarnation::fresh();
        let new = Incarnation::after(old);
        let row = Checkpoint { partition: 1, incarnation: old, epoch: 3, position: 9 };
        assert_eq!(claimed(&row, old, false), None);
        assert_eq!(claimed(&row, old, true), Some(Checkpoint { epoch: 4, ..row }));
        let moved = Checkpoint { incarnation: new, epoch: 4, position: 0, ..row };
        assert_eq!(claimed(&row, new, false), Some(moved));
        assert_eq!(claimed(&moved, old, true), None, "a greater incarnation is left alone");
        assert_eq!(claimed(&Checkpoint { epoch: 0, ..row }, old, false), Some(Checkpoint { epoch: 1, ..row }));
    }

    #[test]
    fn deltas_cancel_out() {
        let mut deltas = Deltas::default();
        for (target, by) in [(2, 1), (1, 1), (2, -1), (1, 1)] {
            deltas.add(Id::Int(target), by);
        }
        assert_eq!(deltas.changed(), (vec![&Id::Int(1)], vec![2]));
    }

    #[test]
    fn a_later_schema_is_refused() {
        check_schema("1").unwrap();
        assert!(check_schema("2").unwrap_err().to_string().contains("upgrade weir"));
    }
}
