//! Why a store did not answer. Every role fails with the same type.

/// Why the store did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store was not reached, or refused before it did anything: safe to repeat.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The answer did not arrive: the call may or may not have been applied. Never repeat it blindly.
    #[error("the store did not answer in time, the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    /// The store refuses writes (out of memory, disk full, read-only).
    #[error("the store refuses writes: {0}")]
    Refused(String),
    /// The store holds something that weir did not write. Never repaired silently.
    #[error("the store's data is damaged: {0}")]
    Damaged(String),
    /// Another process has the directory of the embedded store open.
    #[error(
        "store.path: {0} is in use by another process; an embedded store belongs to one host, stop the other one or give \
             this one another directory"
    )]
    InUse(String),
    /// The configuration or the server's settings forbid starting. Says what to do.
    #[error("{0}")]
    Misconfigured(String),
}

impl StoreError {
    /// The value of the metric label `cause`.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::OutcomeUnknown(_) => "unknown",
            Self::Refused(_) => "refused",
            Self::Damaged(_) => "damaged",
            Self::InUse(_) => "in-use",
            Self::Misconfigured(_) => "misconfigured",
        }
    }
}
