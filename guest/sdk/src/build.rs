//! Short ways to write what crosses the border.

use std::fmt;

use crate::{
    Action, Backlog, Column, Document, Effect, Entry, Hit, HitRule, Id, Intent, RateLimit, Rule, Values, Verb,
    Violation,
};

impl From<i64> for Id {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Id {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Id {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

impl Intent {
    /// A request to change the state to the other one.
    pub fn toggle(target: impl Into<Id>, actor: impl Into<Id>) -> Self {
        Self { target: target.into(), actor: actor.into(), verb: Verb::Toggle }
    }

    /// A request to make the pair present.
    pub fn set(target: impl Into<Id>, actor: impl Into<Id>) -> Self {
        Self { target: target.into(), actor: actor.into(), verb: Verb::Set }
    }

    /// A request to make the pair absent.
    pub fn clear(target: impl Into<Id>, actor: impl Into<Id>) -> Self {
        Self { target: target.into(), actor: actor.into(), verb: Verb::Clear }
    }
}

impl Rule {
    /// A rule without a limit.
    pub fn new(when_absent: Effect, when_present: Effect) -> Self {
        Self { when_absent, when_present, limit: None }
    }

    /// The same with a limit: `burst` operations in any `period_ms`, each 1 or more.
    pub fn limited(self, burst: u32, period_ms: u32) -> Self {
        Self { limit: Some(RateLimit { burst, period_ms }), ..self }
    }
}

impl Hit {
    /// One hit by somebody.
    pub fn new(target: impl Into<Id>, actor: impl Into<Id>) -> Self {
        Self { target: target.into(), actor: Some(actor.into()), by: 1 }
    }

    /// One hit by nobody known.
    pub fn anonymous(target: impl Into<Id>) -> Self {
        Self { target: target.into(), actor: None, by: 1 }
    }

    /// The same that asks for `by`, 1 or more.
    pub fn times(self, by: u32) -> Self {
        Self { by, ..self }
    }
}

impl HitRule {
    /// Every hit counts `weight` for each unit, at most 1,000,000; 0 ignores it.
    pub fn new(weight: u32) -> Self {
        Self { weight, unique_ms: None, limit: None }
    }

    /// The same once in `unique_ms` (1 or more) for each actor and target.
    pub fn unique(self, unique_ms: u32) -> Self {
        Self { unique_ms: Some(unique_ms), ..self }
    }

    /// The same with a limit: `burst` hits in any `period_ms` by one actor on one target, each 1 or more.
    pub fn limited(self, burst: u32, period_ms: u32) -> Self {
        Self { limit: Some(RateLimit { burst, period_ms }), ..self }
    }
}

impl Document {
    /// A document; `body` is a JSON object.
    pub fn new(id: impl Into<Id>, actor: impl Into<Id>, body: impl Into<String>) -> Self {
        Self { id: id.into(), actor: actor.into(), body: body.into() }
    }
}

impl Violation {
    /// What is wrong with the part at `path`, a JSON Pointer such as `/title`; empty for the whole document.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl Column {
    /// A field that is on or off.
    pub fn bools(field: impl Into<String>, values: impl Into<Vec<bool>>) -> Self {
        Self { field: field.into(), values: Values::Bools(values.into()) }
    }

    /// A field of integers.
    pub fn ints(field: impl Into<String>, values: impl Into<Vec<i64>>) -> Self {
        Self { field: field.into(), values: Values::Ints(values.into()) }
    }

    /// A field of texts.
    pub fn texts(field: impl Into<String>, values: &[&str]) -> Self {
        let values = values.iter().map(|text| (*text).to_owned()).collect();
        Self { field: field.into(), values: Values::Texts(values) }
    }
}

impl Entry {
    /// The pair is present afterwards.
    pub fn add(target: impl Into<Id>, actor: impl Into<Id>) -> Self {
        Self { target: target.into(), actor: actor.into(), action: Action::Add }
    }

    /// The pair is absent afterwards.
    pub fn remove(target: impl Into<Id>, actor: impl Into<Id>) -> Self {
        Self { target: target.into(), actor: actor.into(), action: Action::Remove }
    }
}

impl Backlog {
    /// `entries` changes of 19 bytes each (two integer ids), each of another target; the oldest has waited for
    /// `oldest_age_ms`.
    pub fn waiting(entries: u64, oldest_age_ms: u64) -> Self {
        Self { entries, targets: entries, bytes: entries * 19, oldest_age_ms }
    }

    /// The same where they concern so many targets.
    pub fn on_targets(self, targets: u64) -> Self {
        Self { targets, ..self }
    }
}
