//! Who decides on places and on who is let in.

use std::sync::Arc;

use async_trait::async_trait;

use crate::model::{AdmissionPlan, Arrival, Place, RoomState};
use crate::policy::Rules;

/// The rules of a room. They see numbers and ids; the store holds the capacity whatever they say.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Where each arrival is placed. Index-aligned; `None` when nobody can say.
    async fn place(&self, kind: &str, now_ms: u64, batch: &[Arrival]) -> Option<Vec<Place>>;

    /// How many are let in now. Never fails: something else decides where a module does.
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
