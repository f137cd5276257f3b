//! The policy room against modules that fit, that do not, and that misbehave.

#![cfg(test)]

mod batches;
mod words;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};

use futures_util::FutureExt as _;

use super::call::Role;
use super::instance::{Cause, Warm};
use super::interface::{Interface, flush};
use super::subject::{Asked, Subject};
use super::*;
use weir_core::config::{BreakerConfig, PolicyConfig, PolicyFailure};
use weir_core::model::{
    Action, Backlog, CountRule, Digest, Document, Effect, FlushPlan, Hit, Id, Intent, RateLimit, ToggleChange,
    ToggleRule, Verb, Violation,
};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/policies")
}

fn load(config: &PolicyConfig, kinds: &[KindPolicy]) -> Result<Arc<Policies>, LoadError> {
    Policies::load(config, kinds, PolicySetup::default())
}

fn check(config: &PolicyConfig, bytes: &[u8]) -> Result<ModuleInfo, LoadError> {
    super::check(config, Compiler::InProcess, &[], bytes)
}

/// Pure modules answer at once.
trait Now {
    fn decide_now(&self, kind: &str, now_ms: u64, batch: &[Intent]) -> Result<Decided<ToggleRule>, PolicyError>;
    fn plan_now(&self, kind: &str, now_ms: u64, backlog: &Backlog) -> FlushPlan;
}

impl Now for Arc<Policies> {
    fn decide_now(&self, kind: &str, now_ms: u64, batch: &[Intent]) -> Result<Decided<ToggleRule>, PolicyError> {
        self.rules.decide_toggles(kind, now_ms, batch).now_or_never().unwrap()
    }

    fn plan_now(&self, kind: &str, now_ms: u64, backlog: &Backlog) -> FlushPlan {
        self.rules.plan_flush(kind, now_ms, backlog).now_or_never().unwrap()
    }
}

fn kind(name: &str, settings: &[(&str, &str)], on_failure: PolicyFailure) -> KindPolicy {
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    KindPolicy { kind: name.into(), settings, on_failure }
}

/// A deadline that nothing but an endless loop reaches, on a busy machine too.
fn lenient() -> PolicyConfig {
    let registry = std::env::temp_dir().join("weir-tests-without-a-registry");
    PolicyConfig {
        registry,
        call_deadline_ms: 2_000,
        compile_deadline_ms: 60_000,
        instances: 2,
        ..PolicyConfig::default()
    }
}

/// The module whose kinds are named by their faults, with the kind `fine`. Keeps its file while it lives.
struct Misbehaving {
    policies: Arc<Policies>,
    _dir: tempfile::TempDir,
}

fn misbehaving(config: PolicyConfig, on_failure: PolicyFailure) -> Misbehaving {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.wasm");
    std::fs::write(&path, wat::parse_file(fixtures().join("misbehaves.wat")).unwrap()).unwrap();
    let config = PolicyConfig { component: Some(path), ..config };
    let names = [
        "fine",
        "trap",
        "loop",
        "memory",
        "grows",
        "short",
        "wide",
        "burst",
        "period",
        "effect",
        "unique",
        "changed",
        "refused",
        "no object",
        "violations",
        "huge",
        "outside",
    ];
    let kinds = names.map(|name| kind(name, &[("limit-burst", "3")], on_failure));
    Misbehaving { policies: load(&config, &kinds).unwrap(), _dir: dir }
}

fn builtin(kinds: &[KindPolicy]) -> Arc<Policies> {
    load(&lenient(), kinds).unwrap()
}

fn uuid(n: u128) -> Id {
    Id::Uuid(uuid::Uuid::from_u128(n))
}

/// `length` intents with ids and verbs of every sort.
fn batch(length: usize) -> Vec<Intent> {
    let intent = |n: usize| Intent {
        target: match n % 3 {
            0 => Id::Int(n as i64 - 5),
            1 => uuid(n as u128),
            _ => Id::Text(format!("target {n}").into()),
        },
        actor: if n.is_multiple_of(2) { uuid(!(n as u128)) } else { Id::Int(i64::MAX) },
        verb: [Verb::Toggle, Verb::Set, Verb::Clear][n % 3],
    };
    (0..length).map(intent).collect()
}

/// `length` changes, of which each of `pairs` pairs has several.
fn changes(length: usize, pairs: usize) -> Vec<ToggleChange> {
    let change = |n: usize| ToggleChange {
        target: if (n % pairs).is_multiple_of(2) { Id::Int((n % pairs) as i64) } else { uuid((n % pairs) as u128) },
        actor: Id::Text(format!("actor {}", n % pairs).into()),
        action: if n % 5 < 2 { Action::Remove } else { Action::Add },
    };
    (0..length).map(change).collect()
}

fn backlog(entries: u64, oldest_at_ms: u64) -> Backlog {
    Backlog { entries, targets: 0, bytes: entries * 60, oldest_at_ms: (entries > 0).then_some(oldest_at_ms) }
}

#[test]
fn the_component_decides_as_the_native_rules_do() {
    let kinds = [
        kind("default", &[], PolicyFailure::Deny),
        kind("strict", &[("limit-burst", "1"), ("limit-period-ms", "60000")], PolicyFailure::Deny),
        kind("free", &[("limit-burst", "0")], PolicyFailure::Deny),
        kind("wrong", &[("limit-burst", "many"), ("flush-entries", "0"), ("flush-age-ms", "-1")], PolicyFailure::Deny),
        kind("eager", &[("flush-entries", "1"), ("flush-age-ms", "0")], PolicyFailure::Deny),
    ];
    let policies = builtin(&kinds);
    for kind in &kinds {
        let settings = builtin::settings(&kind.settings);
        for length in [1, 2, 50, 512] {
            let batch = batch(length);
            let decided = policies.decide_now(&kind.kind, 5, &batch).unwrap();
            assert_eq!(decided.rules, Intent::builtin(&settings, 0, &batch), "{}", kind.kind);
            assert_eq!(decided.decider, Decider::One(builtin::digest()));
        }
        for (entries, oldest_at_ms) in
            [(0, 0), (1, 10_000), (1, 8_500), (1, 8_000), (99, 9_999), (100, 10_000), (u64::MAX / 60, 0)]
        {
            let backlog = backlog(entries, oldest_at_ms);
            let planned = policies.plan_now(&kind.kind, 10_000, &backlog);
            assert_eq!(planned, flush::builtin_plan(&settings, 10_000, &backlog), "{} {backlog:?}", kind.kind);
        }
    }
    assert_eq!(policies.decide_now("default", 5, &[]).unwrap().rules, []);
    let [module] = policies.registry.modules().try_into().unwrap();
    assert_eq!((module.healthy, module.failures, module.last_failure), (true, 0, None));
}

#[test]
fn the_component_coalesces_as_the_native_rule_does() {
    let policies = builtin(&[kind("k", &[], PolicyFailure::Deny)]);
    for (length, pairs) in [(0, 1), (1, 1), (7, 1), (7, 7), (100, 9), (2_000, 300)] {
        let changes = changes(length, pairs);
        let keys: Vec<_> = changes.iter().map(|change| (&change.target, &change.actor)).collect();
        let native: Vec<usize> =
            weir_default_policy::rules::coalesce(&keys).into_iter().map(|index| index as usize).collect();
        assert_eq!(policies.rules.coalesce("k", &changes), Coalesced { kept: native, fell_back: false });
    }
}

#[test]
fn a_module_is_good_or_refused_for_the_reason_that_its_fixture_names() {
    let mut seen = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "wat") {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let config = PolicyConfig { call_deadline_ms: 1_000, ..lenient() };
        let checked = check(&config, &wat::parse_str(&text).unwrap());
        let expected = text.lines().next().unwrap().strip_prefix(";; ").unwrap();
        let name = path.file_name().unwrap().display();
        match (expected.strip_prefix("refused: ").map(|rest| rest.split_once(": ").unwrap()), checked) {
            (None, Ok(info)) => assert_eq!(info.interfaces[0], "toggle", "{name}"),
            (Some((code, words)), Err(error)) => {
                assert_eq!(error.code(), code, "{name}: {error}");
                assert!(error.to_string().contains(words), "{name}: {error}");
            }
            (_, checked) => panic!("{name} should be {expected}, is {checked:?}"),
        }
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn what_is_no_component_or_too_much_of_one_is_refused() {
    let good = builtin::COMPONENT;
    let refused = |config: &PolicyConfig, bytes: &[u8]| check(config, bytes).unwrap_err();
    let code = |bytes: &[u8]| refused(&lenient(), bytes).code();
    assert_eq!(code(b""), "not-a-component");
    assert_eq!(code(&std::fs::read(fixtures().join("not-wasm.txt")).unwrap()), "not-a-component");
    assert_eq!(code(&good[..good.len() / 2]), "not-a-component");
    let mut damaged = good.to_vec();
    damaged[good.len() / 3..][..64].fill(0xff);
    assert!(["not-a-component", "compile"].contains(&code(&damaged)));

    let small = PolicyConfig { module_bytes_max: good.len() - 1, ..lenient() };
    assert_eq!(refused(&small, good), LoadError::TooLarge { bytes: good.len() as u64, bytes_max: good.len() - 1 });
    let few = PolicyConfig { functions_max: 3, ..lenient() };
    assert!(matches!(refused(&few, good), LoadError::TooManyFunctions { functions: 4.., functions_max: 3 }));
    let hasty = PolicyConfig { compile_deadline_ms: 0, ..lenient() };
    assert_eq!(refused(&hasty, good), LoadError::CompileDeadline { deadline_ms: 0 });
    check(&lenient(), good).unwrap();
}

#[test]
fn a_file_is_refused_before_it_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.wasm");
    let load =
        |path: &Path| load(&PolicyConfig { component: Some(path.to_owned()), ..lenient() }, &[]).map(drop).unwrap_err();
    assert_eq!(load(&path).code(), "unreadable");
    let file = std::fs::File::create(&path).unwrap();
    // Sparse: it takes no space, and would take minutes to read.
    file.set_len(1 << 40).unwrap();
    assert_eq!(load(&path), LoadError::TooLarge { bytes: 1 << 40, bytes_max: lenient().module_bytes_max });
}

#[test]
fn every_failed_decision_is_counted_named_and_followed_by_a_good_one() {
    let config = PolicyConfig { call_deadline_ms: 1_000, ..lenient() };
    let misbehaving = misbehaving(config, PolicyFailure::Deny);
    let policies = &misbehaving.policies;
    let keep = ToggleRule { when_absent: Effect::Keep, when_present: Effect::Keep, limit: None };
    let batch = batch(5);
    let faults = [
        ("trap", "trap: ", "unreachable"),
        ("loop", "deadline: ", "interrupt"),
        ("memory", "trap: ", "unreachable"),
        ("short", "contract: ", "4 rules for 5 intents"),
        ("wide", "contract: ", "6 rules for 5 intents"),
        ("burst", "contract: ", "rule 0 has a limit with a burst of 0"),
        ("period", "contract: ", "rule 0 has a limit with a period of 0"),
        ("effect", "contract: ", ""),
        ("huge", "contract: ", ""),
        ("outside", "contract: ", ""),
    ];
    for (round, (kind, cause, words)) in faults.into_iter().enumerate() {
        let error = policies.decide_now(kind, 1, &batch).unwrap_err();
        assert!(error.reason.starts_with(cause) && error.reason.contains(words), "{kind}: {error}");
        assert_eq!(policies.decide_now("fine", 1, &batch).unwrap().rules, [keep; 5], "after {kind}");
        let module = policies.registry.modules().swap_remove(0);
        assert_eq!((module.healthy, module.failures), (false, round as u64 + 1), "{kind}");
        assert!(module.last_failure.unwrap().starts_with(cause.trim_end_matches(": ")), "{kind}");
    }
}

#[test]
fn the_built_in_rules_stand_in_where_the_kind_says_so() {
    let misbehaving = misbehaving(lenient(), PolicyFailure::BuiltIn);
    let policies = &misbehaving.policies;
    let batch = batch(9);
    for kind in ["trap", "short", "effect"] {
        let decided = policies.decide_now(kind, 1, &batch).unwrap();
        assert_eq!(decided.decider, Decider::One(builtin::digest()));
        assert_eq!(decided.rules[0].limit, Some(RateLimit { burst: 3, period_ms: 10_000 }));
        assert_eq!((decided.rules[0].when_absent, decided.rules[0].when_present), (Effect::Add, Effect::Remove));
        assert_eq!(decided.rules.len(), 9);
    }
    assert_ne!(policies.decide_now("fine", 1, &batch).unwrap().decider, Decider::One(builtin::digest()));
    policies.decide_now("trap of a kind that was not loaded", 1, &batch).unwrap_err();
}

#[test]
fn a_module_takes_over_what_it_exports_and_no_more() {
    let text = std::fs::read_to_string(fixtures().join("misbehaves.wat")).unwrap();
    let without_flush = text.replace("weir:policy/flush@0.1.0", "weir:policy/flush@9.0.0");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.wasm");
    std::fs::write(&path, wat::parse_str(without_flush).unwrap()).unwrap();
    let config = PolicyConfig { component: Some(path), ..lenient() };
    let policies = load(&config, &[kind("trap", &[], PolicyFailure::Deny)]).unwrap();
    policies.decide_now("trap", 1, &batch(1)).unwrap_err();
    assert_eq!(policies.plan_now("trap", 1_000, &backlog(1, 500)).look_again_ms, 1_500);
    let [given, builtin] = policies.registry.modules().try_into().unwrap();
    assert_eq!((given.name.as_str(), given.healthy), ("policy", false));
    assert_eq!(given.interfaces, ["toggle", "counter", "ingest"]);
    assert_eq!(given.ignored, ["weir:policy/flush@9.0.0"]);
    assert_eq!(
        (builtin.name.as_str(), builtin.interfaces, builtin.healthy),
        ("built-in", vec!["delivery", "flush", "admission", "cache"], true)
    );
}

#[test]
fn a_plan_is_always_there() {
    let config = PolicyConfig { call_deadline_ms: 1_000, ..lenient() };
    let misbehaving = misbehaving(config, PolicyFailure::Deny);
    let plan = |kind: &str| misbehaving.policies.plan_now(kind, 1_000, &backlog(1, 500));
    assert_eq!(plan("fine"), FlushPlan { flush_now: true, changes_max: 1, look_again_ms: 1 });
    for kind in ["trap", "loop", "memory", "burst", "period", "trap of a kind that was not loaded"] {
        assert_eq!(plan(kind), FlushPlan { flush_now: false, changes_max: u32::MAX, look_again_ms: 1_500 }, "{kind}");
    }
}

#[test]
fn no_module_can_lose_or_revive_a_change() {
    let config = PolicyConfig { call_deadline_ms: 1_000, ..lenient() };
    let misbehaving = misbehaving(config, PolicyFailure::Deny);
    let changes = changes(40, 12);
    let last: Vec<usize> = (28..40).collect();
    let coalesce = |kind: &str| misbehaving.policies.rules.coalesce(kind, &changes);
    // Everything is kept: what is overtaken is dropped by the host.
    assert_eq!(coalesce("fine"), Coalesced { kept: last.clone(), fell_back: false });
    for kind in ["trap", "loop", "memory", "huge", "outside", "dropped", "index", "reversed", "2"] {
        assert_eq!(coalesce(kind), Coalesced { kept: last.clone(), fell_back: true }, "{kind}");
        let module = misbehaving.policies.registry.modules().swap_remove(0);
        assert!(module.last_failure.unwrap().contains(" in flush: "), "{kind}");
    }
    let module = misbehaving.policies.registry.modules().swap_remove(0);
    assert_eq!(module.failures, 9);
}

#[test]
fn an_instance_that_leaks_is_replaced_between_two_calls() {
    let misbehaving = misbehaving(PolicyConfig { instances: 1, ..lenient() }, PolicyFailure::Deny);
    // One MiB a call, and 16 are allowed: without a replacement the 16th call traps.
    for _ in 0..50 {
        misbehaving.policies.decide_now("grows", 1, &batch(3)).unwrap();
    }
}

#[test]
fn what_one_call_hands_back_is_bounded() {
    let roomy = misbehaving(PolicyConfig { transfer_bytes_max: 24 * 5, ..lenient() }, PolicyFailure::Deny);
    roomy.policies.decide_now("fine", 1, &batch(5)).unwrap();
    let error = roomy.policies.decide_now("fine", 1, &batch(50)).unwrap_err();
    assert!(error.reason.starts_with("contract: ") && error.reason.contains("too much data"), "{error}");
}

#[test]
fn more_callers_than_instances_wait_for_each_other() {
    // Every call is to be made.
    let breaker = BreakerConfig { failures_max: 1_000, ..BreakerConfig::default() };
    let misbehaving = misbehaving(PolicyConfig { breaker, ..lenient() }, PolicyFailure::Deny);
    let (policies, barrier) = (&misbehaving.policies, Barrier::new(8));
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                for round in 0..50 {
                    if (caller + round) % 10 == 0 {
                        policies.decide_now("trap", 1, &batch(3)).unwrap_err();
                    } else {
                        assert_eq!(policies.decide_now("fine", 1, &batch(round)).unwrap().rules.len(), round);
                    }
                }
            });
        }
    });
    let module = policies.registry.modules().swap_remove(0);
    assert_eq!(module.failures, 40);
}

#[test]
fn a_caller_that_finds_no_instance_is_refused_and_the_module_stays_healthy() {
    let config = PolicyConfig { instances: 1, call_deadline_ms: 1_000, ..lenient() };
    let misbehaving = misbehaving(config, PolicyFailure::Deny);
    let active = misbehaving.policies.rules.active();
    let (taken, release) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let hold = |_: &mut Warm| {
                taken.wait();
                release.wait();
                Ok(())
            };
            active.live.get(Interface::Toggle).module.pool.call(1, hold).unwrap();
        });
        taken.wait();
        let error = misbehaving.policies.decide_now("fine", 1, &batch(1)).unwrap_err();
        assert!(error.reason.starts_with("busy: ") && error.reason.contains("policy.instances"), "{error}");
        release.wait();
    });
    assert!(misbehaving.policies.registry.modules()[0].healthy);
    misbehaving.policies.decide_now("fine", 1, &batch(1)).unwrap();
}

#[test]
fn a_call_that_panics_in_the_host_gives_its_place_back() {
    let misbehaving = misbehaving(PolicyConfig { instances: 1, ..lenient() }, PolicyFailure::Deny);
    let active = misbehaving.policies.rules.active();
    let panics = |_: &mut Warm| -> wasmtime::Result<()> { panic!("on purpose") };
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        active.live.get(Interface::Toggle).module.pool.call(1, panics)
    }));
    caught.unwrap_err();
    misbehaving.policies.decide_now("fine", 1, &batch(1)).unwrap();
}

/// A kind that has the field `a` only.
struct OnlyA;

impl Contract for OnlyA {
    fn check_field(&self, field: &str) -> Result<(), String> {
        if field == "a" { Ok(()) } else { Err(format!("there is no field {field:?}")) }
    }
}

#[tokio::test]
async fn a_field_that_a_kind_has_not_is_the_modules_fault() {
    let topics = [("topic:good", "a"), ("topic:bad", "a,b")];
    for (on_failure, answered) in [(PolicyFailure::Deny, false), (PolicyFailure::BuiltIn, true)] {
        let policies = builtin(&[kind("k", &topics, on_failure)]);
        policies.rules.hold_to("k", Arc::new(OnlyA));
        assert_eq!(policies.rules.delivery_fields("k", "good").await, Ok(vec!["a".to_owned()]));
        assert!(policies.registry.modules()[0].healthy);
        for _ in 0..5 {
            assert_eq!(policies.rules.delivery_fields("k", "bad").await.is_ok(), answered);
        }
        let module = policies.registry.modules().swap_remove(0);
        assert_eq!((module.healthy, module.failures), (false, 3), "the breaker keeps the other two");
        assert!(module.last_failure.unwrap().contains("there is no field"));
        assert_eq!((module.breakers[0].function, module.breakers[0].kind.as_str()), ("fields", "k"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_guest_that_loops_does_not_hold_the_thread_that_serves() {
    use std::sync::atomic::AtomicBool;
    let looping = misbehaving(PolicyConfig { call_deadline_ms: 2_000, ..lenient() }, PolicyFailure::Deny);
    let (policies, was_served) = (Arc::clone(&looping.policies), Arc::new(AtomicBool::new(false)));
    let served = Arc::clone(&was_served);
    let asked = tokio::spawn(async move {
        // Waits for the only thread, which is about to loop.
        let other = tokio::spawn(async move { served.store(true, Ordering::SeqCst) });
        let refused = policies.rules.decide_toggles("loop", 1, &batch(3)).await.unwrap_err();
        (refused.reason, was_served.load(Ordering::SeqCst), other)
    });
    let (reason, was_served, other) = asked.await.unwrap();
    other.await.unwrap();
    assert!(reason.starts_with("deadline: "), "{reason}");
    assert!(was_served, "nobody was served while it looped");
}
