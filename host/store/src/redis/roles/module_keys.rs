//! The role of policy modules: see [`ModuleKeys`].

use async_trait::async_trait;

use super::super::RedisStore;
use crate::{Counted, ModuleKeys, StoreError};
use weir_core::model::{KeyEntry, KeyIncrement};

#[async_trait]
impl ModuleKeys for RedisStore {
    async fn guest_get(&self, module: &str, _now_ms: u64, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.get_of_guest(module, keys).await
    }

    async fn guest_set(&self, module: &str, _now_ms: u64, entries: Vec<KeyEntry>) -> Result<(), StoreError> {
        self.set_of_guest(module, &entries).await
    }

    async fn guest_increment(
        &self,
        module: &str,
        _now_ms: u64,
        increments: Vec<KeyIncrement>,
    ) -> Result<Counted, StoreError> {
        self.increment_of_guest(module, &increments).await
    }
}
