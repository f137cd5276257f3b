//! Upload: a component passes the gate, and is kept if it is good.

use std::sync::Arc;

use weir_policy_vectors::Vectors;

use super::control::ControlError;
use super::disk::{Checks, Record};
use super::loader::Times;
use super::service::Registry;
use super::status::checks;
use crate::component::ComponentBytes;
use crate::module::{Compiled, Label, Module};
use crate::outline;
use crate::refusal::LoadError;
use weir_core::config::{is_free_module_name, is_module_name, is_reserved_module_name};
use weir_core::operators::Uploaded;

/// A component that is handed in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleUpload<'a> {
    /// The component.
    pub bytes: &'a [u8],
    /// Its name; else the one that it carries.
    pub name: Option<String>,
    /// Its version; else the one that it carries.
    pub version: Option<String>,
    /// Text of a file of test vectors, run besides those that it carries.
    pub vectors: Option<String>,
    /// Activate it when it is good.
    pub activate: bool,
}

/// What has passed the gate.
struct Admitted {
    record: Record,
    /// It was in the registry before.
    known: bool,
    /// The module, where starting it was part of the gate.
    module: Option<Arc<Module>>,
}

impl Registry {
    /// Takes a component into the registry if it passes the gate, and activates it if that is asked for. Takes as long as
    /// compiling does.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with the reason; nothing has changed then.
    pub fn upload(&self, by: &str, upload: &ModuleUpload<'_>) -> Result<Uploaded, ControlError> {
        self.upload_component(by, ComponentBytes::of(upload.bytes), upload)
    }

    /// The same of bytes that have been hashed.
    pub(super) fn upload_component(
        &self,
        by: &str,
        component: ComponentBytes<'_>,
        upload: &ModuleUpload<'_>,
    ) -> Result<Uploaded, ControlError> {
        let _gate = self.control.gate();
        let digest = component.digest.to_string();
        let mut times = Times::default();
        let result = self.admit(by, component, upload, &mut times);
        if result.is_err() {
            // Of what is not kept, nothing is kept.
            self.control.store().drop_code(&digest);
        }
        self.control.audit(by, "upload", Some(&digest), &result);
        let Admitted { record, known, module } = result?;
        if upload.activate {
            let activated = module
                .map_or_else(|| self.control.warm(&self.loader, component.digest, &mut times), Ok)
                .and_then(|module| self.activate_module(by, &module, &[], &mut times));
            self.control.audit(by, "activate", Some(&digest), &activated);
            activated?;
        }
        Ok(Uploaded {
            digest: record.digest,
            name: record.name,
            version: record.version,
            known,
            checks: Some(checks(&record.checks)),
            active: upload.activate.then(|| self.control.active_report()),
            milliseconds: times.report(),
        })
    }

    /// The gate.
    fn admit(
        &self,
        by: &str,
        component: ComponentBytes<'_>,
        upload: &ModuleUpload<'_>,
        times: &mut Times,
    ) -> Result<Admitted, ControlError> {
        check_names(upload)?;
        let vectors = upload.vectors.as_deref().map(outline::parse_vectors).transpose()?;
        let known = self.control.store().get(&component.digest.to_string()).cloned();
        match known {
            Some(record) => self.admit_known(record, component, upload, vectors.as_ref(), times),
            None => self.admit_new(by, component, upload, vectors.as_ref(), times),
        }
    }

    fn admit_known(
        &self,
        record: Record,
        component: ComponentBytes<'_>,
        upload: &ModuleUpload<'_>,
        vectors: Option<&Vectors>,
        times: &mut Times,
    ) -> Result<Admitted, ControlError> {
        let differs = upload.name.as_ref().is_some_and(|name| *name != record.name)
            || upload.version.is_some() && upload.version != record.version;
        if differs {
            let (name, version) = (&record.name, record.version.as_deref().unwrap_or("no version"));
            return Err(ControlError::Conflict(format!(
                "this component is known as {name} ({version}): delete it to upload it under another name or version"
            )));
        }
        if let Some(vectors) = vectors {
            let compiled = self.loader.compile(component, Some(&self.control.store()), times)?;
            self.loader.check_vectors(&compiled, &[vectors], times)?;
        }
        Ok(Admitted { record, known: true, module: None })
    }

    fn admit_new(
        &self,
        by: &str,
        component: ComponentBytes<'_>,
        upload: &ModuleUpload<'_>,
        vectors: Option<&Vectors>,
        times: &mut Times,
    ) -> Result<Admitted, ControlError> {
        let max = self.loader.config.modules_max;
        if self.control.store().records().count() >= max {
            return Err(ControlError::Conflict(format!(
                "the registry holds policy.modules_max = {max} modules: delete one (weir policy delete MODULE)"
            )));
        }
        let compiled = self.loader.compile(component, Some(&self.control.store()), times)?;
        let label = label(upload, &compiled);
        if is_reserved_module_name(&label.name) {
            return Err(LoadError::ReservedName { name: label.name }.into());
        }
        let grant = self.loader.grant(&compiled, &label.name)?;
        let files: Vec<&Vectors> = compiled.vectors().into_iter().chain(vectors).collect();
        let passed = self.loader.check_vectors(&compiled, &files, times)?;
        let module = self.loader.start(&compiled, label.clone(), grant, true, times)?;
        let record = Record {
            digest: component.digest.to_string(),
            name: label.name,
            version: label.version,
            uploaded_at_ms: self.control.clock.now_ms(),
            by: by.to_owned(),
            bytes: component.bytes.len(),
            functions: compiled.outline.functions,
            exports: compiled.interfaces().iter().map(|interface| interface.name().to_owned()).collect(),
            imports: compiled.imports().to_vec(),
            checks: Checks { vectors: passed, compile_ms: (times.of("compile") * 10.0).round() / 10.0 },
            order: self.control.store().next_order(),
            condemned: None,
        };
        let mut store = self.control.store_to_write();
        times
            .step("keep", || store.add(record.clone(), component.bytes, upload.vectors.as_deref()))
            .map_err(ControlError::Disk)?;
        Ok(Admitted { record, known: false, module: Some(module) })
    }
}

/// Whether the name and the version that were given can be a module's.
fn check_names(upload: &ModuleUpload<'_>) -> Result<(), ControlError> {
    for (what, name) in [("name", &upload.name), ("version", &upload.version)] {
        let is_good = if what == "name" { is_free_module_name } else { is_module_name };
        if name.as_deref().is_some_and(|name| !is_good(name)) {
            return Err(ControlError::Invalid(format!(
                "{what}: 1 to 64 letters, digits, hyphens, dots and underscores; a name is not only hexadecimal digits"
            )));
        }
    }
    match upload.name.as_deref().filter(|name| is_reserved_module_name(name)) {
        Some(name) => Err(LoadError::ReservedName { name: name.to_owned() }.into()),
        None => Ok(()),
    }
}

fn label(upload: &ModuleUpload<'_>, compiled: &Compiled) -> Label {
    let outline = &compiled.outline;
    Label {
        name: upload.name.clone().or_else(|| outline.name.clone()).unwrap_or_else(|| "unnamed".into()),
        version: upload.version.clone().or_else(|| outline.version.clone()),
    }
}
