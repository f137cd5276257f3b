//! weir's own tables, whose the journal is, and the self-checks: at start if SQL answers, else as soon as it does.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinHandle;

use super::waiting::{Verdict, Waiting};
use super::{AppError, custody};
use crate::config::Config;
use crate::sql::{Finding, Problem, Sql, SqlError};
use crate::store::{Store, StoreError};

/// Pause between attempts while SQL or the store does not answer.
const RETRY: Duration = Duration::from_secs(1);

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
    ended: Mutex<Option<oneshot::Receiver<AppError>>>,
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
        let (end_sender, end) = oneshot::channel();
        let mut waiting = Waiting::new(&config.start);
        match prepare(config, &*store, &*sql).await {
            Ok(()) => {
                let _ = ready_sender.send(true);
                return Ok(Self { ready, problem, ended: Mutex::new(None), task: None });
            }
            Err(error) if is_passing(&error) => {
                // What needs no SQL is seen at once.
                if let Ok(holdings) = store.inventory().await {
                    refuse_or_warn(custody::orphans(config, &holdings, &[]))?;
                }
                let missing = missing(&error, &*store).await;
                waiting.note(&missing);
                let _ = problem_sender.send(Some(missing));
            }
            Err(error) => return Err(error),
        }
        let found = Found { ready: ready_sender, problem: problem_sender, end: end_sender };
        let task = tokio::spawn(find_out(config.clone(), store, sql, waiting, found));
        Ok(Self { ready, problem, ended: Mutex::new(Some(end)), task: Some(task) })
    }

    /// Becomes `true` when the schema is known to fit.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Why the schema is not ready.
    pub fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }

    /// Why the host must end although it has started: what it waited for is permanently wrong, or did not come in time.
    /// Otherwise never resolves.
    pub async fn ended(&self) -> AppError {
        let mut ended = self.ended.lock().await;
        if let Some(end) = ended.as_mut() {
            let error = end.await;
            *ended = None;
            if let Ok(error) = error {
                return error;
            }
        }
        std::future::pending().await
    }

    /// Stops trying.
    pub fn stop(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Channels that receive the outcome.
struct Found {
    ready: watch::Sender<bool>,
    problem: watch::Sender<Option<String>>,
    end: oneshot::Sender<AppError>,
}

impl Found {
    /// Says what is missing; whether that may be waited for any longer.
    fn may_wait(&self, waiting: &mut Waiting) -> bool {
        let missing = self.missing();
        waiting.note(&missing) == Verdict::GoOn
    }

    fn missing(&self) -> String {
        self.problem.borrow().clone().unwrap_or_default()
    }

    /// The host must end: because of this, or because what it waits for has not come.
    fn end(self, error: Option<AppError>, waiting: &Waiting) {
        let missing = self.missing();
        let _ = self.end.send(error.unwrap_or(AppError::Waited { waited_s: waiting.waited_s(), missing }));
    }
}

/// Tries until it fits, or the host must end.
async fn find_out(config: Config, store: Arc<dyn Store>, sql: Arc<dyn Sql>, mut waiting: Waiting, found: Found) {
    loop {
        tokio::time::sleep(RETRY).await;
        let attempted = attempt(prepare(&config, &*store, &*sql), &mut waiting, &found).await;
        let Some(prepared) = attempted else { return found.end(None, &waiting) };
        match prepared {
            Ok(()) => {
                let waited_s = waiting.waited_s();
                tracing::info!(waited_s, "SQL answers, its schema fits, and the journal is its own");
                let _ = found.problem.send(None);
                let _ = found.ready.send(true);
                return;
            }
            Err(error) if is_passing(&error) => {
                let _ = found.problem.send(Some(missing(&error, &*store).await));
                if !found.may_wait(&mut waiting) {
                    return found.end(None, &waiting);
                }
            }
            // As if it had been there from the beginning.
            Err(error) if !waiting.is_over() => {
                let _ = found.problem.send(Some(error.to_string()));
                return found.end(Some(error), &waiting);
            }
            Err(error) => {
                let text = error.to_string();
                if found.problem.borrow().as_ref() != Some(&text) {
                    tracing::error!(%error, "SQL answers, but weir cannot write to it; still trying");
                }
                let _ = found.problem.send(Some(text));
            }
        }
    }
}

/// One attempt. A server that neither answers nor refuses takes long, so the attempt keeps reporting what it waits for.
/// `None`: the wait is over, and the host ends.
async fn attempt(
    preparing: impl Future<Output = Result<(), AppError>>,
    waiting: &mut Waiting,
    found: &Found,
) -> Option<Result<(), AppError>> {
    let mut preparing = std::pin::pin!(preparing);
    loop {
        tokio::select! {
            prepared = &mut preparing => return Some(prepared),
            () = tokio::time::sleep(RETRY) => {
                if !found.may_wait(waiting) {
                    return None;
                }
            }
        }
    }
}

/// What is not there, each with its cause: SQL is asked first, and the store may be missing, too.
async fn missing(error: &AppError, store: &dyn Store) -> String {
    match (error, store.ping().await) {
        (AppError::Sql(_), Err(of_store)) => format!("{error}; store: {of_store}"),
        _ => error.to_string(),
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
