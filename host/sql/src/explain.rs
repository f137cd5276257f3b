//! What SQL holds of something, in dialect, for `weir explain`.
//!
//! Knows no engine. Pure.

use serde_json::{Value, json};

use super::StoredDocument;
use super::rows::Known;
use weir_core::config::ToggleTable;
use weir_core::model::{Id, Settings};

/// What SQL holds of a pair and its target, in dialect. `size` is counted up to one more than `huge_rows_min`.
pub(super) fn explanation(
    at_ms: Option<u64>,
    target: &Id,
    known: Option<&Known>,
    size: u64,
    table: &ToggleTable,
) -> Value {
    let exists = known.is_none_or(|known| known.contains_key(target));
    let count = known.and_then(|known| known.get(target).copied().flatten());
    json!({
        "target_exists": exists,
        "row": at_ms.map(|at_ms| json!({ "created_at_ms": at_ms })),
        "count": count,
        "rows": (size <= table.huge_rows_min).then_some(size),
    })
}

/// What SQL holds of a counter, in dialect.
pub(super) fn explained_count(found: &[Option<u64>]) -> Value {
    let count = found.first().copied().flatten();
    json!({ "target_exists": count.is_some(), "count": count })
}

/// What SQL holds of a member, in dialect.
pub(super) fn explained_settings(found: &[Option<Settings>]) -> Value {
    let settings = found.first().and_then(Option::as_ref);
    json!({ "target_exists": settings.is_some(), "settings": settings.map(Settings::to_json) })
}

/// What SQL holds of a document, in dialect.
pub(super) fn explained_document(found: &[Option<StoredDocument>]) -> Value {
    match found.first().and_then(Option::as_ref) {
        None => json!({ "document": null }),
        Some(document) => json!({
            "document": document.body,
            "actor": document.actor.as_ref().map(Id::to_json),
            "created_at_ms": document.at_ms,
        }),
    }
}
