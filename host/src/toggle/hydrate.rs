//! Hydration: what the store does not know is read from SQL, in bulk, and handed to the store under the law of
//! hydration (see `store`): the checkpoint row is read *before* the data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;

use super::Shared;
use crate::batcher::Batcher;
use crate::config::BatchConfig;
use crate::error::Refusal;
use crate::model::{Checkpoint, Id, Partition, partition_of};
use crate::sql::TargetState;
use crate::store::{Head, Hydrated, Hydration, LoadedState, PairLoad, TargetLoad};
use crate::telemetry;

/// Targets and pairs in one load: with `huge_rows_min` it bounds the memory that a load takes.
const LOAD_ITEMS_MAX: usize = 64;
/// Loads in flight at least: SQL takes its time.
const LOADS_MIN: usize = 2;
/// Pause before a load that came too early or too late for the store is repeated, in milliseconds.
const STALE_PAUSE_MS: u64 = 10;

/// Something that the store does not know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    Target(Id),
    Pair(Id, Id),
}

impl Want {
    fn target(&self) -> &Id {
        match self {
            Self::Target(target) | Self::Pair(target, _) => target,
        }
    }
}

/// Whether the store took what was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Taken,
    Stale,
}

/// Gathers concurrent wants into bulk loads.
pub(super) struct Hydrator {
    loads: Batcher<Want, Result<Loaded, Refusal>>,
}

impl Hydrator {
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let batch = &shared.parts.batch;
        let (items_max, in_flight_max) = (batch.items_max.min(LOAD_ITEMS_MAX), batch.in_flight_max.max(LOADS_MIN));
        let config = BatchConfig { items_max, in_flight_max, ..batch.clone() };
        let kind = shared.parts.config.kind.clone();
        let loads = Batcher::start(&config, "hydration", &kind, move |wants: Vec<Want>| {
            let shared = Arc::clone(&shared);
            async move {
                let loaded = load(&shared, &wants).await;
                match loaded {
                    Ok(loaded) => wants.iter().map(|want| Ok(shared.outcome(&loaded, want))).collect(),
                    Err(refusal) => vec![Err(refusal); wants.len()],
                }
            }
        });
        Self { loads }
    }

    /// Loads `wants` into the store. Returns when the store has taken them, so that the caller asks it again.
    ///
    /// # Errors
    /// [`Refusal::SqlUnavailable`] when SQL does not answer, or when the store's journal is so far ahead of SQL that
    /// its state cannot be read from there before `deadline`.
    pub(super) async fn fetch(&self, wants: Vec<Want>, deadline: Instant) -> Result<(), Refusal> {
        let mut waiting = wants;
        loop {
            if Instant::now() >= deadline {
                return Err(Refusal::SqlUnavailable);
            }
            let loads = waiting.iter().map(|want| self.loads.submit(want.clone()));
            let results = futures_util::future::join_all(loads).await;
            let mut stale = Vec::new();
            for (want, result) in waiting.into_iter().zip(results) {
                if result?? == Loaded::Stale {
                    stale.push(want);
                }
            }
            if stale.is_empty() {
                return Ok(());
            }
            waiting = stale;
            tokio::time::sleep(Duration::from_millis(STALE_PAUSE_MS)).await;
        }
    }
}

impl Shared {
    fn outcome(&self, taken: &BTreeSet<Partition>, want: &Want) -> Loaded {
        let partition = partition_of(want.target(), self.parts.store.partitions());
        if taken.contains(&partition) { Loaded::Taken } else { Loaded::Stale }
    }
}

/// Loads everything of one batch; the partitions for which the store took it.
async fn load(shared: &Shared, wants: &[Want]) -> Result<BTreeSet<Partition>, Refusal> {
    let parts = &shared.parts;
    let kind = parts.config.kind.as_str();
    let mut by_partition: BTreeMap<Partition, BTreeSet<&Want>> = BTreeMap::new();
    for want in wants {
        by_partition.entry(partition_of(want.target(), parts.store.partitions())).or_default().insert(want);
    }
    let partitions: Vec<Partition> = by_partition.keys().copied().collect();
    let checkpoints = speaking_checkpoints(shared, &partitions).await?;
    by_partition.retain(|partition, _| checkpoints.contains_key(partition));
    if by_partition.is_empty() {
        return Ok(BTreeSet::new());
    }

    let (mut targets, mut pairs) = (Vec::new(), Vec::new());
    for want in by_partition.values().flatten() {
        match want {
            Want::Target(target) => targets.push(target.clone()),
            Want::Pair(target, actor) => pairs.push((target.clone(), actor.clone())),
        }
    }
    let table = &parts.config.table;
    let (targets, pairs) = tokio::try_join!(
        async {
            if targets.is_empty() {
                return Ok(Vec::new());
            }
            parts.sql.load_targets(table, &targets, table.huge_rows_min).await
        },
        async {
            if pairs.is_empty() {
                return Ok(Vec::new());
            }
            let since = parts.sql.load_pairs(table, &pairs).await?;
            Ok(pairs.into_iter().zip(since).collect::<Vec<_>>())
        },
    )
    .map_err(|error| shared.sql_refusal(&error))?;
    shared.sql_served();
    counter!(telemetry::HYDRATED_TOTAL, "kind" => kind.to_owned(), "what" => "target").increment(targets.len() as u64);
    counter!(telemetry::HYDRATED_TOTAL, "kind" => kind.to_owned(), "what" => "pair").increment(pairs.len() as u64);

    let mut hydrations = empty_hydrations(&checkpoints, parts.clock.now_ms());
    for row in targets {
        let state = match row.state {
            TargetState::Missing => LoadedState::Missing,
            TargetState::Whole(members) => LoadedState::Whole(members),
            TargetState::Huge(count) => LoadedState::Huge(count),
        };
        if let Some(hydration) = hydrations.get_mut(&partition_of(&row.target, parts.store.partitions())) {
            hydration.targets.push(TargetLoad { target: row.target, state });
        }
    }
    for ((target, actor), present_since_ms) in pairs {
        if let Some(hydration) = hydrations.get_mut(&partition_of(&target, parts.store.partitions())) {
            hydration.pairs.push(PairLoad { target, actor, present_since_ms });
        }
    }
    let partitions: Vec<Partition> = hydrations.keys().copied().collect();
    let taken = parts.store.hydrate(kind, hydrations.into_values().collect()).await;
    let taken = taken.map_err(|error| shared.store_refusal(&error))?;
    Ok(partitions
        .into_iter()
        .zip(taken)
        .filter(|(_, taken)| *taken == Hydrated::Accepted)
        .map(|(partition, _)| partition)
        .collect())
}

fn empty_hydrations(checkpoints: &BTreeMap<Partition, Checkpoint>, now_ms: u64) -> BTreeMap<Partition, Hydration> {
    let empty = |checkpoint: &Checkpoint| Hydration {
        partition: checkpoint.partition,
        incarnation: checkpoint.incarnation,
        position: checkpoint.position,
        targets: Vec::new(),
        pairs: Vec::new(),
        now_ms,
    };
    checkpoints.iter().map(|(partition, checkpoint)| (*partition, empty(checkpoint))).collect()
}

/// The checkpoints of those partitions for which SQL speaks now: same incarnation as the journal, and as far as the
/// store's state needs. A journal that SQL has not met yet is claimed (which fences whoever still flushes an earlier
/// life); one that is older than what SQL has seen is reset.
async fn speaking_checkpoints(
    shared: &Shared,
    partitions: &[Partition],
) -> Result<BTreeMap<Partition, Checkpoint>, Refusal> {
    let parts = &shared.parts;
    let kind = parts.config.kind.as_str();
    let heads = parts.store.heads(kind, partitions).await.map_err(|error| shared.store_refusal(&error))?;
    let rows = parts.sql.checkpoints(kind, partitions).await.map_err(|error| shared.sql_refusal(&error))?;
    let mut speaking = BTreeMap::new();
    let mut unclaimed: Vec<Head> = Vec::new();
    for (head, row) in heads.into_iter().zip(rows) {
        match row {
            Some(row) if row.incarnation > head.incarnation => {
                tracing::warn!(
                    kind,
                    partition = head.partition,
                    "the journal is older than SQL's checkpoint: starting a new life"
                );
                let reset = parts.store.reset(kind, head.partition, row.incarnation).await;
                reset.map_err(|error| shared.store_refusal(&error))?;
            }
            Some(row) if row.incarnation == head.incarnation => {
                if row.position >= head.flushed.max(head.floor) {
                    speaking.insert(head.partition, row);
                } else if row.position < head.flushed {
                    // The head was read first, so SQL has gone back: a backup was restored, or it is another database.
                    tracing::error!(
                        kind,
                        partition = head.partition,
                        "SQL holds less than it had committed: a new life begins"
                    );
                    let reset = parts.store.reset(kind, head.partition, head.incarnation).await;
                    reset.map_err(|error| shared.store_refusal(&error))?;
                } else {
                    // What waits in the journal comes first; the policy may want to wait long with it.
                    parts.watch.want_flush();
                }
            }
            _ => unclaimed.push(head),
        }
    }
    if !unclaimed.is_empty() {
        let claims: Vec<_> = unclaimed.iter().map(|head| (head.partition, head.incarnation)).collect();
        let rows = parts.sql.claim(kind, &claims, false).await.map_err(|error| shared.sql_refusal(&error))?;
        for (head, row) in unclaimed.into_iter().zip(rows) {
            if row.incarnation == head.incarnation && row.position >= head.flushed.max(head.floor) {
                speaking.insert(row.partition, row);
            }
        }
    }
    Ok(speaking)
}
