//! The Redis store: state and journal in one Redis 7 or later, shared by several hosts.
//!
//! One script call carries a batch; it evaluates, changes the state and appends the journal without interruption. A
//! script has its whole effect or none (see `redis/prelude.lua`). As durable as that Redis is configured, which is
//! read at each connection and told by [`Store::durability`].
//!
//! - `keys`: names · `scripts`: the Lua files · `link`: the connection · `server`: its settings · `reply`: what comes
//!   back · `toggle`: how a batch is sent · `guest`: what policy modules keep
//!
//! Scripts take the partitions that they touch as keys and nothing else of the cluster's slots but the outcomes, which
//! have partitions of their own: a cluster will send one call per slot, and reserve outcomes first.
//!
//! Never repeats a call whose outcome is unknown, never lets a server evict.

mod guest;
mod keys;
mod link;
mod reply;
mod scripts;
mod server;
mod toggle;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};
use serde_json::json;
use uuid::Uuid;

use self::link::{Link, Nature};
use self::reply::{Reply, unexpected};
use self::toggle::Plan;
use super::page::page;
use super::text::tagged;
use super::{
    Counted, Durability, Head, Hydrated, Hydration, JournalRead, LoadedState, Members, PairLoad, ReadResult, Store,
    StoreError, TargetLoad, ToggleBatch, ToggleCommit, explain,
};
use crate::config::StoreConfig;
use crate::model::{Id, Incarnation, KeyEntry, KeyIncrement, Member, Partition, Position, partition_of};

/// Arguments of one call at most, unless one target alone has more: what one call may hold Redis up.
const CALL_ARGUMENTS_MAX: usize = 20_000;
/// Greatest time that a score can hold exactly.
const TIME_MS_MAX: u64 = (1 << 53) - 1;
/// Journal changes that `explain` reads in one call.
const EXPLAIN_PAGE_CHANGES: usize = 2_000;

/// See the room's text.
pub struct RedisStore {
    link: Link,
    partitions: Partition,
    state_ttl_ms: u64,
    absent_ttl_ms: u64,
    idempotency_ttl_ms: u64,
    huge_pairs_max: u64,
}

impl RedisStore {
    /// Connects. A Redis that is away, loading or full is no error: the store answers `Unavailable` until it is there,
    /// and checks it then.
    ///
    /// # Errors
    /// `Misconfigured` when the URL is wrong, or when the Redis answers and is not fit: it evicts, is too old, refuses
    /// the password, or holds the data of another number of partitions.
    pub async fn connect(config: &StoreConfig) -> Result<Self, StoreError> {
        let timeout = Duration::from_millis(config.response_timeout_ms);
        let ms = |seconds: u64| seconds.saturating_mul(1_000).min(TIME_MS_MAX / 4);
        let store = Self {
            link: Link::new(&config.url, timeout, config.partitions)?,
            partitions: config.partitions,
            state_ttl_ms: ms(config.state_ttl_s),
            absent_ttl_ms: ms(config.absent_ttl_s),
            idempotency_ttl_ms: ms(config.idempotency_ttl_s),
            huge_pairs_max: config.huge_pairs_max,
        };
        match store.link.ensure().await {
            Err(error @ StoreError::Misconfigured(_)) => Err(error),
            _ => Ok(store),
        }
    }

    /// After heads were made, the data may have gone as a whole: what was recorded at the connection is written again.
    async fn after_heads(&self, is_any_fresh: bool) -> Result<(), StoreError> {
        if is_any_fresh { self.link.check_format().await } else { Ok(()) }
    }

    async fn head_call(
        &self,
        nature: Nature,
        script: &redis::Script,
        kind: &str,
        partition: Partition,
        arguments: impl FnOnce(&mut Cmd),
    ) -> Result<Value, StoreError> {
        self.link.run(script, nature, &[keys::head(kind, partition)], arguments).await
    }

    /// Pages of the journal; `None` when there is no head.
    async fn journal(
        &self,
        kind: &str,
        partition: Partition,
        (incarnation, position, changes_max): (Incarnation, Position, usize),
    ) -> Result<Option<JournalRead>, StoreError> {
        let value = self
            .head_call(Nature::Reads, &self.link.scripts.journal, kind, partition, |command| {
                command.arg(incarnation.to_string()).arg(position).arg(changes_max.max(1));
            })
            .await?;
        let mut reply = Reply::of(value)?;
        let code = reply.number()?;
        if code == 3 {
            return Ok(None);
        }
        let (head, _) = reply.head(partition)?;
        let mut entries = reply.list()?;
        match code {
            0 => {
                let mut read = Vec::new();
                while !entries.is_empty() {
                    read.push(entries.entry()?);
                }
                Ok(Some(JournalRead::Entries(read)))
            }
            1 => Ok(Some(JournalRead::OtherIncarnation(head))),
            2 => Ok(Some(JournalRead::Rewound(head))),
            _ => Err(unexpected("the code of a journal")),
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
        let (head, fresh) = reply.head(hydration.partition)?;
        self.after_heads(fresh).await?;
        Ok((is_taken, head))
    }
}

/// Incarnation and life for heads that a script must make.
fn fresh_arguments(command: &mut Cmd) {
    command.arg(Incarnation::fresh().to_string()).arg(life());
}

/// Names the state that is valid now: 12 letters that do not come again.
fn life() -> String {
    let text = Uuid::new_v4().simple().to_string();
    text.get(..12).unwrap_or(&text).to_owned()
}

fn target_arguments(command: &mut Cmd, load: &TargetLoad) {
    command.arg(load.target.to_string());
    match &load.state {
        LoadedState::Missing => command.arg("m").arg(0),
        LoadedState::Huge(count) => command.arg("h").arg(*count),
        LoadedState::Whole(members) => {
            // The first time counts where an actor is there twice.
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
        arguments += 3 + if let LoadedState::Whole(members) = &load.state { members.len() * 2 } else { 0 };
        arguments <= CALL_ARGUMENTS_MAX
    });
    fits.count().max(1).min(targets.len())
}

/// The partitions of `targets` in ascending order, as keys; and for each partition its index among them, from 1.
fn keys_of<'a>(
    kind: &str,
    partitions: Partition,
    targets: impl Iterator<Item = &'a Id>,
) -> (Vec<String>, BTreeMap<Partition, usize>) {
    let mut index: BTreeMap<Partition, usize> = targets.map(|target| (partition_of(target, partitions), 0)).collect();
    for (place, (_, slot)) in index.iter_mut().enumerate() {
        *slot = place + 1;
    }
    (index.keys().map(|&partition| keys::head(kind, partition)).collect(), index)
}

#[async_trait]
impl Store for RedisStore {
    async fn toggle(&self, kind: &str, batch: ToggleBatch) -> Result<ToggleCommit, StoreError> {
        let plan = Plan::new(&batch, self.partitions);
        let partitions = plan.partitions();
        let names: Vec<String> = partitions.iter().map(|&partition| keys::head(kind, partition)).collect();
        let value = self
            .link
            .run(&self.link.scripts.toggle, Nature::Writes, &names, |command| {
                command
                    .arg(batch.now_ms.min(TIME_MS_MAX / 2_000))
                    .arg(&batch.digest.0[..])
                    .arg(self.idempotency_ttl_ms);
                fresh_arguments(command);
                plan.arguments(command, kind, self.partitions);
            })
            .await?;
        let mut reply = Reply::of(value)?;
        let outcomes = vec![reply.next(), reply.next(), reply.next()];
        let mut replies = reply.list()?;
        let heads: Vec<(Head, bool)> =
            partitions.iter().map(|&partition| replies.head(partition)).collect::<Result<_, _>>()?;
        let is_any_fresh = heads.iter().any(|(_, fresh)| *fresh);
        let heads: Vec<Head> = heads.into_iter().map(|(head, _)| head).collect();
        let results = plan.results(&mut Reply::of(Value::Array(outcomes))?, &heads)?;
        // The batch is applied: whatever fails now is no reason to send it again.
        self.after_heads(is_any_fresh).await.map_err(|error| match error {
            StoreError::Unavailable(reason) | StoreError::Refused(reason) => StoreError::OutcomeUnknown(reason),
            other => other,
        })?;
        Ok(ToggleCommit { results, heads })
    }

    async fn read(&self, kind: &str, _now_ms: u64, pairs: &[(Id, Option<Id>)]) -> Result<Vec<ReadResult>, StoreError> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let (heads, index) = keys_of(kind, self.partitions, pairs.iter().map(|(target, _)| target));
        let value = self
            .link
            .run(&self.link.scripts.read, Nature::Reads, &heads, |command| {
                for (target, actor) in pairs {
                    let place = index.get(&partition_of(target, self.partitions)).copied().unwrap_or(1);
                    command.arg(place).arg(target.to_string()).arg(actor.as_ref().map(tagged).unwrap_or_default());
                }
            })
            .await?;
        let mut reply = Reply::of(value)?;
        pairs.iter().map(|_| reply.read_result()).collect()
    }

    async fn members(
        &self,
        kind: &str,
        _now_ms: u64,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Members, StoreError> {
        let partition = partition_of(target, self.partitions);
        let (mut cursor, mut whole) = (0, HashMap::new());
        loop {
            let value = self
                .head_call(Nature::Reads, &self.link.scripts.members, kind, partition, |command| {
                    command.arg(target.to_string()).arg(cursor);
                })
                .await?;
            let mut reply = Reply::of(value)?;
            match reply.number()? {
                0 => {
                    whole.extend(reply.members()?);
                    cursor = reply.number()?;
                    if cursor == 0 {
                        break;
                    }
                }
                1 => {
                    let present = reply.members()?;
                    let present = present.into_iter().map(|(actor, since_ms)| Member { actor, since_ms }).collect();
                    return Ok(Members::Overlay { present, absent: reply.actors()? });
                }
                3 => return Ok(Members::TargetMissing),
                _ => return Ok(Members::ColdTarget),
            }
        }
        let all = whole.into_iter().map(|(actor, since_ms)| Member { actor, since_ms }).collect();
        let page = page(all, before, limit).await;
        page.map(Members::Whole).ok_or_else(|| StoreError::Unavailable("the host is stopping".into()))
    }

    async fn hydrate(&self, kind: &str, hydrations: Vec<Hydration>) -> Result<Vec<Hydrated>, StoreError> {
        let mut results = Vec::with_capacity(hydrations.len());
        for hydration in &hydrations {
            let (mut targets, mut pairs) = (&hydration.targets[..], &hydration.pairs[..]);
            // Each call checks the law for itself, so what an earlier one took stays true.
            let taken = loop {
                let (now, later) = targets.split_at(targets_of_one_call(targets));
                targets = later;
                let room = if later.is_empty() { pairs.len().min(CALL_ARGUMENTS_MAX / 3) } else { 0 };
                let (pairs_now, pairs_later) = pairs.split_at(room);
                pairs = pairs_later;
                let (is_taken, head) = self.hydrate_call(kind, hydration, now, pairs_now).await?;
                if !is_taken {
                    break Hydrated::Stale(head);
                }
                if targets.is_empty() && pairs.is_empty() {
                    break Hydrated::Accepted;
                }
            };
            results.push(taken);
        }
        Ok(results)
    }

    async fn heads(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Head>, StoreError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = partitions.iter().map(|&partition| keys::head(kind, partition)).collect();
        let value = self.link.run(&self.link.scripts.heads, Nature::Writes, &names, fresh_arguments).await?;
        let mut reply = Reply::of(value)?;
        let heads: Vec<(Head, bool)> =
            partitions.iter().map(|&partition| reply.head(partition)).collect::<Result<_, _>>()?;
        self.after_heads(heads.iter().any(|(_, fresh)| *fresh)).await?;
        Ok(heads.into_iter().map(|(head, _)| head).collect())
    }

    async fn read_journal(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        position: Position,
        changes_max: usize,
    ) -> Result<JournalRead, StoreError> {
        if let Some(read) = self.journal(kind, partition, (incarnation, position, changes_max)).await? {
            return Ok(read);
        }
        let heads = self.heads(kind, &[partition]).await?;
        heads.first().map_or_else(|| Err(unexpected("a head")), |head| Ok(JournalRead::OtherIncarnation(*head)))
    }

    async fn trim(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        position: Position,
        touched: &[Id],
        invalid: &[Id],
    ) -> Result<(), StoreError> {
        self.head_call(Nature::Writes, &self.link.scripts.trim, kind, partition, |command| {
            command.arg(incarnation.to_string()).arg(position).arg(self.state_ttl_ms).arg(self.huge_pairs_max);
            command.arg(touched.len());
            for target in touched.iter().chain(invalid) {
                command.arg(target.to_string());
            }
        })
        .await
        .map(|_| ())
    }

    async fn reset(&self, kind: &str, partition: Partition, than: Incarnation) -> Result<Head, StoreError> {
        let value = self
            .head_call(Nature::Writes, &self.link.scripts.reset, kind, partition, |command| {
                command.arg(than.to_string()).arg(Incarnation::after(than).to_string()).arg(life());
            })
            .await?;
        let (head, fresh) = Reply::of(Value::Array(vec![value]))?.head(partition)?;
        self.after_heads(fresh).await?;
        Ok(head)
    }

    async fn wipe_state(&self, kind: &str) -> Result<(), StoreError> {
        let names: Vec<String> = (0..self.partitions).map(|partition| keys::head(kind, partition)).collect();
        let new_life = |command: &mut Cmd| {
            command.arg(life());
        };
        self.link.run(&self.link.scripts.wipe, Nature::Writes, &names, new_life).await.map(|_| ())
    }

    async fn lease(&self, kind: &str, owner: &str, ttl_ms: u64) -> Result<bool, StoreError> {
        let arguments = |command: &mut Cmd| {
            command.arg(owner).arg(ttl_ms.clamp(1, TIME_MS_MAX));
        };
        let value = self.link.run(&self.link.scripts.lease, Nature::Writes, &[keys::flusher(kind)], arguments).await?;
        Ok(value == Value::Int(1))
    }

    async fn release(&self, kind: &str, owner: &str) -> Result<(), StoreError> {
        let arguments = |command: &mut Cmd| {
            command.arg(owner).arg(0);
        };
        self.link.run(&self.link.scripts.lease, Nature::Writes, &[keys::flusher(kind)], arguments).await.map(|_| ())
    }

    async fn guest_get(&self, module: &str, _now_ms: u64, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.get_of_guest(module, keys).await
    }

    async fn guest_set(&self, module: &str, _now_ms: u64, entries: Vec<KeyEntry>) -> Result<(), StoreError> {
        self.set_of_guest(module, &entries).await
    }

    async fn guest_increment(
        &self,
        module: &str,
        _now_ms: u64,
        increments: Vec<KeyIncrement>,
    ) -> Result<Counted, StoreError> {
        self.increment_of_guest(module, &increments).await
    }

    async fn explain(
        &self,
        kind: &str,
        _now_ms: u64,
        target: &Id,
        actor: &Id,
    ) -> Result<serde_json::Value, StoreError> {
        let partition = partition_of(target, self.partitions);
        let value = self
            .head_call(Nature::Reads, &self.link.scripts.explain, kind, partition, |command| {
                command.arg(target.to_string()).arg(tagged(actor));
            })
            .await?;
        let mut reply = Reply::of(value)?;
        let (mode, count, dirty, invalid) = (reply.text()?, reply.number()?, reply.number()?, reply.number()?);
        let (pair, ttl_ms) = (reply.text()?, reply.signed()?);
        let state = match mode.as_str() {
            "cold" => json!({ "known": "cold" }),
            "m" => json!({ "known": "missing", "ttl_ms": ttl_ms }),
            mode => json!({
                "known": if mode == "h" { "huge" } else { "whole" },
                "count": count,
                "pair": if pair.parse::<u64>().is_ok() { "present" } else { pair.as_str() },
                "since_ms": pair.parse::<u64>().ok(),
                "dirty": dirty == 1,
                "invalid": invalid == 1,
            }),
        };
        let heads = self.heads(kind, &[partition]).await?;
        let head = heads.first().ok_or_else(|| unexpected("a head"))?;
        let (mut found, mut position) = (VecDeque::new(), head.flushed);
        while let Some(JournalRead::Entries(entries)) =
            self.journal(kind, partition, (head.incarnation, position, EXPLAIN_PAGE_CHANGES)).await?
        {
            let Some(newest) = entries.last() else { break };
            position = newest.position;
            entries.iter().for_each(|entry| explain::entry(entry, target, actor, &mut found));
        }
        Ok(json!({ "partition": partition, "state": state, "head": explain::head(head), "journal": found }))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.link.ping().await
    }

    fn durability(&self) -> Durability {
        self.link.durability()
    }

    fn partitions(&self) -> Partition {
        self.partitions
    }
}
