//! Lifetime of an instance: what stands behind its imports.

use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker};

use super::bindings::{config, log, redis, sql};
use super::grants::GrantError;
use super::imports::Imports;
use super::log_gate::LogGate;
use super::memory::MemoryLimit;
use super::said::{Said, Stream};
use super::turn::Turn;

/// What an instance's imports see.
pub(super) struct HostState {
    /// Answers everything else.
    pub(super) imports: Imports,
    /// Bounds `log.log`.
    pub(super) log: Arc<LogGate>,
    /// What was written in the present call.
    pub(super) said: Said,
    /// Bounds the linear memories of the instance.
    pub(super) memory: MemoryLimit,
    /// How long the call may go on, and where.
    pub(super) turn: Turn,
}

/// Everything that a module may import.
pub(super) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    log::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    config::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    redis::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    sql::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)
}

impl log::Host for HostState {
    fn log(&mut self, level: log::Level, message: String) {
        let level = match level {
            log::Level::Debug => tracing::Level::DEBUG,
            log::Level::Info => tracing::Level::INFO,
            log::Level::Warn => tracing::Level::WARN,
            log::Level::Error => tracing::Level::ERROR,
        };
        self.said.line(level, &message);
        self.log.write(level, &message);
    }
}

impl HostState {
    /// What a runtime writes to a standard stream: each whole line is one of the log.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        for line in self.said.bytes(stream, bytes) {
            self.log.write(stream.level(), &line);
        }
    }
}

impl config::Host for HostState {
    fn get(&mut self, kind: String, key: String) -> Option<String> {
        self.imports.settings.get(&kind)?.get(&key).cloned()
    }
}

impl redis::Host for HostState {
    fn get(&mut self, keys: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, redis::Error> {
        self.imports.keys_get(keys).map_err(redis_error)
    }

    fn set(&mut self, entries: Vec<redis::Entry>) -> Result<(), redis::Error> {
        self.imports.keys_set(entries).map_err(redis_error)
    }

    fn increment(&mut self, additions: Vec<redis::Addition>) -> Result<Vec<i64>, redis::Error> {
        self.imports.keys_increment(additions).map_err(redis_error)
    }
}

impl sql::Host for HostState {
    fn run(&mut self, statement: String, parameters: Vec<sql::Row>) -> Result<Vec<Vec<sql::Row>>, sql::Error> {
        self.imports.statement_run(&statement, parameters).map_err(|error| match error {
            GrantError::Invalid(reason) => sql::Error::Invalid(reason),
            GrantError::Unavailable(reason) => sql::Error::Unavailable(reason),
        })
    }
}

fn redis_error(error: GrantError) -> redis::Error {
    match error {
        GrantError::Invalid(reason) => redis::Error::Invalid(reason),
        GrantError::Unavailable(reason) => redis::Error::Unavailable(reason),
    }
}
