//! Whether a running host is ready, check by check.

use super::running::RunningHost;
use crate::operators::Check;
use crate::sql::Standing;

impl RunningHost {
    /// Every check, those that hold too.
    pub(super) async fn checks(&self) -> Vec<Check> {
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
        checks.extend(crate::app::holes::checks(&self.app).await);
        checks
    }

    /// A module that fails does not make the host unready: another host has the same rules, and what its kinds do then is
    /// configured. It is said all the same.
    fn policy_checks(&self) -> Vec<Check> {
        let modules = self.app.policies.registry.modules().into_iter();
        let fallbacks = self.app.policies.rules.fallbacks();
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
            .chain(self.app.policies.registry.unsaved().map(|reason| Check {
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
