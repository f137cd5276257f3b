//! What the store steps of all capabilities have in common: idempotency keys, and one step for each module that decided.

use std::collections::BTreeMap;
use std::future::Future;

use sha2::{Digest as _, Sha256};

use crate::error::Refusal;
use crate::model::Digest;
use crate::policy::Decider;
use crate::store::Idempotency;

/// Makes an operation of (kind, actor) with an `Idempotency-Key` repeatable. The key is the actor's own: two actors may use
/// the same. `asked` is what makes a request the same request.
pub fn idempotency((kind, actor, key): (&str, &str, &str), asked: &[&str]) -> Idempotency {
    Idempotency { key: hash(&[kind, actor, key]), fingerprint: hash(asked) }
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

/// Runs `ops` in one store step, or, where a canary decided some of them, in one for each module: each journal entry names
/// one module. The order of operations on one target stays: one module decides them all. Index-aligned with `ops`.
pub async fn in_steps<Op, E: Clone, F>(
    decider: Decider,
    ops: Vec<Op>,
    commit: impl Fn(Digest, Vec<Op>) -> F,
) -> Vec<Result<E, Refusal>>
where
    F: Future<Output = Result<Vec<E>, Refusal>>,
{
    let all = |results: Result<Vec<E>, Refusal>, length: usize| match results {
        Ok(evaluated) => evaluated.into_iter().map(Ok).collect(),
        Err(refusal) => vec![Err(refusal); length],
    };
    let digests = match decider {
        Decider::One(digest) => {
            let length = ops.len();
            return all(commit(digest, ops).await, length);
        }
        Decider::Each(digests) => digests,
    };
    let mut by_module: BTreeMap<Digest, (Vec<usize>, Vec<Op>)> = BTreeMap::new();
    let mut results: Vec<Option<Result<E, Refusal>>> = vec![None; ops.len()];
    for (index, (digest, op)) in digests.iter().zip(ops).enumerate() {
        let (indexes, of_module) = by_module.entry(*digest).or_default();
        indexes.push(index);
        of_module.push(op);
    }
    for (digest, (indexes, ops)) in by_module {
        let evaluated: Vec<_> = all(commit(digest, ops).await, indexes.len());
        for (index, result) in indexes.into_iter().zip(evaluated) {
            results[index] = Some(result);
        }
    }
    results.into_iter().map(|result| result.unwrap_or(Err(Refusal::StoreUnavailable))).collect()
}
