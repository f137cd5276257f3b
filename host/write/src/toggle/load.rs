//! What the store does not know of targets and pairs, read from SQL.

use std::sync::Arc;

use crate::capability::{Hydrations, KindContext, Load};
use weir_core::config::ToggleTable;
use weir_core::error::Refusal;
use weir_core::model::{Id, Partition};
use weir_sql::TargetState;
use weir_store::{LoadedState, PairLoad, TargetLoad};

/// Something that the store does not know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ToggleMiss {
    /// A target.
    Target(Id),
    /// An actor on a huge target.
    Pair(Id, Id),
}

/// Reads from the kind's tables.
pub struct ToggleLoad {
    pub(super) context: Arc<KindContext>,
    pub(super) table: ToggleTable,
}

impl Load for ToggleLoad {
    type Miss = ToggleMiss;

    fn partition(&self, miss: &ToggleMiss) -> Partition {
        let (ToggleMiss::Target(target) | ToggleMiss::Pair(target, _)) = miss;
        self.context.partition(target)
    }

    async fn load(&self, misses: &[&ToggleMiss], hydrations: &mut Hydrations) -> Result<(), Refusal> {
        let (mut targets, mut pairs) = (Vec::new(), Vec::new());
        for miss in misses {
            match miss {
                ToggleMiss::Target(target) => targets.push(target.clone()),
                ToggleMiss::Pair(target, actor) => pairs.push((target.clone(), actor.clone())),
            }
        }
        let (sql, table) = (&self.context.parts.sql, &self.table);
        let (targets, pairs) = tokio::try_join!(
            async {
                if targets.is_empty() {
                    return Ok(Vec::new());
                }
                sql.load_targets(table, &targets, table.huge_rows_min).await
            },
            async {
                if pairs.is_empty() {
                    return Ok(Vec::new());
                }
                let since = sql.load_pairs(table, &pairs).await?;
                Ok(pairs.into_iter().zip(since).collect::<Vec<_>>())
            },
        )
        .map_err(|error| self.context.sql_refusal(&error))?;
        self.context.count_hydrated("target", targets.len());
        self.context.count_hydrated("pair", pairs.len());
        for row in targets {
            let state = match row.state {
                TargetState::Missing => LoadedState::Missing,
                TargetState::Whole(members) => LoadedState::Whole(members),
                TargetState::Huge(count) => LoadedState::Huge(count),
            };
            if let Some(hydration) = hydrations.get_mut(&self.context.partition(&row.target)) {
                hydration.targets.push(TargetLoad { target: row.target, state });
            }
        }
        for ((target, actor), present_since_ms) in pairs {
            if let Some(hydration) = hydrations.get_mut(&self.context.partition(&target)) {
                hydration.pairs.push(PairLoad { target, actor, present_since_ms });
            }
        }
        Ok(())
    }
}
