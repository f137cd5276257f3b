//! Upload: a component passes the gate, and is kept if it is good.

use std::sync::{Arc, PoisonError};

use serde_json::{Value, json};
use weir_policy_vectors::Vectors;

use super::control::{ControlError, ModuleUpload, lock};
use super::loader::Times;
use super::registry::{Checks, Record};
use crate::clock::Clock;
use crate::config::{is_free_module_name, is_module_name, is_reserved_module_name};
use crate::model::Digest;
use crate::policy::module::{Compiled, Label, Module, digest_of};
use crate::policy::{LoadError, Policies, outline};

impl Policies {
    /// Takes a component into the registry if it passes the gate, and activates it if that is asked for. Takes as long as
    /// compiling does.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with the reason; nothing has changed then.
    pub fn upload(&self, by: &str, upload: &ModuleUpload<'_>) -> Result<Value, ControlError> {
        let _gate = lock(&self.control.gate);
        let digest = digest_of(upload.bytes);
        let result = self.take_in(by, digest, upload);
        if result.is_err() {
            // Of what is not kept, nothing is kept.
            self.control.registry().drop_code(&digest.to_string());
        }
        self.control.audit(by, "upload", Some(&digest.to_string()), &result);
        let (mut answer, module, mut times) = result?;
        if upload.activate {
            let activated = module.and_then(|module| self.activate_module(by, &module, &[], &mut times));
            self.control.audit(by, "activate", Some(&digest.to_string()), &activated);
            activated?;
        }
        answer["active"] = if upload.activate { self.active_report() } else { Value::Null };
        answer["milliseconds"] = times.report();
        Ok(answer)
    }

    /// The gate: the answer so far, the started module, the times.
    #[allow(clippy::type_complexity, reason = "used once, by its only caller")]
    fn take_in(
        &self,
        by: &str,
        digest: Digest,
        upload: &ModuleUpload<'_>,
    ) -> Result<(Value, Result<Arc<Module>, ControlError>, Times), ControlError> {
        check_names(upload)?;
        let mut times = Times::default();
        let vectors = upload.vectors.as_deref().map(outline::parse_vectors).transpose()?;
        let known = self.control.registry().get(&digest.to_string()).cloned();
        if let Some(known) = known {
            let differs = upload.name.as_ref().is_some_and(|name| *name != known.name)
                || upload.version.is_some() && upload.version != known.version;
            if differs {
                let (name, version) = (&known.name, known.version.as_deref().unwrap_or("no version"));
                return Err(ControlError::Conflict(format!(
                    "this component is known as {name} ({version}): delete it to upload it under another name or version"
                )));
            }
            if let Some(vectors) = &vectors {
                let compiled = self.loader.compile(upload.bytes, Some(&self.control.registry()), &mut times)?;
                self.loader.check_vectors(&compiled, &[vectors], &mut times)?;
            }
            let module = if upload.activate { self.warm(digest, &mut times) } else { Err(not_asked()) };
            return Ok((upload_report(&known, true), module, times));
        }
        if self.control.registry().records().count() >= self.loader.config.modules_max {
            let max = self.loader.config.modules_max;
            return Err(ControlError::Conflict(format!(
                "the registry holds policy.modules_max = {max} modules: delete one (weir policy delete MODULE)"
            )));
        }
        let compiled = {
            let registry = self.control.registry();
            self.loader.compile(upload.bytes, Some(&registry), &mut times)?
        };
        let label = label(upload, &compiled);
        if is_reserved_module_name(&label.name) {
            return Err(LoadError::ReservedName { name: label.name }.into());
        }
        self.loader.check_grant(&compiled, &label.name)?;
        let files: Vec<&Vectors> = compiled.vectors().into_iter().chain(&vectors).collect();
        let passed = self.loader.check_vectors(&compiled, &files, &mut times)?;
        let module = self.loader.start(&compiled, label.clone(), true, &mut times)?;
        let record = Record {
            digest: digest.to_string(),
            name: label.name,
            version: label.version,
            uploaded_at_ms: Clock::Real.now_ms(),
            by: by.to_owned(),
            bytes: upload.bytes.len(),
            functions: compiled.outline.functions,
            exports: compiled.interfaces().iter().map(|interface| interface.name().to_owned()).collect(),
            imports: compiled.imports().to_vec(),
            checks: Checks { vectors: passed, compile_ms: (times.of("compile") * 10.0).round() / 10.0 },
            order: self.control.registry().next_order(),
            condemned: None,
        };
        let report = upload_report(&record, false);
        let mut registry = self.control.registry.write().unwrap_or_else(PoisonError::into_inner);
        times
            .step("keep", || registry.add(record, upload.bytes, upload.vectors.as_deref()))
            .map_err(ControlError::Disk)?;
        Ok((report, Ok(module), times))
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

fn not_asked() -> ControlError {
    ControlError::Conflict("activation was not asked for".into())
}

fn label(upload: &ModuleUpload<'_>, compiled: &Compiled) -> Label {
    let outline = &compiled.outline;
    Label {
        name: upload.name.clone().or_else(|| outline.name.clone()).unwrap_or_else(|| "unnamed".into()),
        version: upload.version.clone().or_else(|| outline.version.clone()),
    }
}

fn upload_report(record: &Record, known: bool) -> Value {
    json!({
        "digest": record.digest,
        "name": record.name,
        "version": record.version,
        "known": known,
        "checks": record.checks,
    })
}
