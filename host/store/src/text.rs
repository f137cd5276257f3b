//! Ids as keys: the canonical text, with a letter for the type before it where the id is read back.
//!
//! Part of the data format of both stores. Within one kind all targets (and all actors) have one type, so that the
//! order of the tagged texts is the order of the canonical texts.

use uuid::Uuid;

use weir_core::model::Id;

/// The tagged text of an id: `i42`, `u0192f0c1-…`, `tbob`.
pub(super) fn tagged(id: &Id) -> String {
    match id {
        Id::Int(value) => format!("i{value}"),
        Id::Uuid(value) => format!("u{}", value.hyphenated()),
        Id::Text(value) => format!("t{value}"),
    }
}

/// The id of a tagged text; `None` when the text is malformed.
pub(super) fn untagged(bytes: &[u8]) -> Option<Id> {
    let text = std::str::from_utf8(bytes).ok()?;
    let rest = text.get(1..)?;
    match bytes.first()? {
        b'i' => rest.parse().ok().map(Id::Int),
        b'u' => Uuid::try_parse(rest).ok().map(Id::Uuid),
        b't' => Some(Id::Text(rest.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tagged_is_read_back() {
        for id in [Id::Int(i64::MIN), Id::Int(0), Id::Uuid(Uuid::from_u128(7)), Id::Text("æ:{} b".into())] {
            assert_eq!(untagged(tagged(&id).as_bytes()), Some(id));
        }
        for bad in [&b""[..], b"i", b"ix", b"u1", b"x1", b"t\xff"] {
            assert_eq!(untagged(bad), None, "{bad:?}");
        }
    }
}
