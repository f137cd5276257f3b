//! Test vectors natively: the file that `weir policy test` runs on the component, run on the type behind it.

use std::fmt::Write as _;

use weir_policy_vectors as vectors;
use weir_policy_vectors::{Answer, Call, Case, Vectors, Verdict};

use crate::{
    Admission, Arrival, Backlog, Cache, CacheRule, Column, Counter, Delivery, Document, Effect, Entry, Flush, Hit, Id,
    Ingest, Intent, Placement, RateLimit, ReadProfile, Room, Staleness, Toggle, Values, Verb, Violation, testing,
};

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
    plan: Option<fn(&vectors::FlushPlan) -> Answer>,
    coalesce: Option<fn(&vectors::FlushCoalesce) -> Answer>,
    place: Option<fn(&vectors::AdmissionPlace) -> Answer>,
    admit: Option<fn(&vectors::AdmissionPlan) -> Answer>,
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
    let intent = |intent: &vectors::Intent| Intent {
        target: id(&intent.target),
        actor: id(&intent.actor),
        verb: match intent.verb {
            vectors::Verb::Toggle => Verb::Toggle,
            vectors::Verb::Set => Verb::Set,
            vectors::Verb::Clear => Verb::Clear,
        },
    };
    let batch: Vec<Intent> = call.batch.iter().map(intent).collect();
    let rule = |rule: crate::Rule| vectors::Rule {
        when_absent: effect(rule.when_absent),
        when_present: effect(rule.when_present),
        limit: rule.limit.map(limit),
    };
    Answer::Rules(Policy::decide(&call.kind, call.now_ms, &batch).into_iter().map(rule).collect())
}

fn count<Policy: Counter>(call: &vectors::CounterDecide) -> Answer {
    let hit = |hit: &vectors::Hit| Hit { target: id(&hit.target), actor: hit.actor.as_ref().map(id), by: hit.by };
    let batch: Vec<Hit> = call.batch.iter().map(hit).collect();
    let rule = |rule: crate::HitRule| vectors::HitRule {
        weight: rule.weight,
        unique_ms: rule.unique_ms,
        limit: rule.limit.map(limit),
    };
    Answer::Hits(Policy::decide(&call.kind, call.now_ms, &batch).into_iter().map(rule).collect())
}

fn validate<Policy: Ingest>(call: &vectors::IngestValidate) -> Result<Answer, String> {
    let document = |document: &vectors::Document| {
        let body = serde_json::Value::Object(document.body.clone()).to_string();
        Document::new(id(&document.id), id(&document.actor), body)
    };
    let batch: Vec<Document> = call.batch.iter().map(document).collect();
    let violation = |Violation { path, message }| vectors::Violation { path, message };
    let verdict = |(index, verdict): (usize, crate::Verdict)| match verdict {
        Ok(None) => Ok(Verdict::Ok(None)),
        Ok(Some(text)) => match serde_json::from_str(&text) {
            Ok(fields) => Ok(Verdict::Ok(Some(fields))),
            Err(error) => Err(format!("document {index} is normalised to what is no JSON object: {error}: {text}")),
        },
        Err(violations) => Ok(Verdict::Violations(violations.into_iter().map(violation).collect())),
    };
    let verdicts = Policy::validate(&call.kind, call.now_ms, &batch).into_iter().enumerate();
    verdicts.map(verdict).collect::<Result<_, _>>().map(Answer::Documents)
}

fn fields<Policy: Delivery>(call: &vectors::DeliveryFields) -> Answer {
    Answer::Fields(Policy::fields(&call.kind, &call.topic))
}

fn enabled<Policy: Delivery>(call: &vectors::DeliveryEnabled) -> Answer {
    let column = |column: &vectors::Column| Column {
        field: column.field.clone(),
        values: match &column.values {
            vectors::Values::Bools(values) => Values::Bools(values.clone()),
            vectors::Values::Ints(values) => Values::Ints(values.clone()),
            vectors::Values::Texts(values) => Values::Texts(values.clone()),
        },
    };
    let columns: Vec<Column> = call.columns.iter().map(column).collect();
    Answer::Enabled(Policy::enabled(&call.kind, &call.topic, call.now_ms, call.members as usize, &columns))
}

fn plan<Policy: Flush>(call: &vectors::FlushPlan) -> Answer {
    let vectors::Backlog { entries, targets, bytes, oldest_age_ms } = call.backlog;
    let plan = Policy::plan(&call.kind, call.now_ms, &Backlog { entries, targets, bytes, oldest_age_ms });
    Answer::Plan(vectors::Plan {
        flush_now: plan.flush_now,
        changes_max: plan.changes_max,
        look_again_ms: plan.look_again_ms,
    })
}

fn coalesce<Policy: Flush>(call: &vectors::FlushCoalesce) -> Answer {
    let entry = |entry: &vectors::Entry| match entry.action {
        vectors::Action::Add => Entry::add(id(&entry.target), id(&entry.actor)),
        vectors::Action::Remove => Entry::remove(id(&entry.target), id(&entry.actor)),
    };
    let entries: Vec<Entry> = call.entries.iter().map(entry).collect();
    Answer::Kept(Policy::coalesce(&call.kind, &entries))
}

fn place<Policy: Admission>(call: &vectors::AdmissionPlace) -> Answer {
    let arrival = |arrival: &vectors::Arrival| Arrival { queue: id(&arrival.queue), actor: id(&arrival.actor) };
    let batch: Vec<Arrival> = call.batch.iter().map(arrival).collect();
    let place = |place: Placement| match place {
        Placement::Line(lane) => vectors::Place::Line(lane),
        Placement::Draw(lane) => vectors::Place::Draw(lane),
        Placement::Refuse => vectors::Place::Refuse,
    };
    Answer::Places(Policy::place(&call.kind, call.now_ms, &batch).into_iter().map(place).collect())
}

fn admit<Policy: Admission>(call: &vectors::AdmissionPlan) -> Answer {
    let vectors::Room { waiting, active, capacity, since_ms, admitted, completed, expired, no_shows, abandoned } =
        call.room;
    let room = Room { waiting, active, capacity, since_ms, admitted, completed, expired, no_shows, abandoned };
    let plan = Policy::plan(&call.kind, call.now_ms, &room);
    Answer::Admission(vectors::Admission {
        admit: plan.admit,
        active_ttl_ms: plan.active_ttl_ms,
        next_tick_ms: plan.next_tick_ms,
    })
}

fn eligible<Policy: Cache>(call: &vectors::CacheEligible) -> Answer {
    let vectors::ReadProfile {
        class,
        requests,
        requests_per_minute,
        hit_permille,
        cost_p50_us,
        cost_p99_us,
        cost_share_permille,
        bytes,
        change_permille,
    } = call.profile;
    let class = match class {
        vectors::Staleness::Live => Staleness::Live,
        vectors::Staleness::Seconds => Staleness::Seconds,
        vectors::Staleness::Minutes => Staleness::Minutes,
        vectors::Staleness::Hours => Staleness::Hours,
        vectors::Staleness::Origin => Staleness::Origin,
    };
    let profile = ReadProfile {
        class,
        requests,
        requests_per_minute,
        hit_permille,
        cost_p50_us,
        cost_p99_us,
        cost_share_permille,
        bytes,
        change_permille,
    };
    Answer::Cache(match Policy::eligible(&call.kind, call.now_ms, &profile) {
        CacheRule::Bypass(reason) => vectors::CacheRule::Bypass(reason),
        CacheRule::Store(keep) => vectors::CacheRule::Store(vectors::Keep {
            ttl_ms: keep.ttl_ms,
            stale_while_revalidate_ms: keep.stale_while_revalidate_ms,
            stale_if_error_ms: keep.stale_if_error_ms,
            groups: keep.groups,
        }),
    })
}

fn id(id: &vectors::Id) -> Id {
    match id {
        vectors::Id::Int(value) => Id::Int(*value),
        vectors::Id::Text(value) => Id::Text(value.clone()),
    }
}

fn limit(limit: RateLimit) -> vectors::RateLimit {
    vectors::RateLimit { burst: limit.burst, period_ms: limit.period_ms }
}

fn effect(effect: Effect) -> vectors::Effect {
    match effect {
        Effect::Add => vectors::Effect::Add,
        Effect::Remove => vectors::Effect::Remove,
        Effect::Keep => vectors::Effect::Keep,
        Effect::Deny => vectors::Effect::Deny,
    }
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
    use crate::{FlushPlan, Rule, setting};

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
