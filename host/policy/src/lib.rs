//! The policy engine: runs the rules, which live in WebAssembly components, and trusts nothing that they return.
//!
//! Uses `weir-core` alone. Knows neither a store nor SQL: what a granted import does comes in through `grants`.
//! Never does I/O for a guest that was not granted.
//!
//! What a host uses is [`Policies`], in three parts: [`Rules`] asks the modules, [`Registry`] uploads and activates them, [`Trials`]
//! has shadow, canary and probation. Below them, each file imports only from files above it in this list:
//! - plain: `component`, `decision`, `files`, `grants`, `interface` (the names), `log_gate`, `memory`, `nearest`, `outline`,
//!   `refusal`, `said`, `space`, `trace`, `turn`;
//! - by lifetime: `engine` (process) · `module` (per component) · `instance` (per call). `compiler` turns a component into
//!   code; `bindings` holds the only `bindgen!`, `imports` and `state` what stands behind the imports, `border` their names;
//!   `call` is what a call is, `breaker` keeps calls from a module that fails;
//! - by interface: `subject`, `contract`, and a file of `interface` for each, with all that crosses the border there; `convert`
//!   and `record` have what they share; `ask` is the one way for all; `builtin` holds the default component;
//! - `trial`: one trial, its judge, test vectors, the decision log;
//! - `registry`, `trials`, `rules`, and `start`, which puts them together;
//! - `offline`: what is asked of a component without a host.

mod ask;
mod bindings;
mod border;
mod breaker;
mod builtin;
mod call;
mod compiler;
mod component;
mod contract;
mod convert;
mod decision;
mod engine;
mod files;
mod grants;
mod imports;
mod instance;
mod interface;
mod log_gate;
mod memory;
mod module;
mod nearest;
mod offline;
mod outline;
mod record;
mod refusal;
mod registry;
mod rules;
mod said;
mod space;
mod start;
mod state;
mod subject;
#[cfg(test)]
mod tests;
mod trace;
mod trial;
mod trials;
mod turn;
mod wasi;

pub use breaker::OpenBreaker;
pub use compiler::{CHILD_COMMAND, ChildArguments, Compiler, child_main};
pub use contract::Contract;
pub use decision::{Coalesced, Decided, Decider, KindPolicy, PolicyError, Verdict};
pub use grants::{Capabilities, GrantError, GuestKeys, GuestStatements, RowSets};
pub use module::{Failing, ModuleInfo};
pub use offline::{
    Difference, PurityReport, ReplayReport, TestReport, check, check_file, check_purity, replay_file, test_file,
};
pub use outline::SOURCE_SECTION;
pub use refusal::LoadError;
pub use registry::{ControlError, ModuleUpload, Registry};
pub use rules::Rules;
pub use start::{Policies, PolicySetup};
pub use trial::vectors::CaseReport;
pub use trials::Trials;
pub use weir_policy_vectors::{NAME_SECTION, VERSION_SECTION};
