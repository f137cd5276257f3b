//! The only generated bindings, one module per world, and what stands between them and the traits of this crate.
//!
//! A guest has no use for this module: it is public because [`export!`](crate::export) expands to paths into it.
#![allow(unsafe_code, reason = "generated: memory crosses the component's border here")]
#![allow(missing_docs, reason = "generated from the WIT, which is documented")]
#![allow(clippy::all, reason = "generated")]

use std::marker::PhantomData;

use crate::{Admission, Cache, Counter, Delivery, Flush, Ingest, Toggle};

/// World `toggle-policy`, and the imports that all worlds share.
pub mod toggle {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "toggle-policy",
        with: {
            "weir:policy/types@0.1.0": weir_policy_vectors,
            "weir:policy/toggle@0.1.0/verb": ::weir_policy_vectors::Verb,
            "weir:policy/toggle@0.1.0/intent": ::weir_policy_vectors::Intent,
            "weir:policy/toggle@0.1.0/effect": ::weir_policy_vectors::Effect,
            "weir:policy/toggle@0.1.0/rule": ::weir_policy_vectors::Rule,
        },
        additional_derives: [PartialEq, Eq, PartialOrd, Ord, Hash],
        // A value may be a floating-point number.
        additional_derives_ignore: ["value"],
        pub_export_macro: true,
        export_macro_name: "export_toggle",
        default_bindings_module: "weir_policy_sdk::bindings::toggle",
    });
}

/// A further world, which shares imports with `toggle-policy`. Types of its own are mapped onto those of
/// `weir-policy-vectors`, each once.
macro_rules! world {
    ($module:ident, $world:literal, $export_macro:literal, $path:literal, { $($types:tt)* }) => {
        #[doc = concat!("World `", $world, "`.")]
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                world: $world,
                with: {
                    "weir:policy/log@0.1.0": crate::bindings::toggle::weir::policy::log,
                    "weir:policy/config@0.1.0": crate::bindings::toggle::weir::policy::config,
                    "weir:policy/redis@0.1.0": crate::bindings::toggle::weir::policy::redis,
                    "weir:policy/sql@0.1.0": crate::bindings::toggle::weir::policy::sql,
                    $($types)*
                },
                additional_derives: [PartialEq, Eq, PartialOrd, Ord, Hash],
                pub_export_macro: true,
                export_macro_name: $export_macro,
                default_bindings_module: $path,
            });
        }
    };
}

world!(counter, "counter-policy", "export_counter", "weir_policy_sdk::bindings::counter", {
    "weir:policy/types@0.1.0": weir_policy_vectors,
    "weir:policy/counter@0.1.0/hit": ::weir_policy_vectors::Hit,
    "weir:policy/counter@0.1.0/hit-rule": ::weir_policy_vectors::HitRule,
});
// A document's body is text here, and an object in vectors: that type stays the bindings' own.
world!(ingest, "ingest-policy", "export_ingest", "weir_policy_sdk::bindings::ingest", {
    "weir:policy/types@0.1.0": weir_policy_vectors,
    "weir:policy/ingest@0.1.0/violation": ::weir_policy_vectors::Violation,
});
world!(delivery, "delivery-policy", "export_delivery", "weir_policy_sdk::bindings::delivery", {
    "weir:policy/delivery@0.1.0/values": ::weir_policy_vectors::Values,
    "weir:policy/delivery@0.1.0/column": ::weir_policy_vectors::Column,
});
world!(flush, "flush-policy", "export_flush", "weir_policy_sdk::bindings::flush", {
    "weir:policy/types@0.1.0": weir_policy_vectors,
    "weir:policy/flush@0.1.0/backlog": ::weir_policy_vectors::Backlog,
    "weir:policy/flush@0.1.0/flush-plan": ::weir_policy_vectors::FlushPlan,
    "weir:policy/flush@0.1.0/action": ::weir_policy_vectors::Action,
    "weir:policy/flush@0.1.0/entry": ::weir_policy_vectors::Entry,
});
world!(admission, "admission-policy", "export_admission", "weir_policy_sdk::bindings::admission", {
    "weir:policy/types@0.1.0": weir_policy_vectors,
    "weir:policy/admission@0.1.0/arrival": ::weir_policy_vectors::Arrival,
    "weir:policy/admission@0.1.0/placement": ::weir_policy_vectors::Placement,
    "weir:policy/admission@0.1.0/room": ::weir_policy_vectors::Room,
    "weir:policy/admission@0.1.0/admission-plan": ::weir_policy_vectors::AdmissionPlan,
});
world!(cache, "cache-policy", "export_cache", "weir_policy_sdk::bindings::cache", {
    "weir:policy/cache@0.1.0/staleness": ::weir_policy_vectors::Staleness,
    "weir:policy/cache@0.1.0/read-profile": ::weir_policy_vectors::ReadProfile,
    "weir:policy/cache@0.1.0/keep": ::weir_policy_vectors::Keep,
    "weir:policy/cache@0.1.0/cache-rule": ::weir_policy_vectors::CacheRule,
});

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
