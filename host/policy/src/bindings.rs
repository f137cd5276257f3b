//! The only generated bindings of the host, and which functions of an instance are as they say.

use wasmtime::Store;
use wasmtime::component::{Func, Instance, InstancePre};

use super::interface::Interface;

#[allow(missing_docs, reason = "generated from the WIT, which is documented")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "policy",
        // What goes in is borrowed: ids of text cross without a copy on the host's side.
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub(super) use generated::exports::weir::policy::{admission, cache, counter, delivery, flush, ingest, toggle};
pub(super) use generated::weir::policy::types::{Id, RateLimit};
pub(super) use generated::weir::policy::{config, log, redis, sql};

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
            pub(super) fn find<T: 'static>(
                &mut self,
                interface: Interface,
                component: &InstancePre<T>,
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
            pub(super) fn load<T: Send + 'static>(
                &self,
                store: &mut Store<T>,
                instance: &Instance,
            ) -> wasmtime::Result<Exports> {
                Ok(Exports {
                    $($module: self.$module.as_ref().map(|known| known.load(&mut *store, instance)).transpose()?,)+
                })
            }
        }
    };
}

exports!(
    Toggle => toggle,
    Counter => counter,
    Ingest => ingest,
    Delivery => delivery,
    Flush => flush,
    Admission => admission,
    Cache => cache,
);

/// Which functions of an interface an instance does not export as the WIT says, in words. Empty when all are right.
pub(super) fn wrong_functions<T: 'static>(
    interface: Interface,
    store: &mut Store<T>,
    instance: &Instance,
) -> Vec<String> {
    let Some(exported) = instance.get_export_index(&mut *store, None, interface.export_name()) else {
        return vec!["it is no instance".into()];
    };
    let mut wrong = Vec::new();
    let mut check = |name: &str, typed: &dyn Fn(&mut Store<T>, &Func) -> wasmtime::Result<()>| match instance
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
