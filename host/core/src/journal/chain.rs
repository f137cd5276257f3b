//! The chain: each entry names the one before it, so that entries that have gone are noticed whatever comes after them.
//!
//! Pure. A store says what its head knows and what it found; [`follow`] says what that is: entries without a break, a
//! [`Hole`], or a journal that went back in time. Never repairs anything.

use serde::Serialize;

use super::Entry;
use crate::model::Position;

/// What an entry says of those before it. Entries of the format before may say nothing, or only how many changes there
/// were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// The entry before it; 0 where there never was one.
    pub previous: Option<Position>,
    /// Changes ever appended to the journal before it.
    pub before: Option<u64>,
    /// What these amounted to: of a counter the sum of the increments, else as many.
    pub amount: Option<u64>,
}

impl Link {
    /// After the entry at `previous`, with so many changes before.
    pub fn after(previous: Position, before: u64, amount: u64) -> Self {
        Self { previous: Some(previous), before: Some(before), amount: Some(amount) }
    }
}

/// A place up to which a journal was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The last entry.
    pub position: Position,
    /// Changes ever appended up to it, where that is known.
    pub changes: Option<u64>,
    /// What these amounted to, where that is known.
    pub amount: Option<u64>,
}

impl From<Position> for Mark {
    fn from(position: Position) -> Self {
        Self { position, changes: None, amount: None }
    }
}

impl From<&Entry> for Mark {
    fn from(entry: &Entry) -> Self {
        let changes = entry.link.before.map(|before| before + entry.changes.len() as u64);
        let amount = entry.link.amount.map(|amount| amount.saturating_add(amount_of(entry)));
        Self { position: entry.position, changes, amount }
    }
}

fn amount_of(entry: &Entry) -> u64 {
    entry.changes.iter().fold(0, |sum: u64, change| sum.saturating_add(change.amount()))
}

/// Entries that a journal has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// Up to here all is there or was committed.
    pub after: Position,
    /// The last entry that was lost.
    pub last: Position,
    /// The entry that follows; `None` where the end was lost.
    pub next: Option<Position>,
    /// Changes that were lost.
    pub changes: u64,
    /// What these amounted to: of a counter the sum of the increments, else as many. `None` where entries of the format before
    /// were among them.
    pub amount: Option<u64>,
    /// Whether that is their number; otherwise there were at most so many.
    pub is_exact: bool,
    /// Changes ever appended up to its end, these among them, where that is known.
    pub total: Option<u64>,
    /// What those amounted to, where that is known.
    pub total_amount: Option<u64>,
}

impl Hole {
    /// The place directly before what follows: a reader that goes on from here leaves the hole behind, and what was
    /// lost stays behind even if it comes back.
    pub fn end(&self) -> Position {
        self.next.map_or(self.last, |next| next.saturating_sub(1))
    }

    /// That place, with what was appended up to there: it holds whatever becomes of what follows.
    pub fn mark(&self) -> Mark {
        Mark { position: self.end(), changes: self.total, amount: self.total_amount }
    }
}

/// What a head knows of its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Up to here everything was trimmed, and so many changes with it.
    pub trimmed: (Position, u64),
    /// What these amounted to, where that is known.
    pub trimmed_amount: Option<u64>,
    /// The newest entry.
    pub last: Position,
    /// Changes ever appended.
    pub changes: u64,
    /// What these amounted to.
    pub amount: u64,
}

/// What a store found after a position.
#[derive(Debug)]
pub struct Found {
    /// The position that was asked for.
    pub position: Position,
    /// The entry at that position, if it is there.
    pub there: Option<Mark>,
    /// What comes after it, in order.
    pub entries: Vec<Entry>,
    /// Whether these are all.
    pub is_all: bool,
}

/// What was found, as far as it is without a break.
#[derive(Debug, PartialEq, Eq)]
pub enum Followed {
    /// Entries that follow each other; a break after them shows when what comes after them is read.
    Entries(Vec<Entry>),
    /// Nothing follows the position: entries have gone.
    Hole(Hole),
    /// The journal went on without the position: it went back in time.
    Rewound,
    /// The entry here is not of this chain, although it says so.
    Misplaced(Position),
}

/// Goes along the chain.
pub fn follow(chain: &Chain, found: Found) -> Followed {
    let Found { position, there, entries, is_all } = found;
    let Some(mut walk) = Walk::start(chain, position, there, entries.first()) else { return Followed::Rewound };
    let mut whole = Vec::with_capacity(entries.len());
    for entry in entries {
        match walk.step(&entry) {
            Step::Fits => whole.push(entry),
            Step::Hole(hole) if whole.is_empty() => return Followed::Hole(hole),
            Step::Misplaced if whole.is_empty() => return Followed::Misplaced(entry.position),
            Step::Hole(_) | Step::Misplaced => return Followed::Entries(whole),
        }
    }
    match walk.end(chain) {
        Some(hole) if is_all && whole.is_empty() => Followed::Hole(hole),
        _ => Followed::Entries(whole),
    }
}

enum Step {
    Fits,
    Hole(Hole),
    Misplaced,
}

struct Walk {
    at: Position,
    /// Changes up to there; at least so many where they could not be counted.
    changes: u64,
    amount: Option<u64>,
    is_counted: bool,
    /// Nothing was passed yet: what begins here may have been skipped up to it.
    is_start: bool,
}

impl Walk {
    /// `None` when the journal went back in time.
    fn start(chain: &Chain, position: Position, there: Option<Mark>, first: Option<&Entry>) -> Option<Self> {
        let (trimmed, trimmed_changes) = chain.trimmed;
        let walk = |Mark { position: at, changes, amount }: Mark| Self {
            at,
            changes: changes.unwrap_or(trimmed_changes),
            amount: if changes.is_some() { amount } else { chain.trimmed_amount },
            is_counted: changes.is_some(),
            is_start: true,
        };
        if position <= trimmed {
            let changes = Some(trimmed_changes);
            return Some(walk(Mark { position: trimmed, changes, amount: chain.trimmed_amount }));
        }
        if let Some(there) = there {
            return Some(walk(there));
        }
        // The entry has gone. SQL has it, so it is no loss, if those after it know of it.
        let is_known = first
            .map_or(position <= chain.last, |first| first.link.previous.is_some_and(|previous| previous >= position));
        is_known.then(|| walk(position.into()))
    }

    fn step(&mut self, entry: &Entry) -> Step {
        let Link { previous, before, amount } = entry.link;
        let hole = |last: Position, before: u64| Hole {
            after: self.at,
            last,
            next: Some(entry.position),
            changes: before.saturating_sub(self.changes),
            amount: amount.zip(self.amount).map(|(before, seen)| before.saturating_sub(seen)),
            is_exact: self.is_counted,
            total: Some(before),
            total_amount: amount,
        };
        match (previous, before) {
            (Some(previous), before) if previous > self.at => {
                return Step::Hole(hole(previous, before.unwrap_or(self.changes)));
            }
            (Some(previous), _) if previous < self.at && !self.is_start => return Step::Misplaced,
            (_, Some(before)) if self.is_counted && before > self.changes => {
                return Step::Hole(hole(previous.unwrap_or(entry.position.saturating_sub(1)), before));
            }
            (_, Some(before)) if self.is_counted && before < self.changes => return Step::Misplaced,
            _ => {}
        }
        self.is_counted |= before.is_some();
        self.amount = Mark::from(entry).amount;
        self.changes = before.unwrap_or(self.changes) + entry.changes.len() as u64;
        (self.at, self.is_start) = (entry.position, false);
        Step::Fits
    }

    fn end(&self, chain: &Chain) -> Option<Hole> {
        let is_lost = self.at < chain.last || self.is_counted && self.changes < chain.changes;
        is_lost.then(|| Hole {
            after: self.at,
            last: chain.last.max(self.at),
            next: None,
            changes: chain.changes.saturating_sub(self.changes),
            amount: self.amount.map(|seen| chain.amount.saturating_sub(seen)),
            is_exact: self.is_counted,
            total: Some(chain.changes),
            total_amount: Some(chain.amount),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Change, CountChange, Digest, Id};

    /// Which format entries have.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Form {
        Chained,
        Counted,
        Plain,
    }

    /// Entries at 10, 20, …, each with one change more than the one before.
    fn journal(forms: &[Form]) -> Vec<Entry> {
        let (mut before, mut amount) = (0, 0);
        let entry = |(index, form): (usize, &Form)| {
            let change = Change::Count(CountChange { target: Id::Int(1), actor: None, by: 5 });
            let position = (index as Position + 1) * 10;
            let link = match form {
                Form::Chained => Link::after(position - 10, before, amount),
                Form::Counted => Link { before: Some(before), ..Link::default() },
                Form::Plain => Link::default(),
            };
            before += index as u64 + 1;
            if *form == Form::Chained {
                amount += (index as u64 + 1) * 5;
            }
            Entry { position, digest: Digest([1; 32]), at_ms: 1, link, changes: vec![change; index + 1] }
        };
        forms.iter().enumerate().map(entry).collect()
    }

    fn chain(entries: &[Entry]) -> Chain {
        let changes = entries.iter().map(|entry| entry.changes.len() as u64).sum();
        let linked = entries.iter().filter(|entry| entry.link.amount.is_some());
        let amount = linked.map(|entry| entry.changes.len() as u64 * 5).sum();
        let trimmed_amount = entries[0].link.amount;
        Chain { trimmed: (0, 0), trimmed_amount, last: entries.last().unwrap().position, changes, amount }
    }

    fn read(chain: &Chain, position: Position, entries: &[Entry]) -> Followed {
        let there = entries.iter().find(|entry| entry.position == position).map(Mark::from);
        let after = entries.iter().filter(|entry| entry.position > position).cloned().collect();
        follow(chain, Found { position, there, entries: after, is_all: true })
    }

    /// Reads and skips holes to the end: the changes that were read, and those that were said to be lost.
    fn read_all(mut chain: Chain, linked: bool, entries: &[Entry]) -> (u64, u64) {
        let (mut seen, mut lost) = (0, 0);
        loop {
            let (at, base) = chain.trimmed;
            match read(&chain, at, entries) {
                Followed::Entries(some) => {
                    let Some(newest) = some.last() else { return (seen, lost) };
                    let count: u64 = some.iter().map(|entry| entry.changes.len() as u64).sum();
                    seen += count;
                    chain.trimmed = (newest.position, Mark::from(newest).changes.unwrap_or(base + count));
                    chain.trimmed_amount = Mark::from(newest).amount;
                }
                Followed::Hole(hole) => {
                    assert!(hole.is_exact, "{hole:?}");
                    assert!(hole.amount.is_none_or(|amount| amount == hole.changes * 5), "{hole:?}");
                    assert!(
                        hole.amount.is_some() || entries.iter().any(|entry| entry.link.amount.is_none()) || !linked
                    );
                    lost += hole.changes;
                    chain.trimmed = (hole.end(), base + hole.changes);
                    chain.trimmed_amount = chain.trimmed_amount.zip(hole.amount).map(|(before, lost)| before + lost);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn every_hole_is_found_and_counted() {
        use Form::{Chained, Counted, Plain};
        for forms in [[Chained; 6], [Counted; 6], [Plain, Plain, Plain, Chained, Chained, Chained], [Plain; 6]] {
            let all = journal(&forms);
            for mask in 0_u32..64 {
                let left: Vec<Entry> = all
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| mask >> at & 1 == 0)
                    .map(|(_, entry)| entry.clone())
                    .collect();
                let (seen, lost) = read_all(chain(&all), forms[0] == Chained, &left);
                assert_eq!(
                    (seen, seen + lost),
                    (left.iter().map(|e| e.changes.len() as u64).sum(), 21),
                    "{forms:?} {mask:b}"
                );
            }
        }
    }

    #[test]
    fn a_hole_says_where_it_is() {
        let all = journal(&[Form::Chained; 5]);
        let without = |gone: &[Position]| -> Vec<Entry> {
            all.iter().filter(|entry| !gone.contains(&entry.position)).cloned().collect()
        };
        let hole = |after, last, next, changes, total: u64| {
            let (amount, total_amount) = (Some(changes * 5), Some(total * 5));
            Followed::Hole(Hole {
                after,
                last,
                next,
                changes,
                amount,
                is_exact: true,
                total: Some(total),
                total_amount,
            })
        };
        let chain = chain(&all);
        assert_eq!(read(&chain, 0, &without(&[10, 20])), hole(0, 20, Some(30), 3, 3));
        assert_eq!(read(&chain, 20, &without(&[30])), hole(20, 30, Some(40), 3, 6));
        assert_eq!(read(&chain, 30, &without(&[40, 50])), hole(30, 50, None, 9, 15));
        assert_eq!(read(&chain, 0, &[]), hole(0, 50, None, 15, 15));
        assert_eq!(
            read(&chain, 0, &without(&[30])),
            Followed::Entries(all[..2].to_vec()),
            "what comes before it first"
        );
        // The entry of the checkpoint has gone, too: how much of the rest SQL has is unknown.
        let Followed::Hole(found) = read(&chain, 20, &without(&[20, 30])) else { panic!("a hole") };
        assert_eq!((found.after, found.last, found.changes, found.is_exact), (20, 30, 6, false));
        assert_eq!(read(&chain, 20, &without(&[20])), Followed::Entries(all[2..].to_vec()), "only what SQL has");
        assert_eq!(read(&chain, 50, &without(&[50])), Followed::Entries(vec![]));
    }

    #[test]
    fn a_journal_that_went_back_in_time_is_no_hole() {
        let all = journal(&[Form::Chained; 3]);
        assert_eq!(read(&chain(&all), 40, &all), Followed::Rewound, "SQL is ahead of it");
        assert_eq!(read(&chain(&all), 25, &all), Followed::Rewound, "it went on without what SQL has");
        let old = journal(&[Form::Counted; 3]);
        assert_eq!(read(&chain(&old), 25, &old), Followed::Rewound);
        // After the hole was left behind, what follows may name an entry before that place.
        let chain = Chain { trimmed: (25, 3), ..chain(&all) };
        assert_eq!(read(&chain, 0, &all[2..]), Followed::Entries(all[2..].to_vec()));
    }

    #[test]
    fn what_is_not_of_the_chain_is_never_passed_over() {
        let all = journal(&[Form::Chained; 3]);
        let mut swapped = all.clone();
        swapped[1].link = Link::after(5, 1, 5);
        assert_eq!(read(&chain(&all), 0, &swapped), Followed::Entries(all[..1].to_vec()));
        assert_eq!(read(&chain(&all), 10, &swapped[1..]), Followed::Rewound);
        let at_start = Chain { trimmed: (15, 2), ..chain(&all) };
        assert_eq!(read(&at_start, 0, &all[1..]), Followed::Misplaced(20));
    }
}
