//! The gate that every component passes: size and shape, compiled in bounded time, imports and exports, test vectors.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use weir_policy_vectors::Vectors;

use super::disk::ModuleStore;
use crate::compiler::Compiler;
use crate::component::ComponentBytes;
use crate::decision::KindPolicy;
use crate::engine::{Metering, PolicyEngine};
use crate::grants::Capabilities;
use crate::imports::{Grant, Imports, Settings};
use crate::module::{Compiled, Label, Module, Start, Unfit};
use crate::outline;
use crate::refusal::LoadError;
use crate::trial::vectors;
use weir_core::clock::Clock;
use weir_core::config::PolicyConfig;
use weir_core::operators::Milliseconds;

/// Times of the steps, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Times {
    steps: Vec<(&'static str, f64)>,
}

impl Times {
    /// Runs a step and notes its time.
    pub(crate) fn step<T>(&mut self, name: &'static str, step: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = step();
        self.steps.push((name, started.elapsed().as_secs_f64() * 1_000.0));
        done
    }

    /// Of the step of this name; 0 where there was none.
    pub(crate) fn of(&self, name: &str) -> f64 {
        self.steps.iter().filter(|(step, _)| *step == name).map(|(_, time)| time).sum()
    }

    /// By step, and all together.
    pub(crate) fn report(&self) -> Milliseconds {
        let round = |time: f64| (time * 1_000.0).round() / 1_000.0;
        let steps = self.steps.iter().map(|(step, _)| ((*step).to_owned(), round(self.of(step))));
        let total = ("total".to_owned(), round(self.steps.iter().map(|(_, time)| time).sum()));
        steps.chain([total]).collect()
    }
}

/// Makes modules of components.
pub(crate) struct Loader {
    pub(crate) engine: PolicyEngine,
    pub(crate) config: PolicyConfig,
    pub(crate) settings: Settings,
    compiler: Compiler,
    host: Option<(Capabilities, Handle)>,
    clock: Clock,
    compatibility: String,
}

impl Loader {
    pub(crate) fn new(
        config: &PolicyConfig,
        settings: Settings,
        compiler: Compiler,
        host: Option<(Capabilities, Handle)>,
        clock: Clock,
        metering: Metering,
    ) -> Result<Self, LoadError> {
        let engine = PolicyEngine::new(config, metering)?;
        let compatibility = engine.compatibility();
        Ok(Self { engine, config: config.clone(), settings, compiler, host, clock, compatibility })
    }

    /// The same for calls that are metered, and without store and SQL.
    pub(crate) fn metered(&self) -> Result<Self, LoadError> {
        let (settings, compiler) = (Arc::clone(&self.settings), self.compiler.clone());
        Self::new(&self.config, settings, compiler, None, self.clock.clone(), Metering::Fuel)
    }

    /// Checks size and shape, and compiles; where `store` has compiled code of it, takes that.
    pub(crate) fn compile(
        &self,
        component: ComponentBytes<'_>,
        store: Option<&ModuleStore>,
        times: &mut Times,
    ) -> Result<Arc<Compiled>, LoadError> {
        let outline = times.step("validate", || outline::inspect(&self.config, component.bytes))?;
        let name = component.digest.to_string();
        let cached = store.and_then(|store| store.code(&self.compatibility, &name));
        let make = |code: &[u8], outline| Compiled::new(&self.engine, code, outline, component).map(Arc::new);
        if let Some(code) = cached {
            return times.step("load", || make(&code, outline));
        }
        let code = times.step("compile", || self.compiler.compile(&self.engine, &self.config, component.bytes))?;
        let compiled = times.step("load", || make(&code, outline))?;
        if let Some(store) = store {
            times.step("cache", || store.keep_code(&self.compatibility, &name, &code));
        }
        Ok(compiled)
    }

    /// What is granted to a module of this name; refused where it imports more.
    pub(crate) fn grant(&self, compiled: &Compiled, name: &str) -> Result<Grant, LoadError> {
        let grant = Grant::of(&self.config, name, &compiled.digest.to_string());
        match compiled.not_granted(&grant) {
            Some(import) => Err(LoadError::NotGranted { import: import.to_owned(), module: name.to_owned() }),
            None => Ok(grant),
        }
    }

    /// Runs test vectors on it: how many it passed.
    pub(crate) fn check_vectors(
        &self,
        compiled: &Arc<Compiled>,
        files: &[&Vectors],
        times: &mut Times,
    ) -> Result<usize, LoadError> {
        times.step("vectors", || vectors::gate(&self.engine, &self.config, compiled, files))
    }

    /// Starts it with warm instances, as [`Loader::grant`] lets it. `write` is false for a shadow, which changes nothing.
    pub(crate) fn start(
        &self,
        compiled: &Compiled,
        label: Label,
        grant: Grant,
        write: bool,
        times: &mut Times,
    ) -> Result<Arc<Module>, LoadError> {
        let start = self.start_of(label, grant, write);
        times.step("start", || Module::start(&self.engine, &self.config, compiled, start)).map(Arc::new)
    }

    /// Loads an uploaded module that was found good before, and runs its vectors again: this may be another weir.
    pub(crate) fn load(
        &self,
        store: &ModuleStore,
        digest: &str,
        write: bool,
        times: &mut Times,
    ) -> Result<Arc<Module>, LoadError> {
        let (compiled, label) = self.compile_known(store, digest, times)?;
        let damaged = |reason: String| LoadError::Unreadable { path: store.dir().to_owned(), reason };
        let uploaded = store.cases_of(digest).map_err(damaged)?;
        let uploaded = uploaded.as_deref().map(outline::parse_vectors).transpose()?;
        let files: Vec<&Vectors> = compiled.vectors().into_iter().chain(&uploaded).collect();
        self.check_vectors(&compiled, &files, times)?;
        let grant = self.grant(&compiled, &label.name)?;
        self.start(&compiled, label, grant, write, times)
    }

    /// The same, of which what does not fit this weir is left out, with the reason.
    pub(crate) fn start_what_fits(
        &self,
        compiled: &Compiled,
        label: Label,
        times: &mut Times,
    ) -> Result<(Arc<Module>, Vec<Unfit>), LoadError> {
        let grant = self.grant(compiled, &label.name)?;
        let start = self.start_of(label, grant, true);
        let start = || Module::start_what_fits(&self.engine, &self.config, compiled, start);
        times.step("start", start).map(|(module, unfit)| (Arc::new(module), unfit))
    }

    fn start_of(&self, label: Label, grant: Grant, write: bool) -> Start {
        let imports = Imports::of_host(&self.settings, &label.name, grant, self.host.as_ref(), write);
        Start { label, imports, instances: self.config.instances, clock: self.clock.clone() }
    }

    /// Loads what was active when the host ended, as far as it fits: this may be another weir. Its vectors are not run: they
    /// hold a wall clock's deadlines, and the start of a machine is when it is busiest.
    pub(crate) fn restore(&self, store: &ModuleStore, digest: &str) -> Result<(Arc<Module>, Vec<Unfit>), LoadError> {
        let mut times = Times::default();
        let (compiled, label) = self.compile_known(store, digest, &mut times)?;
        self.start_what_fits(&compiled, label, &mut times)
    }

    /// The same for one that only stood by, which must fit as a whole. `write` is false for a shadow.
    pub(crate) fn restore_whole(
        &self,
        store: &ModuleStore,
        digest: &str,
        write: bool,
    ) -> Result<Arc<Module>, LoadError> {
        let mut times = Times::default();
        let (compiled, label) = self.compile_known(store, digest, &mut times)?;
        let grant = self.grant(&compiled, &label.name)?;
        self.start(&compiled, label, grant, write, &mut times)
    }

    fn compile_known(
        &self,
        store: &ModuleStore,
        digest: &str,
        times: &mut Times,
    ) -> Result<(Arc<Compiled>, Label), LoadError> {
        let damaged = |reason: String| LoadError::Unreadable { path: store.dir().to_owned(), reason };
        let known = store.get(digest).ok_or_else(|| damaged(format!("there is no module {digest}")))?;
        let label = Label { name: known.name.clone(), version: known.version.clone() };
        let (digest, bytes) = times.step("read", || store.bytes(digest)).map_err(damaged)?;
        Ok((self.compile(ComponentBytes { digest, bytes: &bytes }, Some(store), times)?, label))
    }
}

/// Settings of the kinds, as modules see them.
pub(crate) fn settings<'a>(kinds: impl Iterator<Item = &'a KindPolicy>) -> Settings {
    Arc::new(kinds.map(|kind| (kind.kind.clone(), kind.settings.clone())).collect::<HashMap<_, _>>())
}
