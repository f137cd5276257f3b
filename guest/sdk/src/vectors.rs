//! Test vectors natively: the file that `weir policy test` runs on the component, run on the type behind it.

use std::fmt::Write as _;

use weir_policy_vectors as vectors;
use weir_policy_vectors::{Answer, Call, Case, Vectors, Verdict};

use crate::{Admission, Cache, Counter, Delivery, Document, Flush, Ingest, Toggle, testing};

/// What [`export!`](crate::export) exports of a type. Implemented by it.
pub trait Exports {
    /// The exported interfaces.
    fn exports() -> Exported;
}

/// Fails where a document is normalised to what is none.
type Validate = fn(&vectors::IngestValidate) -> Result<Answer, String>;

/// The interfaces that a type exports. Only [`export!`](crate::export) makes one.
#[derive(Debug, Default, Clone, Copy)]
pub struct Exported {
    toggle: Option<fn(&vectors::ToggleDecide) -> Answer>,
    count: Option<fn(&vectors::CounterDecide) -> Answer>,
    validate: Option<Validate>,
    fields: Option<fn(&vectors::DeliveryFields) -> Answer>,
    enabled: Option<fn(&vectors::DeliveryEnabled) -> Answer>,
    plan: Option<fn(&vectors::PlanFlush) -> Answer>,
    coalesce: Option<fn(&vectors::FlushCoalesce) -> Answer>,
    place: Option<fn(&vectors::AdmissionPlace) -> Answer>,
    admit: Option<fn(&vectors::PlanAdmission) -> Answer>,
    eligible: Option<fn(&vectors::CacheEligible) -> Answer>,
}

impl Exported {
    /// With `toggle`.
    pub fn toggle<Policy: Toggle>(self) -> Self {
        Self { toggle: Some(toggle::<Policy>), ..self }
    }

    /// With `counter`.
    pub fn counter<Policy: Counter>(self) -> Self {
        Self { count: Some(count::<Policy>), ..self }
    }

    /// With `ingest`.
    pub fn ingest<Policy: Ingest>(self) -> Self {
        Self { validate: Some(validate::<Policy>), ..self }
    }

    /// With `delivery`.
    pub fn delivery<Policy: Delivery>(self) -> Self {
        Self { fields: Some(fields::<Policy>), enabled: Some(enabled::<Policy>), ..self }
    }

    /// With `flush`.
    pub fn flush<Policy: Flush>(self) -> Self {
        Self { plan: Some(plan::<Policy>), coalesce: Some(coalesce::<Policy>), ..self }
    }

    /// With `admission`.
    pub fn admission<Policy: Admission>(self) -> Self {
        Self { place: Some(place::<Policy>), admit: Some(admit::<Policy>), ..self }
    }

    /// With `cache`.
    pub fn cache<Policy: Cache>(self) -> Self {
        Self { eligible: Some(eligible::<Policy>), ..self }
    }

    fn answer(self, call: &Call) -> Result<Answer, String> {
        let answer = match call {
            Call::ToggleDecide(call) => self.toggle.map(|toggle| Ok(toggle(call))),
            Call::CounterDecide(call) => self.count.map(|count| Ok(count(call))),
            Call::IngestValidate(call) => self.validate.map(|validate| validate(call)),
            Call::DeliveryFields(call) => self.fields.map(|fields| Ok(fields(call))),
            Call::DeliveryEnabled(call) => self.enabled.map(|enabled| Ok(enabled(call))),
            Call::FlushPlan(call) => self.plan.map(|plan| Ok(plan(call))),
            Call::FlushCoalesce(call) => self.coalesce.map(|coalesce| Ok(coalesce(call))),
            Call::AdmissionPlace(call) => self.place.map(|place| Ok(place(call))),
            Call::AdmissionPlan(call) => self.admit.map(|admit| Ok(admit(call))),
            Call::CacheEligible(call) => self.eligible.map(|eligible| Ok(eligible(call))),
        };
        answer.unwrap_or_else(|| Err(format!("export! does not name the interface of {}", call.name())))
    }
}

/// Runs every case of a file of vectors: `check::<MyRules>(include_str!("../cases.json"))`.
///
/// Each case runs on a thread of its own, with the file's settings and granted stubs: as on a fresh instance.
///
/// # Panics
/// When the file is not one of vectors, or a case fails. All that fail are named, with what was expected and what came.
#[track_caller]
pub fn check<Policy: Exports>(file: &str) {
    let vectors = Vectors::parse(file).unwrap_or_else(|error| panic!("not a file of vectors: {error}"));
    let mut failed = 0;
    let mut report = String::new();
    for case in &vectors.cases {
        let got = match std::thread::scope(|scope| scope.spawn(|| run(Policy::exports(), &vectors, case)).join()) {
            Ok(Ok(answer)) if answer == case.expect => continue,
            Ok(Ok(answer)) => text(&answer),
            Ok(Err(reason)) => reason,
            Err(_) => "a panic, see above".to_owned(),
        };
        failed += 1;
        // Writing to a string does not fail.
        let _ = write!(report, "\n  {:?}\n    expected {}\n    got      {got}", case.name, text(&case.expect));
    }
    assert!(failed == 0, "{failed} of {} cases failed:{report}", vectors.cases.len());
}

fn text(answer: &Answer) -> String {
    serde_json::to_string(answer).unwrap_or_default()
}

fn run(exported: Exported, vectors: &Vectors, case: &Case) -> Result<Answer, String> {
    for (kind, settings) in &vectors.settings {
        settings.iter().for_each(|(key, value)| testing::set(kind, key, value));
    }
    for (key, value) in &vectors.granted.redis {
        testing::redis_set(key, value.as_str());
    }
    for found in &vectors.granted.sql {
        let rows: Vec<Vec<_>> = found.rows.iter().map(|row| row.iter().map(sql_value).collect()).collect();
        let parameters: Vec<_> = found.parameters.iter().map(sql_value).collect();
        testing::sql_rows(&found.statement, &parameters, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    exported.answer(&case.call)
}

fn toggle<Policy: Toggle>(call: &vectors::ToggleDecide) -> Answer {
    Answer::Rules(Policy::decide(&call.kind, call.now_ms, &call.batch))
}

fn count<Policy: Counter>(call: &vectors::CounterDecide) -> Answer {
    Answer::Hits(Policy::decide(&call.kind, call.now_ms, &call.batch))
}

fn validate<Policy: Ingest>(call: &vectors::IngestValidate) -> Result<Answer, String> {
    let document = |document: &vectors::Document| {
        let body = serde_json::Value::Object(document.body.clone()).to_string();
        Document::new(document.id.clone(), document.actor.clone(), body)
    };
    let batch: Vec<Document> = call.batch.iter().map(document).collect();
    let verdict = |(index, verdict): (usize, crate::Verdict)| match verdict {
        Ok(None) => Ok(Verdict::Ok(None)),
        Ok(Some(text)) => match serde_json::from_str(&text) {
            Ok(fields) => Ok(Verdict::Ok(Some(fields))),
            Err(error) => Err(format!("document {index} is normalised to what is no JSON object: {error}: {text}")),
        },
        Err(violations) => Ok(Verdict::Violations(violations)),
    };
    let verdicts = Policy::validate(&call.kind, call.now_ms, &batch).into_iter().enumerate();
    verdicts.map(verdict).collect::<Result<_, _>>().map(Answer::Documents)
}

fn fields<Policy: Delivery>(call: &vectors::DeliveryFields) -> Answer {
    Answer::Fields(Policy::fields(&call.kind, &call.topic))
}

fn enabled<Policy: Delivery>(call: &vectors::DeliveryEnabled) -> Answer {
    Answer::Enabled(Policy::enabled(&call.kind, &call.topic, call.now_ms, call.members as usize, &call.columns))
}

fn plan<Policy: Flush>(call: &vectors::PlanFlush) -> Answer {
    Answer::Plan(Policy::plan(&call.kind, call.now_ms, &call.backlog))
}

fn coalesce<Policy: Flush>(call: &vectors::FlushCoalesce) -> Answer {
    Answer::Kept(Policy::coalesce(&call.kind, &call.entries))
}

fn place<Policy: Admission>(call: &vectors::AdmissionPlace) -> Answer {
    Answer::Places(Policy::place(&call.kind, call.now_ms, &call.batch))
}

fn admit<Policy: Admission>(call: &vectors::PlanAdmission) -> Answer {
    Answer::Admission(Policy::plan(&call.kind, call.now_ms, &call.room))
}

fn eligible<Policy: Cache>(call: &vectors::CacheEligible) -> Answer {
    Answer::Cache(Policy::eligible(&call.kind, call.now_ms, &call.profile))
}

fn sql_value(value: &vectors::SqlValue) -> crate::sql::Value {
    match value {
        vectors::SqlValue::Null => crate::sql::Value::Null,
        vectors::SqlValue::Integer(value) => crate::sql::Value::Integer(*value),
        vectors::SqlValue::Real(value) => crate::sql::Value::Real(*value),
        vectors::SqlValue::Text(value) => crate::sql::Value::Text(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Backlog, Effect, FlushPlan, Hit, Intent, Rule, Violation, setting};

    use super::*;

    struct Sample;

    impl Toggle for Sample {
        fn decide(kind: &str, now_ms: u64, batch: &[Intent]) -> Vec<Rule> {
            assert!(now_ms != 100, "as a module that traps");
            let remembered = testing::redis_value("seen").is_some();
            let found = crate::sql::run("tier-of", &[vec![(&batch[0].actor).into()]]).unwrap();
            crate::redis::set(&[crate::redis::Entry::new("seen", "yes", 1)]).unwrap();
            let free = setting(kind, "free").is_some() && !remembered && found == [[["gold".into()]]];
            let effect = if free { Effect::Add } else { Effect::Deny };
            batch.iter().map(|_| Rule::new(effect, Effect::Keep)).collect()
        }
    }

    impl Flush for Sample {
        fn plan(_kind: &str, _now_ms: u64, backlog: &Backlog) -> FlushPlan {
            FlushPlan { flush_now: backlog.entries > 5, changes_max: u32::MAX, look_again_ms: 7 }
        }
    }

    impl Counter for Sample {
        fn decide(_kind: &str, _now_ms: u64, batch: &[Hit]) -> Vec<crate::HitRule> {
            let rule = |hit: &Hit| match hit.actor {
                Some(_) => crate::HitRule::new(hit.by).unique(1_000).limited(2, 3),
                None => crate::HitRule::new(0),
            };
            batch.iter().map(rule).collect()
        }
    }

    impl Ingest for Sample {
        fn validate(_kind: &str, _now_ms: u64, batch: &[Document]) -> Vec<crate::Verdict> {
            let verdict = |document: &Document| match document.body.as_str() {
                "{}" => Err(vec![Violation::new("/title", "is missing")]),
                "{\"keep\":1}" => Ok(None),
                "{\"break\":1}" => Ok(Some("[]".into())),
                _ => Ok(Some("{ \"title\": \"b\" }".into())),
            };
            batch.iter().map(verdict).collect()
        }
    }

    crate::export!(Sample: toggle, counter, ingest, flush);

    struct ToggleOnly;

    impl Toggle for ToggleOnly {
        fn decide(_kind: &str, _now_ms: u64, _batch: &[Intent]) -> Vec<Rule> {
            Vec::new()
        }
    }

    crate::export!(ToggleOnly: toggle);

    /// Every case begins anew: what one keeps, the next does not see.
    const FILE: &str = r#"{
        "settings": {"k": {"free": "yes"}},
        "granted": {"sql": [{"statement": "tier-of", "parameters": [7], "rows": [["gold"]]}]},
        "cases": [
            {"name": "one", "toggle.decide": {"kind": "k", "batch": [{"target": 1, "actor": 7}]},
             "expect": {"rules": [{"when_absent": "add", "when_present": "keep"}]}},
            {"name": "two", "toggle.decide": {"kind": "k", "batch": [{"target": 1, "actor": 7}]},
             "expect": {"rules": [{"when_absent": "add", "when_present": "keep"}]}},
            {"name": "three", "flush.plan": {"kind": "k", "backlog": {"entries": 6}},
             "expect": {"plan": {"flush_now": true, "look_again_ms": 7}}},
            {"name": "four", "flush.coalesce": {"kind": "k", "entries": [
                {"target": 1, "actor": 7, "action": "add"}, {"target": 1, "actor": 7, "action": "remove"}]},
             "expect": {"kept": [1]}},
            {"name": "five", "counter.decide": {"kind": "k", "batch": [{"target": 1, "actor": 7, "by": 4}, {"target": 1}]},
             "expect": {"hits": [{"weight": 4, "unique_ms": 1000, "limit": {"burst": 2, "period_ms": 3}}, {"weight": 0}]}},
            {"name": "six", "ingest.validate": {"kind": "k", "batch": [{"id": 1, "actor": 7, "body": {}},
                {"id": 1, "actor": 7, "body": {"keep": 1}}, {"id": 1, "actor": 7, "body": {"title": " b "}}]},
             "expect": {"documents": [{"violations": [{"path": "/title", "message": "is missing"}]}, {"ok": null},
                {"ok": {"title": "b"}}]}}
        ]
    }"#;

    fn failure<Policy: Exports>(file: &'static str) -> String {
        *std::thread::spawn(|| check::<Policy>(file)).join().unwrap_err().downcast::<String>().unwrap()
    }

    #[test]
    fn every_case_begins_anew() {
        check::<Sample>(FILE);
    }

    #[test]
    fn each_failing_case_is_named_with_what_came() {
        let text = failure::<ToggleOnly>(FILE);
        assert!(text.starts_with("6 of 6 cases failed:"), "{text}");
        for part in ["\"one\"\n", "expected {\"rules\":[{", "got      {\"rules\":[]}", "interface of ingest.validate"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }

    #[test]
    fn a_panic_is_a_failed_case_and_a_wrong_file_is_said_to_be_one() {
        let late = r#"{"cases": [{"name": "late", "toggle.decide": {"kind": "k", "now_ms": 100, "batch": []},
            "expect": {"rules": []}}]}"#;
        assert!(failure::<Sample>(late).contains("a panic"));
        assert!(failure::<Sample>("{}").contains("there is no case"));
        let broken = r#"{"cases": [{"name": "broken", "ingest.validate": {"kind": "k", "batch": [
            {"id": 1, "actor": 7, "body": {"break": 1}}]}, "expect": {"documents": [{"ok": {}}]}}]}"#;
        assert!(failure::<Sample>(broken).contains("document 0 is normalised to what is no JSON object"));
    }
}
