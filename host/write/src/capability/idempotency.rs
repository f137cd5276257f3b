//! Idempotency keys: what makes a request the same request.

use std::fmt::Display;

use sha2::{Digest as _, Sha256};

use weir_store::Idempotency;

/// The `Idempotency-Key` of a request, and whose it is. A key is the actor's own: two actors may use the same. It is also the
/// target's own, where there is one: with another target it is another request, because the outcome is kept where the target
/// is.
pub struct RequestKey<'a> {
    /// The kind.
    pub kind: &'a str,
    /// Who asks, as text; empty without an actor.
    pub actor: &'a str,
    /// What the caller sent, 1 to 255 bytes.
    pub key: &'a str,
    /// The target, where the request has one.
    pub target: Option<&'a dyn Display>,
}

impl RequestKey<'_> {
    /// Makes the operation of a request repeatable. `asked` is what makes a request the same request.
    pub fn of(&self, asked: &[&str]) -> Idempotency {
        let target = self.target.map(ToString::to_string);
        let parts: Vec<&str> = [self.kind, self.actor, self.key].into_iter().chain(target.as_deref()).collect();
        Idempotency { key: hash(&parts), fingerprint: hash(asked) }
    }
}

/// First half of SHA-256 over the length-prefixed parts.
fn hash(parts: &[&str]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize()[..16]);
    half
}
