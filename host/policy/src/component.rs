//! The bytes of a component and what names them. A component is hashed once, where it comes in.

use sha2::{Digest as _, Sha256};

use weir_core::model::Digest;

/// A component, and its SHA-256.
#[derive(Debug, Clone, Copy)]
pub(super) struct ComponentBytes<'a> {
    pub(super) digest: Digest,
    pub(super) bytes: &'a [u8],
}

impl<'a> ComponentBytes<'a> {
    /// Hashes it.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { digest: digest_of(bytes), bytes }
    }
}

/// SHA-256 of a component.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// A digest from its hexadecimal text.
pub(super) fn parse_digest(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != digest.0.len() * 2 {
        return None;
    }
    for (byte, pair) in digest.0.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}
