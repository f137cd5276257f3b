//! The role of probes: see [`StoreHealth`].

use async_trait::async_trait;

use super::super::RedisStore;
use crate::{Durability, NodeStatus, StoreError, StoreHealth};

#[async_trait]
impl StoreHealth for RedisStore {
    async fn ping(&self) -> Result<(), StoreError> {
        self.link.ping().await
    }

    fn durability(&self) -> Durability {
        self.link.durability()
    }

    async fn nodes(&self) -> Vec<NodeStatus> {
        self.link.nodes().await
    }
}
