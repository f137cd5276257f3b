//! What the store does not know of targets and pairs, read from SQL.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::counter;

use crate::capability::{Ground, Load};
use crate::config::ToggleTable;
use crate::error::Refusal;
use crate::model::{Id, Partition};
use crate::sql::TargetState;
use crate::store::{Hydration, LoadedState, PairLoad, TargetLoad};
use crate::telemetry;

/// Something that the store does not know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    Target(Id),
    Pair(Id, Id),
}

/// Reads from the kind's tables.
pub(super) struct ToggleLoad {
    pub(super) ground: Arc<Ground>,
    pub(super) table: ToggleTable,
}

impl Load for ToggleLoad {
    type Want = Want;

    fn partition(&self, want: &Want) -> Partition {
        let (Want::Target(target) | Want::Pair(target, _)) = want;
        self.ground.partition(target)
    }

    async fn load(&self, wants: &[&Want], hydrations: &mut BTreeMap<Partition, Hydration>) -> Result<(), Refusal> {
        let (mut targets, mut pairs) = (Vec::new(), Vec::new());
        for want in wants {
            match want {
                Want::Target(target) => targets.push(target.clone()),
                Want::Pair(target, actor) => pairs.push((target.clone(), actor.clone())),
            }
        }
        let (sql, table) = (&self.ground.parts.sql, &self.table);
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
        .map_err(|error| self.ground.sql_refusal(&error))?;
        self.count("target", targets.len());
        self.count("pair", pairs.len());
        for row in targets {
            let state = match row.state {
                TargetState::Missing => LoadedState::Missing,
                TargetState::Whole(members) => LoadedState::Whole(members),
                TargetState::Huge(count) => LoadedState::Huge(count),
            };
            if let Some(hydration) = hydrations.get_mut(&self.ground.partition(&row.target)) {
                hydration.targets.push(TargetLoad { target: row.target, state });
            }
        }
        for ((target, actor), present_since_ms) in pairs {
            if let Some(hydration) = hydrations.get_mut(&self.ground.partition(&target)) {
                hydration.pairs.push(PairLoad { target, actor, present_since_ms });
            }
        }
        Ok(())
    }
}

impl ToggleLoad {
    fn count(&self, what: &'static str, items: usize) {
        let kind = self.ground.kind().to_owned();
        counter!(telemetry::HYDRATED_TOTAL, "kind" => kind, "what" => what).increment(items as u64);
    }
}
