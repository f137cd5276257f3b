//! A like and its taking back, without the SDK: all that a component needs is `wit-bindgen` and the WIT. What the SDK adds
//! is comfort (stubs for native tests, vectors, the messages of panics in the host's log).
//!
//! `weir policy test` runs `cases.json` on the component; natively the rule is an ordinary function.

/// Generated from the WIT.
#[allow(unsafe_code, missing_docs, clippy::all, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "toggle-only" });

    #[cfg(target_arch = "wasm32")]
    export!(Policy with_types_in self);
    #[cfg(target_arch = "wasm32")]
    type Policy = super::Plain;
}

use bindings::exports::weir::policy::toggle::{Effect, Guest, Intent, Rule, Verb};

struct Plain;

impl Guest for Plain {
    fn decide(_kind: String, _now_ms: u64, batch: Vec<Intent>) -> Vec<Rule> {
        batch.iter().map(|intent| rule(intent.verb)).collect()
    }
}

/// Idempotent for those who say what they want, the other state for those who do not. No limit.
fn rule(verb: Verb) -> Rule {
    let (when_absent, when_present) = match verb {
        Verb::Toggle => (Effect::Add, Effect::Remove),
        Verb::Set => (Effect::Add, Effect::Keep),
        Verb::Clear => (Effect::Keep, Effect::Remove),
    };
    Rule { when_absent, when_present, limit: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bindings::weir::policy::types::Id;

    #[test]
    fn one_rule_for_each_intent_in_order() {
        let intent = |verb| Intent { target: Id::Int(3), actor: Id::Text("bo".into()), verb };
        let rules = Plain::decide("feed-like".into(), 0, vec![intent(Verb::Clear), intent(Verb::Toggle)]);
        assert!(matches!(
            rules[..],
            [
                Rule { when_absent: Effect::Keep, when_present: Effect::Remove, limit: None },
                Rule { when_absent: Effect::Add, when_present: Effect::Remove, limit: None },
            ]
        ));
    }
}
