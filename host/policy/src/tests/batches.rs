//! Hits and documents: as toggles, and of documents several calls for a batch.

#![cfg(test)]

use serde_json::json;

use super::*;

impl Misbehaving {
    fn count(&self, kind: &str, batch: &[Hit]) -> Result<Decided<CountRule>, PolicyError> {
        self.policies.rules.decide_counts(kind, 1, batch).now_or_never().unwrap()
    }

    /// Few documents are judged at once.
    fn judge(&self, kind: &str, batch: &[Document]) -> Result<Decided<Verdict>, PolicyError> {
        self.policies.rules.validate(kind, 1, batch).now_or_never().unwrap()
    }

    fn given(&self) -> Digest {
        self.policies.rules.active().live.get(Interface::Ingest).module.digest
    }
}

fn quick() -> PolicyConfig {
    PolicyConfig { call_deadline_ms: 1_000, ..lenient() }
}

/// `length` hits with ids of every type, some without an actor.
fn hits(length: usize) -> Vec<Hit> {
    let hit = |n: usize| Hit {
        target: if n.is_multiple_of(2) { Id::Int(n as i64) } else { uuid(n as u128) },
        actor: [None, Some(Id::Int(-1)), Some(Id::Text("bo".into())), Some(uuid(!(n as u128)))][n % 4].clone(),
        by: 1 + n as u32 % 7,
    };
    (0..length).map(hit).collect()
}

/// `length` documents of `bytes` bytes or a few more.
fn documents(length: usize, bytes: usize) -> Vec<Document> {
    let document = |n: usize| Document {
        id: uuid(n as u128),
        actor: if n.is_multiple_of(2) { Id::Int(7) } else { Id::Text("bo".into()) },
        body: json!({ "title": "é".repeat(bytes / 2) }).to_string().into(),
    };
    (0..length).map(document).collect()
}

#[test]
fn the_component_counts_and_judges_as_the_native_rules_do() {
    let kinds = [
        kind("default", &[], PolicyFailure::Deny),
        kind("strict", &[("limit-burst", "1"), ("unique-ms", "60000"), ("weight", "1000000")], PolicyFailure::Deny),
        kind("free", &[("limit-burst", "0"), ("unique-ms", "0"), ("weight", "0")], PolicyFailure::Deny),
        kind("wrong", &[("unique-ms", "soon"), ("weight", "1000001")], PolicyFailure::Deny),
        kind("targets", &[("flush-targets", "5"), ("flush-entries", "1000000")], PolicyFailure::Deny),
    ];
    let policies = builtin(&kinds);
    for kind in &kinds {
        let settings = builtin::settings(&kind.settings);
        for length in [0, 1, 50, 512] {
            let batch = hits(length);
            let decided = policies.rules.decide_counts(&kind.kind, 5, &batch).now_or_never().unwrap().unwrap();
            assert_eq!(decided.rules, Hit::builtin(&settings, 0, &batch), "{}", kind.kind);
            assert_eq!(decided.decider, Decider::One(builtin::digest()));
        }
        let batch = documents(20, 100);
        let decided = policies.rules.validate(&kind.kind, 5, &batch).now_or_never().unwrap().unwrap();
        let expected = Decided { rules: vec![Ok(None); 20], decider: Decider::One(builtin::digest()) };
        assert_eq!(
            (Document::builtin(&settings, 0, &batch), decided),
            (expected.rules.clone(), expected),
            "{}",
            kind.kind
        );
        for targets in [4, 5] {
            let backlog = Backlog { targets, ..backlog(50, 10_000) };
            let planned = policies.plan_now(&kind.kind, 10_000, &backlog);
            assert_eq!(planned, flush::builtin_plan(&settings, 10_000, &backlog), "{} {backlog:?}", kind.kind);
        }
    }
    let due = |targets: u64| policies.plan_now("targets", 1, &Backlog { targets, ..backlog(50, 1) }).flush_now;
    assert_eq!((due(4), due(5)), (false, true));
}

#[test]
fn every_failed_count_is_counted_named_and_followed_by_a_good_one() {
    let misbehaving = misbehaving(quick(), PolicyFailure::Deny);
    let seven = CountRule { weight: 7, unique_ms: None, limit: None };
    let faults = [
        ("trap", "trap: ", "unreachable"),
        ("loop", "deadline: ", "interrupt"),
        ("memory", "trap: ", "unreachable"),
        ("short", "contract: ", "4 rules for 5 hits"),
        ("wide", "contract: ", "6 rules for 5 hits"),
        ("effect", "contract: ", "rule 0 has a weight of 1000001, over 1000000"),
        ("unique", "contract: ", "rule 0 has a unique-ms of 0"),
        ("burst", "contract: ", "rule 0 has a limit with a burst of 0"),
        ("period", "contract: ", "rule 0 has a limit with a period of 0"),
        ("huge", "contract: ", ""),
        ("outside", "contract: ", ""),
    ];
    for (round, (kind, cause, words)) in faults.into_iter().enumerate() {
        let error = misbehaving.count(kind, &hits(5)).unwrap_err();
        assert!(error.reason.starts_with(cause) && error.reason.contains(words), "{kind}: {error}");
        assert_eq!(error.interface, "counter");
        assert_eq!(misbehaving.count("fine", &hits(5)).unwrap().rules, [seven; 5], "after {kind}");
        let module = misbehaving.policies.registry.modules().swap_remove(0);
        assert_eq!((module.healthy, module.failures), (false, round as u64 + 1), "{kind}");
    }
}

#[test]
fn every_failed_judgement_is_counted_named_and_followed_by_a_good_one() {
    let misbehaving = misbehaving(quick(), PolicyFailure::Deny);
    let faults = [
        ("trap", "trap: ", "unreachable"),
        ("loop", "deadline: ", "interrupt"),
        ("memory", "trap: ", "unreachable"),
        ("short", "contract: ", "4 verdicts for 5 documents"),
        ("wide", "contract: ", "6 verdicts for 5 documents"),
        ("no object", "contract: ", "document 0 is normalised to what is no JSON object"),
        ("violations", "contract: ", "document 0 is refused without a violation"),
        ("huge", "contract: ", ""),
        ("outside", "contract: ", ""),
    ];
    for (round, (kind, cause, words)) in faults.into_iter().enumerate() {
        let error = misbehaving.judge(kind, &documents(5, 50)).unwrap_err();
        assert!(error.reason.starts_with(cause) && error.reason.contains(words), "{kind}: {error}");
        assert_eq!(error.interface, "ingest");
        assert_eq!(misbehaving.judge("fine", &documents(5, 50)).unwrap().rules, vec![Ok(None); 5], "after {kind}");
        let module = misbehaving.policies.registry.modules().swap_remove(0);
        assert_eq!((module.healthy, module.failures), (false, round as u64 + 1), "{kind}");
    }
    let violation = Violation { path: "/a".into(), message: "no".into() };
    assert_eq!(misbehaving.judge("refused", &documents(2, 9)).unwrap().rules, vec![Err(vec![violation]); 2]);
    assert_eq!(misbehaving.judge("changed", &documents(2, 9)).unwrap().rules, vec![Ok(Some("{}".into())); 2]);
    assert_eq!(misbehaving.judge("fine", &[]).unwrap().rules, []);
}

#[test]
fn the_built_in_rules_stand_in_for_hits_and_documents_too() {
    let misbehaving = misbehaving(lenient(), PolicyFailure::BuiltIn);
    for kind in ["trap", "short"] {
        let counted = misbehaving.count(kind, &hits(3)).unwrap();
        // The test's kinds have a limit of 3.
        let limit = Some(RateLimit { burst: 3, period_ms: 10_000 });
        assert_eq!(counted.rules, [CountRule { weight: 1, unique_ms: None, limit }; 3]);
        assert_eq!(counted.decider, Decider::One(builtin::digest()));
        let judged = misbehaving.judge(kind, &documents(3, 50)).unwrap();
        assert_eq!(judged.rules, vec![Ok(None); 3]);
        assert_eq!(judged.decider, Decider::One(builtin::digest()));
    }
    assert_eq!(misbehaving.policies.rules.fallbacks(), 4);
    misbehaving.count("trap of a kind that was not loaded", &hits(1)).unwrap_err();
    misbehaving.judge("trap of a kind that was not loaded", &documents(1, 9)).unwrap_err();
}

#[tokio::test]
async fn documents_that_one_call_cannot_carry_go_in_several() {
    // Its instances have room for what one call carries, not for the batch.
    let misbehaving = misbehaving(lenient(), PolicyFailure::Deny);
    let batch = documents(100, 64 << 10);
    let judged = misbehaving.policies.rules.validate("changed", 1, &batch).await.unwrap();
    assert_eq!(judged.rules, vec![Ok(Some("{}".into())); 100]);
    assert_eq!(judged.decider, Decider::One(misbehaving.given()));
    let small = documents(1_000, 2);
    assert_eq!(misbehaving.policies.rules.validate("fine", 1, &small).await.unwrap().rules, vec![Ok(None); 1_000]);
    let active = misbehaving.policies.rules.active();
    let module = &active.live.get(Interface::Ingest).module;
    let asked = |kind, batch| Asked { kind, now_ms: 1, batch, contract: None, may_wait: true };
    let whole = Document::ask(module, Role::Test, asked("fine", &batch));
    assert_eq!(whole.unwrap_err().cause, Cause::Contract, "all in one call are too much");
    let error = misbehaving.policies.rules.validate("trap", 1, &batch).await.unwrap_err();
    assert!(error.reason.starts_with("trap: "), "{error}");
    let info = misbehaving.policies.registry.modules().swap_remove(0);
    assert_eq!(info.failures, 1, "after a failure the rest of the batch is not tried");
}

#[tokio::test]
async fn a_batch_of_which_some_calls_fail_has_several_deciders() {
    let misbehaving = misbehaving(lenient(), PolicyFailure::BuiltIn);
    let mut batch = documents(12, 64 << 10);
    // Goes alone, and its instances have no room for it: from then on the built-in rules decide.
    batch[6] = documents(1, 2 << 20).remove(0);
    let judged = misbehaving.policies.rules.validate("refused", 1, &batch).await.unwrap();
    let is_refused: Vec<bool> = judged.rules.iter().map(Result::is_err).collect();
    assert_eq!(is_refused, [[true; 6], [false; 6]].concat());
    let (given, builtin) = (misbehaving.given(), builtin::digest());
    assert_eq!(judged.decider, Decider::Each([[given; 6], [builtin; 6]].concat()));
    assert_eq!(misbehaving.policies.rules.fallbacks(), 1);
}

#[test]
fn one_document_fits_whatever_it_comes_back_as() {
    let config = lenient();
    let largest = config.documents_bytes_max();
    let misbehaving = misbehaving(config, PolicyFailure::Deny);
    let document = &documents(1, largest - 20)[0];
    assert_eq!(
        Document::fitting(&misbehaving.policies.registry.loader.config, &[document.clone(), document.clone()]),
        1
    );
    let active = misbehaving.policies.rules.active();
    let module = &active.live.get(Interface::Ingest).module;
    let asked = |kind: &str| {
        let batch = std::slice::from_ref(document);
        Document::ask(module, Role::Test, Asked { kind, now_ms: 1, batch, contract: None, may_wait: true })
    };
    assert_eq!(asked("changed").unwrap().answer, [Ok(Some("{}".into()))]);
}
