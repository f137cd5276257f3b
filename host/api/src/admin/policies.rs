//! Operator commands on policy modules: which command a request means, who issues it, and how many run at once.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::HeaderName;
use hyper::http::request::Parts;
use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::query::Query;
use super::reply::{self, from_error, wrong};
use super::routes::PolicyRoute;
use super::{ModuleCommand, Operations, OperationsError, UNAVAILABLE, answered, upload};
use weir_core::config::PolicyConfig;
use weir_core::telemetry::SHED_TOTAL;
use weir_listener::Reply;
use weir_listener::head::one;
use weir_listener::problem::Problem;

/// Uploads at once: each holds a whole module, and compiles it.
const UPLOADS_MAX: usize = 2;
/// Commands at once. They wait for each other; more than a few are a mistake.
const COMMANDS_MAX: usize = 8;
/// Most bytes that a form may hold besides the module: names and test vectors.
const FORM_BYTES_MAX: usize = 64 << 10;
/// Time for the body of an upload, and for an operation beyond that of compiling.
const GRACE: Duration = Duration::from_secs(30);
/// When to come back after a 503 for too many at once.
const RETRY_AFTER_S: u64 = 1;
/// Lines of the audit log in one list when the caller does not say, and at most.
const AUDIT_LIMIT_DEFAULT: usize = 100;
const AUDIT_LIMIT_MAX: usize = 1000;
/// Names the operator, for the audit log.
const OPERATOR: HeaderName = HeaderName::from_static("x-operator");
/// Bytes of a name in it.
const OPERATOR_BYTES_MAX: usize = 64;

/// Bounds of what operators do with policy modules.
#[derive(Debug, Clone, Copy)]
pub struct PolicyLimits {
    /// Size of an upload's body, in bytes; beyond: 413.
    pub upload_bytes_max: usize,
    /// Time for an upload's body; beyond: 408.
    pub upload_timeout: Duration,
    /// Time for an upload or a command, compiling included; beyond: 503, while it goes on.
    pub deadline: Duration,
}

impl From<&PolicyConfig> for PolicyLimits {
    fn from(config: &PolicyConfig) -> Self {
        Self {
            upload_bytes_max: config.module_bytes_max.saturating_add(FORM_BYTES_MAX),
            upload_timeout: GRACE,
            deadline: Duration::from_millis(config.compile_deadline_ms).saturating_add(GRACE),
        }
    }
}

/// Answers everything about policy modules.
pub(super) struct PolicyService {
    operations: Arc<dyn Operations>,
    limits: PolicyLimits,
    uploads: Arc<Semaphore>,
    commands: Arc<Semaphore>,
    urgent: Arc<Semaphore>,
}

impl PolicyService {
    pub(super) fn new(operations: Arc<dyn Operations>, limits: PolicyLimits) -> Self {
        Self {
            operations,
            limits,
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            commands: Arc::new(Semaphore::new(COMMANDS_MAX)),
            urgent: Arc::new(Semaphore::new(COMMANDS_MAX)),
        }
    }

    /// Takes an upload: 201 when the module is new, 200 when it was known.
    pub(super) async fn upload(&self, head: &Parts, body: Incoming, peer: SocketAddr) -> Result<Reply, Problem> {
        let by = operator(head, peer)?;
        // Before the body: what waits would hold its bytes.
        let slot = slot(&self.uploads, "policy_uploads_max").map_err(Problem::close)?;
        let upload = upload::read(head, body, &self.limits).await?;
        let operations = Arc::clone(&self.operations);
        let answer = self.finish(slot, async move { operations.upload_policy(&by, upload).await }).await?;
        Ok(reply::json(if answer.known { StatusCode::OK } else { StatusCode::CREATED }, &answer))
    }

    /// Answers what only looks.
    pub(super) async fn look(&self, route: PolicyRoute, head: &Parts) -> Result<Reply, Problem> {
        match route {
            PolicyRoute::Audit => {
                let limit = Query::read(head, &["limit"])?.limit("limit", AUDIT_LIMIT_DEFAULT, AUDIT_LIMIT_MAX)?;
                answered(self.operations.policy_audit(limit).await)
            }
            PolicyRoute::Diff => {
                Query::read(head, &[])?;
                answered(self.operations.policy_diff().await)
            }
            _ => {
                Query::read(head, &[])?;
                answered(self.operations.policies().await)
            }
        }
    }

    /// Does what the request means.
    pub(super) async fn command(
        &self,
        route: PolicyRoute,
        module: String,
        head: &Parts,
        peer: SocketAddr,
    ) -> Result<Reply, Problem> {
        let command = command(route, module, head)?;
        let by = operator(head, peer)?;
        let urgent = matches!(command, ModuleCommand::Rollback | ModuleCommand::EndCanary | ModuleCommand::EndShadow);
        // A command that takes a module out of service never queues behind commands that bring one in.
        let slots = if urgent { &self.urgent } else { &self.commands };
        let slot = slot(slots, "policy_commands_max")?;
        let operations = Arc::clone(&self.operations);
        let answer = self.finish(slot, async move { operations.command_policy(&by, command).await }).await?;
        Ok(reply::json(StatusCode::OK, &answer))
    }

    /// Runs the operation to completion, even after the caller's deadline. It holds its slot until then.
    async fn finish<T, F>(&self, slot: OwnedSemaphorePermit, operation: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, OperationsError>> + Send + 'static,
    {
        let task = tokio::spawn(async move {
            let _slot = slot;
            operation.await
        });
        match tokio::time::timeout(self.limits.deadline, task).await {
            Ok(Ok(answer)) => answer.map_err(|error| from_error(&error)),
            Ok(Err(_)) => Err(Problem::new(
                &UNAVAILABLE,
                "it ended in the middle; the host's log says why, GET /admin/v1/policies what holds now",
            )),
            Err(_) => Err(Problem::new(
                &UNAVAILABLE,
                format!(
                    "not done within {} ms; it goes on, GET /admin/v1/policies says what became of it",
                    self.limits.deadline.as_millis()
                ),
            )),
        }
    }
}

fn slot(slots: &Arc<Semaphore>, limit: &'static str) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(slots).try_acquire_owned().map_err(|_| {
        counter!(SHED_TOTAL, "limit" => limit).increment(1);
        Problem::new(&UNAVAILABLE, "as many as can be are under way already; try again").retry_after_s(RETRY_AFTER_S)
    })
}

fn command(route: PolicyRoute, module: String, head: &Parts) -> Result<ModuleCommand, Problem> {
    let plain = |command| Query::read(head, &[]).map(|_| command);
    match route {
        PolicyRoute::ActivateModule => {
            let interfaces = interfaces(Query::read(head, &["interfaces"])?.get("interfaces"))?;
            Ok(ModuleCommand::Activate { module, interfaces })
        }
        PolicyRoute::ShadowModule => {
            let share = share(Query::read(head, &["share"])?.get("share").unwrap_or("1"))?;
            Ok(ModuleCommand::Shadow { module, share })
        }
        PolicyRoute::CanaryModule => {
            let query = Query::read(head, &["share"])?;
            let given = query.get("share").ok_or_else(|| wrong("say which share of the targets: share=0.05"))?;
            Ok(ModuleCommand::Canary { module, share: share(given)? })
        }
        PolicyRoute::Shadow => plain(ModuleCommand::EndShadow),
        PolicyRoute::Canary => plain(ModuleCommand::EndCanary),
        PolicyRoute::Rollback => plain(ModuleCommand::Rollback),
        PolicyRoute::Module => plain(ModuleCommand::Delete { module }),
        PolicyRoute::All | PolicyRoute::Diff | PolicyRoute::Audit => Err(wrong("this only shows")),
    }
}

fn interfaces(given: Option<&str>) -> Result<Vec<String>, Problem> {
    let Some(given) = given else { return Ok(Vec::new()) };
    let names: Vec<String> = given.split(',').map(str::to_owned).collect();
    if names.iter().any(String::is_empty) {
        return Err(wrong("interfaces must be names with commas between, such as toggle,flush; leave it out for all"));
    }
    Ok(names)
}

fn share(text: &str) -> Result<f64, Problem> {
    let parsed = text.parse::<f64>().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    parsed.ok_or_else(|| wrong("share must be a number above 0 and at most 1, such as 0.05"))
}

/// Who asks: a name that is only claimed, and the address that is known.
fn operator(head: &Parts, peer: SocketAddr) -> Result<String, Problem> {
    let refuse =
        || wrong(format!("X-Operator must be one name of 1 to {OPERATOR_BYTES_MAX} printable ASCII characters"));
    let name = match one(&head.headers, &OPERATOR).map_err(|_| refuse())? {
        None => "unknown",
        Some(given) => given
            .to_str()
            .ok()
            .filter(|name| (1..=OPERATOR_BYTES_MAX).contains(&name.len()))
            .filter(|name| name.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()))
            .ok_or_else(refuse)?,
    };
    Ok(format!("{name}@{}", peer.ip().to_canonical()))
}
