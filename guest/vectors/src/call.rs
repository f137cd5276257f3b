//! Calls of a module: what stands in a case under the call's name.

use serde::{Deserialize, Serialize};

use super::NOW_MS_DEFAULT;

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
    FlushPlan(FlushPlan),
    /// `flush.coalesce`.
    #[serde(rename = "flush.coalesce")]
    FlushCoalesce(FlushCoalesce),
    /// `admission.place`.
    #[serde(rename = "admission.place")]
    AdmissionPlace(AdmissionPlace),
    /// `admission.plan`.
    #[serde(rename = "admission.plan")]
    AdmissionPlan(AdmissionPlan),
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

/// How old the answers of a read may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Staleness {
    /// Not at all.
    Live,
    /// Some seconds.
    Seconds,
    /// Some minutes.
    Minutes,
    /// Some hours.
    Hours,
    /// As the origin says.
    Origin,
}

/// What was measured of a read. What is left out is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadProfile {
    /// How old its answers may be.
    pub class: Staleness,
    /// Requests.
    #[serde(default)]
    pub requests: u64,
    /// Requests a minute, lately.
    #[serde(default)]
    pub requests_per_minute: u64,
    /// Of 1,000 requests, those that the cache answered.
    #[serde(default)]
    pub hit_permille: u32,
    /// Median time of a reading, in microseconds.
    #[serde(default)]
    pub cost_p50_us: u64,
    /// 99th percentile of that.
    #[serde(default)]
    pub cost_p99_us: u64,
    /// Share of the time of all reads, in 1,000 parts.
    #[serde(default)]
    pub cost_share_permille: u32,
    /// Mean size of an answer, in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Of 1,000 readings of something known, those that found it changed.
    #[serde(default)]
    pub change_permille: u32,
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

/// One field, with a value for each member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub field: String,
    /// Its values.
    pub values: Values,
}

/// The values of a field, all of one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Values {
    /// On or off.
    Bools(Vec<bool>),
    /// Integers.
    Ints(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
}

/// Arguments of `flush.plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushPlan {
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
pub struct AdmissionPlan {
    /// Name of the kind.
    pub kind: String,
    /// Unix time, in milliseconds; left out, [`NOW_MS_DEFAULT`].
    #[serde(default = "the_first_of_2026")]
    pub now_ms: u64,
    /// The queue.
    pub room: Room,
}

/// Somebody who arrives at a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrival {
    /// The queue.
    pub queue: Id,
    /// Who arrives.
    pub actor: Id,
}

/// A queue at a tick. What is left out is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Room {
    /// Who waits.
    pub waiting: u64,
    /// Who is in.
    pub active: u64,
    /// Who may be in at once.
    pub capacity: u64,
    /// Time since the plan before, in milliseconds.
    pub since_ms: u64,
    /// Let in since then.
    pub admitted: u64,
    /// Done since then.
    pub completed: u64,
    /// Out of time since then.
    pub expired: u64,
    /// Of `expired`, those who never came.
    pub no_shows: u64,
    /// Gone from the queue since then.
    pub abandoned: u64,
}

/// Identifies a target or an actor. UUIDs cross as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// An integer.
    Int(i64),
    /// Text.
    Text(String),
}

/// One request for a toggle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// What is liked.
    pub target: Id,
    /// Who likes it.
    pub actor: Id,
    /// What the caller asks for.
    #[serde(default)]
    pub verb: Verb,
}

/// What the caller asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// The other state.
    #[default]
    Toggle,
    /// Present.
    Set,
    /// Absent.
    Clear,
}

/// One request to count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hit {
    /// What is counted.
    pub target: Id,
    /// Who is counted; left out, nobody is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Id>,
    /// How much is asked for; left out, 1.
    #[serde(default = "one")]
    pub by: u32,
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

/// What waits in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backlog {
    /// Changes.
    pub entries: u64,
    /// Targets that they concern.
    #[serde(default)]
    pub targets: u64,
    /// Size of the changes, in bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Age of the oldest, in milliseconds; at most `now_ms`.
    #[serde(default)]
    pub oldest_age_ms: u64,
}

/// One accepted change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What is liked.
    pub target: Id,
    /// Who likes it.
    pub actor: Id,
    /// What holds afterwards.
    pub action: Action,
}

/// What holds for a pair after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is present.
    Add,
    /// It is absent.
    Remove,
}

fn the_first_of_2026() -> u64 {
    NOW_MS_DEFAULT
}

fn one() -> u32 {
    1
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
