//! Hydration: what the store does not know is read from SQL, in bulk, and handed to the store under the law of
//! hydration (see `store`): the checkpoint row is read *before* the data.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::KindContext;
use weir_core::batcher::Batcher;
use weir_core::config::BatchConfig;
use weir_core::error::Refusal;
use weir_core::model::{Aside, Checkpoint, Id, Partition};
use weir_sql::{Sql, Standing};
use weir_store::{Head, Hydrated, Hydration, TargetLoad};

/// Items in one load: with `huge_rows_min` of a toggle it bounds the memory that a load takes.
const LOAD_ITEMS_MAX: usize = 64;
/// Loads in flight at least: SQL takes its time.
const LOADS_MIN: usize = 2;
/// Pause before a load that came too early or too late for the store is repeated, in milliseconds.
const STALE_PAUSE_MS: u64 = 10;

/// How a capability reads what the store does not know.
pub trait Load: Send + Sync + 'static {
    /// Something that the store does not know.
    type Miss: Clone + Ord + Send + Sync + 'static;

    /// Items of one load at most.
    const ITEMS_MAX: usize = LOAD_ITEMS_MAX;
    /// What is read must be of exactly the checkpoint that was read before it: a commit in between would count twice where
    /// the journal's tail is added to it.
    const NEEDS_STILL_CHECKPOINT: bool = false;

    /// The partition that it belongs to.
    fn partition(&self, miss: &Self::Miss) -> Partition;

    /// Reads `misses`, each once, from SQL, and puts what it found into the hydrations of their partitions.
    fn load(
        &self,
        misses: &[&Self::Miss],
        hydrations: &mut Hydrations,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// The loads of one batch, by partition: each names the checkpoint that was read before it.
pub type Hydrations = BTreeMap<Partition, Hydration>;

/// Puts what SQL said of targets into the hydrations of their partitions, and counts it as `what`.
pub fn put_targets(
    context: &KindContext,
    what: &'static str,
    loads: impl ExactSizeIterator<Item = TargetLoad>,
    partition_of: impl Fn(&Id) -> Partition,
    hydrations: &mut Hydrations,
) {
    context.count_hydrated(what, loads.len());
    for load in loads {
        if let Some(hydration) = hydrations.get_mut(&partition_of(&load.target)) {
            hydration.targets.push(load);
        }
    }
}

/// Whether the store took what was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Taken,
    Stale,
}

/// Gathers what concurrent requests miss into bulk loads.
pub struct Hydrator<L: Load> {
    sql: Arc<dyn Sql>,
    loads: Batcher<L::Miss, Result<Loaded, Refusal>>,
}

impl<L: Load> Hydrator<L> {
    /// Starts on the current runtime.
    pub fn start(context: Arc<KindContext>, load: Arc<L>) -> Self {
        let batch = &context.parts.batch;
        let (items_max, in_flight_max) = (batch.items_max.min(L::ITEMS_MAX), batch.in_flight_max.max(LOADS_MIN));
        let config = BatchConfig { items_max, in_flight_max, ..batch.clone() };
        let (kind, sql) = (context.parts.kind.clone(), Arc::clone(&context.parts.sql));
        let loads = Batcher::start(&config, "hydration", &kind, move |misses: Vec<L::Miss>| {
            let (context, load) = (Arc::clone(&context), Arc::clone(&load));
            async move {
                let outcome = |taken: &BTreeSet<Partition>, miss: &L::Miss| {
                    if taken.contains(&load.partition(miss)) { Loaded::Taken } else { Loaded::Stale }
                };
                match hydrate_in_steps(&context, &*load, &misses).await {
                    Ok(Taken { partitions, refused }) => misses
                        .iter()
                        .map(|miss| match refused.get(&load.partition(miss)) {
                            Some(refusal) => Err(refusal.clone()),
                            None => Ok(outcome(&partitions, miss)),
                        })
                        .collect(),
                    Err(refusal) => vec![Err(refusal); misses.len()],
                }
            }
        });
        Self { sql, loads }
    }

    /// Loads `misses` into the store. Returns when the store has taken them, so that the caller asks it again.
    ///
    /// # Errors
    /// [`Refusal::SqlUnavailable`] when SQL does not answer, or when the store's journal is so far ahead of SQL that
    /// its state cannot be read from there before `deadline`.
    pub async fn fetch(&self, misses: Vec<L::Miss>, deadline: Instant) -> Result<(), Refusal> {
        let mut waiting = misses;
        loop {
            if Instant::now() >= deadline {
                return Err(Refusal::SqlUnavailable);
            }
            let loads = waiting.iter().map(|miss| self.loads.submit(miss.clone()));
            let results = futures_util::future::join_all(loads).await;
            let mut stale = Vec::new();
            for (miss, result) in waiting.into_iter().zip(results) {
                if result?? == Loaded::Stale {
                    stale.push(miss);
                }
            }
            if stale.is_empty() {
                return Ok(());
            }
            give_up_without_sql(&*self.sql)?;
            waiting = stale;
            tokio::time::sleep(Duration::from_millis(STALE_PAUSE_MS)).await;
        }
    }
}

/// As [`Hydrator::fetch`], for a caller that has a batch by itself and bounds how many are under way. Answers the partitions
/// whose part of the store refused, where it is several servers.
///
/// # Errors
/// See [`Hydrator::fetch`].
pub async fn hydrate_all<L: Load>(
    context: &KindContext,
    load: &L,
    misses: Vec<L::Miss>,
    deadline: Instant,
) -> Result<BTreeMap<Partition, Refusal>, Refusal> {
    let (mut waiting, mut refused) = (misses, BTreeMap::new());
    loop {
        let taken = hydrate_in_steps(context, load, &waiting).await?;
        refused.extend(taken.refused);
        waiting.retain(|miss| {
            let partition = load.partition(miss);
            !taken.partitions.contains(&partition) && !refused.contains_key(&partition)
        });
        if waiting.is_empty() {
            return Ok(refused);
        }
        if Instant::now() >= deadline {
            return Err(Refusal::SqlUnavailable);
        }
        give_up_without_sql(&*context.parts.sql)?;
        tokio::time::sleep(Duration::from_millis(STALE_PAUSE_MS)).await;
    }
}

/// What is stale waits for a flush, which waits for SQL: while SQL is known to be unavailable, no request waits for
/// either.
fn give_up_without_sql(sql: &dyn Sql) -> Result<(), Refusal> {
    if sql.standing() == Standing::Serves { Ok(()) } else { Err(Refusal::SqlUnavailable) }
}

/// What became of the partitions of one batch.
#[derive(Default)]
struct Taken {
    /// The store took what was loaded.
    partitions: BTreeSet<Partition>,
    /// It did not answer.
    refused: BTreeMap<Partition, Refusal>,
}

/// Loads everything of one batch. Where the store is several servers and one of them fails, what concerns the others is
/// loaded all the same.
async fn hydrate_in_steps<L: Load>(context: &KindContext, load: &L, misses: &[L::Miss]) -> Result<Taken, Refusal> {
    let refusal = match hydrate(context, load, misses).await {
        Ok(partitions) => return Ok(Taken { partitions, ..Taken::default() }),
        Err(refusal) => refusal,
    };
    let mut steps: BTreeMap<Partition, Vec<L::Miss>> = BTreeMap::new();
    for miss in misses {
        let step = context.parts.store.step_of(load.partition(miss));
        steps.entry(step).or_default().push(miss.clone());
    }
    if !matches!(refusal, Refusal::StoreUnavailable) || steps.len() < 2 {
        return Err(refusal);
    }
    let each = steps.values().map(|misses| async move { (misses, hydrate(context, load, misses).await) });
    let mut taken = Taken::default();
    for (misses, result) in futures_util::future::join_all(each).await {
        match result {
            Ok(partitions) => taken.partitions.extend(partitions),
            Err(refusal) => {
                taken.refused.extend(misses.iter().map(|miss| (load.partition(miss), refusal.clone())));
            }
        }
    }
    Ok(taken)
}

/// Loads everything of one batch; the partitions for which the store took it.
async fn hydrate<L: Load>(context: &KindContext, load: &L, misses: &[L::Miss]) -> Result<BTreeSet<Partition>, Refusal> {
    let parts = &context.parts;
    let mut by_partition: BTreeMap<Partition, BTreeSet<&L::Miss>> = BTreeMap::new();
    for miss in misses {
        by_partition.entry(load.partition(miss)).or_default().insert(miss);
    }
    let partitions: Vec<Partition> = by_partition.keys().copied().collect();
    let checkpoints = speaking_checkpoints(context, &partitions).await?;
    by_partition.retain(|partition, _| checkpoints.contains_key(partition));
    if by_partition.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut hydrations = empty_hydrations(&checkpoints, parts.clock.steady_ms());
    let misses: Vec<&L::Miss> = by_partition.into_values().flatten().collect();
    let asides = asides_of::<L>(context).await?;
    for hydration in hydrations.values_mut() {
        let checkpoint = checkpoints.get(&hydration.partition);
        let aside = asides.iter().find(|aside| checkpoint.is_some_and(|checkpoint| aside.is_of(checkpoint)));
        hydration.aside = aside.cloned();
    }
    load.load(&misses, &mut hydrations).await?;
    if L::NEEDS_STILL_CHECKPOINT {
        let now = asides_of::<L>(context).await?;
        hydrations.retain(|partition, _| {
            let of = |asides: &[Aside]| asides.iter().find(|aside| aside.partition == *partition).cloned();
            of(&asides) == of(&now)
        });
        let partitions: Vec<Partition> = hydrations.keys().copied().collect();
        let now = parts.sql.checkpoints(&parts.kind, &partitions).await.map_err(|error| context.sql_refusal(&error))?;
        for row in now.into_iter().flatten() {
            if checkpoints.get(&row.partition) != Some(&row) {
                hydrations.remove(&row.partition);
            }
        }
    }
    context.sql_served();
    let partitions: Vec<Partition> = hydrations.keys().copied().collect();
    let taken = parts.store.hydrate(&parts.kind, hydrations.into_values().collect()).await;
    let taken = taken.map_err(|error| context.store_refusal(&error))?;
    Ok(partitions
        .into_iter()
        .zip(taken)
        .filter(|(_, taken)| *taken == Hydrated::Accepted)
        .map(|(partition, _)| partition)
        .collect())
}

/// What was set aside, where that matters: where the tail of the journal is added to a count, SQL may hold some of it already.
async fn asides_of<L: Load>(context: &KindContext) -> Result<Vec<Aside>, Refusal> {
    let parts = &context.parts;
    if !(L::NEEDS_STILL_CHECKPOINT && parts.store.lays_tails()) {
        return Ok(Vec::new());
    }
    parts.sql.asides(&parts.kind).await.map_err(|error| context.sql_refusal(&error))
}

fn empty_hydrations(checkpoints: &BTreeMap<Partition, Checkpoint>, now_ms: u64) -> Hydrations {
    let empty = |checkpoint: &Checkpoint| Hydration {
        partition: checkpoint.partition,
        incarnation: checkpoint.incarnation,
        position: checkpoint.position,
        aside: None,
        targets: Vec::new(),
        pairs: Vec::new(),
        now_ms,
    };
    checkpoints.iter().map(|(partition, checkpoint)| (*partition, empty(checkpoint))).collect()
}

/// The checkpoints of those partitions for which SQL speaks now: same incarnation as the journal, and as far as the
/// store's state needs. A journal that SQL has not met yet is claimed (which fences any host that still flushes an
/// earlier life); one that is older than what SQL has seen is reset.
async fn speaking_checkpoints(
    context: &KindContext,
    partitions: &[Partition],
) -> Result<BTreeMap<Partition, Checkpoint>, Refusal> {
    let parts = &context.parts;
    let kind = parts.kind.as_str();
    let heads = parts.store.heads(kind, partitions).await.map_err(|error| context.store_refusal(&error))?;
    let rows = parts.sql.checkpoints(kind, partitions).await.map_err(|error| context.sql_refusal(&error))?;
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
                let followed = parts.store.follow(kind, &head, &row, None).await;
                followed.map_err(|error| context.store_refusal(&error))?;
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
                    reset.map_err(|error| context.store_refusal(&error))?;
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
        let rows = parts.sql.claim(kind, &claims, false).await.map_err(|error| context.sql_refusal(&error))?;
        for (head, row) in unclaimed.into_iter().zip(rows) {
            if row.incarnation == head.incarnation && row.position >= head.flushed.max(head.floor) {
                speaking.insert(row.partition, row);
            }
        }
    }
    Ok(speaking)
}
