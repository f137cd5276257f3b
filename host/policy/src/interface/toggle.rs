//! `toggle`: intents out, decision tables back.

use weir_default_policy::rules::{self, Settings};
use weir_policy_vectors as vectors;
use weir_policy_vectors::{Answer, Call};

use super::Interface;
use crate::bindings::toggle;
use crate::call::{Called, Outcome, Role, not_exported};
use crate::convert::{UuidTexts, check_length, check_limit};
use crate::instance::Warm;
use crate::module::Module;
use crate::record::{self, to_id};
use crate::subject::{Asked, Subject};
use weir_core::model::{Effect, Id, Intent, ToggleRule, Verb};

impl Subject for Intent {
    const INTERFACE: Interface = Interface::Toggle;
    type Rule = ToggleRule;

    fn target(&self) -> &Id {
        &self.target
    }

    fn ask(module: &Module, role: Role, asked: Asked<'_, Self>) -> Outcome<Vec<ToggleRule>> {
        let Asked { kind, now_ms, batch, .. } = asked;
        let mut texts = UuidTexts::for_ids(batch.iter().flat_map(|intent| [&intent.target, &intent.actor]));
        let intents = intents(batch, &mut texts);
        let call = |warm: &mut Warm| match &warm.exports.toggle {
            Some(toggle) => toggle.call_decide(&mut warm.store, kind, now_ms, &intents),
            None => Err(not_exported()),
        };
        module.run(role, Called { interface: Self::INTERFACE, function: "decide", kind }, 1, call, |rules| {
            check_rules(batch.len(), &rules)
        })
    }

    fn builtin(settings: &Settings, _now_ms: u64, batch: &[Self]) -> Vec<ToggleRule> {
        batch.iter().map(|intent| rules::decide(settings, intent.verb)).collect()
    }

    fn record(kind: &str, now_ms: u64, batch: &[Self]) -> Call {
        let intent = |intent: &Intent| vectors::Intent {
            target: record::id(&intent.target),
            actor: record::id(&intent.actor),
            verb: intent.verb,
        };
        let batch = batch.iter().map(intent).collect();
        Call::ToggleDecide(vectors::ToggleDecide { kind: kind.to_owned(), now_ms, batch })
    }

    fn record_rules(rules: &[ToggleRule]) -> Answer {
        Answer::Rules(rules.to_vec())
    }
}

/// A recorded intent.
pub(crate) fn to_intent(intent: &vectors::Intent) -> Intent {
    Intent { target: to_id(&intent.target), actor: to_id(&intent.actor), verb: intent.verb }
}

/// A batch as the guest gets it. `texts` is [`UuidTexts::for_ids`] of its ids.
fn intents<'a>(batch: &'a [Intent], texts: &'a mut UuidTexts) -> Vec<toggle::Intent<'a>> {
    let mut writer = texts.writer();
    let intent = |intent: &'a Intent| toggle::Intent {
        target: writer.id(&intent.target),
        actor: writer.id(&intent.actor),
        verb: match intent.verb {
            Verb::Toggle => toggle::Verb::Toggle,
            Verb::Set => toggle::Verb::Set,
            Verb::Clear => toggle::Verb::Clear,
        },
    };
    batch.iter().map(intent).collect()
}

/// The answer to a batch of `length`, or how it breaks the contract.
fn check_rules(length: usize, rules: &[toggle::Rule]) -> Result<Vec<ToggleRule>, String> {
    check_length(length, "intents", rules.len(), "rules")?;
    let effect = |effect| match effect {
        toggle::Effect::Add => Effect::Add,
        toggle::Effect::Remove => Effect::Remove,
        toggle::Effect::Keep => Effect::Keep,
        toggle::Effect::Deny => Effect::Deny,
    };
    let rule = |(index, rule): (usize, &toggle::Rule)| {
        let limit = check_limit(index, rule.limit)?;
        Ok(ToggleRule { when_absent: effect(rule.when_absent), when_present: effect(rule.when_present), limit })
    };
    rules.iter().enumerate().map(rule).collect()
}
