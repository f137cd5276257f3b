//! Is the host alive, is it ready, and what a refused request is told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the host works.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Alive {
    /// Whether it does.
    pub alive: bool,
    /// Why only a restart may help, where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether the host may be sent requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Ready {
    /// Whether every check holds.
    pub ready: bool,
    /// Names of the checks that do not.
    pub not_ready: Vec<String>,
    /// Every check, those that hold too.
    pub checks: Vec<Check>,
}

impl From<Vec<Check>> for Ready {
    fn from(checks: Vec<Check>) -> Self {
        let failed = checks.iter().filter(|check| !check.ready);
        let not_ready: Vec<String> = failed.map(|check| check.name.clone()).collect();
        Self { ready: not_ready.is_empty(), not_ready, checks }
    }
}

/// One thing that must hold before the host is ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Check {
    /// Its name, such as `store` or `sql`.
    pub name: String,
    /// Whether it holds.
    pub ready: bool,
    /// What is wrong, or how it is.
    pub detail: String,
}

/// A command was carried out, and there is nothing more to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Done {
    /// Always true.
    pub done: bool,
}

/// Why a request was refused (RFC 9457).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Problem {
    /// Names the kind of problem: a URN that does not change.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The kind of problem in words.
    pub title: String,
    /// The status of the response.
    pub status: u16,
    /// What happened, and what to do next.
    pub detail: String,
    /// Of a policy module that was refused: a stable word for the reason, such as `trap` or `unknown-import`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}
