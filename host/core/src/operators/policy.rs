//! Policy modules: what serves, what is tried, the registry, and what has happened.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The module that serves each interface, by the interface's name.
pub type ServingSet = BTreeMap<String, Serving>;
/// Times of the steps of a command by name, and `total`, in milliseconds.
pub type Milliseconds = BTreeMap<String, f64>;

/// Everything about policy modules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyList {
    /// What is in force, and what is tried.
    #[serde(flatten)]
    pub set: PolicySet,
    /// The registry, youngest first, after what serves without having been uploaded.
    pub modules: Vec<ModuleRecord>,
    /// The files of the watched directory.
    pub watched: Vec<WatchedFile>,
    /// What happened last, newest first.
    pub events: Vec<Event>,
}

/// What is in force, and what is tried.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicySet {
    /// What serves.
    pub active: ServingSet,
    /// What a rollback brings back.
    pub previous: Option<ServingSet>,
    /// Modules that are rolled back if they fail soon.
    pub probation: Option<Probation>,
    /// The module that serves a share of the targets.
    pub canary: Option<Trial>,
    /// The module that decides besides, without effect.
    pub shadow: Option<Trial>,
    /// Functions that are not called for now.
    pub breakers: Vec<Breaker>,
    /// Whether a restart keeps this set.
    pub durable: bool,
    /// Why it does not.
    pub unsaved: Option<String>,
}

/// What holds after a command, and how long it took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Commanded {
    /// What is in force, and what is tried.
    #[serde(flatten)]
    pub set: PolicySet,
    /// How long the steps took.
    pub milliseconds: Milliseconds,
}

/// An upload that passed the gate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Uploaded {
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// The module's name.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// Whether it was in the registry before.
    pub known: bool,
    /// What the gate found.
    pub checks: Option<Checks>,
    /// What serves now, where it was activated.
    pub active: Option<ServingSet>,
    /// How long the steps took.
    pub milliseconds: Milliseconds,
}

/// A module that serves an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Serving {
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// `built-in`, or its name.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// Since when, in Unix milliseconds; 0 for what was not activated.
    pub since_ms: u64,
    /// Who activated it.
    pub by: Option<String>,
    /// Why it does not fit this weir, so that its kinds answer as their `on_policy_failure` says.
    pub unfit: Option<String>,
}

/// Modules that are rolled back if they fail soon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Probation {
    /// Their digests.
    pub digests: Vec<String>,
    /// Until when, in Unix milliseconds.
    pub until_ms: u64,
}

/// A shadow or a canary in short.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Trial {
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// The module's name.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// Of the batches for a shadow, of the targets for a canary.
    pub share: f64,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
    /// Who began it.
    pub by: String,
    /// Whether no call has failed in the last minute.
    pub healthy: bool,
    /// Calls that failed.
    pub failures: u64,
    /// Decisions of the candidate.
    pub decisions: u64,
    /// Those that differ from the live module's.
    pub differing: u64,
    /// Times of calls of the live module.
    pub live_micros: Option<Micros>,
    /// Times of calls of the candidate.
    pub candidate_micros: Option<Micros>,
}

/// Times of calls, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Micros {
    /// Their mean.
    pub mean: f64,
    /// Their median.
    pub p50: u64,
    /// Their 99th percentile.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

/// A function that is not called for now, because calls failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Breaker {
    /// The interface.
    pub interface: String,
    /// Its function.
    pub function: String,
    /// The kind that it is not called for.
    pub kind: String,
    /// `open`, or `half-open` while one call is tried.
    pub state: String,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
    /// When the next call is let through, in milliseconds from now.
    pub retry_in_ms: u64,
    /// Why it opened, and what the last call did.
    pub reason: String,
    /// The module's name.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
}

/// A module of the registry, or one that serves without having been uploaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModuleRecord {
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// Its name.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// When it was uploaded, in Unix milliseconds; null for one that was not.
    pub uploaded_at_ms: Option<u64>,
    /// Who uploaded it.
    pub by: Option<String>,
    /// Its size, in bytes.
    pub bytes: usize,
    /// Its functions.
    pub functions: u64,
    /// The interfaces that it exports.
    pub exports: Vec<String>,
    /// What it imports.
    pub imports: Vec<String>,
    /// What the gate found; null for one that was not uploaded.
    pub checks: Option<Checks>,
    /// The interfaces that it serves.
    pub serves: Vec<String>,
    /// `canary` or `shadow`, while it is tried.
    pub tried_as: Option<String>,
    /// Whether no call has failed in the last minute; null for one that serves nothing.
    pub healthy: Option<bool>,
    /// Calls that failed; null for one that serves nothing.
    pub failures: Option<u64>,
    /// What the last failure was.
    pub last_failure: Option<String>,
    /// Of one that was uploaded.
    #[serde(flatten)]
    pub upload: Option<UploadState>,
}

/// What is known of an uploaded module besides. Its number tells it from one that serves without having been uploaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UploadState {
    /// Which upload it was, from 1; 0 of one that an earlier weir took.
    pub order: u64,
    /// Why it was taken out of service by itself, until it is activated again.
    #[serde(default)]
    pub condemned: Option<Condemned>,
    /// Why it does not fit this weir.
    #[serde(default)]
    pub unfit: Option<String>,
}

/// A module was rolled back by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Condemned {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// Why.
    pub reason: String,
}

/// What the gate found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Checks {
    /// Test vectors that the module passed.
    pub vectors: usize,
    /// Time to compile it, in milliseconds.
    pub compile_ms: f64,
}

/// What became of a file of the watched directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WatchedFile {
    /// Its name.
    pub file: String,
    /// `activated`, `known` (it was uploaded before this start) or `refused`.
    pub state: String,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: Option<String>,
    /// Why it was refused.
    pub reason: Option<String>,
}

/// Something has happened to the set in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Event {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// Such as `activated` or `rolled-back`.
    pub what: String,
    /// The module.
    pub module: String,
    /// Who did it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// What shadow and canary have shown so far, or those that ended last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyDiff {
    /// The shadow.
    pub shadow: Option<TrialReport>,
    /// The canary.
    pub canary: Option<TrialReport>,
}

/// What a trial has shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrialReport {
    /// The candidate.
    pub module: ModuleName,
    /// Of the batches for a shadow, of the targets for a canary.
    pub share: f64,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
    /// Why it ended, once it has.
    pub ended: Option<String>,
    /// Calls of the candidate.
    pub batches: u64,
    /// Batches that were to be compared, and were not.
    pub skipped: u64,
    /// Decisions in these calls.
    pub decisions: u64,
    /// Those that differ from the live module's.
    pub differing: u64,
    /// Calls that failed, by cause.
    pub failures: BTreeMap<String, u64>,
    /// Some of the decisions that differ.
    pub samples: Vec<Sample>,
    /// Times of calls of the live module.
    pub live_micros: Option<Micros>,
    /// Times of calls of the candidate.
    pub candidate_micros: Option<Micros>,
}

/// What names a module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModuleName {
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// Its name.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
}

/// A decision that differs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Sample {
    /// The interface.
    pub interface: String,
    /// The kind.
    pub kind: String,
    /// What was to be decided.
    pub input: Value,
    /// What the live module decided.
    pub live: Value,
    /// What the candidate decided.
    pub candidate: Value,
    /// How often the same was seen.
    pub times: u64,
}

/// The last lines of the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Audit {
    /// Newest first.
    pub audit: Vec<AuditEntry>,
}

/// Who did what with a module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AuditEntry {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// Who.
    pub by: String,
    /// What, such as `upload` or `activate`.
    pub what: String,
    /// The module that was named.
    pub module: Option<String>,
    /// `done`, or why it was refused.
    pub outcome: String,
}
