//! The Redis store: state and journal in a Redis 7 or later, or in a cluster of them, shared by several hosts.
//!
//! One script call carries a batch, in a cluster one for each partition; it evaluates, changes the state and appends the
//! journal without interruption. A script has its whole effect or none (see `redis/prelude.lua`). As durable as that Redis
//! is configured, which is read at each connection and told by [`Store::durability`].
//!
//! - `keys`: names · `scripts`: the Lua files · `link`: the connections · `server`: their settings · `reply`: what comes
//!   back · `split`: one call or one for each partition · `batch`: how batches are sent, with `toggle`, `count`, `create`
//!   and `settings` · `hydrate` · `read` · `lost`: after a hole in a journal · `guest`: what policy modules keep · `room`:
//!   waiting rooms · `relay`: what hosts tell each other · `custody`: whose it is · `holdings`: what lies there ·
//!   `upgrade`: from the format before
//!
//! Scripts take the partitions that they touch as keys, and make the names of all other keys from them.
//!
//! Never repeats a call whose outcome is unknown, never lets a server evict.

mod batch;
mod count;
mod create;
mod custody;
mod guest;
pub mod holdings;
mod hydrate;
mod keys;
mod link;
mod lost;
mod read;
pub mod relay;
mod reply;
mod room;
mod scripts;
mod server;
mod settings;
pub mod shared;
mod split;
mod toggle;
mod upgrade;

use async_trait::async_trait;
use redis::{Cmd, Value};
use uuid::Uuid;

use self::keys::Keys;
use self::link::{Link, Nature, OnLink};
use self::reply::{Reply, unexpected};
use self::server::Refusal;
use super::{
    Binding, Commit, CountBatch, CountResult, Counted, CreateBatch, CreateResult, Durability, Head, Holdings, Hydrated,
    Hydration, JournalRead, MemberRead, Members, NodeStatus, PendingDocument, ReadResult, RoomStore, SettingsBatch,
    SettingsResult, Store, StoreError, ToggleBatch, ToggleResult,
};
use crate::config::StoreConfig;
use crate::journal::{Hole, Mark};
use crate::model::{Id, Incarnation, KeyEntry, KeyIncrement, Member, Partition, Position};

/// Arguments of one call at most, unless one target alone has more: what one call may hold Redis up.
const CALL_ARGUMENTS_MAX: usize = 20_000;
/// Greatest time that a score can hold exactly.
const TIME_MS_MAX: u64 = (1 << 53) - 1;

/// See the room's text.
pub struct RedisStore {
    link: Link,
    config: StoreConfig,
    keys: Keys,
    partitions: Partition,
    state_ttl_ms: u64,
    absent_ttl_ms: u64,
    idempotency_ttl_ms: u64,
    huge_pairs_max: u64,
    is_time_told: bool,
}

impl RedisStore {
    /// Connects. A Redis that is away, loading or full is no error: the store answers `Unavailable` until it is there,
    /// and checks it then.
    ///
    /// # Errors
    /// `Misconfigured` when the URL is wrong, or when the Redis answers and is not fit: it evicts, is too old, refuses
    /// the password, or holds the data of another number of partitions.
    pub async fn connect(config: &StoreConfig) -> Result<Self, StoreError> {
        let ms = |seconds: u64| seconds.saturating_mul(1_000).min(TIME_MS_MAX / 4);
        let link = Link::new(config)?;
        let store = Self {
            keys: link.custody.keys.clone(),
            config: config.clone(),
            link,
            partitions: config.partitions,
            state_ttl_ms: ms(config.state_ttl_s),
            absent_ttl_ms: ms(config.absent_ttl_s),
            idempotency_ttl_ms: ms(config.idempotency_ttl_s),
            huge_pairs_max: config.huge_pairs_max,
            is_time_told: config.is_time_told,
        };
        match store.link.ensure().await {
            Err(error @ StoreError::Misconfigured(_)) => Err(error),
            _ => Ok(store),
        }
    }

    /// A life that was not seen before may be somebody else's: another host may have begun it after the data had gone as a
    /// whole. So it is looked at, and what is recorded is written again where it has gone, too, before anybody is answered.
    async fn after_heads(&self, kind: &str, heads: &[Head]) -> Result<(), StoreError> {
        if self.link.custody.knows(kind, heads) {
            return Ok(());
        }
        self.link.check_record(Some(kind)).await?;
        self.link.custody.learn(kind, heads);
        Ok(())
    }

    async fn head_call(
        &self,
        nature: Nature,
        script: &redis::Script,
        kind: &str,
        partition: Partition,
        arguments: impl FnOnce(&mut Cmd),
    ) -> Result<Value, StoreError> {
        self.link.run(script, nature, &[self.keys.head(kind, partition)], arguments).await
    }

    async fn heads_call(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Head>, StoreError> {
        let names: Vec<String> = partitions.iter().map(|&partition| self.keys.head(kind, partition)).collect();
        let value = self.link.run(&self.link.scripts.heads, Nature::Writes, &names, fresh_arguments).await?;
        let mut reply = Reply::of(value)?;
        partitions.iter().map(|&partition| reply.head(partition)).collect()
    }

    async fn wipe_call(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<()>, StoreError> {
        let names: Vec<String> = partitions.iter().map(|&partition| self.keys.head(kind, partition)).collect();
        let new_life = |command: &mut Cmd| {
            command.arg(life());
        };
        self.link.run(&self.link.scripts.wipe, Nature::Writes, &names, new_life).await?;
        Ok(vec![(); partitions.len()])
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

#[async_trait]
impl Store for RedisStore {
    async fn toggle(&self, kind: &str, batch: ToggleBatch) -> Result<Commit<ToggleResult>, StoreError> {
        self.apply_toggles(kind, &batch).await
    }

    async fn count(&self, kind: &str, batch: CountBatch) -> Result<Commit<CountResult>, StoreError> {
        self.apply_counts(kind, &batch).await
    }

    async fn create(&self, kind: &str, batch: CreateBatch) -> Result<Commit<CreateResult>, StoreError> {
        self.apply_creates(kind, &batch).await
    }

    async fn documents(&self, kind: &str, ids: &[(Partition, Id)]) -> Result<Vec<Option<PendingDocument>>, StoreError> {
        let ids: Vec<(Partition, String)> = ids.iter().map(|(partition, id)| (*partition, id.to_string())).collect();
        self.waiting_documents(kind, &ids).await
    }

    async fn documents_of(&self, kind: &str, actor: &Id, limit: usize) -> Result<Vec<PendingDocument>, StoreError> {
        self.waiting_documents_of(kind, actor, limit).await
    }

    async fn put_settings(&self, kind: &str, batch: SettingsBatch) -> Result<Commit<SettingsResult>, StoreError> {
        self.apply_settings(kind, &batch).await
    }

    async fn settings(&self, kind: &str, _now_ms: u64, members: &[Id]) -> Vec<Result<MemberRead, StoreError>> {
        self.read_settings(kind, members).await
    }

    async fn read(&self, kind: &str, _now_ms: u64, pairs: &[(Id, Option<Id>)]) -> Result<Vec<ReadResult>, StoreError> {
        self.read_pairs(kind, pairs).await
    }

    async fn members(
        &self,
        kind: &str,
        _now_ms: u64,
        target: &Id,
        before: Option<&Member>,
        limit: usize,
    ) -> Result<Members, StoreError> {
        self.members_of(kind, target, before, limit).await
    }

    async fn hydrate(&self, kind: &str, hydrations: Vec<Hydration>) -> Result<Vec<Hydrated>, StoreError> {
        if self.link.is_cluster() {
            let calls = hydrations.iter().map(|hydration| self.hydrate_one(kind, hydration));
            return futures_util::future::try_join_all(calls).await;
        }
        // One after the other, so that a server does something else in between.
        let mut results = Vec::with_capacity(hydrations.len());
        for hydration in &hydrations {
            results.push(self.hydrate_one(kind, hydration).await?);
        }
        Ok(results)
    }

    async fn heads(&self, kind: &str, partitions: &[Partition]) -> Result<Vec<Head>, StoreError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let call = |partitions: Vec<Partition>| async move { self.heads_call(kind, &partitions).await };
        let heads = self.in_calls(partitions, |partition| *partition, call).await?;
        self.after_heads(kind, &heads).await?;
        Ok(heads)
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

    async fn trim_to(
        &self,
        kind: &str,
        partition: Partition,
        incarnation: Incarnation,
        upto: Mark,
        touched: &[Id],
        invalid: &[Id],
    ) -> Result<(), StoreError> {
        self.head_call(Nature::Writes, &self.link.scripts.trim, kind, partition, |command| {
            command.arg(incarnation.to_string()).arg(upto.position).arg(self.state_ttl_ms).arg(self.huge_pairs_max);
            let number = |number: Option<u64>| number.map_or("-1".to_owned(), |number| number.to_string());
            command.arg(touched.len()).arg(number(upto.changes)).arg(number(upto.amount));
            for target in touched.iter().chain(invalid) {
                command.arg(target.to_string());
            }
        })
        .await
        .map(|_| ())
    }

    async fn lost_targets(
        &self,
        kind: &str,
        partition: Partition,
        hole: &Hole,
        targets_max: usize,
    ) -> Result<Vec<String>, StoreError> {
        self.lost_targets_of(kind, partition, hole, targets_max).await
    }

    async fn forget_lost(&self, kind: &str, partitions: &[Partition]) -> Result<(), StoreError> {
        self.forget_lost_of(kind, partitions).await
    }

    async fn reset(&self, kind: &str, partition: Partition, than: Incarnation) -> Result<Head, StoreError> {
        let value = self
            .head_call(Nature::Writes, &self.link.scripts.reset, kind, partition, |command| {
                command.arg(than.to_string()).arg(Incarnation::after(than).to_string()).arg(life());
            })
            .await?;
        let head = Reply::of(Value::Array(vec![value]))?.head(partition)?;
        self.after_heads(kind, &[head]).await?;
        Ok(head)
    }

    async fn wipe_state(&self, kind: &str) -> Result<(), StoreError> {
        let all: Vec<Partition> = (0..self.partitions).collect();
        let call = |partitions: Vec<Partition>| async move { self.wipe_call(kind, &partitions).await };
        self.in_calls(&all, |partition| *partition, call).await.map(|_| ())
    }

    async fn lease(&self, kind: &str, owner: &str, ttl_ms: u64) -> Result<bool, StoreError> {
        let arguments = |command: &mut Cmd| {
            command.arg(owner).arg(ttl_ms.clamp(1, TIME_MS_MAX));
        };
        let value =
            self.link.run(&self.link.scripts.lease, Nature::Writes, &[self.keys.flusher(kind)], arguments).await?;
        Ok(value == Value::Int(1))
    }

    async fn release(&self, kind: &str, owner: &str) -> Result<(), StoreError> {
        let arguments = |command: &mut Cmd| {
            command.arg(owner).arg(0);
        };
        self.link.run(&self.link.scripts.lease, Nature::Writes, &[self.keys.flusher(kind)], arguments).await.map(|_| ())
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

    fn rooms(&self) -> &dyn RoomStore {
        self
    }

    async fn explain(
        &self,
        kind: &str,
        _now_ms: u64,
        (partition, target): (Partition, &Id),
        actor: Option<&Id>,
    ) -> Result<serde_json::Value, StoreError> {
        self.explain_target(kind, (partition, target), actor).await
    }

    fn step_of(&self, partition: Partition) -> Partition {
        if self.link.is_cluster() { partition } else { 0 }
    }

    async fn nodes(&self) -> Vec<NodeStatus> {
        self.link.nodes().await
    }

    async fn holdings(&self) -> Result<Holdings, StoreError> {
        holdings::read(&self.unwatched()?, &self.link.custody, &self.config).await
    }

    async fn bind(&self, binding: &Binding) -> Result<(), StoreError> {
        let (link, custody) = (self.unwatched()?, &self.link.custody);
        custody.expects(binding.database);
        upgrade::run(&link, custody, binding).await?;
        let mut way = OnLink(&link);
        // Whatever an earlier version has left besides is somebody else's.
        custody.write(&mut way).await.map_err(Refusal::into_error)?;
        if binding.is_forced {
            custody.give(&mut way, binding.database).await.map_err(Refusal::into_error)?;
        }
        custody.check(&mut way, None).await.map_err(Refusal::into_error)?;
        for kind in &binding.kinds {
            custody.check(&mut way, Some(kind)).await.map_err(Refusal::into_error)?;
        }
        // Until now a connection may have been refused.
        self.link.forget_failure().await;
        self.link.ensure().await?;
        Ok(())
    }

    async fn check_binding(&self) -> Result<(), StoreError> {
        self.link.check_record(None).await
    }

    async fn drop_kind(&self, kind: &str) -> Result<(), StoreError> {
        self.drop_of_kind(kind).await
    }

    async fn drop_all(&self) -> Result<(), StoreError> {
        self.drop_everything().await
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
