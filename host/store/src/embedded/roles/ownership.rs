//! The role of starts and operators: see [`Ownership`].

use async_trait::async_trait;

use super::super::{EmbeddedStore, inventory};
use crate::{Binding, Inventory, Ownership, StoreError};

#[async_trait]
impl Ownership for EmbeddedStore {
    async fn inventory(&self) -> Result<Inventory, StoreError> {
        self.on_disk(inventory::read).await
    }

    async fn bind(&self, binding: &Binding) -> Result<(), StoreError> {
        let binding = binding.clone();
        self.on_disk(move |spaces, path| inventory::bind(spaces, path, &binding)).await
    }

    async fn drop_kind(&self, kind: &str) -> Result<(), StoreError> {
        let kind = kind.to_owned();
        self.on_disk(move |spaces, _| inventory::drop_kind(spaces, &kind)).await
    }

    async fn drop_all(&self) -> Result<(), StoreError> {
        self.on_disk(|spaces, _| inventory::drop_all(spaces)).await
    }
}
