//! The role of the operator's probes: whether the store answers, and what it promises.
//!
//! Called by `/livez`, `/readyz`, `weir check` and the operators' API. Every method is read-only and cheap.

use async_trait::async_trait;

use super::StoreError;

/// Which losses an acknowledged write survives, as the store is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durability {
    /// A short name for a reply's detail, such as `fdatasync` or `aof-everysec`.
    pub mode: String,
    /// A sentence for operators.
    pub description: String,
    /// Whether an acknowledged write survives the loss of power.
    pub survives_power_loss: bool,
}

/// One server of a store that has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// `host:port`.
    pub name: String,
    /// Whether its settings keep weir's promises. A server that is down breaks no promise.
    pub fit: bool,
    /// Role, slots, replicas and settings, or why it does not answer.
    pub detail: String,
}

/// Since when a store refuses writes, and why.
#[derive(Debug, Clone)]
pub struct Refusing {
    /// When it began.
    pub since: std::time::Instant,
    /// The disk's last error.
    pub reason: String,
}

/// What probes and operators ask a store.
#[async_trait]
pub trait StoreHealth: Send + Sync {
    /// Whether the store answers now.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Since when the store refuses writes, if it does and it recovers by itself or by a restart of this process; `/livez`
    /// fails after a bound. A store in another process never reports this: restarting weir would not help it.
    fn refusing(&self) -> Option<Refusing> {
        None
    }

    /// Which losses an acknowledged write survives.
    fn durability(&self) -> Durability;

    /// The servers of a store that has several, with their present status.
    async fn nodes(&self) -> Vec<NodeStatus> {
        Vec::new()
    }
}
