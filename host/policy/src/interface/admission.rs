//! `admission`: arrivals out, their places back; a queue out, how many are let in back.

use weir_default_policy::admission as native;
use weir_default_policy::rules::Settings;
use weir_policy_vectors as vectors;
use weir_policy_vectors::{Answer, Call};

use super::Interface;
use crate::bindings::admission;
use crate::call::{Called, Outcome, Role, not_exported};
use crate::convert::{UuidTexts, check_length};
use crate::instance::Warm;
use crate::module::Module;
use crate::record::{self, to_id};
use crate::subject::{Asked, Subject};
use weir_core::model::{AdmissionPlan, Arrival, Id, Place, RoomState};

impl Subject for Arrival {
    const INTERFACE: Interface = Interface::Admission;
    type Rule = Place;

    /// A queue is decided by one module: two rules would mix in its order.
    fn target(&self) -> &Id {
        &self.queue
    }

    fn ask(module: &Module, role: Role, asked: Asked<'_, Self>) -> Outcome<Vec<Place>> {
        let Asked { kind, now_ms, batch, .. } = asked;
        let mut texts = UuidTexts::for_ids(batch.iter().flat_map(|arrival| [&arrival.queue, &arrival.actor]));
        let mut writer = texts.writer();
        let arrivals: Vec<admission::Arrival<'_>> = batch
            .iter()
            .map(|arrival| admission::Arrival { queue: writer.id(&arrival.queue), actor: writer.id(&arrival.actor) })
            .collect();
        let call = |warm: &mut Warm| match &warm.exports.admission {
            Some(admission) => admission.call_place(&mut warm.store, kind, now_ms, &arrivals),
            None => Err(not_exported()),
        };
        let check = |places: Vec<admission::Placement>| {
            check_length(batch.len(), "arrivals", places.len(), "places")?;
            Ok(places.into_iter().map(place).collect())
        };
        module.run(role, Called { interface: Self::INTERFACE, function: "place", kind }, 1, call, check)
    }

    fn builtin(settings: &Settings, now_ms: u64, batch: &[Self]) -> Vec<Place> {
        vec![native::place(&settings.admission, now_ms); batch.len()]
    }

    fn record(kind: &str, now_ms: u64, batch: &[Self]) -> Call {
        let arrival = |arrival: &Arrival| vectors::Arrival {
            queue: record::id(&arrival.queue),
            actor: record::id(&arrival.actor),
        };
        let batch = batch.iter().map(arrival).collect();
        Call::AdmissionPlace(vectors::AdmissionPlace { kind: kind.to_owned(), now_ms, batch })
    }

    fn record_rules(places: &[Place]) -> Answer {
        Answer::Places(places.to_vec())
    }
}

fn place(place: admission::Placement) -> Place {
    match place {
        admission::Placement::Line(lane) => Place::Line(lane),
        admission::Placement::Draw(lane) => Place::Draw(lane),
        admission::Placement::Refuse => Place::Refuse,
    }
}

impl Module {
    /// How many are let in.
    pub(crate) fn admit(&self, role: Role, kind: &str, now_ms: u64, state: &RoomState) -> Outcome<AdmissionPlan> {
        let state = room(state);
        let call = |warm: &mut Warm| match &warm.exports.admission {
            Some(admission) => admission.call_plan(&mut warm.store, kind, now_ms, state),
            None => Err(not_exported()),
        };
        self.run(role, Called { interface: Interface::Admission, function: "plan", kind }, 1, call, check_plan)
    }
}

/// A plan, or how it breaks the contract.
fn check_plan(plan: admission::AdmissionPlan) -> Result<AdmissionPlan, String> {
    if plan.active_ttl_ms == 0 {
        return Err("active-ttl-ms is 0".into());
    }
    if plan.next_tick_ms == 0 {
        return Err("next-tick-ms is 0".into());
    }
    Ok(AdmissionPlan { admit: plan.admit, active_ttl_ms: plan.active_ttl_ms, next_tick_ms: plan.next_tick_ms })
}

/// A queue as the guest gets it.
fn room(state: &RoomState) -> admission::Room {
    let RoomState { waiting, active, capacity, since_ms, admitted, completed, expired, no_shows, abandoned } = *state;
    admission::Room { waiting, active, capacity, since_ms, admitted, completed, expired, no_shows, abandoned }
}

/// The built-in plan.
pub(crate) fn builtin_plan(settings: &Settings, now_ms: u64, state: &RoomState) -> AdmissionPlan {
    native::plan(&settings.admission, now_ms, *state)
}

/// A call of `admission.plan`.
pub(crate) fn record_plan(kind: &str, now_ms: u64, state: &RoomState) -> Call {
    Call::AdmissionPlan(vectors::PlanAdmission { kind: kind.to_owned(), now_ms, room: *state })
}

/// A recorded arrival.
pub(crate) fn to_arrival(arrival: &vectors::Arrival) -> Arrival {
    Arrival { queue: to_id(&arrival.queue), actor: to_id(&arrival.actor) }
}
