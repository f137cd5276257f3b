//! `[log]`, and the names of requests in it (`[http.trace]`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, all, at_least, ensure};

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The least level: `error`, `warn`, `info`, `debug` or `trace`. `WEIR_LOG` in the environment goes before it.
    pub level: String,
    /// One line for each request of the public listener.
    pub access: AccessLogConfig,
}

/// One line for each request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLogConfig {
    /// How lines look.
    pub format: AccessLogFormat,
    /// `stdout`, or a file, which is opened again at SIGHUP and SIGUSR1.
    pub to: String,
    /// Lines say who the actor was: personal data.
    pub actor: bool,
    /// Lines that may wait for the disk; further ones are dropped and counted (`weir_access_log_dropped_total`).
    pub queue_lines_max: usize,
}

/// How lines of the access log look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccessLogFormat {
    /// There are none.
    #[default]
    Off,
    /// One JSON object a line.
    Json,
    /// As Apache and nginx write them, and the request's id.
    Combined,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), access: AccessLogConfig::default() }
    }
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self { format: AccessLogFormat::Off, to: "stdout".into(), actor: false, queue_lines_max: 8_192 }
    }
}

impl LogConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let is_known = ["error", "warn", "info", "debug", "trace"].contains(&self.level.as_str());
        all([
            ensure(is_known, "log.level", format!("{:?} is none: write error, warn, info, debug or trace", self.level)),
            ensure(!self.access.to.is_empty(), "log.access.to", "must be \"stdout\" or a file"),
            at_least("log.access.queue_lines_max", self.access.queue_lines_max, 1),
        ])
    }
}

/// How requests are named in replies, logs and what goes to origins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TraceConfig {
    /// The header with a request's id: in each reply, and taken from peers in `http.trusted_proxies`. Empty: requests have no
    /// ids, and no trace is begun or passed on.
    pub request_id_header: String,
    /// Share of the traces that begin here which are marked as sampled, from 0 to 1: origins record those, and no others.
    pub sampled_share: f64,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self { request_id_header: "X-Request-Id".into(), sampled_share: 1.0 }
    }
}

impl TraceConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let name = self.request_id_header.to_ascii_lowercase();
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        // Headers with a meaning of their own.
        let is_taken =
            ["authorization", "cookie", "host", "traceparent", "tracestate", "content-type", "content-length"]
                .contains(&name.as_str());
        all([
            ensure(
                is_name && !is_taken,
                "http.trace.request_id_header",
                "must be a header's name, such as X-Request-Id, or empty",
            ),
            ensure((0.0..=1.0).contains(&self.sampled_share), "http.trace.sampled_share", "must be from 0 to 1"),
        ])
    }
}
