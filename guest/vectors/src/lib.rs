//! The types that cross the border between weir and its rules, each once; and the language of test vectors and decision
//! logs: calls of a policy module and their answers, as JSON.
//!
//! Pure data. The types are shared by the host, the SDK and the built-in rules. The language is shared by the host
//! (`weir policy test`, activation, the decision log) and the SDK (native tests), so that one file means the same to both;
//! a component holds none of it.
//!
//! ```
//! let vectors = weir_policy_vectors::Vectors::parse(r#"{
//!     "settings": {"feed-like": {"limit-burst": "3"}},
//!     "cases": [{
//!         "name": "a like is never taken back",
//!         "toggle.decide": {"kind": "feed-like", "batch": [{"target": 3, "actor": "bo", "verb": "clear"}]},
//!         "expect": {"rules": [{"when_absent": "keep", "when_present": "deny"}]}
//!     }]
//! }"#);
//! assert_eq!(vectors.unwrap().cases[0].call.name(), "toggle.decide");
//! ```

#[cfg(not(target_arch = "wasm32"))]
mod answer;
#[cfg(not(target_arch = "wasm32"))]
mod call;
#[cfg(not(target_arch = "wasm32"))]
mod cases;
mod types;

#[cfg(not(target_arch = "wasm32"))]
pub use answer::{Answer, Verdict};
#[cfg(not(target_arch = "wasm32"))]
pub use call::{
    AdmissionPlace, CacheEligible, Call, CounterDecide, DeliveryEnabled, DeliveryFields, Document, Fields,
    FlushCoalesce, IngestValidate, PlanAdmission, PlanFlush, ToggleDecide,
};
#[cfg(not(target_arch = "wasm32"))]
pub use cases::{Case, Decision, Granted, NOW_MS_DEFAULT, ParseError, SqlRows, SqlValue, Vectors};
pub use types::{
    Action, AdmissionPlan, Arrival, Backlog, CacheRule, Column, Effect, Entry, FlushPlan, Hit, HitRule, Id, Intent,
    Keep, Placement, RateLimit, ReadProfile, Room, Rule, Staleness, Values, Verb, Violation,
};

/// Name of the custom section in which a component may carry its vectors, as their JSON text.
pub const VECTORS_SECTION: &str = "weir:vectors";
/// Name of the custom section in which `weir policy build` notes the module's name.
pub const NAME_SECTION: &str = "weir:name";
/// Name of the custom section in which `weir policy build` notes the module's version.
pub const VERSION_SECTION: &str = "weir:version";
