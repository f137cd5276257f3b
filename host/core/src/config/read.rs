//! `[[read]]`: named SQL reads, and how old their answers may be.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kind::check_kind;
use super::{ConfigError, ParameterType, all, at_least, ensure};

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Staleness {
    /// Not at all: it is never cached, whatever the rule says.
    Live,
    /// Some seconds.
    Seconds,
    /// Some minutes.
    Minutes,
    /// Some hours.
    Hours,
}

impl Staleness {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Seconds => "seconds",
            Self::Minutes => "minutes",
            Self::Hours => "hours",
        }
    }
}

/// One named SQL read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadConfig {
    /// Its name in URLs.
    pub name: String,
    /// The statement, with `:name` where a parameter stands.
    pub sql: String,
    /// How old an answer may be.
    pub class: Staleness,
    /// The tables that it depends on: when weir changes one, what was kept is read anew.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Rows of one answer; beyond: 503 `read-too-large`, or stale.
    #[serde(default = "default_rows_max")]
    pub rows_max: usize,
    /// Time of the statement, in milliseconds; beyond: stale, or 503.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// What has been asked for within ten such times is read anew this often, in milliseconds, before anybody waits for it. 0
    /// turns that off.
    #[serde(default)]
    pub refresh_ms: u64,
    /// The types of the parameters, by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, ParameterType>,
    /// What a rule may read.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

fn default_rows_max() -> usize {
    1_000
}

fn default_timeout_ms() -> u64 {
    2_000
}

impl ReadConfig {
    /// The concert's dates: many ask, few change.
    pub(super) fn demo_dates() -> Self {
        Self {
            name: "concert-dates".into(),
            sql: include_str!("concert-dates.sql").trim_end().into(),
            class: Staleness::Minutes,
            tables: vec!["concert_date".into()],
            rows_max: default_rows_max(),
            timeout_ms: default_timeout_ms(),
            refresh_ms: 30_000,
            parameters: BTreeMap::from([("concert".into(), ParameterType::Integer)]),
            settings: BTreeMap::new(),
        }
    }

    /// The seats of a date: never a moment old.
    pub(super) fn demo_seats() -> Self {
        Self {
            name: "seats".into(),
            sql: include_str!("seats.sql").trim_end().into(),
            class: Staleness::Live,
            tables: vec!["seat".into()],
            rows_max: default_rows_max(),
            timeout_ms: default_timeout_ms(),
            refresh_ms: 0,
            parameters: BTreeMap::from([("schedule".into(), ParameterType::Integer)]),
            settings: BTreeMap::new(),
        }
    }

    pub(super) fn validate(&self, index: usize) -> Result<(), ConfigError> {
        let field = |name: &str| format!("read[{index}].{name}");
        let plain = |name: &String| {
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let is_refreshed = self.refresh_ms != 0;
        let parameters = self.parameters.keys().map(|name| {
            ensure(plain(name), field("parameters"), format!("{name:?} must be letters, digits and underscores"))
        });
        let others = [
            check_kind(&field("name"), &self.name),
            at_least(&field("rows_max"), self.rows_max, 1),
            at_least(&field("timeout_ms"), self.timeout_ms, 1),
            at_least(&field("refresh_ms"), if is_refreshed { self.refresh_ms } else { 100 }, 100),
            ensure(
                !is_refreshed || self.class != Staleness::Live,
                field("refresh_ms"),
                "a live read is never cached: leave it out",
            ),
        ];
        all(others.into_iter().chain(parameters))
    }
}
