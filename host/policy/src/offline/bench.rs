//! A component that is looked at by itself.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use weir_policy_vectors::{Call, Vectors};

use crate::compiler::Compiler;
use crate::component::ComponentBytes;
use crate::engine::Metering;
use crate::imports::{Grant, Imports, Settings};
use crate::module::{Compiled, Label, Module, Start};
use crate::refusal::LoadError;
use crate::registry::loader::{Loader, Times};
use crate::trial::vectors;
use weir_core::clock::Clock;
use weir_core::config::PolicyConfig;

/// A decision that is not as it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Line of the log, from 1; of a purity check, the number of the call.
    pub line: usize,
    /// What was called, such as `toggle.decide`.
    pub call: &'static str,
    /// The kind.
    pub kind: String,
    /// What was decided on.
    pub input: Value,
    /// The answer that was recorded, or of a fresh instance.
    pub before: Value,
    /// The answer now, or of a used instance.
    pub now: Value,
}

/// A component that is looked at by itself.
pub(super) struct Bench {
    pub(super) loader: Loader,
    pub(super) compiled: Arc<Compiled>,
    pub(super) label: Label,
}

impl Bench {
    pub(super) fn new(
        config: &PolicyConfig,
        compiler: Compiler,
        settings: Settings,
        metering: Metering,
        bytes: &[u8],
        label: &str,
    ) -> Result<Self, LoadError> {
        // One instance shows as much as several.
        let config = PolicyConfig { instances: 1, ..config.clone() };
        let loader = Loader::new(&config, settings, compiler, None, Clock::Real, metering)?;
        let compiled = loader.compile(ComponentBytes::of(bytes), None, &mut Times::default())?;
        let (name, version) = (compiled.outline.name.clone(), compiled.outline.version.clone());
        let label = Label { name: name.unwrap_or_else(|| label.to_owned()), version };
        Ok(Self { loader, compiled, label })
    }

    /// Starts it as a host would that grants everything and has nothing.
    pub(super) fn start(&self) -> Result<Module, LoadError> {
        let imports = Imports::of_host(&self.loader.settings, &self.label.name, Grant::everything(), None, false);
        self.start_with(imports)
    }

    pub(super) fn start_with(&self, imports: Imports) -> Result<Module, LoadError> {
        let start = Start { label: self.label.clone(), imports, instances: 1, clock: Clock::Real };
        Module::start(&self.loader.engine, &self.loader.config, &self.compiled, start)
    }

    /// Starts it as `vectors` say.
    pub(super) fn with_vectors(&self, vectors: &Vectors) -> Result<Module, LoadError> {
        vectors::stub(&self.loader.engine, &self.loader.config, &self.compiled, vectors)
    }
}

/// What a component is called by its file.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "unnamed".into(), |stem| stem.to_string_lossy().into_owned())
}

/// One difference of a call.
pub(super) fn difference(line: usize, call: &Call, input: Value, before: Value, now: Value) -> Difference {
    Difference { line, call: call.name(), kind: call.kind().to_owned(), input, before, now }
}
