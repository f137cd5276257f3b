//! Members that the store does not know, from the kind's table.

use std::sync::Arc;

use crate::capability::{Hydrations, KindContext, Load, put_targets};
use weir_core::config::PreferenceConfig;
use weir_core::error::Refusal;
use weir_core::model::{Id, Partition, Settings};
use weir_store::{LoadedState, TargetLoad};

/// Reads settings from the kind's table.
pub struct SettingsLoad {
    pub(super) context: Arc<KindContext>,
    pub(super) config: Arc<PreferenceConfig>,
}

impl Load for SettingsLoad {
    type Miss = Id;

    /// Settings take little memory.
    const ITEMS_MAX: usize = 1_000;

    fn partition(&self, miss: &Id) -> Partition {
        self.context.partition(miss)
    }

    async fn load(&self, misses: &[&Id], hydrations: &mut Hydrations) -> Result<(), Refusal> {
        let context = &*self.context;
        let members: Vec<Id> = misses.iter().map(|member| (*member).clone()).collect();
        let found = context.parts.sql.load_settings(&self.config.table, &members).await;
        let found = found.map_err(|error| context.sql_refusal(&error))?;
        let load = |(target, settings): (Id, Option<Settings>)| TargetLoad {
            target,
            state: settings.map_or(LoadedState::Missing, LoadedState::Settings),
        };
        let loads = members.into_iter().zip(found).map(load);
        put_targets(context, "member", loads, |target| context.partition(target), hydrations);
        Ok(())
    }
}
