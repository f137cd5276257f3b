//! The role of starts and operators: see [`Ownership`].

use async_trait::async_trait;

use super::super::link::OnLink;
use super::super::server::Refusal;
use super::super::{RedisStore, inventory, upgrade};
use crate::{Binding, Inventory, Ownership, StoreError};

#[async_trait]
impl Ownership for RedisStore {
    async fn inventory(&self) -> Result<Inventory, StoreError> {
        inventory::read(&self.unwatched()?, &self.link.guard, &self.config).await
    }

    async fn bind(&self, binding: &Binding) -> Result<(), StoreError> {
        let (link, guard) = (self.unwatched()?, &self.link.guard);
        guard.expects(binding.database);
        upgrade::run(&link, guard, binding).await?;
        let mut way = OnLink(&link);
        // Other remains of an earlier version belong to other databases.
        guard.write(&mut way).await.map_err(Refusal::into_error)?;
        if binding.is_forced {
            guard.give(&mut way, binding.database).await.map_err(Refusal::into_error)?;
        }
        guard.check(&mut way, None).await.map_err(Refusal::into_error)?;
        for kind in &binding.kinds {
            guard.check(&mut way, Some(kind)).await.map_err(Refusal::into_error)?;
        }
        // Until now a connection may have been refused.
        self.link.forget_failure().await;
        self.link.ensure().await?;
        Ok(())
    }

    async fn drop_kind(&self, kind: &str) -> Result<(), StoreError> {
        self.drop_of_kind(kind).await
    }

    async fn drop_all(&self) -> Result<(), StoreError> {
        self.drop_everything().await
    }
}
