//! Short ways to write what crosses the border.

use crate::{Action, Backlog, Effect, Entry, Id, Intent, RateLimit, Rule, Verb};

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
    /// `entries` changes of 19 bytes each (two integer ids), the oldest of which has waited for `oldest_age_ms`.
    pub fn waiting(entries: u64, oldest_age_ms: u64) -> Self {
        Self { entries, bytes: entries * 19, oldest_age_ms }
    }
}
