//! Probation and canary windows run on a clock that the test moves: nothing here waits.

#![cfg(test)]

use super::*;
use weir_core::clock::Clock;

const STARTED_MS: u64 = 1_800_000_000_000;

/// A host, and its clock.
fn host(change: impl FnOnce(&mut PolicyConfig)) -> (Host, Clock) {
    let clock = Clock::manual(STARTED_MS);
    let setup = PolicySetup { clock: clock.clone(), ..PolicySetup::default() };
    (Host::with_setup(setup, change), clock)
}

/// One batch that makes [`keeper`] trap.
fn trap(host: &Host) {
    let batch = [Intent { target: Id::Int(1), actor: Id::Int(9), verb: Verb::Toggle }];
    // The fallback may decide, or nothing does; this test does not care.
    let _ = host.policies.rules.decide_toggles("trap", 1, &batch).now_or_never().unwrap();
}

fn probation(host: &Host) -> Value {
    host.policies.registry.status().shown()["probation"].clone()
}

#[test]
fn probation_ends_when_its_time_has_passed_and_not_before() {
    let one_failure = |config: &mut PolicyConfig| {
        config.probation_ms = 60_000;
        config.canary.failures_max = 0;
    };
    let (watched, clock) = host(one_failure);
    watched.upload(&keeper("keeper"), true).unwrap();
    assert_eq!(probation(&watched)["until_ms"], json!(STARTED_MS + 60_000));
    clock.advance_ms(59_999);
    assert!(probation(&watched).is_object());
    trap(&watched);
    assert_eq!(live_names(&watched.policies).0, "built-in", "it fails in the last millisecond");
    let event = watched.policies.registry.status().shown()["events"][0].clone();
    assert_eq!((&event["what"], &event["at_ms"]), (&json!("rolled-back-by-itself"), &json!(STARTED_MS + 59_999)));

    let (trusted, clock) = host(one_failure);
    trusted.upload(&keeper("keeper"), true).unwrap();
    clock.advance_ms(60_000);
    assert_eq!(probation(&trusted), Value::Null);
    trap(&trusted);
    assert_eq!(live_names(&trusted.policies).0, "keeper", "it has served for long enough");
}

#[test]
fn setting_the_clock_of_the_machine_neither_ends_nor_prolongs_probation() {
    let (host, clock) = host(|config| config.probation_ms = 60_000);
    host.upload(&keeper("keeper"), true).unwrap();
    clock.set_by_ms(3_600_000);
    assert!(probation(&host).is_object(), "an hour ahead");
    clock.set_by_ms(-7_200_000);
    clock.advance_ms(60_000);
    assert_eq!(probation(&host), Value::Null, "an hour behind");
}

#[test]
fn a_canary_is_judged_when_its_window_has_passed() {
    let (host, clock) = host(|config| {
        // Every call is slow: the verdict on that comes with the end of a window.
        config.canary = CanaryConfig { window_ms: 10_000, failures_max: 100, call_p99_ms_max: 0, calls_min: 3 };
    });
    host.upload(&keeper("keeper"), false).unwrap();
    host.policies.trials.canary("me", "keeper", 1.0).unwrap();
    let canary = || host.policies.registry.status().shown()["canary"].clone();
    assert_eq!(canary()["since_ms"], json!(STARTED_MS));
    for _ in 0..4 {
        host.decide("fine", 0..1);
        clock.advance_ms(2_499);
    }
    host.decide("fine", 0..1);
    assert!(canary().is_object(), "four milliseconds are left of its window");
    clock.advance_ms(4);
    host.decide("fine", 0..1);
    assert_eq!(canary(), Value::Null);
    let ended = host.policies.trials.diff().shown()["canary"]["ended"].as_str().unwrap().to_owned();
    assert!(
        ended.contains("5 of 5 calls within 10000 ms took longer than policy.canary.call_p99_ms_max = 0"),
        "{ended}"
    );
}
