//! The rules for places and admissions.

use std::sync::Arc;

use async_trait::async_trait;

use weir_core::model::{AdmissionPlan, Arrival, Place, RoomState};
use weir_policy::Rules;

/// The rules of a waiting room. They see numbers and ids; the store enforces the capacity whatever they say.
#[async_trait]
pub trait Admission: Send + Sync {
    /// The place of each arrival. Index-aligned; `None` when no rules can decide.
    async fn place(&self, kind: &str, now_ms: u64, batch: &[Arrival]) -> Option<Vec<Place>>;

    /// How many people to admit now. Never fails: a fallback decides where a module fails.
    async fn plan(&self, kind: &str, now_ms: u64, room: &RoomState) -> AdmissionPlan;
}

#[async_trait]
impl Admission for Arc<Rules> {
    async fn place(&self, kind: &str, now_ms: u64, batch: &[Arrival]) -> Option<Vec<Place>> {
        Rules::place(self, kind, now_ms, batch).await.ok().map(|decided| decided.rules)
    }

    async fn plan(&self, kind: &str, now_ms: u64, room: &RoomState) -> AdmissionPlan {
        self.plan_admission(kind, now_ms, room).await
    }
}
