//! What operators may ask and do, with a running host (through its listener) or without (from the command line).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{App, AppError};
use crate::admin::{Check, ModuleCommand, Operations, OperationsError, Purge, Upload};
use crate::capability::{Explained, explain};
use crate::clock::Clock;
use crate::config::{Config, KindTable, StoreType};
use crate::error::{Refusal, RoomRefusal};
use crate::http::HttpState;
use crate::model::{Id, Partition, partition_of};
use crate::policy::{ControlError, ModuleUpload, Policies};
use crate::sql::{self, DeadLetter, Sql, SqlError, Standing};
use crate::store::{self, Store, StoreError};
use crate::telemetry::{self, tally};

impl From<SqlError> for OperationsError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Permanent(reason) => Self::Conflict(reason),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<ControlError> for OperationsError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Refused(refusal) => Self::Refused { code: refusal.code(), reason: refusal.to_string() },
            ControlError::NotFound(reason) => Self::NotFound(reason),
            ControlError::Invalid(reason) => Self::Invalid(reason),
            ControlError::Conflict(reason) => Self::Conflict(reason),
            error @ ControlError::Disk(_) => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<StoreError> for OperationsError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Looks into store and SQL for an operator, and mends.
pub struct Operator {
    config: Arc<Config>,
    /// Opened when it is first needed: a running host may hold it, and dead letters can be read without.
    store: OnceCell<Arc<dyn Store>>,
    /// Whether nothing may change on disk.
    is_look: bool,
    pub(super) sql: Arc<dyn Sql>,
    pub(super) clock: Clock,
}

/// Whether the embedded store was never opened where it should be.
fn has_no_store(config: &Config) -> bool {
    config.store.store_type == StoreType::Embedded && !config.store.path.exists()
}

fn nothing_there(config: &Config) -> String {
    format!(
        "there is nothing in {}: no host has run with it; name the running one (--admin ADDR) or its configuration (--config)",
        config.store.path.display()
    )
}

impl Operator {
    /// On what a running host has open.
    pub fn new(config: Arc<Config>, store: Arc<dyn Store>, sql: Arc<dyn Sql>, clock: Clock) -> Self {
        Self { config, store: OnceCell::new_with(Some(store)), is_look: false, sql, clock }
    }

    /// Opens SQL, and the store when it is needed: for the command line when no host answers.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn open(config: Config) -> Result<Self, AppError> {
        Self::open_as(config, false).await
    }

    /// As [`Operator::open`], for what only asks: nothing changes on disk.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn open_to_look(config: Config) -> Result<Self, AppError> {
        Self::open_as(config, true).await
    }

    async fn open_as(config: Config, is_look: bool) -> Result<Self, AppError> {
        let config = config.with_namespace();
        if has_no_store(&config) && config.sql.url.starts_with("sqlite:") {
            // SQLite would begin an empty database, in which nothing is found.
            return Err(AppError::System { what: "open the data".into(), reason: nothing_there(&config) });
        }
        let sql = if is_look { sql::open_to_look(&config.sql).await? } else { sql::open(&config.sql).await? };
        Ok(Self { config: Arc::new(config), store: OnceCell::new(), is_look, sql, clock: Clock::Real })
    }

    async fn store(&self) -> Result<&Arc<dyn Store>, OperationsError> {
        if has_no_store(&self.config) {
            return Err(OperationsError::Unavailable(nothing_there(&self.config)));
        }
        let open = || async {
            let config = &self.config.store;
            if self.is_look { store::open_to_look(config).await } else { store::open(config).await }
        };
        self.store.get_or_try_init(open).await.map_err(|error| {
            OperationsError::Unavailable(format!("{error}; when a host is running, name it: --admin ADDR"))
        })
    }

    /// Everything known of a target, and of one actor on it; see [`explain`].
    ///
    /// # Errors
    /// Unknown kind, an id of the wrong type, or no actor where a toggle needs one.
    pub async fn explain(&self, kind: &str, target: &str, actor: Option<&str>) -> Result<Value, OperationsError> {
        let id = |name, id_type, text| {
            Id::parse(id_type, text).map_err(|error| OperationsError::Invalid(format!("{name} {text:?}: {error}")))
        };
        if let Some(room) = self.config.rooms.iter().find(|room| room.kind == kind) {
            let queue = id("queue", room.queue_type, target)?;
            let actor = actor.map(|text| id("actor", room.actor_type, text)).transpose()?;
            return self.explain_room(kind, &queue, actor.as_ref()).await;
        }
        let table = self.table(kind)?;
        let (target_type, actor_type) = table.id_types();
        let target = id("target", target_type, target)?;
        let actor = actor.map(|text| id("actor", actor_type, text)).transpose()?;
        if actor.is_none() && matches!(table, KindTable::Toggle(_)) {
            return Err(OperationsError::Invalid("a toggle is explained for one actor: name it, too".into()));
        }
        let (store, now_ms) = (self.store().await?, self.clock.steady_ms());
        let partition = self.partition(kind, &target, store.partitions());
        let explained = Explained { kind, table: &table, partition, target: &target, actor: actor.as_ref() };
        Ok(explain(explained, &**store, &*self.sql, now_ms).await)
    }

    /// A queue of a waiting room: it has no row, and nothing is written behind.
    async fn explain_room(&self, kind: &str, queue: &Id, actor: Option<&Id>) -> Result<Value, OperationsError> {
        let is_known = self.store().await?.rooms().room_queues(kind).await?.contains(queue);
        let store = if is_known { "the queue is there" } else { "there is no such queue: nobody has joined" };
        Ok(json!({
            "kind": kind,
            "target": queue.to_json(),
            "actor": actor.map(Id::to_json),
            "partition": null,
            "store": store,
            "sql": "none: a waiting room is in the store alone",
            "checkpoint": null,
            "dead_letters": [],
            "look_at": [
                format!("GET /v1/rooms/{kind}/{queue}: who waits and is in, totals, draw"),
                format!("GET /v1/rooms/{kind}/{queue}/tokens/TOKEN: one person; a join by the same actor answers a token"),
                format!("GET /admin/v1/rooms/{kind}/{queue}/arrivals: who takes part in the draw"),
            ],
        }))
    }

    /// A page of dead letters above the number `after`, as `{"dead_letters":[…]}`.
    ///
    /// # Errors
    /// When SQL does not answer.
    pub async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<Value, OperationsError> {
        Ok(json!({ "dead_letters": self.sql.dead_letters(kind, after, limit).await? }))
    }

    /// Stores a letter again, and makes the store read its target anew.
    ///
    /// # Errors
    /// [`OperationsError::Conflict`] with the database's reason when it still cannot be stored.
    pub async fn replay_dead_letter(&self, id: i64) -> Result<(), OperationsError> {
        let letter = self.letter(id).await?;
        let table = self.table(&letter.kind)?;
        // Before SQL changes: without the store its state could not be made to follow.
        self.store().await?;
        self.sql.replay_dead_letter(&table, &letter).await?;
        self.forget(&table, &letter).await
    }

    /// Drops a letter.
    ///
    /// # Errors
    /// [`OperationsError::NotFound`] when there is none with that number.
    pub async fn drop_dead_letter(&self, id: i64) -> Result<(), OperationsError> {
        match self.sql.drop_dead_letters(&[id]).await? {
            0 => Err(OperationsError::NotFound(format!("there is no dead letter {id}"))),
            _ => Ok(()),
        }
    }

    async fn letter(&self, id: i64) -> Result<DeadLetter, OperationsError> {
        let page = self.sql.dead_letters(None, id - 1, 1).await?;
        page.into_iter()
            .find(|letter| letter.id == id)
            .ok_or_else(|| OperationsError::NotFound(format!("there is no dead letter {id}")))
    }

    /// The store's state of the letter's target is older than SQL now: it becomes cold as soon as it is clean.
    async fn forget(&self, table: &KindTable, letter: &DeadLetter) -> Result<(), OperationsError> {
        let Ok(target) = Id::parse(table.id_types().0, &letter.target) else { return Ok(()) };
        let store = self.store().await?;
        let partition = self.partition(&letter.kind, &target, store.partitions());
        for head in store.heads(&letter.kind, &[partition]).await? {
            let invalid = [target.clone()];
            store.trim(&letter.kind, partition, head.incarnation, head.flushed, &[], &invalid).await?;
        }
        Ok(())
    }

    /// The partition of a target of this kind.
    fn partition(&self, kind: &str, target: &Id, partitions: Partition) -> Partition {
        let ingest = self.config.ingests.iter().find(|ingest| ingest.kind == kind);
        ingest.map_or_else(|| partition_of(target, partitions), |ingest| ingest.partition(target, partitions))
    }

    pub(super) fn table(&self, kind: &str) -> Result<KindTable, OperationsError> {
        let kinds = self.config.kinds();
        let known = kinds.iter().map(|(kind, _)| *kind).collect::<Vec<_>>().join(", ");
        let found = kinds.into_iter().find(|(name, _)| *name == kind);
        found
            .map(|(_, table)| table)
            .ok_or_else(|| OperationsError::NotFound(format!("there is no kind {kind:?}; configured: {known}")))
    }
}

/// What the operators' listener of a running host asks and does.
pub struct Desk {
    operator: Operator,
    app: Arc<App>,
    http: Arc<HttpState>,
    metrics: PrometheusHandle,
}

impl Desk {
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
    async fn control(
        &self,
        command: impl FnOnce(&Policies) -> Result<Value, ControlError> + Send + 'static,
    ) -> Result<Value, OperationsError> {
        let policies = Arc::clone(&self.app.policies);
        match tokio::task::spawn_blocking(move || command(&policies)).await {
            Ok(result) => result.map_err(OperationsError::from),
            Err(error) => Err(OperationsError::Unavailable(format!("the command ended: {error}"))),
        }
    }

    /// A module that fails does not make the host unready: another host has the same rules, and what its kinds do then is
    /// configured. It is said all the same.
    fn policy_checks(&self) -> Vec<Check> {
        let modules = self.app.policies.modules().into_iter();
        let fallbacks = self.app.policies.fallbacks();
        modules
            .map(|module| {
                let interfaces = module.interfaces.join(", ");
                let open: Vec<String> = module
                    .breakers
                    .iter()
                    .map(|open| format!("{}.{} of {}", open.interface, open.function, open.kind))
                    .collect();
                let open = match open.is_empty() {
                    true => String::new(),
                    false => format!("; not called for {} until a call succeeds", open.join(", ")),
                };
                let detail = match (&module.unfit, &module.last_failure) {
                    (Some(unfit), _) => format!(
                        "degraded: {interfaces}: the module that was active does not fit this weir, so its kinds answer as \
                         their on_policy_failure says; activate another one, or the same built anew: {unfit}"
                    ),
                    (None, Some(last)) if !module.healthy => format!(
                        "{interfaces}; failed in the last minute ({} times since the start; {fallbacks} batches fell \
                         back to the module before it, the built-in rules, or a refusal){open}; the last: {last}",
                        module.failures
                    ),
                    _ => interfaces,
                };
                Check { name: format!("policy:{}", module.name), ready: true, detail }
            })
            .chain(self.app.policies.unsaved().map(|reason| Check {
                name: "policy-set".into(),
                ready: true,
                detail: format!(
                    "degraded: the set of modules in force is not written down, and a restart would bring back the one \
                     before; tried again every second: {reason}"
                ),
            }))
            .collect()
    }

    fn flush_checks(&self) -> Vec<Check> {
        let bounds = &self.app.config.journal;
        let mut checks = Vec::new();
        for status in self.app.flush_statuses() {
            let full = status.backlog_entries >= bounds.backlog_entries_max
                || status.backlog_bytes >= bounds.backlog_bytes_max;
            let detail = match &status.last_error {
                Some(error) => error.clone(),
                None if full => "the journal is full".into(),
                None if !status.set_aside.is_empty() => {
                    let waiting: usize = status.set_aside.iter().map(|aside| aside.targets_count).sum();
                    format!("{} changes wait; {waiting} targets for a lock of another session", status.backlog_entries)
                }
                None if status.overdue => format!(
                    "{} changes wait; the rules flush nothing, so the host does after flush.age_ms_max",
                    status.backlog_entries
                ),
                None => format!("{} changes wait", status.backlog_entries),
            };
            checks.push(Check {
                name: format!("flush:{}", status.kind),
                ready: !full && !status.stuck && !status.ended,
                detail,
            });
        }
        checks
    }
}

#[async_trait]
impl Operations for Desk {
    fn stuck(&self) -> Option<String> {
        let refusing = self.app.store.refusing()?;
        let time = refusing.since.elapsed();
        let is_long = time >= std::time::Duration::from_millis(self.app.config.store.restart_after_ms);
        is_long.then(|| format!("the store has refused writes for {} s: {}", time.as_secs(), refusing.reason))
    }

    async fn readiness(&self) -> Vec<Check> {
        let check = |name: &str, problem: Option<String>, fine: String| Check {
            name: name.into(),
            ready: problem.is_none(),
            detail: problem.unwrap_or(fine),
        };
        let (store, sql) = tokio::join!(self.app.store.ping(), self.app.sql.ping());
        let durability = self.app.store.durability();
        let (takes_writes, sql) = match (sql, self.app.sql.standing()) {
            (_, Standing::ReadOnly(reason)) => {
                (false, format!("takes no writes, changes wait in the journal: {reason}"))
            }
            (Ok(()), _) => (true, format!("{} answers", self.app.sql.engine())),
            (Err(error), _) => (true, format!("away, changes wait in the journal: {error}")),
        };
        let mut checks = vec![
            check("store", store.err().map(|error| error.to_string()), durability.description),
            // Without SQL the host goes on accepting until its journal is full; that shows as `flush`. With one that takes no
            // writes it may be alone: after a failover others may lead to the server that does.
            Check { name: "sql".into(), ready: takes_writes, detail: sql },
            check("schema", self.app.schema.problem(), "checked".into()),
        ];
        let keys = self.http.check_keys().into_iter();
        checks.extend(keys.map(|(ready, detail)| Check { name: "token-keys".into(), ready, detail }));
        let nodes = self.app.store.nodes().await.into_iter();
        checks.extend(nodes.map(|node| Check {
            name: format!("store:{}", node.name),
            ready: node.fit,
            detail: node.detail,
        }));
        checks.extend(self.policy_checks());
        // Its requests are refused, and all others served: no reason to take hosts away.
        checks.extend(self.app.kinds().upstreams.distrusted().into_iter().map(|(name, reason)| Check {
            name: format!("upstream:{name}"),
            ready: true,
            detail: format!("degraded: {reason}"),
        }));
        checks.extend(self.flush_checks());
        checks.extend(super::holes::checks(&self.app).await);
        checks
    }

    async fn flush_status(&self) -> Result<Value, OperationsError> {
        // Without SQL the rest is still worth seeing.
        let letters: Option<BTreeMap<String, u64>> =
            self.app.sql.dead_letter_counts().await.ok().map(|counts| counts.into_iter().collect());
        let mut kinds = Vec::new();
        for status in self.app.flush_statuses() {
            let dead = letters.as_ref().map(|letters| letters.get(&status.kind).copied().unwrap_or(0));
            let mut kind = json!(status);
            kind["dead_letters"] = json!(dead);
            kinds.push(kind);
        }
        Ok(json!({ "kinds": kinds }))
    }

    async fn flush_now(&self, kind: Option<&str>) -> Result<Value, OperationsError> {
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
        let kinds = done.iter().map(|(kind, flushed)| json!({ "kind": kind, "flushed": flushed }));
        Ok(json!({ "kinds": kinds.collect::<Vec<_>>() }))
    }

    async fn policies(&self) -> Result<Value, OperationsError> {
        self.control(|policies| Ok(policies.status())).await
    }

    async fn upload_policy(&self, by: &str, upload: Upload) -> Result<Value, OperationsError> {
        let by = by.to_owned();
        self.control(move |policies| {
            let Upload { bytes, name, version, vectors, activate } = upload;
            policies.upload(&by, &ModuleUpload { bytes: &bytes, name, version, vectors, activate })
        })
        .await
    }

    async fn command_policy(&self, by: &str, command: ModuleCommand) -> Result<Value, OperationsError> {
        let by = by.to_owned();
        self.control(move |policies| match command {
            ModuleCommand::Activate { module, interfaces } => policies.activate(&by, &module, &interfaces),
            ModuleCommand::Shadow { module, share } => policies.shadow(&by, &module, share),
            ModuleCommand::Canary { module, share } => policies.canary(&by, &module, share),
            ModuleCommand::EndShadow => policies.end_shadow(&by),
            ModuleCommand::EndCanary => policies.end_canary(&by),
            ModuleCommand::Rollback => policies.rollback(&by),
            ModuleCommand::Delete { module } => policies.delete(&by, &module),
        })
        .await
    }

    async fn policy_diff(&self) -> Result<Value, OperationsError> {
        Ok(self.app.policies.diff())
    }

    async fn policy_audit(&self, limit: usize) -> Result<Value, OperationsError> {
        self.control(move |policies| Ok(policies.audit(limit))).await
    }

    async fn dead_letters(&self, kind: Option<&str>, after: i64, limit: usize) -> Result<Value, OperationsError> {
        self.operator.dead_letters(kind, after, limit).await
    }

    async fn replay_dead_letter(&self, id: i64) -> Result<(), OperationsError> {
        self.operator.replay_dead_letter(id).await
    }

    async fn drop_dead_letter(&self, id: i64) -> Result<(), OperationsError> {
        self.operator.drop_dead_letter(id).await
    }

    async fn journal_holes(&self, kind: Option<&str>) -> Result<Value, OperationsError> {
        self.operator.journal_holes(kind).await
    }

    async fn acknowledge_holes(&self, kind: &str) -> Result<Value, OperationsError> {
        self.operator.acknowledge_holes(kind).await
    }

    async fn explain(&self, kind: &str, target: &str, actor: Option<&str>) -> Result<Value, OperationsError> {
        self.operator.explain(kind, target, actor).await
    }

    async fn cache(&self) -> Result<Value, OperationsError> {
        let kinds = self.app.kinds();
        Ok(json!({
            "reads": kinds.reads.states(),
            "upstreams": kinds.upstreams.states(),
            "purge": {
                "key": "one answer, of an upstream with all its variants: `key` of a read or an upstream, filled in",
                "prefix": "what has a key that begins so",
                "group": "one of `groups` of a read or an upstream",
                "all": "1: everything",
                "mode": "hard (default): it is told no more; soft: it is stale",
            },
            "memory": { "reads": kinds.reads.memory(), "upstream": kinds.upstreams.memory() },
        }))
    }

    async fn purge_cache(&self, purge: Purge) -> Result<Value, OperationsError> {
        let kinds = self.app.kinds();
        super::purge::purge((&kinds.reads, &kinds.upstreams), self.app.ledger(), &purge)?;
        Ok(json!({ "purged": true }))
    }

    async fn room_arrivals(&self, kind: &str, queue: &str, skip: u64, limit: usize) -> Result<Value, OperationsError> {
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
        Ok(json!({ "arrivals": arrivals.iter().map(Id::to_json).collect::<Vec<_>>() }))
    }

    fn metrics(&self) -> String {
        tally::hand_over();
        let mut text = self.metrics.render();
        text.push_str(&telemetry::write_own());
        text
    }
}
