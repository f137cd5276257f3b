//! Who decides on places and on who is let in.

use std::collections::BTreeMap;

use async_trait::async_trait;
use weir_default_policy::admission::{self as rules, Settings};

use crate::model::{AdmissionPlan, Arrival, Place, RoomState};

/// The rules of a room. They see numbers and ids; the store holds the capacity whatever they say.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Where each arrival is placed. Index-aligned; `None` when nobody can say.
    async fn place(&self, kind: &str, now_ms: u64, batch: &[Arrival]) -> Option<Vec<Place>>;

    /// How many are let in now. Never fails: something else decides where a module does.
    async fn plan(&self, kind: &str, now_ms: u64, room: &RoomState) -> AdmissionPlan;
}

/// The built-in rules, natively.
pub struct NativeAdmission(Settings);

impl NativeAdmission {
    /// With the settings of a kind; what is unusable counts as not set.
    pub fn new(settings: &BTreeMap<String, String>) -> Self {
        Self(Settings::read(|key| settings.get(key).cloned(), |_, _| ()))
    }
}

#[async_trait]
impl Admission for NativeAdmission {
    async fn place(&self, _kind: &str, now_ms: u64, batch: &[Arrival]) -> Option<Vec<Place>> {
        let place = match rules::place(&self.0, now_ms) {
            rules::Place::Line(lane) => Place::Line { lane },
            rules::Place::Draw(lane) => Place::Draw { lane },
            rules::Place::Refuse => Place::Refuse,
        };
        Some(vec![place; batch.len()])
    }

    async fn plan(&self, _kind: &str, now_ms: u64, room: &RoomState) -> AdmissionPlan {
        let RoomState { waiting, active, capacity, since_ms, .. } = *room;
        let plan = rules::plan(&self.0, now_ms, rules::Room { waiting, active, capacity, since_ms });
        AdmissionPlan { admit: plan.admit, active_ttl_ms: plan.active_ttl_ms, next_tick_ms: plan.next_tick_ms }
    }
}
