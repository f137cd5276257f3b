//! Counts that the store does not know, read from SQL.

use std::sync::Arc;

use crate::capability::{Hydrations, KindContext, Load, put_targets};
use weir_core::config::CounterTable;
use weir_core::error::Refusal;
use weir_core::model::{Id, Partition};
use weir_store::{LoadedState, TargetLoad};

/// Reads counts from the kind's table.
pub struct CountLoad {
    pub(super) context: Arc<KindContext>,
    pub(super) table: CounterTable,
}

impl Load for CountLoad {
    type Miss = Id;

    /// A count takes next to no memory: a cold start of many counters is a few reads.
    const ITEMS_MAX: usize = 1_000;

    const NEEDS_STILL_CHECKPOINT: bool = true;

    fn partition(&self, miss: &Id) -> Partition {
        self.context.partition(miss)
    }

    async fn load(&self, misses: &[&Id], hydrations: &mut Hydrations) -> Result<(), Refusal> {
        let context = &*self.context;
        let targets: Vec<Id> = misses.iter().map(|target| (*target).clone()).collect();
        let counts = context.parts.sql.load_counts(&self.table, &targets).await;
        let counts = counts.map_err(|error| context.sql_refusal(&error))?;
        let load = |(target, count): (Id, Option<u64>)| TargetLoad {
            target,
            state: count.map_or(LoadedState::Missing, LoadedState::Count),
        };
        let loads = targets.into_iter().zip(counts).map(load);
        put_targets(context, "count", loads, |target| context.partition(target), hydrations);
        Ok(())
    }
}
