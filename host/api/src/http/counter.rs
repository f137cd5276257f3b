//! The requests of the counter capability.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::http::request::Parts;
use serde_json::Value;

use super::problem::{INVALID_BODY, Repeatable, TARGET_MISSING, from_refusal};
use super::reply;
use super::shared::{Shared, refused_read};
use super::{json, query};
use weir_core::config::ActorNeed;
use weir_core::model::Id;
use weir_listener::Reply;
use weir_listener::problem::Problem;
use weir_write::counter::{CountRequest, CounterKind};

/// One kind.
pub(super) struct CounterView {
    kind: Arc<CounterKind>,
}

/// A hit whose head was understood; its body is still to be read.
pub(super) struct Hit {
    target: Id,
    actor: Option<Id>,
    idempotency_key: Option<String>,
}

impl CounterView {
    pub(super) fn new(kind: Arc<CounterKind>) -> Self {
        Self { kind }
    }

    fn actor(&self, shared: &Shared, headers: &HeaderMap, peer: IpAddr) -> Result<Option<Id>, Problem> {
        shared.authenticator.actor(headers, peer, self.kind.config().table.actor_type)
    }

    fn target(&self, segment: &str) -> Result<Id, Problem> {
        query::target(segment, self.kind.config().table.target_type)
    }

    /// `POST`: everything but the body.
    pub(super) fn read_hit(&self, shared: &Shared, head: &Parts, peer: IpAddr, segment: &str) -> Result<Hit, Problem> {
        let target = self.target(segment)?;
        let [] = query::parameters(head.uri.query(), [])?;
        let actor = self.actor(shared, &head.headers, peer)?;
        if actor.is_none() && self.kind.config().actor == ActorNeed::Required {
            return Err(shared.authenticator.missing());
        }
        Ok(Hit { target, actor, idempotency_key: query::idempotency_key(&head.headers)? })
    }

    /// `POST`. `body` is empty, or JSON.
    pub(super) async fn count(&self, shared: &Shared, hit: Hit, body: &[u8]) -> Result<Reply, Problem> {
        let by = by(body, self.kind.config().by_max)?;
        let Hit { target, actor, idempotency_key } = hit;
        let repeatable = if idempotency_key.is_some() { Repeatable::Yes } else { Repeatable::No };
        let counted = shared.within(self.kind.write(CountRequest { target, actor, by, idempotency_key })).await;
        counted.map(|reply| reply::counted(&reply)).map_err(|refusal| from_refusal(&refusal, repeatable))
    }

    /// `GET` of one target.
    pub(super) async fn read(&self, shared: &Shared, head: &Parts, segment: &str) -> Result<Reply, Problem> {
        let target = self.target(segment)?;
        let [] = query::parameters(head.uri.query(), [])?;
        let counts = shared.within(self.kind.read(std::slice::from_ref(&target))).await;
        match counts.map_err(refused_read)?.first() {
            Some(Some(count)) => Ok(reply::count(*count, shared.clock.now_ms())),
            _ => Err(Problem::new(&TARGET_MISSING, "use the id of a target that exists")),
        }
    }

    /// `GET` of many targets.
    pub(super) async fn read_many(&self, shared: &Shared, head: &Parts) -> Result<Reply, Problem> {
        let [targets] = query::parameters(head.uri.query(), ["targets"])?;
        let targets = query::targets(targets, self.kind.config().table.target_type, shared.targets_max)?;
        let counts = shared.within(self.kind.read(&targets)).await.map_err(refused_read)?;
        Ok(reply::counts(&targets, &counts))
    }

    /// `GET …/status`.
    pub(super) async fn status(&self, shared: &Shared, head: &Parts, segment: &str) -> Result<Reply, Problem> {
        self.target(segment)?;
        shared.status(self.kind.context(), head).await
    }
}

/// The amount to add: `{"by": n}`, or 1 for an empty body.
fn by(body: &[u8], by_max: u32) -> Result<u32, Problem> {
    let wrong = || Problem::new(&INVALID_BODY, format!("send no body, or {{\"by\": n}} with n from 1 to {by_max}"));
    if body.is_empty() {
        return Ok(1);
    }
    let Value::Object(fields) = json::read(body)? else { return Err(wrong()) };
    if fields.keys().any(|name| name != "by") {
        return Err(wrong());
    }
    match fields.get("by") {
        None => Ok(1),
        Some(by) => {
            let by = by.as_u64().and_then(|by| u32::try_from(by).ok()).filter(|by| (1..=by_max).contains(by));
            by.ok_or_else(wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_counts_one_unless_it_says_more() {
        let of = |body: &str| by(body.as_bytes(), 10).ok();
        assert_eq!([of(""), of("{}"), of("{\"by\":1}"), of("{\"by\":10.0}")], [Some(1), Some(1), Some(1), Some(10)]);
        for wrong in [
            "{\"by\":0}",
            "{\"by\":11}",
            "{\"by\":-1}",
            "{\"by\":1.5}",
            "{\"by\":\"1\"}",
            "{\"by\":null}",
            "[1]",
            "1",
            "{\"of\":1}",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
