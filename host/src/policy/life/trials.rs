//! Shadow and canary: begun and ended by operators, ended by themselves when they fail.

use std::sync::Arc;

use serde_json::Value;

use super::control::{ControlError, lock};
use super::set::{Active, Probation};
use crate::clock::Clock;
use crate::model::Digest;
use crate::policy::Policies;
use crate::policy::module::Module;
use crate::policy::trial::Trial;
use crate::policy::trial::judge::Judge;

/// Why a change that has happened by itself is not written down at once.
const UNWRITTEN: &str = "it is about to be written down";

impl Policies {
    /// Lets a module decide besides, for a share of the batches.
    ///
    /// # Errors
    /// See [`Policies::activate`].
    pub fn shadow(&self, by: &str, module: &str, share: f64) -> Result<Value, ControlError> {
        self.command(by, "shadow", Some(module), |times| {
            check_share(share)?;
            let digest = self.find(module)?;
            // Its own instances: it must not write, and must not keep those that serve busy.
            let name = digest.to_string();
            let module = self.loader.load(&self.control.registry(), &name, false, times)?;
            let trial = Arc::new(self.trial(module, share, by));
            let before = self.change(|active| active.shadow.replace(Arc::clone(&trial)))?;
            self.ended_shadow(before, "another shadow began");
            self.control.event("shadow-started", trial.module.title(), by, None);
            Ok(())
        })
    }

    /// Lets a module serve a share of the targets.
    ///
    /// # Errors
    /// See [`Policies::activate`].
    pub fn canary(&self, by: &str, module: &str, share: f64) -> Result<Value, ControlError> {
        self.command(by, "canary", Some(module), |times| {
            check_share(share)?;
            let digest = self.find(module)?;
            let module = self.warm(digest, times)?;
            if self.active().live.has(&digest) {
                return Err(ControlError::Conflict(format!("{} serves already", module.title())));
            }
            let trial = Arc::new(self.trial(module, share, by));
            let before = self.change(|active| active.canary.replace(Arc::clone(&trial)))?;
            self.ended_canary(before, "another canary began");
            self.control.event("canary-started", trial.module.title(), by, None);
            Ok(())
        })
    }

    fn trial(&self, module: Arc<Module>, share: f64, by: &str) -> Trial {
        let judge = Judge::new(self.loader.config.canary_bounds(module.does_io));
        Trial::new(module, share, Clock::Real.now_ms(), by.to_owned(), judge)
    }

    /// Ends the shadow.
    ///
    /// # Errors
    /// There is none.
    pub fn end_shadow(&self, by: &str) -> Result<Value, ControlError> {
        self.urgent_command(by, "end-shadow", None, |_| {
            let ended = self.change_in_any_case("shadow-ended", |active| active.shadow.take());
            let module = ended.as_ref().map(|trial| trial.module.title());
            self.ended_shadow(ended, "ended by an operator");
            let module = module.ok_or_else(|| ControlError::Conflict("there is no shadow".into()))?;
            self.control.event("shadow-ended", module, by, None);
            Ok(())
        })
    }

    /// Ends the canary: the live modules serve all targets again.
    ///
    /// # Errors
    /// There is none.
    pub fn end_canary(&self, by: &str) -> Result<Value, ControlError> {
        self.urgent_command(by, "end-canary", None, |_| {
            let ended = self.change_in_any_case("canary-ended", |active| active.canary.take());
            let module = ended.as_ref().map(|trial| trial.module.title());
            self.ended_canary(ended, "ended by an operator");
            let module = module.ok_or_else(|| ControlError::Conflict("there is no canary".into()))?;
            self.control.event("canary-ended", module, by, None);
            Ok(())
        })
    }

    /// A canary that must go.
    pub(in crate::policy) fn roll_back_canary(&self, canary: &Arc<Trial>, reason: &str) {
        let is_it = |active: &mut Active| active.canary.take_if(|current| Arc::ptr_eq(current, canary)).is_some();
        if self.change_at_once(is_it) {
            self.control.condemn(&canary.module.digest, reason);
            self.control.note_saved(Some(UNWRITTEN.into()));
            self.ended_canary(Some(Arc::clone(canary)), reason);
            self.control.event("canary-rolled-back", canary.module.title(), "weir", Some(reason.to_owned()));
            self.saver.send("canary-rolled-back", canary.module.title());
        }
    }

    /// A set on probation that must go.
    pub(in crate::policy) fn roll_back_probation(&self, probation: &Arc<Probation>, module: &Module, reason: &str) {
        let is_it = |active: &mut Active| {
            let current = active.probation.as_ref().is_some_and(|current| Arc::ptr_eq(current, probation));
            // A batch that began before an operator took the module out condemns nobody else.
            let current = current && active.live.has(&module.digest);
            if current {
                active.live = probation.proven.clone();
                active.previous = None;
                active.probation = None;
            }
            current
        };
        if self.change_at_once(is_it) {
            self.control.condemn(&module.digest, reason);
            self.control.note_saved(Some(UNWRITTEN.into()));
            self.control.event("rolled-back-by-itself", module.title(), "weir", Some(reason.to_owned()));
            self.saver.send("rolled-back-by-itself", module.title());
        }
    }

    /// Writes down a change that has happened by itself; `false` when that must be tried again.
    pub(in crate::policy) fn save_now(&self, what: &'static str, module: &str) -> bool {
        let saving = lock(&self.control.saving);
        let active = self.active();
        let saved = self.control.registry().save(&active.saved());
        let saved = saved.and_then(|()| self.control.save_condemned()).map_err(ControlError::Disk);
        match &saved {
            Err(error) => self.control.note_saved(Some(error.to_string())),
            // What has changed meanwhile is written down by its own turn.
            Ok(()) if Arc::ptr_eq(&active, &self.active()) => self.control.note_saved(None),
            Ok(()) => {}
        }
        drop(saving);
        if let Err(error) = &saved {
            tracing::error!(%error, "the active set cannot be written down: after a restart the one before is active");
        }
        self.control.audit("weir", what, Some(module), &saved);
        saved.is_ok()
    }

    /// Writes down what has changed by itself and is not written down yet. For the end of the host.
    pub fn close(&self) {
        if self.saver.is_waiting() {
            self.save_now("close", "");
        }
    }

    /// A module that serves is tried no longer.
    pub(super) fn end_trials_of(&self, digest: &Digest) {
        let of_it = |trial: &mut Arc<Trial>| trial.module.digest == *digest;
        let active = self.active();
        let is_tried = |trial: &Option<Arc<Trial>>| trial.as_ref().is_some_and(|trial| trial.module.digest == *digest);
        if !is_tried(&active.shadow) && !is_tried(&active.canary) {
            return;
        }
        let ended = self.change(|active| (active.shadow.take_if(of_it), active.canary.take_if(of_it)));
        let (shadow, canary) = ended.unwrap_or_default();
        self.ended_shadow(shadow, "activated");
        self.ended_canary(canary, "activated");
    }

    fn ended_shadow(&self, trial: Option<Arc<Trial>>, why: &str) {
        if let Some(trial) = trial {
            trial.end(why);
            lock(&self.control.ended).shadow = Some(trial);
        }
    }

    fn ended_canary(&self, trial: Option<Arc<Trial>>, why: &str) {
        if let Some(trial) = trial {
            trial.end(why);
            lock(&self.control.ended).canary = Some(trial);
        }
    }
}

fn check_share(share: f64) -> Result<(), ControlError> {
    if share > 0.0 && share <= 1.0 {
        return Ok(());
    }
    Err(ControlError::Invalid("share: above 0, at most 1".into()))
}
