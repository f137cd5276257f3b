//! What requests, batches and clocks of one kind share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::counter;

use super::admission::Admission;
use crate::clock::Clock;
use crate::config::RoomConfig;
use crate::error::Refusal;
use crate::store::{Store, StoreError};
use crate::telemetry;

pub(super) struct Shared {
    pub(super) config: RoomConfig,
    pub(super) store: Arc<dyn Store>,
    pub(super) admission: Arc<dyn Admission>,
    pub(super) clock: Clock,
    /// Names this host to the others.
    pub(super) owner: String,
    is_failing: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        config: RoomConfig,
        store: Arc<dyn Store>,
        admission: Arc<dyn Admission>,
        clock: Clock,
        owner: String,
    ) -> Self {
        Self { config, store, admission, clock, owner, is_failing: AtomicBool::new(false) }
    }

    /// The refusal for a failed store call. Logs when the store begins to fail, not for each request.
    pub(super) fn refusal(&self, error: &StoreError) -> Refusal {
        counter!(telemetry::STORE_FAILURES_TOTAL, "operation" => "room", "cause" => error.cause()).increment(1);
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::error!(kind = self.config.kind, %error, "the store does not serve the waiting room");
        }
        if matches!(error, StoreError::OutcomeUnknown(_)) { Refusal::OutcomeUnknown } else { Refusal::StoreUnavailable }
    }

    /// The store has answered.
    pub(super) fn served(&self) {
        if self.is_failing.load(Ordering::Relaxed) && self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(kind = self.config.kind, "the store serves the waiting room again");
        }
    }
}
