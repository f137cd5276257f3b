//! Answers to calls: what stands in a case under `expect`.

use serde::{Deserialize, Serialize};

use super::call::{Call, Fields};

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Of `toggle.decide`: one for each intent.
    Rules(Vec<Rule>),
    /// Of `counter.decide`: one for each hit.
    Hits(Vec<HitRule>),
    /// Of `ingest.validate`: one for each document.
    Documents(Vec<Verdict>),
    /// Of `delivery.fields`: names of fields.
    Fields(Vec<String>),
    /// Of `delivery.enabled`: one for each member.
    Enabled(Vec<bool>),
    /// Of `flush.plan`.
    Plan(Plan),
    /// Of `flush.coalesce`: indexes of the entries that survive.
    Kept(Vec<u32>),
    /// Of `admission.place`: one for each arrival.
    Places(Vec<Place>),
    /// Of `admission.plan`.
    Admission(Admission),
    /// Of `cache.eligible`.
    Cache(CacheRule),
}

/// Where an arrival is placed: `{"line": 128}`, `{"draw": 64}` or `"refuse"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Behind those who are in this lane.
    Line(u8),
    /// In this lane, by lot.
    Draw(u8),
    /// Nowhere.
    Refuse,
}

/// What a tick of a queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// Let in so many.
    pub admit: u32,
    /// How long each may stay, in milliseconds.
    pub active_ttl_ms: u32,
    /// Ask again after so many milliseconds.
    pub next_tick_ms: u32,
}

/// What becomes of the answers of a read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheRule {
    /// They are not kept, for this reason.
    Bypass(String),
    /// They are kept.
    Store(Keep),
}

/// For how long answers are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// How long an answer is told, in milliseconds.
    pub ttl_ms: u32,
    /// How long after that it is told while it is read anew.
    #[serde(default)]
    pub stale_while_revalidate_ms: u32,
    /// How long after that it is told when it cannot be read anew.
    #[serde(default)]
    pub stale_if_error_ms: u32,
    /// Groups by which it can be purged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// A decision table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Effect when the pair is absent.
    pub when_absent: Effect,
    /// Effect when the pair is present.
    pub when_present: Effect,
    /// Beyond it the request is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<RateLimit>,
}

/// What happens in one state of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Make it present.
    Add,
    /// Make it absent.
    Remove,
    /// Leave it.
    Keep,
    /// Refuse the request.
    Deny,
}

/// At most `burst` operations in any `period_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Operations allowed at once.
    pub burst: u32,
    /// Time in which they are refilled, in milliseconds.
    pub period_ms: u32,
}

/// What a hit counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HitRule {
    /// What each unit counts for.
    pub weight: u32,
    /// A further hit by the same actor within so many milliseconds counts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_ms: Option<u32>,
    /// Beyond it the request is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<RateLimit>,
}

/// What becomes of a document: `{"ok": null}`, `{"ok": {…}}` or `{"violations": […]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is taken in: as it is, or with these fields.
    Ok(Option<Fields>),
    /// It is refused.
    Violations(Vec<Violation>),
}

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// Which part of it, as a JSON Pointer; left out, the whole.
    #[serde(default)]
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// What to do with a backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Write what waits, now.
    pub flush_now: bool,
    /// At most so many changes in one transaction; left out, the host decides.
    #[serde(default = "the_hosts_batch")]
    pub changes_max: u32,
    /// Ask again after so many milliseconds.
    pub look_again_ms: u32,
}

fn the_hosts_batch() -> u32 {
    u32::MAX
}

impl Call {
    /// What its answer is called.
    pub(super) fn answer_name(&self) -> &'static str {
        match self {
            Self::ToggleDecide(_) => "rules",
            Self::CounterDecide(_) => "hits",
            Self::IngestValidate(_) => "documents",
            Self::DeliveryFields(_) => "fields",
            Self::DeliveryEnabled(_) => "enabled",
            Self::FlushPlan(_) => "plan",
            Self::FlushCoalesce(_) => "kept",
            Self::AdmissionPlace(_) => "places",
            Self::AdmissionPlan(_) => "admission",
            Self::CacheEligible(_) => "cache",
        }
    }

    /// Whether `answer` is one of this call.
    pub(super) fn takes(&self, answer: &Answer) -> bool {
        matches!(
            (self, answer),
            (Self::ToggleDecide(_), Answer::Rules(_))
                | (Self::CounterDecide(_), Answer::Hits(_))
                | (Self::IngestValidate(_), Answer::Documents(_))
                | (Self::DeliveryFields(_), Answer::Fields(_))
                | (Self::DeliveryEnabled(_), Answer::Enabled(_))
                | (Self::FlushPlan(_), Answer::Plan(_))
                | (Self::FlushCoalesce(_), Answer::Kept(_))
                | (Self::AdmissionPlace(_), Answer::Places(_))
                | (Self::AdmissionPlan(_), Answer::Admission(_))
                | (Self::CacheEligible(_), Answer::Cache(_))
        )
    }
}
