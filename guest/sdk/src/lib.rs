//! For writing weir's rules in Rust.
//!
//! Implement [`Toggle`], [`Counter`], [`Ingest`], [`Delivery`], [`Flush`], [`Admission`], [`Cache`] or several for a type,
//! name them in [`export!`], and run
//! `weir policy build`:
//!
//! ```
//! use weir_policy_sdk::{Effect, Intent, Rule, Toggle, Verb, export, setting};
//!
//! struct OnceOnly;
//!
//! impl Toggle for OnceOnly {
//!     fn decide(kind: &str, _now_ms: u64, batch: &[Intent]) -> Vec<Rule> {
//!         let when_present = if setting(kind, "final").is_some() { Effect::Deny } else { Effect::Remove };
//!         let rule = |intent: &Intent| match intent.verb {
//!             Verb::Toggle | Verb::Set => Rule::new(Effect::Add, when_present),
//!             Verb::Clear => Rule::new(Effect::Keep, when_present),
//!         };
//!         batch.iter().map(rule).collect()
//!     }
//! }
//!
//! export!(OnceOnly: toggle);
//!
//! // A native test needs neither a host nor wasm:
//! weir_policy_sdk::testing::set("feed-like", "final", "yes");
//! let rules = OnceOnly::decide("feed-like", 0, &[Intent::toggle(7, "bo")]);
//! assert_eq!(rules, [Rule::new(Effect::Add, Effect::Deny)]);
//! ```
//!
//! The same cases for `cargo test` and for the component: put them into `cases.json`, and call `vectors::check`
//! (natively only). `weir policy build` puts that file into the component, and a host runs it before it lets it serve.
//!
//! A guest is a crate with `crate-type = ["cdylib"]` (and `"rlib"`, for its tests) that depends on this one; it may live
//! in a workspace of its own. What each function promises is documented in the WIT of package `weir:policy`.

pub mod bindings;
mod pairs;
pub mod redis;
pub mod sql;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
#[cfg(not(target_arch = "wasm32"))]
pub mod vectors;

pub use bindings::ingest::exports::weir::policy::ingest::Document;
pub use bindings::toggle::weir::policy::log::Level;
pub use pairs::last_of_each_pair;
pub use weir_policy_vectors::{
    Action, AdmissionPlan, Arrival, Backlog, CacheRule, Column, Effect, Entry, FlushPlan, Hit, HitRule, Id, Intent,
    Keep, Placement, RateLimit, ReadProfile, Room, Rule, Staleness, Values, Verb, Violation,
};

/// Interface `toggle`: what a like, a follow, a bookmark does.
pub trait Toggle {
    /// One rule for each intent, in order. The empty batch has the empty result.
    fn decide(kind: &str, now_ms: u64, batch: &[Intent]) -> Vec<Rule>;
}

/// Interface `counter`: what a view, a play, a download counts for.
pub trait Counter {
    /// One rule for each hit, in order. The empty batch has the empty result.
    fn decide(kind: &str, now_ms: u64, batch: &[Hit]) -> Vec<HitRule>;
}

impl Document {
    /// A document; `body` is a JSON object.
    pub fn new(id: impl Into<Id>, actor: impl Into<Id>, body: impl Into<String>) -> Self {
        Self { id: id.into(), actor: actor.into(), body: body.into() }
    }
}

/// What becomes of a document: `Ok(None)`, it is taken in as it is; `Ok(Some(text))`, as this JSON object; an error, it is
/// refused for these reasons, one or more.
pub type Verdict = Result<Option<String>, Vec<Violation>>;

/// Interface `ingest`: which documents are taken in, and how they are written.
///
/// Text in, text out: read it with the JSON library that you like. A component that needs none stays small.
pub trait Ingest {
    /// One verdict for each document, in order. The empty batch has the empty result.
    fn validate(kind: &str, now_ms: u64, batch: &[Document]) -> Vec<Verdict>;
}

/// Interface `delivery`: who gets a push.
pub trait Delivery {
    /// The fields that a topic needs, each once; empty where there is no such topic.
    fn fields(kind: &str, topic: &str) -> Vec<String>;

    /// Whether each of so many members gets a push on the topic: as many answers, in order. `columns` are the fields of
    /// [`Delivery::fields`], each with a value for each member.
    fn enabled(kind: &str, topic: &str, now_ms: u64, members: usize, columns: &[Column]) -> Vec<bool>;
}

/// Interface `flush`: when accepted changes are written to SQL, and which of them.
pub trait Flush {
    /// Whether to flush now, how much at most (1 or more), and when to ask again (1 ms or more).
    fn plan(kind: &str, now_ms: u64, backlog: &Backlog) -> FlushPlan;

    /// Strictly ascending indexes into `entries`; the last entry of each (target, actor) pair must be among them. Unless
    /// you say otherwise, it is [`last_of_each_pair`].
    fn coalesce(_kind: &str, entries: &[Entry]) -> Vec<u32> {
        last_of_each_pair(entries)
    }
}

/// Interface `admission`: who is let into what bears only so many at once, and in which order.
pub trait Admission {
    /// One place for each arrival, in order. The empty batch has the empty result.
    fn place(kind: &str, now_ms: u64, batch: &[Arrival]) -> Vec<Placement>;

    /// How many are let in now, how long they may stay (1 ms or more), and when to ask again (1 ms or more).
    fn plan(kind: &str, now_ms: u64, room: &Room) -> AdmissionPlan;
}

/// Interface `cache`: what is kept of a read, and for how long.
pub trait Cache {
    /// What becomes of the answers of the read `kind`, by what was measured of it.
    fn eligible(kind: &str, now_ms: u64, profile: &ReadProfile) -> CacheRule;
}

/// The operator's setting `key` of `kind`. Never changes while the module lives, so it may be read once and remembered.
///
/// In native tests it is what [`testing::set`] set.
pub fn setting(kind: &str, key: &str) -> Option<String> {
    #[cfg(target_arch = "wasm32")]
    return bindings::toggle::weir::policy::config::get(kind, key);
    #[cfg(not(target_arch = "wasm32"))]
    return testing::get(kind, key);
}

/// Writes a line to the host's log: at most 1,000 bytes, at most 20 lines a second.
///
/// In native tests [`testing::logged`] hands it back.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    bindings::toggle::weir::policy::log::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    testing::log(level, message);
}

/// Makes a type the component's implementation of interfaces: `export!(MyRules: toggle, flush);`.
///
/// Natively it only notes which interfaces these are, for `vectors::check`: `cargo test` needs no wasm toolchain.
#[macro_export]
macro_rules! export {
    ($policy:ty: $($interface:ident),+ $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "generated: the entry points of the component")]
        const _: () = {
            $($crate::__export_interface!($policy, $interface);)+
        };
        #[cfg(not(target_arch = "wasm32"))]
        impl $crate::vectors::Exports for $policy {
            fn exports() -> $crate::vectors::Exported {
                $crate::vectors::Exported::default()$(.$interface::<$policy>())+
            }
        }
        // Outside of tests nobody else uses the type natively.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $crate::vectors::Exported = <$policy as $crate::vectors::Exports>::exports;
    };
}

/// One interface of [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __export_interface {
    ($policy:ty, toggle) => {
        type ToggleExport = $crate::bindings::Exported<$policy>;
        $crate::bindings::toggle::export_toggle!(ToggleExport with_types_in $crate::bindings::toggle);
    };
    ($policy:ty, counter) => {
        type CounterExport = $crate::bindings::Exported<$policy>;
        $crate::bindings::counter::export_counter!(CounterExport with_types_in $crate::bindings::counter);
    };
    ($policy:ty, ingest) => {
        type IngestExport = $crate::bindings::Exported<$policy>;
        $crate::bindings::ingest::export_ingest!(IngestExport with_types_in $crate::bindings::ingest);
    };
    ($policy:ty, delivery) => {
        type DeliveryExport = $crate::bindings::Exported<$policy>;
        $crate::bindings::delivery::export_delivery!(DeliveryExport with_types_in $crate::bindings::delivery);
    };
    ($policy:ty, flush) => {
        type FlushExport = $crate::bindings::Exported<$policy>;
        $crate::bindings::flush::export_flush!(FlushExport with_types_in $crate::bindings::flush);
    };
    ($policy:ty, admission) => {
        type AdmissionExport = $crate::bindings::Exported<$policy>;
        $crate::bindings::admission::export_admission!(AdmissionExport with_types_in $crate::bindings::admission);
    };
    ($policy:ty, cache) => {
        type CacheExport = $crate::bindings::Exported<$policy>;
        $crate::bindings::cache::export_cache!(CacheExport with_types_in $crate::bindings::cache);
    };
}
