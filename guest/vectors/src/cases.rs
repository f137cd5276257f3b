//! Files of test vectors and lines of a decision log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::call::Call;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Backlog;

    fn case(text: &str) -> Result<Case, String> {
        Vectors::parse(&format!("{{\"cases\":[{text}]}}"))
            .map(|mut vectors| vectors.cases.remove(0))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_call_is_read_and_written() {
        let texts = [
            r#"{"name":"a","toggle.decide":{"kind":"k","now_ms":5,"batch":[{"target":1,"actor":"b","verb":"set"}]},"expect":{"rules":[{"when_absent":"add","when_present":"keep","limit":{"burst":1,"period_ms":2}}]}}"#,
            r#"{"name":"b","flush.plan":{"kind":"k","now_ms":9,"backlog":{"entries":3,"targets":2,"bytes":57,"oldest_age_ms":9}},"expect":{"plan":{"flush_now":true,"changes_max":7,"look_again_ms":1}}}"#,
            r#"{"name":"c","flush.coalesce":{"kind":"k","entries":[{"target":1,"actor":2,"action":"remove"}]},"expect":{"kept":[0]}}"#,
            r#"{"name":"d","counter.decide":{"kind":"k","now_ms":5,"batch":[{"target":1,"actor":"b","by":3},{"target":1,"by":1}]},"expect":{"hits":[{"weight":2,"unique_ms":9,"limit":{"burst":1,"period_ms":2}},{"weight":0}]}}"#,
            r#"{"name":"e","ingest.validate":{"kind":"k","now_ms":5,"batch":[{"id":"a","actor":2,"body":{"n":[1.5,null],"title":"é"}}]},"expect":{"documents":[{"ok":null},{"ok":{"title":"e"}},{"violations":[{"path":"/title","message":"m"}]}]}}"#,
        ];
        for text in texts {
            assert_eq!(serde_json::to_string(&case(text).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let hit = case(
            r#"{"name":"a","counter.decide":{"kind":"k","batch":[{"target":1}]},"expect":{"hits":[{"weight":1}]}}"#,
        );
        let Call::CounterDecide(call) = hit.unwrap().call else { panic!("another call") };
        assert_eq!((call.now_ms, &call.batch[0].actor, call.batch[0].by), (NOW_MS_DEFAULT, &None, 1));
        let plan = case(
            r#"{"name":"a","flush.plan":{"kind":"k","backlog":{"entries":1}},"expect":{"plan":{"flush_now":true,"look_again_ms":1}}}"#,
        );
        let Call::FlushPlan(call) = plan.unwrap().call else { panic!("another call") };
        assert_eq!(call.backlog, Backlog { entries: 1, targets: 0, bytes: 0, oldest_age_ms: 0 });
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
        let text = r#"{"name":"a","ingest.validate":{"kind":"k","batch":[{"id":1,"actor":1,"body":"{}"}]},"expect":{"documents":[]}}"#;
        assert!(wrong(text).contains("map"), "a body is written as an object");
        assert!(wrong(r#"{"name":"a","toggle.decid":{},"expect":{"kept":[]}}"#).contains("Call"));
        let extra =
            format!(r#"{{"name":"a",{plan},"expct":1,"expect":{{"plan":{{"flush_now":true,"look_again_ms":1}}}}}}"#);
        assert!(wrong(&extra).contains("no field \"expct\""));
        assert!(Vectors::parse("{}").unwrap_err().to_string().contains("no case"));
        assert!(Vectors::parse(r#"{"case":[]}"#).unwrap_err().to_string().contains("case"));
    }
}
