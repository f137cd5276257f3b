//! What the operators' listener of a running host asks and does.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use metrics_exporter_prometheus::PrometheusHandle;

use super::answers::kind_flush;
use super::{Operator, of_policy};
use crate::admin::{ModuleCommand, Operations, OperationsError, Purge, Upload};
use crate::app::{App, purge};
use crate::error::{Refusal, RoomRefusal};
use crate::http::HttpState;
use crate::model::Id;
use crate::operators::{
    Acknowledged, Arrivals, Audit, CacheMemories, CacheReport, Check, Commanded, DeadLetters, Explanation, FlushReport,
    Flushed, IdValue, JournalHoles, KindFlushed, PolicyDiff, PolicyList, PurgeHelp, Uploaded,
};
use crate::policy::{ControlError, ModuleUpload, Policies};
use crate::telemetry::{self, tally};

/// What the operators' listener of a running host asks and does.
pub struct RunningHost {
    operator: Operator,
    pub(super) app: Arc<App>,
    pub(super) http: Arc<HttpState>,
    metrics: PrometheusHandle,
}

impl RunningHost {
    /// For `app`, with the handle of the process's metrics recorder.
    pub fn new(app: Arc<App>, http: Arc<HttpState>, metrics: PrometheusHandle) -> Self {
        let operator = Operator::new(
            Arc::new(app.config.clone()),
            Arc::clone(&app.store),
            Arc::clone(&app.sql),
            app.clock.clone(),
        );
        Self { operator, app, http, metrics }
    }

    /// Compiling, testing and writing take their time: on a thread that may wait.
    async fn control<T: Send + 'static>(
        &self,
        command: impl FnOnce(&Policies) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, OperationsError> {
        let policies = Arc::clone(&self.app.policies);
        match tokio::task::spawn_blocking(move || command(&policies)).await {
            Ok(result) => result.map_err(of_policy),
            Err(error) => Err(OperationsError::Unavailable(format!("the command ended: {error}"))),
        }
    }
}

#[async_trait]
impl Operations for RunningHost {
    fn stuck(&self) -> Option<String> {
        let refusing = self.app.store.refusing()?;
        let time = refusing.since.elapsed();
        let is_long = time >= std::time::Duration::from_millis(self.app.config.store.restart_after_ms);
        is_long.then(|| format!("the store has refused writes for {} s: {}", time.as_secs(), refusing.reason))
    }

    async fn readiness(&self) -> Vec<Check> {
        self.checks().await
    }

    async fn flush_status(&self) -> Result<FlushReport, OperationsError> {
        // Without SQL the rest is still worth seeing.
        let dead: Option<BTreeMap<String, u64>> =
            self.app.sql.dead_letter_counts().await.ok().map(|counts| counts.into_iter().collect());
        let kinds = self.app.flush_statuses().into_iter().map(|status| {
            let dead_letters = dead.as_ref().map(|dead| dead.get(&status.kind).copied().unwrap_or(0));
            kind_flush(status, dead_letters)
        });
        Ok(FlushReport { kinds: kinds.collect() })
    }

    async fn flush_now(&self, kind: Option<&str>) -> Result<Flushed, OperationsError> {
        let kinds: Vec<&str> = self.app.flushers.keys().map(String::as_str).collect();
        if let Some(unknown) = kind.filter(|kind| !kinds.contains(kind)) {
            let kinds = kinds.join(", ");
            return Err(OperationsError::NotFound(format!("no kind {unknown} is flushed here; there are: {kinds}")));
        }
        let asked = kinds.into_iter().filter(|known| kind.is_none_or(|kind| kind == *known));
        let all = asked.map(|kind| async move { (kind, self.app.flush_now(kind).await) });
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (kind, result) in futures_util::future::join_all(all).await {
            match result {
                Ok(flushed) => done.push((kind, flushed)),
                Err(error) => failed.push(format!("{kind}: {error}")),
            }
        }
        if !failed.is_empty() {
            let done: Vec<String> = done.iter().map(|(kind, flushed)| format!("{kind}: {flushed} flushed")).collect();
            return Err(OperationsError::Unavailable(failed.into_iter().chain(done).collect::<Vec<_>>().join("; ")));
        }
        let kinds = done.into_iter().map(|(kind, flushed)| KindFlushed { kind: kind.to_owned(), flushed });
        Ok(Flushed { kinds: kinds.collect() })
    }

    async fn policies(&self) -> Result<PolicyList, OperationsError> {
        self.control(|policies| Ok(policies.registry.status())).await
    }

    async fn upload_policy(&self, by: &str, upload: Upload) -> Result<Uploaded, OperationsError> {
        let by = by.to_owned();
        self.control(move |policies| {
            let Upload { bytes, name, version, vectors, activate } = upload;
            policies.registry.upload(&by, &ModuleUpload { bytes: &bytes, name, version, vectors, activate })
        })
        .await
    }

    async fn command_policy(&self, by: &str, command: ModuleCommand) -> Result<Commanded, OperationsError> {
        let by = by.to_owned();
        self.control(move |policies| match command {
            ModuleCommand::Activate { module, interfaces } => policies.registry.activate(&by, &module, &interfaces),
            ModuleCommand::Shadow { module, share } => policies.trials.shadow(&by, &module, share),
            ModuleCommand::Canary { module, share } => policies.trials.canary(&by, &module, share),
            ModuleCommand::EndShadow => policies.trials.end_shadow(&by),
            ModuleCommand::EndCanary => policies.trials.end_canary(&by),
            ModuleCommand::Rollback => policies.registry.rollback(&by),
            ModuleCommand::Delete { module } => policies.registry.delete(&by, &module),
        })
        .await
    }

    async fn policy_diff(&self) -> Result<PolicyDiff, OperationsError> {
        Ok(self.app.policies.trials.diff())
    }

    async fn policy_audit(&self, limit: usize) -> Result<Audit, OperationsError> {
        self.control(move |policies| Ok(policies.registry.audit(limit))).await
    }

    async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<DeadLetters, OperationsError> {
        self.operator.dead_letters(kind, after, limit).await
    }

    async fn replay_dead_letter(&self, id: i64) -> Result<(), OperationsError> {
        self.operator.replay_dead_letter(id).await
    }

    async fn drop_dead_letter(&self, id: i64) -> Result<(), OperationsError> {
        self.operator.drop_dead_letter(id).await
    }

    async fn journal_holes(&self, kind: Option<&str>) -> Result<JournalHoles, OperationsError> {
        self.operator.journal_holes(kind).await
    }

    async fn acknowledge_holes(&self, kind: &str) -> Result<Acknowledged, OperationsError> {
        self.operator.acknowledge_holes(kind).await
    }

    async fn explain(&self, kind: &str, target: &str, actor: Option<&str>) -> Result<Explanation, OperationsError> {
        self.operator.explain(kind, target, actor).await
    }

    async fn cache(&self) -> Result<CacheReport, OperationsError> {
        let kinds = self.app.kinds();
        Ok(CacheReport {
            reads: kinds.reads.states(),
            upstreams: kinds.upstreams.states(),
            purge: PurgeHelp {
                key: "one answer, of an upstream with all its variants: `key` of a read or an upstream, filled in"
                    .into(),
                prefix: "what has a key that begins so".into(),
                group: "one of `groups` of a read or an upstream".into(),
                all: "1: everything".into(),
                mode: "hard (default): it is told no more; soft: it is stale".into(),
            },
            memory: CacheMemories { reads: kinds.reads.memory(), upstream: kinds.upstreams.memory() },
        })
    }

    async fn purge_cache(&self, purge: Purge) -> Result<(), OperationsError> {
        let kinds = self.app.kinds();
        purge::purge(&kinds.reads, &kinds.upstreams, self.app.invalidations(), &purge)
    }

    async fn room_arrivals(
        &self,
        kind: &str,
        queue: &str,
        skip: u64,
        limit: usize,
    ) -> Result<Arrivals, OperationsError> {
        let missing = || OperationsError::NotFound(format!("no waiting room {kind}"));
        let room = self.app.kinds.rooms.kinds.get(kind).ok_or_else(missing)?;
        let queue = Id::parse(room.config().queue_type, queue)
            .map_err(|error| OperationsError::Invalid(format!("queue: {error}")))?;
        let arrivals = room.arrivals(&queue, skip, limit).await;
        let arrivals = arrivals.map_err(|refusal| match refusal {
            Refusal::Room(RoomRefusal::QueueMissing) => {
                OperationsError::NotFound(format!("no queue {queue} of {kind}"))
            }
            other => OperationsError::Unavailable(other.to_string()),
        })?;
        Ok(Arrivals { arrivals: arrivals.iter().map(IdValue::from).collect() })
    }

    fn metrics(&self) -> String {
        tally::hand_over();
        let mut text = self.metrics.render();
        text.push_str(&telemetry::write_own());
        text
    }
}
