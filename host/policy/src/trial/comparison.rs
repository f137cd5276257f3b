//! How the decisions of two modules differ, counted, with samples.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};
use weir_policy_vectors::{Answer, Call, DeliveryEnabled, Values};

use crate::instance::{CallFailure, Cause};
use weir_core::operators::{Micros, Sample, TrialReport};

/// Different samples that are kept; what differs beyond is only counted.
const SAMPLES_MAX: usize = 100;
/// Longest time that a histogram resolves, in microseconds.
const MICROS_MAX: u64 = 60_000_000;

/// What is known of a candidate against the live module.
#[derive(Default)]
pub(crate) struct Comparison {
    batches: u64,
    decisions: u64,
    differing: u64,
    failures: BTreeMap<&'static str, u64>,
    samples: Vec<Sample>,
    live: Times,
    candidate: Times,
}

/// Times of calls.
#[derive(Default)]
struct Times(Option<Histogram<u64>>);

impl Times {
    fn record(&mut self, elapsed: Duration) {
        if self.0.is_none() {
            // Fails only for invalid bounds.
            self.0 = Histogram::new_with_bounds(1, MICROS_MAX, 2).ok();
        }
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1));
        }
    }

    fn report(&self) -> Option<Micros> {
        self.0.as_ref().map(|times| Micros {
            mean: (times.mean() * 10.0).round() / 10.0,
            p50: times.value_at_quantile(0.5),
            p99: times.value_at_quantile(0.99),
            max: times.max(),
        })
    }
}

impl Comparison {
    /// A call of the candidate that failed.
    pub(crate) fn failed(&mut self, failure: &CallFailure) {
        self.batches += 1;
        *self.failures.entry(failure.cause.as_str()).or_default() += 1;
    }

    /// A call that the candidate answered, where nothing is there to compare with.
    pub(crate) fn served(&mut self, decisions: usize, elapsed: Duration) {
        self.batches += 1;
        self.decisions += decisions as u64;
        self.candidate.record(elapsed);
    }

    /// A call that both answered: times of the live module and of the candidate, and their [`differences`], which are
    /// computed before: a request for a report must not wait for that.
    pub(crate) fn compare(
        &mut self,
        call: &Call,
        live: Duration,
        candidate: Duration,
        differing: Vec<(Value, Value, Value)>,
    ) {
        self.batches += 1;
        self.live.record(live);
        self.candidate.record(candidate);
        self.decisions += decisions(call) as u64;
        self.differing += differing.len() as u64;
        // Beyond so many of one call nothing new is seen, and each is compared with every sample.
        for (input, live, candidate) in differing.into_iter().take(2 * SAMPLES_MAX) {
            self.sample(call, input, live, candidate);
        }
    }

    fn sample(&mut self, call: &Call, input: Value, live: Value, candidate: Value) {
        let interface = call.interface();
        let same = |sample: &&mut Sample| {
            sample.interface == interface
                && sample.kind == call.kind()
                && sample.input == input
                && sample.live == live
                && sample.candidate == candidate
        };
        if let Some(known) = self.samples.iter_mut().find(same) {
            known.times += 1;
        } else if self.samples.len() < SAMPLES_MAX {
            let kind = call.kind().to_owned();
            let interface = interface.to_owned();
            self.samples.push(Sample { interface, kind, input, live, candidate, times: 1 });
        }
    }

    /// For operators, who learn from the trial which module it is.
    pub(crate) fn report(&self) -> TrialReport {
        let count = |cause: Cause| self.failures.get(cause.as_str()).copied().unwrap_or(0);
        TrialReport {
            batches: self.batches,
            decisions: self.decisions,
            differing: self.differing,
            failures: Cause::ALL.into_iter().map(|cause| (cause.as_str().to_owned(), count(cause))).collect(),
            samples: self.samples.clone(),
            live_micros: self.live.report(),
            candidate_micros: self.candidate.report(),
            ..TrialReport::default()
        }
    }
}

/// How many decisions a call is.
pub(crate) fn decisions(call: &Call) -> usize {
    match call {
        Call::ToggleDecide(call) => call.batch.len(),
        Call::CounterDecide(call) => call.batch.len(),
        Call::IngestValidate(call) => call.batch.len(),
        Call::DeliveryEnabled(call) => call.members as usize,
        Call::DeliveryFields(_) | Call::FlushPlan(_) | Call::CacheEligible(_) => 1,
        Call::FlushCoalesce(call) => call.entries.len(),
        Call::AdmissionPlace(call) => call.batch.len(),
        Call::AdmissionPlan(_) => 1,
    }
}

/// The decisions of a call that differ: input, live answer, candidate's answer.
pub(crate) fn differences(call: &Call, live: &Answer, candidate: &Answer) -> Vec<(Value, Value, Value)> {
    match (call, live, candidate) {
        (Call::ToggleDecide(call), Answer::Rules(live), Answer::Rules(candidate)) => {
            one_by_one(&call.batch, live, candidate)
        }
        (Call::CounterDecide(call), Answer::Hits(live), Answer::Hits(candidate)) => {
            one_by_one(&call.batch, live, candidate)
        }
        (Call::IngestValidate(call), Answer::Documents(live), Answer::Documents(candidate)) => {
            one_by_one(&call.batch, live, candidate)
        }
        (Call::DeliveryFields(call), Answer::Fields(live), Answer::Fields(candidate)) if live != candidate => {
            vec![(json!(call.topic), json!(live), json!(candidate))]
        }
        (Call::DeliveryEnabled(call), Answer::Enabled(live), Answer::Enabled(candidate)) => {
            let rows: Vec<Value> = (0..call.members as usize).map(|member| delivery_row(call, member)).collect();
            one_by_one(&rows, live, candidate)
        }
        (Call::AdmissionPlace(call), Answer::Places(live), Answer::Places(candidate)) => {
            one_by_one(&call.batch, live, candidate)
        }
        (Call::AdmissionPlan(call), Answer::Admission(live), Answer::Admission(candidate)) if live != candidate => {
            vec![(json!(call.room), json!(live), json!(candidate))]
        }
        (Call::FlushPlan(call), Answer::Plan(live), Answer::Plan(candidate)) if live != candidate => {
            vec![(json!(call.backlog), json!(live), json!(candidate))]
        }
        (Call::CacheEligible(call), Answer::Cache(live), Answer::Cache(candidate)) if live != candidate => {
            vec![(json!(call.profile), json!(live), json!(candidate))]
        }
        (Call::FlushCoalesce(call), Answer::Kept(live), Answer::Kept(candidate)) => {
            let kept =
                |list: &[u32], index: usize| list.binary_search(&u32::try_from(index).unwrap_or(u32::MAX)).is_ok();
            let entries = call.entries.iter().enumerate();
            entries
                .map(|(index, entry)| (entry, kept(live, index), kept(candidate, index)))
                .filter(|(_, live, candidate)| live != candidate)
                .map(|(entry, live, candidate)| (json!(entry), json!({ "kept": live }), json!({ "kept": candidate })))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// What a module saw of one member.
fn delivery_row(call: &DeliveryEnabled, member: usize) -> Value {
    let fields = call.columns.iter().map(|column| {
        let value = match &column.values {
            Values::Bools(values) => json!(values.get(member)),
            Values::Ints(values) => json!(values.get(member)),
            Values::Texts(values) => json!(values.get(member)),
        };
        (column.field.clone(), value)
    });
    json!({ "topic": call.topic, "fields": fields.collect::<serde_json::Map<String, Value>>() })
}

/// Of a batch with one answer for each item.
fn one_by_one<I: Serialize, A: Serialize + PartialEq>(
    batch: &[I],
    live: &[A],
    candidate: &[A],
) -> Vec<(Value, Value, Value)> {
    let both = batch.iter().zip(live.iter().zip(candidate)).filter(|(_, (live, candidate))| live != candidate);
    both.map(|(item, (live, candidate))| (json!(item), json!(live), json!(candidate))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str) -> Call {
        serde_json::from_str(text).unwrap()
    }

    fn answer(text: &str) -> Answer {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn only_what_differs_is_sampled_and_the_same_is_counted() {
        let decide = call(
            r#"{"toggle.decide":{"kind":"k","batch":[{"target":1,"actor":2},{"target":1,"actor":3,"verb":"clear"}]}}"#,
        );
        let live = answer(
            r#"{"rules":[{"when_absent":"add","when_present":"remove"},{"when_absent":"keep","when_present":"remove"}]}"#,
        );
        let candidate = answer(
            r#"{"rules":[{"when_absent":"add","when_present":"remove"},{"when_absent":"keep","when_present":"deny"}]}"#,
        );
        let mut comparison = Comparison::default();
        let time = Duration::from_micros(5);
        for candidate in [&candidate, &candidate, &live] {
            comparison.compare(&decide, time, time, differences(&decide, &live, candidate));
        }
        let report = json!(comparison.report());
        assert_eq!((&report["batches"], &report["decisions"], &report["differing"]), (&json!(3), &json!(6), &json!(2)));
        let [sample] = report["samples"].as_array().unwrap().as_slice() else { panic!("{report}") };
        assert_eq!((&sample["input"]["actor"], &sample["times"]), (&json!(3), &json!(2)));
        assert_eq!(
            (&sample["live"]["when_present"], &sample["candidate"]["when_present"]),
            (&json!("remove"), &json!("deny"))
        );
        assert_eq!(report["live_micros"]["p50"], json!(5));
    }

    #[test]
    fn survivors_are_compared_entry_by_entry() {
        let entry = |actor: u32| json!({"target": 1, "actor": actor, "action": "add"});
        let coalesce = json!({"flush.coalesce": {"kind": "k", "entries": [entry(1), entry(2), entry(1)]}});
        let coalesce: Call = serde_json::from_value(coalesce).unwrap();
        let differ = differences(&coalesce, &answer(r#"{"kept":[1,2]}"#), &answer(r#"{"kept":[0,1,2]}"#));
        assert_eq!(differ, [(entry(1), json!({"kept": false}), json!({"kept": true}))]);
    }
}
