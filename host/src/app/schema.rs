//! weir's own tables, whose the journal is, and the self-checks: at start if SQL answers, else as soon as it does.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{AppError, custody};
use crate::config::Config;
use crate::sql::{Finding, Problem, Sql, SqlError};
use crate::store::{Store, StoreError};

/// Pause between attempts while SQL does not answer, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// A finding and the kind, or `policy.statement NAME`, that it concerns; `None` for the server as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KindFinding {
    /// The kind.
    pub kind: Option<String>,
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
}

/// The findings as lines for a person, each with its remedy.
pub fn describe(findings: &[KindFinding]) -> String {
    let line = |found: &KindFinding| {
        let (what, finding) = (found.kind.as_deref().unwrap_or("server"), &found.finding);
        let level = if finding.warning { "warning" } else { "refused" };
        format!("{level}: {what}: {}\n  remedy: {}", finding.problem, finding.remedy)
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Whether the schema is known to fit, and the task that finds out.
pub struct Schema {
    ready: watch::Receiver<bool>,
    problem: watch::Receiver<Option<String>>,
    task: Option<JoinHandle<()>>,
}

impl Schema {
    /// Prepares and checks; leaves a task behind that goes on trying when SQL, or the store, does not answer.
    ///
    /// # Errors
    /// What waiting does not mend.
    pub async fn start(config: &Config, store: Arc<dyn Store>, sql: Arc<dyn Sql>) -> Result<Self, AppError> {
        let (ready_sender, ready) = watch::channel(false);
        let (problem_sender, problem) = watch::channel(None);
        match prepare(config, &*store, &*sql).await {
            Ok(()) => {
                let _ = ready_sender.send(true);
                return Ok(Self { ready, problem, task: None });
            }
            Err(error) if is_passing(&error) => {
                // What needs no SQL is seen at once.
                if let Ok(holdings) = store.holdings().await {
                    refuse_or_warn(custody::orphans(config, &holdings, &[]))?;
                }
                let reason = error.to_string();
                tracing::warn!(
                    reason,
                    "starting all the same: known targets are served, and nothing is flushed until then"
                );
                let _ = problem_sender.send(Some(reason));
            }
            Err(error) => return Err(error),
        }
        let config = config.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
                match prepare(&config, &*store, &*sql).await {
                    Ok(()) => {
                        tracing::info!("SQL answers, its schema fits, and the journal is its own");
                        let _ = problem_sender.send(None);
                        let _ = ready_sender.send(true);
                        return;
                    }
                    Err(error) => {
                        let text = error.to_string();
                        if !is_passing(&error) && problem_sender.borrow().as_ref() != Some(&text) {
                            tracing::error!(%error, "SQL answers, but weir cannot write to it; still trying");
                        }
                        let _ = problem_sender.send(Some(text));
                    }
                }
            }
        });
        Ok(Self { ready, problem, task: Some(task) })
    }

    /// Becomes `true` when the schema is known to fit.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Why the schema is not ready.
    pub fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }

    /// Stops trying.
    pub fn stop(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Whether waiting may mend it.
fn is_passing(error: &AppError) -> bool {
    matches!(
        error,
        AppError::Sql(SqlError::Transient(_) | SqlError::ReadOnly(_) | SqlError::OutcomeUnknown(_))
            | AppError::Store(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_))
    )
}

async fn prepare(config: &Config, store: &dyn Store, sql: &dyn Sql) -> Result<(), AppError> {
    sql.migrate().await?;
    let partitions = store.partitions();
    if let Some(recorded) = sql.check_partitions(partitions).await? {
        return Err(AppError::Partitions { configured: partitions, recorded });
    }
    custody::settle(config, store, sql).await?;
    refuse_or_warn(findings(config, sql).await?)
}

/// Refuses what weir must not start with; the rest goes into the log.
///
/// # Errors
/// [`AppError::Schema`] with what must not be.
pub fn refuse_or_warn(findings: Vec<KindFinding>) -> Result<(), AppError> {
    let (refusals, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|found| !found.finding.warning);
    for found in warnings {
        tracing::warn!(
            kind = found.kind.as_deref().unwrap_or("server"),
            problem = found.finding.problem,
            remedy = found.finding.remedy,
            "self-check"
        );
    }
    if refusals.is_empty() { Ok(()) } else { Err(AppError::Schema(refusals)) }
}

/// All findings of the self-checks of the server, of each kind, and of each statement that can be granted.
///
/// # Errors
/// When SQL does not answer.
pub async fn findings(config: &Config, sql: &dyn Sql) -> Result<Vec<KindFinding>, SqlError> {
    let mut found: Vec<KindFinding> =
        sql.check_server().await?.into_iter().map(|finding| KindFinding { kind: None, finding }).collect();
    for (kind, table) in config.kinds() {
        let of_kind = sql.check_table(&table).await?;
        found.extend(of_kind.into_iter().map(|finding| KindFinding { kind: Some(kind.to_owned()), finding }));
    }
    for statement in &config.policy.statements {
        if let Some(finding) = sql.check_statement(statement).await? {
            found.push(KindFinding { kind: Some(format!("policy.statement {}", statement.name)), finding });
        }
    }
    for read in &config.reads {
        let kind = Some(format!("read {}", read.name));
        let finding = match crate::read::statement::prepare(read, sql.engine()) {
            Ok((statement, _)) => sql.check_statement(&statement).await?,
            Err(error) => Some(Finding::refusal(
                Problem::Statement,
                error.to_string(),
                format!("correct [[read]] {:?} in weir.toml", read.name),
            )),
        };
        found.extend(finding.map(|finding| KindFinding { kind, finding }));
    }
    Ok(found)
}
