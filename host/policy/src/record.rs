//! Ids of the host in the language of test vectors and decision logs, for all interfaces.

use weir_policy_vectors as vectors;

use weir_core::model::Id;

/// An id as it is recorded.
pub(super) fn id(id: &Id) -> vectors::Id {
    match id {
        Id::Int(value) => vectors::Id::Int(*value),
        other => vectors::Id::Text(other.to_string()),
    }
}

/// A recorded id. UUIDs cross the border as text, so text is what a module gets again.
pub(super) fn to_id(id: &vectors::Id) -> Id {
    match id {
        vectors::Id::Int(value) => Id::Int(*value),
        vectors::Id::Text(value) => Id::Text(value.as_str().into()),
    }
}
