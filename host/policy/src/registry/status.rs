//! What operators see: the active set, what is tried, the registry, what has happened.

use std::sync::Arc;

use super::audit::AuditLine;
use super::control::{Control, lock};
use super::disk::{self, Record};
use super::loader::Times;
use super::service::Registry;
use super::set::{self, Active, LiveSet};
use crate::breaker::OpenBreaker;
use crate::interface::Interface;
use crate::module::{Module, ModuleInfo};
use crate::trial;
use weir_core::operators::{
    Audit, AuditEntry, Breaker, Checks, Commanded, Condemned, ModuleRecord, PolicyList, PolicySet, Probation, Serving,
    ServingSet, Trial, UploadState,
};

fn serving(serving: &set::Serving) -> Serving {
    let info = serving.module.info();
    Serving {
        digest: info.digest,
        name: info.name,
        version: info.version,
        since_ms: serving.since_ms,
        by: serving.by.clone(),
        unfit: info.unfit,
    }
}

fn live_set(set: &LiveSet) -> ServingSet {
    let by_interface = |interface: Interface| (interface.name().to_owned(), serving(set.get(interface)));
    Interface::ALL.into_iter().map(by_interface).collect()
}

fn trial(trial: &trial::Trial) -> Trial {
    let (info, report) = (trial.module.info(), trial.report());
    Trial {
        digest: info.digest,
        name: info.name,
        version: info.version,
        share: trial.share,
        since_ms: trial.since_ms,
        by: trial.by.clone(),
        healthy: info.healthy,
        failures: info.failures,
        decisions: report.decisions,
        differing: report.differing,
        live_micros: report.live_micros,
        candidate_micros: report.candidate_micros,
    }
}

/// Of all modules in force or standing by: those that are not closed.
fn breakers(active: &Active) -> Vec<Breaker> {
    let proven = active.probation.as_ref().map(|probation| &probation.proven);
    let sets = std::iter::once(&active.live).chain(&active.previous).chain(proven);
    let serving = sets.flat_map(|set| Interface::ALL.map(|interface| &set.get(interface).module));
    let tried = active.canary.iter().chain(&active.shadow).map(|trial| &trial.module);
    let mut modules: Vec<&Arc<Module>> = Vec::new();
    for module in serving.chain(tried) {
        if !modules.iter().any(|known| Arc::ptr_eq(known, module)) {
            modules.push(module);
        }
    }
    let of = |module: &&Arc<Module>| {
        let (label, digest) = (module.label(), module.digest.to_string());
        let shown = move |open: OpenBreaker| Breaker {
            interface: open.interface.to_owned(),
            function: open.function.to_owned(),
            kind: open.kind,
            state: open.state.to_owned(),
            since_ms: open.since_ms,
            retry_in_ms: open.retry_in_ms,
            reason: open.reason,
            name: label.name.clone(),
            version: label.version.clone(),
            digest: digest.clone(),
        };
        module.breakers.open().into_iter().map(shown).collect::<Vec<_>>()
    };
    modules.iter().flat_map(of).collect()
}

impl Control {
    /// Which module serves which interface.
    pub(super) fn active_report(&self) -> ServingSet {
        live_set(&self.active().live)
    }

    /// What is in force and what is tried.
    pub(crate) fn set_report(&self) -> PolicySet {
        let active = self.active();
        let probation = active.probation.as_ref().filter(|probation| probation.is_on());
        let unsaved = self.unsaved();
        PolicySet {
            active: live_set(&active.live),
            previous: active.previous.as_ref().map(live_set),
            probation: probation.map(|probation| Probation {
                digests: probation.digests.iter().map(ToString::to_string).collect(),
                until_ms: probation.until_ms,
            }),
            canary: active.canary.as_deref().map(trial),
            shadow: active.shadow.as_deref().map(trial),
            breakers: breakers(&active),
            durable: unsaved.is_none(),
            unsaved,
        }
    }

    /// What holds after a command that took so long.
    pub(super) fn commanded(&self, times: &Times) -> Commanded {
        Commanded { set: self.set_report(), milliseconds: times.report() }
    }
}

impl Registry {
    /// The modules in force, each with the interfaces that it serves.
    pub fn modules(&self) -> Vec<ModuleInfo> {
        let active = self.control.active();
        let mut modules: Vec<ModuleInfo> = Vec::new();
        for interface in Interface::ALL {
            let info = active.live.get(interface).module.info();
            // One that fits in part is there twice: what serves, and what it cannot serve.
            let same = |known: &&mut ModuleInfo| (&known.digest, &known.unfit) == (&info.digest, &info.unfit);
            match modules.iter_mut().find(same) {
                Some(known) => known.interfaces.push(interface.name()),
                None => modules.push(ModuleInfo { interfaces: vec![interface.name()], ..info }),
            }
        }
        modules
    }

    /// Why what is in force is not written down, while it is not: after a restart what was before would serve. It is tried
    /// again every second.
    pub fn unsaved(&self) -> Option<String> {
        self.control.unsaved()
    }

    /// The same with the registry, the watched directory and the last events.
    pub fn status(&self) -> PolicyList {
        let set = self.control.set_report();
        let (live, registered) = (self.modules(), self.registered(&set));
        // What serves without having been uploaded.
        let is_listed = |info: &&ModuleInfo| registered.iter().any(|module| module.digest == info.digest);
        let mut modules: Vec<ModuleRecord> = live.iter().filter(|info| !is_listed(info)).map(built_in).collect();
        modules.extend(registered);
        PolicyList {
            set,
            modules,
            watched: lock(&self.control.watched).clone(),
            events: lock(&self.control.events).iter().cloned().collect(),
        }
    }

    /// The registry, youngest first.
    fn registered(&self, set: &PolicySet) -> Vec<ModuleRecord> {
        let live = self.modules();
        let store = self.control.store();
        let mut records: Vec<&Record> = store.records().collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.youth()));
        let condemned = lock(&self.control.condemned).clone();
        let module = |record: &Record| {
            let roles = [("canary", &set.canary), ("shadow", &set.shadow)];
            let is_of_it = |trial: &Option<Trial>| trial.as_ref().is_some_and(|trial| trial.digest == record.digest);
            let tried_as = roles.into_iter().find(|(_, trial)| is_of_it(trial)).map(|(role, _)| role);
            registered(record, &live, tried_as, condemned.get(&record.digest))
        };
        records.into_iter().map(module).collect()
    }

    /// The last `limit` lines of the audit log, newest first.
    pub fn audit(&self, limit: usize) -> Audit {
        let entry = |line: AuditLine| {
            let AuditLine { at_ms, by, what, module, outcome } = line;
            AuditEntry { at_ms, by, what, module, outcome }
        };
        Audit { audit: self.control.trail.last(limit).into_iter().map(entry).collect() }
    }
}

/// A module of the registry, with what is known of it while it serves.
fn registered(
    record: &Record,
    live: &[ModuleInfo],
    tried_as: Option<&str>,
    condemned: Option<&disk::Condemned>,
) -> ModuleRecord {
    let of_it = |info: &&ModuleInfo| info.digest == record.digest;
    let served = live.iter().filter(of_it).find(|info| info.unfit.is_none());
    let unfit = live.iter().filter(of_it).find_map(|info| info.unfit.clone());
    let healthy = served.map(|info| info.healthy && unfit.is_none()).or(unfit.as_ref().map(|_| false));
    let last_failure = unfit.clone().or(served.and_then(|info| info.last_failure.clone()));
    ModuleRecord {
        digest: record.digest.clone(),
        name: record.name.clone(),
        version: record.version.clone(),
        uploaded_at_ms: Some(record.uploaded_at_ms),
        by: Some(record.by.clone()),
        bytes: record.bytes,
        functions: record.functions,
        exports: record.exports.clone(),
        imports: record.imports.clone(),
        checks: Some(checks(&record.checks)),
        serves: served.map(|info| owned(&info.interfaces)).unwrap_or_default(),
        tried_as: tried_as.map(str::to_owned),
        healthy,
        failures: served.map(|info| info.failures),
        last_failure: last_failure.or_else(|| condemned.map(|condemned| condemned.reason.clone())),
        upload: Some(UploadState {
            order: record.order,
            condemned: condemned.map(|found| Condemned { at_ms: found.at_ms, reason: found.reason.clone() }),
            unfit,
        }),
    }
}

fn built_in(info: &ModuleInfo) -> ModuleRecord {
    ModuleRecord {
        digest: info.digest.clone(),
        name: info.name.clone(),
        version: info.version.clone(),
        bytes: info.bytes,
        functions: info.functions,
        exports: owned(&info.interfaces),
        imports: info.imports.clone(),
        serves: owned(&info.interfaces),
        healthy: Some(info.healthy),
        failures: Some(info.failures),
        last_failure: info.last_failure.clone(),
        ..ModuleRecord::default()
    }
}

/// What the gate has found, as operators see it.
pub(super) fn checks(checks: &disk::Checks) -> Checks {
    Checks { vectors: checks.vectors, compile_ms: checks.compile_ms }
}

fn owned(names: &[&'static str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
