//! The Redis store: state and journal in a Redis 7 or later, or in a cluster of them, shared by several hosts.
//!
//! One script call carries a batch, in a cluster one for each partition; it evaluates, changes the state and appends the
//! journal without interruption. A script takes effect as a whole or not at all (see `redis/prelude.lua`). The store is as
//! durable as the configuration of that Redis, which it reads at each connection and reports by [`StoreHealth::durability`].
//!
//! - `roles`: what the store offers. `keys`: names. `scripts`: the Lua files. `reply`: decoding.
//! - `link`: the connections. `server`: the servers' settings. `split`: one call, or one for each partition.
//! - `batch`: how batches are sent, with `toggle`, `count`, `create` and `settings`. `hydrate`. `read`. `lost`: after a hole in a
//!   journal.
//! - `guest`: policy modules' keys. `room`: waiting rooms. `bus`: the invalidation bus of the hosts. `shared`: their cache.
//! - `ownership`: which database the journal belongs to. `inventory`: contents. `upgrade`: from the format before.
//!
//! Scripts take the partitions that they touch as keys, and make the names of all other keys from them.
//!
//! Never repeats a call whose outcome is unknown, never lets a server evict.
//!
//! [`StoreHealth::durability`]: super::StoreHealth::durability

mod batch;
pub mod bus;
mod count;
mod create;
mod guest;
mod hydrate;
pub mod inventory;
mod keys;
mod link;
mod lost;
mod ownership;
mod read;
mod reply;
mod roles;
mod room;
mod scripts;
mod server;
mod settings;
pub mod shared;
mod split;
mod toggle;
mod upgrade;

use redis::{Cmd, Value};
use uuid::Uuid;

use self::keys::Keys;
use self::link::{Link, Nature};
use self::reply::Reply;
use super::{Head, StoreError};
use weir_core::config::StoreConfig;
use weir_core::model::{Incarnation, Partition};

/// Most arguments of one call, unless one target alone has more: bounds how long one call occupies Redis.
const CALL_ARGUMENTS_MAX: usize = 20_000;
/// Greatest time that a score can hold exactly.
const TIME_MS_MAX: u64 = (1 << 53) - 1;

/// A store in Redis, shared by all hosts of a namespace. See the module's text.
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
    /// Connects. A Redis that is down, loading or full is no error: the store returns `Unavailable` until it answers, and checks
    /// it then.
    ///
    /// # Errors
    /// `Misconfigured` when the URL is wrong, or when the Redis answers and is unfit: it evicts, is too old, refuses the
    /// password, or holds the data of another number of partitions.
    pub async fn connect(config: &StoreConfig) -> Result<Self, StoreError> {
        let ms = |seconds: u64| seconds.saturating_mul(1_000).min(TIME_MS_MAX / 4);
        let link = Link::new(config)?;
        let store = Self {
            keys: link.guard.keys.clone(),
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

    /// Checks unknown lives before any caller gets an answer. A new life may belong to another database: another host may have
    /// begun it after all data was lost. Where the record of the owner was lost, too, this writes it again.
    async fn after_heads(&self, kind: &str, heads: &[Head]) -> Result<(), StoreError> {
        if self.link.guard.knows(kind, heads) {
            return Ok(());
        }
        self.link.check_record(Some(kind)).await?;
        self.link.guard.learn(kind, heads);
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

/// Incarnation and life for heads that a script must create.
fn fresh_arguments(command: &mut Cmd) {
    command.arg(Incarnation::fresh().to_string()).arg(life());
}

/// Names the valid state: 12 random letters.
fn life() -> String {
    let text = Uuid::new_v4().simple().to_string();
    text.get(..12).unwrap_or(&text).to_owned()
}
