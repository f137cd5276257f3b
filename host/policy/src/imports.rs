//! What a module may import beyond `log` and `config`, and what stands behind it: the store and SQL, or stubs while test
//! vectors run.
//!
//! A granted call waits for I/O, so it runs on a thread that may wait: `rules` sees to that.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use weir_policy_vectors as vectors;

use super::bindings::{redis, sql};
use super::grants::{Capabilities, GrantError};
use weir_core::config::PolicyConfig;
use weir_core::model::{KeyEntry, KeyIncrement, SqlValue};

/// Keys, entries or rows of parameters in one call.
const ITEMS_MAX: usize = 1_000;
/// Bytes of a key.
const KEY_BYTES_MAX: usize = 255;
/// Bytes of a value.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Settings of the kinds, by kind and key.
pub(super) type Settings = Arc<HashMap<String, BTreeMap<String, String>>>;

/// What one module may import beyond `log` and `config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    redis: bool,
    /// `None` is every statement.
    statements: Option<Vec<String>>,
}

impl Grant {
    /// What the configuration grants to a module of this name and digest.
    pub(super) fn of(config: &PolicyConfig, name: &str, digest: &str) -> Self {
        let mut grant = Self { redis: false, statements: Some(Vec::new()) };
        for given in config.grants.iter().filter(|given| given.module == name || given.module == digest) {
            grant.redis |= given.redis;
            grant.statements.get_or_insert_default().extend(given.sql.iter().cloned());
        }
        grant
    }

    /// Everything: for checks that ask what a module is, not what it may do.
    pub(super) fn everything() -> Self {
        Self { redis: true, statements: None }
    }

    /// Whether it holds the import of this name.
    pub(super) fn allows(&self, import: &str) -> bool {
        match import.split('@').next() {
            Some("weir:policy/redis") => self.redis,
            Some("weir:policy/sql") => self.statements.as_ref().is_none_or(|names| !names.is_empty()),
            _ => true,
        }
    }

    fn allows_statement(&self, name: &str) -> bool {
        self.statements.as_ref().is_none_or(|names| names.iter().any(|granted| granted == name))
    }
}

/// What an instance's imports see.
#[derive(Clone)]
pub(super) struct Imports {
    /// Answers `config.get`.
    pub(super) settings: Settings,
    module: Arc<str>,
    grant: Arc<Grant>,
    backing: Backing,
    /// When what is asked for must be there.
    deadline: Deadline,
}

/// When a call's time for I/O is over, and how long that was.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    time: Duration,
}

impl Deadline {
    fn after(time: Duration) -> Self {
        Self { at: Instant::now() + time, time }
    }
}

#[derive(Clone)]
enum Backing {
    /// Nothing: everything is unavailable.
    Nothing,
    /// Store and SQL. With `write` false nothing is changed there.
    Host { capabilities: Capabilities, runtime: Handle, write: bool },
    /// What a file of test vectors says.
    Stub(Stub),
}

impl Imports {
    /// Of a module that serves, or with `write` false of one that only shows what it would decide.
    pub(super) fn of_host(
        settings: &Settings,
        module: &str,
        grant: Grant,
        host: Option<&(Capabilities, Handle)>,
        write: bool,
    ) -> Self {
        let backing = host.map_or(Backing::Nothing, |(capabilities, runtime)| Backing::Host {
            capabilities: capabilities.clone(),
            runtime: runtime.clone(),
            write,
        });
        Self {
            settings: Arc::clone(settings),
            module: module.into(),
            grant: Arc::new(grant),
            backing,
            deadline: Deadline::after(Duration::ZERO),
        }
    }

    /// As test vectors say.
    pub(super) fn of_vectors(settings: Settings, granted: &vectors::Granted) -> Self {
        let keys = granted.redis.iter().map(|(key, value)| (key.clone(), value.clone().into_bytes())).collect();
        let stub = Stub { keys, rows: Arc::new(granted.sql.clone()) };
        let (grant, backing) = (Arc::new(Grant::everything()), Backing::Stub(stub));
        Self { settings, module: "vectors".into(), grant, backing, deadline: Deadline::after(Duration::ZERO) }
    }

    /// Whether they are as test vectors say.
    pub(super) fn are_stubs(&self) -> bool {
        matches!(self.backing, Backing::Stub(_))
    }

    /// Those of a new instance, whose start may take so long.
    pub(super) fn begin(&self, time: Duration) -> Self {
        Self { deadline: Deadline::after(time), ..self.clone() }
    }

    /// A call begins: all that it asks for is there within `time`, or is not.
    pub(super) fn begin_call(&mut self, time: Duration) {
        if let Backing::Host { .. } = self.backing {
            self.deadline = Deadline::after(time);
        }
    }
}

/// Stands for store and SQL. The time does not pass.
#[derive(Clone)]
struct Stub {
    keys: BTreeMap<String, Vec<u8>>,
    rows: Arc<Vec<vectors::SqlRows>>,
}

impl Stub {
    fn increment(&mut self, key: String, by: i64) -> Result<i64, GrantError> {
        let held = self.keys.get(&key).map_or(Some(0), |value| decimal(value));
        let held = held.ok_or_else(|| GrantError::Invalid(format!("what {key:?} holds is no counter")))?;
        let sum = held.checked_add(by).ok_or_else(|| GrantError::Invalid(format!("{key:?} would overflow")))?;
        self.keys.insert(key, sum.to_string().into_bytes());
        Ok(sum)
    }

    fn run(&self, statement: &str, parameters: &[SqlValue]) -> Vec<Vec<SqlValue>> {
        let same = |rows: &&vectors::SqlRows| {
            rows.statement == statement && rows.parameters.iter().map(of_vectors).eq(parameters.iter().cloned())
        };
        let found = self.rows.iter().find(same);
        found.map_or_else(Vec::new, |found| found.rows.iter().map(|row| row.iter().map(of_vectors).collect()).collect())
    }
}

fn of_vectors(value: &vectors::SqlValue) -> SqlValue {
    match value {
        vectors::SqlValue::Null => SqlValue::Null,
        vectors::SqlValue::Integer(value) => SqlValue::Integer(*value),
        vectors::SqlValue::Real(value) => SqlValue::Real(*value),
        vectors::SqlValue::Text(value) => SqlValue::Text(value.clone()),
    }
}

fn decimal(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn unavailable<T>() -> Result<T, GrantError> {
    Err(GrantError::Unavailable("no store and no SQL are open here".into()))
}

/// Waits for what a guest asked for, no longer than until its call must end: a guest that waits cannot be interrupted.
fn wait<T>(
    runtime: &Handle,
    deadline: Deadline,
    work: impl Future<Output = Result<T, GrantError>>,
) -> Result<T, GrantError> {
    let limited = async { tokio::time::timeout_at(deadline.at.into(), work).await };
    runtime.block_on(limited).unwrap_or_else(|_| {
        let ms = deadline.time.as_millis();
        Err(GrantError::Unavailable(format!("the call's time is over: policy.granted_call_deadline_ms = {ms}")))
    })
}

fn check_count(what: &str, count: usize) -> Result<(), GrantError> {
    if count > ITEMS_MAX {
        return Err(GrantError::Invalid(format!("{count} {what} are more than {ITEMS_MAX}")));
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), GrantError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(GrantError::Invalid(format!("a key of {} bytes: 1 to {KEY_BYTES_MAX} are allowed", key.len())));
    }
    Ok(())
}

fn check_ttl(ttl_ms: u32) -> Result<(), GrantError> {
    if ttl_ms == 0 { Err(GrantError::Invalid("a time to live of 0".into())) } else { Ok(()) }
}

impl Imports {
    pub(super) fn keys_get(&mut self, keys: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, GrantError> {
        check_count("keys", keys.len())?;
        keys.iter().try_for_each(|key| check_key(key))?;
        let deadline = self.deadline;
        match &mut self.backing {
            Backing::Nothing => unavailable(),
            Backing::Host { capabilities, runtime, .. } => {
                wait(runtime, deadline, capabilities.keys.get(&self.module, keys))
            }
            Backing::Stub(stub) => Ok(keys.iter().map(|key| stub.keys.get(key).cloned()).collect()),
        }
    }

    pub(super) fn keys_set(&mut self, entries: Vec<redis::Entry>) -> Result<(), GrantError> {
        check_count("entries", entries.len())?;
        for entry in &entries {
            check_key(&entry.key)?;
            check_ttl(entry.ttl_ms)?;
            if entry.value.len() > VALUE_BYTES_MAX {
                let bytes = entry.value.len();
                return Err(GrantError::Invalid(format!("a value of {bytes} bytes: at most {VALUE_BYTES_MAX}")));
            }
        }
        let entries = entries.into_iter();
        let deadline = self.deadline;
        match &mut self.backing {
            Backing::Nothing => unavailable(),
            Backing::Host { write: false, .. } => Ok(()),
            Backing::Host { capabilities, runtime, .. } => {
                let entry = |entry: redis::Entry| KeyEntry { key: entry.key, value: entry.value, ttl_ms: entry.ttl_ms };
                wait(runtime, deadline, capabilities.keys.set(&self.module, entries.map(entry).collect()))
            }
            Backing::Stub(stub) => {
                stub.keys.extend(entries.map(|entry| (entry.key, entry.value)));
                Ok(())
            }
        }
    }

    pub(super) fn keys_increment(&mut self, additions: Vec<redis::Addition>) -> Result<Vec<i64>, GrantError> {
        check_count("counters", additions.len())?;
        for addition in &additions {
            check_key(&addition.key)?;
            check_ttl(addition.ttl_ms)?;
        }
        let deadline = self.deadline;
        match &mut self.backing {
            Backing::Nothing => unavailable(),
            // What it would hold: a shadow counts nothing.
            Backing::Host { capabilities, runtime, write: false } => {
                let keys = additions.iter().map(|addition| addition.key.clone()).collect();
                let held = wait(runtime, deadline, capabilities.keys.get(&self.module, keys))?;
                let sum = |(held, addition): (Option<Vec<u8>>, &redis::Addition)| {
                    held.as_deref().and_then(decimal).unwrap_or(0).saturating_add(addition.by)
                };
                Ok(held.into_iter().zip(&additions).map(sum).collect())
            }
            Backing::Host { capabilities, runtime, .. } => {
                let increment = |addition: redis::Addition| KeyIncrement {
                    key: addition.key,
                    by: addition.by,
                    ttl_ms: addition.ttl_ms,
                };
                let increments = additions.into_iter().map(increment).collect();
                wait(runtime, deadline, capabilities.keys.increment(&self.module, increments))
            }
            Backing::Stub(stub) => {
                additions.into_iter().map(|addition| stub.increment(addition.key, addition.by)).collect()
            }
        }
    }

    pub(super) fn statement_run(
        &mut self,
        statement: &str,
        parameters: Vec<sql::Row>,
    ) -> Result<Vec<Vec<sql::Row>>, GrantError> {
        check_count("rows of parameters", parameters.len())?;
        if !self.grant.allows_statement(statement) {
            return Err(GrantError::Invalid(format!("the statement {statement:?} is not granted")));
        }
        let parameters: Vec<Vec<SqlValue>> =
            parameters.into_iter().map(|row| row.into_iter().map(from_guest).collect()).collect();
        let deadline = self.deadline;
        let found = match &mut self.backing {
            Backing::Nothing => unavailable(),
            Backing::Host { capabilities, runtime, write } => {
                wait(runtime, deadline, capabilities.statements.run(statement, parameters, *write))
            }
            Backing::Stub(stub) => Ok(parameters.iter().map(|row| stub.run(statement, row)).collect()),
        }?;
        let row = |row: Vec<SqlValue>| row.into_iter().map(to_guest).collect();
        Ok(found.into_iter().map(|rows| rows.into_iter().map(row).collect()).collect())
    }
}

fn from_guest(value: sql::Value) -> SqlValue {
    match value {
        sql::Value::Null => SqlValue::Null,
        sql::Value::Integer(value) => SqlValue::Integer(value),
        sql::Value::Real(value) => SqlValue::Real(value),
        sql::Value::Text(value) => SqlValue::Text(value),
    }
}

fn to_guest(value: SqlValue) -> sql::Value {
    match value {
        SqlValue::Null => sql::Value::Null,
        SqlValue::Integer(value) => sql::Value::Integer(value),
        SqlValue::Real(value) => sql::Value::Real(value),
        SqlValue::Text(value) => sql::Value::Text(value),
    }
}
