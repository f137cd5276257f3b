//! `[sql]`: where the truth lives.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::{TlsConfig, TlsMode, UrlTls, tls_settings};
use super::{ConfigError, SqlUrl, all, at_least, ensure, value};

/// What may be between weir and PostgreSQL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pooler {
    /// Nothing, or what keeps a session on one connection of the server.
    #[default]
    None,
    /// What gives a session another connection for each transaction.
    Transaction,
}

/// Where the truth lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SqlConfig {
    /// `sqlite://path`, `postgres://user:password@host/database`, `mysql://user:password@host/database`. Of several hosts with
    /// commas between them the one that takes writes is used.
    #[schemars(extend("x-weir-secret" = "url"))]
    pub url: String,
    /// File that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// Connections of the pool.
    pub connections_max: u32,
    /// Time to get a connection, in milliseconds.
    pub acquire_timeout_ms: u64,
    /// Time for one statement, kept by the server, in milliseconds.
    pub statement_timeout_ms: u64,
    /// Time a transaction may be idle, kept by the server, in milliseconds: what a stopped flusher can block.
    pub idle_transaction_timeout_ms: u64,
    /// Time that a flush waits for a row that another session has locked, kept by the server, in milliseconds (MariaDB and
    /// MySQL: full seconds). Then the target is set aside until the lock is gone, and all others go on.
    pub lock_timeout_ms: u64,
    /// Time of each query with which `weir check` and the start look at rows (counts, greatest ids), in milliseconds. What
    /// cannot be seen in it is said to be unknown.
    pub check_timeout_ms: u64,
    /// What is between weir and PostgreSQL.
    pub pooler: Pooler,
    /// What the self-check finds and you know to be right: columns whose names say that rows have a state, a type or are
    /// deleted, and triggers that name a count. Each `table.column` or `table.trigger`, the table as in its kind.
    pub acknowledged: Vec<String>,
    /// `required` or `off`; left out: required, except to loopback addresses and sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// Certificates of authorities that are trusted besides the system's, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca_file: Option<PathBuf>,
    /// Our own certificate, as PEM, where the server asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_client_certificate_file: Option<PathBuf>,
    /// Its key, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_client_key_file: Option<PathBuf>,
    /// Whether the certificate must be for the name that is connected to. `false` only with `tls_ca_file`.
    pub tls_verify_name: bool,
}

impl Default for SqlConfig {
    fn default() -> Self {
        Self {
            url: "sqlite://weir.db".into(),
            url_file: None,
            connections_max: 8,
            acquire_timeout_ms: 5_000,
            statement_timeout_ms: 30_000,
            idle_transaction_timeout_ms: 10_000,
            lock_timeout_ms: 1_000,
            check_timeout_ms: 1_000,
            pooler: Pooler::None,
            acknowledged: Vec::new(),
            tls: None,
            tls_ca_file: None,
            tls_client_certificate_file: None,
            tls_client_key_file: None,
            tls_verify_name: true,
        }
    }
}

impl SqlConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let unknown = self.acknowledged.iter().filter(|known| !known.contains('.'));
        let unknown = unknown.map(|known| {
            Err(value("sql.acknowledged", format!("{known:?} must be \"table.column\" or \"table.trigger\"")))
        });
        let secured = match self.url.starts_with("sqlite:") {
            true => self.tls_config().decide("sql", UrlTls::Silent, &[]).map(drop),
            false => self.secured().map(drop),
        };
        let bounds = [
            secured,
            // One connection flushes, another hydrates.
            at_least("sql.connections_max", self.connections_max, 2),
            at_least("sql.acquire_timeout_ms", self.acquire_timeout_ms, 1),
            at_least("sql.statement_timeout_ms", self.statement_timeout_ms, 100),
            at_least("sql.idle_transaction_timeout_ms", self.idle_transaction_timeout_ms, 1_000),
            at_least("sql.lock_timeout_ms", self.lock_timeout_ms, 10),
            at_least("sql.check_timeout_ms", self.check_timeout_ms, 1),
            ensure(
                self.lock_timeout_ms <= self.statement_timeout_ms / 2,
                "sql.lock_timeout_ms",
                "must be at most half of sql.statement_timeout_ms",
            ),
            ensure(
                self.pooler == Pooler::None || self.url.starts_with("postgres"),
                "sql.pooler",
                "is of PostgreSQL alone: sessions of MySQL Router and ProxySQL keep their settings",
            ),
        ];
        all(bounds.into_iter().chain(unknown))
    }

    fn tls_config(&self) -> TlsConfig {
        TlsConfig {
            mode: self.tls.filter(|_| !self.url.starts_with("sqlite:")),
            ..tls_settings!(self, without_server_name)
        }
    }

    /// Refuses a plain connection to a host that the URL does not name, unless it is this machine or `tls = "off"`.
    ///
    /// # Errors
    /// With what to write.
    pub fn check_plain(&self, host: &str) -> Result<(), ConfigError> {
        let is_on = self.tls_config().decide("sql", UrlTls::Silent, &[host])?;
        if is_on {
            Err(value("sql.url", format!("leads to {host} by other ways than its host: write it into the URL")))
        } else {
            Ok(())
        }
    }

    /// The servers that the URL names, and how connections to them are encrypted; `None`: they are not.
    ///
    /// # Errors
    /// A URL that is none, contradictions, and what encrypts only if the other side wants to.
    pub fn secured(&self) -> Result<(SqlUrl, Option<TlsConfig>), ConfigError> {
        let url = SqlUrl::parse(&self.url).map_err(|reason| value("sql.url", reason))?;
        let config = url.with_files(self.tls_config()).map_err(|reason| value("sql.url", reason))?;
        let hosts = url.hosts();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let is_on = config.decide("sql", url.tls(), &hosts)?;
        Ok((url, is_on.then_some(config)))
    }
}
