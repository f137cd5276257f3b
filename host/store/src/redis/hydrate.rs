//! Hydration: sends what SQL returned in calls of bounded size.

use std::collections::HashSet;

use redis::Cmd;

use super::link::Nature;
use super::reply::Reply;
use super::{CALL_ARGUMENTS_MAX, RedisStore, TIME_MS_MAX, fresh_arguments};
use crate::count::COUNT_MAX;
use crate::text::tagged;
use crate::{Head, Hydrated, Hydration, LoadedState, PairLoad, StoreError, TargetLoad};

impl RedisStore {
    /// See [`crate::State::hydrate`].
    pub(super) async fn hydrate_one(&self, kind: &str, hydration: &Hydration) -> Result<Hydrated, StoreError> {
        let (mut targets, mut pairs) = (&hydration.targets[..], &hydration.pairs[..]);
        // Each call checks the hydration invariant for itself, so what an earlier call took stays valid.
        loop {
            let (now, later) = targets.split_at(targets_of_one_call(targets));
            targets = later;
            let room = if later.is_empty() { pairs.len().min(CALL_ARGUMENTS_MAX / 3) } else { 0 };
            let (pairs_now, pairs_later) = pairs.split_at(room);
            pairs = pairs_later;
            let (is_taken, head) = self.hydrate_call(kind, hydration, now, pairs_now).await?;
            if !is_taken {
                return Ok(Hydrated::Stale(head));
            }
            if targets.is_empty() && pairs.is_empty() {
                return Ok(Hydrated::Accepted);
            }
        }
    }

    async fn hydrate_call(
        &self,
        kind: &str,
        hydration: &Hydration,
        targets: &[TargetLoad],
        pairs: &[PairLoad],
    ) -> Result<(bool, Head), StoreError> {
        let value = self
            .head_call(Nature::Writes, &self.link.scripts.hydrate, kind, hydration.partition, |command| {
                command.arg(hydration.incarnation.to_string()).arg(hydration.position);
                command.arg(self.state_ttl_ms).arg(self.absent_ttl_ms);
                fresh_arguments(command);
                command.arg(targets.len());
                for load in targets {
                    target_arguments(command, load);
                }
                for load in pairs {
                    command.arg(load.target.to_string()).arg(tagged(&load.actor));
                    match load.present_since_ms {
                        Some(since_ms) => command.arg(since_ms.min(TIME_MS_MAX)),
                        None => command.arg("-"),
                    };
                }
            })
            .await?;
        let mut reply = Reply::of(value)?;
        let is_taken = reply.number()? == 1;
        let head = reply.head(hydration.partition)?;
        self.after_heads(kind, &[head]).await?;
        Ok((is_taken, head))
    }
}

fn target_arguments(command: &mut Cmd, load: &TargetLoad) {
    command.arg(load.target.to_string());
    match &load.state {
        LoadedState::Missing => command.arg("m").arg(0),
        LoadedState::Huge(count) => command.arg("h").arg(*count),
        LoadedState::Count(count) => command.arg("c").arg((*count).min(COUNT_MAX)),
        LoadedState::Exists => command.arg("e").arg(0),
        LoadedState::Settings(settings) => command.arg("f").arg(0).arg(settings.as_bytes()),
        LoadedState::Whole(members) => {
            // Of duplicate actors the first time counts.
            let mut seen = HashSet::with_capacity(members.len());
            let members: Vec<_> = members.iter().filter(|(actor, _)| seen.insert(actor)).collect();
            command.arg("w").arg(members.len());
            for (actor, since_ms) in members {
                command.arg(tagged(actor)).arg((*since_ms).min(TIME_MS_MAX));
            }
            command
        }
    };
}

/// How many of `targets`, from the front, fit into one call.
fn targets_of_one_call(targets: &[TargetLoad]) -> usize {
    let mut arguments = 0;
    let fits = targets.iter().take_while(|load| {
        arguments += match &load.state {
            LoadedState::Whole(members) => 3 + members.len() * 2,
            _ => 4,
        };
        arguments <= CALL_ARGUMENTS_MAX
    });
    fits.count().max(1).min(targets.len())
}
