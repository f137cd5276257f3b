//! The operators' API as types: every answer that the operators' listener gives, and every problem it reports.
//!
//! `admin` writes them, the command line reads them, and the OpenAPI description of the listener is generated from them. Data
//! only: nothing here asks or does anything. A reader leaves aside fields that it does not know, and takes the default for a
//! field that is absent, so that a command line and a host of neighbouring versions understand each other.

mod cache;
mod explain;
mod host;
mod journal;
mod policy;
mod room;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Id;

pub use cache::{CacheMemories, CacheMemory, CacheReport, CacheUse, PurgeHelp, Purged, ReadCache, UpstreamCache};
pub use explain::{CheckpointMark, Explanation, Part};
pub use host::{Alive, Check, Done, Problem, Ready};
pub use journal::{
    Acknowledged, CheckpointRow, DeadLetter, DeadLetters, FlushReport, Flushed, JournalHole, JournalHoles, KindFlush,
    KindFlushed, SetAside,
};
pub use policy::{
    Audit, AuditEntry, Breaker, Checks, Commanded, Condemned, Event, Micros, Milliseconds, ModuleName, ModuleRecord,
    PolicyDiff, PolicyList, PolicySet, Probation, Sample, Serving, ServingSet, Trial, TrialReport, UploadState,
    Uploaded, WatchedFile,
};
pub use room::Arrivals;

/// An id of a target or an actor: a number, or a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum IdValue {
    /// Of a kind whose ids are integers.
    Number(i64),
    /// Any other id.
    Text(String),
}

impl Default for IdValue {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl From<&Id> for IdValue {
    fn from(id: &Id) -> Self {
        match id {
            Id::Int(number) => Self::Number(*number),
            other => Self::Text(other.to_string()),
        }
    }
}

impl std::fmt::Display for IdValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// An answer as JSON text, with the fields of each object in alphabetical order: what scripts compare stays the same when a
/// type changes its order.
pub fn to_text(answer: &impl Serialize) -> String {
    serde_json::to_value(answer).map(|value| value.to_string()).unwrap_or_default()
}

/// Answers as JSON, for tests.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use serde::Serialize;
    use serde_json::Value;

    /// An answer as operators are sent it.
    pub trait Shown {
        /// Its JSON.
        fn shown(&self) -> Value;
    }

    impl<T: Serialize> Shown for T {
        fn shown(&self) -> Value {
            serde_json::to_value(self).unwrap_or_else(|error| panic!("an answer is JSON: {error}"))
        }
    }
}
