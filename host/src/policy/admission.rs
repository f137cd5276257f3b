//! How many a waiting room lets in: the live module says, a canary is asked besides, and the built-in plan is always there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::call::Role;
use super::interface::{Interface, admission};
use super::life::set::Active;
use super::{Decided, Policies, PolicyError, builtin};
use crate::model::{AdmissionPlan, Arrival, Place, RoomState};

impl Policies {
    /// One place for each arrival; else as [`Policies::decide_toggles`].
    ///
    /// # Errors
    /// See [`Policies::decide_toggles`].
    pub async fn place(
        self: &Arc<Self>,
        kind: &str,
        now_ms: u64,
        batch: &[Arrival],
    ) -> Result<Decided<Place>, PolicyError> {
        self.decide(kind, now_ms, batch).await
    }

    /// How many are let in. Never fails: the built-in plan stands in for a module that does.
    pub async fn plan_admission(self: &Arc<Self>, kind: &str, now_ms: u64, room: &RoomState) -> AdmissionPlan {
        let active = self.active();
        if !active.does_io(Interface::Admission) {
            return self.admit(&active, kind, now_ms, room);
        }
        let (policies, owned_kind, owned) = (Arc::clone(self), kind.to_owned(), *room);
        let planned = tokio::task::spawn_blocking(move || policies.admit(&active, &owned_kind, now_ms, &owned)).await;
        planned.unwrap_or_else(|_| self.builtin_admission(kind, now_ms, room))
    }

    /// A plan concerns a whole queue: the live module plans, and a canary is asked only to see whether it fails.
    fn admit(&self, active: &Active, kind: &str, now_ms: u64, room: &RoomState) -> AdmissionPlan {
        let canary = active.canary.as_ref();
        if let Some(canary) = canary.filter(|it| it.module.exports(Interface::Admission) && !it.module.does_io) {
            let outcome = canary.module.admit(Role::Canary, kind, now_ms, admission::room(room));
            self.judge_canary(canary, &outcome);
        }
        let module = &active.live.get(Interface::Admission).module;
        if self.runs_natively(module) {
            return self.builtin_admission(kind, now_ms, room);
        }
        let outcome = module.admit(Role::Live, kind, now_ms, admission::room(room));
        self.judge_live(active, module, &outcome);
        match outcome {
            Ok(answered) => {
                self.observe_live(active, module, Interface::Admission, 1, answered.elapsed, || {
                    (admission::record_plan(kind, now_ms, room), admission::record_planned(&answered.answer))
                });
                answered.answer
            }
            Err(_) => {
                self.count_fallback(kind, "built-in");
                self.builtin_admission(kind, now_ms, room)
            }
        }
    }

    fn builtin_admission(&self, kind: &str, now_ms: u64, room: &RoomState) -> AdmissionPlan {
        let settings = self.kinds.get(kind).map_or_else(|| builtin::settings(&BTreeMap::new()), |kind| kind.settings);
        admission::builtin_plan(&settings, now_ms, room)
    }
}
