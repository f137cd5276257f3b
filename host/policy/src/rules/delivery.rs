//! Who gets a push: the live module says, a canary is asked besides, and what the kind names stands in for one that fails.

use std::sync::Arc;

use weir_default_policy::delivery as native;
use weir_policy_vectors::{Answer, Call};

use super::service::Rules;
use crate::builtin::KindRules;
use crate::call::{Answered, Outcome, Role};
use crate::decision::PolicyError;
use crate::interface::Interface;
use crate::interface::delivery::{self, Asked};
use crate::module::Module;
use crate::registry::set::Active;
use weir_core::config::PolicyFailure;
use weir_core::model::{Digest, SettingColumn};

/// What a call is about.
#[derive(Clone, Copy)]
struct About<'a> {
    kind: &'a str,
    /// Members.
    weight: usize,
    /// Whether it is made where a thread may wait.
    may_wait: bool,
}

impl Rules {
    /// The fields that a topic needs; none where the rules know no such topic.
    ///
    /// # Errors
    /// What the module did, where nothing stands in for it.
    pub async fn delivery_fields(self: &Arc<Self>, kind: &str, topic: &str) -> Result<Vec<String>, PolicyError> {
        let active = self.active();
        if !active.does_io(Interface::Delivery) {
            return self.fields_now(&active, kind, topic, false);
        }
        let (rules, kind, topic) = (Arc::clone(self), kind.to_owned(), topic.to_owned());
        let digest = active.live.get(Interface::Delivery).module.digest;
        let asked = tokio::task::spawn_blocking(move || rules.fields_now(&active, &kind, &topic, true)).await;
        asked.unwrap_or_else(|error| Err(ended(digest, &error)))
    }

    /// Whether each of so many members gets a push on `topic`: as many answers as there are members. `columns` have the
    /// fields of [`Rules::delivery_fields`], a value for each member.
    ///
    /// # Errors
    /// See [`Rules::delivery_fields`].
    pub async fn deliver(
        self: &Arc<Self>,
        kind: &str,
        topic: &str,
        now_ms: u64,
        members: u32,
        columns: Vec<SettingColumn>,
    ) -> Result<Vec<bool>, PolicyError> {
        let active = self.active();
        if !active.does_io(Interface::Delivery) {
            return self.enabled_now(&active, Asked { kind, topic, now_ms, members, columns: &columns }, false);
        }
        let (rules, kind, topic) = (Arc::clone(self), kind.to_owned(), topic.to_owned());
        let digest = active.live.get(Interface::Delivery).module.digest;
        let ask = move || {
            let asked = Asked { kind: &kind, topic: &topic, now_ms, members, columns: &columns };
            rules.enabled_now(&active, asked, true)
        };
        tokio::task::spawn_blocking(ask).await.unwrap_or_else(|error| Err(ended(digest, &error)))
    }

    /// The module whose rules hold for preferences now.
    pub fn delivery_digest(&self) -> Digest {
        self.live_digest(Interface::Delivery)
    }

    fn fields_now(&self, active: &Active, kind: &str, topic: &str, may_wait: bool) -> Result<Vec<String>, PolicyError> {
        let builtin = |kind: &KindRules| native::fields(kind.topics.get(topic).map(String::as_str));
        let record = |fields: &Vec<String>| (delivery::record_fields(kind, topic), Answer::Fields(fields.clone()));
        let contract = self.contracts.of(kind);
        let ask = |module: &Module, role| module.fields(role, kind, topic, contract.as_deref());
        self.ask_delivery(active, About { kind, weight: 1, may_wait }, ask, builtin, record)
    }

    fn enabled_now(&self, active: &Active, asked: Asked<'_>, may_wait: bool) -> Result<Vec<bool>, PolicyError> {
        let builtin = |kind: &KindRules| delivery::builtin(&kind.delivery, asked);
        let record = |enabled: &Vec<bool>| (delivery::record_enabled(asked), Answer::Enabled(enabled.clone()));
        let about = About { kind: asked.kind, weight: asked.members as usize, may_wait };
        self.ask_delivery(active, about, |module, role| module.enabled(role, asked), builtin, record)
    }

    /// One call. A chunk concerns many members: the live module decides all of it, and a canary is asked only to see whether
    /// it fails.
    fn ask_delivery<T>(
        &self,
        active: &Active,
        About { kind, weight, may_wait }: About<'_>,
        ask: impl Fn(&Module, Role) -> Outcome<T>,
        builtin: impl Fn(&KindRules) -> T,
        record: impl FnOnce(&T) -> (Call, Answer),
    ) -> Result<T, PolicyError> {
        if let Some(canary) = &active.canary
            && canary.module.exports(Interface::Delivery)
            && !canary.module.does_io
        {
            self.trials.judge_canary(canary, &ask(&canary.module, Role::Canary));
        }
        let module = &active.live.get(Interface::Delivery).module;
        let rules = self.kinds.get(kind);
        if let Some(rules) = rules.filter(|_| self.runs_natively(module)) {
            return Ok(builtin(rules));
        }
        let outcome = ask(module, Role::Live);
        self.trials.judge_live(active, module, &outcome);
        let failure = match outcome {
            Ok(Answered { answer, elapsed, .. }) => {
                self.trials.observe_live(active, module, Interface::Delivery, weight, elapsed, || record(&answer));
                return Ok(answer);
            }
            Err(failure) => failure,
        };
        if let Some(before) = self.stands_in(active, module, Interface::Delivery, may_wait) {
            let outcome = ask(before, Role::Live);
            self.report_breakers(before);
            if let Ok(answered) = outcome {
                self.count_fallback(kind, "previous");
                return Ok(answered.answer);
            }
        }
        if let Some(rules) = rules.filter(|rules| rules.on_failure == PolicyFailure::BuiltIn) {
            self.count_fallback(kind, "built-in");
            return Ok(builtin(rules));
        }
        self.count_fallback(kind, "deny");
        let reason = format!("{}: {}", failure.cause.as_str(), failure.reason);
        Err(PolicyError { digest: module.digest, interface: Interface::Delivery.name(), reason })
    }
}

fn ended(digest: Digest, error: &tokio::task::JoinError) -> PolicyError {
    PolicyError { digest, interface: Interface::Delivery.name(), reason: format!("the call ended: {error}") }
}
