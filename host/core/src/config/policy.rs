//! `[policy]`: the modules with the rules, their limits, what they are granted, and how a new one is tried.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, PolicyPoolConfig, all, at_least, ensure, value};

/// Bytes of a module's name or version.
pub(crate) const MODULE_NAME_BYTES_MAX: usize = 64;

/// The policy modules, their limits, and how a new one is tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// File of the component that serves where no other was activated; the built-in rules when absent. Interfaces that
    /// it does not export stay built in.
    pub component: Option<PathBuf>,
    /// How the built-in rules run where they serve.
    pub builtin: BuiltinRules,
    /// Directory of what was uploaded: modules, the active set, compiled code, the audit log, the decision log. One for
    /// each host.
    pub registry: PathBuf,
    /// Watched directory: a `.wasm` file that appears or changes there is uploaded and activated, if it is good.
    pub dir: Option<PathBuf>,
    /// Time for one call, in milliseconds (when changes are coalesced, for each started 1,000 of them); beyond, the
    /// instance is dropped and the batch falls back.
    pub call_deadline_ms: u64,
    /// Linear memory of an instance, in bytes.
    pub memory_bytes_max: usize,
    /// Size of a component, in bytes.
    pub module_bytes_max: usize,
    /// Functions in a component.
    pub functions_max: u32,
    /// Core instances of one component: a guest of Rust has 3, one of JavaScript 13, one of Python 38.
    pub core_instances_max: u32,
    /// Linear memories of one component: a guest of Rust has 1, one of JavaScript 3.
    pub memories_max: u32,
    /// Tables of one component.
    pub tables_max: u32,
    /// Elements of one table: functions that a guest calls through pointers.
    pub table_elements_max: usize,
    /// Time to compile a component, in milliseconds.
    pub compile_deadline_ms: u64,
    /// Memory that compiling a component may take, in bytes.
    pub compile_memory_bytes_max: u64,
    /// Bytes that one call may hand back to the host. One call carries documents of a quarter of that, so that each may come
    /// back four times as long, and no kind may take a larger document.
    pub transfer_bytes_max: usize,
    /// Instances of a module kept ready.
    pub instances: usize,
    /// Modules kept in the registry; a further upload is refused until one is deleted.
    pub modules_max: usize,
    /// Time for one call of a module that imports `redis` or `sql`, in milliseconds, its I/O included: no statement's
    /// `timeout_ms` may be more.
    pub granted_call_deadline_ms: u64,
    /// Calls of one such module at once; a further one waits, at most as long as a call may take.
    pub granted_calls_max: usize,
    /// After an activation the new set is watched for so long, in milliseconds, and rolled back by the bounds of
    /// `[policy.canary]`. 0 turns that off.
    pub probation_ms: u64,
    /// The address space of instances.
    pub pool: PolicyPoolConfig,
    /// When a module that is being tried is given up.
    pub canary: CanaryConfig,
    /// When a module that fails is not called for a while.
    pub breaker: BreakerConfig,
    /// The decision log.
    pub decisions: DecisionLogConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// What modules may import beyond `config` and `log`.
    #[serde(rename = "grant")]
    pub grants: Vec<GrantConfig>,
    /// Statements that can be granted.
    #[serde(rename = "statement")]
    pub statements: Vec<StatementConfig>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            component: None,
            builtin: BuiltinRules::Component,
            registry: PathBuf::from("weir-policies"),
            dir: None,
            call_deadline_ms: 50,
            memory_bytes_max: 16 << 20,
            module_bytes_max: 4 << 20,
            functions_max: 10_000,
            core_instances_max: 64,
            memories_max: 4,
            tables_max: 4,
            table_elements_max: 20_000,
            compile_deadline_ms: 10_000,
            compile_memory_bytes_max: 1 << 30,
            transfer_bytes_max: 1 << 20,
            instances: 4,
            modules_max: 100,
            granted_call_deadline_ms: 500,
            granted_calls_max: 8,
            probation_ms: 60_000,
            pool: PolicyPoolConfig::default(),
            canary: CanaryConfig::default(),
            breaker: BreakerConfig::default(),
            decisions: DecisionLogConfig::default(),
            audit: AuditConfig::default(),
            grants: Vec::new(),
            statements: Vec::new(),
        }
    }
}

/// How the built-in rules run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BuiltinRules {
    /// As a component, like every other module.
    #[default]
    Component,
    /// As they are compiled into the host. To measure what the call into WebAssembly costs: nothing of such a call is
    /// counted, sampled or logged. A module that is activated is called as always.
    Native,
}

/// When a canary, or a set on probation, is rolled back by itself. Judged at each failure and at the end of each window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CanaryConfig {
    /// Length of a window, in milliseconds.
    pub window_ms: u64,
    /// Failed calls (traps, deadlines, broken contracts) that one window may hold, and that may come in a row however
    /// far apart they are. Over the whole trial, more than these are too many when they are one in 1,000 calls or more.
    pub failures_max: u64,
    /// 99th percentile of the times of a window's calls, in milliseconds.
    pub call_p99_ms_max: u64,
    /// Calls below which a window's percentile says nothing.
    pub calls_min: u64,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self { window_ms: 1_000, failures_max: 2, call_p99_ms_max: 25, calls_min: 100 }
    }
}

/// When a module is not called for a while, and what stands in for it answers at once. For each function and kind alone, as
/// long as the module is loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Failed calls (traps, deadlines, broken contracts) that may come in a row; more, or more than these in one window in
    /// which more than half of the calls fail, and the module is not called.
    pub failures_max: u64,
    /// Length of a window, in milliseconds.
    pub window_ms: u64,
    /// How long it is not called first, in milliseconds. Then one call is tried; each that fails doubles the time.
    pub backoff_ms_min: u64,
    /// How long it is not called at most, in milliseconds.
    pub backoff_ms_max: u64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures_max: 2, window_ms: 10_000, backoff_ms_min: 1_000, backoff_ms_max: 60_000 }
    }
}

/// Sampled calls and answers of the live modules, in the file `decisions.ndjson` of the registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DecisionLogConfig {
    /// Share of calls that is recorded, from 0 to 1. They hold the ids of targets and actors.
    pub share: f64,
    /// Size of the log, in bytes. Half of it is dropped when it is reached: the older half.
    pub bytes_max: u64,
}

impl Default for DecisionLogConfig {
    fn default() -> Self {
        Self { share: 0.0, bytes_max: 16 << 20 }
    }
}

/// Who did what with modules, in the file `audit.ndjson` of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Lines that are kept, each of some hundred bytes. Of more, what was refused goes first, then the oldest.
    pub entries_max: usize,
    /// Age of the oldest line, in days.
    pub age_days_max: u64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { entries_max: 10_000, age_days_max: 400 }
    }
}

/// What one module may import beyond `config` and `log`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantConfig {
    /// The module's name, or its digest (then no other module of that name has the grant).
    pub module: String,
    /// It may use the interface `redis`: keys of its own in the store.
    #[serde(default)]
    pub redis: bool,
    /// It may use the interface `sql` with these statements.
    #[serde(default)]
    pub sql: Vec<String>,
}

/// A statement that can be granted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatementConfig {
    /// Its name.
    pub name: String,
    /// The statement, with the placeholders of the engine: `?` (SQLite, MariaDB, MySQL) or `$1` (PostgreSQL, SQLite).
    pub sql: String,
    /// Types of its parameters, in order.
    #[serde(default)]
    pub parameters: Vec<ParameterType>,
    /// It may write. Otherwise it runs in a read-only transaction.
    #[serde(default)]
    pub write: bool,
    /// Rows that all runs of one call may find together.
    #[serde(default = "default_rows_max")]
    pub rows_max: usize,
    /// Time for all runs of one call, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

/// Type of a statement's parameter. NULL is always allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    /// Signed 64-bit integer.
    Integer,
    /// Floating-point number.
    Real,
    /// Text.
    Text,
}

fn default_rows_max() -> usize {
    1_000
}

fn default_timeout_ms() -> u64 {
    200
}

impl PolicyConfig {
    /// The bounds of a trial. A call that does I/O may take half of its deadline: that is the database's time.
    pub fn canary_bounds(&self, does_io: bool) -> CanaryConfig {
        let mut bounds = self.canary.clone();
        if does_io {
            bounds.call_p99_ms_max = bounds.call_p99_ms_max.max(self.granted_call_deadline_ms / 2);
        }
        bounds
    }

    /// Bytes of documents that one call carries.
    pub fn documents_bytes_max(&self) -> usize {
        self.transfer_bytes_max / 4
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let share = self.decisions.share;
        all([
            at_least("policy.call_deadline_ms", self.call_deadline_ms, 1),
            at_least("policy.memory_bytes_max", self.memory_bytes_max, 1 << 16),
            self.pool.validate(self.memory_bytes_max),
            at_least("policy.instances", self.instances, 1),
            at_least("policy.core_instances_max", self.core_instances_max, 1),
            at_least("policy.memories_max", self.memories_max, 1),
            at_least("policy.tables_max", self.tables_max, 1),
            at_least("policy.table_elements_max", self.table_elements_max, 1),
            at_least("policy.modules_max", self.modules_max, 1),
            at_least("policy.granted_call_deadline_ms", self.granted_call_deadline_ms, 1),
            at_least("policy.granted_calls_max", self.granted_calls_max, 1),
            at_least("policy.compile_memory_bytes_max", self.compile_memory_bytes_max, 64 << 20),
            at_least("policy.canary.window_ms", self.canary.window_ms, 10),
            at_least("policy.canary.call_p99_ms_max", self.canary.call_p99_ms_max, 1),
            at_least("policy.breaker.window_ms", self.breaker.window_ms, 10),
            at_least("policy.breaker.backoff_ms_min", self.breaker.backoff_ms_min, 1),
            at_least("policy.breaker.backoff_ms_max", self.breaker.backoff_ms_max, self.breaker.backoff_ms_min),
            at_least("policy.audit.entries_max", self.audit.entries_max, 10),
            at_least("policy.audit.age_days_max", self.audit.age_days_max, 1),
            at_least("policy.decisions.bytes_max", self.decisions.bytes_max, 64 << 10),
            ensure((0.0..=1.0).contains(&share), "policy.decisions.share", format!("must be from 0 to 1, is {share}")),
            all(self.statements.iter().enumerate().map(|(index, statement)| self.validate_statement(index, statement))),
            all(self.grants.iter().enumerate().map(|(index, grant)| self.validate_grant(index, grant))),
        ])
    }

    fn validate_statement(&self, index: usize, statement: &StatementConfig) -> Result<(), ConfigError> {
        let field = |name: &str| format!("policy.statement[{index}].{name}");
        let is_new = self.statements[..index].iter().all(|earlier| earlier.name != statement.name);
        let call_ms = self.granted_call_deadline_ms;
        let too_long = format!(
            "is {}, over policy.granted_call_deadline_ms = {call_ms}: the call that runs statement {:?} ends before; lower \
             the one or raise the other",
            statement.timeout_ms, statement.name
        );
        all([
            ensure(
                is_module_name(&statement.name),
                field("name"),
                "must be 1 to 64 letters, digits, hyphens, dots and underscores",
            ),
            ensure(is_new, field("name"), format!("{:?} is configured twice", statement.name)),
            at_least(&field("rows_max"), statement.rows_max, 1),
            at_least(&field("timeout_ms"), statement.timeout_ms, 1),
            ensure(statement.timeout_ms <= call_ms, field("timeout_ms"), too_long),
        ])
    }

    fn validate_grant(&self, index: usize, grant: &GrantConfig) -> Result<(), ConfigError> {
        let field = |name: &str| format!("policy.grant[{index}].{name}");
        let known = |name: &&String| self.statements.iter().any(|statement| statement.name == **name);
        let unknown = grant.sql.iter().filter(|name| !known(name)).map(|unknown| {
            Err(value(field("sql"), format!("there is no [[policy.statement]] with the name {unknown:?}")))
        });
        let names = [
            ensure(is_module_name(&grant.module), field("module"), "must be the name or the digest of a module"),
            ensure(
                !is_reserved_module_name(&grant.module),
                field("module"),
                "is a word of the commands and paths of weir: no module has that name",
            ),
        ];
        all(names.into_iter().chain(unknown))
    }
}

/// Names that no module may have: segments of the paths below `/admin/v1/policies`, words of `weir policy`, what weir calls
/// its own rules and what it has not been told a name of.
const RESERVED_MODULE_NAMES: [&str; 20] = [
    "activate",
    "audit",
    "build",
    "built-in",
    "builtin",
    "canary",
    "check",
    "configured",
    "delete",
    "diff",
    "given",
    "list",
    "push",
    "replay",
    "rollback",
    "shadow",
    "test",
    "under-test",
    "vectors",
    "weir",
];

/// Whether `text` is a word of weir's own, so that no module may have it as its name.
pub fn is_reserved_module_name(text: &str) -> bool {
    RESERVED_MODULE_NAMES.iter().any(|reserved| text.eq_ignore_ascii_case(reserved))
}

/// Whether `text` can name a module: also nothing that could be the beginning of a digest.
pub fn is_free_module_name(text: &str) -> bool {
    is_module_name(text) && !(text.len() >= 6 && text.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether `text` can name a module or its digest, a version or a statement: 1 to 64 letters, digits, hyphens,
/// dots and underscores, beginning with a letter or digit.
pub fn is_module_name(text: &str) -> bool {
    (1..=MODULE_NAME_BYTES_MAX).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let config: PolicyConfig = toml::from_str(text).unwrap();
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn a_grant_names_statements_that_are_there() {
        let statement = "[[statement]]\nname = \"tier-of\"\nsql = \"SELECT 1\"\n";
        let grant = |name: &str| format!("{statement}[[grant]]\nmodule = \"limits\"\nsql = [\"{name}\"]\n");
        toml::from_str::<PolicyConfig>(&grant("tier-of")).unwrap().validate().unwrap();
        assert!(refusal(&grant("tier")).contains("policy.grant[0].sql"));
        assert!(refusal(&format!("{statement}{statement}")).contains("twice"));
    }

    #[test]
    fn no_statement_takes_longer_than_the_call_that_runs_it() {
        let statement = |ms: u64| {
            format!(
                "granted_call_deadline_ms = 300\n[[statement]]\nname = \"t\"\nsql = \"SELECT 1\"\ntimeout_ms = {ms}\n"
            )
        };
        toml::from_str::<PolicyConfig>(&statement(300)).unwrap().validate().unwrap();
        let refused = refusal(&statement(301));
        assert!(refused.contains("policy.statement[0].timeout_ms") && refused.contains("= 300"), "{refused}");
        assert!(refusal("[breaker]\nbackoff_ms_min = 9\nbackoff_ms_max = 8").contains("policy.breaker.backoff_ms_max"));
    }

    #[test]
    fn names_are_plain() {
        for good in ["a", "one-way.likes_2", &"a".repeat(64), "0f"] {
            assert!(is_module_name(good), "{good}");
        }
        assert!(is_free_module_name("added") && is_free_module_name("facade-2") && !is_free_module_name("facade"));
        for bad in ["", "-a", "a b", "a/b", "..", "é", &"a".repeat(65)] {
            assert!(!is_module_name(bad), "{bad}");
        }
    }

    #[test]
    fn words_of_weir_are_no_names() {
        assert!(
            ["canary", "Shadow", "built-in", "rollback", "diff", "audit"]
                .iter()
                .all(|name| is_reserved_module_name(name))
        );
        assert!(["canary-2", "my-shadow", "toggle"].iter().all(|name| !is_reserved_module_name(name)));
        assert!(refusal("[[grant]]\nmodule = \"canary\"").contains("policy.grant[0].module"));
    }

    #[test]
    fn shares_are_shares() {
        assert!(refusal("[decisions]\nshare = 1.5").contains("from 0 to 1"));
    }
}
