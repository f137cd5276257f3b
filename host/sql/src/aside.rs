//! Setting aside: what a flush does with targets whose rows another session has locked.
//!
//! Knows no engine. Pure. The rows of such a target are not written, all others are; the checkpoint of its
//! partition stays before them, and `weir_aside` says, in the same transaction, how far the others have got. So nothing is
//! stored twice and nothing is forgotten, even if another host flushes next.

use std::collections::{BTreeMap, BTreeSet};

use super::classify::kept;
use super::rows::{Unstorable, unsigned};
use super::{Fence, Row, SqlError};
use weir_core::model::{Aside, Id, Incarnation, Partition};

/// Targets that are set aside together at most; more are no few locked rows, but a locked table.
const TARGETS_MAX: usize = 10_000;

/// How a flush goes around targets that wait for a lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Around {
    /// Partitions of which something waits already: what holds when this flush is committed, if no more is found locked.
    /// Their checkpoint goes to `position`, or, where no target is left, to `ahead`.
    pub asides: Vec<Aside>,
    /// Whether targets that are found locked are set aside. Locks are not waited for then.
    pub set_aside: bool,
}

/// The targets that were found locked: for each one of its rows, and what the database said.
pub(super) type Waiting = BTreeMap<Id, Unstorable>;

/// What holds of the partitions of which something waits, or waited, when the flush is committed.
pub(super) fn settled(
    fences: &[Fence],
    around: &Around,
    rows: &[Row],
    waiting: &Waiting,
) -> Result<Vec<Aside>, SqlError> {
    let mut asides: BTreeMap<Partition, Aside> = BTreeMap::new();
    for aside in &around.asides {
        asides.insert(aside.partition, aside.clone());
    }
    for (target, (index, reason)) in waiting {
        let partition = rows[*index].partition();
        let Some(fence) = fences.iter().find(|fence| fence.from.partition == partition) else {
            return Err(SqlError::Locked(reason.clone()));
        };
        let aside = asides.entry(partition).or_insert_with(|| Aside {
            partition,
            incarnation: fence.from.incarnation,
            position: fence.from.position,
            ahead: fence.to,
            targets: BTreeSet::new(),
        });
        aside.targets.insert(target.to_string());
    }
    if let Some((_, reason)) = waiting.values().next().filter(|_| waiting.len() > TARGETS_MAX) {
        return Err(SqlError::Locked(format!("{} targets at once: {}", waiting.len(), kept(reason))));
    }
    for aside in asides.values_mut().filter(|aside| aside.targets.is_empty()) {
        aside.position = aside.ahead;
    }
    Ok(asides.into_values().collect())
}

/// Where to divide a part so that the rows of no target are torn apart: next to its middle. `None` where there is one
/// target only.
pub(super) fn between_targets(rows: &[Row], part: &[usize]) -> Option<usize> {
    let is_border = |at: &usize| rows[part[at - 1]].target() != rows[part[*at]].target();
    let middle = part.len() / 2;
    let after = (middle.max(1)..part.len()).find(is_border);
    after.or_else(|| (1..middle).rev().find(is_border))
}

/// The targets of an aside as they are written.
pub(super) fn targets_text(aside: &Aside) -> String {
    serde_json::Value::from(aside.targets.iter().cloned().collect::<Vec<_>>()).to_string()
}

/// An aside as it was read: partition, position and ahead, the life, the targets.
pub(super) fn aside_row(numbers: [i64; 3], incarnation: &str, targets: &str) -> Result<Aside, sqlx::Error> {
    let [partition, position, ahead] = numbers;
    let wrong = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
    Ok(Aside {
        partition: Partition::try_from(partition).map_err(|error| wrong(error.into()))?,
        incarnation: Incarnation(uuid::Uuid::try_parse(incarnation).map_err(|error| wrong(error.into()))?),
        position: unsigned(position),
        ahead: unsigned(ahead),
        targets: serde_json::from_str(targets).map_err(|error| wrong(error.into()))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CountRow;
    use weir_core::model::{Checkpoint, Origin};

    fn row(partition: Partition, target: i64) -> Row {
        let origin = Origin { partition, ..Origin::default() };
        Row::Count(CountRow { origin, target: Id::Int(target), by: 1 })
    }

    #[test]
    fn a_part_is_divided_between_targets() {
        let rows: Vec<Row> = [1, 1, 1, 2, 3].into_iter().map(|target| row(0, target)).collect();
        let at = |part: &[usize]| between_targets(&rows, part);
        assert_eq!(at(&[0, 1, 2, 3, 4]), Some(3));
        assert_eq!(at(&[2, 3]), Some(1));
        assert_eq!((at(&[0, 1, 2]), at(&[3])), (None, None));
        let late: Vec<Row> = [1, 2, 2, 2, 2].into_iter().map(|target| row(0, target)).collect();
        assert_eq!(between_targets(&late, &[0, 1, 2, 3, 4]), Some(1));
    }

    #[test]
    fn the_checkpoint_stays_before_what_waits() {
        let life = Incarnation::fresh();
        let from = |partition| Checkpoint { partition, incarnation: life, epoch: 1, position: 5 };
        let fences = [Fence { from: from(0), to: 9 }, Fence { from: from(1), to: 8 }, Fence { from: from(2), to: 7 }];
        let rows = [row(0, 1), row(1, 2), row(2, 3)];
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
        let aside = |partition, position, ahead, targets: &[&str]| Aside {
            partition,
            incarnation: life,
            position,
            ahead,
            targets: texts(targets),
        };
        let around = Around { asides: vec![aside(1, 6, 8, &["77"]), aside(2, 5, 7, &[])], set_aside: true };
        let waiting = Waiting::from([(Id::Int(1), (0, "locked".into())), (Id::Int(2), (1, "locked".into()))]);
        let settled = settled(&fences, &around, &rows, &waiting).unwrap();
        assert_eq!(settled, [aside(0, 5, 9, &["1"]), aside(1, 6, 8, &["2", "77"]), aside(2, 7, 7, &[])]);
        let nobody = super::settled(&[], &Around::default(), &rows, &waiting);
        assert!(matches!(nobody, Err(SqlError::Locked(_))), "without a fence nothing can wait");
    }

    #[test]
    fn what_is_written_is_read() {
        let life = Incarnation::fresh();
        let targets = BTreeSet::from(["a\"b".to_owned(), "2".to_owned()]);
        let aside = Aside { partition: 3, incarnation: life, position: 4, ahead: 9, targets };
        assert_eq!(aside_row([3, 4, 9], &life.to_string(), &targets_text(&aside)).unwrap(), aside);
    }
}
