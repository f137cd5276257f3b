//! The role of probes: see [`StoreHealth`].

use async_trait::async_trait;

use super::super::{EmbeddedStore, durability};
use crate::{Durability, Refusing, StoreError, StoreHealth};

#[async_trait]
impl StoreHealth for EmbeddedStore {
    async fn ping(&self) -> Result<(), StoreError> {
        self.write(|_, _, _| Ok(())).await
    }

    fn refusing(&self) -> Option<Refusing> {
        self.health.refusing()
    }

    fn durability(&self) -> Durability {
        durability()
    }
}
