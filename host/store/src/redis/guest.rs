//! Policy modules' keys: plain keys of Redis with a time to live, `weir:<namespace>:module:{<module>}:<key>`.
//!
//! A value that was set starts with the letter `v`, so that it is never taken for a counter, which is a number as `INCRBY` writes
//! it. Never reads or writes another key.

use redis::Value;

use super::RedisStore;
use super::link::Nature;
use super::reply::{Reply, unexpected};
use crate::{Counted, StoreError};
use weir_core::model::{KeyEntry, KeyIncrement};

impl RedisStore {
    /// See [`crate::ModuleKeys::guest_get`].
    pub(super) async fn get_of_guest(
        &self,
        module: &str,
        names: &[String],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = names.iter().map(|name| self.keys.guest(module, name)).collect();
        let found = self.link.run(&self.link.scripts.guest_get, Nature::Reads, &names, |_| {}).await?;
        let Value::Array(found) = found else { return Err(unexpected("a list")) };
        let values = found.into_iter().map(|value| match value {
            Value::Nil => Ok(None),
            Value::BulkString(mut bytes) => {
                if bytes.first() == Some(&b'v') {
                    bytes.remove(0);
                }
                Ok(Some(bytes))
            }
            _ => Err(unexpected("a string")),
        });
        let values: Vec<_> = values.collect::<Result<_, _>>()?;
        if values.len() == names.len() { Ok(values) } else { Err(unexpected("a value for each key")) }
    }

    /// See [`crate::ModuleKeys::guest_set`].
    pub(super) async fn set_of_guest(&self, module: &str, entries: &[KeyEntry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = entries.iter().map(|entry| self.keys.guest(module, &entry.key)).collect();
        let arguments = |command: &mut redis::Cmd| {
            for entry in entries {
                command.arg([b"v", &entry.value[..]].concat()).arg(entry.ttl_ms.max(1));
            }
        };
        self.link.run(&self.link.scripts.guest_set, Nature::Writes, &names, arguments).await.map(|_| ())
    }

    /// See [`crate::ModuleKeys::guest_increment`].
    pub(super) async fn increment_of_guest(
        &self,
        module: &str,
        increments: &[KeyIncrement],
    ) -> Result<Counted, StoreError> {
        if increments.is_empty() {
            return Ok(Counted::Totals(Vec::new()));
        }
        let names: Vec<String> = increments.iter().map(|increment| self.keys.guest(module, &increment.key)).collect();
        let arguments = |command: &mut redis::Cmd| {
            for increment in increments {
                command.arg(increment.by).arg(increment.ttl_ms.max(1));
            }
        };
        let value = self.link.run(&self.link.scripts.guest_increment, Nature::Writes, &names, arguments).await?;
        let mut reply = Reply::of(value)?;
        match reply.number()? {
            0 => increments.iter().map(|_| reply.signed()).collect::<Result<_, _>>().map(Counted::Totals),
            1 => Ok(Counted::NotACounter(index(&mut reply)?)),
            2 => Ok(Counted::Overflow(index(&mut reply)?)),
            _ => Err(unexpected("the code of an increment")),
        }
    }
}

/// Lua counts from 1.
fn index(reply: &mut Reply) -> Result<usize, StoreError> {
    usize::try_from(reply.number()?.saturating_sub(1)).map_err(|_| unexpected("an index"))
}
