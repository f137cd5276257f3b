//! Hits and documents under trial: shadow, canary, probation, the decision log and its replay.

#![cfg(test)]

use super::*;
use crate::Verdict;
use weir_core::model::{Document, Hit};

/// Hits on `targets`: one by actor 9 and one without an actor for each.
fn hits(targets: std::ops::Range<i64>) -> Vec<Hit> {
    let both = |n: i64| [Some(Id::Int(9)), None].map(|actor| Hit { target: Id::Int(n), actor, by: 1 });
    targets.flat_map(both).collect()
}

/// `count` documents of so many bytes or a few more.
fn documents(count: i64, bytes: usize) -> Vec<Document> {
    let body = json!({ "title": "x".repeat(bytes) }).to_string();
    (0..count).map(|n| Document { id: Id::Int(n), actor: Id::Int(9), body: body.as_str().into() }).collect()
}

impl Host {
    fn weights(&self, kind: &str, targets: std::ops::Range<i64>) -> Vec<u32> {
        let decided = self.policies.rules.decide_counts(kind, 1, &hits(targets)).now_or_never().unwrap().unwrap();
        decided.rules.iter().map(|rule| rule.weight).collect()
    }

    async fn judge(&self, kind: &str, batch: &[Document]) -> Decided<Verdict> {
        self.policies.rules.validate(kind, 1, batch).await.unwrap()
    }

    fn report(&self, of: &str) -> Value {
        self.policies.trials.diff().shown()[of].clone()
    }
}

#[tokio::test]
async fn a_shadow_sees_hits_and_documents() {
    let host = Host::new(|_| {});
    host.upload(&keeper("keeper"), false).unwrap();
    host.policies.trials.shadow("me", "keeper", 1.0).unwrap();
    assert_eq!(host.weights("fine", 0..3), [1; 6]);
    eventually("the shadow has counted", || host.report("shadow")["decisions"] == json!(6));
    // In several calls: each is observed.
    let judged = host.judge("changed", &documents(10, 60_000)).await;
    assert_eq!(judged.rules, vec![Ok(None); 10]);
    eventually("the shadow has judged", || host.report("shadow")["decisions"] == json!(16));
    let report = host.report("shadow");
    assert_eq!((&report["batches"], &report["differing"], &report["skipped"]), (&json!(4), &json!(16), &json!(0)));
    let sample = |interface: &str| {
        let samples = report["samples"].as_array().unwrap();
        samples.iter().find(|sample| sample["interface"] == json!(interface)).unwrap().clone()
    };
    let hit = sample("counter");
    assert_eq!(
        (&hit["input"]["target"], &hit["live"], &hit["candidate"]),
        (&json!(0), &json!({"weight": 1}), &json!({"weight": 7}))
    );
    let document = sample("ingest");
    assert_eq!((&document["live"], &document["candidate"]), (&json!({"ok": null}), &json!({"ok": {}})));
    assert!(document["input"]["body"]["title"].is_string(), "a body is an object");
}

#[tokio::test]
async fn a_canary_counts_and_judges_its_share() {
    let host = Host::new(|config| config.canary = CanaryConfig { failures_max: 1, ..CanaryConfig::default() });
    let digest = host.upload(&keeper("keeper"), false).unwrap().shown()["digest"].clone();
    host.policies.trials.canary("me", "keeper", 0.3).unwrap();
    let weights = host.weights("fine", 0..200);
    let of_canary = weights.iter().filter(|weight| **weight == 7).count();
    assert!((60..=180).contains(&of_canary) && weights.chunks(2).all(|both| both[0] == both[1]), "{weights:?}");

    let judged = host.judge("changed", &documents(200, 2_000)).await;
    let Decider::Each(deciders) = &judged.decider else { panic!("{:?}", judged.decider) };
    let changed: Vec<bool> = judged.rules.iter().map(|verdict| *verdict == Ok(Some("{}".into()))).collect();
    let named: Vec<bool> = deciders.iter().map(|decider| json!(decider.to_string()) == digest).collect();
    assert_eq!((changed.len(), &changed), (200, &named), "who is named has decided");
    assert_eq!(changed.iter().filter(|changed| **changed).count() * 2, of_canary, "by target, whatever is asked");
    let decisions = of_canary + of_canary / 2;
    eventually("both have decided", || host.report("canary")["decisions"] == json!(decisions));
    assert_eq!(host.report("canary")["differing"], json!(decisions));

    // It fails: no request pays.
    assert_eq!(host.weights("trap", 0..200), [1; 400]);
    assert_eq!(host.judge("trap", &documents(200, 10)).await.rules, vec![Ok(None); 200]);
    assert!(host.report("canary")["ended"].as_str().unwrap().contains("calls failed"), "two failures are too many");
}

#[tokio::test]
async fn the_module_before_counts_and_judges_what_a_new_one_does_not() {
    let host = Host::new(|config| config.canary = CanaryConfig { failures_max: 100, ..CanaryConfig::default() });
    host.upload(&keeper("keeper"), true).unwrap();
    assert_eq!(host.weights("fine", 0..2), [7; 4]);
    assert_eq!(host.weights("unique", 0..2), [1; 4]);
    let judged = host.judge("violations", &documents(9, 60_000)).await;
    assert_eq!((judged.rules, judged.decider), (vec![Ok(None); 9], Decider::One(builtin::digest())));
    assert_eq!(host.policies.rules.fallbacks(), 2);
    assert_eq!(live_names(&host.policies).0, "keeper");
}

#[tokio::test]
async fn hits_and_documents_are_recorded_and_replayed() {
    let host = Host::new(|config| config.decisions.share = 1.0);
    host.weights("fine", 0..2);
    host.judge("changed", &documents(2, 20)).await;
    let log = host.config.registry.join("decisions.ndjson");
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("they are written", || text().lines().count() == 2);
    let lines: Vec<Value> = text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["counter.decide"]["batch"][1], json!({ "target": 0, "by": 1 }));
    assert_eq!(lines[0]["answer"], json!({ "hits": vec![json!({ "weight": 1 }); 4] }));
    assert_eq!(lines[1]["ingest.validate"]["batch"][0]["body"], json!({ "title": "x".repeat(20) }));
    assert_eq!(lines[1]["answer"], json!({ "documents": [{ "ok": null }, { "ok": null }] }));
    assert!(lines.iter().all(|line| line["fuel"].as_u64().unwrap() > 100), "{lines:?}");
    let replay = |bytes: &[u8]| {
        let path = host.dir.path().join("candidate.wasm");
        std::fs::write(&path, bytes).unwrap();
        let compiler = crate::Compiler::InProcess;
        crate::replay_file(&host.config, compiler, &kinds(), &path, &log).unwrap()
    };
    let same = replay(&toggler("same"));
    assert_eq!((same.calls, same.differing, same.fuel_now), (2, 0, same.fuel_before));
    let other = replay(&keeper("other"));
    assert_eq!((other.calls, other.differing, other.failed), (2, 6, 0));
}
