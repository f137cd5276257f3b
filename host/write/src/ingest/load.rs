//! Whether ids from outside are taken, asked of SQL.

use std::sync::Arc;

use super::LOAD_IDS_MAX;
use crate::capability::{Hydrations, KindContext, Load, put_targets};
use weir_core::config::IngestConfig;
use weir_core::error::Refusal;
use weir_core::model::{Id, Partition};
use weir_sql::StoredDocument;
use weir_store::{LoadedState, TargetLoad};

/// Reads ids from the kind's table.
pub struct IdLoad {
    pub(super) context: Arc<KindContext>,
    pub(super) config: Arc<IngestConfig>,
}

impl Load for IdLoad {
    type Miss = Id;

    const ITEMS_MAX: usize = LOAD_IDS_MAX;

    fn partition(&self, miss: &Id) -> Partition {
        self.config.partition(miss, self.context.parts.store.partitions())
    }

    async fn load(&self, misses: &[&Id], hydrations: &mut Hydrations) -> Result<(), Refusal> {
        let context = &*self.context;
        let ids: Vec<Id> = misses.iter().map(|id| (*id).clone()).collect();
        let found = context.parts.sql.load_documents(&self.config.table, &ids).await;
        let found = found.map_err(|error| context.sql_refusal(&error))?;
        let load = |(target, document): (Id, Option<StoredDocument>)| TargetLoad {
            target,
            state: if document.is_some() { LoadedState::Exists } else { LoadedState::Missing },
        };
        let loads = ids.into_iter().zip(found).map(load);
        put_targets(context, "document", loads, |id| self.partition(id), hydrations);
        Ok(())
    }
}
