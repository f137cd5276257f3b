//! Members that the store does not know, from the kind's table.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::counter;

use crate::capability::{Ground, Load};
use crate::config::PreferenceConfig;
use crate::error::Refusal;
use crate::model::{Id, Partition};
use crate::store::{Hydration, LoadedState, TargetLoad};
use crate::telemetry;

/// Reads settings from the kind's table.
pub(super) struct SettingsLoad {
    pub(super) ground: Arc<Ground>,
    pub(super) config: Arc<PreferenceConfig>,
}

impl Load for SettingsLoad {
    type Want = Id;

    /// Settings take little memory.
    const ITEMS_MAX: usize = 1_000;

    fn partition(&self, want: &Id) -> Partition {
        self.ground.partition(want)
    }

    async fn load(&self, wants: &[&Id], hydrations: &mut BTreeMap<Partition, Hydration>) -> Result<(), Refusal> {
        let members: Vec<Id> = wants.iter().map(|member| (*member).clone()).collect();
        let found = self.ground.parts.sql.load_settings(&self.config.table, &members).await;
        let found = found.map_err(|error| self.ground.sql_refusal(&error))?;
        let kind = self.ground.kind().to_owned();
        counter!(telemetry::HYDRATED_TOTAL, "kind" => kind, "what" => "member").increment(members.len() as u64);
        for (target, settings) in members.into_iter().zip(found) {
            let state = settings.map_or(LoadedState::Missing, LoadedState::Settings);
            if let Some(hydration) = hydrations.get_mut(&self.ground.partition(&target)) {
                hydration.targets.push(TargetLoad { target, state });
            }
        }
        Ok(())
    }
}
