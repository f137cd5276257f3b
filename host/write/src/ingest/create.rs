//! Creates on their way into the store: checked for shape, placed, judged by the rules, accepted together or not at all.

use std::sync::Arc;

use serde_json::Value;

use super::ids::{self, Seed};
use super::shape::{self, Shape};
use super::{CreateRefusal, CreateRequest, Fields, Ingest};
use crate::capability::{KindContext, RequestKey};
use weir_core::error::Refusal;
use weir_core::model::{Document, Id, Partition, Violation};
use weir_policy::{Decided, Decider, Verdict};
use weir_store::{CreateOp, Idempotency};

/// A request whose documents have the right shape.
#[derive(Debug, Clone)]
pub struct Creation {
    documents: Arc<Vec<Fields>>,
    texts: Arc<Vec<Arc<str>>>,
    actor: Id,
    pub(super) idempotency: Option<Idempotency>,
    seed: Seed,
}

/// Where a request's documents go, and what the rules made of them; or why they refuse it.
pub type Judgement = Result<Box<Judged>, CreateRefusal>;

/// Where a request's documents go, and what the rules made of them.
#[derive(Debug, Clone)]
pub struct Judged {
    pub(super) partition: Partition,
    pub(super) ids: Vec<Id>,
    /// Empty once they went to the store under ids that were just made: these are never asked for again.
    documents: Vec<Document>,
}

/// The documents of a request, each with its id, and their partition.
struct Placed {
    partition: Partition,
    documents: Vec<Document>,
}

impl Ingest {
    /// Checks the shape of the documents.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn creation(&self, context: &KindContext, request: CreateRequest) -> Result<Creation, CreateRefusal> {
        let CreateRequest { documents, actor, idempotency_key, .. } = request;
        let values: Vec<Value> = documents.into_iter().map(Value::Object).collect();
        let texts: Vec<String> = values.iter().map(Value::to_string).collect();
        let of = |(index, value): (usize, &Value)| {
            self.shape.violations(value).into_iter().map(move |violation| (index, violation)).collect::<Vec<_>>()
        };
        let mut violations: Vec<(usize, Violation)> = values.iter().enumerate().flat_map(of).collect();
        if violations.is_empty() {
            violations = unfit(&self.shape, context, &values);
        }
        let fields = |value| if let Value::Object(fields) = value { fields } else { Fields::new() };
        let documents: Vec<Fields> = values.into_iter().map(fields).collect();
        violations.extend(self.shape.violations_together(&documents, &texts));
        if !violations.is_empty() {
            violations.sort_by_key(|(index, _)| *index);
            return Err(CreateRefusal::Invalid(violations));
        }
        debug_assert!(documents.len() <= self.config.documents_max, "the door counts them");
        let idempotency = idempotency_key.map(|key| {
            let asked: Vec<&str> = std::iter::once("create").chain(texts.iter().map(String::as_str)).collect();
            // The documents have no target in common.
            RequestKey { kind: context.kind(), actor: &actor.to_string(), key: &key, target: None }.of(&asked)
        });
        Ok(Creation {
            documents: Arc::new(documents),
            texts: Arc::new(texts.into_iter().map(Arc::from).collect()),
            actor,
            seed: idempotency.as_ref().map_or_else(ids::random_seed, |idempotency| idempotency.key),
            idempotency,
        })
    }

    /// Where the documents of each request go, and what the rules make of them, in one policy call.
    pub(super) async fn judge(
        &self,
        context: &KindContext,
        at_ms: u64,
        creations: &[Creation],
    ) -> Result<Decided<Judgement>, Refusal> {
        let parts = &context.parts;
        let placed: Vec<Placed> = creations.iter().map(|creation| self.place(context, creation, at_ms)).collect();
        let documents: Vec<Document> = placed.iter().flat_map(|placed| placed.documents.clone()).collect();
        // A failed module is logged, counted and reported by the policy itself.
        let decided = parts.policies.validate(&parts.kind, at_ms, &documents).await;
        let Decided { rules, decider } = decided.map_err(|_| Refusal::PolicyFailed)?;
        drop(documents);
        let (mut verdicts, mut first) = (rules.into_iter(), 0);
        let (mut judgements, mut digests) = (Vec::with_capacity(placed.len()), Vec::new());
        for (creation, placed) in creations.iter().zip(placed) {
            if let Decider::Each(of_documents) = &decider {
                // One entry names one module: the one that decided the first document.
                digests.push(of_documents.get(first).copied().unwrap_or_default());
            }
            first += placed.documents.len();
            let of_request = verdicts.by_ref().take(placed.documents.len()).collect();
            judgements.push(judged(creation, placed, of_request));
        }
        let decider = match decider {
            Decider::One(digest) => Decider::One(digest),
            Decider::Each(_) => Decider::Each(digests),
        };
        Ok(Decided { rules: judgements, decider })
    }

    /// Gives the documents of a request their ids, and all of them their partition.
    fn place(&self, context: &KindContext, creation: &Creation, at_ms: u64) -> Placed {
        let partitions = context.parts.store.partitions();
        let (partition, ids) = if self.shape.makes_ids() {
            self.made_ids(context, creation, at_ms)
        } else {
            let ids: Vec<Id> = creation.documents.iter().filter_map(|fields| self.shape.id_of(fields)).collect();
            (ids.first().map_or(0, |id| self.config.partition(id, partitions)), ids)
        };
        let document =
            |(id, body): (Id, &Arc<str>)| Document { id, actor: creation.actor.clone(), body: Arc::clone(body) };
        Placed { partition, documents: ids.into_iter().zip(creation.texts.iter()).map(document).collect() }
    }

    /// The ids that weir makes for a request that is accepted at `at_ms`, and their partition.
    pub(super) fn made_ids(&self, context: &KindContext, creation: &Creation, at_ms: u64) -> (Partition, Vec<Id>) {
        ids::made(&creation.seed, at_ms, creation.documents.len(), context.parts.store.partitions())
    }

    /// What the store is to do with documents that the rules accept.
    pub(super) fn create_op(&self, judged: &mut Judged, idempotency: Option<Idempotency>) -> CreateOp {
        let has_fresh_ids = self.shape.makes_ids();
        // Fresh ids are never met in the store, so nothing will have to be loaded for them first.
        let documents = if has_fresh_ids { std::mem::take(&mut judged.documents) } else { judged.documents.clone() };
        CreateOp { partition: judged.partition, documents, has_fresh_ids, idempotency }
    }
}

/// What of documents of the right shape does not fit into their columns.
fn unfit(shape: &Shape, context: &KindContext, documents: &[Value]) -> Vec<(usize, Violation)> {
    let fit = &context.parts.fit;
    let mut found = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        found.extend(fit.violations(document, shape::VIOLATIONS_MAX).into_iter().map(|violation| (index, violation)));
        let id = document.as_object().and_then(|fields| shape.id_of(fields));
        let unfit = id.and_then(|id| fit.check_document_id(&id).err());
        found.extend(unfit.and_then(|unfit| Some((index, shape.unfit_id(&unfit)?))));
    }
    found
}

/// The documents as the rules leave them, or why they are refused. What a module made of one is still one of its kind: the
/// policy has checked that.
fn judged(creation: &Creation, placed: Placed, verdicts: Vec<Verdict>) -> Judgement {
    let Placed { partition, mut documents } = placed;
    let mut violations = Vec::new();
    for (index, (document, verdict)) in documents.iter_mut().zip(verdicts).enumerate() {
        match verdict {
            Ok(None) => {}
            Ok(Some(body)) => document.body = body,
            Err(of_document) => violations.extend(of_document.into_iter().map(|violation| (index, violation))),
        }
    }
    if documents.len() != creation.documents.len() {
        return Err(Refusal::StoreUnavailable.into());
    }
    if !violations.is_empty() {
        return Err(CreateRefusal::Invalid(violations));
    }
    let ids = documents.iter().map(|document| document.id.clone()).collect();
    Ok(Box::new(Judged { partition, ids, documents }))
}
