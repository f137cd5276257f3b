//! What operators can see and do, as the host offers it to its operators' listener.

use async_trait::async_trait;
use bytes::Bytes;

use super::Purge;
use weir_core::operators::{
    Acknowledged, Arrivals, Audit, CacheReport, Check, Commanded, DeadLetters, Explanation, FlushReport, Flushed,
    JournalHoles, PolicyDiff, PolicyList, Uploaded,
};

/// Why an operation was not done. The text reaches the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationsError {
    /// No such kind, letter or id: 404.
    #[error("{0}")]
    NotFound(String),
    /// An invalid id or number: 400.
    #[error("{0}")]
    Invalid(String),
    /// It still cannot be done, such as a dead letter that SQL refuses again: 409.
    #[error("{0}")]
    Conflict(String),
    /// A policy module that is not good: 422, with the word as `code`.
    #[error("{reason}")]
    Refused {
        /// A stable word, such as `trap` or `unknown-import`.
        code: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Store or SQL is away, or too much is going on: 503.
    #[error("{0}")]
    Unavailable(String),
}

/// A component that an operator hands in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upload {
    /// The component.
    pub bytes: Bytes,
    /// Its name; else the one that it carries, else `unnamed`.
    pub name: Option<String>,
    /// Its version; else the one that it carries.
    pub version: Option<String>,
    /// Text of a file of test vectors, run besides those that it carries.
    pub vectors: Option<String>,
    /// Activate it, when it is good.
    pub activate: bool,
}

/// What can be done with modules that were uploaded. `module` is a digest, the beginning of one (6 digits or more), a
/// name (the youngest with it), or `name@version`.
#[derive(Debug, Clone, PartialEq)]
pub enum ModuleCommand {
    /// It serves everything that it exports, or only `interfaces` if any are named.
    Activate {
        /// The module.
        module: String,
        /// Such as `toggle`.
        interfaces: Vec<String>,
    },
    /// It decides besides, and only what differs is noted.
    Shadow {
        /// The module.
        module: String,
        /// Share of the batches, above 0, at most 1.
        share: f64,
    },
    /// It serves a share of the targets, until it is activated, ended, or rolled back because it failed.
    Canary {
        /// The module.
        module: String,
        /// Share of the targets, above 0, at most 1.
        share: f64,
    },
    /// The shadow ends; its report stays until another begins.
    EndShadow,
    /// The canary ends; its report stays until another begins.
    EndCanary,
    /// The set before the last activation serves again.
    Rollback,
    /// It is removed from the registry. One that serves, or would after a rollback, is not: 409.
    Delete {
        /// The module.
        module: String,
    },
}

/// What operators can see and do. A deadline of the listener bounds every method. Uploads and commands run on tasks of
/// their own: they run to completion even past the deadline or after the caller has gone.
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// Why only a restart may help; nothing while the host works, or mends itself.
    fn stuck(&self) -> Option<String> {
        None
    }
    /// Every check, those that hold too. Ready is when all hold.
    async fn readiness(&self) -> Vec<Check>;
    /// What waits in the journals of all kinds.
    async fn flush_status(&self) -> Result<FlushReport, OperationsError>;
    /// Which module serves which interface, what is being tried, and the registry; see `host/docs/rules.md`.
    async fn policies(&self) -> Result<PolicyList, OperationsError>;
    /// Flushes now all that waits of a kind, or of all. Bounds its own time.
    async fn flush_now(&self, kind: Option<&str>) -> Result<Flushed, OperationsError>;
    /// Takes a component into the registry if it is good. `by` says who asks.
    async fn upload_policy(&self, by: &str, upload: Upload) -> Result<Uploaded, OperationsError>;
    /// Carries a command out, and says what holds afterwards.
    async fn command_policy(&self, by: &str, command: ModuleCommand) -> Result<Commanded, OperationsError>;
    /// What shadow and canary have shown so far.
    async fn policy_diff(&self) -> Result<PolicyDiff, OperationsError>;
    /// The last `limit` lines of the audit log, newest first.
    async fn policy_audit(&self, limit: usize) -> Result<Audit, OperationsError>;
    /// Dead letters of a kind or of all, oldest first, with an id above `after`.
    async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<DeadLetters, OperationsError>;
    /// Tries to store one again; it is gone afterwards.
    async fn replay_dead_letter(&self, id: i64) -> Result<(), OperationsError>;
    /// Drops one.
    async fn drop_dead_letter(&self, id: i64) -> Result<(), OperationsError>;
    /// What journals of a kind or of all have lost before it was in SQL, newest first.
    async fn journal_holes(&self, kind: Option<&str>) -> Result<JournalHoles, OperationsError>;
    /// Acknowledges the holes of a kind, which then no longer keep the host from being ready.
    async fn acknowledge_holes(&self, kind: &str) -> Result<Acknowledged, OperationsError>;
    /// Everything known of a target, or of one actor on it.
    async fn explain(&self, kind: &str, target: &str, actor: Option<&str>) -> Result<Explanation, OperationsError>;
    /// Every read: its rule, requests, hit ratio, costs; and the memory of the caches.
    async fn cache(&self) -> Result<CacheReport, OperationsError>;
    /// Invalidates what is cached, on all hosts.
    async fn purge_cache(&self, purge: Purge) -> Result<(), OperationsError>;
    /// Who takes part in the draw of a queue, in the order of arrival, from the `skip`th, at most `limit`.
    async fn room_arrivals(
        &self,
        kind: &str,
        queue: &str,
        skip: u64,
        limit: usize,
    ) -> Result<Arrivals, OperationsError>;
    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> String;
}
