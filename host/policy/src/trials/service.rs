//! What operators begin and end: a shadow, a canary. And what ends by itself, because it fails.

use std::sync::Arc;

use super::observer::Observer;
use crate::module::Module;
use crate::registry::control::{Control, ControlError, lock};
use crate::registry::loader::Loader;
use crate::registry::set::{Active, Probation};
use crate::trial::Trial;
use crate::trial::judge::Judge;
use weir_core::operators::{Commanded, PolicyDiff};

/// Why a change that has happened by itself is not written down at once.
const UNWRITTEN: &str = "it is about to be written down";

/// Shadow, canary and probation.
pub struct Trials {
    pub(super) control: Arc<Control>,
    pub(super) loader: Arc<Loader>,
    pub(super) observer: Observer,
    /// Of the decisions, those that are written into the decision log.
    pub(super) decision_share: f64,
}

impl Trials {
    pub(crate) fn new(control: Arc<Control>, loader: Arc<Loader>, observer: Observer) -> Self {
        let decision_share = loader.config.decisions.share;
        Self { control, loader, observer, decision_share }
    }

    /// Lets a module decide besides, for a share of the batches.
    ///
    /// # Errors
    /// An unknown module, one that is now refused, or an invalid share.
    pub fn shadow(&self, by: &str, module: &str, share: f64) -> Result<Commanded, ControlError> {
        self.control.command(by, "shadow", Some(module), |times| {
            check_share(share)?;
            let digest = self.control.find(module)?;
            // Its own instances: it must not write, and must not keep those that serve busy.
            let name = digest.to_string();
            let module = self.loader.load(&self.control.store(), &name, false, times)?;
            let trial = Arc::new(self.trial(module, share, by));
            let before = self.control.change(|active| active.shadow.replace(Arc::clone(&trial)))?;
            self.control.ended_shadow(before, "another shadow began");
            self.control.event("shadow-started", trial.module.title(), by, None);
            Ok(())
        })
    }

    /// Lets a module serve a share of the targets.
    ///
    /// # Errors
    /// An unknown module, one that is now refused, or an invalid share.
    pub fn canary(&self, by: &str, module: &str, share: f64) -> Result<Commanded, ControlError> {
        self.control.command(by, "canary", Some(module), |times| {
            check_share(share)?;
            let digest = self.control.find(module)?;
            let module = self.control.warm(&self.loader, digest, times)?;
            if self.control.active().live.has(&digest) {
                return Err(ControlError::Conflict(format!("{} serves already", module.title())));
            }
            let trial = Arc::new(self.trial(module, share, by));
            let before = self.control.change(|active| active.canary.replace(Arc::clone(&trial)))?;
            self.control.ended_canary(before, "another canary began");
            self.control.event("canary-started", trial.module.title(), by, None);
            Ok(())
        })
    }

    fn trial(&self, module: Arc<Module>, share: f64, by: &str) -> Trial {
        let clock = &self.control.clock;
        let judge = Judge::new(self.loader.config.canary_bounds(module.does_io), clock.clone());
        Trial::new(module, share, clock.now_ms(), by.to_owned(), judge)
    }

    /// Ends the shadow.
    ///
    /// # Errors
    /// [`ControlError::Conflict`] where there is none.
    pub fn end_shadow(&self, by: &str) -> Result<Commanded, ControlError> {
        self.control.urgent_command(by, "end-shadow", None, |_| {
            let ended = self.control.change_in_any_case("shadow-ended", |active| active.shadow.take());
            let module = ended.as_ref().map(|trial| trial.module.title());
            self.control.ended_shadow(ended, "ended by an operator");
            let module = module.ok_or_else(|| ControlError::Conflict("there is no shadow".into()))?;
            self.control.event("shadow-ended", module, by, None);
            Ok(())
        })
    }

    /// Ends the canary: the live modules serve all targets again.
    ///
    /// # Errors
    /// [`ControlError::Conflict`] where there is none.
    pub fn end_canary(&self, by: &str) -> Result<Commanded, ControlError> {
        self.control.urgent_command(by, "end-canary", None, |_| {
            let ended = self.control.change_in_any_case("canary-ended", |active| active.canary.take());
            let module = ended.as_ref().map(|trial| trial.module.title());
            self.control.ended_canary(ended, "ended by an operator");
            let module = module.ok_or_else(|| ControlError::Conflict("there is no canary".into()))?;
            self.control.event("canary-ended", module, by, None);
            Ok(())
        })
    }

    /// What shadow and canary have shown so far, or those that ended last.
    pub fn diff(&self) -> PolicyDiff {
        let active = self.control.active();
        let ended = lock(&self.control.ended).clone();
        let report = |running: &Option<Arc<Trial>>, ended: Option<Arc<Trial>>| {
            running.clone().or(ended).map(|trial| trial.report())
        };
        PolicyDiff { shadow: report(&active.shadow, ended.shadow), canary: report(&active.canary, ended.canary) }
    }

    /// A canary that must go.
    pub(super) fn roll_back_canary(&self, canary: &Arc<Trial>, reason: &str) {
        let is_it = |active: &mut Active| active.canary.take_if(|current| Arc::ptr_eq(current, canary)).is_some();
        if self.control.change_at_once(is_it) {
            self.control.condemn(&canary.module.digest, reason);
            self.control.note_saved(Some(UNWRITTEN.into()));
            self.control.ended_canary(Some(Arc::clone(canary)), reason);
            self.control.event("canary-rolled-back", canary.module.title(), "weir", Some(reason.to_owned()));
            self.control.save_soon("canary-rolled-back", canary.module.title());
        }
    }

    /// A set on probation that must go.
    pub(super) fn roll_back_probation(&self, probation: &Arc<Probation>, module: &Module, reason: &str) {
        let is_it = |active: &mut Active| {
            let current = active.probation.as_ref().is_some_and(|current| Arc::ptr_eq(current, probation));
            // A batch that began before an operator took the module out condemns no other module.
            let current = current && active.live.has(&module.digest);
            if current {
                active.live = probation.proven.clone();
                active.previous = None;
                active.probation = None;
            }
            current
        };
        if self.control.change_at_once(is_it) {
            self.control.condemn(&module.digest, reason);
            self.control.note_saved(Some(UNWRITTEN.into()));
            self.control.event("rolled-back-by-itself", module.title(), "weir", Some(reason.to_owned()));
            self.control.save_soon("rolled-back-by-itself", module.title());
        }
    }
}

fn check_share(share: f64) -> Result<(), ControlError> {
    if share > 0.0 && share <= 1.0 {
        return Ok(());
    }
    Err(ControlError::Invalid("share: above 0, at most 1".into()))
}
