//! Answers to calls: what stands in a case under `expect`.

use serde::{Deserialize, Serialize};

use super::call::{Call, Fields};
use super::types::{AdmissionPlan, CacheRule, FlushPlan, HitRule, Placement, Rule, Violation};

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
    Plan(FlushPlan),
    /// Of `flush.coalesce`: indexes of the entries that survive.
    Kept(Vec<u32>),
    /// Of `admission.place`: one for each arrival.
    Places(Vec<Placement>),
    /// Of `admission.plan`.
    Admission(AdmissionPlan),
    /// Of `cache.eligible`.
    Cache(CacheRule),
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
