//! State that the requests, batches and clocks of one kind share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::counter;

use super::admission::Admission;
use weir_core::clock::Clock;
use weir_core::config::RoomConfig;
use weir_core::error::Refusal;
use weir_core::telemetry;
use weir_store::{Queues, RoomTimes, StoreError};

/// Longest pause between two ticks of a queue that is no standstill, in milliseconds: clocks tick at least twice as often. A
/// standstill costs people this much of their time, so it is a part of the shortest deadline.
pub(super) fn pause_ms_max(config: &RoomConfig) -> u64 {
    (config.grace_ms.min(config.claim_ms) / 4).clamp(100, 2_500)
}

pub(super) struct Shared {
    pub(super) config: RoomConfig,
    pub(super) store: Arc<dyn Queues>,
    pub(super) admission: Arc<dyn Admission>,
    pub(super) clock: Clock,
    /// Names this host to the others.
    pub(super) owner: String,
    is_failing: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        config: RoomConfig,
        store: Arc<dyn Queues>,
        admission: Arc<dyn Admission>,
        clock: Clock,
        owner: String,
    ) -> Self {
        Self { config, store, admission, clock, owner, is_failing: AtomicBool::new(false) }
    }

    /// The time for the queues of the kind, and their durations.
    pub(super) fn times(&self) -> RoomTimes {
        let config = &self.config;
        RoomTimes {
            at_ms: self.clock.now_ms(),
            now_ms: self.clock.steady_ms(),
            pause_ms_max: pause_ms_max(config),
            owner: self.owner.clone(),
            grace_ms: config.grace_ms,
            ended_ttl_ms: config.ended_ttl_ms,
        }
    }

    /// The refusal for a failed store call. Logs when the store begins to fail, not for each request.
    pub(super) fn refusal(&self, error: &StoreError) -> Refusal {
        counter!(telemetry::STORE_FAILURES_TOTAL, "operation" => "room", "cause" => error.cause()).increment(1);
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::error!(kind = self.config.kind, %error, "the store does not serve the waiting room");
        }
        if matches!(error, StoreError::OutcomeUnknown(_)) { Refusal::OutcomeUnknown } else { Refusal::StoreUnavailable }
    }

    /// Notes that the store has answered.
    pub(super) fn served(&self) {
        if self.is_failing.load(Ordering::Relaxed) && self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(kind = self.config.kind, "the store serves the waiting room again");
        }
    }
}
