//! Arithmetic on rows: claims, count deltas, states of targets, times as text.
//!
//! Knows no engine. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::dead_letters::TARGET_GONE;
use super::{CountRow, DocumentRow, EventRow, Row, RowChange, SettingsRow, SqlError, TargetRow, TargetState};
use weir_core::config::KindTable;
use weir_core::model::{Action, Checkpoint, Id, IdType, Incarnation, Partition};

/// The schema of weir's own tables that this version knows. 2: dead letters have a body, and an index on their targets. 3:
/// holes of journals; the database has an id, and knows where the journals of its kinds are; what is set aside.
pub(super) const SCHEMA: i64 = 3;
/// The schema in which the tables are created. What is newer comes to new tables in the same way as to old ones.
pub(super) const SCHEMA_CREATED: i64 = 1;

/// Whether weir's tables were made by an earlier version, and must be brought up to [`SCHEMA`].
///
/// # Errors
/// When a later version made them.
pub(super) fn is_older(recorded: &str) -> Result<bool, SqlError> {
    match recorded.parse::<i64>() {
        Ok(version) if version <= SCHEMA => Ok(version < SCHEMA),
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
    table: &str,
    (target_type, actor_type): (IdType, IdType),
    targets: impl IntoIterator<Item = &'a Id>,
    actors: impl IntoIterator<Item = &'a Id>,
) -> Result<(), SqlError> {
    let wrong_target = targets.into_iter().find(|id| id.id_type() != target_type);
    let wrong = wrong_target.or_else(|| actors.into_iter().find(|id| id.id_type() != actor_type));
    match wrong {
        None => Ok(()),
        Some(id) => Err(SqlError::Permanent(format!("id {id} is not of the type that is configured for {table}"))),
    }
}

/// Refuses rows of another capability than the tables', and ids of other types.
pub(super) fn check_rows(table: &KindTable, rows: &[Row]) -> Result<(), SqlError> {
    let belongs = |row: &Row| match (table, row) {
        (KindTable::Toggle(_), Row::Toggle(_))
        | (KindTable::Counter(_), Row::Count(_))
        | (KindTable::Ingest(_), Row::Document(_))
        | (KindTable::Preference(_), Row::Settings(_)) => true,
        (KindTable::Counter(table), Row::Event(_)) => table.events.is_some(),
        _ => false,
    };
    let name = match table {
        KindTable::Toggle(table) => &table.name,
        KindTable::Counter(table) => &table.name,
        KindTable::Ingest(table) => &table.name,
        KindTable::Preference(table) => &table.name,
    };
    if !rows.iter().all(belongs) {
        return Err(SqlError::Permanent(format!("a flush into {name} has rows of another capability")));
    }
    check_types(name, table.id_types(), rows.iter().map(Row::target), rows.iter().filter_map(Row::actor))
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

/// Above what the last one before a page has, in Unix milliseconds: everything, when it is the first page.
pub(super) fn page_end(since_ms: Option<u64>) -> u64 {
    since_ms.map_or(FAR_MS, |since_ms| since_ms.min(FAR_MS))
}

/// The toggles among rows, split into those to delete and those to insert.
pub(super) fn split<'a>(rows: &[&'a Row]) -> (Vec<&'a RowChange>, Vec<&'a RowChange>) {
    let toggles = rows.iter().filter_map(|row| if let Row::Toggle(change) = row { Some(change) } else { None });
    toggles.partition(|change| change.action == Action::Remove)
}

/// The counts among rows.
pub(super) fn counts<'a>(rows: &[&'a Row]) -> Vec<&'a CountRow> {
    rows.iter().filter_map(|row| if let Row::Count(count) = row { Some(count) } else { None }).collect()
}

/// The events among rows.
pub(super) fn events<'a>(rows: &[&'a Row]) -> Vec<&'a EventRow> {
    rows.iter().filter_map(|row| if let Row::Event(event) = row { Some(event) } else { None }).collect()
}

/// The documents among rows.
pub(super) fn documents<'a>(rows: &[&'a Row]) -> Vec<&'a DocumentRow> {
    rows.iter().filter_map(|row| if let Row::Document(document) = row { Some(document) } else { None }).collect()
}

/// The settings among rows.
pub(super) fn settings<'a>(rows: &[&'a Row]) -> Vec<&'a SettingsRow> {
    rows.iter().filter_map(|row| if let Row::Settings(settings) = row { Some(settings) } else { None }).collect()
}

/// Rows in parts of so many rows and bytes at most; a row that is larger by itself is a part of its own.
pub(super) fn parts_of<T>(rows: &[T], rows_max: usize, bytes_max: usize, bytes_of: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (index, row) in rows.iter().enumerate() {
        let more = bytes_of(row);
        if index > start && (bytes + more > bytes_max || index - start >= rows_max) {
            parts.push(&rows[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += more;
    }
    if start < rows.len() {
        parts.push(&rows[start..]);
    }
    parts
}

/// A row that can never be stored: its index, and why.
pub(super) type Unstorable = (usize, String);

/// What is added to which counters, of those targets that are `there`; and the rows that can never be stored.
pub(super) fn sums<'a>(rows: &[&'a CountRow], there: &HashSet<Id>) -> (Vec<(&'a Id, i64)>, Vec<Unstorable>) {
    let (mut sums, mut dead) = (Vec::with_capacity(rows.len()), Vec::new());
    for (index, row) in rows.iter().enumerate() {
        match i64::try_from(row.by) {
            _ if !there.contains(&row.target) => dead.push((index, TARGET_GONE.to_owned())),
            Err(_) => dead.push((index, format!("{} is more than a count can hold", row.by))),
            Ok(by) => sums.push((&row.target, by)),
        }
    }
    (sums, dead)
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

/// The day since 1970-01-01 of a year, a month and a day: the way back from [`civil`].
pub(super) fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
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
    fn days_and_dates_lead_to_each_other() {
        for days in (-720_000..3_000_000).step_by(97) {
            let (year, month, day) = civil(days);
            assert_eq!(days_of(year, month, day), days);
        }
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
        assert!(is_older("1").unwrap() && is_older("2").unwrap() && !is_older("3").unwrap());
        assert!(is_older("4").unwrap_err().to_string().contains("upgrade weir"));
        assert!(is_older("x").is_err());
    }
}
