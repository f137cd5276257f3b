//! The role of policy modules: see [`ModuleKeys`].

use async_trait::async_trait;

use super::super::{EmbeddedStore, guest};
use crate::{Counted, ModuleKeys, StoreError};
use weir_core::model::{KeyEntry, KeyIncrement};

#[async_trait]
impl ModuleKeys for EmbeddedStore {
    async fn guest_get(&self, module: &str, now_ms: u64, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| guest::key(module, key)).collect();
        self.snapshot(move |reader| keys.iter().map(|key| guest::get(&reader.view(), key, now_ms)).collect()).await
    }

    async fn guest_set(&self, module: &str, now_ms: u64, entries: Vec<KeyEntry>) -> Result<(), StoreError> {
        self.saw(now_ms);
        let module = module.to_owned();
        self.write(move |transaction, _, _| guest::set(transaction, &module, now_ms, &entries)).await
    }

    async fn guest_increment(
        &self,
        module: &str,
        now_ms: u64,
        increments: Vec<KeyIncrement>,
    ) -> Result<Counted, StoreError> {
        self.saw(now_ms);
        let module = module.to_owned();
        self.write(move |transaction, _, _| guest::increment(transaction, &module, now_ms, &increments)).await
    }
}
