//! What a kind asks of answers beyond what the WIT says: the shape of its documents, the names of its fields.
//!
//! A capability knows it and hands it in; `policy` checks each answer by it, so that a module which breaks it is judged
//! like one that traps: counted, unhealthy, rolled back, stood in for. Knows no shape itself.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;
use weir_policy_vectors::Call;

use weir_core::model::Id;

/// What one kind asks of its module's answers. What it does not say is allowed.
pub trait Contract: Send + Sync {
    /// Whether what a module made of the document `id` is still one of this kind.
    ///
    /// # Errors
    /// How it is not.
    fn check_document(&self, _id: &Id, _value: &Value) -> Result<(), String> {
        Ok(())
    }

    /// Whether what a module made of a document, `bytes` long, is not too large. It is the document that is refused where it
    /// is: a rule that adds a field cannot know how near to its bound a document is.
    ///
    /// # Errors
    /// The bound, in words for the sender of the document.
    fn check_size(&self, _bytes: usize) -> Result<(), String> {
        Ok(())
    }

    /// Whether the kind has a field of this name.
    ///
    /// # Errors
    /// That it has not.
    fn check_field(&self, _field: &str) -> Result<(), String> {
        Ok(())
    }
}

/// The contracts of the kinds that have one.
#[derive(Default)]
pub(super) struct Contracts(RwLock<HashMap<String, Arc<dyn Contract>>>);

impl Contracts {
    /// That of `kind`.
    pub(super) fn of(&self, kind: &str) -> Option<Arc<dyn Contract>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(kind).cloned()
    }

    /// That of the kind that was called, where the call is of an interface that has contracts.
    pub(super) fn of_call(&self, call: &Call) -> Option<Arc<dyn Contract>> {
        match call {
            Call::IngestValidate(call) => self.of(&call.kind),
            Call::DeliveryFields(call) => self.of(&call.kind),
            _ => None,
        }
    }
}

impl Contracts {
    /// From now on answers for `kind` must keep `contract`.
    pub(super) fn set(&self, kind: &str, contract: Arc<dyn Contract>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(kind.to_owned(), contract);
    }
}
