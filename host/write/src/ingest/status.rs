//! What has become of documents: pending in the journal, stored in SQL, or rejected by it.
//!
//! The store is asked first: what it does not hold any more, SQL has committed.

use serde_json::Value;

use super::Fields;
use crate::capability::KindContext;
use weir_core::config::IngestConfig;
use weir_core::error::Refusal;
use weir_core::model::{Id, Partition};
use weir_sql::{DeadLetter, StoredDocument};
use weir_store::PendingDocument;

/// Pending documents of one actor that are listed: the newest. What is older shows when it is in SQL.
const PENDING_MAX: usize = 1_000;

/// Where a document is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusOf {
    /// In the journal, on its way.
    Pending,
    /// In SQL.
    Stored,
    /// SQL refused it.
    Rejected,
}

impl StatusOf {
    /// As replies call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Stored => "stored",
            Self::Rejected => "rejected",
        }
    }
}

/// What has become of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Its id.
    pub id: Id,
    /// Where it is.
    pub of: StatusOf,
    /// As it was accepted, or as SQL holds it.
    pub document: Fields,
    /// Who created it, where that is known.
    pub actor: Option<Id>,
    /// When it was accepted, in Unix milliseconds, where that is known.
    pub at_ms: Option<u64>,
    /// Why SQL refused it.
    pub reason: Option<String>,
}

/// Where a page of a list ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Listed {
    /// At a pending document.
    Pending {
        /// Its time.
        at_ms: u64,
        /// Its id.
        id: Id,
    },
    /// At one that SQL holds.
    Stored {
        /// Its time, where there is one.
        at_ms: Option<u64>,
        /// Its id.
        id: Id,
    },
}

/// A page of an actor's documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Newest first.
    pub documents: Vec<Status>,
    /// Where the next one begins; `None` when this is the last.
    pub next: Option<Listed>,
}

impl Status {
    fn pending(document: PendingDocument) -> Self {
        let fields = fields_of(&document.body);
        Self {
            id: document.id,
            of: StatusOf::Pending,
            document: fields,
            actor: Some(document.actor),
            at_ms: Some(document.at_ms),
            reason: None,
        }
    }

    fn stored(document: StoredDocument) -> Self {
        let StoredDocument { id, body, actor, at_ms } = document;
        Self { id, of: StatusOf::Stored, document: body, actor, at_ms, reason: None }
    }

    fn rejected(id: Id, letter: DeadLetter, config: &IngestConfig) -> Self {
        Self {
            id,
            of: StatusOf::Rejected,
            document: fields_of(letter.body.as_deref().unwrap_or_default()),
            actor: Id::parse(config.table.actor_type, &letter.actor).ok(),
            at_ms: Some(letter.at_ms),
            reason: Some(letter.reason),
        }
    }
}

/// weir wrote it, so it is an object.
fn fields_of(body: &str) -> Fields {
    match serde_json::from_str(body) {
        Ok(Value::Object(fields)) => fields,
        _ => Fields::new(),
    }
}

/// What has become of each; `None` for unknown ids. Index-aligned with `ids`.
pub(super) async fn look_up(
    context: &KindContext,
    config: &IngestConfig,
    ids: &[Id],
) -> Result<Vec<Option<Status>>, Refusal> {
    let parts = &context.parts;
    let places: Vec<(Partition, Id)> =
        ids.iter().map(|id| (config.partition(id, parts.store.partitions()), id.clone())).collect();
    let pending = context.store_answer(parts.store.documents(&parts.kind, &places).await)?;
    let mut found: Vec<Option<Status>> = pending.into_iter().map(|document| document.map(Status::pending)).collect();
    let open = |found: &[Option<Status>]| -> Vec<(usize, Id)> {
        let missing = found.iter().enumerate().filter(|(_, status)| status.is_none());
        missing.map(|(index, _)| (index, ids[index].clone())).collect()
    };
    let (indexes, wanted): (Vec<usize>, Vec<Id>) = open(&found).into_iter().unzip();
    if !wanted.is_empty() {
        let stored = parts.sql.load_documents(&config.table, &wanted).await;
        for (index, document) in indexes.into_iter().zip(stored.map_err(|error| context.sql_refusal(&error))?) {
            found[index] = document.map(Status::stored);
        }
        context.sql_served();
    }
    let (indexes, wanted): (Vec<usize>, Vec<Id>) = open(&found).into_iter().unzip();
    if !wanted.is_empty() {
        let letters = parts.sql.rejections(&parts.kind, &wanted).await.map_err(|error| context.sql_refusal(&error))?;
        for ((index, id), letter) in indexes.into_iter().zip(wanted).zip(letters) {
            found[index] = letter.map(|letter| Status::rejected(id, letter, config));
        }
    }
    Ok(found)
}

/// A page of an actor's documents: pending ones come first, because they are the newest.
pub(super) async fn list(
    context: &KindContext,
    config: &IngestConfig,
    actor: &Id,
    after: Option<&Listed>,
    limit: usize,
) -> Result<Page, Refusal> {
    let parts = &context.parts;
    let mut documents: Vec<Status> = Vec::new();
    if !matches!(after, Some(Listed::Stored { .. })) {
        let pending = parts.store.documents_of(&parts.kind, actor, PENDING_MAX).await;
        let mut pending = pending.map_err(|error| context.store_refusal(&error))?;
        pending.sort_by(|a, b| (b.at_ms, &b.id).cmp(&(a.at_ms, &a.id)));
        if let Some(Listed::Pending { at_ms, id }) = after {
            pending.retain(|document| (document.at_ms, &document.id) < (*at_ms, id));
        }
        let more = pending.len() > limit;
        documents.extend(pending.into_iter().take(limit).map(Status::pending));
        if more {
            let next =
                documents.last().map(|last| Listed::Pending { at_ms: last.at_ms.unwrap_or(0), id: last.id.clone() });
            return Ok(Page { documents, next });
        }
    }
    let before = match after {
        Some(Listed::Stored { at_ms, id }) => {
            Some(StoredDocument { id: id.clone(), body: Fields::new(), actor: None, at_ms: *at_ms })
        }
        _ => None,
    };
    // One that was flushed between the two looks is in both.
    let wanted = limit.saturating_sub(documents.len());
    let stored = parts.sql.documents_of(&config.table, actor, before.as_ref(), wanted + documents.len() + 1).await;
    let stored = stored.map_err(|error| context.sql_refusal(&error))?;
    context.sql_served();
    let known: Vec<Id> = documents.iter().map(|status| status.id.clone()).collect();
    let mut fresh: Vec<StoredDocument> = stored.into_iter().filter(|document| !known.contains(&document.id)).collect();
    let more = fresh.len() > wanted;
    fresh.truncate(wanted);
    let next = match fresh.last() {
        Some(last) if more => Some(Listed::Stored { at_ms: last.at_ms, id: last.id.clone() }),
        // The page is full of pending ones: what SQL has comes with the next.
        None if more => {
            documents.last().map(|last| Listed::Pending { at_ms: last.at_ms.unwrap_or(0), id: last.id.clone() })
        }
        _ => None,
    };
    documents.extend(fresh.into_iter().map(Status::stored));
    Ok(Page { documents, next })
}
