//! What crosses the border between weir and its rules, as owned data: each type once, under its name in the WIT.
//!
//! The host, the SDK and the built-in rules share these types. The SDK's generated bindings are mapped onto them, so they
//! have the fields and cases of the WIT in its order. Knows no host and no JSON library.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An enum of the WIT, which generated bindings make from the number of a case.
macro_rules! wit_enum {
    ($(#[$attribute:meta])* $name:ident { $($(#[$on_case:meta])* $case:ident,)+ }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[repr(u8)]
        pub enum $name {
            $($(#[$on_case])* $case,)+
        }

        impl $name {
            const CASES: &[Self] = &[$(Self::$case),+];

            /// The case of this number; generated bindings call it. The host hands in no number that has no case.
            #[doc(hidden)]
            pub fn _lift(number: u8) -> Self {
                let last = Self::CASES.len() - 1;
                Self::CASES[last.min(usize::from(number))]
            }
        }
    };
}

wit_enum! {
    /// What the caller asks for.
    #[derive(Default)]
    Verb {
        /// The other state, as far as the rules allow (`POST`).
        #[default]
        Toggle,
        /// Make present (`PUT`).
        Set,
        /// Make absent (`DELETE`).
        Clear,
    }
}

wit_enum! {
    /// What happens in one of the two states of a (target, actor) pair.
    Effect {
        /// Make the pair present. Without effect when it is present.
        Add,
        /// Make the pair absent. Without effect when it is absent.
        Remove,
        /// Leave the state; answer it.
        Keep,
        /// Leave the state; refuse with 403.
        Deny,
    }
}

wit_enum! {
    /// A change of one (target, actor) pair, absolute: it says what holds afterwards, so repeating it is harmless.
    Action {
        /// The pair is present afterwards.
        Add,
        /// The pair is absent afterwards.
        Remove,
    }
}

wit_enum! {
    /// How old the answers of a read may be.
    Staleness {
        /// Not at all.
        Live,
        /// Some seconds.
        Seconds,
        /// Some minutes.
        Minutes,
        /// Some hours.
        Hours,
        /// As the origin says.
        Origin,
    }
}

/// Identifies a target or an actor. UUIDs cross as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// An integer.
    Int(i64),
    /// Text.
    Text(String),
}

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

/// At most `burst` operations in any `period_ms` by one actor on one target (GCRA, evenly refilled).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Operations allowed at once, 1 or more.
    pub burst: u32,
    /// Time in which `burst` operations are refilled, in milliseconds, 1 or more.
    pub period_ms: u32,
}

/// One request for a toggle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// What is liked.
    pub target: Id,
    /// Who likes it.
    pub actor: Id,
    /// What the caller asks for.
    #[serde(default)]
    pub verb: Verb,
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

/// The decision table that a policy returns for one intent. The store evaluates it atomically against the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Effect when the pair is absent.
    pub when_absent: Effect,
    /// Effect when the pair is present.
    pub when_present: Effect,
    /// Checked before the effect; counts every evaluated operation that it lets pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<RateLimit>,
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

/// One request to count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hit {
    /// What is counted.
    pub target: Id,
    /// Who is counted; left out, nobody is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Id>,
    /// How much is asked for; left out, 1.
    #[serde(default = "one")]
    pub by: u32,
}

fn one() -> u32 {
    1
}

impl Hit {
    /// One hit by a known actor.
    pub fn new(target: impl Into<Id>, actor: impl Into<Id>) -> Self {
        Self { target: target.into(), actor: Some(actor.into()), by: 1 }
    }

    /// One hit without a known actor.
    pub fn anonymous(target: impl Into<Id>) -> Self {
        Self { target: target.into(), actor: None, by: 1 }
    }

    /// The same that asks for `by`, 1 or more.
    pub fn times(self, by: u32) -> Self {
        Self { by, ..self }
    }
}

/// What a policy returns for one hit. The store evaluates it atomically against what it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HitRule {
    /// What each unit counts for; 0 ignores the hit. At most [`HitRule::WEIGHT_MAX`].
    pub weight: u32,
    /// A further hit by the same actor on the same target within so many milliseconds counts nothing. A hit without an
    /// actor always counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_ms: Option<u32>,
    /// Checked first, for hits by an actor; counts every hit that it lets pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<RateLimit>,
}

impl HitRule {
    /// Greatest weight. With it no hit leaves the range that Redis' numbers hold exactly.
    pub const WEIGHT_MAX: u32 = 1_000_000;

    /// Every hit counts `weight` for each unit, at most [`HitRule::WEIGHT_MAX`]; 0 ignores it.
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

/// Why a document is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// Which part of it, as a JSON Pointer (RFC 6901); empty for the whole.
    #[serde(default)]
    pub path: String,
    /// What is wrong, for people.
    pub message: String,
}

impl Violation {
    /// What is wrong with the part at `path`, a JSON Pointer such as `/title`; empty for the whole document.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// One field, with a value for each member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub field: String,
    /// Its values.
    pub values: Values,
}

/// The values of a field, all of one type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Values {
    /// On or off.
    Bools(Vec<bool>),
    /// Integers.
    Ints(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
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

/// What waits in the journal of a kind, not yet committed to SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backlog {
    /// Changes.
    pub entries: u64,
    /// Targets that they concern.
    #[serde(default)]
    pub targets: u64,
    /// Size of the changes, in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Age of the oldest, in milliseconds; at most the time of the call.
    #[serde(default)]
    pub oldest_age_ms: u64,
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

/// When to flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushPlan {
    /// Write what waits, now.
    pub flush_now: bool,
    /// At most so many changes in one transaction; left out, the host decides. The host's adaptive batch may be smaller.
    #[serde(default = "the_hosts_batch")]
    pub changes_max: u32,
    /// Ask again after so many milliseconds, unless woken by new changes.
    pub look_again_ms: u32,
}

fn the_hosts_batch() -> u32 {
    u32::MAX
}

/// One accepted change of a toggle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What is liked.
    pub target: Id,
    /// Who likes it.
    pub actor: Id,
    /// What holds afterwards.
    pub action: Action,
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

/// Somebody who arrives at a queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrival {
    /// The queue.
    pub queue: Id,
    /// Who arrives.
    pub actor: Id,
}

/// Where an arrival is placed: in JSON `{"line": 128}`, `{"draw": 64}` or `"refuse"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Behind those who are in this lane already. Lanes are served in the order of their numbers.
    Line(u8),
    /// In this lane, by lottery.
    Draw(u8),
    /// Nowhere: the request is refused.
    Refuse,
}

/// A queue as the rules see it at a tick. What is left out is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Room {
    /// Who waits.
    pub waiting: u64,
    /// Who is in.
    pub active: u64,
    /// Who may be in at once. The store enforces it, whatever the plan says.
    pub capacity: u64,
    /// Time since the previous plan, in milliseconds; 0 at the first.
    pub since_ms: u64,
    /// Admitted since then.
    pub admitted: u64,
    /// Completed their stay since then.
    pub completed: u64,
    /// Admitted, and out of time since then.
    pub expired: u64,
    /// Of `expired`, those who never came.
    pub no_shows: u64,
    /// Gone from the queue since then: they left, or stopped polling.
    pub abandoned: u64,
}

/// What a tick of a queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionPlan {
    /// Admit so many from the head of the queue.
    pub admit: u32,
    /// How long each may stay, in milliseconds.
    pub active_ttl_ms: u32,
    /// Ask again after so many milliseconds, or earlier when something happens.
    pub next_tick_ms: u32,
}

/// What was measured of a read. What is left out is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadProfile {
    /// How old its answers may be.
    pub class: Staleness,
    /// Requests.
    #[serde(default)]
    pub requests: u64,
    /// Requests a minute, lately.
    #[serde(default)]
    pub requests_per_minute: u64,
    /// Of 1,000 requests, those that the cache answered.
    #[serde(default)]
    pub hit_permille: u32,
    /// Median time of a reading, in microseconds.
    #[serde(default)]
    pub cost_p50_us: u64,
    /// 99th percentile of that.
    #[serde(default)]
    pub cost_p99_us: u64,
    /// Share of the time of all reads, in 1,000 parts.
    #[serde(default)]
    pub cost_share_permille: u32,
    /// Mean size of an answer, in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Of 1,000 readings of something known, those that found it changed.
    #[serde(default)]
    pub change_permille: u32,
}

/// What becomes of the answers of a read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheRule {
    /// They are not cached, for this reason.
    Bypass(String),
    /// They are cached.
    Store(Keep),
}

/// For how long answers are cached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// How long an answer is served, in milliseconds.
    pub ttl_ms: u32,
    /// How long after that it is served while it is read again.
    #[serde(default)]
    pub stale_while_revalidate_ms: u32,
    /// How long after that it is served when it cannot be read again.
    #[serde(default)]
    pub stale_if_error_ms: u32,
    /// Groups by which it can be purged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_numbered_as_the_wit_numbers_them() {
        for (number, verb) in [(0, Verb::Toggle), (1, Verb::Set), (2, Verb::Clear)] {
            assert_eq!((Verb::_lift(number), verb as u8), (verb, number));
        }
        for (number, effect) in [(0, Effect::Add), (1, Effect::Remove), (2, Effect::Keep), (3, Effect::Deny)] {
            assert_eq!((Effect::_lift(number), effect as u8), (effect, number));
        }
        assert_eq!((Action::_lift(0), Action::_lift(1)), (Action::Add, Action::Remove));
        assert_eq!((Staleness::_lift(0), Staleness::_lift(4)), (Staleness::Live, Staleness::Origin));
    }
}
