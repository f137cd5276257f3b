//! How much fuel a call uses: found after it, by another instance of the module that counts.

use std::sync::Arc;

use weir_policy_vectors::{Call, Granted};

use crate::builtin;
use crate::call::Role;
use crate::component::ComponentBytes;
use crate::imports::Imports;
use crate::module::{Module, Start};
use crate::outline;
use crate::registry::control::Control;
use crate::registry::loader::{Loader, Times};
use weir_core::clock::Clock;
use weir_core::model::Digest;

/// Says how much fuel a call uses: the module that serves does not count it, so the call is run again where it is.
pub(crate) struct Metered {
    /// What the module that serves was loaded by.
    of: Arc<Loader>,
    loader: Option<Loader>,
    /// The one that was asked last.
    module: Option<Arc<Module>>,
    /// The one that could not be started: it is not tried for every decision.
    failed: Option<Digest>,
}

impl Metered {
    pub(crate) fn new(of: Arc<Loader>) -> Self {
        Self { of, loader: None, module: None, failed: None }
    }

    /// `None` for a module that does I/O: its call cannot be repeated.
    pub(super) fn fuel(&mut self, control: &Control, module: &Module, call: &Call) -> Option<u64> {
        if module.does_io || self.failed == Some(module.digest) {
            return None;
        }
        if self.module.as_ref().is_none_or(|known| known.digest != module.digest) {
            self.module = self.start(control, module);
            self.failed = self.module.is_none().then_some(module.digest);
        }
        self.module.as_ref()?.ask(Role::Test, call, None).ok()?.fuel
    }

    fn start(&mut self, control: &Control, module: &Module) -> Option<Arc<Module>> {
        if self.loader.is_none() {
            self.loader = self.of.metered().ok();
        }
        let (loader, config) = (self.loader.as_ref()?, &self.of.config);
        let stored = control.store().bytes(&module.digest.to_string());
        let bytes = match stored {
            Ok((_, bytes)) => bytes,
            Err(_) if module.digest == builtin::digest() => builtin::COMPONENT.to_vec(),
            Err(_) => outline::read(config.component.as_ref()?, config.module_bytes_max).ok()?,
        };
        let compiled = loader.compile(ComponentBytes::of(&bytes), None, &mut Times::default()).ok()?;
        // Muted: its lines have been written once.
        let imports = Imports::of_vectors(Arc::clone(&self.of.settings), &Granted::default());
        let start = Start { label: module.label(), imports, instances: 1, clock: Clock::Real };
        let start = || Module::start(&loader.engine, config, &compiled, start);
        (compiled.digest == module.digest).then(start)?.ok().map(Arc::new)
    }
}
