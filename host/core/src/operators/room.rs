//! Waiting rooms.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::IdValue;

/// Who takes part in the draw of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Arrivals {
    /// Actors, in the order of arrival.
    pub arrivals: Vec<IdValue>,
}
