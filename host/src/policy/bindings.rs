//! The only generated bindings of the host, and the implementations of what a module may import.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{Func, HasSelf, Instance, InstancePre, Linker};

use super::imports::Imports;
use super::instance::MemoryLimit;
use super::interface::Interface;
use super::log_gate::LogGate;
use super::said::{Said, Stream};
use super::turn::Turn;
use super::wasi;

#[allow(missing_docs, reason = "generated from the WIT, which is documented")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "policy",
        // What goes in is borrowed: ids of text cross without a copy on the host's side.
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub(super) use generated::exports::weir::policy::{admission, cache, counter, delivery, flush, ingest, toggle};
pub(super) use generated::weir::policy::types::{Id, RateLimit};
use generated::weir::policy::{config, log};
pub(super) use generated::weir::policy::{redis, sql};

/// Settings of the kinds, by kind and key.
pub(super) type Settings = Arc<HashMap<String, BTreeMap<String, String>>>;

/// Names of the interfaces that every module may import, without their version.
const FREE_IMPORTS: [&str; 3] = ["weir:policy/config", "weir:policy/log", "weir:policy/types"];
/// Those that must be granted.
const GRANTED_IMPORTS: [&str; 2] = ["weir:policy/redis", "weir:policy/sql"];

fn is_one_of(names: &[&str], import: &str) -> bool {
    names.contains(&import.split('@').next().unwrap_or(import))
}

/// Whether weir has an interface of this name.
pub(super) fn is_offered(import: &str) -> bool {
    is_one_of(&FREE_IMPORTS, import) || is_granted_import(import) || wasi::is_offered(import)
}

/// Whether it must be granted, because it does I/O.
pub(super) fn is_granted_import(import: &str) -> bool {
    is_one_of(&GRANTED_IMPORTS, import)
}

/// Each interface and the module of its bindings.
macro_rules! exports {
    ($($interface:ident => $module:ident),+ $(,)?) => {
        /// Where a component has the functions of the interfaces that it exports.
        #[derive(Default)]
        pub(super) struct ExportIndices {
            $($module: Option<$module::GuestIndices>,)+
        }

        /// The interfaces that an instance exports.
        pub(super) struct Exports {
            $(pub(super) $module: Option<$module::Guest>,)+
        }

        impl ExportIndices {
            /// Finds the functions of an interface that it exports.
            pub(super) fn find(
                &mut self,
                interface: Interface,
                component: &InstancePre<HostState>,
            ) -> wasmtime::Result<()> {
                match interface {
                    $(Interface::$interface => self.$module = Some($module::GuestIndices::new(component)?),)+
                }
                Ok(())
            }

            /// Leaves out an interface.
            pub(super) fn forget(&mut self, interface: Interface) {
                match interface {
                    $(Interface::$interface => self.$module = None,)+
                }
            }

            /// Takes them from an instance.
            pub(super) fn load(&self, store: &mut Store<HostState>, instance: &Instance) -> wasmtime::Result<Exports> {
                Ok(Exports {
                    $($module: self.$module.as_ref().map(|known| known.load(&mut *store, instance)).transpose()?,)+
                })
            }
        }
    };
}

exports!(Toggle =>toggle, Counter =>counter, Ingest =>ingest, Delivery =>delivery, Flush =>flush, Admission =>admission, Cache =>cache);

/// What an instance's imports see.
pub(super) struct HostState {
    /// Answers everything else.
    pub(super) imports: Imports,
    /// Bounds `log.log`.
    pub(super) log: Arc<LogGate>,
    /// What was written in the present call.
    pub(super) said: Said,
    /// Bounds the linear memories of the instance.
    pub(super) memory: MemoryLimit,
    /// How long the call may go on, and where.
    pub(super) turn: Turn,
}

/// Everything that a module may import.
pub(super) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    log::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    config::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    redis::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    sql::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)
}

impl log::Host for HostState {
    fn log(&mut self, level: log::Level, message: String) {
        let level = match level {
            log::Level::Debug => tracing::Level::DEBUG,
            log::Level::Info => tracing::Level::INFO,
            log::Level::Warn => tracing::Level::WARN,
            log::Level::Error => tracing::Level::ERROR,
        };
        self.said.line(level, &message);
        self.log.write(level, &message);
    }
}

impl HostState {
    /// What a runtime writes to a standard stream: each whole line is one of the log.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        for line in self.said.bytes(stream, bytes) {
            self.log.write(stream.level(), &line);
        }
    }
}

impl config::Host for HostState {
    fn get(&mut self, kind: String, key: String) -> Option<String> {
        self.imports.settings.get(&kind)?.get(&key).cloned()
    }
}

/// Which functions of an interface an instance does not export as the WIT says, in words. Empty when all are right.
pub(super) fn wrong_functions(interface: Interface, store: &mut Store<HostState>, instance: &Instance) -> Vec<String> {
    let Some(exported) = instance.get_export_index(&mut *store, None, interface.export_name()) else {
        return vec!["it is no instance".into()];
    };
    let mut wrong = Vec::new();
    let mut check = |name: &str, typed: &dyn Fn(&mut Store<HostState>, &Func) -> wasmtime::Result<()>| match instance
        .get_export_index(&mut *store, Some(&exported), name)
    {
        None => wrong.push(format!("{name} is missing")),
        Some(index) => match instance.get_func(&mut *store, index) {
            None => wrong.push(format!("{name} is no function")),
            Some(function) => {
                if let Err(error) = typed(store, &function) {
                    wrong.push(format!("{name}: {error:#}"));
                }
            }
        },
    };
    match interface {
        Interface::Toggle => check("decide", &|store, function| {
            function.typed::<(&str, u64, &[toggle::Intent<'_>]), (Vec<toggle::Rule>,)>(store).map(drop)
        }),
        Interface::Counter => check("decide", &|store, function| {
            function.typed::<(&str, u64, &[counter::Hit<'_>]), (Vec<counter::HitRule>,)>(store).map(drop)
        }),
        Interface::Ingest => check("validate", &|store, function| {
            type Verdicts = Vec<Result<Option<String>, Vec<ingest::Violation>>>;
            function.typed::<(&str, u64, &[ingest::Document<'_>]), (Verdicts,)>(store).map(drop)
        }),
        Interface::Delivery => {
            check("fields", &|store, function| function.typed::<(&str, &str), (Vec<String>,)>(store).map(drop));
            check("enabled", &|store, function| {
                type Asked<'a> = (&'a str, &'a str, u64, u32, &'a [delivery::Column<'a>]);
                function.typed::<Asked<'_>, (Vec<bool>,)>(store).map(drop)
            });
        }
        Interface::Flush => {
            check("plan", &|store, function| {
                function.typed::<(&str, u64, flush::Backlog), (flush::FlushPlan,)>(store).map(drop)
            });
            check("coalesce", &|store, function| {
                function.typed::<(&str, &[flush::Entry<'_>]), (Vec<u32>,)>(store).map(drop)
            });
        }
        Interface::Admission => {
            check("place", &|store, function| {
                type Arrivals<'a> = (&'a str, u64, &'a [admission::Arrival<'a>]);
                function.typed::<Arrivals<'_>, (Vec<admission::Placement>,)>(store).map(drop)
            });
            check("plan", &|store, function| {
                function.typed::<(&str, u64, admission::Room), (admission::AdmissionPlan,)>(store).map(drop)
            });
        }
        Interface::Cache => check("eligible", &|store, function| {
            function.typed::<(&str, u64, cache::ReadProfile), (cache::CacheRule,)>(store).map(drop)
        }),
    }
    wrong
}
