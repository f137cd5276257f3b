//! How the registry holds up when something is wrong: an older contract, a disk that refuses writes, a clock that steps
//! back, weir's own names, a module that was rolled back.

#![cfg(test)]

use std::collections::BTreeMap;

use super::*;
use crate::component::digest_of;
use crate::registry::disk::{Checks, ModuleStore, Record};
use crate::registry::set::{SavedServing, SavedSet};
use weir_core::model::{Backlog, Document};

/// Decides toggles like [`keeper`], and exports an older form of `flush`, whose plan does not say when to look again.
fn older(name: &str) -> Vec<u8> {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/policies");
    let text = std::fs::read_to_string(fixtures.join("misbehaves.wat")).unwrap();
    named(wat::parse_str(text.replace(" (field \"look-again-ms\" u32)", "")).unwrap(), name)
}

/// As an earlier weir may have left it: the module in the registry and active for these interfaces.
fn left_active(host: &Host, bytes: &[u8], interfaces: &[&str]) -> String {
    let digest = digest_of(bytes).to_string();
    let record = Record {
        digest: digest.clone(),
        name: "older".into(),
        version: None,
        uploaded_at_ms: 5,
        by: "me".into(),
        bytes: bytes.len(),
        functions: 1,
        exports: interfaces.iter().map(|interface| (*interface).to_owned()).collect(),
        imports: Vec::new(),
        checks: Checks { vectors: 0, compile_ms: 1.0 },
        order: 0,
        condemned: None,
    };
    let mut registry = ModuleStore::open(&host.config.registry).unwrap();
    registry.add(record, bytes, None).unwrap();
    let serving = SavedServing { digest: digest.clone(), since_ms: 5, by: "me".into() };
    let serving: BTreeMap<_, _> =
        interfaces.iter().map(|interface| ((*interface).to_owned(), serving.clone())).collect();
    registry.save(&SavedSet { serving, ..SavedSet::default() }).unwrap();
    digest
}

fn plan(policies: &Arc<Policies>) -> weir_core::model::FlushPlan {
    let backlog = Backlog { entries: 1, targets: 1, bytes: 60, oldest_at_ms: Some(500) };
    policies.rules.plan_flush("fine", 1_000, &backlog).now_or_never().unwrap()
}

fn batch() -> [Intent; 1] {
    [Intent { target: Id::Int(1), actor: Id::Int(9), verb: Verb::Toggle }]
}

#[test]
fn an_older_contract_takes_down_only_its_interface() {
    let host = Host::new(|_| {});
    let digest = left_active(&host, &older("older"), &["toggle", "flush"]);
    let policies = host.restarted();
    assert!(keeps(&decide(&policies, "fine", 0..1).rules[0]), "what has not changed serves");
    let built_in = weir_core::model::FlushPlan { flush_now: false, changes_max: u32::MAX, look_again_ms: 1_500 };
    assert_eq!(plan(&policies), built_in);

    let status = policies.registry.status().shown();
    assert_eq!(status["active"]["toggle"]["unfit"], Value::Null);
    let unfit = status["active"]["flush"]["unfit"].as_str().unwrap();
    assert!(unfit.contains("weir:policy/flush@0.1.0 is not as the WIT says: plan"), "{unfit}");
    let event = &status["events"][0];
    assert_eq!((&event["what"], &event["by"]), (&json!("unfit"), &json!("weir")));
    assert!(event["reason"].as_str().unwrap().starts_with("flush has no module"), "{event}");
    let modules = policies.registry.modules();
    let unfit: Vec<_> = modules.iter().filter(|module| module.unfit.is_some()).collect();
    assert_eq!((unfit.len(), unfit[0].healthy, unfit[0].interfaces.as_slice()), (1, false, &["flush"][..]));

    // Its place stays: the weir that it was made for finds it where it was.
    policies.registry.activate("me", "built-in", &["counter".into()]).unwrap();
    let saved = ModuleStore::open(&host.config.registry).unwrap().saved().unwrap();
    assert_eq!(saved.serving["flush"].digest, digest);
    // It is not activated for what it cannot serve, and another one takes its place.
    let refused = policies.registry.activate("me", "older", &["flush".into()]).unwrap_err();
    assert!(refused.to_string().contains("does not export flush"), "{refused}");
    policies.registry.activate("me", "built-in", &["flush".into()]).unwrap();
    assert_eq!(policies.registry.status().shown()["active"]["flush"]["unfit"], Value::Null);
}

#[test]
fn a_module_that_cannot_be_loaded_at_all_falls_back_as_its_kinds_say() {
    let host = Host::new(|_| {});
    let digest = left_active(&host, &keeper("keeper"), &["toggle"]);
    std::fs::write(host.config.registry.join(format!("modules/{digest}.wasm")), b"damaged").unwrap();
    let mut kinds = kinds();
    kinds[1].on_failure = PolicyFailure::BuiltIn;
    let policies = Policies::load(&host.config, &kinds, PolicySetup::default()).unwrap();
    let refused = policies.rules.decide_toggles("fine", 1, &batch()).now_or_never().unwrap().unwrap_err();
    assert!(refused.reason.starts_with("unfit: ") && refused.reason.contains("damaged"), "{refused}");
    let decided = policies.rules.decide_toggles("trap", 1, &batch()).now_or_never().unwrap().unwrap();
    assert!(!keeps(&decided.rules[0]), "the built-in rules");
    let document = [Document { id: Id::Int(1), actor: Id::Int(2), body: "{}".into() }];
    assert_eq!(policies.rules.validate("fine", 1, &document).now_or_never().unwrap().unwrap().rules, [Ok(None)]);
    assert_eq!(policies.registry.status().shown()["active"]["toggle"]["digest"], json!(digest));
}

#[test]
fn a_later_weir_may_have_written_more_down() {
    let host = Host::new(|_| {});
    host.upload(&keeper("keeper"), true).unwrap();
    let path = host.config.registry.join("active.json");
    let mut saved: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    saved["generation"] = json!(7);
    saved["serving"]["toggle"]["scope"] = json!("all");
    std::fs::write(&path, saved.to_string()).unwrap();
    assert_eq!(live_names(&host.restarted()).0, "keeper");
}

#[test]
fn a_rollback_that_cannot_be_written_down_says_so_until_it_is() {
    let host = Host::new(|_| {});
    assert_eq!(host.upload(&keeper("keeper"), true).unwrap().shown()["active"]["toggle"]["name"], json!("keeper"));
    assert_eq!(
        (host.policies.registry.status().shown()["durable"].clone(), host.policies.registry.unsaved()),
        (json!(true), None)
    );
    // Nothing can be written where a directory is.
    let path = host.config.registry.join("active.json");
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir_all(path.join("in-the-way")).unwrap();

    let answer = host.policies.registry.rollback("me").unwrap().shown();
    assert_eq!((&answer["active"]["toggle"]["name"], &answer["durable"]), (&json!("built-in"), &json!(false)));
    assert!(answer["unsaved"].as_str().unwrap().contains("active.json"), "{answer}");
    assert!(host.policies.registry.unsaved().unwrap().contains("active.json"));
    // What brings a module in is refused meanwhile.
    assert!(matches!(host.policies.registry.activate("me", "keeper", &[]), Err(ControlError::Disk(_))));

    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, kept).unwrap();
    eventually("it is written down", || host.policies.registry.status().shown()["durable"] == json!(true));
    assert_eq!(host.policies.registry.unsaved(), None);
    assert_eq!(live_names(&host.restarted()).0, "built-in");
}

#[test]
fn words_of_weir_are_no_names_of_modules() {
    let host = Host::new(|_| {});
    for name in ["canary", "shadow", "rollback", "diff", "audit", "built-in", "list"] {
        let error = host.upload(&keeper(name), true).unwrap_err();
        assert!(error.to_string().contains(name) && error.to_string().contains("--name"), "{error}");
        let upload = ModuleUpload { bytes: &keeper("k"), name: Some(name.into()), ..ModuleUpload::default() };
        let error = host.policies.registry.upload("me", &upload).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let renamed = ModuleUpload { bytes: &keeper("canary"), name: Some("birds".into()), ..ModuleUpload::default() };
    assert_eq!(host.policies.registry.upload("me", &renamed).unwrap().shown()["name"], json!("birds"));
}

#[test]
fn the_youngest_of_a_name_is_the_one_that_was_uploaded_last_whatever_the_clock_says() {
    let host = Host::new(|_| {});
    let upload = |policies: &Policies, bytes: &[u8]| {
        let upload = ModuleUpload { bytes, name: Some("rules".into()), ..ModuleUpload::default() };
        policies.registry.upload("me", &upload).unwrap().shown()["digest"].as_str().unwrap().to_owned()
    };
    let first = upload(&host.policies, &keeper("one"));
    // The clock of that upload was years ahead.
    let path = host.config.registry.join(format!("modules/{first}.json"));
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["uploaded_at_ms"] = json!(9_000_000_000_000_u64);
    std::fs::write(&path, record.to_string()).unwrap();
    let policies = host.restarted();
    let second = upload(&policies, &toggler("two"));
    let answer = policies.registry.activate("me", "rules", &[]).unwrap().shown();
    assert_eq!(answer["active"]["toggle"]["digest"], json!(second));
    let listed: Vec<Value> = policies.registry.status().shown()["modules"].as_array().unwrap().clone();
    let order: Vec<&Value> = listed.iter().filter(|m| m["name"] == json!("rules")).map(|m| &m["digest"]).collect();
    assert_eq!(json!(order), json!([second, first]), "and the list says the same");
}

#[test]
fn a_module_that_was_rolled_back_is_not_called_good() {
    let host = Host::new(|_| {});
    host.upload(&keeper("keeper"), true).unwrap();
    (0..3).for_each(|_| drop(host.decide("trap", 0..3)));
    let listed = |policies: &Policies| {
        let status = policies.registry.status().shown();
        let modules = status["modules"].as_array().unwrap();
        modules.iter().find(|module| module["name"] == json!("keeper")).unwrap().clone()
    };
    let module = listed(&host.policies);
    assert_eq!((&module["serves"], &module["healthy"]), (&json!([]), &Value::Null));
    let reason = module["condemned"]["reason"].as_str().unwrap();
    assert!(reason.contains("calls failed") && reason.contains("unreachable"), "{reason}");
    assert_eq!(module["last_failure"], json!(reason));
    eventually("it is written down", || host.policies.registry.unsaved().is_none());
    let restarted = host.restarted();
    assert_eq!(listed(&restarted)["condemned"], module["condemned"], "also after a restart");
    // Activating it again clears the verdict: the operator wants to see how it does now.
    restarted.registry.activate("me", "keeper", &[]).unwrap();
    assert_eq!(listed(&restarted)["condemned"], Value::Null);
    assert_eq!(listed(&host.restarted())["condemned"], Value::Null);
}

#[test]
fn what_is_refused_is_reflected_within_bounds() {
    let host = Host::new(|_| {});
    let long = "x".repeat(30_000);
    let exports: String =
        (0..100).map(|n| format!("(export \"some:thing/a{n}-{long}@1.0.0\" (instance $empty))")).collect();
    let bytes = wat::parse_str(format!("(component (instance $empty) {exports})")).unwrap();
    let error = host.upload(&bytes, true).unwrap_err();
    assert!(error.to_string().len() < 3_000, "{}", error.to_string().len());
    assert!(error.to_string().contains("and 88 more"), "{error}");
    let audit = host.policies.registry.audit(1).shown()["audit"][0].to_string();
    assert!(audit.len() < 1_000, "{}", audit.len());
}
