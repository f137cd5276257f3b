//! The border of a component: what it imports and exports, by name, and whether weir has that.

use std::collections::HashMap;

use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::engine::PolicyEngine;
use super::interface::Interface;
use super::nearest::nearest;
use super::refusal::{LoadError, listed};
use super::said::clip;
use super::wasi;

/// Names of the interfaces that every module may import, without their version.
const FREE_IMPORTS: [&str; 3] = ["weir:policy/config", "weir:policy/log", "weir:policy/types"];
/// Those that must be granted.
const GRANTED_IMPORTS: [&str; 2] = ["weir:policy/redis", "weir:policy/sql"];

fn is_one_of(names: &[&str], import: &str) -> bool {
    names.contains(&import.split('@').next().unwrap_or(import))
}

/// Whether weir has an interface of this name.
fn is_offered(import: &str) -> bool {
    is_one_of(&FREE_IMPORTS, import) || is_granted_import(import) || wasi::is_offered(import)
}

/// Whether it must be granted, because it does I/O.
pub(super) fn is_granted_import(import: &str) -> bool {
    is_one_of(&GRANTED_IMPORTS, import)
}

/// Names of what a component exports besides, that are kept.
const IGNORED_MAX: usize = 20;

/// Names of what a component imports and exports.
pub(super) struct Border {
    pub(super) imports: Vec<String>,
    pub(super) known: Vec<Interface>,
    pub(super) ignored: Vec<String>,
    /// What the known interfaces hold.
    functions: HashMap<Interface, Vec<String>>,
}

impl Border {
    /// Of a component; refused where it cannot be one of ours.
    pub(super) fn of(engine: &PolicyEngine, component: &Component) -> Result<Self, LoadError> {
        let ty = component.component_type();
        let imports: Vec<String> = ty.imports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
        if let Some(name) = imports.iter().find(|name| !is_offered(name)) {
            return Err(LoadError::UnknownImport { name: name.clone() });
        }
        let exports: Vec<String> = ty.exports(&engine.engine).map(|(name, _)| name.to_owned()).collect();
        let is = |interface: Interface| component.get_export_index(None, interface.export_name()).is_some();
        let known: Vec<Interface> = Interface::ALL.into_iter().filter(|&interface| is(interface)).collect();
        if known.is_empty() {
            return Err(LoadError::NoExports { found: exports });
        }
        if let Some((found, nearest)) = exports.iter().find_map(|name| misspelt(name, &known)) {
            return Err(LoadError::MisspeltExport { found, nearest });
        }
        let ours = |name: &String| known.iter().any(|interface| name.starts_with(interface.export_prefix()));
        let ignored = exports.into_iter().filter(|name| !ours(name)).map(|name| clip(&name, 100));
        let ignored = ignored.take(IGNORED_MAX).collect();
        let functions = known.iter().map(|interface| (*interface, functions(engine, component, *interface))).collect();
        Ok(Self { imports, known, ignored, functions })
    }
}

/// Names of what an exported interface holds.
fn functions(engine: &PolicyEngine, component: &Component, interface: Interface) -> Vec<String> {
    let Some((ComponentItem::ComponentInstance(instance), _)) = component.get_export(None, interface.export_name())
    else {
        return Vec::new();
    };
    let functions = instance.exports(&engine.engine);
    let functions = functions.filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
    functions.map(|(name, _)| name.to_owned()).collect()
}

/// An export that can only be meant as an interface of ours that is not among those that were found: its name, and ours.
fn misspelt(export: &str, known: &[Interface]) -> Option<(String, &'static str)> {
    let name = export.strip_prefix("weir:policy/")?.split('@').next()?;
    let missing = Interface::ALL.into_iter().filter(|interface| !known.contains(interface));
    let nearest = nearest(name, missing.map(Interface::name))?;
    // The name of an interface with another version is no mistake: this weir does not serve that one.
    let interface = Interface::from_name(nearest).filter(|_| nearest != name)?;
    Some((export.to_owned(), interface.export_name()))
}

/// What an interface holds in place of a function that is missing.
pub(super) fn instead(interface: Interface, border: &Border) -> String {
    let found = border.functions.get(&interface).map_or(&[][..], Vec::as_slice);
    let missing = interface.functions().iter().find(|name| !found.iter().any(|found| found == *name));
    let Some(missing) = missing else { return String::new() };
    let expected = interface.functions().join(", ");
    let near = nearest(missing, found.iter().map(String::as_str));
    let near = near.map_or_else(String::new, |near| format!("; {} is near {missing}", clip(near, 100)));
    format!(" (expected {expected}; it has {}{near})", listed(found))
}
