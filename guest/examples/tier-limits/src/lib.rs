//! How often an actor may like depends on their tier, which your own tables know.
//!
//! The operator writes the statement, names it `tier-of` and grants it; the module sees only its rows:
//!
//! ```toml
//! [[policy.statement]]
//! name = "tier-of"
//! sql = "SELECT tier FROM account WHERE id = ?"
//! parameters = ["integer"]
//!
//! [[policy.grant]]
//! module = "tier-limits"
//! sql = ["tier-of"]
//! ```
//!
//! A batch costs one round trip, however many actors are in it. Who has no tier, and everybody while SQL does not answer,
//! gets the least: a limit that opens when SQL is down invites whoever can bring it down. The settings `burst-gold`,
//! `burst-silver` and `burst-other` are operations a minute.

use std::collections::BTreeMap;

use weir_policy_sdk::sql::{self, Value};
use weir_policy_sdk::{Effect, Id, Intent, Level, Rule, Toggle, Verb, export, log, setting};

struct TierLimits;

impl Toggle for TierLimits {
    fn decide(kind: &str, _now_ms: u64, batch: &[Intent]) -> Vec<Rule> {
        let burst = |tier: &str, default: u32| {
            let set = setting(kind, &format!("burst-{tier}")).and_then(|text| text.parse().ok());
            set.filter(|burst| *burst > 0).unwrap_or(default)
        };
        let (gold, silver, other) = (burst("gold", 100), burst("silver", 20), burst("other", 5));
        let tiers = tiers(batch);
        let rule = |intent: &Intent| {
            let (when_absent, when_present) = match intent.verb {
                Verb::Toggle => (Effect::Add, Effect::Remove),
                Verb::Set => (Effect::Add, Effect::Keep),
                Verb::Clear => (Effect::Keep, Effect::Remove),
            };
            let burst = match tiers.get(&intent.actor).map(String::as_str) {
                Some("gold") => gold,
                Some("silver") => silver,
                _ => other,
            };
            Rule::new(when_absent, when_present).limited(burst, 60_000)
        };
        batch.iter().map(rule).collect()
    }
}

/// The tiers of the batch's actors, as far as SQL says. Each actor is asked for once.
fn tiers(batch: &[Intent]) -> BTreeMap<Id, String> {
    let mut actors: Vec<&Id> = batch.iter().map(|intent| &intent.actor).collect();
    actors.sort_unstable();
    actors.dedup();
    if actors.is_empty() {
        return BTreeMap::new();
    }
    let parameters: Vec<sql::Row> = actors.iter().map(|actor| vec![Value::from(*actor)]).collect();
    let found = sql::run("tier-of", &parameters).unwrap_or_else(|error| {
        log(Level::Warn, &format!("no tiers, everybody gets the least: {error:?}"));
        Vec::new()
    });
    let tier = |rows: Vec<sql::Row>| rows.first()?.first()?.as_text().map(str::to_owned);
    actors.into_iter().zip(found).filter_map(|(actor, rows)| Some((actor.clone(), tier(rows)?))).collect()
}

export!(TierLimits: toggle);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_policy_sdk::{testing, vectors};

    #[test]
    fn the_cases_hold() {
        vectors::check::<TierLimits>(include_str!("../cases.json"));
    }

    #[test]
    fn without_sql_everybody_gets_the_least() {
        testing::sql_rows("tier-of", &[7.into()], &[&["gold".into()]]);
        testing::granted_are_unavailable();
        let rules = TierLimits::decide("feed-like", 0, &[Intent::toggle(1, 7)]);
        assert_eq!(rules, [Rule::new(Effect::Add, Effect::Remove).limited(5, 60_000)]);
        assert_eq!(testing::logged().len(), 1);
    }
}
