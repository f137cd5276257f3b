//! The only generated bindings, one module per world, and what stands between them and the traits of this crate.
//!
//! A guest has no use for this module: it is public because [`export!`](crate::export) expands to paths into it.
#![allow(unsafe_code, reason = "generated: memory crosses the component's border here")]
#![allow(missing_docs, reason = "generated from the WIT, which is documented")]
#![allow(clippy::all, reason = "generated")]

use std::marker::PhantomData;

use crate::{Admission, Cache, Counter, Delivery, Flush, Ingest, Toggle};

/// World `toggle-policy`, and the types and imports that all worlds share.
pub mod toggle {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "toggle-policy",
        additional_derives: [PartialEq, Eq, PartialOrd, Ord, Hash],
        // A value may be a floating-point number.
        additional_derives_ignore: ["value"],
        pub_export_macro: true,
        export_macro_name: "export_toggle",
        default_bindings_module: "weir_policy_sdk::bindings::toggle",
    });
}

/// A further world, which shares types and imports with `toggle-policy`.
macro_rules! world {
    ($module:ident, $world:literal, $export_macro:literal, $path:literal) => {
        #[doc = concat!("World `", $world, "`.")]
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                world: $world,
                with: {
                    "weir:policy/types@0.1.0": crate::bindings::toggle::weir::policy::types,
                    "weir:policy/log@0.1.0": crate::bindings::toggle::weir::policy::log,
                    "weir:policy/config@0.1.0": crate::bindings::toggle::weir::policy::config,
                    "weir:policy/redis@0.1.0": crate::bindings::toggle::weir::policy::redis,
                    "weir:policy/sql@0.1.0": crate::bindings::toggle::weir::policy::sql,
                },
                additional_derives: [PartialEq, Eq, PartialOrd, Ord, Hash],
                pub_export_macro: true,
                export_macro_name: $export_macro,
                default_bindings_module: $path,
            });
        }
    };
}

world!(counter, "counter-policy", "export_counter", "weir_policy_sdk::bindings::counter");
world!(ingest, "ingest-policy", "export_ingest", "weir_policy_sdk::bindings::ingest");
world!(flush, "flush-policy", "export_flush", "weir_policy_sdk::bindings::flush");
world!(admission, "admission-policy", "export_admission", "weir_policy_sdk::bindings::admission");

/// World `cache-policy`: it shares no types with `toggle-policy`.
pub mod cache {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "cache-policy",
        with: {
            "weir:policy/log@0.1.0": crate::bindings::toggle::weir::policy::log,
            "weir:policy/config@0.1.0": crate::bindings::toggle::weir::policy::config,
            "weir:policy/redis@0.1.0": crate::bindings::toggle::weir::policy::redis,
            "weir:policy/sql@0.1.0": crate::bindings::toggle::weir::policy::sql,
        },
        additional_derives: [PartialEq, Eq, PartialOrd, Ord, Hash],
        pub_export_macro: true,
        export_macro_name: "export_cache",
        default_bindings_module: "weir_policy_sdk::bindings::cache",
    });
}

/// World `delivery-policy`: as the others, but that it names no ids.
pub mod delivery {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "delivery-policy",
        with: {
            "weir:policy/log@0.1.0": crate::bindings::toggle::weir::policy::log,
            "weir:policy/config@0.1.0": crate::bindings::toggle::weir::policy::config,
            "weir:policy/redis@0.1.0": crate::bindings::toggle::weir::policy::redis,
            "weir:policy/sql@0.1.0": crate::bindings::toggle::weir::policy::sql,
        },
        additional_derives: [PartialEq, Eq, PartialOrd, Ord, Hash],
        pub_export_macro: true,
        export_macro_name: "export_delivery",
        default_bindings_module: "weir_policy_sdk::bindings::delivery",
    });
}

/// Stands for a guest's type towards the generated code.
pub struct Exported<Policy>(PhantomData<Policy>);

impl<Policy: Toggle + 'static> toggle::exports::weir::policy::toggle::Guest for Exported<Policy> {
    fn decide(kind: String, now_ms: u64, batch: Vec<crate::Intent>) -> Vec<crate::Rule> {
        report_panics();
        Policy::decide(&kind, now_ms, &batch)
    }
}

impl<Policy: Counter + 'static> counter::exports::weir::policy::counter::Guest for Exported<Policy> {
    fn decide(kind: String, now_ms: u64, batch: Vec<crate::Hit>) -> Vec<crate::HitRule> {
        report_panics();
        Policy::decide(&kind, now_ms, &batch)
    }
}

impl<Policy: Ingest + 'static> ingest::exports::weir::policy::ingest::Guest for Exported<Policy> {
    fn validate(kind: String, now_ms: u64, batch: Vec<crate::Document>) -> Vec<crate::Verdict> {
        report_panics();
        Policy::validate(&kind, now_ms, &batch)
    }
}

impl<Policy: Delivery + 'static> delivery::exports::weir::policy::delivery::Guest for Exported<Policy> {
    fn fields(kind: String, topic: String) -> Vec<String> {
        report_panics();
        Policy::fields(&kind, &topic)
    }

    fn enabled(kind: String, topic: String, now_ms: u64, members: u32, columns: Vec<crate::Column>) -> Vec<bool> {
        report_panics();
        Policy::enabled(&kind, &topic, now_ms, members as usize, &columns)
    }
}

impl<Policy: Flush + 'static> flush::exports::weir::policy::flush::Guest for Exported<Policy> {
    fn plan(kind: String, now_ms: u64, backlog: crate::Backlog) -> crate::FlushPlan {
        report_panics();
        Policy::plan(&kind, now_ms, &backlog)
    }

    fn coalesce(kind: String, entries: Vec<crate::Entry>) -> Vec<u32> {
        report_panics();
        Policy::coalesce(&kind, &entries)
    }
}

impl<Policy: Admission + 'static> admission::exports::weir::policy::admission::Guest for Exported<Policy> {
    fn place(kind: String, now_ms: u64, batch: Vec<crate::Arrival>) -> Vec<crate::Placement> {
        report_panics();
        Policy::place(&kind, now_ms, &batch)
    }

    fn plan(kind: String, now_ms: u64, room: crate::Room) -> crate::AdmissionPlan {
        report_panics();
        Policy::plan(&kind, now_ms, &room)
    }
}

impl<Policy: Cache + 'static> cache::exports::weir::policy::cache::Guest for Exported<Policy> {
    fn eligible(kind: String, now_ms: u64, profile: crate::ReadProfile) -> crate::CacheRule {
        report_panics();
        Policy::eligible(&kind, now_ms, &profile)
    }
}

/// Sends the message of a panic to the host's log: without it the host sees only that the module trapped.
fn report_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| crate::log(crate::Level::Error, &panic.to_string())));
    });
}
