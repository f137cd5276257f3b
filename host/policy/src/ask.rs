//! A module is asked in the language of test vectors and decision logs: one way for all interfaces.

use weir_policy_vectors::{Answer, Call};

use super::call::{Outcome, Role};
use super::contract::Contract;
use super::interface::{admission, counter, delivery, flush, ingest, toggle};
use super::module::Module;
use super::subject::{Asked, Subject};
use weir_core::model::{Arrival, Document, Hit, Intent, SettingColumn, ToggleChange};

impl Module {
    /// A call and its answer as test vectors and the decision log have them. The answer is held to `contract`, too.
    pub(super) fn ask(&self, role: Role, call: &Call, contract: Option<&dyn Contract>) -> Outcome<Answer> {
        match call {
            Call::ToggleDecide(call) => {
                let batch: Vec<Intent> = call.batch.iter().map(toggle::to_intent).collect();
                self.decide(role, &call.kind, call.now_ms, &batch, contract)
            }
            Call::CounterDecide(call) => {
                let batch: Vec<Hit> = call.batch.iter().map(counter::to_hit).collect();
                self.decide(role, &call.kind, call.now_ms, &batch, contract)
            }
            Call::IngestValidate(call) => {
                let batch: Vec<Document> = call.batch.iter().map(ingest::to_document).collect();
                self.decide(role, &call.kind, call.now_ms, &batch, contract)
            }
            Call::DeliveryFields(call) => Ok(self.fields(role, &call.kind, &call.topic, contract)?.map(Answer::Fields)),
            Call::DeliveryEnabled(call) => {
                let columns: Vec<SettingColumn> = call.columns.iter().map(delivery::to_column).collect();
                let asked = delivery::Asked {
                    kind: &call.kind,
                    topic: &call.topic,
                    now_ms: call.now_ms,
                    members: call.members,
                    columns: &columns,
                };
                Ok(self.enabled(role, asked)?.map(Answer::Enabled))
            }
            Call::FlushPlan(call) => Ok(self.plan(role, &call.kind, call.now_ms, call.backlog)?.map(Answer::Plan)),
            Call::FlushCoalesce(call) => {
                let changes: Vec<ToggleChange> = call.entries.iter().map(flush::to_change).collect();
                let last = flush::last_of_each_pair(&changes);
                Ok(self.coalesce(role, &call.kind, &changes, &last)?.map(Answer::Kept))
            }
            Call::AdmissionPlace(call) => {
                let batch: Vec<Arrival> = call.batch.iter().map(admission::to_arrival).collect();
                self.decide(role, &call.kind, call.now_ms, &batch, contract)
            }
            Call::AdmissionPlan(call) => {
                Ok(self.admit(role, &call.kind, call.now_ms, &call.room)?.map(Answer::Admission))
            }
            Call::CacheEligible(call) => {
                Ok(self.eligible(role, &call.kind, call.now_ms, &call.profile)?.map(Answer::Cache))
            }
        }
    }

    fn decide<S: Subject>(
        &self,
        role: Role,
        kind: &str,
        now_ms: u64,
        batch: &[S],
        contract: Option<&dyn Contract>,
    ) -> Outcome<Answer> {
        let asked = Asked { kind, now_ms, batch, contract, may_wait: true };
        Ok(S::ask(self, role, asked)?.map(|rules| S::record_rules(&rules)))
    }
}
