//! Rate limits of the embedded store, in memory only: a restart resets them, and no promise depends on them.

use std::collections::HashMap;

use crate::limit::{self, Verdict};
use weir_core::model::{Id, RateLimit, RateState};

/// Most rate limits in memory; beyond, full ones are dropped, and then all.
const LIMITS_MAX: usize = 1_000_000;

/// The rate limits of all kinds.
#[derive(Default)]
pub(super) struct Limits {
    /// By index of the kind, target and actor.
    tats_us: HashMap<(usize, Id, Id), u64>,
    sweep_at: usize,
}

/// An operation is over its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limited {
    pub(super) retry_after_ms: u64,
    pub(super) rate: RateState,
}

impl Limits {
    /// The rest of `limit` after an operation of `actor` on `target` that passes; `None` where there is no limit. `counts`:
    /// whether a passing operation is counted.
    pub(super) fn check(
        &mut self,
        (kind, now_ms): (usize, u64),
        (target, actor): (&Id, &Id),
        limit: Option<RateLimit>,
        counts: bool,
    ) -> Result<Option<RateState>, Limited> {
        let Some(limit) = limit else { return Ok(None) };
        let now_us = now_ms.saturating_mul(1_000);
        let key = (kind, target.clone(), actor.clone());
        match limit::check(limit, now_us, self.tats_us.get(&key).copied().unwrap_or(0)) {
            Verdict::Limited { retry_after_ms, rate } => Err(Limited { retry_after_ms, rate }),
            Verdict::Pass { tat_us, rate } => {
                if counts {
                    self.set(key, tat_us, now_us);
                }
                Ok(Some(rate))
            }
        }
    }

    fn set(&mut self, key: (usize, Id, Id), tat_us: u64, now_us: u64) {
        if self.tats_us.len() >= self.sweep_at.max(1_024) {
            self.tats_us.retain(|_, tat_us| *tat_us > now_us);
            if self.tats_us.len() >= LIMITS_MAX {
                tracing::warn!(limits = self.tats_us.len(), "too many rate limits in memory: all are forgotten");
                self.tats_us.clear();
            }
            self.sweep_at = (self.tats_us.len() * 2).min(LIMITS_MAX);
        }
        self.tats_us.insert(key, tat_us);
    }
}
