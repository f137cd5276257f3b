//! The language of test vectors and decision logs: calls of a policy module and their answers, as JSON.
//!
//! Pure data, shared by the host (`weir policy test`, activation, the decision log) and the SDK (native tests), so that
//! one file means the same to both.
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

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Name of the custom section in which a component may carry its vectors, as their JSON text.
pub const VECTORS_SECTION: &str = "weir:vectors";
/// Name of the custom section in which `weir policy build` notes the module's name.
pub const NAME_SECTION: &str = "weir:name";
/// Name of the custom section in which `weir policy build` notes the module's version.
pub const VERSION_SECTION: &str = "weir:version";

/// The time of a call whose case says none: 2026-01-01, 00:00 UTC, in Unix milliseconds.
pub const NOW_MS_DEFAULT: u64 = 1_767_225_600_000;

/// A file of test vectors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vectors {
    /// What `config.get` answers, by kind and key. Nothing else of the operator's settings is seen.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, BTreeMap<String, String>>,
    /// What stands for the granted imports. Each case begins with it anew.
    #[serde(skip_serializing_if = "Granted::is_empty")]
    pub granted: Granted,
    /// The cases, run in order.
    pub cases: Vec<Case>,
}

/// What stands for the granted imports while vectors run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Granted {
    /// What `redis` holds at first, as text.
    pub redis: BTreeMap<String, String>,
    /// What `sql` answers. Parameters that are not listed find no rows.
    pub sql: Vec<SqlRows>,
}

/// The rows that a statement finds for one row of parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlRows {
    /// Name of the statement.
    pub statement: String,
    /// One row of parameters.
    pub parameters: Vec<SqlValue>,
    /// What it finds.
    pub rows: Vec<Vec<SqlValue>>,
}

/// A value of SQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SqlValue {
    /// NULL.
    Null,
    /// An integer.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// Text.
    Text(String),
}

/// One call and what must come of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The call.
    #[serde(flatten)]
    pub call: Call,
    /// The answer that it must have.
    pub expect: Answer,
}

/// A call of a module, under its name in the WIT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Call {
    /// `toggle.decide`.
    #[serde(rename = "toggle.decide")]
    ToggleDecide(ToggleDecide),
    /// `flush.plan`.
    #[serde(rename = "flush.plan")]
    FlushPlan(FlushPlan),
    /// `flush.coalesce`.
    #[serde(rename = "flush.coalesce")]
    FlushCoalesce(FlushCoalesce),
}

/// Arguments of `toggle.decide`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToggleDecide {
    /// Name of the kind.
    pub kind: String,
    /// Unix time, in milliseconds; left out, [`NOW_MS_DEFAULT`].
    #[serde(default = "the_first_of_2026")]
    pub now_ms: u64,
    /// The requests.
    pub batch: Vec<Intent>,
}

/// Arguments of `flush.plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushPlan {
    /// Name of the kind.
    pub kind: String,
    /// Unix time, in milliseconds; left out, [`NOW_MS_DEFAULT`].
    #[serde(default = "the_first_of_2026")]
    pub now_ms: u64,
    /// What waits.
    pub backlog: Backlog,
}

/// Arguments of `flush.coalesce`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushCoalesce {
    /// Name of the kind.
    pub kind: String,
    /// The changes, in order of acceptance.
    pub entries: Vec<Entry>,
}

/// Identifies a target or an actor. UUIDs cross as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// An integer.
    Int(i64),
    /// Text.
    Text(String),
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// What the caller asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// The other state.
    #[default]
    Toggle,
    /// Present.
    Set,
    /// Absent.
    Clear,
}

/// A decision table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Effect when the pair is absent.
    pub when_absent: Effect,
    /// Effect when the pair is present.
    pub when_present: Effect,
    /// Beyond it the request is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<RateLimit>,
}

/// What happens in one state of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Make it present.
    Add,
    /// Make it absent.
    Remove,
    /// Leave it.
    Keep,
    /// Refuse the request.
    Deny,
}

/// At most `burst` operations in any `period_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Operations allowed at once.
    pub burst: u32,
    /// Time in which they are refilled, in milliseconds.
    pub period_ms: u32,
}

/// What waits in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backlog {
    /// Changes.
    pub entries: u64,
    /// Their size, in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Age of the oldest, in milliseconds; at most `now_ms`.
    #[serde(default)]
    pub oldest_age_ms: u64,
}

/// What to do with a backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Write what waits, now.
    pub flush_now: bool,
    /// At most so many changes in one transaction; left out, the host decides.
    #[serde(default = "the_hosts_batch")]
    pub changes_max: u32,
    /// Ask again after so many milliseconds.
    pub look_again_ms: u32,
}

fn the_first_of_2026() -> u64 {
    NOW_MS_DEFAULT
}

fn the_hosts_batch() -> u32 {
    u32::MAX
}

/// One accepted change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What is liked.
    pub target: Id,
    /// Who likes it.
    pub actor: Id,
    /// What holds afterwards.
    pub action: Action,
}

/// What holds for a pair after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is present.
    Add,
    /// It is absent.
    Remove,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Of `toggle.decide`: one for each intent.
    Rules(Vec<Rule>),
    /// Of `flush.plan`.
    Plan(Plan),
    /// Of `flush.coalesce`: indexes of the entries that survive.
    Kept(Vec<u32>),
}

/// A line of a decision log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// When it was made, in Unix milliseconds.
    pub at_ms: u64,
    /// SHA-256 of the module that made it, in hexadecimal.
    pub digest: String,
    /// What was asked.
    #[serde(flatten)]
    pub call: Call,
    /// What the module answered.
    pub answer: Answer,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// Fuel that the same call uses, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
}

/// Why a text is no file of vectors.
#[derive(Debug)]
pub struct ParseError(String);

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

impl Vectors {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Not JSON, an unknown field, no case at all, an answer that is not one of its call, or a change from before 1970.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let vectors: Self = serde_json::from_str(text).map_err(|error| ParseError(error.to_string()))?;
        refuse_unknown_fields(text)?;
        if vectors.cases.is_empty() {
            return Err(ParseError("there is no case in it".into()));
        }
        match vectors.cases.iter().find_map(|case| Some((&case.name, case.mistake()?))) {
            Some((name, mistake)) => Err(ParseError(format!("case {name:?}: {mistake}"))),
            None => Ok(vectors),
        }
    }
}

/// Of a case: its call is flattened into it, which makes serde take any field.
fn refuse_unknown_fields(text: &str) -> Result<(), ParseError> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(default)]
        cases: Vec<BTreeMap<String, serde::de::IgnoredAny>>,
    }
    let fields: Fields = serde_json::from_str(text).map_err(|error| ParseError(error.to_string()))?;
    let known = |name: &String| name == "name" || name == "expect" || Call::NAMES.contains(&name.as_str());
    match fields.cases.iter().flat_map(BTreeMap::keys).find(|name| !known(name)) {
        Some(unknown) => Err(ParseError(format!("a case has no field {unknown:?}"))),
        None => Ok(()),
    }
}

impl Case {
    fn mistake(&self) -> Option<String> {
        match &self.call {
            call if !call.takes(&self.expect) => {
                Some(format!("{} is answered with {{\"{}\": …}}", call.name(), call.answer_name()))
            }
            // A host knows when the oldest change was accepted, not how old it is.
            Call::FlushPlan(plan) if plan.backlog.oldest_age_ms > plan.now_ms => {
                Some(format!("oldest_age_ms {} is more than now_ms {}", plan.backlog.oldest_age_ms, plan.now_ms))
            }
            _ => None,
        }
    }
}

impl Granted {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Call {
    /// Every [`Call::name`].
    pub const NAMES: [&str; 3] = ["toggle.decide", "flush.plan", "flush.coalesce"];

    /// Interface and function, such as `toggle.decide`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ToggleDecide(_) => "toggle.decide",
            Self::FlushPlan(_) => "flush.plan",
            Self::FlushCoalesce(_) => "flush.coalesce",
        }
    }

    /// The kind that it is about.
    pub fn kind(&self) -> &str {
        match self {
            Self::ToggleDecide(call) => &call.kind,
            Self::FlushPlan(call) => &call.kind,
            Self::FlushCoalesce(call) => &call.kind,
        }
    }

    fn answer_name(&self) -> &'static str {
        match self {
            Self::ToggleDecide(_) => "rules",
            Self::FlushPlan(_) => "plan",
            Self::FlushCoalesce(_) => "kept",
        }
    }

    fn takes(&self, answer: &Answer) -> bool {
        matches!(
            (self, answer),
            (Self::ToggleDecide(_), Answer::Rules(_))
                | (Self::FlushPlan(_), Answer::Plan(_))
                | (Self::FlushCoalesce(_), Answer::Kept(_))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(text: &str) -> Result<Case, String> {
        Vectors::parse(&format!("{{\"cases\":[{text}]}}"))
            .map(|mut vectors| vectors.cases.remove(0))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_call_is_read_and_written() {
        let texts = [
            r#"{"name":"a","toggle.decide":{"kind":"k","now_ms":5,"batch":[{"target":1,"actor":"b","verb":"set"}]},"expect":{"rules":[{"when_absent":"add","when_present":"keep","limit":{"burst":1,"period_ms":2}}]}}"#,
            r#"{"name":"b","flush.plan":{"kind":"k","now_ms":9,"backlog":{"entries":3,"bytes":57,"oldest_age_ms":9}},"expect":{"plan":{"flush_now":true,"changes_max":7,"look_again_ms":1}}}"#,
            r#"{"name":"c","flush.coalesce":{"kind":"k","entries":[{"target":1,"actor":2,"action":"remove"}]},"expect":{"kept":[0]}}"#,
        ];
        for text in texts {
            assert_eq!(serde_json::to_string(&case(text).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| case(text).unwrap_err();
        let plan = r#""flush.plan":{"kind":"k","backlog":{"entries":1}}"#;
        assert!(wrong(&format!(r#"{{"name":"a",{plan},"expect":{{"kept":[]}}}}"#)).contains("answered with {\"plan\""));
        assert!(wrong(&format!(r#"{{"name":"a",{plan}}}"#)).contains("expect"));
        let early = r#""flush.plan":{"kind":"k","now_ms":4,"backlog":{"entries":1,"oldest_age_ms":5}}"#;
        let answer = r#""expect":{"plan":{"flush_now":true,"look_again_ms":1}}"#;
        assert!(wrong(&format!(r#"{{"name":"a",{early},{answer}}}"#)).contains("more than now_ms 4"));
        assert!(wrong(r#"{"name":"a","toggle.decid":{},"expect":{"kept":[]}}"#).contains("Call"));
        let extra =
            format!(r#"{{"name":"a",{plan},"expct":1,"expect":{{"plan":{{"flush_now":true,"look_again_ms":1}}}}}}"#);
        assert!(wrong(&extra).contains("no field \"expct\""));
        assert!(Vectors::parse("{}").unwrap_err().to_string().contains("no case"));
        assert!(Vectors::parse(r#"{"case":[]}"#).unwrap_err().to_string().contains("case"));
    }
}
