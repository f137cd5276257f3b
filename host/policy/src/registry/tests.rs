//! Modules come and go: the gate, activation, rollback, trials, restarts.

#![cfg(test)]

mod batches;
mod clock;
mod held;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use wasm_encoder::{ComponentSection as _, CustomSection};
use weir_policy_vectors::NAME_SECTION;

use super::loader::Times;
use super::{ControlError, ModuleUpload};
use crate::component::ComponentBytes;
use crate::trial::vectors::gate;
use crate::{Decided, Decider, KindPolicy, Policies, PolicySetup, builtin};
use weir_core::config::{CanaryConfig, PolicyConfig, PolicyFailure};
use weir_core::model::{Id, Intent, ToggleRule, Verb};
use weir_core::operators::Uploaded;
use weir_core::operators::testing::Shown as _;

struct Host {
    policies: Arc<Policies>,
    config: PolicyConfig,
    dir: tempfile::TempDir,
}

fn kinds() -> Vec<KindPolicy> {
    let kind = |kind: &str| KindPolicy {
        kind: kind.into(),
        settings: std::collections::BTreeMap::new(),
        on_failure: PolicyFailure::Deny,
    };
    vec![kind("fine"), kind("trap")]
}

impl Host {
    fn new(change: impl FnOnce(&mut PolicyConfig)) -> Self {
        Self::with_setup(PolicySetup::default(), change)
    }

    fn with_setup(setup: PolicySetup, change: impl FnOnce(&mut PolicyConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = PolicyConfig {
            registry: dir.path().join("registry"),
            call_deadline_ms: 2_000,
            compile_deadline_ms: 60_000,
            instances: 2,
            ..PolicyConfig::default()
        };
        change(&mut config);
        let policies = Policies::load(&config, &kinds(), setup).unwrap();
        Self { policies, config, dir }
    }

    /// As after a crash: only what is on disk is left.
    fn restarted(&self) -> Arc<Policies> {
        Policies::load(&self.config, &kinds(), PolicySetup::default()).unwrap()
    }

    fn upload(&self, bytes: &[u8], activate: bool) -> Result<Uploaded, ControlError> {
        self.policies.registry.upload("me", &ModuleUpload { bytes, activate, ..ModuleUpload::default() })
    }

    fn decide(&self, kind: &str, targets: std::ops::Range<i64>) -> Decided<weir_core::model::ToggleRule> {
        decide(&self.policies, kind, targets)
    }
}

fn decide(
    policies: &Arc<Policies>,
    kind: &str,
    targets: std::ops::Range<i64>,
) -> Decided<weir_core::model::ToggleRule> {
    let batch: Vec<Intent> =
        targets.map(|n| Intent { target: Id::Int(n), actor: Id::Int(9), verb: Verb::Toggle }).collect();
    policies.rules.decide_toggles(kind, 1, &batch).now_or_never().unwrap().unwrap()
}

fn named(mut bytes: Vec<u8>, name: &str) -> Vec<u8> {
    CustomSection { name: NAME_SECTION.into(), data: name.as_bytes().into() }.append_to_component(&mut bytes);
    bytes
}

/// Decides keep/keep for kind `fine`, traps for kind `trap`.
fn keeper(name: &str) -> Vec<u8> {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/policies");
    named(wat::parse_file(fixtures.join("misbehaves.wat")).unwrap(), name)
}

/// The default rules under another name and digest.
fn toggler(name: &str) -> Vec<u8> {
    named(builtin::COMPONENT.to_vec(), name)
}

fn keeps(rule: &ToggleRule) -> bool {
    rule.when_absent == weir_core::model::Effect::Keep
}

fn live_names(policies: &Policies) -> (String, String) {
    let active = policies.registry.control.active_report().shown();
    let name = |interface: &str| active[interface]["name"].as_str().unwrap().to_owned();
    (name("toggle"), name("flush"))
}

/// Waits for what the observer does: a failure when it never comes.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_module_is_uploaded_activated_and_rolled_back() {
    let host = Host::new(|_| {});
    assert!(!keeps(&host.decide("fine", 0..1).rules[0]));
    let answer = host.upload(&keeper("keeper"), false).unwrap().shown();
    assert_eq!((&answer["name"], &answer["known"], &answer["active"]), (&json!("keeper"), &json!(false), &Value::Null));
    assert!(!keeps(&host.decide("fine", 0..1).rules[0]), "an upload changes nothing");
    assert_eq!(host.upload(&keeper("keeper"), false).unwrap().shown()["known"], json!(true));

    let answer = host.policies.registry.activate("me", "keeper", &[]).unwrap().shown();
    assert_eq!(answer["active"]["toggle"]["name"], json!("keeper"));
    assert_eq!(answer["previous"]["toggle"]["name"], json!("built-in"));
    assert!(answer["milliseconds"]["total"].is_number());
    assert!(keeps(&host.decide("fine", 0..1).rules[0]));
    // Again: nothing changes, and the way back stays.
    host.policies.registry.activate("me", "keeper", &[]).unwrap();

    host.policies.registry.rollback("me").unwrap();
    assert!(!keeps(&host.decide("fine", 0..1).rules[0]));
    assert!(matches!(host.policies.registry.rollback("me"), Err(ControlError::Conflict(_))));
    let what: Vec<Value> = host.policies.registry.audit(10).shown()["audit"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["what"].clone())
        .collect();
    assert_eq!(json!(what), json!(["rollback", "rollback", "activate", "activate", "upload", "upload"]));
}

#[test]
fn interfaces_may_be_served_by_different_modules_and_survive_a_restart() {
    let host = Host::new(|_| {});
    host.upload(&keeper("keeper"), false).unwrap();
    host.upload(&toggler("toggler"), true).unwrap();
    host.policies.registry.activate("me", "keeper", &["toggle".into()]).unwrap();
    assert_eq!(live_names(&host.policies), ("keeper".into(), "toggler".into()));
    let error = host.policies.registry.activate("me", "keeper", &["togle".into()]).unwrap_err();
    assert!(error.to_string().contains("toggle, counter, ingest, delivery, flush"), "{error}");

    let restarted = host.restarted();
    assert_eq!(live_names(&restarted), ("keeper".into(), "toggler".into()));
    assert!(keeps(&decide(&restarted, "fine", 0..1).rules[0]));
    restarted.registry.rollback("me").unwrap();
    assert_eq!(live_names(&restarted), ("toggler".into(), "toggler".into()));
    restarted.registry.activate("me", "built-in", &[]).unwrap();
    assert_eq!(live_names(&host.restarted()), ("built-in".into(), "built-in".into()));
}

#[test]
fn what_is_bad_is_refused_and_nothing_changes() {
    let host = Host::new(|config| config.modules_max = 1);
    let refused = |bytes: &[u8]| match host.upload(bytes, true).unwrap_err() {
        ControlError::Refused(refusal) => refusal.code(),
        other => panic!("{other}"),
    };
    assert_eq!(refused(b"no wasm"), "not-a-component");
    let vectors = |text: &str| {
        let upload = ModuleUpload { bytes: &keeper("k"), vectors: Some(text.into()), ..ModuleUpload::default() };
        host.policies.registry.upload("me", &upload)
    };
    let case = |absent: &str| {
        format!(
            r#"{{"cases":[{{"name":"a like","toggle.decide":{{"kind":"fine","batch":[{{"target":1,"actor":2}}]}},
                "expect":{{"rules":[{{"when_absent":"{absent}","when_present":"keep"}}]}}}}]}}"#
        )
    };
    let error = vectors(&case("add")).unwrap_err().to_string();
    assert!(error.contains("1 of 1 test vectors fail: \"a like\": expected") && error.contains("got"), "{error}");
    assert!(vectors("{}").unwrap_err().to_string().contains("no case"));
    assert_eq!(
        host.policies.registry.status().shown()["modules"].as_array().unwrap().len(),
        1,
        "only what is built in"
    );
    let compiled = || std::fs::read_dir(host.config.registry.join("compiled")).into_iter().flatten().flatten();
    let code = || compiled().flat_map(|engine| std::fs::read_dir(engine.path()).unwrap()).count();
    assert_eq!(code(), 0, "of what is refused no compiled code is kept");
    assert_eq!(vectors(&case("keep")).unwrap().shown()["checks"]["vectors"], json!(1));
    // Vectors that come later are run too.
    assert!(vectors(&case("add")).unwrap_err().to_string().contains("1 of 1 test vectors fail"));
    assert_eq!((vectors(&case("keep")).unwrap().shown()["known"].clone(), code()), (json!(true), 1));
    assert!(matches!(host.upload(&keeper("other"), false), Err(ControlError::Conflict(_))));
    assert!(matches!(host.policies.registry.activate("me", "nobody", &[]), Err(ControlError::NotFound(_))));
    assert_eq!(live_names(&host.policies).0, "built-in");
}

#[test]
fn vectors_take_no_more_time_than_compiling_may() {
    let host = Host::new(|config| config.call_deadline_ms = 50);
    let one = r#"{"name":"a loop","toggle.decide":{"kind":"fine","batch":[{"target":1,"actor":2}]},
        "expect":{"rules":[{"when_absent":"keep","when_present":"keep"}]}}"#;
    let config = PolicyConfig { compile_deadline_ms: 200, ..host.config.clone() };
    let engine = &host.policies.registry.loader.engine;
    let bytes = keeper("k");
    let compiled =
        host.policies.registry.loader.compile(ComponentBytes::of(&bytes), None, &mut Times::default()).unwrap();
    let text = |kind: &str, count: usize| {
        let cases = vec![one.replace("fine", kind); count].join(",");
        weir_policy_vectors::Vectors::parse(&format!("{{\"cases\":[{cases}]}}")).unwrap()
    };
    let (quick, endless) = (text("fine", 3), text("loop", 1_000));
    assert_eq!(gate(engine, &config, &compiled, &[&quick]), Ok(3));
    let error = gate(engine, &config, &compiled, &[&quick, &endless]).unwrap_err();
    assert!(
        error.to_string().contains("of 1003 test vectors fail") && error.to_string().contains("deadline"),
        "{error}"
    );
    let config = PolicyConfig { compile_deadline_ms: 0, ..config };
    let error = gate(engine, &config, &compiled, &[&quick]).unwrap_err();
    assert_eq!(error.code(), "vectors-deadline", "{error}");
}

#[test]
fn a_module_is_named_by_name_version_or_digest_and_deleted_when_nothing_needs_it() {
    let host = Host::new(|_| {});
    let upload = |bytes: &[u8], version: &str| {
        let upload = ModuleUpload { bytes, version: Some(version.into()), ..ModuleUpload::default() };
        host.policies.registry.upload("me", &upload).unwrap().shown()["digest"].as_str().unwrap().to_owned()
    };
    let first = upload(&keeper("rules"), "1");
    std::thread::sleep(Duration::from_millis(2));
    let second = upload(&toggler("rules"), "2");
    let live = |module: &str| {
        let answer = host.policies.registry.activate("me", module, &[]).unwrap().shown();
        answer["active"]["toggle"]["digest"].as_str().unwrap().to_owned()
    };
    assert_eq!(live("rules"), second);
    assert_eq!(live("rules@1"), first);
    assert_eq!(live(&second[..8]), second);
    assert!(matches!(host.policies.registry.delete("me", &second), Err(ControlError::Conflict(_))));
    assert!(
        matches!(host.policies.registry.delete("me", &first), Err(ControlError::Conflict(_))),
        "a rollback needs it"
    );
    host.policies.registry.activate("me", "built-in", &[]).unwrap();
    host.policies.registry.delete("me", &first).unwrap();
    assert!(matches!(host.policies.registry.activate("me", &first, &[]), Err(ControlError::NotFound(_))));
}

#[test]
fn a_shadow_reports_what_differs_and_changes_nothing() {
    let host = Host::new(|_| {});
    host.upload(&keeper("keeper"), false).unwrap();
    host.policies.trials.shadow("me", "keeper", 1.0).unwrap();
    let decided = host.decide("fine", 0..5);
    assert!(!decided.rules.iter().any(keeps));
    eventually("the shadow has decided", || host.policies.trials.diff().shown()["shadow"]["decisions"] == json!(5));
    let report = host.policies.trials.diff().shown()["shadow"].clone();
    assert_eq!((&report["differing"], &report["batches"]), (&json!(5), &json!(1)), "{report}");
    let targets: Vec<&Value> = report["samples"].as_array().unwrap().iter().map(|s| &s["input"]["target"]).collect();
    assert_eq!(json!(targets), json!([0, 1, 2, 3, 4]));
    assert!(matches!(host.policies.trials.shadow("me", "keeper", 0.0), Err(ControlError::Invalid(_))));
    host.policies.trials.end_shadow("me").unwrap();
    assert_eq!(host.policies.trials.diff().shown()["shadow"]["ended"], json!("ended by an operator"));
    host.decide("fine", 0..5);
    assert_eq!(host.policies.trials.diff().shown()["shadow"]["batches"], json!(1));
}

#[test]
fn a_canary_serves_its_share_and_is_rolled_back_when_it_fails() {
    let host = Host::new(|config| config.canary = CanaryConfig { failures_max: 1, ..CanaryConfig::default() });
    let digest = host.upload(&keeper("keeper"), false).unwrap().shown()["digest"].clone();
    host.policies.trials.canary("me", "keeper", 0.3).unwrap();
    let decided = host.decide("fine", 0..200);
    let Decider::Each(deciders) = &decided.decider else { panic!("{:?}", decided.decider) };
    let of_canary = deciders.iter().filter(|decider| decider.to_string() == digest.as_str().unwrap()).count();
    assert!((30..=90).contains(&of_canary), "{of_canary}");
    let kept = decided.rules.iter().filter(|rule| keeps(rule)).count();
    assert_eq!(kept, of_canary, "who is named has decided");
    assert_eq!(host.decide("fine", 0..200), decided, "the same targets again");
    assert_eq!(decide(&host.restarted(), "fine", 0..200), decided, "also after a restart");
    eventually("both have decided", || {
        host.policies.trials.diff().shown()["canary"]["differing"] == json!(2 * of_canary)
    });

    // It fails: the live module decides, and the second failure is one too many.
    for _ in 0..2 {
        assert!(!host.decide("trap", 0..200).rules.iter().any(keeps));
    }
    assert_eq!(host.decide("fine", 0..200).rules.iter().filter(|rule| keeps(rule)).count(), 0);
    let ended = host.policies.trials.diff().shown()["canary"]["ended"].as_str().unwrap().to_owned();
    assert!(ended.contains("2 of 4 calls failed") && ended.contains("unreachable"), "{ended}");
    eventually("it is written down", || {
        host.policies.registry.audit(1).shown()["audit"][0]["what"] == json!("canary-rolled-back")
    });
    assert_eq!(host.restarted().registry.status().shown()["canary"], Value::Null);
    assert_eq!(host.policies.registry.status().shown()["events"][0]["what"], json!("canary-rolled-back"));
}

#[test]
fn a_set_on_probation_rolls_itself_back_and_no_request_pays() {
    let host = Host::new(|_| {});
    host.upload(&keeper("keeper"), true).unwrap();
    assert!(host.policies.registry.status().shown()["probation"].is_object());
    for _ in 0..3 {
        assert!(!host.decide("trap", 0..3).rules.iter().any(keeps), "the one before decides");
    }
    assert_eq!(live_names(&host.policies).0, "built-in");
    eventually("it is written down", || live_names(&host.restarted()).0 == "built-in");

    let host = Host::new(|_| {});
    host.upload(&keeper("keeper"), true).unwrap();
    let restarted = host.restarted();
    assert_eq!(
        restarted.registry.status().shown()["probation"],
        host.policies.registry.status().shown()["probation"],
        "a restart does not end it"
    );
    for _ in 0..3 {
        assert!(!decide(&restarted, "trap", 0..3).rules.iter().any(keeps), "also after a restart");
    }
    assert_eq!(live_names(&restarted).0, "built-in");

    // Two on probation: a rollback of the later one leaves the earlier one watched.
    let both = Host::new(|_| {});
    both.upload(&keeper("keeper"), true).unwrap();
    both.upload(&toggler("toggler"), false).unwrap();
    both.policies.registry.activate("me", "toggler", &["flush".into()]).unwrap();
    both.policies.registry.rollback("me").unwrap();
    assert_eq!(live_names(&both.policies), ("keeper".into(), "keeper".into()));
    for _ in 0..3 {
        assert!(!both.decide("trap", 0..3).rules.iter().any(keeps), "what was proven decides");
    }
    assert_eq!(live_names(&both.policies).0, "built-in");

    let trusting = Host::new(|config| config.probation_ms = 0);
    trusting.upload(&keeper("keeper"), true).unwrap();
    let batch = [Intent { target: Id::Int(1), actor: Id::Int(9), verb: Verb::Toggle }];
    for _ in 0..5 {
        trusting.policies.rules.decide_toggles("trap", 1, &batch).now_or_never().unwrap().unwrap_err();
    }
    assert_eq!(live_names(&trusting.policies).0, "keeper");
}

#[test]
fn decisions_are_recorded_with_their_fuel() {
    let host = Host::new(|config| config.decisions.share = 1.0);
    host.decide("fine", 0..3);
    let log = host.config.registry.join("decisions.ndjson");
    eventually("it is written", || log.exists() && !std::fs::read_to_string(&log).unwrap().is_empty());
    let line: Value = serde_json::from_str(std::fs::read_to_string(&log).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!(line["toggle.decide"]["batch"].as_array().unwrap().len(), 3);
    assert_eq!(line["answer"]["rules"].as_array().unwrap().len(), 3);
    assert!(line["fuel"].as_u64().unwrap() > 100, "{line}");

    let replay = |bytes: &[u8]| {
        let path = host.dir.path().join("candidate.wasm");
        std::fs::write(&path, bytes).unwrap();
        let compiler = crate::Compiler::InProcess;
        crate::replay_file(&host.config, compiler, &kinds(), &path, &log).unwrap()
    };
    let same = replay(&toggler("same"));
    assert_eq!((same.calls, same.differing, same.fuel_now), (1, 0, same.fuel_before));
    let other = replay(&keeper("other"));
    assert_eq!((other.calls, other.differing, other.differences.len()), (1, 3, 3));
}

fn put(dir: &Path, name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join(name), bytes).unwrap();
}

#[test]
fn a_file_that_appears_in_the_watched_directory_passes_the_same_gate() {
    let host = Host::new(|config| config.dir = Some(config.registry.with_file_name("watched")));
    let watched = host.config.dir.clone().unwrap();
    host.policies.registry.watch().unwrap();
    put(&watched, "bad.wasm", b"no wasm");
    put(&watched, "ignored.txt", b"no wasm");
    let state_of = |file: &str| {
        let watched = host.policies.registry.status().shown()["watched"].clone();
        watched.as_array().unwrap().iter().find(|w| w["file"] == json!(file)).map(|w| w["state"].clone())
    };
    eventually("the bad one is refused", || state_of("bad.wasm") == Some(json!("refused")));
    put(&watched, "keeper.wasm", &keeper("carried"));
    eventually("the good one serves", || live_names(&host.policies).0 == "keeper");
    host.policies.registry.rollback("me").unwrap();

    host.policies.registry.delete("me", "keeper").unwrap();

    let restarted = host.restarted();
    restarted.registry.watch().unwrap();
    let known = || {
        restarted.registry.status().shown()["watched"].as_array().unwrap().iter().any(|w| w["state"] == json!("known"))
    };
    eventually("it is known", known);
    assert_eq!(live_names(&restarted).0, "built-in", "a restart does not undo a rollback, nor a deletion");
}
