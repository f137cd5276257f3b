//! How many a waiting room admits: the live module decides, a canary is asked besides, and the built-in plan is always
//! there.

use std::sync::Arc;

use weir_policy_vectors::Answer;

use super::service::Rules;
use crate::call::Role;
use crate::decision::{Decided, PolicyError};
use crate::interface::{Interface, admission};
use crate::registry::set::Active;
use weir_core::model::{AdmissionPlan, Arrival, Place, RoomState};

impl Rules {
    /// One place for each arrival; else as [`Rules::decide_toggles`].
    ///
    /// # Errors
    /// See [`Rules::decide_toggles`].
    pub async fn place(
        self: &Arc<Self>,
        kind: &str,
        now_ms: u64,
        batch: &[Arrival],
    ) -> Result<Decided<Place>, PolicyError> {
        self.decide(kind, now_ms, batch).await
    }

    /// How many people are admitted. Never fails: if the module fails, the built-in plan replaces it.
    pub async fn plan_admission(self: &Arc<Self>, kind: &str, now_ms: u64, room: &RoomState) -> AdmissionPlan {
        let active = self.active();
        if !active.does_io(Interface::Admission) {
            return self.admit(&active, kind, now_ms, room);
        }
        let (rules, owned_kind, owned) = (Arc::clone(self), kind.to_owned(), *room);
        let planned = tokio::task::spawn_blocking(move || rules.admit(&active, &owned_kind, now_ms, &owned)).await;
        planned.unwrap_or_else(|_| self.builtin_admission(kind, now_ms, room))
    }

    /// A plan concerns a whole queue: the live module plans, and a canary is asked only to see whether it fails.
    fn admit(&self, active: &Active, kind: &str, now_ms: u64, room: &RoomState) -> AdmissionPlan {
        let canary = active.canary.as_ref();
        if let Some(canary) = canary.filter(|it| it.module.exports(Interface::Admission) && !it.module.does_io) {
            let outcome = canary.module.admit(Role::Canary, kind, now_ms, room);
            self.trials.judge_canary(canary, &outcome);
        }
        let module = &active.live.get(Interface::Admission).module;
        if self.runs_natively(module) {
            return self.builtin_admission(kind, now_ms, room);
        }
        let outcome = module.admit(Role::Live, kind, now_ms, room);
        self.trials.judge_live(active, module, &outcome);
        match outcome {
            Ok(answered) => {
                self.trials.observe_live(active, module, Interface::Admission, 1, answered.elapsed, || {
                    (admission::record_plan(kind, now_ms, room), Answer::Admission(answered.answer))
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
        admission::builtin_plan(&self.settings(kind), now_ms, room)
    }
}
