//! When and what to flush: the live module says, a canary is asked besides, and the host's own answer is always there.

use std::sync::Arc;

use weir_policy_vectors::Answer;

use super::service::Rules;
use crate::call::Role;
use crate::decision::Coalesced;
use crate::interface::{Interface, flush};
use crate::registry::set::Active;
use crate::trial::Trial;
use weir_core::model::{Backlog, FlushPlan, ToggleChange};

impl Rules {
    /// When to flush. Never fails: if the module fails, the built-in plan replaces it.
    pub async fn plan_flush(self: &Arc<Self>, kind: &str, now_ms: u64, backlog: &Backlog) -> FlushPlan {
        let active = self.active();
        if !active.does_io(Interface::Flush) {
            return self.plan(&active, kind, now_ms, backlog);
        }
        let (rules, owned_kind, owned) = (Arc::clone(self), kind.to_owned(), *backlog);
        let planned = tokio::task::spawn_blocking(move || rules.plan(&active, &owned_kind, now_ms, &owned)).await;
        planned.unwrap_or_else(|_| self.builtin_plan(kind, now_ms, backlog))
    }

    /// A plan concerns no target: the live module plans, and a canary is asked only to see whether it fails.
    fn plan(&self, active: &Active, kind: &str, now_ms: u64, backlog: &Backlog) -> FlushPlan {
        let asked = |canary: &&Arc<Trial>| canary.module.exports(Interface::Flush) && !canary.module.does_io;
        if let Some(canary) = active.canary.as_ref().filter(asked) {
            let outcome = canary.module.plan(Role::Canary, kind, now_ms, flush::backlog(backlog, now_ms));
            self.trials.judge_canary(canary, &outcome);
        }
        let module = &active.live.get(Interface::Flush).module;
        if self.runs_natively(module) {
            return self.builtin_plan(kind, now_ms, backlog);
        }
        let outcome = module.plan(Role::Live, kind, now_ms, flush::backlog(backlog, now_ms));
        self.trials.judge_live(active, module, &outcome);
        match outcome {
            Ok(answered) => {
                self.trials.observe_live(active, module, Interface::Flush, 1, answered.elapsed, || {
                    (flush::record_plan(kind, now_ms, backlog), Answer::Plan(answered.answer))
                });
                answered.answer
            }
            Err(_) => {
                self.count_fallback(kind, "built-in");
                self.builtin_plan(kind, now_ms, backlog)
            }
        }
    }

    fn builtin_plan(&self, kind: &str, now_ms: u64, backlog: &Backlog) -> FlushPlan {
        flush::builtin_plan(&self.settings(kind), now_ms, backlog)
    }

    /// Which changes are written. Never fails: if the module fails, the host's own choice replaces it.
    pub fn coalesce(&self, kind: &str, changes: &[ToggleChange]) -> Coalesced {
        let last = flush::last_of_each_pair(changes);
        let active = self.active();
        let canary = active.canary.as_ref().filter(|canary| canary.module.exports(Interface::Flush));
        let fell_back = match canary {
            _ if changes.is_empty() => false,
            None => self.coalesce_live(&active, kind, changes, &last),
            Some(canary) => {
                let (of_canary, rest): (Vec<_>, Vec<_>) =
                    changes.iter().cloned().partition(|change| canary.takes(&change.target));
                let fell_back =
                    !rest.is_empty() && self.coalesce_live(&active, kind, &rest, &flush::last_of_each_pair(&rest));
                self.coalesce_canary(&active, canary, kind, &of_canary);
                fell_back
            }
        };
        Coalesced { kept: last, fell_back }
    }

    fn coalesce_live(&self, active: &Active, kind: &str, changes: &[ToggleChange], last: &[usize]) -> bool {
        let module = &active.live.get(Interface::Flush).module;
        if self.runs_natively(module) {
            return false;
        }
        let outcome = module.coalesce(Role::Live, kind, changes, last);
        self.trials.judge_live(active, module, &outcome);
        match outcome {
            Ok(answered) => {
                self.trials.observe_live(active, module, Interface::Flush, changes.len(), answered.elapsed, || {
                    (flush::record_coalesce(kind, changes), Answer::Kept(answered.answer))
                });
                false
            }
            Err(_) => {
                self.count_fallback(kind, "built-in");
                true
            }
        }
    }

    fn coalesce_canary(&self, active: &Active, canary: &Arc<Trial>, kind: &str, changes: &[ToggleChange]) {
        if changes.is_empty() {
            return;
        }
        let last = flush::last_of_each_pair(changes);
        let outcome = canary.module.coalesce(Role::Canary, kind, changes, &last);
        self.trials.judge_canary(canary, &outcome);
        if let Ok(answered) = outcome {
            self.trials.observe_canary(active, canary, Interface::Flush, changes.len(), answered.elapsed, || {
                (flush::record_coalesce(kind, changes), Answer::Kept(answered.answer))
            });
        }
    }
}
