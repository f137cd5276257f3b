//! The calls that a component is tried with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use weir_policy_vectors::{Call, Granted};

use super::bench::Bench;
use crate::call::Role;
use crate::decision::KindPolicy;
use crate::imports::Imports;
use crate::interface::{Interface, admission, cache, delivery, flush};
use crate::module::{Failing, ModuleInfo};
use crate::refusal::LoadError;
use crate::subject::Subject;
use crate::trial::comparison::decisions;
use weir_core::model::{
    Action, Arrival, Backlog, Document, Hit, Id, Intent, ReadProfile, RoomState, SettingColumn, SettingValues,
    ToggleChange, Verb,
};

/// The kind of the calls that a component is tried with where no configuration names others.
const KIND: &str = "feed-like";

/// Calls each function, for each kind, with nothing and with something: those that fail, by name. What stands behind
/// granted imports is empty.
pub(super) fn call_all(
    bench: &Bench,
    info: &ModuleInfo,
    kinds: &[KindPolicy],
) -> Result<BTreeMap<String, Failing>, LoadError> {
    let imports = Imports::of_vectors(Arc::clone(&bench.loader.settings), &Granted::default());
    let module = bench.start_with(imports)?;
    let named: Vec<&str> = kinds.iter().map(|kind| kind.kind.as_str()).collect();
    let named = if named.is_empty() { vec![KIND] } else { named };
    let calls = named.into_iter().flat_map(calls_of_every_sort);
    let (mut failing, mut answered) = (BTreeMap::new(), BTreeSet::new());
    for call in calls.filter(|call| info.interfaces.contains(&call.interface())) {
        match module.ask(Role::Test, &call, None) {
            // An answer to nothing is none.
            Ok(_) if decisions(&call) == 0 => {}
            Ok(_) => {
                answered.insert(call.name());
            }
            Err(failure) => {
                failing.entry(call.name().to_owned()).or_insert_with(|| Failing {
                    function: call.name().to_owned(),
                    kind: call.kind().to_owned(),
                    reason: format!("{}: {}", failure.cause.as_str(), failure.reason),
                    never: false,
                });
            }
        }
    }
    failing.values_mut().for_each(|failing| failing.never = !answered.contains(failing.function.as_str()));
    Ok(failing)
}

/// The functions that a module exports, such as `toggle.decide`.
pub(super) fn exported_functions(info: &ModuleInfo) -> Vec<String> {
    let interfaces = Interface::ALL.into_iter().filter(|interface| info.interfaces.contains(&interface.name()));
    let names =
        |interface: Interface| interface.functions().iter().map(move |name| format!("{}.{name}", interface.name()));
    interfaces.flat_map(names).collect()
}

/// Calls of every function of every interface, of the kind `kind`: first one with nothing in it, then of several sizes.
pub(super) fn calls_of_every_sort(kind: &str) -> Vec<Call> {
    let verbs = [Verb::Toggle, Verb::Set, Verb::Clear];
    let id = |n: i64| if n % 2 == 0 { Id::Int(n) } else { Id::Text(format!("id-{n}").into()) };
    let intent = |n: i64| Intent { target: id(n / 3), actor: id(n), verb: verbs[n.unsigned_abs() as usize % 3] };
    let change = |n: i64| ToggleChange {
        target: id(n / 4 % 3),
        actor: id(n % 5),
        action: if n % 3 == 0 { Action::Remove } else { Action::Add },
    };
    let hit =
        |n: i64| Hit { target: id(n / 3), actor: (n % 3 > 0).then(|| id(n)), by: 1 + n.unsigned_abs() as u32 % 9 };
    let document = |n: i64| Document { id: id(n), actor: id(n / 2), body: body(n).to_string().into() };
    let arrival = |n: i64| Arrival { queue: id(n / 8), actor: id(n) };
    let mut calls = Vec::new();
    for size in [0, 1, 2, 7, 64] {
        calls.push(Subject::record(kind, NOW_MS, &(0..size).map(intent).collect::<Vec<_>>()));
        calls.push(Subject::record(kind, NOW_MS, &(0..size).map(hit).collect::<Vec<_>>()));
        calls.push(Subject::record(kind, NOW_MS, &(0..size).map(document).collect::<Vec<_>>()));
        calls.push(Subject::record(kind, NOW_MS, &(0..size).map(arrival).collect::<Vec<_>>()));
        calls.push(flush::record_coalesce(kind, &(0..size).map(change).collect::<Vec<_>>()));
        let entries = size.unsigned_abs() * 100;
        let oldest_at_ms = (entries > 0).then_some(NOW_MS - 500);
        let backlog = Backlog { entries, targets: entries / 3, bytes: entries * 19, oldest_at_ms };
        calls.push(flush::record_plan(kind, NOW_MS, &backlog));
        calls.push(admission::record_plan(kind, NOW_MS, &room(size.unsigned_abs())));
        calls.push(cache::record(kind, NOW_MS, &profile(kind, size.unsigned_abs())));
        calls.push(delivery::record_fields(kind, TOPIC));
        let columns = columns(size.unsigned_abs() as usize);
        let members = u32::try_from(size).unwrap_or_default();
        let asked = delivery::Asked { kind, topic: TOPIC, now_ms: NOW_MS, members, columns: &columns };
        calls.push(delivery::record_enabled(asked));
    }
    calls
}

/// The time of all calls: 2026-01-01, 00:00 UTC.
const NOW_MS: u64 = 1_767_225_600_000;
/// A topic of pushes.
const TOPIC: &str = "social";

/// A queue of so many.
fn room(waiting: u64) -> RoomState {
    RoomState {
        waiting,
        active: waiting / 2,
        capacity: 10,
        since_ms: 1_000,
        admitted: waiting / 3,
        completed: waiting / 4,
        expired: waiting / 8,
        no_shows: waiting / 16,
        abandoned: waiting / 16,
    }
}

/// A read that was asked so often.
fn profile(kind: &str, requests: u64) -> ReadProfile {
    ReadProfile {
        name: kind.to_owned(),
        class: ["live", "seconds", "minutes", "hours", "origin"][usize::try_from(requests).unwrap_or_default() % 5],
        requests,
        requests_per_minute: requests,
        hit_permille: 500,
        cost_p50_us: 800,
        cost_p99_us: 9_000,
        cost_share_permille: 100,
        bytes: 2_000,
        change_permille: 10,
    }
}

/// A column of each sort, of so many members.
fn columns(members: usize) -> Vec<SettingColumn> {
    let numbers = || 0..i64::try_from(members).unwrap_or_default();
    let column = |field: &str, values| SettingColumn { field: field.into(), values };
    vec![
        column(TOPIC, SettingValues::Bools(numbers().map(|n| n % 3 != 0).collect())),
        column("app_version", SettingValues::Texts(numbers().map(|n| format!("2.{n}").as_str().into()).collect())),
        column("offset_minutes", SettingValues::Ints(numbers().map(|n| n * 60).collect())),
    ]
}

/// Fields of every sort, some of them with white space around.
fn body(n: i64) -> Value {
    match n % 4 {
        0 => json!({ "title": format!(" title {n} "), "tracks": [{ "title": "a", "seconds": n }] }),
        1 => json!({ "title": "", "description": null, "public": true }),
        2 => json!({}),
        _ => json!({ "text": "x".repeat(n.unsigned_abs() as usize * 10), "nested": { "n": [n, 0.5] } }),
    }
}
