//! What operators see: the active set, what is tried, the registry, what has happened.

use std::sync::Arc;

use serde_json::{Value, json};

use super::control::{Control, lock};
use super::disk::Record;
use super::service::Registry;
use super::set::{Active, LiveSet, Serving};
use crate::policy::breaker::OpenBreaker;
use crate::policy::interface::Interface;
use crate::policy::module::{Module, ModuleInfo};
use crate::policy::trial::Trial;

fn serving(serving: &Serving) -> Value {
    let info = serving.module.info();
    json!({
        "digest": info.digest,
        "name": info.name,
        "version": info.version,
        "since_ms": serving.since_ms,
        "by": serving.by,
        "unfit": info.unfit,
    })
}

fn live_set(set: &LiveSet) -> Value {
    let by_interface = |interface: Interface| (interface.name().to_owned(), serving(set.get(interface)));
    Value::Object(Interface::ALL.into_iter().map(by_interface).collect())
}

fn trial(trial: &Trial) -> Value {
    let (info, report) = (trial.module.info(), trial.report());
    json!({
        "digest": info.digest,
        "name": info.name,
        "version": info.version,
        "share": trial.share,
        "since_ms": trial.since_ms,
        "by": trial.by,
        "healthy": info.healthy,
        "failures": info.failures,
        "decisions": report["decisions"],
        "differing": report["differing"],
        "live_micros": report["live_micros"],
        "candidate_micros": report["candidate_micros"],
    })
}

/// Of all modules in force or standing by: those that are not closed.
fn breakers(active: &Active) -> Vec<Value> {
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
        let shown = move |breaker: OpenBreaker| {
            let mut shown = json!(breaker);
            shown["name"] = json!(label.name);
            shown["version"] = json!(label.version);
            shown["digest"] = json!(digest);
            shown
        };
        module.breakers.open().into_iter().map(shown).collect::<Vec<_>>()
    };
    modules.iter().flat_map(of).collect()
}

impl Control {
    /// Which module serves which interface.
    pub(super) fn active_report(&self) -> Value {
        live_set(&self.active().live)
    }

    /// What is in force and what is tried.
    pub(super) fn set_report(&self) -> Value {
        let active = self.active();
        let probation = active.probation.as_ref().filter(|probation| probation.is_on());
        json!({
            "active": live_set(&active.live),
            "previous": active.previous.as_ref().map(live_set),
            "probation": probation.map(|probation| {
                let digests: Vec<String> = probation.digests.iter().map(ToString::to_string).collect();
                json!({ "digests": digests, "until_ms": probation.until_ms })
            }),
            "canary": active.canary.as_deref().map(trial),
            "shadow": active.shadow.as_deref().map(trial),
            "breakers": breakers(&active),
            "durable": self.unsaved().is_none(),
            "unsaved": self.unsaved(),
        })
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
    pub fn status(&self) -> Value {
        let mut status = self.control.set_report();
        let (live, modules) = (self.modules(), self.registered(&status));
        // What serves without having been uploaded.
        let unlisted = live.iter().filter(|info| !modules.iter().any(|module| module["digest"] == json!(info.digest)));
        let unlisted: Vec<Value> = unlisted.map(built_in).collect();
        status["modules"] = Value::Array(unlisted.into_iter().chain(modules).collect());
        status["watched"] = json!(*lock(&self.control.watched));
        status["events"] = json!(*lock(&self.control.events));
        status
    }

    /// The registry, youngest first.
    fn registered(&self, set: &Value) -> Vec<Value> {
        let live = self.modules();
        let store = self.control.store();
        let mut records: Vec<&Record> = store.records().collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.youth()));
        let condemned = lock(&self.control.condemned).clone();
        let module = |record: &Record| {
            let of_it = |info: &&ModuleInfo| info.digest == record.digest;
            let served = live.iter().filter(of_it).find(|info| info.unfit.is_none());
            let unfit = live.iter().filter(of_it).find_map(|info| info.unfit.clone());
            let tried = ["canary", "shadow"].into_iter().find(|what| set[what]["digest"] == json!(record.digest));
            let mut module = json!(record);
            module["serves"] = json!(served.map(|info| info.interfaces.clone()).unwrap_or_default());
            module["tried_as"] = json!(tried);
            let healthy = served.map(|info| info.healthy && unfit.is_none());
            module["healthy"] = json!(healthy.or(unfit.as_ref().map(|_| false)));
            module["failures"] = served.map_or(Value::Null, |info| info.failures.into());
            let condemned = condemned.get(&record.digest);
            let last = unfit.clone().or(served.and_then(|info| info.last_failure.clone()));
            module["last_failure"] = json!(last.or_else(|| condemned.map(|condemned| condemned.reason.clone())));
            module["condemned"] = json!(condemned);
            module["unfit"] = json!(unfit);
            module
        };
        records.into_iter().map(module).collect()
    }

    /// The last `limit` lines of the audit log, newest first.
    pub fn audit(&self, limit: usize) -> Value {
        json!({ "audit": self.control.trail.last(limit) })
    }
}

fn built_in(info: &ModuleInfo) -> Value {
    json!({
        "digest": info.digest,
        "name": info.name,
        "version": info.version,
        "uploaded_at_ms": null,
        "by": null,
        "bytes": info.bytes,
        "functions": info.functions,
        "exports": info.interfaces,
        "imports": info.imports,
        "checks": null,
        "serves": info.interfaces,
        "tried_as": null,
        "healthy": info.healthy,
        "failures": info.failures,
        "last_failure": info.last_failure,
    })
}
