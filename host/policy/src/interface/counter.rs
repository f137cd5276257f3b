//! `counter`: hits out, what they count for back.

use weir_default_policy::rules::{self, Settings};
use weir_policy_vectors as vectors;
use weir_policy_vectors::{Answer, Call};

use super::Interface;
use crate::bindings::counter;
use crate::call::{Called, Outcome, Role, not_exported};
use crate::convert::{UuidTexts, check_length, check_limit};
use crate::instance::Warm;
use crate::module::Module;
use crate::record::{self, to_id};
use crate::subject::{Asked, Subject};
use weir_core::model::{CountRule, Hit, Id};

impl Subject for Hit {
    const INTERFACE: Interface = Interface::Counter;
    type Rule = CountRule;

    fn target(&self) -> &Id {
        &self.target
    }

    fn ask(module: &Module, role: Role, asked: Asked<'_, Self>) -> Outcome<Vec<CountRule>> {
        let Asked { kind, now_ms, batch, .. } = asked;
        let mut texts = UuidTexts::for_ids(batch.iter().flat_map(|hit| std::iter::once(&hit.target).chain(&hit.actor)));
        let hits = hits(batch, &mut texts);
        let call = |warm: &mut Warm| match &warm.exports.counter {
            Some(counter) => counter.call_decide(&mut warm.store, kind, now_ms, &hits),
            None => Err(not_exported()),
        };
        module.run(role, Called { interface: Self::INTERFACE, function: "decide", kind }, 1, call, |rules| {
            check_rules(batch.len(), &rules)
        })
    }

    fn builtin(settings: &Settings, _now_ms: u64, batch: &[Self]) -> Vec<CountRule> {
        vec![rules::count(settings); batch.len()]
    }

    fn record(kind: &str, now_ms: u64, batch: &[Self]) -> Call {
        let hit = |hit: &Hit| vectors::Hit {
            target: record::id(&hit.target),
            actor: hit.actor.as_ref().map(record::id),
            by: hit.by,
        };
        let batch = batch.iter().map(hit).collect();
        Call::CounterDecide(vectors::CounterDecide { kind: kind.to_owned(), now_ms, batch })
    }

    fn record_rules(rules: &[CountRule]) -> Answer {
        Answer::Hits(rules.to_vec())
    }
}

/// A recorded hit.
pub(crate) fn to_hit(hit: &vectors::Hit) -> Hit {
    Hit { target: to_id(&hit.target), actor: hit.actor.as_ref().map(to_id), by: hit.by }
}

/// A batch as the guest gets it. `texts` is [`UuidTexts::for_ids`] of its ids.
fn hits<'a>(batch: &'a [Hit], texts: &'a mut UuidTexts) -> Vec<counter::Hit<'a>> {
    let mut writer = texts.writer();
    let hit = |hit: &'a Hit| counter::Hit {
        target: writer.id(&hit.target),
        actor: hit.actor.as_ref().map(|actor| writer.id(actor)),
        by: hit.by,
    };
    batch.iter().map(hit).collect()
}

/// The answer to a batch of `length`, or how it breaks the contract.
fn check_rules(length: usize, rules: &[counter::HitRule]) -> Result<Vec<CountRule>, String> {
    check_length(length, "hits", rules.len(), "rules")?;
    let rule = |(index, rule): (usize, &counter::HitRule)| {
        if rule.weight > CountRule::WEIGHT_MAX {
            return Err(format!("rule {index} has a weight of {}, over {}", rule.weight, CountRule::WEIGHT_MAX));
        }
        if rule.unique_ms == Some(0) {
            return Err(format!("rule {index} has a unique-ms of 0"));
        }
        let limit = check_limit(index, rule.limit)?;
        Ok(CountRule { weight: rule.weight, unique_ms: rule.unique_ms, limit })
    };
    rules.iter().enumerate().map(rule).collect()
}
