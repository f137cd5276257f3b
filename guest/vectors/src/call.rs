//! Calls of a module: what stands in a case under the call's name.

use serde::{Deserialize, Serialize};

use super::cases::NOW_MS_DEFAULT;
use super::types::{Arrival, Backlog, Column, Entry, Hit, Id, Intent, ReadProfile, Room};

/// A JSON object.
pub type Fields = serde_json::Map<String, serde_json::Value>;

/// A call of a module, under its name in the WIT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Call {
    /// `toggle.decide`.
    #[serde(rename = "toggle.decide")]
    ToggleDecide(ToggleDecide),
    /// `counter.decide`.
    #[serde(rename = "counter.decide")]
    CounterDecide(CounterDecide),
    /// `ingest.validate`.
    #[serde(rename = "ingest.validate")]
    IngestValidate(IngestValidate),
    /// `delivery.fields`.
    #[serde(rename = "delivery.fields")]
    DeliveryFields(DeliveryFields),
    /// `delivery.enabled`.
    #[serde(rename = "delivery.enabled")]
    DeliveryEnabled(DeliveryEnabled),
    /// `flush.plan`.
    #[serde(rename = "flush.plan")]
    FlushPlan(PlanFlush),
    /// `flush.coalesce`.
    #[serde(rename = "flush.coalesce")]
    FlushCoalesce(FlushCoalesce),
    /// `admission.place`.
    #[serde(rename = "admission.place")]
    AdmissionPlace(AdmissionPlace),
    /// `admission.plan`.
    #[serde(rename = "admission.plan")]
    AdmissionPlan(PlanAdmission),
    /// `cache.eligible`.
    #[serde(rename = "cache.eligible")]
    CacheEligible(CacheEligible),
}

/// Arguments of `cache.eligible`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheEligible {
    /// Name of the read.
    pub kind: String,
    /// Unix time, in milliseconds; left out, [`NOW_MS_DEFAULT`].
    #[serde(default = "the_first_of_2026")]
    pub now_ms: u64,
    /// What was measured.
    pub profile: ReadProfile,
}

/// Arguments of `toggle.decide`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToggleDecide {
    /// Name of the kind.
    pub kind: String,
    /// Unix time, in milliseconds; left out, [`NOW_MS_DEFAULT`].
    #[serde(default = "the_first_of_2026")]
    pub now_ms: u64,
    /// The requests.
    pub batch: Vec<Intent>,
}

/// Arguments of `counter.decide`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterDecide {
    /// Name of the kind.
    pub kind: String,
    /// Unix time, in milliseconds; left out, [`NOW_MS_DEFAULT`].
    #[serde(default = "the_first_of_2026")]
    pub now_ms: u64,
    /// The hits.
    pub batch: Vec<Hit>,
}

/// Arguments of `ingest.validate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestValidate {
    /// Name of the kind.
    pub kind: String,
    /// Unix time, in milliseconds; left out, [`NOW_MS_DEFAULT`].
    #[serde(default = "the_first_of_2026")]
    pub now_ms: u64,
    /// The documents.
    pub batch: Vec<Document>,
}

/// Arguments of `delivery.fields`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryFields {
    /// Name of the kind.
    pub kind: String,
    /// The topic.
    pub topic: String,
}

/// Arguments of `delivery.enabled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryEnabled {
    /// Name of the kind.
    pub kind: String,
    /// The topic.
    pub topic: String,
    /// Unix time, in milliseconds; left out, [`NOW_MS_DEFAULT`].
    #[serde(default = "the_first_of_2026")]
    pub now_ms: u64,
    /// How many members.
    pub members: u32,
    /// The fields that the topic needs.
    #[serde(default)]
    pub columns: Vec<Column>,
}

/// Arguments of `flush.plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFlush {
    /// Name of the kind.
    pub kind: String,
    /// Unix time, in milliseconds; left out, [`NOW_MS_DEFAULT`].
    #[serde(default = "the_first_of_2026")]
    pub now_ms: u64,
    /// What waits.
    pub backlog: Backlog,
}

/// Arguments of `flush.coalesce`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushCoalesce {
    /// Name of the kind.
    pub kind: String,
    /// The changes, in order of acceptance.
    pub entries: Vec<Entry>,
}

/// Arguments of `admission.place`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionPlace {
    /// Name of the kind.
    pub kind: String,
    /// Unix time, in milliseconds; left out, [`NOW_MS_DEFAULT`].
    #[serde(default = "the_first_of_2026")]
    pub now_ms: u64,
    /// Those who arrive.
    pub batch: Vec<Arrival>,
}

/// Arguments of `admission.plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanAdmission {
    /// Name of the kind.
    pub kind: String,
    /// Unix time, in milliseconds; left out, [`NOW_MS_DEFAULT`].
    #[serde(default = "the_first_of_2026")]
    pub now_ms: u64,
    /// The queue.
    pub room: Room,
}

/// One document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Its id.
    pub id: Id,
    /// Who creates it.
    pub actor: Id,
    /// Its fields. A module gets them as text without white space; their order there is not promised.
    pub body: Fields,
}

fn the_first_of_2026() -> u64 {
    NOW_MS_DEFAULT
}

impl Call {
    /// Every [`Call::name`].
    pub const NAMES: [&str; 10] = [
        "toggle.decide",
        "counter.decide",
        "ingest.validate",
        "delivery.fields",
        "delivery.enabled",
        "flush.plan",
        "flush.coalesce",
        "admission.place",
        "admission.plan",
        "cache.eligible",
    ];

    /// Interface and function, such as `toggle.decide`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ToggleDecide(_) => "toggle.decide",
            Self::CounterDecide(_) => "counter.decide",
            Self::IngestValidate(_) => "ingest.validate",
            Self::DeliveryFields(_) => "delivery.fields",
            Self::DeliveryEnabled(_) => "delivery.enabled",
            Self::FlushPlan(_) => "flush.plan",
            Self::FlushCoalesce(_) => "flush.coalesce",
            Self::AdmissionPlace(_) => "admission.place",
            Self::AdmissionPlan(_) => "admission.plan",
            Self::CacheEligible(_) => "cache.eligible",
        }
    }

    /// The interface, such as `toggle`.
    pub fn interface(&self) -> &'static str {
        self.name().split_once('.').map_or("", |(interface, _)| interface)
    }

    /// The kind that it is about.
    pub fn kind(&self) -> &str {
        match self {
            Self::ToggleDecide(call) => &call.kind,
            Self::CounterDecide(call) => &call.kind,
            Self::IngestValidate(call) => &call.kind,
            Self::DeliveryFields(call) => &call.kind,
            Self::DeliveryEnabled(call) => &call.kind,
            Self::FlushPlan(call) => &call.kind,
            Self::FlushCoalesce(call) => &call.kind,
            Self::AdmissionPlace(call) => &call.kind,
            Self::AdmissionPlan(call) => &call.kind,
            Self::CacheEligible(call) => &call.kind,
        }
    }
}
