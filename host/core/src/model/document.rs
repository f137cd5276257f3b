//! Documents of bulk creates: what is validated, accepted and rejected.

use std::sync::Arc;

use super::Id;

/// A document that somebody wants to create, as the policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its id: made by the host, or taken from the kind's unique field.
    pub id: Id,
    /// Who creates it.
    pub actor: Id,
    /// A JSON object, as text.
    pub body: Arc<str>,
}

/// One accepted document, as it lies in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentChange {
    /// Its id.
    pub id: Id,
    /// Who creates it.
    pub actor: Id,
    /// A JSON object, as text, as the rules left it.
    pub body: Arc<str>,
}
