//! Loads the state of targets from SQL, and at the start from the journal's tail.
//!
//! Reads that may fail (the disk) come before any change.

use fjall::Readable;

use super::change::Terms;
use super::files::batch_header::BatchHeader;
use super::layout::{HeadRecord, Space, Spaces, damaged, decoded, failed, journal_key, place_of, position_of};
use super::pending::Waiting;
use super::state::State;
use super::target::{Mode, Pair, Target};
use super::transaction::Transaction;
use crate::{Hydrated, Hydration, LoadedState, PairLoad, StoreError, TargetLoad};
use weir_core::journal::entry;
use weir_core::model::{Aside, Change, Id, Incarnation, Partition, Position};

/// Most changes of one journal's tail that are read at a start; a longer tail must reach SQL before its targets can be loaded.
const TAIL_CHANGES_MAX: u64 = 100_000;

/// A hydration with its tables built: the slow part happens before the writer's turn.
pub(super) struct Prepared {
    partition: Partition,
    incarnation: Incarnation,
    position: Position,
    aside: Option<Aside>,
    now_ms: u64,
    targets: Vec<(Id, Target)>,
    pairs: Vec<PairLoad>,
}

impl Prepared {
    pub(super) fn new(hydration: Hydration, terms: &Terms) -> Self {
        let Hydration { partition, incarnation, position, aside, targets, pairs, now_ms } = hydration;
        let prepare = |load: TargetLoad| {
            let is_missing = load.state == LoadedState::Missing;
            let ttl_ms = if is_missing { terms.absent_ttl_ms } else { terms.state_ttl_ms };
            (load.target, Target::new(&load.state, now_ms.saturating_add(ttl_ms)))
        };
        Self {
            partition,
            incarnation,
            position,
            aside,
            now_ms,
            targets: targets.into_iter().map(prepare).collect(),
            pairs,
        }
    }
}

/// See [`crate::State::hydrate`].
pub(super) fn hydrate(
    transaction: &mut Transaction<'_>,
    state: &mut State,
    kind: &str,
    hydration: Prepared,
) -> Result<Hydrated, StoreError> {
    let Prepared { partition, incarnation, position, aside, now_ms, targets, pairs } = hydration;
    let mut head = transaction.head_or_fresh(kind, partition)?;
    let speaks = incarnation == head.incarnation && position >= head.flushed.max(head.floor);
    let place = (state.kind(kind), partition);
    let Some(known) = state.known(place.0, partition).filter(|_| speaks) else {
        return Ok(Hydrated::Stale(head.public(partition, state.waiting(kind, partition))));
    };
    // SQL does not have a change that waits for a lock, even if the flusher has read it; every other change is stored beyond the
    // checkpoint.
    let fits = |id: &Id, target: &Target| match &aside {
        Some(aside) if aside.holds(id) => target.mode != Mode::Huge || known.fits(id, target, position),
        Some(aside) => known.fits(id, target, aside.ahead),
        None => known.fits(id, target, position),
    };
    if targets.iter().any(|(id, target)| !fits(id, target)) {
        // SQL must have it first. While a change waits for a lock, the checkpoint does not tell when SQL has it.
        if aside.is_none() {
            head.floor = head.last;
            transaction.put_head(kind, partition, &head);
        }
        return Ok(Hydrated::Stale(head.public(partition, state.waiting(kind, partition))));
    }
    for (id, target) in targets {
        // Skip increments that SQL already holds.
        let ahead = aside.as_ref().filter(|aside| !aside.holds(&id)).map_or(position, |aside| aside.ahead);
        hydrate_target(state, place, (id, target), (ahead, head.flushed), now_ms);
    }
    for load in pairs {
        state.with(place, &load.target, |target| {
            if target.mode == Mode::Huge && target.is_known(now_ms) && target.pair(&load.actor) == Pair::Unknown {
                target.set(&load.actor, load.present_since_ms.map_or(Pair::Absent, Pair::Present));
            }
        });
    }
    Ok(Hydrated::Accepted)
}

fn hydrate_target(
    state: &mut State,
    place: (usize, Partition),
    (id, mut target): (Id, Target),
    (position, flushed): (Position, Position),
    now_ms: u64,
) {
    let Some(known) = state.known(place.0, place.1) else { return };
    let stays = known.targets.get(&id).is_some_and(|before| before.stays(&target, now_ms));
    if stays || known.pending.get(&id).is_some() {
        return;
    }
    // A missing target may return before its waiting changes are gone.
    if target.mode != Mode::Missing
        && let Some(tail) = known.tails.remove(&id)
    {
        tail.over(&mut target, position, flushed);
    }
    state.insert(place, &id, target);
}

/// Reads the rest of an earlier process's journals: the store lays those changes over the rows of SQL, so they need not reach SQL
/// first. Writes the heads of journals whose tail is too long. Finds waiting documents, however many.
pub(super) fn read_tails(spaces: &Spaces, state: &mut State) -> Result<(), StoreError> {
    let mut transaction = Transaction::new(spaces);
    let (_, snapshot) = transaction.committed();
    for guard in snapshot.iter(spaces.of(Space::Heads)) {
        let (key, value) = guard.into_inner().map_err(failed)?;
        if *key == *BatchHeader::KEY {
            continue;
        }
        let mut head = HeadRecord::decode(&value).ok_or_else(|| damaged("a head"))?;
        let (kind, partition) = place_of(&key)?;
        let (place, is_long, mut is_skipped) = (state.kind(kind), head.entries > TAIL_CHANGES_MAX, false);
        let begin = journal_key(kind, partition, head.flushed.saturating_add(1));
        let end = journal_key(kind, partition, Position::MAX);
        for guard in snapshot.range(spaces.of(Space::Journal), begin..=end) {
            let (key, value) = guard.into_inner().map_err(failed)?;
            if entry::is_of_documents(&value) {
                read_documents(state, (place, partition), position_of(&key).unwrap_or(0), &value)?;
            } else if is_long {
                is_skipped = true;
            } else if let Some(known) = state.known(place, partition) {
                known.add_tail(decoded(&key, &value)?);
            }
        }
        if is_skipped {
            head.floor = head.last;
            transaction.put_head(kind, partition, &head);
        }
    }
    transaction.end_job(true);
    if transaction.is_empty() { Ok(()) } else { transaction.commit(true).map_err(failed) }
}

/// The journal does not say whether an id was freshly made: after the flush, ids that are used again are looked up in SQL.
fn read_documents(
    state: &mut State,
    place: (usize, Partition),
    position: Position,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let changes = entry::decode_places(bytes).map_err(|error| StoreError::Damaged(error.to_string()))?;
    for (place_in_entry, change) in changes {
        let Change::Document(document) = change else { return Err(damaged("the journal")) };
        let waiting =
            Waiting { position, place: place_in_entry, actor: document.actor, is_asked_again: false, group: 0 };
        state.with_pending(place, |pending| pending.insert(document.id, waiting));
    }
    Ok(())
}
