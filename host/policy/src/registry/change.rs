//! How what is in force changes: written down first, or at once where a module must go.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use metrics::gauge;

use super::control::{Control, ControlError, lock};
use super::saver::Changes;
use super::set::Active;
use crate::refusal::LoadError;
use crate::trial::Trial;
use weir_core::model::Digest;
use weir_core::telemetry::POLICY_UNFIT;

/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the thread that writes down what has changed by itself, until it succeeds. It ends with what it saves.
pub(crate) fn start_saver(control: Weak<Control>, changes: Changes) -> Result<(), LoadError> {
    let work = move || {
        while let Some((what, module)) = changes.next() {
            loop {
                let Some(control) = control.upgrade() else { return };
                if control.save_now(what, &module) {
                    break;
                }
                drop(control);
                std::thread::sleep(RETRY);
            }
            changes.done();
        }
    };
    std::thread::Builder::new()
        .name("weir-policy-save".into())
        .spawn(work)
        .map(drop)
        .map_err(|error| LoadError::Engine { reason: format!("cannot start a thread to save on: {error}") })
}

impl Control {
    /// Changes what is in force: written down first.
    pub(crate) fn change<T>(&self, change: impl Fn(&mut Active) -> T) -> Result<T, ControlError> {
        let _saving = lock(&self.saving);
        let mut next = (*self.active()).clone();
        change(&mut next);
        self.store().save(&next.saved()).map_err(ControlError::Disk)?;
        let changed = self.change_at_once(change);
        self.note_saved(None);
        Ok(changed)
    }

    /// The same for what takes a module out of service: also where nothing can be written, and written down as soon as
    /// that can be done again.
    pub(crate) fn change_in_any_case<T>(&self, what: &'static str, change: impl Fn(&mut Active) -> T) -> T {
        self.change(&change).unwrap_or_else(|error| {
            tracing::error!(%error, "the active set is changed, and cannot be written down yet");
            let changed = self.change_at_once(change);
            self.note_saved(Some(error.to_string()));
            self.saver.send(what, String::new());
            changed
        })
    }

    /// Changes what is in force without writing it down: the caller calls [`Control::save_soon`].
    pub(crate) fn change_at_once<T>(&self, change: impl Fn(&mut Active) -> T) -> T {
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = (**active).clone();
        let result = change(&mut next);
        let before = std::mem::replace(&mut *active, Arc::new(next));
        drop(active);
        self.count_unfit();
        // Perhaps the last that held a module: its memory is freed when no caller waits for the lock.
        drop(before);
        result
    }

    /// Asks the saver to write down what has changed by itself.
    pub(crate) fn save_soon(&self, what: &'static str, module: String) {
        self.saver.send(what, module);
    }

    /// Writes down a change that has happened by itself; `false` when that must be tried again.
    pub(super) fn save_now(&self, what: &'static str, module: &str) -> bool {
        let saving = lock(&self.saving);
        let active = self.active();
        let saved = self.store().save(&active.saved());
        let saved = saved.and_then(|()| self.save_condemned()).map_err(ControlError::Disk);
        match &saved {
            Err(error) => self.note_saved(Some(error.to_string())),
            // What has changed meanwhile is written down by its own turn.
            Ok(()) if Arc::ptr_eq(&active, &self.active()) => self.note_saved(None),
            Ok(()) => {}
        }
        drop(saving);
        if let Err(error) = &saved {
            tracing::error!(%error, "the active set cannot be written down: after a restart the one before is active");
        }
        self.audit("weir", what, Some(module), &saved);
        saved.is_ok()
    }

    /// Writes down what has changed by itself and is not written down yet. For the end of the host.
    pub(super) fn close(&self) {
        if self.saver.is_waiting() {
            self.save_now("close", "");
        }
    }

    /// Of each interface whether the module that was active does not fit this weir.
    pub(crate) fn count_unfit(&self) {
        for (interface, module) in self.active().live.modules() {
            let unfit = if module.is_unfit().is_some() { 1.0 } else { 0.0 };
            gauge!(POLICY_UNFIT, "interface" => interface.name()).set(unfit);
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

    pub(crate) fn ended_shadow(&self, trial: Option<Arc<Trial>>, why: &str) {
        if let Some(trial) = trial {
            trial.end(why);
            lock(&self.ended).shadow = Some(trial);
        }
    }

    pub(crate) fn ended_canary(&self, trial: Option<Arc<Trial>>, why: &str) {
        if let Some(trial) = trial {
            trial.end(why);
            lock(&self.ended).canary = Some(trial);
        }
    }
}
